"""A send that took a part of the bytes, and what becomes of the others."""

import socket

from netpoll import PollAttachment, Poller, is_read_event

SIZE = 1_000_000


def bug(poller: Poller) -> None:
    """Think that `send` sends everything."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def answer(fd: int, event: int, flags: int) -> None:
        ours.send(ours.recv(1) * SIZE)

    with ours, theirs:
        poller.add_read(PollAttachment(ours, answer))
        theirs.sendall(b"x")
        poller.poll_once(5)
        while theirs.recv(SIZE, socket.MSG_DONTWAIT | socket.MSG_PEEK):
            theirs.recv(SIZE)
            if poller.poll_once(0) == 0:
                break  # nothing more will come
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Keep what is left, and send it when the kernel says that there is room."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pending = bytearray()

    def answer(fd: int, event: int, flags: int) -> None:
        if is_read_event(event):
            pending.extend(ours.recv(1) * SIZE)
        del pending[: ours.send(pending)]
        if pending:
            poller.mod_write(PollAttachment(ours, answer))
        else:
            poller.mod_read(PollAttachment(ours, answer))

    with ours, theirs:
        poller.add_read(PollAttachment(ours, answer))
        theirs.sendall(b"x")
        poller.poll_once(5)
        received = 0
        while received < SIZE:
            received += len(theirs.recv(SIZE))
            poller.poll_once(0)
        poller.delete(ours)
