"""What a round of the loop costs, against a hand-written `select.epoll` loop.

Prints nanoseconds an event and the ratio to the hand-written loop, each the median of seven runs,
for a loop that was never recorded and for one after a recording started and stopped. A run is cut
into slices that alternate, because the speed of a shared machine changes from one second to the
next.
"""

from __future__ import annotations

import os
import select
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import netpoll
import tracer

RUNS = 7
SLICES = 8
BASE = "hand-written epoll loop"


@contextmanager
def ready_descriptors(count: int) -> Iterator[list[int]]:
    """Yield `count` eventfds that are always ready for reading."""
    descriptors = [os.eventfd(1) for _ in range(count)]
    try:
        yield descriptors
    finally:
        for fd in descriptors:
            os.close(fd)


def counting_callback(last: int) -> Callable[[int, int, int], None]:
    """Return a function that counts its calls and ends the loop at the last."""
    left = last

    def count(fd: int, event: int, flags: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise netpoll.EngineShutdown

    return count


def hand_written(descriptors: list[int], events: int) -> float:
    """Return the seconds that a plain `select.epoll` loop takes, through a dict of callbacks."""
    epoll = select.epoll()
    callback = counting_callback(events)
    callbacks = dict.fromkeys(descriptors, callback)
    for fd in descriptors:
        epoll.register(fd, select.EPOLLIN)
    began = time.perf_counter()
    try:
        while True:
            for fd, event in epoll.poll(-1, 128):
                callbacks[fd](fd, event, 0)
    except netpoll.EngineShutdown:
        return time.perf_counter() - began
    finally:
        epoll.close()


def polling(descriptors: list[int], events: int, *, recorded_before: bool = False) -> float:
    """Return the seconds that `Poller.polling` takes for the same."""
    with netpoll.open_poller() as poller:
        callback = counting_callback(events)
        for fd in descriptors:
            poller.add_read(netpoll.PollAttachment(fd, callback))
        if recorded_before:
            recording = tracer.record(poller)
            poller.poll_once(0)
            recording.stop()
        began = time.perf_counter()
        poller.polling()
        return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    contenders: dict[str, Callable[[list[int], int], float]] = {
        BASE: hand_written,
        "poller.polling()": polling,
        "after a recording": lambda fds, n: polling(fds, n, recorded_before=True),
    }
    for count, events in ((64, 80_000), (8, 40_000), (1, 20_000)):
        runs: list[dict[str, float]] = []
        with ready_descriptors(count) as descriptors:
            for _ in range(RUNS):
                runs.append(dict.fromkeys(contenders, 0.0))
                for _ in range(SLICES):
                    for name, contender in contenders.items():
                        runs[-1][name] += contender(descriptors, events)
        print(f"{count} always-ready descriptor{'s' if count > 1 else ''}:")
        for name in contenders:
            nanoseconds = statistics.median(run[name] for run in runs) / events / SLICES * 1e9
            ratio = statistics.median(run[name] / run[BASE] for run in runs)
            print(f"  {name:<26}{nanoseconds:7.0f} ns an event {ratio:6.2f}x")


if __name__ == "__main__":
    main()
