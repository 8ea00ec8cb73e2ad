"""A forked child: it may close its copies of the poller, and nothing else."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import pytest

from netpoll import PollAttachment, Poller
from tests.conformance.worlds import (
    ADDS,
    HIGH,
    IN,
    LOW,
    MODS,
    PATIENCE,
    Calls,
    World,
    agree,
    ignore,
    on_real_kernels,
)

pytestmark = [
    on_real_kernels,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]


def told_by_the_child(work: Callable[[], object], called: list[int] | None = None) -> str:
    """Run `work`, which forks or is run in a child of this process; return what the child tells.

    That is the message of what `work` raised there, and how many `called` then holds.
    """
    parent = os.getpid()
    reading, writing = os.pipe()
    said = "no exception"
    try:
        if called is not None or os.fork() == 0:
            work()
    except BaseException as error:
        if os.getpid() == parent:
            raise
        said = f"{type(error).__name__}: {error}"
    finally:
        if os.getpid() != parent:
            os.write(writing, f"{said} ({len(called or [])} called)".encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        told = file.read().decode()
    os.wait()
    return told


def use_in_every_way(
    poller: Poller, known: PollAttachment, unknown: PollAttachment
) -> list[Callable[[], object]]:
    """Return calls of all methods but `close` and `stop`."""
    return [
        *(functools.partial(add, poller, unknown) for add in ADDS),
        *(functools.partial(mod, poller, known) for mod in MODS),
        functools.partial(poller.delete, known.fd),
        functools.partial(poller.trigger, LOW, print),
        functools.partial(poller.call_later, 0, print),
        functools.partial(poller.poll_once, 0),
        poller.polling,
        poller.fileno,
        poller.__enter__,
    ]


def test_child_may_not_use_the_poller(world: World, poller: Poller) -> None:
    """Every method is a RuntimeError that names the owner; stop does nothing."""
    (known, there), (unknown, _) = world.pair(), world.pair()
    calls = Calls()
    poller.add_read(calls.of(known))

    def work() -> None:
        methods = use_in_every_way(poller, calls.of(known), PollAttachment(unknown, ignore))
        for method in methods:
            with pytest.raises(RuntimeError, match=f"belongs to process {os.getppid()}"):
                method()
        poller.stop()

    assert told_by_the_child(work) == "no exception (0 called)"
    assert agree(world, poller)
    assert list(poller.attachments) == [known.fileno()]
    assert calls.in_rounds(poller, 1) == [0]
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]


def test_close_in_the_child_leaves_the_parent_alone(world: World, poller: Poller) -> None:
    """The parent's registrations, tasks, timers and wakeups stay."""
    here, there = world.pair()
    ran: list[str] = []
    poller.add_read(PollAttachment(here, lambda *_: ran.append("event")))
    poller.trigger(HIGH, ran.append, "task")
    poller.call_later(0, ran.append, "timer")

    def work() -> None:
        poller.close()
        poller.close()
        assert poller.closed

    assert told_by_the_child(work) == "no exception (0 called)"
    assert agree(world, poller)
    there.send(b"x")
    assert poller.poll_once() == 1
    assert ran == ["timer", "task", "event"]
    poller.trigger(HIGH, ran.append, "later")
    assert poller.poll_once(PATIENCE) in (0, 1)
    assert "later" in ran


def test_close_in_the_child_gives_its_copies_back(world: World, poller: Poller) -> None:
    """Whatever took their numbers in the child meanwhile is left alone."""

    def work() -> None:
        before = world.open_descriptors()
        poller.close()
        after = world.open_descriptors()
        assert len(after) < len(before)
        ends = [world.pipe() for _ in range(3)]
        poller.close()
        for reading, writing in ends:
            world.write(writing, b"x")
            assert world.read(reading) == b"x"

    assert told_by_the_child(work) == "no exception (0 called)"


@pytest.mark.parametrize("once", [False, True], ids=["polling", "poll_once"])
def test_fork_in_a_callback(world: World, poller: Poller, once: bool) -> None:
    """In the child the call raises RuntimeError and dispatches nothing more; the parent goes on."""
    called: list[int] = []

    def callback(fd: int, event: int, flags: int) -> None:
        called.append(fd)
        poller.trigger(HIGH, called.append, -1)
        if len(called) == 1:
            os.fork()
        poller.stop()

    for _ in range(3):
        poller.add_write(PollAttachment(world.pair()[0], callback))
    run = poller.poll_once if once else poller.polling
    told = told_by_the_child(run, called)
    assert told == f"RuntimeError: {foreign(poller)} (1 called)"
    assert len(called) == 6
    assert agree(world, poller)


@pytest.mark.parametrize("once", [False, True], ids=["polling", "poll_once"])
@pytest.mark.parametrize("timer", [False, True], ids=["task", "timer"])
def test_fork_in_a_task_or_timer(world: World, poller: Poller, timer: bool, once: bool) -> None:
    """In the child no further task or timer runs and no event is dispatched; the parent goes on."""
    called: list[int] = []

    def fork(number: int) -> None:
        called.append(number)
        os.fork()

    if timer:
        poller.call_later(0, fork, 1)
        poller.call_later(0, called.append, 2)
    else:
        poller.trigger(HIGH, fork, 1)
    poller.trigger(HIGH, called.append, 3)
    poller.trigger(HIGH, lambda _: poller.stop())
    poller.add_write(PollAttachment(world.pair()[0], lambda fd, *_: called.append(4)))
    run = poller.poll_once if once else poller.polling
    told = told_by_the_child(run, called)
    assert told == f"RuntimeError: {foreign(poller)} (1 called)"
    assert called == [1, *([2] if timer else []), 3]


def foreign(poller: Poller) -> str:
    """Return what the error in a child says."""
    return f"this poller belongs to process {os.getpid()}: open one of its own in a child"


def test_child_may_open_its_own(world: World, poller: Poller) -> None:
    """A poller that a child opens works there."""
    here, there = world.pair()

    def work() -> None:
        calls = Calls()
        with world.open_poller() as own:
            own.add_read(calls.of(here))
            there.send(b"x")
            assert calls.in_rounds(own, 1) == [IN]

    assert told_by_the_child(work) == "no exception (0 called)"
