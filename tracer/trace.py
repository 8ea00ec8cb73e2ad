"""`Trace`: what a recording wrote down, to look at, search, save and load.

The lines of a trace file are in `trace_file`, rows and tables in `trace_rows`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial as partial_call
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, overload

from tracer import trace_rows
from tracer.redaction import redact
from tracer.steps import STEP_KINDS, Function, Step
from tracer.trace_file import (
    FORMAT,
    MINOR,
    VERSION,
    BaseRegistration,
    BaseState,
    BaseTask,
    BaseTimer,
    Loaded,
    LoadedSteps,
    TraceFormatError,
    UnknownStep,
    head_lines,
    header_line,
    read,
    step_lines,
)

__all__ = [
    "FORMAT",
    "MINOR",
    "VERSION",
    "BaseRegistration",
    "BaseState",
    "BaseTask",
    "BaseTimer",
    "Trace",
    "TraceFormatError",
    "UnknownStep",
    "load",
    "parse",
]

Kind = str | type[Step]


class Trace(Sequence[Step]):
    """The steps of a recording, in order, with the functions they name and the base state.

    `functions` maps a `Function.id` to it; `truncated` is True when a loaded file's last line was
    torn off, as a crash leaves it. A recording's trace grows while the recording runs.

    A slice, and what `where` and `search` return, is a trace too, to be printed, searched further
    and saved. It is `partial`: steps are missing before or between its own, so that the state of
    the loop can't be told from them; only a beginning, ``trace[:20]``, is whole.
    """

    def __init__(
        self,
        base: BaseState,
        functions: Mapping[int, Function],
        steps: Sequence[Step],
        *,
        truncated: bool = False,
        partial: bool = False,
    ) -> None:
        self.base = base
        self.functions = functions
        self.truncated = truncated
        self.partial = partial
        self._steps = steps
        self._whole: Trace | None = None  # of a part: what it is a part of

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Trace: ...
    def __getitem__(self, index: int | slice) -> Step | Trace:
        if not isinstance(index, slice):
            return self._steps[index]
        start, _, stride = index.indices(len(self))
        if stride < 0:
            raise ValueError("a trace runs forward; reversed(trace) goes through it from its end")
        return self._part(self._steps[index], partial=(start, stride) != (0, 1))

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    @property
    def dropped(self) -> int:
        """How many steps went before, which a long recording did not keep."""
        return self.base.dropped

    # ---- finding ------------------------------------------------------------------------------

    @property
    def start_ns(self) -> int:
        """When the first step happened, on the clock of the steps; of a part: of the whole."""
        whole = self._whole or self
        return whole[0].t_ns if len(whole) else 0

    def where(
        self,
        *,
        fd: int | None = None,
        kind: Kind | tuple[Kind, ...] | None = None,
        callback: str | None = None,
        thread: str | None = None,
        between: tuple[float, float] | None = None,
    ) -> Trace:
        """Return the steps for which everything holds that is given.

        `fd`: they are about this descriptor; so are the accept that made it and the waits that
        returned it. `kind`: a name or class of steps, or a tuple of those. `callback`: the name of
        a function, with or without its class; they name it as a callback, or happened in a call of
        it. `thread`: the name of a thread. `between`: two times in seconds since the start of the
        trace, both included. Raises ValueError for a kind that there is not.
        """
        tests: list[Callable[[Step], bool]] = []
        if kind is not None:
            kinds = {one if isinstance(one, str) else one.__name__ for one in _tuple(kind)}
            self._need_kinds(kinds)
            tests.append(lambda step: step.kind in kinds)
        if thread is not None:
            tests.append(lambda step: step.thread == thread)
        if between is not None:
            first, last = between
            start = self.start_ns
            tests.append(lambda step: first <= (step.t_ns - start) / 1e9 <= last)
        if fd is not None:
            tests.append(lambda step: _is_about(step, fd))
        if callback is not None:
            tests.insert(0, self._runs(callback))  # sees every step, to know what runs
        return self._pick(all(test(step) for test in tests) for step in self)

    def search(self, text: str) -> Trace:
        """Return the steps that show `text`, in upper or lower case.

        Searched is what stands in a row of `to_rows`: kinds, threads, names of descriptors and
        functions, peers, files, events, errors.
        """
        wanted = text.casefold()
        return self._pick(
            any(isinstance(value, str) and wanted in value.casefold() for value in row.values())
            for row in self._rows(self)
        )

    def _pick(self, wanted: Iterable[bool]) -> Trace:
        indices = [index for index, is_wanted in enumerate(wanted) if is_wanted]
        steps = self._steps
        if isinstance(steps, LoadedSteps):
            return self._part(steps.pick(indices), partial=True)
        return self._part([steps[index] for index in indices], partial=True)

    def _part(self, steps: Sequence[Step], *, partial: bool) -> Trace:
        part = Trace(
            self.base,
            self.functions,
            steps,
            truncated=self.truncated,
            partial=self.partial or partial,
        )
        part._whole = self._whole or self
        return part

    def _need_kinds(self, kinds: set[str]) -> None:
        for kind in sorted(kinds - set(STEP_KINDS)):
            if not any(isinstance(step, UnknownStep) and step.kind == kind for step in self):
                known = ", ".join(STEP_KINDS)
                raise ValueError(f"there is no kind of step {kind!r}; there are {known}")

    def _runs(self, callback: str) -> Callable[[Step], bool]:
        ids = {
            number
            for number, function in list(self.functions.items())
            if function.name == callback or function.name.endswith("." + callback)
        }
        calls: set[int] = set()  # the seqs of what the function was called by

        def happened_in(step: Step) -> bool:
            named = getattr(step, "callback", None) in ids
            if named and step.kind in ("DispatchStarted", "TaskStarted"):
                calls.add(step.seq)
            return named or step.cause in calls

        return happened_in

    # ---- other forms --------------------------------------------------------------------------

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a flat dict for each step, all with the same names, for a table or a CSV file.

        ``seconds`` count from the start of the trace, ``who`` is what the descriptor was called at
        that time; functions stand by their names and events as text.
        """
        return list(self._rows(self))

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of `to_rows`. Raises ImportError where there is no pandas."""
        try:
            pandas = importlib.import_module("pandas")  # not a dependency: only who has it uses it
        except ImportError as error:
            raise ImportError(
                "to_pandas needs pandas: install it with `pip install pandas`. "
                "Without it, to_rows() returns the same as a list of dicts."
            ) from error
        return pandas.DataFrame(self.to_rows(), columns=list(trace_rows.COLUMNS))

    def redacted(self) -> Trace:
        """Return a copy that can be shared: what the loop did, without who did it with whom.

        There are no sources, paths, names of functions, threads and descriptors, addresses or
        error texts in it. What stays: kinds, order, causes and distances in time, the numbers of
        descriptors, byte counts, and the names of exceptions. Steps of a kind that is not known
        here are left out.
        """
        base, functions, steps = redact(self.base, self.functions, self)
        partial = self.partial or len(steps) < len(self)
        return Trace(base, functions, steps, truncated=self.truncated, partial=partial)

    def _rows(self, steps: Iterable[Step]) -> Iterator[dict[str, Any]]:
        naming: Iterable[Step] = ()
        if self._whole is not None:
            all_steps = self._whole._steps
            if isinstance(all_steps, LoadedSteps):
                naming = all_steps.of(trace_rows.NAMING)
            else:
                naming = (step for step in all_steps if isinstance(step, trace_rows.NAMING))
        return trace_rows.rows(self.base, self.functions, steps, self.start_ns, naming)

    def _title(self, length: int) -> str:
        backend = trace_rows.short(self.base.backend, 16)
        title = f"{length:,} step{'' if length == 1 else 's'} on {backend}"
        if length > 1:
            title += f" in {trace_rows.span(max(0, self[length - 1].t_ns - self[0].t_ns))}"
        title = f"Part of a trace: {title}" if self.partial else f"Trace of {title}"
        return f"{title}, truncated" if self.truncated else title

    def __repr__(self) -> str:
        length = len(self)
        first = list(self._rows(islice(self, trace_rows.shown(length))))
        return trace_rows.as_text(f"<{self._title(length)}>", first, length - len(first))

    def _repr_html_(self) -> str:
        steps = self._steps
        names = steps.kinds() if isinstance(steps, LoadedSteps) else [one.kind for one in self]
        kinds, length = Counter(names), len(names)
        first = list(self._rows(islice(self, trace_rows.shown(length))))
        notes = []
        if self.truncated:
            notes.append("The end of its file was torn off; this is what can be read.")
        return trace_rows.as_html(self._title(length), notes, kinds, first, length - len(first))

    # ---- files --------------------------------------------------------------------------------

    def to_lines(self) -> Iterator[str]:
        """Yield the lines of the trace file, each with its line end.

        While a recording runs, they are those of one moment.
        """
        steps = self._steps
        if isinstance(steps, LoadedSteps):
            yield header_line(max(MINOR, steps.minor), self.partial)
            yield from steps.head_lines()
            yield from steps.lines()
            return
        base = None
        while base is not self.base:  # while it runs, old steps may be folded into a new one
            base, steps = self.base, self._steps[:]  # whatever they name is in the functions then
        newer = any(isinstance(step, UnknownStep) for step in steps)
        yield header_line(MINOR + newer, self.partial)
        yield from head_lines(base, list(self.functions.values()))
        yield from step_lines(steps)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the trace to the file `path` and return that.

        A file that is there already is replaced when everything is written, not before: a crash or
        a full disk leaves it as it was.
        """
        target = Path(path)
        real = Path(os.path.realpath(target))
        if real.exists() and not real.is_file():  # /dev/stdout, say
            self._write(real)
            return target
        unfinished = real.with_name(f".{real.name[:200]}.{os.getpid()}.{threading.get_ident()}")
        try:
            self._write(unfinished)
            if real.exists():
                unfinished.chmod(real.stat().st_mode & 0o7777)
            unfinished.replace(real)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink()
        return target

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(self.to_lines())


def load(path: str | PathLike[str]) -> Trace:
    """Read the trace file `path`; its steps become objects when they are looked at.

    Raises OSError when it can't be opened and `TraceFormatError` when it is no trace. A torn last
    line is left out and reported by `Trace.truncated`.
    """
    with Path(path).open("rb") as file:
        return _trace(read(iter(partial_call(file.read, 1 << 20), b"")))


def parse(lines: Iterable[str]) -> Trace:
    """Make a trace of the `lines` of a trace file; raises `TraceFormatError` like `load`."""
    return _trace(read(["".join(lines).encode("utf-8", "surrogatepass")]))


def _trace(loaded: Loaded) -> Trace:
    return Trace(
        loaded.base,
        loaded.functions,
        loaded.steps,
        truncated=loaded.truncated,
        partial=loaded.partial,
    )


def _tuple(kind: Kind | tuple[Kind, ...]) -> tuple[Kind, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def _is_about(step: Step, fd: int) -> bool:
    if fd in (getattr(step, "fd", None), getattr(step, "new_fd", None)):
        return True
    return any(fd == one for one, _ in getattr(step, "events", ()))
