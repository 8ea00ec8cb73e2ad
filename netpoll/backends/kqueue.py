"""The kqueue backend, for macOS and BSDs. Source: kqueue(2), gnet `poller_kqueue_default.go`."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
import weakref
from typing import Any

from netpoll.backends import Interest, Limits, system_call
from netpoll.errors import AlreadyRegistered, NotRegistered
from netpoll.events import IOEvent
from netpoll.wakeup import Wakeup, pipe_channel

IN, OUT, ERR, HUP, RDHUP = (int(IOEvent[bit]) for bit in ("IN", "OUT", "ERR", "HUP", "RDHUP"))


class Knotes:
    """What the kernel holds for one registration: a knote (kqueue(2)) for each of `filters`."""

    def __init__(self, interest: Interest, filters: list[int]) -> None:
        self.interest = interest
        self.filters = filters
        self.armed = True  # False: a one-shot that fired
        self.settled = False  # False outside of a change: an interrupt cut that change short


class Kqueue:
    """kqueue behind the contract of `netpoll.backends.Backend`.

    `kernel` is the module `select` or what has its interface. To kqueue a second add is a change,
    so what is registered is kept here too. It has no PRI, and HUP only with an error or write
    interest: a reader learns by RDHUP that the peer is gone. It refuses a pipe without a reader,
    but no regular file. A refused second add can make an edge-triggered one report once more.

    kqueue drops a number's knotes when the number is closed. So where one is missing the number
    was closed, whatever it stands for now; fstat(2) could not tell, TCP sockets have no inode on a
    BSD. That is why a one-shot is not EV_ONESHOT, which drops knotes as well: it is disabled.
    """

    name = "kqueue"
    limits = Limits(events=64, fewest_events=16, most_events=512, crowded=512, low_a_round=128)

    def __init__(self, kernel: Any) -> None:
        self.clock = system_call(kernel, "monotonic")
        self.flags: dict[int, int] = {}
        self.kernel = kernel
        self._kqueue = kernel.kqueue()
        self._unusual = kernel.KQ_EV_EOF | kernel.KQ_EV_ERROR
        self._filters = [kernel.KQ_FILTER_READ, kernel.KQ_FILTER_WRITE]
        self._registered: dict[int, Knotes] = {}
        self._lock = threading.Lock()  # a wait disarms what another thread may be arming
        _open.add(self)

    def wait(self, timeout: float | None, size: int) -> list[tuple[int, int]]:
        """Wait; the events of a descriptor's two filters become one."""
        events: dict[int, int] = {}
        flags: dict[int, int] = {}
        for kevent in self._kqueue.control(None, size, timeout):
            fd = kevent.ident
            knotes = self._registered.get(fd)
            if knotes is not None and knotes.interest.oneshot:
                self._disarm(fd, kevent.filter)
            event = IN if kevent.filter == self._filters[0] else OUT
            if kevent.flags & self._unusual:
                event = self._end_of(event, kevent)
            events[fd] = events.get(fd, 0) | event
            flags[fd] = flags.get(fd, 0) | kevent.flags
        self.flags.update(flags)
        return list(events.items())

    def add(self, fd: int, interest: Interest) -> bool:
        """Put `fd` on the list; a closed number used again replaces what it was."""
        if fd > 0x7FFFFFFF:
            raise OverflowError(f"{fd} is too large for a descriptor")
        if fd == self.fileno():
            raise OSError(errno.EINVAL, f"descriptor {fd} is the kqueue's own")
        with self._lock:
            before = self._registered.get(fd)
            if before is not None:
                stay = self.kernel.KQ_EV_ENABLE if before.armed else self.kernel.KQ_EV_DISABLE
                if not self._change(fd, before.filters, stay):  # they are all there
                    raise AlreadyRegistered(fd)
                self._drop(fd, before)
            self._arm(fd, interest)
        return False

    def modify(self, fd: int, interest: Interest) -> bool:
        """Replace the knotes of `fd` by new ones, which look at its readiness anew."""
        with self._lock:
            before = self._registered.get(fd)
            if before is None or not self._drop(fd, before):
                raise self._missing(fd)
            try:
                self._arm(fd, interest)
            except Exception:
                with contextlib.suppress(OSError, ValueError):
                    self._arm(fd, before.interest)
                raise
        return False

    def remove(self, fd: int) -> bool:
        """Take `fd` off the list; when it was closed before, the kernel did so then."""
        with self._lock:
            if fd not in self._registered:
                raise self._missing(fd)
            self._drop(fd, self._registered[fd])
            del self._registered[fd]
            self.flags.pop(fd, None)
        return False

    def open_wakeup(self) -> Wakeup:
        """Open a pipe: EVFILT_USER is not on every BSD, and Python has no name for it."""
        return Wakeup(pipe_channel(self.kernel))

    def fileno(self) -> int:
        """Return the kqueue descriptor."""
        number: int = self._kqueue.fileno()
        return number

    def close(self) -> None:
        """Close the kqueue descriptor."""
        self._kqueue.close()

    def _end_of(self, event: int, kevent: Any) -> int:
        """Return what epoll would report for `kevent`, which has EV_EOF or EV_ERROR."""
        if kevent.flags & self.kernel.KQ_EV_ERROR:
            return ERR  # kqueue(2): the kernel failed to process this one; its data says why
        if kevent.fflags:  # the socket's error
            event |= ERR | HUP
        return event | (RDHUP if event & IN else HUP)

    def _arm(self, fd: int, interest: Interest) -> None:
        """Register `fd` with new knotes; when the kernel refuses one, leave it as it was."""
        if interest.exclusive:
            raise NotImplementedError("kqueue can't wake one poller of several: only epoll can")
        before = self._registered.get(fd)
        filters = list(itertools.compress(self._filters, (interest.read, interest.write)))
        knotes = self._registered[fd] = Knotes(interest, filters)  # first: events can come at once
        flags = self.kernel.KQ_EV_CLEAR if interest.edge_triggered else 0
        errors = self._change(fd, filters, self.kernel.KQ_EV_ADD | flags)
        if errors:
            self._drop(fd, knotes)
            del self._registered[fd]
            if before is not None:
                self._registered[fd] = before
            raise self._missing(fd) if errors[0].errno == errno.EBADF else errors[0]
        knotes.settled = True

    def _drop(self, fd: int, knotes: Knotes) -> bool:
        """Delete the knotes of `fd`; return False when they were gone already: it was closed."""
        settled, knotes.settled = knotes.settled, False
        missing = self._change(fd, knotes.filters, self.kernel.KQ_EV_DELETE) != []
        knotes.settled = settled and missing
        return not knotes.settled

    def _disarm(self, fd: int, filter: int) -> None:
        """Disable the one-shot whose `filter` fired, in both directions."""
        with self._lock:
            knotes = self._registered.get(fd)
            # Another thread may have changed it after the kernel looked.
            if knotes is not None and knotes.interest.oneshot and filter in knotes.filters:
                knotes.armed = False
                self._change(fd, knotes.filters, self.kernel.KQ_EV_DISABLE)

    def _change(self, fd: int, filters: list[int], flags: int) -> list[OSError]:
        """Change knotes of `fd` and return the errors: one call each, as a call raises only one."""
        errors = []
        for filter in filters:
            try:
                self._kqueue.control([self.kernel.kevent(fd, filter, flags)], 0, 0)
            except OSError as error:
                errors.append(error)
        return errors

    def _missing(self, fd: int) -> Exception:
        """Return the error for a number that is not on the kernel's list."""
        try:
            system_call(self.kernel, "fstat")(fd)
        except OSError:
            return ValueError(f"descriptor {fd} is closed")
        return NotRegistered(fd)


_open: weakref.WeakSet[Kqueue] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close a child's objects at once: later, Python before 3.13 closes what took their numbers."""
    for backend in list(_open):
        with contextlib.suppress(OSError):
            backend.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
