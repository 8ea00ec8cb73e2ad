"""How smooth the player is with 100,000 recorded steps: in a page from a file and in JupyterLab.

In headless Chromium it measures, with what is asked beside it:

- the time to the first picture: from the navigation (page) or the end of the cell that shows the
  player (lab) to the second frame after the player stands in the document;
- scrubbing: the slider goes over all steps and back, a new place in every frame. Frames are those
  that Chromium grants (`requestAnimationFrame`). Script is what its tracing calls so, timers,
  observers and layout that a script forces included; rendering is style, layout and paint besides.
  Both are time of the processor, which a busy machine changes little; the frames a second suffer;
- the JS heap while playing 100 steps a second, after a garbage collection each time.

Without --minutes the playing takes 20 seconds. The trace is of an echo server with 50 clients that
come, chat and go. Without Chromium it says so.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import netpoll
import tracer
from netpoll.examples.echo_server import EchoServer
from tests.browser.conftest import ARGUMENTS
from tests.browser.lab import Lab
from tests.conftest import find_chromium
from tracer.assets import module

STEPS = 100_000
CLIENTS = 50
FRAMES = 600
STEPS_A_SECOND = 100
SAMPLES = 10
PARSINGS = 5

# ---- the trace ---------------------------------------------------------------------------------


def recorded() -> tracer.Trace:
    """Return some more than `STEPS` steps of an echo server whose clients come, chat and go."""
    pick = random.Random(1)
    poller = netpoll.open_poller()
    server = EchoServer(poller)
    clients: list[socket.socket] = []
    with (
        netpoll.run_in_thread(poller, on_end=server.close),
        tracer.record(poller) as trace,
    ):
        while len(trace) < STEPS:
            while len(clients) < CLIENTS:
                clients.append(socket.create_connection(server.address))
            for _ in range(20):
                chatting = pick.sample(clients, pick.randint(1, 8))
                for client in chatting:
                    client.sendall(b"x" * pick.randint(1, 2000))
                for client in chatting:
                    client.recv(4096)
            poller.trigger(netpoll.EventPriority.HIGH, print_nothing)
            clients.pop(pick.randrange(CLIENTS)).close()
        for client in clients:
            client.close()
    return trace


def print_nothing(param: object) -> None:
    """A task, so that the trace has some."""


# ---- what the browser is asked ------------------------------------------------------------------

NOTE_FIRST_PICTURE = """
new MutationObserver((_, observer) => {
  if (!document.querySelector('.netpoll-player [data-role=step][data-step]')) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.pictured = Date.now(); }));
}).observe(document, { childList: true, subtree: true });
"""

SCRUB = """
frames => new Promise(done => {
  const slider = document.querySelector('.netpoll-player input[type=range]');
  const times = [];
  let frame = 0;
  requestAnimationFrame(function next(now) {
    times.push(now);
    if (frame > frames) return done(times);
    performance.mark('bench-frame');
    const way = 2 * frame++ / frames;  // to the end and back
    slider.value = String(Math.round((way > 1 ? 2 - way : way) * Number(slider.max)));
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    requestAnimationFrame(next);
  });
})
"""

PLAY = f"""
() => {{
  const player = document.querySelector('.netpoll-player');
  const slider = player.querySelector('input[type=range]');
  slider.value = '1';
  slider.dispatchEvent(new Event('input', {{ bubbles: true }}));
  const speed = player.querySelector('[aria-label=Speed]');
  speed.value = '{STEPS_A_SECOND}';
  speed.dispatchEvent(new Event('change', {{ bubbles: true }}));
  player.querySelector('[data-action=play]').click();
}}
"""

SHOWN = "Number(document.querySelector('.netpoll-player [data-role=step]').dataset.step)"

SCRIPT = {"FunctionCall", "EventDispatch", "FireAnimationFrame", "TimerFire", "RunMicrotasks"}
RENDERING = {"UpdateLayoutTree", "Layout", "PrePaint", "Paint", "Layerize", "Commit"}
MARK = "bench-frame"


class Measures(dict[str, Any]):
    """What was measured in one place, by its name."""


def measure(page: Page, seconds: float) -> Measures:
    """Scrub and play in a page that shows the player."""
    page.locator(".netpoll-player").scroll_into_view_if_needed()
    browser = page.context.browser
    assert browser is not None
    browser.start_tracing(page=page, categories=["devtools.timeline", "blink.user_timing"])
    times = page.evaluate(SCRUB, FRAMES)
    script, rendering = per_frame(json.loads(browser.stop_tracing())["traceEvents"])
    return Measures(
        frames_a_second=1000 * (len(times) - 1) / (times[-1] - times[0]),
        script=script,
        rendering=rendering,
        **heap_while_playing(page, seconds),
    )


def per_frame(events: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """The milliseconds of script and of rendering in each frame, from Chromium's own tracing."""
    marks = sorted((e for e in events if e["name"] == MARK), key=lambda event: event["ts"])
    thread = (marks[0]["pid"], marks[0]["tid"])
    own = [event for event in events if (event["pid"], event["tid"]) == thread and "dur" in event]
    # A frame begins where its FireAnimationFrame does, a moment before the mark inside it.
    fired = sorted(event["ts"] for event in own if event["name"] == "FireAnimationFrame")
    edges = [max(ts for ts in fired if ts <= mark["ts"]) for mark in marks]
    script: list[float] = []
    rendering: list[float] = []
    in_script = outermost(own, SCRIPT)
    beside = [span for span in outermost(own, RENDERING | SCRIPT) if span not in set(in_script)]
    for begin, end in itertools.pairwise(edges):
        for spans, found in ((in_script, script), (beside, rendering)):
            found.append(sum(took for ts, took in spans if begin <= ts < end) / 1000)
    return script, rendering


def outermost(events: list[dict[str, Any]], names: set[str]) -> list[tuple[float, float]]:
    """Begin and processor time of the events of these names that lie in no other of them."""
    spans = []
    covered = 0.0
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        if event["name"] in names and event["ts"] >= covered:
            spans.append((event["ts"], event.get("tdur", event["dur"])))
            covered = event["ts"] + event["dur"]
    return spans


def heap_while_playing(page: Page, seconds: float) -> dict[str, Any]:
    """Play for so long; the JS heap and the number of DOM nodes at moments of it."""
    session = page.context.new_cdp_session(page)
    page.evaluate(PLAY)
    page.wait_for_timeout(2_000)  # the first steps compile what runs from then on
    heap, nodes = [], []
    first, began = page.evaluate(SHOWN), time.monotonic()
    for _ in range(SAMPLES):
        page.wait_for_timeout(1000 * seconds / SAMPLES)
        session.send("HeapProfiler.collectGarbage")
        heap.append(session.send("Runtime.getHeapUsage")["usedSize"] / 2**20)
        nodes.append(session.send("Memory.getDOMCounters")["nodes"])
    rate = (page.evaluate(SHOWN) - first) / (time.monotonic() - began)
    page.click("[data-action=play]")
    return {"heap": heap, "nodes": nodes, "rate": rate}


# ---- the two places ------------------------------------------------------------------------------


def in_page(browser: Browser, trace: tracer.Trace, folder: Path, seconds: float) -> Measures:
    """Measure the page that `write_page` writes, opened from the file."""
    path = tracer.write_page(trace, folder / "replay.html")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.add_init_script(NOTE_FIRST_PICTURE)
    page.goto(path.as_uri())
    page.wait_for_function("window.pictured")
    first = page.evaluate("window.pictured - performance.timeOrigin")
    found = measure(page, seconds)
    page.close()
    return Measures(found, first=first / 1000, size=path.stat().st_size)


CELLS = [
    """\
import time, tracer
from pathlib import Path
def note(result):
    Path("ended.txt").write_text(str(time.time()))
trace = tracer.load("trace.jsonl")
get_ipython().events.register("post_run_cell", note)
""",
    "tracer.play(trace)",
]


def in_lab(browser: Browser, trace: tracer.Trace, folder: Path, seconds: float) -> Measures:
    """Measure the widget in a JupyterLab of its own."""
    with running_lab(folder) as lab:
        work = folder / "work"
        trace.save(work / "trace.jsonl")
        (work / "bench.ipynb").write_text(json.dumps(notebook(CELLS)))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        page.add_init_script(NOTE_FIRST_PICTURE)
        page.goto(f"{lab.url}/lab/tree/bench.ipynb?token={lab.token}&reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        lab.wait_until("an idle kernel", lambda: lab.kernel_is_idle("bench.ipynb"))
        page.wait_for_selector('#jp-main-statusbar :text("Idle")')
        page.click('.lm-MenuBar-itemLabel:text-is("Run")')
        page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
        page.wait_for_function("window.pictured")
        ended = float((work / "ended.txt").read_text())
        first = page.evaluate("window.pictured") / 1000 - ended
        found = measure(page, seconds)
        page.close()
        return Measures(found, first=first)


@contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """A JupyterLab that answers."""
    lab = Lab(folder)
    try:
        lab.wait_until("an answer", lambda: lab.ask("/api/status"))
        yield lab
    finally:
        lab.end()


def notebook(cells: list[str]) -> dict[str, Any]:
    """A notebook of code cells, as its file holds it."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernel},
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(cells)
        ],
    }


PARSE = """
async ([text, times]) => {
  const took = [];
  for (let i = 0; i < times; i++) {
    const began = performance.now();
    parseTrace(text);
    took.push(performance.now() - began);
  }
  return took;
}
"""


def parsing(browser: Browser, text: str, folder: Path) -> list[float]:
    """How many milliseconds the browser takes to read the trace, each time anew."""
    path = folder / "parse.html"
    path.write_text(
        f"<script type=module>{module()}\nwindow.parseTrace = parseTrace;</script>",
        encoding="utf-8",
    )
    page = browser.new_page()
    page.goto(path.as_uri())
    took: list[float] = page.evaluate(PARSE, [text, PARSINGS])
    page.close()
    return took


# ---- the table -----------------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    """Median and 95th percentile."""
    ordered = sorted(values)
    high = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return f"{statistics.median(ordered):.1f}, {high:.1f} ms"


ROWS: list[tuple[str, Callable[[Measures], str], str]] = [
    ("first picture after", lambda m: f"{m['first']:.2f} s", "at most 1.5 s"),
    ("scrubbing, frames a second", lambda m: f"{m['frames_a_second']:.1f}", "at least 50"),
    ("script a frame, median, 95 %", lambda m: spread(m["script"]), "95 % below 8 ms"),
    ("rendering a frame, median, 95 %", lambda m: spread(m["rendering"]), ""),
    ("playing, steps a second", lambda m: f"{m['rate']:.0f}", f"{STEPS_A_SECOND}"),
    ("JS heap, first to last", lambda m: f"{m['heap'][0]:.1f} to {m['heap'][-1]:.1f} MiB", "flat"),
    ("  most", lambda m: f"{max(m['heap']):.1f} MiB", ""),
    ("DOM nodes, first to last", lambda m: f"{m['nodes'][0]} to {m['nodes'][-1]}", "flat"),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1 / 3, help="how long to play")
    parser.add_argument("--only", choices=["page", "lab"], help="measure in one place")
    options = parser.parse_args()
    try:
        chromium = find_chromium()
    except pytest.skip.Exception as reason:
        print(f"  left out: {reason}")
        return
    trace = recorded()
    text = "".join(trace.to_lines())
    places = {"page": in_page, "lab": in_lab}
    found = {}
    with (
        tempfile.TemporaryDirectory() as name,
        sync_playwright() as playwright,
        contextlib.closing(
            playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS.split())
        ) as browser,
    ):
        folder = Path(name)
        size = len(text.encode()) / 2**20
        print(f"  {len(trace):,} steps of a server with {CLIENTS} clients: {size:.1f} MiB")
        print(f"  read in the browser in {spread(parsing(browser, text, folder))}", flush=True)
        for place, function in places.items():
            if options.only in (None, place):
                found[place] = function(browser, trace, folder, 60 * options.minutes)
    print("  " + " " * 34 + "".join(f"{place:<22}" for place in found) + "asked")
    for title, shown, asked in ROWS:
        cells = "".join(f"{shown(measures):<22}" for measures in found.values())
        print(f"  {title:<34}{cells}{asked}")


if __name__ == "__main__":
    main()
