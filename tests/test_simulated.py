"""The simulated kernel: its files, its epoll and kqueue, its clock; rule by rule.

Whether its epoll and files do what Linux does, `test_simulated_against_linux.py` finds out; the
rules here are those that reading it should teach, and what no other kernel can tell.
"""

import errno
import inspect
import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import netpoll
from netpoll import simulated
from netpoll.simulated import EpollObject, Kernel, KqueueObject, Socket, WouldWaitForever

IN, PRI, OUT, ERR, HUP, RDHUP = 0x001, 0x002, 0x004, 0x008, 0x010, 0x2000
EDGE, ONESHOT, EXCLUSIVE = 1 << 31, 1 << 30, 1 << 28
ALL = IN | PRI | OUT | RDHUP
READ, WRITE = Kernel.KQ_FILTER_READ, Kernel.KQ_FILTER_WRITE
ADD, CLEAR, ONCE = Kernel.KQ_EV_ADD, Kernel.KQ_EV_CLEAR, Kernel.KQ_EV_ONESHOT
EOF = Kernel.KQ_EV_EOF


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def state_of(kernel: Kernel, fd: Any) -> int:
    """Return what holds for a file now, as a new epoll sees it."""
    with kernel.epoll() as epoll:
        epoll.register(fd, ALL)
        return dict(epoll.poll(0)).get(fd if isinstance(fd, int) else fd.fileno(), 0)


def watched(kernel: Kernel, *files: Any, mask: int = ALL | EDGE) -> EpollObject:
    """Return an epoll that waits for `files` and has reported what they were."""
    epoll = kernel.epoll()
    for file in files:
        epoll.register(file, mask)
    epoll.poll(0)
    return epoll


def knotes(kqueue: KqueueObject, most: int = 8) -> list[tuple[int, int, int, int]]:
    """Return what a kqueue reports now: number, filter, data and whether the end was reached."""
    events = kqueue.control(None, most, 0)
    return [(one.ident, one.filter, one.data, one.flags & EOF) for one in events]


def changing(
    kernel: Kernel, fd: Any, filter: int = READ, flags: int = ADD, udata: object = 0
) -> list[simulated.Kevent]:
    return [kernel.kevent(fd, filter, flags, udata=udata)]


# ---- the interface ----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's numbers")
@pytest.mark.parametrize(
    "name", [name for name in vars(Kernel) if name.startswith(("EPOLL", "EFD_"))]
)
def test_numbers_are_those_of_linux(name: str) -> None:
    """Every epoll and eventfd constant has Linux's value."""
    assert getattr(Kernel, name) == getattr(os if name.startswith("EFD") else select, name)


def test_numbers_are_those_of_the_bsds() -> None:
    """The kqueue constants have the values of sys/event.h, the same on FreeBSD and macOS."""
    assert (READ, WRITE) == (-1, -2)
    assert (ADD, Kernel.KQ_EV_DELETE, Kernel.KQ_EV_ENABLE, Kernel.KQ_EV_DISABLE) == (1, 2, 4, 8)
    assert (ONCE, CLEAR, EOF, Kernel.KQ_EV_ERROR) == (0x10, 0x20, 0x8000, 0x4000)


@pytest.mark.parametrize("name", ["epoll", "kqueue"])
def test_a_poller_runs_on_it(kernel: Kernel, name: str) -> None:
    """The real backends run on it: an event comes when the script says, a timer when it is due."""
    seen: list[tuple[object, float]] = []
    with netpoll.open_poller(name, kernel=kernel) as poller:
        here, there = kernel.socketpair()

        def answer(fd: int, event: int, flags: int) -> None:
            seen.append((here.recv(9), kernel.monotonic()))

        poller.add_read(netpoll.PollAttachment(here, answer))
        poller.call_later(3, lambda param: seen.append(("timer", kernel.monotonic())))
        kernel.at(1.5, lambda: there.send(b"hello"))
        while len(seen) < 2:
            poller.poll_once()
    assert seen == [(b"hello", 1.5), ("timer", 3.0)]


def public_methods() -> list[tuple[type, str]]:
    return [
        (one, name)
        for one in (Kernel, Socket, EpollObject, KqueueObject)
        for name, _ in inspect.getmembers(
            one, lambda member: callable(member) or is_property(member)
        )
        if not name.startswith("_") and name != "WouldWaitForever"
    ]


def is_property(member: object) -> bool:
    return isinstance(member, property)


@pytest.mark.parametrize(
    ("one", "name"), public_methods(), ids=lambda value: getattr(value, "__name__", value)
)
def test_another_thread_is_refused(kernel: Kernel, one: type, name: str) -> None:
    """Every public call from another thread is a RuntimeError that says why."""
    made = {
        Kernel: lambda: kernel,
        Socket: lambda: kernel.socketpair()[0],
        EpollObject: kernel.epoll,
        KqueueObject: kernel.kqueue,
    }[one]()
    errors = []

    def call() -> None:
        try:
            getattr(made, name)()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert isinstance(errors[0], RuntimeError)
    assert f"{name}() in another thread" in str(errors[0])


def test_reprs(kernel: Kernel) -> None:
    """Each object says in a line what it is and what state it is in."""
    here, there = kernel.socketpair()
    epoll, kqueue, listener = kernel.epoll(), kernel.kqueue(), kernel.listen()
    epoll.register(there, OUT)
    kqueue.control(changing(kernel, here, WRITE), 0)
    kernel.at(2, print)
    kernel.sleep(0.5)
    assert repr(kernel) == "<Kernel at 0.5 s: 5 descriptors open, 1 actions to come>"
    assert repr(here) == "<Socket 3: connected socket, peer 4>"
    assert repr(epoll) == "<epoll 5: watches 1, ready may be 4>"
    assert repr(kqueue) == "<kqueue 6: watches 1, ready may be 3>"
    assert repr(listener) == "<Socket 7: listener at ('127.0.0.1', 49152), 0 waiting>"
    there.close()
    assert repr(here) == "<Socket 3: connected socket, peer closed>"
    assert repr(epoll) == "<epoll 5: watches 0, ready may be nothing>"
    kernel.close(epoll.fileno())
    assert (repr(there), repr(epoll)) == ("<Socket, closed>", "<epoll 5: closed>")


def test_short_names(kernel: Kernel) -> None:
    """What a descriptor stands for has a short name: an address, or the kind of file."""
    listener = kernel.listen(("127.0.0.1", 9090))
    client, here = kernel.connect(("127.0.0.1", 9090)), kernel.socketpair()[0]
    reading, _ = kernel.pipe()
    names = [kernel.describe(one.fileno()) for one in (listener, client, here)]
    assert names == ["listener :9090", "127.0.0.1:9090", "socket pair"]
    assert kernel.describe(reading) == "reading end of a pipe"
    assert kernel.describe(kernel.eventfd(0)) == "eventfd"


# ---- descriptors ------------------------------------------------------------------------------


def test_the_lowest_free_number_is_next(kernel: Kernel) -> None:
    """Numbers begin at 3, and the lowest that was closed is used first."""
    assert kernel.pipe() == (3, 4)
    assert kernel.eventfd(0) == 5
    kernel.close(3)
    kernel.close(4)
    assert [kernel.dup(5), kernel.dup(5), kernel.dup(5)] == [3, 4, 6]


def test_dup2_takes_any_number(kernel: Kernel) -> None:
    """A number is closed first if it is open; 0 is a number like any other, -1 is none."""
    eventfd = kernel.eventfd(7)
    reading, writing = kernel.pipe()
    assert kernel.dup2(eventfd, 0) == 0
    assert kernel.dup2(eventfd, writing, inheritable=False) == writing
    assert kernel.eventfd_read(0) == 7
    assert state_of(kernel, reading) == HUP
    assert kernel.dup2(0, 0) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.dup2(eventfd, -1)


def test_what_is_closed_is_bad(kernel: Kernel) -> None:
    """Every call on a number that is not open raises EBADF."""
    closed = kernel.eventfd(0)
    kernel.close(closed)
    calls: list[Callable[[], object]] = [
        lambda: kernel.close(closed),
        lambda: kernel.read(closed, 8),
        lambda: kernel.write(closed, b"x"),
        lambda: kernel.eventfd_read(closed),
        lambda: kernel.eventfd_write(closed, 1),
        lambda: kernel.dup(closed),
        lambda: kernel.dup2(closed, 9),
        lambda: kernel.fstat(closed),
        lambda: kernel.set_blocking(closed, False),
    ]
    for call in calls:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_fstat_tells_files_apart(kernel: Kernel) -> None:
    """Duplicates have the identity of the file; what takes a number has another."""
    reading, writing = kernel.pipe()
    before = kernel.fstat(reading)
    assert kernel.fstat(kernel.dup(reading)) == before
    assert kernel.fstat(writing) != before
    kernel.dup2(kernel.eventfd(0), reading)
    assert kernel.fstat(reading).st_ino != before.st_ino


def test_nothing_blocks(kernel: Kernel) -> None:
    """Non-blocking may be asked for, blocking may not."""
    here, _ = kernel.socketpair()
    here.setblocking(False)
    kernel.set_blocking(here.fileno(), False)
    with pytest.raises(ValueError, match="nobody else could ever run"):
        here.setblocking(True)


def test_a_duplicate_keeps_the_file_open(kernel: Kernel) -> None:
    """A peer hears of the end when the last descriptor is closed, not before."""
    here, there = kernel.socketpair()
    again = kernel.dup(there.fileno())
    there.close()
    assert state_of(kernel, here) == OUT
    kernel.close(again)
    assert state_of(kernel, here) == IN | OUT | RDHUP | HUP


# ---- sockets ----------------------------------------------------------------------------------


def test_bytes_go_both_ways(kernel: Kernel) -> None:
    """What is sent arrives in order, whatever the pieces in which it is read."""
    here, there = kernel.socketpair()
    assert (here.send(b"abc"), here.sendmsg([b"d", memoryview(b"ef")])) == (3, 2 + 1)
    buffer = bytearray(4)
    assert (there.recv(2), there.recv_into(buffer), bytes(buffer)) == (b"ab", 4, b"cdef")
    there.send(bytearray(b"xyz"))
    assert (here.recv_into(buffer, 1), here.recv(9), bytes(buffer)) == (1, b"yz", b"xdef")
    with pytest.raises(BlockingIOError):
        here.recv(1)


def test_wrong_arguments_read_nothing(kernel: Kernel) -> None:
    """What Python's socket refuses is refused, and the bytes are still there."""
    here, there = kernel.socketpair()
    here.send(b"x")
    with pytest.raises(ValueError, match="negative"):
        there.recv(-1)
    with pytest.raises(ValueError, match="nbytes"):
        there.recv_into(bytearray(2), 3)
    with pytest.raises(OSError, match="Invalid"):
        kernel.read(there.fileno(), -1)
    with pytest.raises(TypeError):
        here.send(5)
    assert there.recv(9) == b"x"


def test_a_buffer_is_finite() -> None:
    """A send takes what fits; when nothing does it would block, and the socket is not writable."""
    kernel = Kernel(buffer=10)
    here, there = kernel.socketpair()
    assert (here.send(b"1234567"), here.send(b"89abc")) == (7, 3)
    with pytest.raises(BlockingIOError):
        here.send(b"d")
    assert state_of(kernel, here) == 0
    assert there.recv(99) == b"123456789a"
    assert here.send(b"d") == 1
    with pytest.raises(ValueError, match="hold nothing"):
        Kernel(buffer=0)


def test_every_send_wakes_the_receiver(kernel: Kernel) -> None:
    """Edge-triggered is told of bytes that come on top of others; of an empty send it is not."""
    here, there = kernel.socketpair()
    epoll = watched(kernel, there)
    here.send(b"a")
    assert epoll.poll(0) == [(there.fileno(), IN | OUT)]
    assert epoll.poll(0) == []
    here.send(b"b")
    assert epoll.poll(0) == [(there.fileno(), IN | OUT)]
    assert here.send(b"") == 0
    assert epoll.poll(0) == []


def test_a_chunk_that_was_read_wakes_the_sender(kernel: Kernel) -> None:
    """The sender hears that there is room when a whole chunk was read, not when a part was."""
    here, there = kernel.socketpair()
    here.send(b"one")
    here.send(b"two")
    epoll = watched(kernel, here)
    there.recv(2)
    assert epoll.poll(0) == []
    there.recv(1)
    assert epoll.poll(0) == [(here.fileno(), OUT)]
    there.recv(2)
    assert epoll.poll(0) == []


def test_a_quarter_on_its_way_is_still_writable() -> None:
    """A sender is writable while at most a quarter of the buffer is used, by whole chunks."""
    kernel = Kernel(buffer=16)
    here, there = kernel.socketpair()
    epoll = watched(kernel, here)
    here.send(b"1234")
    assert state_of(kernel, here) == OUT
    here.send(b"5678")
    assert state_of(kernel, here) == 0
    here.send(b"9")
    there.recv(4)
    assert epoll.ready == []
    there.recv(3)
    assert epoll.ready == []
    there.recv(1)
    assert epoll.poll(0) == [(here.fileno(), OUT)]


def test_half_close(kernel: Kernel) -> None:
    """After a half close the peer reads what was sent, then the end, and can answer."""
    here, there = kernel.socketpair()
    epoll = watched(kernel, here, there)
    here.send(b"last")
    here.shutdown(socket.SHUT_WR)
    assert epoll.poll(0) == [(there.fileno(), IN | OUT | RDHUP), (here.fileno(), OUT)]
    with pytest.raises(BrokenPipeError):
        here.send(b"more")
    assert (there.recv(9), there.recv(9), there.send(b"answer")) == (b"last", b"", 6)
    assert here.recv(9) == b"answer"
    there.shutdown(socket.SHUT_WR)
    assert state_of(kernel, here) == IN | OUT | RDHUP | HUP


def test_shutting_the_receiving_side_breaks_the_sender(kernel: Kernel) -> None:
    """After SHUT_RD the peer can't send any more; what had arrived can be read."""
    here, there = kernel.socketpair()
    there.send(b"x")
    here.shutdown(socket.SHUT_RD)
    with pytest.raises(BrokenPipeError):
        there.send(b"y")
    assert (here.recv(9), here.recv(9)) == (b"x", b"")
    assert state_of(kernel, there) == OUT


def test_close(kernel: Kernel) -> None:
    """A closed peer is the end in both directions, without an error when all was read."""
    here, there = kernel.socketpair()
    there.send(b"x")
    there.close()
    assert state_of(kernel, here) == IN | OUT | RDHUP | HUP
    assert (here.recv(9), here.recv(9)) == (b"x", b"")
    with pytest.raises(BrokenPipeError):
        here.send(b"y")


def test_close_with_unread_bytes_is_a_reset(kernel: Kernel) -> None:
    """Who closes without reading resets: once, after what had arrived was read."""
    here, there = kernel.socketpair()
    here.send(b"never read")
    there.send(b"x")
    there.close()
    assert state_of(kernel, here) == IN | OUT | RDHUP | HUP | ERR
    assert here.recv(9) == b"x"
    with pytest.raises(ConnectionResetError):
        here.recv(9)
    assert here.recv(9) == b""
    assert state_of(kernel, here) == IN | OUT | RDHUP | HUP


def test_reset(kernel: Kernel) -> None:
    """`reset` gives the peer ECONNRESET though all was read; SO_ERROR takes it away."""
    here, there = kernel.socketpair()
    there.reset()
    assert state_of(kernel, here) == IN | OUT | RDHUP | HUP | ERR
    error = here.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert (error, here.recv(9)) == (errno.ECONNRESET, b"")
    assert here.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    with pytest.raises(OSError, match="not connected"):
        kernel.listen().reset()


def test_options(kernel: Kernel) -> None:
    """Any option can be set; only SO_ERROR can be asked for."""
    here, _ = kernel.socketpair()
    here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with pytest.raises(OSError, match="Protocol not available"):
        here.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_closed_socket(kernel: Kernel) -> None:
    """After `close` the number is -1 and calls raise EBADF; after `detach` the file lives on."""
    with kernel.socketpair()[0] as here:
        pass
    here.close()
    assert here.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        here.recv(1)
    one, other = kernel.socketpair()
    number = one.detach()
    assert (one.fileno(), kernel.write(number, b"x"), other.recv(9)) == (-1, 1, b"x")


def test_connect_and_accept(kernel: Kernel) -> None:
    """A connection is there before it is accepted, in order, with the addresses of both ends."""
    listener = kernel.listen(("localhost", 80))
    assert state_of(kernel, listener) == 0
    first, second = kernel.connect(("localhost", 80)), kernel.connect(("localhost", 80))
    assert first.send(b"first") == 5
    assert state_of(kernel, listener) == IN
    connection, address = listener.accept()
    assert connection.recv(9) == b"first"
    assert address == connection.getpeername() == first.getsockname()
    assert first.getpeername() == connection.getsockname() == ("localhost", 80)
    assert listener.accept()[1] == second.getsockname() != address
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_every_connection_wakes_the_listener(kernel: Kernel) -> None:
    """Edge-triggered is told of a second connection though the first still waits."""
    listener = kernel.listen()
    epoll = watched(kernel, listener)
    for _ in range(2):
        kernel.connect(listener.getsockname())
        assert epoll.poll(0) == [(listener.fileno(), IN)]
    assert epoll.poll(0) == []


def test_addresses(kernel: Kernel) -> None:
    """Port 0 is the next free one; an address is free again when its listener is closed."""
    one, other = kernel.listen(), kernel.listen()
    assert one.getsockname() != other.getsockname()
    with pytest.raises(OSError, match="in use"):
        kernel.listen(one.getsockname())
    one.close()
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(one_address := ("127.0.0.1", 49152))
    assert kernel.listen(one_address).getsockname() == one_address
    named = kernel.listen("a name")
    assert (kernel.connect("a name").getsockname(), named.getsockname()) == ("", "a name")


def test_backlog(kernel: Kernel) -> None:
    """As many as the backlog wait, and one more, as in Linux; then connecting would block."""
    listener = kernel.listen(backlog=1)
    for _ in range(2):
        kernel.connect(listener.getsockname())
    with pytest.raises(BlockingIOError):
        kernel.connect(listener.getsockname())
    listener.accept()
    kernel.connect(listener.getsockname())


def test_connections_that_nobody_accepted_are_reset(kernel: Kernel) -> None:
    """When a listener is closed, who waits for it gets ECONNRESET."""
    listener = kernel.listen()
    client = kernel.connect(listener.getsockname())
    listener.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_listener_is_no_connection(kernel: Kernel) -> None:
    """It neither reads nor writes, nothing else accepts, and once shut it refuses."""
    listener, (here, _) = kernel.listen(), kernel.socketpair()
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: listener.recv(1), errno.EINVAL),
        (lambda: listener.send(b"x"), errno.ENOTCONN),
        (listener.getpeername, errno.ENOTCONN),
        (here.accept, errno.EINVAL),
        (lambda: here.shutdown(3), errno.EINVAL),
    ]
    for call, error in calls:
        with pytest.raises(OSError, match=os.strerror(error)):
            call()
    listener.shutdown(socket.SHUT_RD)
    assert state_of(kernel, listener) == IN | RDHUP
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(listener.getsockname())


def test_a_number_that_is_no_socket_any_more(kernel: Kernel) -> None:
    """A socket object whose number stands for something else now raises ENOTSOCK."""
    here, _ = kernel.socketpair()
    kernel.dup2(kernel.eventfd(1), here.fileno())
    for call in (lambda: here.recv(0), lambda: here.shutdown(9), here.accept, here.getsockname):
        with pytest.raises(OSError, match="non-socket"):
            call()


def test_reading_nothing_never_blocks(kernel: Kernel) -> None:
    """Zero bytes can be read of any socket, a listener too; as on Linux."""
    here, _ = kernel.socketpair()
    assert here.recv(0) == kernel.listen().recv(0) == kernel.read(kernel.pipe()[0], 0) == b""


# ---- pipes and eventfds -----------------------------------------------------------------------


def test_pipe(kernel: Kernel) -> None:
    """Bytes go one way; the wrong way is EBADF, an empty pipe would block."""
    reading, writing = kernel.pipe()
    assert (state_of(kernel, reading), state_of(kernel, writing)) == (0, OUT)
    with pytest.raises(BlockingIOError):
        kernel.read(reading, 1)
    assert (kernel.write(writing, b"abc"), kernel.write(writing, b"")) == (3, 0)
    assert state_of(kernel, reading) == IN
    assert kernel.read(reading, 2) == b"ab"
    with pytest.raises(OSError, match="Bad file"):
        kernel.write(reading, b"x")
    with pytest.raises(OSError, match="Bad file"):
        kernel.read(writing, 1)


def test_every_write_wakes_the_reader(kernel: Kernel) -> None:
    """Edge-triggered is told of bytes in a pipe that come on top of others."""
    reading, writing = kernel.pipe()
    epoll = watched(kernel, reading)
    for _ in range(2):
        kernel.write(writing, b"x")
        assert epoll.poll(0) == [(reading, IN)]


def test_the_end_of_a_pipe_is_told_to_all(kernel: Kernel) -> None:
    """Who asked for nothing hears of the other end's close, too."""
    for end, mask in ((0, HUP), (1, ERR)):
        pipe = kernel.pipe()
        epoll = watched(kernel, pipe[end], mask=EDGE)
        kernel.close(pipe[1 - end])
        assert epoll.poll(0) == [(pipe[end], mask)]


def test_a_pipe_without_a_writer(kernel: Kernel) -> None:
    """The end of a pipe is HUP, without IN once all was read."""
    reading, writing = kernel.pipe()
    epoll = watched(kernel, reading)
    kernel.write(writing, b"x")
    kernel.close(writing)
    assert epoll.poll(0) == [(reading, IN | HUP)]
    assert (kernel.read(reading, 9), kernel.read(reading, 9)) == (b"x", b"")
    assert state_of(kernel, reading) == HUP


def test_a_pipe_without_a_reader(kernel: Kernel) -> None:
    """Its writing end is ERR and still OUT; writing breaks."""
    reading, writing = kernel.pipe()
    epoll = watched(kernel, writing)
    kernel.close(reading)
    assert epoll.poll(0) == [(writing, OUT | ERR)]
    with pytest.raises(BrokenPipeError):
        kernel.write(writing, b"x")


def test_a_full_pipe() -> None:
    """Up to PIPE_BUF bytes go all or not at all; the writer hears of room only when it had none."""
    kernel = Kernel(buffer=10_000)
    reading, writing = kernel.pipe()
    epoll = watched(kernel, writing)
    kernel.write(writing, b"x" * 2000)
    kernel.read(reading, 2000)
    assert epoll.poll(0) == []
    assert kernel.write(writing, b"x" * 5905) == 5905
    assert state_of(kernel, writing) == 0
    with pytest.raises(BlockingIOError):
        kernel.write(writing, b"y" * 4096)
    assert kernel.write(writing, b"y" * 5000) == 4095
    assert len(kernel.read(reading, 6000)) == 6000
    assert epoll.poll(0) == [(writing, OUT)]


def test_a_small_pipe() -> None:
    """With a buffer below PIPE_BUF the whole buffer is what is not split."""
    kernel = Kernel(buffer=10)
    reading, writing = kernel.pipe()
    assert kernel.write(writing, b"123") == 3
    with pytest.raises(BlockingIOError):
        kernel.write(writing, b"12345678")
    assert (kernel.write(writing, b"x" * 11), kernel.read(reading, 99)) == (7, b"123" + b"x" * 7)
    assert state_of(kernel, writing) == OUT


def test_eventfd(kernel: Kernel) -> None:
    """It adds up, reading takes all of it, and it would block at zero and beyond its maximum."""
    eventfd = kernel.eventfd(2, kernel.EFD_CLOEXEC | kernel.EFD_NONBLOCK)
    epoll = watched(kernel, eventfd)
    kernel.eventfd_write(eventfd, 3)
    assert epoll.poll(0) == [(eventfd, IN | OUT)]
    assert kernel.eventfd_read(eventfd) == 5
    assert epoll.poll(0) == [(eventfd, OUT)]
    with pytest.raises(BlockingIOError):
        kernel.eventfd_read(eventfd)
    kernel.eventfd_write(eventfd, 0)
    assert epoll.poll(0) == [(eventfd, OUT)]
    kernel.eventfd_write(eventfd, 2**64 - 2)
    assert epoll.poll(0) == [(eventfd, IN)]
    with pytest.raises(BlockingIOError):
        kernel.eventfd_write(eventfd, 1)


def test_eventfd_by_bytes(kernel: Kernel) -> None:
    """Reading and writing moves eight bytes; fewer, or the one value too large, are EINVAL."""
    eventfd = kernel.eventfd(0)
    assert kernel.write(eventfd, (7).to_bytes(8, sys.byteorder)) == 8
    for call in (
        lambda: kernel.read(eventfd, 7),
        lambda: kernel.write(eventfd, b"1234567"),
        lambda: kernel.eventfd_write(eventfd, 2**64 - 1),
    ):
        with pytest.raises(OSError, match="Invalid"):
            call()
    assert kernel.read(eventfd, 9) == (7).to_bytes(8, sys.byteorder)


def test_semaphore(kernel: Kernel) -> None:
    """A semaphore counts down by one."""
    eventfd = kernel.eventfd(2, kernel.EFD_SEMAPHORE)
    assert [kernel.eventfd_read(eventfd), kernel.eventfd_read(eventfd)] == [1, 1]
    assert state_of(kernel, eventfd) == OUT


# ---- epoll ------------------------------------------------------------------------------------


def test_level_triggered_reports_while_it_holds(kernel: Kernel) -> None:
    """What is ready is on the ready list until a wait finds that it is not."""
    here, there = kernel.socketpair()
    epoll = kernel.epoll()
    epoll.register(here, IN)
    assert epoll.ready == []
    there.send(b"x")
    assert epoll.poll(0) == epoll.poll(0) == [(here.fileno(), IN)]
    here.recv(1)
    assert epoll.ready == [here.fileno()]
    assert not epoll.poll(0)
    assert not epoll.ready


def test_edge_triggered_reports_once(kernel: Kernel) -> None:
    """What was reported is off the ready list until it is woken again; MOD looks anew."""
    here, there = kernel.socketpair()
    epoll = kernel.epoll()
    epoll.register(here, IN | EDGE)
    there.send(b"xy")
    assert epoll.poll(0) == [(here.fileno(), IN)]
    here.recv(1)
    assert not epoll.poll(0)
    assert not epoll.ready
    epoll.modify(here, IN | EDGE)
    assert epoll.poll(0) == [(here.fileno(), IN)]


def test_oneshot_is_disarmed(kernel: Kernel) -> None:
    """After one event nothing is reported, not even an error, until MOD arms it again."""
    here, there = kernel.socketpair()
    epoll = kernel.epoll()
    epoll.register(here, IN | ONESHOT)
    there.send(b"x")
    assert epoll.poll(0) == [(here.fileno(), IN)]
    there.close()
    assert epoll.ready == []
    assert epoll.poll(0) == []
    epoll.modify(here, IN | ONESHOT)
    assert epoll.poll(0) == [(here.fileno(), IN | HUP)]


def test_the_ready_list_is_a_queue(kernel: Kernel) -> None:
    """Events come in the order of the wakes; what did not fit comes first the next time."""
    pairs = [kernel.socketpair() for _ in range(4)]
    numbers = [here.fileno() for here, _ in pairs]
    epoll = kernel.epoll()
    for here, _ in pairs:
        epoll.register(here, IN)
    for place in (2, 0, 3, 1):
        pairs[place][1].send(b"x")
    in_order = [numbers[place] for place in (2, 0, 3, 1)]
    assert epoll.ready == in_order
    assert [fd for fd, _ in epoll.poll(0, 3)] == in_order[:3]
    assert epoll.ready == [in_order[3], *in_order[:3]]
    assert [fd for fd, _ in epoll.poll(0, 2)] == [in_order[3], in_order[0]]


def test_a_wake_that_was_not_asked_for(kernel: Kernel) -> None:
    """A wake with a key outside of the mask is not heard; PRI comes with every arrival."""
    here, there = kernel.socketpair()
    epoll = watched(kernel, here, mask=OUT | EDGE)
    there.send(b"x")
    assert epoll.ready == []
    epoll.modify(here, PRI)
    there.send(b"x")
    assert epoll.ready == [here.fileno()]
    assert not epoll.poll(0)
    assert not epoll.ready


def test_a_closed_number_whose_duplicate_lives(kernel: Kernel) -> None:
    """Its entry reports on, can't be removed, and leaves the number free for another file."""
    here, there = kernel.socketpair()
    number = here.fileno()
    epoll = watched(kernel, here, mask=IN)
    again = kernel.dup(number)
    here.close()
    there.send(b"x")
    assert epoll.poll(0) == [(number, IN)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        epoll.unregister(number)
    kernel.dup2(kernel.eventfd(0), number)
    with pytest.raises(FileNotFoundError):
        epoll.unregister(number)
    epoll.register(number, OUT)
    assert epoll.poll(0) == [(number, IN), (number, OUT)]
    kernel.close(again)
    assert epoll.poll(0) == [(number, OUT)]


def test_registration_errors(kernel: Kernel) -> None:
    """Each is the OSError that Linux has, and Python's for what is no descriptor."""
    here, there = kernel.socketpair()
    epoll = kernel.epoll()
    epoll.register(here)
    with pytest.raises(FileExistsError):
        epoll.register(here.fileno(), IN)
    for missing in (epoll.unregister, lambda fd: epoll.modify(fd, IN)):
        with pytest.raises(FileNotFoundError):
            missing(there)
    for own in (epoll.register, epoll.unregister, lambda fd: epoll.modify(fd, IN)):
        with pytest.raises(OSError, match="Invalid"):
            own(epoll)
        with pytest.raises(OSError, match="Bad file"):
            own(99)
    with pytest.raises(ValueError, match="negative"):
        epoll.register(-1)
    with pytest.raises(TypeError, match="fileno"):
        epoll.register("3")
    with pytest.raises(TypeError, match="fileno"):
        epoll.register(None)
    with pytest.raises(OverflowError):
        epoll.register(2**31)


def test_a_closed_epoll(kernel: Kernel) -> None:
    """Every call raises ValueError, a second close does nothing; it watches nobody any more."""
    here, there = kernel.socketpair()
    with kernel.epoll() as epoll:
        epoll.register(here, IN)
        assert not epoll.closed
    epoll.close()
    assert epoll.closed
    there.send(b"x")
    for call in (epoll.poll, epoll.fileno, lambda: epoll.register(here), lambda: epoll.ready):
        with pytest.raises(ValueError, match="I/O operation on closed epoll object"):
            call()


def test_an_epoll_object_looks_its_number_up(kernel: Kernel) -> None:
    """Another epoll that is put under its number is its own from then on; a pipe is EINVAL."""
    here, _ = kernel.socketpair()
    epoll = watched(kernel, here)
    with kernel.epoll() as fresh:
        kernel.dup2(fresh.fileno(), epoll.fileno())
    assert epoll.poll(0) == []
    epoll.register(here, OUT)
    assert epoll.poll(0) == [(here.fileno(), OUT)]
    kernel.dup2(kernel.pipe()[0], epoll.fileno())
    with pytest.raises(OSError, match="Invalid"):
        epoll.poll(0)
    kernel.close(epoll.fileno())
    with pytest.raises(OSError, match="Bad file"):
        epoll.poll(0)


@pytest.mark.parametrize("mask", [IN | PRI, IN | RDHUP, IN | ONESHOT])
def test_exclusive_goes_with_little(kernel: Kernel, mask: int) -> None:
    """PRI, RDHUP and one-shot are refused beside it; it can't be modified, or got by MOD."""
    here, _ = kernel.socketpair()
    epoll = kernel.epoll()
    with pytest.raises(OSError, match="Invalid"):
        epoll.register(here, mask | EXCLUSIVE)
    epoll.register(here, IN | OUT | EDGE | EXCLUSIVE)
    with pytest.raises(OSError, match="Invalid"):
        epoll.modify(here, IN)
    epoll.unregister(here)
    epoll.register(here, IN)
    with pytest.raises(OSError, match="Invalid"):
        epoll.modify(here, IN | EXCLUSIVE)


def test_an_exclusive_wake_ends_at_who_waits(kernel: Kernel) -> None:
    """Of two epolls only the one that is waited on hears; those before it in line hear, too."""
    here, there = kernel.socketpair()
    first, second = kernel.epoll(), kernel.epoll()
    for epoll in (first, second):
        epoll.register(here, IN | EXCLUSIVE | EDGE)
    kernel.at(1, lambda: there.send(b"x"))
    assert first.poll() == [(here.fileno(), IN)]
    assert second.ready == []
    kernel.at(2, lambda: there.send(b"x"))
    assert second.poll() == [(here.fileno(), IN)]
    assert first.ready == [here.fileno()]
    there.send(b"x")  # nobody waits: all hear
    assert first.ready == second.ready == [here.fileno()]


def test_an_exclusive_wait_takes_one_wake(kernel: Kernel) -> None:
    """The second of two wakes in one wait goes on to the next: the first ended the wait."""
    here, there = kernel.socketpair()
    first, second = kernel.epoll(), kernel.epoll()
    for epoll in (first, second):
        epoll.register(here, IN | EXCLUSIVE | EDGE)
    kernel.at(1, lambda: (there.send(b"x"), there.send(b"y")))
    assert first.poll() == [(here.fileno(), IN)]
    assert second.ready == [here.fileno()]


def test_an_exclusive_one_that_waited_in_vain(kernel: Kernel) -> None:
    """After a wait that timed out nobody waits: a wake is told to all."""
    here, there = kernel.socketpair()
    first, second = kernel.epoll(), kernel.epoll()
    for epoll in (first, second):
        epoll.register(here, IN | EXCLUSIVE | EDGE)
    assert first.poll(1) == []
    there.send(b"x")
    assert first.ready == second.ready == [here.fileno()]


def test_exclusive_ones_hear_last(kernel: Kernel) -> None:
    """An entry that is not exclusive hears though it was added after one that takes the wake."""
    here, there = kernel.socketpair()
    first, second = kernel.epoll(), kernel.epoll()
    first.register(here, IN | EXCLUSIVE | EDGE)
    second.register(here, IN)
    kernel.at(1, lambda: there.send(b"x"))
    assert first.poll() == [(here.fileno(), IN)]
    assert second.ready == [here.fileno()]


def test_the_end_wakes_every_exclusive_one(kernel: Kernel) -> None:
    """A close is told to all: it is no wake for one of them."""
    here, there = kernel.socketpair()
    first, second = kernel.epoll(), kernel.epoll()
    for epoll in (first, second):
        epoll.register(here, IN | EXCLUSIVE | EDGE)
    kernel.at(1, there.close)
    assert first.poll() == [(here.fileno(), IN | HUP)]
    assert second.ready == [here.fileno()]


def test_an_epoll_in_an_epoll(kernel: Kernel) -> None:
    """It is readable while something in it is ready; a circle is refused, and exclusive."""
    here, there = kernel.socketpair()
    inner, outer = kernel.epoll(), kernel.epoll()
    inner.register(here, IN)
    outer.register(inner, IN)
    assert outer.poll(0) == []
    inner.register(there, IN)
    there.send(b"x")
    here.send(b"x")
    assert outer.poll(0) == [(inner.fileno(), IN)]
    here.recv(1)
    assert (inner.ready, outer.poll(0)) == ([3, 4], [(inner.fileno(), IN)])
    there.recv(1)
    assert (outer.poll(0), inner.ready) == ([], [])
    middle = kernel.epoll()
    middle.register(outer, IN)
    for above in (outer, middle):
        with pytest.raises(OSError, match="symbolic links") as caught:
            inner.register(above, IN)
        assert caught.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="Invalid"):
        outer.register(kernel.epoll(), IN | EXCLUSIVE)
    with pytest.raises(OSError, match="Invalid"):
        kernel.read(inner.fileno(), 8)
    with pytest.raises(OSError, match="Invalid"):
        kernel.write(inner.fileno(), b"12345678")


def test_modify_of_what_is_on_the_ready_list_tells_nobody(kernel: Kernel) -> None:
    """An outer epoll hears of MOD only when that puts something on the inner ready list."""
    here, _ = kernel.socketpair()
    inner, outer = kernel.epoll(), kernel.epoll()
    inner.register(here, OUT)
    outer.register(inner, IN | EDGE)
    assert outer.poll(0) == [(inner.fileno(), IN)]
    inner.modify(here, OUT | IN)
    assert outer.poll(0) == []


def test_poll_arguments(kernel: Kernel) -> None:
    """At least one event is asked for, and not too long a wait."""
    epoll = kernel.epoll()
    with pytest.raises(ValueError, match="maxevents must be greater than 0, got 0"):
        epoll.poll(0, 0)
    with pytest.raises(OverflowError, match="too large"):
        epoll.poll(2_147_484)
    with pytest.raises(ValueError, match="NaN"):
        epoll.poll(float("nan"))


# ---- kqueue -----------------------------------------------------------------------------------


def test_reading_and_writing_are_two(kernel: Kernel) -> None:
    """Each direction is an event of its own, with the bytes to read and the room to write."""
    here, there = kernel.socketpair()
    kqueue = kernel.kqueue()
    kqueue.control(changing(kernel, here) + changing(kernel, here, WRITE), 0)
    there.send(b"abc")
    number = here.fileno()
    assert kqueue.ready == [(number, WRITE), (number, READ)]
    assert knotes(kqueue) == [(number, WRITE, 65536, 0), (number, READ, 3, 0)]
    here.recv(1)
    assert (number, READ, 2, 0) in knotes(kqueue)
    here.recv(2)
    assert knotes(kqueue) == [(number, WRITE, 65536, 0)]


def test_data_counts_connections_and_counters(kernel: Kernel) -> None:
    """A listener's data is how many wait, an eventfd's its counter, a pipe's its bytes."""
    listener, eventfd, (reading, writing) = kernel.listen(), kernel.eventfd(7), kernel.pipe()
    kernel.connect(listener.getsockname())
    kernel.write(writing, b"12345")
    kqueue = kernel.kqueue()
    for fd in (listener.fileno(), eventfd, reading, writing):
        kqueue.control(changing(kernel, fd) + changing(kernel, fd, WRITE), 0)
    assert [event[:3] for event in knotes(kqueue)] == [
        (listener.fileno(), READ, 1),
        (eventfd, READ, 7),
        (eventfd, WRITE, 2**64 - 9),
        (reading, READ, 5),
        (writing, WRITE, 65531),
    ]


def test_the_end_is_told_in_each_direction(kernel: Kernel) -> None:
    """EV_EOF comes with READ when no more will come, with WRITE when no more can be sent."""
    here, there = kernel.socketpair()
    kqueue, number = kernel.kqueue(), here.fileno()
    kqueue.control(changing(kernel, here) + changing(kernel, here, WRITE), 0)
    there.send(b"x")
    there.shutdown(socket.SHUT_WR)
    assert sorted(knotes(kqueue)) == [(number, WRITE, 65536, 0), (number, READ, 1, EOF)]
    here.shutdown(socket.SHUT_WR)
    assert sorted(knotes(kqueue)) == [(number, WRITE, 65536, EOF), (number, READ, 1, EOF)]


def test_fflags_is_the_pending_error(kernel: Kernel) -> None:
    """It comes with EV_EOF, and stays pending: recv raises it."""
    here, there = kernel.socketpair()
    kqueue = kernel.kqueue()
    kqueue.control(changing(kernel, here), 0)
    there.reset()
    (event,) = kqueue.control(None, 8, 0)
    assert (event.flags, event.fflags) == (EOF, errno.ECONNRESET)
    with pytest.raises(ConnectionResetError):
        here.recv(1)


def test_the_ends_of_a_pipe(kernel: Kernel) -> None:
    """EV_EOF at either end when the other is closed; a WRITE that is added after that is EPIPE."""
    kqueue = kernel.kqueue()
    reading, writing = kernel.pipe()
    kqueue.control(changing(kernel, reading) + changing(kernel, writing, WRITE), 0)
    again = kernel.dup(writing)
    kernel.close(reading)
    assert knotes(kqueue) == [(writing, WRITE, 65536, EOF)]
    with pytest.raises(BrokenPipeError):
        kqueue.control(changing(kernel, again, WRITE), 0)
    kqueue.control(changing(kernel, again, READ), 0)
    reading, writing = kernel.pipe()
    kqueue.control(changing(kernel, reading), 0)
    kernel.close(writing)
    assert (reading, READ, 0, EOF) in knotes(kqueue)


def test_clear_is_reported_again_at_the_next_change(kernel: Kernel) -> None:
    """EV_CLEAR tells of each arrival, though bytes of the one before are unread."""
    here, there = kernel.socketpair()
    kqueue, number = kernel.kqueue(), here.fileno()
    kqueue.control(changing(kernel, here, flags=ADD | CLEAR), 0)
    there.send(b"a")
    assert knotes(kqueue) == [(number, READ, 1, 0)]
    assert not knotes(kqueue)
    assert not kqueue.ready
    there.send(b"b")
    assert knotes(kqueue) == [(number, READ, 2, 0)]
    here.recv(1)
    assert knotes(kqueue) == []


def test_oneshot_is_deleted(kernel: Kernel) -> None:
    """After one event the knote is gone; deleting it is ENOENT."""
    here, there = kernel.socketpair()
    kqueue = kernel.kqueue()
    kqueue.control(changing(kernel, here, flags=ADD | ONCE), 0)
    there.send(b"x")
    assert knotes(kqueue) == [(here.fileno(), READ, 1, 0)]
    assert knotes(kqueue) == []
    with pytest.raises(FileNotFoundError):
        kqueue.control(changing(kernel, here, flags=kernel.KQ_EV_DELETE), 0)


def test_a_oneshot_is_reported_though_it_is_over(kernel: Kernel) -> None:
    """FreeBSD does not look again at a one-shot that was ready once."""
    here, there = kernel.socketpair()
    kqueue = kernel.kqueue()
    kqueue.control(changing(kernel, here, flags=ADD | ONCE), 0)
    there.send(b"x")
    here.recv(1)
    assert knotes(kqueue) == [(here.fileno(), READ, 1, 0)]


def test_adding_again_looks_anew_but_keeps_the_mode(kernel: Kernel) -> None:
    """A second EV_ADD replaces udata and reports what holds; EV_CLEAR stays as first added."""
    here, there = kernel.socketpair()
    kqueue, number = kernel.kqueue(), here.fileno()
    kqueue.control(changing(kernel, here, flags=ADD | CLEAR, udata="first"), 0)
    there.send(b"x")
    assert [event.udata for event in kqueue.control(None, 8, 0)] == ["first"]
    kqueue.control(changing(kernel, here, udata="second"), 0)
    assert [event.udata for event in kqueue.control(None, 8, 0)] == ["second"]
    assert knotes(kqueue) == []
    kqueue.control(changing(kernel, here, flags=kernel.KQ_EV_DELETE), 0)
    kqueue.control(changing(kernel, here), 0)
    assert knotes(kqueue) == knotes(kqueue) == [(number, READ, 1, 0)]


def test_disabled_says_nothing_until_enabled(kernel: Kernel) -> None:
    """A disabled knote is kept, and reports when it is enabled if the event holds then."""
    here, there = kernel.socketpair()
    kqueue, number = kernel.kqueue(), here.fileno()
    kqueue.control(changing(kernel, here, flags=ADD | kernel.KQ_EV_DISABLE), 0)
    there.send(b"x")
    assert kqueue.ready == []
    kqueue.control(changing(kernel, here, flags=kernel.KQ_EV_ENABLE), 0)
    assert knotes(kqueue) == [(number, READ, 1, 0)]
    kqueue.control(changing(kernel, here, flags=kernel.KQ_EV_DISABLE), 0)
    assert kqueue.ready == [(number, READ)]
    assert not knotes(kqueue)
    assert not kqueue.ready


def test_what_was_over_before_enabling(kernel: Kernel) -> None:
    """A one-shot that was added disabled looks when it is enabled, and not before."""
    here, there = kernel.socketpair()
    kqueue = kernel.kqueue()
    there.send(b"x")
    kqueue.control(changing(kernel, here, flags=ADD | ONCE | kernel.KQ_EV_DISABLE), 0)
    here.recv(1)
    kqueue.control(changing(kernel, here, flags=kernel.KQ_EV_ENABLE), 0)
    assert knotes(kqueue) == []


def test_a_closed_number_takes_its_knotes_along(kernel: Kernel) -> None:
    """They go with the number, though a duplicate keeps the file open: no ghosts."""
    here, there = kernel.socketpair()
    again, number = kernel.dup(here.fileno()), here.fileno()
    kqueue = kernel.kqueue()
    both = changing(kernel, number) + changing(kernel, number, WRITE)
    kqueue.control(both + changing(kernel, again), 0)
    there.send(b"x")
    here.close()
    assert knotes(kqueue) == [(again, READ, 1, 0)]
    kernel.dup2(kernel.eventfd(0), again)
    assert knotes(kqueue) == []


@pytest.mark.parametrize(
    ("flags", "filter", "number"),
    [
        (Kernel.KQ_EV_DELETE, READ, errno.ENOENT),
        (Kernel.KQ_EV_ENABLE, READ, errno.ENOENT),
        (Kernel.KQ_EV_DISABLE, WRITE, errno.ENOENT),
        (ADD, -7, errno.EINVAL),
    ],
)
def test_a_change_that_fails(kernel: Kernel, flags: int, filter: int, number: int) -> None:
    """It raises when there is no room for events, else it is an EV_ERROR event and all there is."""
    here, there = kernel.socketpair()
    kqueue = kernel.kqueue()
    there.send(b"x")
    bad, good = changing(kernel, here, filter, flags), changing(kernel, here)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        kqueue.control(bad + good, 0)
    assert caught.value.errno == number
    assert kqueue.ready == []
    (event,) = kqueue.control(bad + good, 8, 0)
    assert (event.ident, event.flags, event.data) == (here.fileno(), kernel.KQ_EV_ERROR, number)
    assert kqueue.ready == [(here.fileno(), READ)]


def test_more_failures_than_room(kernel: Kernel) -> None:
    """The change that finds no room for its error raises it."""
    kqueue = kernel.kqueue()
    with pytest.raises(OSError, match="Bad file descriptor"):
        kqueue.control(changing(kernel, 77) + changing(kernel, 78), 1, 0)


def test_control_arguments(kernel: Kernel) -> None:
    """A negative timeout or number of events is a ValueError; its own number is EINVAL."""
    kqueue = kernel.kqueue()
    with pytest.raises(ValueError, match="Length of eventlist"):
        kqueue.control(None, -1)
    with pytest.raises(ValueError, match="timeout must be positive"):
        kqueue.control(None, 1, -1)
    assert kqueue.control(None, 0) == kqueue.control([], 0) == []
    with pytest.raises(OSError, match="Invalid"):
        kqueue.control(changing(kernel, kqueue), 0)


def test_a_closed_kqueue(kernel: Kernel) -> None:
    """Every call raises ValueError; another file under its number is EBADF; it watches nobody."""
    here, there = kernel.socketpair()
    kqueue, other = kernel.kqueue(), kernel.kqueue()
    kqueue.control(changing(kernel, here), 0)
    kqueue.close()
    there.send(b"x")
    assert (kqueue.closed, other.closed) == (True, False)
    for call in (kqueue.fileno, lambda: kqueue.control(None, 1), lambda: kqueue.ready):
        with pytest.raises(ValueError, match="I/O operation on closed kqueue object"):
            call()
    kernel.dup2(kernel.eventfd(0), other.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        other.control(None, 1)


def test_a_kqueue_in_a_kqueue(kernel: Kernel) -> None:
    """It is readable while its ready list holds something; its data is how much."""
    here, there = kernel.socketpair()
    inner, outer = kernel.kqueue(), kernel.kqueue()
    inner.control(changing(kernel, here) + changing(kernel, there), 0)
    outer.control(changing(kernel, inner), 0)
    assert knotes(outer) == []
    there.send(b"x")
    here.send(b"x")
    assert knotes(outer) == [(inner.fileno(), READ, 2, 0)]
    assert state_of(kernel, inner) == IN


def test_a_queue_of_knotes(kernel: Kernel) -> None:
    """Events come in the order in which they happened; what did not fit comes first next time."""
    pairs = [kernel.socketpair() for _ in range(3)]
    kqueue = kernel.kqueue()
    for here, _ in pairs:
        kqueue.control(changing(kernel, here), 0)
    for place in (2, 0, 1):
        pairs[place][1].send(b"x")
    in_order = [pairs[place][0].fileno() for place in (2, 0, 1)]
    assert [fd for fd, *_ in knotes(kqueue, 2)] == in_order[:2]
    assert [fd for fd, *_ in knotes(kqueue, 2)] == [in_order[2], in_order[0]]


# ---- time -------------------------------------------------------------------------------------


def test_a_wait_moves_the_clock_to_the_next_action(kernel: Kernel) -> None:
    """Actions run when the clock reaches them, in order; the wait ends at the first event."""
    here, there = kernel.socketpair()
    seen: list[tuple[str, float]] = []
    epoll = watched(kernel, here, mask=IN)

    def note(name: str) -> Callable[[], None]:
        return lambda: seen.append((name, kernel.monotonic()))

    kernel.at(2.5, lambda: there.send(b"x"))
    kernel.at(1, note("second"))
    kernel.at(1, note("third"))
    kernel.at(0.25, note("first"))
    kernel.at(3, note("never"))
    assert kernel.monotonic() == 0
    assert epoll.poll(9) == [(here.fileno(), IN)]
    assert kernel.monotonic() == 2.5
    assert seen == [("first", 0.25), ("second", 1.0), ("third", 1.0)]


def test_what_is_ready_takes_no_time(kernel: Kernel) -> None:
    """A wait with something ready, or without time, returns at once."""
    here, there = kernel.socketpair()
    epoll = watched(kernel, here, mask=OUT)
    kernel.at(1, there.close)
    assert epoll.poll() == [(here.fileno(), OUT)]
    assert watched(kernel, there, mask=IN).poll(0) == []
    assert kernel.monotonic() == 0


def test_a_deadline(kernel: Kernel) -> None:
    """With nothing ready a wait takes as long as it may, with either facility."""
    assert kernel.epoll().poll(1.5) == []
    assert kernel.monotonic() == 1.5
    assert kernel.kqueue().control(None, 1, 0.25) == []
    assert kernel.monotonic() == 1.75


def test_an_action_at_the_very_deadline_comes_first(kernel: Kernel) -> None:
    """What happens at the last moment is still reported."""
    here, there = kernel.socketpair()
    epoll = watched(kernel, here, mask=IN)
    kernel.at(0.1 + 0.2, lambda: there.send(b"x"))
    assert epoll.poll(0.3) == [(here.fileno(), IN)]
    assert kernel.monotonic() == 0.3


def test_actions_come_at_the_nearest_nanosecond(kernel: Kernel) -> None:
    """What floats make of a decimal fraction changes no time of the script."""
    assert 0.7 - 0.4 < 0.3 < 0.1 + 0.2
    seen: list[tuple[str, float]] = []
    kernel.at(0.1 + 0.2, lambda: seen.append(("first", kernel.monotonic())))
    kernel.at(0.7 - 0.4, lambda: seen.append(("second", kernel.monotonic())))
    kernel.sleep(1)
    assert seen == [("first", 0.3), ("second", 0.3)]


def test_sleep_runs_what_comes_due(kernel: Kernel) -> None:
    """A slow callback moves the clock; actions in between run at their time."""
    seen: list[float] = []
    kernel.at(1, lambda: seen.append(kernel.monotonic()))
    kernel.at(4, lambda: seen.append(kernel.monotonic()))
    kernel.sleep(3)
    assert (seen, kernel.monotonic()) == ([1.0], 3.0)
    with pytest.raises(ValueError, match="non-negative"):
        kernel.sleep(-1)


def test_an_action_that_sleeps_delays_the_others(kernel: Kernel) -> None:
    """The clock never goes back: who was overtaken runs late."""
    seen: list[float] = []
    kernel.at(1, lambda: kernel.sleep(5))
    kernel.at(7, lambda: seen.append(kernel.monotonic()))
    kernel.at(2, lambda: seen.append(kernel.monotonic()))
    assert kernel.epoll().poll(3) == []
    assert (seen, kernel.monotonic()) == ([2.0], 6.0)


@pytest.mark.parametrize("wait", ["poll", "control", "sleep"])
def test_an_action_in_the_past(kernel: Kernel, wait: str) -> None:
    """It runs at the next wait or sleep, even one without time; the clock does not go back."""
    seen: list[float] = []
    kernel.sleep(2)
    kernel.at(1, lambda: seen.append(kernel.monotonic()))
    assert seen == []
    if wait == "sleep":
        kernel.sleep(0)
    elif wait == "poll":
        kernel.epoll().poll(0)
    else:
        kernel.kqueue().control(None, 1, 0)
    assert seen == [2.0]


def test_an_action_that_raises(kernel: Kernel) -> None:
    """Its exception leaves the wait; the clock stands at its time, and the next wait goes on."""
    epoll = kernel.epoll()
    kernel.at(1, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        epoll.poll(3)
    assert kernel.monotonic() == 1
    assert epoll.poll(1) == []
    with pytest.raises(TypeError, match="action"):
        kernel.at(1, None)  # type: ignore[arg-type]


def test_timeouts_are_rounded_up(kernel: Kernel) -> None:
    """An epoll waits whole milliseconds, a kqueue nanoseconds, never less than asked."""
    epoll, kqueue = kernel.epoll(), kernel.kqueue()
    epoll.poll(0.0000001)
    assert kernel.monotonic() == 0.001
    kqueue.control(None, 1, 1e-12)
    assert kernel.monotonic() == 0.001000001
    kernel.sleep(1e-12)
    assert kernel.monotonic() == 0.001000002


@pytest.mark.parametrize("facility", ["epoll", "kqueue"])
def test_a_loop_gets_to_its_deadline(facility: str) -> None:
    """Waiting for the rest, again and again, ends at any deadline, and never before it."""
    for number in range(1, 400):
        kernel = Kernel()
        epoll, kqueue = kernel.epoll(), kernel.kqueue()
        kernel.sleep(number / 7)
        deadline = kernel.monotonic() + number / 300 + 1e-10
        for _ in range(3):
            rest = deadline - kernel.monotonic()
            if rest <= 0:
                break
            epoll.poll(rest) if facility == "epoll" else kqueue.control(None, 1, rest)
        assert deadline <= kernel.monotonic() < deadline + 0.002


# ---- waiting for ever -------------------------------------------------------------------------


def test_who_waits_for_what(kernel: Kernel) -> None:
    """A wait that nothing can end says who waits, for which files, with what interest."""
    here, there = kernel.socketpair()
    reading, writing = kernel.pipe()
    eventfd, listener, inner = kernel.eventfd(0), kernel.listen(), kernel.epoll()
    epoll = kernel.epoll()
    epoll.register(here, IN | RDHUP | EDGE)
    epoll.register(reading, IN | PRI)
    epoll.register(eventfd, IN | ONESHOT)
    epoll.register(listener, IN | OUT)
    epoll.register(inner, IN)
    epoll.register(writing, 0)
    kernel.eventfd_write(eventfd, 1)
    epoll.poll()
    with pytest.raises(WouldWaitForever) as caught:
        epoll.poll(-1)
    assert str(caught.value).splitlines() == [
        "no action and no deadline is left to end the wait of epoll 10 for",
        "  3: readable, half closed, edge-triggered (connected socket, peer 4)",
        "  5: readable, urgent data (reading end of a pipe, writing end 6)",
        "  7: nothing: a one-shot that fired (eventfd, counter 1)",
        "  8: readable, writable (listener at ('127.0.0.1', 49152), 0 waiting)",
        "  9: readable (epoll)",
        "  6: an error (writing end of a pipe, reading end 5)",
    ]
    assert kernel.WouldWaitForever is WouldWaitForever
    assert issubclass(WouldWaitForever, RuntimeError)
    assert there.send(b"x") == 1
    assert epoll.poll() == [(here.fileno(), IN)]


def test_who_waits_for_what_on_kqueue(kernel: Kernel) -> None:
    """The same for a kqueue."""
    here, there = kernel.socketpair()
    inner, kqueue = kernel.kqueue(), kernel.kqueue()
    there.shutdown(socket.SHUT_RD)
    kqueue.control(changing(kernel, there, WRITE, ADD | kernel.KQ_EV_DISABLE), 0)
    kqueue.control(changing(kernel, there, flags=ADD | CLEAR) + changing(kernel, inner), 0)
    kqueue.control(None, 8)
    with pytest.raises(WouldWaitForever) as caught:
        kqueue.control(None, 8)
    assert str(caught.value).splitlines() == [
        "no action and no deadline is left to end the wait of kqueue 6 for",
        "  4: nothing: disabled (connected socket, peer 3)",
        "  4: readable, edge-triggered (connected socket, peer 3)",
        "  5: readable (kqueue)",
    ]
    here.close()


def test_waiting_for_nothing(kernel: Kernel) -> None:
    """An empty list is named as such."""
    with pytest.raises(WouldWaitForever, match=r"epoll 3 for\n  nothing: its list is empty"):
        kernel.epoll().poll()
