"""What a backend is, and how one is chosen.

A backend speaks to one facility of the operating system. `Poller` knows only the contract here:
every method's meaning and errors are written once, in `Backend`, and hold on each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Interest(NamedTuple):
    """What a registration asks the kernel for.

    `read` and `write` name the directions. `edge_triggered` reports a change once; without it
    (level-triggered) every wait reports what still holds. `oneshot` disarms after one event.
    `exclusive` wakes one poller of several that share the descriptor.
    """

    read: bool
    write: bool
    edge_triggered: bool = False
    oneshot: bool = False
    exclusive: bool = False


class Limits(NamedTuple):
    """How many events a wait returns at most (at first, at least, at most) and how tasks queue.

    `crowded` and `low_a_round` are those of `AsyncTaskQueue`.
    """

    events: int
    fewest_events: int
    most_events: int
    crowded: int
    low_a_round: int


class Backend(Protocol):
    """The contract: a kernel's interest list, and a wait for what is ready.

    Descriptors are valid ints. `add`, `modify` and `remove` may be called from any thread, also
    during a wait, which then honors them; the caller sees to it that they never overlap. They
    raise `AlreadyRegistered` or `NotRegistered`, ValueError for a closed descriptor,
    PermissionError for a file that is always ready, and change nothing when they raise. They return
    whether a wait under way must be ended, because it would not honor the change.
    """

    name: str
    limits: Limits

    @property
    def wait(self) -> Callable[[float | None, int], list[tuple[int, int]]]:
        """``wait(timeout, size)``: at most `size` ``(fd, event)`` pairs, one a descriptor.

        Never early: returns what is ready, or an empty list after `timeout` seconds; None waits as
        long as it takes. A signal runs its handler and the wait goes on. It may be the kernel's own
        function: the loop calls it without a layer between.
        """
        ...

    def add(self, fd: int, interest: Interest) -> bool:
        """Put `fd` on the interest list; a closed number used again replaces what it was."""
        ...

    def modify(self, fd: int, interest: Interest) -> bool:
        """Replace the interest in `fd` and arm it again; ready or not is looked at anew."""
        ...

    def remove(self, fd: int) -> bool:
        """Take `fd` off the list, also when it was closed before; no later event is its own."""
        ...

    def fileno(self) -> int:
        """Return the descriptor of the kernel's object."""
        ...

    def close(self) -> None:
        """Give the kernel's object back."""
        ...


def open_backend(name: str | None = None) -> Backend:
    """Open the backend `name`, or the best one here.

    Raises ValueError for a name that is none, NotImplementedError for one this system lacks.
    """
    if name not in (None, "epoll"):
        raise ValueError(f"unknown backend {name!r}: this version has 'epoll'")
    if not sys.platform.startswith("linux"):
        raise NotImplementedError(f"epoll is Linux's; there is no backend for {sys.platform} yet")
    from netpoll.backends.epoll import Epoll

    return Epoll()
