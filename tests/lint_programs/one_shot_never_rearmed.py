"""A one-shot registration reports one event."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> list[socket.socket]:
    """Handle it, and wait in vain for the next."""
    ours, theirs = socket.socketpair()
    metronome, ticker = socket.socketpair()
    ours.setblocking(False)
    heard = []

    def listen(fd: int, event: int, flags: int) -> None:
        heard.append(ours.recv(64))

    poller.add_read(PollAttachment(ours, listen), oneshot=True)
    poller.add_read(PollAttachment(metronome, lambda fd, event, flags: metronome.recv(1)))
    for beat in range(120):
        theirs.sendall(b"%d " % beat)
        ticker.sendall(b"!")
        poller.poll_once(5)
    assert heard == [b"0 "]
    return [ours, theirs, metronome, ticker]


def mended(poller: Poller) -> None:
    """Arm it again when the event is handled."""
    ours, theirs = socket.socketpair()
    metronome, ticker = socket.socketpair()
    ours.setblocking(False)
    heard = []

    def listen(fd: int, event: int, flags: int) -> None:
        heard.append(ours.recv(64))
        poller.mod_read(PollAttachment(ours, listen), oneshot=True)

    with ours, theirs, metronome, ticker:
        poller.add_read(PollAttachment(ours, listen), oneshot=True)
        poller.add_read(PollAttachment(metronome, lambda fd, event, flags: metronome.recv(1)))
        for beat in range(120):
            theirs.sendall(b"%d " % beat)
            ticker.sendall(b"!")
            poller.poll_once(5)
        assert len(heard) == 120
        poller.delete(ours)
        poller.delete(metronome)
