"""KeyboardInterrupt, and whatever else a signal handler raises, at any moment.

Two ways to find the moments. One is exhaustive: a trace function raises KeyboardInterrupt at every
point of netpoll's code where Python could, one after the other. The other is real: SIGINT at
random moments against a loop that works.
"""

import contextlib
import os
import pathlib
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


SCENARIOS = [
    Add,
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


class Armed:
    """A SIGINT handler that raises KeyboardInterrupt, once each time it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self.count = 0

    def __call__(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            self.count += 1
            raise KeyboardInterrupt


def hammer(seed: int, interrupts: int) -> int:
    """Interrupt a busy loop with SIGINT and check every byte and task; return how often."""
    randomness = random.Random(seed)
    readers = [Reader() for _ in range(6)]
    sent = [b""] * len(readers)
    high: list[int] = []
    low: list[int] = []
    pushed = 0
    over = threading.Event()
    handler = Armed()
    main = threading.get_ident()

    def feed() -> None:
        nonlocal pushed
        randomness = random.Random(seed)
        while not over.wait(randomness.random() * 0.0005):
            which = randomness.randrange(len(readers))
            if len(sent[which]) < 60_000:
                data = bytes(randomness.choices(range(1, 256), k=randomness.randrange(1, 40)))
                sent[which] += data
                readers[which].there.sendall(data)
            poller.trigger(HIGH, high.append, pushed)
            poller.trigger(LOW, low.append, pushed)
            pushed += 1

    def interrupt() -> None:
        while handler.count < interrupts:
            over.wait(randomness.random() * 0.002)
            signal.pthread_kill(main, signal.SIGINT)
        over.set()
        feeder.join()
        poller.stop()

    feeder = threading.Thread(target=feed)
    interrupter = threading.Thread(target=interrupt)
    failures: list[Exception] = []
    before = signal.signal(signal.SIGINT, handler)
    try:
        with netpoll.open_poller(on_error=lambda _, error: failures.append(error)) as poller:
            for number, reader in enumerate(readers):
                poller.add_read(reader.attachment, edge_triggered=number % 3 != 0)
            feeder.start()
            interrupter.start()
            while True:
                try:
                    handler.armed = True
                    poller.polling()
                    handler.armed = False
                    break
                except KeyboardInterrupt:
                    pass
            interrupter.join()
            while poller.poll_once(0):
                pass
            assert [reader.received for reader in readers] == sent
            assert high == low == list(range(pushed))
            assert failures == []
    finally:
        signal.signal(signal.SIGINT, before)
        for reader in readers:
            reader.close()
    return handler.count


def test_sigint_at_random_moments() -> None:
    """100 times: the loop starts again each time, and every byte and task is accounted for."""
    assert hammer(seed=1, interrupts=100) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_sigint_at_many_random_moments(seed: int) -> None:
    """The same 1,000 times for each of ten seeds."""
    assert hammer(seed, interrupts=1000) >= 1000
