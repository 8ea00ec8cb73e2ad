"""The select backend, which every system has. Source: select(2), CPython `selectmodule.c`."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

from netpoll.backends import Interest, Limits, system_call
from netpoll.errors import AlreadyRegistered, NotRegistered
from netpoll.events import IOEvent
from netpoll.wakeup import Wakeup, socket_channel

IN, PRI, OUT = int(IOEvent.IN), int(IOEvent.PRI), int(IOEvent.OUT)
NOT_OPEN = (errno.EBADF, errno.ENOTSOCK)  # the latter is what Windows says


class Watched:
    """What is asked for under a number, as event bits, and which file the number stands for."""

    def __init__(self, mask: int, file: tuple[int, int] | None) -> None:
        self.mask = mask
        self.file = file
        self.over = False  # the number was closed, whatever it stands for now


class Select:
    """select behind the contract of `netpoll.backends.Backend`, and what it can't do of that.

    `kernel` is the module `select` or what has its interface. It is level-triggered only and
    reports neither RDHUP nor HUP. It takes descriptors below FD_SETSIZE, on Windows so many
    sockets; regular files too. A wait returns all that is ready, whatever its `size`.

    That a number stands for another file now is told by device and inode (fstat(2)), so not where
    files have none of their own: TCP sockets on a BSD, eventfds, sockets on Windows.
    """

    name = "select"
    limits = Limits(1024, 1024, 1024, crowded=1024, low_a_round=256)
    flags = None

    def __init__(self, kernel: Any) -> None:
        self.clock = system_call(kernel, "monotonic")
        self.kernel = kernel
        self._fstat = system_call(kernel, "fstat")
        self._on_windows = os.name == "nt"
        # On Windows a connection that fails is exceptional, and never writable.
        self._exceptional = PRI | OUT if self._on_windows else PRI
        self._registered: dict[int, Watched] = {}

    def wait(self, timeout: float | None, size: int) -> list[tuple[int, int]]:
        """Wait; when a descriptor turns out to be closed, go on without it."""
        deadline = None if timeout is None else self.clock() + timeout
        kinds = (IN, OUT, self._exceptional)
        while True:
            # list() in one go: other threads register meanwhile.
            watched = {fd: one for fd, one in list(self._registered.items()) if not one.over}
            wanted = [[fd for fd, one in watched.items() if one.mask & kind] for kind in kinds]
            events: dict[int, int] = {}
            try:
                ready = self.kernel.select(*wanted, timeout)
            except OSError as error:
                if error.errno not in NOT_OPEN:
                    raise
                for fd, one in watched.items():
                    one.over = not self._is_open(fd)
            else:
                for kind, fds in zip(kinds, ready, strict=True):
                    for fd in fds:
                        if self._is_same(fd, watched[fd]):
                            events[fd] = events.get(fd, 0) | watched[fd].mask & kind
                if events or (deadline is not None and self.clock() >= deadline):
                    return list(events.items())
            if deadline is not None:
                timeout = max(deadline - self.clock(), 0)

    def add(self, fd: int, interest: Interest) -> bool:
        """Put `fd` on the list; a closed number used again replaces what it was."""
        new = Watched(mask_of(interest), self._file_of(fd))
        before = self._registered.get(fd)
        if before is not None and not before.over and before.file == new.file:
            raise AlreadyRegistered(fd)
        self._registered[fd] = new
        return True

    def modify(self, fd: int, interest: Interest) -> bool:
        """Replace the interest in `fd`."""
        new = Watched(mask_of(interest), self._file_of(fd))
        before = self._registered.get(fd)
        if before is None or before.over or before.file != new.file:
            raise NotRegistered(fd)
        self._registered[fd] = new
        return True

    def remove(self, fd: int) -> bool:
        """Take `fd` off the list, also when it was closed before."""
        if fd not in self._registered:
            self._file_of(fd)  # closed is another error than unknown
            raise NotRegistered(fd)
        del self._registered[fd]
        return True

    def open_wakeup(self) -> Wakeup:
        """Open a pair of sockets: on Windows select takes nothing else."""
        return Wakeup(socket_channel())

    def fileno(self) -> int:
        """Raise `io.UnsupportedOperation`: there is no object in the kernel."""
        raise io.UnsupportedOperation("select has no descriptor of its own")

    def close(self) -> None:
        """Forget what is registered."""
        self._registered.clear()

    def _is_same(self, fd: int, one: Watched) -> bool:
        """Whether `one` is still what `fd` is registered as, and its file what `fd` stands for."""
        try:
            one.over = one.over or self._identity(fd) != one.file
        except OSError:  # closed by another thread
            one.over = True
        return not one.over and self._registered.get(fd) is one

    def _is_open(self, fd: int) -> bool:
        try:
            self.kernel.select([fd], [], [], 0)
        except OSError:
            return False
        return True

    def _identity(self, fd: int) -> tuple[int, int] | None:
        """Return what tells the file of `fd` from others, None where nothing does."""
        if self._on_windows:
            return None  # to fstat a socket's number is nothing, or some other file's
        status = self._fstat(fd)
        return status.st_dev, status.st_ino

    def _file_of(self, fd: int) -> tuple[int, int] | None:
        """Return the identity of a descriptor that select can take beside those registered.

        Raises ValueError for any other.
        """
        try:
            # Python refuses too large a number on Unix, and too long a list on Windows.
            self.kernel.select([fd] * len({*self._registered, fd}), [], [], 0)
            return self._identity(fd)
        except OSError as error:
            if error.errno not in NOT_OPEN:
                raise
            what = "closed" if error.errno == errno.EBADF else "not an open socket"
            raise ValueError(f"descriptor {fd} is {what}") from None
        except ValueError as error:
            raise ValueError(f"select can't take descriptor {fd}: {error}") from None


def mask_of(interest: Interest) -> int:
    """Return the event bits of `interest`; raise NotImplementedError for a mode."""
    if interest.edge_triggered or interest.oneshot or interest.exclusive:
        raise NotImplementedError(
            "select is level-triggered only: for edge_triggered and oneshot use epoll or kqueue,"
            " for exclusive epoll"
        )
    return (IN | PRI if interest.read else 0) | (OUT if interest.write else 0)
