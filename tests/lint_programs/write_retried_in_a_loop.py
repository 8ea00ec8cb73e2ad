"""A peer that does not read, and a callback that insists."""

import socket

from netpoll import PollAttachment, Poller, is_read_event

SIZE = 1_000_000


def bug(poller: Poller) -> None:
    """Try again, at once, up to a thousand times."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def answer(fd: int, event: int, flags: int) -> None:
        data = ours.recv(1) * SIZE
        for _ in range(1000):
            try:
                data = data[ours.send(data) :]
            except BlockingIOError:
                continue

    with ours, theirs:
        poller.add_read(PollAttachment(ours, answer))
        theirs.sendall(b"x")
        poller.poll_once(5)
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Keep the rest, and go on when the kernel says that there is room."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pending = bytearray()

    def answer(fd: int, event: int, flags: int) -> None:
        if is_read_event(event):
            pending.extend(ours.recv(1) * SIZE)
            poller.mod_write(PollAttachment(ours, answer))
        del pending[: ours.send(pending)]
        if not pending:
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
