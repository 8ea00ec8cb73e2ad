"""`expect(trace)`: what has to be true of a recording, for tests and for grading labs.

::

    tracer.expect(trace).never("read after would-block").every_accepted_descriptor_is_closed()

Each check returns its `Expectation`, so that they chain, or raises AssertionError with the step,
the source line and a sentence. None looks at a clock: how fast a machine is grades nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

from tracer.history import History, Life, done
from tracer.lint import LINTS, Findings, lint, place, source, source_line
from tracer.replay import Replay
from tracer.steps import STEP_KINDS, Deleted, Registered, Step
from tracer.trace import Trace
from tracer.words import count, sentence, shown

TIMED = "blocking-callback"
"""The lint that depends on how fast a machine is."""

MOST_LISTED = 5
"""So many offenders are listed one by one."""


class HasFileno(Protocol):
    """Anything with a `fileno()` method, such as a socket."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


@dataclass(frozen=True, slots=True)
class Matcher:
    """A description of steps: their kind and the values of some of their fields."""

    kind: str
    fields: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        values = " and ".join(f"{name}={value!r}" for name, value in self.fields)
        return f"{self.kind} with {values}" if values else self.kind


def matching(kind: str, **fields_of_step: Any) -> Matcher:
    """Describe steps for `Expectation.order`: ``matching("Read", fd=7, count=0)``.

    `callback` and `function` are given by the function's name. Raises ValueError for a kind or a
    field that there is not.
    """
    if kind not in STEP_KINDS:
        raise ValueError(f"{kind!r} is no kind of step; they are {', '.join(STEP_KINDS)}")
    known = [field.name for field in fields(STEP_KINDS[kind])]
    for name in fields_of_step:
        if name not in known:
            raise ValueError(f"a {kind} has no {name!r}; it has {', '.join(known)}")
    return Matcher(kind, tuple(fields_of_step.items()))


def expect(trace: Trace) -> Expectation:
    """Return checks of `trace`, as it is now."""
    return Expectation(trace)


class Expectation:
    """Checks of one trace. Made by `expect`.

    A check that may turn on steps which are missing raises ValueError: a full recording drops old
    ones, and the end of a file may be torn off. A part of a trace is refused at once.
    """

    def __init__(self, trace: Trace) -> None:
        if trace.partial:
            raise ValueError("this is a part of a trace: expect needs the whole")
        dropped = trace.dropped
        self._lost = f"of this one {count(dropped, 'step')} were dropped" if dropped else ""
        if trace.truncated:
            self._lost = "the end of this one was torn off"
        self._trace = trace[:]  # as it is now: a recording goes on
        self._history = History(self._trace)

    def __repr__(self) -> str:
        return f"<Expectation of {count(len(self._trace), 'step')}>"

    # ---- descriptors ----------------------------------------------------------------------------

    def registered(self, fd: int | HasFileno) -> Expectation:
        """`fd` was registered, in the recording or before it began."""
        __tracebackhide__ = True
        number = _number(fd)
        older = any(row.fd == number for row in self._trace.base.registrations)
        if not older and number not in self._done("Registered"):
            self._is_missing("Registered", number)
        return self

    def deleted(self, fd: int | HasFileno) -> Expectation:
        """`fd` was deleted."""
        __tracebackhide__ = True
        number = _number(fd)
        if number not in self._done("Deleted"):
            self._is_missing("Deleted", number)
        return self

    def every_accepted_descriptor_is_deleted(self) -> Expectation:
        """Each accepted connection that was registered was deleted, by the end of the trace."""
        __tracebackhide__ = True

        def kept(life: Life) -> bool:
            registered = any(done(step, Registered) for step in life.steps)
            return registered and not any(done(step, Deleted) for step in life.steps)

        self._for_accepted(kept, "was accepted and registered, and never deleted")
        return self

    def every_accepted_descriptor_is_closed(self) -> Expectation:
        """Each accepted connection was closed, by the end of the trace."""
        __tracebackhide__ = True

        def kept(life: Life) -> bool:
            return not life.closed and not life.came_back

        self._for_accepted(kept, "was accepted, and never closed")
        return self

    # ---- mistakes -------------------------------------------------------------------------------

    def never(self, *mistakes: str) -> Expectation:
        """`tracer.lint` does not find these mistakes: ``never("read after would-block")``.

        Raises ValueError for a name that no lint has, and for blocking-callback, which depends on
        how fast the machine is: ``tracer.lint(trace, slow=…)`` looks for that.
        """
        __tracebackhide__ = True
        names = {_lint_name(mistake) for mistake in mistakes}
        if not names:
            raise ValueError(f"never what? The lints are {_names()}")
        self._need_all()
        found = [finding for finding in self._findings if finding.name in names]
        if found:
            raise AssertionError("\n\n".join(map(str, found)))
        return self

    def no_findings(self) -> Expectation:
        """`tracer.lint` finds nothing; blocking-callback is not looked for (`never` says why)."""
        __tracebackhide__ = True
        return self.never(*(name for name in LINTS if name != TIMED))

    # ---- steps ----------------------------------------------------------------------------------

    def order(self, *wanted: str | Matcher) -> Expectation:
        """These steps happened in this order, with any others between them.

        Each is the name of a kind or a `matching`.
        """
        __tracebackhide__ = True
        at, before = -1, ""
        for one in wanted:
            matcher = one if isinstance(one, Matcher) else matching(one)
            indices = list(self._indices(matcher))
            following = next((index for index in indices if index > at), None)
            if following is None:
                self._need_all()
                where = f"the {before} of {self._tell(at)}" if before else "the beginning"
                last = f"; the last one was {self._tell(indices[-1])}" if indices else ""
                raise AssertionError(f"There is no {matcher} after {where}{last}")
            at, before = following, str(matcher)
        return self

    def at_least(self, number: int, kind: str, **fields_of_step: Any) -> Expectation:
        """There were `number` steps of this kind, or more; fields as for `matching`."""
        __tracebackhide__ = True
        matcher = matching(kind, **fields_of_step)
        indices = list(self._indices(matcher))
        if len(indices) < number:
            self._need_all()
            text = f"There were {len(indices):,} steps {matcher}, not {number:,} or more"
            raise AssertionError(
                f"{text}; the last was {self._tell(indices[-1])}" if indices else f"{text}."
            )
        return self

    def at_most(self, number: int, kind: str, **fields_of_step: Any) -> Expectation:
        """There were `number` steps of this kind, or fewer; fields as for `matching`."""
        __tracebackhide__ = True
        matcher = matching(kind, **fields_of_step)
        indices = list(self._indices(matcher))
        if len(indices) > number:
            raise AssertionError(
                f"There were {len(indices):,} steps {matcher}, more than {number:,}; "
                f"the first too many was {self._tell(indices[number])}"
            )
        self._need_all()
        return self

    # ---- inside ---------------------------------------------------------------------------------

    @cached_property
    def _findings(self) -> Findings:
        return lint(self._trace, slow=math.inf)

    def _need_all(self) -> None:
        __tracebackhide__ = True
        if self._lost:
            raise ValueError(
                f"This check needs the whole of a trace, and {self._lost}; "
                "`limit` says how many steps a recording keeps."
            )

    def _for_accepted(self, offends: Callable[[Life], bool], what: str) -> None:
        __tracebackhide__ = True
        self._need_all()
        offenders = []
        for life in self._history.lives:
            if life.accepted is not None and offends(life):
                offenders.append(f"{life.full_name} {what}: {self._where(life.accepted)}")
        if offenders:
            rest = len(offenders) - MOST_LISTED
            more = [f"… and {rest:,} more"] if rest > 0 else []
            raise AssertionError("\n".join([*offenders[:MOST_LISTED], *more]))

    def _done(self, kind: str) -> list[int]:
        """Return the descriptors for which a call of this kind did not fail."""
        steps = [step for step in self._history.steps if step.kind == kind]
        return [s.fd for s in steps if isinstance(s, (Registered, Deleted)) and s.error is None]

    def _is_missing(self, kind: str, fd: int) -> None:
        __tracebackhide__ = True
        self._need_all()
        text = f"Descriptor {fd} was never {kind.lower()}"
        failed = next(self._indices(matching(kind, fd=fd)), None)
        if failed is not None:
            raise AssertionError(f"{text}; it was tried in {self._tell(failed)}")
        others = ", ".join(map(str, dict.fromkeys(self._done(kind))))
        raise AssertionError(f"{text}, only {others}." if others else f"{text}, nor was any other.")

    def _indices(self, matcher: Matcher) -> Iterator[int]:
        for index, step in enumerate(self._history.steps):
            if step.kind == matcher.kind and all(
                self._has(step, name, value) for name, value in matcher.fields
            ):
                yield index

    def _has(self, step: Step, name: str, value: Any) -> bool:
        found = getattr(step, name)
        if name in ("callback", "function") and isinstance(value, str):
            function = self._trace.functions.get(found)
            found = function.name if function else ""
            return bool(found == value or found.endswith(f".{value}"))
        return bool(found == value)

    def _tell(self, index: int) -> str:
        """Return where a step is and what it says."""
        step = self._history.steps[index]
        said = sentence(step, Replay(self._trace).state(index), self._trace)
        return f"{self._where(step)}\n    {said}"

    def _where(self, step: Step) -> str:
        function, line = source(self._history, step)
        code = source_line(function, line)
        where = place(self._history.number(step.seq), function, line)
        return f"{where}\n        {code}" if code else where


def _number(fd: int | HasFileno) -> int:
    return fd if isinstance(fd, int) else fd.fileno()


def _lint_name(text: str) -> str:
    """Return the name of the lint that `text` means, whatever stands between its words."""
    name = "-".join(text.lower().replace("_", " ").replace("-", " ").split())
    if name not in LINTS:
        raise ValueError(f"no lint is called {shown(text)!r}; they are {_names()}")
    if name == TIMED:
        raise ValueError(
            f"{TIMED} depends on how fast the machine is, so it is no check: "
            "look at tracer.lint(trace, slow=…)"
        )
    return name


def _names() -> str:
    return ", ".join(name for name in LINTS if name != TIMED)
