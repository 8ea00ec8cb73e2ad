"""`stats(trace)`: where a loop's time went, and how long whom it kept waiting; in numbers.

Every number of time is an integer of nanoseconds. docs/reference/stats-and-perfetto.md says what
each of them means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import log2
from textwrap import wrap
from typing import Any

from tracer.steps import (
    Accepted,
    BatchResized,
    Closed,
    Deleted,
    DispatchEnded,
    DispatchStarted,
    EventDropped,
    Modified,
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
from tracer.trace import Trace
from tracer.trace_rows import WIDEST, short
from tracer.words import count, duration, function_name

SHOWN = 8
"""A table or picture shows so many callbacks or descriptors; the numbers are there for all."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a number of durations are spread, in nanoseconds; all zero when there are none.

    `p50` and `p99` are percentiles by nearest rank: the smallest of the durations that at least
    50 or 99 of 100 do not exceed. ``histogram[n]`` counts those of n binary digits, from
    ``2**(n-1)`` to less than ``2**n``; those of zero and less stand at 0.
    """

    count: int = 0
    total: int = 0
    p50: int = 0
    p99: int = 0
    max: int = 0
    histogram: tuple[int, ...] = ()

    @classmethod
    def of(cls, durations: Iterable[int]) -> Distribution:
        """Return the distribution of `durations`."""
        ordered = sorted(durations)
        if not ordered:
            return cls()
        digits = Counter(max(one, 0).bit_length() for one in ordered)
        return cls(
            len(ordered),
            sum(ordered),
            ordered[_rank(50, len(ordered))],
            ordered[_rank(99, len(ordered))],
            ordered[-1],
            tuple(digits[number] for number in range(max(digits) + 1)),
        )


def _rank(percent: int, length: int) -> int:
    return -(-percent * length // 100) - 1


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """What one function cost the loop as a ``"callback"``, ``"task"`` or ``"timer"`` (its `role`).

    `function` is its id in the trace's functions, `place` its file and first line. `calls` began;
    `time` is of those that ended, from start to end; `errors` of them raised. `delay` is the time
    before the start: of a callback from the wait's return, of a task from its trigger, of a timer
    from when it was due. The bytes are those that its calls moved.
    """

    function: int | None
    role: str
    name: str
    place: str
    calls: int
    errors: int
    time: Distribution
    delay: Distribution
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class DescriptorStats:
    """What one descriptor cost the loop, from when it came to when its number was used anew.

    `name` is who is behind it. `calls`, `errors`, `time` and `delay` are those of its callback,
    as in `FunctionStats`; the bytes moved through it, whoever moved them. `dropped` events were
    not dispatched.
    """

    fd: int
    name: str
    calls: int
    errors: int
    time: Distribution
    delay: Distribution
    bytes_read: int
    bytes_written: int
    dropped: int


@dataclass(frozen=True, slots=True, repr=False)
class Stats:
    """The statistics of a trace; printed, a table, and in a notebook also a picture.

    `steps`, `backend` and `span_ns` (from the earliest step to the latest) are those of the trace.

    The loop's time is `waiting_ns` + `dispatching_ns` (in callbacks) + `tasks_ns` (in tasks and
    timers) + `loop_ns` (the rest, in the loop itself, and between two calls of it). `rounds` counts
    the waits that the kernel answered, and `away` is the time from each answer to the next wait,
    in which no other event is seen. `batches` holds pairs: how many events an answer had (the
    wakeup among them), and how often.

    `functions` and `descriptors` are ordered by the time that they took, the most first.

    `triggers` counts the tasks that were queued, `queue_delays` holds pairs: the priority they
    were triggered with, and the time from then to their start; `tasks_left` had not started when
    the trace ended. `timers_set`, `timers_canceled` and `timers_left` count timers; `lateness`
    tells how long after they were due they fired. `wakeups` counts the writes to the wakeup
    descriptor; `dropped` the events that were not dispatched. `errors` holds triples: the kind of
    step, the name of what was raised, and how often.
    """

    steps: int
    backend: str
    span_ns: int
    waiting_ns: int
    dispatching_ns: int
    tasks_ns: int
    loop_ns: int
    rounds: int
    away: Distribution
    batches: tuple[tuple[int, int], ...]
    functions: tuple[FunctionStats, ...]
    descriptors: tuple[DescriptorStats, ...]
    triggers: int
    queue_delays: tuple[tuple[str, Distribution], ...]
    tasks_left: int
    timers_set: int
    timers_canceled: int
    timers_left: int
    lateness: Distribution
    wakeups: int
    dropped: int
    errors: tuple[tuple[str, str, int], ...]

    @property
    def total_ns(self) -> int:
        """The loop's time."""
        return self.waiting_ns + self.dispatching_ns + self.tasks_ns + self.loop_ns

    @property
    def utilization(self) -> float:
        """The share of the loop's time, from 0 to 1, in which it did not wait for the kernel."""
        return 1 - self.waiting_ns / self.total_ns if self.total_ns else 0.0

    @property
    def triggers_per_wakeup(self) -> float:
        """How many triggers there were to one write; 0 where there was none."""
        return self.triggers / self.wakeups if self.wakeups else 0.0

    def picture(self) -> str:
        """Return the text of an SVG picture: loop time, sizes of batches, and spread of times."""
        return _picture(self)

    def __repr__(self) -> str:
        lines = [f"<Stats of {_title(self)}>"]
        for name, text in _summary(self):
            for part in wrap(text, WIDEST - 17):
                lines.append(f"  {name:<15}{part}")
                name = ""
        for head, rows, more in _tables(self):
            lines += ["", *(_columns(cells) for cells in (head, *(row[1:] for row in rows)))]
            if more:
                lines.append(f"  … and {more:,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return _html(self)


def stats(trace: Trace) -> Stats:
    """Return the statistics of `trace`.

    What had not ended when the trace ends counts for the loop's time up to there, and as a call;
    it has no duration of its own. Raises ValueError for a part of a trace (a slice, or what
    `Trace.where` returns), which lacks the beginnings and ends of what it shows.
    """
    if trace.partial:
        raise ValueError("this is a part of a trace: stats needs the whole")
    return _Reader(trace).read()


# ---- reading ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """What is added up for a function or a descriptor while the trace is read."""

    name: str = ""
    calls: int = 0
    errors: int = 0
    times: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    bytes_read: int = 0
    bytes_written: int = 0
    dropped: int = 0
    registered: bool = False
    deleted: bool = False
    ended: bool = False  # its number is another's when it comes again

    def common(self) -> dict[str, Any]:
        """Return the fields that both have in the result."""
        return {
            "calls": self.calls,
            "errors": self.errors,
            "time": Distribution.of(self.times),
            "delay": Distribution.of(self.delays),
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
        }


class _Reader:
    """Reads a trace once, from its first step to its last."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.shares = {"waiting": 0, "dispatching": 0, "tasks": 0, "loop": 0}
        self.phase = ""  # where the loop is; empty before its first step
        self.since = 0  # when it came there
        self.running: tuple[_Tally, ...] = ()  # the function, and its descriptor's, that runs now
        self.answered: tuple[int, int] | None = None  # seq and time of the newest WaitEnded
        self.rounds = 0
        self.away: list[int] = []
        self.batches: Counter[int] = Counter()
        self.functions: dict[tuple[str, int | None], _Tally] = {}
        self.descriptors: list[tuple[int, _Tally]] = []
        self.newest: dict[int, _Tally] = {}  # of each number
        self.queued: dict[int, TaskQueued] = {}
        self.older_tasks = len(trace.base.tasks)
        self.triggers = 0
        self.queue_delays: dict[str, list[int]] = {}
        self.fired: TimerFired | None = None
        self.timers: set[int] = set()
        self.older_timers = len(trace.base.timers)
        self.timers_set = self.timers_canceled = 0
        self.lateness: list[int] = []
        self.wakeups = 0
        self.errors: Counter[tuple[str, str]] = Counter()
        for row in trace.base.registrations:
            self._come(row.fd, row.who).registered = True

    def read(self) -> Stats:
        readers = self.READERS
        steps = 0
        earliest: int | None = None
        latest = 0
        for step in self.trace:
            steps += 1
            t_ns = step.t_ns
            if earliest is None:
                earliest = latest = t_ns
            elif t_ns > latest:
                latest = t_ns
            elif t_ns < earliest:
                earliest = t_ns
            reader = readers.get(type(step))
            if reader is not None:
                reader(self, step)
            error = getattr(step, "error", None)
            if isinstance(error, str):
                self.errors[step.kind, error.partition(":")[0]] += 1
        if self.phase not in ("", "loop"):
            self._go("loop", latest)
        return self._result(steps, latest - (earliest or 0))

    def _result(self, steps: int, span: int) -> Stats:
        functions = [
            FunctionStats(
                number,
                role,
                function_name(self.trace, number),
                self._place(number),
                **tally.common(),
            )
            for (role, number), tally in self.functions.items()
        ]
        descriptors = [
            DescriptorStats(fd, tally.name, **tally.common(), dropped=tally.dropped)
            for fd, tally in self.descriptors
        ]
        return Stats(
            steps=steps,
            backend=self.trace.base.backend,
            span_ns=span,
            waiting_ns=self.shares["waiting"],
            dispatching_ns=self.shares["dispatching"],
            tasks_ns=self.shares["tasks"],
            loop_ns=self.shares["loop"],
            rounds=self.rounds,
            away=Distribution.of(self.away),
            batches=tuple(sorted(self.batches.items())),
            functions=tuple(sorted(functions, key=_by_time)),
            descriptors=tuple(sorted(descriptors, key=_by_time)),
            triggers=self.triggers,
            queue_delays=tuple(
                (priority, Distribution.of(delays))
                for priority, delays in sorted(self.queue_delays.items())
            ),
            tasks_left=self.older_tasks + len(self.queued),
            timers_set=self.timers_set,
            timers_canceled=self.timers_canceled,
            timers_left=self.older_timers + len(self.timers),
            lateness=Distribution.of(self.lateness),
            wakeups=self.wakeups,
            dropped=sum(tally.dropped for _, tally in self.descriptors),
            errors=tuple((*key, times) for key, times in self.errors.most_common()),
        )

    def _place(self, number: int | None) -> str:
        known = None if number is None else self.trace.functions.get(number)
        return f"{known.file}:{known.first_line}" if known and known.file else ""

    def _go(self, phase: str, t_ns: int) -> int:
        """Enter `phase`, and return how long the one before was."""
        took = max(t_ns - self.since, 0)
        if self.phase:
            self.shares[self.phase] += took
        self.phase, self.since = phase, t_ns
        return took

    def _come(self, fd: int, name: str) -> _Tally:
        tally = self.newest[fd] = _Tally(name)
        self.descriptors.append((fd, tally))
        return tally

    def _of(self, fd: int) -> _Tally:
        return self.newest.get(fd) or self._come(fd, "")

    # ---- a reader for each kind ---------------------------------------------------------------

    def _wait_started(self, step: WaitStarted) -> None:
        if self.answered is not None:
            self.away.append(max(step.t_ns - self.answered[1], 0))
        self.answered = None
        self.running = ()
        self._go("waiting", step.t_ns)

    def _wait_ended(self, step: WaitEnded) -> None:
        self._go("loop", step.t_ns)
        if step.error is None:
            self.answered = step.seq, step.t_ns
            self.rounds += 1
            self.batches[len(step.events)] += 1

    def _in_loop(self, step: Step) -> None:
        """Any step of the loop between two calls."""
        self._go("loop", step.t_ns)

    def _dispatch_started(self, step: DispatchStarted) -> None:
        self._start("dispatching", "callback", step, self._of(step.fd))
        if self.answered is not None and step.cause == self.answered[0]:
            self._delay(step.t_ns - self.answered[1])

    def _task_started(self, step: TaskStarted) -> None:
        fired, self.fired = self.fired, None
        if fired is not None and step.cause == fired.seq:
            self._start("tasks", "timer", step)
            self._delay(fired.late_ns + step.t_ns - fired.t_ns)
            return
        self._start("tasks", "task", step)
        queued = self.queued.pop(step.cause, None) if step.cause is not None else None
        if queued is not None:
            delay = step.t_ns - queued.t_ns
            self._delay(delay)
            self.queue_delays.setdefault(queued.priority, []).append(max(delay, 0))
        elif step.cause is None:
            self.older_tasks = max(self.older_tasks - 1, 0)

    def _start(
        self, phase: str, role: str, step: DispatchStarted | TaskStarted, *others: _Tally
    ) -> None:
        key = role, step.callback
        tally = self.functions.get(key)
        if tally is None:
            tally = self.functions[key] = _Tally()
        self.running = (tally, *others)
        for one in self.running:
            one.calls += 1
        self._go(phase, step.t_ns)

    def _delay(self, delay: int) -> None:
        for tally in self.running:
            tally.delays.append(max(delay, 0))

    def _ended(self, step: DispatchEnded | TaskEnded) -> None:
        took = self._go("loop", step.t_ns)
        for tally in self.running:
            tally.times.append(took)
            tally.errors += step.error is not None
        self.running = ()

    def _event_dropped(self, step: EventDropped) -> None:
        self._go("loop", step.t_ns)
        self._of(step.fd).dropped += 1

    def _task_queued(self, step: TaskQueued) -> None:
        if step.error is None:
            self.triggers += 1
            self.queued[step.seq] = step

    def _wakeup_sent(self, step: WakeupSent) -> None:
        self.wakeups += step.error is None

    def _timer_set(self, step: TimerSet) -> None:
        if step.error is None:
            self.timers_set += 1
            self.timers.add(step.seq)

    def _timer_gone(self, timer: int | None) -> None:
        if timer in self.timers:
            self.timers.discard(timer)
        elif timer is None:
            self.older_timers = max(self.older_timers - 1, 0)

    def _timer_canceled(self, step: TimerCanceled) -> None:
        if step.error is None:
            self.timers_canceled += 1
            self._timer_gone(step.timer)

    def _timer_fired(self, step: TimerFired) -> None:
        self._go("loop", step.t_ns)
        self.lateness.append(step.late_ns)
        self.fired = step
        self._timer_gone(step.cause)

    def _registered(self, step: Registered) -> None:
        if step.error is not None:
            return
        known = self.newest.get(step.fd)
        if known is not None and type(step) is Registered:
            # Registered twice without an error: the kernel had dropped the first, so it was closed.
            known.ended |= known.registered or (known.deleted and known.name != step.who)
        if known is None or known.ended:
            known = self._come(step.fd, step.who)
        known.name = step.who or known.name
        known.registered, known.deleted = True, False

    def _deleted(self, step: Deleted) -> None:
        known = self.newest.get(step.fd)
        if known is not None and step.error is None:
            known.registered, known.deleted = False, True

    def _accepted(self, step: Accepted) -> None:
        if step.new_fd is not None and step.error is None:
            self._come(step.new_fd, step.peer)

    def _closed(self, step: Closed) -> None:
        known = self.newest.get(step.fd)
        if known is not None and step.error is None:
            known.ended = True

    def _read(self, step: Read) -> None:
        for tally in self._moved_by(step.fd):
            tally.bytes_read += step.count

    def _wrote(self, step: Wrote) -> None:
        for tally in self._moved_by(step.fd):
            tally.bytes_written += step.count

    def _moved_by(self, fd: int) -> tuple[_Tally, ...]:
        """Return the function that runs and the descriptor; -1 is that of a closed socket."""
        return (*self.running[:1], *((self._of(fd),) if fd >= 0 else ()))

    READERS: Mapping[type[Step], Callable[[_Reader, Any], None]] = {
        WaitStarted: _wait_started,
        WaitEnded: _wait_ended,
        DispatchStarted: _dispatch_started,
        DispatchEnded: _ended,
        TaskStarted: _task_started,
        TaskEnded: _ended,
        EventDropped: _event_dropped,
        WakeupReceived: _in_loop,
        BatchResized: _in_loop,
        TaskQueued: _task_queued,
        WakeupSent: _wakeup_sent,
        TimerSet: _timer_set,
        TimerCanceled: _timer_canceled,
        TimerFired: _timer_fired,
        Registered: _registered,
        Modified: _registered,
        Deleted: _deleted,
        Accepted: _accepted,
        Closed: _closed,
        Read: _read,
        Wrote: _wrote,
    }


def _by_time(one: FunctionStats | DescriptorStats) -> tuple[int, int]:
    return -one.time.total, -one.calls


# ---- as text ----------------------------------------------------------------------------------

Row = tuple[str, ...]
Table = tuple[Row, list[Row], int]
"""The heads, the rows (each with the full name, for a tooltip, before its cells), and how many more
rows there are."""

_PHASES = ("waiting", "callbacks", "tasks", "itself")


def _title(stats: Stats) -> str:
    backend = short(stats.backend, 16)
    return f"{count(stats.steps, 'step')} on {backend}, {duration(stats.span_ns)}"


def _shares(stats: Stats) -> list[tuple[str, int, str]]:
    """Return for each phase its name, its time, and its share as text."""
    times = (stats.waiting_ns, stats.dispatching_ns, stats.tasks_ns, stats.loop_ns)
    total = stats.total_ns or 1
    return [
        (name, time, f"{100 * time / total:.1f} %")
        for name, time in zip(_PHASES, times, strict=True)
    ]


def _summary(stats: Stats) -> list[tuple[str, str]]:
    """Return what is no table: a name and a text each."""
    shares = ", ".join(f"{name} {share}" for name, _, share in _shares(stats))
    columns = _columns_of(stats.batches)
    batches = ", ".join(f"{label}: {times:,}×" for label, times in columns if times)
    rows = [
        ("loop time", f"{duration(stats.total_ns)}, busy {100 * stats.utilization:.1f} %"),
        ("  of it", shares),
        ("rounds", f"{stats.rounds:,}"),
        ("  away", f"from the kernel for {_spread(stats.away)}" if stats.away.count else "–"),
        ("events a wait", batches or "none"),
        ("tasks", f"{stats.triggers:,} triggered, {stats.tasks_left:,} left"),
    ]
    rows += [
        (f"  {short(priority, 8)}", f"queued for {_spread(delays)}")
        for priority, delays in stats.queue_delays[:SHOWN]
    ]
    rows.append(
        (
            "timers",
            f"{stats.timers_set:,} set, {stats.timers_canceled:,} canceled, "
            f"{stats.lateness.count:,} fired, {stats.timers_left:,} left",
        )
    )
    if stats.lateness.count:
        rows.append(("  late", _spread(stats.lateness)))
    each = f", {stats.triggers_per_wakeup:.1f} triggers to one" if stats.wakeups else ""
    rows += [
        ("wakeups", f"{stats.wakeups:,}{each}"),
        ("dropped events", f"{stats.dropped:,}"),
        ("errors", f"{sum(times for _, _, times in stats.errors):,}"),
    ]
    rows += [
        (f"  {times:,}×", f"{short(error, 30)} in {short(kind, 20)}")
        for kind, error, times in stats.errors[:SHOWN]
    ]
    return rows


def _tables(stats: Stats) -> list[Table]:
    tables: list[Table] = []
    head: Row
    for role, delay in (("callback", "waited"), ("task", "queued"), ("timer", "late")):
        mine = [one for one in stats.functions if one.role == role]
        head = (role, "calls", "total", "p50", "p99", "max", f"{delay} p50", "p99")
        rows = [
            (
                f"{one.name} {one.place}",
                one.name,
                f"{one.calls:,}",
                *_cells(one.time, "total", "p50", "p99", "max"),
                *_cells(one.delay, "p50", "p99"),
            )
            for one in mine[:SHOWN]
        ]
        tables.append((head, rows, len(mine) - len(rows)))
    head = ("descriptor", "calls", "total", "p99", "max", "read", "written")
    rows = [
        (
            f"{one.fd} {one.name}",
            f"{one.fd} {one.name}".rstrip(),
            f"{one.calls:,}",
            *_cells(one.time, "total", "p99", "max"),
            *map(_size, (one.bytes_read, one.bytes_written)),
        )
        for one in stats.descriptors[:SHOWN]
    ]
    tables.append((head, rows, len(stats.descriptors) - len(rows)))
    return [table for table in tables if table[1]]


def _cells(times: Distribution, *names: str) -> list[str]:
    return [duration(getattr(times, name)) if times.count else "–" for name in names]


def _spread(times: Distribution) -> str:
    p50, p99, longest = map(duration, (times.p50, times.p99, times.max))
    return f"p50 {p50}, p99 {p99}, max {longest}"


def _size(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if number >= size:
            return f"{number / size:,.3g} {unit}" if number < 1000 * size else f"{number:.0e} B"
    return f"{number} B"


def _columns(cells: Sequence[str]) -> str:
    widths = [7, *[8] * (len(cells) - 4), 11, 8]
    right = "".join(
        f"{short(cell, width - 1):>{width}}" for cell, width in zip(cells[1:], widths, strict=True)
    )
    first = WIDEST - 3 - sum(widths)
    return f"  {short(cells[0], first - 1):<{first}}{right}"


def _columns_of(batches: Iterable[tuple[int, int]]) -> list[tuple[str, int]]:
    """Return the columns of the picture of `batches`: 0, 1, 2, then twice as many in each."""
    columns: Counter[int] = Counter()
    for size, times in batches:
        columns[min((size - 1).bit_length() + 1 if size > 1 else size, 12)] += times
    labels = ["0", "1", "2", *(f"{2**n // 2 + 1}–{2**n}" for n in range(2, 11)), "> 1,024"]
    return [(labels[number], columns[number]) for number in range(max(columns, default=-1) + 1)]


# ---- as HTML and SVG --------------------------------------------------------------------------

_COLORS = ("#7a8797", "#c96a00", "#1f83c9", "#a8559a")
"""Of the phases, the first also of delays; each can be seen on white and on black."""

_STYLE = (
    "<style>svg:root{color:#1b2533;background:#fff}"  # a picture of its own, not one in a page
    "@media(prefers-color-scheme:dark){svg:root{color:#e8ecf2;background:#14181f}}</style>"
)
_WIDTH = 720
_LEFT = 190
"""Where the names of the functions end."""


def _html(stats: Stats) -> str:
    line = "1px solid rgba(128,128,128,.4)"
    mono = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px"
    table = f'<table style="border-collapse:collapse;margin:8px 0;{mono}">'
    cell = "padding:2px 12px 2px 0;vertical-align:top;white-space:pre;text-align:"
    row = '<tr style="background:none">'
    parts = [
        '<div style="max-width:72em;overflow-x:auto">',
        f"<div><b>Stats of {escape(_title(stats))}</b></div>{_picture(stats)}{table}",
    ]
    for name, text in _summary(stats):
        parts.append(
            f'{row}<th scope="row" style="{cell}left">{escape(name)}</th>'
            f'<td style="{cell}left">{escape(text)}</td></tr>'
        )
    parts.append("</table>")
    for head, rows, more in _tables(stats):
        parts.append(f"{table}<tr>")
        for number, name in enumerate(head):
            side = "right" if number else "left"
            parts.append(f'<th scope="col" style="{cell}{side};border-bottom:{line}">{name}</th>')
        parts.append("</tr>")
        for full, name, *values in rows:
            cells = "".join(f'<td style="{cell}right">{escape(value)}</td>' for value in values)
            title = escape(short(full, 200))
            parts.append(
                f'{row}<td style="{cell}left" title="{title}">{escape(short(name, 40))}</td>{cells}'
                "</tr>"
            )
        parts.append("</table>")
        if more:
            parts.append(f"<div>… and {more:,} more</div>")
    return "".join(parts) + "</div>"


def _picture(stats: Stats) -> str:
    parts: list[str] = []
    bottom = _draw_shares(parts, stats, 22)
    bottom = _draw_batches(parts, stats, bottom + 40)
    bottom = _draw_times(parts, stats, bottom + 40)
    told = "; ".join(f"{name}: {text}" for name, text in _summary(stats)[:5])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {bottom}"'
        f' width="{_WIDTH}" height="{bottom}" aria-label="Statistics of a loop"'
        ' style="width:100%;height:auto;min-width:560px;max-width:1100px" fill="currentColor"'
        ' font-family="Helvetica, Arial, \'Liberation Sans\', sans-serif" font-size="13">'
        f"<title>Statistics of a loop</title><desc>{escape(told)}</desc>{_STYLE}"
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{more}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{color}"/>'
    )


def _line(x: float, top: float, bottom: float, style: str) -> str:
    return (
        f'<line x1="{x:.2f}" x2="{x:.2f}" y1="{top:g}" y2="{bottom:g}" stroke="currentColor"'
        f" {style}/>"
    )


_BOLD = ' font-weight="bold" font-size="14"'
_MIDDLE = ' text-anchor="middle" font-size="12"'
_THICK = 'stroke-width="2"'
_DASHED = 'stroke-width="2" stroke-dasharray="3 2"'
_PALE = 'stroke-opacity=".25"'


def _draw_shares(parts: list[str], stats: Stats, top: float) -> float:
    """Draw where the time went, below `top`; return where it ends, as do the other two."""
    title = f"Where {duration(stats.total_ns)} of the loop went"
    parts.append(_text(10, top, title, _BOLD))
    width, x = _WIDTH - 20, 10.0
    total = stats.total_ns or 1
    for number, (name, time, share) in enumerate(_shares(stats)):
        long = width * time / total
        parts.append(_box(x, top + 12, long, 24, _COLORS[number]))
        x += long
        left = 10 + number * width / 4
        parts.append(_box(left, top + 48, 12, 12, _COLORS[number]))
        parts.append(_text(left + 18, top + 59, f"{name} {share}"))
        parts.append(_text(left + 18, top + 75, duration(time), ' font-size="12"'))
    frame = f'<rect x="10" y="{top + 12:g}" width="{width}" height="24" fill="none"'
    parts.append(f'{frame} stroke="currentColor" stroke-opacity=".5"/>')
    return top + 76


def _draw_batches(parts: list[str], stats: Stats, top: float) -> float:
    title = f"How many events a wait returned, in {count(stats.rounds, 'round')}"
    parts.append(_text(10, top, title, _BOLD))
    columns = _columns_of(stats.batches)
    base = top + 110
    most = max((times for _, times in columns), default=1) or 1
    for number, (label, times) in enumerate(columns):
        x, high = 14 + number * 54, max(76 * times / most, 1.5 if times else 0)
        parts.append(_box(x, base - high, 40, high, _COLORS[0]))
        if times:
            parts.append(_text(x + 20, base - high - 5, _short_number(times), _MIDDLE))
        parts.append(_text(x + 20, base + 16, label, ' text-anchor="middle" font-size="11"'))
    parts.append(f'<path d="M10 {base:g}H{_WIDTH - 10}" stroke="currentColor"/>')
    return base + 16


def _short_number(number: int) -> str:
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1000:,.0f}k" if number < 10**6 else f"{number / 10**6:,.1f}M"


def _draw_times(parts: list[str], stats: Stats, top: float) -> float:
    shown = stats.functions[:SHOWN]
    used = [
        digits
        for one in shown
        for times in (one.time, one.delay)
        for digits, number in enumerate(times.histogram)
        if number
    ]
    if not used:
        return top - 30
    # The axis counts binary digits: durations of n digits stand between n-1 and n.
    low = max(min(used) - 1, 0)
    high = max(max(used), low + 4)
    scale = (_WIDTH - 14 - _LEFT) / (high - low)

    def place(digits: float) -> float:
        return _LEFT + (min(max(digits, low), high) - low) * scale

    parts.append(_text(10, top, "How long calls took, and how long they had waited", _BOLD))
    parts.append(_box(10, top + 12, 12, 12, _COLORS[1]))
    parts.append(_text(28, top + 23, "up: time in the call"))
    parts.append(_box(170, top + 12, 12, 12, _COLORS[0]))
    parts.append(_text(188, top + 23, "down: delay before it began"))
    parts.append(_line(390, top + 11, top + 25, _THICK) + _text(398, top + 23, "p50"))
    parts.append(_line(440, top + 11, top + 25, _DASHED) + _text(448, top + 23, "p99"))
    parts.append(_text(498, top + 23, "log scale; every row its own height", ' font-size="12"'))
    first, height = top + 36, 52
    last = first + height * len(shown)
    for power in range(20):
        if low <= log2(10**power) <= high:
            x = place(log2(10**power))
            parts.append(_line(x, first, last, _PALE))
            parts.append(_text(x, last + 16, duration(10**power).replace(".0", ""), _MIDDLE))
    for number, one in enumerate(shown):
        middle = first + height * number + height / 2
        parts.append(f"<g><title>{escape(short(f'{one.name} {one.place}', 200))}</title>")
        mono = " font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\""
        parts.append(_text(10, middle - 3, short(one.name, 22), f'{mono} font-size="12"'))
        parts.append(_text(10, middle + 13, f"{one.role}, {_short_number(one.calls)}×"))
        for times, up, color in ((one.time, True, _COLORS[1]), (one.delay, False, _COLORS[0])):
            most = max(times.histogram, default=0)
            for digits, often in enumerate(times.histogram):
                if often:
                    long = max(21 * often / most, 1.5)
                    x = place(digits - 1)
                    wide = max(place(digits) - x - 1, 2)
                    parts.append(_box(x, middle - long if up else middle, wide, long, color))
            if times.count:
                ends = (middle - 23, middle) if up else (middle, middle + 23)
                parts.append(_line(place(log2(max(times.p50, 1))), *ends, _THICK))
                parts.append(_line(place(log2(max(times.p99, 1))), *ends, _DASHED))
        parts.append(f'<path d="M{_LEFT} {middle:g}H{_WIDTH - 14}" stroke="currentColor"/></g>')
    return last + 26
