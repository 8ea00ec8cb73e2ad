"""It remembers the newest connection alone."""

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
        self.connection, _ = self.listener.accept()
        self.connection.setblocking(False)
        self.poller.add_read(netpoll.PollAttachment(self.connection, self.echo))

    def echo(self, fd, event, flags):
        connection = self.connection
        try:
            data = connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            connection.send(data)
        else:
            self.poller.delete(connection)
            connection.close()


def start(poller):
    return EchoServer(poller).listener.getsockname()
