"""A trace without what it tells of people and machines, to be shared.

What stays is what the loop did: kinds, order, causes, numbers of descriptors, counts of bytes,
distances in time, and the names of exceptions. Everything else that is text is replaced: the same
by the same, so that one can still see that two steps are about one peer. What is kept is listed
here, so that a new field is never forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from tracer.steps import STEP_KINDS, Function, Step
from tracer.trace_file import BaseState

_KEPT = frozenset(
    [
        *["", "read", "write", "read write", "high", "low", "epoll", "kqueue", "select"],
        *["MainThread", "wakeup", "eventfd", "pipe", "socket", "socket pair", "closed"],
        *["descriptor", "accept", "close", "recv", "recv_into", "recvfrom", "recvfrom_into"],
        *["recvmsg", "recvmsg_into", "send", "sendall", "sendto", "sendmsg"],
    ]
)
"""Texts that are the library's own, and tell nothing."""

_EXCEPTION = re.compile(r"[A-Za-z_]\w{0,63}(?=: |\Z)", re.ASCII)


def redact(
    base: BaseState, functions: Mapping[int, Function], steps: Iterable[Step]
) -> tuple[BaseState, dict[int, Function], list[Step]]:
    """Return the three without sources, paths, names, addresses and error texts.

    Times count from the first step; lines from the first of their function. Steps of a kind that
    only a newer tracer knows are left out.
    """
    known = [step for step in steps if step.kind in STEP_KINDS]
    start_ns = known[0].t_ns if known else min((row.due_ns for row in base.timers), default=0)
    words = _Words()
    callbacks = {getattr(step, "callback", None) for step in known}
    for rows in (base.registrations, base.tasks, base.timers):
        callbacks.update(row.callback for row in rows)
    renamed = {
        number: Function(
            number, words.numbered("callback" if number in callbacks else "function"), "", 1, ""
        )
        for number in sorted(functions)
    }
    new_base = replace(
        base,
        backend=words.of("backend", base.backend),
        registrations=tuple(
            replace(row, who=words.of("who", row.who), interest=words.of("interest", row.interest))
            for row in base.registrations
        ),
        tasks=tuple(replace(task, queue=words.of("queue", task.queue)) for task in base.tasks),
        timers=tuple(replace(timer, due_ns=timer.due_ns - start_ns) for timer in base.timers),
    )
    new_steps = []
    for step in known:
        changes: dict[str, Any] = {"t_ns": step.t_ns - start_ns}
        for own in fields(step):
            value = getattr(step, own.name)
            if isinstance(value, str):
                changes[own.name] = words.of(own.name, value)
        line = getattr(step, "line", None)
        if line is not None:
            site = functions.get(getattr(step, "function", -1))
            changes["line"] = max(1, line - site.first_line + 1) if site else None
        new_steps.append(replace(step, **changes))
    return new_base, renamed, new_steps


class _Words:
    """Gives each text another one, always the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def numbered(self, word: str) -> str:
        """Return `word` with the next number."""
        number = self._counts[word] = self._counts.get(word, 0) + 1
        return f"{word} {number}"

    def of(self, field: str, text: str) -> str:
        """Return what stands for the `text` of a field of this name."""
        if field == "error":
            name = _EXCEPTION.match(text)
            return name.group() if name else "Error"
        if text in _KEPT:
            return text
        if field in ("who", "peer"):
            field = "listener" if text.startswith("listener ") else "peer"
        key = field, text
        if key not in self._known:
            self._known[key] = self.numbered(field)
        return self._known[key]
