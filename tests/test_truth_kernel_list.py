"""The registrations that a trace ends with are the kernel's own: proc(5), `fdinfo` of an epoll.

Random programs register, modify, delete and close from two threads and from callbacks, while
recordings start and stop; then the last trace is asked what the interest list is.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import select
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

import netpoll
import tracer
from netpoll import EventPriority, IOEvent, NotRegistered, PollAttachment, Poller, open_poller
from tracer.state import Registration
from tracer.steps import Closed, Deleted, DispatchStarted, Modified, Registered
from tracer.trace import Trace

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")

LONG = 10.0  # seconds: what a test waits for happens long before
UNASKED = select.EPOLLERR | select.EPOLLHUP
ET = 1 << 31  # EPOLLET, which Python has as a negative number
KEPT = ET | select.EPOLLONESHOT | select.EPOLLEXCLUSIVE  # of a one-shot that fired
REFUSED = (netpoll.AlreadyRegistered, NotRegistered, ValueError)

LOOP = "loop"  # the name of its thread
SOCKETS_OF_A_THREAD = 5


def kernel_list(poller: Poller) -> dict[int, int]:
    """Return the interest list as the kernel shows it: the mask by descriptor."""
    lines = Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text().splitlines()
    entries = [line.split() for line in lines if line.startswith("tfd:")]
    return {int(entry[1]): int(entry[3], 16) & ~UNASKED for entry in entries}


def mask_of(row: Registration) -> int:
    """Return the mask that the kernel has to show for `row`."""
    mask = 0
    if row.armed:
        if "read" in row.interest:
            mask |= select.EPOLLIN
            if not row.exclusive:
                mask |= select.EPOLLPRI | select.EPOLLRDHUP
        if "write" in row.interest:
            mask |= select.EPOLLOUT
    mask |= ET if row.edge_triggered else 0
    mask |= select.EPOLLONESHOT if row.oneshot else 0
    return mask | (select.EPOLLEXCLUSIVE if row.exclusive else 0)


def armed_by_another_thread(trace: Trace, fd: int) -> bool:
    """Whether another thread armed `fd` last, or may have before the trace begins.

    It may have done so while the loop came back from a wait that reports the one-shot. No step can
    tell which of the two the kernel saw first.
    """
    for step in reversed(trace[:]):
        if isinstance(step, Registered) and step.fd == fd and step.error is None:
            return step.thread != LOOP
    return True


def check(
    trace: Trace, poller: Poller, closed: Collection[int] = (), rebuilt: bool = False
) -> None:
    """Compare the end of `trace` with the kernel's list.

    `closed` were closed without `delete`; a base state does not tell that when their numbers have
    been used again. That the backend has `rebuilt` the list, which arms one-shots that fired, is in
    no step. See the tests at the end.
    """
    replay = tracer.Replay(trace)
    before, state = replay.state(-1), replay.state(len(trace) - 1)
    listed = kernel_list(poller)
    told = {row.fd: mask_of(row) for row in state.registrations.values() if not row.closed}
    for fd, row in state.registrations.items():
        if row == before.registrations.get(fd) and fd in closed and fd not in listed:
            told.pop(fd, None)
        elif row.oneshot and not row.armed and (rebuilt or armed_by_another_thread(trace, fd)):
            told[fd], listed[fd] = told[fd] & KEPT, listed[fd] & KEPT
    steps = [step for step in trace if getattr(step, "fd", None) in told.keys() ^ listed.keys()]
    assert told == listed, steps


class Program:
    """A poller whose loop runs in a thread, and two threads that register what they open."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.careless = self.random.random() < 0.5
        self.done: Counter[str] = Counter()
        self.poller = open_poller("epoll")
        rebuild = self.poller.backend._rebuild  # type: ignore[attr-defined]

        def counted() -> None:
            self.done["rebuilt"] += 1
            rebuild()

        setattr(self.poller.backend, "_rebuild", counted)  # noqa: B010
        self.open: list[socket.socket] = []
        self.deeds: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: do one; False: end
        self.errors: list[BaseException] = []
        self.in_callbacks = random.Random(seed + 1)
        self.closed: set[int] = set()  # without delete
        self.callbacks: dict[int, socket.socket] = {}  # what a callback may close, by number

    def run(self) -> None:
        """Do it all, and compare."""
        poller = self.poller
        with poller, contextlib.ExitStack() as stack:
            stack.callback(self.close_all)
            loop = threading.Thread(target=self.guard, args=(poller.polling,), name=LOOP)
            users = [
                threading.Thread(target=self.guard, args=(self.use, number)) for number in (1, 2)
            ]
            self.arrive(None)
            recording = tracer.record(poller) if self.random.random() < 0.5 else None
            for thread in (loop, *users):
                thread.start()
            self.grant(20)
            for _ in range(self.random.randrange(1, 5)):
                self.done["recordings"] += 1
                if recording is not None and self.random.random() < 0.5:
                    recording.stop()
                recording = tracer.record(poller)
                self.grant(self.random.randrange(30))
            for _ in users:
                self.deeds.put(False)
            for thread in users:
                thread.join(LONG)
            if self.random.random() < 0.8:
                poller.stop()
                loop.join(LONG)
            assert recording is not None
            recording.stop()  # with the loop running or not
            at_end = recording.trace
            if loop.is_alive():
                # What the loop does from here on is in no trace.
                with tracer.record(poller) as at_end:
                    poller.stop()
                    loop.join(LONG)
            assert not any(thread.is_alive() for thread in (loop, *users))
            assert not self.errors, self.errors
            check(at_end, poller, self.closed, self.done["rebuilt"] > 0)
            kinds = (Registered, Modified, Deleted, Closed)
            self.done.update(step.kind for step in recording.trace if isinstance(step, kinds))

    def grant(self, deeds: int) -> None:
        """Let the threads do so many things, while this one goes on."""
        for _ in range(deeds):
            self.deeds.put(True)

    def guard(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` and keep what it raises."""
        try:
            function(*args)
        except BaseException as error:
            self.errors.append(error)

    def connect(self) -> socket.socket:
        """Return one end of a pair that has something to read."""
        here, there = socket.socketpair()
        self.open += [here, there]
        here.setblocking(False)
        there.sendall(b"12345")
        return here

    def close_all(self) -> None:
        """Close what is open still."""
        for sock in self.open:
            sock.close()

    # ---- in the loop

    def arrive(self, _: object) -> None:
        """Register a socket that only the loop handles, as one that was accepted."""
        here = self.connect()
        self.callbacks[here.fileno()] = here
        self.poller.add_read(PollAttachment(here, self.close_some))

    def close_some(self, fd: int, event: int, flags: int) -> None:
        """Read; or delete, and perhaps close; or close without `delete`, when careless."""
        sock, choice = self.callbacks[fd], self.in_callbacks.randrange(4 if self.careless else 3)
        if choice in (1, 2):
            self.poller.delete(fd)
        elif choice == 3:
            self.closed.add(fd)
        if choice in (2, 3):
            sock.close()
        elif choice == 0:
            self.take(sock)

    def answer(self, sock: socket.socket) -> netpoll.Callback:
        """Return a callback of `sock`, which a thread may delete at the same time."""

        def callback(fd: int, event: int, flags: int) -> None:
            self.take(sock)
            choice = self.in_callbacks.randrange(4)
            with contextlib.suppress(*REFUSED):
                if choice == 0:
                    self.poller.delete(fd)
                elif choice == 1 or event & IOEvent.OUT:
                    attachment = PollAttachment(fd, callback)
                    self.poller.mod_read(attachment, **self.modes(self.in_callbacks))

        return callback

    def take(self, sock: socket.socket) -> None:
        """Read a byte, unless its thread has closed it: what is left comes again."""
        with contextlib.suppress(OSError):
            sock.recv(1)

    # ---- in the two threads

    def modes(self, pick: random.Random) -> Any:
        """Return arguments for an `add_*` or a `mod_*`."""
        return {"edge_triggered": pick.random() < 0.4, "oneshot": pick.random() < 0.4}

    def use(self, number: int) -> None:
        """Do things at random with sockets of this thread."""
        pick, poller = random.Random(self.seed * 10 + number), self.poller
        mine = [self.connect() for _ in range(SOCKETS_OF_A_THREAD)]
        while self.deeds.get(timeout=LONG):
            place = pick.randrange(len(mine))
            sock = mine[place]
            attachment = PollAttachment(sock, self.answer(sock))
            choice = pick.randrange(11)
            with contextlib.suppress(*REFUSED):
                if choice < 4:
                    add = pick.choice([poller.add_read, poller.add_write, poller.add_read_write])
                    arguments = self.modes(pick)
                    if not arguments["oneshot"] and pick.random() < 0.1:
                        arguments["exclusive"] = True
                    add(attachment, **arguments)
                elif choice < 7:
                    modify = pick.choice([poller.mod_read, poller.mod_write, poller.mod_read_write])
                    modify(attachment, **self.modes(pick))
                elif choice == 7:
                    poller.delete(sock)
                elif choice < 10:
                    poller.trigger(EventPriority.HIGH, self.arrive)
                else:
                    with contextlib.suppress(NotRegistered):
                        poller.delete(sock)
                    sock.close()
                    mine[place] = self.connect()


def run_programs(seeds: range) -> Counter[str]:
    """Run a program for each seed; return how often they did what."""
    done: Counter[str] = Counter()
    for seed in seeds:
        program = Program(seed)
        try:
            program.run()
        except BaseException as error:
            error.args = (f"seed {seed}: {error.args[0] if error.args else ''}", *error.args[1:])
            raise
        done += program.done
    return done


def test_random_programs() -> None:
    """After each of 50 random programs the trace and the kernel tell of the same registrations."""
    done = run_programs(range(50))
    assert min(done[kind] for kind in ("Registered", "Modified", "Deleted", "Closed")) > 0, done


@pytest.mark.slow
def test_500_random_programs() -> None:
    """The same after 500."""
    run_programs(range(1000, 1500))


@pytest.fixture
def fired() -> Iterator[tuple[Poller, int]]:
    """A poller, and a one-shot that was dispatched before any recording."""
    with open_poller("epoll") as poller:
        fd = os.eventfd(1)
        poller.add_read(PollAttachment(fd, lambda fd, event, flags: None), oneshot=True)
        assert poller.poll_once(0) == 1
        yield poller, fd
        os.close(fd)


def test_one_shot_that_fired_before(fired: tuple[Poller, int]) -> None:
    """A one-shot that fired before the recording is disarmed in its base state."""
    poller, fd = fired
    with tracer.record(poller) as trace:
        state = tracer.Replay(trace).state(-1)
        assert mask_of(state.registrations[fd]) == kernel_list(poller)[fd] == select.EPOLLONESHOT


def test_closed_before() -> None:
    """What was closed without `delete` before the recording is not on the list of its trace."""
    with open_poller("epoll") as poller:
        fd = os.eventfd(1)
        poller.add_read(PollAttachment(fd, lambda fd, event, flags: None))
        os.close(fd)
        with tracer.record(poller) as trace:
            check(trace, poller)


def test_closed_before_and_used_again() -> None:
    """The same when its number has become another file's."""
    with open_poller("epoll") as poller:
        fd = os.eventfd(1)
        poller.add_read(PollAttachment(fd, lambda fd, event, flags: None))
        os.close(fd)
        again = os.eventfd(1)
        try:
            assert again == fd
            with tracer.record(poller) as trace:
                check(trace, poller)
        finally:
            os.close(again)


@pytest.fixture
def rebuilt(fired: tuple[Poller, int]) -> tuple[Poller, int, Trace, list[int]]:
    """The same, recorded: it fired once more, and then the backend made the kernel's list anew.

    The last is what the callback was called with.
    """
    poller, fd = fired
    called: list[int] = []
    attachment = PollAttachment(fd, lambda fd, event, flags: called.append(fd))
    trace = tracer.record(poller).trace
    poller.mod_read(attachment, oneshot=True)
    assert poller.poll_once(0) == len(called) == 1
    here, there = socket.socketpair()
    with there:
        number = here.fileno()
        poller.add_read(PollAttachment(here, attachment.callback))
        here.close()
        poller.delete(number)
    return poller, fd, trace, called


def test_rebuilt_list(rebuilt: tuple[Poller, int, Trace, list[int]]) -> None:
    """A one-shot that fired is disarmed, unless the trace tells what armed it."""
    poller, fd, trace, _ = rebuilt
    row = tracer.Replay(trace).state(len(trace) - 1).registrations[fd]
    assert mask_of(row) == kernel_list(poller)[fd]


def test_one_shot_reported_again(rebuilt: tuple[Poller, int, Trace, list[int]]) -> None:
    """An event that netpoll drops, because its one-shot has fired, is no dispatch."""
    poller, fd, trace, called = rebuilt
    poller.poll_once(0)
    dispatched = [step for step in trace if isinstance(step, DispatchStarted) and step.fd == fd]
    assert len(dispatched) == len(called)
