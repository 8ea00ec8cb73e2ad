"""`Rows`: the steps of a running recording, packed, and read back as `Step` objects on demand.

While a program is recorded, a step is one row of plain numbers in a bytearray: no object that the
garbage collector would have to visit, 61 bytes a step. What a number stands for is kept in tables.
Threads append out of order; reading orders by `seq`.

Writing takes no lock: a signal handler may trigger a task while the thread that it interrupts is
writing. What two threads must not tear apart is one call into C, such as `dict.setdefault`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import re
import struct
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from time import monotonic_ns
from types import CodeType
from typing import Any, overload

from tracer.steps import STEP_KINDS, Function, Step

NOTHING = -1
"""Stands in a row for None."""

ROW = struct.Struct("<qqBiqiqqiii")
"""seq, t_ns, kind, thread, cause, fd, first, second, function, line, error.

`first` and `second` are what else the kind has; `_READERS` says what. A `line` below NOTHING is
-2 minus the place of an instruction: that is at hand while recording, its line takes time to find.
"""

KIND = {name: number for number, name in enumerate(STEP_KINDS)}
"""The number of each kind in a row."""


def _pattern(*names: str) -> re.Pattern[bytes]:
    return re.compile(b"[%s]" % re.escape(bytes(KIND[name] for name in names)), re.DOTALL)


_CHANGES = (
    *("Registered", "Modified", "Deleted", "ListRebuilt", "Closed", "BatchResized"),
    *("TaskQueued", "TaskStarted", "TimerSet", "TimerCanceled", "TimerFired"),
)
_LASTING = _pattern(*_CHANGES)
_LASTING_OR_DISPATCH = _pattern(*_CHANGES, "DispatchStarted")
_SEQ = struct.Struct("<q")
_KIND_AT = struct.calcsize("<qq")


class Rows(Sequence[Step]):
    """The steps recorded so far, as a sequence that grows while the recording runs."""

    def __init__(self, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self.now_ns = now_ns
        self.packed = bytearray()
        self.events = array("i")  # the (fd, event) pairs of all waits, one after the other
        self.strings: dict[int, str] = {}
        self.functions: dict[int, Function] = {}
        self.next_seq = itertools.count().__next__
        self._new_string = itertools.count().__next__
        self._string_ids: dict[str, int] = {}
        self._new_function = itertools.count().__next__
        self._function_ids: dict[object, int] = {}
        self._order: list[tuple[int, int]] = []  # (seq, offset in packed), sorted
        self._frozen: int | None = None
        self._codes: dict[int, CodeType] = {}  # of functions
        self._lines: dict[tuple[int, int], int] = {}  # of places in them
        self.dropped_events = 0  # from the beginning of `events`
        self.reading = threading.Lock()  # held while rows are read in order, or dropped

    def write(
        self,
        kind: int,
        *,
        seq: int | None = None,
        t_ns: int | None = None,
        cause: int = NOTHING,
        fd: int = NOTHING,
        first: int = NOTHING,
        second: int = NOTHING,
        site: tuple[int, int] = (NOTHING, NOTHING),
        error: int = NOTHING,
    ) -> int:
        """Append a step of this thread and return its `seq`.

        `seq` and `t_ns` may have been taken earlier, before the call that the step tells of; `site`
        is a function id and a line; `error` is an `error_id`.
        """
        if seq is None:
            seq = self.next_seq()
        self.packed.extend(
            ROW.pack(
                seq,
                self.now_ns() if t_ns is None else t_ns,
                kind,
                self.string_id(threading.current_thread().name),
                cause,
                fd,
                first,
                second,
                site[0],
                site[1],
                error,
            )
        )
        return seq

    def error_id(self, error: BaseException) -> int:
        """Return the id of the text of `error`."""
        try:
            text = str(error)
        except Exception:
            text = "(its text can't be had)"
        name = type(error).__name__
        return self.string_id(f"{name}: {text}" if text else name)

    def string_id(self, text: str) -> int:
        """Return the id of `text`."""
        number = self._string_ids.get(text)
        if number is None:
            number = self._new_string()
            self.strings[number] = text
            number = self._string_ids.setdefault(text, number)
        return number

    def function_id(self, function: object) -> int:
        """Return the id of a callback or task: a function, method, partial or callable object."""
        while isinstance(function, functools.partial):
            function = function.func
        with contextlib.suppress(Exception):
            function = inspect.unwrap(function)  # type: ignore[arg-type]
        name, code = type(function).__qualname__, None
        with contextlib.suppress(Exception):  # an object may do anything when it is asked
            name = getattr(function, "__qualname__", None) or name
            code = getattr(function, "__code__", None)
        if not isinstance(code, CodeType):
            code = getattr(getattr(type(function), "__call__"), "__code__", None)  # noqa: B004, B009
        if not isinstance(code, CodeType):
            return self._function(str(name), str(name), "", 0, "")
        return self.code_id(code, str(name))

    def code_id(self, code: CodeType, name: str = "") -> int:
        """Return the id of the function that `code` is the body of; a known one is quick."""
        number = self._function_ids.get(id(code))
        if number is None:
            text = _source_of(code)
            name = name or getattr(code, "co_qualname", code.co_name)
            number = self._function(
                id(code), name, code.co_filename, max(code.co_firstlineno, 1), text
            )
            self._codes.setdefault(number, code)
        return number

    def _function(self, key: object, name: str, file: str, line: int, text: str) -> int:
        known = self._function_ids.get(key)
        if known is not None:
            return known
        new = self._new_function()
        self.functions[new] = Function(new, name.rpartition("<locals>.")[2], file, line, text)
        number = self._function_ids.setdefault(key, new)
        if number != new:  # another thread was quicker
            del self.functions[new]
        return number

    def freeze(self) -> None:
        """End the sequence here: what is written later is not part of it."""
        self._frozen = len(self)

    # ---- the oldest, with `reading` held -------------------------------------------------------

    def lasting(self, count: int, *, dispatches: bool = False) -> Iterator[Step]:
        """Yield, of the oldest `count` steps, those that change what is registered or queued.

        With `dispatches` also those, of which there are many.
        """
        kinds = bytes(self.packed[_KIND_AT : count * ROW.size : ROW.size])
        pattern = _LASTING_OR_DISPATCH if dispatches else _LASTING
        return (self._step(found.start() * ROW.size) for found in pattern.finditer(kinds))

    def drop(self, count: int) -> None:
        """Forget the oldest `count` steps."""
        del self.packed[: count * ROW.size]
        self._order.clear()
        kinds = bytes(self.packed[_KIND_AT :: ROW.size])
        first = kinds.find(KIND["WaitEnded"])
        if first >= 0:
            begin = ROW.unpack_from(self.packed, first * ROW.size)[6]
            del self.events[: begin - self.dropped_events]
            self.dropped_events = begin

    # ---- reading ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.packed) // ROW.size if self._frozen is None else self._frozen

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        with self.reading:  # nothing is dropped until the steps are made
            if isinstance(index, slice):
                return [self._step(offset) for _, offset in self._in_order(index)]
            return self._step(self._in_order(slice(index, index + 1 or None))[0][1])

    def __iter__(self) -> Iterator[Step]:
        return iter(self[:])

    def _in_order(self, which: slice) -> list[tuple[int, int]]:
        if len(self._order) < len(self):
            offsets = range(len(self._order) * ROW.size, len(self) * ROW.size, ROW.size)
            new = [(_SEQ.unpack_from(self.packed, offset)[0], offset) for offset in offsets]
            self._order = sorted(self._order + new)
        return self._order[which]

    def written(self, begin: int, end: int) -> Iterator[Step]:
        """Yield the steps of some rows in the order of writing; call it with `reading` held."""
        rows = self.packed[begin * ROW.size : end * ROW.size]
        return itertools.starmap(self._made, ROW.iter_unpack(rows))

    def _step(self, offset: int) -> Step:
        return self._made(*ROW.unpack_from(self.packed, offset))

    def _line(self, function: int, place: int) -> int:
        line = self._lines.get((function, place))
        if line is None:
            line = self._lines[function, place] = _line_of(self._codes[function], place)
        return line

    def step(self, row: bytes) -> Step:
        """Return the step that a row stands for."""
        return self._made(*ROW.unpack(row))

    def _made(
        self,
        seq: int,
        t_ns: int,
        kind: int,
        thread: int,
        cause: int,
        fd: int,
        first: int,
        second: int,
        function: int,
        line: int,
        error: int,
    ) -> Step:
        make, of_a_descriptor, reader = _MAKERS[kind]
        values: dict[str, Any] = reader(self, first, second) if reader else {}
        if of_a_descriptor:  # -1 too: a call on a socket that is closed
            values["fd"] = fd
        if function != NOTHING:
            values["function"] = function
            values["line"] = line if line >= NOTHING else self._line(function, -2 - line)
        if error != NOTHING:
            values["error"] = self.strings[error]
        return make(
            seq=seq,
            t_ns=t_ns,
            thread=self.strings[thread],
            cause=None if cause == NOTHING else cause,
            **values,
        )


def _line_of(code: CodeType, place: int) -> int:
    """Return the line that the instruction at `place` belongs to."""
    for start, end, line in code.co_lines():
        if start <= place < end and line is not None:
            return line
    return code.co_firstlineno


def _source_of(code: CodeType) -> str:
    try:
        if code.co_name == "<module>":
            return "".join(inspect.findsource(code)[0])
        text = "" if code.co_filename == "<string>" else inspect.getsource(code)
        # The file may have been edited since it was compiled.
        own = "lambda" if code.co_name == "<lambda>" else f"def {code.co_name}"
        return text if own in text or (code.co_name.startswith("<") and own != "lambda") else ""
    except Exception:  # there is none, or not the one that was compiled
        return ""


def _or_none(number: int) -> int | None:
    return None if number == NOTHING else number


def _registration(rows: Rows, first: int, second: int) -> dict[str, Any]:
    directions = (name for bit, name in ((1, "read"), (2, "write")) if first & bit)
    return {
        "interest": " ".join(directions),
        "edge_triggered": bool(first & 4),
        "oneshot": bool(first & 8),
        "exclusive": bool(first & 16),
        "who": rows.strings[first >> 8],
        "callback": _or_none(second),
    }


def _batch(rows: Rows, first: int, second: int) -> dict[str, Any]:
    first -= rows.dropped_events
    pairs = rows.events[first : first + 2 * second]
    return {"events": tuple(zip(pairs[::2], pairs[1::2], strict=True))}


_READERS: dict[str, Callable[[Rows, int, int], dict[str, Any]]] = {
    "Registered": _registration,
    "Modified": _registration,
    "WaitStarted": lambda rows, a, b: {"timeout_ns": _or_none(a), "size": b},
    "WaitEnded": _batch,
    "DispatchStarted": lambda rows, a, b: {
        "event": a & 0xFFFFFFFF,
        "flags": a >> 32,
        "callback": _or_none(b),
    },
    "EventDropped": lambda rows, a, b: {"event": a},
    "TaskQueued": lambda rows, a, b: {
        "priority": "low" if a & 1 else "high",
        "queue": "low" if a & 2 else "high",
        "callback": _or_none(b),
    },
    "ListChecked": lambda rows, a, b: {"count": a},
    "BuffersSeen": lambda rows, a, b: {"unread": _or_none(a), "unsent": _or_none(b)},
    "PollerOpened": lambda rows, a, b: {
        "fd": _or_none(a >> 32),
        "wakeup_fd": a & 0xFFFFFFFF,
        "backend": rows.strings[b],
    },
    "TimerSet": lambda rows, a, b: {"delay_ns": a, "callback": _or_none(b)},
    "TimerCanceled": lambda rows, a, b: {"timer": _or_none(a), "callback": _or_none(b)},
    "TimerFired": lambda rows, a, b: {"late_ns": a, "callback": _or_none(b)},
    "TaskStarted": lambda rows, a, b: {"callback": _or_none(b)},
    "BatchResized": lambda rows, a, b: {"size": a},
    "Accepted": lambda rows, a, b: {"new_fd": _or_none(a), "peer": rows.strings.get(b, "")},
    "Read": lambda rows, a, b: {"count": a, "asked": _or_none(b)},
    "Wrote": lambda rows, a, b: {"count": a, "asked": b},
    "WouldBlock": lambda rows, a, b: {"call": rows.strings[b]},
}

_OWN_READERS = {"PollerOpened"}  # whose descriptor is none that the row has a place for
_MAKERS = [
    (
        step,
        name not in _OWN_READERS and "fd" in (field.name for field in fields(step)),
        _READERS.get(name),
    )
    for name, step in STEP_KINDS.items()
]
"""Of each kind: its class, whether a row's `fd` is its own, and what reads the rest."""
