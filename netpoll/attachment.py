"""`PollAttachment`: a descriptor and the function to call when something happens to it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Protocol

Callback = Callable[[int, int, int], object]
"""``callback(fd, event, flags)``; what it returns is ignored."""


class HasFileno(Protocol):
    """Anything with a `fileno()` method, such as a socket."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


def descriptor_of(fd: int | HasFileno) -> int:
    """Return the number of `fd`, an int or an object with `fileno()`.

    Raises TypeError when it is neither (a bool is neither), ValueError when it is negative, as
    the `fileno()` of a closed socket is.
    """
    if isinstance(fd, bool):
        raise TypeError(f"a descriptor is an int or has fileno(), not the bool {fd}")
    try:
        number = operator.index(fd if isinstance(fd, int) else fd.fileno())
    except (AttributeError, TypeError):
        raise TypeError(f"a descriptor is an int or has fileno(), not {fd!r}") from None
    if number < 0:
        raise ValueError(f"descriptor {number} is negative: is the socket closed?")
    return number


class PollAttachment:
    """A descriptor and the function to call when something happens to it.

    `fd` is an int or an object with `fileno()`, kept as a number: keep the socket alive yourself.
    Raises TypeError and ValueError as `descriptor_of`, TypeError when `callback` can't be called.
    Source: gnet `pkg/netpoll/netpoll.go`.
    """

    __slots__ = ("callback", "fd")

    def __init__(self, fd: int | HasFileno, callback: Callback) -> None:
        self.fd = descriptor_of(fd)
        if not callable(callback):
            raise TypeError(f"a callback is a function of (fd, event, flags), not {callback!r}")
        self.callback = callback

    def __repr__(self) -> str:
        name = getattr(self.callback, "__qualname__", repr(self.callback))
        return f"PollAttachment(fd={self.fd}, callback={name})"
