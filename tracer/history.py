"""`History`: a trace read once from end to end: what the loop called, and what became of sockets.

Where `tracer.state` answers what held at one moment, this answers what happened over time: to one
socket (`Life`), and in one callback or task (`Run`). `tracer.lint_rules` and `tracer.expect` ask.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

from tracer.state import client_name
from tracer.steps import (
    Accepted,
    CallStep,
    Closed,
    Deleted,
    DispatchEnded,
    DispatchStarted,
    Modified,
    PollerClosed,
    Read,
    Registered,
    Step,
    TaskEnded,
    TaskQueued,
    TaskStarted,
    TimerCanceled,
    TimerFired,
    TimerSet,
    WaitEnded,
    WaitStarted,
    WouldBlock,
    Wrote,
)
from tracer.trace import BaseRegistration, Trace
from tracer.words import function_name, shown

END = float("inf")
"""Comes after every `seq`."""

Registration = Registered | BaseRegistration

ABOUT_A_DESCRIPTOR = (Registered, Deleted, Accepted, Read, Wrote, WouldBlock, Closed)
"""The calls that have an `fd`."""


@dataclass(slots=True, eq=False)
class Run:
    """A callback or task that the loop called, and the calls that were made in it.

    `round` counts the waits before it. A callback has the `life` of its descriptor, and what that
    was registered for when the event was dispatched. At its end so many `tasks` and `timers` were
    still to come, and `pressed` says whether the kernel had not taken all that was to be sent.
    """

    started: DispatchStarted | TaskStarted
    round: int
    life: Life | None = None
    registration: Registration | None = None
    ended: DispatchEnded | TaskEnded | None = None
    calls: list[CallStep] = field(default_factory=list)
    tasks: int = 0
    timers: int = 0
    pressed: bool = False

    @property
    def event(self) -> int:
        """The event that the callback was called for; 0 for a task."""
        return self.started.event if isinstance(self.started, DispatchStarted) else 0

    @property
    def fd(self) -> int | None:
        """The descriptor that the callback was called for."""
        return self.life.fd if self.life else None

    @property
    def error(self) -> str | None:
        """What it raised."""
        return self.ended.error if self.ended else None

    @property
    def own(self) -> list[CallStep]:
        """The calls about the descriptor that the callback was called for."""
        fd = self.fd
        return [c for c in self.calls if isinstance(c, ABOUT_A_DESCRIPTOR) and c.fd == fd]


@dataclass(slots=True, eq=False)
class Life:
    """One socket or file behind a descriptor's number, from its first step to its last.

    `older` says that it was there when the recording began, `accepted` is the step that it came
    from, `came_back` says that its number stood for another one although no step had closed it.
    `steps` are all about it, dispatches included; `changes` are its registrations, with the `seq`
    from which each holds.
    """

    fd: int
    name: str
    who: str = ""
    older: bool = False
    accepted: Accepted | None = None
    closed: bool = False
    came_back: bool = False
    steps: list[Step] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    changes: list[tuple[int, Registration | None]] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """What people call it, with its number."""
        name = shown(self.name)
        return f"{name} (descriptor {self.fd})" if name else f"descriptor {self.fd}"

    @property
    def is_socket(self) -> bool:
        """Whether it is known to be a socket, so that what is done with it makes steps."""
        return self.accepted is not None or any(
            isinstance(step, (Read, Wrote, WouldBlock)) for step in self.steps
        )

    def registration(self, seq: float) -> Registration | None:
        """Return what it was registered for when the step `seq` had happened."""
        index = bisect_right(self.changes, seq, key=lambda change: change[0])
        return self.changes[index - 1][1] if index else None

    def between(self, first: int, last: float = END) -> Iterator[Step]:
        """Yield its steps after the step `first` and before the step `last`."""
        for index in range(bisect_right(self.steps, first, key=_seq), len(self.steps)):
            if self.steps[index].seq >= last:
                return
            yield self.steps[index]

    def next_dispatch(self, seq: int) -> float:
        """Return the `seq` of the first dispatch after the step `seq`, `END` if there is none."""
        return next((s.seq for s in self.between(seq) if isinstance(s, DispatchStarted)), END)


class History:
    """What happened in a trace.

    `waits` and `ends` are the `seq` of each WaitStarted and PollerClosed, `batches` what the waits
    returned, `queued` the tasks that were not started, all by `seq`. `task_rounds` has for each
    round with tasks how many were waiting, and the first that ran. `replaced` are lives whose
    number came back in a later step while they were registered. `run_of` and `life_of` say where a
    step belongs, by its `seq`.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.steps = list(trace)
        self.runs: list[Run] = []
        self.lives: list[Life] = []
        self.waits: list[int] = []
        self.ends: list[int] = []
        self.batches: dict[int | None, WaitEnded] = {}
        self.queued: dict[int | None, TaskQueued] = {}
        self.task_rounds: list[tuple[int, Run]] = []
        self.replaced: list[tuple[Life, CallStep]] = []
        self.run_of: dict[int, Run] = {}
        self.life_of: dict[int, Life] = {}

        self._now: dict[int, Life] = {}
        self._running: Run | None = None
        self._older_tasks = len(trace.base.tasks)
        self._older_timers = len(trace.base.timers)
        self._timers: set[int | None] = set()
        self._fired: set[int | None] = set()
        self._unsent: set[int] = set()  # descriptors for which the kernel did not take all bytes
        self._clients = 0
        for row in trace.base.registrations:
            life = self._begin(row.fd, row.who)
            life.older = True
            life.who = row.who
            life.changes.append((-1, row))
            if "write" in row.interest:
                self._unsent.add(row.fd)
        for step in self.steps:
            self._read(step)

    def number(self, seq: int) -> int:
        """Return the number of the step `seq` in the trace, from 1, as the player counts."""
        return bisect_left(self.steps, seq, key=_seq) + 1

    def waits_after(self, seq: int) -> int:
        """Return how many waits began after the step `seq`."""
        return len(self.waits) - bisect_right(self.waits, seq)

    def next_wait(self, seq: int) -> float:
        """Return the `seq` of the first WaitStarted after the step `seq`, `END` if none is."""
        index = bisect_right(self.waits, seq)
        return self.waits[index] if index < len(self.waits) else END

    def called(self, run: Run) -> str:
        """Return the name of the function that the loop called."""
        return function_name(self.trace, run.started.callback)

    def _read(self, step: Step) -> None:
        if isinstance(step, CallStep):
            self._read_call(step)
        elif isinstance(step, WaitStarted):
            self.waits.append(step.seq)
        elif isinstance(step, WaitEnded):
            self.batches[step.seq] = step
        elif isinstance(step, DispatchStarted):
            life = self._life(step.fd)
            run = Run(step, len(self.waits), life, life.registration(step.seq))
            self._running = self.run_of[step.seq] = run
            self.runs.append(run)
            life.runs.append(run)
            life.steps.append(step)
        elif isinstance(step, TaskStarted):
            self._read_task_started(step)
        elif isinstance(step, (DispatchEnded, TaskEnded)):
            self._read_ended(step)
        elif isinstance(step, TimerFired):
            self._fired.add(step.seq)
            self._end_timer(step.cause)
        elif isinstance(step, PollerClosed):
            self.ends.append(step.seq)
            for life in self._now.values():
                life.changes.append((step.seq, None))

    def _read_task_started(self, step: TaskStarted) -> None:
        run = self._running = self.run_of[step.seq] = Run(step, len(self.waits))
        self.runs.append(run)
        if step.cause not in self._fired:
            waiting = len(self.queued) + self._older_tasks
            if not self.task_rounds or self.task_rounds[-1][1].round != run.round:
                self.task_rounds.append((waiting, run))
            if self.queued.pop(step.cause, None) is None:
                self._older_tasks = max(self._older_tasks - 1, 0)

    def _read_ended(self, step: DispatchEnded | TaskEnded) -> None:
        run, self._running = self._running, None
        if run is not None:
            run.ended = step
            self.run_of[step.seq] = run
            run.tasks = len(self.queued) + self._older_tasks
            run.timers = len(self._timers) + self._older_timers
            run.pressed = bool(self._unsent)

    def _read_call(self, step: CallStep) -> None:
        run = self._running
        # A call without a cause belongs to what its thread is in: not every trace has causes.
        if run is not None and (
            step.cause == run.started.seq
            or (step.cause is None and step.thread == run.started.thread)
        ):
            run.calls.append(step)
            self.run_of[step.seq] = run
        if isinstance(step, TaskQueued):
            self.queued[step.seq] = step
        elif isinstance(step, TimerSet):
            self._timers.add(step.seq)
        elif isinstance(step, TimerCanceled):
            self._end_timer(step.timer)
        elif isinstance(step, Registered):
            self._read_registered(step)
        elif isinstance(step, (Deleted, Accepted, Read, Wrote, WouldBlock, Closed)):
            self._read_other(step)

    def _end_timer(self, seq: int | None) -> None:
        if seq in self._timers:
            self._timers.discard(seq)
        else:
            self._older_timers = max(self._older_timers - 1, 0)

    def _read_registered(self, step: Registered) -> None:
        life = self._life(step.fd)
        if step.error is None:
            before = life.registration(step.seq)
            if not isinstance(step, Modified):
                if before is not None and not life.closed:
                    self.replaced.append((life, step))
                if life.closed or before is not None or (life.who and life.who != step.who):
                    life.came_back = not life.closed
                    life = self._begin(step.fd, step.who)
            life.who = step.who
            life.name = life.name or step.who
            life.changes.append((step.seq, step))
        self._add(life, step)

    def _read_other(self, step: Deleted | Accepted | Read | Wrote | WouldBlock | Closed) -> None:
        life = self._life(step.fd)
        if life.closed and not isinstance(step, Deleted):
            life = self._begin(step.fd, "")
        self._add(life, step)
        if would_block(step, "send"):
            self._unsent.add(step.fd)
        elif step.error is not None:
            pass
        elif isinstance(step, Deleted):
            life.changes.append((step.seq, None))
            self._unsent.discard(step.fd)
        elif isinstance(step, Closed):
            life.closed = True
            self._unsent.discard(step.fd)
        elif isinstance(step, Wrote):
            if step.count < step.asked:
                self._unsent.add(step.fd)
            else:
                self._unsent.discard(step.fd)
        elif isinstance(step, Accepted) and step.new_fd is not None:
            self._read_accepted(step, step.new_fd)

    def _read_accepted(self, step: Accepted, new_fd: int) -> None:
        before = self._now.get(new_fd)
        if before is not None and not before.closed:
            before.came_back = True
            if before.registration(step.seq) is not None:
                self.replaced.append((before, step))
        life = self._begin(new_fd, client_name(self._clients))
        self._clients += 1
        life.accepted = step
        life.steps.append(step)
        self._unsent.discard(new_fd)

    def _add(self, life: Life, step: CallStep) -> None:
        life.steps.append(step)
        self.life_of[step.seq] = life

    def _begin(self, fd: int, name: str) -> Life:
        life = self._now[fd] = Life(fd, name)
        self.lives.append(life)
        return life

    def _life(self, fd: int) -> Life:
        return self._now.get(fd) or self._begin(fd, "")


def would_block(step: Step, *calls: str) -> TypeGuard[WouldBlock]:
    """Whether one of these calls found nothing to do; the beginning of a name will do."""
    return isinstance(step, WouldBlock) and step.call.startswith(calls)


def takes(step: Step) -> TypeGuard[Read | Accepted | WouldBlock]:
    """Whether the step takes bytes or a connection out of a socket, or tries to."""
    return isinstance(step, (Read, Accepted)) or would_block(step, "recv", "accept")


def sends(step: Step) -> bool:
    """Whether the step sends bytes, or tries to."""
    return isinstance(step, Wrote) or would_block(step, "send")


def done(step: Step, *kinds: type[CallStep]) -> bool:
    """Whether the step is of one of these kinds and did not fail."""
    return isinstance(step, kinds) and step.error is None


def is_over(step: Step) -> bool:
    """Whether a read found the end of the stream, or failed because the connection is broken."""
    return isinstance(step, Read) and step.count == 0


def _seq(step: Step) -> int:
    return step.seq
