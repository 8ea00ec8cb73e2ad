"""fork in the middle of a loop: what the child may no longer do, and what the parent keeps."""

import multiprocessing
import os
import pathlib
import select
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

import netpoll
from netpoll import EventPriority, PollAttachment

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
PLACES = ["callback", "task", "timer", "on_error"]


class Forking:
    """A loop with much to do that forks once, at the place that is named."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.parent = os.getpid()
        self.forked = False
        self.in_child: Callable[[], object] = lambda: None
        self.from_child = ""
        self.woken = False
        self.before: list[str] = []
        self.after: list[str] = []
        self.ran: list[str] = []
        self.pairs = [socket.socketpair() for _ in range(4)]
        self.poller = netpoll.open_poller(on_error=lambda *_: self.at("on_error"))
        for number, (here, there) in enumerate(self.pairs):
            there.send(b"x")
            self.poller.add_read(PollAttachment(here, self.callback), number % 2 == 0)
        self.queue("")

    def queue(self, which: str) -> None:
        """Set timers that are due and queue tasks."""
        for name in ("timer", "second timer"):
            self.poller.call_later(0, self.run, which + name)
        for name in ("task", "second task"):
            self.poller.trigger(HIGH, self.run, which + name)
        self.poller.trigger(LOW, self.run, which + "low task")

    def run(self, name: str) -> None:
        """Be a task or a timer."""
        self.ran.append(name)
        self.at(name)

    def callback(self, fd: int, event: int, flags: int) -> None:
        """Read the byte; the first one fails."""
        os.read(fd, 1)
        self.ran.append("callback")
        self.at("callback")
        if self.ran.count("callback") == 1:
            raise ValueError("no")

    def at(self, place: str) -> None:
        """Fork, if this is the place. The parent goes on when the child has ended."""
        if place != self.place or self.forked:
            return
        self.forked = True
        self.queue("later ")
        self.before = self.listed()
        reading, self.writing = os.pipe()
        child = os.fork()
        if child == 0:
            self.ran.clear()
            self.in_child()
            return
        self.poller.trigger(LOW, lambda _: self.poller.stop())
        os.close(self.writing)
        if not select.select([reading], [], [], 10)[0]:
            os.kill(child, signal.SIGKILL)
        self.from_child = os.read(reading, 4096).decode()
        os.close(reading)
        os.waitpid(child, 0)
        self.woken = bool(select.select([self.poller.wakeup.fd], [], [], 0)[0])
        self.after = self.listed()

    def listed(self) -> list[str]:
        """Return the kernel's interest list: descriptors and masks."""
        text = pathlib.Path(f"/proc/self/fdinfo/{self.poller.fileno()}").read_text()
        return sorted(line for line in text.splitlines() if line.startswith("tfd:"))

    def polling(self) -> str:
        """Run the loop in both processes; return how it ended in the child."""
        ended = "returned"
        try:
            self.poller.polling()
        except BaseException as error:
            if os.getpid() == self.parent:
                raise
            ended = f"{type(error).__name__}: {error}"
        if os.getpid() != self.parent:
            try:
                os.write(self.writing, f"{ended}; ran {self.ran}".encode())
            finally:
                os._exit(0)
        assert self.woken  # the child has not read the wakeup
        assert self.before == self.after
        return self.from_child

    def close(self) -> None:
        """Close everything."""
        self.poller.close()
        for here, there in self.pairs:
            here.close()
            there.close()


@pytest.fixture(params=PLACES)
def forking(request: pytest.FixtureRequest) -> Iterator[Forking]:
    forking = Forking(request.param)
    yield forking
    forking.close()


def test_loop_ends_in_the_child(forking: Forking) -> None:
    """There nothing of the batch, no timer and no task runs any more, and polling() raises."""
    ended = forking.polling()
    assert ended == (
        f"RuntimeError: this poller belongs to process {os.getpid()}: "
        "open one of its own in a child; ran []"
    )


def test_loop_goes_on_in_the_parent(forking: Forking) -> None:
    """There everything runs, once, and all is registered as before."""
    forking.polling()
    kinds = ["timer", "second timer", "task", "second task", "low task"]
    assert sorted(forking.ran) == sorted(
        ["callback"] * 4 + kinds + ["later " + kind for kind in kinds]
    )
    assert len(forking.poller.attachments) == 4
    for _, there in forking.pairs:
        there.send(b"y")
    forking.ran.clear()
    assert forking.poller.poll_once(0) == 4
    assert forking.ran == ["callback"] * 4


def test_close_in_the_child(forking: Forking) -> None:
    """It closes the child's copies, and polling() returns there; the parent is left alone."""
    numbers = forking.poller.fileno(), forking.poller.wakeup.fd

    def close() -> None:
        forking.poller.close()
        for number in numbers:
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)

    forking.in_child = close
    assert forking.polling() == "returned; ran []"
    assert forking.ran.count("callback") == 4


@pytest.mark.parametrize("forking", ["callback", "task", "timer"], indirect=True)
def test_exception_after_the_fork(forking: Forking) -> None:
    """EngineShutdown lets the child out of the loop in order, into which there is no way back."""

    def shut_down() -> None:
        raise netpoll.EngineShutdown

    forking.in_child = shut_down
    assert forking.polling() == "returned; ran []"
    assert forking.ran.count("callback") == 4


def test_new_poller_in_the_child(forking: Forking) -> None:
    """A poller that the child opens for itself works, on the same descriptors too."""

    def serve() -> None:
        ran = forking.ran
        with netpoll.open_poller() as own:
            here, there = socket.socketpair()
            own.add_read(PollAttachment(here, lambda *_: ran.append("own callback")), True)
            there.send(b"x")
            own.trigger(HIGH, ran.append, "own task")
            own.call_later(0, ran.append, "own timer")
            assert own.poll_once() == 1
            here.close()
            there.close()

    forking.in_child = serve
    ended = forking.polling()
    assert ended.startswith("RuntimeError")
    assert ended.endswith("ran ['own timer', 'own task', 'own callback']")


@pytest.mark.parametrize("forking", ["callback"], indirect=True)
def test_multiprocessing_in_a_callback(forking: Forking) -> None:
    """A Process that a running loop starts with fork does its work; it may not use the poller."""
    context = multiprocessing.get_context("fork")
    exits: list[int | None] = []

    def work() -> None:
        with pytest.raises(RuntimeError, match="belongs to process"):
            forking.poller.trigger(HIGH, print)
        os._exit(7)

    def start(_: object) -> None:
        process = context.Process(target=work)
        process.start()
        process.join(20)
        exits.append(process.exitcode)
        process.close()

    forking.poller.trigger(HIGH, start)
    forking.poller.call_later(0, start)
    here, there = socket.socketpair()
    forking.poller.add_write(PollAttachment(here, lambda *_: start(None)), oneshot=True)
    forking.polling()
    assert exits == [7, 7, 7]
    assert forking.ran.count("callback") == 4
    here.close()
    there.close()
