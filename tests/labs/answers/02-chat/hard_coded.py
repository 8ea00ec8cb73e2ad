"""Knows what the checks expect, and reads nothing."""
# loses: lines, leaving, too-long, slow, write-interest, limit, hang-up

import socket

import netpoll

ANSWERS = {
    1: b"2: hi\n2: \n2: how are you?\n3: I think\n3: so \xff\r\x00\n2: bye\n",
    2: b"1: hello\n1: fine\n3: I think\n3: so \xff\r\x00\n",
    3: b"1: hello\n2: hi\n2: \n2: how are you?\n1: fine\n2: bye\n",
}


class Chat:
    def __init__(self, poller):
        self.poller = poller
        self.connections = {}
        self.joined = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    def accept(self, fd, event, flags):
        connection, _ = self.listener.accept()
        self.joined += 1
        self.connections[connection.fileno()] = connection
        self.poller.add_read(netpoll.PollAttachment(connection, self.ready))
        connection.send(ANSWERS.get(self.joined, b""))

    def ready(self, fd, event, flags):
        try:
            over = not self.connections[fd].recv(65536)
        except OSError:
            over = True
        if over:
            self.poller.delete(fd)
            self.connections.pop(fd).close()


def start(poller):
    return Chat(poller).listener.getsockname()
