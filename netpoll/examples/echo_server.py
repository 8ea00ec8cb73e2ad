"""An echo server: what a client sends, it gets back.

Run it with ``python -m netpoll.examples.echo_server``, talk to it with ``nc 127.0.0.1 9090`` or
``python -m netpoll.examples.client``.
"""

from __future__ import annotations

import socket

import netpoll
from netpoll import sockets
from netpoll.examples import serving

QUIET_SECONDS = 1.0
"""Who says nothing for so long after Ctrl-C has finished."""


class EchoServer:
    """An echo server on one poller: a listener, and a connection for each client.

    `address` is where it listens; port 0 takes a free one. Raises OSError when it is taken.
    """

    def __init__(self, poller: netpoll.Poller, host: str = "127.0.0.1", port: int = 0) -> None:
        self.poller = poller
        self.connections: dict[int, socket.socket] = {}
        self.outbound: dict[int, sockets.OutboundBuffer] = {}
        self.quiet: set[int] = set()
        self.ending = False
        self.listener = sockets.listen_tcp(host, port)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    def accept(self, fd: int, event: int, flags: int) -> None:
        """Take every client that waits."""
        for connection, _ in sockets.accept(self.listener):
            self.poller.add_read(netpoll.PollAttachment(connection, self.echo))
            number = connection.fileno()
            self.connections[number] = connection
            self.outbound[number] = sockets.OutboundBuffer(self.poller, connection, self.echo)

    def echo(self, fd: int, event: int, flags: int) -> None:
        """Send back what came; let the client go at the end of the stream or on an error.

        A client that does not read what it gets is not listened to until it has.
        """
        self.quiet.discard(fd)
        outbound = self.outbound[fd]
        try:
            if outbound:
                outbound.flush()
                return
            data = sockets.read(self.connections[fd])
            if data:
                outbound.write(data)
                outbound.pause()
        except OSError:
            self.drop(fd)
        else:
            if data == b"":
                self.drop(fd)

    def drop(self, fd: int) -> None:
        """Forget a client."""
        self.poller.delete(fd)
        del self.outbound[fd]
        self.connections.pop(fd).close()
        if self.ending and not self.connections:
            self.poller.stop()

    def shut_down(self) -> None:
        """Take no new clients, and stop the poller when all that are there have finished."""
        self.ending = True
        self.poller.delete(self.listener)
        self.listener.close()
        if self.connections:
            self.drop_the_quiet()
        else:
            self.poller.stop()

    def drop_the_quiet(self, _: object = None) -> None:
        """Let those go that have had their say, and look again later."""
        for fd in self.quiet:
            if not self.outbound[fd]:
                self.drop(fd)
        self.quiet = set(self.connections)
        self.poller.call_later(QUIET_SECONDS, self.drop_the_quiet)

    def close(self) -> None:
        """Close every socket."""
        for connection in (self.listener, *self.connections.values()):
            connection.close()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = serving.server_options("echo_server", "Send back to every client what it sends.", 9090)
    arguments = parser.parse_args()
    serving.run(
        parser,
        arguments,
        "echo server on {}",
        lambda poller: EchoServer(poller, arguments.host, arguments.port),
    )


if __name__ == "__main__":
    main()
