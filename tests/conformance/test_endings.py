"""How a stream ends: half closes, closes and resets, the same on every backend."""

from __future__ import annotations

import socket

import pytest

import netpoll
from netpoll import Poller
from tests.conformance.worlds import (
    ERR,
    HUP,
    IN,
    OUT,
    PATIENCE,
    RDHUP,
    Calls,
    World,
    fill,
    needs,
)


def test_half_close_is_readable_and_no_error(world: World, poller: Poller) -> None:
    """A peer that stops sending: READ|RDHUP, and it still gets an answer."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here))
    there.shutdown(socket.SHUT_WR)
    assert calls.in_rounds(poller, 2) == [world.reported(IN | RDHUP)] * 2
    assert not netpoll.is_error_event(world.reported(IN | RDHUP), calls.flags[0])
    assert here.recv(64) == b""
    here.send(b"answer")
    assert there.recv(64) == b"answer"


def test_half_close_with_both_directions(world: World, poller: Poller) -> None:
    """READ|RDHUP beside WRITE, which goes on."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read_write(calls.of(here))
    there.shutdown(socket.SHUT_WR)
    assert calls.in_rounds(poller, 2) == [world.reported(IN | OUT | RDHUP)] * 2


def test_write_only_does_not_report_a_half_close(world: World, poller: Poller) -> None:
    """With write interest alone it would be reported without end: nothing is, until there's room.

    Read interest is what asks for it.
    """
    here, there = world.pair()
    calls = Calls()
    fill(here)
    poller.add_write(calls.of(here))
    there.shutdown(socket.SHUT_WR)
    assert calls.in_rounds(poller, 2) == [0, 0]
    poller.mod_read_write(calls.of(here))
    assert calls.in_rounds(poller, 1) == [world.reported(IN | RDHUP)]
    poller.mod_write(calls.of(here))
    assert calls.in_rounds(poller, 1) == [0]


@needs("edge_triggered")
def test_half_close_is_an_edge(world: World, poller: Poller) -> None:
    """Edge-triggered it is reported once, also when the data before was not read."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), True)
    there.send(b"data")
    assert calls.in_rounds(poller, 2) == [IN, 0]
    there.shutdown(socket.SHUT_WR)
    assert calls.in_rounds(poller, 2) == [IN | RDHUP, 0]
    assert here.recv(64) == b"data"


@pytest.mark.parametrize("kind", ["pair", "connection"])
@pytest.mark.parametrize("sent_before", [False, True])
def test_data_before_the_close_is_intact(
    world: World, poller: Poller, kind: str, sent_before: bool
) -> None:
    """A peer writes 4 bytes and closes: readable, all 4 are there, then the end."""
    here, there = world.pair() if kind == "pair" else world.connection()
    received: list[bytes] = []
    calls = Calls()
    attachment = calls.of(here, then=lambda fd: received.append(here.recv(64)))
    if not sent_before:
        poller.add_read(attachment)
    there.send(b"last")
    there.close()
    if sent_before:
        poller.add_read(attachment)
    while not received or received[-1]:
        assert poller.poll_once(PATIENCE) == 1
        assert netpoll.is_read_event(calls.events[-1])
    assert received == [b"last", b""]
    assert world.reported(RDHUP) == calls.events[-1] & RDHUP


def test_close_of_the_receiver_closes_writing(world: World, poller: Poller) -> None:
    """Nobody will read any more: the writer is called, with an error event but on select."""
    here, there = world.pair()
    calls = Calls()
    fill(here)
    poller.add_write(calls.of(here))
    assert calls.in_rounds(poller, 1) == [0]
    there.close()
    (event,) = calls.in_rounds(poller, 1)
    assert netpoll.is_write_event(event)
    assert netpoll.is_error_event(event) == (world.backend != "select")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        here.send(b"x")


def test_close_with_both_directions(world: World, poller: Poller) -> None:
    """The end in both directions is one call, with all that there is to say."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read_write(calls.of(here))
    there.close()
    assert calls.in_rounds(poller, 2) == [world.reported(IN | OUT | RDHUP | HUP)] * 2


def test_reset_is_an_error_and_data_comes_first(world: World, poller: Poller) -> None:
    """The bytes that arrived before a reset can be read; then ConnectionResetError."""
    here, there = world.connection()
    calls = Calls()
    there.send(b"data")
    poller.add_read(calls.of(here))
    assert poller.poll_once(PATIENCE) == 1
    world.reset(there)
    while world.backend != "select" and not netpoll.is_error_event(calls.events[-1]):
        assert poller.poll_once(PATIENCE) == 1
    assert here.recv(64) == b"data"
    with pytest.raises(ConnectionResetError):
        here.recv(64)
    assert netpoll.is_read_event(calls.events[-1])
    assert world.reported(ERR | HUP) in (0, calls.events[-1] & (ERR | HUP))


def test_pipe_whose_writer_is_gone(world: World, poller: Poller) -> None:
    """Its bytes first, then an event at which the end is read."""
    reading, writing = world.pipe()
    calls = Calls()
    poller.add_read(calls.of(reading))
    world.write(writing, b"last")
    world.close(writing)
    (event,) = calls.in_rounds(poller, 1)
    assert netpoll.is_read_event(event)
    assert world.read(reading) == b"last"
    (event,) = calls.in_rounds(poller, 1)
    assert netpoll.is_read_event(event) or netpoll.is_error_event(event)
    assert world.read(reading) == b""


def test_pipe_whose_reader_is_gone(world: World, poller: Poller) -> None:
    """The writer is called, with an error event but on select."""
    reading, writing = world.pipe()
    calls = Calls()
    poller.add_write(calls.of(writing))
    world.close(reading)
    (event,) = calls.in_rounds(poller, 1)
    assert netpoll.is_write_event(event)
    assert netpoll.is_error_event(event) == (world.backend != "select")
    with pytest.raises(BrokenPipeError):
        world.write(writing, b"x")


@needs("oneshot")
def test_oneshot_at_the_end(world: World, poller: Poller) -> None:
    """A one-shot that fired says nothing of the end, which it reports when armed again."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(here), oneshot=True)
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    there.shutdown(socket.SHUT_WR)
    assert calls.in_rounds(poller, 1) == [0]
    poller.mod_read(calls.of(here), oneshot=True)
    assert calls.in_rounds(poller, 2) == [IN | RDHUP, 0]
