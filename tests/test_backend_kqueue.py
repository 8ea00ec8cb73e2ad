"""The kqueue backend against the contract of `netpoll.backends.Backend`, on a simulated kqueue.

The kernel is `netpoll.simulated`'s; what the backend asks of its kqueue is noted, and a test can
put an answer in its place.
"""

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

import netpoll
from netpoll import AlreadyRegistered, EventPriority, IOEvent, NotRegistered, PollAttachment
from netpoll.backends import Interest, open_backend
from netpoll.backends import kqueue as module
from netpoll.backends.kqueue import Kqueue
from netpoll.simulated import Kernel, Kevent, Socket
from tests.interrupts import NEEDS_REHEARSAL, InterruptAt

READ = Interest(read=True, write=False)
WRITE = Interest(read=False, write=True)
BOTH = Interest(read=True, write=True)
EDGE = BOTH._replace(edge_triggered=True)
ONESHOT = BOTH._replace(oneshot=True)

IN, OUT, ERR, HUP, RDHUP = (int(IOEvent[bit]) for bit in ("IN", "OUT", "ERR", "HUP", "RDHUP"))
KQ_READ, KQ_WRITE = Kernel.KQ_FILTER_READ, Kernel.KQ_FILTER_WRITE
ADD, DELETE, CLEAR = Kernel.KQ_EV_ADD, Kernel.KQ_EV_DELETE, Kernel.KQ_EV_CLEAR
ENABLE, DISABLE = Kernel.KQ_EV_ENABLE, Kernel.KQ_EV_DISABLE
EOF = Kernel.KQ_EV_EOF

Pair = tuple[Socket, Socket]


class Kqueues:
    """A simulated kernel and the one kqueue that is opened on it.

    `changes` notes what the kqueue was told. `answers` are returned by its waits instead of what is
    ready; `refused` maps a filter to the errno with which it does not take that filter. After so
    many calls as `until_interrupt` says comes a KeyboardInterrupt, as after a function in C.
    """

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.changes: list[tuple[int, int, int]] = []
        self.answers: list[Callable[[], list[Kevent]]] = []
        self.refused: dict[int, int] = {}
        self.like_macos = False
        self.until_interrupt = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)

    def kqueue(self) -> Any:
        """Open it."""
        self.real = self.kernel.kqueue()
        return SimpleNamespace(control=self.control, fileno=self.real.fileno, close=self.real.close)

    def control(
        self, changes: list[Kevent] | None, most: int, timeout: float | None = None
    ) -> list[Kevent]:
        """Change one thing, or wait; then perhaps be interrupted."""
        try:
            return self.change(changes, most) if changes else self.look(most, timeout)
        finally:
            self.until_interrupt -= 1
            if self.until_interrupt == 0:
                raise KeyboardInterrupt

    def change(self, changes: list[Kevent], most: int) -> list[Kevent]:
        """Note the change, and refuse what is to be refused."""
        (change,) = changes
        assert most == 0
        self.changes.append((change.ident, change.filter, change.flags))
        if change.flags & ADD and change.filter in self.refused:
            number = self.refused[change.filter]
            raise OSError(number, os.strerror(number))
        try:
            self.real.control(changes, 0)
        except OSError as error:
            if self.like_macos and not change.flags & ADD:
                raise FileNotFoundError(errno.ENOENT, "") from error
            raise
        return []

    def look(self, most: int, timeout: float | None) -> list[Kevent]:
        """Wait."""
        if self.answers:
            return self.answers.pop(0)()
        events: list[Kevent] = self.real.control(None, most, timeout)
        return events

    def told(self) -> list[tuple[int, int]]:
        """Return the filter and the flags of what the kqueue was told since the last call."""
        told = [(filter, flags) for _, filter, flags in self.changes]
        self.changes.clear()
        return told

    def filters(self, fd: int) -> list[int]:
        """Return the filters of `fd` that the kernel holds: a change without flags finds them."""
        found = []
        for filter in (KQ_READ, KQ_WRITE):
            with contextlib.suppress(FileNotFoundError):
                self.real.control([self.kernel.kevent(fd, filter, flags=0)], 0)
                found.append(filter)
        return found


@pytest.fixture
def kernel() -> Kqueues:
    return Kqueues()


@pytest.fixture
def kqueue(kernel: Kqueues) -> Iterator[Kqueue]:
    kqueue = Kqueue(kernel)
    yield kqueue
    kqueue.close()


@pytest.fixture
def pair(kernel: Kqueues) -> Pair:
    return kernel.kernel.socketpair()


def reuse(kernel: Kqueues, sock: Socket) -> Socket:
    """Close `sock` and give its number to another socket, which is writable; return its peer."""
    number = sock.fileno()
    other, peer = kernel.kernel.socketpair()
    sock.close()
    kernel.kernel.dup2(other.fileno(), number)
    return peer


# ---- how it is opened -------------------------------------------------------------------------


def test_opened_by_name_or_where_there_is_no_epoll() -> None:
    """A kernel with kqueue and without epoll gets this backend; one with epoll, if it is named."""
    kernel = Kernel()
    no_epoll = {name: getattr(kernel, name) for name in dir(kernel) if "poll" not in name.lower()}
    for backend in (
        open_backend(kernel=SimpleNamespace(**no_epoll)),
        open_backend("kqueue", kernel),
    ):
        assert isinstance(backend, Kqueue)
        backend.close()


def test_not_here() -> None:
    """Where there is no kqueue the error says so, and what there is."""
    with pytest.raises(NotImplementedError, match="no kqueue here, but there is epoll"):
        open_backend("kqueue", SimpleNamespace(epoll=print, select=print))
    with pytest.raises(NotImplementedError, match="no kqueue here, but there is nothing"):
        open_backend("kqueue", SimpleNamespace())


def test_limits_are_those_of_gnet() -> None:
    """Batches start at 64 within 16 and 512; tasks are crowded at 512, 128 low ones a round."""
    assert Kqueue.limits == (64, 16, 512, 512, 128)


# ---- what the kernel is told ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interest", "filters", "flags"),
    [
        (READ, [KQ_READ], ADD),
        (WRITE, [KQ_WRITE], ADD),
        (BOTH, [KQ_READ, KQ_WRITE], ADD),
        (EDGE, [KQ_READ, KQ_WRITE], ADD | CLEAR),
        (ONESHOT, [KQ_READ, KQ_WRITE], ADD),
        (READ._replace(edge_triggered=True, oneshot=True), [KQ_READ], ADD | CLEAR),
    ],
)
def test_what_the_kernel_is_told(
    kernel: Kqueues, kqueue: Kqueue, pair: Pair, interest: Interest, filters: list[int], flags: int
) -> None:
    """add, modify and remove are these changes, in this order, one a call."""
    fd = pair[0].fileno()
    assert not kqueue.add(fd, WRITE)
    kernel.told()
    assert not kqueue.modify(fd, interest)
    assert kernel.told() == [(KQ_WRITE, DELETE), *[(filter, flags) for filter in filters]]
    assert not kqueue.remove(fd)
    assert kernel.told() == [(filter, DELETE) for filter in filters]
    assert not kqueue.add(fd, interest)
    assert kernel.told() == [(filter, flags) for filter in filters]


def test_errors_change_nothing(kernel: Kqueues, kqueue: Kqueue, pair: Pair) -> None:
    """Each error is the one that epoll gives, and the kernel's list stays what it was."""
    here, there = pair
    kqueue.add(here.fileno(), READ)
    with pytest.raises(AlreadyRegistered):
        kqueue.add(here.fileno(), BOTH)
    for method, fd in ((kqueue.add, there.fileno()), (kqueue.modify, here.fileno())):
        with pytest.raises(NotImplementedError, match="epoll"):
            method(fd, READ._replace(exclusive=True))
    with pytest.raises(NotRegistered):
        kqueue.modify(there.fileno(), READ)
    with pytest.raises(NotRegistered):
        kqueue.remove(there.fileno())
    with pytest.raises(OSError, match="own") as caught:
        kqueue.add(kqueue.fileno(), READ)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OverflowError):
        kqueue.add(2**31, READ)
    for method in (kqueue.add, kqueue.modify):
        with pytest.raises(ValueError, match="77 is closed"):
            method(77, READ)
    with pytest.raises(ValueError, match="77 is closed"):
        kqueue.remove(77)
    assert kernel.filters(here.fileno()) == [KQ_READ]
    assert kernel.filters(there.fileno()) == []
    there.send(b"x")
    assert kqueue.wait(0, 8) == [(here.fileno(), IN)]


@pytest.mark.parametrize("refused", [KQ_READ, KQ_WRITE])
def test_refused_filter_takes_the_other_back(
    kernel: Kqueues, kqueue: Kqueue, pair: Pair, refused: int
) -> None:
    """When the kernel takes one filter only, add leaves nothing behind, in it or here."""
    fd = pair[0].fileno()
    kernel.refused = {refused: errno.ENOMEM}
    with pytest.raises(OSError, match="memory"):
        kqueue.add(fd, BOTH)
    assert kernel.filters(fd) == []
    with pytest.raises(NotRegistered):
        kqueue.modify(fd, READ)
    kernel.refused = {}
    kqueue.add(fd, BOTH)
    assert kqueue.wait(0, 8) == [(fd, OUT)]


def test_refused_modify_puts_back_what_was(kernel: Kqueues, kqueue: Kqueue, pair: Pair) -> None:
    """When the kernel refuses the new interest, the old one goes on."""
    here, there = pair
    kqueue.add(here.fileno(), READ._replace(edge_triggered=True))
    kernel.refused = {KQ_WRITE: errno.ENOMEM}
    kernel.told()
    with pytest.raises(OSError, match="memory"):
        kqueue.modify(here.fileno(), BOTH)
    assert kernel.told()[-1] == (KQ_READ, ADD | CLEAR)
    assert kernel.filters(here.fileno()) == [KQ_READ]
    there.send(b"x")
    assert kqueue.wait(0, 8) == [(here.fileno(), IN)]
    with pytest.raises(AlreadyRegistered):
        kqueue.add(here.fileno(), READ)


def test_modify_that_can_not_be_taken_back(kernel: Kqueues, kqueue: Kqueue) -> None:
    """When the kernel refuses the old interest as well, it is still known: for remove, or add."""
    reader, writer = kernel.kernel.pipe()
    kqueue.add(writer, WRITE)
    kernel.kernel.close(reader)  # kqueue refuses a pipe that nobody reads
    with pytest.raises(BrokenPipeError):
        kqueue.modify(writer, WRITE._replace(edge_triggered=True))
    assert kernel.filters(writer) == []
    with pytest.raises(BrokenPipeError):
        kqueue.add(writer, WRITE)
    assert not kqueue.remove(writer)
    with pytest.raises(NotRegistered):
        kqueue.remove(writer)


def test_descriptor_zero_is_ordinary(kernel: Kqueues, kqueue: Kqueue, pair: Pair) -> None:
    """Nothing is hidden under number 0, which gnet takes for its wakeup."""
    here, there = pair
    kernel.kernel.dup2(here.fileno(), 0)
    kqueue.add(0, READ)
    there.send(b"x")
    assert kqueue.wait(0, 8) == [(0, IN)]
    kqueue.modify(0, BOTH)
    assert kqueue.wait(0, 8) == [(0, IN | OUT)]
    kqueue.remove(0)
    assert kqueue.wait(0, 8) == []


# ---- what a wait returns ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "flags", "fflags", "event"),
    [
        (KQ_READ, 0, 0, IN),
        (KQ_READ, 0, 5, IN),
        (KQ_READ, EOF, 0, IN | RDHUP),
        (KQ_READ, EOF, errno.ECONNRESET, IN | RDHUP | ERR | HUP),
        (KQ_WRITE, 0, 0, OUT),
        (KQ_WRITE, EOF, 0, OUT | HUP),
        (KQ_WRITE, EOF, errno.EPIPE, OUT | HUP | ERR),
        (KQ_READ, Kernel.KQ_EV_ERROR, 0, ERR),
        (KQ_WRITE, Kernel.KQ_EV_ERROR | EOF, 0, ERR),
    ],
)
def test_translation(
    kernel: Kqueues, kqueue: Kqueue, filter: int, flags: int, fflags: int, event: int
) -> None:
    """The end of a stream is RDHUP for a reader, HUP for a writer, and ERR with an error only."""
    kernel.answers.append(lambda: [Kevent(7, filter, flags, fflags)])
    assert kqueue.wait(0, 8) == [(7, event)]


def test_one_event_a_descriptor(kernel: Kqueues, kqueue: Kqueue) -> None:
    """Two filters become one event, in the order of first appearance; flags are those of both."""
    kernel.answers.append(
        lambda: [
            Kevent(9, KQ_WRITE, CLEAR),
            Kevent(7, KQ_READ, EOF),
            Kevent(9, KQ_READ, EOF),
            Kevent(8, KQ_READ, 0),
        ]
    )
    assert kqueue.wait(0, 8) == [(9, IN | OUT | RDHUP), (7, IN | RDHUP), (8, IN)]
    assert kqueue.flags == {9: CLEAR | EOF, 7: EOF, 8: 0}
    kernel.answers.append(lambda: [Kevent(9, KQ_WRITE, 0)])
    kqueue.wait(0, 8)
    assert kqueue.flags == {9: 0, 7: EOF, 8: 0}


def test_flags_go_with_the_registration(kqueue: Kqueue, pair: Pair) -> None:
    """What `flags` says of a descriptor is forgotten when it is removed."""
    here, there = pair
    there.close()
    kqueue.add(here.fileno(), READ)
    kqueue.wait(0, 8)
    assert kqueue.flags[here.fileno()] & EOF
    kqueue.remove(here.fileno())
    assert kqueue.flags == {}


@pytest.mark.parametrize(
    ("end", "read", "write"),
    [
        (lambda there: there.shutdown(socket.SHUT_WR), IN | RDHUP, OUT),
        (lambda there: there.close(), IN | RDHUP, OUT | HUP),
    ],
)
def test_ends(
    kqueue: Kqueue, pair: Pair, end: Callable[[Socket], object], read: int, write: int
) -> None:
    """A reader learns of a half close as of a whole one; a writer never gets RDHUP."""
    here, there = pair
    fd = here.fileno()
    there.send(b"x")
    end(there)
    for interest, event in ((READ, read), (WRITE, write), (BOTH, read | write)):
        kqueue.add(fd, interest)
        assert kqueue.wait(0, 8) == [(fd, event)]
        kqueue.remove(fd)
    assert here.recv(8) == b"x"


def test_size_and_time_out(kernel: Kqueues, kqueue: Kqueue, pair: Pair) -> None:
    """At most `size` events come; with none ready a wait takes its time, and no more."""
    assert kqueue.wait(1.5, 8) == []
    assert kqueue.clock() == 1.5
    for one in pair:
        kqueue.add(one.fileno(), WRITE)
    assert len(kqueue.wait(None, 1)) == 1
    assert len(kqueue.wait(None, 8)) == 2
    assert kqueue.clock() == 1.5


def test_edge(kqueue: Kqueue, pair: Pair) -> None:
    """A change is reported once; modify looks at what holds anew."""
    here, there = pair
    fd = here.fileno()
    kqueue.add(fd, EDGE)
    assert kqueue.wait(0, 8) == [(fd, OUT)]
    assert kqueue.wait(0, 8) == []
    there.send(b"x")
    assert kqueue.wait(0, 8) == [(fd, IN)]
    assert kqueue.wait(0, 8) == []
    kqueue.modify(fd, EDGE)
    assert kqueue.wait(0, 8) == [(fd, IN | OUT)]
    assert kqueue.wait(0, 8) == []


# ---- one-shots --------------------------------------------------------------------------------


def test_oneshot_is_disarmed_in_both_directions(
    kernel: Kqueues, kqueue: Kqueue, pair: Pair
) -> None:
    """What one direction reports silences both, until modify; it stays registered."""
    here, there = pair
    fd = here.fileno()
    kqueue.add(fd, ONESHOT)
    kernel.told()
    assert kqueue.wait(0, 8) == [(fd, OUT)]
    assert set(kernel.told()) == {(KQ_READ, DISABLE), (KQ_WRITE, DISABLE)}
    there.send(b"x")
    assert kqueue.wait(0, 8) == []
    with pytest.raises(AlreadyRegistered):
        kqueue.add(fd, ONESHOT)
    assert kqueue.wait(0, 8) == []
    kqueue.modify(fd, ONESHOT)
    assert kqueue.wait(0, 8) == [(fd, IN | OUT)]
    assert kqueue.wait(0, 8) == []
    kqueue.remove(fd)
    assert kernel.filters(fd) == []


class ActingLock:
    """A lock that does something before it is taken for the first time."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._actions = [act]
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        while self._actions:
            self._actions.pop()()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("interest", [None, READ, WRITE, WRITE._replace(oneshot=True)])
def test_event_of_what_another_thread_changed(
    kernel: Kqueues,
    kqueue: Kqueue,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    interest: Interest | None,
    late: bool,
) -> None:
    """What is registered after the kernel looked is not disarmed by its predecessor's event."""
    here, there = pair
    fd = here.fileno()
    there.send(b"x")
    kqueue.add(fd, READ._replace(oneshot=True))

    def change() -> None:
        kqueue.modify(fd, interest) if interest else kqueue.remove(fd)
        kernel.told()

    def look() -> list[Kevent]:
        if not late:
            change()
        return [Kevent(fd, KQ_READ, 0)]

    kernel.answers.append(look)
    if late:  # as the wait comes to disarm it
        monkeypatch.setattr(kqueue, "_lock", ActingLock(change))
    assert kqueue.wait(0, 8) == [(fd, IN)]
    assert kernel.told() == []
    expected = {None: [], READ: [(fd, IN)]}.get(interest, [(fd, OUT)])
    assert kqueue.wait(0, 8) == expected


class KnockingLock:
    """A lock that tells when somebody comes to take it."""

    def __init__(self) -> None:
        self.knocked = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.knocked.release()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def test_oneshot_that_fires_while_it_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that reports the first filter disarms the second too, though it is not there yet."""
    told: list[tuple[int, int]] = []
    waits: list[threading.Thread] = []
    lock = KnockingLock()

    def control(
        changes: list[Kevent] | None, most: int, timeout: float | None = None
    ) -> list[Kevent]:
        if changes is None:
            return [Kevent(7, KQ_READ, 0)]
        told.append((changes[0].filter, changes[0].flags))
        if not waits:  # the first filter is there: the loop's thread gets its event at once
            assert lock.knocked.acquire(timeout=10)
            waits.append(threading.Thread(target=lambda: backend.wait(0, 8)))
            waits[0].start()
            assert lock.knocked.acquire(timeout=10)
        return []

    scripted = SimpleNamespace(
        **{name: getattr(Kernel, name) for name in dir(Kernel) if name.startswith("KQ_")},
        kevent=Kevent,
        kqueue=lambda: SimpleNamespace(control=control, fileno=lambda: 3, close=lambda: None),
    )
    backend = Kqueue(scripted)
    monkeypatch.setattr(backend, "_lock", lock)
    backend.add(7, ONESHOT)
    waits[0].join(10)
    assert told == [(KQ_READ, ADD), (KQ_WRITE, ADD), (KQ_READ, DISABLE), (KQ_WRITE, DISABLE)]


# ---- closed without remove --------------------------------------------------------------------

INTERESTS = [
    READ,
    BOTH,
    EDGE,
    ONESHOT,
    WRITE._replace(oneshot=True),
    READ._replace(oneshot=True),
]


@pytest.mark.parametrize("inodes", [True, False])
@pytest.mark.parametrize("fire", [False, True])
@pytest.mark.parametrize("interest", INTERESTS)
def test_closed_number_used_again(
    kernel: Kqueues,
    kqueue: Kqueue,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    interest: Interest,
    fire: bool,
    inodes: bool,
) -> None:
    """To modify it is NotRegistered, to add it replaces it, also where files have no inodes."""
    if not inodes:
        monkeypatch.setattr(kernel.kernel, "fstat", without_inodes(kernel.kernel))
    here, there = pair
    fd = here.fileno()
    kqueue.add(fd, interest)
    if fire:
        there.send(b"x")
        kqueue.wait(0, 8)
    peer = reuse(kernel, here)
    there.close()
    assert kqueue.wait(0, 8) == []
    with pytest.raises(NotRegistered):
        kqueue.modify(fd, interest)
    with pytest.raises(NotRegistered):
        kqueue.modify(fd, interest)
    assert kernel.filters(fd) == []
    assert not kqueue.add(fd, interest)
    peer.send(b"y")
    wanted = (IN if interest.read else 0) | (OUT if interest.write else 0)
    assert kqueue.wait(0, 8) == [(fd, wanted)]
    with pytest.raises(AlreadyRegistered):
        kqueue.add(fd, interest)


def without_inodes(kernel: Kernel) -> Callable[[int], object]:
    """Return an fstat that finds no inode, as a BSD's for a TCP socket."""
    real = kernel.fstat

    def fstat(fd: int) -> object:
        real(fd)
        return SimpleNamespace(st_dev=0, st_ino=0)

    return fstat


@pytest.mark.parametrize("like_macos", [False, True])
@pytest.mark.parametrize("interest", INTERESTS)
def test_closed(
    kernel: Kqueues, kqueue: Kqueue, pair: Pair, interest: Interest, like_macos: bool
) -> None:
    """A closed number is a ValueError, on macOS too; it stays known, and remove succeeds."""
    kernel.like_macos = like_macos
    fd = pair[0].fileno()
    kqueue.add(fd, interest)
    pair[0].close()
    for method in (kqueue.modify, kqueue.add, kqueue.modify):
        with pytest.raises(ValueError, match=f"{fd} is closed"):
            method(fd, interest)
    assert not kqueue.remove(fd)
    with pytest.raises(ValueError, match=f"{fd} is closed"):
        kqueue.remove(fd)


def test_remove_of_a_number_used_again(kernel: Kqueues, kqueue: Kqueue, pair: Pair) -> None:
    """It succeeds, and the file that has the number now is left alone."""
    fd = pair[0].fileno()
    kqueue.add(fd, BOTH)
    reuse(kernel, pair[0])
    assert not kqueue.remove(fd)
    assert kqueue.wait(0, 8) == []
    with pytest.raises(NotRegistered):
        kqueue.remove(fd)


def test_surviving_duplicate(kernel: Kqueues, kqueue: Kqueue, pair: Pair) -> None:
    """A closed number reports nothing, though another descriptor keeps its file open."""
    here, there = pair
    kqueue.add(here.fileno(), READ)
    kernel.kernel.dup(here.fileno())
    here.close()
    there.send(b"x")
    assert kqueue.wait(0, 8) == []


# ---- interrupts -------------------------------------------------------------------------------


class Interrupted:
    """A socket, readable and writable, and its registration, which an interrupt is to disturb."""

    def __init__(self, interest: Interest | None) -> None:
        self.kernel = Kqueues()
        self.here, self.there = self.kernel.kernel.socketpair()
        self.there.send(b"x")
        self.fd = self.here.fileno()
        self.kqueue = Kqueue(self.kernel)
        if interest is not None:
            self.kqueue.add(self.fd, interest)


def each_point(
    interest: Interest | None, act: Callable[[Interrupted], object]
) -> Iterator[tuple[Interrupted, bool]]:
    """Interrupt `act` wherever Python could; yield what it acted on, and whether it was.

    The kqueue's functions are in C, where it is real. So an interrupt can come after each of them.
    """
    for call in range(1, 100):
        one = Interrupted(interest)
        one.kernel.until_interrupt = call
        with contextlib.suppress(KeyboardInterrupt):
            act(one)
        reached = one.kernel.until_interrupt <= 0
        one.kernel.until_interrupt = -1
        yield one, reached
        one.kqueue.close()
        if not reached:
            assert call > 1
            break
    for place in range(1000):
        reached = False
        for at in (-1, place) if NEEDS_REHEARSAL else (place,):
            one = Interrupted(interest)
            moment = InterruptAt(at, (str(module.__file__), contextlib.__file__))
            moment.run(partial(act, one))
            reached = moment.reached
            yield one, reached
            one.kqueue.close()
        if not reached:
            assert place > 0
            return
    raise AssertionError("it never ends")


def works(one: Interrupted) -> None:
    """Check that nothing is left of `one`'s registration, and that a new one does what it says."""
    fd = one.fd
    assert one.kernel.filters(fd) == []
    with pytest.raises(NotRegistered):
        one.kqueue.modify(fd, READ)
    for interest, event in ((READ, IN), (WRITE, OUT), (ONESHOT, IN | OUT)):
        one.kqueue.add(fd, interest)
        assert one.kqueue.wait(0, 8) == [(fd, event)]
        with pytest.raises(AlreadyRegistered):
            one.kqueue.add(fd, interest)
        one.kqueue.remove(fd)


def test_add_is_interrupted() -> None:
    """Wherever that is: remove takes back what was added, or there is nothing to take back."""
    for one, interrupted in each_point(None, lambda one: one.kqueue.add(one.fd, EDGE)):
        try:
            one.kqueue.remove(one.fd)
        except NotRegistered:
            assert interrupted
        works(one)


@pytest.mark.parametrize("interest", [READ, WRITE, BOTH])
def test_add_is_interrupted_and_repeated(interest: Interest) -> None:
    """Wherever that is: the next add registers it for what it asks, or it is registered."""
    for one, interrupted in each_point(None, lambda one: one.kqueue.add(one.fd, BOTH)):
        wanted = (IN if interest.read else 0) | (OUT if interest.write else 0)
        try:
            one.kqueue.add(one.fd, interest)
        except AlreadyRegistered:
            wanted = IN | OUT
        else:
            assert interrupted
        assert one.kqueue.wait(0, 8) == [(one.fd, wanted)]


@pytest.mark.parametrize("before", [READ, BOTH, EDGE, ONESHOT])
def test_modify_is_interrupted(before: Interest) -> None:
    """Wherever that is: modify puts back what was, and it reports what holds."""
    for one, _ in each_point(before, lambda one: one.kqueue.modify(one.fd, WRITE)):
        one.kqueue.modify(one.fd, before)
        assert one.kqueue.wait(0, 8) == [(one.fd, IN | (OUT if before.write else 0))]
        one.kqueue.remove(one.fd)
        works(one)


def test_remove_is_interrupted() -> None:
    """Wherever that is: a second remove ends it, if the first has not."""
    for one, _ in each_point(BOTH, lambda one: one.kqueue.remove(one.fd)):
        with contextlib.suppress(NotRegistered):
            one.kqueue.remove(one.fd)
        works(one)


@pytest.mark.parametrize("interest", [READ, BOTH, EDGE, ONESHOT])
def test_wait_is_interrupted(interest: Interest) -> None:
    """Wherever that is: after modify what was not returned is reported."""
    for one, _ in each_point(interest, lambda one: one.kqueue.wait(0, 8)):
        one.kqueue.modify(one.fd, interest)
        assert one.kqueue.wait(0, 8) == [(one.fd, IN | (OUT if interest.write else 0))]
        one.kqueue.remove(one.fd)
        works(one)


# ---- fork, close and the whole poller ---------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_fork(kernel: Kqueues, kqueue: Kqueue) -> None:
    """In a child the kqueue object is closed before the child can give its number away."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            assert kernel.real.closed
            assert kernel.kernel.socketpair()[0].fileno() == 3  # the number that was the kqueue's
            kqueue.close()
            kernel.kernel.fstat(3)
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert not kernel.real.closed


def test_close_twice() -> None:
    """A second close does nothing."""
    kqueue = Kqueue(Kernel())
    kqueue.close()
    kqueue.close()
    with pytest.raises(ValueError, match="closed"):
        kqueue.fileno()


def test_poller() -> None:
    """A poller on it echoes, runs tasks and timers, and has EV_EOF in `flags` at the end."""
    kernel = Kernel()
    here, there = kernel.socketpair()
    calls: list[tuple[int, bool]] = []

    def echo(fd: int, event: int, flags: int) -> None:
        data = here.recv(64)
        calls.append((event, flags & EOF != 0))
        if data:
            here.send(data)
        else:
            poller.delete(fd)
            poller.trigger(EventPriority.HIGH, lambda _: poller.stop())

    with netpoll.open_poller("kqueue", kernel=kernel) as poller:
        poller.add_read(PollAttachment(here, echo))
        kernel.at(1, lambda: there.send(b"hello"))
        poller.call_later(2, lambda _: there.shutdown(socket.SHUT_WR))
        poller.polling()
    assert calls == [(IN, False), (IN | RDHUP, True)]
    assert there.recv(64) == b"hello"
    assert kernel.monotonic() == 2
