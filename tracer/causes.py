"""`Causes`: which step of a trace led to which, and what its sentences look at.

One pass over the steps, and no state of the loop is made for it: asking costs the same at every
step of a long trace. `static/causes.js` is the same for the browser.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Any, NamedTuple

from tracer.state import (
    BatchEvent,
    Descriptor,
    LoopState,
    Registration,
    Running,
    client_name,
)
from tracer.steps import (
    Accepted,
    CallStep,
    Closed,
    Deleted,
    DispatchEnded,
    DispatchStarted,
    EventDropped,
    Modified,
    PollerClosed,
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
    WakeupReceived,
    WakeupSent,
)
from tracer.trace import BaseState, Trace
from tracer.words import LISTED_EVENTS, sentence

NONE = -1
"""No index, no function: the tables hold plain integers."""

SLICE = 4096
"""So many steps are made at once when a trace is read."""


class Timer(NamedTuple):
    """A timer that is set: the `number`-th one; `seq` is that of its TimerSet."""

    due_ns: int
    number: int
    seq: int | None
    callback: int | None


def before(indices: Sequence[int], index: int) -> int | None:
    """Return the last of the rising `indices` that is smaller than `index`."""
    place = bisect_left(indices, index)
    return indices[place - 1] if place else None


def after(indices: Sequence[int], index: int) -> int | None:
    """Return the first of the rising `indices` that is greater than `index`."""
    place = bisect_right(indices, index)
    return indices[place] if place < len(indices) else None


class Causes:
    """What the steps of a trace refer to, by their indices, which rise in every list.

    Read when it is asked for the first time, and further when the trace has grown; calls that
    failed stand in none of the lists but `returned`. Of what changes along the trace, it keeps what
    the sentences need: names as they change, and numbers beside the steps that tell them.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.seqs = array("q")
        self.causes = array("q")  # the index of each step's cause
        self._last_effect = array("q")  # of each step
        self._effect_before = array("q")  # of the same cause
        self.waits: list[int] = []  # the WaitStarted
        self.returned: list[int] = []  # the WaitEnded
        self.queued: list[int] = []
        self.sent: list[int] = []
        self.received: list[int] = []
        self.registered: dict[int, list[int]] = {}  # or modified; by descriptor, as the next three
        self.added: dict[int, list[int]] = {}  # registered, not modified
        self.deleted: dict[int, list[int]] = {}
        self.accepted: dict[int, list[int]] = {}
        self.listeners: set[int] = set()
        self._named: dict[int, tuple[list[int], list[str]]] = {}  # since when, and what
        self._names_then: dict[int, str] = {}  # of events, where the number means another by now
        self._marked: set[int] = set()  # steps that found a wait, or a row, see _glance
        self._counters = array("q")  # beside `sent`: the wakeup's
        self._began = array("q")  # beside `waits`: when,
        self._tasks = array("q")  # how many tasks are queued,
        self._timers: list[Timer | None] = []  # and which timer is due next
        self._ended: list[int] = []  # the DispatchEnded and TaskEnded; beside it:
        self._finished = array("q")  # whose callback
        self._left = array("q")  # how many events of the batch are pending
        self._callers: dict[int, int] = {}  # of calls without function or cause: what ran
        self._now = _Now(trace.base)
        for fd, name in self._now.names.items():
            self._named[fd] = ([NONE], [name])

    # ---- asking -------------------------------------------------------------------------------

    def read(self) -> Causes:
        """Read what has come since the last time, and return itself."""
        length = len(self.trace)
        while (start := len(self.seqs)) < length:
            for step in self.trace[start : min(start + SLICE, length)]:
                self._add(step)
        return self

    def index_of(self, seq: int) -> int | None:
        """Return the index of the step `seq`, or None when it is not in the trace."""
        index = self._place(seq)
        return None if index == NONE else index

    def cause(self, index: int) -> int | None:
        """Return the index of the cause of the step at `index`; None when the trace has none."""
        cause = self.causes[index]
        return None if cause == NONE else cause

    def effects(self, index: int) -> list[int]:
        """Return the indices of the steps that name the step at `index` as their cause."""
        found: list[int] = []
        effect = self._last_effect[index]
        while effect != NONE:
            found.append(effect)
            effect = self._effect_before[effect]
        found.reverse()
        return found

    def siblings(self, index: int, most: int) -> list[int] | None:
        """Return the steps before `index` of the same cause, the nearest first.

        None when there are more than `most`.
        """
        found: list[int] = []
        sibling = self._effect_before[index]
        while sibling != NONE:
            if len(found) == most:
                return None
            found.append(sibling)
            sibling = self._effect_before[sibling]
        return found

    def name(self, fd: int, index: int) -> str:
        """Return what people call `fd` after the step at `index`; empty when nothing is known."""
        since, names = self._named.get(fd, ((), ()))
        place = bisect_right(since, index)
        return names[place - 1] if place else ""

    def name_then(self, fd: int, index: int) -> str:
        """Return the name that the event at `index` came with: `fd` may be used again."""
        known = self._names_then.get(index)
        return self.name(fd, index) if known is None else known

    def slept(self, index: int) -> int:
        """Return for how many nanoseconds the wait had slept that ended at `index`."""
        place = bisect_left(self.waits, index)
        return max(0, self.trace[index].t_ns - self._began[place - 1]) if place else 0

    def tasks(self, wait: int) -> int:
        """Return how many tasks are queued when the wait at `wait` begins."""
        return self._tasks[bisect_left(self.waits, wait)]

    def limiting_timer(self, wait: int) -> Timer | None:
        """Return the timer that the time limit of the wait at `wait` comes from, if it does."""
        timer, step = self._timers[bisect_left(self.waits, wait)], self.trace[wait]
        if timer is None or not isinstance(step, WaitStarted) or step.timeout_ns is None:
            return None
        apart = abs(timer.due_ns - step.t_ns - step.timeout_ns)
        return timer if apart <= 10**6 + step.timeout_ns // 100 else None

    def in_callback(self, index: int) -> bool:
        """Return whether a call without a cause was made while its thread ran a callback."""
        return index in self._callers

    def asleep(self, index: int) -> bool:
        """Return whether the loop was in a wait when the TaskQueued or WakeupSent came."""
        return index in self._marked

    def sentence(self, index: int) -> str:
        """Return what the step at `index` did: as `words.sentence` does with its whole state."""
        step = self.trace[index]
        return sentence(step, self._glance(index, step), self.trace)

    def _glance(self, index: int, step: Step) -> LoopState:
        """Return of the state after the step at `index` what its sentence looks at."""
        fields: dict[str, Any] = {}
        own = (getattr(step, "fd", None), getattr(step, "new_fd", None))
        fds: list[int] = [fd for fd in own if fd is not None]
        marked = index in self._marked
        phase = "between"
        if isinstance(step, CallStep):
            if step.function is None and index in self._callers:
                caller = self._callers[index]
                fields["running"] = Running(0, step.thread, None if caller == NONE else caller)
            if isinstance(step, (Registered, Closed)) and (
                marked or (step.error is None and isinstance(step, Registered))
            ):
                fields["registrations"] = {step.fd: _row(step.fd, marked)}
        elif isinstance(step, (DispatchStarted, EventDropped)):
            name = self.name_then(step.fd, index)
            fields["batch"] = (BatchEvent(step.fd, step.event, name, "now"),)
        elif isinstance(step, WaitEnded):
            fds = [fd for fd, _ in step.events[:LISTED_EVENTS]]
            fields["wait_began"] = step.t_ns - self.slept(index)
        elif isinstance(step, (DispatchEnded, TaskEnded)):
            place = bisect_left(self._ended, index)
            callback = self._finished[place]
            fields["finished"] = Running(0, "", None if callback == NONE else callback)
            fields["batch"] = (_PENDING,) * self._left[place]
        elif isinstance(step, WakeupSent) and step.error is None:
            phase = "waiting" if marked else phase
            fields["wakeup_counter"] = self._counters[bisect_left(self.sent, index)]
        fields["descriptors"] = {fd: _known(fd, self.name(fd, index)) for fd in fds}
        return LoopState(phase, 0, self.trace.base.wakeup_fd, **fields)

    # ---- reading ------------------------------------------------------------------------------

    def _place(self, seq: int) -> int:
        place = bisect_left(self.seqs, seq)
        return place if place < len(self.seqs) and self.seqs[place] == seq else NONE

    def _add(self, step: Step) -> None:
        index = len(self.seqs)
        cause = NONE if step.cause is None else self._place(step.cause)
        self.seqs.append(step.seq)
        self.causes.append(cause)
        self._last_effect.append(NONE)
        self._effect_before.append(NONE if cause == NONE else self._last_effect[cause])
        if cause != NONE:
            self._last_effect[cause] = index
        now = self._now
        own = _OWN.get(type(step))
        failed = getattr(step, "error", None) is not None and not isinstance(step, _EVEN_IF_FAILED)
        if own is not None and not failed:
            own(self, index, step)
        elif isinstance(step, Registered) and step.fd in now.rows:
            self._marked.add(index)
        if isinstance(step, CallStep):
            if now.running is None:
                if step.function is not None:
                    now.finished = NONE  # the last call is not its any more
            elif now.running[1] == step.thread and (step.function is None or step.cause is None):
                self._callers[index] = now.running[0]

    def _wait_started(self, index: int, step: WaitStarted) -> None:
        now = self._now
        self.waits.append(index)
        self._began.append(step.t_ns)
        self._tasks.append(now.queued)
        self._timers.append(now.timers[0] if now.timers else None)
        now.waiting, now.running = True, None
        now.empty_batch()

    def _wait_ended(self, index: int, step: WaitEnded) -> None:
        now = self._now
        self.returned.append(index)
        now.waiting = False
        now.empty_batch()
        for fd, _ in step.events:
            if fd in now.rows:
                now.dropped.discard(fd)  # what the kernel reports, it has not dropped
            now.batch.setdefault(fd, now.names.get(fd, ""))
            if fd == now.wakeup_fd:
                now.counter = max(now.counter, 1)
            else:
                now.pending[fd] = now.pending.get(fd, 0) + 1
                now.left += 1

    def _dispatch_started(self, index: int, step: DispatchStarted) -> None:
        now = self._now
        now.batch.setdefault(step.fd, now.names.get(step.fd, ""))
        now.called(step.callback, step.thread)
        self._event(index, step)

    def _event(self, index: int, step: DispatchStarted | EventDropped) -> None:
        now = self._now
        name = now.batch.get(step.fd)
        if name is not None and name != now.names.get(step.fd, ""):
            self._names_then[index] = name
        if now.pending.get(step.fd, 0) > 0:
            now.pending[step.fd] -= 1
            now.left -= 1

    def _call_ended(self, index: int, step: DispatchEnded | TaskEnded) -> None:
        now = self._now
        now.waiting = False
        if now.running is not None:
            now.finished = now.running[0]
        now.running = None
        self._ended.append(index)
        self._finished.append(now.finished)
        self._left.append(now.left)

    def _task_queued(self, index: int, step: TaskQueued) -> None:
        self.queued.append(index)
        self._now.queue(step.seq)
        if self._now.waiting:
            self._marked.add(index)

    def _task_started(self, index: int, step: TaskStarted) -> None:
        now = self._now
        now.called(step.callback, step.thread)
        if now.tasks.get(step.cause, 0) > 0:
            now.tasks[step.cause] -= 1
            now.queued -= 1
            if not now.tasks[step.cause]:
                del now.tasks[step.cause]

    def _wakeup_sent(self, index: int, step: WakeupSent) -> None:
        now = self._now
        now.counter += 1
        self.sent.append(index)
        self._counters.append(now.counter)
        if now.waiting:
            self._marked.add(index)

    def _wakeup_received(self, index: int, step: WakeupReceived) -> None:
        self.received.append(index)
        self._now.counter = 0

    def _timer_set(self, index: int, step: TimerSet) -> None:
        self._now.set_timer(step.t_ns + step.delay_ns, step.seq, step.callback)

    def _timer_canceled(self, index: int, step: TimerCanceled) -> None:
        self._now.remove_timer(step.timer)

    def _timer_fired(self, index: int, step: TimerFired) -> None:
        self._now.waiting = False
        self._now.remove_timer(step.cause)

    def _registered(self, index: int, step: Registered) -> None:
        now = self._now
        self.registered.setdefault(step.fd, []).append(index)
        if not isinstance(step, Modified):
            self.added.setdefault(step.fd, []).append(index)
        if not (isinstance(step, Modified) and step.fd in now.rows):
            now.register(step.fd, step.who)
            self._name(index, step.fd)

    def _deleted(self, index: int, step: Deleted) -> None:
        self.deleted.setdefault(step.fd, []).append(index)
        self._now.delete(step.fd)

    def _accepted(self, index: int, step: Accepted) -> None:
        now = self._now
        if step.new_fd is None:
            return
        self.listeners.add(step.fd)
        self.accepted.setdefault(step.new_fd, []).append(index)
        now.accept(step.new_fd)
        self._name(index, step.new_fd)

    def _closed(self, index: int, step: Closed) -> None:
        if self._now.close(step.fd):
            self._marked.add(index)

    def _poller_closed(self, index: int, step: PollerClosed) -> None:
        self._now.close_poller()

    def _name(self, index: int, fd: int) -> None:
        since, names = self._named.setdefault(fd, ([], []))
        name = self._now.names[fd]
        if not names or names[-1] != name:
            since.append(index)
            names.append(name)


_OWN: dict[type[Step], Any] = {
    WaitStarted: Causes._wait_started,
    WaitEnded: Causes._wait_ended,
    DispatchStarted: Causes._dispatch_started,
    DispatchEnded: Causes._call_ended,
    EventDropped: Causes._event,
    TaskQueued: Causes._task_queued,
    TaskStarted: Causes._task_started,
    TaskEnded: Causes._call_ended,
    WakeupSent: Causes._wakeup_sent,
    WakeupReceived: Causes._wakeup_received,
    TimerSet: Causes._timer_set,
    TimerCanceled: Causes._timer_canceled,
    TimerFired: Causes._timer_fired,
    Registered: Causes._registered,
    Modified: Causes._registered,
    Deleted: Causes._deleted,
    Accepted: Causes._accepted,
    Closed: Causes._closed,
    PollerClosed: Causes._poller_closed,
}


_EVEN_IF_FAILED = (WaitEnded, DispatchEnded, TaskEnded)


class _Now:
    """What holds at the step that is being read, of `tracer.state` only what sentences need.

    It changes in place, which costs the same with one descriptor as with a thousand. A descriptor
    knows the registration (`owners`) whose it is; `rows` are the registrations on the list.
    """

    def __init__(self, base: BaseState) -> None:
        self.wakeup_fd = base.wakeup_fd
        self.names: dict[int, str] = {}
        self.owners: dict[int, int | None] = {}
        self.gone: set[int] = set()  # descriptors that were closed
        self.rows: dict[int, int] = {}
        self.dropped: set[int] = set()  # rows whose descriptor was closed
        self.registrations = 0
        self.clients = 0
        self.waiting = False
        self.running: tuple[int, str] | None = None  # callback and thread
        self.finished = NONE
        self.batch: dict[int, str] = {}  # the names that the last wait's events came with
        self.pending: dict[int, int] = {}  # how often each is in the batch, not yet handled
        self.left = 0  # how many that are
        self.counter = 0
        self.tasks: dict[int | None, int] = {}  # by the seq of their TaskQueued
        self.queued = 0  # how many they are
        self.timers: list[Timer] = []
        self._timers_set = 0
        self._due: dict[int | None, Timer] = {}
        self.register(base.wakeup_fd, "wakeup")
        for row in base.registrations:
            if row.fd != base.wakeup_fd:
                self.register(row.fd, row.who)
                if row.closed:
                    self.dropped.add(row.fd)
        for task in base.tasks:
            self.queue(task.seq)
        for timer in sorted(base.timers, key=lambda timer: timer.due_ns):
            self.set_timer(timer.due_ns, timer.seq, timer.callback)

    def called(self, callback: int | None, thread: str) -> None:
        self.waiting = False
        self.running = (NONE if callback is None else callback, thread)
        self.finished = NONE

    def register(self, fd: int, who: str) -> None:
        old = self.rows.get(fd)
        if fd not in self.names or fd in self.gone or (old is not None and self.owners[fd] == old):
            self.names[fd] = who
            self.gone.discard(fd)
        self.owners[fd] = self.rows[fd] = self.registrations
        self.registrations += 1
        self.dropped.discard(fd)

    def delete(self, fd: int) -> None:
        row = self.rows.pop(fd, None)
        self.dropped.discard(fd)
        if row is not None and self.owners.get(fd) == row:
            self.owners[fd] = None

    def accept(self, fd: int) -> None:
        if fd in self.rows:
            self.dropped.add(fd)
        self.names[fd] = client_name(self.clients)
        self.owners[fd] = None
        self.gone.discard(fd)
        self.clients += 1

    def close(self, fd: int) -> bool:
        """Return whether the kernel thereby dropped a row, or had dropped one of the number."""
        row = self.rows.get(fd)
        if row is not None and (fd not in self.names or self.owners[fd] == row):
            self.dropped.add(fd)
        if fd in self.names:
            self.gone.add(fd)
        return fd in self.dropped

    def close_poller(self) -> None:
        self.rows.clear()
        self.dropped.clear()
        self.owners = dict.fromkeys(self.owners)
        self.waiting = False
        self.empty_batch()
        self.tasks, self.queued = {}, 0
        self.timers, self._due = [], {}
        self.counter = 0

    def empty_batch(self) -> None:
        self.batch, self.pending, self.left = {}, {}, 0

    def queue(self, seq: int | None) -> None:
        self.tasks[seq] = self.tasks.get(seq, 0) + 1
        self.queued += 1

    def set_timer(self, due_ns: int, seq: int | None, callback: int | None) -> None:
        timer = Timer(due_ns, self._timers_set, seq, callback)
        self._timers_set += 1
        insort(self.timers, timer, key=lambda other: other[:2])
        if seq is not None:
            self._due[seq] = timer

    def remove_timer(self, seq: int | None) -> None:
        if seq is None:  # the first one of the base state
            timer = next((timer for timer in self.timers if timer.seq is None), None)
        else:
            timer = self._due.pop(seq, None)
        if timer is not None:
            place = bisect_left(self.timers, timer[:2], key=lambda other: other[:2])
            del self.timers[place]


_PENDING = BatchEvent(NONE, 0, "", "pending")


def _known(fd: int, name: str) -> Descriptor:
    return Descriptor(fd, name, "", None, None, accepted=False)


def _row(fd: int, closed: bool) -> Registration:
    return Registration(0, 0, fd, "", "", "", False, False, False, True, None, closed)
