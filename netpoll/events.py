"""What can happen to a descriptor: the event bits, on every backend the same.

Source: gnet `pkg/netpoll/defs_poller_epoll.go`; the values are those of epoll_ctl(2).
"""

from __future__ import annotations

import enum


class IOEvent(enum.IntFlag):
    """The bits of an event; `repr(IOEvent(event))` has their names.

    Callbacks get a plain int, which is quicker to test.
    """

    IN = 0x001
    PRI = 0x002
    OUT = 0x004
    ERR = 0x008
    HUP = 0x010
    RDHUP = 0x2000


IOFlags = int
"""The raw kevent flags on kqueue; 0 elsewhere (gnet: `IOFlags`)."""

READ_EVENTS = int(IOEvent.IN | IOEvent.PRI)
"""There is something to read, the end of the stream included (gnet: `ReadEvents`)."""

WRITE_EVENTS = int(IOEvent.OUT)
"""The kernel takes more bytes to send (gnet: `WriteEvents`)."""

READ_WRITE_EVENTS = READ_EVENTS | WRITE_EVENTS
"""Both of them (gnet: `ReadWriteEvents`)."""

ERROR_EVENTS = int(IOEvent.ERR | IOEvent.HUP)
"""The connection failed or is over in both directions (gnet: `ErrEvents`)."""


def is_read_event(event: int) -> bool:
    """Whether there is something to read, the end of the stream included."""
    return event & READ_EVENTS != 0


def is_write_event(event: int) -> bool:
    """Whether the kernel takes more bytes to send."""
    return event & WRITE_EVENTS != 0


def is_error_event(event: int, flags: IOFlags = 0) -> bool:
    """Whether the connection failed or is over in both directions.

    Read before you look at this: data that arrived before the end is still there. `flags` is
    accepted for gnet's signature; a raw kevent EV_EOF alone is no error.
    """
    return event & ERROR_EVENTS != 0
