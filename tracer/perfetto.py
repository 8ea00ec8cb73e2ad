"""`perfetto(trace, path)`: a recording as a file for https://ui.perfetto.dev, in Chrome's format.

What a viewer wants and a trace does not have is settled here: no two slices of a track may overlap
in part, an arrow goes from slice to slice, and whatever began must end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

from tracer.steps import (
    STEP_KINDS,
    Accepted,
    BatchResized,
    BuffersSeen,
    CallStep,
    Closed,
    Deleted,
    DispatchEnded,
    DispatchStarted,
    EventDropped,
    ListChecked,
    ListRebuilt,
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
    event_names,
)
from tracer.trace import BaseRegistration, Trace
from tracer.trace_rows import short
from tracer.words import function_name

APART = 10
"""Two steps on a track are at least so many nanoseconds apart: viewers round when they read."""

INSIDE = 2
"""So many nanoseconds after the start of a slice an arrow begins or ends: surely in the slice."""

SHORT = 1000
"""A step that takes no time of its own is shown as a slice of at most so many nanoseconds."""

LISTED_EVENTS = 20
"""So many events of a batch are told one by one."""

LONGEST_NAME = 200
"""Longer names and error texts are cut."""

_TOLD = {field.name for field in fields(CallStep)} | {"callback", "event", "events"}
"""These fields are not shown as they are, but in other words."""

_FIELDS = {
    kind: [field.name for field in fields(kind) if field.name not in _TOLD]
    for kind in STEP_KINDS.values()
}


def perfetto(traces: Trace | Sequence[Trace], path: str | PathLike[str]) -> Path:
    """Write one trace, or those of several pollers, to the file `path`, and return that.

    It is Chrome's JSON: drop it on https://ui.perfetto.dev. Times count from the first step of
    all traces. Raises OSError where the file can't be written, and ValueError for a part of a
    trace (a slice, or what `Trace.where` returns), in which slices would lack an end.
    """
    all_traces = [traces] if isinstance(traces, Trace) else list(traces)
    if any(trace.partial for trace in all_traces):
        raise ValueError("this is a part of a trace: perfetto needs the whole")
    start = min((trace.start_ns for trace in all_traces if len(trace)), default=0)
    target = Path(path)
    with target.open("w", encoding="ascii", newline="\n") as file:
        out = _File(file, start, len(all_traces))
        for number, trace in enumerate(all_traces, 1):
            _Poller(out, number, trace).write()
        out.end()
    return target


class _File:
    """The file that is written, one event a line; gives out numbers that are unique in it."""

    def __init__(self, file: TextIO, start: int, pollers: int) -> None:
        self.start = start
        self._last_tid = pollers  # for a viewer, a thread with the number of a process is its main
        self._write = file.write
        self._encode = json.JSONEncoder(separators=(",", ":")).encode
        self._separator = ""
        self._last_id = 0
        self._write('{"displayTimeUnit":"ns","traceEvents":[\n')

    def event(self, t_ns: int, **values: Any) -> None:
        """Write an event that happened `t_ns` nanoseconds after the start."""
        # Not as a float: it has not enough digits for the nanoseconds of a long recording.
        times = f',"ts":{_microseconds(t_ns)}}}'
        self._write(self._separator + self._encode(values)[:-1] + times)
        self._separator = ",\n"

    def slice(self, t_ns: int, end: int, **values: Any) -> None:
        """Write an event from `t_ns` to `end`."""
        duration = f',"ts":{_microseconds(t_ns)},"dur":{_microseconds(end - t_ns)}}}'
        self._write(self._separator + self._encode(values | {"ph": "X"})[:-1] + duration)
        self._separator = ",\n"

    def new_tid(self) -> int:
        """Return a number for a track that no other track and no poller has."""
        self._last_tid += 1
        return self._last_tid

    def new_id(self) -> str:
        """Return an id that nothing in the file has."""
        self._last_id += 1
        return hex(self._last_id)

    def end(self) -> None:
        """Write what closes the file."""
        self._write("\n]}\n")


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"


@dataclass(slots=True, eq=False)
class _Track:
    """What one thread did; the loop's slices are on the track of the thread that runs it.

    `last` is when its last step happened; `short` is the slice of that step, which waits to be
    written until the next step says how long it may be.
    """

    tid: int
    name: str
    last: int = -APART
    short: tuple[int, dict[str, Any]] | None = None
    loop: bool = False


@dataclass(slots=True, eq=False)
class _Open:
    """A slice of the loop that has not ended: a wait, a callback or a task."""

    track: _Track
    t_ns: int
    values: dict[str, Any]


@dataclass(slots=True, eq=False)
class _Life:
    """A descriptor's span from its registration to its end; `last` is when it changed last."""

    id: str
    name: str
    last: int


Place = tuple[int, int]
"""The number of a track and a time on it: where an arrow starts or ends."""


@lru_cache(1000)  # the same few come again and again
def _shown(text: str) -> str:
    return short(text, LONGEST_NAME)


def _queue(name: str) -> str:
    return "low" if name == "low" else "high"


class _Poller:
    """Writes the events of one trace: a process in the viewer, with a track for each thread."""

    def __init__(self, out: _File, pid: int, trace: Trace) -> None:
        self.out = out
        self.pid = pid
        self.trace = trace
        self.names: dict[int | None, str] = {}  # of functions
        self.tracks: dict[str, _Track] = {}
        self.latest = 0
        self.open: _Open | None = None
        self.lives: dict[int, _Life] = {}
        self.who = {row.fd: row.who for row in trace.base.registrations}
        self.who[trace.base.wakeup_fd] = "wakeup"
        self.triggers: dict[int | None, tuple[Place, str]] = {}  # with the queue, until it starts
        self.older = {"high": 0, "low": 0}
        for task in trace.base.tasks:
            self.older[_queue(task.queue)] += 1
        self.queued = dict(self.older)
        self.wakeups: dict[int | None, tuple[Place, int | None]] = {}  # with the trigger before it
        self.carried: dict[int | None, Place] = {}  # by trigger: where its wakeup was received
        self.timers: dict[int | None, Place] = {}

    def write(self) -> None:
        for row in self.trace.base.registrations:
            self._live(row, 0, {})
        self._counter(0, "queued tasks", **self.queued)
        self._counter(0, "batch size", most=self.trace.base.size)
        for step in self.trace:
            writer = self.WRITERS.get(type(step))
            if writer is not None:
                writer(self, step)
            elif isinstance(step, CallStep):
                self._short(step, step.kind, "call")
        self._end()

    def _end(self) -> None:
        if self.open is not None:
            end = self._advance(self.open.track, self.latest + APART)
            self._close(self.open, end, {"unfinished": "the trace ends here"})
        for track in self.tracks.values():
            self._flush(track, track.last + SHORT)
        for fd in list(self.lives):
            self._dead(fd, self.latest + APART, {"unfinished": "the trace ends here"})
        name = f"poller {self.pid} ({short(self.trace.base.backend, 40)})"
        self._metadata("process_name", 0, name=name)
        self._metadata("process_sort_index", 0, sort_index=self.pid)
        for track in self.tracks.values():
            role = "loop" if track.loop else "thread"
            self._metadata("thread_name", track.tid, name=f"{role}: {track.name}")
            self._metadata("thread_sort_index", track.tid, sort_index=int(not track.loop))

    def _metadata(self, kind: str, tid: int, **args: Any) -> None:
        self.out.event(0, ph="M", name=kind, pid=self.pid, tid=tid, args=args)

    # ---- tracks and slices --------------------------------------------------------------------

    def _step(self, step: Step, track: _Track | None = None) -> tuple[_Track, int]:
        """Return the track of `step`, and when it happened there: after all that did before."""
        if track is None:
            track = self.tracks.get(step.thread)
        if track is None:
            track = self.tracks[step.thread] = _Track(self.out.new_tid(), _shown(step.thread))
        return track, self._advance(track, step.t_ns - self.out.start)

    def _advance(self, track: _Track, t_ns: int) -> int:
        t_ns = max(t_ns, track.last + APART)
        # A slice ends well before the next step, however a viewer rounds.
        self._flush(track, min(track.last + SHORT, (track.last + t_ns) // 2))
        track.last = t_ns
        self.latest = max(self.latest, t_ns)
        return t_ns

    def _flush(self, track: _Track, end: int) -> None:
        if track.short is not None:
            t_ns, values = track.short
            track.short = None
            self.out.slice(t_ns, end, pid=self.pid, tid=track.tid, **values)

    def _short(self, step: Step, name: str, category: str, **more: Any) -> Place:
        """Show a step that takes no time; return where it is."""
        track, t_ns = self._step(step)
        args = self._args(step) | more
        track.short = t_ns, {"name": name, "cat": category, "args": args}
        return track.tid, t_ns

    def _begin(self, step: Step, name: str, category: str, **more: Any) -> Place:
        """Begin a slice of the loop; one that is still open has lost its end."""
        found = self.open
        if found is not None:
            _, end = self._step(step, found.track)
            self._close(found, end, {"unfinished": "its end was not recorded"})
        track, t_ns = self._step(step)
        track.loop = True
        args = self._args(step) | more
        self.open = _Open(track, t_ns, {"name": name, "cat": category, "args": args})
        return track.tid, t_ns

    def _finish(self, step: Step, category: str, **more: Any) -> int | None:
        """End the slice of the loop, if one of this category is open; return when."""
        found = self.open
        if found is None or found.values["cat"] != category:
            return None
        _, t_ns = self._step(step, found.track)
        error = getattr(step, "error", None)
        if error is not None:
            more["error"] = _shown(error)
        self._close(found, t_ns, more)
        return t_ns

    def _close(self, found: _Open, end: int, more: dict[str, Any]) -> None:
        self.open = None
        found.values["args"] |= more
        self.out.slice(found.t_ns, end, pid=self.pid, tid=found.track.tid, **found.values)

    def _args(self, step: Step) -> dict[str, Any]:
        """Return what a viewer shows about `step` when it is selected."""
        args: dict[str, Any] = {"seq": step.seq}
        for name in _FIELDS[type(step)]:
            value = getattr(step, name)
            if value is not None:
                args[name] = _shown(value) if isinstance(value, str) else value
        fd = args.get("fd")
        if fd in self.who and "who" not in args:
            args["who"] = _shown(self.who[fd])
        if isinstance(step, CallStep) and step.function is not None:
            args["source"] = self._source(step.function, step.line)
        if step.cause is not None:
            args["cause"] = step.cause
        error = getattr(step, "error", None)
        if error is not None:
            args["error"] = _shown(error)
        return args

    def _source(self, function: int, line: int | None = None) -> str:
        known = self.trace.functions.get(function)
        if known is None:
            return ""
        return f"{_shown(known.file)}:{line or known.first_line} in {_shown(known.name)}"

    def _name(self, callback: int | None) -> str:
        name = self.names.get(callback)
        if name is None:
            name = self.names[callback] = _shown(function_name(self.trace, callback))
        return name

    def _called(self, callback: int | None) -> dict[str, str]:
        return {} if callback is None else {"source": self._source(callback)}

    def _counter(self, t_ns: int, name: str, **values: int) -> None:
        self.out.event(t_ns, ph="C", name=name, pid=self.pid, args=values)

    # ---- arrows -------------------------------------------------------------------------------

    def _arrow(self, name: str, source: Place, target: Place) -> None:
        """Draw an arrow, unless it led back in time.

        Two threads may have looked at the clock in another order than their steps were numbered.
        """
        if source[1] >= target[1]:
            return
        common = {"name": name, "cat": "cause", "id": self.out.new_id(), "pid": self.pid}
        self.out.event(source[1] + INSIDE, ph="s", tid=source[0], **common)
        self.out.event(target[1] + INSIDE, ph="f", bp="e", tid=target[0], **common)

    # ---- descriptors --------------------------------------------------------------------------

    def _live(self, row: Registered | BaseRegistration, t_ns: int, args: dict[str, Any]) -> None:
        self._dead(row.fd, t_ns, {"unfinished": "its number was registered anew"})
        name = f"fd {row.fd} {_shown(row.who)}".rstrip()
        life = self.lives[row.fd] = _Life(self.out.new_id(), name, t_ns)
        args = {"fd": row.fd, "who": _shown(row.who), "interest": _shown(row.interest)} | args
        self._span("b", life, t_ns, name, args)

    def _dead(self, fd: int, t_ns: int, args: dict[str, Any]) -> None:
        life = self.lives.pop(fd, None)
        if life is not None:
            self._span("e", life, t_ns, life.name, args)

    def _span(self, phase: str, life: _Life, t_ns: int, name: str, args: dict[str, Any]) -> None:
        if phase != "b":
            t_ns = life.last = max(t_ns, life.last + APART)
        # "local" makes it one of the process; with a plain id it would stand outside of all.
        common = {"pid": self.pid, "id2": {"local": life.id}, "cat": "descriptor", "args": args}
        self.out.event(t_ns, ph=phase, name=name, **common)

    # ---- a writer for each kind ---------------------------------------------------------------

    def _wait_started(self, step: WaitStarted) -> None:
        self._begin(step, "wait", "wait")

    def _wait_ended(self, step: WaitEnded) -> None:
        listed = [f"{fd} {event_names(event)}" for fd, event in step.events[:LISTED_EVENTS]]
        if len(step.events) > LISTED_EVENTS:
            listed.append(f"and {len(step.events) - LISTED_EVENTS:,} more")
        number = len(step.events)
        t_ns = self._finish(step, "wait", events=number, returned=", ".join(listed))
        if t_ns is not None:
            self._counter(t_ns, "batch", events=number)

    def _dispatch_started(self, step: DispatchStarted) -> None:
        name = self._name(step.callback)
        more = {"event": event_names(step.event)} | self._called(step.callback)
        self._begin(step, name, "dispatch", **more)

    def _dispatch_ended(self, step: DispatchEnded) -> None:
        self._finish(step, "dispatch")

    def _event_dropped(self, step: EventDropped) -> None:
        self._short(step, step.kind, "loop", event=event_names(step.event))

    def _buffers_seen(self, step: BuffersSeen) -> None:
        self._short(step, step.kind, "loop", unread=step.unread, unsent=step.unsent)

    def _in_loop(self, step: Step) -> None:
        self._short(step, step.kind, "loop")

    def _batch_resized(self, step: BatchResized) -> None:
        _, t_ns = self._short(step, step.kind, "loop")
        self._counter(t_ns, "batch size", most=step.size)

    def _task_queued(self, step: TaskQueued) -> None:
        name = self._name(step.callback)
        place = self._short(step, step.kind, "call", task=name)
        if step.error is None:
            queue = _queue(step.queue)
            self.triggers[step.seq] = place, queue
            self.queued[queue] += 1
            self._counter(place[1], "queued tasks", **self.queued)

    def _wakeup_sent(self, step: WakeupSent) -> None:
        place = self._short(step, step.kind, "call")
        if step.error is not None:
            return
        self.wakeups[step.seq] = place, step.cause
        if step.cause in self.triggers:
            self._arrow("wakeup", self.triggers[step.cause][0], place)

    def _wakeup_received(self, step: WakeupReceived) -> None:
        place = self._short(step, step.kind, "loop")
        sent, trigger = self.wakeups.pop(step.cause, (None, None))
        self.wakeups.clear()  # reading the descriptor took back all that was written to it
        if sent is not None:
            self._arrow("wakeup", sent, place)
        if trigger in self.triggers:
            self.carried[trigger] = place

    def _task_started(self, step: TaskStarted) -> None:
        name = self._name(step.callback)
        trigger, queue = self.triggers.pop(step.cause, (None, None))
        place = self._begin(step, name, "task", **self._called(step.callback))
        if trigger is not None:
            self._arrow("task", trigger, place)
            carried = self.carried.pop(step.cause, None)
            if carried is not None:
                self._arrow("wakeup", carried, place)
        elif step.cause is None:
            queue = next((name for name, number in self.older.items() if number), None)
            if queue is not None:
                self.older[queue] -= 1
        if queue is not None:
            self.queued[queue] -= 1
            self._counter(place[1], "queued tasks", **self.queued)

    def _task_ended(self, step: TaskEnded) -> None:
        self._finish(step, "task")

    def _timer_set(self, step: TimerSet) -> None:
        name = self._name(step.callback)
        place = self._short(step, step.kind, "call", timer=name)
        if step.error is None:
            self.timers[step.seq] = place

    def _timer_canceled(self, step: TimerCanceled) -> None:
        self._short(step, step.kind, "call")
        if step.error is None:
            self.timers.pop(step.timer, None)

    def _timer_fired(self, step: TimerFired) -> None:
        place = self._short(step, step.kind, "loop")
        if step.cause in self.timers:
            self._arrow("timer", self.timers.pop(step.cause), place)

    def _registered(self, step: Registered) -> None:
        if step.error is None:
            self.who[step.fd] = step.who
        callback = self._name(step.callback)
        place = self._short(step, step.kind, "call", callback=callback)
        if step.error is not None:
            return
        args = self._args(step)
        life = self.lives.get(step.fd)
        if type(step) is Modified and life is not None:
            self._span("n", life, place[1], step.kind, args)
        else:
            self._live(step, place[1], args)

    def _deleted(self, step: Deleted) -> None:
        _, t_ns = self._short(step, step.kind, "call")
        if step.error is None:
            self._dead(step.fd, t_ns, {})

    def _accepted(self, step: Accepted) -> None:
        self._short(step, step.kind, "call")
        if step.new_fd is not None:
            self.who[step.new_fd] = step.peer

    def _closed(self, step: Closed) -> None:
        _, t_ns = self._short(step, step.kind, "call")
        life = self.lives.get(step.fd)
        if life is not None:
            self._span("n", life, t_ns, "closed without delete", self._args(step))

    def _poller_closed(self, step: PollerClosed) -> None:
        _, t_ns = self._short(step, step.kind, "loop")
        for fd in list(self.lives):
            self._dead(fd, t_ns, {"ended": "the poller was closed"})
        self.queued = {"high": 0, "low": 0}
        self._counter(t_ns, "queued tasks", **self.queued)

    WRITERS: Mapping[type[Step], Callable[[_Poller, Any], None]] = {
        WaitStarted: _wait_started,
        WaitEnded: _wait_ended,
        DispatchStarted: _dispatch_started,
        DispatchEnded: _dispatch_ended,
        EventDropped: _event_dropped,
        ListRebuilt: _in_loop,
        ListChecked: _in_loop,
        BuffersSeen: _buffers_seen,
        BatchResized: _batch_resized,
        TaskQueued: _task_queued,
        WakeupSent: _wakeup_sent,
        WakeupReceived: _wakeup_received,
        TaskStarted: _task_started,
        TaskEnded: _task_ended,
        TimerSet: _timer_set,
        TimerCanceled: _timer_canceled,
        TimerFired: _timer_fired,
        Registered: _registered,
        Modified: _registered,
        Deleted: _deleted,
        Accepted: _accepted,
        Closed: _closed,
        PollerClosed: _poller_closed,
    }
