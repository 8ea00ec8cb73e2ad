"""What a recording costs while it runs: nanoseconds a step, messages a second, bytes a step.

Steps are measured on always-ready descriptors, messages with an echo server and 50 clients in a
process of their own. Times are medians of seven runs, each cut into slices in which the contenders
alternate, because the speed of a shared machine changes from one second to the next. Those of steps
are the processor's; the quickest slices are those that others on the machine disturbed least.
Beside each figure stands what is asked of it. What a recording costs when it is off is in
bench_loop.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import netpoll
import tracer
from netpoll.examples.echo_server import EchoServer

RUNS = 7
SLICES = 4
LIMIT = 10_000_000  # steps: more than any slice makes
CLIENTS = 50
MESSAGE = b"x" * 64
MESSAGES = 2_500  # a slice
MEMORY_MESSAGES = 25_000


# ---- nanoseconds a step ------------------------------------------------------------------------


@contextmanager
def ready_descriptors(count: int) -> Iterator[list[int]]:
    """Yield `count` eventfds that are always ready for reading."""
    descriptors = [os.eventfd(1) for _ in range(count)]
    try:
        yield descriptors
    finally:
        for fd in descriptors:
            os.close(fd)


def counting_callback(last: int) -> netpoll.Callback:
    """Return a function that counts its calls and ends the loop at the last."""
    left = last

    def count(fd: int, event: int, flags: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise netpoll.EngineShutdown

    return count


def spin(descriptors: list[int], events: int, *, recorded: bool) -> tuple[float, int]:
    """Return the processor's seconds for so many events, and how many steps they are."""
    with netpoll.open_poller() as poller:
        callback = counting_callback(events)
        for fd in descriptors:
            poller.add_read(netpoll.PollAttachment(fd, callback))
        recording = tracer.record(poller, io=False, limit=LIMIT) if recorded else None
        began = time.process_time()
        poller.polling()
        seconds = time.process_time() - began
        if recording is None:
            return seconds, 0
        recording.stop()
        return seconds, len(recording.trace)


def measure_steps() -> None:
    """Print what a step costs."""
    for count, events in ((64, 20_000), (8, 12_000), (1, 5_000)):
        costs, ratios = [], []
        quickest = {False: math.inf, True: math.inf}
        steps = 0
        with ready_descriptors(count) as descriptors:
            for _ in range(RUNS):
                sums = {False: 0.0, True: 0.0}
                for recorded in (False, True) * SLICES:
                    seconds, steps = spin(descriptors, events, recorded=recorded)
                    sums[recorded] += seconds
                    quickest[recorded] = min(quickest[recorded], seconds)
                costs.append((sums[True] - sums[False]) / SLICES / steps * 1e9)
                ratios.append(sums[True] / sums[False])
        name = f"{count} always-ready descriptor{'s' if count > 1 else ''}"
        tell(name, f"{statistics.median(costs):.0f} ns a step", "≤ 400", statistics.median(ratios))
        best = (quickest[True] - quickest[False]) / steps * 1e9
        tell("  its quickest slices", f"{best:.0f} ns a step", "≤ 400")


# ---- messages a second -------------------------------------------------------------------------


def clients(host: str, port: str) -> None:
    """Be the clients: for every number on standard input send so many messages, and tell so."""
    connections = [socket.create_connection((host, int(port))) for _ in range(CLIENTS)]
    by_number = {connection.fileno(): connection for connection in connections}
    with contextlib.ExitStack() as stack:
        epoll = stack.enter_context(select.epoll())
        for number, connection in by_number.items():
            stack.enter_context(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            epoll.register(number, select.EPOLLIN)
        for line in sys.stdin:
            to_send = int(line)
            to_come = to_send * len(MESSAGE)
            began = time.perf_counter()
            for connection in connections:
                connection.sendall(MESSAGE)
            to_send -= len(connections)
            while to_come:
                for number, _ in epoll.poll():
                    to_come -= len(by_number[number].recv(65536))
                    if to_send:
                        to_send -= 1
                        by_number[number].sendall(MESSAGE)
            print(time.perf_counter() - began, flush=True)


class EchoBenchmark:
    """An echo server in a thread of this process, and its clients in another process."""

    def __init__(self) -> None:
        self.poller = netpoll.open_poller()
        self.server = EchoServer(self.poller)
        self.loop = netpoll.run_in_thread(self.poller)
        command = [sys.executable, __file__, *map(str, self.server.address)]
        self.clients = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.send(CLIENTS)

    def close(self) -> None:
        """End both."""
        self.clients.communicate()
        self.loop.stop()
        self.server.close()

    def send(self, messages: int) -> float:
        """Let the clients send so many messages; return the seconds until all are answered."""
        assert self.clients.stdin is not None
        assert self.clients.stdout is not None
        self.clients.stdin.write(f"{messages}\n")
        self.clients.stdin.flush()
        return float(self.clients.stdout.readline())

    def recorded(self, messages: int, io: bool) -> tuple[float, tracer.Recording]:
        """Do so while recording."""
        recording = tracer.record(self.poller, io=io, limit=LIMIT)
        seconds = self.send(messages)
        recording.stop()
        return seconds, recording


def measure_echo(echo: EchoBenchmark) -> None:
    """Print messages a second: not recorded, recorded without and with socket calls.

    The processor's time is that of this process, which is the server's.
    """
    contenders: dict[str, Callable[[], object]] = {
        "not recorded": lambda: echo.send(MESSAGES),
        "recorded, io=False": lambda: echo.recorded(MESSAGES, io=False),
        "recorded, io=True": lambda: echo.recorded(MESSAGES, io=True),
    }
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    processors: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(RUNS):
        for name in contenders:
            walls[name].append(0)
            processors[name].append(0)
        for _ in range(SLICES):
            for name, contender in contenders.items():
                wall, processor = time.perf_counter(), time.process_time()
                contender()
                walls[name][-1] += time.perf_counter() - wall
                processors[name][-1] += time.process_time() - processor
    for name in contenders:
        speed = MESSAGES * SLICES / statistics.median(walls[name])
        own = statistics.median(processors[name]) / MESSAGES / SLICES * 1e6
        of_base = [
            statistics.median(
                one / base for one, base in zip(times[name], times["not recorded"], strict=True)
            )
            for times in (walls, processors)
        ]
        asked = "≤ 1.60x" if name != "not recorded" else ""
        tell(f"echo, {name}", f"{speed:.0f} messages/s", asked, of_base[0])
        tell("  its processor, a message", f"{own:.1f} µs", "", of_base[1])


# ---- bytes a step ------------------------------------------------------------------------------


def measure_memory(echo: EchoBenchmark) -> None:
    """Print what a step takes: as it is packed, and as Python allocated it."""
    for io in (False, True):
        _, recording = echo.recorded(MEMORY_MESSAGES // 5, io)  # it has seen all functions since
        tracemalloc.start()
        _, recording = echo.recorded(MEMORY_MESSAGES, io)
        allocated, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        rows, steps = recording.rows, len(recording.trace)
        packed = len(rows.packed) + len(rows.events) * rows.events.itemsize
        tell(f"memory, io={io}, packed", f"{packed / steps:.1f} bytes a step", "≤ 80")
        tell(f"memory, io={io}, allocated", f"{allocated / steps:.1f} bytes a step", "≤ 80")


def tell(what: str, figure: str, asked: str = "", ratio: float | None = None) -> None:
    """Print a line: what was measured, the ratio to not recording, and what is asked."""
    shown = "" if ratio is None else f"{ratio:.2f}x"
    print(f"  {what:<32}{figure:>22}{shown:>9}{'asked ' + asked if asked else '':>18}", flush=True)


def main() -> None:
    """Measure and print."""
    load = os.getloadavg()[0]
    print(f"load of the machine: {load:.1f}" + (" (too busy to trust)" if load > 1.5 else ""))
    measure_steps()
    with contextlib.closing(EchoBenchmark()) as echo:
        measure_echo(echo)
        measure_memory(echo)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        clients(*sys.argv[1:])
    else:
        main()
