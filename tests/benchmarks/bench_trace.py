"""What a trace of a million steps costs: to save, load, walk and search it, and its memory.

Prints seconds; those of saving and loading are the median of three runs. A busy machine shows in
the first number and less in the second, which is the time of the processor. The steps are those of
a made-up server with 20 clients; the packed ones are what a recording keeps while it runs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.traces import random_trace
from tracer.rows import KIND, Rows
from tracer.trace import Trace, load

STEPS = 1_000_000
RUNS = 3


def recorded(steps: int) -> Trace:
    """Return a trace as a recording holds it: packed rows, of a server that echoes."""
    rows = Rows()
    echo = rows.function_id(recorded)
    thread = rows.string_id("127.0.0.1:50000")
    rows.write(KIND["Registered"], fd=7, first=1 | thread << 8, second=echo)
    while len(rows) < steps:
        wait = rows.write(KIND["WaitStarted"], first=-1, second=128)
        wait = rows.write(KIND["WaitEnded"], cause=wait, first=0, second=0)
        call = rows.write(KIND["DispatchStarted"], cause=wait, fd=7, first=1, second=echo)
        for kind in ("Read", "Wrote"):
            rows.write(KIND[kind], cause=call, fd=7, first=64, second=64, site=(echo, 40))
        rows.write(KIND["DispatchEnded"], cause=call, fd=7)
    return Trace(random_trace(1, rounds=1).base, rows.functions, rows)


def measure(what: str, action: Callable[[], Any], runs: int = 1) -> None:
    """Print the median of the seconds that `action` takes, by the clock and of the processor."""
    walls, processors = [], []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    shown = f"{statistics.median(walls):6.2f} s ({statistics.median(processors):.2f} s processor)"
    print(f"  {what:<36}{shown}", flush=True)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        print(f"{STEPS:,} steps:")
        made(path)
        measure("load", lambda: load(path), RUNS)
        tracemalloc.start()
        loaded = load(path)
        print(
            f"  {'memory when loaded':<36}{tracemalloc.get_traced_memory()[0] / STEPS:6.0f} bytes"
        )
        tracemalloc.stop()
        measure("look at every step", lambda: all(loaded))
        measure("where(fd=7, kind='Read')", lambda: loaded.where(fd=7, kind="Read"))
        measure("search('log_stats')", lambda: loaded.search("log_stats"))
        measure("save what was loaded", lambda: loaded.save(path))
        packed = recorded(STEPS)
        measure("save what was recorded just now", lambda: packed.save(path))


def made(path: Path) -> None:
    """Measure the saving of step objects."""
    trace = random_trace(1, rounds=STEPS // 12)[:STEPS]
    assert len(trace) == STEPS
    measure("save", lambda: trace.save(path), RUNS)
    print(f"  {'size of the file':<36}{path.stat().st_size / STEPS:6.0f} bytes a step")


if __name__ == "__main__":
    main()
