"""close: from where it may be called, what it waits for and what it leaves undone; fork."""

import gc
import logging
import os
import pathlib
import select
import socket
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

import netpoll
from netpoll import EventPriority, PollAttachment, Poller

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW


@pytest.fixture
def poller() -> Iterator[Poller]:
    with netpoll.open_poller() as poller:
        yield poller


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Four pairs of sockets, all readable here."""
    pairs = [socket.socketpair() for _ in range(4)]
    for _, there in pairs:
        there.send(b"x")
    yield pairs
    for here, there in pairs:
        here.close()
        there.close()


def numbers_of(poller: Poller) -> tuple[int, int]:
    """Return the descriptors that the poller holds."""
    return poller.fileno(), poller.wakeup.fd


def all_closed(numbers: tuple[int, int]) -> bool:
    """Return whether none of them is an epoll or an eventfd any more."""
    for number in numbers:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if "event" in target:
            return False
    return True


Pairs = list[tuple[socket.socket, socket.socket]]


def test_close_when_idle(poller: Poller, pairs: Pairs) -> None:
    """Both descriptors are given back; what was registered stays open."""
    numbers = numbers_of(poller)
    poller.add_read(PollAttachment(pairs[0][0], print))
    poller.close()
    assert poller.closed
    assert all_closed(numbers)
    assert not poller.attachments
    assert pairs[0][0].recv(1) == b"x"


def test_second_close_does_nothing(poller: Poller) -> None:
    """Not even to descriptors that took the numbers meanwhile."""
    numbers = numbers_of(poller)
    poller.close()
    reused = [os.open(os.devnull, os.O_RDONLY) for _ in numbers]
    poller.close()
    for fd in reused:
        os.close(fd)
    assert sorted(reused) == sorted(numbers)


@pytest.mark.parametrize("once", [False, True])
def test_close_in_a_callback(poller: Poller, pairs: Pairs, once: bool) -> None:
    """The rest of the batch is not dispatched, no task runs, and the call returns normally."""
    calls: list[int] = []
    numbers = numbers_of(poller)

    def callback(fd: int, event: int, flags: int) -> None:
        calls.append(fd)
        poller.trigger(HIGH, calls.append, -1)
        poller.close()
        assert poller.closed
        assert not all_closed(numbers)  # the loop still stands on them
        poller.close()
        with pytest.raises(ValueError, match="closed"):
            poller.trigger(HIGH, calls.append, -2)

    for here, _ in pairs:
        poller.add_read(PollAttachment(here, callback))
    if once:
        assert poller.poll_once(0) == 1
    else:
        poller.polling()
    assert len(calls) == 1
    assert all_closed(numbers)


def test_close_in_a_task(poller: Poller) -> None:
    """The tasks behind it, urgent and low, do not run."""
    ran: list[int] = []
    numbers = numbers_of(poller)
    poller.trigger(HIGH, lambda _: poller.close())
    poller.trigger(HIGH, ran.append, 1)
    poller.trigger(LOW, ran.append, 2)
    poller.polling()
    assert ran == []
    assert all_closed(numbers)


def test_close_in_on_error(pairs: Pairs) -> None:
    """on_error may close too."""
    closing = netpoll.open_poller(on_error=lambda *_: closing.close())

    def callback(fd: int, event: int, flags: int) -> None:
        raise ValueError("no")

    for here, _ in pairs:
        closing.add_read(PollAttachment(here, callback))
    assert closing.poll_once(0) == 1
    assert closing.closed


@pytest.mark.parametrize("once", [False, True])
def test_close_from_another_thread(
    poller: Poller, once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends a wait, returns when the descriptors are given back, and the call returns."""
    numbers = numbers_of(poller)
    gone: list[bool] = []
    wait = poller.backend.wait

    def close() -> None:
        poller.close()
        gone.append(all_closed(numbers))

    threads = [threading.Thread(target=close) for _ in range(3)]

    def starting(timeout: float | None, size: int) -> list[tuple[int, int]]:
        for thread in threads:
            thread.start()
        return wait(timeout, size)

    monkeypatch.setattr(poller.backend, "wait", starting)
    if once:
        assert poller.poll_once() == 0
    else:
        poller.polling()
    for thread in threads:
        thread.join()
    assert gone == [True] * 3


def test_close_from_another_thread_waits_for_the_callback(poller: Poller, pairs: Pairs) -> None:
    """A close from outside does not pull the floor from under a callback that runs."""
    numbers = numbers_of(poller)
    order: list[str] = []

    def close() -> None:
        poller.close()
        order.append("closed")

    closer = threading.Thread(target=close)

    def callback(fd: int, event: int, flags: int) -> None:
        closer.start()
        while not poller.closed:
            closer.join(0.001)
        assert closer.is_alive()
        assert not all_closed(numbers)
        order.append("callback ends")

    poller.add_read(PollAttachment(pairs[0][0], callback))
    poller.polling()
    closer.join()
    assert order == ["callback ends", "closed"]


def test_close_while_threads_trigger(poller: Poller) -> None:
    """Threads that go on triggering get ValueError; no strange descriptor is written to."""
    barrier = threading.Barrier(5)
    endings: list[str] = []

    def trigger() -> None:
        barrier.wait()
        try:
            while True:
                poller.trigger(HIGH, int, 0)
        except ValueError as error:
            endings.append(str(error))

    threads = [threading.Thread(target=trigger) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for _ in range(20):
        poller.poll_once(0)
    poller.close()
    numbers = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    for thread in threads:
        thread.join()
    for number in numbers:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(number)
        os.close(number)
    assert endings == ["the poller is closed"] * 4


@pytest.mark.parametrize("running", [False, True])
def test_dropped_tasks_are_counted(
    poller: Poller, caplog: pytest.LogCaptureFixture, running: bool
) -> None:
    """Queued tasks do not run after close, and their number is logged, once."""
    ran: list[int] = []
    if running:
        poller.trigger(HIGH, lambda _: poller.close())
    for number in range(1200):
        poller.trigger(LOW, ran.append, number)
    if running:
        poller.polling()
    poller.close()
    poller.close()
    assert ran == []
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("netpoll", logging.WARNING)
    assert "1200 queued tasks" in record.getMessage()


def test_close_without_tasks_logs_nothing(poller: Poller, caplog: pytest.LogCaptureFixture) -> None:
    """An orderly end is silent."""
    poller.trigger(HIGH, int, 0)
    poller.poll_once(0)
    poller.close()
    assert not caplog.records


@pytest.mark.parametrize("part", ["backend", "wakeup", "tasks"])
def test_interrupted_close_can_be_repeated(
    poller: Poller, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """After KeyboardInterrupt in the middle of close, the next close ends it."""
    numbers = numbers_of(poller)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(getattr(poller, part), "drop" if part == "tasks" else "close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            poller.close()
    assert not all_closed(numbers)
    poller.close()
    assert all_closed(numbers)


def test_with_statement(poller: Poller) -> None:
    """Leaving the block closes, also by an exception, which is not swallowed."""
    with pytest.raises(ZeroDivisionError), netpoll.open_poller() as other:
        raise ZeroDivisionError
    assert other.closed
    other.close()
    with poller as entered:
        assert entered is poller
    assert poller.closed


# ---- fork -------------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> str:
    """Fork, do `work` in the child, and return what it raised there, or an empty string."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
        child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def listed(poller: Poller) -> list[str]:
    """Return the kernel's interest list, as text."""
    text = pathlib.Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text()
    return sorted(line for line in text.splitlines() if line.startswith("tfd:"))


def test_child_may_not_use_the_poller(poller: Poller, pairs: Pairs) -> None:
    """In a forked child every method is a RuntimeError that names the owner; stop does nothing."""
    known, unknown = (PollAttachment(pairs[number][0], print) for number in (0, 1))
    poller.add_read(known)
    before = listed(poller)

    def work() -> None:
        for method in (
            lambda: poller.add_read(unknown),
            lambda: poller.mod_write(known),
            lambda: poller.delete(known.fd),
            lambda: poller.trigger(HIGH, print),
            lambda: poller.poll_once(0),
            lambda: poller.polling(),
            lambda: poller.fileno(),
            lambda: poller.__enter__(),
        ):
            with pytest.raises(RuntimeError, match=f"belongs to process {os.getppid()}"):
                method()
        poller.stop()

    assert in_child(work) == ""
    assert listed(poller) == before
    assert not select.select([poller.wakeup.fd], [], [], 0)[0]


def test_close_in_the_child_leaves_the_parent_alone(
    poller: Poller, pairs: Pairs, caplog: pytest.LogCaptureFixture
) -> None:
    """The child's copies are closed; the parent's registrations, tasks and wakeups stay."""
    ran: list[int] = []
    poller.add_read(PollAttachment(pairs[0][0], lambda *_: ran.append(1)))
    poller.trigger(HIGH, ran.append, 2)
    before = listed(poller)

    def work() -> None:
        numbers = numbers_of_copies
        poller.close()
        poller.close()
        assert all_closed(numbers)
        assert not caplog.records

    numbers_of_copies = numbers_of(poller)
    assert in_child(work) == ""
    assert listed(poller) == before
    assert poller.poll_once(0) == 1
    assert ran == [2, 1]


def test_close_in_the_child_does_not_wait_for_a_lost_thread(poller: Poller) -> None:
    """A lock that a thread of the parent held at the fork does not hang the child."""
    locked, proceed = threading.Event(), threading.Event()

    def hold() -> None:
        with poller.lock:
            locked.set()
            assert proceed.wait(10)

    def work() -> None:
        with pytest.raises(RuntimeError, match="belongs to process"):
            poller.poll_once(0)
        poller.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(10)
    try:
        assert in_child(work) == ""
    finally:
        proceed.set()
        thread.join()


def test_child_that_drops_the_poller(pairs: Pairs) -> None:
    """A poller that is garbage in the child does no harm to the parent's."""
    holder = [netpoll.open_poller()]
    holder[0].add_read(PollAttachment(pairs[0][0], lambda *_: None))

    def work() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            holder.clear()
            gc.collect()

    assert in_child(work) == ""
    assert holder[0].poll_once(0) == 1
    holder[0].close()
