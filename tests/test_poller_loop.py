"""The loop: rounds, batch sizes, tasks, what exceptions do, stop and poll_once."""

import logging
import math
import os
import pathlib
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll
from netpoll import (
    AcceptSocketError,
    EngineShutdown,
    EventPriority,
    IOEvent,
    PollAttachment,
    Poller,
    Task,
)

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
Source = PollAttachment | Task


@pytest.fixture
def failures() -> list[tuple[Source, Exception]]:
    return []


@pytest.fixture
def poller(failures: list[tuple[Source, Exception]]) -> Iterator[Poller]:
    with netpoll.open_poller(on_error=lambda *what: failures.append(what)) as poller:
        yield poller


@pytest.fixture
def eventfds() -> Iterator[Callable[[int], list[int]]]:
    """Make eventfds that are always ready for reading."""
    opened: list[int] = []

    def make(count: int) -> list[int]:
        fresh = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(count)]
        opened.extend(fresh)
        return fresh

    yield make
    for fd in opened:
        os.close(fd)


def raising(error: BaseException) -> Callable[..., None]:
    """Return a function that raises `error`, whatever it is called with."""

    def func(*_: object) -> None:
        raise error

    return func


Eventfds = Callable[[int], list[int]]


# ---- batch size -------------------------------------------------------------------------------


def test_batch_size_follows_gnet(
    poller: Poller, eventfds: Eventfds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full doubles up to 1024, under half halves down to 32, from the first wait on; 0 does not."""
    (fd,) = eventfds(1)
    poller.add_read(PollAttachment(fd, lambda *_: None))
    returned = [5, 0, 64, 32, 63, 31, 32, 64, 128, 256, 512, 1024, 1024, 512, 511, 0, 255, 128]
    returned += [127, 63, 31, 15, 1, 0, 32]
    sizes: list[int] = []

    def wait(timeout: float | None, size: int) -> list[tuple[int, int]]:
        sizes.append(size)
        if len(sizes) == len(returned):
            poller.stop()
        return [(fd, int(IOEvent.IN))] * returned[len(sizes) - 1]

    size = 128
    expected = []
    for count in returned:
        expected.append(size)
        if count >= size:
            size = min(size * 2, 1024)
        elif 0 < count < size // 2:
            size = max(size // 2, 32)
    monkeypatch.setattr(poller.backend, "wait", wait)
    poller.polling()
    assert sizes == expected
    assert poller.size == size
    assert (min(sizes), max(sizes)) == (32, 1024)


def test_batch_size_with_real_descriptors(poller: Poller, eventfds: Eventfds) -> None:
    """With 200 ready a first wait returns 128, the next all 200; the size outlives the call."""
    for fd in eventfds(200):
        poller.add_read(PollAttachment(fd, lambda *_: None))
    assert poller.poll_once(0) == 128
    assert poller.size == 256
    assert poller.poll_once(0) == 200
    assert poller.size == 256


# ---- tasks ------------------------------------------------------------------------------------


def test_tasks_run_after_the_batch(poller: Poller, eventfds: Eventfds) -> None:
    """Tasks that callbacks trigger run in order, in the same round, after the whole batch."""
    order: list[object] = []

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        poller.trigger(LOW, order.append, f"low {len(order)}")
        poller.trigger(HIGH, order.append, f"high {len(order)}")

    for fd in eventfds(2):
        poller.add_read(PollAttachment(fd, callback))
    assert poller.poll_once(0) == 2
    assert order == ["event", "event", "low 1", "high 1", "low 2", "high 2"]


def test_trigger_passes_its_parameter(poller: Poller) -> None:
    """The function gets the parameter, None when there is none."""
    got: list[object] = []
    poller.trigger(HIGH, got.append, 7)
    poller.trigger(HIGH, got.append)
    assert poller.poll_once(0) == 0
    assert got == [7, None]


@pytest.mark.parametrize("bad", [(7, print), ("HIGH", print), (0, print), (HIGH, None), (LOW, 7)])
def test_bad_trigger(poller: Poller, bad: tuple[Any, Any]) -> None:
    """What is no priority, or can't be called, is a TypeError and queues nothing."""
    with pytest.raises(TypeError):
        poller.trigger(*bad)
    assert not poller.tasks


def test_low_tasks_a_round(poller: Poller, eventfds: Eventfds) -> None:
    """Of 1024 + 600 LOW tasks the first 1024 and 256 run in one round, then 256, then 88."""
    (fd,) = eventfds(1)
    ran: list[int] = []
    seen: list[int] = []

    def callback(fd: int, event: int, flags: int) -> None:
        if not seen:
            for number in range(1624):
                poller.trigger(LOW, ran.append, number)
        seen.append(len(ran))
        if len(seen) == 5:
            poller.stop()

    poller.add_read(PollAttachment(fd, callback))
    poller.polling()
    assert seen == [0, 1280, 1536, 1624, 1624]
    assert ran == list(range(1624))


def test_leftover_tasks_need_no_event(poller: Poller) -> None:
    """Tasks that are left after a round run in the next, though nothing else happens."""
    ran: list[int] = []
    for number in range(2000):
        poller.trigger(LOW, ran.append, number)
    poller.trigger(LOW, lambda _: poller.stop())
    poller.polling()
    assert ran == list(range(2000))


def test_task_that_triggers_itself_does_not_starve_events(
    poller: Poller, eventfds: Eventfds
) -> None:
    """Each round runs such a task once and dispatches what is ready."""
    (fd,) = eventfds(1)
    order: list[str] = []

    def again(_: object) -> None:
        order.append("task")
        poller.trigger(HIGH, again)

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        if order.count("event") == 5:
            poller.stop()

    poller.add_read(PollAttachment(fd, callback))
    poller.trigger(HIGH, again)
    poller.polling()
    assert order == ["task", "event"] * 5 + ["task"]


def test_exception_in_a_task(poller: Poller, failures: list[tuple[Source, Exception]]) -> None:
    """It goes to on_error with the Task; the next task runs."""
    error = OSError("no")
    func = raising(error)
    ran: list[int] = []
    poller.trigger(HIGH, func, "param")
    poller.trigger(HIGH, ran.append, 1)
    poller.poll_once(0)
    ((source, raised),) = failures
    assert isinstance(source, Task)
    assert (source.func, source.param, raised) == (func, "param", error)
    assert ran == [1]


def test_many_triggers_cost_one_write(poller: Poller) -> None:
    """Ten triggers between two rounds write once to the eventfd; after a round again."""
    for _ in range(2):
        for _ in range(10):
            poller.trigger(HIGH, int, 0)
        info = pathlib.Path(f"/proc/self/fdinfo/{poller.wakeup.fd}").read_text()
        found = re.search(r"eventfd-count:\s*([0-9a-f]+)", info)
        assert found
        assert int(found[1], 16) == 1
        poller.poll_once(0)


def test_wakeup_is_read_back(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its round a wakeup does not end the next wait: there is nothing to spin on."""
    waits: list[list[tuple[int, int]]] = []
    wait = poller.backend.wait

    def noted(timeout: float | None, size: int) -> list[tuple[int, int]]:
        waits.append(wait(0, size))
        if len(waits) == 4:
            poller.stop()
        return waits[-1]

    monkeypatch.setattr(poller.backend, "wait", noted)
    poller.trigger(HIGH, int, 0)
    poller.polling()
    assert waits == [[], [], [], []]


# ---- what ends the loop -----------------------------------------------------------------------


def test_engine_shutdown_in_a_callback(poller: Poller, eventfds: Eventfds) -> None:
    """polling() returns; the rest of the batch and the tasks are first in the next call."""
    order: list[int] = []
    fds = eventfds(3)

    def callback(fd: int, event: int, flags: int) -> None:
        order.append(fd)
        poller.delete(fd)
        poller.trigger(HIGH, order.append, -fd)
        raise EngineShutdown

    for fd in fds:
        poller.add_read(PollAttachment(fd, callback))
    for count in (1, 2):
        poller.polling()
        assert len(order) == count
    assert poller.poll_once(0) == 1
    poller.poll_once(0)
    assert sorted(order) == sorted(fds + [-fd for fd in fds])
    assert set(order[:3]) == set(fds)


def test_engine_shutdown_in_a_task(poller: Poller) -> None:
    """polling() returns; the tasks behind it are not lost."""
    ran: list[int] = []
    poller.trigger(HIGH, raising(EngineShutdown()))
    poller.trigger(HIGH, ran.append, 1)
    poller.polling()
    assert ran == []
    poller.poll_once(0)
    assert ran == [1]


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("from_task", [False, True])
@pytest.mark.parametrize("error", [AcceptSocketError("why"), SystemExit(3), KeyboardInterrupt()])
def test_what_gets_out(
    poller: Poller, eventfds: Eventfds, error: BaseException, from_task: bool, once: bool
) -> None:
    """AcceptSocketError, SystemExit and KeyboardInterrupt are raised as they are, nothing lost."""
    ran: list[int] = []
    if from_task:
        poller.trigger(HIGH, raising(error))
    else:
        (fd,) = eventfds(1)
        poller.add_read(PollAttachment(fd, raising(error)), oneshot=True)
        poller.trigger(HIGH, lambda _: poller.trigger(HIGH, ran.append, 0))
    poller.trigger(HIGH, ran.append, 1)
    with pytest.raises(type(error)) as caught:
        poller.poll_once(0) if once else poller.polling()
    assert caught.value is error
    poller.poll_once(0)
    assert sorted(ran) == ([1] if from_task else [0, 1])


def test_poll_once_returns_on_engine_shutdown(poller: Poller, eventfds: Eventfds) -> None:
    """It returns how many events were dispatched, the one that raised included."""
    for fd in eventfds(3):
        poller.add_read(PollAttachment(fd, raising(EngineShutdown())))
    assert poller.poll_once(0) == 1
    poller.trigger(HIGH, raising(EngineShutdown()))
    assert poller.poll_once(0) == 1  # of the two that were left
    for fd in list(poller.attachments):
        poller.delete(fd)
    assert poller.poll_once(0) == 0


# ---- other exceptions -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("no"), BlockingIOError()])
@pytest.mark.parametrize("own", [False, True])
def test_exception_in_a_callback(
    poller: Poller,
    eventfds: Eventfds,
    failures: list[tuple[Source, Exception]],
    error: Exception,
    own: bool,
) -> None:
    """It goes to on_error with the attachment, and the rest of the batch is dispatched."""
    func = raising(error)
    attachments = [PollAttachment(fd, func) for fd in eventfds(3)]
    for attachment in attachments:
        poller.add_read(attachment)
    assert poller.poll_once(0, func if own else None) == 3
    assert [raised for _, raised in failures] == [error] * 3
    assert {id(source) for source, _ in failures} == {id(one) for one in attachments}


@pytest.mark.parametrize("alone", [False, True])
def test_exception_after_deleting_oneself(
    poller: Poller, eventfds: Eventfds, failures: list[tuple[Source, Exception]], alone: bool
) -> None:
    """on_error gets the attachment also when its callback deleted it first."""

    def callback(fd: int, event: int, flags: int) -> None:
        poller.delete(fd)
        raise ValueError("no")

    attachments = [PollAttachment(fd, callback) for fd in eventfds(1 if alone else 3)]
    for attachment in attachments:
        poller.add_read(attachment)
    assert poller.poll_once(0) == len(attachments)
    assert {id(source) for source, _ in failures} == {id(one) for one in attachments}
    assert not poller.attachments


def test_default_on_error_logs(eventfds: Eventfds, caplog: pytest.LogCaptureFixture) -> None:
    """Without on_error the traceback goes to the logger `netpoll`, and who it came from."""
    with netpoll.open_poller() as poller:
        (fd,) = eventfds(1)
        poller.add_read(PollAttachment(fd, raising(ValueError("from a callback"))))
        poller.trigger(HIGH, raising(ValueError("from a task")))
        poller.poll_once(0)
    logged = [(record.name, record.levelno) for record in caplog.records]
    assert logged == [("netpoll", logging.ERROR)] * 2
    assert f"PollAttachment(fd={fd}" in caplog.text
    assert "Task(" in caplog.text
    assert "ValueError: from a callback" in caplog.text
    assert "ValueError: from a task" in caplog.text
    assert "Traceback" in caplog.text


def test_on_error_that_fails_is_logged(
    eventfds: Eventfds, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of on_error itself is logged, and the loop goes on."""
    with netpoll.open_poller(on_error=raising(ZeroDivisionError("on_error"))) as poller:
        for fd in eventfds(2):
            poller.add_read(PollAttachment(fd, raising(ValueError("callback"))))
        poller.trigger(HIGH, raising(ValueError("task")))
        assert poller.poll_once(0) == 2
    assert len(caplog.records) == 3
    assert "ZeroDivisionError: on_error" in caplog.text


# ---- stop -------------------------------------------------------------------------------------


def test_stop_before_polling(poller: Poller, eventfds: Eventfds) -> None:
    """polling() returns at once, after the tasks, and the one after that runs."""
    (fd,) = eventfds(1)
    ran: list[int] = []

    def callback(fd: int, event: int, flags: int) -> None:
        ran.append(1)
        poller.stop()

    poller.add_read(PollAttachment(fd, callback))
    poller.trigger(HIGH, ran.append, 0)
    poller.stop()
    poller.polling()
    assert ran == [0]
    poller.polling()
    assert ran == [0, 1]


def test_stop_in_a_callback_ends_the_round(poller: Poller, eventfds: Eventfds) -> None:
    """The rest of the batch is dispatched and the tasks run, then polling() returns."""
    order: list[str] = []

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        poller.stop()
        poller.trigger(HIGH, order.append, "task")

    for fd in eventfds(2):
        poller.add_read(PollAttachment(fd, callback))
    poller.polling()
    assert order == ["event", "event", "task", "task"]


def test_stop_from_another_thread(poller: Poller) -> None:
    """It ends a wait that nothing else would end."""
    thread = threading.Thread(target=poller.stop)
    poller.trigger(HIGH, lambda _: thread.start())
    poller.polling()
    thread.join()


# ---- poll_once --------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -math.inf, -1e-9])
def test_zero_and_negative_timeouts_do_not_wait(
    poller: Poller, timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero and less only look: the kernel is asked with zero."""
    asked: list[float | None] = []
    wait = poller.backend.wait

    def noted(timeout: float | None, size: int) -> list[tuple[int, int]]:
        asked.append(timeout)
        return wait(timeout, size)

    monkeypatch.setattr(poller.backend, "wait", noted)
    assert poller.poll_once(timeout) == 0
    assert asked == [0]


def test_bad_timeouts(poller: Poller) -> None:
    """NaN is a ValueError, a string a TypeError, and the poller works on."""
    bad: Any = "1"
    with pytest.raises(ValueError, match="the timeout is"):
        poller.poll_once(math.nan)
    with pytest.raises(TypeError):
        poller.poll_once(bad)
    assert poller.poll_once(0) == 0


@pytest.mark.parametrize("timeout", [1e-9, 0.0004, 0.0011, 0.03])
def test_never_early(poller: Poller, timeout: float) -> None:
    """A wait lasts at least as long as asked, also below the kernel's millisecond."""
    began = time.monotonic()
    assert poller.poll_once(timeout) == 0
    assert time.monotonic() - began >= timeout


def test_none_waits_for_an_event(poller: Poller, eventfds: Eventfds) -> None:
    """Without a timeout it returns when there is something, and says how much."""
    (fd,) = eventfds(1)
    poller.add_read(PollAttachment(fd, lambda fd, *_: os.eventfd_read(fd)))
    assert poller.poll_once() == 1
    thread = threading.Thread(target=os.eventfd_write, args=(fd, 1))
    thread.start()
    assert poller.poll_once(None) == 1
    thread.join()


def test_trigger_ends_the_wait(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger from another thread ends poll_once(), which has run the task and returns 0."""
    ran: list[int] = []
    wait = poller.backend.wait
    thread = threading.Thread(target=poller.trigger, args=(HIGH, ran.append, 1))

    def starting(timeout: float | None, size: int) -> list[tuple[int, int]]:
        thread.start()
        return wait(timeout, size)

    monkeypatch.setattr(poller.backend, "wait", starting)
    assert poller.poll_once() == 0
    assert ran == [1]
    thread.join()
    assert not select.select([poller], [], [], 0)[0]  # nor does it end the next wait


def test_late_wakeup_is_read_back(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wakeup whose task has run already, before the thread came to write it, ends one wait."""
    wait = poller.backend.wait

    def writing(timeout: float | None, size: int) -> list[tuple[int, int]]:
        poller.wakeup.wake()
        return wait(timeout, size)

    monkeypatch.setattr(poller.backend, "wait", writing)
    assert poller.poll_once() == 0
    assert not select.select([poller], [], [], 0)[0]


def test_waiting_tasks_do_not_wait_for_events(poller: Poller) -> None:
    """With tasks queued poll_once() runs them and returns, instead of waiting after them."""
    ran: list[int] = []
    poller.trigger(HIGH, ran.append, 1)
    assert poller.poll_once() == 0
    assert ran == [1]


def test_counts_what_was_dispatched(poller: Poller, eventfds: Eventfds) -> None:
    """Wakeups and events of what was deleted in the same batch do not count."""
    fds = eventfds(4)

    def callback(fd: int, event: int, flags: int) -> None:
        poller.trigger(HIGH, int, 0)
        for other in list(poller.attachments):
            if other != fd:
                poller.delete(other)

    for fd in fds:
        poller.add_read(PollAttachment(fd, callback))
    assert poller.poll_once(0) == 1
    assert poller.poll_once(0) == 1


def test_no_second_loop_on_one_poller(poller: Poller, eventfds: Eventfds) -> None:
    """Both polling and poll_once are RuntimeErrors while one runs, wherever they are called."""
    refused: list[str] = []

    def attempt(*_: object) -> None:
        for method in (poller.polling, poller.poll_once):
            with pytest.raises(RuntimeError, match="runs already"):
                method()
            refused.append(threading.current_thread().name)

    def callback(fd: int, event: int, flags: int) -> None:
        attempt()
        thread = threading.Thread(target=attempt, name="other")
        thread.start()
        thread.join()
        poller.trigger(HIGH, attempt)
        poller.stop()

    (fd,) = eventfds(1)
    poller.add_read(PollAttachment(fd, callback))
    poller.polling()
    assert refused == ["MainThread"] * 2 + ["other"] * 2 + ["MainThread"] * 2
    assert poller.poll_once(0) == 1


def test_stop_in_a_round_that_ends_otherwise_is_used_up() -> None:
    """A `stop` in the same round as EngineShutdown does not end the next `polling` too."""
    with netpoll.open_poller() as poller:
        calls: list[int] = []

        def shut_down(_: object) -> None:
            poller.stop()
            raise netpoll.EngineShutdown

        poller.trigger(EventPriority.HIGH, shut_down)
        poller.polling()
        poller.trigger(EventPriority.HIGH, calls.append, 1)
        assert poller.poll_once(0) == 0
        assert calls == [1]


def test_endless_timeout_waits_as_none_does() -> None:
    """An infinite timeout is not an error: it waits for as long as it takes."""
    with netpoll.open_poller() as poller:
        poller.trigger(EventPriority.HIGH, int, 0)
        assert poller.poll_once(float("inf")) == 0
