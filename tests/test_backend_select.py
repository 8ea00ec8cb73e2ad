"""The select backend against the contract of `netpoll.backends.Backend`, and what it can't do."""

import errno
import io
import os
import queue
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

import netpoll
from netpoll import AlreadyRegistered, EventPriority, IOEvent, NotRegistered, PollAttachment
from netpoll.backends import Interest, open_backend
from netpoll.backends.select import Select, Watched

pytestmark = pytest.mark.skipif(os.name == "nt", reason="os can't dup or close sockets there")

READ = Interest(read=True, write=False)
WRITE = Interest(read=False, write=True)
BOTH = Interest(read=True, write=True)
IN, PRI, OUT = int(IOEvent.IN), int(IOEvent.PRI), int(IOEvent.OUT)

Pair = tuple[socket.socket, socket.socket]
Lists = tuple[list[int], list[int], list[int]]


class Kernel:
    """The kernel's select, with a hook before each call, and an answer for the next one if set.

    `asked` notes the calls.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.before: Callable[[], object] = lambda: None
        self.answer: Lists | None = None

    def select(
        self, reading: list[int], writing: list[int], urgent: list[int], timeout: float | None
    ) -> Lists:
        """Wait, as `select.select` does."""
        self.before()
        self.asked.append((reading, writing, urgent, timeout))
        answer, self.answer = self.answer, None
        return answer or select.select(reading, writing, urgent, timeout)


@pytest.fixture
def backend() -> Iterator[Select]:
    backend = Select(select)
    yield backend
    backend.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


@pytest.fixture
def files() -> Iterator[list[Any]]:
    """What is put on this list is closed when the test ends; a number is a descriptor."""
    files: list[Any] = []
    yield files
    for file in files:
        os.close(file) if isinstance(file, int) else file.close()


# ---- how it is opened -------------------------------------------------------------------------


def test_opened_by_name_or_where_there_is_nothing_else() -> None:
    """A system with select only gets this backend; others, if it is named."""
    for backend in (
        open_backend(kernel=SimpleNamespace(select=select.select)),
        open_backend("select"),
    ):
        assert isinstance(backend, Select)
        backend.close()


def test_limits() -> None:
    """The batch size stays what it is; tasks are crowded at 1024, 256 low ones a round."""
    assert Select.limits == (1024, 1024, 1024, 1024, 256)


def test_nothing_in_the_kernel(backend: Select) -> None:
    """There are no flags, and no descriptor."""
    assert backend.flags is None
    with pytest.raises(io.UnsupportedOperation, match="select has no descriptor"):
        backend.fileno()


# ---- what it takes ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["edge_triggered", "oneshot", "exclusive"])
def test_level_triggered_only(backend: Select, pair: Pair, mode: str) -> None:
    """Any mode is a NotImplementedError that says where it can be had, and changes nothing."""
    interest = BOTH._replace(**{mode: True})
    fd = pair[0].fileno()
    with pytest.raises(NotImplementedError, match=f"{mode}.* epoll"):
        backend.add(fd, interest)
    backend.add(fd, READ)
    with pytest.raises(NotImplementedError, match="level-triggered"):
        backend.modify(fd, interest)
    assert backend.wait(0, 8) == []


def test_errors_change_nothing(backend: Select, pair: Pair) -> None:
    """Each error is the contract's, and what is registered stays what it was."""
    here, there = pair
    backend.add(here.fileno(), READ)
    closed = os.dup(here.fileno())
    os.close(closed)
    with pytest.raises(AlreadyRegistered):
        backend.add(here.fileno(), WRITE)
    with pytest.raises(NotRegistered):
        backend.modify(there.fileno(), WRITE)
    with pytest.raises(NotRegistered):
        backend.remove(there.fileno())
    for method in (backend.add, backend.modify):
        with pytest.raises(ValueError, match=f"descriptor {closed} is closed"):
            method(closed, READ)
        with pytest.raises(OverflowError):
            method(2**31, READ)
    with pytest.raises(ValueError, match=f"descriptor {closed} is closed"):
        backend.remove(closed)
    assert backend.wait(0, 8) == []
    there.send(b"x")
    assert backend.wait(0, 8) == [(here.fileno(), IN)]


def test_too_large_a_number(backend: Select, pair: Pair, files: list[Any]) -> None:
    """A descriptor that select's sets have no bit for is refused when it is added."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip(f"this system opens {hard} descriptors at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    try:
        files.append(os.dup2(pair[0].fileno(), 1024))
        with pytest.raises(ValueError, match="select can't take descriptor 1024"):
            backend.add(1024, READ)
        assert backend.wait(0, 8) == []
        files.append(os.dup2(pair[0].fileno(), 1023))
        backend.add(1023, WRITE)
        assert backend.wait(0, 8) == [(1023, OUT)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many(pair: Pair) -> None:
    """Where the sets are lists, as on Windows, one too many is refused; modify still works."""

    def three(reading: list[int], writing: list[int], urgent: list[int], timeout: float) -> Lists:
        if len(reading) > 3:
            raise ValueError("too many file descriptors in select()")
        return select.select(reading, writing, urgent, timeout)

    backend = Select(SimpleNamespace(select=three))
    reading, writing = os.pipe()
    here, there = pair
    try:
        for fd in (here.fileno(), there.fileno(), reading):
            backend.add(fd, READ)
        with pytest.raises(ValueError, match="too many"):
            backend.add(writing, WRITE)
        backend.modify(here.fileno(), WRITE)
        assert backend.wait(0, 8) == [(here.fileno(), OUT)]
    finally:
        os.close(reading)
        os.close(writing)


def test_regular_file(backend: Select) -> None:
    """A file is taken and always ready, which epoll refuses to say."""
    with open(__file__) as file:
        backend.add(file.fileno(), BOTH)
        assert backend.wait(None, 8) == [(file.fileno(), IN | OUT)]
        backend.remove(file.fileno())


def test_changes_end_a_wait(backend: Select, pair: Pair) -> None:
    """A wait under way does not see them, so each asks for a new one."""
    fd = pair[0].fileno()
    assert backend.add(fd, READ) is True
    assert backend.modify(fd, BOTH) is True
    assert backend.remove(fd) is True


# ---- what a wait returns ----------------------------------------------------------------------


def test_events(backend: Select, pair: Pair) -> None:
    """One event a descriptor, of what was asked for, as long as it holds, whatever `size` is."""
    here, there = pair
    backend.add(here.fileno(), BOTH)
    backend.add(there.fileno(), BOTH)
    there.send(b"x")
    for _ in range(2):
        assert dict(backend.wait(None, 1)) == {here.fileno(): IN | OUT, there.fileno(): OUT}
    backend.modify(there.fileno(), READ)
    backend.modify(here.fileno(), WRITE)
    assert backend.wait(None, 8) == [(here.fileno(), OUT)]


def test_urgent_byte(backend: Select, files: list[Any]) -> None:
    """TCP's urgent data is PRI for a reader; a writer is not told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        here, _ = listener.accept()
        files += [here, there]
    there.send(b"!", socket.MSG_OOB)
    select.select([], [], [here], 10)
    for interest, event in ((READ, PRI), (WRITE, OUT), (BOTH, PRI | OUT)):
        backend.add(here.fileno(), interest)
        assert backend.wait(10, 8) == [(here.fileno(), event)]
        backend.remove(here.fileno())


def test_what_select_is_asked(pair: Pair) -> None:
    """Readers are in the first and the third set, for urgent data; writers in the second."""
    kernel = Kernel()
    backend = Select(kernel)
    here, there = (one.fileno() for one in pair)
    backend.add(here, READ)
    backend.add(there, WRITE)
    backend.wait(0, 8)
    assert kernel.asked[-1] == ([here], [there], [here], 0)


def test_end_of_stream(backend: Select, pair: Pair) -> None:
    """It is readable, and that is all that select says of it."""
    here, there = pair
    backend.add(here.fileno(), READ)
    there.close()
    assert backend.wait(None, 8) == [(here.fileno(), IN)]


def test_windows(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """There files have no identity, and a connection that fails is exceptional: it is OUT."""
    kernel = Kernel()
    kernel.fstat = lambda fd: pytest.fail("asked for a file of that number")  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "name", "nt")
    backend = Select(kernel)
    monkeypatch.undo()
    here, there = (one.fileno() for one in pair)
    backend.add(here, WRITE)
    backend.add(there, READ)
    kernel.answer = ([], [], [here, there])
    assert backend.wait(0, 8) == [(here, OUT), (there, PRI)]
    assert kernel.asked[-1] == ([there], [here], [here, there], 0)

    def not_a_socket(*_: object) -> None:
        raise OSError(errno.ENOTSOCK, "not a socket")

    monkeypatch.setattr(kernel, "select", not_a_socket)
    with pytest.raises(ValueError, match="7 is not an open socket"):
        backend.add(7, READ)


def test_other_errors_get_out(backend: Select, pair: Pair) -> None:
    """What is not about a closed descriptor is raised as it is."""

    def no_memory(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    backend.add(pair[0].fileno(), READ)
    backend.kernel = SimpleNamespace(select=no_memory)
    for call in (lambda: backend.wait(0, 8), lambda: backend.add(7, READ)):
        with pytest.raises(OSError, match="memory"):
            call()


# ---- time -------------------------------------------------------------------------------------


class Clock(Kernel):
    """A select with a clock of its own, on which each call that waits takes `takes` seconds."""

    takes = 0.25
    now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def select(
        self, reading: list[int], writing: list[int], urgent: list[int], timeout: float | None
    ) -> Lists:
        """Let time pass, and look."""
        if timeout:
            self.now += min(self.takes, timeout)
        lists = super().select(reading, writing, urgent, 0)
        self.asked[-1] = (*self.asked[-1][:3], timeout)
        return lists


def test_never_early(pair: Pair) -> None:
    """A select that returns too early is called again, for the time that remains."""
    clock = Clock()
    backend = Select(clock)
    backend.add(pair[0].fileno(), READ)
    clock.asked.clear()
    assert backend.wait(1, 8) == []
    assert [timeout for *_, timeout in clock.asked] == [1, 0.75, 0.5, 0.25]
    assert backend.wait(0, 8) == []
    assert clock.now == 101


def test_closed_descriptor_costs_no_time(pair: Pair) -> None:
    """When one is found closed the wait goes on for the time that remains, without it."""
    clock = Clock()
    backend = Select(clock)
    here, there = pair
    closed = os.dup(here.fileno())
    for fd in (here.fileno(), closed):
        backend.add(fd, READ)
    open_still = [closed]

    def close() -> None:
        if clock.now > 100.3 and open_still:
            os.close(open_still.pop())

    clock.before = close
    clock.asked.clear()
    assert backend.wait(1, 8) == []
    assert clock.now == 101
    assert clock.asked[-1][0] == [here.fileno()]
    there.send(b"x")
    assert backend.wait(0, 8) == [(here.fileno(), IN)]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no setitimer here")
def test_signal(backend: Select, pair: Pair) -> None:
    """A handler runs during a wait, which goes on; what the handler does then ends it."""
    here, there = pair
    ran: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        ran.append(number)
        if len(ran) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            there.send(b"x")

    backend.add(here.fileno(), READ)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert backend.wait(20, 8) == [(here.fileno(), IN)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ran) == 3


# ---- closed without remove --------------------------------------------------------------------


def test_closed(backend: Select, pair: Pair) -> None:
    """It stays known: modify and add say that it is closed, found or not; remove succeeds."""
    here, there = pair
    fd = here.fileno()
    backend.add(fd, BOTH)
    backend.add(there.fileno(), WRITE)
    here.close()
    for _ in range(2):
        for method in (backend.modify, backend.add):
            with pytest.raises(ValueError, match=f"{fd} is closed"):
                method(fd, READ)
        assert backend.wait(0, 8) == [(there.fileno(), OUT)]
    backend.remove(fd)
    with pytest.raises(ValueError, match=f"{fd} is closed"):
        backend.remove(fd)


@pytest.mark.parametrize("found", ["at once", "when it is ready", "when it is closed"])
def test_closed_number_used_again(
    backend: Select, pair: Pair, files: list[Any], found: str
) -> None:
    """What has the number now is never reported; modify says NotRegistered, add replaces."""
    here, fd = pair[0], pair[0].fileno()
    backend.add(fd, BOTH)
    other, peer = socket.socketpair()
    files += [other, peer]
    here.close()
    if found == "when it is closed":
        assert backend.wait(0, 8) == []
    files.append(os.dup2(other.fileno(), fd))
    peer.send(b"x")
    if found == "when it is ready":
        assert backend.wait(0, 8) == []
    with pytest.raises(NotRegistered):
        backend.modify(fd, READ)
    backend.add(fd, READ)
    assert backend.wait(0, 8) == [(fd, IN)]
    with pytest.raises(AlreadyRegistered):
        backend.add(fd, READ)


def test_found_closed_though_the_same_file_is_back(backend: Select, pair: Pair) -> None:
    """A number that was found closed has another registration's file, even if it is the same."""
    here, fd = pair[0], pair[0].fileno()
    survivor = here.dup()
    backend.add(fd, WRITE)
    here.close()
    assert backend.wait(0, 8) == []
    os.dup2(survivor.fileno(), fd)
    try:
        assert backend.wait(0, 8) == []
        with pytest.raises(NotRegistered):
            backend.modify(fd, WRITE)
        backend.add(fd, WRITE)
        assert backend.wait(0, 8) == [(fd, OUT)]
    finally:
        os.close(fd)
        survivor.close()


def test_remove_of_a_number_used_again(backend: Select, pair: Pair, files: list[Any]) -> None:
    """It succeeds, once."""
    here, fd = pair[0], pair[0].fileno()
    backend.add(fd, READ)
    here.close()
    files.append(os.dup2(pair[1].fileno(), fd))
    backend.remove(fd)
    with pytest.raises(NotRegistered):
        backend.remove(fd)


# ---- other threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["remove", "modify", "replace"])
def test_changed_during_a_wait(pair: Pair, change: str) -> None:
    """What another thread changes while select looks is not reported as it was before."""
    kernel = Kernel()
    backend = Select(kernel)
    fd = pair[0].fileno()
    backend.add(fd, WRITE)
    done: list[str] = []

    def act() -> None:
        if done:
            return
        done.append(change)
        if change == "remove":
            backend.remove(fd)
        elif change == "modify":
            backend.modify(fd, READ)
        else:
            backend.remove(fd)
            backend.add(fd, READ)

    kernel.before = act
    assert backend.wait(0, 8) == []


def test_closed_after_select_has_looked(pair: Pair, files: list[Any]) -> None:
    """What another thread closes between select's answer and the look at it is out for good."""
    here, fd = pair[0], pair[0].fileno()
    kernel = Kernel()
    backend = Select(kernel)
    backend.add(fd, WRITE)
    kernel.answer = ([], [fd], [])
    survivor = here.dup()
    here.close()
    assert backend.wait(0, 8) == []
    files += [survivor, os.dup2(survivor.fileno(), fd)]
    assert backend.wait(0, 8) == []
    assert kernel.asked[-1][:3] == ([], [], [])


def test_registered_while_a_wait_begins(backend: Select, pair: Pair) -> None:
    """Another thread may register while a wait goes through the list."""
    here, there = (one.fileno() for one in pair)

    class Interleaved(Watched):
        """A registration during whose reading the other thread has its turn."""

        reads = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "over":
                type(self).reads += 1
                if self.reads == 1:
                    backend.add(there, WRITE)
            return super().__getattribute__(name)

    backend.add(here, READ)
    backend._registered[here] = Interleaved(IN, backend._identity(here))
    assert backend.wait(0, 8) == []
    assert backend.wait(0, 8) == [(there, OUT)]


# ---- the whole poller -------------------------------------------------------------------------


def test_poller(pair: Pair) -> None:
    """A poller on it echoes, runs another thread's tasks, and sees what that thread registers."""
    here, there = pair
    here.setblocking(False)
    there.settimeout(10)
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()

    def echo(fd: int, event: int, flags: int) -> None:
        assert flags == 0
        data = here.recv(64)
        if data:
            here.send(data)
        else:
            poller.delete(fd)
            answers.put("end")

    with netpoll.open_poller("select") as poller:
        thread = threading.Thread(target=poller.polling)
        thread.start()
        try:
            poller.trigger(EventPriority.LOW, answers.put, "task")
            assert answers.get(timeout=10) == "task"
            poller.add_read(PollAttachment(here, echo))
            for data in (b"hello", b"again"):
                there.send(data)
                assert there.recv(64) == data
            there.shutdown(socket.SHUT_WR)
            assert answers.get(timeout=10) == "end"
            assert not poller.attachments
        finally:
            poller.stop()
            thread.join(10)
