"""`Client`: one connection to a student's server, which counts what went each way."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import TYPE_CHECKING, NoReturn

from tracer import kernel_view

if TYPE_CHECKING:
    from tracer.classroom.servers import Server

PATIENCE = 5.0
"""Seconds that a client waits for a server before it gives up. Nobody is graded for being slow."""

CHUNK = 65536


class Client:
    """A client of a student's server. Made by `Server.connect`.

    `name` is ``"client 1"``, ``"client 2"``, …; `sent` and `received` count bytes. Whatever the
    server does not do in time, or does wrong, raises `Wrong`.
    """

    def __init__(self, server: Server, sock: socket.socket, name: str) -> None:
        self.name = name
        self.sent = 0
        self.received = 0
        self.address: tuple[str, int] = sock.getsockname()[:2]
        self._server = server
        self._socket = sock
        self._unread = b""

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        end = self._until()
        view = memoryview(data)
        while view:
            if not self._ready(end, write=True)[1]:
                self._fail(f"sent {len(data):,} bytes, and the server did not take all of them")
            view = view[self._send(view) :]

    def receive(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self._until()
        while len(self._unread) < size:
            if not self._read(end):
                self._short(size)
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def receive_line(self) -> bytes:
        """Return the next line, without its end."""
        end = self._until()
        while b"\n" not in self._unread:
            if not self._read(end):
                self._short(None)
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def exchange(self, data: bytes) -> bytes:
        """Send `data`, read meanwhile, and return as many bytes as it has."""
        end = self._until()
        view = memoryview(data)
        while len(self._unread) < len(data):
            readable, writable = self._ready(end, read=True, write=bool(view))
            if readable:
                if not self._read(end):
                    self._short(len(data))
            elif writable:
                view = view[self._send(view) :]
            else:
                self._short(len(data))
        answer, self._unread = self._unread[: len(data)], self._unread[len(data) :]
        return answer

    def expect(self, data: bytes) -> None:
        """The next bytes that arrive are `data`."""
        self.same(self.receive(len(data)), data)

    def same(self, answer: bytes, data: bytes) -> None:
        """`answer`, which this client got, is `data`."""
        if answer != data:
            first = next(i for i in range(len(data)) if answer[i : i + 1] != data[i : i + 1])
            self._fail(
                f"expected {shown(data[first:])} and got {shown(answer[first:])} "
                f"(from byte {first + 1:,} on)"
            )

    def expect_nothing(self) -> None:
        """Nothing has arrived that was not asked for."""
        self._read(time.monotonic())
        if self._unread:
            self._fail(f"expected nothing and got {shown(self._unread)}")

    def expect_end(self) -> None:
        """The server ends the connection, and sends nothing before."""
        end = self._until()
        while self._read(end):
            pass
        if self._unread:
            self._fail(f"expected the end of the connection and got {shown(self._unread)}")
        if time.monotonic() >= end:
            self._fail("waited for the server to end the connection, and it did not")

    def wait_until_registered(self) -> None:
        """Wait until the server has accepted this client and put it on the interest list."""
        self._server.wait_until(
            lambda: self._server.watches(self),
            f"{self.name} connected, and its connection is not on the kernel's interest list.",
        )

    def wait_until_read(self) -> None:
        """Wait until the server has read all that was sent; before `half_close`, that is.

        Where the system does not tell (see `Server.unread`), nothing is waited for.
        """
        unread: int | None = None

        def all_read() -> bool:
            nonlocal unread
            outgoing = self._not_arrived()
            unread = self._server.unread(self)
            return self._is_reset() or not (outgoing or unread)

        end = self._until()
        while not all_read():
            if time.monotonic() > end:
                self._fail(
                    f"sent {self.sent:,} bytes, and {unread or 0:,} of them lie unread in the "
                    "kernel: the server has stopped reading"
                )
            time.sleep(0.002)
        if self._is_reset():
            self._fail("was cut off: the server closed the connection and left bytes unread")

    def half_close(self) -> None:
        """Say that no more will be sent; go on reading."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(f"could not end its stream: the server ended the connection ({error})")

    def reset(self) -> None:
        """Hang up without a goodbye: the server gets an error, ECONNRESET."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        """End the connection. Doing it twice does no harm."""
        self._socket.close()

    # ---- inside ---------------------------------------------------------------------------------

    def _until(self) -> float:
        return min(time.monotonic() + PATIENCE, self._server.deadline)

    def _ready(self, end: float, read: bool = False, write: bool = False) -> tuple[bool, bool]:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN * read | select.POLLOUT * write)
        found = poll.poll(max(0.0, end - time.monotonic()) * 1000)
        event = found[0][1] if found else 0
        over = bool(event & (select.POLLERR | select.POLLHUP))
        return (
            bool(event & select.POLLIN) or (read and over),
            bool(event & select.POLLOUT) or (write and over),
        )

    def _is_reset(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    def _not_arrived(self) -> int:
        """How many bytes that were sent the other side's kernel has not confirmed."""
        _, unsent = kernel_view.buffers(self._socket.fileno())
        return max(0, unsent)  # it is below zero where nobody knows

    def _send(self, view: memoryview) -> int:
        try:
            count = self._socket.send(view[:CHUNK])
        except OSError as error:
            self._fail(f"could not send: the server ended the connection ({error})")
        self.sent += count
        return count

    def _read(self, end: float) -> bool:
        """Read what is there; False at the end of the stream and when nothing comes until `end`."""
        if not self._ready(end, read=True)[0]:
            return False
        try:
            data = self._socket.recv(CHUNK)
        except OSError as error:
            self._fail(f"could not read: the connection was reset ({error})")
        self.received += len(data)
        self._unread += data
        return bool(data)

    def _short(self, size: int | None) -> NoReturn:
        what = "a line" if size is None else f"{size:,} bytes"
        got = f"only {len(self._unread):,} bytes" if self._unread else "nothing"
        self._fail(f"waited for {what}, and {got} came")

    def _fail(self, what: str) -> NoReturn:
        self._server.fail(f"{self.name} {what}.")


def shown(data: bytes) -> str:
    """Return the beginning of `data`, as Python writes bytes."""
    return repr(data[:32]) + ("…" if len(data) > 32 else "")
