"""`Replay`: a trace to seek in, and to ask why a step happened.

Seeking folds the steps of `tracer.state` from the nearest state that was kept. Asking follows
`Step.cause` and what stands between two waits; a reason that no step proves begins with
"Inferred". The words are in `static/words.json`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any, NamedTuple, overload

from tracer.because import because
from tracer.causes import SLICE, Causes, after, before
from tracer.state import ERR, HUP, RDHUP, READ, WRITE, LoopState, advance, initial
from tracer.steps import (
    CallStep,
    DispatchStarted,
    EventDropped,
    Read,
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
    file_name,
    function_name,
    shown,
    words,
)

LONGEST_CHAIN = 24
"""So many reasons are told: a task that queues itself has no end of them."""


class Reason(NamedTuple):
    """One link of a chain of causes.

    `step` is the index of the step that it tells of; None when it is inferred, or lies before the
    trace.
    """

    step: int | None
    text: str

    @property
    def inferred(self) -> bool:
        """Whether no step proves it; the text says so too."""
        return self.text.startswith("Inferred")


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
    the first call of another method reads the trace once. From then on a state costs at most
    `SPACING` calls of `advance`, and `why` and `because` none. It follows a trace that grows.
    """

    SPACING = 96
    """One state is kept for so many steps."""

    def __init__(self, trace: Trace) -> None:
        if trace.partial:
            raise ValueError("this is a part of a trace: Replay needs the whole")
        self.trace = trace
        self._kept = [initial(trace.base)]
        self._last = (-1, self._kept[0])
        self._causes = Causes(trace)

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
        known = self._causes.read()
        starts = known.waits if known.waits[:1] == [0] or not known.seqs else [0, *known.waits]
        return Rounds(self.trace, tuple(starts), len(known.seqs))

    def index_of(self, seq: int) -> int | None:
        """Return the index of the step `seq`, or None when it is not in the trace."""
        return self._causes.read().index_of(seq)

    def cause(self, index: int) -> int | None:
        """Return the index of the step that made the one at `index` happen.

        None when that lies outside the trace.
        """
        return self._causes.read().cause(self._checked(index))

    def effects(self, index: int) -> list[int]:
        """Return the indices of the steps that name the step at `index` as their cause."""
        return self._causes.read().effects(self._checked(index))

    def why(self, index: int) -> Why:
        """Return the chain of causes of the step at `index`, in plain words.

        Raises IndexError when the trace is shorter.
        """
        self._checked(index)
        reasons: list[Reason] = []
        told: set[int | None] = {index}
        for reason in _Chain(self._causes.read()).of(index):
            if reason.step in told:
                continue
            if len(reasons) == LONGEST_CHAIN:
                reasons.append(Reason(None, words()["why"]["further"]))
                break
            reasons.append(reason)
            if reason.step is not None:
                told.add(reason.step)
        return Why(index, self.sentence(index), reasons)

    def because(self, index: int) -> str:
        """Return one short sentence to stand below that of the step: why it happened.

        It is empty where the step's own sentence says it all. Raises IndexError when the trace is
        shorter.
        """
        return because(self._causes.read(), self._checked(index))

    def sentence(self, index: int) -> str:
        """Return what the step at `index` did, in plain words."""
        return self._causes.read().sentence(self._checked(index))

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.trace):
            raise IndexError(f"step {index} of a trace of {len(self.trace)} steps")
        return index


class _Chain:
    """Goes from a step back to its causes."""

    def __init__(self, known: Causes) -> None:
        self.trace = known.trace
        self.map = known
        self.texts: dict[str, Any] = words()["why"]

    def of(self, index: int) -> Iterator[Reason]:
        """Yield the reasons of the step at `index`, the nearest first."""
        step = self.trace[index]
        cause = self.map.cause(index)
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
                yield from self.wakeup(cause, self.map.cause(cause))
        elif cause is not None:
            yield from self.inside(cause)
        elif isinstance(step, CallStep) and step.cause is None:
            place = self.place(step) or self.texts["thread"].format(thread=shown(step.thread))
            yield self.inferred("outside", place=place)
        else:
            yield self.inferred("earlier")

    # ---- one kind of step each ----------------------------------------------------------------

    def event(
        self, index: int, step: DispatchStarted | EventDropped, wait: int | None
    ) -> Iterator[Reason]:
        """Why an event was dispatched or dropped: the wait that returned it, the registration."""
        fd = step.fd
        name = descriptor(fd, self.map.name_then(fd, index))
        if isinstance(step, EventDropped):
            deleted = before(self.map.deleted.get(fd, ()), index)
            registered = before(self.map.registered.get(fd, ()), index)
            # By another thread it may have been deleted during the wait, before its end.
            newer = (-1 if since is None else since for since in (wait, registered))
            if deleted is not None and deleted > min(newer):
                yield from self.call(deleted)
        if wait is None:
            yield self.inferred("earlier wait", descriptor=name)
        else:
            slept = self.map.slept(wait)
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
        for effect in self.map.effects(index):
            step = self.trace[effect]
            if isinstance(step, Read) and step.fd == fd and step.error is None:
                read = effect
                break
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
            yield Reason(read, self.texts["found"].format(sentence=self.map.sentence(read)))

    def registration(self, index: int, fd: int, name: str) -> Iterator[Reason]:
        """The registration that held at `index`, and where its descriptor came from."""
        modified = before(self.map.registered.get(fd, ()), index)
        if modified is None:
            if any(row.fd == fd for row in self.trace.base.registrations):
                yield self.inferred("earlier registration", descriptor=name)
            return
        registered = before(self.map.added.get(fd, ()), modified + 1)
        yield from self.call(modified)
        if registered is None:
            yield self.inferred("earlier registration", descriptor=name)
            return
        if registered != modified:
            yield from self.call(registered)
        accepted = before(self.map.accepted.get(fd, ()), registered)
        if accepted is not None and self.map.name(fd, accepted) == self.map.name(fd, registered):
            yield from self.call(accepted)  # else it accepted another one of this number

    def task(self, index: int, cause: int | None) -> Iterator[Reason]:
        """Why a task ran: who queued it, and the wakeup that carried it; or the timer."""
        if cause is None:
            yield self.inferred("earlier task")
            return
        if isinstance(self.trace[cause], TimerFired):
            yield self.told(cause)
            yield from self.timer(cause, self.map.cause(cause))
            return
        yield from self.call(cause)
        yield from self.carried(cause, index)
        yield from self.inside(self.map.cause(cause))

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
            yield Reason(sent, self.texts["shared"].format(count=count(others, "task")))
        received = after(self.map.received, sent)
        if received is None or received > started:
            yield self.inferred("before its wakeup")
            return
        ended = before(self.map.returned, received)
        if ended is not None and ended > sent and self.returned_wakeup(ended):
            yield Reason(ended, self.texts["woken"])
        else:
            yield Reason(received, self.texts["no wait"])

    def carrier(self, queued: int, started: int) -> tuple[int | None, bool]:
        """Return the WakeupSent that carried a task, and whether it was written for this one."""
        following = after(self.map.sent, queued)
        if following is not None and self.map.causes[following] == queued:
            return following, True
        earlier = before(self.map.sent, queued)
        if earlier is not None:
            received = after(self.map.received, earlier)
            if received is None or received > queued:  # still on its way
                return earlier, False
        # Another thread was about to write: its step comes a moment later.
        return (
            (following, False) if following is not None and following < started else (None, False)
        )

    def under(self, sent: int) -> int:
        """Return how many tasks one wakeup carried: those queued until it was read."""
        first = self.map.cause(sent)
        if first is None or not isinstance(self.trace[first], TaskQueued):
            first = sent
        received = after(self.map.received, sent)
        last = len(self.map.seqs) if received is None else received
        return bisect_left(self.map.queued, last) - bisect_left(self.map.queued, first)

    def wakeup(self, index: int, cause: int | None) -> Iterator[Reason]:
        """Why the wakeup descriptor was written to, and what else needed no write."""
        if cause is None:
            yield self.inferred("no task")
            return
        yield from self.call(cause)
        others = self.under(index) - isinstance(self.trace[cause], TaskQueued)
        if others > 0:
            yield self.inferred("coalesced", count=count(others, "more task"))
        yield from self.inside(self.map.cause(cause))

    def timer(self, index: int, cause: int | None) -> Iterator[Reason]:
        """Why a timer fired: the wait before, and where it was set."""
        ended = before(self.map.returned, index)
        if ended is not None:
            yield self.told(ended)
        if cause is None:
            yield self.inferred("earlier timer")
            return
        yield from self.call(cause)
        yield from self.inside(self.map.cause(cause))

    def wait(self, index: int, step: WaitStarted) -> Iterator[Reason]:
        """Why the loop waited, and for so long."""
        queued, timer = self.map.tasks(index), self.map.limiting_timer(index)
        if step.timeout_ns == 0 and queued:
            yield self.inferred("no sleep", tasks=count(queued, "task"))
        elif timer is not None:
            yield self.inferred("until timer", callback=function_name(self.trace, timer.callback))
            at = None if timer.seq is None else self.map.index_of(timer.seq)
            if at is not None:
                yield from self.call(at)
        ended = before(self.map.returned, index)
        yield self.inferred("again" if ended is not None else "first")

    def answer(self, index: int, step: WaitEnded, began: int | None) -> Iterator[Reason]:
        """Why a wait ended: its beginning, and for each event the wakeup or the registration."""
        if began is not None:
            yield self.told(began)
        if step.error is None and not step.events:
            yield self.inferred("nothing")
        wakeup = self.trace.base.wakeup_fd
        if any(fd == wakeup for fd, _ in step.events):
            sent = before(self.map.sent, index)
            if sent is None:
                yield self.inferred("earlier wakeup")
            else:
                yield self.told(sent)
                yield from self.wakeup(sent, self.map.cause(sent))
        for fd, _ in [event for event in step.events if event[0] != wakeup][:LISTED_EVENTS]:
            yield from self.registration(index, fd, descriptor(fd, self.map.name(fd, index)))

    def inside(self, cause: int | None) -> Iterator[Reason]:
        """The step that `cause` is, and its own reasons."""
        if cause is not None:
            yield self.told(cause)
            yield from self.of(cause)

    # ---- sentences ----------------------------------------------------------------------------

    def told(self, index: int) -> Reason:
        return Reason(index, self.map.sentence(index))

    def call(self, index: int) -> Iterator[Reason]:
        """The step at `index`, with the place in the source where the call stands."""
        step = self.trace[index]
        place = self.place(step)
        text = self.map.sentence(index)
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
        return text.format(file=file_name(function.file), line=step.line, thread=shown(step.thread))

    def returned_wakeup(self, index: int) -> bool:
        step = self.trace[index]
        wakeup = self.trace.base.wakeup_fd
        return isinstance(step, WaitEnded) and any(fd == wakeup for fd, _ in step.events)
