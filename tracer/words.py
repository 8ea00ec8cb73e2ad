"""Steps in plain words: `sentence` says what happened, for somebody who has never seen epoll.

The words are data, in `static/words.json`; `static/words.js` fills them in the same way.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from tracer.state import LoopState
from tracer.steps import (
    Accepted,
    BatchResized,
    BuffersSeen,
    CallStep,
    Closed,
    DispatchEnded,
    DispatchStarted,
    EventDropped,
    ListChecked,
    PollerOpened,
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
    WakeupSent,
    WouldBlock,
    Wrote,
)
from tracer.trace import Trace

LONGEST_NAME = 48
"""Longer names and error texts are cut in a sentence."""

LISTED_EVENTS = 3
"""So many events of a batch are told one by one."""


@cache
def words() -> dict[str, Any]:
    """Return the words, as they stand in `static/words.json`."""
    path = Path(__file__).with_name("static") / "words.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def sentence(step: Step | None, state: LoopState, trace: Trace) -> str:
    """Return what `step` did, in plain words; `state` is the state after it.

    Without a step it is the sentence for the beginning.
    """
    if step is None:
        return _beginning(state)
    texts = _texts(step)
    return texts[_variant(step, state)].format(**_fields(step, state, trace))


def label(step: Step) -> str:
    """Return the short name of what `step` is."""
    return _texts(step)["label"]


def _texts(step: Step) -> dict[str, str]:
    steps: dict[str, dict[str, str]] = words()["steps"]
    return steps.get(step.kind, steps["unknown"])  # which a newer tracer wrote down


def shown(text: str, longest: int = LONGEST_NAME) -> str:
    """Return `text` on one line, without control or direction marks, cut to `longest` characters.

    >>> shown("abcdef", 4)
    'abc…'
    """
    text = "".join(" " if c < " " else "\ufffd" if c in _UNSAFE else c for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def file_name(path: str) -> str:
    """Return what a source file is called: its last part; a notebook's cell has no name.

    >>> file_name("/home/ada/server.py"), file_name("/tmp/ipykernel_4711/2629222579.py")
    ('server.py', 'a cell,')
    """
    parts = PurePath(path).parts
    cell = len(parts) > 1 and re.fullmatch(r"ipykernel_\d+", parts[-2])
    return "a cell," if cell else shown(PurePath(path).name)


_UNSAFE = frozenset(map(chr, [0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F)])) | frozenset(
    map(
        chr,
        [0x200E, 0x200F, 0x061C, *range(0x2066, 0x206A), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF],
    )
)


def event_words(event: int) -> str:
    """Return what an event says of its descriptor: ``"can be read and was hung up"``."""
    parts = [text for bit, (_, text) in words()["events"].items() if event & int(bit)]
    joined: str = words()["and"].join(parts) or words()["no_event"]
    return joined


def mode(edge_triggered: bool, oneshot: bool) -> list[str]:
    """Return the short name of a trigger mode and what it means, to stand behind an interest."""
    names: list[str] = words()["modes"][
        "once" if oneshot else "edge" if edge_triggered else "level"
    ]
    return names


def duration(nanoseconds: int) -> str:
    """Return a time span with its unit.

    >>> duration(999), duration(1250), duration(250_000_000), duration(61_000_000_000)
    ('999 ns', '1.2 µs', '250 ms', '61.0 s')
    """
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 1000)):
        if nanoseconds >= size:
            tenths = nanoseconds * 10 // size
            whole = tenths // 10
            return f"{whole:,} {unit}" if whole >= 100 else f"{whole}.{tenths % 10} {unit}"
    return f"{nanoseconds} ns"


def count(number: int, thing: str) -> str:
    """Return a number of things: ``"1 byte"``, ``"1,024 bytes"``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def function_name(trace: Trace, function: int | None) -> str:
    """Return the name of the function with this id, or words for one that has none."""
    known = None if function is None else trace.functions.get(function)
    if known is None or not known.name:
        return str(words()["no_function"])
    return shown(known.name.rpartition("<locals>.")[2])


def _beginning(state: LoopState) -> str:
    watched = len(state.registrations) - (state.wakeup_fd in state.registrations)
    texts = words()
    many = texts["watched"][min(watched, 2)].format(count=f"{watched:,}")
    text: str = texts["beginning"].format(watched=many, phase=texts["phases"][state.phase])
    return text


def _variant(step: Step, state: LoopState) -> str:
    if getattr(step, "error", None) is not None:
        return "error"
    if isinstance(step, WaitStarted) and step.timeout_ns is not None:
        return "timed" if step.timeout_ns > 0 else "poll"
    if isinstance(step, WaitEnded) and len(step.events) != 1:
        return "many" if step.events else "empty"
    if isinstance(step, DispatchEnded) and _left(state):
        return "more"
    if isinstance(step, TaskQueued) and step.queue != step.priority:
        return "moved"
    if isinstance(step, Read) and step.count == 0:
        return "end"
    if isinstance(step, Wrote) and step.count < step.asked:
        return "partly"
    if isinstance(step, WakeupSent) and state.phase == "waiting":
        return "waiting"
    if isinstance(step, BuffersSeen) and None in (step.unread, step.unsent):
        return "unread" if step.unsent is None else "unsent"
    if isinstance(step, Closed):
        row = state.registrations.get(step.fd)
        return "registered" if row and row.closed else "text"
    return "text"


def _left(state: LoopState) -> int:
    return sum(e.status == "pending" and e.fd != state.wakeup_fd for e in state.batch)


def descriptor(fd: int, name: str) -> str:
    """Return a descriptor's name and number: ``"client A (descriptor 7)"``."""
    texts = words()
    form: str = texts["descriptor"] if name else texts["descriptor_only"]
    return form.format(name=shown(name), fd=fd)


def name_then(state: LoopState, fd: int) -> str:
    """Return the name of `fd` at the time of the last wait: its number may be used again."""
    return next((entry.name for entry in state.batch if entry.fd == fd), state.name(fd))


def _event_list(step: WaitEnded, state: LoopState) -> str:
    told = [
        f"{descriptor(fd, state.name(fd))} {event_words(event)}"
        for fd, event in step.events[:LISTED_EVENTS]
    ]
    if len(step.events) > LISTED_EVENTS:
        told.append(words()["more"].format(count=f"{len(step.events) - LISTED_EVENTS:,}"))
    return "; ".join(told)


def _fields(step: Step, state: LoopState, trace: Trace) -> dict[str, str]:
    texts = words()
    fields = {
        "kind": shown(step.kind),
        "thread": shown(step.thread),
        "counter": f"{state.wakeup_counter:,}",
    }
    error = getattr(step, "error", None)
    if error is not None:
        fields["error"] = shown(error, 2 * LONGEST_NAME)
    fd = getattr(step, "fd", None)
    if fd is not None:
        fields["descriptor"] = descriptor(fd, state.name(fd))
    if isinstance(step, CallStep):
        own = state.running is not None and state.running.thread == step.thread
        function = step.function
        if function is None and own and state.running is not None:
            function = state.running.callback
        named = function is not None and function in trace.functions
        fields["actor"] = function_name(trace, function) if named else texts["nobody"]
    if isinstance(step, Registered):
        if fd not in state.registrations:  # it failed, or names a number not known yet
            fields["descriptor"] = descriptor(step.fd, state.name(step.fd) or step.who)
        fields["interest"] = texts["interests"].get(step.interest, ["", texts["no_event"]])[1]
        fields["mode"] = mode(step.edge_triggered, step.oneshot)[1]
    elif isinstance(step, WaitStarted):
        fields["timeout"] = duration(step.timeout_ns or 0)
    elif isinstance(step, WaitEnded):
        began = state.wait_began
        fields["duration"] = duration(max(0, step.t_ns - began) if began is not None else 0)
        fields["events"] = _event_list(step, state)
        fields["count"] = f"{len(step.events):,}"
    elif isinstance(step, (DispatchStarted, EventDropped)):
        fields["descriptor"] = descriptor(step.fd, name_then(state, step.fd))
        fields["event"] = event_words(step.event)
    elif isinstance(step, TimerSet):
        fields["delay"] = duration(step.delay_ns)
    elif isinstance(step, TimerFired):
        fields["late"] = duration(step.late_ns)
    elif isinstance(step, PollerOpened):
        fields["backend"] = shown(step.backend, 12)
    elif isinstance(step, ListChecked):
        fields["count"] = count(step.count, "descriptor")
    elif isinstance(step, BuffersSeen):
        fields["unread"] = count(step.unread or 0, "byte")
        fields["unsent"] = count(step.unsent or 0, "byte")
    elif isinstance(step, BatchResized):
        fields["size"] = f"{step.size:,}"
    elif isinstance(step, Accepted):
        fields["peer"] = shown(step.peer)
        if step.new_fd is not None:
            fields["new"] = descriptor(step.new_fd, state.name(step.new_fd))
    elif isinstance(step, (Read, Wrote)):
        fields["bytes"] = count(step.count, "byte")
        if isinstance(step, Wrote):
            fields["asked"] = f"{step.asked:,}"
    elif isinstance(step, WouldBlock):
        fields["call"] = shown(step.call)
    elif isinstance(step, TaskQueued):
        fields["queue"] = texts["queues"].get(step.queue, shown(step.queue))
        fields["priority"] = texts["queues"].get(step.priority, shown(step.priority))
    if isinstance(
        step, (DispatchStarted, TaskStarted, TaskQueued, TimerSet, TimerCanceled, TimerFired)
    ):
        fields["callback"] = function_name(trace, step.callback)
    elif isinstance(step, (DispatchEnded, TaskEnded)):
        finished = state.finished.callback if state.finished else None
        fields["finished"] = function_name(trace, finished)
        fields["left"] = count(_left(state), "event")
    return fields
