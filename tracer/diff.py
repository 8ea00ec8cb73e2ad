"""`diff(a, b)`: where two runs of one program part, and why.

On the simulated kernel two runs are equal step by step. What is compared is what the program and
the loop did, not where and when: descriptors by the order in which they came rather than by
number, functions by name, causes by position; no times, threads, peers, lines or gaps in `seq`.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from itertools import islice
from textwrap import fill
from typing import Any

from tracer.replay import Replay, Why
from tracer.steps import (
    STEP_KINDS,
    Accepted,
    Closed,
    DispatchStarted,
    EventDropped,
    PollerOpened,
    Registered,
    Step,
    TimerCanceled,
    TimerSet,
    WaitEnded,
    WaitStarted,
    event_names,
)
from tracer.trace import Trace
from tracer.words import count, function_name, label, shown

FOLLOWING = 40
"""So many steps behind the place where two runs part are laid side by side."""

LISTED = 6
"""So many of them are told one by one."""

Key = tuple[tuple[str, Any], ...]
"""What is compared of a step: the names of its fields and their values, the kind first."""

_AS_THEY_ARE = (
    "interest",
    "edge_triggered",
    "oneshot",
    "exclusive",
    "priority",
    "queue",
    "count",
    "asked",
    "call",
)
"""The fields that are compared as they are."""

_NAMES = {
    "fd": "the descriptor, in the order in which they came,",
    "new_fd": "the new descriptor, in the order in which they came,",
    "callback": "the function",
    "edge_triggered": "edge-triggered",
    "oneshot": "one-shot",
    "count": "the number of bytes",
    "asked": "the number of bytes asked for",
    "events": "what the wait returned",
    "timeout": "how long the loop may sleep",
    "delay": "the delay in milliseconds",
    "size": "the most events of a wait",
}
"""What fields are called, where that is not their name."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs, where they part.

    `index` and `step` are None when this run was over, and when the two did not begin alike. `text`
    says what happened in it and `why` what led to that. `only` holds the indices of steps, this one
    and soon after it, for which the other run has no match.
    """

    name: str
    text: str
    index: int | None = None
    step: Step | None = None
    why: Why | None = None
    only: tuple[int, ...] = ()
    told: tuple[str, ...] = ()


class Difference:
    """What `diff` found; false when the runs are equal.

    `text` says where they part and what differs, `what` the latter alone; `a` and `b` are the two
    sides, None when nothing does.
    """

    def __init__(
        self, text: str, a: Side | None = None, b: Side | None = None, what: str = ""
    ) -> None:
        self.text = text
        self.what = what or text
        self.a = a
        self.b = b

    def __bool__(self) -> bool:
        return self.a is not None

    @property
    def index_a(self) -> int | None:
        """The index of the first step of a that differs; None when a was over."""
        return self.a.index if self.a else None

    @property
    def index_b(self) -> int | None:
        """The index of the first step of b that differs; None when b was over."""
        return self.b.index if self.b else None

    @property
    def step_a(self) -> Step | None:
        """The first step of a that differs; None when a was over."""
        return self.a.step if self.a else None

    @property
    def step_b(self) -> Step | None:
        """The first step of b that differs; None when b was over."""
        return self.b.step if self.b else None

    def __repr__(self) -> str:
        lines = [fill(self.text, 88)]
        for side in filter(None, (self.a, self.b)):
            lines += ["", f"{side.name}:"]
            lines.append(f"  {side.text}" if side.why is None else repr(side.why))
            if side.told:
                lines.append(f"  only in {side.name}, here and soon after:")
                lines += [
                    fill(told, 88, initial_indent="    ", subsequent_indent="      ")
                    for told in side.told
                ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        # No colors of its own, so that it can be read on every ground.
        parts = [f'<p style="margin:.4em 0;max-width:60em"><b>{escape(self.text)}</b></p>']
        box = (
            "flex:1 1 26em;min-width:0;padding:.5em .9em;overflow-wrap:anywhere;"
            "border:1px solid rgba(128,128,128,.45);border-radius:4px"
        )
        for side in filter(None, (self.a, self.b)):
            why = escape(side.text) if side.why is None else side.why._repr_html_()
            parts.append(f'<div style="{box}"><div><b>{side.name}</b></div><div>{why}</div>')
            if side.told:
                items = "".join(f"<li>{escape(told)}</li>" for told in side.told)
                parts.append(
                    f'<div style="margin-top:.7em">Only in {side.name}, here and soon after:'
                    f'</div><ul style="margin:.2em 0;padding-left:1.4em">{items}</ul>'
                )
            parts.append("</div>")
        parts.insert(1, '<div style="display:flex;flex-wrap:wrap;gap:.8em;line-height:1.4">')
        return "".join([*parts, "</div>"])


def diff(a: Trace, b: Trace) -> Difference:
    """Return where the runs `a` and `b` part: the first steps that differ, and why each happened.

    The result is false when the runs are equal. Batch sizes are compared only between two runs on
    one backend. Raises ValueError for a part of a trace.
    """
    if a.partial or b.partial:
        raise ValueError("this is a part of a trace: diff needs the whole")
    one_backend = a.base.backend == b.base.backend
    keys_a, keys_b = Keys(a, one_backend), Keys(b, one_backend)
    base_a, base_b = keys_a.base(), keys_b.base()
    if base_a != base_b:
        text = f"The runs did not begin alike: {_what_differs(base_a, base_b)}."
        side_a, side_b = (Side(name, "The recording began otherwise.") for name in "ab")
        return Difference(text, side_a, side_b)
    steps_a, steps_b = keys_a.steps(), keys_b.steps()
    key_a, key_b = next(steps_a, None), next(steps_b, None)
    index = 0
    while key_a == key_b:
        if key_a is None:
            return Difference(f"The runs are equal: {count(index, 'step')} each.")
        key_a, key_b = next(steps_a, None), next(steps_b, None)
        index += 1
    only_a, only_b = _unmatched(
        [] if key_a is None else [key_a, *islice(steps_a, FOLLOWING)],
        [] if key_b is None else [key_b, *islice(steps_b, FOLLOWING)],
    )
    same = f"The runs are equal for {count(index, 'step')}" if index else "The runs part at once"
    if key_a is None or key_b is None:
        ended, other = ("a", "b") if key_a is None else ("b", "a")
        what = f"{ended} is over, while {other} goes on."
        text = f"{same}. Then {what}"
    elif key_a[0] != key_b[0]:
        texts = [_label(trace[index]) for trace in (a, b)]
        what = f"{texts[0]} in a, {texts[1]} in b."
        text = f"{same}. Then the next step is another one: {what}"
    else:
        what = f"{_label(a[index])}: {_what_differs(key_a, key_b)}"
        text = f"{same}. Then the next step differs ({what})."
    return Difference(text, _side("a", a, index, only_a), _side("b", b, index, only_b), what)


def _unmatched(a: list[Key], b: list[Key]) -> tuple[list[int], list[int]]:
    """Return the places in `a` and in `b` that have no match in the other."""
    matcher = SequenceMatcher(None, [*map(anywhere, a)], [*map(anywhere, b)], autojunk=False)
    changes = matcher.get_opcodes()
    if len(changes) > 2 and changes[-2][0] == "equal":
        changes.pop()  # the match of these lies behind what was looked at
    only_a: list[int] = []
    only_b: list[int] = []
    for change, start_a, stop_a, start_b, stop_b in changes:
        if change != "equal":
            only_a += range(start_a, stop_a)
            only_b += range(start_b, stop_b)
    return only_a, only_b


def _side(name: str, trace: Trace, index: int, unmatched: list[int]) -> Side:
    if index >= len(trace):
        return Side(name, f"The recording is over after {count(len(trace), 'step')}.")
    replay = Replay(trace)
    why = replay.why(index)
    only = [index + place for place in unmatched]
    told = [f"step {at + 1:,}: {replay.sentence(at)}" for at in only[:LISTED]]
    if len(only) > LISTED:
        told.append(f"and {len(only) - LISTED:,} more of the next {FOLLOWING}")
    return Side(name, why.what, index, trace[index], why, tuple(only), tuple(told))


def _what_differs(a: Key, b: Key) -> str:
    parts = []
    for (name, value_a), (_, value_b) in zip(a, b, strict=True):
        if value_a != value_b:
            parts.append(
                f"{_NAMES.get(name, name)} is {_value(value_a)} in a, {_value(value_b)} in b"
            )
    return "; ".join(parts)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return shown(", ".join(str(one) for one in value) or "nothing", 100)
    return shown("none" if value is None else str(value), 100)


def _label(step: Step) -> str:
    return label(step) if step.kind in STEP_KINDS else shown(step.kind)


def anywhere(key: Key) -> Key:
    """Return `key` without what names other steps by their position."""
    return tuple(pair for pair in key if pair[0] not in ("cause", "timer"))


class Keys:
    """Makes of a trace what is compared, reading it once from its beginning."""

    def __init__(self, trace: Trace, with_size: bool) -> None:
        self.trace = trace
        self.with_size = with_size
        self.numbers = {trace.base.wakeup_fd: "wakeup"}  # what a descriptor's number means now
        self.came = 0
        self.closed: set[int] = set()
        self.seqs = array("q")

    def base(self) -> Key:
        """Return what is compared of the base state."""
        base = self.trace.base
        rows = [
            (
                self.number(row.fd),
                row.interest,
                row.edge_triggered,
                row.oneshot,
                row.exclusive,
                self.function(row.callback),
            )
            for row in base.registrations
            if row.fd != base.wakeup_fd
        ]
        return (
            ("kind", "base"),
            ("registrations", tuple(rows)),
            ("tasks", tuple((task.queue, self.function(task.callback)) for task in base.tasks)),
            ("timers", tuple(self.function(timer.callback) for timer in base.timers)),
        )

    def steps(self) -> Iterator[Key]:
        """Yield what is compared of each step."""
        for step in self.trace:
            key = self.key(step)
            self.seqs.append(step.seq)
            yield key

    def key(self, step: Step) -> Key:
        """Return what is compared of the next step."""
        values: dict[str, Any] = {"kind": step.kind, "cause": self.position(step.cause)}
        fd = getattr(step, "fd", None)
        failed = getattr(step, "error", None) is not None
        if isinstance(step, Registered) and fd in self.closed and not failed:
            self.number(fd, new=True)
        if fd is not None and not isinstance(step, PollerOpened):
            values["fd"] = self.number(fd)
        if isinstance(step, Accepted):
            came = step.new_fd
            values["new_fd"] = None if came is None else self.number(came, new=True)
        if isinstance(step, Closed) and not failed:
            self.closed.add(step.fd)
        for name in _AS_THEY_ARE:
            if hasattr(step, name):
                values[name] = getattr(step, name)
        if hasattr(step, "callback"):
            values["callback"] = self.function(step.callback)
        if hasattr(step, "error"):
            values["error"] = _without_number(step.error, fd)
        if isinstance(step, (DispatchStarted, EventDropped)):
            values["event"] = event_names(step.event)
        elif isinstance(step, WaitEnded):
            values["events"] = tuple(
                f"{self.number(number)} {event_names(event)}" for number, event in step.events
            )
        elif isinstance(step, WaitStarted):
            pause = step.timeout_ns
            values["timeout"] = "forever" if pause is None else "a while" if pause else "not"
        elif isinstance(step, TimerSet):
            # The clock has gone on a little since the delay was asked for.
            values["delay"] = -((1_000 - step.delay_ns) // 1_000_000)
        elif isinstance(step, TimerCanceled):
            values["timer"] = self.position(step.timer)
        if self.with_size and hasattr(step, "size"):
            values["size"] = step.size
        return tuple(values.items())

    def number(self, fd: int, new: bool = False) -> str:
        """Return which descriptor `fd` is, counted in the order in which they came."""
        if new or fd not in self.numbers:
            self.came += 1
            self.numbers[fd] = f"#{self.came}"
            self.closed.discard(fd)
        return self.numbers[fd]

    def position(self, seq: int | None) -> str:
        """Return which step `seq` is, counted from 1."""
        if seq is None:
            return "none"
        index = bisect_left(self.seqs, seq)
        found = index < len(self.seqs) and self.seqs[index] == seq
        return f"step {index + 1:,}" if found else "none"

    def function(self, number: int | None) -> str:
        """Return what the function with this id is called."""
        return function_name(self.trace, number)


def _without_number(error: str | None, fd: int | None) -> str | None:
    """Return `error` without the descriptor's number, which another run need not have."""
    return error if error is None or fd is None else re.sub(rf"\b{fd}\b", "fd", error)
