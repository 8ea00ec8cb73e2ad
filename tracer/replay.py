"""`Replay`: a trace to seek in, and to ask why a step happened.

Seeking folds the steps of `tracer.state` from the nearest state that was kept. Asking follows
`Step.cause` and what stands between two waits; a reason that no step proves begins with
"Inferred". The words are in `static/words.json`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from textwrap import fill
from typing import Any, NamedTuple, overload

from tracer.state import ERR, HUP, RDHUP, READ, WRITE, LoopState, advance, initial
from tracer.steps import (
    Accepted,
    CallStep,
    Deleted,
    DispatchStarted,
    EventDropped,
    Read,
    Registered,
    Step,
    TaskQueued,
    TaskStarted,
    TimerFired,
    WaitEnded,
    WaitStarted,
    WakeupReceived,
    WakeupSent,
)
from tracer.trace import Trace
from tracer.words import (
    LISTED_EVENTS,
    count,
    descriptor,
    duration,
    event_words,
    function_name,
    name_then,
    sentence,
    shown,
    words,
)

NO_CAUSE = -1

LONGEST_CHAIN = 24
"""So many reasons are told: a task that queues itself has no end of them."""

SLICE = 4096
"""So many steps are made at once when a trace is read."""


class Reason(NamedTuple):
    """One link of a chain of causes.

    `step` is the index of the step that it tells of; None when it is inferred, or lies before the
    trace.
    """

    step: int | None
    text: str


class Why(Sequence[Reason]):
    """Why the step with the index `step` happened: the reasons, from the nearest to the first.

    `what` says what happened. As text, steps are numbered from 1, as in the player: step 1 is
    ``trace[0]``.
    """

    def __init__(self, step: int, what: str, reasons: Sequence[Reason]) -> None:
        self.step = step
        self.what = what
        self._reasons = tuple(reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    @overload
    def __getitem__(self, index: int) -> Reason: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Reason, ...]: ...
    def __getitem__(self, index: int | slice) -> Reason | tuple[Reason, ...]:
        return self._reasons[index]

    def __repr__(self) -> str:
        lines = [_item(f"step {self.step + 1:,}", self.what)]
        lines += [_item(_number(reason), reason.text) for reason in self]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [(f"step {self.step + 1:,}", f"<b>{escape(self.what)}</b>")]
        rows += [(_number(reason), escape(reason.text)) for reason in self]
        # No colors of its own, so that it can be read on every ground.
        number = "padding:3px 14px 3px 0;text-align:right;white-space:nowrap;vertical-align:top"
        text = "padding:3px 0;text-align:left;vertical-align:top;overflow-wrap:anywhere"
        cells = "".join(
            f'<tr style="background:none"><td style="{number};opacity:.75">{first}</td>'
            f'<td style="{text}">{second}</td></tr>'
            for first, second in rows
        )
        style = "border-collapse:collapse;max-width:60em;line-height:1.4"
        return f'<table style="{style}">{cells}</table>'


def _number(reason: Reason) -> str:
    return "" if reason.step is None else f"step {reason.step + 1:,}"


def _item(number: str, text: str) -> str:
    lead = f"{number:>10}  "
    return fill(text, 88, initial_indent=lead, subsequent_indent=" " * len(lead))


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the loop: the wait, the dispatches, the timers that were due, the tasks.

    `steps` is the range of its indices in the trace; what other threads did meanwhile is among
    them. `waited` and `returned` are the indices of its WaitStarted and WaitEnded, None where there
    is none: the steps before the first wait are a round too. `events` is what the wait returned.
    The others are the indices of its DispatchStarted, EventDropped and TimerFired steps, and of the
    TaskStarted ones that are no timer's.
    """

    number: int
    steps: range
    waited: int | None
    returned: int | None
    events: tuple[tuple[int, int], ...]
    dispatched: tuple[int, ...]
    dropped: tuple[int, ...]
    timers: tuple[int, ...]
    tasks: tuple[int, ...]

    def __repr__(self) -> str:
        did = [
            count(len(self.events), "event") + " returned",
            f"{len(self.dispatched):,} dispatched",
            f"{len(self.dropped):,} dropped" if self.dropped else "",
            count(len(self.timers), "timer") if self.timers else "",
            count(len(self.tasks), "task") if self.tasks else "",
        ]
        steps = f"steps {self.steps.start + 1:,} to {self.steps.stop:,}"
        return f"<Round {self.number:,}: {steps}, {', '.join(filter(None, did))}>"


class Rounds(Sequence[Round]):
    """The rounds of a trace, made when they are looked at."""

    def __init__(self, trace: Trace, starts: Sequence[int], length: int) -> None:
        self._trace = trace
        self._starts = starts  # where each begins
        self._length = length  # of the trace

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Round: ...
    @overload
    def __getitem__(self, index: slice) -> list[Round]: ...
    def __getitem__(self, index: int | slice) -> Round | list[Round]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        stop = self._starts[number + 1] if number + 1 < len(self) else self._length
        return _round(self._trace, number, range(self._starts[number], stop))

    def at(self, index: int) -> Round:
        """Return the round that the step at `index` belongs to; IndexError when there is none."""
        if not 0 <= index < self._length:
            raise IndexError(f"step {index} of a trace of {self._length} steps")
        return self[bisect_right(self._starts, index) - 1]

    def __repr__(self) -> str:
        return f"<{count(len(self), 'round')} of {count(self._length, 'step')}>"


def _round(trace: Trace, number: int, steps: range) -> Round:
    waited = returned = None
    events: tuple[tuple[int, int], ...] = ()
    found: dict[str, list[int]] = {
        name: [] for name in ("DispatchStarted", "EventDropped", "TimerFired", "TaskStarted")
    }
    fired = set()
    for index in steps:
        step = trace[index]
        if isinstance(step, WaitStarted):
            waited = index
        elif isinstance(step, WaitEnded):
            returned, events = index, step.events
        elif isinstance(step, TimerFired):
            fired.add(step.seq)
        if step.kind in found and not (isinstance(step, TaskStarted) and step.cause in fired):
            found[step.kind].append(index)
    return Round(number, steps, waited, returned, events, *map(tuple, found.values()))


class Replay:
    """A trace to seek in: `state`, `rounds`, and the causes and effects of a step.

    It is made as far as it was asked for: the first `state` goes through the steps before it, and
    the first `why`, `effects` or `rounds` reads the trace once. From then on a state costs at most
    `SPACING` calls of `advance`. It follows a trace that grows.
    """

    SPACING = 96
    """One state is kept for so many steps."""

    def __init__(self, trace: Trace) -> None:
        if trace.partial:
            raise ValueError("this is a part of a trace: Replay needs the whole")
        self.trace = trace
        self._kept = [initial(trace.base)]
        self._last = (-1, self._kept[0])
        self._map = _Map()

    def __len__(self) -> int:
        return len(self.trace)

    def state(self, index: int) -> LoopState:
        """Return the state after the steps up to `index`, which counts from 0; -1 is the base.

        Raises IndexError when the trace is shorter.
        """
        if not -1 <= index < len(self.trace):
            raise IndexError(f"step {index} of a trace of {len(self.trace)} steps")
        at, state = self._last
        if not 0 <= index - at <= self.SPACING:
            kept = min((index + 1) // self.SPACING, len(self._kept) - 1)
            at, state = kept * self.SPACING - 1, self._kept[kept]
        while at < index:
            chunk = self.trace[at + 1 : min(index + 1, at + 1 + SLICE)]
            for step in chunk:
                at += 1
                state = advance(state, step)
                if at + 1 == len(self._kept) * self.SPACING:
                    self._kept.append(state)
        self._last = (index, state)
        return state

    def rounds(self) -> Rounds:
        """Return the rounds of the loop, as far as the trace has come."""
        known = self._read()
        starts = known.waits if known.waits[:1] == [0] or not known.seqs else [0, *known.waits]
        return Rounds(self.trace, tuple(starts), len(known.seqs))

    def index_of(self, seq: int) -> int | None:
        """Return the index of the step `seq`, or None when it is not in the trace."""
        index = bisect_left(self.trace, seq, key=lambda step: step.seq)
        found = index < len(self.trace) and self.trace[index].seq == seq
        return index if found else None

    def effects(self, index: int) -> list[int]:
        """Return the indices of the steps that name the step at `index` as their cause."""
        causes, seq = self._read().causes, self.trace[index].seq
        found: list[int] = []
        try:
            while True:
                found.append(causes.index(seq, found[-1] + 1 if found else index + 1))
        except ValueError:
            return found

    def why(self, index: int) -> Why:
        """Return the chain of causes of the step at `index`, in plain words.

        Raises IndexError when the trace is shorter.
        """
        if not 0 <= index < len(self.trace):
            raise IndexError(f"step {index} of a trace of {len(self.trace)} steps")
        reasons: list[Reason] = []
        told: set[int | None] = {index}
        for reason in _Chain(self, self._read()).of(index):
            if reason.step in told:
                continue
            if len(reasons) == LONGEST_CHAIN:
                reasons.append(Reason(None, words()["why"]["further"]))
                break
            reasons.append(reason)
            if reason.step is not None:
                told.add(reason.step)
        return Why(index, self.sentence(index), reasons)

    def sentence(self, index: int) -> str:
        """Return what the step at `index` did, in plain words."""
        return sentence(self.trace[index], self.state(index), self.trace)

    def _read(self) -> _Map:
        """Return the map of the whole trace; only what came since the last time is read."""
        length = len(self.trace)
        while (start := len(self._map.seqs)) < length:
            for step in self.trace[start : min(start + SLICE, length)]:
                self._map.add(step)
        return self._map


class _Map:
    """Where in a trace the steps stand that others refer to, by their indices, rising."""

    def __init__(self) -> None:
        self.seqs = array("q")
        self.causes = array("q")
        self.waits: list[int] = []  # the WaitStarted
        self.returned: list[int] = []  # the WaitEnded
        self.queued: list[int] = []
        self.sent: list[int] = []
        self.received: list[int] = []
        self.registered: dict[int, list[int]] = {}  # by descriptor; so are the next two
        self.deleted: dict[int, list[int]] = {}
        self.accepted: dict[int, list[int]] = {}
        self.listeners: set[int] = set()

    def add(self, step: Step) -> None:
        index = len(self.seqs)
        self.seqs.append(step.seq)
        self.causes.append(NO_CAUSE if step.cause is None else step.cause)
        if isinstance(step, WaitEnded):
            self.returned.append(index)
        elif getattr(step, "error", None) is not None:
            return
        elif isinstance(step, WaitStarted):
            self.waits.append(index)
        elif isinstance(step, TaskQueued):
            self.queued.append(index)
        elif isinstance(step, WakeupSent):
            self.sent.append(index)
        elif isinstance(step, WakeupReceived):
            self.received.append(index)
        elif isinstance(step, Registered):
            self.registered.setdefault(step.fd, []).append(index)
        elif isinstance(step, Deleted):
            self.deleted.setdefault(step.fd, []).append(index)
        elif isinstance(step, Accepted) and step.new_fd is not None:
            self.listeners.add(step.fd)
            self.accepted.setdefault(step.new_fd, []).append(index)


def _before(indices: Sequence[int], index: int) -> int | None:
    """Return the last of the rising `indices` that is smaller than `index`."""
    place = bisect_left(indices, index)
    return indices[place - 1] if place else None


def _after(indices: Sequence[int], index: int) -> int | None:
    """Return the first of the rising `indices` that is greater than `index`."""
    place = bisect_right(indices, index)
    return indices[place] if place < len(indices) else None


class _Chain:
    """Goes from a step back to its causes."""

    def __init__(self, replay: Replay, known: _Map) -> None:
        self.replay = replay
        self.trace = replay.trace
        self.map = known
        self.texts: dict[str, Any] = words()["why"]

    def of(self, index: int) -> Iterator[Reason]:
        """Yield the reasons of the step at `index`, the nearest first."""
        step = self.trace[index]
        cause = None if step.cause is None else self.replay.index_of(step.cause)
        if isinstance(step, (DispatchStarted, EventDropped)):
            yield from self.event(index, step, cause)
        elif isinstance(step, TaskStarted):
            yield from self.task(index, cause)
        elif isinstance(step, TimerFired):
            yield from self.timer(index, cause)
        elif isinstance(step, WaitStarted):
            yield from self.wait(index, step)
        elif isinstance(step, WaitEnded):
            yield from self.answer(index, step, cause)
        elif isinstance(step, WakeupSent):
            yield from self.wakeup(index, cause)
        elif isinstance(step, WakeupReceived):
            if cause is None:
                yield self.inferred("earlier")
            else:
                yield self.told(cause)
                yield from self.wakeup(cause, self.cause_of(cause))
        elif cause is not None:
            yield from self.inside(cause)
        elif isinstance(step, CallStep):
            place = self.place(step) or self.texts["thread"].format(thread=shown(step.thread))
            yield self.inferred("outside", place=place)
        else:
            yield self.inferred("earlier")

    # ---- one kind of step each ----------------------------------------------------------------

    def event(
        self, index: int, step: DispatchStarted | EventDropped, wait: int | None
    ) -> Iterator[Reason]:
        """Why an event was dispatched or dropped: the wait that returned it, the registration."""
        fd, state = step.fd, self.replay.state(index)
        name = descriptor(fd, name_then(state, fd))
        if isinstance(step, EventDropped):
            deleted = _before(self.map.deleted.get(fd, ()), index)
            registered = _before(self.map.registered.get(fd, ()), index)
            # By another thread it may have been deleted during the wait, before its end.
            newer = (-1 if since is None else since for since in (wait, registered))
            if deleted is not None and deleted > min(newer):
                yield from self.call(deleted)
        if wait is None:
            yield self.inferred("earlier wait", descriptor=name)
        else:
            ended = self.trace[wait]
            began = self.replay.state(wait).wait_began
            slept = 0 if began is None else ended.t_ns - began
            text = self.texts["returned" if slept > 0 else "returned at once"].format(
                duration=duration(slept), descriptor=name, event=event_words(step.event)
            )
            yield Reason(wait, text)
        yield from self.readiness(index, step.event, fd, name)
        yield from self.registration(index if wait is None else wait, fd, name)

    def readiness(self, index: int, event: int, fd: int, name: str) -> Iterator[Reason]:
        """What the kernel must have seen, and what the callback then found, which proves more."""
        listening = fd in self.map.listeners
        read = None
        for effect in self.replay.effects(index):
            step = self.trace[effect]
            if getattr(step, "fd", None) != fd or getattr(step, "error", None) is not None:
                continue
            if isinstance(step, Read) and read is None:
                read = effect
        names = [
            name
            for bits, name in (
                (HUP | ERR, "hung up"),
                (RDHUP, "half closed"),
                (READ, "connection" if listening else "arrived"),
                (WRITE, "room"),
            )
            if event & bits
        ]
        if names:  # the most telling one
            yield self.inferred(names[0], descriptor=name)
        if read is not None:
            yield Reason(read, self.texts["found"].format(sentence=self.replay.sentence(read)))

    def registration(self, index: int, fd: int, name: str) -> Iterator[Reason]:
        """The registration that held at `index`, and where its descriptor came from."""
        registered = _before(self.map.registered.get(fd, ()), index)
        if registered is None:
            if any(row.fd == fd for row in self.trace.base.registrations):
                yield self.inferred("earlier registration", descriptor=name)
            return
        modified = registered
        while registered is not None and self.trace[registered].kind == "Modified":
            registered = _before(self.map.registered[fd], registered)
        yield from self.call(modified)
        if registered is None:
            yield self.inferred("earlier registration", descriptor=name)
            return
        if registered != modified:
            yield from self.call(registered)
        accepted = _before(self.map.accepted.get(fd, ()), registered)
        number = self.replay.state(registered).registrations.get(fd)
        if accepted is not None and number is not None:
            known = self.replay.state(accepted).descriptors.get(fd)
            if known is not None and known.name == number.name:  # else another one's
                yield from self.call(accepted)

    def task(self, index: int, cause: int | None) -> Iterator[Reason]:
        """Why a task ran: who queued it, and the wakeup that carried it; or the timer."""
        if cause is None:
            yield self.inferred("earlier task")
            return
        if isinstance(self.trace[cause], TimerFired):
            yield self.told(cause)
            yield from self.timer(cause, self.cause_of(cause))
            return
        yield from self.call(cause)
        yield from self.carried(cause, index)
        yield from self.inside(self.cause_of(cause))

    def carried(self, queued: int, started: int) -> Iterator[Reason]:
        """The wakeup that carried the task from `queued` to `started`, and the wait it ended."""
        sent, own = self.carrier(queued, started)
        if sent is None:
            yield self.inferred("no wakeup")
            return
        others = self.under(sent)
        if own:
            yield self.told(sent)
        else:
            yield Reason(sent, self.texts["shared"].format(count=count(len(others), "task")))
        received = _after(self.map.received, sent)
        if received is None or received > started:
            yield self.inferred("before its wakeup")
            return
        ended = _before(self.map.returned, received)
        if ended is not None and ended > sent and self.returned_wakeup(ended):
            yield Reason(ended, self.texts["woken"])
        else:
            yield Reason(received, self.texts["no wait"])

    def carrier(self, queued: int, started: int) -> tuple[int | None, bool]:
        """Return the WakeupSent that carried a task, and whether it was written for this one."""
        seq = self.trace[queued].seq
        following = _after(self.map.sent, queued)
        if following is not None and self.map.causes[following] == seq:
            return following, True
        earlier = _before(self.map.sent, queued)
        if earlier is not None:
            received = _after(self.map.received, earlier)
            if received is None or received > queued:  # still on its way
                return earlier, False
        # Another thread was about to write: its step comes a moment later.
        return (
            (following, False) if following is not None and following < started else (None, False)
        )

    def under(self, sent: int) -> list[int]:
        """Return the TaskQueued steps that one wakeup carried: until it was read."""
        first = self.cause_of(sent)
        if first is None or not isinstance(self.trace[first], TaskQueued):
            first = sent
        received = _after(self.map.received, sent)
        last = len(self.map.seqs) if received is None else received
        queued = self.map.queued
        return queued[bisect_left(queued, first) : bisect_left(queued, last)]

    def wakeup(self, index: int, cause: int | None) -> Iterator[Reason]:
        """Why the wakeup descriptor was written to, and what else needed no write."""
        if cause is None:
            yield self.inferred("no task")
            return
        yield from self.call(cause)
        others = len(self.under(index)) - isinstance(self.trace[cause], TaskQueued)
        if others > 0:
            yield self.inferred("coalesced", count=count(others, "more task"))
        yield from self.inside(self.cause_of(cause))

    def timer(self, index: int, cause: int | None) -> Iterator[Reason]:
        """Why a timer fired: the wait before, and where it was set."""
        ended = _before(self.map.returned, index)
        if ended is not None:
            yield self.told(ended)
        if cause is None:
            yield self.inferred("earlier timer")
            return
        yield from self.call(cause)
        yield from self.inside(self.cause_of(cause))

    def wait(self, index: int, step: WaitStarted) -> Iterator[Reason]:
        """Why the loop waited, and for so long."""
        state = self.replay.state(index)
        if step.timeout_ns == 0 and (state.urgent or state.low):
            tasks = count(len(state.urgent) + len(state.low), "task")
            yield self.inferred("no sleep", tasks=tasks)
        elif step.timeout_ns is not None and state.timers:
            timer = state.timers[0]
            if abs(timer.due_ns - step.t_ns - step.timeout_ns) <= 10**6 + step.timeout_ns // 100:
                yield self.inferred(
                    "until timer", callback=function_name(self.trace, timer.callback)
                )
                at = None if timer.seq is None else self.replay.index_of(timer.seq)
                if at is not None:
                    yield from self.call(at)
        ended = _before(self.map.returned, index)
        yield self.inferred("again" if ended is not None else "first")

    def answer(self, index: int, step: WaitEnded, began: int | None) -> Iterator[Reason]:
        """Why a wait ended: its beginning, and for each event the wakeup or the registration."""
        if began is not None:
            yield self.told(began)
        state = self.replay.state(index)
        if step.error is None and not step.events:
            yield self.inferred("nothing")
        wakeup = self.trace.base.wakeup_fd
        if any(fd == wakeup for fd, _ in step.events):
            sent = _before(self.map.sent, index)
            if sent is None:
                yield self.inferred("earlier wakeup")
            else:
                yield self.told(sent)
                yield from self.wakeup(sent, self.cause_of(sent))
        for fd, _ in [event for event in step.events if event[0] != wakeup][:LISTED_EVENTS]:
            yield from self.registration(index, fd, descriptor(fd, state.name(fd)))

    def inside(self, cause: int | None) -> Iterator[Reason]:
        """The step that `cause` is, and its own reasons."""
        if cause is not None:
            yield self.told(cause)
            yield from self.of(cause)

    # ---- sentences ----------------------------------------------------------------------------

    def told(self, index: int) -> Reason:
        return Reason(index, self.replay.sentence(index))

    def call(self, index: int) -> Iterator[Reason]:
        """The step at `index`, with the place in the source where the call stands."""
        step = self.trace[index]
        place = self.place(step)
        text = self.replay.sentence(index)
        yield Reason(index, f"{text} ({place})" if place else text)

    def inferred(self, name: str, **fields: str) -> Reason:
        text: str = self.texts[name]
        return Reason(None, text.format(**fields))

    def place(self, step: Step) -> str:
        if not isinstance(step, CallStep):
            return ""
        function = None if step.function is None else self.trace.functions.get(step.function)
        if function is None or step.line is None or not function.file:
            return ""
        text: str = self.texts["place"]
        return text.format(
            file=shown(PurePath(function.file).name), line=step.line, thread=shown(step.thread)
        )

    def cause_of(self, index: int) -> int | None:
        cause = self.map.causes[index]
        return None if cause == NO_CAUSE else self.replay.index_of(cause)

    def returned_wakeup(self, index: int) -> bool:
        step = self.trace[index]
        wakeup = self.trace.base.wakeup_fd
        return isinstance(step, WaitEnded) and any(fd == wakeup for fd, _ in step.events)
