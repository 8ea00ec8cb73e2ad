"""Tasks: order, fairness, and what a wakeup costs."""

from __future__ import annotations

import pytest

from netpoll import AcceptSocketError, EngineShutdown, EventPriority, PollAttachment, Poller, Task
from tests.conformance.worlds import HIGH, LOW, PATIENCE, Calls, World, is_silent, raising

LIMITS = {"epoll": (1024, 256), "kqueue": (512, 128), "select": (1024, 256)}
"""From so many urgent tasks on LOW ones join the low queue; so many of that a round."""


def test_tasks_run_after_the_batch(world: World, poller: Poller) -> None:
    """What callbacks trigger runs in order, in the same round, when the batch is through."""
    order: list[str] = []

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        poller.trigger(LOW, order.append, "low")
        poller.trigger(HIGH, order.append, "high")

    for _ in range(2):
        poller.add_write(PollAttachment(world.pair()[0], callback))
    assert poller.poll_once(0) == 2
    assert order == ["event", "event", "low", "high", "low", "high"]


def test_trigger_passes_its_parameter(world: World, poller: Poller) -> None:
    """The function gets the parameter, None when there is none."""
    got: list[object] = []
    poller.trigger(HIGH, got.append, 7)
    poller.trigger(HIGH, got.append)
    assert poller.poll_once(0) == 0
    assert got == [7, None]


def test_low_tasks_join_the_low_queue_when_it_is_crowded(world: World, poller: Poller) -> None:
    """Of LOW tasks the first 1,024 (512) keep their place before a later HIGH one, no more."""
    crowded, _ = LIMITS[world.backend]
    ran: list[object] = []
    for number in range(crowded + 1):
        poller.trigger(LOW, ran.append, number)
    poller.trigger(HIGH, ran.append, "high")
    poller.poll_once(0)
    assert ran == [*range(crowded), "high", crowded]


def ran_before_each_batch(world: World, poller: Poller, rounds: int, ran: list[int]) -> list[int]:
    """Run the loop for so many rounds; return how many tasks had run when each dispatched."""
    seen: list[int] = []

    def callback(fd: int, event: int, flags: int) -> None:
        seen.append(len(ran))
        if len(seen) == rounds:
            raise EngineShutdown

    poller.add_write(PollAttachment(world.pair()[0], callback))
    poller.polling()
    return seen


def test_low_tasks_of_a_round(world: World, poller: Poller) -> None:
    """A round runs the urgent tasks and 256 (128) of the low queue; the 257th waits."""
    crowded, low_a_round = LIMITS[world.backend]
    ran: list[int] = []
    count = crowded + 2 * low_a_round + 1
    for number in range(count):
        poller.trigger(LOW, ran.append, number)
    seen = ran_before_each_batch(world, poller, 4, ran)
    assert seen == [crowded + low_a_round, crowded + 2 * low_a_round, count, count]
    assert ran == list(range(count))


def test_low_tasks_keep_their_order(world: World, poller: Poller) -> None:
    """While the low queue holds any, a LOW task joins it, though the urgent queue is empty."""
    crowded, low_a_round = LIMITS[world.backend]
    ran: list[int] = []
    count = crowded + 2 * low_a_round
    for number in range(count):
        poller.trigger(LOW, ran.append, number)
    assert ran_before_each_batch(world, poller, 1, ran) == [crowded + low_a_round]
    poller.trigger(LOW, ran.append, count)
    assert ran_before_each_batch(world, poller, 2, ran) == [count, count + 1]
    assert ran == list(range(count + 1))


def test_leftover_tasks_need_no_event(world: World, poller: Poller) -> None:
    """Tasks that a round left run in the next, though nothing else happens."""
    ran: list[int] = []
    for number in range(3000):
        poller.trigger(LOW, ran.append, number)
    poller.trigger(LOW, lambda _: poller.stop())
    began = world.clock()
    poller.polling()
    assert world.did_not_wait(began)
    assert ran == list(range(3000))


@pytest.mark.parametrize("priority", EventPriority)
def test_task_that_triggers_itself_does_not_starve_events(
    world: World, poller: Poller, priority: EventPriority
) -> None:
    """Each round runs such a task once and dispatches what is ready."""
    order: list[str] = []

    def again(_: object) -> None:
        order.append("task")
        poller.trigger(priority, again)

    def callback(fd: int, event: int, flags: int) -> None:
        order.append("event")
        if order.count("event") == 5:
            poller.stop()

    poller.add_write(PollAttachment(world.pair()[0], callback))
    poller.trigger(priority, again)
    poller.polling()
    assert order == ["task", "event"] * 5 + ["task"]


def test_many_triggers_cost_one_write(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of triggers between two rounds writes once; the next round's first writes anew."""
    writes: list[int] = []
    channel = poller.wakeup._channel

    def write() -> None:
        writes.append(1)
        channel.write()

    monkeypatch.setattr(poller.wakeup, "_channel", channel._replace(write=write))
    for rounds in range(3):
        for _ in range(100):
            poller.trigger(HIGH, int, 0)
        assert len(writes) == rounds + 1
        poller.poll_once(0)


def test_wakeup_ends_one_wait(world: World, poller: Poller) -> None:
    """A trigger before the wait ends it at once, and the wait after that lasts to its end."""
    ran: list[int] = []
    poller.trigger(HIGH, ran.append, 1)
    began = world.clock()
    assert poller.poll_once() == 0
    assert world.did_not_wait(began)
    assert ran == [1]
    assert is_silent(world, poller)


def test_trigger_during_the_wait(world: World, poller: Poller) -> None:
    """It ends the wait, and its task has run when poll_once returns; the next wait is silent."""
    ran: list[int] = []
    began = world.clock()
    world.after(world.tick, lambda: poller.trigger(HIGH, ran.append, 1))
    assert poller.poll_once(PATIENCE) == 0
    assert ran == [1]
    assert world.passed(began, world.tick)
    world.until_done()
    poller.poll_once(0)  # a thread may write the wakeup after its task has run
    assert is_silent(world, poller)


def test_exception_in_a_task(world: World) -> None:
    """It goes to on_error with the Task; the next task runs."""
    failed: list[tuple[object, Exception]] = []
    poller = world.open_poller(on_error=lambda *what: failed.append(what))
    error = OSError("no")
    ran: list[int] = []
    func = raising(error)
    poller.trigger(LOW, func, "param")
    poller.trigger(LOW, ran.append, 1)
    poller.poll_once(0)
    ((source, raised),) = failed
    assert isinstance(source, Task)
    assert (source.func, source.param, raised) == (func, "param", error)
    assert ran == [1]


@pytest.mark.parametrize("once", [False, True], ids=["polling", "poll_once"])
def test_engine_shutdown_in_a_task(world: World, poller: Poller, once: bool) -> None:
    """The call returns normally; the tasks behind it run in the next one."""
    ran: list[int] = []
    poller.trigger(HIGH, raising(EngineShutdown()))
    poller.trigger(HIGH, ran.append, 1)
    if once:
        poller.poll_once()
    else:
        poller.polling()
    assert ran == []
    poller.poll_once(0)
    assert ran == [1]


@pytest.mark.parametrize("error", [AcceptSocketError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_gets_out_of_a_task(world: World, poller: Poller, error: BaseException) -> None:
    """It is raised as it is, by polling too; the tasks behind it run in the next call."""
    ran: list[int] = []
    poller.trigger(HIGH, raising(error))
    poller.trigger(HIGH, ran.append, 1)
    with pytest.raises(type(error)) as caught:
        poller.polling()
    assert caught.value is error
    assert ran == []
    poller.poll_once(0)
    assert ran == [1]


@pytest.mark.parametrize("wrong", [(7, print), ("HIGH", print), (HIGH, None), (LOW, 7)])
def test_wrong_trigger(world: World, poller: Poller, wrong: tuple[EventPriority, int]) -> None:
    """What is no priority, or can't be called, is a TypeError and wakes nobody."""
    with pytest.raises(TypeError):
        poller.trigger(*wrong)  # type: ignore[arg-type]
    assert is_silent(world, poller)


def test_tasks_and_events_share_the_rounds(world: World, poller: Poller) -> None:
    """Tasks that wait do not keep a poll_once from dispatching what is ready."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here))
    there.send(b"x")
    poller.trigger(HIGH, int, 0)
    assert poller.poll_once() == 1
