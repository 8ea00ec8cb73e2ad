"""The wakeup that ends a wait, over each of its channels."""

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from netpoll import wakeup as module
from netpoll.wakeup import Channel, Wakeup, eventfd_channel, pipe_channel, socket_channel

CHANNELS: list[Callable[[], Channel]] = [pipe_channel, socket_channel]
if sys.platform == "linux":
    CHANNELS.append(eventfd_channel)


class Tampered:
    """A wakeup whose channel counts the writes, and calls what a test wants around a call."""

    def __init__(self, channel: Channel) -> None:
        self.writes = 0
        self.before_write: Callable[[], object] = lambda: None
        self.after_write: Callable[[], object] = lambda: None
        self.after_read: Callable[[], object] = lambda: None
        self.channel = channel
        self.wakeup = Wakeup(channel._replace(write=self.write, read=self.read))

    def write(self) -> None:
        """Stand in for the channel's write."""
        self.before_write()
        self.writes += 1
        self.channel.write()
        self.after_write()

    def read(self) -> None:
        """Stand in for the channel's read."""
        self.channel.read()
        self.after_read()

    def readable(self) -> bool:
        """Whether a wait would end."""
        return bool(select.select([self.wakeup.fd], [], [], 0)[0])


@pytest.fixture(params=CHANNELS, ids=lambda channel: channel.__name__)
def tampered(request: pytest.FixtureRequest) -> Iterator[Tampered]:
    tampered = Tampered(request.param())
    yield tampered
    tampered.before_write = tampered.after_write = tampered.after_read = lambda: None
    tampered.wakeup.close()


def test_many_wakes_cost_one_write(tampered: Tampered) -> None:
    """Ten calls write once; the first alone says so."""
    assert [tampered.wakeup.wake() for _ in range(10)] == [True] + [False] * 9
    assert tampered.writes == 1


def test_clear_lets_the_next_write_happen(tampered: Tampered) -> None:
    """`clear` reads everything back, says whether there was anything, and `wake` writes again."""
    wakeup = tampered.wakeup
    assert not wakeup.clear()
    wakeup.wake()
    assert wakeup.clear()
    assert not tampered.readable()
    assert wakeup.wake()
    assert tampered.readable()


def test_readable_until_cleared(tampered: Tampered) -> None:
    """It is level-triggered: readable as long as nobody cleared it."""
    tampered.wakeup.wake()
    assert tampered.readable()
    assert tampered.readable()
    tampered.wakeup.clear()
    assert not tampered.readable()


def test_threads_share_one_write(tampered: Tampered) -> None:
    """Wakes from eight threads at once write once, and leave it readable."""
    barrier = threading.Barrier(8)
    wrote: list[bool] = []

    def wake() -> None:
        barrier.wait()
        wrote.append(tampered.wakeup.wake())

    threads = [threading.Thread(target=wake) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wrote) == [False] * 7 + [True]
    assert tampered.writes == 1
    assert tampered.readable()


def test_two_writes_at_once_are_read_back_together(tampered: Tampered) -> None:
    """Should two threads both write, one `clear` reads both."""
    tampered.channel.write()
    tampered.wakeup.wake()
    assert tampered.wakeup.clear()
    assert not tampered.readable()


def test_signal_handler_that_wakes_while_waking(tampered: Tampered) -> None:
    """A `wake` that comes between the decision and the write of another relies on its write."""
    inner: list[bool] = []
    tampered.before_write = lambda: inner.append(tampered.wakeup.wake())
    assert tampered.wakeup.wake()
    assert inner == [False]
    assert tampered.writes == 1


def test_clear_before_the_writer_has_written(tampered: Tampered) -> None:
    """A loop that looks too early leaves the wakeup to come, and does not miss it."""
    cleared: list[bool] = []
    tampered.before_write = lambda: cleared.append(tampered.wakeup.clear())
    tampered.wakeup.wake()
    assert cleared == [False]
    assert tampered.wakeup.clear()
    assert not tampered.readable()


def interrupt() -> None:
    """Be a Ctrl-C."""
    raise KeyboardInterrupt


def test_interrupt_after_the_read(tampered: Tampered) -> None:
    """KeyboardInterrupt between reading and noting it loses no later wakeup."""
    tampered.wakeup.wake()
    tampered.after_read = interrupt
    with pytest.raises(KeyboardInterrupt):
        tampered.wakeup.clear()
    assert tampered.wakeup.wake()
    assert tampered.readable()


def test_interrupt_after_the_write_does_not_spin(tampered: Tampered) -> None:
    """KeyboardInterrupt out of a wake that the loop has cleared already leaves nothing readable."""

    def clear_and_interrupt() -> None:
        assert tampered.wakeup.clear()  # as the loop's thread would
        raise KeyboardInterrupt

    tampered.after_write = clear_and_interrupt
    with pytest.raises(KeyboardInterrupt):
        tampered.wakeup.wake()
    tampered.after_write = lambda: None
    assert not tampered.readable()
    assert tampered.wakeup.wake()


def test_close_waits_for_a_write_on_its_way(
    tampered: Tampered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number is not given back while a thread is about to write to it."""
    decided, proceed = threading.Event(), threading.Event()
    order: list[str] = []

    def before_write() -> None:
        decided.set()
        assert proceed.wait(10)
        order.append("write")

    tampered.before_write = before_write
    writer = threading.Thread(target=tampered.wakeup.wake)
    writer.start()
    assert decided.wait(10)

    class Time:
        """The moment in which `close` waits: the writer goes on."""

        @staticmethod
        def sleep(seconds: float) -> None:
            proceed.set()
            writer.join(10)

    monkeypatch.setattr(module, "time", Time)
    tampered.wakeup.close()
    order.append("closed")
    proceed.set()
    writer.join()
    assert order == ["write", "closed"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_close_in_a_forked_child_takes_no_wakeup_from_the_parent(tampered: Tampered) -> None:
    """The child shares the channel: it closes its copy and does not read."""
    tampered.wakeup.wake()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            tampered.wakeup.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tampered.readable()
    assert tampered.wakeup.clear()


def test_wake_after_close_touches_nothing(tampered: Tampered) -> None:
    """Nothing is written after `close`: the number may stand for another file by now."""
    tampered.wakeup.wake()
    tampered.wakeup.close()
    assert not tampered.wakeup.wake()
    assert tampered.writes == 1


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.__name__)
def test_second_close_closes_nobody_elses_number(channel: Callable[[], Channel]) -> None:
    """A number that another file has taken meanwhile stays open."""
    wakeup = Wakeup(channel())
    wakeup.close()
    others = [os.dup(0) for _ in range(2)]
    try:
        assert wakeup.fd in others
        wakeup.close()
        for fd in others:
            os.fstat(fd)
    finally:
        for fd in others:
            os.close(fd)


def test_not_inheritable(tampered: Tampered) -> None:
    """A program that is executed does not get the descriptor."""
    assert not os.get_inheritable(tampered.wakeup.fd)


def test_failed_write_is_not_taken_for_one_on_its_way(tampered: Tampered) -> None:
    """After a write that failed, the next `wake` writes again (gnet loses all later wakeups)."""

    def fail() -> None:
        raise OSError("injected")

    tampered.before_write = fail
    with pytest.raises(OSError, match="injected"):
        tampered.wakeup.wake()
    tampered.before_write = lambda: None
    assert tampered.wakeup.wake()
