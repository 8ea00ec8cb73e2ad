"""What Linux itself tells of a program: an interest list of the kernel, a socket's buffers."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

from tracer import socket_calls
from tracer.rows import NOTHING
from tracer.steps import event_names

ALWAYS = 8 | 16
"""ERR and HUP, which the kernel adds to every entry of an interest list."""

_MODES = {1 << 31: "edge", 1 << 30: "one-shot", 1 << 28: "exclusive"}


def interest_list(epoll: int, process: int | str = "self") -> dict[int, int] | None:
    """Return the kernel's own list of an epoll descriptor: the mask of each number on it.

    `process` is the id of the one that has it. None where it can't be read. Source: proc(5),
    ``/proc/pid/fdinfo``.
    """
    try:
        text = Path(f"/proc/{process}/fdinfo/{epoll}").read_text()
    except OSError:
        return None
    entries = re.findall(r"tfd: *(\d+) events: *([0-9a-f]+)", text)
    return {int(fd): int(mask, 16) for fd, mask in entries}


def difference(wanted: dict[int, int], listed: dict[int, int]) -> str:
    """Return in words how the kernel's list differs from the masks that it should have.

    Empty when it does not.
    """
    found = []
    for fd in sorted(wanted.keys() | listed.keys()):
        mask, listed_mask = wanted.get(fd), listed.get(fd)
        if mask is None:
            found.append(f"descriptor {fd} is on the kernel's list alone")
        elif listed_mask is None:
            found.append(f"descriptor {fd} is registered, but not on the kernel's list")
        elif listed_mask != mask:
            found.append(
                f"descriptor {fd} is registered for {_names(mask)}, "
                f"on the kernel's list for {_names(listed_mask)}"
            )
    return "; ".join(found)


def buffers(fd: int) -> tuple[int, int]:
    """Return how many bytes are unread, and sent but not acknowledged; NOTHING where nobody knows.

    Of datagrams the kernel tells only the next one, and of a Unix socket how much memory it takes.
    Source: tcp(7), SIOCINQ and SIOCOUTQ, which FIONREAD and TIOCOUTQ are other names of.
    """
    import fcntl
    import termios

    family, kind = _family_and_type(fd)

    def ask(request: int) -> int:
        try:
            return int.from_bytes(fcntl.ioctl(fd, request, b"\0" * 4), sys.byteorder, signed=True)
        except OSError:
            return NOTHING

    stream = kind in (0, socket.SOCK_STREAM)
    internet = family in (socket.AF_INET, socket.AF_INET6)
    return (
        ask(termios.FIONREAD) if stream else NOTHING,
        ask(termios.TIOCOUTQ) if stream and internet else NOTHING,
    )


def _family_and_type(fd: int) -> tuple[int, int]:
    """Return those of a socket; zeros for another file."""
    if socket.getdefaulttimeout() is not None:  # a socket object would set it on the descriptor
        return 0, 0
    try:
        return socket_calls.ask_as_socket(
            fd, lambda connection: (connection.family, connection.type)
        )
    except OSError:
        return 0, 0


def _names(mask: int) -> str:
    modes = "".join(f", {name}" for bit, name in _MODES.items() if mask & bit)
    return event_names(mask & ~ALWAYS) + modes
