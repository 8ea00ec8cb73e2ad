"""What a backend is, and how one is chosen.

A backend speaks to one facility of the operating system. `Poller` knows only the contract here:
every method's meaning and errors are written once, in `Backend`, and hold on each of them.
"""

from __future__ import annotations

import importlib
import os
import select as system  # `select` is also a module here, and becomes an attribute when imported
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from netpoll.wakeup import Wakeup

BACKENDS = {"epoll": "Epoll", "kqueue": "Kqueue", "select": "Select"}
"""The backends, best first: module and class."""


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

    `flags` holds the raw flags that came with a descriptor's latest event, where the kernel has
    such (kqueue), and is None elsewhere. `kernel` is the module `select` or what stands in for it;
    `clock` is its clock, in seconds, which times waits.
    """

    name: str
    limits: Limits
    kernel: Any
    flags: Mapping[int, int] | None
    clock: Callable[[], float]

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

    def open_wakeup(self) -> Wakeup:
        """Open the wakeup that suits this backend; the caller adds it to the list."""
        ...

    def fileno(self) -> int:
        """Return the descriptor of the kernel's object."""
        ...

    def close(self) -> None:
        """Give the kernel's object back."""
        ...


def open_backend(name: str | None = None, kernel: Any = None) -> Backend:
    """Open the backend `name`, or the best one that `kernel` has.

    `kernel` has the interface of Python's `select` module, which it is unless given. Raises
    ValueError for a name that is none, NotImplementedError for a facility that `kernel` lacks.
    """
    if kernel is None:
        kernel = system
    if name is None:
        name = next((name for name in BACKENDS if hasattr(kernel, name)), "select")
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: there are {', '.join(map(repr, BACKENDS))}")
    if not hasattr(kernel, name):
        here = next((name for name in BACKENDS if hasattr(kernel, name)), "nothing of the kind")
        raise NotImplementedError(f"there is no {name} here, but there is {here}")
    module = importlib.import_module(f"netpoll.backends.{name}")
    backend: Backend = getattr(module, BACKENDS[name])(kernel)
    return backend


def system_call(kernel: Any, name: str) -> Any:
    """Return the function `name` of `kernel`, or what `os` or `time` call by that name."""
    return getattr(kernel, name, None) or getattr(os, name, None) or getattr(time, name)
