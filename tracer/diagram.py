"""The picture of a loop: peers, kernel and user space, drawn by Graphviz.

`diagram` draws one state. `layout` draws the empty places once for a trace; the player puts the
states into them. Every place has its position, so nothing moves when contents change: Graphviz's
engine neato takes positions as they are. `compact_layout` is narrower and stands on end, user space
below the kernel, for two pictures side by side.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tracer.contents import (
    COLUMNS,
    LINE,
    LIVE,
    MORE,
    Place,
    Shape,
    compact,
    contents,
    lit_arrows,
    shape,
)
from tracer.state import LoopState
from tracer.trace import Trace

if TYPE_CHECKING:
    import graphviz

HOW_TO_INSTALL = (
    "Graphviz is missing, so the picture can't be drawn. Install it with "
    '`pip install "netpoll-tracer[lab]"`, or install your system\'s graphviz package.'
)


class GraphvizMissing(RuntimeError):
    """No Graphviz command was found; the message says how to install one."""

    def __init__(self) -> None:
        super().__init__(HOW_TO_INSTALL)


def diagram(state: LoopState, trace: Trace, before: LoopState | None = None) -> graphviz.Digraph:
    """Return the picture of `state`; what is different in the state `before` is marked.

    Its `render` and `pipe` need `dot`; `draw` takes any Graphviz. Raises ImportError when the
    graphviz package is missing.
    """
    try:
        import graphviz
    except ImportError as error:
        raise ImportError(HOW_TO_INSTALL) from error
    places = shape(trace)
    filled = contents(state, trace, places)
    old = filled if before is None else contents(before, trace, places)
    lit = {name for name in filled.keys() | old.keys() if filled.get(name) != old.get(name)}
    lit.update(lit_arrows(trace[state.steps - 1] if state.steps else None, filled))
    return graphviz.Digraph("loop", engine="neato", body=list(_Drawing(places, filled, lit).body()))


def draw(graph: graphviz.Digraph) -> str:
    """Return `graph` as SVG, drawn by `dot` or `graphviz-pure`, whichever is there.

    Raises `GraphvizMissing` when neither is.
    """
    return _render(graph.source)


def layout(trace: Trace) -> str:
    """Return the SVG with the empty places that the picture of `trace` needs.

    Each place and arrow is a group with an id; the style sheet gives it its colors. Raises
    `GraphvizMissing`.
    """
    return _template(shape(trace))


def live_layout() -> str:
    """Return the SVG that `layout` returns, for a loop of which nobody knows what is to come."""
    return _template(LIVE)


def compact_layout(*traces: Trace) -> str:
    """Return the SVG that `layout` returns, a little more than half as wide, for several traces.

    All of them get the same places, so that what stands side by side can be compared. There are
    fewer rows and lines of code than in the wide picture.
    """
    return _template(compact(*map(shape, traces)), stacked=True)


# Geometry, in points from the left and the top.

GAP = 9  # between a region's frame and what is in it
TOP = 36  # of the upper tables: below a region's label
HEAD, EVENT = 27, 24  # heights of a table's head and of an event
PEER_WIDTH, PEER_HEIGHT = 70, 22
MARGIN, BETWEEN = 4, 64  # beside and between the regions
ARROWS = 40  # between the upper and the lower tables
LANE = 20  # of the wakeup's arrow, below the lower tables
ROW_WIDTHS = {"fd": 36, "who": 112, "interest": 82, "trigger": 68, "in": 54, "out": 60}
EVENT_WIDTHS = {"fd": 36, "who": 100, "event": 96}
BATCH_WIDTHS = {"mark": 18} | EVENT_WIDTHS
WAKEUP_WIDTH, QUEUE_WIDTH, LINE_NUMBER = 136, 76, 32

# Of the compact picture, where these are others.
STACKED_TOP, STACKED_BETWEEN, STACKED_ARROWS = 31, 58, 25
STACKED_ROW, STACKED_EVENT, STACKED_PEER_HEIGHT = 22, 22, 19
STACKED_ROOM = 18  # right of the interest list, for the arrow up to it
STACKED_QUEUE_WIDTH = 126
STACKED_ROW_WIDTHS = ROW_WIDTHS | {"fd": 42}
STACKED_EVENT_WIDTHS = EVENT_WIDTHS | {"fd": 42}
STACKED_BATCH_WIDTHS = {"mark": 18, "fd": 42, "who": 122, "event": 120}

REGION_COLORS = {
    "peers": ("#f8fafc", "#cbd5e1"),
    "kernel": ("#eef2f7", "#64748b"),
    "user": ("#fffbeb", "#d97706"),
}
"""The ground and the frame of a still's regions."""

RIGHT = {"row-in", "row-out", "interest-note", "ready-note", "wakeup-note", "batch-note"} | {
    "running-note",
    "code-line",
    "ready-label",
    "column4",
    "column5",
}
ALONE = {"tasks-head"}  # without a note
MIDDLE = {"row-fd", "ready-fd", "batch-fd", "batch-mark", "peer", "flow", "wakeup-count"} | {
    "wakeup-fd",
    "register-label",
    "wait-label",
    "wake-label",
    "peers",
    "column0",
}


@dataclass(frozen=True)
class _Box:
    """A rectangle; `top` counts downward."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def center(self) -> float:
        return self.left + self.width / 2


Cell = tuple[str, float, float]
"""A place's name, its width and its height."""


class _Drawing:
    """The DOT text of the picture with the places of `shape`; without `filled`, a template."""

    row_widths, event_widths, batch_widths = ROW_WIDTHS, EVENT_WIDTHS, BATCH_WIDTHS
    top, event, peer_height = float(TOP), EVENT, PEER_HEIGHT
    queue_width = float(QUEUE_WIDTH)
    between = float(BETWEEN)  # peers and the kernel

    def __init__(
        self,
        places: Shape,
        filled: Mapping[str, Place] | None = None,
        lit: Collection[str] = (),
    ) -> None:
        self.shape = places
        self.filled = filled
        self.lit = lit
        self.points = 0
        self.place()

    def place(self) -> None:
        """Say where every table and region is."""
        places = self.shape
        rows_more = MORE if places.more_rows else 0
        upper = HEAD + places.lines * LINE
        self.row = (upper - HEAD - COLUMNS - rows_more) // places.rows
        self.columns = upper - HEAD - rows_more - places.rows * self.row
        left: float = MARGIN + GAP + PEER_WIDTH + GAP + BETWEEN + GAP
        self.interest = _Box(left, TOP, sum(ROW_WIDTHS.values()), upper)
        left = self.interest.right + GAP + BETWEEN + GAP
        width = sum(BATCH_WIDTHS.values()) + GAP + 2 * QUEUE_WIDTH
        self.running = _Box(left, TOP, width, upper)

        top: float = self.running.bottom + ARROWS
        lower = HEAD + places.events * EVENT + (MORE if places.more_events else 0)
        width = sum(EVENT_WIDTHS.values())
        self.wakeup = _Box(self.interest.left, top, WAKEUP_WIDTH, lower)
        self.ready = _Box(self.interest.right - width, top, width, lower)
        self.batch = _Box(self.running.left, top, sum(BATCH_WIDTHS.values()), lower)
        width = 2 * QUEUE_WIDTH
        self.tasks = _Box(self.running.right - width, top, width, lower)
        self.lane = top + lower + LANE

        peers = MARGIN + GAP + PEER_WIDTH + GAP
        high = self.lane + 6
        self.regions = {
            "peers": _Box(MARGIN, 4, peers - MARGIN, high),
            "kernel": _Box(self.interest.left - GAP, 4, self.interest.width + 2 * GAP, high),
            "user": _Box(self.running.left - GAP, 4, self.running.width + 2 * GAP, high),
        }

    def body(self) -> Iterator[str]:
        """Yield the statements of the graph."""
        yield (
            "graph [layout=neato, inputscale=72, notranslate=true, splines=line, pad=0.02,"
            ' outputorder=nodesfirst, bgcolor="transparent"]\n'
        )
        yield 'node [shape=plain, fontname="Helvetica", fontsize=12.5]\n'
        yield 'edge [arrowsize=0.8, color="#94a3b8"]\n'
        yield from self._regions()
        yield from self._tables()
        yield from self._arrows()

    def _regions(self) -> Iterator[str]:
        for name, box in self.regions.items():
            fill, line = REGION_COLORS[name]
            yield (
                f'"region-{name}" [id="region-{name}", class="region", shape=box, label="",'
                f' style="rounded,filled", fixedsize=true, width={box.width / 72:.4f},'
                f' height={box.height / 72:.4f}, fillcolor="{fill}", color="{line}",'
                f" {_at(box.center, box.top + box.height / 2)}]\n"
            )
            label = _Box(box.left + 4, box.top + 3, box.width - 8, self.top - 10)
            yield self._table(f"{name}-name", label, [[(name, label.width, label.height)]], "")

    def _tables(self) -> Iterator[str]:
        shape, box = self.shape, self.interest
        head: list[list[Cell]] = [
            [("interest-head", 150, HEAD), ("interest-note", box.width - 150, HEAD)]
        ]
        names = zip(self.row_widths.values(), range(len(self.row_widths)), strict=True)
        rows: list[list[Cell]] = [
            [(f"column{number}", width, self.columns) for width, number in names]
        ]
        for row in range(shape.rows):
            cells = self.row_widths.items()
            rows.append([(f"row{row}-{name}", width, self.row) for name, width in cells])
        more: list[list[Cell]] = [[("interest-more", box.width, MORE)]] if shape.more_rows else []
        yield self._table("interest", box, head + rows + more, "#94a3b8")

        box = self.ready
        head = [[("ready-head", 84, HEAD), ("ready-note", box.width - 84, HEAD)]]
        more = [[("ready-more", box.width, MORE)]] if shape.more_events else []
        yield self._table("ready", box, head + self._events("ready") + more, "#94a3b8")

        box = self.wakeup
        half = (box.height - HEAD) // 2
        rows = [
            [("wakeup-head", 76, HEAD), ("wakeup-note", box.width - 76, HEAD)],
            [("wakeup-count", box.width, half)],
            [("wakeup-fd", box.width, box.height - HEAD - half)],
        ]
        yield self._table("wakeup", box, rows, "#94a3b8")

        box = self.batch
        head = [[("batch-head", 60, HEAD), ("batch-note", box.width - 60, HEAD)]]
        more = [[("batch-more", box.width, MORE)]] if shape.more_events else []
        yield self._table("batch", box, head + self._events("batch") + more, "#d6a55c")

        box = self.tasks
        rows = [
            [("tasks-head", box.width, HEAD)],
            [(name, self.queue_width, COLUMNS) for name in ("urgent", "low")],
        ]
        room = box.height - HEAD - COLUMNS - (MORE if shape.more_events else 0)
        for row in range(shape.events):
            height = int(room * (row + 1) / shape.events) - int(room * row / shape.events)
            pair = (f"{name}{row}" for name in ("urgent", "low"))
            rows.append([(name, self.queue_width, height) for name in pair])
        if shape.more_events:
            rows.append([(f"{name}-more", self.queue_width, MORE) for name in ("urgent", "low")])
        yield self._table("tasks", box, rows, "#d6a55c")

        box = self.running
        rows = [[("running-head", box.width - 120, HEAD), ("running-note", 120, HEAD)]]
        for row in range(shape.lines):
            width = box.width - LINE_NUMBER
            rows.append([(f"code{row}-line", LINE_NUMBER, LINE), (f"code{row}-text", width, LINE)])
        yield self._table("running", box, rows, "#d6a55c")

    def _events(self, table: str) -> list[list[Cell]]:
        widths = self.batch_widths if table == "batch" else self.event_widths
        return [
            [(f"{table}{row}-{name}", width, self.event) for name, width in widths.items()]
            for row in range(self.shape.events)
        ]

    def _arrows(self) -> Iterator[str]:
        peer_right, row_left = MARGIN + GAP + PEER_WIDTH, self.interest.left
        for row in range(self.shape.rows):
            y = self.top + HEAD + self.columns + (row + 0.5) * self.row
            pill = _Box(MARGIN + GAP, y - self.peer_height / 2, PEER_WIDTH, self.peer_height)
            linked = self._has(f"peer{row}")
            if linked:
                yield self._table(
                    f"peer{row}-table", pill, [[(f"peer{row}", pill.width, pill.height)]], "#0284c7"
                )
                ends = (peer_right + 2, y), (row_left - 2, y)
                yield from self._arrow(f"in{row}", *ends)
                yield from self._arrow(f"out{row}", *reversed(ends))
            if self._has(f"flow{row}"):
                width = self.between + 12
                yield self._label(f"flow{row}", (peer_right + row_left) / 2, y - 8, width)
        yield from self._ways()

    def _ways(self) -> Iterator[str]:
        """Yield the arrows between the tables."""
        y = self.top + HEAD / 2
        between = (self.interest.right + self.running.left) / 2
        start, end = (self.running.left - 2, y), (self.interest.right + 2, y)
        yield from self._arrow("register", start, end)
        yield self._label("register-label", between, y - 10, BETWEEN + GAP)

        above, below = self.interest.bottom + 2, self.ready.top - 2
        yield from self._arrow("ready", (self.ready.center, above), (self.ready.center, below))
        yield self._label("ready-label", self.ready.center - 61, (above + below) / 2, 110)

        y = self.ready.top + HEAD + self.event / 2
        yield from self._arrow("wait", (self.ready.right + 2, y), (self.batch.left - 2, y))
        yield self._label("wait-label", between, y - 10, BETWEEN + GAP)

        for name, box in (("dispatch", self.batch), ("run", self.tasks)):
            yield from self._arrow(name, (box.center, below), (box.center, above))
            yield self._label(f"{name}-label", box.center + 41, (above + below) / 2, 70)

        start = self.tasks.center, self.tasks.bottom + 1
        end = self.wakeup.center, self.wakeup.bottom + 2
        corners = [start, (start[0], self.lane), (end[0], self.lane), end]
        yield from self._arrow("wake", *corners)
        yield self._label("wake-label", self.batch.center, self.lane - 9, 100)

    def _has(self, name: str) -> bool:
        return self.filled is None or name in self.filled

    def _table(
        self,
        name: str,
        box: _Box,
        rows: Iterable[Iterable[Cell]],
        border: str,
    ) -> str:
        lines = "".join(
            f'<tr><td border="0"><table border="0" cellborder="0" cellspacing="0">'
            f"<tr>{''.join(self._cell(*cell) for cell in row)}</tr></table></td></tr>"
            for row in rows
        )
        frame = f'border="1" color="{border}" bgcolor="white"' if border else 'border="0"'
        rounded = ' style="rounded"' if name.startswith("peer") else ""
        label = f'<<table {frame}{rounded} cellspacing="0" cellpadding="0">{lines}</table>>'
        middle = box.top + box.height / 2
        return f'"{name}" [id="{name}", class="table", label={label}, {_at(box.center, middle)}]\n'

    def _label(self, name: str, x: float, y: float, width: float) -> str:
        box = _Box(x - width / 2, y - 8, width, 16)
        return self._table(f"{name}-table", box, [[(name, width, 16)]], "")

    def _cell(self, name: str, width: float, height: float) -> str:
        size = f'fixedsize="true" width="{width:g}" height="{height:g}"'
        if self.filled is None:
            return f'<td id="{name}" href="#" {size} bgcolor="white">x</td>'
        kind = _kind(name)
        place = self.filled.get(name, Place(""))
        color, fill, bold = _colors(kind, place.classes.split(), name in self.lit)
        align = {"middle": "center"}.get(_side(name), _side(name))
        ground = f' bgcolor="{fill}"' if fill else ""
        text = (
            place.text if kind == "code-text" else _fit(place.text, (width - 8) * (1 - bold / 12))
        )
        text = escape(text).replace("\\", "\\\\")
        if kind.startswith("code"):
            text = f'<font face="Courier" point-size="11.5">{text}</font>' if text else ""
        if text:
            # With a bold blank behind it, plain text stands as high as bold text does.
            text = f"<b>{text}</b>" if bold else f"{text}<b> </b>"
            text = f'<font color="{color}">{text}</font>'
        return f'<td {size} cellpadding="4" align="{align}"{ground}>{text}</td>'

    def _arrow(self, name: str, *corners: tuple[float, float]) -> Iterator[str]:
        lit = name in self.lit
        if self.filled is not None and not lit and name.startswith("out"):
            return  # the line is drawn by the other direction already
        points = []
        for x, y in corners:
            self.points += 1
            points.append(f'"point{self.points}"')
            yield f'{points[-1]} [shape=point, style=invis, width=0.01, label="", {_at(x, y)}]\n'
        look = 'color="#c2410c", penwidth=2.5' if lit else "penwidth=1.2"
        for number, (tail, head) in enumerate(pairwise(points), 1):
            last = "" if number == len(points) - 1 else ", arrowhead=none"
            yield f'{tail} -> {head} [class="arrow-{name}", {look}{last}]\n'


class _Stacked(_Drawing):
    """The compact picture: user space below the kernel.

    Tasks stand under the wakeup and the batch under the ready list, so that the ways between them
    go straight up and down.
    """

    row_widths, event_widths = STACKED_ROW_WIDTHS, STACKED_EVENT_WIDTHS
    batch_widths = STACKED_BATCH_WIDTHS
    top, event, peer_height = float(STACKED_TOP), STACKED_EVENT, STACKED_PEER_HEIGHT
    queue_width = float(STACKED_QUEUE_WIDTH)
    between = float(STACKED_BETWEEN)

    def place(self) -> None:
        places = self.shape
        self.row, self.columns = STACKED_ROW, COLUMNS
        rows = COLUMNS + places.rows * STACKED_ROW + (MORE if places.more_rows else 0)
        events = HEAD + places.events * self.event + (MORE if places.more_events else 0)
        peers = GAP + PEER_WIDTH + GAP
        left = MARGIN + peers + self.between + GAP
        self.interest = _Box(left, self.top, sum(self.row_widths.values()), HEAD + rows)
        top = self.interest.bottom + STACKED_ARROWS
        width = sum(self.event_widths.values())
        self.wakeup = _Box(left, top, WAKEUP_WIDTH, events)
        self.ready = _Box(self.interest.right - width, top, width, events)
        kernel = _Box(
            left - GAP, 4, self.interest.width + GAP + STACKED_ROOM, self.ready.bottom + 5
        )

        user = _Box(MARGIN, kernel.bottom + STACKED_ARROWS, kernel.right - MARGIN, 0)
        top, right = user.top + self.top - 6, user.right - GAP
        width = sum(self.batch_widths.values())
        self.batch = _Box(right - width, top, width, events)
        self.tasks = _Box(user.left + GAP, top, 2 * self.queue_width, events)
        top = self.batch.bottom + STACKED_ARROWS
        height = HEAD + places.lines * LINE
        self.running = _Box(user.left + GAP, top, right - user.left - GAP, height)
        high = self.running.bottom + GAP - user.top
        self.regions = {
            "peers": _Box(MARGIN, 4, peers, kernel.height),
            "kernel": kernel,
            "user": _Box(user.left, user.top, user.width, high),
        }

    def _ways(self) -> Iterator[str]:
        kernel, user = self.regions["kernel"], self.regions["user"]
        between = (kernel.bottom + user.top) / 2

        x, y = self.interest.right + STACKED_ROOM / 2, self.top + HEAD / 2
        start, end = (x, user.top - 1), (self.interest.right + 1, y)
        yield from self._arrow("register", start, (x, y), end)
        yield self._label("register-label", x - 34, between, 56)

        above, below = self.interest.bottom + 2, self.ready.top - 2
        yield from self._arrow("ready", (self.ready.center, above), (self.ready.center, below))
        yield self._label("ready-label", self.ready.center - 61, (above + below) / 2, 110)

        x = self.ready.center - 40
        yield from self._arrow("wait", (x, self.ready.bottom + 2), (x, self.batch.top - 2))
        yield self._label("wait-label", x - 44, between, 80)

        x = self.wakeup.center - 14
        yield from self._arrow("wake", (x, self.tasks.top - 2), (x, self.wakeup.bottom + 2))
        yield self._label("wake-label", x - 50, between, 92)

        above, below = self.batch.bottom + 2, self.running.top - 2
        for name, box in (("dispatch", self.batch), ("run", self.tasks)):
            yield from self._arrow(name, (box.center, above), (box.center, below))
            yield self._label(f"{name}-label", box.center + 41, (above + below) / 2, 70)


def _at(x: float, y: float) -> str:
    return f'pos="{x:.2f},{-y:.2f}!"'


def _kind(name: str) -> str:
    """Return what sort of place it is: its name without the row's number."""
    return re.sub(r"\d+", "", name)


def _side(name: str) -> str:
    """Return the side of its place that a text stands at."""
    names = {name, _kind(name)}
    return "right" if names & RIGHT else "middle" if names & MIDDLE else "left"


def _colors(kind: str, classes: Collection[str], lit: bool) -> tuple[str, str, bool]:
    """Return the text color, the ground color and whether the text is bold, of a still."""
    if kind.endswith(("-head", "-note")):
        kernel = kind.startswith(("interest", "ready", "wakeup"))
        return "white", "#334155" if kernel else "#92400e", kind.endswith("-head")
    if kind in ("peers", "kernel", "user"):
        return "#334155", "", True
    if "marked" in classes:
        return "#1e293b", "#fde68a", True
    if lit and not kind.startswith("code") and not kind.endswith(("-label", "flow")):
        return "#1e293b", "#fde68a", "now" in classes
    if classes and set(classes) & {"done", "dropped", "closed", "unwatched", "disarmed"}:
        return "#64748b", "", False
    if kind in ("column", "urgent", "low", "code-line") or kind.endswith("-more"):
        return "#475569", "", False
    return "#1e293b", "#fef9c3" if "now" in classes else "", "now" in classes


def _fit(text: str, width: float) -> str:
    """Return `text`, cut with an ellipsis so that it surely fits into `width` points."""
    used = 0.0
    for number, letter in enumerate(text):
        used += 3.8 if letter in " .:,;|iljtfr()[]_'" else 10.5 if letter in "mwMW@%" else 7.4
        used += 5 if ord(letter) > 0x2E7F else 2 if letter.isupper() else 0
        if used > width and number < len(text) - 1:
            return text[: max(0, number - 1)] + "…"
    return text


def _render(source: str) -> str:
    scripts = sysconfig.get_path("scripts")
    command = shutil.which("dot") or shutil.which("graphviz-pure")
    command = command or shutil.which("graphviz-pure", path=scripts)
    if command is None:
        raise GraphvizMissing
    done = subprocess.run(
        [command, "-Kneato", "-Tsvg"], input=source.encode(), capture_output=True, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"{command} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return done.stdout.decode()


SVG = "{http://www.w3.org/2000/svg}"


@lru_cache(maxsize=16)
def _template(places: Shape, *, stacked: bool = False) -> str:
    drawing = _Stacked(places) if stacked else _Drawing(places)
    drawn = _render("digraph loop {\n" + "".join(drawing.body()) + "}\n")
    graph = ElementTree.fromstring(drawn).find(f"{SVG}g")
    if graph is None:
        raise RuntimeError("Graphviz drew nothing")
    return _restyled(graph, places)


def _restyled(graph: ElementTree.Element, places: Shape) -> str:
    """Return the drawing without colors and links, each place and arrow a group with an id."""
    moved = [float(n) for n in re.findall(r"-?[\d.]+", graph.get("transform", ""))][-2:]
    parts: list[str] = []
    arrows: dict[str, list[str]] = {}
    right = bottom = 0.0
    for group in graph.iterfind(f"{SVG}g"):
        kinds = group.get("class", "").split()
        if "region" in kinds:
            box = _bounds(group.find(f"{SVG}path"), moved)
            right, bottom = max(right, box.right), max(bottom, box.bottom)
            parts.append(f'<g id="{group.get("id")}" class="region">{_rect(box, 12)}</g>')
        elif "table" in kinds:
            parts.extend(_restyled_table(group, moved))
        elif "edge" in kinds:
            drawn = "".join(_restyled_line(part, moved) for part in group)
            arrows.setdefault(kinds[-1].removeprefix("arrow-"), []).append(drawn)
    for name, lines in arrows.items():
        parts.append(f'<g id="arrow-{name}" class="arrow {_kind(name)}">{"".join(lines)}</g>')
    rows, events, lines_shown, more_rows, more_events = astuple(places)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + MARGIN:g} {bottom + 4:g}"'
        f' data-rows="{rows}" data-events="{events}" data-lines="{lines_shown}"'
        f' data-more-rows="{int(more_rows)}" data-more-events="{int(more_events)}">'
        + "".join(parts)
        + "</svg>"
    )


def _restyled_table(group: ElementTree.Element, moved: list[float]) -> Iterator[str]:
    frame = group.find(f"{SVG}polygon")
    if frame is None:
        frame = group.find(f"{SVG}path")
    if frame is not None and not group.get("id", "").startswith("peer"):
        yield f'<g class="frame">{_rect(_bounds(frame, moved), 5)}</g>'
    for link in group.iterfind(f"{SVG}g"):
        name = link.get("id", "").removeprefix("a_")
        box = _bounds(link.find(f".//{SVG}polygon"), moved)
        kind = _kind(name)
        table = kind.split("-")[0]
        side = _side(name)
        if kind.endswith("-head"):  # no seam before the note beside it
            box = _Box(box.left, box.top, box.width + (kind not in ALONE), box.height)
        x = {"right": box.right - 6, "middle": box.center, "left": box.left + 6}[side]
        kinds = " ".join(dict.fromkeys(["place", table, kind, side]))
        text = f'<text x="{x:g}" y="{box.top + box.height / 2:g}"/>'
        yield f'<g id="{name}" class="{kinds}">{_rect(box, 10 if kind == "peer" else 0)}{text}</g>'


def _restyled_line(part: ElementTree.Element, moved: list[float]) -> str:
    points = part.get("d") or part.get("points") or ""
    shifted = re.sub(
        r"(-?[\d.]+),(-?[\d.]+)",
        lambda m: f"{float(m[1]) + moved[0]:g},{float(m[2]) + moved[1]:g}",
        points,
    )
    if part.tag == f"{SVG}path":
        return f'<path d="{shifted}"/>'
    return f'<polygon points="{shifted}"/>' if part.tag == f"{SVG}polygon" else ""


def _bounds(part: ElementTree.Element | None, moved: list[float]) -> _Box:
    if part is None:
        raise RuntimeError("Graphviz left out a place of the picture")
    numbers = re.findall(r"(-?[\d.]+),(-?[\d.]+)", part.get("d") or part.get("points") or "")
    across = [float(x) + moved[0] for x, _ in numbers]
    down = [float(y) + moved[1] for _, y in numbers]
    return _Box(min(across), min(down), max(across) - min(across), max(down) - min(down))


def _rect(box: _Box, radius: float) -> str:
    rounded = f' rx="{radius:g}"' if radius else ""
    return (
        f'<rect x="{box.left:g}" y="{box.top:g}" width="{box.width:g}"'
        f' height="{box.height:g}"{rounded}/>'
    )
