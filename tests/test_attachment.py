"""PollAttachment and what counts as a descriptor."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from netpoll import PollAttachment
from netpoll.attachment import descriptor_of


def callback(fd: int, event: int, flags: int) -> None:
    """Do nothing."""


class WithFileno:
    """An object whose `fileno()` returns anything."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def fileno(self) -> Any:
        """Return it."""
        return self.number


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    with socket.socket() as connection:
        yield connection


def test_socket_becomes_its_number(connection: socket.socket) -> None:
    """An object with `fileno()` is kept as its number, like an int."""
    assert PollAttachment(connection, callback).fd == connection.fileno()
    assert PollAttachment(connection.fileno(), callback).fd == connection.fileno()
    assert PollAttachment(connection, callback).callback is callback


def test_zero_is_a_descriptor() -> None:
    """Descriptor 0 is as good as any (gnet's kqueue takes it for the wakeup)."""
    assert descriptor_of(0) == 0


@pytest.mark.parametrize(
    "fd", [True, False, None, "1", 1.0, object(), WithFileno("1"), WithFileno(None)]
)
def test_what_is_no_descriptor(fd: Any) -> None:
    """Anything but an int or an object whose `fileno()` is one is a TypeError, bools too."""
    with pytest.raises(TypeError, match="descriptor"):
        PollAttachment(fd, callback)


@pytest.mark.parametrize("fd", [-1, -2, WithFileno(-1)])
def test_negative_descriptor(fd: Any) -> None:
    """A negative number is a ValueError."""
    with pytest.raises(ValueError, match="negative"):
        PollAttachment(fd, callback)


def test_closed_socket(connection: socket.socket) -> None:
    """A closed socket is a ValueError that asks the right question."""
    connection.close()
    with pytest.raises(ValueError, match="is the socket closed"):
        PollAttachment(connection, callback)


@pytest.mark.parametrize("bad", [None, 1, "callback"])
def test_callback_must_be_callable(bad: Any) -> None:
    """What can't be called is refused when the attachment is made, not when an event comes."""
    with pytest.raises(TypeError, match="callback"):
        PollAttachment(0, bad)


def test_repr_names_both() -> None:
    """The log line of an exception shows the number and the function."""
    assert repr(PollAttachment(7, callback)) == "PollAttachment(fd=7, callback=callback)"
