"""It ends the whole program when one client has gone."""

# loses: goodbye, half-close, hang-up
# slow
import socket

import netpoll


class EchoServer:
    def __init__(self, poller):
        self.poller = poller
        self.connections = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    def accept(self, fd, event, flags):
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poller.add_read(netpoll.PollAttachment(connection, self.echo))

    def echo(self, fd, event, flags):
        connection = self.connections[fd]
        try:
            data = connection.recv(4096)
        except OSError:
            data = b""
        if not data:
            raise SystemExit
        connection.send(data)


def start(poller):
    return EchoServer(poller).listener.getsockname()
