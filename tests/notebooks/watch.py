"""What runs beside a notebook, inside its kernel: it knows what was there before the first cell.

`kernel.py` loads this file into the kernel, makes a `Watch` before the first cell and asks it after
the last one what the cells left behind. Linux only: descriptors are read from ``/proc``.
"""

from __future__ import annotations

import contextlib
import gc
import linecache
import os
import socket
import sys
import threading
import traceback
import warnings
from types import FrameType
from typing import Any

THE_KERNELS = ("ipykernel", "IPython", "zmq", "tornado")
"""Packages whose threads are the kernel's own, whenever they start."""


class Watch:
    """Hears what goes wrong out of sight, and tells threads, descriptors and recordings left.

    `own` is what the addresses of the kernel's own sockets begin with, `patience` how many seconds,
    in all, threads that are about to end may take.
    """

    def __init__(self, own: str, patience: float) -> None:
        self.own = own
        self.patience = patience
        self.heard: list[str] = []
        self.unclosed: list[str] = []
        start_what_comes_late()
        self.threads = set(threading.enumerate())
        self.descriptors = descriptors()
        threading.excepthook = self._in_thread
        sys.unraisablehook = self._unraisable
        warnings.simplefilter("always", ResourceWarning)
        self._show = warnings.showwarning
        warnings.showwarning = self._warning

    def left(self) -> list[str]:
        """Return a complaint for each thing that is there and was not when the watch began."""
        return [*self._threads_left(), *recordings_left(), *self._descriptors_left()]

    def _threads_left(self) -> list[str]:
        complaints = []
        patience = self.patience
        for thread in threading.enumerate():
            if thread in self.threads or type(thread).__module__.startswith(THE_KERNELS):
                continue
            thread.join(patience)
            if thread.is_alive():
                patience = 0
                where = sys._current_frames().get(thread.ident or 0)
                complaints.append(f"a thread is left: {thread.name!r}, at {place(where)}")
        return complaints

    def _descriptors_left(self) -> list[str]:
        gc.collect()  # what only a circle keeps open has been complained about as unclosed
        new = descriptors().items() - self.descriptors.items()
        not_ours = descriptors_of_zmq() if new else set()
        complaints = []
        for fd, target in sorted(new):
            if fd in not_ours:
                continue
            about = description(fd, target)
            if self.own not in about:
                complaints.append(f"a descriptor is left: {fd}, {about}")
        return complaints

    def _in_thread(self, args: Any) -> None:
        lines = traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        name = args.thread.name if args.thread else "?"
        self.heard.append(f"an exception in thread {name!r}: {''.join(lines)}")

    def _unraisable(self, args: Any) -> None:
        lines = traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        self.heard.append(f"an exception ignored in {args.object!r}: {''.join(lines)}")

    def _warning(
        self, message: Any, category: Any, filename: str, lineno: int, *rest: Any, **named: Any
    ) -> None:
        if not issubclass(category, ResourceWarning):
            self._show(message, category, filename, lineno, *rest, **named)
            return
        where = "in a circle of references"
        if filename != __file__:
            where = "at: " + linecache.getline(filename, lineno).strip()
        self.unclosed.append(f"closed by the garbage collector alone: {message} ({where})")


def start_what_comes_late() -> None:
    """Open what is opened once and kept: it may stay, and nothing tells it from a notebook's.

    Those are the thread by which the kernel first sends something as large as a player, with its
    descriptors, and the spare descriptor that `netpoll.sockets` keeps from the first listener on.
    """
    from zmq.utils.garbage import gc as keeper

    import netpoll.sockets

    if not keeper.is_alive():
        keeper.start()
    netpoll.sockets.listen_tcp("127.0.0.1", 0).close()


def descriptors() -> dict[int, str]:
    """Return every open descriptor and what it leads to, as ``/proc`` words it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists this directory is closed by now
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def descriptors_of_zmq() -> set[int]:
    """Return the descriptors of ZeroMQ's sockets; each thread that prints has one."""
    import zmq

    return {
        int(each.FD)
        for each in gc.get_objects()
        if isinstance(each, zmq.Socket) and not each.closed
    }


def description(fd: int, target: str) -> str:
    """Return what kind a descriptor is of, and for a socket the addresses of its ends."""
    kind = target.removeprefix("anon_inode:").strip("[]")
    if not kind.startswith("socket"):
        return kind
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as copy:
        ends = f"{copy.family.name} {copy.getsockname() or 'unnamed'}"
        with contextlib.suppress(OSError):
            ends += f" to {copy.getpeername() or 'unnamed'}"
        return f"socket {ends}"
    return kind


def recordings_left() -> list[str]:
    """Return a complaint for each recording that still runs."""
    tracer = sys.modules.get("tracer")
    if tracer is None:
        return []
    running = [
        each for each in gc.get_objects() if isinstance(each, tracer.Recording) and each.running
    ]
    complaints = [f"a recording still runs: {each!r}" for each in running]
    if not complaints and "recv" in vars(socket.socket):
        complaints.append("a recording still runs: socket.socket.recv is wrapped")
    return complaints


def place(frame: FrameType | None) -> str:
    """Return the line that a frame executes, as a person would find it."""
    if frame is None:
        return "?"
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}: {line}"
