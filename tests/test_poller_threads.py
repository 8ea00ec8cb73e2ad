"""Other threads: what they register, modify, delete and trigger while the loop waits or works."""

import os
import pathlib
import queue
import select
import socket
import threading
import time
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
        self._thread = threading.Thread(target=self.poller.polling, daemon=True)
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

    def join(self) -> None:
        """Wait for the end of the loop."""
        self._thread.join(10)
        assert not self._thread.is_alive()

    def end(self) -> None:
        """Stop and close."""
        self.poller.stop()
        self.join()
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


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_deleted_and_added_again_during_a_wait(
    loop: Loop, pairs: Pairs, edge_triggered: bool
) -> None:
    """The new registration is reported by the same wait, edge-triggered too."""
    here, there = pairs[0]
    loop.poller.add_read(PollAttachment(here, loop.noting("old")), edge_triggered)
    poller = loop.until_it_waits()
    poller.delete(here)
    poller.add_read(PollAttachment(here, loop.noting("new")), edge_triggered)
    there.send(b"x")
    assert loop.next_call() == "new"
    assert loop.quiet()


def test_on_error_gets_the_old_attachment_when_a_thread_replaces_it(pairs: Pairs) -> None:
    """A callback that fails while another thread replaces its registration is reported itself."""
    here, there = pairs[0]
    sources: list[object] = []
    calls: list[str] = []
    new = PollAttachment(here, lambda *_: calls.append("new"))

    def replace() -> None:
        poller.delete(here)
        poller.add_read(new, True)

    def callback(fd: int, event: int, flags: int) -> None:
        thread = threading.Thread(target=replace)
        thread.start()
        thread.join()
        raise ValueError("no")

    old = PollAttachment(here, callback)
    with netpoll.open_poller(on_error=lambda source, _: sources.append(source)) as poller:
        poller.add_read(old)
        there.send(b"x")
        assert poller.poll_once(0) == 1
        assert poller.poll_once(0) == 1
    assert calls == ["new"]
    assert sources == [old]


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


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Call ``work(number)`` in so many threads at once; raise what one of them raised."""
    barrier = threading.Barrier(count)
    failed: list[BaseException] = []

    def start(number: int) -> None:
        barrier.wait(10)
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_triggers_from_many_threads(loop: Loop) -> None:
    """80,000 tasks of eight threads run once each, those of one thread and priority in order.

    Writes to the wakeup are far fewer: what is queued while one is on its way costs none.
    """
    ran: dict[tuple[int, EventPriority], list[int]] = {
        (name, priority): [] for name in range(8) for priority in (HIGH, LOW)
    }
    writes: list[int] = []
    channel = loop.poller.wakeup._channel

    def write() -> None:
        writes.append(1)
        channel.write()

    loop.poller.wakeup._channel = channel._replace(write=write)

    def push(name: int) -> None:
        for number in range(5_000):
            for priority in (HIGH, LOW):
                loop.poller.trigger(priority, ran[name, priority].append, number)

    in_threads(8, push)
    over = threading.Event()
    loop.poller.trigger(LOW, lambda _: over.set())
    assert over.wait(30)
    assert list(ran.values()) == [list(range(5_000))] * 16
    assert 0 < len(writes) < 8_000


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


# ---- timers -----------------------------------------------------------------------------------


def test_timer_set_during_a_wait_without_end(loop: Loop) -> None:
    """call_later from another thread ends a wait that nothing else would end."""
    ran: queue.SimpleQueue[int] = queue.SimpleQueue()
    loop.until_it_waits().call_later(0.01, ran.put, 1)
    assert ran.get(timeout=10) == 1
    loop.until_it_waits()


def test_earlier_deadline_shortens_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for a far timer is ended by another thread that sets a nearer one."""
    ran: list[str] = []
    with netpoll.open_poller() as poller:
        wait = poller.backend.wait
        pauses: list[float | None] = []

        def nearer() -> None:
            poller.call_later(0.01, ran.append, "nearer")
            poller.call_later(0.02, lambda _: poller.stop())

        thread = threading.Thread(target=nearer)

        def starting(timeout: float | None, size: int) -> list[tuple[int, int]]:
            pauses.append(timeout)
            if len(pauses) == 1:
                thread.start()
            return wait(timeout, size)

        monkeypatch.setattr(poller.backend, "wait", starting)
        poller.call_later(3600, ran.append, "far")
        poller.polling()
        thread.join()
        assert pauses[0]
        assert 3500 < pauses[0] <= 3600
    assert ran == ["nearer"]


def test_canceled_by_another_thread(loop: Loop) -> None:
    """Of timers that others cancel while they fall due, each runs or was canceled, never both."""
    ran: list[int] = []
    canceled: list[int] = []
    timers = [
        loop.poller.call_later(number % 10 / 1000, ran.append, number) for number in range(2000)
    ]

    def cancel(name: int) -> None:
        canceled.extend(timer.param for timer in timers[name::4] if timer.cancel())

    in_threads(4, cancel)
    over = threading.Event()
    loop.poller.call_later(0.01, lambda _: over.set())
    assert over.wait(10)
    assert sorted(ran + canceled) == list(range(2000))


def test_timers_from_many_threads(loop: Loop) -> None:
    """4,000 timers that eight threads set all run, once each, and none too early."""
    ran: list[tuple[int, int]] = []
    early: list[float] = []
    far = loop.poller.call_later(3600, int)

    def fire(what: tuple[int, int, float]) -> None:
        name, number, deadline = what
        ran.append((name, number))
        if time.monotonic() < deadline:
            early.append(deadline)

    def set_some(name: int) -> None:
        for number in range(500):
            delay = (number * 7 + name) % 20 / 1000
            loop.poller.call_later(delay, fire, (name, number, time.monotonic() + delay))

    in_threads(8, set_some)
    over = threading.Event()
    loop.poller.call_later(0.02, lambda _: over.set())
    assert over.wait(30)
    assert sorted(ran) == [(name, number) for name in range(8) for number in range(500)]
    assert early == []
    assert far.cancel()


# ---- stop and close under load ----------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "close"])
def test_ended_during_a_wait(loop: Loop, end: str) -> None:
    """Another thread's stop or close ends a wait that nothing else would end."""
    poller = loop.until_it_waits()
    poller.stop() if end == "stop" else poller.close()
    loop.join()
    assert not poller.running


def test_stop_under_load(loop: Loop) -> None:
    """Threads trigger and set timers while another stops the loop: nothing of it is lost."""
    ran: list[tuple[int, int]] = []
    poller = loop.poller

    def work(name: int) -> None:
        for number in range(1000):
            if name == 0 and number == 500:
                poller.stop()
            if number % 2:
                poller.trigger((HIGH, LOW)[number // 2 % 2], ran.append, (name, number))
            else:
                poller.call_later(0, ran.append, (name, number))

    in_threads(4, work)
    loop.join()
    for _ in range(10):
        poller.poll_once(0)
    assert sorted(ran) == [(name, number) for name in range(4) for number in range(1000)]


def test_close_under_load(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """Threads that add, modify, delete, trigger and set timers all learn of it, and none hangs.

    Numbers that are used again after the close are not touched by any of them.
    """
    poller = loop.poller
    numbers = poller.fileno(), poller.wakeup.fd
    worked = [threading.Event() for _ in range(4)]

    def register(here: socket.socket) -> None:
        attachment = PollAttachment(here, lambda *_: None)
        poller.add_read(attachment, True)
        poller.mod_read_write(attachment)
        poller.delete(here)

    def work(name: int, here: socket.socket) -> None:
        while True:
            if name < 2:
                register(here)
            elif name == 2:
                poller.trigger(LOW, int, 0)
            else:
                poller.call_later(0, int, 0)
            worked[name].set()

    def work_or_close(name: int) -> None:
        if name < 4:
            here, there = socket.socketpair()
            with here, there, pytest.raises(ValueError, match="the poller is closed"):
                work(name, here)
            return
        for event in worked:
            assert event.wait(10)
        poller.close()
        reused.extend(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4))

    reused: list[int] = []
    in_threads(5, work_or_close)
    loop.join()
    assert not os.path.exists(f"/proc/self/fd/{numbers[0]}") or numbers[0] in reused
    for number in reused:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(number)
        os.close(number)
