"""What is written down of a socket's calls, and what stays as it was."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracer
from tests.interrupts import NEEDS_REHEARSAL, InterruptAt
from tracer import socket_calls
from tracer.rows import KIND
from tracer.socket_calls import address_text, name_of, unwatch, watch

NAMES = {number: name for name, number in KIND.items()}


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def socket_call(
        self, kind: int, fd: int, first: int, second: int, told: str | Exception | None = None, /
    ) -> None:
        error = type(told).__name__ if isinstance(told, Exception) else told
        self.calls.append((NAMES[kind], fd, first, second, error))


@pytest.fixture
def notes() -> Iterator[Notes]:
    """A watcher of this thread."""
    notes = Notes()
    watch(threading.get_ident(), notes)
    yield notes
    unwatch(notes)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, the first non-blocking."""
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


Pair = tuple[socket.socket, socket.socket]

WRITES: dict[str, Callable[[socket.socket], object]] = {
    "send": lambda sock: sock.send(b"abc"),
    "send with flags": lambda sock: sock.send(b"abc", socket.MSG_DONTWAIT),
    "send a buffer": lambda sock: sock.send(bytearray(b"abc")),
    "sendall": lambda sock: sock.sendall(memoryview(b"abc")),
    "sendmsg": lambda sock: sock.sendmsg([b"a", b"bc"]),
}
READS: dict[str, Callable[[socket.socket], object]] = {
    "recv": lambda sock: sock.recv(9),
    "recv with flags": lambda sock: sock.recv(9, socket.MSG_DONTWAIT),
    "recv_into": lambda sock: sock.recv_into(bytearray(99), 9),
    "recvfrom": lambda sock: sock.recvfrom(9),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(9)),
    "recvmsg": lambda sock: sock.recvmsg(9),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(9)]),
}


@pytest.mark.parametrize("name", WRITES)
def test_write(name: str, notes: Notes, pair: Pair) -> None:
    """Each way to send tells how many bytes were asked for and taken."""
    WRITES[name](pair[0])
    assert notes.calls == [("Wrote", pair[0].fileno(), 3, 3, None)]


def test_sendto_tells_the_bytes_asked_for(notes: Notes) -> None:
    """Also where an address follows the bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"abcd", sock.getsockname())
        assert notes.calls == [("Wrote", sock.fileno(), 4, 4, None)]


@pytest.mark.parametrize("name", READS)
def test_read_would_block_and_end(name: str, notes: Notes, pair: Pair) -> None:
    """Each way to receive tells of nothing to do, of bytes, and of the end of the stream."""
    one, other = pair
    with pytest.raises(BlockingIOError):
        READS[name](one)
    other.send(b"abc")
    READS[name](one)
    other.shutdown(socket.SHUT_WR)
    READS[name](one)
    fd = one.fileno()
    assert [call for call in notes.calls if call[1] == fd] == [
        ("WouldBlock", fd, -1, -1, name.partition(" ")[0]),
        ("Read", fd, 3, 9, None),
        ("Read", fd, 0, 9, None),
    ]


def test_room_that_is_given_by_keyword_is_unknown(notes: Notes, pair: Pair) -> None:
    """What can't be told from the arguments is left out, and the call goes on."""
    pair[1].send(b"abc")
    assert pair[0].recv_into(buffer=bytearray(9), nbytes=9) == 3
    assert notes.calls[-1] == ("Read", pair[0].fileno(), 3, -1, None)


def test_partial_write_and_full_buffer(notes: Notes, pair: Pair) -> None:
    """A kernel that takes a part is told by the count, one that takes nothing by WouldBlock."""
    sent = pair[0].send(bytes(10_000_000))
    with pytest.raises(BlockingIOError):
        pair[0].send(b"x")
    fd = pair[0].fileno()
    assert 0 < sent < 10_000_000
    assert notes.calls == [
        ("Wrote", fd, sent, 10_000_000, None),
        ("WouldBlock", fd, -1, -1, "send"),
    ]


def test_failed_calls_name_the_error(notes: Notes, pair: Pair) -> None:
    """A reset, a broken pipe and a closed descriptor are told with what was raised."""
    one, other = pair
    fd = one.fileno()
    other.close()
    with pytest.raises(BrokenPipeError):
        one.send(b"abc")
    one.close()
    with pytest.raises(OSError, match="Bad file"):
        one.recv(9)
    with pytest.raises(OSError, match="Bad file"):
        one.accept()
    one.close()
    assert notes.calls[1:] == [
        ("Wrote", fd, 0, 3, "BrokenPipeError"),
        ("Closed", fd, -1, -1, None),
        ("Read", -1, 0, 9, "OSError"),
        ("Accepted", -1, -1, -1, "OSError"),
    ]


def test_reset_by_the_peer(notes: Notes) -> None:
    """A peer that resets makes the read fail with ConnectionResetError."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        with server, pytest.raises(ConnectionResetError):
            server.recv(9)
    assert [call[0] for call in notes.calls if call[4] == "ConnectionResetError"] == ["Read"]
    assert notes.calls[-3][4] == "ConnectionResetError"


def test_close_through_with_is_told_once(notes: Notes) -> None:
    """Leaving a with statement closes; closing again, or detaching, does not."""
    with socket.socket() as sock:
        fd = sock.fileno()
    sock.close()
    sock = socket.socket()
    os.close(sock.detach())
    sock.close()
    assert notes.calls == [("Closed", fd, -1, -1, None)]


def test_wrong_arguments_raise_what_they_always_do(notes: Notes, pair: Pair) -> None:
    """A call that Python refuses is none, and looks as without a recording."""
    with pytest.raises(TypeError):
        pair[0].send()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        pair[0].send("text")  # type: ignore[arg-type]
    assert notes.calls == []


def test_other_threads_are_not_told_of(notes: Notes, pair: Pair) -> None:
    """Only the watched thread's calls are told."""

    def use() -> None:
        pair[1].send(b"abc")
        pair[0].recv(9)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert notes.calls == []


def test_two_watchers_of_one_thread(notes: Notes, pair: Pair) -> None:
    """Both are told, and one that leaves takes nothing from the other."""
    second = Notes()
    watch(threading.get_ident(), second)
    watch(threading.get_ident(), second)
    pair[0].send(b"abc")
    assert second.calls == notes.calls
    assert len(second.calls) == 1
    unwatch(second)
    unwatch(second)
    pair[0].send(b"abc")
    assert (len(notes.calls), len(second.calls)) == (2, 1)


def test_afterwards_sockets_are_as_before() -> None:
    """With the last watcher gone `socket.socket` has the attributes it had, in their order."""
    before = list(vars(socket.socket).items())
    first, second = Notes(), Notes()
    watch(1, first)
    watch(2, second)
    assert vars(socket.socket)["accept"] is not dict(before)["accept"]
    unwatch(first)
    assert vars(socket.socket)["accept"] is not dict(before)["accept"]
    unwatch(second)
    assert list(vars(socket.socket).items()) == before
    assert socket_calls._originals == {}


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 9090), "127.0.0.1:9090"),
        (("::1", 9090, 0, 0), "[::1]:9090"),
        ("/tmp/socket", "/tmp/socket"),
        (b"\0abstract", "@abstract"),
        (b"\xff", "\ufffd"),
        ("", "unnamed"),
        (b"", "unnamed"),
        (None, "unnamed"),
    ],
)
def test_address_text(address: object, text: str) -> None:
    """Addresses are written as people write them."""
    assert address_text(address) == text


def test_name_of_internet_sockets() -> None:
    """A listener is known by its port, a connection by its peer, others by what they are."""
    for family, host, shown in (
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "[::1]"),
    ):
        with socket.create_server((host, 0), family=family) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection((host, port)) as client, listener.accept()[0] as server:
                assert name_of(listener.fileno()) == f"listener :{port}"
                assert name_of(client.fileno()) == f"{shown}:{port}"
                assert name_of(server.fileno()) == f"{shown}:{client.getsockname()[1]}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", 0))
        assert name_of(udp.fileno()) == f"udp :{udp.getsockname()[1]}"
        assert name_of(tcp.fileno()) == "socket :0"


def test_name_of_unix_sockets(tmp_path: Path, pair: Pair) -> None:
    """A Unix socket is known by its path."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        assert name_of(listener.fileno()) == "socket unnamed"
        listener.bind(path)
        listener.listen()
        client.connect(path)
        with listener.accept()[0] as server:
            assert name_of(listener.fileno()) == f"listener {path}"
            assert name_of(client.fileno()) == path
            assert name_of(server.fileno()) == "socket pair"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        datagram.bind(path + "d")
        assert name_of(datagram.fileno()) == f"socket {path}d"
    assert name_of(pair[0].fileno()) == "socket pair"


def test_name_of_other_descriptors() -> None:
    """What is no socket is known by its kind; what is no descriptor is closed, and no error."""
    reading, writing = os.pipe()
    counter = os.eventfd(0)
    assert name_of(reading) == name_of(writing) == "pipe"
    assert name_of(counter) == "eventfd"
    for fd in (reading, writing, counter):
        os.close(fd)
    assert name_of(reading) == name_of(-1) == name_of(2**40) == "closed"


def test_naming_changes_nothing(pair: Pair) -> None:
    """Looking at a blocking and a non-blocking socket leaves both as they are, and open."""
    for sock in pair:
        blocking = os.get_blocking(sock.fileno())
        name_of(sock.fileno())
        assert os.get_blocking(sock.fileno()) == blocking
    socket.setdefaulttimeout(5)
    try:
        assert name_of(pair[1].fileno()) == "socket"
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(pair[1].fileno())


@pytest.mark.filterwarnings("ignore:unclosed")
def test_naming_that_is_interrupted_closes_nothing(pair: Pair) -> None:
    """Wherever KeyboardInterrupt comes, the descriptor that was to be named stays open."""
    fd = pair[0].fileno()
    watched = (socket_calls.__file__,)
    place, interrupted = 0, True
    while interrupted:
        if NEEDS_REHEARSAL:
            InterruptAt(-1, watched).run(lambda: name_of(fd))
        interrupted = InterruptAt(place, watched).run(lambda: name_of(fd))
        os.fstat(fd)
        place += 1
    assert place > 10


def test_given_name_lasts_as_long_as_the_descriptor() -> None:
    """A name belongs to the open file: what takes its number later has its own."""
    one, other = socket.socketpair()
    with other:
        tracer.name(one, "the database")
        assert name_of(one.fileno()) == "the database"
        number = one.fileno()
        one.close()
        with pytest.raises(ValueError, match="closed"):
            tracer.name(one, "gone")
        again, peer = socket.socketpair()
        with again, peer:
            assert number in (again.fileno(), peer.fileno())
            assert name_of(number) == "socket pair"


def test_a_watcher_watches_one_thread(notes: Notes, pair: Pair) -> None:
    """Watching another thread ends watching the one before, and unwrapped is nothing meanwhile."""
    one, other = pair
    wrapped = socket.socket.recv
    watch(threading.get_ident() + 1, notes)
    assert socket.socket.recv is wrapped
    other.send(b"x")
    one.recv(1)
    assert notes.calls == []


def test_peeking_moves_nothing(notes: Notes, pair: Pair) -> None:
    """Bytes that were only looked at are no Read, however the flag is given."""
    one, other = pair
    other.send(b"abc")
    assert one.recv(9, socket.MSG_PEEK) == b"abc"
    assert one.recv_into(bytearray(9), flags=socket.MSG_PEEK) == 3
    assert [call[0] for call in notes.calls if call[1] == one.fileno()] == []
    one.recv(9)
    assert [call[0] for call in notes.calls if call[1] == one.fileno()] == ["Read"]


def test_what_was_asked_for_is_not_guessed(notes: Notes, pair: Pair) -> None:
    """By keyword or in an iterator the number asked for is unknown, and what was done is told."""
    one, other = pair
    other.send(b"abc")
    one.recv_into(bytearray(99), nbytes=2)
    one.sendmsg(iter([b"ab", b"c"]))
    told = [call for call in notes.calls if call[1] == one.fileno()]
    assert told == [("Read", one.fileno(), 2, -1, None), ("Wrote", one.fileno(), 3, -1, None)]


def test_sendall_lets_go_of_the_data(notes: Notes, pair: Pair) -> None:
    """When `sendall` would block, the caller may cut its own bytearray, as without a recording."""
    data = bytearray(10_000_000)
    try:
        pair[0].sendall(data)
    except BlockingIOError:
        data.clear()
    assert notes.calls[-1][0] == "WouldBlock"
    assert data == b""


def test_somebody_elses_patch_stays(pair: Pair) -> None:
    """What was put on the class while a recording ran is not taken away by its end."""
    first = Notes()
    original = socket.socket.sendall
    watch(1, first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "sendall", lambda self, data: None)
        patched = socket.socket.sendall
        unwatch(first)
        assert socket.socket.sendall is patched
    socket.socket.sendall = original  # type: ignore[method-assign]
    del socket.socket.sendall


def test_wrapped_methods_keep_their_names(notes: Notes) -> None:
    """`recv` is still called recv."""
    assert socket.socket.recv.__name__ == "recv"
