"""`Kernel`: a kernel in memory, for programs that are to run the same way every time.

It has sockets, pipes and eventfds, an epoll and a kqueue, and a clock that moves only when somebody
waits. The real backends run on it unchanged, since it has the interface of Python's `select` module
and what they otherwise take from `os` and `time`::

    kernel = netpoll.simulated.Kernel()
    poller = netpoll.open_poller("epoll", kernel=kernel)
    here, there = kernel.socketpair()
    kernel.at(1.5, lambda: there.send(b"hello"))

An open file has a `state`, the events that hold now, and it *wakes* those who watch it when
something happens to it. epoll and kqueue are two kinds of watchers, each with a list of what may be
ready. Everything else in this file is bookkeeping.

Sockets are streams as those of Linux's AF_UNIX: what one end does, the other sees at once. There
are no regular files, no processes and no signals. Source: Linux `fs/eventpoll.c`, `fs/pipe.c`,
`fs/eventfd.c`, `net/unix/af_unix.c`; FreeBSD `sys/kern/kern_event.c`.
"""

from __future__ import annotations

import errno
import functools
import heapq
import itertools
import math
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, NamedTuple, NoReturn, ParamSpec, TypeVar, cast

# epoll_ctl(2)
IN, PRI, OUT, ERR, HUP, RDHUP = 0x001, 0x002, 0x004, 0x008, 0x010, 0x2000
EXCLUSIVE, WAKEUP, ONESHOT, EDGE = 1 << 28, 1 << 29, 1 << 30, 1 << 31
MODES = EXCLUSIVE | WAKEUP | ONESHOT | EDGE
BESIDE_EXCLUSIVE = EXCLUSIVE | WAKEUP | EDGE | IN | OUT | ERR | HUP

# kqueue(2)
READ, WRITE = -1, -2
KEYS = {READ: IN, WRITE: OUT}
ADD, DELETE, ENABLE, DISABLE, ONCE, CLEAR = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
ERROR, EOF = 0x4000, 0x8000

# which directions of a socket are shut
NO_MORE_RECEIVING, NO_MORE_SENDING, NO_MORE = 1, 2, 3

INT_MAX = 2**31 - 1
MOST_IN_EVENTFD = 2**64 - 2
PIPE_BUF = 4096
NANOSECONDS = 1_000_000_000


class WouldWaitForever(RuntimeError):
    """A wait that nothing can end: nothing is ready, and no action or deadline is left."""


def fail(number: int) -> NoReturn:
    """Raise the OSError of this errno, of the subclass that Python has for it."""
    raise OSError(number, os.strerror(number))


# ---- open files -------------------------------------------------------------------------------


def _written(address: Any) -> str:
    """Return an address as people write it: ``127.0.0.1:9090``."""
    return "{}:{}".format(*address) if isinstance(address, tuple) else str(address)


class Watcher:
    """One who is told what happens to a file: a line of an interest list."""

    def __init__(self, interests: InterestList[Any], file: File, fd: int) -> None:
        self.interests = interests
        self.file = file
        self.fd = fd

    @property
    def key(self) -> Hashable:
        """What tells it from the other lines of its list."""
        raise NotImplementedError

    def woken(self, key: int) -> bool:
        """Hear that something happened; return True when nobody behind needs to hear it.

        `key` says what, as epoll bits; 0 is anything.
        """
        raise NotImplementedError

    def closed(self, fd: int) -> bool:
        """Hear that the file lost this descriptor; return whether that ends the watch."""
        raise NotImplementedError


class File:
    """An open file: what duplicates of a descriptor share, and the close of the last one ends."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.inode = 0
        self.error = 0
        self.watchers: list[Watcher] = []  # in the order in which they hear

    def state(self) -> int:
        """Return the events that hold now (poll(2))."""
        raise NotImplementedError

    def amount(self, direction: int) -> int:
        """Return what kqueue calls `data`: how much can be read, or written, now."""
        return 0

    def ended(self, direction: int) -> bool:
        """Return whether no more will come, or can be written."""
        return False

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes (read(2))."""
        fail(errno.EINVAL)

    def write(self, data: bytes) -> int:
        """Take what there is room for and return how many bytes that was (write(2))."""
        fail(errno.EINVAL)

    def released(self) -> None:
        """Do what the close of the last descriptor does."""

    @property
    def name(self) -> str:
        """What kind of file it is, or who its peer is, in a word or two."""
        return str(self).partition(",")[0]

    @property
    def number(self) -> str:
        """The first of its descriptors, in words."""
        return str(self.descriptors[0]) if self.descriptors else "closed"

    def wake(self, key: int) -> None:
        """Tell the watchers that something happened, until one keeps it to itself."""
        for watcher in list(self.watchers):
            if watcher.woken(key):
                break


class Buffer:
    """Bytes on their way in one direction, in the chunks in which they were sent.

    A chunk takes up its room until the last byte of it was read, as it does in Linux.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._chunks: deque[bytes] = deque()
        self._read = 0  # of the first chunk

    def __len__(self) -> int:
        """Return how many bytes can be read."""
        return self.used - self._read

    @property
    def room(self) -> int:
        """How many bytes can be written."""
        return self.size - self.used

    def put(self, data: bytes) -> int:
        """Take what there is room for, as one chunk."""
        chunk = data[: self.room]
        self._chunks.append(chunk)
        self.used += len(chunk)
        return len(chunk)

    def take(self, size: int) -> bytes:
        """Return at most `size` bytes."""
        pieces = []
        while size and self._chunks:
            chunk = self._chunks[0]
            piece = chunk[self._read : self._read + size]
            pieces.append(piece)
            size -= len(piece)
            self._read += len(piece)
            if self._read == len(chunk):
                self.used -= len(self._chunks.popleft())
                self._read = 0
        return b"".join(pieces)

    def clear(self) -> None:
        """Forget them all."""
        self._chunks.clear()
        self.used = self._read = 0


class SocketFile(File):
    """A socket: what a connection and a listener have in common."""

    def __init__(self, address: Any) -> None:
        super().__init__()
        self.address = address
        self.shut = 0

    def state(self) -> int:
        """HUP when both directions are shut; readable when nothing more will be received."""
        state = ERR if self.error else 0
        if self.shut == NO_MORE:
            state |= HUP
        if self.shut & NO_MORE_RECEIVING:
            state |= RDHUP | IN
        return state

    def shutdown(self, directions: int) -> None:
        """End one direction or both."""
        self.shut |= directions
        self.wake(0)

    def take_error(self) -> int:
        """Return the pending error, which is none from then on."""
        error, self.error = self.error, 0
        return error


class Connection(SocketFile):
    """One end of a stream: what socketpair(2), connect(2) and accept(2) make."""

    peer: Connection

    def __init__(self, buffer: int, address: Any) -> None:
        super().__init__(address)
        self.received = Buffer(buffer)
        self.resets = False  # its close is a reset, though nothing be unread

    def state(self) -> int:
        """Readable with bytes or at the end; writable while at most a quarter is on its way."""
        state = super().state()
        if self.received:
            state |= IN
        if self._writable():
            state |= OUT
        return state

    def _writable(self) -> bool:
        buffer = self.peer.received
        return buffer.used * 4 <= buffer.size

    def amount(self, direction: int) -> int:
        """Return how many bytes were received, or fit."""
        return len(self.received) if direction == READ else self.peer.received.room

    def ended(self, direction: int) -> bool:
        """Return whether that direction was shut, from here or there."""
        return self.shut & (NO_MORE_RECEIVING if direction == READ else NO_MORE_SENDING) != 0

    def read(self, size: int) -> bytes:
        """Return received bytes; when a whole chunk was read the peer may write again."""
        if not size:
            return b""
        if not self.received:
            if self.error:
                fail(self.take_error())
            if self.shut & NO_MORE_RECEIVING:
                return b""
            fail(errno.EAGAIN)
        used = self.received.used
        data = self.received.take(size)
        if self.received.used < used and self.peer._writable():
            self.peer.wake(OUT)
        return data

    def write(self, data: bytes) -> int:
        """Send what fits; every send wakes the peer, though it was readable before."""
        if self.shut & NO_MORE_SENDING:
            fail(errno.EPIPE)
        if not data:
            return 0
        if not self.peer.received.room:
            fail(errno.EAGAIN)
        count = self.peer.received.put(data)
        self.peer.wake(IN | PRI)
        return count

    def shutdown(self, directions: int) -> None:
        """End one direction or both, here and there."""
        super().shutdown(directions)
        self.peer.shut |= (directions & 1) << 1 | directions >> 1
        self.peer.wake(0)

    def released(self) -> None:
        """End both directions; bytes that nobody read make it a reset."""
        self.peer.shut = NO_MORE
        if self.received or self.resets:
            self.peer.error = errno.ECONNRESET
        self.received.clear()
        self.peer.wake(0)

    @property
    def name(self) -> str:
        """The address of its peer."""
        return _written(self.peer.address) or "socket pair"

    def __str__(self) -> str:
        return f"connected socket, peer {self.peer.number}"


class Listener(SocketFile):
    """A socket that connections come in at."""

    def __init__(self, address: Any, backlog: int) -> None:
        super().__init__(address)
        self.backlog = backlog
        self.waiting: deque[Connection] = deque()

    def state(self) -> int:
        """Readable while connections wait; never writable."""
        return super().state() | (IN if self.waiting else 0)

    def amount(self, direction: int) -> int:
        """Return how many connections wait."""
        return len(self.waiting) if direction == READ else 0

    def read(self, size: int) -> bytes:
        """Fail: connections come out of it, no bytes."""
        return super().read(size) if size else b""

    def write(self, data: bytes) -> int:
        """Fail: it is not connected."""
        fail(errno.ENOTCONN)

    def released(self) -> None:
        """Reset the connections that nobody accepted."""
        for connection in self.waiting:
            connection.resets = True
            connection.released()

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"listener :{_written(self.address).rpartition(':')[2]}"

    def __str__(self) -> str:
        return f"listener at {self.address}, {len(self.waiting)} waiting"


class PipeReader(File):
    """The end of a pipe that one reads from."""

    writer: PipeWriter

    def __init__(self, buffer: int) -> None:
        super().__init__()
        self.buffer = Buffer(buffer)

    def state(self) -> int:
        """Readable with bytes; the end of the stream is HUP alone."""
        return (IN if self.buffer else 0) | (0 if self.writer.descriptors else HUP)

    def amount(self, direction: int) -> int:
        """Return how many bytes can be read."""
        return len(self.buffer) if direction == READ else 0

    def ended(self, direction: int) -> bool:
        """Return whether the writing end was closed."""
        return direction == READ and not self.writer.descriptors

    def read(self, size: int) -> bytes:
        """Return bytes that were written; the writer is woken only when it could not write."""
        if not self.buffer:
            if size and self.writer.descriptors:
                fail(errno.EAGAIN)
            return b""
        was_full = not self.writer.writable()
        data = self.buffer.take(size)
        if was_full and self.writer.writable():
            self.writer.wake(OUT)
        return data

    def write(self, data: bytes) -> int:
        """Fail: it is not open for writing."""
        fail(errno.EBADF)

    def released(self) -> None:
        """Tell the writer."""
        self.writer.wake(0)

    def __str__(self) -> str:
        return f"reading end of a pipe, writing end {self.writer.number}"


class PipeWriter(File):
    """The end of a pipe that one writes to."""

    def __init__(self, reader: PipeReader) -> None:
        super().__init__()
        self.reader = reader

    @property
    def unsplit(self) -> int:
        """So many bytes are written all or not at all (PIPE_BUF, pipe(7))."""
        return min(PIPE_BUF, self.reader.buffer.size)

    def writable(self) -> bool:
        """Return whether such a write finds room."""
        return self.reader.buffer.room >= self.unsplit

    def state(self) -> int:
        """Writable with room; without a reader ERR, too."""
        return (OUT if self.writable() else 0) | (0 if self.reader.descriptors else ERR)

    def amount(self, direction: int) -> int:
        """Return how many bytes fit."""
        return self.reader.buffer.room if direction == WRITE else 0

    def ended(self, direction: int) -> bool:
        """Return whether the reading end was closed."""
        return direction == WRITE and not self.reader.descriptors

    def read(self, size: int) -> bytes:
        """Fail: it is not open for reading."""
        fail(errno.EBADF)

    def write(self, data: bytes) -> int:
        """Take what fits; up to PIPE_BUF bytes go all or not at all."""
        if not data:
            return 0
        if not self.reader.descriptors:
            fail(errno.EPIPE)
        least = len(data) if len(data) <= self.unsplit else 1
        if self.reader.buffer.room < least:
            fail(errno.EAGAIN)
        count = self.reader.buffer.put(data)
        self.reader.wake(IN)
        return count

    def released(self) -> None:
        """Tell the reader."""
        self.reader.wake(0)

    def __str__(self) -> str:
        return f"writing end of a pipe, reading end {self.reader.number}"


class EventFd(File):
    """A counter that one can wait for (eventfd(2))."""

    def __init__(self, value: int, semaphore: bool) -> None:
        super().__init__()
        self.value = value
        self.semaphore = semaphore

    def state(self) -> int:
        """Readable unless zero; writable while one can be added."""
        return (IN if self.value else 0) | (OUT if self.value < MOST_IN_EVENTFD else 0)

    def amount(self, direction: int) -> int:
        """Return the counter, or how much can be added."""
        return self.value if direction == READ else MOST_IN_EVENTFD - self.value

    def read(self, size: int) -> bytes:
        """Return the counter, as 8 bytes, and set it to zero; a semaphore counts down by one."""
        if size < 8:
            fail(errno.EINVAL)
        if not self.value:
            fail(errno.EAGAIN)
        value = 1 if self.semaphore else self.value
        self.value -= value
        self.wake(OUT)
        return value.to_bytes(8, sys.byteorder)

    def write(self, data: bytes) -> int:
        """Add 8 bytes' worth to the counter; adding zero wakes, too."""
        value = int.from_bytes(data[:8], sys.byteorder)
        if len(data) < 8 or value > MOST_IN_EVENTFD:
            fail(errno.EINVAL)
        if value > MOST_IN_EVENTFD - self.value:
            fail(errno.EAGAIN)
        self.value += value
        self.wake(IN)
        return 8

    def __str__(self) -> str:
        return f"eventfd, counter {self.value}"


# ---- epoll and kqueue -------------------------------------------------------------------------

Line = TypeVar("Line", bound=Watcher)


class InterestList(File, Generic[Line]):
    """What an epoll and a kqueue have in common: what is watched, and what of it may be ready.

    Whether something on the ready list *is* ready, a wait asks the file. The list is a dict for its
    order, in which events are reported; a line is on it once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[Hashable, Line] = {}
        self.ready: dict[Line, None] = {}
        self.waited_on = False  # and not woken yet

    def add_line(self, line: Line, *, last: bool = False) -> None:
        """Watch its file: the newest hears first, unless it is to hear `last`."""
        self.lines[line.key] = line
        line.file.watchers.insert(len(line.file.watchers) if last else 0, line)

    def make_ready(self, line: Line) -> None:
        """Put it at the end of the ready list, unless it is on it, and wake who waits."""
        self.ready.setdefault(line)
        self.waited_on = False
        self.wake(IN)

    def drop(self, line: Line) -> None:
        """Take it off both lists."""
        del self.lines[line.key]
        self.ready.pop(line, None)
        line.file.watchers.remove(line)

    def released(self) -> None:
        """Stop watching."""
        for line in list(self.lines.values()):
            self.drop(line)


class Entry(Watcher):
    """One line of an epoll's interest list: a file, the number it was added by, and a mask."""

    def __init__(self, interests: EpollFile, file: File, fd: int, mask: int) -> None:
        super().__init__(interests, file, fd)
        self.mask = mask | ERR | HUP

    @property
    def key(self) -> Hashable:
        """The file and the number that it was added by, together."""
        return self.file, self.fd

    def state(self) -> int:
        """Return which of the events asked for hold now."""
        return self.file.state() & self.mask

    def woken(self, key: int) -> bool:
        """Get on the ready list when `key` is among what was asked for."""
        if not self.mask & ~MODES or (key and not key & self.mask):
            return False
        waited_on = self.interests.waited_on
        self.interests.make_ready(self)
        # An exclusive one keeps it to itself only when it wakes somebody, and never the end (0).
        return bool(self.mask & EXCLUSIVE and waited_on and key & self.mask & (IN | OUT))

    def closed(self, fd: int) -> bool:
        """Stay while a duplicate keeps the file open (epoll(7), question 6)."""
        return not self.file.descriptors

    def __str__(self) -> str:
        names = {IN: "readable", PRI: "urgent data", OUT: "writable", RDHUP: "half closed"}
        wanted = [name for bit, name in names.items() if self.mask & bit] or ["an error"]
        if self.mask & EDGE:
            wanted.append("edge-triggered")
        if not self.mask & ~MODES:
            wanted = ["nothing: a one-shot that fired"]
        return f"{self.fd}: {', '.join(wanted)} ({self.file})"


class EpollFile(InterestList[Entry]):
    """An epoll (epoll(7)); epolls can watch each other."""

    def state(self) -> int:
        """Readable while something is ready; what is not leaves the list."""
        while self.ready:
            entry = next(iter(self.ready))
            if entry.state():
                return IN
            del self.ready[entry]
        return 0

    def __str__(self) -> str:
        return "epoll"

    def watches(self, file: File) -> bool:
        """Return whether `file` is on the interest list, or on that of an epoll that is on it."""
        files = [entry.file for entry in self.lines.values()]
        return file in files or any(
            one.watches(file) for one in files if isinstance(one, EpollFile)
        )

    def add(self, file: File, fd: int, mask: int) -> None:
        """Watch `file`; it is on the ready list at once if it is ready (EPOLL_CTL_ADD)."""
        if file is self:
            fail(errno.EINVAL)
        if mask & EXCLUSIVE and (isinstance(file, EpollFile) or mask & ~BESIDE_EXCLUSIVE):
            fail(errno.EINVAL)
        if isinstance(file, EpollFile) and file.watches(self):
            fail(errno.ELOOP)
        if (file, fd) in self.lines:
            fail(errno.EEXIST)
        entry = Entry(self, file, fd, mask)
        self.add_line(entry, last=bool(mask & EXCLUSIVE))
        if entry.state():
            self.make_ready(entry)

    def modify(self, file: File, fd: int, mask: int) -> None:
        """Ask for something else; what is ready by that gets on the ready list (EPOLL_CTL_MOD)."""
        if file is self or mask & EXCLUSIVE:
            fail(errno.EINVAL)
        entry = self.entry(file, fd)
        if entry.mask & EXCLUSIVE:
            fail(errno.EINVAL)
        entry.mask = mask | ERR | HUP
        if entry.state() and entry not in self.ready:
            self.make_ready(entry)

    def remove(self, file: File, fd: int) -> None:
        """Watch it no more (EPOLL_CTL_DEL)."""
        if file is self:
            fail(errno.EINVAL)
        self.drop(self.entry(file, fd))

    def entry(self, file: File, fd: int) -> Entry:
        """Return the entry of this file and number."""
        return self.lines.get((file, fd)) or fail(errno.ENOENT)

    def collect(self, most: int) -> list[tuple[int, int]]:
        """Return at most `most` events, from the head of the ready list (epoll_wait(2)).

        What is level-triggered goes back to the end of it: the next wait asks it again. What there
        was no room for stays at the head.
        """
        waiting, self.ready = self.ready, {}
        events: list[tuple[int, int]] = []
        for entry in list(waiting):
            if len(events) == most:
                break
            del waiting[entry]
            state = entry.state()
            if not state:
                continue
            events.append((entry.fd, state))
            if entry.mask & ONESHOT:
                entry.mask &= MODES
            elif not entry.mask & EDGE:
                self.ready[entry] = None
        self.ready = {**waiting, **self.ready}
        return events


@dataclass
class Kevent:
    """An event of a kqueue, or a change to what it watches (kqueue(2)). Made by `Kernel.kevent`."""

    ident: int
    filter: int = READ
    flags: int = ADD
    fflags: int = 0
    data: int = 0
    udata: Any = 0


class Knote(Watcher):
    """One line of a kqueue's interest list: a number, a direction, and what was last seen there."""

    def __init__(self, interests: KqueueFile, file: File, change: Kevent) -> None:
        super().__init__(interests, file, change.ident)
        self.filter = change.filter
        self.flags = change.flags & ~(ADD | DELETE | ENABLE | DISABLE)
        self.fflags = self.data = 0
        self.udata = change.udata
        self.active = False
        self.disabled = bool(change.flags & DISABLE)

    @property
    def key(self) -> Hashable:
        """The number and the direction."""
        return self.fd, self.filter

    def holds(self) -> bool:
        """Look at the file: return whether the event holds, and keep what there is to say of it."""
        self.data = self.file.amount(self.filter)
        if self.file.ended(self.filter):
            self.flags |= EOF
            self.fflags = self.file.error
            return True
        return self.file.state() & KEYS[self.filter] != 0

    def woken(self, key: int) -> bool:
        """Become active if this direction is concerned and the event holds."""
        if (not key or key & KEYS[self.filter]) and self.holds():
            self.active = True
            self.enqueue()
        return False

    def enqueue(self) -> None:
        """Get on the ready list when active, unless disabled."""
        if self.active and not self.disabled and self not in self.interests.ready:
            self.interests.make_ready(self)

    def closed(self, fd: int) -> bool:
        """Go with the number."""
        return fd == self.fd

    def event(self) -> Kevent:
        """Return what is reported."""
        return Kevent(self.fd, self.filter, self.flags, self.fflags, self.data, self.udata)

    def __str__(self) -> str:
        wanted = "readable" if self.filter == READ else "writable"
        if self.flags & CLEAR:
            wanted += ", edge-triggered"
        if self.disabled:
            wanted = "nothing: disabled"
        return f"{self.fd}: {wanted} ({self.file})"


class KqueueFile(InterestList[Knote]):
    """A kqueue (kqueue(2)); kqueues can watch each other."""

    def state(self) -> int:
        """Readable while something is on the ready list."""
        return IN if self.ready else 0

    def amount(self, direction: int) -> int:
        """Return how long the ready list is."""
        return len(self.ready) if direction == READ else 0

    def __str__(self) -> str:
        return "kqueue"

    def change(self, file: File, change: Kevent) -> None:
        """Apply one change.

        Adding what is there looks at it anew and replaces `udata`, but not the mode: EV_CLEAR and
        EV_ONESHOT are those of the first EV_ADD until it is deleted.
        """
        if file is self or change.filter not in KEYS:
            fail(errno.EINVAL)
        knote = self.lines.get((change.ident, change.filter))
        if knote is None:
            if not change.flags & ADD:
                fail(errno.ENOENT)
            if isinstance(file, PipeWriter) and file.ended(change.filter):
                fail(errno.EPIPE)
            knote = Knote(self, file, change)
            self.add_line(knote)
        elif change.flags & DELETE:
            self.drop(knote)
            return
        elif change.flags & (ENABLE | DISABLE):
            knote.disabled = not change.flags & ENABLE
        knote.udata = change.udata
        if not knote.disabled and knote.holds():
            knote.active = True
        knote.enqueue()

    def collect(self, most: int) -> list[Kevent]:
        """Return at most `most` events, from the head of the ready list.

        A one-shot is reported without another look, though it may be over, and then gone.
        """
        events: list[Kevent] = []
        for knote in list(self.ready):
            if len(events) == most:
                break
            del self.ready[knote]
            if knote.disabled:
                continue
            if knote.flags & ONCE:
                events.append(knote.event())
                self.drop(knote)
                continue
            knote.active = knote.holds()
            if knote.active:
                events.append(knote.event())
                if knote.flags & CLEAR:
                    knote.active = False
                else:
                    self.ready[knote] = None
        return events


# ---- what programs hold -----------------------------------------------------------------------

Self = TypeVar("Self", bound="OneThread")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=File)


class OneThread:
    """Something that only the thread may use which made the kernel."""

    def __init__(self, thread: int) -> None:
        self._thread = thread


def public(
    method: Callable[Concatenate[Self, Parameters], Result],
) -> Callable[Concatenate[Self, Parameters], Result]:
    """Make a method refuse other threads: who runs when would be chance."""

    @functools.wraps(method)
    def checked(self: Self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                f"{method.__name__}() in another thread: a simulated kernel belongs to the one"
                " thread that made it; what others would do, give to at()"
            )
        return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[Self, Parameters], Result]", checked)


class Handle(OneThread):
    """An object that stands for a descriptor of a simulated kernel.

    It looks up what the number stands for in every call. Nothing is closed when it is forgotten.
    """

    word = "object"

    def __init__(self, kernel: Kernel, file: File) -> None:
        super().__init__(kernel._thread)
        self._kernel = kernel
        self._fd = kernel._open(file)

    def _look_up(self, kind: type[Kind], error: int) -> Kind:
        """Return the file that the number stands for; another kind is an `error`."""
        file = self._kernel._file(self._fd)
        return file if isinstance(file, kind) else fail(error)

    @public
    def close(self) -> None:
        """Close the descriptor; a second close does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._kernel.close(fd)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._fd < 0:
            return f"<{self.word}, closed>"
        file = self._kernel._files.get(self._fd)
        return f"<{self.word} {self._fd}: {file if file else 'closed'}>"


class Socket(Handle):
    """A socket of a simulated kernel, with the methods of Python's; none of them ever blocks."""

    word = "Socket"

    def _socket(self) -> SocketFile:
        return self._look_up(SocketFile, errno.ENOTSOCK)

    @public
    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return self._fd

    @public
    def recv(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end of the stream."""
        if size < 0:
            raise ValueError("negative buffersize in recv")
        return self._socket().read(size)

    @public
    def recv_into(self, buffer: Any, size: int = 0) -> int:
        """Receive into `buffer` and return how many bytes it was."""
        with memoryview(buffer).cast("B") as view:
            if not 0 <= size <= len(view):
                raise ValueError("nbytes is greater than the length of the buffer")
            data = self.recv(size or len(view))
            view[: len(data)] = data
        return len(data)

    @public
    def send(self, data: Any, /) -> int:
        """Send what there is room for and return how many bytes it was."""
        return self._socket().write(bytes(memoryview(data)))

    @public
    def sendmsg(self, buffers: Iterable[Any]) -> int:
        """Send several buffers as one."""
        return self._socket().write(b"".join(buffers))

    @public
    def accept(self) -> tuple[Socket, Any]:
        """Return the connection that has waited longest, and the address of its peer."""
        self._socket()
        listener = self._look_up(Listener, errno.EINVAL)
        if not listener.waiting:
            fail(errno.EAGAIN)
        connection = listener.waiting.popleft()
        return Socket(self._kernel, connection), connection.peer.address

    @public
    def shutdown(self, how: int) -> None:
        """End receiving, sending or both: SHUT_RD, SHUT_WR, SHUT_RDWR."""
        file = self._socket()
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            fail(errno.EINVAL)
        file.shutdown(how + 1)

    @public
    def reset(self) -> None:
        """Close, with the reset that SO_LINGER with zero seconds makes of it."""
        self._look_up(Connection, errno.ENOTCONN).resets = True
        self.close()

    @public
    def detach(self) -> int:
        """Return the descriptor, which stays open, and forget it."""
        fd, self._fd = self._fd, -1
        return fd

    @public
    def getsockname(self) -> Any:
        """Return the address of this end."""
        return self._socket().address

    @public
    def getpeername(self) -> Any:
        """Return the address of the other end."""
        return self._look_up(Connection, errno.ENOTCONN).peer.address

    @public
    def getsockopt(self, level: int, option: int) -> int:
        """Return and clear the pending error (SO_ERROR); there are no other options."""
        if (level, option) != (socket.SOL_SOCKET, socket.SO_ERROR):
            fail(errno.ENOPROTOOPT)
        return self._socket().take_error()

    @public
    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Accept any option; it changes nothing."""
        self._socket()

    @public
    def setblocking(self, blocking: bool) -> None:
        """Accept False; True is a ValueError."""
        self._kernel.set_blocking(self._fd, blocking)


class InterestHandle(Handle):
    """An epoll or a kqueue; every method but `close` raises ValueError once it is closed."""

    def _look_up(self, kind: type[Kind], error: int) -> Kind:
        self.fileno()
        return super()._look_up(kind, error)

    @public
    def fileno(self) -> int:
        """Return the descriptor."""
        if self._fd < 0:
            raise ValueError(f"I/O operation on closed {self.word} object")
        return self._fd

    @property
    @public
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def __repr__(self) -> str:
        file = self._kernel._files.get(self._fd)
        if not isinstance(file, InterestList):
            return super().__repr__()
        ready = ", ".join(str(line.fd) for line in file.ready) or "nothing"
        return f"<{self.word} {self._fd}: watches {len(file.lines)}, ready may be {ready}>"


class EpollObject(InterestHandle):
    """An epoll of a simulated kernel, as `select.epoll` is one of the real. See `Kernel.epoll`."""

    word = "epoll"

    def _epoll(self) -> EpollFile:
        return self._look_up(EpollFile, errno.EINVAL)

    @public
    def register(self, fd: Any, eventmask: int = IN | PRI | OUT) -> None:
        """Add a descriptor to the interest list."""
        epoll, number = self._epoll(), number_of(fd)
        epoll.add(self._kernel._file(number), number, eventmask)

    @public
    def modify(self, fd: Any, eventmask: int) -> None:
        """Replace what is asked for."""
        epoll, number = self._epoll(), number_of(fd)
        epoll.modify(self._kernel._file(number), number, eventmask)

    @public
    def unregister(self, fd: Any) -> None:
        """Take a descriptor off the interest list."""
        epoll, number = self._epoll(), number_of(fd)
        epoll.remove(self._kernel._file(number), number)

    @public
    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Return ``(fd, events)`` pairs, an empty list after `timeout` seconds without any.

        The time is rounded up to whole milliseconds; None or less than zero waits forever.
        """
        epoll = self._epoll()
        if maxevents == -1:
            maxevents = 1023  # FD_SETSIZE - 1, as in select.epoll
        if maxevents < 1:
            raise ValueError(f"maxevents must be greater than 0, got {maxevents}")
        pause = None
        if timeout is not None and not timeout < 0:
            milliseconds = math.ceil(nanoseconds(timeout) / 1_000_000)
            if milliseconds > INT_MAX:
                raise OverflowError("timeout is too large")
            pause = milliseconds * 1_000_000
        return self._kernel._wait(epoll, lambda: epoll.collect(maxevents), pause)

    @property
    @public
    def ready(self) -> list[int]:
        """The descriptors on the ready list, in the kernel's order."""
        return [entry.fd for entry in self._epoll().ready]


class KqueueObject(InterestHandle):
    """A kqueue of a simulated kernel, as `select.kqueue` is a real one. See `Kernel.kqueue`."""

    word = "kqueue"

    def _kqueue(self) -> KqueueFile:
        return self._look_up(KqueueFile, errno.EBADF)

    @public
    def control(
        self, changelist: Iterable[Kevent] | None, max_events: int, timeout: float | None = None
    ) -> list[Kevent]:
        """Apply changes, then return at most `max_events` events.

        A change that fails raises its OSError, or is an EV_ERROR event if there is room for one;
        then nothing else is returned. `timeout` is in seconds, rounded up to nanoseconds; None
        waits forever.
        """
        kqueue = self._kqueue()
        if max_events < 0:
            raise ValueError(f"Length of eventlist must be 0 or positive, got {max_events}")
        if timeout is not None and timeout < 0:
            raise ValueError("timeout must be positive or None")
        failed: list[Kevent] = []
        for change in list(changelist or ()):
            try:
                kqueue.change(self._kernel._file(change.ident), change)
            except OSError as error:
                if len(failed) == max_events:
                    raise
                failed.append(replace(change, flags=ERROR, data=error.errno or 0))
        if failed or not max_events:
            return failed
        pause = None if timeout is None else nanoseconds(timeout)
        return self._kernel._wait(kqueue, lambda: kqueue.collect(max_events), pause)

    @property
    @public
    def ready(self) -> list[tuple[int, int]]:
        """The ``(ident, filter)`` pairs on the ready list, in the kernel's order."""
        return [(knote.fd, knote.filter) for knote in self._kqueue().ready]


class Identity(NamedTuple):
    """What tells open files apart, of all that fstat(2) returns."""

    st_dev: int
    st_ino: int


class Kernel(OneThread):
    """A kernel in memory, with a clock of its own; the same program always runs the same way.

    `buffer` is how many bytes a connection holds in each direction, and a pipe. No call ever
    blocks but a wait, and a wait moves the clock to the next action (`at`) or to its deadline.
    Descriptors are numbered from 3. Only the thread that made it may use it, or anything in it.
    """

    EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP = IN, PRI, OUT, ERR, HUP, RDHUP
    EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLET = EXCLUSIVE, ONESHOT, EDGE
    KQ_FILTER_READ, KQ_FILTER_WRITE = READ, WRITE
    KQ_EV_ADD, KQ_EV_DELETE, KQ_EV_ENABLE, KQ_EV_DISABLE = ADD, DELETE, ENABLE, DISABLE
    KQ_EV_ONESHOT, KQ_EV_CLEAR, KQ_EV_EOF, KQ_EV_ERROR = ONCE, CLEAR, EOF, ERROR
    EFD_SEMAPHORE, EFD_NONBLOCK, EFD_CLOEXEC = 0o1, 0o4000, 0o2000000
    WouldWaitForever = WouldWaitForever

    def __init__(self, buffer: int = 65536) -> None:
        super().__init__(threading.get_ident())
        if buffer < 1:
            raise ValueError(f"a buffer of {buffer} bytes would hold nothing")
        self._buffer = buffer
        self._files: dict[int, File] = {}
        self._inodes = itertools.count(1)
        self._listeners: dict[Hashable, Listener] = {}
        self._ports = itertools.count(49152)
        self._now = 0  # nanoseconds
        self._actions: list[tuple[int, int, Callable[[], object]]] = []
        self._made = itertools.count()

    def __repr__(self) -> str:
        return (
            f"<Kernel at {self._now / NANOSECONDS:g} s: {len(self._files)} descriptors open,"
            f" {len(self._actions)} actions to come>"
        )

    # ---- as the module `select` has it ---------------------------------------------------------

    @public
    def epoll(self, sizehint: int = -1, flags: int = 0) -> EpollObject:
        """Open an epoll (`select.epoll`)."""
        return EpollObject(self, EpollFile())

    @public
    def kqueue(self) -> KqueueObject:
        """Open a kqueue (`select.kqueue`)."""
        return KqueueObject(self, KqueueFile())

    @public
    def kevent(
        self,
        ident: Any,
        filter: int = READ,
        flags: int = ADD,
        fflags: int = 0,
        data: int = 0,
        udata: Any = 0,
    ) -> Kevent:
        """Make a kevent (`select.kevent`)."""
        fd = ident if isinstance(ident, int) else number_of(ident)
        return Kevent(fd, filter, flags, fflags, data, udata)

    # ---- as the modules `os` and `time` have it ------------------------------------------------

    @public
    def eventfd(self, initval: int, flags: int = EFD_CLOEXEC) -> int:
        """Open an eventfd and return its descriptor."""
        return self._open(EventFd(initval, bool(flags & self.EFD_SEMAPHORE)))

    @public
    def eventfd_read(self, fd: int) -> int:
        """Return the counter and set it to zero."""
        return int.from_bytes(self._file(fd).read(8), sys.byteorder)

    @public
    def eventfd_write(self, fd: int, value: int) -> None:
        """Add to the counter."""
        self._file(fd).write(value.to_bytes(8, sys.byteorder))

    @public
    def pipe(self) -> tuple[int, int]:
        """Open a pipe; return the descriptor to read from and the one to write to."""
        reader = PipeReader(self._buffer)
        reader.writer = PipeWriter(reader)
        return self._open(reader), self._open(reader.writer)

    @public
    def read(self, fd: int, size: int) -> bytes:
        """Read at most `size` bytes."""
        file = self._file(fd)
        return file.read(size) if size >= 0 else fail(errno.EINVAL)

    @public
    def write(self, fd: int, data: Any) -> int:
        """Write what there is room for and return how many bytes it was."""
        return self._file(fd).write(bytes(memoryview(data)))

    @public
    def close(self, fd: int) -> None:
        """Close a descriptor; the file ends with its last one."""
        file = self._file(fd)
        del self._files[fd]
        file.descriptors.remove(fd)
        for watcher in list(file.watchers):
            if watcher.closed(fd):
                watcher.interests.drop(watcher)
        if not file.descriptors:
            file.released()

    @public
    def dup(self, fd: int) -> int:
        """Return another descriptor for the same open file."""
        return self._open(self._file(fd))

    @public
    def dup2(self, fd: int, fd2: int, inheritable: bool = True) -> int:
        """Make `fd2`, closed first if need be, a descriptor for the same open file as `fd`."""
        file = self._file(fd)
        if fd2 < 0:
            fail(errno.EBADF)
        if fd2 != fd:
            if fd2 in self._files:
                self.close(fd2)
            self._place(file, fd2)
        return fd2

    @public
    def fstat(self, fd: int) -> Identity:
        """Return what tells the open file from every other."""
        return Identity(1, self._file(fd).inode)

    @public
    def describe(self, fd: int) -> str:
        """Return a short name for what `fd` stands for: ``listener :9090``, a peer's address."""
        return self._file(fd).name

    @public
    def set_blocking(self, fd: int, blocking: bool) -> None:
        """Accept False; True is a ValueError."""
        self._file(fd)
        if blocking:
            raise ValueError("nothing blocks in a simulated kernel: nobody else could ever run")

    @public
    def monotonic(self) -> float:
        """Return the time, in seconds since the kernel was made."""
        return self._now / NANOSECONDS

    # ---- sockets -------------------------------------------------------------------------------

    @public
    def socketpair(self) -> tuple[Socket, Socket]:
        """Return two sockets that are connected to each other."""
        here, there = self._connected("", "")
        return Socket(self, here), Socket(self, there)

    @public
    def listen(self, address: Any = ("127.0.0.1", 0), backlog: int = 128) -> Socket:
        """Return a socket that listens at `address`; port 0 is the next one that is free.

        `backlog` connections may wait, and one more, as in Linux.
        """
        if isinstance(address, tuple) and address[1] == 0:
            address = self._free_address(address[0])
        if self._listening(address):
            fail(errno.EADDRINUSE)
        listener = self._listeners[address] = Listener(address, backlog)
        return Socket(self, listener)

    @public
    def connect(self, address: Any) -> Socket:
        """Return a socket that is connected to `address`, whether that was accepted yet or not.

        Raises ConnectionRefusedError when nobody listens, BlockingIOError when too many wait.
        """
        listener = self._listening(address)
        if listener is None or listener.shut & NO_MORE_RECEIVING:
            fail(errno.ECONNREFUSED)
        if len(listener.waiting) > listener.backlog:
            fail(errno.EAGAIN)
        mine = self._free_address(address[0]) if isinstance(address, tuple) else ""
        here, there = self._connected(mine, listener.address)
        client = Socket(self, here)
        listener.waiting.append(there)
        listener.wake(IN | PRI)
        return client

    # ---- peers and time ------------------------------------------------------------------------

    @public
    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Call ``action()`` when the clock reaches `seconds`, to the nearest nanosecond.

        Those of one time run in the order in which they were made; what lies in the past comes at
        the next wait or `sleep`. An exception leaves that call.

        An action stands for the rest of the world. To a poller that waits it may do what a signal
        handler may: `trigger` and `stop`.
        """
        if not callable(action):
            raise TypeError(f"an action is a function without parameters, not {action!r}")
        heapq.heappush(self._actions, (round(seconds * NANOSECONDS), next(self._made), action))

    @public
    def sleep(self, seconds: float) -> None:
        """Move the clock, as a callback does that takes its time, and run what comes due."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self._advance(self._now + nanoseconds(seconds))

    # ---- inside --------------------------------------------------------------------------------

    def _file(self, fd: int) -> File:
        return self._files.get(fd) or fail(errno.EBADF)

    def _open(self, file: File) -> int:
        return self._place(file, next(fd for fd in itertools.count(3) if fd not in self._files))

    def _place(self, file: File, fd: int) -> int:
        file.inode = file.inode or next(self._inodes)
        file.descriptors.append(fd)
        self._files[fd] = file
        return fd

    def _connected(self, *addresses: Any) -> tuple[Connection, Connection]:
        here, there = (Connection(self._buffer, address) for address in addresses)
        here.peer, there.peer = there, here
        return here, there

    def _listening(self, address: Hashable) -> Listener | None:
        listener = self._listeners.get(address)
        return listener if listener and listener.descriptors else None

    def _free_address(self, host: str) -> tuple[str, int]:
        return next((host, port) for port in self._ports if not self._listening((host, port)))

    def _advance(self, until: int) -> None:
        """Move the clock, and run the actions on the way."""
        while self._actions and self._actions[0][0] <= until:
            time, _, action = heapq.heappop(self._actions)
            self._now = max(self._now, time)
            action()
        self._now = max(self._now, until)

    def _wait(
        self, who: InterestList[Any], collect: Callable[[], list[Result]], pause: int | None
    ) -> list[Result]:
        """Return what `collect` finds, now or after moving the clock by at most `pause`."""
        deadline = None if pause is None else self._now + pause
        self._advance(self._now)
        while not (events := collect()) and (deadline is None or self._now < deadline):
            times = [self._actions[0][0]] if self._actions else []
            times += [] if deadline is None else [deadline]
            if not times:
                lines = list(map(str, who.lines.values())) or ["nothing: its list is empty"]
                raise WouldWaitForever(
                    f"no action and no deadline is left to end the wait of {who} {who.number} for"
                    + "".join(f"\n  {line}" for line in lines)
                )
            who.waited_on = True
            try:
                self._advance(min(times))
            finally:
                who.waited_on = False
        return events


def number_of(fd: Any) -> int:
    """Return the descriptor of an int or of something with `fileno()`.

    Raises what the functions of `select` do: TypeError, ValueError for a negative one,
    OverflowError above INT_MAX.
    """
    number = fd if isinstance(fd, int) else getattr(fd, "fileno", lambda: None)()
    if not isinstance(number, int):
        raise TypeError("argument must be an int, or have a fileno() method")
    if number < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({number})")
    if number > INT_MAX:
        raise OverflowError("Python int too large to convert to C int")
    return number


def nanoseconds(seconds: float) -> int:
    """Return whole nanoseconds, rounded up, so that no wait is ever early."""
    return math.ceil(seconds * NANOSECONDS)
