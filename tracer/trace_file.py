"""The lines of a trace file: how they are written, and how they are read back and checked.

What was read stays the text that it is: a step becomes an object when someone looks, and is
written again as it was, with fields that only a newer tracer knows. Every value is checked while
reading, so that looking can't fail. docs/reference/trace-format.md describes the format.
"""

from __future__ import annotations

import json
import reprlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import pairwise
from operator import attrgetter, itemgetter
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints, overload

from tracer.steps import STEP_KINDS, Function, Step, step_to_json

FORMAT = "netpoll-trace"
VERSION = 1
MINOR = 1
"""Goes up when a kind or a field is added; a file without a minor version has 0."""

LONGEST_LINE = 32 << 20
"""In bytes. Bounds the memory that reading one line takes."""

DEEPEST = 16
"""So many lists and objects may stand in each other in a field that a newer tracer wrote."""

LARGEST = 2**63 - 1
"""Integers are signed and have 64 bits, so that arithmetic with them is safe."""


class TraceFormatError(ValueError):
    """A trace file that can't be read; says which line and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.line, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownStep(Step):
    """A step of a kind that only a newer tracer knows; nothing is concluded from it.

    `name` is its kind and `values` are its own fields.
    """

    name: str
    values: Mapping[str, Any] = field(hash=False)

    @property
    def kind(self) -> str:
        """The name of the kind, as it stands in the trace file."""
        return self.name


@dataclass(frozen=True, slots=True)
class BaseRegistration:
    """A descriptor that was on the interest list already when the trace begins.

    `armed` is False for a one-shot that had fired; `closed` means that it was closed without
    `delete`, so that the kernel had dropped it.
    """

    fd: int
    who: str
    interest: str
    edge_triggered: bool
    oneshot: bool
    exclusive: bool
    callback: int | None
    armed: bool = True
    closed: bool = False


@dataclass(frozen=True, slots=True)
class BaseTask:
    """A task that was queued already when the trace begins; `queue` is ``high`` or ``low``.

    `seq` is that of its TaskQueued, where that was a step before it was dropped.
    """

    queue: str
    callback: int | None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class BaseTimer:
    """A timer that was set already when the trace begins; `due_ns` is on the clock of steps.

    `seq` is that of its TimerSet, where that was a step before it was dropped.
    """

    due_ns: int
    callback: int | None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class BaseState:
    """What held when the trace begins.

    `backend` is the facility (``"epoll"``), `fd` the descriptor of its kernel object (None where
    it has none), `wakeup_fd` what a trigger writes to, `size` the most events of one wait.
    `dropped` is how many steps went before, which a long recording did not keep.
    """

    backend: str
    fd: int | None
    wakeup_fd: int
    size: int
    running: bool
    registrations: tuple[BaseRegistration, ...] = ()
    tasks: tuple[BaseTask, ...] = ()
    timers: tuple[BaseTimer, ...] = ()
    dropped: int = 0


class LoadedSteps(Sequence[Step]):
    """The steps of a trace file, or some of them, made out of its text when someone looks.

    `minor` is the version of the file.
    """

    def __init__(
        self,
        text: bytearray,
        head: Sequence[int],
        starts: Sequence[int],
        kinds: Sequence[str],
        minor: int,
    ) -> None:
        self.minor = minor
        self._text = text
        self._head = head  # where the lines of the base state and the functions begin
        self._starts = starts  # where the lines of the steps begin
        self._kinds = kinds

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> LoadedSteps: ...
    def __getitem__(self, index: int | slice) -> Step | LoadedSteps:
        if isinstance(index, slice):
            return self.pick(range(*index.indices(len(self))))
        return _step_of(self._line(self._starts[index]))

    def __iter__(self) -> Iterator[Step]:
        return map(_step_of, map(self._line, self._starts))

    def kinds(self) -> Sequence[str]:
        """Return the kind of each step; quicker than to look at the steps."""
        return self._kinds

    def of(self, classes: Iterable[type[Step]]) -> LoadedSteps:
        """Return the steps of these classes."""
        kinds = {step.__name__ for step in classes}
        return self.pick([index for index, kind in enumerate(self._kinds) if kind in kinds])

    def pick(self, indices: Sequence[int]) -> LoadedSteps:
        """Return the steps with these indices."""
        starts = array("Q", map(self._starts.__getitem__, indices))
        kinds = list(map(self._kinds.__getitem__, indices))
        return LoadedSteps(self._text, self._head, starts, kinds, self.minor)

    def head_lines(self) -> Iterator[str]:
        """Yield the lines of the base state and the functions, with their line ends."""
        return (self._line(start) + "\n" for start in self._head)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the steps, with their line ends."""
        return (self._line(start) + "\n" for start in self._starts)

    def _line(self, start: int) -> str:
        return self._text[start : self._text.find(b"\n", start)].decode()


class Loaded(NamedTuple):
    """What a trace file holds."""

    base: BaseState
    functions: dict[int, Function]
    steps: LoadedSteps
    truncated: bool
    partial: bool


# ---- writing ----------------------------------------------------------------------------------

_encode = json.JSONEncoder(separators=(",", ":")).encode


def line(values: Mapping[str, Any]) -> str:
    """Return `values` as a line of a trace file.

    It is ASCII: a name may hold half a surrogate pair, which UTF-8 can't.
    """
    return _encode(values) + "\n"


def header_line(minor: int, partial: bool) -> str:
    """Return the first line of a trace file."""
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "minor": minor}
    if partial:
        header["partial"] = True
    return line(header)


def head_lines(base: BaseState, functions: Iterable[Function]) -> Iterator[str]:
    """Yield the lines of the base state and the functions."""
    yield line({"kind": "base", **asdict(base)})
    for function in functions:
        yield line({"kind": "function", **asdict(function)})


class _Texts(dict[object, str]):
    """The JSON of names and truth values, which come again and again."""

    def __missing__(self, value: object) -> str:
        if len(self) > 10_000:  # every error may have a text of its own
            self.clear()
        text = self[value] = _encode(value)
        return text


Template = tuple[str, Sequence[tuple[int, Callable[[Any], str]]]]


def step_lines(steps: Iterable[Step]) -> Iterator[str]:
    """Yield the line of each step.

    Steps of a kind whose values have the same types are written by one template: a third of the
    time that the JSON encoder takes for each of them.
    """
    templates: dict[tuple[type, ...], Template | None] = {}
    texts = _Texts()
    for step in steps:
        make = type(step)
        if make not in _VALUES:
            yield line(_to_json(step))
            continue
        values = _VALUES[make](step)
        shape = (make, *map(type, values))
        try:
            template = templates[shape]
        except KeyError:
            template = templates[shape] = _template(step, texts)
        if template is None:
            yield line(_to_json(step))
            continue
        text, conversions = template
        if conversions:
            changed = list(values)
            for place, convert in conversions:
                changed[place] = convert(changed[place])
            values = tuple(changed)
        yield text % values


def _template(step: Step, texts: _Texts) -> Template | None:
    """Return a format for steps like this one, and the places where JSON differs from `str`."""
    parts = [f'{{"kind":"{step.kind}"']
    conversions: list[tuple[int, Callable[[Any], str]]] = []
    for place, own in enumerate(fields(step)):
        value = getattr(step, own.name)
        if value is None:
            left_out = own.default is None
            parts.append("%.0s" if left_out else f',"{own.name}":null%.0s')
            continue
        parts.append(f',"{own.name}":%s')
        if type(value) in (str, bool):
            conversions.append((place, texts.__getitem__))
        elif type(value) is tuple:
            conversions.append((place, _encode))
        elif type(value) is not int:  # an enum, say, which `str` would name
            return None
    return "".join(parts) + "}\n", conversions


def _to_json(step: Step) -> dict[str, Any]:
    if not isinstance(step, UnknownStep):
        return step_to_json(step)
    values = {"kind": step.name, "seq": step.seq, "t_ns": step.t_ns, "thread": step.thread}
    if step.cause is not None:
        values["cause"] = step.cause
    return values | {name: step.values[name] for name in step.values if name not in values}


_VALUES: Mapping[type[Step], Callable[[Step], tuple[Any, ...]]] = {
    make: attrgetter(*(own.name for own in fields(make))) for make in STEP_KINDS.values()
}

# ---- reading ----------------------------------------------------------------------------------


def read(blocks: Iterable[bytes]) -> Loaded:
    """Read the text of a trace file, which comes in blocks of any size.

    Raises `TraceFormatError`. A last line that is torn is left out and reported.
    """
    reader = _Reader()
    rest = b""
    for block in blocks:
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            reader.read(whole)
        if len(rest) > LONGEST_LINE:
            raise TraceFormatError(reader.number + 1, "this line is too long")
    return reader.finish(rest)


class _Shape(NamedTuple):
    """What is known of every line with the same names and types: that they are right."""

    kind: str
    numbers: Callable[[Mapping[str, Any]], tuple[int, ...]]
    caused: bool
    pairs: tuple[str, ...]  # lists of [fd, event] pairs, to be looked at
    foreign: tuple[str, ...]  # fields of a newer version with something inside, to be looked at


class _Reader:
    """Reads lines and keeps what they hold; `number` is that of the last line."""

    def __init__(self) -> None:
        self.number = 0
        self._minor: int | None = None
        self._partial = False
        self._base: BaseState | None = None
        self._functions: dict[int, Function] = {}
        self._text = bytearray()
        self._head = array("Q")
        self._starts = array("Q")
        self._seqs = array("q")
        self._kinds: list[str] = []
        self._in_order = True
        self._shapes: dict[tuple[Any, ...], _Shape] = {}

    def read(self, whole: bytes) -> None:
        """Read lines, the last without its line end."""
        lines = whole.split(b"\n")
        if len(whole) > LONGEST_LINE:
            for number, text in enumerate(lines, self.number + 1):
                if len(text) > LONGEST_LINE:
                    raise TraceFormatError(number, "this line is too long")
        at = 0
        while self._base is None and at < len(lines):
            self._beginning(lines[at])
            at += 1
        self._rest(lines[at:])

    def finish(self, torn: bytes) -> Loaded:
        """Read what stands behind the last line end and return all that was read."""
        truncated = False
        if torn:
            try:
                _object(self.number + 1, torn)
            except TraceFormatError:
                truncated = True
            else:
                self.read(torn)
        if self._minor is None or self._base is None:
            missing = "the header line of a trace" if self._minor is None else "the base state"
            raise TraceFormatError(self.number + 1, f"the file ends before {missing}")
        starts, kinds = self._sorted()
        steps = LoadedSteps(self._text, self._head, starts, kinds, self._minor)
        return Loaded(self._base, self._functions, steps, truncated, self._partial)

    def _beginning(self, text: bytes) -> None:
        self.number += 1
        values = _object(self.number, text)
        if self._minor is None:
            self._minor = self._header(values)
            return
        if values.pop("kind", None) != "base":
            raise TraceFormatError(self.number, "the base state must follow the header")
        for name, make in _BASE_ROWS.items():
            values[name] = self._rows(make, values.get(name, [] if name == "timers" else None))
        self._base = self._make(BaseState, values)
        self._keep(text, self._head)

    def _header(self, values: dict[str, Any]) -> int:
        if values.get("format") != FORMAT:
            raise TraceFormatError(self.number, f"this is no {FORMAT} file")
        version, minor = values.get("version"), values.get("minor", 0)
        shown = reprlib.repr(version)
        if type(version) is not int or version < 1:
            raise TraceFormatError(self.number, f"{shown} is no version of the format")
        if version > VERSION:
            text = f"version {shown} was written by a newer tracer: update yours"
            raise TraceFormatError(self.number, text)
        if type(minor) is not int or not 0 <= minor <= LARGEST:
            text = f"{reprlib.repr(minor)} is no minor version of the format"
            raise TraceFormatError(self.number, text)
        partial = values.get("partial", False)
        if type(partial) is not bool:
            raise TraceFormatError(self.number, "'partial' is true or false")
        self._partial = partial
        return minor

    def _rest(self, lines: list[bytes]) -> None:
        number, start, last = self.number, len(self._text), self._seqs[-1] if self._seqs else -1
        shapes, learn, decode = self._shapes, self._learn, _decode
        for text in lines:
            number += 1
            try:
                values, end = decode(text.decode())
                if end != len(text):  # spaces, or letters that are more than one byte
                    raise ValueError
            except (ValueError, RecursionError):
                values = _object(number, text)
            try:
                form = (values["kind"], *values, *map(type, values.values()))
                shape = shapes[form]
            except (KeyError, TypeError):
                self.number = number
                if type(values) is dict and values.get("kind") == "function":
                    self._function(values)
                    self._head.append(start)
                    start += len(text) + 1
                    continue
                shape = learn(values)
            numbers = shape.numbers(values)
            seq = values["seq"]
            if min(numbers) < -LARGEST - 1 or max(numbers) > LARGEST:
                raise TraceFormatError(number, "a number has more than 64 bits")
            if seq <= last:
                if seq < 0:
                    raise TraceFormatError(number, "'seq' counts from 0")
                self._in_order = False
            last = seq
            if shape.caused and not -1 < values["cause"] < seq:
                raise TraceFormatError(number, "the cause of a step comes before it")
            for name in shape.pairs:
                _check_pairs(number, name, values[name])
            for name in shape.foreign:
                _check_depth(number, values[name])
            self._starts.append(start)
            self._seqs.append(seq)
            self._kinds.append(shape.kind)
            start += len(text) + 1
        self.number = number
        if lines:
            self._text += b"\n".join(lines)
            self._text += b"\n"

    def _keep(self, text: bytes, starts: array[int]) -> None:
        starts.append(len(self._text))
        self._text += text + b"\n"

    def _function(self, values: dict[str, Any]) -> None:
        del values["kind"]
        function = self._make(Function, values)
        if self._functions.setdefault(function.id, function) != function:
            raise TraceFormatError(self.number, f"function {function.id} is another one already")

    def _learn(self, values: object) -> _Shape:
        """Check the names and types of a step, and note that lines like it are right."""
        number = self.number
        if type(values) is not dict:
            raise TraceFormatError(number, "this is no JSON object")
        kind = values.get("kind")
        make = STEP_KINDS.get(kind) if isinstance(kind, str) else None
        if not isinstance(kind, str) or (make is None and not self._newer):
            raise TraceFormatError(number, f"unknown kind {reprlib.repr(kind)}")
        rest = {name: value for name, value in values.items() if name != "kind"}
        self._check(make or UnknownStep, rest)
        types = _TYPES[make or UnknownStep]
        known = [name for name in rest if name in types]
        shape = _Shape(
            kind,
            itemgetter(*(name for name in known if type(rest[name]) is int)),
            caused=type(rest.get("cause")) is int,
            pairs=tuple(name for name in known if type(rest[name]) is list),
            foreign=tuple(
                name for name in rest if name not in types and type(rest[name]) in (list, dict)
            ),
        )
        if len(self._shapes) < 10_000:
            form = (kind, *values, *map(type, values.values()))
            self._shapes[form] = shape
        return shape

    @property
    def _newer(self) -> bool:
        return self._minor is not None and self._minor > MINOR

    def _rows(self, make: type[Row], values: Any) -> tuple[Row, ...]:
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise TraceFormatError(self.number, f"expected a list of {make.__name__} objects")
        return tuple(self._make(make, value) for value in values)

    def _make(self, make: type[Row], values: dict[str, Any]) -> Row:
        """Return the object that `values` are the fields of, when each is there and of its type."""
        self._check(make, values)
        for name, value in values.items():
            if type(value) is int and not -LARGEST - 1 <= value <= LARGEST:
                raise TraceFormatError(self.number, f"{reprlib.repr(name)} has more than 64 bits")
        return make(**{name: value for name, value in values.items() if name in _TYPES[make]})

    def _check(self, make: type, values: dict[str, Any]) -> None:
        types = _TYPES[make]
        for name, value in values.items():
            if name not in types:
                if self._newer:
                    continue
                raise TraceFormatError(
                    self.number, f"a {make.__name__} has no {reprlib.repr(name)}"
                )
            if type(value) not in types[name]:  # exactly: True is no descriptor
                wanted = " or ".join(one.__name__ for one in types[name])
                raise TraceFormatError(
                    self.number,
                    f"{name!r} of a {make.__name__} is {wanted}, not {type(value).__name__}",
                )
        missing = [repr(name) for name in _NEEDED[make] if name not in values]
        if missing:
            raise TraceFormatError(self.number, f"a {make.__name__} lacks {', '.join(missing)}")

    def _sorted(self) -> tuple[array[int], list[str]]:
        """Return where the steps begin, by their `seq`, which may not come twice, and their kinds.

        Threads write to a file as they come, so it need not be in order.
        """
        if self._in_order:
            return self._starts, self._kinds
        seqs, starts, kinds = self._seqs, self._starts, self._kinds
        order = sorted(range(len(seqs)), key=seqs.__getitem__)
        for one, other in pairwise(order):
            if seqs[one] == seqs[other]:
                before = self._text.count(b"\n", 0, starts[other])  # the header is not in there
                text = f"there is a step with seq {seqs[one]} already"
                raise TraceFormatError(before + 2, text)
        return array("Q", map(starts.__getitem__, order)), list(map(kinds.__getitem__, order))


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_decode = json.JSONDecoder(parse_constant=_no_number).raw_decode


def _object(number: int, text: bytes) -> dict[str, Any]:
    """Return the JSON object in a line, or raise `TraceFormatError` saying what is wrong."""
    if len(text) > LONGEST_LINE:
        raise TraceFormatError(number, "this line is too long")
    try:
        line = text.decode().strip(" \t\r")
        values, end = _decode(line)
    except UnicodeDecodeError:
        raise TraceFormatError(number, "this is no UTF-8") from None
    except json.JSONDecodeError as error:
        reason = f"this is no JSON: {error.msg} (column {error.colno})"
        raise TraceFormatError(number, reason) from None
    except (ValueError, RecursionError) as error:
        raise TraceFormatError(number, f"this is no JSON: {error}") from None
    if end != len(line):
        raise TraceFormatError(number, f"this is no JSON: more follows (column {end + 1})")
    if type(values) is not dict:
        raise TraceFormatError(number, "this is no JSON object")
    return values


def _step_of(text: str) -> Step:
    """Return the step that a line holds; the line has been checked."""
    values, _ = _decode(text.strip(" \t\r"))
    kind = values.pop("kind")
    make = STEP_KINDS.get(kind)
    if make is None:
        common = {name: values.pop(name) for name in _COMMON if name in values}
        return UnknownStep(**common, name=kind, values=values)
    for name in _PAIRS[make]:
        if name in values:
            values[name] = tuple(map(tuple, values[name]))
    try:
        return make(**values)
    except TypeError:  # fields that only a newer tracer knows
        return make(**{name: value for name, value in values.items() if name in _TYPES[make]})


def _check_pairs(number: int, name: str, values: list[Any]) -> None:
    for pair in values:
        if type(pair) is not list or [*map(type, pair)] != [int, int]:
            raise TraceFormatError(number, f"{name!r} must be [fd, event] pairs")
        if min(pair) < -LARGEST - 1 or max(pair) > LARGEST:
            raise TraceFormatError(number, "a number has more than 64 bits")


def _check_depth(number: int, value: object, depth: int = 1) -> None:
    """Raise `TraceFormatError` for what may later be too deep for the stack of who looks at it."""
    if depth > DEEPEST:
        raise TraceFormatError(number, "lists and objects stand too deep in each other")
    inside: Iterable[object] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    for one in inside:
        _check_depth(number, one, depth + 1)


Row = TypeVar("Row")

_BASE_ROWS: Mapping[str, type] = {
    "registrations": BaseRegistration,
    "tasks": BaseTask,
    "timers": BaseTimer,
}


def _types_of(make: type) -> dict[str, tuple[type, ...]]:
    """Return which types of value each field takes in JSON, by its annotation.

    The rows of a base state are made of their lists before the state is.
    """
    hints = get_type_hints(make)
    types: dict[str, tuple[type, ...]] = {}
    for own in fields(make):
        hint = hints[own.name]
        choices = get_args(hint) if get_origin(hint) is UnionType else (hint,)
        from_list = tuple if make is BaseState else list
        types[own.name] = tuple(from_list if get_origin(one) is tuple else one for one in choices)
    return types


_COMMON = tuple(own.name for own in fields(Step))
_CHECKED: tuple[type, ...] = (
    BaseState,
    BaseRegistration,
    BaseTask,
    BaseTimer,
    Function,
    *STEP_KINDS.values(),
)
_TYPES = {make: _types_of(make) for make in _CHECKED} | {UnknownStep: _types_of(Step)}
_NEEDED = {
    make: tuple(own.name for own in fields(make) if own.default is MISSING) for make in _CHECKED
} | {UnknownStep: tuple(own.name for own in fields(Step) if own.default is MISSING)}
_PAIRS = {
    make: tuple(name for name, types in _TYPES[make].items() if list in types)
    for make in STEP_KINDS.values()
}
