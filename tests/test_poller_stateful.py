"""The whole poller against a model: what a program does at random, and what must come of it.

The model knows which files are open under which numbers, what is registered for what, what the
kernel must report, which callback, timer or task must come next, and which bytes it must read.
"""

import fcntl
import os
import pathlib
import select
import socket
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import netpoll
from netpoll import (
    AcceptSocketError,
    AlreadyRegistered,
    EngineShutdown,
    EventPriority,
    IOEvent,
    NotRegistered,
    PollAttachment,
    Poller,
)
from netpoll.backends import Interest
from netpoll.backends.epoll import mask_of
from netpoll.queue import Timer
from tests.test_poller_timers import Kernel

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
ALWAYS = int(IOEvent.ERR | IOEvent.HUP)
KEPT_BY_ONESHOT = select.EPOLLET | select.EPOLLONESHOT | select.EPOLLEXCLUSIVE
CROWDED, LOW_A_ROUND = 1, 2
NO_NUMBER = 900  # never open


class File:
    """One end of a connection: the numbers it is open under, its peer, and the bytes unread."""

    def __init__(self) -> None:
        here, peer = socket.socketpair()
        self.number = here.detach()
        # Out of the way: what was closed without delete is to be taken by files, not by peers.
        self.peer = socket.socket(fileno=fcntl.fcntl(peer, fcntl.F_DUPFD_CLOEXEC, NO_NUMBER + 1))
        peer.close()
        self.unread = b""
        self.ended = self.gone = False

    def readiness(self) -> int:
        """Return what the kernel must report of it."""
        ready = int(IOEvent.OUT)
        if self.unread or self.ended:
            ready |= IOEvent.IN
        if self.ended:
            ready |= IOEvent.RDHUP
        if self.gone:
            ready |= IOEvent.HUP
        return ready


class Entry:
    """A registration. Its attachment and interest change with `mod_*`; it stays the same entry."""

    def __init__(self, file: File, attachment: PollAttachment, interest: Interest) -> None:
        self.file = file
        self.in_kernel = True
        self.renew(attachment, interest)

    def renew(self, attachment: PollAttachment, interest: Interest) -> None:
        """Do what an add and a mod have in common."""
        self.attachment = attachment
        self.interest = interest
        self.fired = False
        self.rearm()

    def rearm(self) -> None:
        """Let the kernel look at it anew."""
        self.armed = self.changed = True

    @property
    def mask(self) -> int:
        """What the kernel has listed."""
        mask = mask_of(select, self.interest)
        return mask if self.armed else mask & KEPT_BY_ONESHOT

    def report(self) -> int:
        """Return the event that a wait must return, 0 for none, and go on from there."""
        listening = self.in_kernel and self.armed
        event = self.file.readiness() & (self.mask | ALWAYS) if listening else 0
        if self.interest.edge_triggered and not self.changed:
            event = 0
        if event:
            self.changed = False
            self.armed = not self.interest.oneshot
        return event


class Boom(Exception):
    """What a callback, task or timer fails with."""


which = st.integers(0, 7)
interests = st.builds(
    lambda direction, edge, how: Interest(
        direction != "write", direction != "read", edge, how == "oneshot", how == "exclusive"
    ),
    st.sampled_from(["read", "read", "write", "both"]),
    st.booleans(),
    st.sampled_from(["", "", "oneshot", "exclusive"]),
)
BAD = Interest(True, False, False, oneshot=True, exclusive=True)
priorities = st.sampled_from([HIGH, LOW, LOW])
delays = st.sampled_from([-1.0, 0.0, 0.0, 1.0, 2.0, 5.0])
kinds = st.sampled_from([Boom, Boom, Boom, EngineShutdown, AcceptSocketError])

# What programs do, outside of the loop and in callbacks, tasks and timers.
deeds: list[st.SearchStrategy[tuple[Any, ...]]] = [
    st.tuples(st.just("connect"), interests),
    st.tuples(st.just("duplicate"), which),
    st.tuples(st.just("close_number"), which, st.booleans()),
    st.tuples(st.just("send"), which),
    st.tuples(st.just("send_all")),
    st.tuples(st.just("half_close"), which),
    st.tuples(st.just("hang_up"), which),
    st.tuples(st.just("add"), which, interests | st.just(BAD)),
    st.tuples(st.just("modify"), which, interests),
    st.tuples(st.just("delete"), which),
    st.tuples(st.just("replace"), which, interests),
    st.tuples(st.just("reuse"), which, interests, st.sampled_from(["add", "modify", ""])),
    st.tuples(st.just("trigger"), st.lists(priorities, min_size=1, max_size=6)),
    st.tuples(st.just("trigger"), st.lists(priorities, min_size=1, max_size=6)),
    st.tuples(st.just("call_later"), delays),
    st.tuples(st.just("call_later"), delays),
    st.tuples(st.just("cancel"), which),
    st.tuples(st.just("pass_time"), st.sampled_from([0.5, 1.0, 3.0])),
    st.tuples(st.sampled_from(["stop", "stop", "stop", "close"])),
]
# What only callbacks, tasks and timers do.
inside: list[st.SearchStrategy[tuple[Any, ...]]] = [
    st.tuples(st.just("leave_unread")),
    st.tuples(st.just("nested")),
    st.tuples(st.just("close")),
    st.tuples(st.just("fail"), kinds),
    st.tuples(st.just("fail"), kinds),
    st.tuples(st.just("replace_itself_and_fail"), interests),
]
programs = st.lists(st.one_of(deeds), min_size=1, max_size=6)
scripts = st.lists(st.one_of(deeds + inside), min_size=3, max_size=8)


class PollerMachine(RuleBasedStateMachine):
    """Does at random to a poller what programs do, and the same to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Kernel()
        self.files: list[File] = []
        self.numbers: dict[int, File] = {}
        self.script: list[tuple[Any, ...]] = []
        self.open()

    @initialize(first=st.lists(interests, min_size=4, max_size=7))
    def begin(self, first: list[Interest]) -> None:
        """Begin with some connections."""
        for interest in first:
            self.connect(interest)

    @rule(program=programs)
    def outside(self, program: list[tuple[Any, ...]]) -> None:
        """Do what programs do while the loop does not run."""
        for name, *arguments in program:
            getattr(self, name)(*arguments)
            self.check()

    def open(self) -> None:
        """Start with a new poller."""
        self.poller = netpoll.open_poller("epoll", kernel=self.kernel, on_error=self.on_error)
        self.poller.tasks.crowded, self.poller.tasks.low_a_round = CROWDED, LOW_A_ROUND
        self.wait = self.poller.backend.wait
        self.poller.backend.wait = self.checked_wait  # type: ignore[misc]
        self.entries: dict[int, Entry] = {}
        self.batch: list[tuple[int, int, Entry | None]] = []
        self.timers: list[Timer] = []
        self.waiting: list[Timer] = []
        self.urgent: list[int] = []
        self.low: list[int] = []
        self.plan: list[int | Timer] | None = None  # what is left of the round
        self.left_over = False  # a round was broken off, with timers due
        self.queued = 0
        self.stopping = self.closed = self.looping = False
        self.failure: type[Exception] | None = None  # what is to end the loop
        self.source: object = None  # of the exception that is on its way to on_error
        self.problems: list[Exception] = []

    # ---- files ----------------------------------------------------------------------------------

    def connect(self, interest: Interest) -> None:
        """Open a connection and add it."""
        if len(self.files) < 8:
            file = File()
            self.files.append(file)
            self.numbers[file.number] = file
            self.add_fd(file.number, interest)

    def duplicate(self, number: int) -> None:
        """Open a file under another number too."""
        if self.numbers and len(self.numbers) < 12:
            fd = self.one_of(self.numbers, number)
            self.numbers[os.dup(fd)] = self.numbers[fd]

    def close_number(self, number: int, delete: bool) -> None:
        """Close a number, with or without delete."""
        if self.numbers:
            fd = self.one_of(self.numbers, number)
            if delete and fd in self.entries:
                self.delete_fd(fd)
            self.close_fd(fd)

    def send(self, number: int) -> None:
        """Let a peer send."""
        file = self.file_of(number)
        if file and not file.ended:
            data = os.urandom(3)
            file.peer.send(data)
            file.unread += data
            self.signal(file, int(IOEvent.IN | IOEvent.PRI))

    def send_all(self) -> None:
        """Let all peers send."""
        for number in range(len(self.files)):
            self.send(number)

    def half_close(self, number: int) -> None:
        """Let a peer end its stream."""
        file = self.file_of(number)
        if file and not file.gone:
            file.peer.shutdown(socket.SHUT_WR)
            file.ended = True
            self.signal(file, 0)

    def hang_up(self, number: int) -> None:
        """Let a peer close."""
        file = self.file_of(number)
        if file and not file.gone:
            file.peer.close()
            file.ended = file.gone = True
            self.signal(file, 0)

    def file_of(self, number: int) -> File | None:
        return self.files[number % len(self.files)] if self.files else None

    def one_of(self, numbers: Collection[int], number: int) -> int:
        """Pick one; half of the time, if there is any, one whose event is in the batch."""
        coming = [fd for fd, _, _ in self.batch if fd in numbers] if number > 3 else []
        return sorted(coming or numbers)[number % len(coming or numbers)]

    def signal(self, file: File, key: int) -> None:
        """Do what the kernel does when something happens to `file`; 0 concerns everybody."""
        for entry in self.entries.values():
            if entry.file is file and (not key or key & entry.mask):
                entry.changed = True

    def close_fd(self, fd: int) -> None:
        os.close(fd)
        self.forget_number(fd)

    def forget_number(self, fd: int) -> None:
        """Do what the kernel does when a number is closed."""
        file = self.numbers.pop(fd)
        if file not in self.numbers.values():
            file.peer.close()
            self.files.remove(file)
            for entry in self.entries.values():
                if entry.file is file:
                    entry.in_kernel = False

    # ---- registrations --------------------------------------------------------------------------

    def add(self, number: int, interest: Interest) -> None:
        """Add any number."""
        self.add_fd(self.any_number(number), interest)

    def modify(self, number: int, interest: Interest) -> None:
        """Modify any number."""
        self.modify_fd(self.any_number(number), interest)

    def modify_fd(self, fd: int, interest: Interest) -> None:
        interest = interest._replace(exclusive=False)
        entry = self.entries.get(fd)
        attachment = self.attachment(fd)
        modes = {"edge_triggered": interest.edge_triggered, "oneshot": interest.oneshot}
        method = getattr(self.poller, "mod_" + direction(interest))
        if self.closed or (entry and entry.interest.exclusive):
            self.refused(ValueError, method, attachment, **modes)
        elif entry is None:
            self.refused(NotRegistered, method, attachment, **modes)
        elif fd not in self.numbers:
            self.refused(ValueError, method, attachment, **modes)
        elif self.listed(fd, entry):
            method(attachment, **modes)
            entry.renew(attachment, interest)
        else:
            self.refused(NotRegistered, method, attachment, **modes)
            del self.entries[fd]
            self.rebuilt()

    def delete(self, number: int) -> None:
        """Delete any number."""
        self.delete_fd(self.any_number(number))

    def replace(self, number: int, interest: Interest) -> None:
        """Delete a registration and add it anew."""
        if self.entries:
            fd = self.one_of(self.entries, number)
            self.delete_fd(fd)
            self.add_fd(fd, interest)

    def reuse(self, number: int, interest: Interest, then: str) -> None:
        """Close without delete, and add or modify what has taken the number, or do neither."""
        if self.numbers:
            fd = self.one_of(self.numbers, number)
            file = File()
            os.dup2(file.number, fd, inheritable=False)
            os.close(file.number)
            self.forget_number(fd)
            self.files.append(file)
            self.numbers[fd] = file
            if then:
                getattr(self, f"{then}_fd")(fd, interest)

    def any_number(self, number: int) -> int:
        return self.one_of({*self.numbers, *self.entries, NO_NUMBER}, number)

    def attachment(self, fd: int) -> PollAttachment:
        """Make an attachment whose callback knows which one it is."""
        attachment = PollAttachment(fd, lambda *what: self.called(attachment, *what))
        return attachment

    def listed(self, fd: int, entry: Entry | None) -> bool:
        """Return whether the kernel finds `entry` by what is open under its number."""
        return entry is not None and entry.in_kernel and self.numbers.get(fd) is entry.file

    def add_fd(self, fd: int, interest: Interest) -> None:
        attachment = self.attachment(fd)
        method = getattr(self.poller, "add_" + direction(interest))
        modes = interest._asdict()
        del modes["read"], modes["write"]
        before = self.entries.get(fd)
        if self.closed or interest == BAD or fd not in self.numbers:
            self.refused(ValueError, method, attachment, **modes)
        elif self.listed(fd, before):
            self.refused(AlreadyRegistered, method, attachment, **modes)
        else:
            method(attachment, **modes)
            self.entries[fd] = Entry(self.numbers[fd], attachment, interest)
            if before:
                self.rebuilt()

    def delete_fd(self, fd: int) -> None:
        entry = self.entries.get(fd)
        if self.closed:
            self.refused(ValueError, self.poller.delete, fd)
        elif entry is None:
            self.refused(NotRegistered, self.poller.delete, fd)
        else:
            self.poller.delete(fd)
            del self.entries[fd]
            if not self.listed(fd, entry):
                self.rebuilt()

    def rebuilt(self) -> None:
        """The kernel has a new set: it has looked at everything that is still what it was."""
        for fd, entry in self.entries.items():
            entry.in_kernel = self.listed(fd, entry)
            entry.rearm()

    def refused(
        self, error: type[Exception], method: Callable[..., Any], *what: Any, **modes: Any
    ) -> None:
        with pytest.raises(error) as caught:
            method(*what, **modes)
        assert caught.type is error

    # ---- tasks and timers -----------------------------------------------------------------------

    def trigger(self, priorities: list[EventPriority]) -> None:
        """Queue tasks."""
        for priority in priorities:
            if self.closed:
                self.refused(ValueError, self.poller.trigger, priority, int)
                continue
            self.queued += 1
            self.poller.trigger(priority, self.task_called, self.queued)
            crowded = priority == LOW and (self.low or len(self.urgent) >= CROWDED)
            (self.low if crowded else self.urgent).append(self.queued)

    def call_later(self, delay: float) -> None:
        """Set a timer."""
        if self.closed:
            return self.refused(ValueError, self.poller.call_later, delay, int)
        timer = self.poller.call_later(delay, self.timer_called, len(self.timers))
        assert timer.deadline == self.kernel.now + max(delay, 0)
        self.timers.append(timer)
        self.waiting.append(timer)

    def cancel(self, number: int) -> None:
        """Cancel a timer."""
        if self.timers:
            timer = self.timers[-1 - number % len(self.timers)]
            assert timer.cancel() == (timer in self.waiting)
            if timer in self.waiting:
                self.waiting.remove(timer)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.kernel.now += seconds

    # ---- the loop -------------------------------------------------------------------------------

    @rule(timeout=st.sampled_from([0, 0, 4.0, None]), script=scripts)
    def poll_once(self, timeout: float | None, script: list[tuple[Any, ...]]) -> None:
        """Run one round, in which most have something to read."""
        self.send_all()
        busy = self.batch or self.urgent or self.low or self.due()
        self.run(lambda: self.poller.poll_once(timeout), 0 if busy else timeout, 1, True, script)

    @rule(waits=st.integers(1, 3), script=scripts)
    def polling(self, waits: int, script: list[tuple[Any, ...]]) -> None:
        """Run the loop, which is stopped when it has waited so many times."""
        self.send_all()
        self.run(self.poller.polling, None, waits, False, script)

    def run(
        self,
        loop: Callable[[], int | None],
        timeout: float | None,
        waits: int,
        once: bool,
        script: list[tuple[Any, ...]],
    ) -> None:
        """Run the loop and check how it ends."""
        self.script, self.timeout, self.waits_left, self.once = script[::-1], timeout, waits, once
        self.looping, self.calls, self.failure = True, 0, None
        try:
            assert loop() in (None, self.calls)
        except AcceptSocketError:
            assert self.failure is AcceptSocketError
        else:
            assert self.failure is not AcceptSocketError
        for problem in self.problems:
            raise problem
        assert self.source is None
        self.looping = False
        if self.closed:
            self.open()
        elif self.failure is None:
            assert self.stopping or (once and not self.waits_left)
            self.end_batch()
            self.end_round()
        self.left_over = self.left_over or self.plan is not None
        self.plan = None
        self.stopping = False

    def checked_wait(self, timeout: float | None, size: int) -> list[tuple[int, int]]:
        """Check that it is time for a wait, and what the kernel reports; never really wait."""
        self.end_batch()
        self.end_round()
        assert self.waits_left
        assert not self.stopping
        assert not self.closed
        pause = self.timeout
        if self.waiting:
            first = max(min(timer.deadline for timer in self.waiting) - self.kernel.now, 0)
            pause = first if pause is None else min(pause, first)
        if self.urgent or self.low:
            pause = 0
        assert timeout == pause or (self.left_over and timeout == 0)
        self.left_over = False
        events: list[tuple[int, int]] = self.wait(0, size)
        expected = {fd: event for fd, entry in self.entries.items() if (event := entry.report())}
        reported = [(fd, event) for fd, event in events if fd != self.poller.wakeup.fd]
        assert sorted(reported) == sorted(expected.items()), f"{reported}, not {expected}"
        self.batch = [(fd, event, self.entries.get(fd)) for fd, event in events]
        self.waits_left -= 1
        if not self.once and not self.waits_left:
            self.stop()
        return events

    def dispatchable(self, fd: int, entry: Entry | None) -> bool:
        """Return whether an event of `entry` may reach a callback now."""
        return entry is not None and self.entries.get(fd) is entry and not entry.fired

    def end_batch(self) -> None:
        """What is left of the batch was not dispatched: check that it was not to be."""
        assert not [fd for fd, _, entry in self.batch if self.dispatchable(fd, entry)]
        self.batch = []

    def called(self, attachment: PollAttachment, fd: int, event: int, flags: int) -> None:
        """Be the callback of a registration: the next of the batch."""
        assert not self.closed
        assert flags == 0
        while True:
            next_fd, reported, entry = self.batch.pop(0)
            if self.dispatchable(next_fd, entry):
                break
        assert (fd, event) == (next_fd, reported)
        assert entry
        assert entry.attachment is attachment
        entry.fired = entry.interest.oneshot
        self.calls += 1
        file = self.numbers.get(fd)
        leave = bool(self.script) and self.script[-1] == ("leave_unread",)
        if file is entry.file and event & IOEvent.IN and file.unread and not leave:
            assert os.read(fd, 1 << 16) == file.unread
            file.unread = b""
        self.act(attachment, fd)

    def due(self) -> list[Timer]:
        """Return the timers that a round would run, in their order."""
        due = [timer for timer in self.waiting if timer.deadline <= self.kernel.now]
        return sorted(due, key=lambda timer: timer.deadline)

    def round_left(self) -> list[int | Timer]:
        """Return what the round under way, or one that begins now, has still to run."""
        if self.plan is None:
            self.plan = [*self.due(), *self.urgent, *self.low[:LOW_A_ROUND]]
        self.plan = [one for one in self.plan if isinstance(one, int) or one in self.waiting]
        return self.plan

    def end_round(self) -> None:
        """Check that nothing is left to run."""
        assert self.round_left() == []
        self.plan = None

    def next_of_round(self) -> int | Timer:
        """Return the task or timer whose turn it is."""
        assert not self.closed
        self.end_batch()
        return self.round_left().pop(0)

    def timer_called(self, place: int) -> None:
        """Be a timer."""
        timer = self.timers[place]
        assert self.next_of_round() is timer
        self.waiting.remove(timer)
        self.act(timer)

    def task_called(self, number: int) -> None:
        """Be a task."""
        assert self.next_of_round() == number
        try:
            self.act(number)
        finally:
            (self.urgent if number in self.urgent else self.low).remove(
                number
            )  # so late: it counts

    def act(self, source: object, fd: int = NO_NUMBER) -> None:
        """Do the next thing of the script."""
        name, *arguments = self.script.pop() if self.script else ("leave_unread",)
        if name == "nested":
            for again in (self.poller.polling, lambda: self.poller.poll_once(0)):
                self.refused(RuntimeError, again)
        elif name == "replace_itself_and_fail" and fd in self.entries:
            self.delete_fd(fd)
            self.add_fd(fd, *arguments)
            self.fail(source, Boom)
        elif name == "fail":
            self.fail(source, *arguments)
        elif name not in ("leave_unread", "replace_itself_and_fail"):
            getattr(self, name)(*arguments)

    def fail(self, source: object, error: type[Exception]) -> None:
        """Raise, as a callback, task or timer."""
        if error is Boom:
            self.source = source
        else:
            self.failure = error
        raise error

    def on_error(self, source: object, error: Exception) -> None:
        """Check that it is told what failed; an assertion that fails in a callback comes here."""
        if isinstance(source, netpoll.Task) and not isinstance(source, Timer):
            source = source.param
        if not isinstance(error, Boom):
            self.problems.append(error)
        elif source is not self.source:
            self.problems.append(AssertionError(f"{source} failed, not {self.source}"))
        self.source = None

    def stop(self) -> None:
        """Ask the loop to end."""
        self.poller.stop()
        self.stopping = not self.closed

    def close(self) -> None:
        """Close the poller; the next one is opened when the loop is over."""
        self.poller.close()
        self.closed = True
        if not self.looping:
            for method in (self.poller.polling, self.poller.poll_once, self.poller.fileno):
                self.refused(ValueError, method)
            self.open()

    # ---- what must hold after each step ---------------------------------------------------------

    @invariant()
    def check(self) -> None:
        """Registrations, the kernel's list and the queues are those of the model."""
        known = {fd: entry.attachment for fd, entry in self.entries.items()}
        assert dict(self.poller.attachments) == known
        assert {*known, self.poller.wakeup.fd} <= set(self.poller.callbacks)
        assert not self.poller.running

        # In the kernel's list nothing is missing, and nothing is left behind.
        text = pathlib.Path(f"/proc/self/fdinfo/{self.poller.fileno()}").read_text()
        lines = [line.split() for line in text.splitlines() if line.startswith("tfd:")]
        listed = sorted((int(line[1]), int(line[3], 16) & ~ALWAYS) for line in lines)
        listed.remove((self.poller.wakeup.fd, mask_of(select, Interest(read=True, write=False))))
        entries = self.entries.items()
        assert listed == sorted((fd, entry.mask) for fd, entry in entries if entry.in_kernel)

        assert len(self.poller.tasks.urgent) == len(self.urgent)
        assert len(self.poller.tasks.low) == len(self.low)

    def teardown(self) -> None:
        """Let everything that was queued or set run, and close."""
        try:
            self.kernel.now += 100
            for _ in range(100):
                if self.urgent or self.low or self.waiting or self.batch:
                    self.poll_once(0, [])
            assert (self.urgent, self.low, self.waiting) == ([], [], [])
        finally:
            self.poller.close()
            for fd in list(self.numbers):
                self.close_fd(fd)


def direction(interest: Interest) -> str:
    """Return the name of the direction, as in the names of the methods."""
    return "_".join(name for name in ("read", "write") if getattr(interest, name))


def run_machine(examples: int, steps: int, *, derandomize: bool) -> None:
    """Run so many programs, each of at most so many steps.

    A failing one is printed as it is: making it smaller takes minutes (add `Phase.shrink`).
    """
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=derandomize,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(PollerMachine, settings=how)


def test_the_whole_poller() -> None:
    """200 programs of up to 20 steps, always the same ones, do what the model says."""
    run_machine(200, 20, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(40))
def test_the_whole_poller_with_many_programs(part: int) -> None:
    """The same with 4,000 programs of up to 30 steps, in forty parts, other ones each time."""
    run_machine(100, 30, derandomize=False)


# ---- regressions, by name -----------------------------------------------------------------------


@pytest.fixture
def sources() -> list[object]:
    return []


@pytest.fixture
def poller(sources: list[object]) -> Iterator[Poller]:
    with netpoll.open_poller(on_error=lambda source, _: sources.append(source)) as poller:
        yield poller


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_on_error_gets_the_attachment_that_failed(
    poller: Poller,
    pair: tuple[socket.socket, socket.socket],
    sources: list[object],
    edge_triggered: bool,
) -> None:
    """The last callback of a batch deletes itself, adds its number again, and raises.

    on_error gets the old attachment, and the next wait's event reaches the new one.
    """
    here, there = pair
    calls: list[str] = []
    new = PollAttachment(here, lambda *_: calls.append("new"))

    def callback(fd: int, event: int, flags: int) -> None:
        calls.append("old")
        poller.delete(fd)
        poller.add_read(new, edge_triggered)
        raise Boom

    old = PollAttachment(here, callback)
    poller.add_read(old, edge_triggered)
    there.send(b"x")
    assert poller.poll_once(0) == 1
    assert (calls, sources) == (["old"], [old])
    assert poller.poll_once(0) == 1
    assert (calls, sources) == (["old", "new"], [old])


def test_on_error_gets_the_attachment_that_failed_after_mod(
    poller: Poller, pair: tuple[socket.socket, socket.socket], sources: list[object]
) -> None:
    """A callback that puts another attachment in its place and raises is reported itself."""
    here, there = pair

    def callback(fd: int, event: int, flags: int) -> None:
        poller.mod_read(PollAttachment(fd, print))
        raise Boom

    old = PollAttachment(here, callback)
    poller.add_read(old, oneshot=True)
    there.send(b"x")
    assert poller.poll_once(0) == 1
    assert sources == [old]
