"""A poller from outside: what is reported in each mode, the end of a stream, opening."""

import errno
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll
from netpoll import IOEvent, PollAttachment, Poller
from netpoll.backends import Interest, open_backend
from netpoll.backends.epoll import Epoll

READABLE = int(IOEvent.IN)
WRITABLE = int(IOEvent.OUT)


@pytest.fixture
def poller() -> Iterator[Poller]:
    def on_error(source: object, error: Exception) -> None:
        failures.append(error)

    failures: list[Exception] = []
    with netpoll.open_poller(on_error=on_error) as poller:
        yield poller
    assert failures == []


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


Events = list[tuple[int, int]]


def noting(events: Events) -> Callable[[int, int, int], None]:
    """Return a callback that notes what it is called for."""

    def callback(fd: int, event: int, flags: int) -> None:
        assert flags == 0
        events.append((fd, event))

    return callback


def rounds(poller: Poller, events: Events, count: int) -> list[int]:
    """Run `count` rounds without waiting and return the events of each, none as 0."""
    seen = []
    for _ in range(count):
        events.clear()
        assert poller.poll_once(0) == len(events) <= 1
        seen.append(events[0][1] if events else 0)
    return seen


# ---- modes ------------------------------------------------------------------------------------


def test_level_reports_what_still_holds(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Every round reports unread bytes, also after a partial read, until all are read."""
    here, there = pair
    events: Events = []
    poller.add_read(PollAttachment(here, noting(events)))
    assert rounds(poller, events, 2) == [0, 0]
    there.send(b"ab")
    assert rounds(poller, events, 2) == [READABLE] * 2
    here.recv(1)
    assert rounds(poller, events, 2) == [READABLE] * 2
    here.recv(1)
    assert rounds(poller, events, 2) == [0, 0]


def test_edge_reports_each_change_once(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """OUT once, then silence; IN|OUT after data, silence after a partial read; IN with new data."""
    here, there = pair
    events: Events = []
    poller.add_read_write(PollAttachment(here, noting(events)), True)
    assert rounds(poller, events, 2) == [WRITABLE, 0]
    there.send(b"ab")
    assert rounds(poller, events, 2) == [READABLE | WRITABLE, 0]
    here.recv(1)
    assert rounds(poller, events, 1) == [0]
    there.send(b"c")
    assert rounds(poller, events, 2) == [READABLE | WRITABLE, 0]


def test_modify_to_write_only(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    """After mod_write unread bytes are not reported; after mod_read they are again."""
    here, there = pair
    events: Events = []
    attachment = PollAttachment(here, noting(events))
    poller.add_read(attachment)
    there.send(b"x")
    poller.mod_write(attachment)
    assert rounds(poller, events, 1) == [WRITABLE]
    poller.mod_read(attachment)
    assert rounds(poller, events, 1) == [READABLE]
    poller.mod_read_write(attachment)
    assert rounds(poller, events, 1) == [READABLE | WRITABLE]


def test_modify_replaces_the_callback(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """From mod_* on the new attachment's callback is called, also for an event already there."""
    here, there = pair
    before: Events = []
    after: Events = []
    poller.add_read(PollAttachment(here, noting(before)))
    there.send(b"x")
    new = PollAttachment(here, noting(after))
    poller.mod_read(new)
    assert poller.poll_once(0) == 1
    assert (len(before), len(after)) == (0, 1)
    assert poller.attachments[here.fileno()] is new


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_oneshot_stays_registered_and_disarmed(
    poller: Poller, pair: tuple[socket.socket, socket.socket], edge_triggered: bool
) -> None:
    """A one-shot fires once, stays on the list, and a mod_* with bytes pending fires it again."""
    here, there = pair
    events: Events = []
    attachment = PollAttachment(here, noting(events))
    poller.add_read(attachment, edge_triggered, oneshot=True)
    there.send(b"x")
    assert rounds(poller, events, 2) == [READABLE, 0]
    there.send(b"x")
    assert rounds(poller, events, 1) == [0]
    assert list(poller.attachments) == [here.fileno()]
    with pytest.raises(netpoll.AlreadyRegistered):
        poller.add_read(attachment)
    poller.mod_read(attachment, edge_triggered, oneshot=True)
    assert rounds(poller, events, 2) == [READABLE, 0]
    poller.delete(here)


def test_oneshot_of_both_directions_fires_once(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A one-shot for reading and writing is disarmed in both by its first event."""
    here, there = pair
    events: Events = []
    poller.add_read_write(PollAttachment(here, noting(events)), oneshot=True)
    assert rounds(poller, events, 1) == [WRITABLE]
    there.send(b"x")
    assert rounds(poller, events, 1) == [0]


def test_oneshot_armed_again_in_its_callback(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A one-shot callback that calls mod_* is called again."""
    here, there = pair
    calls: list[int] = []

    def callback(fd: int, event: int, flags: int) -> None:
        calls.append(fd)
        poller.mod_read(PollAttachment(fd, callback), oneshot=True)

    poller.add_read(PollAttachment(here, callback), oneshot=True)
    there.send(b"x")
    assert [poller.poll_once(0) for _ in range(3)] == [1, 1, 1]
    assert len(calls) == 3


def test_oneshot_stays_silent_when_the_kernel_set_is_rebuilt(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A one-shot that fired is not called when the new set reports it once more, nor counted."""
    here, there = pair
    events: Events = []
    poller.add_read(PollAttachment(here, noting(events)), oneshot=True)
    there.send(b"x")
    assert rounds(poller, events, 1) == [READABLE]
    closed, other = socket.socketpair()
    poller.add_read(PollAttachment(closed, noting(events)))
    number = closed.fileno()
    closed.close()
    poller.delete(number)  # rebuilds
    assert rounds(poller, events, 2) == [0, 0]
    other.close()


def test_exclusive_reports_to_one_of_two_pollers_at_least(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Two pollers share a descriptor exclusively: its event reaches one of them or both."""
    here, there = pair
    events: Events = []
    with netpoll.open_poller() as first, netpoll.open_poller() as second:
        for poller in (first, second):
            poller.add_read(PollAttachment(here, noting(events)), exclusive=True)
        there.send(b"x")
        first.poll_once(0)
        second.poll_once(0)
        assert 1 <= len(events) <= 2
        with pytest.raises(ValueError, match="exclusive"):
            first.mod_read(PollAttachment(here, noting(events)))
        first.delete(here)
        first.add_read(PollAttachment(here, noting(events)))
        assert rounds(first, events, 1) == [READABLE]


def test_two_pollers_on_one_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    """Without exclusive both report it; what one deletes the other keeps."""
    here, there = pair
    events: Events = []
    with netpoll.open_poller() as first, netpoll.open_poller() as second:
        for poller in (first, second):
            poller.add_read(PollAttachment(here, noting(events)))
        there.send(b"x")
        assert (first.poll_once(0), second.poll_once(0)) == (1, 1)
        first.delete(here)
        assert (first.poll_once(0), second.poll_once(0)) == (0, 1)


def test_exactly_the_written_one_of_a_hundred(poller: Poller) -> None:
    """Of 100 connections the one with data is reported, no other."""
    pairs = [socket.socketpair() for _ in range(100)]
    events: Events = []
    for here, _ in pairs:
        poller.add_read(PollAttachment(here, noting(events)))
    pairs[42][1].send(b"x")
    assert rounds(poller, events, 1) == [READABLE]
    assert events == [(pairs[42][0].fileno(), READABLE)]
    for one in pairs:
        one[0].close()
        one[1].close()


@pytest.mark.parametrize("own", [True, False])
def test_both_forms_of_the_callback(
    poller: Poller, pair: tuple[socket.socket, socket.socket], own: bool
) -> None:
    """`polling(callback)` calls that one for every descriptor, `polling()` each attachment's."""
    here, there = pair
    one_for_all: Events = []
    its_own: Events = []
    poller.add_read(PollAttachment(here, noting(its_own)))
    there.send(b"x")
    assert poller.poll_once(0, None if own else noting(one_for_all)) == 1
    assert (len(its_own), len(one_for_all)) == ((1, 0) if own else (0, 1))
    poller.delete(here)
    poller.add_read(PollAttachment(here, noting(its_own)))
    assert poller.poll_once(0) == 1
    assert len(its_own) == (2 if own else 1)


def test_callback_of_polling_must_be_callable(poller: Poller) -> None:
    """What can't be called is a TypeError, and the poller works on."""
    bad: Any = 7
    with pytest.raises(TypeError, match="callback"):
        poller.polling(bad)
    assert poller.poll_once(0) == 0


# ---- the end of a stream ----------------------------------------------------------------------


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
    here.setblocking(False)
    return here, there


def test_data_before_the_end_is_readable_and_intact(poller: Poller) -> None:
    """A peer that sends 4 bytes and closes: readable with the end in sight, no error, 4 bytes."""
    here, there = tcp_pair()
    events: Events = []
    with here:
        poller.add_read(PollAttachment(here, noting(events)))
        there.sendall(b"last")
        there.close()
        while not events or not events[-1][1] & IOEvent.RDHUP:
            poller.poll_once()
        event = events[-1][1]
        assert netpoll.is_read_event(event)
        assert not netpoll.is_error_event(event, 0)
        assert here.recv(64) == b"last"
        assert here.recv(64) == b""


def test_half_close_is_no_error(poller: Poller) -> None:
    """A peer that only stops sending: READ|RDHUP, no error, and it still gets an answer."""
    here, there = tcp_pair()
    events: Events = []
    with here, there:
        poller.add_read(PollAttachment(here, noting(events)))
        there.shutdown(socket.SHUT_WR)
        poller.poll_once()
        assert events == [(here.fileno(), IOEvent.IN | IOEvent.RDHUP)]
        assert not netpoll.is_error_event(events[0][1], 0)
        here.send(b"answer")
        assert there.recv(64) == b"answer"


def test_write_only_does_not_spin_on_a_half_close(poller: Poller) -> None:
    """With write interest alone a half close is not reported."""
    here, there = tcp_pair()
    events: Events = []
    with here, there:
        poller.add_read(PollAttachment(here, noting(events)))
        there.shutdown(socket.SHUT_WR)
        poller.poll_once()  # so that it has arrived
        poller.mod_write(PollAttachment(here, noting(events)), True)
        assert rounds(poller, events, 2) == [WRITABLE, 0]


def test_reset_is_an_error(poller: Poller) -> None:
    """A connection that the peer resets is reported as an error."""
    here, there = tcp_pair()
    events: Events = []
    with here:
        poller.add_read(PollAttachment(here, noting(events)))
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        there.close()
        poller.poll_once()
        assert netpoll.is_error_event(events[0][1], 0)


def test_pipe_without_a_reader(poller: Poller) -> None:
    """The writing end of a pipe whose reader is gone is an error, so that nobody waits for it."""
    reading, writing = os.pipe()
    events: Events = []
    poller.add_write(PollAttachment(writing, noting(events)))
    os.close(reading)
    poller.poll_once()
    assert netpoll.is_error_event(events[0][1], 0)
    os.close(writing)


# ---- open, fileno, repr, warning --------------------------------------------------------------


def open_descriptors() -> set[str]:
    """Return the numbers of the open descriptors of this process."""
    gc.collect()
    with os.scandir("/proc/self/fd") as entries:
        return {entry.name for entry in entries}


def test_opened_by_name() -> None:
    """The name of a backend opens that one, any other name is a ValueError."""
    with netpoll.open_poller("epoll") as poller:
        assert repr(poller) == "<Poller on epoll, 0 registered>"
    assert repr(poller) == "<Poller on epoll, closed>"
    with pytest.raises(ValueError, match="unknown backend"):
        netpoll.open_poller("no such")


def test_failed_opening_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a bad on_error nor a kernel without descriptors leaves one open."""
    bad: Any = 7
    before = open_descriptors()
    backends = [open_backend(), open_backend()]
    with pytest.raises(TypeError, match="on_error"):
        Poller(backends[0], on_error=bad)

    def no_more(value: int, flags: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", no_more)
    with pytest.raises(OSError, match="Too many"):
        Poller(backends[1])
    assert open_descriptors() == before


def test_fileno_is_readable_when_events_are_ready(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A poller can be watched by another poller through its `fileno()`."""
    here, there = pair
    events: Events = []
    with netpoll.open_poller() as inner, netpoll.open_poller() as outer:
        inner.add_read(PollAttachment(here, noting(events)))
        outer.add_read(PollAttachment(inner, lambda *_: events.append((inner.poll_once(0), 0))))
        assert outer.poll_once(0) == 0
        there.send(b"x")
        assert outer.poll_once(0) == 1
        assert events == [(here.fileno(), READABLE), (1, 0)]


def test_not_inheritable(poller: Poller) -> None:
    """A program that is executed gets none of the poller's descriptors, rebuilt or not."""
    assert not os.get_inheritable(poller.fileno())
    here, there = socket.socketpair()
    poller.add_read(PollAttachment(here, noting([])))
    number = here.fileno()
    here.close()
    poller.delete(number)
    assert not os.get_inheritable(poller.fileno())
    there.close()


def test_unclosed_poller_warns_and_frees() -> None:
    """A poller nobody closed gives a ResourceWarning and its descriptors back."""
    before = open_descriptors()
    netpoll.open_poller()
    with pytest.warns(ResourceWarning, match="unclosed <Poller on epoll"):
        gc.collect()
    assert open_descriptors() == before


def test_opening_and_closing_2000_times_leaks_nothing(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """2,000 pollers, each used and closed, leave no descriptor behind."""
    before = open_descriptors()
    events: Events = []
    attachment = PollAttachment(pair[0], noting(events))
    for _ in range(2000):
        with netpoll.open_poller() as poller:
            poller.add_write(attachment)
            poller.poll_once(0)
    assert len(events) == 2000
    assert open_descriptors() == before


def test_import_alone_starts_nothing() -> None:
    """Importing netpoll opens no descriptor and starts no thread."""
    code = (
        "import os, threading; before = os.listdir('/proc/self/fd'); import netpoll;"
        "assert os.listdir('/proc/self/fd') == before; assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd(), timeout=60)


def test_opening_that_fails_half_way_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the wakeup can't be registered, its eventfd and the epoll descriptor are closed."""

    def refuse(self: Epoll, fd: int, interest: Interest) -> bool:
        raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(Epoll, "add", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="injected"):
        netpoll.open_poller()
    gc.collect()
    assert os.listdir("/proc/self/fd") == before
