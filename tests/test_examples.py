"""The examples: as programs that are started and interrupted, and as servers in a thread."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib
import io
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netpoll
from netpoll import sockets
from netpoll.examples import chat_server, client, echo_server, http_server, serving
from netpoll.examples.chat_server import ChatServer
from netpoll.examples.client import Client
from netpoll.examples.echo_server import EchoServer
from netpoll.examples.http_server import HttpServer
from netpoll.examples.udp_echo import UdpEcho

SERVERS = ["chat_server", "echo_server", "http_server", "udp_echo"]
PATIENCE = 1000.0  # seconds; so that no test passes because a server lost its patience
LONG = 20.0  # seconds; no test waits so long unless something is broken
PATTERN = bytes(range(251)) * 4200  # about a megabyte, and no power of two repeats in it


# ---- programs ---------------------------------------------------------------------------------


class Program:
    """A running example: its process and, for a server, the port that it announced."""

    def __init__(self, module: str, *options: str, stdin: int | io.BufferedReader | None) -> None:
        command = [sys.executable, "-X", "dev", "-W", "error", "-m", f"netpoll.examples.{module}"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*command, *options], stdin=stdin, stdout=pipe, stderr=pipe, text=True
        )
        self.killer = threading.Timer(LONG, self.process.kill)
        self.killer.start()
        self.port = 0

    def line(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupt(self) -> None:
        """Press Ctrl-C, and wait until the program says that it is ending."""
        self.process.send_signal(signal.SIGINT)
        assert self.line() == "\n"
        assert "Ctrl-C again" in self.line()

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return exit status, the rest of the output, and the errors."""
        output, errors = self.process.communicate(timeout=LONG)
        return self.process.returncode, output, errors

    def close(self) -> None:
        self.killer.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Start(Protocol):
    def __call__(
        self, module: str, *options: str, stdin: int | io.BufferedReader | None = None
    ) -> Program: ...


@pytest.fixture
def start(stack: ExitStack) -> Start:
    """Start an example and read what it announces, unless it is the client."""

    def start(module: str, *options: str, stdin: int | io.BufferedReader | None = None) -> Program:
        if module != "client":
            options = ("--port", "0", "--grace", "1000", *options)
        program = stack.enter_context(
            contextlib.closing(Program(module, *options, stdin=stdin or subprocess.DEVNULL))
        )
        if module != "client":
            announced = program.line()
            match = re.search(r" on (http://)?127\.0\.0\.1:(\d+)/?; Ctrl-C ends it$", announced)
            assert match, announced + program.end()[2]
            program.port = int(match[2])
        return program

    return start


def run(module: str, *options: str) -> tuple[int, str, str]:
    """Run an example that ends by itself; return exit status, output and errors."""
    with contextlib.closing(Program(module, *options, stdin=subprocess.DEVNULL)) as program:
        return program.end()


# ---- servers in a thread, and their clients ---------------------------------------------------

S = TypeVar("S", EchoServer, ChatServer, HttpServer, UdpEcho)


@contextlib.contextmanager
def serving_in_thread(
    make: Callable[[netpoll.Poller], S], ended: threading.Event | None = None
) -> Iterator[S]:
    """Run a server; no exception may reach its loop. `ended` is set when the loop is left."""
    errors: list[Exception] = []
    poller = netpoll.open_poller(on_error=lambda source, error: errors.append(error))
    server = make(poller)

    def on_end() -> None:
        server.close()
        if ended is not None:
            ended.set()

    with netpoll.run_in_thread(poller, name="test_examples", on_end=on_end):
        yield server
    assert errors == []


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with serving_in_thread(EchoServer) as server:
        yield server


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with serving_in_thread(ChatServer) as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder to serve, and beside it what must not be served."""
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "index.html").write_text("<p>hello")
    (root / "sub" / "index.html").write_text("<p>sub")
    (root / "a b é.txt").write_text("spaces")
    (root / "nothing.bin").write_bytes(b"")
    (root / "link.txt").symlink_to("../secret.txt")
    (root / "up").symlink_to("..")
    (root / "inside").symlink_to("sub")
    (root / "loop").symlink_to("loop")
    (root / "astray").mkdir()
    (root / "astray" / "index.html").symlink_to("../../secret.txt")
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def big(root: Path) -> bytes:
    """What is in the file big.bin: more than the kernel keeps for one who does not read."""
    data = PATTERN * 16
    (root / "big.bin").write_bytes(data)
    return data


@pytest.fixture
def web(root: Path) -> Iterator[HttpServer]:
    with serving_in_thread(lambda poller: HttpServer(poller, root, timeout=PATIENCE)) as server:
        yield server


def in_loop(poller: netpoll.Poller, func: Callable[[], object] = lambda: None) -> None:
    """Call `func` in the loop's thread and wait for that."""
    done = threading.Event()

    def call(_: object) -> None:
        func()
        done.set()

    poller.trigger(netpoll.EventPriority.HIGH, call)
    assert done.wait(LONG)


def settle(poller: netpoll.Poller) -> None:
    """Wait until the loop has seen what was sent before: it waits once between two tasks."""
    in_loop(poller)
    in_loop(poller)


def rest(poller: netpoll.Poller) -> None:
    """Run a loop that nobody else runs until nothing is left to do; it must come to rest."""
    for _ in range(10_000):
        if poller.poll_once(0) == 0:
            return
    pytest.fail("something is always ready")


def trickle(sock: socket.socket, poller: netpoll.Poller) -> Iterator[bytes]:
    """Yield what comes, to the end of the stream, and run the loop in between.

    The kernel may take a moment to make room for the other end, so the loop waits a little.
    """
    sock.settimeout(0)
    for _ in range(20_000):
        poller.poll_once(0.001)
        with contextlib.suppress(BlockingIOError):
            piece = sock.recv(100_000)
            yield piece
            if not piece:
                return
    pytest.fail("nothing more comes, and no end")


def connect(address: tuple[str, int] | int, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(LONG)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        sock.connect(("127.0.0.1", address) if isinstance(address, int) else address)
    except OSError:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes, fewer at the end of the stream."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(min(size - len(data), 1 << 20))):
        data += piece
    return bytes(data)


def receive_all(sock: socket.socket) -> bytes:
    return receive(sock, sys.maxsize)


def hang_up(sock: socket.socket) -> None:
    """Close without a goodbye: the other end gets ECONNRESET."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def assert_refused(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(port).close()


def only(values: Any) -> Any:
    (value,) = values
    return value


# ---- all programs -----------------------------------------------------------------------------


Outcome = tuple[object, str, str]


@pytest.fixture
def outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a program here that exits at once: what it gives `sys.exit`, its output and errors."""

    def outcome(module: str, *options: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", [module, *options])
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(f"netpoll.examples.{module}").main()
        return caught.value.code, *capsys.readouterr()

    return outcome


@pytest.mark.parametrize("module", [*SERVERS, "client"])
def test_help(module: str, outcome: Callable[..., Outcome]) -> None:
    """--help tells how the program is called."""
    status, output, errors = outcome(module, "--help")
    assert (status, errors) == (0, "")
    assert f"usage: python -m netpoll.examples.{module} " in output
    assert "--port" in output


@pytest.mark.parametrize(
    ("module", "number"),
    [*[(module, signal.SIGINT) for module in SERVERS], ("echo_server", signal.SIGTERM)],
)
def test_ends_in_order(module: str, number: signal.Signals, start: Start) -> None:
    """Without clients, Ctrl-C and SIGTERM end a server at once: status 0, nothing to complain."""
    program = start(module)
    program.process.send_signal(number)
    status, _, errors = program.end()
    assert (status, errors) == (0, "")


def test_port_is_taken() -> None:
    """An address that can't be had is one line on standard error and status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, output, errors = run("echo_server", "--port", str(taken.getsockname()[1]))
    assert (status, output) == (1, "")
    assert re.fullmatch(r".*can't listen on 127\.0\.0\.1:\d+: Address already in use.*\n", errors)


@pytest.mark.parametrize("module", SERVERS)
def test_port_is_taken_from_any_server(module: str, outcome: Callable[..., Outcome]) -> None:
    """So it is with every server; a message given to `sys.exit` is printed, with status 1."""
    kind = socket.SOCK_DGRAM if module == "udp_echo" else socket.SOCK_STREAM
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        message, output, errors = outcome(module, "--port", str(taken.getsockname()[1]))
    assert f"{module}: can't listen on 127.0.0.1:" in str(message)
    assert (output, errors) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["echo_server", "--port", "65536"], "'65536' is no port"),
        (["echo_server", "--grace", "-1"], "'-1' is no number of seconds"),
        (["http_server", "/no/such/folder"], "'/no/such/folder' is no folder"),
        (["client", "--connections", "2"], "--connections needs --count"),
        (["client", "--count", "0"], "'0' is no number from 1"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], complaint: str, outcome: Callable[..., Outcome]
) -> None:
    """A wrong argument is named on standard error, with status 2."""
    status, output, errors = outcome(*arguments)
    assert (status, output) == (2, "")
    assert complaint in errors.splitlines()[-1]


@pytest.mark.parametrize("text", ["nan", "inf", "0", "x", ""])
def test_no_number_of_seconds(text: str) -> None:
    """A time is a positive number."""
    with pytest.raises(argparse.ArgumentTypeError):
        serving.seconds(text)


def test_addresses_are_written_as_usual() -> None:
    """An IPv6 address stands in brackets."""
    assert serving.host_and_port(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert serving.host_and_port(("::1", 80)) == "[::1]:80"


def test_second_interrupt_ends_at_once(start: Start) -> None:
    """With a client that keeps the server waiting, the second Ctrl-C is the end."""
    program = start("echo_server")
    with connect(program.port) as stalled:
        fill(stalled)
        program.interrupt()
        program.process.send_signal(signal.SIGINT)
        status, _, errors = program.end()
    assert (status, errors) == (-signal.SIGINT, "")


@pytest.mark.parametrize("module", ["echo_server", "http_server"])
def test_waits_no_longer_than_the_grace(module: str, start: Start, root: Path, big: bytes) -> None:
    """A client that never reads does not keep a server from ending, with status 0."""
    options = [str(root)] if module == "http_server" else []
    program = start(module, "--grace", "0.1", *options)
    with connect(program.port) as stalled:
        if module == "http_server":
            stalled.sendall(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            receive(stalled, 10_000)
        else:
            fill(stalled)
        program.interrupt()
        status, _, errors = program.end()
    assert (status, errors) == (0, "")


def fill(sock: socket.socket, poller: netpoll.Poller | None = None) -> bytes:
    """Send without reading until the server takes no more; return what was sent.

    A server in another process is given a moment, for there is nothing to tell that it waits.
    """
    data = PATTERN * 40
    sent, before = 0, -1
    sock.settimeout(0 if poller else 0.2)
    go_on = settle if poller and poller.running else rest
    while sent != before:
        before = sent
        with contextlib.suppress(BlockingIOError, TimeoutError):
            while sent < len(data):
                sent += sock.send(data[sent : sent + (1 << 20)])
        if poller:
            go_on(poller)
    sock.settimeout(LONG)
    assert sent < len(data)
    return data[:sent]


def test_interrupt_after_the_loop_has_ended(stack: ExitStack) -> None:
    """A Ctrl-C that comes when the poller is closed already does no harm."""
    for number in (signal.SIGINT, signal.SIGTERM):
        stack.callback(signal.signal, number, signal.getsignal(number))
    with netpoll.open_poller() as poller:
        serving.on_ctrl_c(poller, pytest.fail, 1)
    signal.raise_signal(signal.SIGINT)


# ---- the echo server --------------------------------------------------------------------------


def test_echo_finishes_a_transfer_after_an_interrupt(start: Start) -> None:
    """Ctrl-C in the middle of 20 MB: every byte comes back, newcomers are refused, status 0."""
    program = start("echo_server")
    data = PATTERN * 20
    with connect(program.port) as sock:
        sender = threading.Thread(target=sock.sendall, args=[data])
        sender.start()
        received = receive(sock, len(data) // 10)
        program.interrupt()
        assert_refused(program.port)
        received += receive(sock, len(data) - len(received))
        sender.join(LONG)
        assert received == data
    status, _, errors = program.end()
    assert (status, errors) == (0, "")


def test_echo_end_lets_the_quiet_go(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    """Shutting down, who is silent is let go; who talks, or has not read all, is not yet."""
    monkeypatch.setattr(echo_server, "QUIET_SECONDS", 1000)
    poller = stack.enter_context(netpoll.open_poller())
    server = stack.enter_context(contextlib.closing(EchoServer(poller)))
    silent, talks, stalled = (stack.enter_context(connect(server.address)) for _ in range(3))
    data = fill(stalled, poller)
    assert len(server.connections) == 3
    server.shut_down()
    talks.sendall(b"x")
    rest(poller)
    server.drop_the_quiet()
    assert silent.recv(1) == b""
    assert len(server.connections) == 2
    server.drop_the_quiet()
    assert talks.recv(2) + talks.recv(2) == b"x"
    assert len(server.connections) == 1
    received = b""
    for piece in trickle(stalled, poller):
        received += piece
        if len(received) == len(data):
            break
    assert received == data
    server.drop_the_quiet()
    server.drop_the_quiet()
    assert not server.connections
    poller.polling()  # returns: the last one has stopped it


def test_echo_end_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shutting down, a timer lets the silent go."""
    monkeypatch.setattr(echo_server, "QUIET_SECONDS", 0.02)
    ended = threading.Event()
    with serving_in_thread(EchoServer, ended) as server, connect(server.address) as silent:
        settle(server.poller)
        in_loop(server.poller, server.shut_down)
        assert silent.recv(1) == b""
        assert ended.wait(LONG)


def test_echo_server_ends_when_its_last_client_leaves(start: Start) -> None:
    """Nobody is waited for who has gone."""
    program = start("echo_server")
    with connect(program.port) as sock:
        fill(sock)
        program.interrupt()
        hang_up(sock)
    status, _, errors = program.end()
    assert (status, errors) == (0, "")


def test_echo_does_not_listen_to_who_does_not_read(stack: ExitStack) -> None:
    """Of such a client the server keeps one read and sleeps; it loses nothing."""
    poller = stack.enter_context(netpoll.open_poller())
    server = stack.enter_context(contextlib.closing(EchoServer(poller)))
    sock = stack.enter_context(connect(server.address, receive_buffer=65536))
    rest(poller)
    (connection,) = server.connections.values()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    data = fill(sock, poller)
    sock.shutdown(socket.SHUT_WR)
    rest(poller)
    (outbound,) = server.outbound.values()
    assert 0 < len(outbound) <= 65536
    received = b""
    for piece in trickle(sock, poller):
        received += piece
        assert len(outbound) <= 65536
    assert received == data
    assert not server.connections
    assert not server.outbound
    assert list(poller.attachments) == [server.listener.fileno()]


def test_echo_survives_a_client_that_hangs_up(echo: EchoServer) -> None:
    """A connection reset, with bytes pending or without, is that client's own affair."""
    with connect(echo.address) as other:
        hasty = connect(echo.address)
        hasty.sendall(b"x")
        receive(hasty, 1)
        hang_up(hasty)
        stalled = connect(echo.address)
        fill(stalled, echo.poller)
        hang_up(stalled)
        other.sendall(b"still there?")
        assert receive(other, 12) == b"still there?"
        settle(echo.poller)
        assert len(echo.connections) == 1


# ---- UDP --------------------------------------------------------------------------------------


def udp_client(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.settimeout(LONG)
    sock.connect(address)
    return sock


def test_udp_program(start: Start) -> None:
    """The program sends datagrams back, each to its own sender, also empty and large ones."""
    address = ("127.0.0.1", start("udp_echo").port)
    with udp_client(address) as one, udp_client(address) as other:
        for datagram in (b"", b"hello", PATTERN[:60_000]):
            one.send(datagram)
            other.send(datagram + b"!")
            assert one.recv(65536) == datagram
            assert other.recv(65536) == datagram + b"!"


def test_udp_waits_for_room(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    """A datagram that the kernel does not take now is sent later; then the loop comes to rest."""
    poller = stack.enter_context(netpoll.open_poller())
    server = stack.enter_context(contextlib.closing(UdpEcho(poller)))
    sock = stack.enter_context(udp_client(server.address))
    write_to = sockets.write_to
    monkeypatch.setattr(sockets, "write_to", lambda *_: None)
    sock.send(b"one")
    assert poller.poll_once(LONG) == 1
    sock.send(b"two")
    assert poller.poll_once(LONG) == 1
    monkeypatch.setattr(sockets, "write_to", write_to)
    rest(poller)
    assert [sock.recv(9), sock.recv(9)] == [b"one", b"two"]


def test_udp_waits_for_room_alone(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    """It is sent also when no other datagram comes."""
    poller = stack.enter_context(netpoll.open_poller())
    server = stack.enter_context(contextlib.closing(UdpEcho(poller)))
    sock = stack.enter_context(udp_client(server.address))
    write_to = sockets.write_to
    monkeypatch.setattr(sockets, "write_to", lambda *_: None)
    sock.send(b"one")
    assert poller.poll_once(LONG) == 1
    monkeypatch.setattr(sockets, "write_to", write_to)
    rest(poller)
    assert sock.recv(9) == b"one"


def test_udp_sender_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that can't be sent is dropped; the next one is sent."""
    write_to = sockets.write_to
    problems: list[OSError] = [PermissionError("filtered")]

    def fail_once(sock: socket.socket, data: bytes, address: Any) -> int | None:
        if problems:
            raise problems.pop()
        return write_to(sock, data, address)

    monkeypatch.setattr(sockets, "write_to", fail_once)
    with serving_in_thread(UdpEcho) as server, udp_client(server.address) as sock:
        sock.send(b"lost")
        sock.send(b"answered")
        assert sock.recv(9) == b"answered"


@pytest.mark.parametrize("waiting", [0, 3])
def test_udp_answers_what_has_come_at_the_end(waiting: int, stack: ExitStack) -> None:
    """Shutting down, the datagrams that wait already are answered, and then the loop ends."""
    with netpoll.open_poller() as poller, contextlib.closing(UdpEcho(poller)) as server:
        sock = stack.enter_context(udp_client(server.address))
        for number in range(waiting):
            sock.send(b"%d" % number)
        server.shut_down()
        poller.polling()
        assert [sock.recv(9) for _ in range(waiting)] == [b"0", b"1", b"2"][:waiting]


def test_udp_end_does_not_wait_for_a_full_kernel(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """When the kernel takes no datagram, shutting down ends all the same."""
    monkeypatch.setattr(sockets, "write_to", lambda *_: None)
    with netpoll.open_poller() as poller, contextlib.closing(UdpEcho(poller)) as server:
        sock = stack.enter_context(udp_client(server.address))
        sock.send(b"one")
        sock.send(b"two")
        server.shut_down()
        poller.polling()
        assert server.unsent is not None
        assert server.unsent[0] == b"one"  # it tried this one, and gave up


# ---- chat -------------------------------------------------------------------------------------


class Chatter:
    """One who chats: a connection, read line by line."""

    def __init__(self, address: tuple[str, int] | int, name: str, receive_buffer: int = 0) -> None:
        self.socket = connect(address, receive_buffer)
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\n")
        assert "welcome" in self.hear()
        self.say(name)

    def say(self, line: str | bytes) -> None:
        self.socket.sendall(line.encode() + b"\n" if isinstance(line, str) else line)

    def hear(self) -> str:
        return self.lines.readline().removesuffix("\n")

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.fixture
def join(stack: ExitStack, chat: ChatServer) -> Callable[..., Chatter]:
    """Join the chat under a name."""

    def join(name: str, **options: int) -> Chatter:
        return stack.enter_context(contextlib.closing(Chatter(chat.address, name, **options)))

    return join


Join = Callable[..., Chatter]


def test_chat(join: Join, chat: ChatServer) -> None:
    """Joins, lines and leaves reach all others who have a name, and not the one who makes them."""
    nameless = connect(chat.address)
    ann = join("ann")
    assert ann.hear() == "* you are ann; here: nobody else"
    bob = join("bob")
    assert bob.hear() == "* you are bob; here: ann"
    cleo = join("cleo")
    assert cleo.hear() == "* you are cleo; here: ann, bob"
    assert [ann.hear(), ann.hear(), bob.hear()] == [
        "* bob joined",
        "* cleo joined",
        "* cleo joined",
    ]
    ann.say("hello\r\nhow are you?")
    for other in (bob, cleo):
        assert [other.hear(), other.hear()] == ["ann: hello", "ann: how are you?"]
    bob.say("fine")
    assert ann.hear() == "bob: fine"
    assert cleo.hear() == "bob: fine"
    bob.close()
    assert ann.hear() == cleo.hear() == "* bob left"
    with nameless:
        nameless.sendall(b"dan\n")
        nameless.shutdown(socket.SHUT_WR)
        _, first, *_ = receive_all(nameless).splitlines()
        assert first == b"* you are dan; here: ann, cleo"


def test_chat_names(join: Join) -> None:
    """Guests are numbered, a name is given once, cut to its length and freed of control codes."""
    ann = join("ann")
    ann.hear()
    guest = join("")
    assert guest.hear() == "* you are guest 1; here: ann"
    assert ann.hear() == "* guest 1 joined"
    another = join("ANN")
    assert another.hear() == "* ANN is here already; another name?"
    another.say("guest 1")
    assert another.hear() == "* guest 1 is here already; another name?"
    another.say("")
    assert another.hear() == "* you are guest 2; here: ann, guest 1"
    assert ann.hear() == "* guest 2 joined"
    join("\x1b[31m" + "x" * 30)
    assert ann.hear() == "* [31m" + "x" * 16 + " joined"


def test_chat_keeps_control_codes_from_others(join: Join) -> None:
    """What could drive another's terminal, and what is no UTF-8, is not passed on as it came."""
    ann, bob = join("ann"), join("bob")
    assert ann.hear().startswith("* you are")
    assert ann.hear() == "* bob joined"
    bob.say(b"\x1b[2Jboo\x07\x7f\xe2\x80\xae\n \n\xff!\n")
    assert [ann.hear(), ann.hear()] == ["bob: [2Jboo", "bob: \ufffd!"]


@pytest.mark.parametrize("pieces", [1, 7])
def test_chat_line_limit(pieces: int, join: Join, chat: ChatServer) -> None:
    """A line that is too long is not passed on, its sender told once; the next line is."""
    ann, bob = join("ann"), join("bob")
    bob.hear()
    longest = b"x" * chat_server.MOST_IN_A_LINE
    for line in (longest + b"x", longest * 3, longest):
        whole = line + b"\n"
        size = -(-len(whole) // pieces)
        for begin in range(0, len(whole), size):
            bob.say(whole[begin : begin + size])
            settle(chat.poller)
    bob.say("and on")
    bob.say("bye")
    refusal = f"* not sent: a line has at most {len(longest)} bytes"
    assert [bob.hear(), bob.hear()] == [refusal, refusal]
    assert [ann.hear() for _ in range(5)][2:] == [
        "bob: " + longest.decode(),
        "bob: and on",
        "bob: bye",
    ]
    bob.socket.shutdown(socket.SHUT_WR)
    assert bob.hear() == ""


def test_chat_last_line_needs_no_end(join: Join) -> None:
    """What stands between the last line's end and the stream's is a line too."""
    ann, bob = join("ann"), join("bob")
    assert bob.hear() == "* you are bob; here: ann"
    bob.say(b"one\ntwo")
    bob.socket.shutdown(socket.SHUT_WR)
    assert [ann.hear() for _ in range(5)][2:] == ["bob: one", "bob: two", "* bob left"]
    assert bob.hear() == ""


def test_chat_too_long_a_line_at_the_end(join: Join) -> None:
    """The rest of a line that is too long is not passed on at the end of the stream."""
    ann, bob = join("ann"), join("bob")
    bob.hear()
    bob.say(b"x" * (chat_server.MOST_IN_A_LINE + 1))
    assert "not sent" in bob.hear()
    bob.say(b"rest")
    bob.socket.shutdown(socket.SHUT_WR)
    assert [ann.hear() for _ in range(3)][2:] == ["* bob left"]


def shrink(chat: ChatServer, name: str) -> chat_server.Client:
    """Make the kernel keep little for a client, so that what it does not read is pending soon."""
    slow: chat_server.Client = only(c for c in chat.clients.values() if c.name == name)
    slow.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return slow


def test_chat_slow_reader(join: Join, chat: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    """One who does not read is let go when too much is pending; the others miss nothing.

    The news of it comes after the line that was too much.
    """
    talker, before, slow = join("talker"), join("before"), join("slow", receive_buffer=4096)
    after = join("after")
    for one, lines in ((before, 3), (slow, 2), (after, 1)):
        for _ in range(lines):
            assert one.hear().startswith("* ")
    client = shrink(chat, "slow")
    for number in range(10_000):
        talker.say(f"{number} " + "x" * 900)
        settle(chat.poller)
        for reader in (before, after):
            assert reader.hear().startswith(f"talker: {number} ")
        assert len(client.outbound) <= chat_server.MOST_PENDING + 1000
        if client.gone:
            break
    assert client.gone
    assert before.hear() == after.hear() == "* slow was let go: too slow"
    talker.say("goodbye, slow one")
    assert before.hear() == after.hear() == "talker: goodbye, slow one"
    assert [one.getMessage() for one in caplog.records] == ["slow reads too slowly: let go"]
    assert len(chat.clients) == 3


@pytest.mark.parametrize("more", [b"ghost\n", b"x" * 2000, b"bob"])
def test_chat_hears_no_more_of_who_was_let_go(
    join: Join, chat: ChatServer, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    """What came with the line whose answer was too much for its sender has no effect any more."""
    bob = join("bob")
    assert bob.hear() == "* you are bob; here: nobody else"
    with connect(chat.address) as nameless:
        receive(nameless, 10)
        settle(chat.poller)

        def no_patience() -> None:
            monkeypatch.setattr(chat_server, "MOST_PENDING", -1)
            nameless.sendall(b"bob\n" + more if more != b"bob" else more)  # the name is taken
            nameless.shutdown(socket.SHUT_WR)

        in_loop(chat.poller, no_patience)
        with contextlib.suppress(ConnectionResetError):
            receive_all(nameless)
        settle(chat.poller)
        monkeypatch.setattr(chat_server, "MOST_PENDING", 1 << 16)
    assert len(chat.clients) == 1
    join("cleo")
    assert bob.hear() == "* cleo joined"


def test_chat_forgets_a_line_that_is_too_long(join: Join, chat: ChatServer) -> None:
    """A line without an end does not fill the memory."""
    ann = join("ann")
    ann.hear()
    client = only(chat.clients.values())
    for _ in range(50):
        ann.say(b"x" * 4000)
        settle(chat.poller)
        assert len(client.received) <= chat_server.MOST_IN_A_LINE


def test_chat_finds_out_by_reading(join: Join, chat: ChatServer) -> None:
    """A client that resets its connection has left."""
    ann, bob = join("ann"), join("bob")
    assert [ann.hear(), ann.hear()] == ["* you are ann; here: nobody else", "* bob joined"]
    bob.hear()
    bob.lines.close()
    hang_up(bob.socket)
    assert ann.hear() == "* bob left"
    assert len(chat.clients) == 1


def test_chat_finds_out_by_writing(stack: ExitStack) -> None:
    """A reset that writing finds out first is a leave too, and nothing else is disturbed."""
    errors: list[Exception] = []
    poller = stack.enter_context(
        netpoll.open_poller(on_error=lambda source, error: errors.append(error))
    )
    chat = stack.enter_context(contextlib.closing(ChatServer(poller)))
    socks = [stack.enter_context(connect(chat.address)) for _ in range(3)]
    rest(poller)
    for sock in socks:
        sock.sendall(b"\n")
        rest(poller)
    socks[0].sendall(b"hello\n")
    hang_up(socks[1])
    rest(poller)
    socks[2].shutdown(socket.SHUT_WR)
    rest(poller)
    heard = receive_all(socks[2]).splitlines()
    assert heard[-2:] == [b"guest 1: hello", b"* guest 2 left"]
    assert errors == []


@pytest.mark.parametrize("half_closed", [True, False])
def test_chat_sends_what_is_pending_at_the_end(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack, half_closed: bool
) -> None:
    """Shutting down, a slow reader still gets every line and a goodbye; then the loop ends.

    It is not listened to any more, and the loop sleeps while it does not read.
    """
    poller = stack.enter_context(netpoll.open_poller())
    chat = stack.enter_context(contextlib.closing(ChatServer(poller)))
    talker = stack.enter_context(connect(chat.address))
    slow = stack.enter_context(connect(chat.address, receive_buffer=4096))
    rest(poller)
    for sock in (talker, slow):
        sock.sendall(b"\n")
        rest(poller)
    client = shrink(chat, "guest 2")
    said = 0
    while len(client.outbound) < 20_000:
        talker.sendall(f"{said} ".encode() + b"x" * 900 + b"\n")
        said += 1
        rest(poller)
    stopped: list[bool] = []
    monkeypatch.setattr(poller, "stop", lambda: stopped.append(True))
    chat.shut_down()
    assert_refused(chat.address[1])
    slow.sendall(b"not heard\n")
    if half_closed:
        slow.shutdown(socket.SHUT_WR)
    rest(poller)
    assert list(chat.clients.values()) == [client]
    assert stopped == []
    received = b"".join(trickle(slow, poller))  # no reset, though nobody heard what it said
    assert not chat.clients
    lines = received.split(b"\n")
    assert [line.split()[2] for line in lines if b"guest 1: " in line] == [
        str(number).encode() for number in range(said)
    ]
    assert lines[-2:] == [b"* the server ends; goodbye", b""]
    assert stopped == [True]


def test_chat_program(start: Start) -> None:
    """Interrupted, the program says goodbye to everybody."""
    program = start("chat_server")
    with contextlib.closing(Chatter(program.port, "ann")) as ann:
        assert "you are ann" in ann.hear()
        program.interrupt()
        assert [ann.hear(), ann.hear()] == ["* the server ends; goodbye", ""]
        assert program.end()[::2] == (0, "")


# ---- HTTP: what is asked ----------------------------------------------------------------------


def ask(server: HttpServer, request: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Send `request` and the end of the stream; return every answer: status, fields, body."""
    with connect(server.address) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
        data = receive_all(sock)
    heads = re.findall(rb"(?:^|\n)(?:GET|HEAD) ", request)
    return answers(data, [head.strip() == b"HEAD" for head in heads])


def answers(data: bytes, to_head: list[bool]) -> list[tuple[int, dict[str, str], bytes]]:
    """Take a stream of answers apart; it must be used up to the last byte."""
    found: list[tuple[int, dict[str, str], bytes]] = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        assert {"Date", "Connection", "Content-Type", "Content-Length"} <= set(fields)
        length = int(fields["Content-Length"])
        if len(found) < len(to_head) and to_head[len(found)]:
            length = 0
        assert len(data) >= length
        found.append((int(first.split()[1]), fields, data[:length]))
        data = data[length:]
    return found


def get(target: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: here", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize(
    ("target", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<p>hello"),
        ("/index.html?a=/../b", "text/html; charset=utf-8", b"<p>hello"),
        ("/sub", "text/html; charset=utf-8", b"<p>sub"),
        ("/sub/", "text/html; charset=utf-8", b"<p>sub"),
        ("/inside/", "text/html; charset=utf-8", b"<p>sub"),
        ("/sub/../sub/./index.html", "text/html; charset=utf-8", b"<p>sub"),
        ("/a%20b%20%C3%A9.txt", "text/plain; charset=utf-8", b"spaces"),
        ("/nothing.bin", "application/octet-stream", b""),
        ("http://elsewhere:80/sub/?x", "text/html; charset=utf-8", b"<p>sub"),
        ("HTTP://elsewhere", "text/html; charset=utf-8", b"<p>hello"),
    ],
)
def test_http_get_and_head(web: HttpServer, target: str, kind: str, body: bytes) -> None:
    """A file is sent with its type and length, to HEAD without the bytes."""
    request = get(target) + get(target, "Connection: close", method="HEAD")
    first, second = ask(web, request)
    assert first[0] == second[0] == 200
    assert (first[2], second[2]) == (body, b"")
    for _, fields, _ in (first, second):
        assert fields["Content-Type"] == kind
        assert fields["Content-Length"] == str(len(body))
    assert (first[1]["Connection"], second[1]["Connection"]) == ("keep-alive", "close")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/missing", 404),
        ("/empty/", 404),
        ("/empty", 404),
        ("/index.html/", 404),
        ("/index.html/x", 404),
        ("/loop", 404),
        ("/pipe", 404),
        ("/" + "x" * 300, 404),
        ("//secret.txt", 404),
        ("/../secret.txt", 403),
        ("/..", 403),
        ("/../root2", 403),
        ("/sub/../../secret.txt", 403),
        ("/%2e%2e/secret.txt", 403),
        ("/..%2fsecret.txt", 403),
        ("/%2e%2e%2f%2e%2e%2fetc/passwd", 403),
        ("/../missing", 403),
        ("/link.txt", 403),
        ("/up/secret.txt", 403),
        ("/up", 403),
        ("/astray/", 403),
        ("/%00", 400),
        ("/index.html%00.txt", 400),
        ("/%zz", 400),
        ("/100%", 400),
        ("index.html", 400),
        ("ftp://here/index.html", 400),
        ("*", 400),
    ],
)
def test_http_nothing_but_files_of_the_folder(web: HttpServer, target: str, status: int) -> None:
    """What is not there is 404, what leads out of the folder 403, what makes no sense 400.

    The page names the status and nothing that the client sent; the connection stays open.
    """
    first, second = ask(web, get(target) + get("/"))
    assert (first[0], second[0]) == (status, 200)
    assert first[2].startswith(b"<!doctype html><title>%d " % status)
    assert first[1]["Content-Type"] == "text/html"


def test_http_folder_with_a_longer_name_beside(tmp_path: Path) -> None:
    """A folder whose name only begins like the served one's is outside."""
    for name in ("root", "root2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(http_server.Refused) as caught:
        http_server.find_file(os.path.realpath(tmp_path / "root"), "/../root2/file")
    assert caught.value.status == 403


def test_http_root_may_be_a_link(root: Path) -> None:
    """The served folder itself may be a symbolic link."""
    link = root.parent / "link"
    link.symlink_to(root)
    with serving_in_thread(lambda poller: HttpServer(poller, link)) as server:
        assert only(ask(server, get("/")))[0] == 200


@pytest.mark.parametrize(("error", "status"), [(PermissionError, 403), (OSError, 500)])
def test_http_file_that_cannot_be_opened(
    web: HttpServer, monkeypatch: pytest.MonkeyPatch, error: type[OSError], status: int
) -> None:
    """A file that we may not read is forbidden; another failure is ours."""

    def fail(path: str) -> NoReturn:
        raise error

    monkeypatch.setattr(http_server, "FileIO", fail)
    assert only(ask(web, get("/")))[0] == status


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.css", "text/css; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.tar.gz", "application/octet-stream"),
        ("a", "application/octet-stream"),
        (".html", "application/octet-stream"),
        ("data:text,x.html", "text/html; charset=utf-8"),
    ],
)
def test_http_content_types(name: str, kind: str) -> None:
    """The type goes by the end of the name; what is compressed is sent as bytes."""
    assert http_server.content_type_of(f"/some/where/{name}") == kind


WRONG = [
    (b"\r\n \r\n\r\n", 400),
    (b"GET\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    (b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/11\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nspace : y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n", 400),
    (get("/", "Content-Length: 3") + b"abc", 413),
    (get("/", "Content-Length: " + "9" * 5000), 413),
    (get("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 413),
    (get("/", "Content-Length: 3", method="POST") + b"abc", 405),
    (b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"x" * 8001, 414),
    (b"x" * 100_000, 414),
    (get("/", "A: " + "b" * 17_000), 431),
    (get("/", *(["A: b"] * 5_000)), 431),
    (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000, 431),
]


@pytest.mark.parametrize(("request_", "status"), WRONG, ids=lambda value: str(value)[:40])
def test_http_wrong_requests(web: HttpServer, request_: bytes, status: int) -> None:
    """A request that breaks a rule or a limit gets its status, and is the connection's last.

    The answer arrives also when more was sent than the server reads, and what follows is ignored.
    """
    answer = only(ask(web, request_ + get("/")))
    assert answer[0] == status
    assert answer[1]["Connection"] == "close"


@pytest.mark.parametrize(
    ("method", "status"),
    [("DELETE", 405), ("OPTIONS", 405), ("PUT", 405), ("get", 501), ("BREW", 501)],
)
def test_http_methods(web: HttpServer, method: str, status: int) -> None:
    """Known methods other than GET and HEAD are not allowed, others not implemented."""
    first, second = ask(web, get("/", method=method) + get("/"))
    assert (first[0], second[0]) == (status, 200)
    assert first[1].get("Allow") == ("GET, HEAD" if status == 405 else None)


def test_http_bare_request(web: HttpServer) -> None:
    """HTTP/1.0 needs no Host, and a line may end without a carriage return, as typed by hand."""
    assert only(ask(web, b"GET /sub/ HTTP/1.0\n\n"))[2] == b"<p>sub"


def test_http_longest_request(web: HttpServer) -> None:
    """The limits are not too strict by one: a line and a head of just their length are answered."""
    line = b"GET /?%s HTTP/1.1"
    line %= b"x" * (http_server.MOST_IN_A_LINE - len(line) + 2)
    head = line + b"\r\nHost: x\r\nA: "
    head += b"b" * (http_server.MOST_IN_A_HEAD - len(head))
    assert only(ask(web, head + b"\n\n"))[0] == 200
    assert only(ask(web, head + b"b\n\n"))[0] == 431
    assert only(ask(web, b"x" + line + b"\r\nHost: x\r\n\r\n"))[0] == 414


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"HEAD /%41 HTTP/1.0\n"])
)
def test_http_parser_survives_anything(noise: bytes, start: bytes) -> None:
    """Whatever comes is a request, an incomplete one, or refused; nothing else is raised."""
    received = bytearray(start + noise + b"\n\n")
    with contextlib.suppress(http_server.Refused):
        while request := http_server.next_request(received):
            http_server.find_file("/nowhere", request.target)


# ---- HTTP: connections ------------------------------------------------------------------------


def test_http_client_keeps_its_connection(web: HttpServer, root: Path, big: bytes) -> None:
    """Python's own HTTP client gets files, errors and a megabyte over one connection."""
    connection = http.client.HTTPConnection(*web.address, timeout=LONG)
    with contextlib.closing(connection):
        sock = None
        for target, status, body in [
            ("/", 200, b"<p>hello"),
            ("/missing", 404, None),
            ("/big.bin", 200, big),
            ("/sub/", 200, b"<p>sub"),
        ]:
            connection.request("GET", target)
            answer = connection.getresponse()
            assert answer.status == status
            assert answer.read() == body or body is None
            assert connection.sock is not None
            sock = sock or connection.sock
            assert connection.sock is sock
        connection.request("HEAD", "/big.bin")
        answer = connection.getresponse()
        assert answer.headers["Content-Length"] == str(len(big))
        assert answer.read() == b""


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_http_curl(web: HttpServer, root: Path, big: bytes) -> None:
    """So does curl, which does not wait when a body is refused."""
    where = f"http://127.0.0.1:{web.address[1]}"
    curl = ["curl", "--silent", "--max-time", "20", "--path-as-is", "--write-out", "%{http_code}"]
    for arguments, output in [
        ([f"{where}/sub/", f"{where}/"], b"<p>sub200<p>hello200"),
        ([f"{where}/../secret.txt", "--output", os.devnull], b"403"),
        ([f"{where}/", "--data-binary", f"@{root / 'big.bin'}", "--output", os.devnull], b"405"),
        ([f"{where}/big.bin"], big + b"200"),
    ]:
        done = subprocess.run([*curl, *arguments], capture_output=True, timeout=LONG, check=True)
        assert done.stdout == output


def test_http_split_at_every_byte(web: HttpServer) -> None:
    """A request is answered the same wherever its bytes are torn apart, its end included."""
    request = b"\r\nGET /sub/ HTTP/1.1\r\nHost: x\r\n\r\n" + get("/", method="HEAD")
    whole = [(status, body) for status, _, body in ask(web, request)]
    assert whole == [(200, b"<p>sub"), (200, b"")]
    for at in range(1, len(request)):
        with connect(web.address) as sock:
            sock.sendall(request[:at])
            settle(web.poller)
            sock.sendall(request[at:])
            sock.shutdown(socket.SHUT_WR)
            found = answers(receive_all(sock), [False, True])
            assert [(status, body) for status, _, body in found] == whole


def test_http_byte_by_byte(web: HttpServer) -> None:
    """So it is when each byte comes alone."""
    with connect(web.address) as sock:
        for byte in get("/sub/", "Connection: close"):
            sock.sendall(bytes([byte]))
            settle(web.poller)
        assert only(answers(receive_all(sock), []))[2] == b"<p>sub"


def test_http_pipelined_requests(web: HttpServer, big: bytes) -> None:
    """Requests sent at once are answered one after the other, in their order, up to the last."""
    request = get("/sub/") + get("/big.bin") + get("/missing") + get("/", method="HEAD")
    request += get("/nothing.bin", "Connection: close") + get("/never")
    found = ask(web, request)
    assert [status for status, _, _ in found] == [200, 200, 404, 200, 200]
    assert found[1][2] == big
    assert [fields["Connection"] for _, fields, _ in found] == ["keep-alive"] * 4 + ["close"]


@pytest.mark.parametrize(
    ("version", "fields", "keeps"),
    [
        ("1.0", [], False),
        ("1.0", ["Connection: Keep-Alive"], True),
        ("1.1", [], True),
        ("1.1", ["Connection: foo, CLOSE"], False),
        ("1.1", ["Connection: keep-alive", "Connection: close"], False),
    ],
)
def test_http_keep_alive(web: HttpServer, version: str, fields: list[str], keeps: bool) -> None:
    """HTTP/1.1 keeps a connection unless told otherwise, HTTP/1.0 the other way round."""
    with connect(web.address) as sock:
        sock.sendall(get("/sub/", *fields, version=version) * 2)
        if keeps:
            sock.shutdown(socket.SHUT_WR)
        found = answers(receive_all(sock), [])
    assert [answer[2] for answer in found] == [b"<p>sub"] * (2 if keeps else 1)
    assert found[0][1]["Connection"] == ("keep-alive" if keeps else "close")


def test_http_big_file_goes_in_pieces(root: Path, big: bytes, stack: ExitStack) -> None:
    """Of a file little is in memory; who does not read it is not listened to, and the loop sleeps.

    Bytes that are appended meanwhile are not sent. Afterwards the connection goes on as before.
    """
    poller = stack.enter_context(netpoll.open_poller())
    web = stack.enter_context(contextlib.closing(HttpServer(poller, root, timeout=PATIENCE)))
    sock = stack.enter_context(connect(web.address, receive_buffer=65536))
    rest(poller)
    connection = only(web.connections.values())
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    sock.sendall(get("/big.bin") + get("/sub/"))
    rest(poller)
    assert connection.left_of_file > 0
    with (root / "big.bin").open("ab") as file:
        file.write(b"more" * 100_000)
    sock.sendall(get("/"))
    rest(poller)
    assert connection.received == get("/sub/")
    data = b""
    for piece in trickle(sock, poller):
        data += piece
        assert len(connection.unsent) < 2 * http_server.PIECE
        if data.endswith(b"<p>hello"):
            break
    assert [body for _, _, body in answers(data, [])] == [big, b"<p>sub", b"<p>hello"]
    rest(poller)
    assert len(web.connections) == 1


def test_http_file_that_becomes_shorter(web: HttpServer, root: Path, big: bytes) -> None:
    """A file cut while it is sent ends the connection short of the promised length."""
    with connect(web.address, receive_buffer=4096) as sock:
        sock.sendall(get("/big.bin"))
        data = receive(sock, 1000)
        settle(web.poller)
        os.truncate(root / "big.bin", 1000)
        with contextlib.suppress(ConnectionResetError):
            data += receive_all(sock)
        assert 1000 < len(data) < len(big)
    settle(web.poller)
    assert not web.connections


def test_http_client_hangs_up(web: HttpServer, big: bytes) -> None:
    """A client that resets its connection, in the middle of an answer or not, is forgotten."""
    for request in (b"", b"GET", get("/big.bin"), get("/", "Connection: close")):
        sock = connect(web.address)
        sock.sendall(request)
        if request:
            settle(web.poller)
        hang_up(sock)
    assert only(ask(web, get("/")))[0] == 200
    settle(web.poller)
    assert not web.connections


@pytest.fixture
def hasty(root: Path) -> Iterator[HttpServer]:
    """A server with little patience."""
    with serving_in_thread(lambda poller: HttpServer(poller, root, timeout=0.3)) as server:
        yield server


@pytest.mark.parametrize("before", [b"", get("/"), get("/missing")])
def test_http_idle_connection_is_closed(hasty: HttpServer, before: bytes) -> None:
    """A client that asks nothing, or nothing more, is let go without a word."""
    with connect(hasty.address) as sock:
        sock.sendall(before)
        assert len(answers(receive_all(sock), [])) == (1 if before else 0)
    settle(hasty.poller)
    assert not hasty.connections


@pytest.mark.parametrize("before", [b"", get("/")])
def test_http_slow_request_is_timed_out(hasty: HttpServer, before: bytes) -> None:
    """The whole head counts: one who sends a byte now and then gets 408 all the same."""
    with connect(hasty.address) as sock:
        sock.sendall(before + b"GET / HTTP/1.1\r\n")
        data = b""
        sock.settimeout(0.02)
        for _ in range(500):
            try:
                data += sock.recv(65536)
            except TimeoutError:
                sock.sendall(b"x")
            if data.endswith(b"</h1>\n"):
                break
        sock.settimeout(LONG)
        sock.shutdown(socket.SHUT_WR)
        data += receive_all(sock)
    found = answers(data, [])
    assert found[-1][0] == 408
    assert found[-1][1]["Connection"] == "close"
    assert len(found) == (2 if before else 1)


def test_http_reader_that_stalls_is_dropped(hasty: HttpServer, big: bytes) -> None:
    """A client that takes nothing of its answer is not waited for."""
    with connect(hasty.address, receive_buffer=4096) as sock:
        sock.sendall(get("/big.bin"))
        ended = threading.Event()
        settle(hasty.poller)
        connection = only(hasty.connections.values())
        close = connection.close_file

        def closed() -> None:
            close()
            ended.set()

        connection.close_file = closed
        assert ended.wait(LONG)
        settle(hasty.poller)
        assert not hasty.connections
        with contextlib.suppress(ConnectionResetError):
            assert len(receive_all(sock)) < len(big)


def test_http_patience_begins_with_the_request(
    web: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that begins late has its whole time all the same."""
    now = [1000.0]
    monkeypatch.setattr(http_server, "monotonic", lambda: now[0])
    with connect(web.address) as sock:
        settle(web.poller)
        connection = only(web.connections.values())
        for data, status in ((b"", None), (b"G", None), (b"E", 408)):
            sock.sendall(data)
            settle(web.poller)
            now[0] += 0.6 * PATIENCE
            in_loop(web.poller, lambda: connection.look_at_the_clock(None))
            assert connection.lingering == bool(status)
            if status:
                assert only(answers(receive_all(sock), []))[0] == status


def fails(sock: socket.socket, data: bytes) -> NoReturn:
    raise ConnectionResetError


@pytest.mark.parametrize("write", [lambda sock, data: None, fails], ids=["full", "reset"])
def test_http_timed_out_client_that_takes_no_answer(
    hasty: HttpServer, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    """Who does not even take the 408 is let go, by the clock or by the error."""
    with connect(hasty.address) as sock:
        sock.sendall(b"GET")
        settle(hasty.poller)
        monkeypatch.setattr(sockets, "write", write)
        with contextlib.suppress(ConnectionResetError):
            assert receive_all(sock) == b""


def test_http_stalled_answer_is_not_interrupted(
    web: HttpServer, monkeypatch: pytest.MonkeyPatch, big: bytes
) -> None:
    """When time is up in the middle of an answer, no other begins, though a request waits."""
    now = [1000.0]
    monkeypatch.setattr(http_server, "monotonic", lambda: now[0])
    with connect(web.address, receive_buffer=4096) as sock:
        sock.sendall(get("/big.bin") + get("/sub/"))
        settle(web.poller)
        connection = only(web.connections.values())
        assert connection.received

        def time_is_up() -> None:
            now[0] += 2 * PATIENCE
            connection.look_at_the_clock(None)  # before the kernel takes another piece

        in_loop(web.poller, time_is_up)
        assert not web.connections


def test_http_leaves_no_timer_behind(web: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection that is closed, no timer is left that would keep it in memory."""
    timers: list[Any] = []
    call_later = web.poller.call_later

    def noted(*arguments: Any) -> Any:
        timers.append(call_later(*arguments))
        return timers[-1]

    monkeypatch.setattr(web.poller, "call_later", noted)
    for request in (b"", get("/"), get("/", "Connection: close")):
        ask(web, request)
    settle(web.poller)
    assert len(timers) == 4
    assert all(timer.over for timer in timers)


def test_http_patience_is_for_silence_only(
    web: HttpServer, monkeypatch: pytest.MonkeyPatch, big: bytes
) -> None:
    """A client that takes a piece now and then gets its whole file, however long it takes."""
    now = [1000.0]
    monkeypatch.setattr(http_server, "monotonic", lambda: now[0])
    with connect(web.address, receive_buffer=4096) as sock:
        settle(web.poller)
        connection = only(web.connections.values())
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sock.sendall(get("/big.bin", "Connection: close"))
        size = len(receive(sock, 1000))
        for _ in range(8):
            now[0] += 0.4 * PATIENCE
            size += len(receive(sock, len(PATTERN)))
            settle(web.poller)
            in_loop(web.poller, lambda: connection.look_at_the_clock(None))
        assert len(web.connections) == 1
        size += len(receive_all(sock))
    assert size > len(big)


def test_http_lingers_after_the_last_answer(web: HttpServer) -> None:
    """What a client says after its last request is read and forgotten, until it closes its end."""
    with connect(web.address) as sock:
        sock.sendall(get("/missing", "Connection: close") + get("/never"))
        assert only(answers(receive_all(sock), []))[0] == 404
        for _ in range(3):
            sock.sendall(b"forgotten")
            settle(web.poller)
        connection = only(web.connections.values())
        assert connection.received == b""
        sock.shutdown(socket.SHUT_WR)
        settle(web.poller)
        assert not web.connections


def test_http_does_not_linger_forever(web: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last answer a client that never closes its end, and talks on, is closed."""
    monkeypatch.setattr(http_server, "LINGER_SECONDS", 0.1)
    with connect(web.address) as sock:
        sock.sendall(get("/", "Connection: close"))
        receive_all(sock)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            talk_without_end(sock)


def talk_without_end(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"x" * 1000)


# ---- HTTP: the end ----------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [["/big.bin"], ["/big.bin", "/sub/"]])
def test_http_finishes_a_transfer_after_an_interrupt(
    start: Start, root: Path, big: bytes, targets: list[str]
) -> None:
    """Ctrl-C in the middle of a file: it arrives whole, newcomers are refused, status 0.

    A request that has come behind it is answered too.
    """
    program = start("http_server", str(root), "--timeout", "1000")
    with connect(program.port, receive_buffer=65536) as sock:
        sock.sendall(b"".join(get(target) for target in targets))
        data = receive(sock, 100_000)
        program.interrupt()
        assert_refused(program.port)
        found = answers(data + receive_all(sock), [])
    assert [body for _, _, body in found] == [big, b"<p>sub"][: len(targets)]
    status, _, errors = program.end()
    assert (status, errors) == (0, "")


def test_http_end(root: Path, stack: ExitStack) -> None:
    """Shutting down, who is idle is let go; who has asked, or begun to, is answered at last."""
    ended = threading.Event()
    web = stack.enter_context(serving_in_thread(lambda poller: HttpServer(poller, root), ended))
    idle, asked, asking = (stack.enter_context(connect(web.address)) for _ in range(3))
    for sock in (idle, asked):
        sock.sendall(get("/sub/"))
        assert read_answer(sock)[1]["Connection"] == "keep-alive"
    asking.sendall(get("/sub/")[:10])
    settle(web.poller)

    def shut_down() -> None:
        asked.sendall(get("/sub/"))  # it has come, and no event was dispatched for it yet
        web.shut_down()

    in_loop(web.poller, shut_down)
    assert_refused(web.address[1])
    assert receive_all(idle) == b""
    asking.sendall(get("/sub/")[10:])
    for sock in (asked, asking):
        _, fields, body = only(answers(receive_all(sock), []))
        assert (fields["Connection"], body) == ("close", b"<p>sub")
        sock.close()
    assert ended.wait(LONG)


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer and not a byte more."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += receive(sock, 1)
    length = int(re.findall(rb"Content-Length: (\d+)", data)[0])
    return answers(data + receive(sock, length), [])[0]


# ---- the client -------------------------------------------------------------------------------


def test_client_makes_load(start: Start) -> None:
    """Messages of any size go over many connections and all come back; one line tells how many."""
    port = str(start("echo_server").port)
    for count, size, connections in [(1, 1, 1), (20, 100, 30), (2, 3_000_000, 2)]:
        options = ["--count", str(count), "--size", str(size), "--connections", str(connections)]
        status, output, errors = run("client", "--port", port, *options)
        assert (status, errors) == (0, "")
        total = count * connections
        assert re.fullmatch(rf"{total} messages, {total * size} bytes, [\d.]+ seconds\n", output)


def test_client_sends_what_is_typed(start: Start, echo: EchoServer) -> None:
    """Lines from a pipe come back on the standard output; the summary is on standard error."""
    program = start("client", "--port", str(echo.address[1]), stdin=subprocess.PIPE)
    assert program.process.stdin is not None
    program.process.stdin.write("hello\n")
    program.process.stdin.flush()
    assert program.line() == "hello\n"
    program.process.stdin.write("two\nlines, the last without an end")
    status, output, errors = program.end()
    assert (status, output) == (0, "two\nlines, the last without an end")
    assert re.fullmatch(r"3 messages, 40 bytes, [\d.]+ seconds\n", errors)


@pytest.mark.parametrize("size", [0, len(PATTERN)])
def test_client_sends_a_file(start: Start, echo: EchoServer, tmp_path: Path, size: int) -> None:
    """The standard input may be a file, which no epoll takes."""
    text = "one two three four five six seven\n" * (size // 34)
    (tmp_path / "text").write_text(text)
    with open(tmp_path / "text", "rb") as file:
        program = start("client", "--port", str(echo.address[1]), stdin=file)
        status, output, errors = program.end()
    assert (status, output) == (0, text)
    assert errors.startswith(f"{size // 34} messages, {len(text)} bytes, ")


def test_client_without_an_input(
    monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., Outcome]
) -> None:
    """With the standard input closed, the client says what to do."""
    monkeypatch.setattr(sys, "stdin", None)
    status, _, errors = outcome("client")
    assert status == 2
    assert "there is no standard input: use --count" in errors


def test_client_at_a_terminal(start: Start, echo: EchoServer, stack: ExitStack) -> None:
    """Who types is told how to end it, and Ctrl-D does, with status 0."""
    master, terminal = os.openpty()
    for fd in (master, terminal):
        stack.callback(os.close, fd)
    program = start("client", "--port", str(echo.address[1]), stdin=terminal)
    os.write(master, b"hello\n")
    assert program.line() == "hello\n"
    os.write(master, b"\x04")
    status, output, errors = program.end()
    assert (status, output) == (0, "")
    told, summary = errors.splitlines()
    assert re.fullmatch(r"type to 127\.0\.0\.1:\d+; Ctrl-D or Ctrl-C ends it", told)
    assert summary.startswith("1 messages, 6 bytes, ")


def test_client_cannot_read_its_input(
    echo: EchoServer, monkeypatch: pytest.MonkeyPatch, stack: ExitStack, tmp_path: Path
) -> None:
    """An input that can't be read is a problem."""
    file = stack.enter_context((tmp_path / "text").open("wb"))
    monkeypatch.setattr(client, "STDIN", file.fileno())
    talker = run_client(echo.address)
    assert talker.problem == "can't read the standard input: Bad file descriptor"


@pytest.mark.parametrize(
    "act", [lambda connection: connection.send(b"x"), lambda connection: connection.finish()]
)
def test_client_cannot_send(echo: EchoServer, act: Any) -> None:
    """A connection that fails when something is to be sent is a problem."""
    with netpoll.open_poller() as poller:
        talker = Client(poller, *echo.address, count=1)
        (connection,) = talker.connections
        connection.socket.close()
        act(connection)
    assert talker.problem == "connection 1: lost: Bad file descriptor"


Answer = Callable[[socket.socket], object]


@contextlib.contextmanager
def bad_server(answer: Answer) -> Iterator[tuple[str, int]]:
    """A server that lets `answer` handle its one client, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.settimeout(LONG)
                answer(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        thread.join(LONG)
        assert not thread.is_alive()


def test_client_ends_in_order(start: Start, echo: EchoServer) -> None:
    """Ctrl-C ends a client that waits for input, with status 0 and the summary."""
    program = start("client", "--port", str(echo.address[1]), stdin=subprocess.PIPE)
    assert program.process.stdin is not None
    program.process.stdin.write("hello\n")
    program.process.stdin.flush()
    assert program.line() == "hello\n"
    program.process.send_signal(signal.SIGINT)
    program.process.wait(LONG)  # end() would close its input
    status, _, errors = program.end()
    assert status == 0
    assert re.fullmatch(r"1 messages, 6 bytes, [\d.]+ seconds\n", errors)


def test_client_waits_for_the_answer_after_an_interrupt(start: Start) -> None:
    """Ctrl-C in the middle of a message: the client reads what is to come and sends no other."""
    size = 3_000_000

    def answer(sock: socket.socket) -> None:
        first = receive(sock, 1000)
        program.process.send_signal(signal.SIGINT)
        sock.sendall(first + receive(sock, size - len(first)))
        assert sock.recv(1) == b""

    with bad_server(answer) as address:
        options = ["--count", "2", "--size", str(size)]
        program = start("client", "--port", str(address[1]), *options)
        status, output, errors = program.end()
    assert (status, errors) == (0, "")
    assert output.startswith(f"1 messages, {size} bytes, ")


def test_client_without_a_server() -> None:
    """A refused connection is one line on standard error and status 1."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        port = closed.getsockname()[1]
        status, output, errors = run("client", "--port", str(port), "--count", "1")
    assert (status, output) == (1, "")
    assert re.fullmatch(r".*can't connect to 127\.0\.0\.1:\d+: Connection refused\n", errors)


def read_and_hang_up(sock: socket.socket) -> None:
    sock.recv(100)
    hang_up(sock)


def run_client(address: tuple[str, int], **options: Any) -> Client:
    with netpoll.open_poller() as poller:
        client = Client(poller, *address, **options)
        with contextlib.closing(client):
            poller.polling()
    return client


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda sock: sock.sendall(sock.recv(100).replace(b"1", b"2")), "not what was sent"),
        (lambda sock: sock.sendall(sock.recv(100) + b"!"), "not what was sent"),
        (lambda sock: sock.sendall(sock.recv(100)[:60]), "4 bytes did not come back"),
        (read_and_hang_up, "lost: Connection reset"),
        (lambda sock: sock.sendall(b"surprise"), "not what was sent"),
        (lambda sock: (sock.sendall(sock.recv(64)), sock.recv(1), sock.sendall(b"!")), "not what"),
    ],
)
def test_client_finds_the_fault(answer: Answer, problem: str) -> None:
    """Bytes that are changed, missing or too many are told, and so is a broken connection."""
    with bad_server(answer) as address:
        client = run_client(address, count=1)
    assert client.problem.startswith("connection 1: ")
    assert problem in client.problem


def test_client_gives_up_waiting() -> None:
    """A server that does not answer in time is a problem."""
    with bad_server(lambda sock: sock.recv(100) and sock.recv(100)) as address:
        client = run_client(address, count=1, timeout=0.1)
        assert client.problem.startswith("no answer from 127.0.0.1:")


def test_client_is_patient_with_who_answers(
    echo: EchoServer, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """Bytes that keep coming are news: the time without any counts, not the whole."""
    now = [1000.0]
    monkeypatch.setattr(client, "monotonic", lambda: now[0])
    poller = stack.enter_context(netpoll.open_poller())
    talker = stack.enter_context(
        contextlib.closing(Client(poller, *echo.address, count=2, size=10_000_000))
    )
    received = talker.received

    def received_late(connection: client.Connection, data: bytes) -> None:
        now[0] += 9  # of 10
        talker.look_for_news(None)
        received(connection, data)

    monkeypatch.setattr(talker, "received", received_late)
    poller.polling()
    assert (talker.problem, talker.bytes) == ("", 20_000_000)
    assert now[0] > 1000 + 2 * 9


def test_client_waits_for_input(
    echo: EchoServer, monkeypatch: pytest.MonkeyPatch, stack: ExitStack, tmp_path: Path
) -> None:
    """Who thinks before typing is waited for. A Ctrl-C before a file's turn leaves it unread."""
    now = [1000.0]
    monkeypatch.setattr(client, "monotonic", lambda: now[0])
    (tmp_path / "text").write_text("unread")
    file = stack.enter_context((tmp_path / "text").open("rb"))
    monkeypatch.setattr(client, "STDIN", file.fileno())
    poller = stack.enter_context(
        netpoll.open_poller(on_error=lambda source, error: pytest.fail(repr(error)))
    )
    talker = stack.enter_context(contextlib.closing(Client(poller, *echo.address)))
    go_on = talker.go_on

    def go_on_later(connection: client.Connection) -> None:
        go_on(connection)
        now[0] += 1000
        talker.look_for_news(None)
        talker.shut_down()

    monkeypatch.setattr(talker, "go_on", go_on_later)
    poller.polling()
    assert (talker.problem, talker.messages, file.read()) == ("", 0, b"unread")


def test_client_gives_up_after_an_interrupt(start: Start) -> None:
    """Ctrl-C waits for an answer only so long, though bytes keep coming; then it is status 1."""

    def trickle(sock: socket.socket) -> None:
        data = receive(sock, 10_000)
        program.process.send_signal(signal.SIGINT)
        pause = threading.Event()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in data:
                sock.sendall(bytes([byte]))
                pause.wait(0.01)

    with bad_server(trickle) as address:
        options = ["--count", "1", "--size", "10000", "--timeout", "0.5"]
        program = start("client", "--port", str(address[1]), *options)
        status, output, errors = program.end()
    assert (status, output) == (1, "")
    assert errors.endswith("gave up waiting for the answers\n")


def test_client_program_that_cannot_begin(
    monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., Outcome]
) -> None:
    """The program says so in one line."""

    def dial(host: str, port: int) -> NoReturn:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(sockets, "dial_tcp", dial)
    message, output, errors = outcome("client", "--count", "1")
    assert str(message).endswith("client: can't connect: Too many open files")
    assert (output, errors) == ("", "")


def test_client_that_cannot_begin(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
    """When a connection can't be begun, those begun before it are closed."""
    begun: list[socket.socket] = []
    dial_tcp = sockets.dial_tcp

    def dial(host: str, port: int) -> socket.socket:
        if len(begun) == 2:
            raise OSError(24, "Too many open files")
        begun.append(dial_tcp(host, port))
        return begun[-1]

    monkeypatch.setattr(sockets, "dial_tcp", dial)
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    poller = stack.enter_context(netpoll.open_poller())
    with pytest.raises(OSError, match="Too many open files"):
        Client(poller, *listener.getsockname(), count=1, connections=3)
    assert [sock.fileno() for sock in begun] == [-1, -1]


def test_generated_messages_differ() -> None:
    """Messages have their size, and no two of a run are alike: mixing them up is found out."""
    messages = [m for number in (1, 2) for m in client.generated(number, 50, 40)]
    assert {len(message) for message in messages} == {40}
    assert len(set(messages)) == 100
    assert list(client.generated(1, 2, 1)) == [b"m", b"m"]
