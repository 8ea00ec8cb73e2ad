"""The browser's fold, sentences and picture contents, run by node, against those of Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from tests.test_diff import served
from tests.traces import echo_trace, hostile_trace, random_trace
from tracer.contents import contents, lit_arrows, shape
from tracer.demo import session
from tracer.replay import Replay
from tracer.trace import Trace
from tracer.words import sentence

JAVASCRIPT = Path(__file__).parent / "js"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="node is missing: apt-get install nodejs")

TRACES: dict[str, Callable[[], Trace]] = {
    "recorded": session,
    "recorded on the simulated kernel": partial(served, "kqueue"),
    "echo": echo_trace,
    "hostile": hostile_trace,
    "crowd": lambda: random_trace(99, rounds=60, most_clients=60),
    **{f"random {seed}": partial(random_trace, seed) for seed in range(12)},
}


@needs_node
@pytest.mark.parametrize("name", TRACES)
def test_browser_sees_what_python_sees(name: str, tmp_path: Path) -> None:
    """State, sentence, contents and lit arrows are the same in node and Python at every step."""
    trace = TRACES[name]()
    path = trace.save(tmp_path / "trace.jsonl")
    places = shape(trace)
    command = [str(NODE), str(JAVASCRIPT / "dump.mjs"), str(path), json.dumps(asdict(places))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seen = [json.loads(line) for line in printed.split("\n") if line]
    assert len(seen) == len(trace) + 1
    replay = Replay(trace)
    for index, in_browser in enumerate(seen, -1):
        state = replay.state(index)
        step = None if index < 0 else trace[index]
        filled = contents(state, trace, places)
        assert in_browser["state"] == state.to_json(), f"step {index}: {step}"
        assert in_browser["sentence"] == sentence(step, state, trace), f"step {index}: {step}"
        drawn = {name: asdict(place) for name, place in filled.items()}
        assert in_browser["contents"] == drawn, f"step {index}: {step}"
        assert in_browser["lit"] == lit_arrows(step, filled), f"step {index}: {step}"


@needs_node
def test_javascript_units() -> None:
    """The units of the player's modules pass under node's own test runner."""
    files = sorted(str(path) for path in JAVASCRIPT.glob("*.test.mjs"))
    assert files
    done = subprocess.run([str(NODE), "--test", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
