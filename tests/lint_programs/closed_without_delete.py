"""A client that leaves, and the registration that it had."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Close the socket and forget the registration."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def echo(fd: int, event: int, flags: int) -> None:
        data = ours.recv(64)
        if data:
            ours.send(data)
        else:
            ours.close()

    poller.add_read(PollAttachment(ours, echo))
    with theirs:
        theirs.sendall(b"hello")
        poller.poll_once(5)
        theirs.recv(64)
    poller.poll_once(5)
    assert len(poller.attachments) == 1
    poller.poll_once(0)


def mended(poller: Poller) -> None:
    """Delete, then close."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def echo(fd: int, event: int, flags: int) -> None:
        data = ours.recv(64)
        if data:
            ours.send(data)
        else:
            poller.delete(ours)
            ours.close()

    poller.add_read(PollAttachment(ours, echo))
    with theirs:
        theirs.sendall(b"hello")
        poller.poll_once(5)
        theirs.recv(64)
    poller.poll_once(5)
    assert len(poller.attachments) == 0
    poller.poll_once(0)
