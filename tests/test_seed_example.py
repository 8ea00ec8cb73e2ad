"""The client of gnet's announcement of v2.7.0, in Python, against a server that is netpoll too.

The original opens a poller, dials 127.0.0.1:9090, registers its descriptor for reading and
writing, and polls; the callback closes the client and returns ErrEngineShutdown on an error event
or a failed read or write, reads up to 64 bytes on a read event and writes "hello" on a write event.
"""

import socket
from collections.abc import Iterator

import pytest

import netpoll
from netpoll.examples.echo_server import EchoServer


@pytest.fixture
def server() -> Iterator[EchoServer]:
    """An echo server on a free port, whose loop runs in a thread."""
    server = EchoServer(netpoll.open_poller())
    with netpoll.run_in_thread(server.poller, name="seed example", on_end=server.close):
        yield server


class Client:
    """The announcement's client: its connection, its attachment and what it received."""

    def __init__(self, poller: netpoll.Poller, address: tuple[str, int], enough: int) -> None:
        self.poller = poller
        self.connection = socket.create_connection(address)
        self.connection.setblocking(False)
        self.enough = enough
        self.received = b""
        self.sent = 0
        self.attachment = netpoll.PollAttachment(self.connection.fileno(), self.callback)

    def close(self) -> None:
        """Close the connection, as `closeClient` does."""
        self.poller.delete(self.connection)
        self.connection.close()

    def callback(self, fd: int, event: netpoll.IOFlags, flags: netpoll.IOFlags) -> None:
        """Read what the server answers, write "hello", and end when there is enough."""
        if netpoll.is_error_event(event, flags):
            self.close()
            raise netpoll.EngineShutdown
        if netpoll.is_read_event(event):
            try:
                data = self.connection.recv(64)
            except OSError:
                self.close()
                raise netpoll.EngineShutdown from None
            self.received += data
            if not data or len(self.received) >= self.enough:
                self.close()
                raise netpoll.EngineShutdown
        if netpoll.is_write_event(event) and self.sent < self.enough:
            try:
                self.sent += self.connection.send(b"hello")
            except OSError:
                self.close()
                raise netpoll.EngineShutdown from None


@pytest.mark.parametrize("one_callback_for_all", [True, False])
def test_seed_client(server: EchoServer, one_callback_for_all: bool) -> None:
    """Both forms of polling run the client until the server has answered ten times."""
    poller = netpoll.open_poller()
    try:
        client = Client(poller, server.address, enough=50)
        poller.add_read_write(client.attachment, False)
        if one_callback_for_all:
            poller.polling(lambda fd, event, flags: client.attachment.callback(fd, event, flags))
        else:
            poller.polling()
        assert client.received == b"hello" * 10
        assert client.connection.fileno() == -1
    finally:
        poller.close()


def test_seed_client_when_the_server_goes(server: EchoServer) -> None:
    """A connection that the server resets ends the client by an error event, in order."""
    poller = netpoll.open_poller()
    client = Client(poller, server.address, enough=5)
    client.enough = 10**9  # never
    client.sent = 10**9

    def reset(_: object) -> None:
        for connection in server.connections.values():
            linger = b"\1\0\0\0\0\0\0\0"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            server.poller.delete(connection)
            connection.close()
        server.connections.clear()

    with poller:
        client.connection.send(b"hello")
        poller.add_read(client.attachment)
        assert poller.poll_once() == 1
        assert client.received == b"hello"
        server.poller.trigger(netpoll.EventPriority.HIGH, reset)
        poller.polling()
        assert client.connection.fileno() == -1
