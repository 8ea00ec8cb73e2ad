"""Tasks and timers: functions that other threads, or a callback, ask the loop to call.

Source: gnet `pkg/queue` and the task part of `pkg/netpoll/poller_epoll_default.go`; gnet has no
timers.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from netpoll.errors import AcceptSocketError, EngineShutdown


class EventPriority(enum.IntEnum):
    """How soon a task runs: `HIGH` in the coming round, `LOW` when the loop is not too busy."""

    HIGH = 0
    LOW = 1


class Task:
    """A function to call in the loop's thread, once, with one parameter."""

    __slots__ = ("func", "over", "param")

    def __init__(self, func: Callable[[Any], object], param: Any = None) -> None:
        if not callable(func):
            raise TypeError(f"a task is a function of one parameter, not {func!r}")
        self.func = func
        self.param = param
        self.over = False  # it was called, or is not to be

    def __repr__(self) -> str:
        return f"Task({getattr(self.func, '__qualname__', repr(self.func))}, {self.param!r})"


class Timer(Task):
    """A task that waits for its time. Made by `Poller.call_later`.

    `deadline` is when it is to run, in seconds on the clock of the poller's kernel. `over` is True
    once it was called or canceled.
    """

    __slots__ = ("_owner", "deadline")

    def __init__(
        self, owner: HasTasks, deadline: float, func: Callable[[Any], object], param: Any = None
    ) -> None:
        super().__init__(func, param)
        self._owner = owner
        self.deadline = deadline

    def cancel(self) -> bool:
        """Never call it; return whether that was still to come. Safe from any thread."""
        return self._owner.tasks.cancel_timer(self)


class HasTasks(Protocol):
    """Whose timers they are: a poller."""

    tasks: AsyncTaskQueue


class Timers:
    """The timers that are set, and those of them that are due.

    `add` is safe from any thread; the loop's thread does the rest. A timer may stand in two places
    when an interrupt came between: `Task.over` keeps it from being called twice.
    """

    def __init__(self) -> None:
        self.due: deque[Timer] = deque()
        self._added: deque[Timer] = deque()  # since the loop looked last
        self._heap: list[tuple[float, int, Timer]] = []  # by deadline, then in order of creation
        self._numbers = itertools.count()
        self._crowded = 64

    def add(self, timer: Timer) -> None:
        """Set `timer`."""
        self._added.append(timer)

    def collect(self, now: float) -> None:
        """Put those whose deadline is `now` or was before on `due`, in their order."""
        self._sort()
        heap = self._heap
        while heap and heap[0][0] <= now:
            self.due.append(heap[0][2])
            heapq.heappop(heap)

    def until_next(self, now: float) -> float | None:
        """Return the seconds from `now` to the next deadline, None when no timer is set."""
        self._sort()
        return max(self._heap[0][0] - now, 0) if self._heap else None

    def __iter__(self) -> Iterator[Timer]:
        """Yield those that are to be called, in no order."""
        waiting = [*self.due, *self._added, *(entry[2] for entry in list(self._heap))]
        return (timer for timer in dict.fromkeys(waiting) if not timer.over)

    def clear(self) -> None:
        """Forget them all."""
        for timers in (self.due, self._added, self._heap):
            timers.clear()

    def _sort(self) -> None:
        added, heap = self._added, self._heap
        while added:
            heapq.heappush(heap, (added[0].deadline, next(self._numbers), added[0]))
            added.popleft()
        if len(heap) > self._crowded:  # most of them canceled, as timeouts are
            waiting = [entry for entry in heap if not entry[2].over]
            heapq.heapify(waiting)
            heap[:] = waiting
            self._crowded = max(64, 2 * len(heap))
        while heap and heap[0][2].over:
            heapq.heappop(heap)


class AsyncTaskQueue:
    """The tasks that wait to run: an urgent queue and one of low priority; and the timers.

    `crowded` urgent tasks send further `LOW` ones to the low queue, from which a round runs at
    most `low_a_round`. While the low queue holds any, `LOW` tasks go there, so that tasks of one
    priority keep their order. `push` is safe from any thread and from signal handlers.
    """

    def __init__(self, crowded: int, low_a_round: int) -> None:
        self.crowded = crowded
        self.low_a_round = low_a_round
        self.urgent: deque[Task] = deque()
        self.low: deque[Task] = deque()
        self.timers = Timers()
        self._round_ended = False

    def __len__(self) -> int:
        """Return how many are to run at once; a timer is one of them when it is due."""
        due = sum(not timer.over for timer in list(self.timers.due))
        return len(self.urgent) + len(self.low) + due

    def push(self, priority: EventPriority, task: Task) -> None:
        """Queue `task`."""
        self.queue_for(priority).append(task)

    def queue_for(self, priority: EventPriority) -> deque[Task]:
        """Return the queue that a task of this `priority` joins now."""
        if priority == EventPriority.LOW and (self.low or len(self.urgent) >= self.crowded):
            return self.low
        return self.urgent

    def set_timer(self, timer: Timer) -> None:
        """Set `timer`; safe from any thread."""
        self.timers.add(timer)

    def cancel_timer(self, timer: Timer) -> bool:
        """Keep `timer` from being called; return whether it was to be. Safe from any thread."""
        waited, timer.over = not timer.over, True
        return waited

    def run_round(self, now: float, on_error: Callable[[Task, Exception], None]) -> None:
        """Run the timers due `now`, the urgent tasks, then at most `low_a_round` of the low ones.

        What is queued or set meanwhile waits for the next round, so a task that queues itself
        starves nobody. `EngineShutdown` and `AcceptSocketError` get out; other exceptions go to
        `on_error`.
        """
        self._round_ended = False
        self.timers.collect(now)
        low = min(len(self.low), self.low_a_round)  # counted first: a later one waits its turn
        urgent = len(self.urgent)
        self._run(self.timers.due, len(self.timers.due), on_error)
        self._run(self.urgent, urgent, on_error)
        self._run(self.low, low, on_error)

    def end_round(self) -> None:
        """Leave the rest of this round's tasks to the next round."""
        self._round_ended = True

    def drop(self) -> int:
        """Forget the queued tasks and return how many they were."""
        dropped = len(self)
        self.urgent.clear()
        self.low.clear()
        self.timers.clear()
        return dropped

    def _run(
        self, queue: deque[Any], count: int, on_error: Callable[[Task, Exception], None]
    ) -> None:
        for _ in range(count):
            if self._round_ended:
                return
            # A task leaves the queue after its call: an interrupt before the call loses nothing.
            task: Task = queue[0]
            try:
                if task.over:
                    continue
                task.over = True
                task.func(task.param)
            except (EngineShutdown, AcceptSocketError):
                raise
            except Exception as error:
                on_error(task, error)
            finally:
                # Not after an interrupt that came first (Python 3.10 lets it), nor when the poller
                # was closed in a forked child.
                if queue and task.over:
                    queue.popleft()
