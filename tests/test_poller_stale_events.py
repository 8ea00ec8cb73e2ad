"""Events of what is no longer: deleted, closed, and its number used again, within a batch."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

import netpoll
from netpoll import PollAttachment, Poller

Act = Callable[[int], None]


@pytest.fixture
def poller() -> Iterator[Poller]:
    failures: list[Exception] = []
    with netpoll.open_poller(on_error=lambda _, error: failures.append(error)) as poller:
        yield poller
        poller.poll_once(0)
        assert set(poller.callbacks) == {*poller.attachments, poller.wakeup.fd}
    assert failures == []


class Pair:
    """Two connections that are readable at once; whichever is called first acts on the other."""

    def __init__(self, poller: Poller, edge_triggered: bool = False) -> None:
        self.poller = poller
        self.here: dict[int, socket.socket] = {}
        self.there: dict[int, socket.socket] = {}
        self.calls: list[str] = []
        self.act: Act = lambda other: None
        for _ in range(2):
            here, there = socket.socketpair()
            self.here[here.fileno()], self.there[here.fileno()] = here, there
            poller.add_read(PollAttachment(here, self.callback), edge_triggered)
            there.send(b"x")

    def callback(self, fd: int, event: int, flags: int) -> None:
        """Note the call; the first one acts on the other connection."""
        self.calls.append("first" if not self.calls else "second")
        if len(self.calls) == 1:
            (other,) = set(self.here) - {fd}
            self.act(other)

    def close(self) -> None:
        """Close every socket."""
        for one in (*self.here.values(), *self.there.values()):
            one.close()


@pytest.fixture(params=[False, True], ids=["level", "edge"])
def pair(poller: Poller, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(poller, edge_triggered=request.param)
    yield pair
    pair.close()


@pytest.mark.parametrize("close_first", [None, False, True])
def test_deleted_in_the_batch(poller: Poller, pair: Pair, close_first: bool | None) -> None:
    """A callback deletes another connection, closing it or not: that one is not called."""

    def act(other: int) -> None:
        if close_first:
            pair.here[other].close()
        poller.delete(other)
        pair.here[other].close() if close_first is False else None

    pair.act = act
    assert poller.poll_once(0) == 1
    assert pair.calls == ["first"]


@pytest.mark.parametrize("deleted", [True, False])
def test_number_reused_in_the_batch(poller: Poller, pair: Pair, deleted: bool) -> None:
    """A new registration of the number, the old one deleted or only closed, gets its own events.

    Not the one that is in the batch already.
    """
    reused: dict[int, socket.socket] = {}

    def act(other: int) -> None:
        if deleted:
            poller.delete(other)
        here, there = socket.socketpair()
        pair.here[other].close()
        os.dup2(here.fileno(), other)
        here.close()
        reused[other] = there
        poller.add_read(PollAttachment(other, lambda *_: pair.calls.append("new")))

    pair.act = act
    assert poller.poll_once(0) == 1
    assert pair.calls == ["first"]
    ((number, there),) = reused.items()
    there.send(b"x")
    poller.poll_once(0)
    assert "new" in pair.calls
    poller.delete(number)
    os.close(number)
    there.close()


def test_deleted_and_added_again_in_the_batch(poller: Poller, pair: Pair) -> None:
    """The same connection, added anew in the batch, is reported to the new callback next round."""

    def act(other: int) -> None:
        poller.delete(other)
        poller.add_read(PollAttachment(other, lambda *_: pair.calls.append("new")), True)

    pair.act = act
    assert poller.poll_once(0) == 1
    assert pair.calls == ["first"]
    poller.poll_once(0)
    assert "new" in pair.calls


def test_replaced_in_the_batch_while_polling(
    poller: Poller, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In polling() too the new registration is called in the very next round."""
    waits: list[int] = []
    wait = poller.backend.wait

    def counted(timeout: float | None, size: int) -> list[tuple[int, int]]:
        waits.append(len(pair.calls))
        if len(waits) == 3:
            poller.stop()
        return wait(0, size)

    def act(other: int) -> None:
        poller.delete(other)
        poller.add_read(PollAttachment(other, lambda *_: pair.calls.append("new")))

    pair.act = act
    monkeypatch.setattr(poller.backend, "wait", counted)
    poller.polling()
    assert pair.calls[0] == "first"
    assert "new" in pair.calls[1 : waits[2]]


def test_deletes_and_adds_itself(poller: Poller, pair: Pair) -> None:
    """A callback may replace its own registration, in the middle of the batch and at its end."""
    calls: list[int] = []

    def again(fd: int, event: int, flags: int) -> None:
        calls.append(fd)
        poller.delete(fd)
        poller.add_read(PollAttachment(fd, again), True)

    for fd in list(poller.attachments):
        poller.mod_read(PollAttachment(fd, again), True)
    assert [poller.poll_once(0) for _ in range(3)] == [2, 2, 2]
    assert len(calls) == 6


def test_deleted_twice_in_the_batch(poller: Poller, pair: Pair) -> None:
    """Deleted, added and deleted again in one batch: nothing is called any more."""

    def act(other: int) -> None:
        poller.delete(other)
        poller.add_read(PollAttachment(other, lambda *_: pair.calls.append("new")))
        poller.delete(other)

    pair.act = act
    assert poller.poll_once(0) == 1
    poller.poll_once(0)
    assert pair.calls.count("new") == 0
    assert len(poller.attachments) == 1


def test_deleted_between_two_calls(poller: Poller, pair: Pair) -> None:
    """Events that a call left over are dropped when they are deleted before the next call."""

    def act(other: int) -> None:
        raise netpoll.EngineShutdown

    pair.act = act
    assert poller.poll_once(0) == 1
    called = poller.attachments.keys()
    for fd in list(called):
        poller.delete(fd)
    assert poller.poll_once(0) == 0
    assert pair.calls == ["first"]


def test_number_reused_between_two_calls(poller: Poller, pair: Pair) -> None:
    """A kept batch does not reach what took the number meanwhile, which gets its own event."""
    others: list[int] = []

    def act(other: int) -> None:
        others.append(other)
        raise netpoll.EngineShutdown

    pair.act = act
    assert poller.poll_once(0) == 1
    (other,) = others
    poller.delete(other)
    poller.add_write(PollAttachment(other, lambda _, event, __: pair.calls.append(str(event))))
    poller.poll_once(0)
    assert "1" not in pair.calls
    poller.poll_once(0)
    assert str(netpoll.WRITE_EVENTS) in pair.calls


def test_other_callback_for_a_kept_batch(poller: Poller, pair: Pair) -> None:
    """A kept batch is dispatched to the callback of the call that dispatches it, unless deleted."""
    others: list[int] = []
    calls: list[int] = []

    def act(other: int) -> None:
        others.append(other)
        raise netpoll.EngineShutdown

    pair.act = act
    assert poller.poll_once(0) == 1
    assert poller.poll_once(0, lambda fd, *_: calls.append(fd)) >= 1
    assert calls[0] == others[0]
    assert pair.calls == ["first"]


def test_oneshot_armed_again_by_another_callback(poller: Poller) -> None:
    """A mod_* of a one-shot whose event is in the batch already does not call it twice."""
    pair = Pair(poller)
    for fd in list(poller.attachments):
        poller.mod_read(PollAttachment(fd, pair.callback), oneshot=True)

    def act(other: int) -> None:
        poller.mod_read(PollAttachment(other, pair.callback), oneshot=True)

    pair.act = act
    assert poller.poll_once(0) == 2
    assert poller.poll_once(0) == 0
    assert pair.calls == ["first", "second"]
    pair.close()
