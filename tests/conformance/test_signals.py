"""Signals and interrupts: handlers run during the wait, and what they raise gets out."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from netpoll import AcceptSocketError, EngineShutdown, PollAttachment, Poller
from tests.conformance.worlds import HIGH, IN, PATIENCE, Calls, World, is_silent, needs, raising

Handle = Callable[[Callable[[], object]], None]


@pytest.fixture
def handle() -> Iterator[Handle]:
    """Set what happens at SIGUSR1."""
    acts: list[Callable[[], object]] = []

    def handler(number: int, frame: FrameType | None) -> None:
        acts[-1]()

    before = signal.signal(signal.SIGUSR1, handler)
    yield acts.append
    signal.signal(signal.SIGUSR1, before)


def send_signal() -> None:
    """Signal this process's main thread, which runs the handlers."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGUSR1)


class Handled(Exception):
    """What a handler raises."""


def signal_the_next_wait(world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signal when the loop waits, or is about to."""
    wait = poller.backend.wait

    def signaled(timeout: float | None, size: int) -> list[tuple[int, int]]:
        monkeypatch.undo()
        world.after(world.tick, send_signal)
        return wait(timeout, size)

    monkeypatch.setattr(poller.backend, "wait", signaled)


def test_benign_handler_leaves_the_deadline_intact(
    world: World, poller: Poller, handle: Handle
) -> None:
    """Handlers run during the wait, which then goes on for the rest of its time."""
    handled: list[float] = []
    handle(lambda: handled.append(world.clock()))
    began = world.clock()
    for ticks in (1, 2):
        world.after(ticks * world.tick, send_signal)
    assert poller.poll_once(3 * world.tick) == 0
    assert world.passed(began, 3 * world.tick)
    world.until_done()
    assert len(handled) == 2
    if world.simulated:
        assert handled == [began + world.tick, began + 2 * world.tick]


def test_handler_leaves_an_endless_wait_waiting(
    world: World, poller: Poller, handle: Handle
) -> None:
    """poll_once() goes on waiting after a signal until there is an event."""
    here, there = world.pair()
    poller.add_read(PollAttachment(here, lambda fd, *_: world.read(fd)))
    handled: list[int] = []
    handle(lambda: handled.append(1))
    world.after(world.tick, send_signal)
    world.after(2 * world.tick, lambda: there.send(b"x"))
    assert poller.poll_once() == 1
    world.until_done()
    assert handled == [1]


def test_trigger_and_stop_in_a_handler(world: World, poller: Poller, handle: Handle) -> None:
    """They end the wait: the task runs, and polling() returns."""
    ran: list[int] = []

    def act() -> None:
        poller.trigger(HIGH, ran.append, 1)
        poller.stop()

    handle(act)
    began = world.clock()
    world.after(world.tick, send_signal)
    poller.polling()
    assert ran == [1]
    assert world.passed(began, world.tick)


@pytest.mark.parametrize("once", [False, True], ids=["polling", "poll_once"])
@pytest.mark.parametrize("error", [Handled("now"), KeyboardInterrupt(), AcceptSocketError("no")])
def test_what_a_handler_raises_leaves_the_wait_and_the_call(
    world: World,
    poller: Poller,
    handle: Handle,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    once: bool,
) -> None:
    """It is raised as it is, not passed to on_error; the loop can be run again."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here))
    handle(raising(error))
    signal_the_next_wait(world, poller, monkeypatch)
    with pytest.raises(type(error)) as caught:
        poller.poll_once(PATIENCE) if once else poller.polling()
    assert caught.value is error
    assert not poller.running
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]


def test_engine_shutdown_in_a_handler(
    world: World, poller: Poller, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the one that ends the call normally."""
    handle(raising(EngineShutdown()))
    signal_the_next_wait(world, poller, monkeypatch)
    poller.polling()
    assert not poller.running


def lose_the_next_batch(
    poller: Poller,
    monkeypatch: pytest.MonkeyPatch,
    first: Callable[[], object] = lambda: None,
) -> None:
    """Run a wait whose result an interrupt keeps the loop from seeing."""
    wait = poller.backend.wait

    def interrupted(timeout: float | None, size: int) -> list[tuple[int, int]]:
        first()
        assert wait(timeout, size)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(poller.backend, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            poller.poll_once()


@needs("edge_triggered")
def test_edge_is_reported_again_after_an_interrupted_wait(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reported a batch that nobody saw: the next call asks anew, once."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), True)
    there.send(b"x")
    lose_the_next_batch(poller, monkeypatch)
    assert calls.in_rounds(poller, 2) == [IN, 0]


@needs("oneshot")
def test_oneshot_is_armed_again_after_an_interrupted_wait(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose event was lost is reported by the next call, once."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), oneshot=True)
    there.send(b"x")
    lose_the_next_batch(poller, monkeypatch)
    assert calls.in_rounds(poller, 2) == [IN, 0]


@needs("oneshot")
def test_delivered_oneshot_is_not_armed_again(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was called before the interrupt is silent: it does not even end a wait."""
    (here, there), (lost, peer) = world.pair(), world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), oneshot=True)
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    poller.add_read(calls.of(lost))
    peer.send(b"x")
    lose_the_next_batch(poller, monkeypatch)
    lost.recv(64)
    assert is_silent(world, poller)


def test_wakeup_survives_an_interrupted_wait(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger during the lost wait: its task runs, later triggers wake the loop as ever."""
    ran: list[int] = []
    for number in range(3):
        trigger = functools.partial(poller.trigger, HIGH, ran.append, number)
        lose_the_next_batch(poller, monkeypatch, first=trigger)
        assert poller.poll_once(0) == 0
        assert ran == list(range(number + 1))
    assert is_silent(world, poller)
