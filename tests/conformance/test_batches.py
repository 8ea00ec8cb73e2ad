"""How many events a wait may return, and what becomes of a batch that was not dispatched."""

from __future__ import annotations

import pytest

from netpoll import AcceptSocketError, EngineShutdown, PollAttachment, Poller
from tests.conformance.worlds import HIGH, Calls, Socket, World, ignore

SIZES = {"epoll": (128, 32, 1024), "kqueue": (64, 16, 512)}
"""The first, the smallest and the largest batch."""

EXITS = [EngineShutdown(), AcceptSocketError("no"), KeyboardInterrupt(), SystemExit(3)]
"""What ends a call in the middle of its batch."""

exits = pytest.mark.parametrize("error", EXITS, ids=[type(error).__name__ for error in EXITS])
both_calls = pytest.mark.parametrize("once", [False, True], ids=["polling", "poll_once"])

# ---- size -------------------------------------------------------------------------------------


def test_batch_size_follows_gnet(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full batch doubles it, one under half full halves it, an empty one changes nothing.

    select returns all there is: size means nothing to it, and stays.
    """
    first, least, most = SIZES.get(world.backend, (1024, 1024, 1024))
    returned = [first // 2, 0, first // 2 - 1, 0, first // 4, first // 4 - 1, 0, 1, 1, 1, 1, 0]
    returned += [*(least << doublings for doublings in range(8)), most, most // 2, most // 2 - 1, 0]
    asked: list[int] = []

    def wait(timeout: float | None, size: int) -> list[tuple[int, int]]:
        asked.append(size)
        if len(asked) == len(returned):
            poller.stop()
        return [(here.fileno(), 1)] * returned[len(asked) - 1]

    here, _ = world.pair()
    poller.add_read(PollAttachment(here, ignore))
    monkeypatch.setattr(poller.backend, "wait", wait)
    poller.polling()
    assert asked == sizes_of(returned, first, least, most)
    assert (asked[0], min(asked), max(asked)) == (first, least, most)


def sizes_of(returned: list[int], size: int, least: int, most: int) -> list[int]:
    """Return the sizes that gnet's event list has, before each wait that returned so many."""
    sizes = []
    for count in returned:
        sizes.append(size)
        if count >= size:
            size = min(size * 2, most)
        elif 0 < count < size // 2:
            size = max(size // 2, least)
    return sizes


def test_batch_is_no_longer_than_its_size(world: World, poller: Poller) -> None:
    """Of 200 that are ready a wait returns as many as fit, and the following one more.

    The size outlives the call.
    """
    here, there = world.pair()
    there.send(b"x")
    for _ in range(200):
        poller.add_read(PollAttachment(world.dup(here), ignore))
    rounds = [poller.poll_once(0) for _ in range(4)]
    expected = {"epoll": [128, 200, 200, 200], "kqueue": [64, 128, 200, 200]}
    assert rounds == expected.get(world.backend, [200] * 4)


def test_batch_counts_descriptors(world: World, poller: Poller) -> None:
    """The list of kqueue, with two events of each, is full at half as many; nobody starves."""
    here, there = world.pair()
    there.send(b"x")
    called: set[int] = set()
    for _ in range(100):
        poller.add_read_write(PollAttachment(world.dup(here), lambda fd, *_: called.add(fd)))
    rounds = [poller.poll_once(0) for _ in range(4)]
    assert rounds == ([32] * 4 if world.backend == "kqueue" else [100] * 4)
    assert len(called) == 100


# ---- kept -------------------------------------------------------------------------------------


class Three:
    """Three connections that are readable; the first callback ends the call by an exception."""

    def __init__(self, world: World, poller: Poller, error: BaseException) -> None:
        self.called: list[int] = []
        self.here: dict[int, Socket] = {}
        self._error = error
        for _ in range(3):
            here, there = world.pair()
            there.send(b"x")
            self.here[here.fileno()] = here
            poller.add_read(PollAttachment(here, self._callback))

    def _callback(self, fd: int, event: int, flags: int) -> None:
        self.called.append(fd)
        if len(self.called) == 1:
            raise self._error

    def drain(self) -> set[int]:
        """Read everything, so that the kernel has no more events; return who was not called."""
        for here in self.here.values():
            here.recv(64)
        return self.here.keys() - set(self.called)


def leave(poller: Poller, error: BaseException, once: bool) -> None:
    """Run the loop until `error` ends it, as it is."""
    if isinstance(error, EngineShutdown):
        assert poller.poll_once(0) == 1 if once else poller.polling() is None  # type: ignore[func-returns-value]
    else:
        with pytest.raises(type(error)) as caught:
            poller.poll_once(0) if once else poller.polling()
        assert caught.value is error


@both_calls
@exits
def test_kept_batch_is_dispatched_first(
    world: World, poller: Poller, error: BaseException, once: bool
) -> None:
    """What a call had not dispatched when it ended the next one does, before it waits."""
    three = Three(world, poller, error)
    leave(poller, error, once)
    left = three.drain()
    assert len(left) == 2
    assert poller.poll_once(0) == 2
    assert set(three.called[1:]) == left
    assert poller.poll_once(0) == 0


@exits
def test_kept_event_of_what_is_deleted(world: World, poller: Poller, error: BaseException) -> None:
    """What is deleted between two calls is not called by the next."""
    three = Three(world, poller, error)
    leave(poller, error, once=True)
    for fd in three.drain():
        poller.delete(fd)
    assert poller.poll_once(0) == 0
    assert len(three.called) == 1


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "not deleted"])
def test_kept_event_of_a_number_that_is_reused(world: World, poller: Poller, deleted: bool) -> None:
    """What takes a number between two calls does not get the kept event, but its own."""
    three = Three(world, poller, EngineShutdown())
    leave(poller, EngineShutdown(), once=True)
    calls = Calls()
    peers = []
    for fd in three.drain():
        here, there = world.pair()
        if deleted:
            poller.delete(fd)
        world.renumber(three.here[fd], here)
        poller.add_read(calls.of(fd, "new"))
        peers.append(there)
    assert poller.poll_once(0) == 0
    for there in peers:
        there.send(b"x")
    assert poller.poll_once(0) == 2
    assert calls.names == ["new", "new"]


def test_kept_event_of_what_is_modified(world: World, poller: Poller) -> None:
    """It goes to the callback that is the registration's by then."""
    three = Three(world, poller, EngineShutdown())
    leave(poller, EngineShutdown(), once=True)
    calls = Calls()
    for fd in three.drain():
        poller.mod_read(calls.of(fd, "modified"))
    assert poller.poll_once(0) == 2
    assert calls.names == ["modified"] * 2


def test_kept_batch_and_another_callback(world: World, poller: Poller) -> None:
    """A kept batch goes to the callback of the call that dispatches it."""
    three = Three(world, poller, EngineShutdown())
    leave(poller, EngineShutdown(), once=True)
    left = three.drain()
    called: list[int] = []
    assert poller.poll_once(0, lambda fd, *_: called.append(fd)) == 2
    assert set(called) == left
    assert len(three.called) == 1


def test_kept_batch_needs_no_wait(world: World, poller: Poller) -> None:
    """poll_once() without a timeout returns after a kept batch instead of waiting for more."""
    three = Three(world, poller, EngineShutdown())
    leave(poller, EngineShutdown(), once=True)
    three.drain()
    began = world.clock()
    assert poller.poll_once() == 2
    assert world.did_not_wait(began)


@both_calls
def test_tasks_queued_before_an_exit_are_kept(world: World, poller: Poller, once: bool) -> None:
    """Tasks that the ended round did not run are run by the next call."""
    ran: list[str] = []
    Three(world, poller, KeyboardInterrupt())
    poller.trigger(HIGH, lambda _: poller.trigger(HIGH, ran.append, "triggered by a task"))
    with pytest.raises(KeyboardInterrupt):
        poller.poll_once(0) if once else poller.polling()
    poller.trigger(HIGH, ran.append, "triggered in between")
    poller.stop()
    poller.polling()
    assert ran == ["triggered by a task", "triggered in between"]
