"""Tasks: functions that other threads, or a callback, ask the loop to call.

Source: gnet `pkg/queue` and the task part of `pkg/netpoll/poller_epoll_default.go`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any

from netpoll.errors import AcceptSocketError, EngineShutdown


class EventPriority(enum.IntEnum):
    """How soon a task runs: `HIGH` in the coming round, `LOW` when the loop is not too busy."""

    HIGH = 0
    LOW = 1


class Task:
    """A function to call in the loop's thread, once, with one parameter."""

    __slots__ = ("func", "param")

    def __init__(self, func: Callable[[Any], object], param: Any = None) -> None:
        if not callable(func):
            raise TypeError(f"a task is a function of one parameter, not {func!r}")
        self.func = func
        self.param = param

    def __repr__(self) -> str:
        return f"Task({getattr(self.func, '__qualname__', repr(self.func))}, {self.param!r})"


class AsyncTaskQueue:
    """The tasks that wait to run: an urgent queue and one of low priority.

    `crowded` urgent tasks send further `LOW` ones to the low queue, from which a round runs at
    most `low_a_round`. While the low queue holds any, `LOW` tasks go there, so that tasks of one
    priority keep their order. `push` is safe from any thread and from signal handlers.
    """

    def __init__(self, crowded: int, low_a_round: int) -> None:
        self.crowded = crowded
        self.low_a_round = low_a_round
        self.urgent: deque[Task] = deque()
        self.low: deque[Task] = deque()
        self._round_ended = False

    def __len__(self) -> int:
        return len(self.urgent) + len(self.low)

    def push(self, priority: EventPriority, task: Task) -> None:
        """Queue `task`."""
        self.queue_for(priority).append(task)

    def queue_for(self, priority: EventPriority) -> deque[Task]:
        """Return the queue that a task of this `priority` joins now."""
        if priority == EventPriority.LOW and (self.low or len(self.urgent) >= self.crowded):
            return self.low
        return self.urgent

    def run_round(self, on_error: Callable[[Task, Exception], None]) -> None:
        """Run the urgent tasks present now, then at most `low_a_round` of the low ones.

        A task queued meanwhile waits for the next round, so one that queues itself starves
        nobody. `EngineShutdown` and `AcceptSocketError` get out; other exceptions go to
        `on_error`.
        """
        self._round_ended = False
        low = min(len(self.low), self.low_a_round)  # counted first: a later one waits its turn
        self._run(self.urgent, len(self.urgent), on_error)
        self._run(self.low, low, on_error)

    def end_round(self) -> None:
        """Leave the rest of this round's tasks to the next round."""
        self._round_ended = True

    def drop(self) -> int:
        """Forget the queued tasks and return how many they were."""
        dropped = len(self)
        self.urgent.clear()
        self.low.clear()
        return dropped

    def _run(
        self, queue: deque[Task], count: int, on_error: Callable[[Task, Exception], None]
    ) -> None:
        for _ in range(count):
            if self._round_ended:
                return
            # A task leaves the queue after its call: an interrupt before the call loses nothing.
            task = queue[0]
            try:
                task.func(task.param)
            except (EngineShutdown, AcceptSocketError):
                raise
            except Exception as error:
                on_error(task, error)
            finally:
                queue.popleft()
