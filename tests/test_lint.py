"""`lint` finds each mistake, says where and how to mend it, and is silent about everything else."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import netpoll
import tracer
from netpoll.examples.chat_server import ChatServer
from netpoll.examples.client import Client
from netpoll.examples.echo_server import EchoServer
from netpoll.examples.http_server import HttpServer
from netpoll.examples.udp_echo import UdpEcho
from tests.traces import (
    EPOLL,
    ERR,
    HOSTILE,
    HUP,
    LISTENER,
    RDHUP,
    READ,
    WAKEUP,
    WRITE,
    Script,
    echo_trace,
    hostile_trace,
    random_trace,
)
from tracer.demo import hang_up, session
from tracer.lint import LINTS, Finding, lint
from tracer.lint_rules import (
    FLOOD,
    IDLE_ROUNDS,
    LONGEST_CHAIN,
    MOST_READS,
    MOST_RETRIES,
    ROUNDS_DISARMED,
    RULES,
)
from tracer.replay import Replay
from tracer.steps import Function
from tracer.trace import BaseRegistration, BaseState, BaseTask, BaseTimer, Trace

HOUSE = Path(__file__).parent.parent
LONG = 10.0  # seconds: what a test waits for happens long before


def found(trace: Trace, slow: float = LONG) -> list[str]:
    """Return the names of the findings; a busy machine is no slow callback."""
    return [finding.name for finding in lint(trace, slow=slow)]


def program(name: str, which: str) -> Trace:
    """Run one of the small programs and return its recording."""
    module = importlib.import_module(f"tests.lint_programs.{name.replace('-', '_')}")
    with netpoll.open_poller() as poller:
        with tracer.record(poller) as trace:
            left_open = getattr(module, which)(poller)
        for sock in left_open or ():
            sock.close()
    return trace


# ---- real programs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINTS)
def test_program_with_the_bug(name: str) -> None:
    """The mistake in a real program is found, it alone, at a line of that program."""
    (finding,) = lint(program(name, "bug"), slow=0.1 if name == "blocking-callback" else LONG)
    assert finding.name == name
    assert finding.function is not None
    assert Path(finding.function.file).name == f"{name.replace('-', '_')}.py"
    assert finding.line is not None


@pytest.mark.parametrize("name", LINTS)
def test_mended_twin(name: str) -> None:
    """Where the mistake is mended nothing is found, also in a recording that began or ended early.

    What a beginning lacks could be the excuse. So could what was before the middle.
    """
    trace = program(name, "mended")
    assert found(trace) == []
    for length in range(0, len(trace), 1 + len(trace) // 40):
        assert found(trace[:length]) == []
        assert found(since(trace, length)) == []


def since(trace: Trace, index: int) -> Trace:
    """Return `trace` as it would be, had the recording begun with the step `index`."""
    state = Replay(trace).state(index - 1)
    rows = [
        BaseRegistration(
            row.fd,
            row.who,
            row.interest,
            row.edge_triggered,
            row.oneshot,
            row.exclusive,
            row.callback,
        )
        for row in state.registrations.values()
        if row.fd != state.wakeup_fd
    ]
    tasks = [BaseTask("high", task.callback) for task in (*state.urgent, *state.low)]
    timers = [BaseTimer(timer.due_ns, timer.callback) for timer in state.timers]
    base = replace(
        trace.base,
        registrations=tuple(rows),
        tasks=tuple(tasks),
        timers=tuple(timers),
        running=True,
    )
    return Trace(base, trace.functions, list(trace)[index:])


@contextlib.contextmanager
def served(make: Callable[[netpoll.Poller], Any]) -> Iterator[tuple[Any, Trace]]:
    """Run a server in a thread, and record it."""
    poller = netpoll.open_poller()
    server = make(poller)
    with (
        netpoll.run_in_thread(poller, name="test_lint", on_end=server.close),
        tracer.record(poller) as trace,
    ):
        yield server, trace


def connect(server: Any) -> socket.socket:
    return socket.create_connection(server.address, timeout=LONG)


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(65536)):
        data += piece
    return data


def stay_in_touch(server: Any) -> None:
    """Wait until the loop has handled all that came before."""
    for _ in range(2):
        done = threading.Event()
        server.poller.trigger(netpoll.EventPriority.HIGH, lambda _, done=done: done.set())
        assert done.wait(LONG)


def use_echo(server: EchoServer) -> None:
    with connect(server) as polite, connect(server) as rude, connect(server) as large:
        for line in (b"hello", b"how are you?"):
            polite.sendall(line)
            assert receive(polite, len(line)) == line
        rude.sendall(b"wait, I have to")
        hang_up(rude)
        data = bytes(3_000_000)  # more than the kernel holds: the server has to pause
        sender = threading.Thread(target=large.sendall, args=[data])
        sender.start()
        stay_in_touch(server)
        assert len(receive(large, len(data))) == len(data)
        sender.join(LONG)
    stay_in_touch(server)


def hear(sock: socket.socket, text: bytes) -> None:
    """Receive until this has come."""
    data = b""
    while text not in data:
        data += sock.recv(65536)


def use_chat(server: ChatServer) -> None:
    with connect(server) as ann, connect(server) as bob, connect(server) as rude:
        for client, name in ((ann, b"ann"), (bob, b"bob"), (rude, b"eve")):
            client.sendall(name + b"\n")
            hear(client, b"you are " + name)
        for number in range(20):
            ann.sendall(b"line %d\n" % number)
        hear(bob, b"line 19")
        rude.sendall(b"last words\n")
        hang_up(rude)
    stay_in_touch(server)


def use_http(server: HttpServer) -> None:
    request = b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n"
    with connect(server) as client:
        client.sendall(request % (b"small", b"keep-alive"))
        assert b"small" in receive(client, 100)
        client.sendall(request % (b"large", b"close"))
        stay_in_touch(server)  # it has to wait for the client to read
        assert len(receive(client, 10_000_000)) > 3_000_000
    with connect(server) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b"400" in client.recv(65536)
    with connect(server) as rude:
        rude.sendall(request % (b"large", b"close"))
        hang_up(rude)
    stay_in_touch(server)


def use_udp(server: UdpEcho) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(LONG)
        for size in (5, 0, 1000) * 5:
            client.sendto(bytes(size), server.address)
        assert sum(len(client.recv(2000)) for _ in range(15)) == 5 * 1005


@pytest.mark.parametrize("end", ["shut down", "stop"])
@pytest.mark.parametrize(
    ("make", "use"),
    [(EchoServer, use_echo), (ChatServer, use_chat), (HttpServer, use_http), (UdpEcho, use_udp)],
    ids=["echo_server", "chat_server", "http_server", "udp_echo"],
)
def test_examples(
    make: Callable[..., Any], use: Callable[[Any], None], end: str, tmp_path: Path
) -> None:
    """The examples make no mistakes, whatever their clients do and however they end."""
    (tmp_path / "small").write_text("small")
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    options = [tmp_path] if make is HttpServer else []
    with served(lambda poller: make(poller, *options)) as (server, trace):
        use(server)
        if end == "shut down":
            server.poller.trigger(netpoll.EventPriority.HIGH, lambda _: server.shut_down())
    assert len(trace) > 50
    assert found(trace) == []
    for index in range(0, len(trace), 1 + len(trace) // 20):
        assert found(since(trace, index)) == []


def test_example_client() -> None:
    """The example client makes none either, on a poller of its own."""
    with served(EchoServer) as (server, _), netpoll.open_poller() as poller:
        with tracer.record(poller) as trace:
            client = Client(poller, *server.address, count=20, size=100_000, connections=5)
            poller.polling()
        client.close()
        assert client.problem == ""
    assert found(trace) == []


def test_notebook_server() -> None:
    """Neither does the server that a student sees first, under the clients of its notebook."""
    notebook = json.loads((HOUSE / "notebooks" / "00-start-here.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        if "tracer.play" not in cell:
            exec(compile(cell, "<cell>", "exec"), names)
    assert found(names["recording"].trace) == []


def test_sending_nothing_back_at_the_end_is_ignoring_it() -> None:
    """The commonest form of the mistake, `send(recv(...))`, is found too."""
    ours, theirs = socket.socketpair()
    with netpoll.open_poller() as poller, ours, theirs, tracer.record(poller) as trace:
        poller.add_read(netpoll.PollAttachment(ours, lambda *_: ours.send(ours.recv(64))))
        theirs.shutdown(socket.SHUT_WR)
        for _ in range(20):
            poller.poll_once(5)
    assert "end-of-stream-ignored" in {finding.name for finding in lint(trace)}


def test_correct_traces() -> None:
    """Nothing is found in a correct trace, nor in any beginning or end of it."""
    for trace in (echo_trace(), session()):
        assert found(trace) == []
        for index in range(len(trace)):
            assert found(trace[:index]) == []
            assert found(since(trace, index)) == []


def test_any_trace() -> None:
    """What random programs do, and what begins or ends anywhere, is read without an error."""
    for seed in range(100):
        trace = random_trace(seed)
        for cut in (trace, trace[: len(trace) // 2], since(trace, len(trace) // 2)):
            for finding in lint(cut):
                assert [step.seq for step in cut][finding.number - 1] == finding.steps[0]
                assert finding.text.endswith(".") or finding.name == "exception-logged"


def test_part_of_a_trace_is_refused() -> None:
    """The excuse may be among the steps that are left out."""
    with pytest.raises(ValueError, match="lint needs the whole"):
        lint(echo_trace()[5:])


# ---- made-up traces: what counts, and what excuses ----------------------------------------------


class Story(Script):
    """Writes a trace in which a callback `echo` is called for connections and the like."""

    def __init__(self, **base: Any) -> None:
        super().__init__(BaseState("epoll", EPOLL, WAKEUP, 128, True, **base))

    @contextlib.contextmanager
    def dispatch(
        self, fd: int = 7, event: int = READ, error: str | None = None, after: int = 3_000
    ) -> Iterator[None]:
        """Wait, and call `echo` for this event; calls are made in the block."""
        with self.batch((fd, event)), self.call_back(fd, event, error, after):
            yield

    @contextlib.contextmanager
    def batch(self, *events: tuple[int, int]) -> Iterator[None]:
        """Wait for several events; `call_back` is for the block."""
        self.ended = self.wait(*events)
        yield

    @contextlib.contextmanager
    def call_back(
        self, fd: int, event: int = READ, error: str | None = None, after: int = 3_000
    ) -> Iterator[None]:
        """Call `echo` for an event of the batch."""
        echo = self.ids["echo"]
        started = self.step(
            "DispatchStarted", self.ended, fd=fd, event=event, flags=0, callback=echo
        )
        yield
        self.step("DispatchEnded", started, after, fd=fd, error=error)

    @contextlib.contextmanager
    def task(self, cause: int | None = None, error: str | None = None) -> Iterator[None]:
        """Run a task."""
        started = self.step("TaskStarted", cause, callback=self.ids["log_stats"])
        yield
        self.step("TaskEnded", started, error=error)

    def elsewhere(self, act: Callable[[], object]) -> None:
        """Do something in another thread."""
        own, self.thread = self.thread, "another thread"
        act()
        self.thread = own

    def register(self, fd: int = 7, interest: str = "read", **more: Any) -> int:
        return self.add("main", 2, fd, f"peer:{fd}", "echo", interest=interest, **more)

    def modify(self, fd: int = 7, interest: str = "read", **more: Any) -> int:
        return self.register(fd, interest, kind="Modified", **more)

    def accept(self, new_fd: int = 7) -> int:
        return self.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=new_fd, peer="peer:7")

    def read(self, fd: int = 7, count: int = 5, asked: int | None = 64, **more: Any) -> int:
        return self.call("echo", 3, "Read", fd=fd, count=count, asked=asked, **more)

    def wrote(self, fd: int = 7, count: int = 5, asked: int = 5, **more: Any) -> int:
        return self.call("echo", 8, "Wrote", fd=fd, count=count, asked=asked, **more)

    def would_block(self, fd: int = 7, call: str = "recv") -> int:
        return self.call("echo", 3, "WouldBlock", fd=fd, call=call)

    def delete(self, fd: int = 7, **more: Any) -> int:
        return self.call("goodbye", 1, "Deleted", fd=fd, **more)

    def close(self, fd: int = 7) -> int:
        return self.call("goodbye", 3, "Closed", fd=fd)

    def queue(self, callback: str = "log_stats") -> int:
        values = {"priority": "high", "queue": "high", "callback": self.ids[callback]}
        return self.call("client_cell", 1, "TaskQueued", **values)

    def queue_many(self, number: int) -> None:
        for _ in range(number):
            self.queue("echo")

    def set_timer(self) -> int:
        return self.call("echo", 2, "TimerSet", callback=self.ids["log_stats"], delay_ns=10**9)

    def go_on(self, rounds: int = 1) -> None:
        """Wait so often, for nothing."""
        for _ in range(rounds):
            self.wait()

    @property
    def found(self) -> list[str]:
        return found(self.trace())

    @property
    def finding(self) -> Finding:
        (finding,) = lint(self.trace(), slow=LONG)
        return finding


def nothing(story: Story) -> None:
    """Be no excuse."""


Act = Callable[[Story], object]


def accepted(story: Story) -> None:
    """Accept and register 7."""
    with story.dispatch(LISTENER):
        story.accept()
        story.register()


def other_socket(fd: int = 7) -> BaseRegistration:
    return BaseRegistration(fd, f"peer:{fd}", "read", False, False, False, 2)


class TestBlocking:
    def test_threshold(self) -> None:
        """A callback may take `slow` seconds and no nanosecond more."""
        for length, names in ((100_000_000, []), (100_000_001, ["blocking-callback"])):
            story = Story()
            with story.dispatch(after=length):
                pass
            story.go_on(1000)
            assert found(story.trace(), slow=0.1) == names
            assert [f.name for f in lint(story.trace())] == names
            assert found(story.trace(), slow=math.inf) == []

    def test_what_waited(self) -> None:
        """The sentence tells how long it was, and who waited for it."""
        story = Story()
        with story.batch((7, READ), (WAKEUP, READ), (8, READ), (9, READ)):
            with story.call_back(7, after=2 * 10**9):
                story.elsewhere(story.queue)
            with story.call_back(8):
                pass
        (finding,) = lint(story.trace())
        assert (
            finding.text
            == "echo held the loop for 2.0 s, and 2 events and 1 task waited meanwhile."
        )
        assert finding.fd == 7

    def test_task(self) -> None:
        """A task blocks as well; it has no descriptor."""
        story = Story()
        with story.task(story.queue()):
            story.t_ns += 10**9
        (finding,) = lint(story.trace())
        assert (finding.name, finding.fd) == ("blocking-callback", None)
        assert finding.text == "log_stats held the loop for 1.0 s."

    def test_not_over_yet(self) -> None:
        """A recording that stops in the middle knows how long it was at least."""
        story = Story()
        with story.dispatch():
            story.t_ns += 10**9
            story.elsewhere(story.queue)
            trace = story.trace()
        (finding,) = lint(Trace(trace.base, trace.functions, list(trace)[:-1]))
        assert finding.text.startswith("echo held the loop for at least 1.0 s, and 1 task waited")

    def test_no_time_at_all(self) -> None:
        """With zero everything is too slow."""
        story = Story()
        with story.dispatch():
            pass
        assert found(story.trace(), slow=0) == ["blocking-callback"]

    @pytest.mark.parametrize("slow", [-1.0, math.nan])
    def test_no_time(self, slow: float) -> None:
        """A threshold is a time."""
        with pytest.raises(ValueError, match="slow is a time"):
            lint(echo_trace(), slow=slow)


class TestWriteInterestLeftArmed:
    @staticmethod
    def story(rounds: int = IDLE_ROUNDS, act: Act = nothing, **more: Any) -> Story:
        """Report in each round that 7 can be written; `act` happens in the last."""
        story = Story()
        with story.dispatch(LISTENER):
            story.accept()
            story.register(interest="read write", **more)
        for number in range(rounds):
            with story.dispatch(7, WRITE):
                if number == rounds - 1:
                    act(story)
        return story

    def test_busy(self) -> None:
        """So many rounds in a row are a finding, one fewer is none."""
        finding = self.story().finding
        assert finding.name == "write-interest-left-armed"
        assert (
            "In 10 rounds in a row the kernel reported that client A (descriptor 7)" in finding.text
        )
        assert len(finding.steps) == 2
        assert self.story(IDLE_ROUNDS - 1).found == []

    @pytest.mark.parametrize("mode", ["edge_triggered", "oneshot"])
    def test_other_modes(self, mode: str) -> None:
        """Edge-triggered and one-shot interest does no harm."""
        more: Any = {mode: True}
        assert self.story(**more).found == []

    @pytest.mark.parametrize(
        "act",
        [
            lambda story: story.wrote(),
            lambda story: story.would_block(call="sendmsg"),
            # It may have sent by os.sendfile, and be done.
            lambda story: story.modify(),
            lambda story: (story.delete(), story.close()),
        ],
    )
    def test_written(self, act: Act) -> None:
        """A row that ends with bytes, or with the interest given up when all is sent, is none."""
        story = self.story(act=act)
        story.go_on()
        assert story.found == []

    def test_read_at_last(self) -> None:
        """It ends by chance when the client says something."""
        story = self.story()
        with story.dispatch(7, READ | WRITE):
            story.read()
            story.modify()
        assert story.finding.name == "write-interest-left-armed"

    def test_rounds_in_a_row(self) -> None:
        """A round in which it could not be written is a pause."""
        story = self.story(IDLE_ROUNDS - 1)
        story.go_on()
        with story.dispatch(7, WRITE):
            pass
        assert story.found == []
        story = self.story(IDLE_ROUNDS - 1)
        with story.dispatch(7, READ):
            pass
        assert story.found == []

    def test_reading_is_no_writing(self) -> None:
        """What is read meanwhile does not need the write interest."""
        story = self.story(2 * IDLE_ROUNDS, lambda story: story.read())
        with story.dispatch(7, READ | WRITE):
            story.read()
        assert "In 21 rounds in a row" in story.finding.text

    @pytest.mark.parametrize(
        "act",
        [lambda story: story.wrote(), lambda story: story.modify(), lambda story: story.close()],
    )
    def test_end_from_elsewhere(self, act: Act) -> None:
        """A row of idle rounds that something else ends was a row."""
        story = self.story()
        with story.task(story.queue()):
            act(story)
        assert "write-interest-left-armed" in story.found

    def test_written_at_last(self) -> None:
        """Bytes come too late for the rounds before them."""
        story = self.story(IDLE_ROUNDS + 1, lambda story: story.wrote())
        assert "In 10 rounds in a row" in story.finding.text

    def test_what_makes_no_steps(self) -> None:
        """What is written to a pipe can't be seen, though its number was a socket's before."""
        story = Story()
        story.register()
        with story.dispatch():
            story.read()
        story.delete()
        story.add("main", 2, 7, "pipe", "echo", interest="write")
        for _ in range(20):
            with story.dispatch(7, WRITE):
                pass
        assert story.found == []


class TestWriteRetriedInALoop:
    def test_in_a_row(self) -> None:
        """So many tries at one socket are a finding; one fewer, or another between, is none."""
        for tries, between, names in (
            (MOST_RETRIES, nothing, ["write-retried-in-a-loop"]),
            (MOST_RETRIES - 1, nothing, []),
            (MOST_RETRIES, lambda story: story.would_block(8, "send"), []),
            (MOST_RETRIES, lambda story: story.wrote(), []),
        ):
            story = Story()
            with story.dispatch():
                for number in range(tries):
                    if number == tries - 1:
                        between(story)
                    story.would_block(call="send")
            assert story.found == names

    def test_reads(self) -> None:
        """Reads that would block are another mistake, if any."""
        story = Story()
        with story.task(story.queue()):
            for _ in range(MOST_RETRIES):
                story.would_block()
        assert story.found == []


class TestShortWriteForgotten:
    @staticmethod
    def story(inside: Act = nothing, after: Act = nothing, count: int = 3, **base: Any) -> Story:
        story = Story(**base)
        accepted(story)
        with story.dispatch():
            story.read()
            story.wrote(count=count, asked=5)
            inside(story)
        after(story)
        story.go_on()
        return story

    def test_rest(self) -> None:
        """A rest that nothing will send is lost; all bytes leave none, no bytes are a choice."""
        finding = self.story().finding
        assert finding.name == "short-write-forgotten"
        assert "took 3 of 5 bytes" in finding.text
        assert "the other 2 sent" in finding.text
        assert self.story(count=5).found == []
        assert self.story(count=0).found == []

    @pytest.mark.parametrize(
        "excuse",
        [
            lambda story: story.wrote(count=2, asked=2),
            lambda story: story.would_block(call="send"),
            lambda story: story.modify(interest="read write"),
            lambda story: (story.delete(), story.close()),
            lambda story: story.queue(),
            lambda story: story.set_timer(),
        ],
    )
    def test_excuse(self, excuse: Act) -> None:
        """The callback sent it, will be told when it can, gave up, or left it to a task."""
        assert self.story(inside=excuse).found == []

    @pytest.mark.parametrize(
        "excuse",
        [
            lambda story: story.elsewhere(lambda: story.modify(interest="read write")),
            lambda story: story.elsewhere(lambda: (story.delete(), story.close())),
            lambda story: story.elsewhere(lambda: story.accept(7)),
        ],
    )
    def test_excuse_elsewhere(self, excuse: Act) -> None:
        """Another thread may see to it."""
        assert "short-write-forgotten" not in self.story(after=excuse).found

    def test_sent_by_a_task(self) -> None:
        """A task of another thread may send it."""

        def after(story: Story) -> None:
            with story.task(story.queue()):
                story.wrote(count=2, asked=2)

        assert self.story(after=after).found == []

    def test_write_interest(self) -> None:
        """Who is registered for writing all the time will be told."""
        story = Story()
        story.register(interest="read write", edge_triggered=True)
        with story.dispatch(7, READ | WRITE):
            story.read()
            story.wrote(count=3)
        story.go_on()
        assert story.found == []

    def test_exception(self) -> None:
        """An exception is told instead."""
        story = Story()
        accepted(story)
        with story.dispatch(error="ValueError: x"):
            story.wrote(count=3)
        story.go_on()
        assert story.found == ["exception-logged"]

    def test_older_timer(self) -> None:
        """A timer from before the recording may send it."""
        timer = BaseTimer(10**15, 4)
        assert self.story(timers=(timer,)).found == []

    def test_what_is_pending(self) -> None:
        """A task or timer that has run, whoever queued or set it, sends nothing any more."""
        base = {"tasks": (BaseTask("high", 4),), "timers": (BaseTimer(10**12, 4),)}

        def end(story: Story, older_task: bool, older_timer: bool) -> list[str]:
            timer, queued = story.set_timer(), story.queue()
            fired = [timer, None] if older_timer else [timer]
            for cause in fired:
                values = {"late_ns": 0, "callback": story.ids["log_stats"]}
                with story.task(story.step("TimerFired", cause, **values)):
                    pass
            for cause in [queued, None] if older_task else [queued]:
                with story.task(cause):
                    pass
            accepted(story)
            with story.dispatch():
                story.wrote(count=3)
            story.go_on()
            return story.found

        assert end(Story(**base), True, True) == ["short-write-forgotten"]
        assert end(Story(**base), True, False) == []
        assert end(Story(**base), False, True) == []
        assert end(Story(), False, False) == ["short-write-forgotten"]

    def test_canceled_timer(self) -> None:
        """Nor does a canceled timer."""
        story = Story()
        timer = story.set_timer()
        story.call("echo", 3, "TimerCanceled", timer=timer, callback=story.ids["log_stats"])
        accepted(story)
        with story.dispatch():
            story.wrote(count=3)
        story.go_on()
        assert story.found == ["short-write-forgotten"]

    def test_deleted_long_after(self) -> None:
        """To give up a round later is too late for an excuse; so is the next message."""
        story = self.story()
        story.delete()
        assert story.found == ["short-write-forgotten"]
        story = self.story()
        with story.dispatch():
            story.read()
            story.wrote()
        assert story.found == ["short-write-forgotten"]

    def test_ended_early(self) -> None:
        """As long as the loop has not gone on, somebody may still see to it."""
        story = self.story()
        assert found(story.trace()[:-2]) == []

    def test_not_ours(self) -> None:
        """What is not registered here may be served elsewhere."""
        story = Story()
        with story.task(story.queue()):
            story.wrote(count=3, asked=5)
        story.go_on()
        assert story.found == []


class TestErrorBeforeData:
    @staticmethod
    def story(
        act: Act = lambda story: story.close(), event: int = READ | RDHUP, before: Act = accepted
    ) -> Story:
        story = Story()
        before(story)
        with story.dispatch(7, event):
            act(story)
            story.delete()
        return story

    @pytest.mark.parametrize("event", [READ | RDHUP, READ | HUP, READ | ERR])
    def test_unread(self, event: int) -> None:
        """To close what could be read and was hung up loses data."""
        finding = self.story(event=event).finding
        assert finding.name == "error-before-data"
        assert "echo closed it without reading" in finding.text

    @pytest.mark.parametrize("event", [READ, HUP | ERR, WRITE | HUP])
    def test_other_events(self, event: int) -> None:
        """Where there is nothing to read, or no hang-up, to close is right."""
        assert self.story(event=event).found == []

    @pytest.mark.parametrize(
        "act",
        [
            lambda story: (story.read(), story.close()),
            lambda story: (story.delete(), story.read(), story.close()),
            lambda story: (story.would_block(), story.close()),
            lambda story: (story.wrote(error="BrokenPipeError"), story.close()),
            lambda story: None,  # deleted and not closed: somebody else may read
        ],
    )
    def test_excuse(self, act: Act) -> None:
        """It was read, or tried to be; or writing told that the connection is broken."""
        assert self.story(act).found == []

    def test_only_deleted(self) -> None:
        """Who reads otherwise has not given it to somebody else who reads."""
        story = self.story(nothing)
        story.register(8)
        with story.dispatch(8):
            story.read(8)
        assert "echo deleted it without reading" in story.finding.text

    def test_read_to_its_end_before(self) -> None:
        """Nothing is lost when the end was read already."""

        def before(story: Story) -> None:
            accepted(story)
            with story.dispatch(7, READ | RDHUP):
                story.read(count=0)

        assert self.story(before=before).found == []

    def test_event_with_nothing_to_do(self) -> None:
        """A write event that needs no call is no sign of anything."""

        def before(story: Story) -> None:
            accepted(story)
            with story.dispatch(7, WRITE):
                pass

        assert self.story(before=before).found == ["error-before-data"]

    def test_read_unseen(self) -> None:
        """Who had an event and made no step reads in a way that makes none, such as TLS."""

        def before(story: Story) -> None:
            accepted(story)
            with story.dispatch():
                pass

        assert self.story(before=before).found == []

    def test_older(self) -> None:
        """What was there before the recording may have been read to its end."""
        story = Story(registrations=(other_socket(),))
        with story.dispatch(7, READ | HUP):
            story.delete()
            story.close()
        assert story.found == []


class TestEdgeNotDrained:
    @staticmethod
    def story(
        act: Act = lambda story: story.read(count=64),
        after: Act = nothing,
        event: int = READ,
        error: str | None = None,
        edge_triggered: bool = True,
        **more: Any,
    ) -> Story:
        story = Story()
        story.register(edge_triggered=edge_triggered, **more)
        with story.dispatch(7, event, error):
            act(story)
        after(story)
        story.go_on()
        return story

    def test_full_read(self) -> None:
        """A read that filled its room may have left some."""
        finding = self.story().finding
        assert finding.name == "edge-not-drained"
        assert "after a read that filled the 64 bytes it had room for" in finding.text

    def test_accept(self) -> None:
        """Who accepts one client may have left others."""
        story = Story()
        story.register(LISTENER, edge_triggered=True)
        with story.dispatch(LISTENER):
            story.accept()
            story.register()
        story.go_on()
        assert (
            "stopped accepting from peer:6 (descriptor 6) after 1 connection" in story.finding.text
        )
        with story.dispatch(LISTENER):
            story.accept(8)
            story.would_block(LISTENER, "accept")
            story.register(8)
        story.go_on()
        assert story.finding.times == 1

    @pytest.mark.parametrize(
        "act",
        [
            lambda story: (story.read(count=64), story.would_block()),
            lambda story: (story.read(count=64), story.read(count=63)),
            lambda story: (story.read(count=64), story.read(count=0)),
            lambda story: (story.read(count=64), story.read(count=0, error="ConnectionResetError")),
            lambda story: story.read(count=64, asked=None),
            lambda story: (story.read(count=64), story.modify(edge_triggered=True)),
            lambda story: (story.read(count=64), story.delete(), story.close()),
            lambda story: (story.read(count=64), story.queue()),
            lambda story: (story.read(count=64), story.set_timer()),
            lambda story: (story.read(count=64), story.wrote(8, count=3, asked=64)),
            lambda story: (story.read(count=64), story.would_block(8, "send")),
            lambda story: story.wrote(),
        ],
    )
    def test_excuse(self, act: Act) -> None:
        """All was read, it is asked for again or given up, or there is a reason to go on later."""
        assert self.story(act).found == []

    def test_blocked_send_is_not_a_drained_read(self) -> None:
        """What a send says tells nothing about what can be read."""
        story = self.story(
            lambda story: (story.would_block(call="send"), story.wrote(), story.read(count=64))
        )
        assert story.found == ["edge-not-drained"]

    @pytest.mark.parametrize(
        "after",
        [
            lambda story: story.elsewhere(lambda: story.modify(edge_triggered=True)),
            lambda story: story.elsewhere(lambda: story.delete()),
            lambda story: story.go_on() or story.modify(edge_triggered=True),
        ],
    )
    def test_excuse_elsewhere(self, after: Act) -> None:
        """Another thread may make the kernel look again."""
        assert self.story(after=after).found == []

    def test_read_by_a_task(self) -> None:
        """A task may read the rest."""

        def after(story: Story) -> None:
            with story.task(story.queue()):
                story.would_block()

        assert self.story(after=after).found == []

    @pytest.mark.parametrize(
        "more",
        [{"edge_triggered": False}, {"oneshot": True}, {"error": "ValueError"}, {"event": WRITE}],
    )
    def test_not_this_lint(self, more: dict[str, Any]) -> None:
        """Level-triggered and one-shot events come again; an exception is another lint."""
        assert "edge-not-drained" not in self.story(**more).found

    def test_ended_early(self) -> None:
        """As long as the loop has not gone on, somebody may still read."""
        assert found(self.story().trace()[:-2]) == []

    def test_older(self) -> None:
        """A peer that did not read before the recording may be why it stops."""
        row = replace(other_socket(), edge_triggered=True)
        story = Story(registrations=(row,))
        with story.dispatch():
            story.read(count=64)
        story.go_on()
        assert story.found == []
        story = Story(registrations=(replace(other_socket(8), interest="read write"),))
        story.register(edge_triggered=True)
        with story.dispatch():
            story.read(count=64)
        story.go_on()
        assert story.found == []
        story = Story(registrations=(other_socket(8),))
        story.register(edge_triggered=True)
        with story.dispatch():
            story.read(count=64)
        story.go_on()
        assert story.found == ["edge-not-drained"]


class TestReadAfterWouldBlock:
    def test_again(self) -> None:
        """To read again in the same dispatch is a mistake, whether it helps or not."""
        for call in (Story.read, Story.would_block):
            story = Story()  # one of them succeeds, one does not
            with story.dispatch():
                story.read()
                blocked = story.would_block()
                again = call(story)
            finding = story.finding
            assert (finding.name, finding.steps) == ("read-after-would-block", (again, blocked))

    def test_accept_again(self) -> None:
        """So it is to accept again."""
        again: list[Act] = [lambda story: story.would_block(LISTENER, "accept"), Story.accept]
        for act in again:
            story = Story()
            with story.dispatch(LISTENER):
                story.would_block(LISTENER, "accept")
                act(story)
            assert "echo accepted from" in story.finding.text

    def test_task(self) -> None:
        """A task has no event that says what there is; it may look."""
        story = Story()
        with story.task(story.queue()):
            story.would_block()
            story.would_block()
        assert story.found == []

    @pytest.mark.parametrize(
        "act",
        [
            lambda story: story.read(8),
            lambda story: story.wrote(),
            lambda story: (story.close(), story.accept(7), story.read(7)),
        ],
    )
    def test_something_else(self, act: Act) -> None:
        """Another socket, another direction, or another socket of that number is no mistake."""
        story = Story()
        with story.dispatch():
            story.would_block()
            act(story)
        assert story.found == []

    def test_blocked_send(self) -> None:
        """A send that would block says nothing about reading."""
        story = Story()
        with story.dispatch():
            story.would_block(call="send")
            story.read()
        assert story.found == []

    def test_next_dispatch(self) -> None:
        """In the next dispatch there may be something."""
        story = Story()
        for _ in range(2):
            with story.dispatch():
                story.would_block()
        assert story.found == []


class TestEndOfStreamIgnored:
    @staticmethod
    def story(
        rounds: int = IDLE_ROUNDS,
        act: Act = nothing,
        event: int = READ | RDHUP,
        before: Act = nothing,
    ) -> Story:
        story = Story()
        before(story)
        for _ in range(rounds):
            with story.dispatch(7, event):
                story.read(count=0)
                act(story)
        return story

    def test_busy(self) -> None:
        """So many rounds in a row are a finding, one fewer is none."""
        assert self.story().finding.name == "end-of-stream-ignored"
        assert self.story(event=READ, before=accepted).found == ["end-of-stream-ignored"]
        assert self.story(IDLE_ROUNDS - 1).found == []

    @pytest.mark.parametrize(
        "act", [lambda story: story.wrote(), lambda story: story.modify(interest="write")]
    )
    def test_progress(self, act: Act) -> None:
        """Who still sends gets on with something."""
        assert self.story(act=act).found == []

    def test_nothing_read(self) -> None:
        """Who reads nothing reads no end."""
        story = Story()
        for _ in range(IDLE_ROUNDS):
            with story.dispatch(7, READ | RDHUP):
                pass
        assert story.found == []

    def test_datagrams(self) -> None:
        """An empty datagram is no end."""
        assert self.story(event=READ).found == []

    def test_rounds_in_a_row(self) -> None:
        """With pauses between it is no busy loop."""
        assert self.story(act=lambda story: None).found
        story = Story()
        for _ in range(IDLE_ROUNDS):
            with story.dispatch(7, READ | RDHUP):
                story.read(count=0)
            story.go_on()
        assert story.found == []


class TestClosedWithoutDelete:
    def test_loop_went_on(self) -> None:
        """A closed socket may be registered until the next wait, no longer."""
        story = Story()
        accepted(story)
        with story.dispatch():
            story.close()
        story.step("BatchResized", size=64)
        assert story.found == []
        story.go_on()
        assert story.finding.name == "closed-without-delete"
        story.delete()
        assert story.found == ["closed-without-delete"]

    @pytest.mark.parametrize("act", [Story.delete, lambda story: story.step("PollerClosed")])
    def test_in_time(self, act: Act) -> None:
        """Deleted before the next wait, or the poller closed, is early enough."""
        story = Story()
        accepted(story)
        with story.dispatch():
            story.close()
        act(story)
        story.go_on()
        assert story.found == []

    def test_failed_delete(self) -> None:
        """A delete that failed is none."""
        story = Story()
        accepted(story)
        with story.dispatch():
            story.close()
            story.delete(error="OSError")
        story.go_on()
        assert story.found == ["closed-without-delete"]

    def test_garbage_collector(self) -> None:
        """A number that comes back while it is registered was closed by somebody."""
        story = Story()
        accepted(story)
        accepted(story)
        finding = story.finding
        assert finding.name == "closed-without-delete"
        assert "client A (descriptor 7), which was still registered" in finding.text
        for base in ({}, {"registrations": (other_socket(),)}):
            story = Story(**base)
            if not base:
                story.register()
            story.register()
            assert story.found == ["closed-without-delete"]

    def test_next_socket_of_the_number(self) -> None:
        """Each socket that has a number stands for itself."""
        story = Story()
        story.register()
        story.delete()
        with story.task(story.queue()):
            story.close()
        story.register()
        story.go_on()
        assert story.found == []
        with story.dispatch():
            story.close()
        story.go_on()
        assert story.finding.times == 1

    def test_one_mistake_is_told_once(self) -> None:
        """What was seen being closed is not told again when its number comes back."""
        story = Story()
        for again in (accepted, Story.register):
            story = Story()
            accepted(story)
            with story.dispatch():
                story.close()
            again(story)
            story.go_on()
            assert story.finding.times == 1

    def test_deleted_and_again(self) -> None:
        """To delete and register again is no mistake; to fail to register is none of this kind."""
        story = Story()
        story.register()
        story.register(error="AlreadyRegistered: 7")
        story.delete()
        story.register()
        story.go_on()
        assert story.found == []


class TestLeakedDescriptor:
    @staticmethod
    def story(act: Act, error: str | None = None, after: Act = nothing) -> Story:
        """Accept 7, do something, and perhaps fail."""
        story = Story()
        with story.dispatch(LISTENER, READ, error):
            story.accept()
            act(story)
        after(story)
        story.go_on()
        return story

    def test_failed(self) -> None:
        """What was accepted and neither registered nor closed before an exception is lost."""
        story = self.story(nothing, "ValueError: x")
        assert story.found == ["exception-logged", "leaked-descriptor"]
        failed = self.story(lambda story: story.register(error="PermissionError"))
        assert failed.finding.name == "leaked-descriptor"
        assert "client A (descriptor 7) was accepted, echo failed" in failed.finding.text

    @pytest.mark.parametrize("act", [Story.register, Story.close, Story.read, Story.queue])
    def test_taken_care_of(self, act: Act) -> None:
        """An exception after it was registered, closed, used, or left to a task does no harm."""
        assert self.story(act, "ValueError: x").found == ["exception-logged"]

    def test_end_of_the_loop(self) -> None:
        """An exception that ends the loop on purpose leaves the rest to the program."""
        assert self.story(nothing, "EngineShutdown").found == []

    def test_given_away(self) -> None:
        """Who accepts and does no more may serve another loop."""
        assert self.story(nothing).found == []

    def test_came_back(self) -> None:
        """A number that comes back was closed, by the garbage collector or another thread."""
        story = self.story(nothing, "ValueError: x", after=accepted)
        assert story.found == ["exception-logged"]

    @staticmethod
    def over(act: Act, after: Act = nothing) -> Story:
        """Read the end of the stream, delete, and what else is said."""
        story = Story()
        accepted(story)
        with story.dispatch(7, READ | RDHUP):
            story.read(count=0)
            story.delete()
            act(story)
        story.go_on()
        after(story)
        return story

    def test_over(self) -> None:
        """A connection that is over, deleted and not closed is lost."""
        assert self.over(nothing).finding.name == "leaked-descriptor"

    @pytest.mark.parametrize("act", [Story.close, Story.queue, Story.set_timer])
    def test_closed(self, act: Act) -> None:
        """It was closed, or a task or timer may close it."""
        assert self.over(act).found == []

    @pytest.mark.parametrize("after", [Story.close, accepted, Story.register])
    def test_closed_later(self, after: Act) -> None:
        """It was closed later, its number came back, or it is in use again."""
        assert "leaked-descriptor" not in self.over(nothing, after).found

    def test_ended_early(self) -> None:
        """As long as the loop has not gone on, it may still be closed."""
        assert found(self.over(nothing).trace()[:-2]) == []

    def test_alive(self) -> None:
        """One that was deleted with something to say may have been given away."""
        story = Story()
        accepted(story)
        with story.dispatch():
            story.read()
            story.delete()
        story.go_on()
        assert story.found == []


class TestStarvedDescriptor:
    @staticmethod
    def story(reads: int = MOST_READS, fd: int = 7) -> Story:
        story = Story()
        with story.batch((7, READ), (8, READ)):
            with story.call_back(7):
                for _ in range(reads):
                    story.read(fd)
            with story.call_back(8):
                story.read(8)
        return story

    def test_waited(self) -> None:
        """So many reads for one event while another waits are too many; one fewer is not."""
        finding = self.story().finding
        assert (finding.name, finding.fd) == ("starved-descriptor", 8)
        assert "waited 3.0 ms until echo had read 1,000 times from descriptor 7" in finding.text
        assert self.story(MOST_READS - 1).found == []

    def test_others(self) -> None:
        """To read from many sockets is not to read from one without end."""
        assert self.story(fd=9).found == []

    def test_nobody_waits(self) -> None:
        """Alone in the batch, it may read as much as there is."""
        story = Story()
        for fd in (7, 8):
            with story.dispatch(fd):
                for _ in range(MOST_READS):
                    story.read(fd)
        assert story.found == []


class TestTaskFlood:
    @staticmethod
    def chain(length: int, act: Act = nothing, at: int = -1) -> tuple[Story, int]:
        story = Story()
        queued = story.queue()
        for number in range(length):
            with story.task(queued):
                if number in (at, at % length):
                    act(story)
                queued = story.queue()
            story.go_on()
        return story, queued

    def test_without_end(self) -> None:
        """A task that queued itself so often, and is to run again; one time less is none."""
        story, _ = self.chain(LONGEST_CHAIN)
        assert story.finding.name == "task-flood"
        assert story.finding.text.startswith("log_stats queued itself 1,000 times in a row")
        assert story.finding.number < 10  # where it began
        assert self.chain(LONGEST_CHAIN - 1)[0].found == []

    def test_it_ends(self) -> None:
        """A long job in pieces comes to its end."""
        story, queued = self.chain(LONGEST_CHAIN)
        with story.task(queued):
            pass
        assert story.found == []

    @pytest.mark.parametrize("act", [Story.read, Story.wrote, Story.accept])
    def test_it_gets_on(self, act: Act) -> None:
        """One that moves bytes gets on with something."""
        assert self.chain(LONGEST_CHAIN + 2, act, LONGEST_CHAIN // 2)[0].found == []

    def test_another_function(self) -> None:
        """One that queues another function does the next part of something."""
        story = Story()
        queued = story.queue("echo")
        for _ in range(LONGEST_CHAIN):
            with story.task(queued):
                queued = story.queue("echo")
            story.go_on()
        assert story.found == []

    def test_several(self) -> None:
        """Tasks that others queue are no chain, however many."""
        story = Story()
        for _ in range(2 * LONGEST_CHAIN):
            queued = story.queue()
            story.go_on()
            with story.task(queued):
                pass
        assert story.found == []

    @staticmethod
    def rounds(*lengths: int, left: int = FLOOD) -> Story:
        """Queue so many tasks in each round, while those of the round before run."""
        story = Story(tasks=(BaseTask("high", 4),))
        waiting: list[int | None] = [None]
        for length in (*lengths, left):
            story.go_on()
            first = len(story.steps) + 2  # behind the first TaskStarted
            for cause in waiting:
                with story.task(cause):
                    if cause is waiting[0]:
                        story.elsewhere(partial(story.queue_many, length))
            waiting = list(range(first, first + length))
        return story

    def test_growing(self) -> None:
        """Queues that are longer in each round, and do not become empty, grow without bound."""
        finding = self.rounds(10, 100, 1000).finding
        assert finding.name == "task-flood"
        assert "In 4 rounds in a row" in finding.text
        assert "from 1 to 1,000; 1,024 are left, most of them echo" in finding.text

    @pytest.mark.parametrize(
        ("lengths", "left"),
        [((10, 100, 1000), FLOOD - 1), ((100, 1000), FLOOD), ((10, 100, 100, 1000), FLOOD)],
    )
    def test_burst(self, lengths: tuple[int, ...], left: int) -> None:
        """A burst that is dealt with, a short one, or a steady load is no flood."""
        assert self.rounds(*lengths, left=left).found == []

    def test_closed(self) -> None:
        """What a closed poller drops is no load."""
        story = self.rounds(10, 100, 1000)
        story.step("PollerClosed")
        assert story.found == []


class TestOneShotNeverRearmed:
    @staticmethod
    def story(
        inside: Act = nothing,
        after: Act = nothing,
        rounds: int = ROUNDS_DISARMED,
        before: Act = nothing,
        **base: Any,
    ) -> Story:
        story = Story(**base)
        before(story)
        story.register(oneshot=True)
        with story.dispatch():
            story.read()
            inside(story)
        after(story)
        story.go_on(rounds)
        return story

    def test_forgotten(self) -> None:
        """So many rounds after its event it is forgotten; one fewer, and it may come."""
        finding = self.story().finding
        assert (finding.name, finding.fd) == ("one-shot-never-rearmed", 7)
        assert "in 100 rounds since" in finding.text
        assert self.story(rounds=ROUNDS_DISARMED - 1).found == []

    @pytest.mark.parametrize(
        "act",
        [
            lambda story: story.modify(oneshot=True),
            lambda story: story.delete(),
            lambda story: story.close(),
            lambda story: story.queue(),
            lambda story: story.set_timer(),
        ],
    )
    def test_excuse(self, act: Act) -> None:
        """It was armed again, given up, or left to a task."""
        assert "one-shot-never-rearmed" not in self.story(inside=act).found

    def test_failed_modify(self) -> None:
        """A failed modify arms nothing."""
        story = self.story(inside=lambda story: story.modify(oneshot=True, error="OSError"))
        assert story.found == ["one-shot-never-rearmed"]

    def test_others_arm(self) -> None:
        """Where other threads or tasks arm what is finished, this one may be next."""

        def thread(story: Story) -> None:
            story.elsewhere(lambda: story.modify(8, oneshot=True))

        def task(story: Story) -> None:
            with story.task(story.queue()):
                story.modify(8, oneshot=True)

        def dispatch(story: Story) -> None:
            with story.dispatch(8):
                story.modify(8, oneshot=True)

        assert self.story(before=thread).found == []
        assert self.story(before=task).found == []
        assert self.story(before=dispatch).found == ["one-shot-never-rearmed"]

    def test_silence(self) -> None:
        """Who is registered otherwise has had nothing more to say."""
        story = Story()
        story.register()
        with story.dispatch():
            story.read()
        story.go_on(ROUNDS_DISARMED)
        assert story.found == []

    def test_older_timer(self) -> None:
        """A timer from before the recording may arm it."""
        assert self.story(timers=(BaseTimer(10**15, 4),)).found == []

    def test_came_back(self) -> None:
        """A number that came back was closed."""
        for again in (Story.accept, Story.register):
            assert "one-shot-never-rearmed" not in self.story(after=again).found

    def test_what_makes_no_steps(self) -> None:
        """What is no socket, such as the end of a child process, reports once and is done."""
        story = Story()
        story.register(oneshot=True)
        with story.dispatch():
            pass
        story.go_on(ROUNDS_DISARMED)
        assert story.found == []


class TestExceptionLogged:
    def test_raised(self) -> None:
        """One exception at one place is one finding, another one is another."""
        story = Story()
        for error in ("ValueError: x", "ValueError: x", "KeyError: 7"):
            with story.dispatch(error=error):
                pass
        with story.task(story.queue(), error="ValueError: x"):
            pass
        first, second, third = lint(story.trace())
        assert (first.times, first.text) == (2, "echo raised ValueError: x")
        assert (second.times, second.text) == (1, "echo raised KeyError: 7")
        assert (third.fd, third.text) == (None, "log_stats raised ValueError: x")

    @pytest.mark.parametrize(
        "error",
        ["EngineShutdown", "AcceptSocketError: 24", "KeyboardInterrupt", "SystemExit: 1"],
    )
    def test_on_purpose(self, error: str) -> None:
        """What ends the loop is not logged."""
        story = Story()
        with story.dispatch(error=error):
            pass
        assert story.found == []


def test_calls_of_other_threads_are_not_the_callback_s() -> None:
    """What another thread does meanwhile is no part of the dispatch."""
    story = Story()
    with story.dispatch():
        story.would_block()
        story.elsewhere(story.read)
    assert story.found == []


# ---- what people see ----------------------------------------------------------------------------


def example() -> Story:
    story = Story()
    for _ in range(2):
        with story.dispatch():
            story.would_block()
            story.read()
    with story.dispatch(error="ValueError: x"):
        pass
    return story


def test_text() -> None:
    """In a terminal a finding says what, where, why and how, and how often."""
    findings = lint(example().trace())
    assert repr(findings).splitlines()[:6] == [
        f"2 findings in {len(example().steps)} steps",
        "",
        "read-after-would-block, 2 times",
        "    step 5, server.py line 53 in echo",
        "        data = conn.recv(64)",
        "    What  echo read from descriptor 7 again after the kernel had said that nothing was "
        "there.",
    ]
    for finding in findings:
        assert LINTS[finding.name] == (finding.why, finding.how)
        text = " ".join(str(finding).split())
        assert finding.why in text
        assert finding.how in text
    assert max(map(len, repr(findings).splitlines())) <= 96
    assert "1 times" not in repr(findings)
    assert "1 times" not in findings._repr_html_()
    assert (
        repr(findings[0]) == "<Finding read-after-would-block at step 5, server.py line 53 in echo>"
    )
    assert repr(lint(echo_trace())) == f"No findings in {len(echo_trace())} steps"


def test_sequence() -> None:
    """Findings are a sequence, in the order of the steps."""
    findings = lint(example().trace())
    assert len(findings) == 2
    assert [finding.number for finding in findings] == sorted(f.number for f in findings)
    assert findings[-1].name == "exception-logged"
    assert list(findings[1:]) == [findings[1]]
    assert "1 finding in" in repr(findings[1:])
    assert not lint(echo_trace())


def test_place_without_a_call_site() -> None:
    """Where a call's own line isn't known, the callback that it was made in is told."""
    story = Story()
    with story.dispatch():
        story.would_block()
        story.step("Read", fd=7, count=5)
    assert (story.finding.place, story.finding.line) == ("step 5, server.py line 50 in echo", 50)
    story.functions.clear()
    assert (story.finding.place, story.finding.line) == ("step 5", None)
    assert str(story.finding).splitlines()[2].startswith("    What")


def test_place_without_a_file() -> None:
    """A function that was not written in Python has a name."""
    story = Story()
    story.functions[story.ids["echo"]] = Function(2, "print", "", 0, "")
    with story.dispatch(error="ValueError: x"):
        pass
    assert story.finding.place == "step 3, in print"


def hostile_findings() -> Trace:
    """Return a trace with findings in which every name is hostile."""
    story = Story()
    for number, function in story.functions.items():
        story.functions[number] = replace(function, name=HOSTILE, file=HOSTILE, text=HOSTILE)
    story.add("main", 2, 7, HOSTILE, "echo")
    with story.dispatch(error=HOSTILE):
        story.would_block()
        story.call("echo", 0, "Read", fd=7, count=5)
    return story.trace()


def test_hostile_names() -> None:
    """Whatever a program calls its things, it breaks out of nothing and hides nothing."""
    findings = lint(hostile_findings())
    assert len(findings) == 2
    html = findings._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    for text in (html, repr(findings)):
        assert "\u202e" not in text
        assert len(text) < 20_000
    assert lint(hostile_trace())[:] is not None


def test_page() -> None:
    """In a notebook each finding is a section with its line of source."""
    html = lint(example().trace())._repr_html_()
    assert html.count("<section>") == 2
    assert "<code>data = conn.recv(64)</code>" in html
    assert "2 times" in html
    assert "No findings" in lint(echo_trace())._repr_html_()


def test_every_lint_has_its_rule_its_programs_and_its_docs() -> None:
    """None is forgotten anywhere."""
    assert list(LINTS) == list(RULES)
    docs = (HOUSE / "docs" / "reference" / "lints.md").read_text()
    headings = [line.removeprefix("## ") for line in docs.splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in LINTS] == list(LINTS)
    programs = {path.stem for path in (HOUSE / "tests" / "lint_programs").glob("[a-z]*.py")}
    assert programs == {name.replace("-", "_") for name in LINTS}
