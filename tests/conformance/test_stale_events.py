"""Events of what is no longer: deleted, closed, and its number used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from netpoll import NotRegistered, PollAttachment, Poller
from tests.conformance.worlds import (
    HIGH,
    IN,
    MODS,
    OUT,
    PATIENCE,
    Calls,
    Socket,
    World,
    agree,
    ignore,
    is_silent,
    needs,
)


@pytest.fixture
def poller(world: World) -> Iterator[Poller]:
    """A poller whose table of callbacks must hold what is registered and no more in the end."""
    poller = world.open_poller()
    yield poller
    poller.poll_once(0)
    assert set(poller.callbacks) == {*poller.attachments, poller.wakeup.fd}


@pytest.fixture(params=[False, True], ids=["closed for good", "duplicate survives"])
def survives(request: pytest.FixtureRequest) -> bool:
    """Whether a duplicate keeps alive in the kernel what is closed."""
    survives: bool = request.param
    return survives


class Batch:
    """Two connections that are readable at once; whichever is called first acts on the other."""

    def __init__(self, world: World, poller: Poller, act: Callable[[Socket], object]) -> None:
        self.calls: list[str] = []
        self._world = world
        self._act = act
        self._here: dict[int, Socket] = {}
        for _ in range(2):
            here, there = world.pair()
            there.send(b"old")
            self._here[here.fileno()] = here
            poller.add_read(PollAttachment(here, self._called))

    def _called(self, fd: int, event: int, flags: int) -> None:
        assert self._world.read(fd) == b"old"
        self.calls.append("second" if self.calls else "first")
        if len(self.calls) == 1:
            (other,) = self._here.keys() - {fd}
            self._act(self._here[other])

    def new(self, fd: int | Socket) -> PollAttachment:
        """Return an attachment of another registration, which is written ``b"new"`` to."""

        def callback(fd: int, event: int, flags: int) -> None:
            assert event & OUT or self._world.read(fd) == b"new"
            self.calls.append("new")

        return PollAttachment(fd, callback)


# ---- within a batch ---------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["stays open", "closed before", "closed after"])
def test_deleted_in_the_batch(world: World, poller: Poller, closed: str) -> None:
    """A callback deletes another connection, closing it or not: that one is not called."""

    def act(other: Socket) -> None:
        number = other.fileno()
        if closed == "closed before":
            other.close()
        poller.delete(number)
        if closed == "closed after":
            other.close()

    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    assert batch.calls == ["first"]
    assert agree(world, poller)


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "not deleted"])
def test_number_reused_in_the_batch(
    world: World, poller: Poller, deleted: bool, survives: bool
) -> None:
    """A new socket that takes the number never sees the old one's event, but its own."""
    here, there = world.pair()

    def act(other: Socket) -> None:
        if survives:
            world.dup(other)
        if deleted:
            poller.delete(other)
        poller.add_read(batch.new(world.renumber(other, here)))

    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(3)] == [1, 0, 0]
    there.send(b"new")
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    assert batch.calls == ["first", "new"]
    assert agree(world, poller)


def test_number_reused_and_ready(world: World, poller: Poller) -> None:
    """What is ready at once under the number is called in the next round, for its own event."""
    here, _ = world.pair()

    def act(other: Socket) -> None:
        poller.delete(other)
        poller.add_write(batch.new(world.renumber(other, here)))

    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 1]
    assert batch.calls == ["first", "new"]


def test_number_reused_twice_in_the_batch(world: World, poller: Poller, survives: bool) -> None:
    """Only the latest of those that had the number is called."""
    (here, there), (last, peer) = world.pair(), world.pair()

    def act(other: Socket) -> None:
        if survives:
            world.dup(other)
        number = world.renumber(other, here)
        poller.add_read(PollAttachment(number, lambda *_: pytest.fail("one that is over")))
        world.close(number)
        assert world.dup2(last, number) == number
        poller.add_read(batch.new(number))
        there.send(b"x")

    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    peer.send(b"new")
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    assert batch.calls == ["first", "new"]


def test_number_reused_and_not_added(world: World, poller: Poller, survives: bool) -> None:
    """Nobody is called for a file that took a deleted number."""
    here, there = world.pair()
    there.send(b"new")

    def act(other: Socket) -> None:
        if survives:
            world.dup(other)
        poller.delete(other)
        world.renumber(other, here)

    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    assert batch.calls == ["first"]


def test_deleted_and_added_again_in_the_batch(world: World, poller: Poller) -> None:
    """The same connection, added anew, is called in the next round, by its new callback."""

    def act(other: Socket) -> None:
        assert other.recv(64) == b"old"
        poller.delete(other)
        poller.add_write(batch.new(other))

    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 1]
    assert batch.calls == ["first", "new"]


def test_deleted_twice_in_the_batch(world: World, poller: Poller) -> None:
    """Deleted, added and deleted again: nothing is called any more."""

    def act(other: Socket) -> None:
        poller.delete(other)
        poller.add_write(batch.new(other))
        poller.delete(other)

    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    assert batch.calls == ["first"]
    assert agree(world, poller)


def test_modified_in_the_batch(world: World, poller: Poller) -> None:
    """The new attachment's callback gets the event that is in the batch already."""

    def act(other: Socket) -> None:
        poller.mod_read(PollAttachment(other, batch_of_another.callback))

    calls = Calls()
    batch_of_another = calls.of(0, "modified", then=world.read)
    batch = Batch(world, poller, act)
    assert [poller.poll_once(0) for _ in range(2)] == [2, 0]
    assert (batch.calls, calls.names) == (["first"], ["modified"])


@needs("oneshot")
def test_oneshot_modified_in_the_batch(world: World, poller: Poller) -> None:
    """A one-shot whose event is in the batch, armed again by another callback, is called once."""
    calls = Calls()
    ends = [world.pair() for _ in range(2)]

    def arm_the_others(fd: int) -> None:
        for here, _ in ends:
            if len(calls.names) == 1 and here.fileno() != fd:
                poller.mod_read(calls.of(here), oneshot=True)

    for here, there in ends:
        there.send(b"x")
        poller.add_read(calls.of(here, then=arm_the_others), oneshot=True)
    assert [poller.poll_once(0) for _ in range(2)] == [2, 0]
    assert len(calls.names) == 2


def test_callback_that_replaces_its_own_registration(world: World, poller: Poller) -> None:
    """It may delete and add itself, in every round."""
    here, there = world.pair()
    calls = Calls()

    def again(fd: int) -> None:
        poller.delete(fd)
        poller.add_read(attachment)

    attachment = calls.of(here, then=again)
    poller.add_read(attachment)
    there.send(b"x")
    assert calls.in_rounds(poller, 3) == [IN] * 3


def test_deleted_by_a_task(world: World, poller: Poller) -> None:
    """What a task deletes is not called in the next round, nor is what it adds instead lost."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here, "old"))

    def replace(_: object) -> None:
        poller.delete(here)
        poller.add_read(calls.of(here, "new", then=world.read))

    there.send(b"x")
    poller.trigger(HIGH, replace)
    assert [poller.poll_once(0) for _ in range(2)] == [1, 0]
    assert calls.names == ["new"]


# ---- closed without delete --------------------------------------------------------------------


def test_deleted_after_the_close(world: World, poller: Poller, survives: bool) -> None:
    """It succeeds; events of a surviving duplicate do not appear, also under a new registration."""
    (here, there), (other, peer) = world.pair(), world.pair()
    calls = Calls()
    poller.add_read(calls.of(here, "old"))
    number = here.fileno()
    if survives:
        world.dup(here)
    here.close()
    poller.delete(number)
    with pytest.raises(NotRegistered):
        poller.delete(number)
    if survives:
        there.send(b"x")
    assert calls.in_rounds(poller, 2) == [0, 0]
    poller.add_read(calls.of(world.dup2(other, number), "new"))
    assert calls.in_rounds(poller, 2) == [0, 0]
    peer.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    assert calls.names == ["new"]
    assert agree(world, poller)


def test_number_added_again(world: World, poller: Poller, survives: bool) -> None:
    """The new registration replaces the old one and has its own events only."""
    (here, there), (other, peer) = world.pair(), world.pair()
    calls = Calls()
    poller.add_read(calls.of(here, "old"))
    if survives:
        world.dup(here)
    number = world.renumber(here, other)
    new = calls.of(number, "new")
    poller.add_read(new)
    assert poller.attachments == {number: new}
    if survives:
        there.send(b"x")
    assert calls.in_rounds(poller, 2) == [0, 0]
    peer.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    assert calls.names == ["new"]
    assert agree(world, poller)
    poller.delete(number)
    assert calls.in_rounds(poller, 1) == [0]


@pytest.mark.parametrize("mod", MODS)
def test_number_modified(
    world: World, poller: Poller, mod: Callable[..., None], survives: bool
) -> None:
    """It is NotRegistered: the old registration is forgotten, the new file can be added."""
    (here, there), (other, peer) = world.pair(), world.pair()
    calls = Calls()
    poller.add_read(calls.of(here, "old"))
    if survives:
        world.dup(here)
    number = world.renumber(here, other)
    with pytest.raises(NotRegistered):
        mod(poller, calls.of(number, "modified"))
    assert not poller.attachments
    assert agree(world, poller)
    if survives:
        there.send(b"x")
    peer.send(b"x")
    assert calls.in_rounds(poller, 2) == [0, 0]
    poller.add_read(calls.of(number, "new"))
    assert calls.in_rounds(poller, 1) == [IN]
    assert calls.names == ["new"]


def test_number_deleted(world: World, poller: Poller, survives: bool) -> None:
    """It ends the old registration; the file that has the number now is not reported."""
    (here, there), (other, peer) = world.pair(), world.pair()
    poller.add_read(PollAttachment(here, ignore))
    if survives:
        world.dup(here)
    number = world.renumber(here, other)
    poller.delete(number)
    if survives:
        there.send(b"x")
    peer.send(b"x")
    assert is_silent(world, poller)
    assert not poller.attachments
    assert agree(world, poller)


def test_number_neither_added_nor_deleted(world: World, poller: Poller) -> None:
    """The old registration's callback is never called for the file that has the number now."""
    (here, _), (other, peer) = world.pair(), world.pair()
    calls = Calls()
    poller.add_read_write(calls.of(here))
    number = world.renumber(here, other)
    peer.send(b"x")
    assert calls.in_rounds(poller, 2) == [0, 0]
    poller.delete(number)


def test_others_survive_when_the_kernels_set_is_rebuilt(world: World, poller: Poller) -> None:
    """A closed one whose duplicate survives is deleted: the others are reported as before."""
    (closed, _), (here, there), (writing, _) = (world.pair() for _ in range(3))
    calls = Calls()
    poller.add_read(PollAttachment(closed, ignore))
    poller.add_read(calls.of(here, "here"))
    poller.add_write(calls.of(writing, "writing"))
    number = closed.fileno()
    world.dup(closed)
    closed.close()
    poller.delete(number)
    assert calls.in_rounds(poller, 2) == [OUT, OUT]
    poller.delete(writing)
    there.send(b"x")
    assert calls.in_rounds(poller, 2) == [IN, IN]
    assert agree(world, poller)


@pytest.mark.parametrize("reused", [False, True], ids=["closed", "reused"])
def test_strangers_stay_out_when_the_kernels_set_is_rebuilt(
    world: World, poller: Poller, reused: bool
) -> None:
    """What took another closed number is not reported to that number's old callback."""
    (closed, _), (forgotten, _), (here, there) = (world.pair() for _ in range(3))
    calls = Calls()
    poller.add_read(PollAttachment(closed, ignore))
    poller.add_read(calls.of(forgotten))
    number = closed.fileno()
    world.dup(closed)
    closed.close()
    if reused:
        world.renumber(forgotten, here)
    else:
        forgotten.close()
    poller.delete(number)
    there.send(b"x")
    assert calls.in_rounds(poller, 2) == [0, 0]


@needs("oneshot")
def test_disarmed_oneshot_when_the_kernels_set_is_rebuilt(world: World, poller: Poller) -> None:
    """One that fired stays silent, and mod_* arms it again."""
    (closed, _), (here, there) = world.pair(), world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), oneshot=True)
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    poller.add_read(PollAttachment(closed, ignore))
    number = closed.fileno()
    world.dup(closed)
    closed.close()
    poller.delete(number)
    assert calls.in_rounds(poller, 2) == [0, 0]  # though the new set reports it once more
    poller.mod_read(calls.of(here), oneshot=True)
    assert calls.in_rounds(poller, 2) == [IN, 0]


@pytest.mark.parametrize("when", ["before", "during"])
def test_close_of_a_registered_one_does_not_break_the_wait(
    world: World, poller: Poller, when: str
) -> None:
    """The wait goes on, for the others and for as long as it was to last."""
    (closed, _), (here, there) = world.pair(), world.pair()
    calls = Calls()
    number = closed.fileno()
    poller.add_read(calls.of(closed, "closed"))
    poller.add_read(calls.of(here, "here"))
    began = world.clock()
    if when == "before":
        closed.close()
    else:
        world.after(world.tick, closed.close)
    assert poller.poll_once(2 * world.tick) == 0
    assert world.passed(began, 2 * world.tick)
    there.send(b"x")
    assert poller.poll_once(PATIENCE) == 1
    assert calls.names == ["here"]
    poller.delete(number)
