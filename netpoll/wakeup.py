"""`Wakeup`: the way to end a wait from another thread, and the reason one write is enough.

Source: eventfd(2); gnet `pkg/netpoll/poller_epoll_default.go` (`wakeupCall`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple


class Channel(NamedTuple):
    """A descriptor to wait for, how to make it readable, and how to make it unreadable again.

    Neither blocks; `read` raises BlockingIOError when nothing was written.
    """

    fd: int
    write: Callable[[], object]
    read: Callable[[], object]
    close: Callable[[], object]


def eventfd_channel(kernel: Any = os) -> Channel:
    """Open an eventfd of `kernel`, which has those of `os` if it has none of its own."""
    kernel = kernel if hasattr(kernel, "eventfd") else os
    fd = kernel.eventfd(0, kernel.EFD_CLOEXEC | kernel.EFD_NONBLOCK)
    return Channel(
        fd,
        partial(kernel.eventfd_write, fd, 1),
        partial(kernel.eventfd_read, fd),
        partial(kernel.close, fd),
    )


def pipe_channel(kernel: Any = os) -> Channel:
    """Open a pipe of `kernel`, or of `os`: what every Unix has."""
    kernel = kernel if hasattr(kernel, "pipe") else os
    fd, writing_fd = kernel.pipe()
    kernel.set_blocking(fd, False)
    kernel.set_blocking(writing_fd, False)

    def close() -> None:
        kernel.close(writing_fd)
        kernel.close(fd)

    return Channel(
        fd, partial(kernel.write, writing_fd, b"\0"), partial(kernel.read, fd, 4096), close
    )


def socket_channel() -> Channel:
    """Open a pair of sockets: what every system has, and all that Windows can wait for."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)

    def close() -> None:
        writing.close()
        reading.close()

    return Channel(
        reading.fileno(), partial(writing.send, b"\0"), partial(reading.recv, 4096), close
    )


class Wakeup:
    """A channel that the loop waits for beside everything else.

    `wake` writes to it only when no write is on its way already, so any number of calls between
    two rounds costs one write. Unlike gnet's it is level-triggered and read back to zero: a wakeup
    that an interrupt keeps the loop from seeing is reported again.

    Where gnet compares and swaps, a plain flag is enough: two threads that both find it False make
    one write too many, which is harmless, and once it is True the write follows before Python lets
    a signal handler in (`poller._Run` says where it does).
    """

    def __init__(self, channel: Channel) -> None:
        self.fd = channel.fd
        self._channel = channel
        self._process = os.getpid()
        self._sent = False
        self._closed = False
        self._open = True

    def wake(self) -> bool:
        """End the wait under way, or the next one; return whether that took a write.

        Safe from any thread and from signal handlers.
        """
        if self._sent or self._closed:
            return False
        self._sent = True
        try:
            self._channel.write()
        except OSError:
            self._sent = False
            raise
        return True

    def clear(self) -> bool:
        """Read back what was written, so that `wake` writes again; return whether anything was.

        For the loop's thread.
        """
        if not self._sent:
            return False
        try:
            self._channel.read()
        except BlockingIOError:
            return False  # the writer has not written yet: its event is to come
        except BaseException:  # interrupted after the read
            self._sent = False
            raise
        self._sent = False
        return True

    def close(self) -> None:
        """Close the channel once no other thread can be about to write to its number."""
        self._closed = True
        if not self._open:
            return
        if self._process == os.getpid():  # a forked child has no other threads, and may not read
            for _ in range(1000):
                if not self._sent or self.clear():
                    break
                time.sleep(0.001)  # until the other thread has written, which takes it no time
        self._open = False
        self._channel.close()
