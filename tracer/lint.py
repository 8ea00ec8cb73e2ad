"""`lint(trace)`: the mistakes that the steps of a recording prove, and how to mend them.

A finding stands whatever happened outside the recording; docs/reference/lints.md says for each
lint what counts and what excuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from textwrap import fill
from typing import NamedTuple, overload

from tracer.history import History, Run
from tracer.lint_rules import RULES, Sighting
from tracer.steps import CallStep, Function, Step
from tracer.trace import Trace
from tracer.words import count, file_name, shown


class Lint(NamedTuple):
    """What a lint is about: `why` it hurts and `how` to mend it."""

    why: str
    how: str


LINTS = {
    "blocking-callback": Lint(
        "The loop has one thread. While a callback runs, nobody else is served: no event, "
        "no task, no timer.",
        "Never wait in a callback: make every socket non-blocking, use call_later instead of "
        "sleep, do long work in another thread and let it trigger a task with the result.",
    ),
    "write-interest-left-armed": Lint(
        "A socket can be written nearly always, so level-triggered write interest makes every "
        "wait return at once: a busy loop that uses up a processor.",
        "Register for writing only while bytes are pending; when all are sent, go back with "
        "mod_read.",
    ),
    "write-retried-in-a-loop": Lint(
        "The peer has to read before the kernel takes more bytes, and until then the loop tries "
        "in vain: it serves nobody, perhaps forever.",
        "Keep what was not sent, register for writing with mod_read_write, and go on at the next "
        "write event.",
    ),
    "short-write-forgotten": Lint(
        "The kernel took only a part of the bytes. Nobody sends the rest, so the peer gets a "
        "stream with a hole, or waits forever.",
        "Look at what send returns: keep the rest, register for writing with mod_read_write, and "
        "go on at the next write event.",
    ),
    "error-before-data": Lint(
        "Bytes that arrived before the peer hung up can still be read. Closing first throws the "
        "last thing that it said away.",
        "Read first, whatever else the event says; the end of the stream or the error comes out "
        "of recv when the data has been read.",
    ),
    "edge-not-drained": Lint(
        "Edge-triggered, the kernel reports each arrival once. What is left in the socket stays "
        "there unnoticed until more arrives, perhaps forever.",
        "Read (or accept) in a loop until it would block, or a read returns less than it asked "
        "for; or register level-triggered.",
    ),
    "read-after-would-block": Lint(
        "The kernel has just said that nothing is there. Asking again costs a system call, and in "
        "a loop it waits without sleeping.",
        "Return when a read would block: the loop calls again when there is something to read.",
    ),
    "end-of-stream-ignored": Lint(
        "The end of a stream stays readable, so every wait returns at once: a busy loop that uses "
        "up a processor.",
        "When recv returns no bytes, delete the descriptor and close the socket (or, to go on "
        "sending, register it for writing alone).",
    ),
    "closed-without-delete": Lint(
        "The kernel forgets a closed descriptor, the poller does not: the next connection may get "
        "the same number and meet the old registration.",
        "Call poller.delete(fd) before you close the socket, and close it yourself rather than "
        "leave that to the garbage collector.",
    ),
    "leaked-descriptor": Lint(
        "A process may have only so many descriptors open (often 1,024). When they have run out, "
        "accept fails for everybody.",
        "Close the socket on every path out of the callback: when the client leaves, and when an "
        "exception comes before it was registered.",
    ),
    "starved-descriptor": Lint(
        "One client that sends without pause keeps the callback reading, and all others that are "
        "ready wait behind it.",
        "Read a bounded amount for each event. Level-triggered, the next wait reports the rest; "
        "edge-triggered, go on in a task.",
    ),
    "task-flood": Lint(
        "While tasks are queued the loop never sleeps. One that queues itself without end keeps a "
        "processor busy; queues that grow faster than they are run fill the memory.",
        "To do something again later use call_later, to wait for something register its "
        "descriptor; let who produces tasks wait until the ones before are done.",
    ),
    "one-shot-never-rearmed": Lint(
        "After its event a one-shot registration is disarmed: nothing is reported any more, not "
        "even that the peer is gone, until it is modified.",
        "End the callback with mod_read (mod_write, mod_read_write), on every path on which the "
        "connection lives on; otherwise delete and close it.",
    ),
    "exception-logged": Lint(
        "The loop survives it, but the callback or task stopped half way, and whatever it would "
        "have done after that line has not happened.",
        "Handle the exceptions you expect (ConnectionResetError, for one) where they arise, and "
        "let the client go; mend the others.",
    ),
}
"""What `lint` looks for, by name; `tracer.lint_rules` says how each is recognized."""

SLOW = 0.1
"""Seconds that a callback or task may hold the loop, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake, found `times` times at the same place; the rest is about the first time.

    `steps` are the `seq` of the steps that show it, the first is where to look; `number` is the
    first one's number in the trace, from 1, as the player counts. `fd` is the descriptor that it is
    about, None for a task. `function` and `line` are the source line. `text` says what happened.
    """

    name: str
    steps: tuple[int, ...]
    number: int
    fd: int | None
    function: Function | None
    line: int | None
    text: str
    times: int = 1

    @property
    def why(self) -> str:
        """Why it hurts."""
        return LINTS[self.name].why

    @property
    def how(self) -> str:
        """How to mend it."""
        return LINTS[self.name].how

    @property
    def place(self) -> str:
        """Where to look, in words: the step and the source line."""
        return place(self.number, self.function, self.line)

    def __repr__(self) -> str:
        return f"<Finding {self.name} at {self.place}>"

    def __str__(self) -> str:
        again = f", {self.times:,} times" if self.times > 1 else ""
        source = source_line(self.function, self.line)
        parts = [f"{self.name}{again}", f"    {self.place}"]
        if source:
            parts.append(f"        {source}")
        for title, text in (("What", self.text), ("Why", self.why), ("Mend", self.how)):
            lead = f"    {title:<6}"
            parts.append(fill(text, 96, initial_indent=lead, subsequent_indent=" " * len(lead)))
        return "\n".join(parts)


class Findings(Sequence[Finding]):
    """What `lint` found, in the order of the steps; empty when nothing is wrong."""

    def __init__(self, findings: Sequence[Finding], searched: int) -> None:
        self._findings = tuple(findings)
        self._searched = searched

    def __len__(self) -> int:
        return len(self._findings)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Findings: ...
    def __getitem__(self, index: int | slice) -> Finding | Findings:
        if isinstance(index, slice):
            return Findings(self._findings[index], self._searched)
        return self._findings[index]

    @property
    def _title(self) -> str:
        number = count(len(self), "finding") if self else "No findings"
        return f"{number} in {count(self._searched, 'step')}"

    def __repr__(self) -> str:
        return "\n\n".join([self._title, *map(str, self._findings)])

    def _repr_html_(self) -> str:
        return _page(self._title, self._findings)


def lint(trace: Trace, *, slow: float = SLOW) -> Findings:
    """Return the mistakes that the steps of `trace` prove; `LINTS` lists what is looked for.

    A callback or task may hold the loop for `slow` seconds; no other lint looks at a clock. Raises
    ValueError when that is negative or not a number, and for a part of a trace (a slice, or what
    `Trace.where` returns), where the excuses may be missing.
    """
    if trace.partial:
        raise ValueError("this is a part of a trace: lint needs the whole")
    if not slow >= 0:
        raise ValueError(f"slow is a time in seconds, not {slow}")
    history = History(trace)
    found: dict[tuple[object, ...], Finding] = {}
    for name, rule in RULES.items():
        for sighting in rule(history, slow):
            finding = _finding(history, name, sighting)
            function = finding.function.id if finding.function else None
            place = (name, function, finding.line, sighting.kind)
            first = found.setdefault(place, finding)
            if first is not finding:
                found[place] = replace(first, times=first.times + 1)
    in_order = sorted(found.values(), key=lambda finding: finding.number)
    return Findings(in_order, len(history.steps))


def _finding(history: History, name: str, sighting: Sighting) -> Finding:
    at = sighting.at
    step = at.started if isinstance(at, Run) else at
    steps = (step.seq, *(other.seq for other in sighting.others))
    function, line = source(history, step)
    number = history.number(step.seq)
    return Finding(name, steps, number, sighting.fd, function, line, sighting.text)


def source(history: History, step: Step) -> tuple[Function | None, int | None]:
    """Return where a call stands; if that is not known, where the callback it is in begins."""
    functions = history.trace.functions
    if isinstance(step, CallStep) and step.function is not None and step.function in functions:
        return functions[step.function], step.line
    run = history.run_of.get(step.seq)
    callback = run.started.callback if run else None
    function = functions.get(callback) if callback is not None else None
    return function, (function.first_line or None) if function else None


def place(number: int, function: Function | None, line: int | None) -> str:
    """Return words for a step and its source line: ``step 9, server.py line 12 in echo``."""
    where = source_place(function, line)
    return f"step {number:,}, {where}" if where else f"step {number:,}"


def source_place(function: Function | None, line: int | None) -> str:
    """Return words for a source line: ``server.py line 12 in echo``; empty when it isn't known."""
    if function is None:
        return ""
    name = shown(function.name.rpartition("<locals>.")[2])
    if not function.file or line is None:
        return f"in {name}"
    return f"{file_name(function.file)} line {line} in {name}"


def source_line(function: Function | None, line: int | None) -> str:
    """Return the text of a source line, without its indentation; empty when it isn't known."""
    if function is None or line is None:
        return ""
    lines = function.text.splitlines()
    index = line - function.first_line
    return shown(lines[index].strip(), 100) if 0 <= index < len(lines) else ""


# ---- as a page ----------------------------------------------------------------------------------

_STYLE = """
.tracer-findings { max-width: 60em; line-height: 1.45; }
.tracer-findings > p { margin: 0.4em 0; font-weight: 600; }
.tracer-findings > section { margin: 0.8em 0; padding: 0.5em 0.9em;
  border: 1px solid rgba(128, 128, 128, 0.45); border-left: 4px solid #e07a1f;
  border-radius: 4px; overflow-wrap: anywhere; }
.tracer-findings h4 { margin: 0; font-size: 1.05em; }
.tracer-findings h4 small { font-weight: 400; }
.tracer-findings code { display: block; margin: 0.4em 0; padding: 0.3em 0.6em; color: inherit;
  background: rgba(128, 128, 128, 0.16); border-radius: 3px; white-space: pre-wrap; }
.tracer-findings dl { display: grid; grid-template-columns: max-content 1fr; margin: 0.3em 0 0;
  gap: 0.2em 0.9em; }
.tracer-findings dt { font-weight: 600; float: none; width: auto; text-align: left; }
.tracer-findings dd { margin: 0; width: auto; }
"""


def _page(title: str, findings: Sequence[Finding]) -> str:
    parts = [f"<style>{_STYLE}</style>", '<div class="tracer-findings">', f"<p>{title}</p>"]
    for finding in findings:
        again = f" <small>{finding.times:,} times</small>" if finding.times > 1 else ""
        source = source_line(finding.function, finding.line)
        parts += [
            f"<section><h4>{finding.name}{again}</h4>",
            f"<div>{escape(finding.place)}</div>",
            f"<code>{escape(source)}</code>" if source else "",
            f"<dl><dt>What</dt><dd>{escape(finding.text)}</dd>",
            f"<dt>Why</dt><dd>{escape(finding.why)}</dd>",
            f"<dt>Mend</dt><dd>{escape(finding.how)}</dd></dl></section>",
        ]
    return "".join([*parts, "</div>"])
