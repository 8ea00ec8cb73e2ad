"""A callback that takes its time, while everybody else waits."""

import socket
import threading
import time

from netpoll import EventPriority, PollAttachment, Poller


def bug(poller: Poller) -> None:
    """Think about the answer in the callback."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def answer(fd: int, event: int, flags: int) -> None:
        question = ours.recv(64)
        time.sleep(0.2)  # think
        ours.send(question.upper())

    with ours, theirs:
        poller.add_read(PollAttachment(ours, answer))
        theirs.sendall(b"what is the time?")
        poller.poll_once(5)
        assert theirs.recv(64) == b"WHAT IS THE TIME?"
        poller.delete(ours)


def mended(poller: Poller) -> None:
    """Think in another thread, which triggers a task to send the answer."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def answer(fd: int, event: int, flags: int) -> None:
        threading.Thread(target=think, args=[ours.recv(64)]).start()

    def think(question: bytes) -> None:
        time.sleep(0.2)
        poller.trigger(EventPriority.HIGH, ours.send, question.upper())

    with ours, theirs:
        poller.add_read(PollAttachment(ours, answer))
        theirs.sendall(b"what is the time?")
        poller.poll_once(5)  # the question
        poller.poll_once(5)  # the answer
        assert theirs.recv(64) == b"WHAT IS THE TIME?"
        poller.delete(ours)
