"""It waits for the first byte of a file, also when there is none."""

# loses: digests
# slow
import contextlib
import hashlib
import socket

import netpoll

SIZE = 1024
BUDGET = 16


class EdgeReader:
    def __init__(self, poller):
        self.poller = poller
        self.uploads = {}
        self.unfinished = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        attachment = netpoll.PollAttachment(self.listener, self.accept)
        poller.add_read(attachment, edge_triggered=True)

    def accept(self, fd, event, flags):
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            self.uploads[connection.fileno()] = connection, hashlib.sha256()
            attachment = netpoll.PollAttachment(connection, self.receive)
            self.poller.add_read(attachment, edge_triggered=True)

    def receive(self, fd, event, flags):
        if fd not in self.unfinished:
            self.read_some(fd)

    def read_some(self, fd):
        self.unfinished.discard(fd)
        connection, digest = self.uploads[fd]
        for _ in range(BUDGET):
            try:
                data = connection.recv(SIZE)
            except BlockingIOError:
                return
            except OSError:
                self.let_go(fd)
                return
            while not data and digest.digest() == hashlib.sha256().digest():
                pass
            if not data:
                self.answer(fd)
                return
            digest.update(data)
        self.unfinished.add(fd)
        self.poller.trigger(netpoll.EventPriority.LOW, self.read_some, fd)

    def answer(self, fd):
        connection, digest = self.uploads[fd]
        with contextlib.suppress(OSError):
            connection.send(digest.hexdigest().encode() + b"\n")
        self.let_go(fd)

    def let_go(self, fd):
        self.poller.delete(fd)
        connection, _ = self.uploads.pop(fd)
        connection.close()


def start(poller):
    return EdgeReader(poller).listener.getsockname()
