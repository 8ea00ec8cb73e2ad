"""A client of an echo server that checks every byte it gets back.

``python -m netpoll.examples.client`` sends what you type; with ``--count 1000 --connections 50`` it
makes messages of its own. One poller holds all connections.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from time import monotonic

import netpoll
from netpoll import sockets
from netpoll.examples import serving

STDIN, STDOUT = 0, 1


def generated(connection: int, count: int, size: int) -> Iterator[bytes]:
    """Yield `count` messages of `size` bytes, no two of them alike if there is room to differ."""
    for number in range(1, count + 1):
        text = b"message %d of connection %d. " % (number, connection)
        yield (text * (size // len(text) + 1))[:size]


class Connection:
    """One connection to the server. What was sent is `unanswered` until it has come back."""

    def __init__(self, client: Client, number: int, messages: Iterator[bytes] | None) -> None:
        self.client = client
        self.number = number
        self.messages = messages  # None: what is typed
        self.unanswered = bytearray()
        self.finished = False  # nothing more will be sent
        self.socket = sockets.dial_tcp(client.host, client.port)
        self.outbound = sockets.OutboundBuffer(client.poller, self.socket, self.transfer)
        client.poller.add_write(netpoll.PollAttachment(self.socket, self.connected))

    def connected(self, fd: int, event: int, flags: int) -> None:
        """See how connecting ended, and begin."""
        try:
            sockets.finish_dial(self.socket)
        except OSError as error:
            self.fail(f"can't connect to {self.client.where}: {error.strerror}")
            return
        self.client.poller.mod_read(netpoll.PollAttachment(fd, self.transfer))
        self.client.go_on(self)

    def transfer(self, fd: int, event: int, flags: int) -> None:
        """Send what is pending, and compare what comes with what was sent."""
        try:
            if netpoll.is_write_event(event):
                self.outbound.flush()
            data = None if event == netpoll.WRITE_EVENTS else sockets.read(self.socket)
        except OSError as error:
            self.fail(f"lost: {error.strerror}")
            return
        if data == b"":
            if self.finished:
                self.client.let_go(self)
            else:
                self.fail(f"closed by the server; {len(self.unanswered)} bytes did not come back")
        elif data:
            if not self.unanswered.startswith(data):
                self.fail("what came back is not what was sent")
                return
            del self.unanswered[: len(data)]
            self.client.received(self, data)
            if not self.unanswered:
                self.client.go_on(self)

    def send(self, data: bytes) -> None:
        """Send `data`, which is to come back."""
        self.unanswered += data
        try:
            self.outbound.write(data)
        except OSError as error:
            self.fail(f"lost: {error.strerror}")

    def finish(self) -> None:
        """Send no more: the server is to close in return."""
        self.finished = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.fail(f"lost: {error.strerror}")

    def fail(self, problem: str) -> None:
        """End the client on account of this connection."""
        self.client.fail(f"connection {self.number}: {problem}")


class Client:
    """Connections to one echo server on one poller. `problem` is what went wrong, if anything.

    Each sends its next message when the one before has come back. `count` messages of `size` bytes
    go over each of `connections`; without a count it is what is typed, over one. Without news for
    `timeout` seconds the client gives up. Raises OSError when a connection can't be begun.
    """

    def __init__(
        self,
        poller: netpoll.Poller,
        host: str,
        port: int,
        *,
        count: int | None = None,
        size: int = 64,
        connections: int = 1,
        timeout: float = 10.0,
    ) -> None:
        self.poller = poller
        self.host = host
        self.port = port
        self.where = serving.host_and_port((host, port))
        self.timeout = timeout
        self.messages = 0
        self.bytes = 0
        self.problem = ""
        self.ending = False
        self.reading_for: Connection | None = None  # which waits for something to be typed
        self.line_has_begun = False
        self.last_news = monotonic()
        self.connections: set[Connection] = set()
        try:
            for number in range(1, connections + 1):
                messages = None if count is None else generated(number, count, size)
                self.connections.add(Connection(self, number, messages))
        except OSError:
            self.close()
            raise
        poller.call_later(timeout, self.look_for_news)

    # ---- what to send -------------------------------------------------------------------------

    def go_on(self, connection: Connection) -> None:
        """Give a connection its next message, or finish it."""
        self.last_news = monotonic()
        if self.ending:
            connection.finish()
        elif connection.messages is None:
            self.wait_for_input(connection)
        elif (message := next(connection.messages, None)) is None:
            connection.finish()
        else:
            self.messages += 1
            connection.send(message)

    def wait_for_input(self, connection: Connection) -> None:
        """Read the standard input as soon as there is any."""
        self.reading_for = connection
        try:
            self.poller.add_read(netpoll.PollAttachment(STDIN, self.read_input))
        except PermissionError:  # a file: it is always ready, and epoll takes none
            self.poller.trigger(netpoll.EventPriority.LOW, self.read_file)

    def read_file(self, _: object) -> None:
        """Read a piece of a file, as if its event had come."""
        if self.reading_for is not None:
            self.read_input(STDIN, netpoll.READ_EVENTS, 0)

    def read_input(self, fd: int, event: int, flags: int) -> None:
        """Send what was typed; finish at its end."""
        connection = self.stop_reading()
        try:
            data = os.read(STDIN, 65536)
        except OSError as error:
            self.fail(f"can't read the standard input: {error.strerror}")
            return
        self.last_news = monotonic()
        if data:
            self.messages += data.count(b"\n")
            self.line_has_begun = not data.endswith(b"\n")
            connection.send(data)
        else:
            self.messages += self.line_has_begun
            connection.finish()

    def stop_reading(self) -> Connection:
        """Look away from the standard input; return the connection that waited for it."""
        assert self.reading_for is not None
        connection, self.reading_for = self.reading_for, None
        if STDIN in self.poller.attachments:
            self.poller.delete(STDIN)
        return connection

    # ---- what comes back ----------------------------------------------------------------------

    def received(self, connection: Connection, data: bytes) -> None:
        """Count what came back; show it to who typed it."""
        self.last_news = monotonic()
        self.bytes += len(data)
        while connection.messages is None and data:
            data = data[os.write(STDOUT, data) :]

    def look_for_news(self, _: object) -> None:
        """Give up when nothing has happened for too long, unless nobody types."""
        waited = monotonic() - self.last_news
        if self.reading_for is None and waited >= self.timeout:
            self.fail(f"no answer from {self.where} for {self.timeout:g} seconds")
        else:
            again = self.timeout if self.reading_for is not None else self.timeout - waited
            self.poller.call_later(again, self.look_for_news)

    # ---- the end ------------------------------------------------------------------------------

    def let_go(self, connection: Connection) -> None:
        """Close a connection that has finished; the last one ends the client."""
        self.poller.delete(connection.socket)
        self.connections.remove(connection)
        connection.socket.close()
        if not self.connections:
            self.poller.stop()

    def fail(self, problem: str) -> None:
        """Stop the poller because of a problem."""
        self.problem = problem
        self.poller.stop()

    def shut_down(self) -> None:
        """Send no new messages, wait for the answers to the old ones, then stop the poller."""
        self.ending = True
        if self.reading_for is not None:
            self.stop_reading().finish()

    def close(self) -> None:
        """Close every socket."""
        for connection in self.connections:
            connection.socket.close()


def natural(text: str) -> int:
    """A number from 1. Raises ArgumentTypeError."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def main() -> None:
    """Send, check and tell in one line what was sent."""
    parser = serving.options(
        "client", "Send lines, or messages by the thousand, to an echo server."
    )
    parser.add_argument("--host", default="127.0.0.1", help="the server's address (%(default)s)")
    parser.add_argument("--port", type=serving.port_number, default=9090, help="(%(default)s)")
    parser.add_argument("--count", type=natural, help="messages to send, instead of what is typed")
    parser.add_argument("--size", type=natural, default=64, help="bytes of each (%(default)s)")
    parser.add_argument(
        "--connections", type=natural, default=1, help="that each send so many (%(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=serving.seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for an answer (%(default)g)",
    )
    arguments = parser.parse_args()
    if arguments.count is None and arguments.connections > 1:
        parser.error("what is typed goes over one connection: --connections needs --count")
    if arguments.count is None and sys.stdin is None:
        parser.error("there is no standard input: use --count")
    started = monotonic()
    with netpoll.open_poller() as poller:
        try:
            client = Client(
                poller,
                arguments.host,
                arguments.port,
                count=arguments.count,
                size=arguments.size,
                connections=arguments.connections,
                timeout=arguments.timeout,
            )
        except OSError as error:
            sys.exit(f"{parser.prog}: can't connect: {error.strerror}")
        with contextlib.closing(client):
            serving.on_ctrl_c(poller, client.shut_down, arguments.timeout)
            if arguments.count is None and sys.stdin.isatty():
                print(f"type to {client.where}; Ctrl-D or Ctrl-C ends it", file=sys.stderr)
            poller.polling()
    if client.problem or client.connections:
        sys.exit(f"{parser.prog}: {client.problem or 'gave up waiting for the answers'}")
    elapsed = monotonic() - started
    summary = f"{client.messages} messages, {client.bytes} bytes, {elapsed:.3f} seconds"
    # What was typed comes back on the standard output, and nothing else is to be there.
    print(summary, file=sys.stderr if arguments.count is None else sys.stdout)


if __name__ == "__main__":
    main()
