"""Write interest for a socket that has nothing to send: the wait never sleeps."""

import socket

from netpoll import PollAttachment, Poller, is_read_event


def bug(poller: Poller) -> None:
    """Be told all the time that one could write."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def echo(fd: int, event: int, flags: int) -> None:
        if is_read_event(event):
            ours.send(ours.recv(64))

    with ours, theirs:
        poller.add_read_write(PollAttachment(ours, echo))
        theirs.sendall(b"hello")
        for _ in range(20):
            poller.poll_once(5)
        assert theirs.recv(64) == b"hello"
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Ask for write events only while bytes are pending."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pending = bytearray()

    def echo(fd: int, event: int, flags: int) -> None:
        if is_read_event(event):
            pending.extend(ours.recv(64))
            poller.mod_read_write(PollAttachment(ours, echo))
        else:
            del pending[: ours.send(pending)]
            if not pending:
                poller.mod_read(PollAttachment(ours, echo))

    with ours, theirs:
        poller.add_read(PollAttachment(ours, echo))
        theirs.sendall(b"hello")
        for _ in range(20):
            poller.poll_once(0)
        assert theirs.recv(64) == b"hello"
        poller.delete(ours)
