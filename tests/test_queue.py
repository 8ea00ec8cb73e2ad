"""Tasks and their two queues."""

import collections
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpoll import AcceptSocketError, AsyncTaskQueue, EngineShutdown, EventPriority, Task

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW


def fail(task: Task, error: Exception) -> None:
    """Be an `on_error` that must not be called."""
    raise AssertionError(f"{task} failed") from error


def fill(queue: AsyncTaskQueue, priority: EventPriority, count: int) -> list[int]:
    """Queue `count` tasks that note their number, and return where they do."""
    ran: list[int] = []
    for number in range(count):
        queue.push(priority, Task(ran.append, number))
    return ran


def raising(error: BaseException) -> Callable[[Any], None]:
    """Return a task's function that raises `error`."""

    def func(_: Any) -> None:
        raise error

    return func


def test_task_needs_a_function() -> None:
    """What can't be called is no task."""
    with pytest.raises(TypeError, match="one parameter"):
        Task(7)  # type: ignore[arg-type]
    assert repr(Task(print, 7)) == "Task(print, 7)"


def test_low_task_1025_joins_the_low_queue() -> None:
    """1024 LOW tasks find room among the urgent ones, the next does not."""
    queue = AsyncTaskQueue(1024, 256)
    fill(queue, LOW, 1024)
    assert (len(queue.urgent), len(queue.low)) == (1024, 0)
    fill(queue, LOW, 1)
    assert (len(queue.urgent), len(queue.low)) == (1024, 1)
    fill(queue, HIGH, 1)
    assert (len(queue.urgent), len(queue.low), len(queue)) == (1025, 1, 1026)


def test_round_runs_256_low_tasks() -> None:
    """Of 257 low tasks one is left, and no urgent one, however many there are."""
    queue = AsyncTaskQueue(1024, 256)
    urgent = fill(queue, HIGH, 3000)
    low = fill(queue, LOW, 257)
    queue.run_round(0, fail)
    assert (len(urgent), len(low)) == (3000, 256)
    queue.run_round(0, fail)
    assert low == list(range(257))
    assert not len(queue)


def test_low_task_keeps_behind_those_already_low() -> None:
    """While the low queue holds any, LOW tasks go there, though the urgent queue is empty."""
    queue = AsyncTaskQueue(crowded=2, low_a_round=1)
    ran = fill(queue, LOW, 4)
    queue.run_round(0, fail)
    assert (len(queue.urgent), len(queue.low)) == (0, 1)
    queue.push(LOW, Task(ran.append, 4))
    assert (len(queue.urgent), len(queue.low)) == (0, 2)
    queue.run_round(0, fail)
    queue.run_round(0, fail)
    assert ran == [0, 1, 2, 3, 4]


def test_low_task_queued_in_a_round_does_not_overtake() -> None:
    """A LOW task that joins the low queue during a round waits for one among the urgent ones."""
    queue = AsyncTaskQueue(crowded=4, low_a_round=256)
    ran: list[str] = []

    def crowd(_: Any) -> None:
        queue.push(LOW, Task(ran.append, "first"))
        for _ in range(4):
            queue.push(HIGH, Task(int, 0))
        queue.push(LOW, Task(ran.append, "second"))

    queue.push(HIGH, Task(crowd))
    queue.run_round(0, fail)
    assert ran == []
    queue.run_round(0, fail)
    assert ran == ["first", "second"]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["high", "low", "round", "high in task", "low in task"]), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_tasks_of_one_priority_keep_their_order(actions: list[str], crowded: int, low: int) -> None:
    """Whatever is queued when, also by tasks, each priority runs in order, and all of it runs."""
    queue = AsyncTaskQueue(crowded, low)
    queued: dict[EventPriority, int] = collections.Counter()
    ran: dict[EventPriority, list[int]] = {HIGH: [], LOW: []}

    def push(priority: EventPriority, then: EventPriority | None = None) -> None:
        number = queued[priority]
        queued[priority] += 1

        def func(_: Any) -> None:
            ran[priority].append(number)
            if then is not None:
                for _ in range(crowded + 1):
                    push(then)

        queue.push(priority, Task(func))

    for action in actions:
        if action == "round":
            queue.run_round(0, fail)
        else:
            priority = HIGH if action.startswith("high") else LOW
            other = LOW if priority is HIGH else HIGH
            push(priority, other if action.endswith("in task") else None)
    while len(queue):
        queue.run_round(0, fail)
    assert ran == {priority: list(range(queued[priority])) for priority in (HIGH, LOW)}


def test_task_that_queues_itself_runs_once_a_round() -> None:
    """What a task queues waits for the next round, so a round always ends."""
    queue = AsyncTaskQueue(1024, 256)
    ran: list[int] = []

    def again(number: int) -> None:
        ran.append(number)
        queue.push(HIGH, Task(again, number + 1))
        queue.push(LOW, Task(ran.append, -number))

    queue.push(HIGH, Task(again, 1))
    queue.run_round(0, fail)
    assert ran == [1]
    queue.run_round(0, fail)
    assert ran == [1, 2, -1]


def test_exception_goes_to_on_error_and_the_round_goes_on() -> None:
    """One failing task costs the others nothing."""
    queue = AsyncTaskQueue(1024, 256)
    failed: list[tuple[Task, Exception]] = []
    error = OSError("no")
    task = Task(raising(error))
    queue.push(HIGH, task)
    ran = fill(queue, HIGH, 2)
    queue.run_round(0, lambda *what: failed.append(what))
    assert failed == [(task, error)]
    assert ran == [0, 1]


@pytest.mark.parametrize("ending", [EngineShutdown(), AcceptSocketError(), KeyboardInterrupt()])
def test_ending_gets_out_and_keeps_the_rest(ending: BaseException) -> None:
    """What ends the loop is raised; the tasks after it stay queued, the one that ran does not."""
    queue = AsyncTaskQueue(1024, 256)
    queue.push(HIGH, Task(raising(ending)))
    ran = fill(queue, HIGH, 2)
    with pytest.raises(type(ending)):
        queue.run_round(0, fail)
    assert len(queue) == 2
    queue.run_round(0, fail)
    assert ran == [0, 1]


def test_end_round_leaves_the_rest() -> None:
    """After `end_round` in a task the others, low ones too, wait for the next round."""
    queue = AsyncTaskQueue(2, 256)
    queue.push(HIGH, Task(lambda _: queue.end_round()))
    urgent = fill(queue, HIGH, 2)
    low = fill(queue, LOW, 2)
    queue.run_round(0, fail)
    assert urgent == low == []
    queue.run_round(0, fail)
    assert urgent == low == [0, 1]


def test_drop_counts() -> None:
    """`drop` empties both queues and says how many tasks that were."""
    queue = AsyncTaskQueue(2, 256)
    fill(queue, LOW, 5)
    assert queue.drop() == 5
    assert len(queue) == queue.drop() == 0
