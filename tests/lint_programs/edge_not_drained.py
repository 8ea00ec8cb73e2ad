"""Edge-triggered, the kernel says once that bytes have come."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Read once for each event: the rest stays where it is."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    received = bytearray()

    def receive(fd: int, event: int, flags: int) -> None:
        received.extend(ours.recv(4))

    with ours, theirs:
        poller.add_read(PollAttachment(ours, receive), edge_triggered=True)
        theirs.sendall(b"hello, world")
        for _ in range(3):
            poller.poll_once(0)
        assert received == b"hell"
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Read until nothing is left."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    received = bytearray()

    def receive(fd: int, event: int, flags: int) -> None:
        try:
            while data := ours.recv(4):
                received.extend(data)
        except BlockingIOError:
            pass  # that was all

    with ours, theirs:
        poller.add_read(PollAttachment(ours, receive), edge_triggered=True)
        theirs.sendall(b"hello, world")
        for _ in range(3):
            poller.poll_once(0)
        assert received == b"hello, world"
        poller.delete(ours)
