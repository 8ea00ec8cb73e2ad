"""A recording tells what strace tells of the same run: the same system calls, in the same order.

`serve` is a server that records itself; the test runs it under strace in a child process. Both
sides become lists of sentences such as ``recv(9, 4) = 4``, which have to be equal: for each thread,
and for what threads do under a lock to one thing, the interest list and the eventfd, over all of
them. A registration or a write to the eventfd counts from any thread, a wait or a socket call only
from the loop's.
"""

from __future__ import annotations

import errno
import json
import linecache
import math
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

import netpoll
import tracer
from netpoll import (
    AlreadyRegistered,
    EventPriority,
    NotRegistered,
    PollAttachment,
    Poller,
    open_poller,
    sockets,
)
from tracer.steps import (
    Accepted,
    Closed,
    Deleted,
    Modified,
    PollerClosed,
    Read,
    Registered,
    Step,
    WaitEnded,
    WaitStarted,
    WakeupReceived,
    WakeupSent,
    WouldBlock,
    Wrote,
)
from tracer.trace import Trace

ROOT = Path(__file__).parents[1]
LONG = 20.0  # seconds: what is waited for happens long before
HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
LOOP = "MainThread"  # the only one that Python's signal handlers run in
CALLS = (
    "epoll_ctl,epoll_wait,epoll_pwait,?epoll_pwait2,eventfd2,read,write,accept,accept4,"
    "recvfrom,recvmsg,sendto,sendmsg,close"
)
BEGIN, RAISE, END = b"begin", b"raise", b"end"  # written to /dev/null, for strace to show
NO_STRACE = "there is no strace here; install it with: apt-get install strace"


# ---- the server, in a process of its own -------------------------------------------------------


class Interrupted(Exception):
    """What the signal handler ends `polling` with."""


class Server:
    """One poller with everything on it that the comparison is to cover, and its clients."""

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.null = os.open(os.devnull, os.O_WRONLY)
        self.listener = sockets.listen_tcp("127.0.0.1", 0)
        self.connections: dict[int, socket.socket] = {}
        self.happened = threading.Event()  # what the driver waits for
        self.signals = threading.Event()
        self.main = threading.get_ident()
        self.failure: BaseException | None = None

    # ---- in the loop

    def accept(self, fd: int, event: int, flags: int) -> None:
        """Accept until nobody waits."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            self.connections[connection.fileno()] = connection
            self.poller.add_read(PollAttachment(connection, self.echo))

    def echo(self, fd: int, event: int, flags: int) -> None:
        """Send back four bytes at most: what is left stays for the next round."""
        connection = self.connections[fd]
        with suppress(ConnectionResetError):
            data = connection.recv(4)
            if data:
                connection.send(data)
                return
        self.poller.delete(connection)
        self.connections.pop(fd).close()
        self.happened.set()

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """Note a signal that interrupts a wait; the driver sends another in place of any other.

        SIGUSR2 queues a task as well, and SIGHUP ends `polling`.
        """
        assert frame is not None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if "original.wait(" not in line:
            return
        self.signals.set()
        if number == signal.SIGUSR2:
            self.poller.trigger(HIGH, self.note)
        if number == signal.SIGHUP:
            os.write(self.null, RAISE)
            raise Interrupted

    def end(self, _: object) -> None:
        """Close the poller, once the driver's last step is written."""
        self.happened.wait(LONG)
        self.poller.close()

    def note(self, _: object) -> None:
        """Tell the driver that a task ran."""
        self.happened.set()

    def refusals(self, _: object) -> None:
        """Ask for what is refused, by the kernel or before it is asked."""
        poller = self.poller
        expect(AlreadyRegistered, poller.add_read, PollAttachment(self.listener, self.accept))
        with Path(__file__).open() as file:
            expect(PermissionError, poller.add_read, PollAttachment(file, self.accept))
        expect(ValueError, poller.add_write, PollAttachment(900, self.accept))
        expect(NotRegistered, poller.delete, 901)
        expect(NotRegistered, poller.mod_read, PollAttachment(902, self.accept))
        self.happened.set()

    # ---- in the driver's thread

    def drive(self) -> None:
        """Do everything once, waiting for the server's answer each time; then close the poller."""
        try:
            self.clients()
            self.datagrams()
            self.full_socket()
            self.tasks_and_timers()
            self.one_shot_and_edge()  # and, while both are armed, signals
        except BaseException as error:
            self.failure = error
        finally:
            # See test_wakeup_that_ends_the_recording: the close waits until this step is written.
            self.poller.trigger(HIGH, self.end)
            self.happened.set()

    def expect_it(self) -> None:
        """Wait until the loop says that it happened."""
        assert self.happened.wait(LONG)
        self.happened.clear()

    def clients(self) -> None:
        """Three who are answered, a half close, a reset, and one who stays."""
        address = self.listener.getsockname()
        one, two, three = (socket.create_connection(address, LONG) for _ in range(3))
        for client, text in ((one, b"hello world"), (two, b"x"), (three, b"abcdefgh"), (one, b"?")):
            client.sendall(text)
            while text:
                got = client.recv(len(text))
                assert got
                assert text.startswith(got)
                text = text[len(got) :]
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""
        self.expect_it()
        two.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        two.close()  # now a reset
        self.expect_it()
        one.close()
        three.close()
        self.expect_it()

    def datagrams(self) -> None:
        """One there and one back, through `recvfrom` and `sendto`."""
        with sockets.bind_udp() as served, socket.socket(type=socket.SOCK_DGRAM) as client:

            def answer(fd: int, event: int, flags: int) -> None:
                data, peer = served.recvfrom(100)
                served.sendto(data * 2, peer)
                with suppress(BlockingIOError):
                    served.recvfrom_into(bytearray(8))
                self.happened.set()

            client.settimeout(LONG)
            self.poller.add_read(PollAttachment(served, answer))
            client.sendto(b"ping", served.getsockname())
            assert client.recv(100) == b"pingping"
            self.expect_it()
            self.poller.delete(served)

    def full_socket(self) -> None:
        """Write until the kernel takes no more, wait until it does, and read in two pieces."""
        here, there = socket.socketpair()
        here.setblocking(False)
        full = 0

        def fill(fd: int, event: int, flags: int) -> None:
            nonlocal full
            try:
                while True:
                    here.sendmsg([b"a" * 30_000, b"b" * 9_000])
            except BlockingIOError:
                full += 1
                self.happened.set()
            if full == 2:
                self.poller.mod_read(PollAttachment(here, take))

        def take(fd: int, event: int, flags: int) -> None:
            here.recvmsg(2)
            here.recv_into(bytearray(10), 3)
            with suppress(BlockingIOError):
                here.recvmsg_into([bytearray(2), bytearray(2)])
            self.poller.delete(here)
            here.close()
            self.happened.set()

        with there:
            self.poller.add_write(PollAttachment(here, fill))
            self.expect_it()
            there.settimeout(LONG)
            while full < 2:
                there.recv(20_000)
                self.happened.wait(0.01)
            self.happened.clear()
            there.sendall(b"12345")
            self.expect_it()

    def tasks_and_timers(self) -> None:
        """Three tasks under one write; timers set here and there; one of them called off."""
        trigger, hold = self.poller.trigger, threading.Event()
        trigger(HIGH, lambda _: hold.wait(LONG))
        for priority in (LOW, HIGH, LOW):
            trigger(priority, lambda _: None)
        hold.set()
        trigger(HIGH, self.refusals)
        self.expect_it()

        def set_timers(_: object) -> None:
            self.poller.call_later(0.004, lambda _: None)
            self.poller.call_later(0.0123, self.note)
            self.poller.call_later(0.002, self.note).cancel()

        trigger(HIGH, set_timers)
        self.expect_it()
        self.poller.call_later(0.003, self.note)
        self.expect_it()

    def one_shot_and_edge(self) -> None:
        """A one-shot that is armed again, an edge-triggered one read to the end, and signals."""
        poller = self.poller
        shot, its_peer = socket.socketpair()
        edge, edge_peer = socket.socketpair()
        edge.setblocking(False)
        with shot, its_peer, edge, edge_peer:

            def once(fd: int, event: int, flags: int) -> None:
                shot.recv(1)
                if event & netpoll.IOEvent.OUT:
                    poller.mod_read(PollAttachment(shot, once), oneshot=True)
                self.happened.set()

            def to_the_end(fd: int, event: int, flags: int) -> None:
                with suppress(BlockingIOError):
                    while edge.recv(2):
                        pass
                self.happened.set()

            poller.add_read(PollAttachment(shot, once), oneshot=True)
            its_peer.sendall(b"12345")
            self.expect_it()
            poller.mod_read_write(PollAttachment(shot, once), oneshot=True)
            self.expect_it()
            poller.add_read_write(PollAttachment(edge, to_the_end), edge_triggered=True)
            self.expect_it()
            edge_peer.sendall(b"12345")
            self.expect_it()
            self.all_signals()
            poller.delete(shot)
            poller.delete(edge)

    def all_signals(self) -> None:
        """Signals during a wait without end and one with: noted, with a task, and a way out."""
        for _ in range(3):
            self.send_signal(signal.SIGUSR1)
        self.send_signal(signal.SIGUSR2)
        self.expect_it()
        timer = self.poller.call_later(LONG, self.note)
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGHUP):
            self.send_signal(number)
        timer.cancel()
        self.poller.trigger(HIGH, self.note)
        self.expect_it()

    def send_signal(self, number: int) -> None:
        """Send it to the loop's thread until its handler has run."""
        self.signals.clear()
        for _ in range(400):
            signal.pthread_kill(self.main, number)
            if self.signals.wait(0.05):
                return
        raise AssertionError("no handler ran")

    def close(self) -> None:
        """Close what is open still."""
        self.listener.close()
        os.close(self.null)


def expect(kind: type[Exception], function: Callable[..., object], *args: object) -> None:
    """Call `function`, which has to raise `kind`."""
    with suppress(kind):
        function(*args)
        raise AssertionError(f"no {kind.__name__}")


def serve(folder: Path) -> None:
    """Record a server from here on until its poller is closed; write the trace and who is who."""
    with open_poller("epoll") as poller, closing(Server(poller)) as server:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, server.handle_signal)
        driver = threading.Thread(target=server.drive, name="driver")
        os.write(server.null, BEGIN)
        recording = tracer.record(poller)
        poller.add_read(PollAttachment(server.listener, server.accept))
        poller.poll_once(0)
        poller.poll_once(0.0155)
        driver.start()
        while not poller.closed:
            with suppress(Interrupted):
                poller.polling()
        driver.join(LONG)
        os.write(server.null, END)
        if server.failure is not None:
            raise server.failure
        recording.trace.save(folder / "trace.jsonl")
        threads = {str(threading.get_native_id()): LOOP, str(driver.native_id): "driver"}
        (folder / "threads.json").write_text(json.dumps(threads))


# ---- both sides in the same words --------------------------------------------------------------


class Said(NamedTuple):
    """One thing that a thread did, in words that are the same on both sides."""

    thread: str
    text: str


def told_by_trace(trace: Trace) -> list[Said]:
    """Return what the steps say of system calls."""
    said = []
    for step in trace:
        if step.thread == LOOP or isinstance(
            step, (Registered, Deleted, WakeupSent, WakeupReceived)
        ):
            said += [Said(step.thread, text) for text in _sentences(step, trace)]
    return said


def _sentences(step: Step, trace: Trace) -> list[str]:
    match step:
        case Registered():  # Modified is one
            verb = "MOD" if isinstance(step, Modified) else "ADD"
            return [f"epoll_ctl({verb}, {step.fd}, {_mask(step)}) = {_result(step.error)}"]
        case Deleted():
            return [f"epoll_ctl(DEL, {step.fd}) = {_result(step.error)}"]
        case WaitStarted():
            timeout = -1 if step.timeout_ns is None else math.ceil(step.timeout_ns / 1e6)
            return [f"epoll_wait(size {step.size}, {timeout} ms)"]
        case WaitEnded():
            # Not the kernel's EINTR, but what the signal handler raised, stands in the step.
            return [f"... {'an exception' if step.error else list(step.events)}"]
        case WakeupSent():
            return ["write(eventfd, 1)" if step.error is None else "write(eventfd) failed"]
        case WakeupReceived():
            return ["read(eventfd, 1)"]
        case PollerClosed():
            return ["close(epoll)", "close(eventfd)"]
        case WouldBlock():
            return [f"{step.call[:4].replace('acce', 'accept')}({step.fd}) = EAGAIN"]
        case Accepted():
            new = f"{step.new_fd} from {step.peer}"
            return [f"accept({step.fd}) = {_result(step.error, new)}"]
        case Read():
            return [f"recv({step.fd}, {step.asked}) = {_result(step.error, step.count)}"]
        case Wrote():
            return [f"send({step.fd}, {step.asked}) = {_result(step.error, step.count)}"]
        case Closed():
            return [f"close({step.fd}) = {_result(step.error)}"]
    return []


_ERRNO_OF = {
    "AlreadyRegistered": "EEXIST",
    "NotRegistered": "ENOENT",
    "ValueError": "EBADF",
    "PermissionError": "EPERM",
}


def _result(error: str | None, result: object = 0) -> str:
    if error is None:
        return str(result)
    number = re.search(r"\[Errno (\d+)\]", error)
    if number:
        return errno.errorcode[int(number[1])]
    return _ERRNO_OF.get(error.partition(":")[0], error)


def _mask(step: Registered) -> int:
    mask = 0
    if "read" in step.interest:
        mask |= select.EPOLLIN
        if not step.exclusive:
            mask |= select.EPOLLPRI | select.EPOLLRDHUP
    if "write" in step.interest:
        mask |= select.EPOLLOUT
    if step.edge_triggered:
        mask |= select.EPOLLET & 0xFFFFFFFF
    if step.oneshot:
        mask |= select.EPOLLONESHOT
    if step.exclusive:
        mask |= select.EPOLLEXCLUSIVE
    return mask


def told_by_strace(text: str, threads: dict[str, str]) -> list[Said]:
    """Return what the lines between BEGIN and END say: ``PID call(arguments) = result``.

    The second half of a call that other threads interrupted stands in a line of its own.
    """
    said: list[Said] = []
    begun: dict[str, str] = {}  # by thread: the first half of a line
    waiting: set[str] = set()  # threads whose wait has begun and did not end yet
    inside = False
    for line in text.splitlines():
        number, line = line.split(maxsplit=1)
        if line.endswith(" <unfinished ...>"):
            begun[number] = line.removesuffix(" <unfinished ...>")
            continue
        half = re.match(r"<\.\.\. \w+ resumed>(.*)", line)
        line = begun.pop(number) + half[1] if half else line
        inside = inside or is_marker(line, BEGIN)
        if is_marker(line, END):
            return said
        if not inside or number not in threads or line.startswith(("+++", "eventfd2(")):
            continue
        thread = threads[number]
        if is_marker(line, RAISE):
            waiting.discard(thread)
            said.append(Said(thread, "... an exception"))
        elif re.match("epoll_p?wait", line):
            said += [Said(thread, part) for part in _wait(line, retry=thread in waiting)]
            # Python calls it again after a signal: one wait, which goes on.
            (waiting.add if "EINTR" in line else waiting.discard)(thread)
        else:
            sentence = _call(line, in_loop=thread == LOOP)
            emptied = sentence == "read(eventfd, 1)" and said[-1].text == "close(epoll)"
            if sentence and not emptied:  # reading the eventfd empty is a part of closing it
                said.append(Said(thread, sentence))
    raise AssertionError("strace's output has no end")


def is_marker(line: str, marker: bytes) -> bool:
    """Whether `line` is the write of `marker` to /dev/null."""
    return re.match(rf'write\(\d+</dev/null.*>, "{marker.decode()}",', line) is not None


def _wait(line: str, *, retry: bool) -> Iterator[str]:
    end = re.search(r", (\d+), (-?\d+)(, NULL, \d+)?\) += (\S+)", line)
    assert end, line
    if not retry:
        yield f"epoll_wait(size {end[1]}, {end[2]} ms)"
    if "EINTR" not in line:
        pairs = re.findall(r"events=([\w|]+), data=\{u32=(\d+)", line)
        assert len(pairs) == int(end[4]), line
        yield f"... {[(int(fd), _bits(events)) for events, fd in pairs]}"


def _bits(names: str) -> int:
    return sum(getattr(select, name) & 0xFFFFFFFF for name in names.split("|"))


_STRING = r'(?:"(?:[^"\\]|\\.)*"(?:\.\.\.)?|0x[0-9a-f]+|NULL)'


def _call(line: str, *, in_loop: bool) -> str | None:
    """Return the sentence for any other call; None when it is none that a step could tell of."""
    call = re.match(
        r"(\w+)\((-?\d+)(?:<(.*?)>)?(?:, |\))(.*) = (-?\d+)(?:<.*>)?(?: (E\w+) .*)?$", line
    )
    assert call, line
    name, fd, file, rest, value = call[1], call[2], call[3] or "", call[4], call[5]
    result = call[6] or value
    if name == "epoll_ctl":
        what = re.match(r"EPOLL_CTL_(\w+), (\d+)(?:<.*?>)?(?:, \{events=([\w|]+))?", rest)
        assert what, line
        mask = f", {_bits(what[3])}" if what[1] != "DEL" else ""
        return f"epoll_ctl({what[1]}, {what[2]}{mask}) = {result}"
    if name in ("read", "write") and "eventfd" in file:
        right = rest.startswith(r'"\1\0\0\0\0\0\0\0", 8)') and result == "8"
        return f"{name}(eventfd, 1)" if right else line
    if name == "close" and "[event" in file:
        return f"close({'epoll' if 'eventpoll' in file else 'eventfd'})"
    if not in_loop or "socket:" not in file:
        return None
    if name == "close":
        return f"close({fd}) = {result}"
    verb = {"acce": "accept", "recv": "recv", "send": "send"}[name[:4]]
    if result == "EAGAIN":
        return f"{verb}({fd}) = EAGAIN"
    if verb == "accept":
        peer = re.search(r'htons\((\d+)\), sin_addr=inet_addr\("(.*?)"\)', rest)
        return f"accept({fd}) = {result}" + (f" from {peer[2]}:{peer[1]}" if peer else "")
    if name.endswith("msg"):
        asked = sum(map(int, re.findall(r"iov_len=(\d+)", rest)))
    else:
        size = re.match(rf"{_STRING}, (\d+)", rest)
        assert size, line
        asked = int(size[1])
    return f"{verb}({fd}, {asked}) = {result}"


def check_equal(what: str, trace: list[str], strace: list[str]) -> None:
    """Fail at the first difference, with what came before it."""
    for index, (ours, theirs) in enumerate(zip_longest(trace, strace)):
        if ours != theirs:
            before = [f"  both:   {text}" for text in trace[max(0, index - 8) : index]]
            lines = [f"{what}, number {index}:", *before, f"  trace:  {ours}"]
            after = [f"  then:   {text}" for text in strace[index + 1 : index + 4]]
            pytest.fail("\n".join([*lines, f"  strace: {theirs}", *after]), pytrace=False)


def check_all(trace: list[Said], strace: list[Said]) -> None:
    """Compare thread by thread, and over all threads what happens under a lock."""
    for thread in (LOOP, "driver"):
        check_equal(
            thread,
            [said.text for said in trace if said.thread == thread],
            [said.text for said in strace if said.thread == thread],
        )
    for what in ("epoll_ctl", "(eventfd"):
        check_equal(
            f"{what} of all threads",
            [str(said) for said in trace if what in said.text],
            [str(said) for said in strace if what in said.text],
        )


# ---- the tests ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strace_path() -> str:
    """The path of strace; without it, or where it may trace nothing, the test is skipped."""
    if sys.platform != "linux":
        pytest.skip("strace is Linux's")
    path = shutil.which("strace")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(NO_STRACE, pytrace=False)
        pytest.skip(NO_STRACE)
    tried = subprocess.run([path, "-o", os.devnull, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"ptrace is not allowed here: {tried.stderr.strip()}")
    return path


class Run(NamedTuple):
    """What the server left: trace and strace in the same words, and what else tests look at."""

    trace: list[Said]
    strace: list[Said]
    text: str
    tasks_without_write: int


@pytest.fixture(scope="module")
def run(strace_path: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run `serve` under strace."""
    folder = tmp_path_factory.mktemp("strace")
    output = folder / "strace.txt"
    command = [strace_path, "-f", "-y", "-v", "-s", "8", "-o", str(output), "-e", f"trace={CALLS}"]
    # The markers are no longer than the 8 bytes of a string that strace shows here.
    command += [
        "-e",
        "signal=none",
        sys.executable,
        "-W",
        "error",
        "-m",
        f"tests.{Path(__file__).stem}",
    ]
    done = subprocess.run([*command, str(folder)], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    threads = json.loads((folder / "threads.json").read_text())
    text = output.read_text(errors="replace")
    trace = tracer.load(folder / "trace.jsonl")
    tasks = {step.seq for step in trace.where(kind="TaskQueued")}
    tasks -= {step.cause for step in trace.where(kind="WakeupSent") if step.cause is not None}
    return Run(told_by_trace(trace), told_by_strace(text, threads), text, len(tasks))


def test_same_calls(run: Run) -> None:
    """Every call of the run is in the trace once, in order, equal; and nothing else is."""
    check_all(run.trace, run.strace)


@pytest.mark.parametrize(
    "pattern",
    [
        r"epoll_ctl\(ADD, .* EEXIST",
        r"epoll_ctl\(ADD, .* EPERM",
        r"epoll_ctl\(ADD, .* EBADF",
        r"epoll_ctl\(DEL, .* 0",
        rf"epoll_ctl\(ADD, \d+, {0x2003 | select.EPOLLONESHOT}\) = 0",
        rf"epoll_ctl\(MOD, \d+, {0x2007 | select.EPOLLONESHOT}\) = 0",
        rf"epoll_ctl\(ADD, \d+, {0x2007 | 1 << 31}\) = 0",
        rf"epoll_ctl\(MOD, \d+, {0x2007 | 1 << 31}\) = 0",
        r"epoll_wait\(size 128, 0 ms\)",
        r"epoll_wait\(size 128, 16 ms\)",
        r"epoll_wait\(size 64, -1 ms\)",
        r"\.\.\. \[\]",
        r"\.\.\. \[\(\d+, 8193\)\]",
        r"\.\.\. an exception",
        r"accept\(\d+\) = \d+ from 127.0.0.1:\d+",
        r"accept\(\d+\) = EAGAIN",
        r"recv\(\d+, 4\) = 3",
        r"recv\(\d+, 4\) = 0",
        r"recv\(\d+, 4\) = ECONNRESET",
        r"recv\(\d+\) = EAGAIN",
        r"send\(\d+, 39000\) = 39000",
        r"send\(\d+\) = EAGAIN",
        r"close\(\d+\) = 0",
        r"close\(eventfd\)",
    ],
)
def test_run_has_it(run: Run, pattern: str) -> None:
    """The server does what the comparison is about: it does not pass because nothing happens."""
    assert any(re.fullmatch(pattern, said.text) for said in run.strace)


def test_signals_interrupted_waits(run: Run) -> None:
    """The kernel ended waits with EINTR, and the loop began no new wait for all of them."""
    lines = [line for line in run.text.splitlines() if "EINTR" in line]
    ended = [said for said in run.strace if said.text == "... an exception"]
    assert len(lines) > len(ended) == 1


def test_coalesced(run: Run) -> None:
    """Writes came from both threads, and not every task has its own: some were coalesced."""
    writes = [said.thread for said in run.strace if said.text == "write(eventfd, 1)"]
    assert set(writes) == {"driver", LOOP}
    assert run.tasks_without_write >= 2


def test_missing_or_wrong_step_is_seen(run: Run) -> None:
    """A trace that lacks any one sentence, has it twice or in other words is not equal."""
    for index, said in enumerate(run.trace):
        before, after = run.trace[:index], run.trace[index + 1 :]
        for instead in ([], [said, said], [Said(said.thread, said.text + "0")]):
            with pytest.raises(pytest.fail.Exception):
                check_all([*before, *instead, *after], run.strace)


def test_wakeup_that_ends_the_recording() -> None:
    """A write to the eventfd is told although the loop that it wakes ends the recording."""
    with open_poller("epoll") as poller:
        recording = tracer.record(poller)
        running, ended = threading.Event(), threading.Event()
        channel = poller.wakeup._original._channel  # type: ignore[attr-defined]

        def slow_write() -> None:
            channel.write()
            ended.wait(0.5)  # not longer: the loop may wait for this thread, and rightly so

        poller.trigger(HIGH, lambda _: running.set())
        loop = threading.Thread(target=poller.polling)
        loop.start()
        assert running.wait(LONG)
        poller.wakeup._original._channel = channel._replace(  # type: ignore[attr-defined]
            write=slow_write
        )
        poller.close()
        ended.set()
        loop.join(LONG)
    kinds = [step.kind for step in recording.trace]
    assert kinds.count("WakeupSent") == 2, kinds  # the trigger's and the close's


def test_sendall_that_is_cut_short() -> None:
    """What `sendall` sent before the socket was full is told, as it is of `send`."""
    here, there = socket.socketpair()
    with here, there, open_poller("epoll") as poller:
        here.setblocking(False)
        there.setblocking(False)

        def send(fd: int, event: int, flags: int) -> None:
            with suppress(BlockingIOError):
                here.sendall(bytes(10_000_000))

        with tracer.record(poller) as trace:
            poller.add_write(PollAttachment(here, send))
            assert poller.poll_once(LONG) == 1
        arrived = 0
        with suppress(BlockingIOError):
            while True:
                arrived += len(there.recv(1_000_000))
    assert arrived > 0
    assert sum(step.count for step in trace if isinstance(step, Wrote)) == arrived


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
