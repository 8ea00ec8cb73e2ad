"""The simulated kernel against the one below: random programs run on both, step by step.

A program opens files, reads, writes, shuts and closes them, registers them with two epolls in every
mode, and asks those what is ready. Linux does all of it at once for pipes, eventfds and sockets of
the family AF_UNIX, so nothing has to be waited for. Events are compared as lists: the order of the
ready list is part of the behavior.

The simulated kernel chooses each number, the lowest that is free, and the real file is moved to it
plus `BASE`; so numbers are the same, and used again, in both. Linux counts buffer memory
where the simulated kernel counts bytes: programs send a few bytes, far from where that matters, or
fill a buffer to the brim and empty it again.
"""

import contextlib
import itertools
import os
import pathlib
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from netpoll.simulated import Kernel, Socket

if sys.platform != "linux":
    pytest.skip("compares with Linux's own epoll", allow_module_level=True)

BASE = 600
"""What is added to a simulated descriptor to get the real one."""

FIXED = [40, 41]
NEVER_OPEN = 199
Step = tuple[Any, ...]
serial = itertools.count()


class Linux:
    """The calls that a program makes, on the real kernel. Opening ones return new descriptors."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def place(self, fd: int, number: int) -> None:
        """Move a new descriptor to its number."""
        os.set_blocking(fd, False)
        os.dup2(fd, BASE + number)
        os.close(fd)

    @contextlib.contextmanager
    def socket(self, number: int) -> Iterator[socket.socket]:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=BASE + number)
        try:
            yield one
        finally:
            one.detach()

    @contextlib.contextmanager
    def epoll_at(self, number: int) -> Iterator[select.epoll]:
        with select.epoll.fromfd(os.dup(BASE + number)) as epoll:
            yield epoll

    def epoll(self) -> list[int]:
        with select.epoll() as epoll:
            return [os.dup(epoll.fileno())]

    def renew(self, epoll: int) -> None:
        with select.epoll() as fresh:
            os.dup2(fresh.fileno(), BASE + epoll)

    def socketpair(self) -> list[int]:
        return [one.detach() for one in socket.socketpair()]

    def pipe(self) -> list[int]:
        return list(os.pipe())

    def eventfd(self, value: int, flags: int) -> list[int]:
        return [os.eventfd(value, flags)]

    def listen(self, backlog: int) -> list[int]:
        self.addresses.append(f"\0netpoll-{os.getpid()}-{next(serial)}")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.addresses[-1])
            listener.listen(backlog)
            return [listener.detach()]

    def connect(self, which: int) -> list[int]:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(self.addresses[which])
            return [client.detach()]

    def accept(self, number: int) -> list[int]:
        with self.socket(number) as listener:
            return [listener.accept()[0].detach()]

    def dup(self, number: int) -> list[int]:
        return [os.dup(BASE + number)]

    def dup2(self, number: int, other: int) -> None:
        os.dup2(BASE + number, BASE + other)

    def close(self, number: int) -> None:
        os.close(BASE + number)

    def read(self, number: int, size: int) -> bytes:
        return os.read(BASE + number, size)

    def write(self, number: int, data: bytes) -> int:
        return os.write(BASE + number, data)

    def recv(self, number: int, size: int) -> bytes:
        with self.socket(number) as one:
            return one.recv(size)

    def send(self, number: int, data: bytes) -> int:
        with self.socket(number) as one:
            return one.send(data)

    def shutdown(self, number: int, how: int) -> None:
        with self.socket(number) as one:
            one.shutdown(how)

    def pending_error(self, number: int) -> int:
        with self.socket(number) as one:
            return one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def add(self, epoll: int, number: int, mask: int) -> None:
        with self.epoll_at(epoll) as one:
            one.register(BASE + number, mask)

    def modify(self, epoll: int, number: int, mask: int) -> None:
        with self.epoll_at(epoll) as one:
            one.modify(BASE + number, mask)

    def remove(self, epoll: int, number: int) -> None:
        with self.epoll_at(epoll) as one:
            one.unregister(BASE + number)

    def poll(self, epoll: int, most: int) -> list[tuple[int, int]]:
        with self.epoll_at(epoll) as one:
            return [(number - BASE, event) for number, event in one.poll(0, most)]


class Simulated:
    """The same calls on the simulated kernel."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.handles: dict[int, Any] = {}
        self.addresses: list[str] = []

    def keep(self, *handles: Any) -> list[int]:
        self.handles |= {handle.fileno(): handle for handle in handles}
        return [handle.fileno() for handle in handles]

    def sockets(self) -> list[int]:
        return [number for number, one in self.handles.items() if isinstance(one, Socket)]

    def socket(self, number: int) -> Socket:
        one: Socket = self.handles[number]
        return one

    def epoll(self) -> list[int]:
        return self.keep(self.kernel.epoll())

    def renew(self, epoll: int) -> None:
        with self.kernel.epoll() as fresh:
            self.kernel.dup2(fresh.fileno(), epoll)

    def socketpair(self) -> list[int]:
        return self.keep(*self.kernel.socketpair())

    def pipe(self) -> list[int]:
        return list(self.kernel.pipe())

    def eventfd(self, value: int, flags: int) -> list[int]:
        return [self.kernel.eventfd(value, flags)]

    def listen(self, backlog: int) -> list[int]:
        self.addresses.append(f"listener {len(self.addresses)}")
        return self.keep(self.kernel.listen(self.addresses[-1], backlog))

    def connect(self, which: int) -> list[int]:
        return self.keep(self.kernel.connect(self.addresses[which]))

    def accept(self, number: int) -> list[int]:
        return self.keep(self.socket(number).accept()[0])

    def dup(self, number: int) -> list[int]:
        return [self.kernel.dup(number)]

    def dup2(self, number: int, other: int) -> None:
        self.kernel.dup2(number, other)

    def close(self, number: int) -> None:
        self.kernel.close(number)
        self.handles.pop(number, None)

    def read(self, number: int, size: int) -> bytes:
        return self.kernel.read(number, size)

    def write(self, number: int, data: bytes) -> int:
        return self.kernel.write(number, data)

    def recv(self, number: int, size: int) -> bytes:
        return self.socket(number).recv(size)

    def send(self, number: int, data: bytes) -> int:
        return self.socket(number).send(data)

    def shutdown(self, number: int, how: int) -> None:
        self.socket(number).shutdown(how)

    def pending_error(self, number: int) -> int:
        return self.socket(number).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def add(self, epoll: int, number: int, mask: int) -> None:
        self.handles[epoll].register(number, mask)

    def modify(self, epoll: int, number: int, mask: int) -> None:
        self.handles[epoll].modify(number, mask)

    def remove(self, epoll: int, number: int) -> None:
        self.handles[epoll].unregister(number)

    def poll(self, epoll: int, most: int) -> list[tuple[int, int]]:
        events: list[tuple[int, int]] = self.handles[epoll].poll(0, most)
        return events


def outcome(world: Linux | Simulated, call: str, *arguments: Any) -> Any:
    """What a call returned, or which error it raised."""
    try:
        return getattr(world, call)(*arguments)
    except (OSError, ValueError, OverflowError) as error:
        return type(error).__name__, getattr(error, "errno", None)


class Difference(AssertionError):
    """The two kernels did not do the same."""


class Program:
    """One program, running on both kernels."""

    def __init__(self) -> None:
        self.linux = Linux()
        self.simulated = Simulated()
        self.kinds: dict[int, str] = {}  # of what is open: the call that opened it
        self.readers: dict[int, int] = {}  # where to read what is written there
        self.registered: dict[int, list[int]] = {}
        self.log: list[str] = []
        self.open("epoll")
        self.open("epoll")
        self.epolls = list(self.kinds)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exception: object) -> None:
        os.closerange(BASE, BASE + NEVER_OPEN)

    def both(self, call: str, *arguments: Any) -> Any:
        """Make a call on both, and compare what came of it."""
        real = outcome(self.linux, call, *arguments)
        mine = outcome(self.simulated, call, *arguments)
        self.compare(call, arguments, real, mine)
        return mine

    def open(self, call: str, *arguments: Any) -> None:
        """Make a call that opens files, and give the real ones the numbers of the simulated."""
        real = outcome(self.linux, call, *arguments)
        mine = outcome(self.simulated, call, *arguments)
        if isinstance(mine, list) and isinstance(real, list):
            for number, fd in zip(mine, real, strict=True):
                self.linux.place(fd, number)
                self.kinds[number] = self.kinds[arguments[0]] if call == "dup" else call
            real = mine
        self.compare(call, arguments, real, mine)
        if call in ("socketpair", "pipe"):
            self.readers[mine[1]] = mine[0]
        if call == "socketpair":
            self.readers[mine[0]] = mine[1]

    def compare(self, call: str, arguments: tuple[Any, ...], real: Any, mine: Any) -> None:
        """Raise `Difference`, with all that was done before, unless both came to the same."""
        self.log.append(f"{call}{arguments} -> {mine}")
        if mine != real:
            raise Difference("\n  ".join([*self.log, f"but on Linux: {real}"]))

    def run(self, step: Step) -> None:
        """Make one step; what it names is one of those there are."""
        call, *choices = step
        if call in ("socketpair", "pipe", "eventfd", "listen"):
            self.open(call, *choices)
        elif call == "connect":
            if self.linux.addresses:
                self.open(call, choices[0] % len(self.linux.addresses))
        elif call == "dup":
            self.open(call, self.any(choices[0]))
        elif call == "dup2":
            targets = [*(one for one in self.kinds if one not in self.epolls), *FIXED]
            number, other = self.any(choices[0]), targets[choices[1] % len(targets)]
            if self.both(call, number, other) is None and number != other:
                self.closed(other)
                self.kinds[other] = self.kinds[number]
        elif call == "close":
            number = self.any(choices[0])
            if number not in self.epolls:
                self.both(call, number)
                self.closed(number)
        elif call in ("accept", "recv", "send", "shutdown", "pending_error"):
            sockets = self.simulated.sockets()
            listeners = [one for one in sockets if self.kinds[one] == "listen"]
            if call == "accept" and listeners:
                sockets = listeners
            if sockets:
                number = sockets[choices[0] % len(sockets)]
                (self.open if call == "accept" else self.both)(call, number, *choices[1:])
        elif call in ("read", "write"):
            files = [one for one, kind in self.kinds.items() if kind not in ("epoll", "listen")]
            self.both(call, self.pick(choices[0], files), *choices[1:])
        elif call == "brim":
            if self.readers:
                self.to_the_brim(*list(self.readers.items())[choices[0] % len(self.readers)])
        elif call in ("poll", "renew"):
            self.both(call, self.epolls[choices[0]], *choices[1:])
        elif call == "add":
            epoll, number = self.epolls[choices[0]], self.any(choices[1])
            self.both(call, epoll, number, *choices[2:])
            self.registered.setdefault(epoll, []).append(number)
        else:
            epoll = self.epolls[choices[0]]
            number = self.pick(choices[1], self.registered.get(epoll, []))
            self.both(call, epoll, number, *choices[2:])

    def look(self) -> None:
        """Ask both epolls what is ready."""
        for epoll in self.epolls:
            self.both("poll", epoll, 64)

    def closed(self, number: int) -> None:
        """Note that a number is closed."""
        self.kinds.pop(number, None)
        for writer, reader in list(self.readers.items()):
            if number in (writer, reader):
                del self.readers[writer]

    def any(self, choice: int) -> int:
        """One of the open descriptors, or one that is not."""
        files = [one for one in self.kinds if one not in self.epolls]
        return [*files, *self.epolls, NEVER_OPEN][choice % (len(self.kinds) + 1)]

    def pick(self, choice: int, likely: list[int]) -> int:
        """One of those where the step does something; now and then any other."""
        return likely[choice % len(likely)] if likely and choice % 8 else self.any(choice)

    def to_the_brim(self, writing: int, reading: int) -> None:
        """Write until nothing more fits, ask what is ready, and read all of it."""
        for world in (self.linux, self.simulated):
            while isinstance(outcome(world, "write", writing, b"x" * 250_000), int):
                pass
        self.both("write", writing, b"x")
        self.look()
        for world in (self.linux, self.simulated):
            while isinstance(data := outcome(world, "read", reading, 1_000_000), bytes) and data:
                pass
        self.both("read", reading, 9)


EVENTS = [
    select.EPOLLIN,
    select.EPOLLOUT,
    select.EPOLLIN | select.EPOLLOUT,
    select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP,
    select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLOUT,
    select.EPOLLPRI,
    select.EPOLLRDHUP,
    select.EPOLLHUP,
    0,
]
MODES = [
    0,
    0,
    select.EPOLLET,
    select.EPOLLET,
    select.EPOLLET,
    select.EPOLLONESHOT,
    select.EPOLLET | select.EPOLLONESHOT,
    select.EPOLLEXCLUSIVE,
    select.EPOLLEXCLUSIVE | select.EPOLLET,
    select.EPOLLEXCLUSIVE | select.EPOLLONESHOT,
]
MOST = 2**64 - 2
WRITTEN = [b"a", b"bcd", b"", *(n.to_bytes(8, sys.byteorder) for n in (1, 0, MOST, MOST + 1))]
SIZES = [1, 3, 8, 100, 0]


def mask(events: int, mode: int) -> int:
    return EVENTS[events % len(EVENTS)] | MODES[mode % len(MODES)]


def adding(a: int, b: int, c: int) -> Step:
    return "add", a % 2, a // 2, mask(b, c)


OPENED: list[Step] = [("socketpair",), ("pipe",), ("eventfd", 2, os.EFD_SEMAPHORE), ("listen", 2)]
STEPS: list[Callable[[int, int, int], Step]] = [
    *[lambda a, b, c: ("poll", a % 2, [64, 64, 1, 2][b % 4])] * 5,
    *[lambda a, b, c: ("read", a, SIZES[b % 5])] * 3,
    *[lambda a, b, c: ("write", a, WRITTEN[b % 7])] * 3,
    lambda a, b, c: ("recv", a, SIZES[b % 5]),
    lambda a, b, c: ("send", a, WRITTEN[b % 7]),
    lambda a, b, c: ("shutdown", a, b % 4),
    lambda a, b, c: ("brim", a),
    lambda a, b, c: ("pending_error", a),
    adding,
    lambda a, b, c: ("modify", a % 2, a // 2, mask(b, c)),
    lambda a, b, c: ("remove", a % 2, a // 2),
    lambda a, b, c: OPENED[a % 4],
    lambda a, b, c: ("connect" if b % 2 else "accept", a),
    lambda a, b, c: ("dup", a) if b % 2 else ("dup2", a, c),
    lambda a, b, c: ("close", a) if b % 8 else ("renew", a % 2),
]


FILES: list[list[Step]] = [
    [("socketpair",)],
    [("pipe",)],
    [("eventfd", 0, 0)],
    [("listen", 1), ("connect", 0), ("accept", 0)],
    [("socketpair",), ("pipe",), ("eventfd", 0, 0), ("listen", 1), ("connect", 0), ("accept", 0)],
]


def program_of(choices: bytes) -> list[Step]:
    """Return the program that these choices stand for.

    The first opens files of one kind or of all, then four make a step; the first four steps add.
    One string of bytes is drawn much faster than a list of steps.
    """
    program = FILES[choices[0] % len(FILES)].copy()
    for place in range(1, len(choices) - 3, 4):
        which, *others = choices[place : place + 4]
        make = adding if place < 16 else STEPS[which % len(STEPS)]
        program.append(make(*others))
    return program


def run(program: list[Step], *, look_always: bool) -> None:
    """Run a program; ask what is ready at its end, or also after every step."""
    with Program() as running:
        for step in program:
            running.run(step)
            if look_always:
                running.look()
        running.look()


programs = st.binary(min_size=100, max_size=240)
common = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(common, max_examples=1000)
@given(programs, st.booleans())
def test_programs(choices: bytes, look_always: bool) -> None:
    """A thousand programs do the same on both kernels."""
    run(program_of(choices), look_always=look_always)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_many_programs(number: int) -> None:
    """Ten thousand programs do the same on both kernels."""

    @seed(number)
    @settings(common, max_examples=500, derandomize=False)
    @given(programs, st.booleans())
    def five_hundred(choices: bytes, look_always: bool) -> None:
        run(program_of(choices), look_always=look_always)

    five_hundred()


ONLY_ONE = select.EPOLLIN | select.EPOLLET | select.EPOLLEXCLUSIVE


@pytest.mark.skipif(not os.path.exists("/proc/self/syscall"), reason="Linux hides who sleeps where")
@pytest.mark.parametrize("end", [False, True], ids=["bytes", "end"])
@pytest.mark.parametrize("waiting", [0, 1])
@pytest.mark.parametrize("second", [ONLY_ONE, select.EPOLLIN], ids=["exclusive", "shared"])
def test_who_hears_what_another_waits_for(second: int, waiting: int, end: bool) -> None:
    """Of two epolls that watch a socket, one waited on, the same ones hear on both kernels."""
    kernel = Kernel()
    here, there = kernel.socketpair()
    simulated = [kernel.epoll(), kernel.epoll()]
    real_here, real_there = socket.socketpair()
    real = [select.epoll(), select.epoll()]
    with real_here, real_there, real[0], real[1]:
        for number, events in enumerate((ONLY_ONE, second)):
            simulated[number].register(here, events)
            real[number].register(real_here, events)
        kernel.at(1, there.close if end else lambda: there.send(b"x"))
        heard = [[event for _, event in simulated[waiting].poll()]]
        heard.append([event for _, event in simulated[1 - waiting].poll(0)])

        found: list[list[tuple[int, int]]] = []
        thread = threading.Thread(target=lambda: found.append(real[waiting].poll(60)))
        thread.start()
        wait_until_asleep_in(real[waiting], thread)
        real_there.close() if end else real_there.send(b"x")
        thread.join()
        found.append(real[1 - waiting].poll(0))
        assert [[event for _, event in events] for events in found] == heard


def wait_until_asleep_in(epoll: select.epoll, thread: threading.Thread) -> None:
    """Return when the thread sleeps in a system call whose first argument is this epoll."""
    status = pathlib.Path(f"/proc/self/task/{thread.native_id}/syscall")
    while thread.is_alive() and status.read_text().split()[1:2] != [hex(epoll.fileno())]:
        pass
