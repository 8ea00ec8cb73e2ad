"""A client that hangs up, and a server that does not notice."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Take no bytes for nothing to do: they are the end of the stream, and come every time."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    heard = []

    def listen(fd: int, event: int, flags: int) -> None:
        data = ours.recv(64)
        if data:
            heard.append(data)

    with ours:
        poller.add_read(PollAttachment(ours, listen))
        with theirs:
            theirs.sendall(b"bye")
        for _ in range(20):
            poller.poll_once(5)
        assert heard == [b"bye"]
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Let the client go."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    heard = []

    def listen(fd: int, event: int, flags: int) -> None:
        data = ours.recv(64)
        if data:
            heard.append(data)
        else:
            poller.delete(fd)
            ours.close()

    poller.add_read(PollAttachment(ours, listen))
    with theirs:
        theirs.sendall(b"bye")
    for _ in range(20):
        poller.poll_once(0)
    assert heard == [b"bye"]
