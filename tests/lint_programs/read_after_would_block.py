"""A message that comes in two parts."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Ask again and again whether the rest has come."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    message = bytearray()

    def receive(fd: int, event: int, flags: int) -> None:
        for _ in range(5):
            try:
                message.extend(ours.recv(64))
            except BlockingIOError:
                continue  # not yet?

    with ours, theirs:
        poller.add_read(PollAttachment(ours, receive))
        for part in (b"first part, ", b"second part"):
            theirs.sendall(part)
            poller.poll_once(5)
        assert message == b"first part, second part"
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Keep the part that has come, and return: the loop knows when there is more."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    message = bytearray()

    def receive(fd: int, event: int, flags: int) -> None:
        try:
            while data := ours.recv(64):
                message.extend(data)
        except BlockingIOError:
            pass

    with ours, theirs:
        poller.add_read(PollAttachment(ours, receive))
        for part in (b"first part, ", b"second part"):
            theirs.sendall(part)
            poller.poll_once(5)
        assert message == b"first part, second part"
        poller.delete(ours)
