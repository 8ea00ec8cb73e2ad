"""Descriptors: number 0, numbers beyond FD_SETSIZE, and thousands that come and go."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from netpoll import Poller
from tests.conformance.worlds import (
    IN,
    PATIENCE,
    SIMULATED,
    Calls,
    World,
    agree,
    on_real_kernels,
)

AS_DESCRIPTOR_0 = """
import os, socket, sys, netpoll
here, there = socket.socketpair()
os.dup2(here.fileno(), 0)
poller = netpoll.open_poller(sys.argv[1])
called = []
poller.add_read(netpoll.PollAttachment(0, lambda fd, event, flags: called.append((fd, event))))
ran = []
poller.trigger(netpoll.EventPriority.HIGH, ran.append, 1)
assert (poller.poll_once(10), ran, called) == (0, [1], [])
there.send(b"x")
assert (poller.poll_once(10), called) == (1, [(0, 1)])
poller.mod_write(netpoll.PollAttachment(0, print))
poller.delete(0)
assert poller.poll_once(0) == 0
poller.close()
os.write(0, b"x")
here.close()
there.close()
"""

BELOW_1 = """
import os, socket, sys, netpoll
os.close(0)
poller = netpoll.open_poller(sys.argv[1])
assert 0 in (poller.wakeup.fd, sys.argv[1] == "select" or poller.fileno())
here, there = socket.socketpair()
called = []
poller.add_read(netpoll.PollAttachment(here, lambda fd, *_: called.append(fd)))
ran = []
poller.trigger(netpoll.EventPriority.HIGH, ran.append, 1)
assert (poller.poll_once(10), ran) == (0, [1])
there.send(b"x")
assert (poller.poll_once(10), called) == (1, [here.fileno()])
poller.close()
here.close()
there.close()
"""


@pytest.mark.parametrize("program", [AS_DESCRIPTOR_0, BELOW_1], ids=["the program's", "its own"])
@on_real_kernels
def test_descriptor_0(world: World, program: str) -> None:
    """It is a descriptor as any other, the program's or the poller's own."""
    arguments = [sys.executable, "-W", "error", "-c", program, world.backend]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("world", SIMULATED, indirect=True)
def test_descriptor_0_of_the_simulated_kernel(world: World, poller: Poller) -> None:
    """It is a descriptor as any other."""
    here, there = world.pair()
    calls = Calls()
    poller.add_read(calls.of(world.dup2(here, 0)))
    assert calls.in_rounds(poller, 1) == [0]
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    poller.delete(0)
    assert calls.in_rounds(poller, 1) == [0]
    assert agree(world, poller)


def test_number_beyond_fd_setsize(world: World, poller: Poller) -> None:
    """Beyond 1,024 (FD_SETSIZE) select raises ValueError at add; the others take any number."""
    here, there = world.pair()
    calls = Calls()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    try:
        attachment = calls.of(world.dup2(here, 1500))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    there.send(b"x")
    if world.backend == "select":
        with pytest.raises(ValueError, match="descriptor 1500"):
            poller.add_read(attachment)
        assert not poller.attachments
        assert calls.in_rounds(poller, 1) == [0]
    else:
        poller.add_read(attachment)
        assert calls.in_rounds(poller, 1) == [IN]


@pytest.mark.parametrize("cycles", [300, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("end", ["delete, close", "close, delete", "close"])
def test_open_and_close_cycles(world: World, poller: Poller, cycles: int, end: str) -> None:
    """Connections that come and go leave nothing behind, in the poller or in the kernel."""
    calls = Calls()
    before = world.open_descriptors()
    known: set[int] = set()
    for cycle in range(1, cycles + 1):
        here, there = world.pair()
        number = here.fileno()
        poller.add_read(calls.of(here))
        known.add(number)
        there.send(b"x")
        assert poller.poll_once(PATIENCE) == 1
        for action in end.split(", "):
            if action == "close":
                here.close()
            else:
                poller.delete(number)
        there.close()
        assert len(calls.names) == cycle
    assert poller.poll_once(0) == 0
    assert world.open_descriptors() == before
    assert set(poller.attachments) == (known if end == "close" else set())
    assert set(poller.callbacks) == {*poller.attachments, poller.wakeup.fd}
