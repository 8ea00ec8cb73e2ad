"""`Wakeup`: the way to end a wait from another thread, and the reason one write is enough.

Source: eventfd(2); gnet `pkg/netpoll/poller_epoll_default.go` (`wakeupCall`).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading


class Wakeup:
    """An eventfd that the loop waits for beside everything else.

    `wake` writes to it only when no write is on its way already (a lock that is never waited for
    is Python's compare-and-swap), so any number of calls between two rounds costs one write.
    Unlike gnet's it is level-triggered and read back to zero: a wakeup that an interrupt keeps
    the loop from seeing is reported again.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._sent = threading.Lock()
        self._closed = False

    def wake(self) -> bool:
        """End the wait under way, or the next one; return whether that took a write.

        Safe from any thread and from signal handlers.
        """
        try:
            if not self._sent.acquire(blocking=False):
                return False
            self._write()
            return True
        except BaseException:
            # Interrupted, perhaps before the write: one too many is harmless, one too few is not.
            try:
                self._write()
            except OSError:
                self._release()
            raise

    def clear(self) -> bool:
        """Read the eventfd back to zero, after which `wake` writes again; return whether it was not.

        For the loop's thread.
        """
        if not self._sent.locked():
            return False
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False  # the writer holds the lock and has not written yet: its event is to come
        except BaseException:
            self._release()
            raise
        self._release()
        return True

    def close(self) -> None:
        """Close the eventfd once no other thread can be about to write to its number."""
        if self._closed:
            return
        self._closed = True
        if not self._sent.acquire(blocking=False):
            with contextlib.suppress(OSError, ValueError):
                select.select([self.fd], [], [], 1.0)
        os.close(self.fd)

    def _write(self) -> None:
        if not self._closed:
            os.eventfd_write(self.fd, 1)

    def _release(self) -> None:
        if self._sent.locked():
            self._sent.release()
