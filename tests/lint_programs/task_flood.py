"""An answer that is waited for."""

import socket

from netpoll import EventPriority, PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Look whether it has come, in a task that queues itself."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    answers = []

    def look(_: object) -> None:
        try:
            answers.append(ours.recv(64))
        except BlockingIOError:
            poller.trigger(EventPriority.HIGH, look)

    with ours, theirs:
        poller.trigger(EventPriority.HIGH, look)
        for _ in range(1100):
            poller.poll_once(5)
        assert answers == []


def mended(poller: Poller) -> None:
    """Register it: the loop sleeps until it comes."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    answers = []

    def look(fd: int, event: int, flags: int) -> None:
        answers.append(ours.recv(64))
        poller.delete(fd)

    with ours, theirs:
        poller.add_read(PollAttachment(ours, look))
        theirs.sendall(b"here I am")
        while not answers:
            poller.poll_once(5)
        assert answers == [b"here I am"]
