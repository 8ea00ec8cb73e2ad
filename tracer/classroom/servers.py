"""`serving(path)`: a student's server in a process of its own, with clients around it."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tracer.classroom.clients import PATIENCE, Client
from tracer.classroom.processes import SECONDS, Child, Unwritten
from tracer.classroom.wrong import Wrong
from tracer.replay import Replay
from tracer.steps import Accepted, DispatchEnded, Read, TaskEnded, Wrote
from tracer.trace import Trace, TraceFormatError, load


@contextmanager
def serving(
    path: str | os.PathLike[str], *, function: str = "start", seconds: float = SECONDS
) -> Iterator[Server]:
    """Start the server in a student's file; afterwards its recording is in `Server.trace`.

    ``start(poller)`` in the file registers the server and returns its address; the loop is run, and
    recorded, around it. On leaving, the server is stopped, and its recording has to agree with what
    the clients and the kernel saw. Raises `Wrong` for whatever the server does wrong, also when it
    needs more than `seconds` for everything.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        server = Server(Path(path), folder, function, seconds)
        try:
            server._begin()
            yield server
            server._end()
        finally:
            server._close()


class Server:
    """A student's server that runs. Made by `serving`.

    `address` is where it listens; `clients` are those that connected; `trace` is its recording,
    complete when it has ended; `deadline` is when its time is over (`time.monotonic`).
    """

    def __init__(self, path: Path, folder: str, function: str, seconds: float) -> None:
        self.address: tuple[str, int] = ("", 0)
        self.clients: list[Client] = []
        self.trace: Trace | None = None
        self.deadline = time.monotonic() + seconds
        self._file = Path(folder, "trace.jsonl")
        self._child = Child(path, folder, seconds, (), function=function, trace=str(self._file))

    def connect(self) -> Client:
        """Connect another client."""
        name = f"client {len(self.clients) + 1}"
        patience = max(0.1, min(PATIENCE, self.deadline - time.monotonic()))
        try:
            sock = socket.create_connection(self.address, timeout=patience)
        except OSError as error:
            hint = "Python closes a socket that nothing refers to any more: keep the listener."
            refused = isinstance(error, ConnectionRefusedError)
            self.fail(f"{name} could not connect: {error}." + (f" {hint}" if refused else ""))
        client = Client(self, sock, name)
        self.clients.append(client)
        return client

    def interest(self) -> dict[int, int] | None:
        """Return what the kernel has on the server's interest list: the mask of each socket.

        Asked from outside, so the program can't answer in its place. None where the system does not
        tell; Linux does: proc(5).
        """
        process = Path(f"/proc/{self._child.process.pid}")
        found: dict[int, int] = {}
        try:
            kinds = {int(link.name): os.readlink(link) for link in (process / "fd").iterdir()}
            for fd, kind in kinds.items():
                if kind == "anon_inode:[eventpoll]":
                    text = (process / "fdinfo" / str(fd)).read_text()
                    for number, mask in re.findall(r"tfd: *(\d+) events: *([0-9a-f]+)", text):
                        if kinds.get(int(number), "").startswith("socket:"):
                            found[int(number)] = int(mask, 16)
        except OSError:
            return None
        return found

    def wait_until(self, condition: Callable[[], object], otherwise: str) -> None:
        """Wait until `condition` holds; when it does not in time, that is `Wrong`."""
        end = min(time.monotonic() + PATIENCE, self.deadline)
        while not condition():
            if time.monotonic() > end or self._child.process.poll() is not None:
                self.fail(otherwise)
            time.sleep(0.01)

    def wait_for_sockets(self, count: int) -> None:
        """Wait until the server's interest list holds so many sockets, the listener included."""

        def reached() -> bool:
            listed = self.interest()
            return listed is None or len(listed) == count

        listed = self.interest() or {}
        self.wait_until(
            reached,
            f"With {count - 1} connections left, the kernel's interest list still has "
            f"{len(listed) - 1}.",
        )

    def fail(self, what: str) -> NoReturn:
        """Raise `Wrong`: what happened, and what the server did last."""
        report = self._child.report(time.monotonic() + 0.2)
        where = self._child.where_it_is() if report is None else ""
        self._look()
        ended = ""
        try:
            self._child.raise_error({"ended": True} if report is None else report)
        except Unwritten:
            raise
        except Wrong as wrong:
            ended = f"The server has ended: {wrong}"
        raise Wrong("\n".join(filter(None, [what, ended, where, *self._last_steps()])))

    # ---- inside ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        report = self._child.report(min(time.monotonic() + PATIENCE, self.deadline))
        if report is None:
            self.fail(
                f"start() in {self._child.name} did not return: it registers what is to be "
                "watched, and must not wait for anything itself."
            )
        self._child.raise_error(report)
        host, port = report["address"]
        self.address = (str(host), int(port))

    def _end(self) -> None:
        self._compare_with_kernel()
        self._child.end_input()
        report = self._child.report(min(time.monotonic() + PATIENCE, self.deadline))
        if report is None:
            self.fail("The loop did not come back from a callback when it was asked to end.")
        self._look()
        self._child.raise_error(report)
        if self.trace is None:
            raise Wrong("There is no recording of this server: leave the recorder alone.")
        self._compare_with_clients()

    def _close(self) -> None:
        for client in self.clients:
            client.close()
        self._child.kill()
        if self.trace is None:
            self._look()

    def _look(self) -> None:
        """Read the recording, as far as it goes."""
        try:
            self.trace = load(self._file)
        except (OSError, TraceFormatError):
            self.trace = None

    def _last_steps(self) -> Iterator[str]:
        """What the recording shows at its end, in words."""
        trace = self.trace
        if trace is None or not len(trace):
            return
        replay = Replay(trace)
        raised = [
            index
            for index, step in enumerate(trace)
            if isinstance(step, (DispatchEnded, TaskEnded)) and step.error
        ]
        if raised:
            yield f"Step {raised[-1] + 1} of its recording: {replay.sentence(raised[-1])}"
        if raised[-1:] != [len(trace) - 1]:
            said = replay.sentence(len(trace) - 1)
            yield f"The last step of its recording, number {len(trace):,}: {said}"

    def _compare_with_kernel(self) -> None:
        """What the kernel watches has to be what the recording says is registered."""

        def agree() -> bool:
            listed = self.interest()
            self._look()
            if listed is None or self.trace is None:
                return True
            state = Replay(self.trace).state(len(self.trace) - 1)
            rows = {row.fd: row.edge_triggered for row in state.registrations.values()}
            return all(rows.get(fd) == bool(mask >> 31 & 1) for fd, mask in listed.items())

        self.wait_until(agree, FORGED.format("the kernel watches other sockets than it shows"))

    def _compare_with_clients(self) -> None:
        """Each client has to be in the recording, with as many bytes as it sent and got."""
        assert self.trace is not None
        totals: dict[str, list[int]] = {}
        current: dict[int, list[int]] = {}
        for step in self.trace:
            if isinstance(step, Accepted) and step.new_fd is not None:
                current[step.new_fd] = totals[step.peer] = [0, 0]
            elif isinstance(step, (Read, Wrote)) and step.error is None and step.fd in current:
                current[step.fd][isinstance(step, Wrote)] += step.count
        known = {
            f"{host}:{port}": client for client in self.clients for host, port in [client.address]
        }
        for peer in totals.keys() - known.keys():
            raise Wrong(FORGED.format(f"it shows a client {peer}, and there was none"))
        for peer, client in known.items():
            read, wrote = totals.get(peer, [0, 0])
            if read > client.sent or wrote < client.received:
                seen = f"{client.name} sent {client.sent:,} bytes and got {client.received:,}"
                shown = f"it shows {read:,} read and {wrote:,} written"
                raise Wrong(FORGED.format(f"{seen}, and {shown}"))


FORGED = (
    "The recording of this server does not fit what was seen from outside: {}. Serve every client "
    "through the poller and the methods of its socket, and leave the recorder alone."
)
