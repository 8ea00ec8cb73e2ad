"""`LoopState`: what the loop, its poller and the kernel held at one moment of a trace.

`advance` folds one step into a state; `tracer.replay` seeks. Two things stand in no step and are
inferred from the others: the ready list and the counter of the wakeup descriptor. What is inferred
may know less than the kernel, never more. `static/fold.js` is the same fold for the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from tracer.steps import (
    Accepted,
    BatchResized,
    CallStep,
    Closed,
    Deleted,
    DispatchEnded,
    DispatchStarted,
    EventDropped,
    ListRebuilt,
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
    WakeupReceived,
    WakeupSent,
    Wrote,
)
from tracer.trace import BaseState

READ, PRI, WRITE, ERR, HUP, RDHUP = 1, 2, 4, 8, 16, 0x2000

INTEREST_BITS = {
    "read": READ | PRI | RDHUP,
    "write": WRITE,
    "read write": READ | PRI | RDHUP | WRITE,
}
"""The event bits that each interest asks for; the kernel adds ERR and HUP unasked."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A descriptor on the interest list.

    `id` is its own: a number that was closed and used again is another registration. `slot` is
    its place in the picture, `name` what people call it (``"client A"``). `armed` is False after
    a one-shot fired, until it is modified. `closed`: its socket was closed without `delete`, so
    the kernel dropped it.
    """

    id: int
    slot: int
    fd: int
    name: str
    who: str
    interest: str
    edge_triggered: bool
    oneshot: bool
    exclusive: bool
    armed: bool
    callback: int | None
    closed: bool


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor known by its number, registered or not.

    `name` is what people call it (``"client A"``); `accepted` means that a step of this trace
    returned it, so that it is known to be open until `closed`. `registration` is the id of its
    registration and `slot` its place in the picture; None when it has none.
    """

    fd: int
    name: str
    peer: str
    slot: int | None
    registration: int | None
    accepted: bool
    bytes_read: int = 0
    bytes_written: int = 0
    end_of_stream: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class ReadyEvent:
    """An entry of the ready list, as far as the steps tell."""

    fd: int
    event: int
    name: str


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """An event that the last wait returned; `status` is pending, now, done or dropped."""

    fd: int
    event: int
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Running:
    """A callback (`fd` and `event` are numbers) or a task (both None) that the loop called.

    `seq` is that of its DispatchStarted or TaskStarted.
    """

    seq: int
    thread: str
    callback: int | None
    fd: int | None = None
    event: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a call stands: the id of a function and a line number in its file."""

    function: int
    line: int | None


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task that waits in a queue; `seq` is that of its TaskQueued, None in the base state."""

    seq: int | None
    callback: int | None


@dataclass(frozen=True, slots=True)
class PendingTimer:
    """A timer that is set; `seq` is that of its TimerSet, None in the base state."""

    seq: int | None
    callback: int | None
    due_ns: int


@dataclass(frozen=True, slots=True)
class Counts:
    """How often things happened since the recording began."""

    waits: int = 0
    dispatches: int = 0
    tasks: int = 0
    dropped: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class LoopState:
    """The loop after `steps` steps.

    `phase` is ``outside`` (of the loop, or unknown), ``waiting``, ``dispatching``, ``tasks`` or
    ``between`` those. `registrations` and `descriptors` are keyed by number. `running` runs now,
    `finished` ran last, `site` is the last call made in it. `wait_began` is in nanoseconds.
    `error` is what the last step failed with. `timers` stand by their deadlines.
    """

    phase: str
    size: int
    wakeup_fd: int
    steps: int = 0
    registrations: Mapping[int, Registration] = field(default_factory=dict)
    descriptors: Mapping[int, Descriptor] = field(default_factory=dict)
    ready: tuple[ReadyEvent, ...] = ()
    batch: tuple[BatchEvent, ...] = ()
    running: Running | None = None
    finished: Running | None = None
    site: Site | None = None
    urgent: tuple[QueuedTask, ...] = ()
    low: tuple[QueuedTask, ...] = ()
    timers: tuple[PendingTimer, ...] = ()
    wakeup_counter: int = 0
    counts: Counts = Counts()
    wait_began: int | None = None
    error: str | None = None
    closed: bool = False
    next_registration: int = 0
    next_client: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain dicts, lists and values; rows by slot, descriptors by fd."""
        values = asdict(self)
        by_slot = sorted(self.registrations.values(), key=lambda row: row.slot)
        values["registrations"] = [asdict(row) for row in by_slot]
        values["descriptors"] = [asdict(known) for _, known in sorted(self.descriptors.items())]
        for name in ("ready", "batch", "urgent", "low", "timers"):
            values[name] = list(values[name])
        return values

    def name(self, fd: int) -> str:
        """Return what people call the descriptor `fd`; empty when nothing is known."""
        known = self.descriptors.get(fd)
        return known.name if known else ""


def client_name(number: int) -> str:
    """Return the nickname of the `number`-th connection from 0: client A … client AA."""
    letters = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return f"client {letters}"


def initial(base: BaseState) -> LoopState:
    """Return the state that a recording began with."""
    state = LoopState(
        phase="between" if base.running else "outside",
        size=base.size,
        wakeup_fd=base.wakeup_fd,
        urgent=tuple(QueuedTask(t.seq, t.callback) for t in base.tasks if t.queue == "high"),
        low=tuple(QueuedTask(t.seq, t.callback) for t in base.tasks if t.queue == "low"),
        timers=tuple(
            PendingTimer(timer.seq, timer.callback, timer.due_ns)
            for timer in sorted(base.timers, key=lambda timer: timer.due_ns)
        ),
    )
    known = {row.fd: row for row in base.registrations}
    wakeup = known.pop(base.wakeup_fd, None)
    changes = _register(
        state,
        fd=base.wakeup_fd,
        who="wakeup",
        interest=wakeup.interest if wakeup else "read",
        edge_triggered=wakeup.edge_triggered if wakeup else False,
        oneshot=False,
        exclusive=False,
        callback=None,
    )
    state = replace(state, **changes)
    for row in known.values():
        state = replace(state, **_register(state, **asdict(row)))
    return state


def advance(state: LoopState, step: Step) -> LoopState:
    """Return the state after `step`; a call that failed changes no table."""
    changes: dict[str, Any] = {"steps": state.steps + 1}
    error = getattr(step, "error", None)
    if error is None or isinstance(step, (WaitEnded, DispatchEnded, TaskEnded)):
        change = _CHANGES.get(type(step))
        if change is not None:
            changes |= change(state, step)
    if error != state.error:
        changes["error"] = error
    if error is not None:
        counts = changes.get("counts", state.counts)
        changes["counts"] = replace(counts, errors=counts.errors + 1)
    if isinstance(step, CallStep) and step.function is not None:
        running = state.running
        if running is None or running.thread == step.thread:
            changes["site"] = Site(step.function, step.line)
        if running is None:
            changes["finished"] = None  # the last call is not its any more
    values = list(_ALL(state))  # `replace` would take four times as long, at every step
    for name, value in changes.items():
        values[_PLACES[name]] = value
    return LoopState(*values)


_PLACES = {own.name: place for place, own in enumerate(fields(LoopState))}
_ALL = attrgetter(*_PLACES)


# The changes that each kind of step makes, as the fields of LoopState to replace.

Change = dict[str, Any]


def _free_slot(state: LoopState) -> int:
    used = {known.slot for known in state.descriptors.values()}
    used |= {row.slot for row in state.registrations.values()}
    slot = 1 if state.next_registration else 0  # 0 is the wakeup's, which comes first
    while slot in used:
        slot += 1
    return slot


def _without(fd: int, ready: Iterable[ReadyEvent]) -> tuple[ReadyEvent, ...]:
    return tuple(entry for entry in ready if entry.fd != fd)


def _settle(state: LoopState, now: int | None = None) -> tuple[BatchEvent, ...]:
    """Return the batch when its entry number `now` (None: something behind it) is being handled.

    The wakeup's own event gets no DispatchStarted: it is done when something behind it begins.
    """
    batch = list(state.batch)
    for index, entry in enumerate(batch):
        if index == now:
            batch[index] = replace(entry, status="now")
        elif entry.status == "now" or (
            entry.status == "pending"
            and entry.fd == state.wakeup_fd
            and (now is None or index < now)
        ):
            batch[index] = replace(entry, status="done")
    return tuple(batch)


def _pending(state: LoopState, fd: int) -> int | None:
    for index, entry in enumerate(state.batch):
        if entry.fd == fd and entry.status == "pending":
            return index
    return None


def _register(
    state: LoopState,
    *,
    fd: int,
    who: str,
    interest: str,
    edge_triggered: bool,
    oneshot: bool,
    exclusive: bool,
    callback: int | None,
    armed: bool = True,
    closed: bool = False,
) -> Change:
    registrations = dict(state.registrations)
    descriptors = dict(state.descriptors)
    old = registrations.pop(fd, None)
    known = descriptors.get(fd)
    if known is not None and (known.closed or (old and known.registration == old.id)):
        known = None  # the kernel took the number again, so what it meant before is gone
        del descriptors[fd]
    state = replace(state, registrations=registrations, descriptors=descriptors)
    slot = known.slot if known is not None else None
    if slot is None:
        slot = _free_slot(state)
    number = state.next_registration
    if known is None:
        known = Descriptor(fd, who, "", slot, number, accepted=False)
    registrations[fd] = Registration(
        number,
        slot,
        fd,
        known.name,
        who,
        interest,
        edge_triggered,
        oneshot,
        exclusive,
        armed=armed,
        callback=callback,
        closed=closed,
    )
    descriptors[fd] = replace(known, slot=slot, registration=number)
    return {
        "registrations": registrations,
        "descriptors": descriptors,
        "ready": _without(fd, state.ready),
        "next_registration": number + 1,
    }


def _registered(state: LoopState, step: Registered) -> Change:
    return _register(
        state,
        fd=step.fd,
        who=step.who,
        interest=step.interest,
        edge_triggered=step.edge_triggered,
        oneshot=step.oneshot,
        exclusive=step.exclusive,
        callback=step.callback,
    )


def _modified(state: LoopState, step: Modified) -> Change:
    row = state.registrations.get(step.fd)
    if row is None:
        return _registered(state, step)
    row = replace(
        row,
        interest=step.interest,
        edge_triggered=step.edge_triggered,
        oneshot=step.oneshot,
        exclusive=step.exclusive,
        armed=True,
        callback=step.callback,
    )
    wanted = INTEREST_BITS.get(step.interest, 0) | ERR | HUP
    ready = [
        replace(entry, event=entry.event & wanted) if entry.fd == step.fd else entry
        for entry in state.ready
    ]
    return {
        "registrations": {**state.registrations, step.fd: row},
        "ready": tuple(entry for entry in ready if entry.event),
    }


def _deleted(state: LoopState, step: Deleted) -> Change:
    registrations = dict(state.registrations)
    row = registrations.pop(step.fd, None)
    if row is None:
        return {}
    changes: Change = {"registrations": registrations, "ready": _without(step.fd, state.ready)}
    known = state.descriptors.get(step.fd)
    if known is not None and known.registration == row.id:
        slot = known.slot if known.accepted and not known.closed else None
        known = replace(known, registration=None, slot=slot)
        changes["descriptors"] = {**state.descriptors, step.fd: known}
    return changes


def _list_rebuilt(state: LoopState, step: ListRebuilt) -> Change:
    return {"registrations": {fd: replace(r, armed=True) for fd, r in state.registrations.items()}}


def _wait_started(state: LoopState, step: WaitStarted) -> Change:
    # The kernel looks again at what it returned before; what we know for sure is the counter.
    sure = state.wakeup_counter > 0
    return {
        "phase": "waiting",
        "size": step.size,
        "batch": (),
        "ready": tuple(e for e in state.ready if sure and e.fd == state.wakeup_fd),
        "running": None,
        "wait_began": step.t_ns,
        "counts": replace(state.counts, waits=state.counts.waits + 1),
    }


def _wait_ended(state: LoopState, step: WaitEnded) -> Change:
    registrations = dict(state.registrations)
    ready = []
    for fd, event in step.events:
        row = registrations.get(fd)
        if row is None:
            continue
        if row.oneshot or row.closed:  # what the kernel reports, it has not dropped
            registrations[fd] = replace(row, armed=not row.oneshot, closed=False)
        if not row.oneshot and not row.edge_triggered:
            ready.append(ReadyEvent(fd, event, state.name(fd)))
    changes: Change = {
        "phase": "between",
        "registrations": registrations,
        "ready": tuple(ready),
        "batch": tuple(BatchEvent(fd, e, state.name(fd), "pending") for fd, e in step.events),
    }
    if any(fd == state.wakeup_fd for fd, _ in step.events):
        changes["wakeup_counter"] = max(state.wakeup_counter, 1)
    return changes


def _dispatch_started(state: LoopState, step: DispatchStarted) -> Change:
    index = _pending(state, step.fd)
    if index is None:  # it was in flight before the recording began
        entry = BatchEvent(step.fd, step.event, state.name(step.fd), "pending")
        state = replace(state, batch=(*state.batch, entry))
        index = len(state.batch) - 1
    return {
        "phase": "dispatching",
        "batch": _settle(state, index),
        "running": Running(
            step.seq,
            step.thread,
            step.callback,
            step.fd,
            step.event,
            state.batch[index].name,
        ),
        "finished": None,
        "site": None,
        "counts": replace(state.counts, dispatches=state.counts.dispatches + 1),
    }


def _dispatch_ended(state: LoopState, step: DispatchEnded) -> Change:
    batch = tuple(
        replace(entry, status="done") if entry.status == "now" else entry for entry in state.batch
    )
    more = any(e.status == "pending" and e.fd != state.wakeup_fd for e in batch)
    return {
        "phase": "dispatching" if more else "between",
        "batch": batch,
        "running": None,
        "finished": state.running or state.finished,
    }


def _event_dropped(state: LoopState, step: EventDropped) -> Change:
    batch = list(state.batch)
    index = _pending(state, step.fd)
    if index is not None:
        batch[index] = replace(batch[index], status="dropped")
    counts = replace(state.counts, dropped=state.counts.dropped + 1)
    return {"batch": tuple(batch), "counts": counts}


def _task_queued(state: LoopState, step: TaskQueued) -> Change:
    task = QueuedTask(step.seq, step.callback)
    if step.queue == "low":
        return {"low": (*state.low, task)}
    return {"urgent": (*state.urgent, task)}


def _wakeup_sent(state: LoopState, step: WakeupSent) -> Change:
    # A write makes an eventfd readable at once: this much of the ready list is certain.
    changes: Change = {"wakeup_counter": state.wakeup_counter + 1}
    if state.wakeup_fd in state.registrations:
        entry = ReadyEvent(state.wakeup_fd, READ, state.name(state.wakeup_fd))
        changes["ready"] = (*_without(entry.fd, state.ready), entry)
    return changes


def _wakeup_received(state: LoopState, step: WakeupReceived) -> Change:
    batch = tuple(
        replace(entry, status="done") if entry.fd == state.wakeup_fd else entry
        for entry in state.batch
    )
    return {"wakeup_counter": 0, "batch": batch}


def _timer_set(state: LoopState, step: TimerSet) -> Change:
    timer = PendingTimer(step.seq, step.callback, step.t_ns + step.delay_ns)
    after = [other.due_ns > timer.due_ns for other in state.timers]
    place = after.index(True) if True in after else len(after)
    return {"timers": (*state.timers[:place], timer, *state.timers[place:])}


def _without_timer(state: LoopState, seq: int | None) -> Change:
    for index, timer in enumerate(state.timers):
        if timer.seq == seq:
            return {"timers": state.timers[:index] + state.timers[index + 1 :]}
    return {}


def _timer_canceled(state: LoopState, step: TimerCanceled) -> Change:
    return _without_timer(state, step.timer)


def _timer_fired(state: LoopState, step: TimerFired) -> Change:
    return {"phase": "tasks", "batch": _settle(state)} | _without_timer(state, step.cause)


def _task_started(state: LoopState, step: TaskStarted) -> Change:
    changes: Change = {
        "phase": "tasks",
        "batch": _settle(state),
        "running": Running(step.seq, step.thread, step.callback),
        "finished": None,
        "site": None,
        "counts": replace(state.counts, tasks=state.counts.tasks + 1),
    }
    queues = {"urgent": state.urgent, "low": state.low}
    for name, queue in queues.items():
        for index, task in enumerate(queue):
            if task.seq == step.cause:
                return changes | {name: queue[:index] + queue[index + 1 :]}
    return changes


def _task_ended(state: LoopState, step: TaskEnded) -> Change:
    return {
        "phase": "tasks" if state.urgent or state.low else "between",
        "running": None,
        "finished": state.running or state.finished,
    }


def _batch_resized(state: LoopState, step: BatchResized) -> Change:
    return {"size": step.size}


def _poller_closed(state: LoopState, step: PollerClosed) -> Change:
    descriptors = {
        fd: replace(
            known,
            registration=None,
            slot=known.slot if known.accepted and not known.closed else None,
        )
        for fd, known in state.descriptors.items()
    }
    return {
        "phase": "outside",
        "closed": True,
        "registrations": {},
        "descriptors": descriptors,
        "ready": (),
        "batch": (),
        "urgent": (),
        "low": (),
        "timers": (),
        "wakeup_counter": 0,
    }


def _accepted(state: LoopState, step: Accepted) -> Change:
    if step.new_fd is None:
        return {}
    changes: Change = {"next_client": state.next_client + 1}
    old = state.registrations.get(step.new_fd)
    if old is not None:  # the number was free, so its old socket had been closed
        changes["registrations"] = {**state.registrations, old.fd: replace(old, closed=True)}
        changes["ready"] = _without(old.fd, state.ready)
    descriptors = {fd: known for fd, known in state.descriptors.items() if fd != step.new_fd}
    slot = _free_slot(replace(state, descriptors=descriptors))
    descriptors[step.new_fd] = Descriptor(
        step.new_fd, client_name(state.next_client), step.peer, slot, None, accepted=True
    )
    return changes | {"descriptors": descriptors}


def _known(state: LoopState, fd: int, **changes: Any) -> Change:
    known = state.descriptors.get(fd)
    if known is None:
        return {}
    return {"descriptors": {**state.descriptors, fd: replace(known, **changes)}}


def _read(state: LoopState, step: Read) -> Change:
    known = state.descriptors.get(step.fd)
    if known is None:
        return {}
    if step.count == 0:
        return _known(state, step.fd, end_of_stream=True)
    return _known(state, step.fd, bytes_read=known.bytes_read + step.count)


def _wrote(state: LoopState, step: Wrote) -> Change:
    known = state.descriptors.get(step.fd)
    if known is None:
        return {}
    return _known(state, step.fd, bytes_written=known.bytes_written + step.count)


def _closed(state: LoopState, step: Closed) -> Change:
    known = state.descriptors.get(step.fd)
    row = state.registrations.get(step.fd)
    changes: Change = {}
    if row is not None and (known is None or known.registration == row.id):
        changes["registrations"] = {**state.registrations, step.fd: replace(row, closed=True)}
        changes["ready"] = _without(step.fd, state.ready)
        return changes | _known(state, step.fd, closed=True)
    return _known(state, step.fd, closed=True, slot=None)


_CHANGES: Mapping[type[Step], Callable[[LoopState, Any], Change]] = {
    Registered: _registered,
    Modified: _modified,
    Deleted: _deleted,
    ListRebuilt: _list_rebuilt,
    WaitStarted: _wait_started,
    WaitEnded: _wait_ended,
    DispatchStarted: _dispatch_started,
    DispatchEnded: _dispatch_ended,
    EventDropped: _event_dropped,
    TaskQueued: _task_queued,
    WakeupSent: _wakeup_sent,
    WakeupReceived: _wakeup_received,
    TimerSet: _timer_set,
    TimerCanceled: _timer_canceled,
    TimerFired: _timer_fired,
    TaskStarted: _task_started,
    TaskEnded: _task_ended,
    BatchResized: _batch_resized,
    PollerClosed: _poller_closed,
    Accepted: _accepted,
    Read: _read,
    Wrote: _wrote,
    Closed: _closed,
}
