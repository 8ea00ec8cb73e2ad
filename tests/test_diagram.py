"""The picture: its places, its contents, its drawing by Graphviz."""

from __future__ import annotations

import builtins
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.traces import HOSTILE, LISTENER, READ, Script, echo_trace, hostile_trace, random_trace
from tracer.contents import (
    LONGEST_LINE,
    Place,
    contents,
    lit_arrows,
    shape,
    source_lines,
    visible,
    window,
    wrapped,
)
from tracer.diagram import GraphvizMissing, diagram, draw, layout
from tracer.replay import Replay
from tracer.trace import BaseState, Trace

diagram_module: Any = sys.modules["tracer.diagram"]  # `tracer.diagram` may be the function


def crowd(clients: int) -> Trace:
    """Return a trace with so many clients, the last of which is served at the end."""
    script = Script(BaseState("epoll", 4, 5, 128, running=True))
    script.add("main", 2, LISTENER, "listener :9090", "on_connection")
    for fd in range(7, 7 + clients):
        script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=fd, peer=f"10.0.0.1:{fd}")
        script.add("on_connection", 8, fd, f"10.0.0.1:{fd}", "echo")
    ended = script.wait(*((fd, READ) for fd in range(7, 7 + clients)))
    fd = 6 + clients
    script.step("DispatchStarted", ended, fd=fd, event=READ, flags=0, callback=2)
    return script.trace()


def shows(trace: Trace, number: int) -> Mapping[str, Place]:
    """Return the contents after the step `number`, from 1."""
    return contents(Replay(trace).state(number - 1), trace, shape(trace))


def texts(filled: Mapping[str, Place], row: str) -> list[str]:
    return [place.text for name, place in filled.items() if name.startswith(f"{row}-")]


def test_shape_follows_the_trace() -> None:
    """The rows are as many as the trace needs, at least 4 and at most 12."""
    assert shape(echo_trace()).rows == 5
    assert shape(crowd(1)).rows == 4
    assert shape(crowd(8)).rows == 10
    many = shape(crowd(50))
    assert (many.rows, many.events, many.more_rows, many.more_events) == (12, 6, True, True)


def test_shape_is_enough_for_every_step() -> None:
    """No state of a random trace has a slot, an event or a task without a place or a "+ N more"."""
    for seed in range(10):
        trace = random_trace(seed)
        places, replay = shape(trace), Replay(trace)
        for index in range(len(trace)):
            state = replay.state(index)
            slots = [row.slot for row in state.registrations.values()]
            assert places.more_rows or max(slots, default=0) < places.rows
            most = max(len(state.batch), len(state.ready), len(state.urgent), len(state.low))
            assert places.more_events or most <= places.events


def test_echo_is_in_its_places() -> None:
    """While echo reads, its row, its event, its line and its bytes are where they belong."""
    filled = shows(echo_trace(), 40)
    assert texts(filled, "row2") == ["7", "client A :51234", "read", "level", "30", "18"]
    assert texts(filled, "batch0") == ["▸", "7", "client A", "READ"]
    assert filled["running-head"].text == "echo(7, READ)"
    assert filled["flow2"].text == "12 bytes"
    marked = [name for name, place in filled.items() if "marked" in place.classes]
    assert marked == ["code3-line", "code3-text"]
    assert filled["code3-text"].text.strip() == "data = conn.recv(64)"
    assert lit_arrows(echo_trace()[39], filled) == ["in2"]


def test_accepted_but_not_registered_has_a_row() -> None:
    """A descriptor that was accepted and is not registered is drawn as unwatched."""
    filled = shows(echo_trace(), 6)
    assert filled["row2-interest"].text == "unwatched"
    assert filled["peer2"].text == "client A"


def test_active_descriptor_always_has_a_row() -> None:
    """With more descriptors than rows the one being served takes the last row; the rest counts."""
    trace = crowd(50)
    filled = shows(trace, len(trace))
    assert texts(filled, "row11")[0] == "56"
    assert filled["interest-more"].text == "+ 40 more"
    assert "now" in filled["batch5-fd"].classes
    assert filled["batch-more"].text == "+ 44 more"


def test_rows_for_what_has_none() -> None:
    """Rows are given up from the bottom, never by one that is active itself."""
    assert visible([3, 20], 4) == [0, 1, 20, 3]
    assert visible([0, 1], 4) == [0, 1, 2, 3]
    assert visible([20, 21], 4) == [0, 1, 21, 20]


def test_code_fits_its_lines() -> None:
    """Long lines go on below, indented more, and lose nothing; the window holds the marked one."""
    line = "        " + "value = compute(first, second) + " * 4
    pieces = wrapped(line)
    assert all(len(piece) <= LONGEST_LINE for piece in pieces)
    assert "".join(pieces).replace(" ", "") == line.replace(" ", "")
    assert wrapped("short") == ["short"]
    assert source_lines("    def f():\n\treturn 1\n\n") == ["def f():", "return 1"]
    assert [window(30, marked, 10) for marked in (None, 0, 15, 29)] == [0, 0, 10, 20]


def test_layout_has_a_place_for_everything() -> None:
    """Whatever contents name has a group with that id in the template, and ids are unique."""
    for trace in (echo_trace(), crowd(50), random_trace(1)):
        svg = ElementTree.fromstring(layout(trace))
        ids = [group.get("id") for group in svg.iter() if group.get("id")]
        assert len(set(ids)) == len(ids)
        replay, places = Replay(trace), shape(trace)
        for index in range(-1, len(trace)):
            filled = contents(replay.state(index), trace, places)
            assert set(filled) <= set(ids)
            step = trace[index] if index >= 0 else None
            assert {f"arrow-{name}" for name in lit_arrows(step, filled)} <= set(ids)


def test_layout_holds_nothing_of_the_trace() -> None:
    """The template has no texts, links, colors or scripts: only places."""
    svg = layout(hostile_trace())
    assert "script" not in svg
    assert not re.search(r"href|fill=|stroke=|style=|font-|<title|<a[ >]", svg)
    texts = list(ElementTree.fromstring(svg).iterfind(".//{*}text"))
    assert len(texts) > 100
    assert not any(text.text for text in texts)


def test_places_do_not_overlap_their_tables() -> None:
    """Cells of one table stand side by side: no two rectangles of places overlap."""
    svg = ElementTree.fromstring(layout(crowd(50)))
    boxes = []
    for group in svg.iterfind(".//{*}g"):
        name = group.get("id", "")
        if "place" in group.get("class", "").split() and not re.search("label|flow|peer", name):
            rect = group.find("{*}rect")
            assert rect is not None
            sides = ("x", "y", "width", "height")
            x, y, width, height = (float(rect.get(side, "")) for side in sides)
            boxes.append((name, x, y, x + width - 1.1, y + height - 0.1))
    assert len(boxes) > 100
    for number, (name, left, top, right, bottom) in enumerate(boxes):
        for other, left2, top2, right2, bottom2 in boxes[number + 1 :]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, (name, other)


def test_layout_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphviz runs once for all traces of one shape: re-run cells cost nothing."""
    layout(echo_trace())
    monkeypatch.setattr(diagram_module, "_render", _must_not_run)
    layout(echo_trace())


def _must_not_run(*_: Any) -> str:
    raise AssertionError("Graphviz ran again")


def test_diagram_draws_hostile_names_as_text() -> None:
    """Whatever a name holds, the picture is well-formed SVG and shows the name as it is."""
    trace = hostile_trace()
    replay = Replay(trace)
    text = ""
    for index in range(-1, len(trace)):
        before = replay.state(index - 1) if index >= 0 else None
        svg = draw(diagram(replay.state(index), trace, before))
        drawn = ElementTree.fromstring(svg)
        tags = {element.tag.rpartition("}")[2] for element in drawn.iter()}
        assert tags <= {"svg", "g", "title", "path", "polygon", "polyline", "ellipse", "text"}
        text += "".join(element.text or "" for element in drawn.iterfind(".//{*}text"))
    assert HOSTILE.split("\u202e")[0] in text.replace("\xa0", " ")  # markup, quotes, \N and all


def test_diagram_marks_what_changed() -> None:
    """Given the state before, what is different is drawn on another ground."""
    trace = echo_trace()
    replay = Replay(trace)
    assert "#fde68a" in diagram(replay.state(39), trace, replay.state(38)).source
    first = diagram(replay.state(-1), trace).source
    assert "#fde68a" not in first


def test_without_graphviz_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither `dot` nor `graphviz-pure` the error names both ways to get one."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    diagram_module._template.cache_clear()
    with pytest.raises(GraphvizMissing, match=r'pip install "netpoll-tracer\[lab\]"'):
        layout(echo_trace())


def test_without_the_graphviz_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the graphviz package only `diagram` fails, with the same advice."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "graphviz":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    trace = echo_trace()
    with pytest.raises(ImportError, match=r'pip install "netpoll-tracer\[lab\]"'):
        diagram(Replay(trace).state(0), trace)
