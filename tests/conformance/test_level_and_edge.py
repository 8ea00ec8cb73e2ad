"""When an event is reported: level, edge, one-shot, exclusive, and what mod_* changes."""

from __future__ import annotations

import functools
import socket
from typing import Any

import pytest

import netpoll
from netpoll import Poller
from tests.conformance.worlds import (
    ADDS,
    IN,
    LACKS,
    MODS,
    OUT,
    PATIENCE,
    PRI,
    RDHUP,
    Calls,
    World,
    drain,
    fill,
    ignore,
    is_silent,
    needs,
    on_real_kernels,
)

METHODS_AND_MODES = [
    *((method, mode) for method in (*ADDS, *MODS) for mode in ("edge_triggered", "oneshot")),
    *((add, "exclusive") for add in ADDS),
]

# ---- level ------------------------------------------------------------------------------------


def test_level_reports_unread_bytes(world: World, poller: Poller) -> None:
    """Every round reports unread bytes, also after a partial read, until all are read."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here))
    assert calls.in_rounds(poller, 2) == [0, 0]
    there.send(b"ab")
    assert calls.in_rounds(poller, 2) == [IN, IN]
    here.recv(1)
    assert calls.in_rounds(poller, 2) == [IN, IN]
    here.recv(1)
    assert calls.in_rounds(poller, 2) == [0, 0]


def test_level_reports_room_to_write(world: World, poller: Poller) -> None:
    """Every round reports room, none when the buffer is full, and again when it was drained."""
    here, there = world.pair()
    calls = Calls()
    poller.add_write(calls.of(here))
    assert calls.in_rounds(poller, 2) == [OUT, OUT]
    sent = fill(here)
    assert calls.in_rounds(poller, 2) == [0, 0]
    assert len(drain(there)) == sent
    assert calls.in_rounds(poller, 2) == [OUT, OUT]


def test_listener_is_readable_until_accepted(world: World, poller: Poller) -> None:
    """A connection that waits to be accepted makes its listener readable."""
    listener = world.listener()
    calls = Calls()
    poller.add_read(calls.of(listener))
    assert calls.in_rounds(poller, 1) == [0]
    world.connect(listener)
    assert poller.poll_once(PATIENCE) == 1
    assert calls.in_rounds(poller, 1) == [IN]
    world.accept(listener)
    assert calls.in_rounds(poller, 1) == [0]


def test_pipe_is_reported_as_sockets_are(world: World, poller: Poller) -> None:
    """Both ends of a pipe: room to write, then bytes to read."""
    reading, writing = world.pipe()
    calls = Calls()
    poller.add_read(calls.of(reading))
    assert calls.in_rounds(poller, 1) == [0]
    world.write(writing, b"x")
    assert calls.in_rounds(poller, 2) == [IN, IN]
    poller.delete(reading)
    poller.add_write(calls.of(writing))
    assert calls.in_rounds(poller, 2) == [OUT, OUT]


def test_exactly_the_written_one_of_a_hundred(world: World, poller: Poller) -> None:
    """Of 100 connections the one that has data is reported, no other."""
    calls = Calls()
    pairs = [world.pair() for _ in range(100)]
    for number, (here, _) in enumerate(pairs):
        poller.add_read(calls.of(here, str(number)))
    pairs[42][1].send(b"x")
    assert calls.in_rounds(poller, 2) == [IN, IN]
    assert calls.names == ["42", "42"]


def test_two_pollers_on_one_descriptor(world: World, poller: Poller) -> None:
    """Both report it; what one deletes the other keeps."""
    here, there = world.pair()
    calls, others = Calls(), Calls()
    second = world.open_poller()
    poller.add_read(calls.of(here))
    second.add_read(others.of(here))
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == others.in_rounds(second, 1) == [IN]
    poller.delete(here)
    assert calls.in_rounds(poller, 1) == [0]
    assert others.in_rounds(second, 1) == [IN]


def test_one_call_for_both_directions(world: World, poller: Poller) -> None:
    """A descriptor that can be read and written is called once in a batch, with both bits."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read_write(calls.of(here))
    assert calls.in_rounds(poller, 1) == [OUT]
    there.send(b"x")
    assert calls.in_rounds(poller, 2) == [IN | OUT, IN | OUT]
    assert calls.names == [""] * 3


# ---- edge -------------------------------------------------------------------------------------


@needs("edge_triggered")
def test_edge_reports_each_change_once(world: World, poller: Poller) -> None:
    """OUT once, then silence; a partial read is silent, new data fires.

    epoll then looks at all that was asked for and says OUT too, kqueue says only what changed.
    """
    here, there = world.pair()
    calls = Calls()
    poller.add_read_write(calls.of(here), True)
    data = IN | OUT if world.backend == "epoll" else IN
    assert calls.in_rounds(poller, 3) == [OUT, 0, 0]
    there.send(b"ab")
    assert calls.in_rounds(poller, 2) == [data, 0]
    here.recv(1)
    assert calls.in_rounds(poller, 1) == [0]
    there.send(b"c")
    assert calls.in_rounds(poller, 2) == [data, 0]


@needs("edge_triggered")
def test_edge_reports_room_once_it_is_back(world: World, poller: Poller) -> None:
    """A full buffer is silent; when the peer has drained it, OUT is reported once."""
    here, there = world.pair()
    calls = Calls()
    poller.add_write(calls.of(here), True)
    assert calls.in_rounds(poller, 2) == [OUT, 0]
    fill(here)
    assert calls.in_rounds(poller, 1) == [0]
    drain(there)
    assert calls.in_rounds(poller, 2) == [OUT, 0]


@needs("edge_triggered")
def test_edge_reports_what_was_there_before(world: World, poller: Poller) -> None:
    """What is ready when it is added, or modified, counts as a change."""
    here, there = world.pair()
    calls = Calls()
    there.send(b"x")
    poller.add_read(calls.of(here), True)
    assert calls.in_rounds(poller, 2) == [IN, 0]
    poller.mod_read(calls.of(here), True)
    assert calls.in_rounds(poller, 2) == [IN, 0]
    poller.mod_read_write(calls.of(here), True)
    assert calls.in_rounds(poller, 2) == [IN | OUT, 0]


@needs("edge_triggered")
def test_mod_changes_the_trigger_mode(world: World, poller: Poller) -> None:
    """From level to edge and back, with the same bytes pending."""
    here, there = world.pair()
    calls = Calls()
    there.send(b"x")
    poller.add_read(calls.of(here))
    assert calls.in_rounds(poller, 2) == [IN, IN]
    poller.mod_read(calls.of(here), True)
    assert calls.in_rounds(poller, 2) == [IN, 0]
    poller.mod_read(calls.of(here))
    assert calls.in_rounds(poller, 2) == [IN, IN]


# ---- one-shot ---------------------------------------------------------------------------------


@pytest.mark.parametrize("edge_triggered", [False, True], ids=["level", "edge"])
@needs("oneshot")
def test_oneshot_is_silent_until_armed_again(
    world: World, poller: Poller, edge_triggered: bool
) -> None:
    """It fires once and stays registered; a mod_* with bytes pending fires it again."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), edge_triggered, oneshot=True)
    assert calls.in_rounds(poller, 1) == [0]
    there.send(b"x")
    assert calls.in_rounds(poller, 2) == [IN, 0]
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [0]
    assert list(poller.attachments) == [here.fileno()]
    with pytest.raises(netpoll.AlreadyRegistered):
        poller.add_read(calls.of(here))
    assert is_silent(world, poller)
    poller.mod_read(calls.of(here), edge_triggered, oneshot=True)
    assert calls.in_rounds(poller, 2) == [IN, 0]
    poller.delete(here)


@needs("oneshot")
def test_oneshot_of_both_directions_fires_once(world: World, poller: Poller) -> None:
    """The first event, of whichever direction, disarms both."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read_write(calls.of(here), oneshot=True)
    assert calls.in_rounds(poller, 1) == [OUT]
    there.send(b"x")
    assert is_silent(world, poller)
    poller.mod_read_write(calls.of(here), oneshot=True)
    assert calls.in_rounds(poller, 2) == [IN | OUT, 0]
    poller.mod_read_write(calls.of(here))
    assert calls.in_rounds(poller, 2) == [IN | OUT, IN | OUT]


@needs("oneshot")
def test_oneshot_armed_again_by_its_callback(world: World, poller: Poller) -> None:
    """A callback that calls mod_* on itself is called again, in the next round."""
    here, there = world.pair()
    calls = Calls()

    def again(fd: int) -> None:
        poller.mod_read(attachment, oneshot=True)

    attachment = calls.of(here, then=again)
    poller.add_read(attachment, oneshot=True)
    there.send(b"x")
    assert calls.in_rounds(poller, 3) == [IN] * 3


# ---- exclusive --------------------------------------------------------------------------------


@needs("exclusive")
def test_exclusive_wakes_one_poller(world: World, poller: Poller) -> None:
    """Of two pollers that share a descriptor, what happens while one waits is its alone.

    On a real kernel it may happen before the wait, and reach both: hence several attempts.
    """
    second = world.open_poller()

    def second_is_spared() -> bool:
        listener = world.listener()
        for each in (poller, second):
            each.add_read(Calls().of(listener), exclusive=True)
        world.after(world.tick, functools.partial(world.connect, listener))
        assert poller.poll_once(PATIENCE) == 1
        spared = second.poll_once(0) == 0
        for each in (poller, second):
            each.delete(listener)
        return spared

    assert any(second_is_spared() for _ in range(50))


@needs("exclusive")
def test_exclusive_does_not_report_a_half_close(world: World, poller: Poller) -> None:
    """The kernel refuses RDHUP and PRI with exclusive, so the end is IN alone."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), exclusive=True)
    there.shutdown(socket.SHUT_WR)
    assert calls.in_rounds(poller, 1) == [IN]


# ---- mod_* ------------------------------------------------------------------------------------


def test_mod_replaces_the_callback(world: World, poller: Poller) -> None:
    """From mod_* on the new attachment's callback is called."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here, "old"))
    there.send(b"x")
    new = calls.of(here, "new")
    poller.mod_read(new)
    assert poller.poll_once(0) == 1
    assert calls.names == ["new"]
    assert poller.attachments[here.fileno()] is new


# ---- the rest of an event ---------------------------------------------------------------------


@pytest.mark.parametrize(("method", "mode"), METHODS_AND_MODES)
def test_mode_that_a_backend_lacks(world: World, poller: Poller, method: Any, mode: str) -> None:
    """It is a NotImplementedError that changes nothing: no registration, or the one before."""
    here, there = world.pair()
    calls = Calls()
    there.send(b"x")
    if method in MODS:
        poller.add_read(calls.of(here))
    before = dict(poller.attachments)
    if mode in LACKS[world.backend]:
        with pytest.raises(NotImplementedError):
            method(poller, calls.of(here), **{mode: True})
        assert dict(poller.attachments) == before
        assert calls.in_rounds(poller, 2) == ([IN, IN] if before else [0, 0])
    else:
        method(poller, calls.of(here), **{mode: True})
        assert poller.poll_once(0) == 1


@on_real_kernels
def test_out_of_band_data(world: World, poller: Poller) -> None:
    """Read interest includes PRI: TCP's urgent byte is reported. kqueue has no filter for it."""
    here, there = world.connection()
    assert isinstance(there, socket.socket)
    calls = Calls()
    poller.add_read(calls.of(here))
    there.send(b"!", socket.MSG_OOB)
    if world.backend == "kqueue":
        there.send(b"x")
    assert poller.poll_once(PATIENCE) == 1
    assert calls.events == [IN if world.backend == "kqueue" else PRI]
    assert netpoll.is_read_event(calls.events[0])
    assert not netpoll.is_error_event(calls.events[0], calls.flags[0])


def test_raw_flags(world: World, poller: Poller) -> None:
    """`flags` carries what kevent(2) said: on kqueue EV_EOF at the end; 0 on other backends."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read_write(calls.of(here))
    there.send(b"x")
    poller.poll_once(0)
    there.shutdown(socket.SHUT_WR)
    poller.poll_once(0)
    if world.backend == "kqueue":
        end_of_file: int = world.kernel.KQ_EV_EOF
        assert [flags & end_of_file for flags in calls.flags] == [0, end_of_file]
    else:
        assert calls.flags == [0, 0]
    assert not netpoll.is_error_event(IN | RDHUP, calls.flags[1])


def test_one_callback_for_all(world: World, poller: Poller) -> None:
    """`polling(callback)` calls that one for every descriptor, without it each one's own."""
    (here, there), (other, peer) = world.pair(), world.pair()
    own, common = Calls(), Calls()
    for one, end in ((here, there), (other, peer)):
        poller.add_read(own.of(one))
        end.send(b"x")
    assert poller.poll_once(0, common.of(0, "common").callback) == 2
    assert (own.names, common.names) == ([], ["common", "common"])
    assert poller.poll_once(0) == 2
    assert (own.names, common.names) == (["", ""], ["common", "common"])
    assert poller.poll_once(0, ignore) == 2
