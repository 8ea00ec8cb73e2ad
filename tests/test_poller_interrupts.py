"""KeyboardInterrupt, and whatever else a signal handler raises, at any moment.

Two ways to find the moments. One is exhaustive: a trace function raises KeyboardInterrupt at every
point of netpoll's code where Python could, one after the other. The other is real: SIGINT at
random moments against a loop that works.
"""

import contextlib
import os
import pathlib
import queue
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import netpoll
from netpoll import EventPriority, PollAttachment, Poller
from netpoll.backends.epoll import mask_of
from netpoll.queue import Timer
from tests.interrupts import NEEDS_REHEARSAL, InterruptAt

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
# (logging is left out: an interrupt there leaves its lock held for good.)
WATCHED = (os.path.dirname(netpoll.__file__), contextlib.__file__)

# ---- every point where Python could raise -----------------------------------------------------


def each_point(scenario: "type[Scenario]") -> Iterator[tuple["Scenario", bool]]:
    """Set the scenario up anew for each point, interrupt it there, and yield it."""
    for place in range(5000):
        reached = False
        for at in (-1, place) if NEEDS_REHEARSAL else (place,):
            one = scenario()
            try:
                moment = InterruptAt(at, WATCHED, __file__)
                got_out = moment.run(one.act)
                assert moment.reached or not got_out
                reached = moment.reached
                yield one, reached
            finally:
                one.end()
        if not reached:
            assert place > 5
            return
    raise AssertionError("it never ends")


def readable(fd: int) -> bool:
    """Return whether `fd` is readable now."""
    return bool(select.select([fd], [], [], 0)[0])


class Reader:
    """A connection and a callback that loses no byte, wherever it is interrupted."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.attachment = PollAttachment(self.here, self.callback)
        self.buffer = bytearray(1 << 16)
        self.view = memoryview(self.buffer)
        self.calls = 0

    def callback(self, fd: int, event: int, flags: int) -> None:
        """Read all there is. What is read is in the buffer before Python can interrupt."""
        self.calls += 1
        try:
            while self.here.recv_into(self.view[self.buffer.index(0) :]):
                pass
        except BlockingIOError:
            pass

    @property
    def received(self) -> bytes:
        """What came so far."""
        return bytes(self.buffer[: self.buffer.index(0)])

    def close(self) -> None:
        """Close both ends."""
        self.here.close()
        self.there.close()


class Scenario:
    """A poller in some state, something to do that is interrupted, and what must hold then."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.poller = netpoll.open_poller(on_error=lambda _, error: self.failures.append(error))
        self.readers = [Reader() for _ in range(3)]
        self.ran: list[int] = []
        self.set_up()

    def set_up(self) -> None:
        """Bring the poller into the state."""

    def act(self) -> None:
        """Do what will be interrupted."""
        raise NotImplementedError

    def end(self) -> None:
        """Close everything."""
        self.poller.close()
        for reader in self.readers:
            reader.close()

    def check(self) -> None:
        """Check that the poller is as good as new: table, kernel, wakeup, loop."""
        poller = self.poller
        self.agree()
        for _ in range(4):
            poller.poll_once(0)
        assert set(poller.callbacks) == {*poller.attachments, poller.wakeup.fd}
        assert not poller.tasks
        assert not readable(poller.wakeup.fd)
        ran: list[int] = []
        poller.trigger(HIGH, ran.append, 1)
        assert readable(poller.wakeup.fd)
        poller.poll_once(0)
        assert ran == [1]
        assert not readable(poller.wakeup.fd)
        for reader in self.readers:
            if reader.here.fileno() in poller.attachments:
                known = reader.received
                reader.there.send(b"fresh")
                poller.poll_once(0)
                assert reader.received == known + b"fresh"
        assert self.failures == []

    def agree(self) -> None:
        """Check that the kernel's list is what the table says."""
        poller = self.poller
        text = pathlib.Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text()
        entries = [line.split() for line in text.splitlines() if line.startswith("tfd:")]
        always = select.EPOLLERR | select.EPOLLHUP
        listed = {int(entry[1]): int(entry[3], 16) & ~always for entry in entries}
        del listed[poller.wakeup.fd]
        known = {fd: mask_of(select, one.interest) for fd, one in poller._registrations.items()}
        assert listed == known


class Add(Scenario):
    """A connection with data is added."""

    def act(self) -> None:
        """Add it."""
        self.readers[0].there.send(b"data")
        self.poller.add_read(self.readers[0].attachment, True)


class Modify(Scenario):
    """A registration is modified."""

    def set_up(self) -> None:
        """Add one."""
        self.poller.add_write(self.readers[0].attachment)

    def act(self) -> None:
        """Modify it."""
        self.poller.mod_read(self.readers[0].attachment, True)

    def check(self) -> None:
        """Bring the old one, if it is that, to the state of the new one."""
        self.agree()
        self.poller.mod_read(self.readers[0].attachment, True)
        super().check()


class Delete(Scenario):
    """A level-triggered connection with unread data is deleted."""

    def set_up(self) -> None:
        """Add it."""
        self.readers[0].there.send(b"data")
        self.poller.add_read(self.readers[0].attachment)

    def act(self) -> None:
        """Delete it."""
        self.poller.delete(self.readers[0].here)


class DeleteInRound(Scenario):
    """A callback deletes two connections; the table is settled after the batch."""

    def set_up(self) -> None:
        """Add them."""

        def first(fd: int, event: int, flags: int) -> None:
            for reader in self.readers:
                if reader.here.fileno() in self.poller.attachments:
                    self.poller.delete(reader.here)

        for reader in self.readers:
            reader.there.send(b"data")
            self.poller.add_read(PollAttachment(reader.here, first))

    def act(self) -> None:
        """Run a round."""
        self.poller.poll_once(0)

    def check(self) -> None:
        """Whoever is left deletes the rest now."""
        super_check = super().check
        self.agree()
        for _ in range(3):
            self.poller.poll_once(0)
        assert not self.poller.attachments
        super_check()


class DeleteClosed(Scenario):
    """A registration is deleted whose descriptor was closed, and lives on in a duplicate."""

    def set_up(self) -> None:
        """Add it, duplicate it, close it."""
        for reader in self.readers:
            self.poller.add_read(reader.attachment, True)
        self.number = self.readers[0].here.fileno()
        self.duplicate = self.readers[0].here.dup()
        self.readers[0].here.close()

    def act(self) -> None:
        """Delete it."""
        self.poller.delete(self.number)

    def check(self) -> None:
        """It is deleted again if need be, and the duplicate's events reach nobody."""
        if self.number in self.poller.attachments:
            self.poller.delete(self.number)
        self.readers[0].there.send(b"data")
        for _ in range(3):
            assert self.poller.poll_once(0) == 0
        super().check()
        self.duplicate.close()


class Trigger(Scenario):
    """Tasks are triggered."""

    def act(self) -> None:
        """Trigger two."""
        self.poller.trigger(HIGH, self.ran.append, 1)
        self.poller.trigger(LOW, self.ran.append, 2)

    def check(self) -> None:
        """What was queued has woken the loop, and nothing runs twice."""
        assert readable(self.poller.wakeup.fd) or not self.poller.tasks
        super().check()
        assert self.ran in ([], [1], [1, 2])


class Round(Scenario):
    """A round dispatches edge-triggered events, and runs tasks that others trigger."""

    own_callback = False

    def set_up(self) -> None:
        """Add the connections, send to them, queue tasks."""
        for reader in self.readers:
            self.poller.add_read(reader.attachment, True)
            reader.there.send(b"data")
        self.poller.trigger(HIGH, self.ran.append, 1)
        self.poller.trigger(LOW, self.ran.append, 2)
        self.poller.trigger(HIGH, lambda _: self.poller.trigger(HIGH, self.ran.append, 3))

    def act(self) -> None:
        """Run a round."""
        self.poller.poll_once(0)

    def check(self) -> None:
        """Every byte was read and every task has run once, in order."""
        for _ in range(3):
            self.poller.poll_once(0)
        assert [reader.received for reader in self.readers] == [b"data"] * 3
        assert self.ran in ([1, 2, 3], [1, 2])  # the third may be interrupted before it is queued
        super().check()


class Polling(Round):
    """The same in polling(), which a task ends."""

    def set_up(self) -> None:
        """Queue the end, two rounds later."""
        super().set_up()
        self.poller.trigger(HIGH, lambda _: self.poller.trigger(HIGH, lambda _: self.poller.stop()))

    def act(self) -> None:
        """Run until stopped."""
        self.poller.polling()

    def check(self) -> None:
        """The request to stop is not kept for another call."""
        self.poller._stopping = False
        super().check()


class OtherCallback(Scenario):
    """A call of poll_once brings one callback for all, the next one again each its own."""

    def set_up(self) -> None:
        """Add the connections."""
        for reader in self.readers:
            self.poller.add_read(reader.attachment, True)
        self.ignored: list[int] = []

    def for_all(self, fd: int, event: int, flags: int) -> None:
        """Note the call."""
        self.ignored.append(fd)

    def act(self) -> None:
        """Change the callback twice."""
        self.poller.poll_once(0, self.for_all)
        self.poller.poll_once(0)

    def check(self) -> None:
        """All connections have one and the same."""
        for reader in self.readers:
            reader.there.send(b"data")
        assert self.poller.poll_once(0, self.for_all) == 3
        assert len(self.ignored) == 3
        for reader in self.readers:
            reader.there.send(b"more")
        assert self.poller.poll_once(0) == 3
        assert [reader.received for reader in self.readers] == [b"datamore"] * 3
        super().check()


class Exclusive(Round):
    """Edge-triggered and exclusive: epoll does not modify such an entry."""

    def set_up(self) -> None:
        """Add the connections."""
        super().set_up()
        for reader in self.readers:
            self.poller.delete(reader.here)
            self.poller.add_read(reader.attachment, True, exclusive=True)


class SecondInterrupt(Round):
    """A call that puts right what an interrupt left is interrupted itself."""

    exclusive = False

    def set_up(self) -> None:
        """Lose a batch: it was reported, and nobody saw it."""
        super().set_up()
        if self.exclusive:
            for reader in self.readers:
                self.poller.delete(reader.here)
                self.poller.add_read(reader.attachment, True, exclusive=True)
        self.poller.poll_once(0)
        for reader in self.readers:
            assert reader.received == b"data"
            reader.there.send(b"more")
        assert len(self.poller.backend.wait(0, 8)) >= 3
        self.poller._interrupted = True

    def check(self) -> None:
        """Every byte was read."""
        for _ in range(3):
            self.poller.poll_once(0)
        assert [reader.received for reader in self.readers] == [b"datamore"] * 3
        Scenario.check(self)


class SecondInterruptExclusive(SecondInterrupt):
    """The same with exclusive registrations."""

    exclusive = True


class Oneshot(Round):
    """One-shots, armed again by the loop's user when a call was interrupted."""

    def set_up(self) -> None:
        """Make them one-shots."""
        super().set_up()
        for reader in self.readers:
            self.poller.mod_read(reader.attachment, oneshot=True)

    def check(self) -> None:
        """Those that fired are armed again; the others still are."""
        for _ in range(3):
            self.poller.poll_once(0)
        for fd, registration in self.poller._registrations.items():
            if registration.fired:
                self.poller.mod_read(registration.attachment, oneshot=True)
            else:
                raise AssertionError(f"{fd} was never called")
        for _ in range(2):
            self.poller.poll_once(0)
        assert [reader.received for reader in self.readers] == [b"data"] * 3
        for reader in self.readers:
            self.poller.mod_read(reader.attachment, True)
        super().check()


class AddReused(Scenario):
    """A number is added that was closed without delete and stands for another connection now."""

    survives = False
    edge_triggered = False

    def set_up(self) -> None:
        """Add connections, close one, let another take its number."""
        self.stale: list[int] = []
        self.fresh: list[int] = []
        here, self.old_peer = socket.socketpair()
        self.number = here.detach()
        self.duplicates = [os.dup(self.number)] if self.survives else []
        old = PollAttachment(self.number, self.old_callback)
        self.poller.add_read(old, self.edge_triggered)
        for reader in self.readers[1:]:
            self.poller.add_read(reader.attachment, True)
        os.dup2(self.readers[0].here.fileno(), self.number)
        if not self.survives:
            self.old_peer.close()
        self.readers[0].there.send(b"x")
        self.attachment = PollAttachment(self.number, self.new_callback)

    def old_callback(self, fd: int, event: int, flags: int) -> None:
        """Be called for what is closed, or for what it knows nothing of."""
        self.stale.append(fd)

    def new_callback(self, fd: int, event: int, flags: int) -> None:
        """Be called for the new connection."""
        self.fresh.append(fd)

    def act(self) -> None:
        """Add the new one."""
        self.poller.add_read(self.attachment, self.edge_triggered)

    def check(self) -> None:
        """Only the new callback is called, once it is added; it can be if it is not."""
        known = dict(self.poller.attachments).get(self.number)
        if known is self.attachment or known is None:
            self.agree()
        self.poller.poll_once(0)
        assert self.stale == []
        if known is not self.attachment:
            assert self.fresh == []
            self.poller.add_read(self.attachment, self.edge_triggered)
        self.agree()
        self.poller.poll_once(0)
        assert self.fresh
        if self.survives:
            self.old_peer.send(b"for the old one")
            self.poller.poll_once(0)
            assert self.stale == []
        assert self.poller.attachments[self.number] is self.attachment
        self.poller.delete(self.number)
        super().check()

    def end(self) -> None:
        """Close what it opened."""
        super().end()
        self.old_peer.close()
        for fd in (self.number, *self.duplicates):
            os.close(fd)


class AddReusedEdge(AddReused):
    """The same, edge-triggered."""

    edge_triggered = True


class AddReusedSurvivor(AddReused):
    """The old connection lives on in a duplicate: the kernel's set is rebuilt."""

    survives = True


class AddReusedSurvivorEdge(AddReusedSurvivor):
    """The same, edge-triggered."""

    edge_triggered = True


class CallLater(Scenario):
    """Timers are set."""

    def set_up(self) -> None:
        """Be about to set two."""
        self.timers: list[Timer] = []

    def act(self) -> None:
        """Set them."""
        self.timers.append(self.poller.call_later(0, self.ran.append, 1))
        self.timers.append(self.poller.call_later(0, self.ran.append, 2))

    def check(self) -> None:
        """Each of those that were returned runs once; of the one that was not, nothing is left."""
        returned = [timer.param for timer in self.timers]
        assert all(timer.deadline for timer in self.timers)
        for _ in range(3):
            self.poller.poll_once(0)
        assert self.ran == returned
        assert self.poller.tasks.timers.until_next(0) is None
        super().check()


class CallLaterDuringAWait(Scenario):
    """The same while another thread's loop waits, without end or for a far timer."""

    far = False

    def set_up(self) -> None:
        """Let the loop wait in another thread."""
        self.timers: list[Timer] = []
        self.asked: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self.wait = self.poller.backend.wait
        self.poller.backend.wait = self.noted_wait  # type: ignore[misc]
        if self.far:
            self.poller.call_later(3600, self.ran.append, 0)
        self.thread = threading.Thread(target=self.poller.polling)
        self.thread.start()
        self.until_it_waits()

    def noted_wait(self, timeout: float | None, size: int) -> list[tuple[int, int]]:
        """Note how long the wait may last."""
        self.asked.put(timeout)
        return self.wait(timeout, size)

    def until_it_waits(self) -> None:
        """Return when the loop has nothing to do."""
        while (timeout := self.asked.get(timeout=10)) is not None and timeout < 1000:
            pass

    def act(self) -> None:
        """Set a timer."""
        self.timers.append(self.poller.call_later(0, self.ran.append, 1))

    def check(self) -> None:
        """It runs if it was returned, by the wait under way; if not, then at once or never."""
        if self.timers:
            self.until_it_waits()
            assert self.ran == [1]
        over = threading.Event()
        self.poller.trigger(HIGH, lambda _: over.set())
        assert over.wait(10)
        assert self.ran == [1] or not (self.ran or self.timers)

    def end(self) -> None:
        """End the loop."""
        self.poller.stop()
        self.thread.join()
        super().end()


class CallLaterDuringAFarWait(CallLaterDuringAWait):
    """The same while the loop waits for a timer."""

    far = True


class Cancel(Scenario):
    """Timers are canceled."""

    def set_up(self) -> None:
        """Set some."""
        self.timers = [self.poller.call_later(0, self.ran.append, number) for number in range(3)]
        self.said: list[bool] = []

    def act(self) -> None:
        """Cancel one, three times."""
        self.said.append(self.timers[1].cancel())
        self.said.append(self.timers[1].cancel())
        self.said.append(self.timers[1].cancel())

    def check(self) -> None:
        """It ran or was canceled; the others ran."""
        assert self.said in ([], [True], [True, False], [True, False, False])
        canceled = self.timers[1].over
        assert canceled or not self.said
        for _ in range(3):
            self.poller.poll_once(0)
        assert self.ran == ([0, 2] if canceled else [0, 1, 2])
        assert [timer.cancel() for timer in self.timers] == [False] * 3
        super().check()


class RoundOfTimers(Round):
    """A round with timers that are due, canceled, and not due yet; a heap that is tidied up."""

    def set_up(self) -> None:
        """Set them."""
        super().set_up()
        self.fired: list[int] = []
        self.late: list[int] = []
        call_later = self.poller.call_later
        for number in range(4):
            call_later(0, self.fired.append, number)
            call_later(3600, self.late.append, number).cancel()
            call_later(0, self.fired.append, -1).cancel()
        call_later(0, lambda _: call_later(0, self.late.append, 9))
        self.timer = call_later(3600, self.late.append, 10)
        self.poller.tasks.timers._crowded = 4

    def check(self) -> None:
        """Each that was due has run once, in order; what one sets is set or is not."""
        for _ in range(3):
            self.poller.poll_once(0)
        assert self.fired == [0, 1, 2, 3]
        assert self.late in ([], [9])
        pause = self.poller.tasks.timers.until_next(self.timer.deadline - 5)
        assert pause == 5
        assert self.timer.cancel()
        assert self.poller.tasks.timers.until_next(0) is None
        assert not self.poller.tasks.timers.due
        super().check()


class PollingWithTimers(RoundOfTimers):
    """The same in polling(), which a timer ends."""

    def set_up(self) -> None:
        """Set the end, two rounds later."""
        super().set_up()
        poller = self.poller
        poller.call_later(0, lambda _: poller.call_later(0, lambda _: poller.stop()))
        poller.trigger(HIGH, lambda _: poller.trigger(HIGH, lambda _: poller.stop()))

    def act(self) -> None:
        """Run until stopped."""
        self.poller.polling()

    def check(self) -> None:
        """The request to stop is not kept for another call."""
        for _ in range(2):
            self.poller.poll_once(0)
        self.poller._stopping = False
        super().check()


SCENARIOS = [
    Add,
    AddReused,
    AddReusedEdge,
    AddReusedSurvivor,
    AddReusedSurvivorEdge,
    CallLater,
    CallLaterDuringAWait,
    CallLaterDuringAFarWait,
    Cancel,
    RoundOfTimers,
    PollingWithTimers,
    Modify,
    Delete,
    DeleteInRound,
    DeleteClosed,
    Trigger,
    Round,
    Polling,
    OtherCallback,
    Exclusive,
    SecondInterrupt,
    SecondInterruptExclusive,
    Oneshot,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_interrupted_at_every_point(scenario: type[Scenario]) -> None:
    """Wherever KeyboardInterrupt comes, table and kernel agree and the next calls lose nothing."""
    for one, _ in each_point(scenario):
        one.check()


class Close(Scenario):
    """An idle poller with queued tasks is closed."""

    def set_up(self) -> None:
        """Add a connection and queue a task."""
        self.poller.add_read(self.readers[0].attachment)
        self.poller.trigger(HIGH, self.ran.append, 1)
        self.numbers = self.poller.fileno(), self.poller.wakeup.fd

    def act(self) -> None:
        """Close it."""
        self.poller.close()

    def check(self) -> None:
        """A second close ends what the first began, and descriptors are closed once."""
        self.poller.close()
        assert self.poller.closed
        for number in self.numbers:
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)


class CloseInCallback(Close):
    """A callback closes the poller while the loop runs."""

    def set_up(self) -> None:
        """Let a callback close it."""
        super().set_up()
        self.poller.delete(self.readers[0].here)
        self.poller.add_write(PollAttachment(self.readers[0].here, lambda *_: self.poller.close()))

    def act(self) -> None:
        """Run it."""
        self.poller.polling()


@pytest.mark.parametrize("scenario", [Close, CloseInCallback])
def test_interrupted_close(scenario: type[Scenario], caplog: pytest.LogCaptureFixture) -> None:
    """Wherever KeyboardInterrupt comes, another close gives everything back."""
    for one, _ in each_point(scenario):
        one.check()


# ---- signals ----------------------------------------------------------------------------------


@pytest.fixture
def poller() -> Iterator[Poller]:
    with netpoll.open_poller() as poller:
        yield poller


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Set what SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda action: void(signal.signal(signal.SIGUSR1, lambda *_: void(action())))
    signal.signal(signal.SIGUSR1, before)


def void(value: object) -> None:
    """Drop a value."""


def signal_in_wait(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGUSR1 to this thread when the poller's next wait has begun, from another thread."""
    wait = poller.backend.wait
    here = threading.get_ident()

    def send() -> None:
        signal.pthread_kill(here, signal.SIGUSR1)

    def waiting(timeout: float | None, size: int) -> list[tuple[int, int]]:
        monkeypatch.undo()
        thread = threading.Thread(target=send)
        thread.start()
        try:
            return wait(timeout, size)
        finally:
            thread.join()

    monkeypatch.setattr(poller.backend, "wait", waiting)


OnSignal = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize("error", [ZeroDivisionError("from the handler"), KeyboardInterrupt()])
@pytest.mark.parametrize("once", [False, True])
def test_exception_of_a_signal_handler_leaves_the_wait(
    poller: Poller,
    on_signal: OnSignal,
    error: BaseException,
    once: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It gets out of a wait without a timeout, of any kind, and does not go to on_error."""

    def fail() -> None:
        raise error

    on_signal(fail)
    signal_in_wait(poller, monkeypatch)
    with pytest.raises(type(error)) as caught:
        poller.poll_once() if once else poller.polling()
    assert caught.value is error
    assert poller.poll_once(0) == 0


def test_benign_signal_leaves_the_deadline(
    poller: Poller, on_signal: OnSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that returns does not end the wait, which is still not early."""
    caught: list[int] = []
    on_signal(lambda: caught.append(1))
    signal_in_wait(poller, monkeypatch)
    began = time.monotonic()
    assert poller.poll_once(0.05) == 0
    assert time.monotonic() - began >= 0.05
    assert caught == [1]


@pytest.mark.parametrize("method", ["trigger", "stop"])
def test_signal_handlers_may_trigger_and_stop(
    poller: Poller, on_signal: OnSignal, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either, called by a handler in the middle of a wait, ends it."""
    ran: list[int] = []

    def act() -> None:
        if method == "stop":
            poller.stop()
        else:
            poller.trigger(HIGH, ran.append, 1)
            poller.trigger(HIGH, lambda _: poller.stop())

    on_signal(act)
    signal_in_wait(poller, monkeypatch)
    poller.polling()
    assert ran == ([1] if method == "trigger" else [])


def test_keyboard_interrupt_in_a_callback_keeps_the_rest(poller: Poller) -> None:
    """Edge-triggered: the rest of the batch is dispatched by the next call, before it waits."""
    readers = [Reader() for _ in range(3)]
    interrupted: list[int] = []

    def callback(fd: int, event: int, flags: int) -> None:
        if not interrupted:
            interrupted.append(fd)
            raise KeyboardInterrupt
        for reader in readers:
            if reader.here.fileno() == fd:
                reader.callback(fd, event, flags)

    for reader in readers:
        poller.add_read(PollAttachment(reader.here, callback), True)
        reader.there.send(b"data")
    with pytest.raises(KeyboardInterrupt):
        poller.polling()
    assert poller.poll_once() >= 2
    assert [reader.received for reader in readers] == [b"data"] * 3
    for reader in readers:
        reader.close()


def test_fired_one_shot_stays_disarmed(poller: Poller) -> None:
    """What an interrupt left is put right without arming a one-shot that was delivered."""
    readers = [Reader(), Reader()]

    def interrupt(fd: int, event: int, flags: int) -> None:
        raise KeyboardInterrupt

    poller.add_read(readers[0].attachment, oneshot=True)
    readers[0].there.send(b"x")
    assert poller.poll_once(0) == 1
    poller.add_write(PollAttachment(readers[1].here, interrupt), oneshot=True)
    with pytest.raises(KeyboardInterrupt):
        poller.poll_once(0)
    readers[0].there.send(b"x")
    poller.stop()
    poller.polling()
    assert poller.backend.wait(0, 8) == []
    for reader in readers:
        reader.close()


class Victim:
    """A loop with everything in it, in the main thread; one thread feeds it, one interrupts it.

    Everything the loop does is counted with functions written in C, which no interrupt can tear.
    """

    def __init__(self, seed: int, interrupts: int) -> None:
        self.seed = seed
        self.interrupts = interrupts
        self.interrupted = 0
        self.armed = False
        self.over = threading.Event()
        self.main = threading.get_ident()
        self.failures: list[Exception] = []
        self.poller = netpoll.open_poller(on_error=lambda _, error: self.failures.append(error))
        self.readers = [Reader() for _ in range(7)]
        self.sent = [b""] * len(self.readers)
        self.pushed = 0
        self.high: list[int] = []
        self.low: list[int] = []
        self.timers: list[Timer] = []
        self.canceled: list[int] = []
        self.fired: list[int] = []
        self.set_in_loop: list[int] = []
        self.tried_in_loop: list[int] = []
        self.fired_in_loop: list[int] = []
        for number, reader in enumerate(self.readers):
            # One level-triggered, four edge-triggered, two one-shots.
            self.poller.add_read(
                reader.attachment, edge_triggered=0 < number < 5, oneshot=number >= 5
            )

    def feed(self) -> None:
        """Send bytes, trigger tasks, set timers and cancel some, until the end."""
        randomness = random.Random(self.seed)
        poller, readers = self.poller, self.readers
        while not self.over.wait(randomness.random() * 0.0004):
            which = randomness.randrange(len(readers))
            if len(self.sent[which]) < 60_000:
                data = bytes(randomness.choices(range(1, 256), k=randomness.randrange(1, 40)))
                self.sent[which] += data
                readers[which].there.sendall(data)
            poller.trigger(HIGH, self.high.append, self.pushed)
            poller.trigger(LOW, self.low.append, self.pushed)
            poller.trigger(HIGH, self.set_timer, self.pushed)
            self.pushed += 1
            delay = randomness.random() * 0.003
            self.timers.append(poller.call_later(delay, self.fired.append, len(self.timers)))
            if randomness.random() < 0.3:
                timer = self.timers[-randomness.randrange(1, 4) :][0]
                if timer.cancel():
                    self.canceled.append(timer.param)
            poller.trigger(LOW, self.arm_one_shots)

    def set_timer(self, number: int) -> None:
        """Be a task that sets a timer: interrupted anywhere, it has set it or not."""
        self.tried_in_loop.append(number)
        self.poller.call_later(number % 3 / 1000, self.fired_in_loop.append, number)
        self.set_in_loop.append(number)

    def arm_one_shots(self, _: object = None) -> None:
        """Be a task that arms the one-shots again."""
        for reader in self.readers[5:]:
            self.poller.mod_read(reader.attachment, oneshot=True)

    def interrupt(self) -> None:
        """Send SIGINT at random moments, each time that the loop has been started again."""
        randomness = random.Random(-self.seed)
        left = self.interrupts
        while left and not self.over.wait(randomness.random() * 0.0015):
            if self.armed:
                self.armed = False
                signal.pthread_kill(self.main, signal.SIGINT)
                left -= 1
        self.over.set()

    def serve(self) -> None:
        """Run the loop, and again after each interrupt."""
        threads = [threading.Thread(target=work) for work in (self.feed, self.interrupt)]
        threads.append(threading.Thread(target=self.stop_after, args=(list(threads),)))
        for thread in threads:
            thread.start()
        try:
            while True:
                try:
                    self.armed = True  # from here on one SIGINT may come, and no second one
                    self.poller.polling()
                    break
                except KeyboardInterrupt:
                    self.interrupted += 1
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def stop_after(self, threads: list[threading.Thread]) -> None:
        """Stop the loop when the other threads have ended."""
        for thread in threads:
            thread.join()
        self.poller.stop()

    def account(self) -> None:
        """Check that every byte, task and timer was there exactly once."""
        over: list[int] = []
        self.poller.call_later(0.005, over.append, 1)
        while not over:
            self.poller.poll_once()
        self.arm_one_shots()
        while self.poller.poll_once(0):
            pass
        assert self.interrupted == self.interrupts
        assert [reader.received for reader in self.readers] == self.sent
        assert self.high == self.low == list(range(self.pushed))
        assert sorted(self.fired + self.canceled) == list(range(len(self.timers)))
        assert len(set(self.fired_in_loop)) == len(self.fired_in_loop)
        assert set(self.set_in_loop) <= set(self.fired_in_loop) <= set(self.tried_in_loop)
        assert self.failures == []

    def close(self) -> None:
        """Close everything."""
        self.poller.close()
        for reader in self.readers:
            reader.close()


def hammer(seed: int, interrupts: int) -> Victim:
    """Interrupt a busy loop with SIGINT and Python's own handler, and account for everything."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    victim = Victim(seed, interrupts)
    try:
        victim.serve()
        victim.account()
    finally:
        signal.signal(signal.SIGINT, before)
        victim.close()
    return victim


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sigint_at_random_moments(seed: int) -> None:
    """200 times: the loop starts again each time, and all bytes, tasks, timers are there once."""
    victim = hammer(seed, interrupts=200)
    assert victim.pushed > 100


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 50))
def test_sigint_at_many_random_moments(first: int) -> None:
    """The same for 1,000 seeds in twenty parts, 50 interrupts each."""
    for seed in range(first, first + 50):
        hammer(seed, interrupts=50)
