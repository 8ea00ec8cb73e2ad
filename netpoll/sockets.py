"""What a callback needs of sockets and Python makes awkward.

The sockets are the standard library's, non-blocking. Whatever would block returns None instead of
raising BlockingIOError; every other error is raised: OSError, as its subclass (ConnectionResetError
...). Source: gnet `pkg/socket` and `pkg/io`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import math
import os
import socket
import stat
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Any, Protocol

from netpoll.attachment import Callback, PollAttachment
from netpoll.errors import NotRegistered

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Data = bytes | bytearray | memoryview

_logger = logging.getLogger("netpoll")

# ---- servers ----------------------------------------------------------------------------------


def listen_tcp(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    backlog: int = socket.SOMAXCONN,
    reuse_port: bool = False,
) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one, which `getsockname` tells.

    "0.0.0.0" is every IPv4 interface, "::" every IPv6 one and those alone. `backlog` is how many
    clients may wait (the kernel has a limit of its own); with `reuse_port` several listeners share
    a port. Raises OSError when the address is taken or no such host is known, NotImplementedError
    when this system can't share ports. Source: tcp(7), ipv6(7).
    """
    listener = _bound(host, port, socket.SOCK_STREAM, reuse_port)
    try:
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    _spare.keep()
    return listener


def listen_unix(path: Path, *, backlog: int = socket.SOMAXCONN) -> socket.socket:
    """Return a listening Unix socket; a socket file that a dead server left is replaced.

    Whether it is dead is tried by connecting: a living server finds a client that is gone again.
    Closing the listener leaves the file. Raises OSError: EADDRINUSE when a server lives there, or
    when the file is anything but a socket. Raises NotImplementedError where there are no Unix
    sockets. Source: unix(7).
    """
    path = os.fspath(path)
    listener = _unix_socket()
    try:
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise OSError(error.errno, f"{error.strerror}: {os.fsdecode(path)!r}") from None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    _spare.keep()
    return listener


def bind_udp(host: str = "127.0.0.1", port: int = 0, *, reuse_port: bool = False) -> socket.socket:
    """Return a UDP socket that receives at an address; like `listen_tcp` otherwise.

    For `read_from` and `write_to`. Source: udp(7).
    """
    return _bound(host, port, socket.SOCK_DGRAM, reuse_port)


def accept(listener: socket.socket) -> Iterator[tuple[socket.socket, Any]]:
    """Yield ``(connection, address)`` for every client that waits, until none does.

    The connections are non-blocking and send without delay (TCP_NODELAY). A client that is gone
    before it was accepted is passed over. When descriptors have run out, clients that wait are
    accepted and closed at once, which the ``netpoll`` logger is told once a second at most.

    The listener is to be non-blocking, and is best registered level-triggered: then leaving the
    loop early loses nobody, nor does running out in another thread. Source: accept(2); gnet
    `pkg/socket`, `Accept`.
    """
    while True:
        try:
            accepted = _accept_one(listener)
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS:
                raise
            if not _spare.spend_on(listener):
                return
            continue
        if accepted is None:
            return
        connection, address = accepted
        if not _spare.keep():  # another thread took the descriptor meant for it: this one will do
            connection.close()
            _spare.keep()
            _spare.tell(1)
            continue
        connection.setblocking(False)
        _send_without_delay(connection)
        yield connection, address


# ---- clients ----------------------------------------------------------------------------------


def dial_tcp(host: str, port: int) -> socket.socket:
    """Return a TCP socket that is connecting; it sends without delay (TCP_NODELAY).

    Register it for writing, and call `finish_dial` on the first event. A host name is looked up
    first, which blocks, and the first of its addresses alone is tried: give a number where that
    matters. Raises OSError for an unknown host, and when the connection fails at once. Source:
    connect(2).
    """
    family, address = _resolve(host, port, socket.SOCK_STREAM)
    sock = _connecting(socket.socket(family, socket.SOCK_STREAM), address)
    _send_without_delay(sock)
    return sock


def dial_unix(path: Path) -> socket.socket:
    """Return a socket connected to a Unix socket; `finish_dial` is right here too, as for TCP.

    Raises FileNotFoundError, ConnectionRefusedError when nobody listens, BlockingIOError when too
    many clients wait already (try later: nothing was begun), NotImplementedError where there are no
    Unix sockets. Source: unix(7).
    """
    return _connecting(_unix_socket(), os.fspath(path))


def dial_udp(host: str, port: int) -> socket.socket:
    """Return a UDP socket connected to one peer, for `read` and `write`, ready at once.

    `read` returns b"" for an empty datagram. Where nobody listens at the peer's port, a later
    `read` or `write` raises ConnectionRefusedError, and the socket goes on working. A host name is
    looked up as by `dial_tcp`. Source: udp(7).
    """
    family, address = _resolve(host, port, socket.SOCK_DGRAM)
    return _connecting(socket.socket(family, socket.SOCK_DGRAM), address)


def finish_dial(sock: socket.socket) -> None:
    """Raise the OSError that connecting ended with, if any; call it on the first write event.

    Source: connect(2), EINPROGRESS.
    """
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


# ---- bytes ------------------------------------------------------------------------------------


def read(sock: socket.socket, size: int = 65536) -> bytes | None:
    """Return up to `size` bytes, at least 1; b"" at the end of the stream, None: would block.

    Source: recv(2).
    """
    try:
        return sock.recv(size)
    except BlockingIOError:
        return None


def write(sock: socket.socket, data: Data) -> int | None:
    """Send what the kernel takes now and return how many bytes that is; None: would block.

    Source: send(2).
    """
    try:
        return sock.send(data)
    except BlockingIOError:
        return None


def read_from(sock: socket.socket, size: int = 65536) -> tuple[bytes, Any] | None:
    """Return ``(datagram, address)``; None: would block. b"" is an empty datagram, not an end.

    What exceeds `size` is lost. Source: recvfrom(2).
    """
    try:
        return sock.recvfrom(size)
    except BlockingIOError:
        return None


def write_to(sock: socket.socket, data: Data, address: Any) -> int | None:
    """Send a datagram, whole or not at all, and return its size; None: would block.

    Source: sendto(2).
    """
    try:
        return sock.sendto(data, address)
    except BlockingIOError:
        return None


class HasMod(Protocol):
    """What an `OutboundBuffer` needs of a poller."""

    def mod_read(self, attachment: PollAttachment, edge_triggered: bool = False) -> None:
        """Register for reading instead."""
        ...

    def mod_write(self, attachment: PollAttachment, edge_triggered: bool = False) -> None:
        """Register for writing instead."""
        ...

    def mod_read_write(self, attachment: PollAttachment, edge_triggered: bool = False) -> None:
        """Register for both instead."""
        ...


class OutboundBuffer:
    """The bytes of a connection that the kernel did not take yet; `len` tells how many.

    The stream socket `sock` is registered for reading already, with this `callback` and this
    `edge_triggered`. While bytes are pending it is registered for writing too: call `flush` on
    every write event. Nothing limits what is pending: look at `len`, and `pause` or close. For the
    loop's thread.

    When sending fails, the error is raised and what is pending stays: close the connection. Source:
    gnet `connection_unix.go` (`outboundBuffer`).
    """

    MOST_PIECES = 1024
    """So many pieces are sent by one call: IOV_MAX of Linux, macOS and the BSDs."""

    def __init__(
        self,
        poller: HasMod,
        sock: socket.socket,
        callback: Callback,
        *,
        edge_triggered: bool = False,
    ) -> None:
        self._poller = poller
        self._sock = sock
        self._attachment = PollAttachment(sock, callback)
        self._edge_triggered = edge_triggered
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        self._armed = False  # registered for writing
        self._paused = False  # not for reading

    def __len__(self) -> int:
        return self._size

    def write(self, data: Data) -> None:
        """Send `data` after everything before it: now what the kernel takes, the rest by `flush`.

        Raises OSError when sending fails; `NotRegistered` when bytes are left that nobody would
        flush, because the descriptor was deleted from the poller.
        """
        if not isinstance(data, bytes):
            data = memoryview(data).tobytes()  # its owner may change it before it is sent
        sent = 0 if self._pieces else write(self._sock, data) or 0
        if sent < len(data):
            self._pieces.append(memoryview(data)[sent:])
            self._size += len(data) - sent
            if not self._armed:
                self._poller.mod_read_write(self._attachment, self._edge_triggered)
                self._armed = True

    def flush(self) -> None:
        """Send until all is sent or the kernel takes no more; call it on a write event.

        When all is sent, the connection is registered for reading alone, paused or not. Raises
        OSError when sending fails.
        """
        while self._pieces:
            sent = self._send()
            if sent is None:
                return
            self._size -= sent
            while self._pieces and sent >= len(self._pieces[0]):
                sent -= len(self._pieces.popleft())
            if sent:
                self._pieces[0] = self._pieces[0][sent:]
        if self._armed:
            self._armed = self._paused = False
            with contextlib.suppress(NotRegistered):  # deleted: there is nothing to disarm
                self._poller.mod_read(self._attachment, self._edge_triggered)

    def pause(self) -> None:
        """Stop reading from a client that does not read, until all is sent or `resume` is called.

        Nothing happens when nothing is pending. Raises `NotRegistered`.
        """
        if self._armed and not self._paused:
            self._poller.mod_write(self._attachment, self._edge_triggered)
            self._paused = True

    def resume(self) -> None:
        """Read again after `pause`, although bytes are pending still. Raises `NotRegistered`."""
        if self._paused:
            self._poller.mod_read_write(self._attachment, self._edge_triggered)
            self._paused = False

    def _send(self) -> int | None:
        if len(self._pieces) == 1 or not hasattr(self._sock, "sendmsg"):  # Windows has none
            return write(self._sock, self._pieces[0])
        try:
            return self._sock.sendmsg(list(itertools.islice(self._pieces, self.MOST_PIECES)))
        except BlockingIOError:
            return None


# ---- inside -----------------------------------------------------------------------------------

_CLIENT_IS_GONE = {
    getattr(errno, name, None)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "ETIMEDOUT", "EPROTO", "ENOPROTOOPT", "ENOSR"),
        *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET"),
    )
}
"""What accept(2) says of one client's connection and not of the listener.

EPERM and EOPNOTSUPP, which its man page lists too, are the answers to a forbidden call and to a
socket that can't listen as well: passed over, they would come again without end.
"""

_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_CONNECTING = {0, errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)}


class _Spare:
    """A descriptor that is kept for the day when none is left.

    A client that can't be accepted keeps a level-triggered listener ready, and the loop turning.
    So the spare is closed, the client accepted in its place and closed, and the spare opened again:
    the client learns that it is not served. Source: libuv `src/unix/stream.c`, `uv__emfile_trick`.

    There is no lock. Between the close and the accept any thread may take the descriptor, to open
    a file, say, and no lock of ours would keep it from that. The list's `pop` is atomic: one thread
    at a time has the spare, and the others' listeners are reported again. A spare that got lost is
    replaced by the first descriptor that comes along, in `accept`.
    """

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._let_go = 0  # clients, since the last message
        self._told = -math.inf

    def keep(self) -> bool:
        """Open the spare if it is missing; return False when there is no descriptor for it."""
        if not self._fds:
            try:
                self._fds.append(os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                return error.errno not in _OUT_OF_DESCRIPTORS
        return True

    def spend_on(self, listener: socket.socket) -> bool:
        """Accept one client and close it; return False when that can't be or nobody waits."""
        try:
            fd = self._fds.pop()
        except IndexError:
            self.tell(0)
            return False
        os.close(fd)
        try:
            accepted = _accept_one(listener)
            if accepted is None:  # Linux looks for a descriptor before it looks for a client
                return False
            accepted[0].close()
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS:
                raise
            self.tell(0)
            return False
        finally:
            self.keep()
        self.tell(1)
        return True

    def tell(self, let_go: int) -> None:
        """Log that descriptors have run out, once a second at most."""
        self._let_go += let_go
        now = monotonic()
        if now - self._told >= 1:
            self._told, count, self._let_go = now, self._let_go, 0
            _logger.warning("out of descriptors; waiting clients turned away: %d", count)


_spare = _Spare()


def _accept_one(listener: socket.socket) -> tuple[socket.socket, Any] | None:
    """Accept the next client that is still there; None when nobody waits."""
    while True:
        try:
            return listener.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _CLIENT_IS_GONE:
                raise


def _send_without_delay(sock: socket.socket) -> None:
    # Unix sockets refuse it, having no delay, and macOS's TCP does when the peer is gone already.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _connecting(sock: socket.socket, address: Any) -> socket.socket:
    """Begin to connect `sock`, and close it when that fails at once."""
    try:
        sock.setblocking(False)
        error = sock.connect_ex(address)
        if error not in _CONNECTING:
            raise OSError(error, f"{os.strerror(error)}: {address!r}")
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(host: str, port: int, kind: socket.SocketKind) -> tuple[socket.AddressFamily, Any]:
    """Return the family and the address of `host`, the first that it has."""
    family, _, _, _, address = socket.getaddrinfo(host, None, type=kind)[0]
    return family, (address[0], port, *address[2:])


def _bound(host: str, port: int, kind: socket.SocketKind, reuse_port: bool) -> socket.socket:
    """Open a socket of this kind at an address."""
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise NotImplementedError("sockets can't share a port here: there is no SO_REUSEPORT")
    family, address = _resolve(host, port, kind)
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM and os.name == "posix":
            # A server started anew takes its port back. On Windows it would take any server's port,
            # and with UDP anywhere another program's.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind(address)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: {host} port {port}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _unix_socket() -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise NotImplementedError("there are no Unix sockets here: Python has no AF_UNIX")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def _is_left_over(path: str | bytes) -> bool:
    """Whether `path` is a socket's file that no server listens on any more."""
    if path[:1] in ("\0", b"\0"):  # Linux's abstract names: no file, gone with their server
        return False
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return True
    # Linux says EAGAIN for a living server whose queue is full. The BSDs refuse, as for a dead one:
    # there a server that is that busy can lose its name.
    with _unix_socket() as probe:
        return probe.connect_ex(path) in (errno.ECONNREFUSED, errno.ENOENT)
