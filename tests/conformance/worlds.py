"""A world: a backend, the kernel under it, and what a test needs of that kernel.

Every test of this directory is written once and runs in each world: on the kernels that this
machine has, and on the simulated one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol

import pytest

import netpoll
from netpoll import IOEvent, PollAttachment, Poller
from netpoll.attachment import HasFileno
from netpoll.backends.epoll import mask_of
from netpoll.poller import OnError

P = ParamSpec("P")

IN, PRI, OUT, ERR, HUP, RDHUP = (
    int(bit)
    for bit in (IOEvent.IN, IOEvent.PRI, IOEvent.OUT, IOEvent.ERR, IOEvent.HUP, IOEvent.RDHUP)
)
HIGH, LOW = netpoll.EventPriority.HIGH, netpoll.EventPriority.LOW

ADDS: list[Any] = [Poller.add_read, Poller.add_write, Poller.add_read_write]
MODS: list[Any] = [Poller.mod_read, Poller.mod_write, Poller.mod_read_write]

PATIENCE = 10.0
"""Seconds that a test waits for what must happen before it fails."""

LACKS = {
    "epoll": set[str](),
    "kqueue": {"exclusive"},
    "select": {"edge_triggered", "oneshot", "exclusive"},
}
"""The modes that a backend refuses with NotImplementedError."""


class Socket(Protocol):
    """What the sockets of all worlds have in common."""

    def fileno(self) -> int: ...
    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def accept(self) -> tuple[Any, Any]: ...
    def shutdown(self, how: int, /) -> None: ...
    def getsockname(self) -> Any: ...
    def close(self) -> None: ...


class World:
    """A backend on a kernel; what is opened through it is closed when the test ends.

    `tick` is a short time in seconds: a second of the virtual clock, some milliseconds of a real
    one.
    """

    simulated: bool
    tick: float

    def __init__(self, backend: str, kernel: Any, system: Any) -> None:
        self.backend = backend
        self.kernel = kernel
        self.failures: list[Exception] = []
        self._system = system  # what has the functions of `os`
        self._numbers: set[int] = set()  # descriptors that no object owns
        self._at_end = contextlib.ExitStack()

    def open_poller(self, on_error: OnError | None = None) -> Poller:
        """Open a poller; unless `on_error` is given, an exception in a callback fails the test."""
        poller = netpoll.open_poller(
            self.backend,
            kernel=self.kernel,
            on_error=on_error or (lambda _, error: self.failures.append(error)),
        )
        self._at_end.callback(poller.close)
        return poller

    def pair(self) -> tuple[Socket, Socket]:
        """Return two connected sockets that do not block."""
        raise NotImplementedError

    def listener(self) -> Socket:
        """Return a socket that listens for connections."""
        raise NotImplementedError

    def connect(self, listener: Socket) -> Socket:
        """Return a new connection to `listener`, which has not accepted it yet."""
        raise NotImplementedError

    def accept(self, listener: Socket) -> Socket:
        """Return the other end of the next connection to `listener`."""
        raise NotImplementedError

    def reset(self, sock: Socket) -> None:
        """Close a connection so that its peer gets ECONNRESET."""
        raise NotImplementedError

    def connection(self) -> tuple[Socket, Socket]:
        """Return the two ends of a connection that was accepted and that can be reset."""
        listener = self.listener()
        there = self.connect(listener)
        return self.accept(listener), there

    def pipe(self) -> tuple[int, int]:
        """Return the reading and the writing end of a pipe; neither blocks."""
        ends: tuple[int, int] = self._system.pipe()
        for fd in ends:
            self._system.set_blocking(fd, False)
            self._numbers.add(fd)
        return ends

    def dup(self, fd: int | Socket) -> int:
        """Return another descriptor of the same file."""
        number: int = self._system.dup(fd if isinstance(fd, int) else fd.fileno())
        self._numbers.add(number)
        return number

    def close(self, fd: int) -> None:
        """Close a descriptor that no socket object owns."""
        self._numbers.remove(fd)
        self._system.close(fd)

    def dup2(self, sock: Socket, number: int) -> int:
        """Give the file of `sock` one more descriptor, this one, and return it."""
        self._system.dup2(sock.fileno(), number)
        self._numbers.add(number)
        return number

    def renumber(self, old: Socket, new: Socket) -> int:
        """Close `old` and give its number to the file of `new`, as an open may; return it."""
        number = old.fileno()
        old.close()
        return self.dup2(new, number)

    def read(self, fd: int) -> bytes:
        """Read what a descriptor has, at most 64 bytes."""
        data: bytes = self._system.read(fd, 64)
        return data

    def write(self, fd: int, data: bytes) -> None:
        """Write to a descriptor."""
        self._system.write(fd, data)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something that many seconds from now, while the test waits."""
        raise NotImplementedError

    def until_done(self) -> None:
        """Wait until the actions of `after` were done, where threads do them."""

    def clock(self) -> float:
        """Return the time in seconds."""
        raise NotImplementedError

    def passed(self, since: float, seconds: float) -> bool:
        """Whether so many seconds have passed since then: exactly so many on a virtual clock."""
        raise NotImplementedError

    def did_not_wait(self, since: float) -> bool:
        """Whether nothing has waited since then."""
        return self.clock() < since + PATIENCE

    def reported(self, event: int) -> int:
        """Return what this backend reports of `event`: select has no bits for the end."""
        return event & (IN | PRI | OUT) if self.backend == "select" else event

    def open_descriptors(self) -> list[int]:
        """Return the descriptors that are open in the process, or where the next would go."""
        raise NotImplementedError

    def end(self) -> None:
        """Close what was opened; an exception in a callback that nobody expected is an error."""
        self._at_end.close()
        for fd in self._numbers:
            self._system.close(fd)
        if self.failures:
            raise self.failures[0]


class RealWorld(World):
    """A backend on the kernel of this machine."""

    simulated = False
    tick = 1 / 64

    def __init__(self, backend: str) -> None:
        super().__init__(backend, select, os)
        self._timers: list[threading.Timer] = []

    def pair(self) -> tuple[Socket, Socket]:
        """Return two connected sockets that do not block."""
        here, there = socket.socketpair()
        return self._kept(here), self._kept(there)

    def listener(self) -> Socket:
        """Return a TCP socket that listens on the loopback."""
        return self._kept(socket.create_server(("127.0.0.1", 0)))

    def connect(self, listener: Socket) -> Socket:
        """Return a new connection to `listener`, which has not accepted it yet."""
        return self._kept(socket.create_connection(listener.getsockname(), PATIENCE))

    def accept(self, listener: Socket) -> Socket:
        """Return the other end of the next connection to `listener`."""
        assert select.select([listener], [], [], PATIENCE)[0]
        connection: socket.socket = listener.accept()[0]
        return self._kept(connection)

    def reset(self, sock: Socket) -> None:
        """Close a connection so that its peer gets ECONNRESET: socket(7), SO_LINGER."""
        assert isinstance(sock, socket.socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something in another thread that many seconds from now."""
        timer = threading.Timer(seconds, action)
        self._timers.append(timer)
        timer.start()
        self._at_end.callback(timer.join)

    def until_done(self) -> None:
        """Wait for the threads of `after`."""
        for timer in self._timers:
            timer.join()

    def clock(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()

    def passed(self, since: float, seconds: float) -> bool:
        """Whether so many seconds have passed since then: never early, late by any time."""
        return self.clock() >= since + seconds

    def open_descriptors(self) -> list[int]:
        """Return the descriptors that are open in this process, of the first few hundred."""
        return [fd for fd in range(256) if is_open(fd)]

    def _kept(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(False)
        self._at_end.callback(sock.close)
        return sock


class SimulatedWorld(World):
    """A backend on a simulated kernel."""

    simulated = True
    tick = 1.0

    def __init__(self, backend: str) -> None:
        from netpoll.simulated import Kernel

        kernel = Kernel()
        super().__init__(backend, kernel, kernel)

    def pair(self) -> tuple[Socket, Socket]:
        """Return two connected sockets that do not block."""
        here, there = self.kernel.socketpair()
        return self._kept(here), self._kept(there)

    def listener(self) -> Socket:
        """Return a socket that listens for connections."""
        return self._kept(self.kernel.listen())

    def connect(self, listener: Socket) -> Socket:
        """Return a new connection to `listener`, which has not accepted it yet."""
        return self._kept(self.kernel.connect(listener.getsockname()))

    def accept(self, listener: Socket) -> Socket:
        """Return the other end of the next connection to `listener`."""
        return self._kept(listener.accept()[0])

    def reset(self, sock: Socket) -> None:
        """Close a connection so that its peer gets ECONNRESET."""
        resettable: Any = sock
        resettable.reset()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something when the clock will have moved by that many seconds."""
        self.kernel.at(self.clock() + seconds, action)

    def clock(self) -> float:
        """Return the virtual time in seconds."""
        now: float = self.kernel.monotonic()
        return now

    def passed(self, since: float, seconds: float) -> bool:
        """Whether exactly so many seconds have passed since then."""
        return self.clock() == since + seconds

    def did_not_wait(self, since: float) -> bool:
        """Whether the clock stands still since then."""
        return self.clock() == since

    def open_descriptors(self) -> list[int]:
        """Return the lowest numbers that are free: a descriptor left open would be missing."""
        ends: list[int] = list(self.kernel.pipe())
        for fd in ends:
            self.kernel.close(fd)
        return ends

    def _kept(self, sock: Any) -> Socket:
        self._at_end.callback(sock.close)
        kept: Socket = sock
        return kept


REAL = [
    pytest.param(lambda name=name: RealWorld(name), id=name)
    for name in ("epoll", "kqueue", "select")
    if hasattr(select, name)
]
SIMULATED = [
    pytest.param(lambda name=name: SimulatedWorld(name), id=f"simulated {name}")
    for name in ("epoll", "kqueue")
]

on_real_kernels = pytest.mark.parametrize("world", REAL, indirect=True)
"""For what the simulated kernel has not: threads, processes, out-of-band data."""


def needs(mode: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a test of `mode` one of the refusal, in the worlds whose backend does not have it.

    There the very same program must end with NotImplementedError.
    """

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            world = kwargs["world"]
            assert isinstance(world, World)
            if mode in LACKS[world.backend]:
                with pytest.raises(NotImplementedError):
                    test(*args, **kwargs)
            else:
                test(*args, **kwargs)

        return run

    return decorate


class Calls:
    """Callbacks that note by what name, and for which event, they were called, in their order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.events: list[int] = []
        self.flags: list[int] = []

    def of(
        self,
        fd: int | HasFileno,
        name: str = "",
        then: Callable[[int], object] = lambda fd: None,
    ) -> PollAttachment:
        """Return an attachment whose callback notes its call and goes on with ``then(fd)``."""

        def callback(fd: int, event: int, flags: int) -> None:
            self.names.append(name)
            self.events.append(event)
            self.flags.append(flags)
            then(fd)

        return PollAttachment(fd, callback)

    def in_rounds(self, poller: Poller, count: int) -> list[int]:
        """Run `count` rounds that do not wait; return the event of each, 0 where there was none."""
        events = []
        for _ in range(count):
            self.events.clear()
            assert poller.poll_once(0) == len(self.events) <= 1
            events.append(self.events[0] if self.events else 0)
        return events


def agree(world: World, poller: Poller) -> bool:
    """Whether the kernel's list, where it can be seen, is what the table says: proc(5), fdinfo."""
    if world.simulated or world.backend != "epoll":
        return True
    lines = pathlib.Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text().splitlines()
    entries = [line.split() for line in lines if line.startswith("tfd:")]
    listed = {int(entry[1]): int(entry[3], 16) & ~(ERR | HUP) for entry in entries}
    known = {
        fd: mask_of(select, registration.interest)
        for fd, registration in poller._registrations.items()
    }
    known[poller.wakeup.fd] = IN | PRI | RDHUP
    return listed == known


def is_silent(world: World, poller: Poller) -> bool:
    """Whether nothing ends a wait before its time: no event, not even one that is dropped."""
    began = world.clock()
    return poller.poll_once(world.tick) == 0 and world.passed(began, world.tick)


def ignore(fd: int, event: int, flags: int) -> None:
    """Be a callback that does nothing."""


def raising(error: BaseException) -> Callable[..., None]:
    """Return a function that raises `error`, whatever it is called with."""

    def func(*_: object) -> None:
        raise error.with_traceback(None)  # else it grows when it is raised again and again

    return func


def is_open(fd: int) -> bool:
    """Return whether this process has the descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def fill(sock: Socket) -> int:
    """Send until nothing more fits; return how many bytes did."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(bytes(4096))
    return sent


def drain(sock: Socket) -> bytes:
    """Receive until nothing is left, or the end."""
    received = b""
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(65536):
            received += data
    return received
