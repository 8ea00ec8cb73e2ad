"""An echo server: what a client sends, it gets back.

Run it with ``python -m netpoll.examples.echo_server``, talk to it with ``nc 127.0.0.1 9090``.
"""

from __future__ import annotations

import argparse
import contextlib
import socket

import netpoll


class EchoServer:
    """An echo server on one poller: a listener, and a connection for each client.

    `address` is where it listens; port 0 takes a free one. Raises OSError when it is taken.
    """

    def __init__(self, poller: netpoll.Poller, host: str = "127.0.0.1", port: int = 0) -> None:
        self.poller = poller
        self.connections: dict[int, socket.socket] = {}
        self.unsent: dict[int, bytes] = {}
        self.listener = socket.create_server((host, port))
        self.listener.setblocking(False)
        self.address: tuple[str, int] = self.listener.getsockname()
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    def accept(self, fd: int, event: int, flags: int) -> None:
        """Take one new client; while more wait, the next round calls this again."""
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poller.add_read(netpoll.PollAttachment(connection, self.echo))

    def echo(self, fd: int, event: int, flags: int) -> None:
        """Send back what came; let the client go at the end of the stream or on an error."""
        try:
            if fd in self.unsent:
                self.send(fd, self.unsent.pop(fd))
                if fd not in self.unsent:
                    self.poller.mod_read(netpoll.PollAttachment(fd, self.echo))
            elif data := self.connections[fd].recv(4096):
                self.send(fd, data)
                if fd in self.unsent:
                    self.poller.mod_write(netpoll.PollAttachment(fd, self.echo))
            else:
                self.drop(fd)
        except BlockingIOError:
            pass
        except ConnectionError:
            self.drop(fd)

    def send(self, fd: int, data: bytes) -> None:
        """Send `data`; what the kernel does not take now is kept until it takes more.

        Meanwhile nothing is read: a client that does not read what it gets is not listened to.
        """
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = self.connections[fd].send(data)
        if sent < len(data):
            self.unsent[fd] = data[sent:]

    def drop(self, fd: int) -> None:
        """Forget a client."""
        self.poller.delete(fd)
        self.unsent.pop(fd, None)
        self.connections.pop(fd).close()

    def close(self) -> None:
        """Close every socket."""
        for connection in (self.listener, *self.connections.values()):
            connection.close()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Send back to every client what it sends.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="port, 0 for any (%(default)s)")
    arguments = parser.parse_args()
    with netpoll.open_poller() as poller:
        server = EchoServer(poller, arguments.host, arguments.port)
        print(f"echo server on {server.address[0]}:{server.address[1]}; Ctrl-C ends it", flush=True)
        try:
            poller.polling()
        except KeyboardInterrupt:
            print()
        finally:
            server.close()


if __name__ == "__main__":
    main()
