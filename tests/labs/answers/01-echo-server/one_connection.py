"""It answers the newest client, whoever has asked."""

# loses: several, goodbye, hang-up
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
        self.newest, _ = self.listener.accept()
        self.newest.setblocking(False)
        self.connections[self.newest.fileno()] = self.newest
        self.poller.add_read(netpoll.PollAttachment(self.newest, self.echo))

    def echo(self, fd, event, flags):
        connection = self.connections[fd]
        try:
            data = connection.recv(4096)
            if data:
                self.newest.send(data)
        except OSError:
            data = b""
        if not data:
            self.poller.delete(fd)
            self.connections.pop(fd).close()


def start(poller):
    return EchoServer(poller).listener.getsockname()
