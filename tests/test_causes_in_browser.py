"""The browser's causes and reasons, run by node, against those of `tracer.Replay`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import tracer
from netpoll import EventPriority, PollAttachment, open_poller
from tests.traces import echo_trace, hostile_trace, random_trace
from tracer.replay import Replay
from tracer.trace import Trace

JAVASCRIPT = Path(__file__).parent / "js"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="node is missing: apt-get install nodejs")


def recorded() -> Trace:
    """Return a recording of a real loop: a read, a task of another thread, timers, an error."""
    near, far = socket.socketpair()
    done = threading.Event()
    with near, far, open_poller() as poller:
        near.setblocking(False)

        def echo(fd: int, event: int, flags: int) -> None:
            near.send(near.recv(64))
            try:
                near.recv(64)
            except BlockingIOError:
                poller.call_later(0.001, lambda _: poller.stop())

        with tracer.record(poller) as trace:
            poller.add_read(PollAttachment(near.fileno(), echo))
            with pytest.raises(FileExistsError):
                poller.add_read(PollAttachment(near.fileno(), echo))

            def work() -> None:
                poller.trigger(EventPriority.HIGH, lambda _: done.set())
                done.wait(10)
                far.send(b"hello")

            thread = threading.Thread(target=work, name="worker")
            thread.start()
            poller.polling()
            thread.join(10)
            poller.delete(near.fileno())
            with pytest.raises(FileNotFoundError):
                poller.delete(near.fileno())
    return trace


def in_a_notebook() -> Trace:
    """Return the echo server's trace as if its code stood in the cells of a notebook."""
    trace = echo_trace()
    functions = {
        number: replace(function, file="/tmp/ipykernel_4711/2629222579.py")
        for number, function in trace.functions.items()
    }
    return Trace(trace.base, functions, list(trace))


TRACES: dict[str, Callable[[], Trace]] = {
    "echo": echo_trace,
    "notebook": in_a_notebook,
    "hostile": hostile_trace,
    "recorded": recorded,
    "crowd": lambda: random_trace(99, rounds=60, most_clients=60),
    **{f"random {seed}": partial(random_trace, seed) for seed in range(12)},
}


@needs_node
@pytest.mark.parametrize("name", TRACES)
def test_browser_gives_the_reasons_of_python(name: str, tmp_path: Path) -> None:
    """Cause, effects, why and because are the same in node and Python at every step."""
    trace = TRACES[name]()
    path = trace.save(tmp_path / "trace.jsonl")
    command = [str(NODE), str(JAVASCRIPT / "dump_causes.mjs"), str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seen = [json.loads(line) for line in printed.split("\n") if line]
    assert len(seen) == len(trace)
    replay = Replay(trace)
    for index, in_browser in enumerate(seen):
        expected = {
            "found": index,
            "cause": replay.cause(index),
            "effects": replay.effects(index),
            "why": [[reason.step, reason.text, reason.inferred] for reason in replay.why(index)],
            "because": replay.because(index),
            "sentence": replay.sentence(index),
        }
        assert in_browser == expected, f"step {index}: {trace[index]}"
