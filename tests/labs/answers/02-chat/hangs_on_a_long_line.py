"""A line that is too long is waited for, for ever."""
# loses: too-long
# slow

import socket
from dataclasses import dataclass, field

import netpoll

LONGEST_LINE = 1000
MOST_UNSENT = 1 << 20


@dataclass
class Member:
    number: int
    connection: socket.socket
    received: bytes = b""  # the beginning of a line
    unsent: bytearray = field(default_factory=bytearray)  # what the kernel did not take
    wants_room: bool = False  # registered for writing too


class Chat:
    def __init__(self, poller):
        self.poller = poller
        self.members = {}  # descriptor -> Member
        self.joined = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    def accept(self, fd, event, flags):
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # send at once
        self.joined += 1
        self.members[connection.fileno()] = Member(self.joined, connection)
        self.poller.add_read(netpoll.PollAttachment(connection, self.ready))

    def ready(self, fd, event, flags):
        member = self.members[fd]
        if netpoll.is_write_event(event):
            self.flush(member)
        if fd in self.members and (netpoll.is_read_event(event) or netpoll.is_error_event(event)):
            self.read(member)

    def read(self, member):
        try:
            data = member.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, member.received = (member.received + data).split(b"\n")
        for line in lines:
            if len(line) > LONGEST_LINE:
                self.let_go(member)
                return
            self.tell_others(member, line)
        while len(member.received) > LONGEST_LINE:
            netpoll.is_read_event(len(member.received))
        if not data:
            self.let_go(member)

    def tell_others(self, member, line):
        text = b"%d: %s\n" % (member.number, line)
        for other in list(self.members.values()):  # a copy: send may let somebody go
            if other is not member:
                self.send(other, text)

    def send(self, member, data):
        waiting = bool(member.unsent)
        member.unsent += data
        if not waiting:
            self.flush(member)
        if len(member.unsent) > MOST_UNSENT:
            self.let_go(member)

    def flush(self, member):
        try:
            sent = member.connection.send(member.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.let_go(member)
            return
        del member.unsent[:sent]
        if member.wants_room != bool(member.unsent):
            member.wants_room = bool(member.unsent)
            watch = self.poller.mod_read_write if member.wants_room else self.poller.mod_read
            watch(netpoll.PollAttachment(member.connection, self.ready))

    def let_go(self, member):
        del self.members[member.connection.fileno()]
        self.poller.delete(member.connection)
        member.connection.close()


def start(poller):
    return Chat(poller).listener.getsockname()
