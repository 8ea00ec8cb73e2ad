"""A student's program, run and looked at from outside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tracer
from tests.test_diff import served
from tracer import classroom
from tracer.classroom import clients, servers
from tracer.steps import Wrote

ECHO = """
import socket
import netpoll

class EchoServer:
    def __init__(self, poller):
        self.poller = poller
        self.connections = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    def accept(self, fd, event, flags):
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poller.add_read(netpoll.PollAttachment(connection, self.echo))

    def echo(self, fd, event, flags):
        connection = self.connections[fd]
        try:
            data = connection.recv(4096)
        except OSError:
            data = b""
        if data:
            connection.send(data)
        else:
            self.poller.delete(fd)
            self.connections.pop(fd).close()

def start(poller):
    return EchoServer(poller).listener.getsockname()
"""

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients do not wait long for what will not come."""
    for module in (clients, servers):
        monkeypatch.setattr(module, "PATIENCE", 1.5)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a student's file and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "answer.py"
        path.write_text(text)
        return path

    return write


def said(path: Path) -> str:
    """Return what is wrong with a server that a client says hello to."""
    with pytest.raises(classroom.Wrong) as wrong:
        greet(path)
    return str(wrong.value)


def greet(path: Path) -> None:
    with classroom.serving(path, seconds=10) as server:
        client = server.connect()
        client.send(b"hello")
        client.expect(b"hello")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


# ---- what works ---------------------------------------------------------------------------------


def test_server_is_run_and_recorded(write: Write) -> None:
    """Clients are served by another process, and its recording has what they did."""
    before = descriptors()
    with classroom.serving(write(ECHO)) as server:
        client, other = server.connect(), server.connect()
        client.send(b"hello")
        client.expect(b"hello")
        data = os.urandom(20_000)
        other.same(other.exchange(data), data)
        other.expect_nothing()
        other.half_close()
        other.expect_end()
        client.reset()
        server.wait_for_sockets(1)
    assert server.trace is not None
    tracer.expect(server.trace).every_accepted_descriptor_is_closed().no_findings()
    assert server.trace.where(callback="echo")
    assert descriptors() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells another's interest list")
def test_interest_list_is_read_from_outside(write: Write) -> None:
    """The kernel's own list has the server's sockets and their modes, and not its wakeup."""
    edge = ECHO.replace("self.echo)", "self.echo), edge_triggered=True")
    with classroom.serving(write(edge)) as server:
        server.connect()
        server.wait_for_sockets(2)
        masks = sorted(mask >> 31 for mask in (server.interest() or {}).values())
    assert masks == [0, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what lies unread")
def test_what_the_server_has_read_is_known_from_outside(write: Write) -> None:
    """A client can wait until it is registered, and until all that it sent was read."""
    with classroom.serving(write(ECHO)) as server:
        client = server.connect()
        client.wait_until_registered()
        with server.held():
            client.send(b"hello")
            assert server.unread(client) == 5
        client.wait_until_read()
        assert server.unread(client) == 0
        client.expect(b"hello")
        client.close()
        server.wait_for_sockets(1)
        assert not server.watches(client)
        assert server.unread(client) in (0, None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what lies unread")
def test_a_server_that_stops_reading_is_told_so(write: Write) -> None:
    """Bytes that the server leaves in the kernel are counted in the sentence."""
    deaf = ECHO.replace("connection.recv(4096)", "b'x'")
    with pytest.raises(classroom.Wrong, match=r"2 of them lie unread in the kernel"):
        leave_unread(write(deaf))


def leave_unread(path: Path) -> None:
    with classroom.serving(path) as server:
        client = server.connect()
        client.send(b"hi")
        client.wait_until_read()


def test_what_happens_while_the_server_is_held_arrives_together(write: Write) -> None:
    """Clients that knock while the process stands still are one event for it."""
    everybody = ECHO.replace(
        "        connection, _ = self.listener.accept()\n",
        "        while True:\n"
        "            try:\n"
        "                self.take()\n"
        "            except BlockingIOError:\n"
        "                return\n\n"
        "    def take(self):\n"
        "        connection, _ = self.listener.accept()\n",
    )
    with classroom.serving(write(everybody)) as server:
        with server.held():
            clients = [server.connect() for _ in range(5)]
        for client in clients:
            client.send(b"x")
            client.expect(b"x")
    assert server.trace is not None
    assert len(server.trace.where(kind="DispatchStarted", callback="accept")) == 1
    assert len(server.trace.where(kind="Accepted")) == 5


def test_a_narrow_client_is_soon_full(write: Write) -> None:
    """The kernel keeps much less for a narrow client that does not read."""
    flood = ECHO.replace("connection.send(data)", "self.sent = connection.send(bytes(50_000_000))")
    counts = []
    for narrow in (False, True):
        with classroom.serving(write(flood)) as server:
            client = server.connect(narrow=narrow)
            client.send(b"x")
            client.receive(1)
        assert server.trace is not None
        counts.append(sum(step.count for step in server.trace if isinstance(step, Wrote)))
    assert counts[1] < counts[0] / 4


def test_function_is_called_with_traces_and_values(write: Write) -> None:
    """A student's function gets a trace as a trace, and its answer comes back."""
    path = write(
        "def find(trace, kind):\n    return [step.seq for step in trace.where(kind=kind)]\n"
    )
    trace = served("epoll")
    answer = classroom.call(path, "find", trace, "WaitStarted")
    assert answer == [step.seq for step in trace.where(kind="WaitStarted")] != []


# ---- what is wrong ------------------------------------------------------------------------------

WRONG = {
    "it does not answer": (
        ECHO.replace("connection.send(data)", "pass"),
        "client 1 waited for 5 bytes, and nothing came",
    ),
    "it answers something else": (
        ECHO.replace("send(data)", "send(data.upper())"),
        r"client 1 expected b'hello' and got b'HELLO'",
    ),
    "it answers too little": (
        ECHO.replace("send(data)", "send(data[:2])"),
        "waited for 5 bytes, and only 2 bytes came",
    ),
    "it is not written yet": (
        ECHO.replace(
            "data = connection", "raise NotImplementedError\n            data = connection"
        ),
        "line 22, this part is not written yet",
    ),
    "a callback raises": (
        ECHO.replace("send(data)", "send(dato)"),
        "raised an error: NameError",
    ),
    "it hangs in a callback": (
        ECHO.replace("connection.send(data)", "\n            while True: pass"),
        "still in echo(), line 27: while True: pass",
    ),
    "it ends": (
        ECHO.replace("connection.send(data)", "raise SystemExit(3)"),
        "The server has ended: answer.py, line 26, raised SystemExit: 3",
    ),
    "it runs out of stack": (
        ECHO.replace(
            "connection.send(data)", "self.echo(fd, event, flags) or connection.send(data)"
        ),
        "client 1 waited for 5 bytes",
    ),
    "start does not return": (
        ECHO.replace("return EchoServer(poller)", "EchoServer(poller); poller.polling()"),
        "start() in answer.py did not return",
    ),
    "start returns nothing": (ECHO.replace("return Echo", "Echo"), "start() returned None"),
    "there is no start": (ECHO.replace("def start", "def begin"), "no function start()"),
    "the listener is lost": (
        "import socket\ndef start(poller):\n"
        "    return socket.create_server(('127.0.0.1', 0)).getsockname()",
        "keep the listener",
    ),
    "it is no Python": ("def start(poller:\n", "line 1, is no Python"),
    "it reads behind the recorder's back": (
        ECHO.replace("connection.recv(4096)", "socket.SocketType.recv(connection, 4096)").replace(
            "connection.send(data)", "socket.SocketType.send(connection, data)"
        ),
        "does not fit what was seen from outside: client 1 sent 5 bytes and got 5",
    ),
    "it imports the recorder": ("import tracer\n" + ECHO, "line 1, imports tracer"),
    "it imports it from behind": ("from socket import os\n" + ECHO, "imports os"),
    "it looks around": (ECHO + "\nECHO = socket.os\n", "uses .os"),
    "it climbs": (ECHO + "\nx = ().__class__\n", "uses .__class__"),
    "it evaluates": (ECHO + "\neval('1')\n", "uses eval"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_server_is_told_why(name: str, write: Write) -> None:
    """Each mistake ends in a sentence that names it, and nothing is left running or open."""
    before = descriptors()
    text, expected = WRONG[name]
    assert expected in said(write(text))
    assert descriptors() == before


def test_missing_file_is_told(tmp_path: Path) -> None:
    """Who never ran the cell is told to run it."""
    assert "Run the cell that begins with %%writefile answer.py" in said(tmp_path / "answer.py")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def find(): return 1 / 0", "line 1, raised ZeroDivisionError"),
        ("def find():\n    while True:\n        pass", "It is still in find(), line"),
        ("def find(): return {1, 2}", "raised TypeError"),
        ("import time\ndef find(): time.sleep(60)", "It is still in find(), line 2"),
        ("def find(): return 'x' * 5_000_000", "far more than was asked for"),
        ("def find(): return [0] * (1 << 40)", "raised MemoryError"),
        ("def other(): pass", "no function find()"),
    ],
)
def test_wrong_function_is_told_why(text: str, expected: str, write: Write) -> None:
    """A function that raises, hangs or answers nonsense is told so; the caller goes on."""
    before = descriptors()
    with pytest.raises(classroom.Wrong) as wrong:
        classroom.call(write(text), "find", seconds=2)
    assert expected in str(wrong.value)
    assert descriptors() == before


def test_forged_client_is_noticed(write: Write) -> None:
    """A recording with a client that never was does not count."""
    visitor = (
        "        self.guest = socket.create_connection(self.listener.getsockname())\n"
        "        poller.add_read"
    )
    text = ECHO.replace(
        "        poller.add_read(netpoll.PollAttachment(self.listener",
        visitor + "(netpoll.PollAttachment(self.listener",
    )
    assert "it shows a client" in said(write(text))


def test_other_exceptions_come_out_as_they_are(write: Write) -> None:
    """A grader's own error inside `serving` is no student's mistake; the server is ended."""
    serving = classroom.serving(write(ECHO))
    server = serving.__enter__()
    error = ZeroDivisionError()
    assert not serving.__exit__(type(error), error, None)
    assert server.trace is not None


def test_wrong_shows_as_its_text_alone() -> None:
    """In a notebook a student sees the sentence, and no traceback of the grader."""
    assert classroom.Wrong("one\ntwo")._render_traceback_() == ["one", "two"]
