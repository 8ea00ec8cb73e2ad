"""`Wakeup`: the way to end a wait from another thread, and the reason one write is enough.

Source: eventfd(2); gnet `pkg/netpoll/poller_epoll_default.go` (`wakeupCall`).
"""

from __future__ import annotations

import os
import select


class Wakeup:
    """An eventfd that the loop waits for beside everything else.

    `wake` writes to it only when no write is on its way already, so any number of calls between
    two rounds costs one write. Unlike gnet's it is level-triggered and read back to zero: a wakeup
    that an interrupt keeps the loop from seeing is reported again.

    Where gnet compares and swaps, a plain flag is enough: two threads that both find it False make
    one write too many, which is harmless, and once it is True the write follows before Python lets
    a signal handler in (`poller._Run` says where it does).
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
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
            os.eventfd_write(self.fd, 1)
        except OSError:
            self._sent = False
            raise
        return True

    def clear(self) -> bool:
        """Read the eventfd back to zero, so that `wake` writes again; return whether it was not.

        For the loop's thread.
        """
        if not self._sent:
            return False
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False  # the writer has not written yet: its event is to come
        except BaseException:  # interrupted after the read
            self._sent = False
            raise
        self._sent = False
        return True

    def close(self) -> None:
        """Close the eventfd once no other thread can be about to write to its number."""
        self._closed = True
        if self._sent and self._open:
            written = select.poll()
            written.register(self.fd, select.POLLIN)
            written.poll(1000)
        if self._open:
            self._open = False
            os.close(self.fd)
