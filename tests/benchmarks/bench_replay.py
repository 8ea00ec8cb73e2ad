"""What it costs to seek in a trace of a million steps: the making, a state, a chain of causes.

Prints the time of the processor. The steps are those of a made-up server with up to 20 and up to
500 clients, loaded from a file.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.traces import random_trace
from tracer.replay import Replay
from tracer.trace import load

STEPS = 1_000_000
ASKED = 200


def seconds(action: Callable[[], Any]) -> float:
    """Return the seconds of the processor that `action` takes."""
    began = time.process_time()
    action()
    return time.process_time() - began


def mebibytes() -> float:
    """Return the memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Make the traces and have them measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        for clients, steps_a_round in ((20, 12), (500, 220)):
            made = random_trace(1, rounds=STEPS // steps_a_round, most_clients=clients)
            made[:STEPS].save(path)
            del made
            # In a process of its own: what the making freed would hide what is taken.
            subprocess.run([sys.executable, __file__, str(path), str(clients)], check=True)


def measure(path: Path, clients: int) -> None:
    """Measure one trace."""
    trace = load(path)
    last, before = len(trace) - 1, mebibytes()
    replay = Replay(trace)
    print(f"{len(trace):,} steps, up to {clients} clients:")
    print(f"  making every state once     {seconds(lambda: replay.state(last)):8.2f} s")
    print(f"  memory of what is kept      {mebibytes() - before:8.0f} MiB")
    print(f"  reading it for why, rounds  {seconds(replay.rounds):8.2f} s")
    pick = random.Random(1)
    for name, ask in (("state", replay.state), ("why", replay.why), ("effects", replay.effects)):
        places = [last, *(pick.randrange(len(trace)) for _ in range(ASKED))]
        times = sorted(seconds(lambda place=place, ask=ask: ask(place)) for place in places)  # type: ignore[misc]
        print(
            f"  {name + '(i)':<8} median {times[len(times) // 2] * 1000:8.2f} ms, "
            f"most {times[-1] * 1000:.2f} ms"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
