"""A client that says its last words and hangs up."""

import socket

from netpoll import PollAttachment, Poller, is_error_event


def bug(poller: Poller) -> None:
    """Look for errors first: the last words are lost."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    heard = []

    def listen(fd: int, event: int, flags: int) -> None:
        if is_error_event(event):
            poller.delete(fd)
            ours.close()
            return
        heard.append(ours.recv(64))

    poller.add_read(PollAttachment(ours, listen))
    theirs.sendall(b"last words")
    theirs.close()
    poller.poll_once(5)
    assert heard == []


def mended(poller: Poller) -> None:
    """Read first: the end comes when everything has been read."""
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
    theirs.sendall(b"last words")
    theirs.close()
    while ours.fileno() >= 0:
        poller.poll_once(5)
    assert heard == [b"last words"]
