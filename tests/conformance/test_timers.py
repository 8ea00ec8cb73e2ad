"""Timers: never early, in their order, and where they may be set and canceled."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from netpoll import AcceptSocketError, EngineShutdown, PollAttachment, Poller
from netpoll.queue import Timer
from tests.conformance.worlds import HIGH, PATIENCE, World, is_silent, raising


def test_never_early(world: World, poller: Poller) -> None:
    """A timer runs when its time has come; poll_once waits for it and no longer."""
    fired: list[float] = []
    began = world.clock()
    poller.call_later(world.tick, lambda _: fired.append(world.clock()))
    while not fired:
        assert poller.poll_once(PATIENCE) == 0
    assert fired[0] >= began + world.tick
    assert world.passed(began, world.tick)


def test_never_early_in_a_busy_loop(world: World, poller: Poller) -> None:
    """Rounds that come before its time do not run it, however shortly before."""
    fired: list[float] = []
    timer = poller.call_later(world.tick, lambda _: fired.append(world.clock()))
    while not fired:
        poller.poll_once(world.tick / 512)
    assert fired[0] >= timer.deadline


def test_parameter(world: World, poller: Poller) -> None:
    """The function gets the parameter, None when there is none."""
    got: list[object] = []
    poller.call_later(0, got.append, 7)
    poller.call_later(0, got.append)
    poller.poll_once(0)
    assert got == [7, None]


def test_order_is_by_deadline_then_by_creation(world: World, poller: Poller) -> None:
    """However they were set; on a virtual clock three have the same deadline each time."""
    order: list[Timer] = []
    timers = [
        poller.call_later(ticks * world.tick, lambda number: order.append(timers[number]), number)
        for number, ticks in enumerate([3, 1, 2] * 3)
    ]
    while len(order) < len(timers):
        poller.poll_once(PATIENCE)
    assert order == sorted(timers, key=lambda timer: timer.deadline)
    assert len({timer.deadline for timer in timers}) == 3 or not world.simulated


def test_due_together_run_in_one_round(world: World, poller: Poller) -> None:
    """All that are due run, before the tasks of that round."""
    order: list[str] = []
    for number in range(3):
        poller.call_later(0, order.append, f"timer {number}")
    poller.trigger(HIGH, order.append, "task")
    assert poller.poll_once(0) == 0
    assert order == ["timer 0", "timer 1", "timer 2", "task"]


@pytest.mark.parametrize("delay", [0, -1, -math.inf, -1e-9])
def test_negative_delay_counts_as_zero(world: World, poller: Poller, delay: float) -> None:
    """It runs in the next round, without a wait, and never within the call that sets it."""
    ran: list[int] = []
    timer = poller.call_later(delay, ran.append, 1)
    assert ran == []
    began = world.clock()
    assert poller.poll_once() == 0
    assert world.did_not_wait(began)
    assert ran == [1]
    assert timer.deadline >= 0


def test_wrong_timers(world: World, poller: Poller) -> None:
    """NaN is a ValueError, what is no number or can't be called a TypeError; nothing is set."""
    with pytest.raises(ValueError, match="not a number"):
        poller.call_later(math.nan, print)
    with pytest.raises(TypeError):
        poller.call_later("1", print)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        poller.call_later(0, None)  # type: ignore[arg-type]
    assert is_silent(world, poller)


def test_endless_delay(world: World, poller: Poller) -> None:
    """A timer that is never due keeps no wait from ending, nor any other timer from running."""
    ran: list[int] = []
    poller.call_later(math.inf, ran.append, 0)
    poller.call_later(world.tick, ran.append, 1)
    began = world.clock()
    while not ran:
        poller.poll_once(PATIENCE)
    assert world.passed(began, world.tick)
    assert ran == [1]


def test_cancel(world: World, poller: Poller) -> None:
    """A canceled timer never runs; cancel says whether that was still to come."""
    ran: list[str] = []
    canceled = poller.call_later(0, ran.append, "canceled")
    kept = poller.call_later(0, ran.append, "kept")
    assert canceled.cancel() is True
    assert canceled.cancel() is False
    poller.poll_once(0)
    assert ran == ["kept"]
    assert kept.cancel() is False


def test_canceled_timer_ends_no_wait(world: World, poller: Poller) -> None:
    """A wait lasts to its end, though a canceled timer's time comes before."""
    poller.call_later(world.tick, print).cancel()
    began = world.clock()
    assert poller.poll_once(2 * world.tick) == 0
    assert world.passed(began, 2 * world.tick)


def test_cancel_from_a_timer_due_in_the_same_round(world: World, poller: Poller) -> None:
    """The later of two that are due is not run when the earlier one cancels it."""
    ran: list[str] = []
    poller.call_later(0, lambda _: later.cancel())
    later = poller.call_later(0, ran.append, "canceled")
    poller.call_later(0, ran.append, "last")
    poller.poll_once(0)
    assert ran == ["last"]


def from_a_callback(world: World, poller: Poller, act: Callable[[], object]) -> None:
    """Call `act` from a callback."""

    def callback(fd: int, event: int, flags: int) -> None:
        poller.delete(fd)
        act()

    poller.add_write(PollAttachment(world.pair()[0], callback))


def from_a_task(world: World, poller: Poller, act: Callable[[], object]) -> None:
    """Call `act` from a task."""
    poller.trigger(HIGH, lambda _: act())


def from_a_timer(world: World, poller: Poller, act: Callable[[], object]) -> None:
    """Call `act` from a timer."""
    poller.call_later(0, lambda _: act())


def during_a_wait(world: World, poller: Poller, act: Callable[[], object]) -> None:
    """Call `act` from another thread, or from an action of the simulated kernel."""
    world.after(world.tick, act)


PLACES = [from_a_callback, from_a_task, from_a_timer, during_a_wait]


@pytest.mark.parametrize("place", PLACES)
def test_set_from_anywhere(
    world: World,
    poller: Poller,
    place: Callable[[World, Poller, Callable[[], object]], None],
) -> None:
    """A timer that is set in the loop, or while it waits, ends the wait at its time."""
    began: list[float] = []

    def act() -> None:
        began.append(world.clock())
        poller.call_later(world.tick, lambda _: poller.stop())

    place(world, poller, act)
    poller.polling()
    assert world.passed(began[0], world.tick)


def test_zero_delays_do_not_starve_events(world: World, poller: Poller) -> None:
    """A timer that sets itself anew with no delay runs once a round, between the events."""
    order: list[str] = []

    def again(_: object) -> None:
        order.append("timer")
        poller.call_later(0, again)

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        if order.count("event") == 5:
            poller.stop()

    poller.add_write(PollAttachment(world.pair()[0], callback))
    poller.call_later(0, again)
    poller.polling()
    assert order == ["timer", "event"] * 5 + ["timer"]


def test_timers_and_events_share_the_wait(world: World, poller: Poller) -> None:
    """An event ends a wait before the timer's time, which is not forgotten for it."""
    here, there = world.pair()
    order: list[str] = []

    def callback(fd: int, event: int, flags: int) -> None:
        world.read(fd)
        order.append("event")

    poller.add_read(PollAttachment(here, callback))
    poller.call_later(2 * world.tick, order.append, "timer")
    began = world.clock()
    world.after(world.tick, lambda: there.send(b"x"))
    while len(order) < 2:
        poller.poll_once(PATIENCE)
    assert order == ["event", "timer"] or not world.simulated  # a thread may be late
    assert world.passed(began, 2 * world.tick)


def test_timeout_before_the_timer(world: World, poller: Poller) -> None:
    """poll_once's own timeout ends its wait; the timer stays set."""
    ran: list[int] = []
    began = world.clock()
    poller.call_later(2 * world.tick, ran.append, 1)
    assert poller.poll_once(world.tick) == 0
    assert world.passed(began, world.tick)
    while not ran:
        poller.poll_once()
    assert world.passed(began, 2 * world.tick)


def test_exception_in_a_timer(world: World) -> None:
    """It goes to on_error with the Timer; the next one runs."""
    failed: list[tuple[object, Exception]] = []
    poller = world.open_poller(on_error=lambda *what: failed.append(what))
    error = ValueError("no")
    ran: list[int] = []
    timer = poller.call_later(0, raising(error))
    poller.call_later(0, ran.append, 1)
    poller.poll_once(0)
    assert failed == [(timer, error)]
    assert isinstance(timer, Timer)
    assert ran == [1]


@pytest.mark.parametrize("error", [EngineShutdown(), AcceptSocketError("no"), SystemExit(3)])
def test_what_leaves_the_loop_from_a_timer(
    world: World, poller: Poller, error: BaseException
) -> None:
    """EngineShutdown ends polling() normally, the others get out; the next timer is not lost."""
    ran: list[int] = []
    poller.call_later(0, raising(error))
    poller.call_later(0, ran.append, 1)
    if isinstance(error, EngineShutdown):
        poller.polling()
    else:
        with pytest.raises(type(error)):
            poller.polling()
    assert ran == []
    poller.poll_once()
    assert ran == [1]


def test_thousands_of_canceled_timers(world: World, poller: Poller) -> None:
    """Canceled ones do not pile up, and the one among them that was not canceled runs."""
    ran: list[int] = []
    poller.call_later(world.tick, ran.append, 1)
    for _ in range(20):
        for timer in [poller.call_later(3600, print) for _ in range(500)]:
            timer.cancel()
        poller.poll_once(0)
    assert len(poller.tasks.timers._heap) < 1000
    while not ran:
        poller.poll_once(PATIENCE)


def test_closed_before_the_timer(world: World, poller: Poller) -> None:
    """Timers of a closed poller never run; cancel may still be called."""
    ran: list[int] = []
    timer = poller.call_later(0, ran.append, 1)
    poller.close()
    timer.cancel()
    with pytest.raises(ValueError, match="closed"):
        poller.call_later(0, ran.append, 1)
    assert ran == []
