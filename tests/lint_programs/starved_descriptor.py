"""One client sends a lot, another one a word."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Read from the first client, byte by byte, until it has nothing more to say."""
    pairs = [socket.socketpair() for _ in range(2)]
    servers = {ours.fileno(): ours for ours, _ in pairs}

    def receive(fd: int, event: int, flags: int) -> None:
        try:
            while servers[fd].recv(1):
                pass
        except BlockingIOError:
            pass

    for ours, _ in pairs:
        ours.setblocking(False)
        poller.add_read(PollAttachment(ours, receive))
    pairs[0][1].sendall(b"x" * 2000)
    pairs[1][1].sendall(b"hello?")
    poller.poll_once(5)
    for ours, theirs in pairs:
        poller.delete(ours)
        ours.close()
        theirs.close()


def mended(poller: Poller) -> None:
    """Read once for each event: what is left is reported again."""
    pairs = [socket.socketpair() for _ in range(2)]
    servers = {ours.fileno(): ours for ours, _ in pairs}

    def receive(fd: int, event: int, flags: int) -> None:
        servers[fd].recv(1000)

    for ours, _ in pairs:
        ours.setblocking(False)
        poller.add_read(PollAttachment(ours, receive))
    pairs[0][1].sendall(b"x" * 2000)
    pairs[1][1].sendall(b"hello?")
    while poller.poll_once(0):
        pass
    for ours, theirs in pairs:
        poller.delete(ours)
        ours.close()
        theirs.close()
