"""A client that sends what nobody expected."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Trust that it is a number."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def double(fd: int, event: int, flags: int) -> None:
        number = int(ours.recv(64))
        ours.send(b"%d" % (2 * number))

    with ours, theirs:
        poller.add_read(PollAttachment(ours, double))
        for question in (b"21", b"a dozen"):
            theirs.sendall(question)
            poller.poll_once(5)
        assert theirs.recv(64) == b"42"
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Tell the client."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def double(fd: int, event: int, flags: int) -> None:
        try:
            number = int(ours.recv(64))
        except ValueError:
            ours.send(b"a number, please")
        else:
            ours.send(b"%d" % (2 * number))

    with ours, theirs:
        poller.add_read(PollAttachment(ours, double))
        for question in (b"21", b"a dozen"):
            theirs.sendall(question)
            poller.poll_once(5)
            theirs.recv(64)
        poller.delete(ours)
