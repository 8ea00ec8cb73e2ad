"""Other threads: what they register, modify, delete and trigger while the loop waits or works."""

import os
import pathlib
import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import netpoll
from netpoll import EventPriority, PollAttachment, Poller

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
Call = tuple[str, int, int]


class Loop:
    """A poller that runs in a thread, and what its callbacks were called for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.poller = netpoll.open_poller(on_error=lambda _, error: self.failures.append(error))
        self._waiting = threading.Event()
        self._wait = self.poller.backend.wait
        self._thread = threading.Thread(target=self.poller.polling)
        monkeypatch.setattr(self.poller.backend, "wait", self._noted_wait)
        self._thread.start()

    def _noted_wait(self, timeout: float | None, size: int) -> list[tuple[int, int]]:
        if timeout is None:
            self._waiting.set()
        try:
            return self._wait(timeout, size)
        finally:
            self._waiting.clear()

    def until_it_waits(self) -> Poller:
        """Return the poller once its loop waits."""
        assert self._waiting.wait(10)
        return self.poller

    def noting(self, name: str) -> Callable[[int, int, int], None]:
        """Return a callback that reads and notes that it was called."""

        def callback(fd: int, event: int, flags: int) -> None:
            if netpoll.is_read_event(event):
                os.read(fd, 1)
            self.calls.put((name, fd, event))

        return callback

    def next_call(self) -> str:
        """Wait for the next call of a callback and return its name."""
        return self.calls.get(timeout=10)[0]

    def quiet(self) -> bool:
        """Return whether no callback was called, after one more round."""
        over = threading.Event()
        self.poller.trigger(HIGH, lambda _: self.poller.trigger(HIGH, lambda _: over.set()))
        assert over.wait(10)
        return self.calls.empty()

    def end(self) -> None:
        """Stop and close."""
        self.poller.stop()
        self._thread.join()
        self.poller.close()
        assert self.failures == []


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop(monkeypatch)
    yield loop
    loop.end()


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(3)]
    yield pairs
    for here, there in pairs:
        here.close()
        there.close()


Pairs = list[tuple[socket.socket, socket.socket]]


def test_add_during_a_wait(loop: Loop, pairs: Pairs) -> None:
    """A wait under way reports what is added meanwhile, without being woken."""
    here, there = pairs[0]
    poller = loop.until_it_waits()
    poller.add_read(PollAttachment(here, loop.noting("here")))
    there.send(b"x")
    assert loop.next_call() == "here"
    assert loop.quiet()


def test_add_of_what_is_ready_during_a_wait(loop: Loop, pairs: Pairs) -> None:
    """What was ready before it was added ends the wait at once."""
    here, there = pairs[0]
    there.send(b"x")
    loop.until_it_waits().add_read(PollAttachment(here, loop.noting("here")), True)
    assert loop.next_call() == "here"


def test_mod_during_a_wait(loop: Loop, pairs: Pairs) -> None:
    """A wait under way honors a modified registration, and calls the new callback."""
    here, there = pairs[0]
    loop.poller.add_read(PollAttachment(here, loop.noting("read")), oneshot=True)
    loop.until_it_waits().mod_write(PollAttachment(here, loop.noting("write")), oneshot=True)
    assert loop.next_call() == "write"
    loop.until_it_waits().mod_read(PollAttachment(here, loop.noting("again")), oneshot=True)
    assert loop.quiet()
    there.send(b"x")
    assert loop.next_call() == "again"


def test_delete_during_a_wait(loop: Loop, pairs: Pairs) -> None:
    """What is deleted during a wait is not called by it, and leaves nothing in the table."""
    here, there = pairs[0]
    loop.poller.add_read(PollAttachment(here, loop.noting("here")))
    poller = loop.until_it_waits()
    poller.delete(here)
    there.send(b"x")
    assert loop.quiet()
    assert set(poller.callbacks) == {poller.wakeup.fd}


def test_deleted_and_added_again_during_a_wait(loop: Loop, pairs: Pairs) -> None:
    """The new registration is reported by the same wait, edge-triggered too."""
    here, there = pairs[0]
    loop.poller.add_read(PollAttachment(here, loop.noting("old")))
    poller = loop.until_it_waits()
    poller.delete(here)
    poller.add_read(PollAttachment(here, loop.noting("new")), True)
    there.send(b"x")
    assert loop.next_call() == "new"
    assert loop.quiet()


@pytest.mark.parametrize("change", ["delete", "add", "modify"])
def test_kernel_set_rebuilt_during_a_wait(loop: Loop, pairs: Pairs, change: str) -> None:
    """The wait under way looks at the old set, so it is ended: the others are still reported."""
    (here, there), (other, peer), (closed, _) = pairs
    survivor = closed.dup()
    loop.poller.add_read(PollAttachment(other, loop.noting("other")))
    loop.poller.add_read(PollAttachment(closed, loop.noting("closed")))
    number = closed.fileno()
    new = PollAttachment(number, loop.noting("new"))
    poller = loop.until_it_waits()
    closed.close()
    if change == "delete":
        poller.delete(number)
        poller.add_read(PollAttachment(here, loop.noting("new")))
    else:
        os.dup2(here.fileno(), number)
        if change == "modify":
            with pytest.raises(netpoll.NotRegistered):
                poller.mod_read(new)
        poller.add_read(new)
    there.send(b"x")
    assert loop.next_call() == "new"
    peer.send(b"x")
    assert loop.next_call() == "other"
    if change != "delete":
        os.close(number)
    survivor.close()


def test_rebuilding_ends_one_wait_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wakeup that ends the wait is read back, so that the loop does not spin on it."""
    with netpoll.open_poller() as poller:
        here, there = socket.socketpair()
        poller.add_read(PollAttachment(here, lambda *_: None))
        number = here.fileno()
        here.close()
        thread = threading.Thread(target=poller.delete, args=(number,))
        wait = poller.backend.wait

        def starting(timeout: float | None, size: int) -> list[tuple[int, int]]:
            thread.start()
            return wait(timeout, size)

        monkeypatch.setattr(poller.backend, "wait", starting)
        assert poller.poll_once() == 0
        thread.join()
        there.close()
        assert not select.select([poller.wakeup.fd], [], [], 0)[0]


def test_triggers_from_many_threads(loop: Loop) -> None:
    """Tasks of eight threads all run, and those of one thread and priority in their order."""
    ran: dict[tuple[int, EventPriority], list[int]] = {}
    over = threading.Event()
    barrier = threading.Barrier(8)

    def push(name: int) -> None:
        barrier.wait()
        for number in range(500):
            for priority in (HIGH, LOW):
                loop.poller.trigger(priority, ran[name, priority].append, number)

    for name in range(8):
        ran.update({(name, HIGH): [], (name, LOW): []})
    threads = [threading.Thread(target=push, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.poller.trigger(LOW, lambda _: over.set())
    assert over.wait(10)
    assert list(ran.values()) == [list(range(500))] * 16


def test_each_trigger_ends_its_wait(loop: Loop) -> None:
    """One trigger, wait for its task, the next trigger: 500 times, and none is missed."""
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(500):
        loop.poller.trigger(HIGH, done.put, number)
        assert done.get(timeout=10) == number


def test_registrations_from_many_threads(loop: Loop) -> None:
    """Threads add, modify, delete and reuse numbers while the loop dispatches: nothing is left."""
    poller = loop.poller
    failed: list[BaseException] = []

    def spurious(fd: int, event: int, flags: int) -> None:
        """Be called for a number that another thread has just reused, and survive it."""

    def work() -> None:
        try:
            for number in range(60):
                here, there = socket.socketpair()
                there.send(b"x")
                attachment = PollAttachment(here, spurious)
                poller.add_read(attachment, bool(number & 1))
                poller.mod_read_write(attachment, bool(number & 2), oneshot=bool(number & 4))
                poller.delete(attachment.fd)
                here.close()
                there.close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert loop.quiet()
    assert not poller.attachments
    assert set(poller.callbacks) == {poller.wakeup.fd}
    listed = pathlib.Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text().count("tfd:")
    assert listed == 1  # the wakeup


def test_loop_is_handed_from_thread_to_thread() -> None:
    """Any thread may run the loop after another has ended."""
    names: list[str] = []
    with netpoll.open_poller() as poller:
        for number in range(3):
            poller.trigger(HIGH, lambda _: names.append(threading.current_thread().name))
            poller.stop()
            thread = threading.Thread(target=poller.polling, name=f"loop {number}")
            thread.start()
            thread.join()
    assert names == ["loop 0", "loop 1", "loop 2"]
