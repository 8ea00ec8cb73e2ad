"""`serving(path)`: a student's server in a process of its own, with clients around it."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from tracer import kernel_view
from tracer.classroom.clients import PATIENCE, Client
from tracer.classroom.processes import SECONDS, Child, Unwritten
from tracer.classroom.wrong import Wrong
from tracer.replay import Replay
from tracer.steps import Accepted, DispatchEnded, Read, TaskEnded, Wrote
from tracer.trace import Trace, TraceFormatError, load

NARROW_BUFFER = 8192
NARROW_SEGMENT = 1460
"""Bytes: what the kernel keeps unread for a narrow client, and what it sends in one packet."""


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

    def connect(self, *, narrow: bool = False) -> Client:
        """Connect another client.

        While a client does not read, the kernel keeps some megabytes for it, of a `narrow` one
        some 100 kB: then the server soon has to keep the rest itself.
        """
        name = f"client {len(self.clients) + 1}"
        patience = max(0.1, min(PATIENCE, self.deadline - time.monotonic()))
        sock = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET)
        try:
            if narrow:  # both count when the connection is made; the server's side adapts
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BUFFER)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, NARROW_SEGMENT)
            sock.settimeout(patience)
            sock.connect(self.address)
        except OSError as error:
            sock.close()
            hint = "Python closes a socket that nothing refers to any more: keep the listener."
            refused = isinstance(error, ConnectionRefusedError)
            self.fail(f"{name} could not connect: {error}." + (f" {hint}" if refused else ""))
        client = Client(self, sock, name)
        self.clients.append(client)
        return client

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the server's process stand still meanwhile.

        When it goes on, everything that clients did has arrived together: no server is so quick
        that it sees one thing before the other, and no machine so slow that it does not.
        """
        self._child.hold()
        try:
            yield
        finally:
            self._child.go_on()

    def unread(self, client: Client) -> int | None:
        """Return how many bytes of `client` arrived and were not read by the server.

        Asked of the kernel. None where the system does not tell, or no longer; Linux does: proc(5).
        """
        row = self._row(client)
        return None if row is None else int(row[4].partition(":")[2], 16)

    def watches(self, client: Client) -> bool:
        """Whether the connection of `client` is on the kernel's list; true where it can't tell."""
        listed, row = self.interest(), self._row(client)
        if listed is None:
            return True
        process = f"/proc/{self._child.process.pid}"
        try:
            return row is not None and f"socket:[{row[9]}]" in {
                os.readlink(f"{process}/fd/{fd}") for fd in listed
            }
        except OSError:  # closed meanwhile
            return False

    def interest(self) -> dict[int, int] | None:
        """Return what the kernel has on the server's interest list: the mask of each socket.

        Asked from outside, so the program can't answer in its place. None where the system does not
        tell; Linux does: proc(5).
        """
        process = self._child.process.pid
        kinds: dict[int, str] = {}
        try:
            for link in Path(f"/proc/{process}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed meanwhile
                    kinds[int(link.name)] = os.readlink(link)
        except OSError:
            return None
        found: dict[int, int] = {}
        for fd, kind in kinds.items():
            if kind == "anon_inode:[eventpoll]":
                listed = kernel_view.interest_list(fd, process)
                if listed is None:
                    return None
                found |= listed
        return {fd: mask for fd, mask in found.items() if kinds.get(fd, "").startswith("socket:")}

    def wait_until(
        self, condition: Callable[[], object], otherwise: str | Callable[[], str]
    ) -> None:
        """Wait until `condition` holds; when it does not in time, that is `Wrong`."""
        end = min(time.monotonic() + PATIENCE, self.deadline)
        while not condition():
            if time.monotonic() > end or self._child.process.poll() is not None:
                self.fail(otherwise if isinstance(otherwise, str) else otherwise())
            time.sleep(0.01)

    def wait_for_sockets(self, count: int) -> None:
        """Wait until the server's interest list holds so many sockets, the listener included."""
        listed = count

        def reached() -> bool:
            nonlocal listed
            found = self.interest()
            listed = count if found is None else len(found)
            return listed == count

        def otherwise() -> str:
            return (
                f"The kernel's interest list should hold {count} sockets now, the listener "
                f"included, and holds {listed}."
            )

        self.wait_until(reached, otherwise)

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

    def _row(self, client: Client) -> list[str] | None:
        """What the kernel's table of connections says about the server's end of this one."""
        ports = f":{self.address[1]:04X}", f":{client.address[1]:04X}"
        for family in ("tcp", "tcp6"):
            try:
                table = Path(f"/proc/{self._child.process.pid}/net", family).read_text()
            except OSError:
                continue
            for row in map(str.split, table.splitlines()[1:]):
                if row[1].endswith(ports[0]) and row[2].endswith(ports[1]):
                    return row
        return None

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
