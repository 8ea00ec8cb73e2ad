"""Remakes the recordings of lab 4: `python -m tests.labs.make_find_the_bug`.

Each is of a real server on real sockets, driven move by move from one thread, and redacted. Then it
is looked at once more: that it is small, that lint says nothing, and that the notebook of the lab
names the right steps.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import netpoll
import tracer
from netpoll.sockets import accept, listen_tcp
from tests.labs.grading import ROOT
from tracer.trace import Trace

FOLDER = ROOT / "notebooks/labs/04-find-the-bug/instructor"
LATER = 0.4
"""Seconds until a question is answered. The clients do meanwhile what the script says."""

Script = list[list[tuple[str, str | bytes]]]
"""Moments. What several clients do at one moment reaches the server in one batch."""


class LineServer:
    """Sends each line back when it is complete; a line that begins with `?`, some time later."""

    def __init__(self, poller: netpoll.Poller, listener: socket.socket) -> None:
        self.poller = poller
        self.listener = listener
        self.connections: dict[int, socket.socket] = {}
        self.unfinished: dict[int, bytes] = {}
        self.timers: dict[int, list[netpoll.Timer]] = {}
        poller.add_read(netpoll.PollAttachment(listener, self.accept))

    def accept(self, fd: int, event: int, flags: int) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poller.add_read(netpoll.PollAttachment(connection, self.serve))

    def serve(self, fd: int, event: int, flags: int) -> None:
        for line in self.lines(fd):
            self.answer(fd, line)

    def lines(self, fd: int) -> list[bytes]:
        try:
            data = self.connections[fd].recv(4096)
        except OSError:
            data = b""
        if not data:
            self.leave(fd)
            return []
        *lines, rest = (self.unfinished.get(fd, b"") + data).split(b"\n")
        self.unfinished[fd] = rest
        return [line + b"\n" for line in lines]

    def answer(self, fd: int, line: bytes) -> None:
        if line.startswith(b"?"):
            timer = self.poller.call_later(LATER, self.send, (fd, line))
            self.timers.setdefault(fd, []).append(timer)
        else:
            self.send((fd, line))

    def send(self, what: tuple[int, bytes]) -> None:
        fd, line = what
        self.connections[fd].send(line)

    def leave(self, fd: int) -> None:
        self.poller.delete(fd)
        for timer in self.timers.pop(fd, []):
            timer.cancel()
        self.unfinished.pop(fd, None)
        self.connections.pop(fd).close()


class Crosstalk(LineServer):
    """The functions that send, made in a loop, all send to the last connection of that loop."""

    def accept(self, fd: int, event: int, flags: int) -> None:
        for connection, _ in accept(self.listener):
            self.connections[connection.fileno()] = connection
            send = lambda line: connection.send(line)  # noqa: B023, E731 - that is the bug
            callback = partial(self.serve_with, send)
            self.poller.add_read(netpoll.PollAttachment(connection, callback))

    def serve_with(self, send: Any, fd: int, event: int, flags: int) -> None:
        for line in self.lines(fd):
            send(line)


class ForgottenClient(LineServer):
    """Of several clients that are accepted at once, only the last is registered."""

    def accept(self, fd: int, event: int, flags: int) -> None:
        for connection, _ in accept(self.listener):
            self.connections[connection.fileno()] = connection
        self.poller.add_read(netpoll.PollAttachment(connection, self.serve))


class LateReply(LineServer):
    """The answers to somebody who has left are not called off."""

    def leave(self, fd: int) -> None:
        self.timers.pop(fd, None)
        super().leave(fd)


class IdleLoop(LineServer):
    """A task asks again and again whether the answer is there."""

    def answer(self, fd: int, line: bytes) -> None:
        if line.startswith(b"?"):
            self.poller.trigger(netpoll.EventPriority.LOW, self.ask, (fd, line, 12))
        else:
            self.send((fd, line))

    def ask(self, what: tuple[int, bytes, int]) -> None:
        fd, line, left = what
        if left:
            self.poller.trigger(netpoll.EventPriority.LOW, self.ask, (fd, line, left - 1))
        else:
            self.send((fd, line))
            self.poller.stop()  # what `recorded` waits for


class LostReply(LineServer):
    """Of the lines that one read brings, only the last is answered."""

    def serve(self, fd: int, event: int, flags: int) -> None:
        for line in self.lines(fd)[-1:]:
            self.answer(fd, line)


def line(size: int, question: bool = False) -> bytes:
    """Return a line of so many bytes."""
    return (b"?" if question else b"x") + b"x" * (size - 2) + b"\n"


def ask(size: int) -> bytes:
    """Return a question of so many bytes."""
    return line(size, question=True)


WAIT: list[tuple[str, str | bytes]] = []
"""A moment at which nobody does anything but wait for an answer."""

RECORDINGS: dict[str, tuple[type[LineServer], Script]] = {
    "practice": (
        Crosstalk,
        [
            [("ann", "joins")],
            [("ann", line(12))],
            [("bob", "joins")],
            [("bob", line(21)), ("ann", line(14))],
            [("bob", line(6))],
            [("cleo", "joins"), ("dan", "joins")],
            [("dan", line(33))],
            [("ann", line(17))],
            [("cleo", line(40))],
            [("cleo", line(9)), ("bob", line(26))],
            [("ann", "leaves")],
            [("cleo", "leaves")],
            [("bob", line(11))],
            [("bob", "leaves"), ("dan", "leaves")],
        ],
    ),
    "a": (
        IdleLoop,
        [
            [("ann", "joins"), ("bob", "joins")],
            [("ann", line(15))],
            [("bob", line(24)), ("ann", line(8))],
            [("cleo", "joins")],
            [("cleo", line(30))],
            [("ann", line(10) + line(5))],
            [("bob", "leaves")],
            [("cleo", ask(31))],
            [("ann", line(44))],
            [("cleo", line(7))],
            [("ann", "leaves")],
            [("cleo", "leaves")],
        ],
    ),
    "b": (
        LostReply,
        [
            [("ann", "joins")],
            [("bob", "joins")],
            [("ann", line(20))],
            [("bob", b"x" * 6)],
            [("ann", line(18)), ("bob", line(13))],
            [("cleo", "joins")],
            [("cleo", line(25))],
            [("bob", line(9)), ("cleo", line(16))],
            [("ann", line(11) + line(27))],
            [("bob", line(10))],
            [("ann", line(14))],
            [("cleo", line(19) + line(22))],
            [("ann", "leaves"), ("bob", "leaves")],
            [("cleo", "leaves")],
        ],
    ),
    "c": (
        LateReply,
        [
            [("ann", "joins"), ("bob", "joins")],
            [("ann", line(13))],
            [("bob", ask(28))],
            [("ann", line(22))],
            WAIT,
            [("bob", line(9))],
            [("bob", ask(37))],
            [("ann", line(5)), ("bob", "leaves")],
            [("cleo", "joins")],
            [("cleo", line(12)), ("ann", line(16))],
            WAIT,
            [("cleo", line(23))],
            [("ann", "leaves")],
            [("cleo", "leaves")],
        ],
    ),
    "d": (
        LineServer,
        [
            [("ann", "joins")],
            [("ann", line(26))],
            [("bob", "joins"), ("cleo", "joins")],
            [("cleo", b"x" * 11)],
            [("bob", line(8) + line(15)), ("cleo", line(9))],
            [("bob", ask(34))],
            [("ann", line(12)), ("cleo", line(7))],
            WAIT,
            [("ann", ask(17))],
            [("ann", "leaves"), ("bob", line(21))],
            [("dan", "joins")],
            [("dan", line(19))],
            [("bob", "slams the door"), ("cleo", line(14))],
            [("dan", b"x" * 5), ("cleo", "leaves")],
            [("dan", line(24))],
            [("dan", "leaves")],
        ],
    ),
    "e": (
        ForgottenClient,
        [
            [("ann", "joins")],
            [("ann", line(16))],
            [("bob", "joins")],
            [("bob", line(10)), ("ann", line(23))],
            [("cleo", "joins"), ("dan", "joins")],
            [("cleo", line(13)), ("dan", line(29))],
            [("ann", line(7) + line(18))],
            [("bob", "leaves")],
            [("eve", "joins")],
            [("eve", line(32)), ("cleo", line(20))],
            [("dan", "leaves")],
            [("ann", line(12))],
            [("eve", "leaves"), ("ann", "leaves")],
        ],
    ),
}


def recorded(server_class: type[LineServer], script: Script) -> Trace:
    """Return the redacted recording of a server with clients who do what `script` says."""
    poller = netpoll.open_poller()
    clients: dict[str, socket.socket] = {}
    with listen_tcp() as listener, tracer.record(poller) as trace:
        server = server_class(poller, listener)
        for moment in script:
            for name, what in moment:
                act(clients, listener.getsockname(), name, what)
            time.sleep(0.03)  # so that it has arrived, all of it
            if server_class is IdleLoop and any(what[:1] == b"?" for _, what in moment):
                poller.polling()  # until the question is answered
                continue
            poller.poll_once()
            while select.select([poller.fileno()], [], [], 0)[0]:
                poller.poll_once()
    poller.close()
    for sock in [*clients.values(), *server.connections.values()]:
        sock.close()
    return trace.redacted()


def act(
    clients: dict[str, socket.socket], address: tuple[str, int], name: str, what: str | bytes
) -> None:
    """Let a client join, send something, or leave."""
    if what == "joins":
        clients[name] = socket.create_connection(address, timeout=5)
    elif isinstance(what, bytes):
        clients[name].sendall(what)
    else:
        with contextlib.suppress(BlockingIOError):  # bytes left unread would make a reset of it
            clients[name].setblocking(False)
            clients[name].recv(65536)
        if what == "slams the door":
            linger = struct.pack("ii", 1, 0)
            clients[name].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        clients.pop(name).close()


def calls(trace: Trace) -> Iterable[range]:
    """Yield the numbers of the steps of each dispatch and each task, as the player counts.

    The TimerFired before a timer's task is its first step.
    """
    began = 0
    for number, step in enumerate(trace, start=1):
        if step.kind in ("DispatchStarted", "TaskStarted"):
            began = number - (trace[number - 2].kind == "TimerFired")
        elif step.kind in ("DispatchEnded", "TaskEnded"):
            yield range(began, number + 1)


def first_shown(server_class: type[LineServer], trace: Trace) -> range | None:
    """Return the dispatch or task in which the bug shows for the first time; None: never."""
    owner: dict[int, int] = {}  # descriptor -> the seq of the accept
    asked: dict[Any, int] = {}  # the seq of a TimerSet -> the connection that it was made for
    fired = {step.seq: step.cause for step in trace.where(kind="TimerFired")}
    for call in calls(trace):
        inside: list[Any] = [trace[number - 1] for number in call]
        kinds = [step.kind for step in inside]
        start = inside[kinds[0] == "TimerFired"]
        found = False
        if server_class is Crosstalk:
            found = any(s.kind == "Wrote" and s.fd != start.fd for s in inside)
        elif server_class is ForgottenClient:
            found = kinds.count("Accepted") > kinds.count("Registered")
        elif server_class is IdleLoop:
            found = start.kind == "TaskStarted" and "TaskQueued" in kinds and "Wrote" not in kinds
        elif server_class is LostReply:
            read = sum(s.count for s in inside if s.kind == "Read")
            found = 0 < sum(s.count for s in inside if s.kind == "Wrote") < read
        elif server_class is LateReply:
            wrote = [s for s in inside if s.kind == "Wrote" and start.kind == "TaskStarted"]
            found = any(owner[s.fd] != asked[fired.get(start.cause)] for s in wrote)
        if found:
            return call
        for step in inside:
            if step.kind == "Accepted":
                owner[step.new_fd] = step.seq
            elif step.kind == "TimerSet":
                asked[step.seq] = owner[start.fd]
    return None


NAMES = {
    LineServer: "none",
    Crosstalk: "crosstalk",
    ForgottenClient: "forgotten client",
    IdleLoop: "idle loop",
    LateReply: "late reply",
    LostReply: "lost reply",
}


def main() -> int:
    """Write the recordings; return 1 when the notebook names other steps."""
    (path,) = FOLDER.glob("*.ipynb")
    notebook = "\n".join(
        "".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    )
    differs = 0
    for name, (server_class, script) in RECORDINGS.items():
        trace = recorded(server_class, script)
        file = FOLDER / f"{name if name == 'practice' else f'recording-{name}'}.jsonl"
        trace.save(file)
        shown = first_shown(server_class, trace)
        kind = NAMES[server_class]
        steps = f"range({shown[0]}, {shown[-1] + 1})" if shown else "[None]"
        key = f'right, steps = "{kind}", {steps}'
        if name == "practice" and shown:
            key = f"`{kind}`, and it shows first in steps {shown[0]} to {shown[-1]}"
        missing = key not in notebook
        differs |= missing
        size = file.stat().st_size
        found = list(tracer.lint(trace))
        assert len(trace) < 400, len(trace)
        assert size < 60_000, size
        assert not found, found
        print(
            f"{file.name}: {len(trace)} steps, {size:,} bytes; {key}"
            + ("  <- the notebook says something else" if missing else "")
        )
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
