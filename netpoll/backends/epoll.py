"""The epoll backend, for Linux. Source: epoll(7), gnet `pkg/netpoll/poller_epoll_default.go`."""

from __future__ import annotations

import errno
from typing import Any

from netpoll.backends import Interest, Limits, system_call
from netpoll.errors import AlreadyRegistered, NotRegistered
from netpoll.wakeup import Wakeup, eventfd_channel


class Epoll:
    """Linux's epoll behind the contract of `netpoll.backends.Backend`.

    `kernel` is the module `select` or what has its interface.
    """

    name = "epoll"
    limits = Limits(events=128, fewest_events=32, most_events=1024, crowded=1024, low_a_round=256)
    flags = None

    def __init__(self, kernel: Any) -> None:
        self.clock = system_call(kernel, "monotonic")
        self.kernel = kernel
        self._epoll = kernel.epoll()
        self._masks: dict[int, int] = {}
        self._in_doubt = False  # the kernel's set may hold an entry that it should not
        self.wait = self._epoll.poll

    def add(self, fd: int, interest: Interest) -> bool:
        """Put `fd` on the interest list; a closed number used again replaces what it was."""
        mask = mask_of(self.kernel, interest)
        before = self._in_doubt
        self._in_doubt = before or fd in self._masks
        try:
            self._epoll.register(fd, mask)
        except OSError as error:
            self._in_doubt = before
            raise _explained(error, fd) from None
        self._masks[fd] = mask
        return self._settle()

    def modify(self, fd: int, interest: Interest) -> bool:
        """Replace the interest in `fd`; the kernel looks at its readiness anew."""
        mask = mask_of(self.kernel, interest)
        try:
            if interest.exclusive:
                self._replace(fd, mask)
            else:
                self._epoll.modify(fd, mask)
        except OSError as error:
            raise _explained(error, fd) from None
        self._masks[fd] = mask
        return False

    def remove(self, fd: int) -> bool:
        """Take `fd` off the interest list, also when it was closed before."""
        try:
            self._epoll.unregister(fd)
        except OSError as error:
            known = fd in self._masks or self._in_doubt
            if not known or error.errno not in (errno.EBADF, errno.ENOENT):
                raise _explained(error, fd) from None
            self._in_doubt = True
        self._masks.pop(fd, None)  # not there when an interrupt cut `add` short
        return self._settle()

    def open_wakeup(self) -> Wakeup:
        """Open an eventfd."""
        return Wakeup(eventfd_channel(self.kernel))

    def fileno(self) -> int:
        """Return the epoll descriptor."""
        number: int = self._epoll.fileno()
        return number

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _settle(self) -> bool:
        """Rebuild the kernel's set when it is in doubt; return whether that was so."""
        if not self._in_doubt:
            return False
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        """Replace the kernel's set by a new one under the same number.

        epoll keeps an entry by the open file, not by its number. When a number is closed while a
        duplicate of it (dup(2), fork(2)) lives on, the entry stays, reports events under the old
        number and can't be deleted any more: epoll(7), question 6. Only the end of the whole set
        frees it. A wait under way still looks at the old set: whoever calls from another thread
        ends it.
        """
        with self.kernel.epoll() as fresh:
            for fd, mask in self._masks.items():
                try:
                    self._epoll.modify(fd, mask & ~self.kernel.EPOLLEXCLUSIVE)
                except OSError as error:
                    # EINVAL is MOD's answer to an exclusive entry. Any other: the number was
                    # closed without delete, and the file that it may stand for now is not ours.
                    if error.errno != errno.EINVAL:
                        continue
                fresh.register(fd, mask)
            dup2 = system_call(self.kernel, "dup2")
            dup2(fresh.fileno(), self._epoll.fileno(), inheritable=False)
            self._in_doubt = False

    def _replace(self, fd: int, mask: int) -> None:
        """Do what MOD does for an exclusive entry, where the kernel refuses MOD."""
        try:
            self._epoll.unregister(fd)
        except OSError:
            raise
        except BaseException:  # interrupted after the call
            self._epoll.register(fd, mask)
            raise
        self._epoll.register(fd, mask)


def mask_of(kernel: Any, interest: Interest) -> int:
    """Return the epoll_ctl(2) mask of `interest`.

    Reading includes PRI and RDHUP, except with exclusive, where the kernel refuses both; writing
    alone never asks for RDHUP, which would be reported without end after a half close.
    """
    mask: int = 0
    if interest.read:
        mask |= kernel.EPOLLIN
        if not interest.exclusive:
            mask |= kernel.EPOLLPRI | kernel.EPOLLRDHUP
    if interest.write:
        mask |= kernel.EPOLLOUT
    if interest.edge_triggered:
        mask |= kernel.EPOLLET
    if interest.oneshot:
        mask |= kernel.EPOLLONESHOT
    if interest.exclusive:
        mask |= kernel.EPOLLEXCLUSIVE
    return mask


def _explained(error: OSError, fd: int) -> Exception:
    """Return the exception that the contract promises for the kernel's `error`."""
    if error.errno == errno.EEXIST:
        return AlreadyRegistered(fd)
    if error.errno == errno.ENOENT:
        return NotRegistered(fd)
    if error.errno == errno.EBADF:
        return ValueError(f"descriptor {fd} is closed")
    if error.errno == errno.EPERM:
        return PermissionError(
            error.errno, f"descriptor {fd} is a regular file or directory: epoll takes none"
        )
    return error
