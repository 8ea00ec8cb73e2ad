"""The loop: what poll_once and polling do, what stops them, what goes to on_error, close."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from netpoll import AcceptSocketError, EngineShutdown, PollAttachment, Poller
from tests.conformance.worlds import (
    HIGH,
    LOW,
    PATIENCE,
    Calls,
    World,
    ignore,
    raising,
)

both_calls = pytest.mark.parametrize("once", [False, True], ids=["polling", "poll_once"])

# ---- poll_once --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -1e-9, -math.inf])
def test_timeout_of_zero_or_less_does_not_wait(
    world: World, poller: Poller, timeout: float
) -> None:
    """It looks, dispatches what is there, and returns."""
    here, there = world.pair()
    poller.add_read(PollAttachment(here, ignore))
    began = world.clock()
    assert poller.poll_once(timeout) == 0
    there.send(b"x")
    assert poller.poll_once(timeout) == 1
    assert world.did_not_wait(began)


@pytest.mark.parametrize("ticks", [1, 2.5])
def test_timeout_is_never_early(world: World, poller: Poller, ticks: float) -> None:
    """Nothing happens: it returns 0 when the time is over, with something registered or not."""
    for _ in range(2):
        began = world.clock()
        assert poller.poll_once(ticks * world.tick) == 0
        assert world.passed(began, ticks * world.tick)
        poller.add_read(PollAttachment(world.pair()[0], ignore))


@pytest.mark.parametrize("timeout", [1e-9, 1e-6, 0.0004, 0.0011])
def test_timeout_below_the_kernels_unit(world: World, poller: Poller, timeout: float) -> None:
    """It is rounded up."""
    began = world.clock()
    assert poller.poll_once(timeout) == 0
    assert began + timeout <= world.clock() < began + PATIENCE


@pytest.mark.parametrize("timeout", [None, math.inf, 1e10, PATIENCE])
def test_wait_ends_with_an_event(world: World, poller: Poller, timeout: float | None) -> None:
    """None, and what no kernel can count, waits as long as it takes."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here))
    began = world.clock()
    world.after(world.tick, lambda: there.send(b"x"))
    assert poller.poll_once(timeout) == 1
    assert world.passed(began, world.tick)


def test_wrong_arguments(world: World, poller: Poller) -> None:
    """NaN is a ValueError, what is no number or can't be called a TypeError; it works on."""
    wrong: Any = "1"
    with pytest.raises(ValueError, match="not a number"):
        poller.poll_once(math.nan)
    with pytest.raises(TypeError):
        poller.poll_once(wrong)
    for method in (poller.polling, lambda callback: poller.poll_once(0, callback)):
        with pytest.raises(TypeError, match="callback"):
            method(wrong)
    assert not poller.running
    assert poller.poll_once(0) == 0


def test_counts_what_was_dispatched(world: World, poller: Poller) -> None:
    """Not wakeups, and not events of what a callback of the same batch deleted."""

    def callback(fd: int, event: int, flags: int) -> None:
        poller.trigger(HIGH, int, 0)
        for other in list(poller.attachments):
            if other != fd:
                poller.delete(other)

    for _ in range(4):
        poller.add_write(PollAttachment(world.pair()[0], callback))
    assert poller.poll_once(0) == 1
    poller.trigger(HIGH, int, 0)
    assert poller.poll_once(0) == 1


def test_blocks_at_once_after_a_batch(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a batch gnet looks once more without waiting; this loop waits for as long as it may."""
    here, there = world.pair()
    timeouts: list[float | None] = []
    wait = poller.backend.wait

    def noted(timeout: float | None, size: int) -> list[tuple[int, int]]:
        timeouts.append(timeout)
        if len(timeouts) == 2:
            poller.stop()
        return wait(timeout, size)

    monkeypatch.setattr(poller.backend, "wait", noted)
    poller.add_read(PollAttachment(here, lambda fd, *_: world.read(fd)))
    there.send(b"x")
    poller.polling()
    assert timeouts == [None, None]


# ---- what ends a call -------------------------------------------------------------------------


def test_engine_shutdown_in_a_callback(world: World, poller: Poller) -> None:
    """polling() returns normally; poll_once() too, with the number of events dispatched."""
    for _ in range(3):
        poller.add_write(PollAttachment(world.pair()[0], raising(EngineShutdown())))
    poller.polling()
    assert poller.poll_once(0) == 1
    assert poller.poll_once(0) == 1
    assert not poller.running


@both_calls
@pytest.mark.parametrize("error", [AcceptSocketError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_gets_out_of_a_callback(
    world: World, poller: Poller, error: BaseException, once: bool
) -> None:
    """It is raised as it is, and the loop can be run again."""
    here, there = world.pair()
    poller.add_read(PollAttachment(here, raising(error)))
    there.send(b"x")
    with pytest.raises(type(error)) as caught:
        poller.poll_once(0) if once else poller.polling()
    assert caught.value is error
    assert not poller.running
    calls = Calls()
    poller.mod_read(calls.of(here))
    assert poller.poll_once(0) == 1


def test_stop_before_polling(world: World, poller: Poller) -> None:
    """polling() returns at once, tasks done; the one after that runs."""
    ran: list[int] = []
    poller.trigger(HIGH, ran.append, 1)
    poller.stop()
    began = world.clock()
    poller.polling()
    assert world.did_not_wait(began)
    assert ran == [1]
    world.after(world.tick, poller.stop)
    poller.polling()
    assert world.passed(began, world.tick)


def test_stop_ends_the_round(world: World, poller: Poller) -> None:
    """From a callback: the rest of the batch is dispatched, the tasks run, polling() returns."""
    order: list[str] = []

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        poller.stop()
        poller.trigger(HIGH, order.append, "task")

    for _ in range(2):
        poller.add_write(PollAttachment(world.pair()[0], callback))
    poller.polling()
    assert order == ["event", "event", "task", "task"]


@pytest.mark.parametrize("timer", [False, True], ids=["task", "timer"])
def test_stop_in_a_task_or_timer(world: World, poller: Poller, timer: bool) -> None:
    """The round's other tasks run, then polling() returns."""
    ran: list[int] = []
    if timer:
        poller.call_later(0, lambda _: poller.stop())
    else:
        poller.trigger(HIGH, lambda _: poller.stop())
    poller.trigger(HIGH, ran.append, 1)
    poller.polling()
    assert ran == [1]


@pytest.mark.parametrize("where", ["callback", "task", "timer"])
def test_no_second_loop(world: World, poller: Poller, where: str) -> None:
    """While one runs, polling() and poll_once() are RuntimeErrors; afterwards they are not."""
    refused: list[str] = []

    def attempt(*_: object) -> None:
        poller.delete(here)  # were it called again, it would fail here
        for method in (poller.polling, poller.poll_once):
            with pytest.raises(RuntimeError, match="runs already"):
                method()
            refused.append(where)
        assert poller.running

    here, _ = world.pair()
    poller.add_write(PollAttachment(here, attempt if where == "callback" else ignore))
    if where == "task":
        poller.trigger(HIGH, attempt)
    elif where == "timer":
        poller.call_later(0, attempt)
    assert poller.poll_once(0) == (1 if where == "callback" else 0)
    assert refused == [where] * 2
    assert poller.poll_once(0) == 0


# ---- exceptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("no"), BlockingIOError("no")])
@pytest.mark.parametrize("common", [False, True], ids=["own callback", "polling's callback"])
def test_exception_in_a_callback(world: World, error: Exception, common: bool) -> None:
    """It goes to on_error with the attachment, and the rest of the batch is dispatched."""
    failed: list[tuple[object, Exception]] = []
    poller = world.open_poller(on_error=lambda *what: failed.append(what))
    func = raising(error)
    attachments = [PollAttachment(world.pair()[0], func) for _ in range(3)]
    for attachment in attachments:
        poller.add_write(attachment)
    assert poller.poll_once(0, func if common else None) == 3
    assert [raised for _, raised in failed] == [error] * 3
    assert {id(source) for source, _ in failed} == set(map(id, attachments))


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "added again"])
def test_exception_after_deleting_oneself(world: World, again: bool) -> None:
    """on_error gets the attachment that was called, though it is no longer registered."""
    failed: list[object] = []
    poller = world.open_poller(on_error=lambda source, _: failed.append(source))

    def callback(fd: int, event: int, flags: int) -> None:
        poller.delete(fd)
        if again:
            poller.add_read(PollAttachment(fd, ignore))
        raise ValueError("no")

    attachment = PollAttachment(world.pair()[0], callback)
    poller.add_write(attachment)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    assert failed == [attachment]


def test_on_error_that_fails_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of on_error itself is logged, and the loop goes on."""
    poller = world.open_poller(on_error=raising(ZeroDivisionError("on_error")))
    for _ in range(2):
        poller.add_write(PollAttachment(world.pair()[0], raising(ValueError("callback"))))
    poller.trigger(HIGH, raising(ValueError("task")))
    assert poller.poll_once(0) == 2
    assert [entry.name for entry in caplog.records] == ["netpoll"] * 3
    assert "ZeroDivisionError: on_error" in caplog.text


# ---- close ------------------------------------------------------------------------------------


def test_close_leaves_descriptors_open(world: World, poller: Poller) -> None:
    """What was registered stays open and usable; nothing is registered any more."""
    here, there = world.pair()
    poller.add_read(PollAttachment(here, ignore))
    there.send(b"x")
    poller.close()
    assert not poller.attachments
    assert here.recv(64) == b"x"


def test_second_close_does_nothing(world: World, poller: Poller) -> None:
    """Not even to descriptors that took the numbers meanwhile."""
    poller.close()
    reading, writing = world.pipe()
    poller.close()
    world.write(writing, b"x")
    assert world.read(reading) == b"x"


@both_calls
def test_close_in_a_callback(world: World, poller: Poller, once: bool) -> None:
    """The rest of the batch is not dispatched, no task runs, and the call returns normally."""
    called: list[object] = []

    def callback(fd: int, event: int, flags: int) -> None:
        called.append(fd)
        poller.trigger(HIGH, called.append)
        poller.close()
        with pytest.raises(ValueError, match="closed"):
            poller.trigger(HIGH, called.append)

    for _ in range(3):
        poller.add_write(PollAttachment(world.pair()[0], callback))
    if once:
        assert poller.poll_once(0) == 1
    else:
        poller.polling()
    assert len(called) == 1
    assert poller.closed


@pytest.mark.parametrize("timer", [False, True], ids=["task", "timer"])
@both_calls
def test_close_in_a_task_or_timer(world: World, poller: Poller, timer: bool, once: bool) -> None:
    """What stands behind it does not run, urgent, low or due; no event is dispatched."""
    ran: list[int] = []
    if timer:
        poller.call_later(0, lambda _: poller.close())
        poller.call_later(0, ran.append, 0)
    else:
        poller.trigger(HIGH, lambda _: poller.close())
    poller.trigger(HIGH, ran.append, 1)
    poller.trigger(LOW, ran.append, 2)
    poller.add_write(PollAttachment(world.pair()[0], lambda fd, *_: ran.append(fd)))
    if once:
        assert poller.poll_once() == 0
    else:
        poller.polling()
    assert ran == []


def test_close_in_on_error(world: World) -> None:
    """It ends the batch as a callback's close does."""
    poller = world.open_poller(on_error=lambda *_: poller.close())
    for _ in range(3):
        poller.add_write(PollAttachment(world.pair()[0], raising(ValueError("no"))))
    assert poller.poll_once(0) == 1
    assert poller.closed


def test_dropped_tasks_are_logged(
    world: World, poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    """Queued tasks do not run after close: their number is logged, once."""
    ran: list[int] = []
    for number in range(1200):
        poller.trigger(LOW, ran.append, number)
    poller.close()
    poller.close()
    assert ran == []
    assert [(entry.name, entry.levelno) for entry in caplog.records] == [
        ("netpoll", logging.WARNING)
    ]
    assert "1200 queued tasks" in caplog.text


def test_with_statement(world: World, poller: Poller) -> None:
    """Leaving the block closes, also by an exception, which is not swallowed."""
    with pytest.raises(ZeroDivisionError), world.open_poller() as other:
        raise ZeroDivisionError
    assert other.closed
    with poller as entered:
        assert entered is poller
        assert not poller.closed
    assert poller.closed
