"""Recordings that ask the kernel: `buffers=True` and `kernel=True`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

import tracer
from netpoll import PollAttachment, Poller, open_poller
from netpoll.simulated import Kernel
from tracer import kernel_view
from tracer.steps import BuffersSeen, DispatchStarted, ListChecked

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's kernel")


@pytest.fixture
def poller() -> Iterator[Poller]:
    """An open poller."""
    with open_poller("epoll") as poller:
        yield poller


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    here, there = socket.socketpair()
    with here, there:
        yield here, there


Pair = tuple[socket.socket, socket.socket]


def test_buffers_before_and_after_the_callback(poller: Poller, pair: Pair) -> None:
    """Seven bytes wait before the callback reads four of them, three after it."""
    here, there = pair
    poller.add_read(PollAttachment(here, lambda fd, event, flags: here.recv(4) and None))
    there.send(b"seven b")
    with tracer.record(poller, buffers=True) as trace:
        poller.poll_once(0)
    seen = [step for step in trace if isinstance(step, BuffersSeen)]
    started = next(step for step in trace if isinstance(step, DispatchStarted))
    assert [(step.fd, step.unread, step.cause) for step in seen] == [
        (here.fileno(), 7, started.seq),
        (here.fileno(), 3, started.seq),
    ]
    kinds = [step.kind for step in trace]
    assert kinds[-5:] == ["DispatchStarted", "BuffersSeen", "Read", "BuffersSeen", "DispatchEnded"]
    assert "7 bytes" in tracer.Replay(trace).sentence(kinds.index("BuffersSeen"))


def test_unsent_bytes(poller: Poller) -> None:
    """Of a TCP socket also what the peer's kernel has not acknowledged yet; nothing of others."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        with here, listener.accept()[0]:
            poller.add_write(
                PollAttachment(here, lambda fd, event, flags: here.send(b"x") and None)
            )
            with tracer.record(poller, buffers=True) as trace:
                poller.poll_once(0)
            poller.delete(here)
    seen = [step for step in trace if isinstance(step, BuffersSeen)]
    assert [(step.unread, step.unsent) for step in seen] in ([(0, 0), (0, 0)], [(0, 0), (0, 1)])


def test_buffers_are_bytes_or_nothing(pair: Pair) -> None:
    """Linux tells memory for Unix sockets and one datagram for UDP: those numbers are left out."""
    here, there = pair
    there.send(b"12345")
    assert kernel_view.buffers(here.fileno()) == (5, -1)
    assert kernel_view.buffers(there.fileno()) == (0, -1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert kernel_view.buffers(udp.fileno()) == (-1, -1)
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    assert kernel_view.buffers(reading)[0] == 3
    os.close(reading)
    os.close(writing)


def test_list_that_can_not_be_read(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor to read the kernel's list with, no step claims a difference."""
    with tracer.record(poller, kernel=True) as trace:
        with monkeypatch.context() as patch:
            patch.setattr(kernel_view, "interest_list", lambda epoll: None)
            poller.poll_once(0)
        assert not any(isinstance(step, ListChecked) for step in trace)
        poller.poll_once(0)
    assert sum(isinstance(step, ListChecked) for step in trace) == 1


def test_buffers_of_what_the_callback_closed(poller: Poller, pair: Pair) -> None:
    """Nobody looks at a number after it was given back, and a callback's error stays its own."""
    here, there = pair

    def close(fd: int, event: int, flags: int) -> None:
        poller.delete(fd)
        here.close()
        raise ZeroDivisionError

    poller.add_read(PollAttachment(here, close))
    there.send(b"x")
    with tracer.record(poller, buffers=True) as trace:
        poller.poll_once(0)
    assert sum(isinstance(step, BuffersSeen) for step in trace) == 1
    ended = next(step for step in trace if step.kind == "DispatchEnded")
    assert getattr(ended, "error", None) == "ZeroDivisionError"


def test_no_looks_unless_asked(poller: Poller, pair: Pair) -> None:
    """Without the options the kernel is not asked."""
    here, there = pair
    poller.add_read(PollAttachment(here, lambda fd, event, flags: here.recv(4) and None))
    there.send(b"x")
    with tracer.record(poller) as trace:
        poller.poll_once(0)
    assert not any(isinstance(step, (BuffersSeen, ListChecked)) for step in trace)


def test_list_is_checked_when_it_changed(poller: Poller, pair: Pair) -> None:
    """The kernel's list is compared before the waits that follow a change, and no other."""
    here, _ = pair
    with tracer.record(poller, kernel=True) as trace:
        for _ in range(2):
            poller.poll_once(0)
        poller.add_read(PollAttachment(here, lambda fd, event, flags: None), edge_triggered=True)
        for _ in range(2):
            poller.poll_once(0)
    checked = [step for step in trace if isinstance(step, ListChecked)]
    assert [(step.count, step.error) for step in checked] == [(1, None), (2, None)]


def test_list_that_differs(poller: Poller, pair: Pair) -> None:
    """A descriptor that was closed without `delete` is missing on the kernel's list."""
    here, _ = pair
    fd = here.fileno()
    poller.add_read(PollAttachment(here, lambda fd, event, flags: None))
    here.close()
    with tracer.record(poller, kernel=True) as trace:
        poller.poll_once(0)
    (step,) = (step for step in trace if isinstance(step, ListChecked))
    assert step.error == f"descriptor {fd} is registered, but not on the kernel's list"
    assert "differ" in tracer.Replay(trace).sentence(trace.index(step))


def test_a_one_shot_that_fired_does_not_differ(poller: Poller) -> None:
    """The kernel takes the events of a one-shot off its list when it reports it."""
    fd = os.eventfd(1)
    with tracer.record(poller, kernel=True) as trace:
        poller.add_read(PollAttachment(fd, lambda fd, event, flags: None), oneshot=True)
        poller.poll_once(0)
        other = os.eventfd(0)
        poller.add_read(PollAttachment(other, lambda fd, event, flags: None))  # so it is compared
        poller.poll_once(0)
    os.close(fd)
    os.close(other)
    assert sum(isinstance(step, ListChecked) for step in trace) == 2
    assert {step.error for step in trace if isinstance(step, ListChecked)} == {None}


def test_difference_in_words() -> None:
    """Each way in which two lists can differ has its sentence."""
    edge = 1 << 31
    found = kernel_view.difference({3: 1 | 24, 5: 4 | 24}, {3: 1 | 24 | edge, 9: 1})
    assert found.split("; ") == [
        "descriptor 3 is registered for READ, on the kernel's list for READ, edge",
        "descriptor 5 is registered, but not on the kernel's list",
        "descriptor 9 is on the kernel's list alone",
    ]
    assert kernel_view.difference({3: 25}, {3: 25}) == ""


@pytest.mark.parametrize("option", ["buffers", "kernel"])
def test_refused_on_a_simulated_kernel(option: str) -> None:
    """Where the kernel can't be asked, `record` says so before it changes anything."""
    with open_poller("epoll", kernel=Kernel()) as poller:
        with pytest.raises(NotImplementedError, match="simulated"):
            tracer.record(poller, **{option: True})  # type: ignore[arg-type]
        assert poller.backend.wait.__module__ != "tracer.recorder"


def test_kernel_refused_on_select() -> None:
    """There is no list in the kernel where the backend is select."""
    with (
        open_poller("select") as poller,
        pytest.raises(NotImplementedError, match="has select"),
    ):
        tracer.record(poller, kernel=True)
