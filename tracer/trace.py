"""`Trace`: what a recording wrote down, to look at, save and load.

A trace file is JSON Lines: a header, the base state, then functions and steps, each on a line
of its own and each function before the first step that names it. Loading runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, overload

from tracer.steps import STEP_KINDS, Function, Step, step_to_json

FORMAT = "netpoll-trace"
VERSION = 1


class TraceFormatError(ValueError):
    """A trace file that can't be read; says which line and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BaseRegistration:
    """A descriptor that was on the interest list already when the recording began."""

    fd: int
    who: str
    interest: str
    edge_triggered: bool
    oneshot: bool
    exclusive: bool
    callback: int | None


@dataclass(frozen=True, slots=True)
class BaseTask:
    """A task that was queued already when the recording began; `queue` is ``high`` or ``low``."""

    queue: str
    callback: int | None


@dataclass(frozen=True, slots=True)
class BaseTimer:
    """A timer that was set already when the recording began; `due_ns` is on the clock of steps."""

    due_ns: int
    callback: int | None


@dataclass(frozen=True, slots=True)
class BaseState:
    """What held when the recording began.

    `backend` is the facility (``"epoll"``), `fd` the descriptor of its kernel object (None where
    it has none), `wakeup_fd` what a trigger writes to, `size` the most events of one wait.
    """

    backend: str
    fd: int | None
    wakeup_fd: int
    size: int
    running: bool
    registrations: tuple[BaseRegistration, ...] = ()
    tasks: tuple[BaseTask, ...] = ()
    timers: tuple[BaseTimer, ...] = ()


class Trace(Sequence[Step]):
    """The steps of a recording, in order, with the functions they name and the base state.

    `functions` maps a `Function.id` to it; `truncated` is True when a loaded file's last line was
    torn off, as a crash leaves it. A recording's trace grows while the recording runs.
    """

    def __init__(
        self,
        base: BaseState,
        functions: Mapping[int, Function],
        steps: Sequence[Step],
        *,
        truncated: bool = False,
    ) -> None:
        self.base = base
        self.functions = functions
        self.truncated = truncated
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        return self._steps[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    def __repr__(self) -> str:
        state = ", truncated" if self.truncated else ""
        return f"<Trace of {len(self)} steps on {self.base.backend}{state}>"

    def to_lines(self) -> Iterator[str]:
        """Yield the lines of the trace file, each with its line end."""
        steps = list(self)
        yield _line({"format": FORMAT, "version": VERSION})
        yield _line({"kind": "base", **asdict(self.base)})
        for function in list(self.functions.values()):
            yield _line({"kind": "function", **asdict(function)})
        for step in steps:
            yield _line(step_to_json(step))

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the trace to the file `path`, replacing an old one, and return the path."""
        target = Path(path)
        with target.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(self.to_lines())
        return target


def load(path: str | PathLike[str]) -> Trace:
    """Read the trace file `path`.

    Raises OSError when it can't be opened and `TraceFormatError` when it is no trace. A torn last
    line is left out and reported by `Trace.truncated`.
    """
    with Path(path).open(encoding="utf-8", errors="replace", newline="\n") as file:
        return parse(file)


def parse(lines: Iterator[str]) -> Trace:
    """Make a trace of the `lines` of a trace file; raises `TraceFormatError` like `load`."""
    objects = _Objects(lines)
    number, header = objects.need("the header line of a trace")
    if header.get("format") != FORMAT:
        raise TraceFormatError(number, f"this is no {FORMAT} file")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise TraceFormatError(number, f"{version!r} is no version of the format")
    if version > VERSION:
        raise TraceFormatError(
            number, f"version {version} was written by a newer tracer: update yours"
        )
    base = _base(*objects.need("the base state"))
    functions: dict[int, Function] = {}
    steps: list[Step] = []
    for number, values in objects:
        kind = values.pop("kind", None)
        if kind == "function":
            function = _make(number, Function, values)
            functions[function.id] = function
        elif isinstance(kind, str) and kind in STEP_KINDS:
            if "events" in values:
                values["events"] = _pairs(number, values["events"])
            steps.append(_make(number, STEP_KINDS[kind], values))
        else:
            raise TraceFormatError(number, f"unknown kind {kind!r}")
    return Trace(base, functions, steps, truncated=objects.truncated)


class _Objects(Iterator[tuple[int, dict[str, Any]]]):
    """The JSON objects of the lines with their line numbers; notices a torn last line."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = enumerate(lines, 1)
        self.truncated = False

    def __next__(self) -> tuple[int, dict[str, Any]]:
        number, line = next(self._lines)
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith("\n"):
                self.truncated = True
                raise StopIteration from None
            raise TraceFormatError(number, f"this is no JSON: {error}") from None
        if not isinstance(values, dict):
            raise TraceFormatError(number, "this is no JSON object")
        return number, values

    def need(self, what: str) -> tuple[int, dict[str, Any]]:
        for number, values in self:
            return number, values
        raise TraceFormatError(1, f"the file ends before {what}")


def _line(values: dict[str, Any]) -> str:
    # Escaped to ASCII: a name may hold half a surrogate pair, which UTF-8 can't.
    return json.dumps(values, separators=(",", ":")) + "\n"


def _base(number: int, values: dict[str, Any]) -> BaseState:
    if values.pop("kind", None) != "base":
        raise TraceFormatError(number, "the base state must follow the header")
    values["registrations"] = _rows(number, BaseRegistration, values.get("registrations"))
    values["tasks"] = _rows(number, BaseTask, values.get("tasks"))
    values["timers"] = _rows(number, BaseTimer, values.get("timers", []))
    return _make(number, BaseState, values)


Row = TypeVar("Row")


def _rows(number: int, make: type[Row], values: Any) -> tuple[Row, ...]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise TraceFormatError(number, f"expected a list of {make.__name__} objects")
    return tuple(_make(number, make, value) for value in values)


def _pairs(number: int, values: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(values, list):
        raise TraceFormatError(number, "events must be a list")
    for pair in values:
        if not isinstance(pair, list) or [type(value) for value in pair] != [int, int]:
            raise TraceFormatError(number, "events must be [fd, event] pairs")
    return tuple((fd, event) for fd, event in values)


def _types_of(make: type) -> dict[str, tuple[type, ...]]:
    """Return which types of value each field of a dataclass takes, by its annotation."""
    return {
        name: (tuple,) if get_origin(hint) is tuple else get_args(hint) or (hint,)
        for name, hint in get_type_hints(make).items()
    }


_TYPES = {
    make: _types_of(make)
    for make in (BaseState, BaseRegistration, BaseTask, BaseTimer, Function, *STEP_KINDS.values())
}


def _make(number: int, make: type[Row], values: dict[str, Any]) -> Row:
    """Return the object that `values` are the fields of, when each is there and of its type."""
    types = _TYPES[make]
    for name, value in values.items():
        if name not in types:
            raise TraceFormatError(number, f"a {make.__name__} has no {name!r}")
        if type(value) not in types[name]:  # exactly: True is no descriptor
            wanted = " or ".join(one.__name__ for one in types[name])
            raise TraceFormatError(
                number, f"{name!r} of a {make.__name__} is {wanted}, not {type(value).__name__}"
            )
    try:
        return make(**values)
    except TypeError:
        missing = ", ".join(repr(name) for name in types if name not in values)
        raise TraceFormatError(number, f"a {make.__name__} lacks one of {missing}") from None
