"""What each place of the picture shows: `contents` says it for one state, as plain texts.

The places are fixed for a whole trace by its `Shape`; `static/contents.js` fills them in the same
way. A place is named by a row and a column (``row3-fd``, ``batch0-event``) or by what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from tracer.state import Descriptor, LoopState, Registration, advance, initial
from tracer.steps import (
    Accepted,
    Closed,
    Deleted,
    PollerClosed,
    Read,
    Registered,
    Step,
    TaskQueued,
    TaskStarted,
    WaitEnded,
    Wrote,
    event_names,
)
from tracer.trace import Trace
from tracer.words import count, function_name, mode, shown, words

FEWEST_ROWS, MOST_ROWS = 4, 12
FEWEST_EVENTS, MOST_EVENTS = 3, 6
FEWEST_LINES = 12

COMPACT_ROWS, COMPACT_EVENTS, COMPACT_LINES = 6, 3, 4
"""The most rows and events, and the lines of code, of the compact picture."""

LONGEST_LINE = 48
"""So many characters of code stand on a line; the rest of a longer one follows below it."""

ROW, LINE, COLUMNS, MORE = 26, 17, 19, 18
"""The least heights, in points, of a row, a line of code, the column names and "+ N more"."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many places the picture of a trace has: rows of the interest list, events, code lines.

    `more_rows` and `more_events`: whether there ever are more, so that a line must say so.
    """

    rows: int
    events: int
    lines: int
    more_rows: bool
    more_events: bool


@dataclass(frozen=True, slots=True)
class Place:
    """What one place shows: a text, its class names, and a longer text for its tooltip."""

    text: str
    classes: str = ""
    title: str = ""


Contents = dict[str, Place]


LIVE = Shape(rows=8, events=4, lines=14, more_rows=True, more_events=True)
"""The places of a loop that still runs."""


def shape(trace: Trace) -> Shape:
    """Return the places that the picture of `trace` needs."""
    state = initial(trace.base)
    rows = 1 + max((row.slot for row in state.registrations.values()), default=0)
    queues = {"high": len(state.urgent), "low": len(state.low)}
    events = max(queues.values())
    queue_of: dict[int, str] = {}
    for step in trace:
        if isinstance(step, (Registered, Deleted, Accepted, Closed, PollerClosed)):
            state = advance(state, step)
            if isinstance(step, (Registered, Accepted)):
                fd = step.new_fd if isinstance(step, Accepted) else step.fd
                known = state.descriptors.get(-1 if fd is None else fd)
                rows = max(rows, 1 + (known.slot or 0) if known else 0)
        elif isinstance(step, WaitEnded):
            events = max(events, len(step.events))
        elif isinstance(step, TaskQueued) and step.error is None:
            queues[step.queue] = queues.get(step.queue, 0) + 1
            queue_of[step.seq] = step.queue
            events = max(events, queues[step.queue])
        elif isinstance(step, TaskStarted):
            queue = queue_of.pop(-1 if step.cause is None else step.cause, "")
            queue = queue or ("high" if queues["high"] else "low")
            queues[queue] = max(0, queues[queue] - 1)
    more = rows > MOST_ROWS
    drawn = min(max(rows, FEWEST_ROWS), MOST_ROWS)
    return Shape(
        rows=drawn,
        events=min(max(events, FEWEST_EVENTS), MOST_EVENTS),
        lines=max(FEWEST_LINES, ceil((COLUMNS + drawn * ROW + more * MORE) / LINE)),
        more_rows=more,
        more_events=events > MOST_EVENTS,
    )


def compact(*places: Shape) -> Shape:
    """Return the places of the compact picture, the same one for the traces of all `places`."""
    rows = max(shape.rows for shape in places)
    events = max(shape.events for shape in places)
    return Shape(
        rows=min(rows, COMPACT_ROWS),
        events=min(events, COMPACT_EVENTS),
        lines=COMPACT_LINES,
        more_rows=rows > COMPACT_ROWS or any(shape.more_rows for shape in places),
        more_events=events > COMPACT_EVENTS or any(shape.more_events for shape in places),
    )


def contents(state: LoopState, trace: Trace, places: Shape) -> Contents:
    """Return what each place shows in `state`; a place that is left out is empty."""
    step = trace[state.steps - 1] if state.steps else None
    filled: Contents = {}
    _labels(filled, state, trace)
    _rows(filled, state, step, places)
    _events(filled, state, places)
    _tasks(filled, state, trace, places)
    _code(filled, state, trace, places)
    return filled


def lit_arrows(step: Step | None, filled: Mapping[str, Place]) -> list[str]:
    """Return the names of the arrows along which `step` moved something."""
    arrows = _LIT.get(step.kind, []) if step else []
    if isinstance(step, (Read, Wrote)):
        row = next((name for name, p in filled.items() if "flow" in p.classes), "")
        return [row.replace("flow", "in" if isinstance(step, Read) else "out")] if row else []
    if isinstance(step, WaitEnded) and not step.events:
        return []
    return list(arrows)


_LIT = {
    "Registered": ["register"],
    "Modified": ["register"],
    "Deleted": ["register"],
    "WaitStarted": ["wait"],
    "WaitEnded": ["ready", "wait"],
    "DispatchStarted": ["dispatch"],
    "TaskStarted": ["run"],
    "WakeupSent": ["wake"],
}


def amount(number: int) -> str:
    """Return a number of bytes short enough for a column.

    >>> amount(99_999), amount(1_234_567), amount(12_345_678_900)
    ('99,999', '1,234k', '12,345M')
    """
    if number < 100_000:
        return f"{number:,}"
    return f"{number // 1000:,}k" if number < 10_000_000 else f"{number // 1_000_000:,}M"


def source_lines(text: str) -> list[str]:
    """Return the lines of a function's source without the indentation that all of them share."""
    lines = text.replace("\t", "    ").rstrip("\n").split("\n")
    shared = min((len(line) - len(line.lstrip(" ")) for line in lines if line.strip()), default=0)
    return [shown(line[shared:], 10_000) for line in lines]


def wrapped(line: str) -> list[str]:
    """Return a line of code as the lines that fit, each but the first indented some more."""
    pieces: list[str] = []
    indent = min(len(line) - len(line.lstrip(" ")) + 4, LONGEST_LINE // 2)
    while len(line) > LONGEST_LINE and len(pieces) < 10:
        cut = max(line.rfind(" ", indent, LONGEST_LINE), line.rfind("(", indent, LONGEST_LINE)) + 1
        cut = cut or LONGEST_LINE
        pieces.append(line[:cut])
        line = " " * indent + line[cut:].lstrip(" ")
    return [*pieces, line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"]


def window(total: int, marked: int | None, lines: int) -> int:
    """Return the first of the `lines` lines to show of `total`, so that `marked` is among them."""
    if marked is None:
        return 0
    return max(0, min(marked - lines // 2, total - lines))


def visible(active: list[int], rows: int) -> list[int]:
    """Return which slot each row shows: its own, or at the bottom an active one that has no row."""
    shown_slots = list(range(rows))
    at = rows - 1
    for slot in active:
        if slot >= rows and slot not in shown_slots:
            while at > 0 and shown_slots[at] in active:
                at -= 1
            shown_slots[at] = slot
    return shown_slots


def _labels(filled: Contents, state: LoopState, trace: Trace) -> None:
    texts, base = words()["picture"], trace.base
    asleep = state.phase == "waiting"
    filled["peers"] = Place(texts["peers"])
    filled["kernel"] = Place(texts["asleep" if asleep else "kernel"], "asleep" if asleep else "")
    filled["user"] = Place(texts["user"], "" if asleep or state.phase == "outside" else "awake")
    for name in ("interest", "ready", "wakeup", "batch", "tasks"):
        filled[f"{name}-head"] = Place(texts[name])
    for number, column in enumerate(texts["columns"]):
        filled[f"column{number}"] = Place(column)
    if base.fd is not None:
        note = texts["interest note"].format(backend=shown(base.backend, 12), fd=base.fd)
        filled["interest-note"] = Place(note)
    filled["ready-note"] = filled["wakeup-note"] = Place(texts["inferred"])
    if state.batch:
        note = texts["batch note"].format(count=f"{len(state.batch):,}", size=f"{state.size:,}")
        filled["batch-note"] = Place(note)
    filled["urgent"], filled["low"] = Place(texts["urgent"]), Place(texts["low"])
    arrows = dict(texts["arrows"])
    step = trace[state.steps - 1] if state.steps else None
    arrows["register"] = texts["changes"].get(step.kind if step else "", arrows["register"])
    arrows["wait"] = texts["calls"].get(base.backend, arrows["wait"])
    running = state.running
    held = "wait" if asleep else "" if not running else "run" if running.fd is None else "dispatch"
    for name, text in arrows.items():
        filled[f"{name}-label"] = Place(text, "held" if name == held else "")
    counter = texts["counter"].format(count=f"{state.wakeup_counter:,}")
    filled["wakeup-fd"] = Place(words()["descriptor_only"].format(fd=state.wakeup_fd))
    filled["wakeup-count"] = Place(counter, "now" if state.wakeup_counter else "")


def _rows(filled: Contents, state: LoopState, step: Step | None, places: Shape) -> None:
    slots: dict[int, Registration | Descriptor] = {
        row.slot: row for row in state.registrations.values()
    }
    for known in state.descriptors.values():
        if known.registration is None and known.slot is not None:
            slots[known.slot] = known
    fds = [getattr(step, "new_fd", None), getattr(step, "fd", None)]
    fds.append(state.running.fd if state.running else None)
    active = [slot for fd in fds for slot, entry in slots.items() if entry.fd == fd]
    texts = words()["picture"]
    drawn = visible(active, places.rows)
    for row, slot in enumerate(drawn):
        entry = slots.get(slot)
        if entry is not None:
            _row(filled, row, entry, state, step)
    left = len(slots) - sum(slot in slots for slot in drawn)
    if left and places.more_rows:
        filled["interest-more"] = Place(texts["more"].format(count=f"{left:,}"))


def _row(
    filled: Contents,
    row: int,
    entry: Registration | Descriptor,
    state: LoopState,
    step: Step | None,
) -> None:
    texts = words()["picture"]
    known = state.descriptors.get(entry.fd)
    if isinstance(entry, Registration) and known and known.registration != entry.id:
        known = None  # the number names another descriptor by now
    running = state.running is not None and state.running.fd == entry.fd
    classes = "now" if running and known is not None else ""
    if not isinstance(entry, Registration):
        interest, trigger = texts["unwatched"], texts["nothing"]
        classes += " unwatched"
    else:
        interest = words()["interests"].get(entry.interest, [shown(entry.interest, 12)])[0]
        trigger = mode(entry.edge_triggered, entry.oneshot)[0]
        if entry.closed:
            trigger = texts["closed"]
            classes += " closed"
        elif not entry.armed:
            trigger = texts["disarmed"]
            classes += " disarmed"
    classes = classes.strip()
    peer = known.peer if known else ""
    who = shown(entry.name)
    if peer and ":" in peer:
        who += " :" + shown(peer.rsplit(":", 1)[1], 8)
    title = shown(peer or getattr(entry, "who", entry.name), 200)
    linked = known is not None and (
        known.accepted or known.bytes_read or known.bytes_written or known.end_of_stream
    )
    read, written = (known.bytes_read, known.bytes_written) if known else (0, 0)
    cells = {
        "fd": Place(str(entry.fd), classes),
        "who": Place(who, classes, title),
        "interest": Place(interest, classes),
        "trigger": Place(trigger, classes),
        "in": Place(amount(read) if linked else texts["nothing"], classes, count(read, "byte")),
        "out": Place(
            amount(written) if linked else texts["nothing"], classes, count(written, "byte")
        ),
    }
    filled |= {f"row{row}-{column}": place for column, place in cells.items()}
    if not linked or known is None:
        return
    ended = "ended" if known.end_of_stream or known.closed else ""
    filled[f"peer{row}"] = Place(shown(entry.name), ended, title)
    if isinstance(step, (Read, Wrote)) and step.fd == entry.fd:
        text = f"{amount(step.count)} bytes" if step.count != 1 else "1 byte"
        if step.error is not None:
            filled[f"flow{row}"] = Place(texts["failed"], "flow failed")
        elif isinstance(step, Read) and step.count == 0:
            filled[f"flow{row}"] = Place(texts["end"], "flow")
        else:
            filled[f"flow{row}"] = Place(text, "flow")


def _events(filled: Contents, state: LoopState, places: Shape) -> None:
    texts = words()["picture"]
    for row, entry in enumerate(state.ready[: places.events]):
        title = event_names(entry.event)
        filled[f"ready{row}-fd"] = Place(str(entry.fd))
        filled[f"ready{row}-who"] = Place(shown(entry.name), "", shown(entry.name, 200))
        filled[f"ready{row}-event"] = Place(title, "", title)
    # A long batch scrolls, so that the event being handled has a row.
    now = next((i for i, entry in enumerate(state.batch) if entry.status == "now"), None)
    if now is None:
        done = [i for i, e in enumerate(state.batch) if e.status in ("done", "dropped")]
        now = done[-1] if done else None
    first = window(len(state.batch), now, places.events)
    for row, event in enumerate(state.batch[first : first + places.events]):
        title = event_names(event.event)
        filled[f"batch{row}-mark"] = Place(texts["statuses"][event.status], event.status)
        filled[f"batch{row}-fd"] = Place(str(event.fd), event.status)
        filled[f"batch{row}-who"] = Place(shown(event.name), event.status, shown(event.name, 200))
        filled[f"batch{row}-event"] = Place(title, event.status, title)
    for name, total in (("ready", len(state.ready)), ("batch", len(state.batch))):
        if total > places.events and places.more_events:
            more = texts["more"].format(count=f"{total - places.events:,}")
            filled[f"{name}-more"] = Place(more)
        elif not total:
            filled[f"{name}0-who"] = Place(texts["empty"], "empty")


def _tasks(filled: Contents, state: LoopState, trace: Trace, places: Shape) -> None:
    texts = words()["picture"]
    for name, queue in (("urgent", state.urgent), ("low", state.low)):
        for row, task in enumerate(queue[: places.events]):
            text = function_name(trace, task.callback)
            filled[f"{name}{row}"] = Place(text.rpartition(".")[2], "", text)
        if len(queue) > places.events and places.more_events:
            more = texts["more"].format(count=f"{len(queue) - places.events:,}")
            filled[f"{name}-more"] = Place(more)
        elif not queue:
            filled[f"{name}0"] = Place(texts["empty"], "empty")


def _code(filled: Contents, state: LoopState, trace: Trace, places: Shape) -> None:
    texts = words()["picture"]
    running, site = state.running or state.finished, state.site
    if running is None and site is None:
        filled["running-head"], filled["running-note"] = (
            Place(texts["idle"], "idle"),
            Place("", "idle"),
        )
        return
    own = running.callback if running else None
    function = trace.functions.get(site.function) if site else None
    if function is None and own is not None:
        function = trace.functions.get(own)
    if running is None:
        head = function_name(trace, function.id) if function else texts["idle"]
        note = texts["called"]
    elif running.fd is None:
        head, note = f"{function_name(trace, own)}()", texts["task"]
    else:
        events = event_names(running.event or 0)
        head, note = f"{function_name(trace, own)}({running.fd}, {events})", shown(running.name)
    if running and function is not None and function.id != own:
        name = function_name(trace, function.id).rpartition(".")[2]
        note = texts["inside"].format(function=name)
    if state.running is None and running is not None:
        note = texts["returned"]
    classes = "now" if state.running else "idle"
    filled["running-head"] = Place(head, classes, head)
    filled["running-note"] = Place(note, classes)
    if function is None:
        return
    marked = site.line if site else None
    lines = [
        (number, "" if part else str(number), piece)
        for number, line in enumerate(source_lines(function.text), function.first_line)
        for part, piece in enumerate(wrapped(line))
    ]
    numbers = [number for number, _, _ in lines]
    at = numbers.index(marked) if marked in numbers else None
    first = window(len(lines), at, places.lines)
    for row, (number, shown_number, piece) in enumerate(lines[first : first + places.lines]):
        mark = "marked" if number == marked else ""
        filled[f"code{row}-line"] = Place(shown_number, mark)
        filled[f"code{row}-text"] = Place(piece, mark)
