"""Non-blocking sockets: opening, accepting, also without descriptors, and sending what is left."""

import array
import contextlib
import errno
import functools
import logging
import os
import pathlib
import resource
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll
from netpoll import IOEvent, NotRegistered, PollAttachment, Poller, sockets
from netpoll.sockets import OutboundBuffer

Pair = tuple[socket.socket, socket.socket]
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
IN, OUT = int(IOEvent.IN), int(IOEvent.OUT)


def ready(sock: socket.socket, event: int) -> int:
    """Wait until `event` is among what poll(2) reports of `sock`, and return all it reports."""
    poll = select.poll()
    poll.register(sock, event)
    ((_, reported),) = poll.poll(10_000)
    return reported


def accept_all(listener: socket.socket) -> list[socket.socket]:
    """Wait for a client, and return the connections of all who wait."""
    ready(listener, select.POLLIN)
    return [connection for connection, _ in sockets.accept(listener)]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with sockets.listen_tcp() as listener:
        yield listener


@pytest.fixture
def local() -> Iterator[socket.socket]:
    """A Unix listener: who has dialed it waits to be accepted, without a moment between."""
    with sockets.listen_unix(f"\0netpoll test {os.getpid()}") as listener:
        yield listener


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a Unix connection, non-blocking: once full it stays so until its peer reads."""
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    with here, there:
        yield here, there


@pytest.fixture
def tcp_pair() -> Iterator[Pair]:
    """Both ends of a TCP connection, non-blocking."""
    with sockets.listen_tcp() as listener:
        here = sockets.dial_tcp(*listener.getsockname())
        (there,) = accept_all(listener)
    with here, there:
        yield here, there


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; return how many bytes that were."""
    total = 0
    while sent := sockets.write(sock, b"." * 65536):
        total += sent
    return total


def drain(sock: socket.socket) -> bytes:
    """Read what is there."""
    received = []
    while data := sockets.read(sock):
        received.append(data)
    return b"".join(received)


# ---- TCP --------------------------------------------------------------------------------------


def test_tcp_from_listen_to_end_of_stream(listener: socket.socket) -> None:
    """A free port, a dial, bytes both ways, None while there is nothing, b"" at the end."""
    address = listener.getsockname()
    assert (address[0], address[1] > 0) == ("127.0.0.1", True)
    with sockets.dial_tcp(*address) as client:
        ready(client, select.POLLOUT)
        sockets.finish_dial(client)
        ready(listener, select.POLLIN)
        ((connection, peer),) = sockets.accept(listener)
        with connection:
            assert peer == client.getsockname()
            assert sockets.read(connection) is None
            assert sockets.write(client, b"hello") == 5
            ready(connection, select.POLLIN)
            assert sockets.read(connection, 2) == b"he"
            assert sockets.read(connection) == b"llo"
            client.close()
            ready(connection, select.POLLIN)
            assert sockets.read(connection) == b""


def test_nothing_blocks_and_nothing_is_delayed(listener: socket.socket) -> None:
    """Listener, client and connection are non-blocking; the latter two have TCP_NODELAY."""
    with sockets.dial_tcp(*listener.getsockname()) as client:
        (connection,) = accept_all(listener)
        with connection:
            for sock in (listener, client, connection):
                assert not sock.getblocking()
                assert not sock.get_inheritable()
            for sock in (client, connection):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_port_is_taken_back_after_connections(listener: socket.socket) -> None:
    """A port whose connection waits out its end (TIME_WAIT) can be listened on again."""
    host, port = listener.getsockname()
    with sockets.dial_tcp(host, port) as client:
        (connection,) = accept_all(listener)
        connection.close()  # the server's side closes first and waits
        ready(client, select.POLLIN)
        assert sockets.read(client) == b""
    listener.close()
    with sockets.listen_tcp(host, port) as again:
        assert again.getsockname() == (host, port)


def test_taken_port_is_an_error_that_names_it(listener: socket.socket) -> None:
    """Two listeners at one address are EADDRINUSE, and the message says which address."""
    host, port = listener.getsockname()
    with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as caught:
        sockets.listen_tcp(host, port)
    assert caught.value.errno == errno.EADDRINUSE


def test_listeners_share_a_port() -> None:
    """With `reuse_port` two listeners have one port, for UDP as well."""
    for bind in (sockets.listen_tcp, sockets.bind_udp):
        with bind(reuse_port=True) as one:
            with bind(*one.getsockname(), reuse_port=True) as two:
                assert one.getsockname() == two.getsockname()
            with pytest.raises(OSError, match="in use"):
                bind(*one.getsockname())


def test_system_without_shared_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SO_REUSEPORT is missing, asking for it is an error, and nothing else is."""
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    for bind in (sockets.listen_tcp, sockets.bind_udp):
        with pytest.raises(NotImplementedError, match="SO_REUSEPORT"):
            bind(reuse_port=True)
        bind().close()


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range(port: int) -> None:
    """A port that is none is an error, not another port, and leaves no socket open."""
    for opens in (sockets.listen_tcp, sockets.bind_udp, sockets.dial_tcp, sockets.dial_udp):
        with pytest.raises(OverflowError, match="port"):
            opens("127.0.0.1", port)


def test_ipv6_by_the_address() -> None:
    """An IPv6 address makes IPv6 sockets, and "::" leaves the port free for IPv4."""
    if not socket.has_ipv6 or not pathlib.Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with sockets.listen_tcp("::") as listener:
        port = listener.getsockname()[1]
        sockets.listen_tcp("0.0.0.0", port).close()
        with sockets.dial_tcp("::1", port) as client:
            (connection,) = accept_all(listener)
            with connection:
                assert connection.getpeername() == client.getsockname()
    with sockets.bind_udp("::1") as server, sockets.dial_udp(*server.getsockname()[:2]) as client:
        assert sockets.write(client, b"six") == 3
        ready(server, select.POLLIN)
        assert sockets.read_from(server) == (b"six", client.getsockname())


def test_host_name_is_looked_up(listener: socket.socket) -> None:
    """A name will do, and one that nobody knows is an OSError."""
    with sockets.dial_tcp("localhost", listener.getsockname()[1]) as client:
        assert client.family in (socket.AF_INET, socket.AF_INET6)
    with pytest.raises(socket.gaierror):
        sockets.dial_tcp("", 80)


def test_refused_dial(listener: socket.socket) -> None:
    """Where nobody listens, `finish_dial` raises what the connect ended with."""
    address = listener.getsockname()
    listener.close()
    with sockets.dial_tcp(*address) as client:
        ready(client, select.POLLOUT)
        with pytest.raises(ConnectionRefusedError, match="refused"):
            sockets.finish_dial(client)


def test_dial_that_fails_at_once() -> None:
    """An address that can't be connected to is an error that names it, and closes the socket."""
    with pytest.raises(OSError, match=r"255\.255\.255\.255"):
        sockets.dial_tcp("255.255.255.255", 80)


def test_errors_are_raised(tcp_pair: Pair) -> None:
    """A connection that was reset is ConnectionResetError to read, BrokenPipeError to write."""
    here, there = tcp_pair
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    there.close()
    ready(here, select.POLLIN)
    with pytest.raises(ConnectionResetError):
        sockets.read(here)
    with pytest.raises(BrokenPipeError):
        sockets.write(here, b"x")


def test_full_connection_would_block(pair: Pair) -> None:
    """A peer that does not read makes writes partial, then None."""
    assert fill(pair[0]) > 0
    assert sockets.write(pair[0], b"x") is None


def test_listen_that_fails_leaves_nothing_open(path: str) -> None:
    """A backlog that is no C int is an error, and the socket is closed."""
    for listens in (sockets.listen_tcp, functools.partial(sockets.listen_unix, path)):
        with pytest.raises(OverflowError):
            listens(backlog=2**40)


# ---- Unix -------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name for a socket, relative: an absolute one of pytest's can be too long."""
    monkeypatch.chdir(tmp_path)
    return "socket"


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path, lambda path: "\0" + path])
def test_unix_sockets(path: str, kind: Callable[[str], Any]) -> None:
    """Listen, dial, accept and bytes, by a path of any type and by an abstract name."""
    with sockets.listen_unix(kind(path)) as listener, sockets.dial_unix(kind(path)) as client:
        sockets.finish_dial(client)
        (connection,) = accept_all(listener)
        with connection:
            assert not any(sock.getblocking() for sock in (listener, client, connection))
            sockets.write(client, b"hello")
            assert sockets.read(connection) == b"hello"


def test_left_over_file_is_replaced(path: str) -> None:
    """The file that a dead server left does not keep the next one from its name."""
    sockets.listen_unix(path).close()
    assert os.path.exists(path)
    with pytest.raises(ConnectionRefusedError, match=path):
        sockets.dial_unix(path)
    with sockets.listen_unix(path) as listener, sockets.dial_unix(path):
        (connection,) = accept_all(listener)
        connection.close()


@pytest.mark.parametrize("waiting", [0, 1])
def test_living_server_keeps_its_name(path: str, waiting: int) -> None:
    """EADDRINUSE, also when its queue is full, and the server goes on as before."""
    with sockets.listen_unix(path, backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(waiting):
            stack.enter_context(sockets.dial_unix(path))
            with pytest.raises(BlockingIOError):
                sockets.dial_unix(path)
        with pytest.raises(OSError, match=path) as caught:
            sockets.listen_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
        for connection in accept_all(listener):
            connection.close()
        sockets.dial_unix(path).close()


def test_other_files_stay(path: str) -> None:
    """A regular file, a directory, a link and a datagram server's socket are errors and stay."""
    pathlib.Path(path).write_text("precious")
    os.mkdir("directory")
    os.symlink("nowhere", "link")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind("datagrams")
        for name in (path, "directory", "link", "datagrams"):
            with pytest.raises(OSError, match=name) as caught:
                sockets.listen_unix(name)
            assert caught.value.errno == errno.EADDRINUSE
            assert os.path.lexists(name)
    assert pathlib.Path(path).read_text() == "precious"


class Vanishing:
    """An `os` for sockets.py alone, in which the file `path` is gone when it is looked at.

    Never patch os itself for this: pytest looks at files too, to show a failure.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def lstat(self, path: str) -> os.stat_result:
        """Look too late."""
        assert path == self.path
        os.unlink(self.path)
        return os.lstat(self.path)


def test_file_that_vanishes_meanwhile(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another removes the left-over file before we do, listening succeeds all the same."""
    sockets.listen_unix(path).close()
    monkeypatch.setattr(sockets, "os", Vanishing(path))
    sockets.listen_unix(path).close()


def test_abstract_name_is_taken() -> None:
    """An abstract name in use is EADDRINUSE: it has no file to look at."""
    name = f"\0netpoll {os.getpid()}"
    with sockets.listen_unix(name), pytest.raises(OSError, match="in use"):
        sockets.listen_unix(name)


def test_listen_unix_in_no_directory(path: str) -> None:
    """A directory that does not exist is FileNotFoundError, with the path in it."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sockets.listen_unix("nowhere/socket")


def test_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python has no AF_UNIX, as on Windows, it is an error that says so."""
    monkeypatch.delattr(socket, "AF_UNIX")
    for opens in (sockets.listen_unix, sockets.dial_unix):
        with pytest.raises(NotImplementedError, match="AF_UNIX"):
            opens("socket")


# ---- UDP --------------------------------------------------------------------------------------


def test_udp_there_and_back() -> None:
    """Datagrams keep their borders and senders; an empty one is no end; None when there is none."""
    with sockets.bind_udp() as server, sockets.dial_udp(*server.getsockname()) as client:
        assert not any(sock.getblocking() for sock in (server, client))
        assert sockets.read_from(server) is None
        assert [sockets.write(client, data) for data in (b"one", b"", b"three")] == [3, 0, 5]
        for data in (b"one", b"", b"three"):
            ready(server, select.POLLIN)
            assert sockets.read_from(server) == (data, client.getsockname())
        assert sockets.write_to(server, b"back", client.getsockname()) == 4
        ready(client, select.POLLIN)
        assert sockets.read(client) == b"back"


def test_udp_port_is_not_shared_unasked() -> None:
    """Nobody else can bind a port that is in use, also not with SO_REUSEADDR."""
    with sockets.bind_udp() as server, socket.socket(type=socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(server.getsockname())


def test_udp_peer_that_is_not_there() -> None:
    """Nobody at the port is ConnectionRefusedError once; the socket goes on working."""
    with sockets.bind_udp() as server:
        address = server.getsockname()
    with sockets.dial_udp(*address) as client:
        sockets.write(client, b"anybody?")
        ready(client, select.POLLIN)
        with pytest.raises(ConnectionRefusedError):
            sockets.read(client)
        assert sockets.read(client) is None
        with sockets.bind_udp(*address) as server:
            sockets.write(client, b"now?")
            ready(server, select.POLLIN)
            assert sockets.read_from(server) == (b"now?", client.getsockname())


def test_udp_sending_would_block(path: str) -> None:
    """A datagram that the kernel does not take is None: a Unix one, whose peer can be full."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        server.bind(path)
        client.setblocking(False)
        while sent := sockets.write_to(client, b"datagram", path):
            assert sent == 8
        assert sent is None


# ---- accept -----------------------------------------------------------------------------------


class Accepting:
    """A listener whose `accept` runs what is in `before`, one each call, and then the kernel's."""

    def __init__(self, listener: socket.socket, *before: Callable[[], object]) -> None:
        self.listener = listener
        self.before = list(before)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept, unless what comes before raises."""
        if self.before:
            self.before.pop(0)()
        return self.listener.accept()


def failing(number: int) -> Callable[[], object]:
    """Return a function that raises the OSError of this errno."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def accept_from(listener: Accepting) -> list[tuple[socket.socket, Any]]:
    """Return what `accept` yields for a stand-in."""
    return list(sockets.accept(listener))  # type: ignore[arg-type]


def test_accept_until_nobody_waits(local: socket.socket) -> None:
    """All clients that wait, in one go; then nobody."""
    with waiting(local, 5):
        connections = [connection for connection, _ in sockets.accept(local)]
        for connection in connections:
            connection.close()
        assert len(connections) == 5
        assert list(sockets.accept(local)) == []


def test_leaving_early_loses_nobody(local: socket.socket) -> None:
    """Who stops after the first client finds the second the next time."""
    with waiting(local, 2) as clients:
        for client in clients:
            connection, _ = next(sockets.accept(local))
            connection.close()
            assert turned_away(client)


@pytest.mark.parametrize(
    "number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH]
)
def test_client_that_is_gone_is_passed_over(listener: socket.socket, number: int) -> None:
    """What accept(2) says of one client does not keep the next from being accepted."""
    with sockets.dial_tcp(*listener.getsockname()) as client:
        ready(listener, select.POLLIN)
        ((connection, peer),) = accept_from(Accepting(listener, *[failing(number)] * 3))
        connection.close()
        assert peer == client.getsockname()


def test_client_that_reset_before_accept(listener: socket.socket) -> None:
    """On Linux it is accepted, and its first read says that it is gone."""
    client = sockets.dial_tcp(*listener.getsockname())
    ready(listener, select.POLLIN)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.close()
    (connection,) = accept_all(listener)
    with connection:
        ready(connection, select.POLLERR)
        with pytest.raises(ConnectionResetError):
            sockets.read(connection)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL])
def test_what_is_wrong_with_the_listener_is_raised(listener: socket.socket, number: int) -> None:
    """An error that would come again is raised, not passed over without end."""
    with pytest.raises(OSError) as caught:  # noqa: PT011
        accept_from(Accepting(listener, failing(number)))
    assert caught.value.errno == number


def test_accept_on_what_does_not_listen() -> None:
    """A UDP socket and a TCP socket that never listened are errors."""
    with sockets.bind_udp() as udp, socket.socket() as tcp:
        tcp.setblocking(False)
        for sock in (udp, tcp):
            with pytest.raises(OSError):  # noqa: PT011
                list(sockets.accept(sock))


# ---- out of descriptors -----------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until the test moves it; nothing was logged so far."""
    now = [100.0]
    monkeypatch.setattr(sockets, "monotonic", lambda: now[0])
    monkeypatch.setattr(sockets._spare, "_told", 0.0)
    monkeypatch.setattr(sockets._spare, "_let_go", 0)
    return now


@contextlib.contextmanager
def descriptors(left: int) -> Iterator[None]:
    """Let this process open `left` more descriptors and not one beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + left + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


@contextlib.contextmanager
def waiting(listener: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    """So many clients of a Unix listener that wait to be accepted."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            clients.append(stack.enter_context(sockets.dial_unix(listener.getsockname())))
        yield clients


def turned_away(client: socket.socket) -> bool:
    """Whether the server closed this client's connection."""
    return sockets.read(client) == b""


def test_out_of_descriptors(
    local: socket.socket, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """As many clients as there are descriptors are served, the others turned away, and that is it.

    The listener is not ready any more: a loop on it would not spin. Once a connection is closed the
    next client is served.
    """
    poll = select.poll()
    poll.register(local, select.POLLIN)
    with waiting(local, 10) as clients:
        with descriptors(left=3):
            connections = accept_all(local)
            assert len(connections) == 3
            assert not poll.poll(0)
            assert [turned_away(client) for client in clients] == [False] * 3 + [True] * 7
            connections.pop().close()
            clients[9].close()
            with sockets.dial_unix(local.getsockname()) as client:
                ((connection, _),) = sockets.accept(local)
                sockets.write(connection, b"served")
                assert sockets.read(client) == b"served"
        for served in (connection, *connections):
            served.close()
    assert [entry.name for entry in caplog.records] == ["netpoll"]
    assert caplog.records[0].message == "out of descriptors; waiting clients turned away: 1"
    assert caplog.records[0].levelno == logging.WARNING


def test_log_is_told_once_a_second(
    local: socket.socket, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Clients turned away within a second are counted, and told with the next message."""
    for _ in range(3):
        with waiting(local, 10), descriptors(left=0):
            assert accept_all(local) == []
    assert len(caplog.records) == 1
    clock[0] += 1
    with waiting(local, 1), descriptors(left=0):
        assert accept_all(local) == []
    assert caplog.records[1].message == "out of descriptors; waiting clients turned away: 30"


def test_last_descriptor_is_no_shortage(
    local: socket.socket, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """When all clients could be served, nothing is logged, although no descriptor is left.

    Linux says EMFILE before it looks whether anybody waits.
    """
    with waiting(local, 3):
        with descriptors(left=3):
            connections = accept_all(local)
        for connection in connections:
            connection.close()
    assert len(connections) == 3
    assert caplog.records == []


def test_other_thread_takes_the_descriptor(
    local: socket.socket, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """A spare that another thread snatched is won back by the next connection, which is let go."""
    snatched: list[int] = []

    def snatch() -> None:
        snatched.append(os.open(os.devnull, os.O_RDONLY))

    with waiting(local, 3) as clients, descriptors(left=0):
        stolen_from = Accepting(local, lambda: None, snatch)
        assert accept_from(stolen_from) == []
        assert not any(map(turned_away, clients))
        assert len(caplog.records) == 1
        clock[0] += 1
        assert list(sockets.accept(local)) == []  # no spare, nothing to be done
        assert not any(map(turned_away, clients))
        assert [entry.message[-2:] for entry in caplog.records] == [" 0", " 0"]
        os.close(snatched.pop())
        assert list(sockets.accept(local)) == []
        assert all(map(turned_away, clients))
        assert sockets._spare._fds
        assert sockets._spare._let_go == 3


def test_accepted_connection_replaces_the_lost_spare(
    local: socket.socket,
    clock: list[float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a spare the last descriptor is kept as one instead of serving a client with it."""
    monkeypatch.setattr(sockets, "_spare", sockets._Spare())
    with waiting(local, 2) as clients:
        with descriptors(left=1):
            freed: list[int] = []

            def free() -> None:
                os.close(freed.pop())

            freed.append(os.open(os.devnull, os.O_RDONLY))
            assert accept_from(Accepting(local, free)) == []
            assert all(map(turned_away, clients))
            assert caplog.records[0].message[-2:] == " 1"
            assert sockets._spare._let_go == 1
        os.close(sockets._spare._fds.pop())


@pytest.mark.parametrize("number", [errno.EBADF, errno.EPERM])
def test_error_while_letting_go(local: socket.socket, number: int) -> None:
    """Another error in the midst of it is raised, and the spare is there again."""
    with pytest.raises(OSError) as caught:  # noqa: PT011
        accept_from(Accepting(local, failing(errno.EMFILE), failing(number)))
    assert caught.value.errno == number
    assert len(sockets._spare._fds) == 1


def test_memory_runs_out(local: socket.socket, clock: list[float]) -> None:
    """ENOBUFS and ENOMEM, which a spare does not cure, end the accepting for now."""
    with waiting(local, 1):
        for number in (errno.ENOBUFS, errno.ENOMEM, errno.ENFILE):
            assert accept_from(Accepting(local, failing(number), failing(number))) == []
        for connection in accept_all(local):
            connection.close()


def test_listener_has_a_spare(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens has it from the start, however many descriptors the program opens then."""
    both: list[Callable[[], socket.socket]]
    both = [sockets.listen_tcp, functools.partial(sockets.listen_unix, path)]
    for listens in both:
        monkeypatch.setattr(sockets, "_spare", sockets._Spare())
        listens().close()
        os.close(sockets._spare._fds.pop())


class NoNullDevice:
    """An `os` for sockets.py alone, whose null device does not exist."""

    devnull = "/nowhere/null"

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def test_no_null_device(local: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is nothing to keep as a spare, clients are served all the same."""
    monkeypatch.setattr(sockets, "_spare", sockets._Spare())
    monkeypatch.setattr(sockets, "os", NoNullDevice())
    with waiting(local, 2):
        connections = accept_all(local)
        assert len(connections) == 2
        for connection in connections:
            connection.close()


def test_out_of_descriptors_in_several_threads(clock: list[float]) -> None:
    """Four loops that run out at once: each client is served or turned away, none is left waiting.

    And the spare is there at the end.
    """
    with contextlib.ExitStack() as stack:
        names = [f"\0netpoll test {os.getpid()} {number}" for number in range(4)]
        listeners = [stack.enter_context(sockets.listen_unix(name)) for name in names]
        groups = [stack.enter_context(waiting(listener, 50)) for listener in listeners]
        polls = [select.poll() for _ in listeners]
        for poll, listener in zip(polls, listeners, strict=True):
            poll.register(listener, select.POLLIN)
        served: list[socket.socket] = []
        failures: list[BaseException] = []
        barrier = threading.Barrier(len(listeners))

        def serve(poll: Any, listener: socket.socket) -> None:
            try:
                barrier.wait()
                while poll.poll(0):
                    served.extend(connection for connection, _ in sockets.accept(listener))
            except BaseException as failure:
                failures.append(failure)

        threads = [
            threading.Thread(target=serve, args=both) for both in zip(polls, listeners, strict=True)
        ]
        with descriptors(left=20):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert not any(thread.is_alive() for thread in threads)
            assert sockets._spare._fds
        for connection in served:
            connection.close()
        assert failures == []
        for client in (client for group in groups for client in group):
            assert turned_away(client)
        assert 0 < len(served) <= 20


# ---- what is left to send ---------------------------------------------------------------------


class Side:
    """One end of a connection on a poller: reads into `received`, flushes on write events."""

    def __init__(self, poller: Poller, sock: socket.socket, edge_triggered: bool = False) -> None:
        self.sock = sock
        self.events: list[int] = []
        self.received = bytearray()
        self.outbound = OutboundBuffer(poller, sock, self.ready, edge_triggered=edge_triggered)
        poller.add_read(PollAttachment(sock, self.ready), edge_triggered)

    def ready(self, fd: int, event: int, flags: int) -> None:
        """Do what the event asks for."""
        self.events.append(event & (IN | OUT))
        if netpoll.is_write_event(event):
            self.outbound.flush()
        if netpoll.is_read_event(event):
            while data := sockets.read(self.sock):
                self.received += data


@pytest.fixture
def poller() -> Iterator[Poller]:
    def on_error(source: object, error: Exception) -> None:
        failures.append(error)

    failures: list[Exception] = []
    with netpoll.open_poller(on_error=on_error) as poller:
        yield poller
    assert failures == []


def receive(poller: Poller, peer: socket.socket, side: Side) -> bytes:
    """Run the loop and read at the other end until nothing is pending and all has come."""
    received = bytearray()
    while len(side.outbound):
        received += drain(peer)
        poller.poll_once(0)
    peer.setblocking(True)
    side.sock.shutdown(socket.SHUT_WR)
    while data := peer.recv(65536):
        received += data
    return bytes(received)


def pattern(size: int, start: int = 0) -> bytes:
    """So many bytes, in which a lost, doubled or misplaced piece would show."""
    numbers = array.array("I", range(start, start + size // 4 + 1))
    return numbers.tobytes()[:size]


def test_small_write_goes_out_at_once(poller: Poller, pair: Pair) -> None:
    """What the kernel takes is not kept, and write interest is never armed."""
    side = Side(poller, pair[0])
    side.outbound.write(b"hello")
    assert len(side.outbound) == 0
    ready(pair[1], select.POLLIN)
    assert sockets.read(pair[1]) == b"hello"
    assert poller.poll_once(0) == 0


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_large_write_arrives_whole(poller: Poller, tcp_pair: Pair, edge_triggered: bool) -> None:
    """Eight megabytes to a peer that reads late arrive in order, and then all is quiet."""
    tcp_pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # takes parts of it only
    side = Side(poller, tcp_pair[0], edge_triggered)
    data = pattern(8 << 20)
    side.outbound.write(data)
    assert 0 < len(side.outbound) < len(data)
    assert receive(poller, tcp_pair[1], side) == data
    side.events.clear()
    assert poller.poll_once(0) == 0


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_many_small_writes_keep_their_order(
    poller: Poller, pair: Pair, edge_triggered: bool
) -> None:
    """Thousands of pieces behind a full kernel are sent together and arrive in order.

    More pieces than one call may take, and not one of them before what was pending.
    """
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    side = Side(poller, pair[0], edge_triggered)
    before = fill(pair[0])
    pieces = [pattern(100 + number % 7, number) for number in range(5000)]
    for piece in pieces:
        side.outbound.write(piece)
    assert len(side.outbound) == sum(map(len, pieces))
    assert receive(poller, pair[1], side)[before:] == b"".join(pieces)


def test_write_does_not_overtake_what_is_pending(poller: Poller, pair: Pair) -> None:
    """The kernel has room again, and a new write waits all the same behind the old one."""
    side = Side(poller, pair[0])
    fill(pair[0])
    side.outbound.write(b"first,")
    drain(pair[1])
    side.outbound.write(b"second")
    assert len(side.outbound) == 12
    assert receive(poller, pair[1], side) == b"first,second"


def test_pieces_are_gathered(poller: Poller, pair: Pair) -> None:
    """A hundred pending pieces cost one system call."""
    calls = Counting(pair[0])
    side = Side(poller, calls)  # type: ignore[arg-type]
    fill(pair[0])
    for _ in range(100):
        side.outbound.write(b"piece")
    drain(pair[1])
    ready(pair[0], select.POLLOUT)
    calls.sends = 0
    side.outbound.flush()
    assert (len(side.outbound), calls.sends) == (0, 1)


class Counting:
    """A socket that counts its sends and can be without sendmsg, as Windows's are."""

    def __init__(self, sock: socket.socket, without: str = "") -> None:
        self.sock = sock
        self.without = without
        self.sends = 0

    def __getattr__(self, name: str) -> Any:
        if name == self.without:
            raise AttributeError(name)
        if name.startswith("send"):
            return functools.partial(self.count, name)
        return getattr(self.sock, name)

    def count(self, name: str, data: Any) -> Any:
        """Count and send."""
        self.sends += 1
        return getattr(self.sock, name)(data)


def test_socket_without_sendmsg(poller: Poller, pair: Pair) -> None:
    """Where pieces can't be gathered they are sent one by one."""
    side = Side(poller, Counting(pair[0], without="sendmsg"))  # type: ignore[arg-type]
    before = fill(pair[0])
    for number in range(50):
        side.outbound.write(b"%d," % number)
    expected = b"".join(b"%d," % number for number in range(50))
    assert receive(poller, pair[1], side)[before:] == expected


def test_what_is_kept_is_a_copy(poller: Poller, pair: Pair) -> None:
    """The caller may change or shrink its bytearray right after the write."""
    side = Side(poller, pair[0])
    before = fill(pair[0])
    buffer = bytearray(b"first")
    side.outbound.write(buffer)
    side.outbound.write(memoryview(buffer)[1:3])
    side.outbound.write(memoryview(array.array("H", [0x2121])))
    buffer[:] = b"other"
    buffer.clear()
    assert len(side.outbound) == 9
    assert receive(poller, pair[1], side)[before:] == b"firstir!!"


def test_empty_write(poller: Poller, pair: Pair) -> None:
    """Nothing to send is nothing: not kept, not armed, also behind what is pending."""
    side = Side(poller, pair[0])
    side.outbound.write(b"")
    assert poller.poll_once(0) == 0
    before = fill(pair[0])
    side.outbound.write(b"x")
    side.outbound.write(b"")
    assert len(side.outbound) == 1
    assert receive(poller, pair[1], side)[before:] == b"x"


@pytest.mark.parametrize("data", ["text", 5, None])
def test_what_is_no_bytes(poller: Poller, pair: Pair, data: Any) -> None:
    """Text, numbers and None are TypeError; a number is not that many zeros."""
    side = Side(poller, pair[0])
    with pytest.raises(TypeError):
        side.outbound.write(data)
    assert len(side.outbound) == 0


def test_interest_follows_what_is_pending(poller: Poller, pair: Pair) -> None:
    """Reading alone, both while bytes are pending, reading alone again; reading all the time."""
    side = Side(poller, pair[0])
    fill(pair[0])
    side.outbound.write(b"x")
    sockets.write(pair[1], b"a")
    ready(pair[0], select.POLLIN)
    poller.poll_once(0)
    assert side.events == [IN]
    drain(pair[1])
    ready(pair[0], select.POLLOUT)
    poller.poll_once(0)
    assert (side.events, len(side.outbound)) == ([IN, OUT], 0)
    assert poller.poll_once(0) == 0
    sockets.write(pair[1], b"b")
    ready(pair[0], select.POLLIN)
    poller.poll_once(0)
    assert side.events == [IN, OUT, IN]
    assert side.received == b"ab"


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_pause_until_all_is_sent(poller: Poller, pair: Pair, edge_triggered: bool) -> None:
    """A client that does not read is not read from either; when it has read, it is again."""
    side = Side(poller, pair[0], edge_triggered)
    before = fill(pair[0])
    side.outbound.write(b"x")
    side.outbound.pause()
    side.outbound.pause()
    sockets.write(pair[1], b"a")
    ready(pair[0], select.POLLIN)
    assert poller.poll_once(0) == 0
    side.outbound.write(b"y")
    assert poller.poll_once(0) == 0
    received = drain(pair[1])
    while len(side.outbound):
        poller.poll_once(0)
        received += drain(pair[1])
    poller.poll_once(0)
    assert side.received == b"a"
    assert (received + receive(poller, pair[1], side))[before:] == b"xy"


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_resume(poller: Poller, pair: Pair, edge_triggered: bool) -> None:
    """`resume` reads again, what came meanwhile too, while bytes are pending still."""
    side = Side(poller, pair[0], edge_triggered)
    fill(pair[0])
    side.outbound.write(b"x")
    side.outbound.pause()
    sockets.write(pair[1], b"a")
    ready(pair[0], select.POLLIN)
    side.outbound.resume()
    poller.poll_once(0)
    assert side.received == b"a"
    assert len(side.outbound) == 1


class Asked:
    """Stands in for a poller, and notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []

    def mod_read(self, attachment: PollAttachment, edge_triggered: bool = False) -> None:
        """Note it."""
        self.calls.append(("read", edge_triggered))

    def mod_write(self, attachment: PollAttachment, edge_triggered: bool = False) -> None:
        """Note it."""
        self.calls.append(("write", edge_triggered))

    def mod_read_write(self, attachment: PollAttachment, edge_triggered: bool = False) -> None:
        """Note it."""
        self.calls.append(("read_write", edge_triggered))


@pytest.mark.parametrize("edge_triggered", [False, True])
def test_each_change_of_interest_is_asked_for_once(pair: Pair, edge_triggered: bool) -> None:
    """What is asked of the poller, in which mode, and nothing where nothing changes."""
    asked = Asked()
    outbound = OutboundBuffer(asked, pair[0], print, edge_triggered=edge_triggered)

    def calls() -> list[str]:
        taken, asked.calls = asked.calls, []
        assert all(edge is edge_triggered for _, edge in taken)
        return [name for name, _ in taken]

    for _ in range(2):
        outbound.pause()  # nothing pending: no event would end it
        outbound.resume()
        outbound.flush()
        assert calls() == []
        fill(pair[0])
        outbound.write(b"x")
        outbound.write(b"y")
        assert calls() == ["read_write"]
        outbound.pause()
        outbound.pause()
        assert calls() == ["write"]
        outbound.write(b"z")
        outbound.flush()
        assert calls() == []
        outbound.resume()
        outbound.resume()
        assert calls() == ["read_write"]
        outbound.pause()
        drain(pair[1])
        ready(pair[0], select.POLLOUT)
        outbound.flush()
        assert calls() == ["write", "read"]


def test_flush_with_nothing_pending(poller: Poller, pair: Pair) -> None:
    """It does nothing: no call to the kernel, no change of the registration."""
    outbound = OutboundBuffer(poller, pair[0], print)
    outbound.flush()
    poller.add_write(PollAttachment(pair[0], lambda fd, event, flags: outbound.flush()))
    assert poller.poll_once(0) == 1
    assert poller.poll_once(0) == 1  # still for writing


def test_write_after_the_peer_reset(poller: Poller, tcp_pair: Pair) -> None:
    """Each write raises, keeps nothing and arms nothing."""
    here, there = tcp_pair
    side = Side(poller, here)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    there.close()
    ready(here, select.POLLIN)
    with pytest.raises(ConnectionResetError):
        side.outbound.write(b"x")
    with pytest.raises(BrokenPipeError):
        side.outbound.write(b"x")
    assert len(side.outbound) == 0
    poller.delete(here)


def test_flush_after_the_peer_is_gone(poller: Poller, pair: Pair) -> None:
    """The error is raised; what was pending is still counted, each time."""
    here, there = pair
    side = Side(poller, here)
    fill(here)
    side.outbound.write(b"one")
    side.outbound.write(b"two")
    there.close()
    ready(here, select.POLLHUP)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            side.outbound.flush()
        assert len(side.outbound) == 6
    poller.delete(here)


def test_deleted_meanwhile(poller: Poller, pair: Pair) -> None:
    """Bytes that nobody would flush are an error each time; one who flushes by hand loses none."""
    here, there = pair
    side = Side(poller, here)
    poller.delete(here)
    side.outbound.write(b"sent at once")
    ready(there, select.POLLIN)
    drain(there)
    fill(here)
    for _ in range(2):
        with pytest.raises(NotRegistered):
            side.outbound.write(b"x")
    drain(there)
    ready(here, select.POLLOUT)
    side.outbound.flush()
    ready(there, select.POLLIN)
    assert drain(there).endswith(b"xx")


def test_deleted_while_pending(poller: Poller, pair: Pair) -> None:
    """Flushing the last bytes of a deleted connection is no error; pausing it is one."""
    here, there = pair
    side = Side(poller, here)
    fill(here)
    side.outbound.write(b"x")
    poller.delete(here)
    for _ in range(2):
        with pytest.raises(NotRegistered):
            side.outbound.pause()
    drain(there)
    ready(here, select.POLLOUT)
    side.outbound.flush()
    assert len(side.outbound) == 0


def test_closed_socket(poller: Poller, pair: Pair) -> None:
    """Writing to a closed socket is the kernel's error, and one for a buffer on it."""
    side = Side(poller, pair[0])
    poller.delete(pair[0])
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        side.outbound.write(b"x")
    with pytest.raises(ValueError, match="closed"):
        OutboundBuffer(poller, pair[0], print)
