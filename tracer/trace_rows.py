"""The steps of a trace as rows of plain values, and as a short table for a screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any

from tracer.steps import STEP_KINDS, Accepted, Function, Modified, Registered, Step, event_names
from tracer.trace_file import BaseState

_FIRST = ("seq", "seconds", "kind", "thread", "cause", "fd", "who")
_LAST = ("callback", "function", "file", "line", "error")
_OWN = dict.fromkeys(own.name for step in STEP_KINDS.values() for own in fields(step))

COLUMNS = (*_FIRST, *(name for name in _OWN if name not in (*_FIRST, *_LAST, "t_ns")), *_LAST)
"""The names of a row's values, in order."""

_TELLING = ("callback", *(name for name in COLUMNS if name not in (*_FIRST, *_LAST)))

LONGEST = 16
"""A table has at most so many rows of steps."""

WIDEST = 79
"""So many characters a line of text may have."""


NAMING = (Registered, Modified, Accepted)
"""The steps that say what a descriptor is called."""


def rows(
    base: BaseState,
    functions: Mapping[int, Function],
    steps: Iterable[Step],
    start_ns: int,
    naming: Iterable[Step] = (),
) -> Iterator[dict[str, Any]]:
    """Yield a row for each step: every one of `COLUMNS`, None where the step has no such value.

    `seconds` count from `start_ns`; `who` is what the descriptor was called when it was registered
    or accepted last, which `naming` tells where `steps` are but a part; functions stand by their
    names, events as text.
    """
    names = {row.fd: row.who for row in base.registrations}
    names[base.wakeup_fd] = "wakeup"
    empty: dict[str, Any] = dict.fromkeys(COLUMNS)
    others = iter(naming)
    other = next(others, None)
    for step in steps:
        while other is not None and other.seq < step.seq:
            _learn(names, other)
            other = next(others, None)
        row = empty.copy()
        for name in _FIELDS.get(type(step), _COMMON):
            row[name] = getattr(step, name)
        row["seconds"] = (step.t_ns - start_ns) / 1e9
        row["kind"] = step.kind
        fd = row["fd"]
        if fd is not None and not isinstance(step, Registered):
            row["who"] = names.get(fd)
        _learn(names, step)
        if row["event"] is not None:
            row["event"] = event_names(row["event"])
        if row["events"] is not None:
            row["events"] = ", ".join(f"{fd} {event_names(bits)}" for fd, bits in row["events"])
        row["callback"] = _name(functions, row["callback"])
        site = functions.get(row["function"]) if row["function"] is not None else None
        row["file"] = site.file if site else None
        row["function"] = _name(functions, row["function"])
        yield row


def _learn(names: dict[int, str], step: Step) -> None:
    if isinstance(step, Registered):
        if step.error is None:
            names[step.fd] = step.who
    elif isinstance(step, Accepted) and step.new_fd is not None:
        names[step.new_fd] = step.peer


def shown(length: int) -> int:
    """Return how many of `length` steps a table shows."""
    return length if length <= LONGEST else LONGEST - 1


def span(nanoseconds: int) -> str:
    """Return a time span with its unit.

    >>> span(999), span(1250), span(999_999_999), span(61_000_000_000)
    ('999 ns', '1.2 µs', '999 ms', '61.0 s')
    """
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 1000)):
        if nanoseconds >= size:
            whole, tenth = divmod(nanoseconds * 10 // size, 10)
            return f"{whole:,} {unit}" if whole >= 100 else f"{whole}.{tenth} {unit}"
    return f"{nanoseconds} ns"


def as_text(title: str, first: Sequence[dict[str, Any]], more: int) -> str:
    """Return the table of the `first` rows, for a terminal."""
    lines = [_fit(title)]
    seqs = max((len(str(row["seq"])) for row in first), default=0)
    kinds = max((len(short(row["kind"], 16)) for row in first), default=0)
    for row in first:
        began = f"{row['seq']:>{seqs}}  {_milliseconds(row)}  {short(row['kind'], 16):<{kinds}}"
        lines.append(_fit(f"  {began}  {_details(row)}".rstrip()))
    if more:
        lines.append(f"  … and {more:,} more")
    return "\n".join(lines)


def as_html(
    title: str,
    notes: Sequence[str],
    kinds: Counter[str],
    first: Sequence[dict[str, Any]],
    more: int,
) -> str:
    """Return the table of the `first` rows with a title and how often each kind comes, as HTML.

    It has no colors of its own, so that it can be read on every ground.
    """
    line = "1px solid rgba(128,128,128,.4)"
    cell = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"
    mono = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px"
    parts = [
        f'<div style="max-width:60em;overflow-x:auto"><div><b>{escape(title)}</b></div>',
        *(f"<div>{escape(note)}</div>" for note in notes),
    ]
    if kinds:
        chips = "".join(
            f'<span style="display:inline-block;margin:2px 6px 2px 0;padding:0 7px;border:{line};'
            f'border-radius:9px">{escape(short(kind, 30))} <b>{count:,}</b></span>'
            for kind, count in kinds.most_common(30)
        )
        parts.append(f'<div style="margin:4px 0;font-size:12px;line-height:1.5">{chips}</div>')
    if first:
        head = "".join(
            f'<th scope="col" style="{cell};border-bottom:{line}">{name}</th>'
            for name in ("seq", "ms", "kind", "what")
        )
        parts.append(f'<table style="border-collapse:collapse;{mono}"><tr>{head}</tr>')
        for row in first:
            values = (
                str(row["seq"]),
                _milliseconds(row).strip(),
                short(row["kind"], 30),
                short(_details(row), 110),
            )
            cells = "".join(f'<td style="{cell}">{escape(value)}</td>' for value in values)
            parts.append(f'<tr style="background:none">{cells}</tr>')
        parts.append("</table>")
    if more:
        parts.append(f'<div style="font-size:12px">… and {more:,} more</div>')
    return "".join(parts) + "</div>"


def _milliseconds(row: Mapping[str, Any]) -> str:
    return f"{row['seconds'] * 1000:10,.3f}"


def _details(row: Mapping[str, Any]) -> str:
    """Return what is special about a row, in one line, the most telling first."""
    fd, who = row["fd"], row["who"]
    parts = [] if fd is None else [f"fd {fd}" + (f" ({short(who, 24)})" if who else "")]
    if row["error"] is not None:
        parts.append(f"raised {short(row['error'], 60)}")
    for name in _TELLING:
        value = row[name]
        if value is True:
            parts.append(name)
        elif name.endswith("_ns") and value is not None:
            parts.append(f"{name.removesuffix('_ns')} {span(value)}")
        elif value not in (None, False) and (name, value) != ("flags", 0):
            parts.append(f"{name} {short(value, 40)}")
    if row["function"] is not None:
        parts.append(f"in {short(row['function'], 30)}:{row['line']}")
    return ", ".join(parts)


def short(value: object, longest: int) -> str:
    """Return `value` as one line of at most `longest` characters, none that a terminal obeys."""
    text = str(value)
    text = "".join(c if c.isprintable() else "\ufffd" for c in text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _fit(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _name(functions: Mapping[int, Function], number: int | None) -> str | None:
    known = None if number is None else functions.get(number)
    return known.name if known else None


_FIELDS: Mapping[type[Step], tuple[str, ...]] = {
    step: tuple(own.name for own in fields(step) if own.name != "t_ns")
    for step in STEP_KINDS.values()
}
_COMMON = tuple(own.name for own in fields(Step) if own.name != "t_ns")
