"""The eventfd that ends a wait."""

import os
import pathlib
import re
import select
import threading
from collections.abc import Callable, Iterator

import pytest

from netpoll import wakeup as module
from netpoll.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def counter(wakeup: Wakeup) -> int:
    """Return the eventfd's counter as the kernel shows it: how often it was written to."""
    info = pathlib.Path(f"/proc/self/fdinfo/{wakeup.fd}").read_text()
    found = re.search(r"eventfd-count:\s*([0-9a-f]+)", info)
    assert found
    return int(found[1], 16)


class Eventfd:
    """Stands between Wakeup and the kernel, to let something happen around a call."""

    def __init__(self, write: Callable[[], object] | None, read: Callable[[], object] | None):
        self.before_write, self.after_read = write, read

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def eventfd_write(self, fd: int, value: int) -> None:
        """Call what was asked for, then the kernel."""
        if self.before_write is not None:
            self.before_write()
        os.eventfd_write(fd, value)

    def eventfd_read(self, fd: int) -> int:
        """Call the kernel, then what was asked for."""
        value = os.eventfd_read(fd)
        if self.after_read is not None:
            self.after_read()
        return value


def test_many_wakes_cost_one_write(wakeup: Wakeup) -> None:
    """Ten calls write once; the first alone says so."""
    assert [wakeup.wake() for _ in range(10)] == [True] + [False] * 9
    assert counter(wakeup) == 1


def test_clear_lets_the_next_write_happen(wakeup: Wakeup) -> None:
    """`clear` reads back to zero, says whether there was anything, and `wake` writes again."""
    assert not wakeup.clear()
    wakeup.wake()
    assert wakeup.clear()
    assert counter(wakeup) == 0
    assert wakeup.wake()
    assert counter(wakeup) == 1


def test_readable_until_cleared(wakeup: Wakeup) -> None:
    """It is level-triggered: readable as long as nobody cleared it."""
    wakeup.wake()
    assert select.select([wakeup.fd], [], [], 0)[0]
    assert select.select([wakeup.fd], [], [], 0)[0]
    wakeup.clear()
    assert not select.select([wakeup.fd], [], [], 0)[0]


def test_threads_share_one_write(wakeup: Wakeup) -> None:
    """Wakes from eight threads at once write once, and leave it readable."""
    barrier = threading.Barrier(8)
    wrote: list[bool] = []

    def wake() -> None:
        barrier.wait()
        wrote.append(wakeup.wake())

    threads = [threading.Thread(target=wake) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wrote) == [False] * 7 + [True]
    assert counter(wakeup) == 1


def test_signal_handler_that_wakes_while_waking(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `wake` that comes between the decision and the write of another relies on its write."""
    inner: list[bool] = []
    eventfd = Eventfd(lambda: inner.append(wakeup.wake()), None)
    monkeypatch.setattr(module, "os", eventfd)
    assert wakeup.wake()
    assert inner == [False]
    assert counter(wakeup) == 1


def test_clear_before_the_writer_has_written(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that looks too early leaves the wakeup to come, and does not miss it."""
    cleared: list[bool] = []
    monkeypatch.setattr(module, "os", Eventfd(lambda: cleared.append(wakeup.clear()), None))
    wakeup.wake()
    assert cleared == [False]
    assert wakeup.clear()
    assert counter(wakeup) == 0


def test_interrupt_after_the_read(wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt between reading and noting it loses no later wakeup."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    wakeup.wake()
    monkeypatch.setattr(module, "os", Eventfd(None, interrupt))
    with pytest.raises(KeyboardInterrupt):
        wakeup.clear()
    monkeypatch.undo()
    assert wakeup.wake()
    assert counter(wakeup) == 1


def test_interrupt_after_the_write_does_not_spin(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KeyboardInterrupt out of a wake that the loop has cleared already leaves nothing readable."""

    def write(fd: int, value: int) -> None:
        os.eventfd_write(fd, value)
        assert wakeup.clear()  # as the loop's thread would
        raise KeyboardInterrupt

    eventfd = Eventfd(None, None)
    monkeypatch.setattr(eventfd, "eventfd_write", write)
    monkeypatch.setattr(module, "os", eventfd)
    with pytest.raises(KeyboardInterrupt):
        wakeup.wake()
    monkeypatch.undo()
    assert counter(wakeup) == 0
    assert wakeup.wake()


def test_close_waits_for_a_write_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is not given back while a thread is about to write to it."""
    wakeup = Wakeup()
    decided, proceed = threading.Event(), threading.Event()
    order: list[str] = []

    def before_write() -> None:
        decided.set()
        assert proceed.wait(10)
        order.append("write")

    class Waiting:
        """`select.poll` that lets the writer go on when it is called."""

        POLLIN = select.POLLIN

        @staticmethod
        def poll() -> object:
            proceed.set()
            return select.poll()

    monkeypatch.setattr(module, "os", Eventfd(before_write, None))
    monkeypatch.setattr(module, "select", Waiting)
    writer = threading.Thread(target=wakeup.wake)
    writer.start()
    assert decided.wait(10)
    wakeup.close()
    order.append("closed")
    proceed.set()
    writer.join()
    assert order == ["write", "closed"]


def test_wake_after_close_touches_nothing() -> None:
    """Nothing is written to a number that may stand for another file by now."""
    wakeup = Wakeup()
    number = wakeup.fd
    wakeup.close()
    other = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert other == number
        assert not wakeup.wake()
        with pytest.raises(BlockingIOError):
            os.eventfd_read(other)
        wakeup.close()  # a second close does not close the other's number
        os.fstat(other)
    finally:
        os.close(other)


def test_not_inheritable(wakeup: Wakeup) -> None:
    """A program that is executed does not get the descriptor."""
    assert not os.get_inheritable(wakeup.fd)


def test_failed_write_is_not_taken_for_one_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that failed, the next `wake` writes again (gnet loses all later wakeups)."""
    wakeup = Wakeup()
    try:

        def fail(fd: int, value: int) -> None:
            raise OSError("injected")

        with monkeypatch.context() as fault:
            fault.setattr(os, "eventfd_write", fail)
            with pytest.raises(OSError, match="injected"):
                wakeup.wake()
        assert wakeup.wake()
    finally:
        wakeup.close()
