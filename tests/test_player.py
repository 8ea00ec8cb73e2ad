"""The notebook's player, on the kernel's side."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from html import escape
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("anywidget", reason="the player needs anywidget: pip install anywidget")

from netpoll import open_poller
from tests.test_diff import served
from tests.traces import Script, echo_trace, hostile_trace
from tracer import model as model_module
from tracer.diagram import GraphvizMissing
from tracer.player import AT_ONCE, LivePlayer, Player, compare, live, play
from tracer.quiz import quiz
from tracer.trace import BaseState, Trace, parse

player_module: Any = sys.modules["tracer.player"]  # `tracer.player` may be something else


def test_play_takes_a_trace_or_a_recording() -> None:
    """A trace and whatever has a `trace` give the same player, with the trace file in it."""
    trace = echo_trace()
    for recorded in (trace, SimpleNamespace(trace=trace)):
        player = play(recorded)
        text = player.trace_text.decode()
        assert list(parse(iter(text.splitlines(keepends=True)))) == list(trace)
        assert player.svg.startswith("<svg")
        assert player.problem == ""


def test_step_stays_within_the_trace() -> None:
    """`step` goes from 0 to the number of steps, whatever is asked for."""
    player = Player(echo_trace(), step=500)
    assert player.step == len(player.trace) == 72
    player.step = -3
    assert player.step == 0
    assert player.text.startswith("Step 0 of 72. The recording begins.")
    player.step = 13
    assert player.text == "Step 13 of 72. echo read 5 bytes from client A (descriptor 7)."


def test_player_keeps_the_trace_as_it_was() -> None:
    """Steps that are recorded later do not change a player that is shown already."""
    script = Script(BaseState("epoll", 4, 5, 128, running=True))
    script.wait()
    player = Player(Trace(script.base, script.functions, script.steps))
    script.wait()
    assert len(player.trace) == 2
    player.step = 9
    assert player.step == 2


def test_static_fallback() -> None:
    """Where no front end runs the sentence and a still of the step stand in."""
    for trace in (echo_trace(), hostile_trace()):
        data, _ = bundle(Player(trace, step=4))
        assert data["text/plain"].startswith("Step 4 of ")
        assert ElementTree.fromstring(data["image/svg+xml"]).tag.endswith("svg")
        page = data["text/html"]
        assert page.startswith(f"<p>{escape(data['text/plain'])}</p><img ")
        assert page.count("<") == 3
        assert "application/vnd.jupyter.widget-view+json" in data


def bundle(player: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    data, metadata = player._repr_mimebundle_()
    return data, metadata


def test_without_graphviz_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Graphviz the player has no picture, says what to install, and has its sentence."""

    def missing(*_: Any) -> str:
        raise GraphvizMissing

    monkeypatch.setattr(model_module, "layout", missing)
    monkeypatch.setattr(player_module, "draw", missing)
    player = Player(echo_trace(), step=13)
    assert (player.svg, "pip install" in player.problem) == ("", True)
    data, _ = bundle(player)
    assert "image/svg+xml" not in data
    assert "echo read 5 bytes" in data["text/plain"]


def test_closing_leaves_nothing_behind() -> None:
    """A closed player is gone from the registry of widgets: run again, a cell leaks nothing."""
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)
    player = Player(echo_trace())
    assert set(_instances) != before
    player.close()
    assert set(_instances) == before


def test_running_a_cell_again_closes_its_players(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that runs again closes the players of its last run, and no other cell's."""
    parent = {"metadata": {"cellId": "cell 1"}, "header": {"msg_id": "run 1"}}
    shell = SimpleNamespace(get_parent=lambda: parent)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    first, second = play(echo_trace()), play(echo_trace())
    assert first.comm is not None
    parent["metadata"]["cellId"] = "cell 2"
    other = play(echo_trace())
    assert None not in (first.comm, second.comm, other.comm)
    parent["metadata"]["cellId"] = "cell 1"
    parent["header"]["msg_id"] = "run 2"
    third = play(echo_trace())
    assert (first.comm, second.comm) == (None, None)
    assert None not in (other.comm, third.comm)


def test_missing_anywidget_says_what_to_install() -> None:
    """Importing the player without anywidget says which command installs it."""
    code = "import sys; sys.modules['anywidget'] = None; import tracer.player"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "netpoll-tracer[lab]"' in done.stderr


def test_findings_and_questions() -> None:
    """A player knows what lint found and what the quiz asks; a part of a trace is refused."""
    trace = served("epoll")
    player = Player(trace)
    assert json.loads(player.findings)["searched"] == len(trace)
    assert [question["index"] for question in json.loads(player.questions)] == [
        question.index for question in quiz(trace)
    ]
    with pytest.raises(ValueError, match="part of a trace"):
        Player(trace[3:])


def test_long_trace_is_searched_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a while in a long trace is found out when the front end asks for it."""
    monkeypatch.setattr(player_module, "AT_ONCE", 10)
    assert AT_ONCE > 10
    player = Player(served("epoll"))
    assert (player.findings, player.questions) == ("", "")
    player._handle_custom_msg({"type": "findings"}, [])
    player._handle_custom_msg({"type": "nonsense"}, [])
    assert "searched" in player.findings
    assert player.questions == ""


def test_compare_shows_two_runs() -> None:
    """Two traces in one view: both texts, one layout for both, where they part, a fallback."""
    a, b = served("epoll"), served("epoll", edge_triggered=True)
    shown = compare(a, SimpleNamespace(trace=b), labels=("level", "edge"))
    assert [len(text.splitlines()) for text in (shown.trace_text, shown.other_text)] == [
        len(list(trace.to_lines())) for trace in (a, b)
    ]
    pairing = json.loads(shown.pairing)
    assert pairing["labels"] == ["level", "edge"]
    assert pairing["divergence"]["at"] is not None
    data, _ = bundle(shown)
    assert data["text/plain"].startswith("level beside edge.")
    assert "svg" in data["image/svg+xml"]


def test_live_follows_and_ends_with_its_view() -> None:
    """A live view gets the steps of a running loop, and closing it ends the recording."""
    with open_poller() as poller:
        shown = live(poller)
        messages: queue.Queue[Any] = queue.Queue()
        shown._follower._send = lambda message, buffers: messages.put((message, buffers))
        poller.poll_once(0)
        shown._handle_custom_msg({"type": "again"}, [])
        kinds: list[str] = []
        while "WaitEnded" not in "".join(kinds):
            _, buffers = messages.get(timeout=10)
            kinds += [buffer.decode() for buffer in buffers]
        assert isinstance(shown, LivePlayer)
        assert shown.text.startswith("A live view of <Recording of 2 steps")
        assert shown.still().startswith("<?xml")
        shown.close()
        assert not shown.recording.running


def test_live_and_compare_are_functions_of_the_package() -> None:
    """No module takes the place of `tracer.live`, `tracer.compare` and `tracer.play`."""
    names = ("live", "compare", "play") * 2
    code = f"import tracer; print(*(callable(getattr(tracer, name)) for name in {names}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 6


def test_running_a_live_cell_again_ends_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new view records; the old one's recording and thread have ended."""
    parent = {"metadata": {"cellId": "live"}, "header": {"msg_id": "run 1"}}
    shell = SimpleNamespace(get_parent=lambda: parent)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with open_poller() as poller:
        first = live(poller)
        parent["header"]["msg_id"] = "run 2"
        second = live(poller)
        assert (first.recording.running, second.recording.running) == (False, True)
        second.close()
