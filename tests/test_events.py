"""The event bits and the three questions about them."""

import select

import pytest

import netpoll
from netpoll import IOEvent


@pytest.mark.parametrize("name", [event.name for event in IOEvent if event.name])
def test_bits_are_those_of_epoll(name: str) -> None:
    """Each bit has the value that the kernel gives it."""
    assert int(IOEvent[name]) == getattr(select, f"EPOLL{name}")


def test_constants_combine_the_bits() -> None:
    """The constants are gnet's combinations, as plain ints."""
    assert netpoll.READ_EVENTS == IOEvent.IN | IOEvent.PRI
    assert netpoll.WRITE_EVENTS == IOEvent.OUT
    assert netpoll.READ_WRITE_EVENTS == IOEvent.IN | IOEvent.PRI | IOEvent.OUT
    assert netpoll.ERROR_EVENTS == IOEvent.ERR | IOEvent.HUP
    assert type(netpoll.READ_EVENTS) is type(netpoll.ERROR_EVENTS) is int


@pytest.mark.parametrize(
    ("event", "read", "write", "error"),
    [
        (0, False, False, False),
        (IOEvent.IN, True, False, False),
        (IOEvent.PRI, True, False, False),
        (IOEvent.OUT, False, True, False),
        (IOEvent.ERR, False, False, True),
        (IOEvent.HUP, False, False, True),
        (IOEvent.RDHUP, False, False, False),
        (IOEvent.IN | IOEvent.RDHUP, True, False, False),
        (IOEvent.IN | IOEvent.OUT | IOEvent.HUP, True, True, True),
    ],
)
def test_questions(event: int, read: bool, write: bool, error: bool) -> None:
    """Each question looks at its own bits; a half close (RDHUP) alone is no error."""
    event = int(event)
    assert netpoll.is_read_event(event) is read
    assert netpoll.is_write_event(event) is write
    assert netpoll.is_error_event(event, 0) is error


def test_raw_flags_alone_are_no_error() -> None:
    """A raw kevent EV_EOF (0x8000) without ERR or HUP does not make an error."""
    assert not netpoll.is_error_event(int(IOEvent.IN), 0x8000)
    assert netpoll.is_error_event(int(IOEvent.HUP))


def test_names_are_printed() -> None:
    """`IOEvent(event)` shows a person which bits are set."""
    assert "IN" in repr(IOEvent(0x2001))
    assert "RDHUP" in repr(IOEvent(0x2001))
