"""Timers: when they run and in which order, what cancels them, and what they cost."""

import math
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll
from netpoll import (
    AcceptSocketError,
    EngineShutdown,
    EventPriority,
    PollAttachment,
    Poller,
)
from netpoll.poller import LONGEST_WAIT

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
Failures = list[tuple[object, Exception]]


class Kernel:
    """The module `select` with a clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(select, name)

    def monotonic(self) -> float:
        """Return the time and count the call."""
        self.looks += 1
        return self.now


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def failures() -> Failures:
    return []


@pytest.fixture
def poller(kernel: Kernel, failures: Failures) -> Iterator[Poller]:
    opened = netpoll.open_poller(
        "epoll", kernel=kernel, on_error=lambda *what: failures.append(what)
    )
    with opened as poller:
        yield poller


@pytest.fixture
def pauses(poller: Poller, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The timeouts of the waits, each of which moves the clock instead; a third None stops."""
    asked: list[float | None] = []
    wait = poller.backend.wait

    def passing(timeout: float | None, size: int) -> list[tuple[int, int]]:
        asked.append(timeout)
        events = wait(0, size)
        if not events:
            kernel.now += timeout or 0
        if asked.count(None) == 3:
            poller.stop()
        return events

    monkeypatch.setattr(poller.backend, "wait", passing)
    return asked


@pytest.fixture
def ready_fd() -> Iterator[int]:
    """A descriptor that is always ready for reading."""
    fd = os.eventfd(1, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def raising(error: BaseException) -> Callable[..., None]:
    """Return a function that raises `error`, whatever it is called with."""

    def func(*_: object) -> None:
        raise error

    return func


# ---- when, and in which order -----------------------------------------------------------------


def test_order_is_by_deadline_then_by_creation(poller: Poller, kernel: Kernel) -> None:
    """Timers that are due in one round run by their deadlines; equal ones as they were made."""
    ran: list[int] = []
    for number, delay in enumerate([3, 1, 2, 1, 3, 0, 2, -1, 0]):
        poller.call_later(delay, ran.append, number)
    kernel.now += 3
    poller.poll_once(0)
    assert ran == [5, 7, 8, 1, 3, 2, 6, 0, 4]


def test_each_at_its_time(poller: Poller, kernel: Kernel, pauses: list[float | None]) -> None:
    """The loop waits until the next deadline each time, and then without end."""
    ran: list[tuple[str, float]] = []
    for name, delay in [("c", 2.5), ("a", 1.0), ("b", 1.25), ("d", 2.5)]:
        poller.call_later(delay, lambda name: ran.append((name, kernel.now)), name)
    poller.polling()
    assert ran == [("a", 1001.0), ("b", 1001.25), ("c", 1002.5), ("d", 1002.5)]
    assert pauses == [1.0, 0.25, 1.25, None, None, None]


def test_one_instant_too_early_is_too_early(poller: Poller, kernel: Kernel) -> None:
    """A timer does not run before its deadline, and runs at it."""
    ran: list[int] = []
    timer = poller.call_later(5, ran.append, 1)
    kernel.now = math.nextafter(timer.deadline, 0) if hasattr(math, "nextafter") else 1004.9
    poller.poll_once(0)
    assert ran == []
    kernel.now = timer.deadline
    poller.poll_once(0)
    assert ran == [1]


def test_never_early_on_the_real_clock() -> None:
    """On the machine's own clock no timer runs before its delay has passed."""
    early: list[float] = []
    delays = [number * 0.0003 for number in range(60)]

    def check(deadline: float) -> None:
        if time.monotonic() < deadline:
            early.append(deadline)

    with netpoll.open_poller() as poller:
        for delay in delays:
            poller.call_later(delay, check, time.monotonic() + delay)
        poller.call_later(delays[-1], lambda _: poller.stop())
        poller.polling()
    assert early == []


def test_timers_before_tasks(poller: Poller, kernel: Kernel, ready_fd: int) -> None:
    """A round is: events, timers that are due, urgent tasks, low ones."""
    order: list[str] = []

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        poller.trigger(LOW, order.append, "low")
        poller.trigger(HIGH, order.append, "high")
        poller.call_later(0, order.append, "timer")
        poller.delete(fd)

    poller.tasks.crowded = 0
    poller.add_read(PollAttachment(ready_fd, callback))
    poller.poll_once(0)
    assert order == ["event", "timer", "high", "low"]


def test_task_that_a_timer_triggers_waits_for_the_next_round(poller: Poller) -> None:
    """What is triggered while timers run is not a part of their round."""
    seen: list[list[int]] = []
    ran: list[int] = []
    poller.call_later(0, lambda _: poller.trigger(HIGH, ran.append, 2))
    poller.trigger(HIGH, ran.append, 1)
    poller.trigger(HIGH, lambda _: seen.append(ran.copy()))
    poller.poll_once(0)
    assert seen == [[1]]
    assert ran == [1, 2]


def test_timer_set_by_a_timer_waits_for_the_next_round(
    poller: Poller, ready_fd: int, pauses: list[float | None]
) -> None:
    """Even with delay 0, and so a timer that sets itself does not starve descriptors."""
    order: list[str] = []

    def again(_: object) -> None:
        order.append("timer")
        poller.call_later(0, again)

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        if order.count("event") == 5:
            poller.stop()

    poller.add_read(PollAttachment(ready_fd, callback))
    poller.call_later(0, again)
    poller.polling()
    assert order == ["timer", "event"] * 5 + ["timer"]
    assert pauses == [0] * 5


def test_parameter_and_deadline(poller: Poller, kernel: Kernel) -> None:
    """The function gets the parameter, None when there is none; `over` and `deadline` tell."""
    got: list[object] = []
    timers = [poller.call_later(0, got.append, 7), poller.call_later(2, got.append)]
    assert [timer.deadline for timer in timers] == [1000.0, 1002.0]
    poller.poll_once(0)
    assert [timer.over for timer in timers] == [True, False]
    kernel.now += 2
    poller.poll_once(0)
    assert got == [7, None]
    assert isinstance(timers[0], netpoll.Task)


# ---- poll_once --------------------------------------------------------------------------------


def test_poll_once_returns_when_a_timer_ran(
    poller: Poller, kernel: Kernel, pauses: list[float | None]
) -> None:
    """Without a timeout it waits for the timer, runs it and returns that no event was there."""
    ran: list[int] = []
    poller.call_later(7, ran.append, 1)
    poller.call_later(8, ran.append, 2)
    assert poller.poll_once() == 0
    assert (ran, pauses, kernel.now) == ([1], [7.0], 1007.0)


def test_poll_once_returns_when_a_timer_ran_on_the_real_clock() -> None:
    """The same with a wait that really takes its time."""
    ran: list[int] = []
    with netpoll.open_poller() as poller:
        poller.call_later(0.01, ran.append, 1)
        assert poller.poll_once() == 0
    assert ran == [1]


def test_poll_once_with_a_shorter_timeout(
    poller: Poller, kernel: Kernel, pauses: list[float | None]
) -> None:
    """It returns after its own timeout; the timer runs in a later call."""
    ran: list[int] = []
    poller.call_later(7, ran.append, 1)
    assert poller.poll_once(4) == 0
    assert (ran, kernel.now) == ([], 1004.0)
    assert poller.poll_once(4) == 0
    assert (ran, pauses) == ([1], [4, 3.0])


def test_poll_once_does_not_wait_when_a_timer_is_due(
    poller: Poller, kernel: Kernel, pauses: list[float | None]
) -> None:
    """What is due already runs, and the call looks at the descriptors and returns."""
    ran: list[int] = []
    poller.call_later(7, ran.append, 1)
    kernel.now += 8
    assert poller.poll_once(60) == 0
    assert (ran, pauses) == ([1], [0])


def test_longer_than_a_kernel_can_wait(
    poller: Poller, kernel: Kernel, pauses: list[float | None]
) -> None:
    """A deadline beyond the longest wait takes several, and is still not early."""
    ran: list[float] = []
    poller.call_later(2.5 * LONGEST_WAIT, lambda _: ran.append(kernel.now))
    poller.polling()
    assert pauses[:3] == [LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT / 2]
    assert ran == [1000 + 2.5 * LONGEST_WAIT]


# ---- cancel -----------------------------------------------------------------------------------


def test_cancel_before(poller: Poller, kernel: Kernel) -> None:
    """A timer that is canceled in time never runs; the first cancel alone says so."""
    ran: list[int] = []
    timers = [poller.call_later(1, ran.append, number) for number in range(3)]
    assert [timers[1].cancel(), timers[1].cancel()] == [True, False]
    kernel.now += 1
    poller.poll_once(0)
    assert ran == [0, 2]


def test_cancel_after(poller: Poller) -> None:
    """To cancel what has run is False, whatever the function did."""
    timers = [poller.call_later(0, int, 1), poller.call_later(0, raising(ValueError("no")))]
    poller.poll_once(0)
    assert [timer.cancel() for timer in timers] == [False, False]


def test_cancel_from_its_own_function(poller: Poller) -> None:
    """While it runs it is not to come any more."""
    said: list[bool] = []
    timer = poller.call_later(0, lambda _: said.append(timer.cancel()))
    poller.poll_once(0)
    assert said == [False]


def test_cancel_from_another_of_the_same_deadline(poller: Poller) -> None:
    """The first one due can still cancel the second, but not the other way round."""
    said: list[tuple[str, bool]] = []
    timers = [
        poller.call_later(0, lambda _: said.append(("first", timers[1].cancel()))),
        poller.call_later(0, lambda _: said.append(("second", timers[0].cancel()))),
        poller.call_later(0, lambda _: said.append(("third", timers[0].cancel()))),
    ]
    poller.poll_once(0)
    assert said == [("first", True), ("third", False)]


def test_canceled_timers_wake_nobody(poller: Poller, pauses: list[float | None]) -> None:
    """The loop waits as if they had never been set, and poll_once no shorter than it was told."""
    ran: list[int] = []
    for delay in (3, 5, 0):
        poller.call_later(delay, ran.append, delay).cancel()
    assert poller.poll_once(60) == 0
    poller.call_later(4, ran.append, 4).cancel()
    poller.call_later(7, ran.append, 7)
    poller.call_later(6, ran.append, 6).cancel()
    assert poller.poll_once(60) == 0
    assert poller.poll_once(60) == 0
    assert ran == [7]
    assert pauses == [60, 7.0, 60]


def test_canceled_while_due_does_not_end_poll_once(
    poller: Poller, pauses: list[float | None]
) -> None:
    """One that was due in a round that ended before it, and was canceled then, is none."""
    poller.call_later(0, raising(EngineShutdown()))
    second = poller.call_later(0, int, 1)
    poller.polling()
    assert second.cancel()
    assert poller.poll_once(60) == 0
    assert pauses == [60]


def test_canceled_timers_do_not_pile_up(poller: Poller, kernel: Kernel) -> None:
    """Of thousands that are set and canceled few are kept, and none of those that wait is lost."""
    ran: list[int] = []
    waiting = [poller.call_later(100 - number / 10, ran.append, number) for number in range(100)]
    most = 0
    for _ in range(500):
        for _ in range(20):
            poller.call_later(600, ran.append, -1).cancel()
        poller.poll_once(0)
        most = max(most, len(poller.tasks.timers._heap))
    assert most <= 2 * len(waiting) + 64 + 20
    for timer in waiting:
        timer.cancel() if timer.param % 2 else None
    for _ in range(5000):
        poller.call_later(600, ran.append, -1).cancel()
    poller.poll_once(0)
    assert len(poller.tasks.timers._heap) <= 2 * len(waiting) + 64
    kernel.now += 100
    poller.poll_once(0)
    assert ran == list(range(98, -2, -2))
    assert not poller.tasks.timers._heap


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delay", "func", "error"),
    [
        (math.nan, print, ValueError),
        ("1", print, TypeError),
        (None, print, TypeError),
        (1j, print, TypeError),
        (1, None, TypeError),
        (1, 7, TypeError),
    ],
)
def test_refused(
    poller: Poller,
    pauses: list[float | None],
    delay: Any,
    func: Any,
    error: type[Exception],
) -> None:
    """A delay that is no number, or what can't be called, is an error and sets nothing."""
    with pytest.raises(error):
        poller.call_later(delay, func)
    assert poller.poll_once(60) == 0
    assert pauses == [60]


@pytest.mark.parametrize("delay", [0, -1, -math.inf, -0.0, False])
def test_at_once(poller: Poller, pauses: list[float | None], delay: float) -> None:
    """A negative delay counts as zero: it runs in the next round."""
    ran: list[int] = []
    assert poller.call_later(delay, ran.append, 1).deadline == 1000.0
    poller.poll_once(60)
    assert (ran, pauses) == ([1], [0])


def test_infinite_delay(poller: Poller, pauses: list[float | None]) -> None:
    """A timer for the end of time never runs, and shortens no timeout."""
    ran: list[int] = []
    timer = poller.call_later(math.inf, ran.append, 1)
    assert poller.poll_once(60) == 0
    assert pauses == [60]
    assert ran == []
    assert timer.cancel()


# ---- exceptions, stop and close ---------------------------------------------------------------


def test_on_error_gets_the_timer(poller: Poller, failures: Failures) -> None:
    """An exception goes to on_error with the Timer, once, and the next timer runs."""
    error = ValueError("no")
    ran: list[int] = []
    timer = poller.call_later(0, raising(error), "param")
    poller.call_later(0, ran.append, 1)
    poller.poll_once(0)
    poller.poll_once(0)
    assert failures == [(timer, error)]
    assert ran == [1]


@pytest.mark.parametrize("once", [False, True])
def test_engine_shutdown_in_a_timer(poller: Poller, once: bool) -> None:
    """The call returns; the timers and tasks behind it run in the next, in their order."""
    ran: list[int] = []
    poller.call_later(0, raising(EngineShutdown()))
    poller.call_later(0, ran.append, 1)
    poller.trigger(HIGH, ran.append, 3)
    if once:
        assert poller.poll_once() == 0
    else:
        poller.polling()
    assert ran == []
    poller.call_later(0, ran.append, 2)
    poller.poll_once(0)
    assert ran == [1, 2, 3]


@pytest.mark.parametrize("error", [AcceptSocketError("why"), SystemExit(3), KeyboardInterrupt()])
def test_what_gets_out(poller: Poller, failures: Failures, error: BaseException) -> None:
    """It is raised as it is; the timer that raised is over, the one behind it is not lost."""
    ran: list[int] = []
    poller.call_later(0, raising(error))
    poller.call_later(0, ran.append, 1)
    with pytest.raises(type(error)) as caught:
        poller.polling()
    assert caught.value is error
    assert ran == []
    poller.poll_once(0)
    assert ran == [1]
    assert failures == []


def test_stop_in_a_timer(poller: Poller) -> None:
    """The round is finished first."""
    ran: list[int] = []
    poller.call_later(0, lambda _: poller.stop())
    poller.call_later(0, ran.append, 1)
    poller.trigger(HIGH, ran.append, 2)
    poller.polling()
    assert ran == [1, 2]


def test_close_in_a_timer(poller: Poller, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing runs after it, and to cancel what was left does no harm."""
    ran: list[int] = []
    poller.call_later(0, lambda _: poller.close())
    left = poller.call_later(0, ran.append, 1)
    poller.trigger(HIGH, ran.append, 2)
    poller.polling()
    assert ran == []
    assert "2 queued tasks" in caplog.text
    left.cancel()


def test_closed_poller(poller: Poller) -> None:
    """call_later is a ValueError, and what was set before does not run."""
    ran: list[int] = []
    poller.call_later(0, ran.append, 1)
    timer = poller.call_later(1, ran.append, 1)
    poller.close()
    with pytest.raises(ValueError, match="closed"):
        poller.call_later(0, ran.append, 2)
    timer.cancel()
    assert ran == []


# ---- what they cost, and what else happens in them ----------------------------------------------


def test_loop_without_timers_looks_at_no_clock(
    poller: Poller, kernel: Kernel, ready_fd: int
) -> None:
    """A thousand rounds that have nothing but events to do ask as often for the time as three."""

    def looks_in(rounds: int) -> int:
        calls: list[int] = []

        def callback(fd: int, event: int, flags: int) -> None:
            calls.append(fd)
            if len(calls) == rounds:
                poller.stop()

        poller.add_read(PollAttachment(ready_fd, callback))
        kernel.looks = 0
        poller.polling()
        poller.delete(ready_fd)
        assert len(calls) == rounds
        return kernel.looks

    assert looks_in(3) == looks_in(1000)


@pytest.mark.parametrize("edge_triggered", [False, True])
@pytest.mark.parametrize("where", ["task", "timer"])
def test_deleted_and_added_again(poller: Poller, where: str, edge_triggered: bool) -> None:
    """The same descriptor, deleted and added anew between two waits, is reported by the next."""
    here, there = socket.socketpair()
    calls: list[str] = []

    def replace(_: object) -> None:
        poller.delete(here)
        poller.add_read(PollAttachment(here, lambda *_: calls.append("new")), edge_triggered)

    poller.add_read(PollAttachment(here, lambda *_: calls.append("old")), True)
    there.send(b"x")
    assert poller.poll_once(0) == 1
    poller.trigger(HIGH, replace) if where == "task" else poller.call_later(0, replace)
    assert poller.poll_once(0) == 1
    assert calls == ["old", "new"]
    here.close()
    there.close()
