"""It reads and writes behind the recorder's back."""

# loses: echoes, several, goodbye, half-close, hang-up
import socket
import types

import netpoll

plain = types.SimpleNamespace(recv=socket.socket.recv, send=socket.socket.send)
plain.recv, plain.send = (getattr(socket.SocketType, name) for name in ("recv", "send"))


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
            data = plain.recv(connection, 4096)
        except OSError:
            data = b""
        if data:
            plain.send(connection, data)
        else:
            self.poller.delete(fd)
            self.connections.pop(fd).close()


def start(poller):
    return EchoServer(poller).listener.getsockname()
