"""Following a recording while it is written: what is sent, in which order, and how much at most."""

from __future__ import annotations

import importlib
import json
import queue
import shutil
import socket
import subprocess
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import netpoll
import tracer
from netpoll import EventPriority, PollAttachment
from netpoll.simulated import Kernel
from tracer.follower import Follower, News, Tail
from tracer.recorder import folded
from tracer.rows import KIND, Rows
from tracer.trace import BaseState, Trace, parse

NODE = shutil.which("node")
live: Any = importlib.import_module("tracer.follower")
STATIC = Path(live.__file__).with_name("static")
LONGEST = 60  # seconds until a test that waits fails

FEED = """
import { readFileSync } from "node:fs";
import { Feed } from "STATIC/feed.js";
import { Replay, stateToJson } from "STATIC/fold.js";
const trace = { base: BASE, functions: new Map(), steps: [] };
const feed = new Feed(trace, new Replay(trace), 1000);
for (const [message, text] of JSON.parse(readFileSync(0, "utf8"))) {
  feed.apply(message, new TextEncoder().encode(text));
}
const states = trace.steps.map((_, index) => stateToJson(feed.replay.state(index)));
const functions = [...trace.functions.keys()];
console.log(JSON.stringify({ states, functions, dropped: feed.dropped }));
"""


def nothing(*args: object) -> None:
    """Be a callback or a task."""


class Program:
    """A recorded program in the simulated kernel; the same `turns` leave the same steps."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.kernel = Kernel()
        self.poller = netpoll.open_poller("epoll", kernel=self.kernel)
        self.recording = tracer.record(self.poller, limit=limit)
        self.pairs = [self.kernel.socketpair() for _ in range(5)]
        for here, _ in self.pairs:
            self.poller.add_read(PollAttachment(here, nothing), edge_triggered=True)
        self.turns = 0

    def turn(self, count: int = 1) -> None:
        """Do a bit of everything; some 25 steps."""
        for _ in range(count):
            here, there = self.pairs[self.turns % 5]
            self.turns += 1
            there.send(b"x")
            self.poller.call_later(0.5, nothing)
            self.poller.trigger(EventPriority(self.turns % 2), nothing)
            self.poller.trigger(EventPriority.HIGH, nothing)  # which need not wake: a gap
            self.poller.delete(here)
            self.poller.add_read(PollAttachment(here, lambda *args: None), edge_triggered=True)
            self.poller.poll_once(0.01)
            self.kernel.sleep(0.1)


@pytest.fixture
def program() -> Iterator[Program]:
    """A program that was not turned yet."""
    with contextmanager(program_that)() as made:
        yield made


def program_that(limit: int = 1_000_000, turns: int = 0) -> Iterator[Program]:
    made = Program(limit)
    made.turn(turns)
    yield made
    made.poller.close()


def whole(turns: int) -> Trace:
    """What a `Program` that turned so often leaves when nothing is dropped."""
    made = Program()
    made.turn(turns)
    made.poller.close()
    return made.recording.trace


class Inbox:
    """Takes what a follower sends; `text` is the trace file since the last restart."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, Any], str]] = []
        self.text = ""

    def __call__(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        """Take a message, as `Widget.send` would."""
        json.dumps(message)
        text = b"".join(buffers).decode()
        self.messages.append((message, text))
        self.text = text if message["type"] == "restart" else self.text + text

    @property
    def types(self) -> list[str]:
        """The types of the messages."""
        return [message["type"] for message, _ in self.messages]


def rows_of(*seqs: int) -> SimpleNamespace:
    """Something like a recording whose rows were written in this order."""
    rows = Rows()
    for seq in seqs:
        rows.write(KIND["WaitStarted"], seq=seq)
    base = BaseState("epoll", 4, 5, 128, running=True)
    return SimpleNamespace(rows=rows, trace=SimpleNamespace(base=base), running=True)


def seqs(news: News) -> list[int]:
    return [step.seq for step in news.steps]


# ---- what is new -------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_every_step_is_read_once_in_order(most: int, program: Program) -> None:
    """Whatever is written between two looks, all looks together give the trace."""
    tail = Tail(program.recording, most)
    first = tail.read()
    assert first.base == program.recording.trace.base
    steps = first.steps
    for _ in range(12):
        program.turn()
        for _ in range(3):
            news = tail.read()
            assert (news.base, news.first, len(news.steps) <= 2 * most) == (None, len(steps), True)
            steps += news.steps
    program.recording.stop()
    while not tail.up_to_date:
        steps += tail.read(all_written=True).steps
    assert steps == list(program.recording.trace)


def test_step_behind_a_gap_waits_for_one_look() -> None:
    """What may still come before it has time until then; a seq that never comes costs no more."""
    recording: Any = rows_of(3, 4, 6)
    tail = Tail(recording, 100)
    assert seqs(tail.read()) == [3, 4]
    assert not tail.up_to_date
    recording.rows.write(KIND["WaitStarted"], seq=5)
    recording.rows.write(KIND["WaitStarted"], seq=8)
    assert seqs(tail.read()) == [5, 6]
    assert seqs(tail.read()) == [8]
    assert tail.up_to_date


def test_step_that_comes_too_late_begins_a_new_run() -> None:
    """It belongs between steps that were sent already: all is sent again, in another numbering."""
    recording: Any = rows_of(1, 2, 4)
    tail = Tail(recording, 100)
    assert [seqs(tail.read()), seqs(tail.read())] == [[1, 2], [4]]
    recording.rows.write(KIND["WaitStarted"], seq=3)
    news = tail.read()
    assert (news.run, news.first, news.base, seqs(news)) == (
        1,
        0,
        recording.trace.base,
        [1, 2, 3, 4],
    )


def test_at_the_end_nothing_is_kept_back() -> None:
    """When no row can come any more, a gap stays one."""
    recording: Any = rows_of(1, 5, 9)
    tail = Tail(recording, 100)
    assert seqs(tail.read(all_written=True)) == [1, 5, 9]
    assert tail.up_to_date


def test_who_falls_behind_goes_on_with_the_newest() -> None:
    """The base state is what the steps before it left; it begins with a round."""
    for made in program_that(limit=400):
        tail = Tail(made.recording, 100)
        tail.read()
        made.turn(60)
        assert made.recording.dropped
        news = tail.read()
        steps = list(whole(60))
        length = made.recording.dropped + len(made.recording.trace)
        assert length - 100 <= news.first < length - 50
        assert news.steps[0].kind == "WaitStarted"
        assert news.steps == steps[news.first : news.first + len(news.steps)]
        expected = folded(whole(60).base, steps[: news.first], news.first)
        assert news.base == expected
        assert news.base.timers
        assert news.base.registrations


def test_who_falls_behind_forgets_what_was_kept_back() -> None:
    """A step that waited for others before it is in the base state now."""
    recording: Any = rows_of(1, 3)
    rows, trace = recording.rows, recording.trace
    tail = Tail(recording, 100)
    assert seqs(tail.read()) == [1]
    rows.write(KIND["WaitStarted"], seq=4)
    rows.drop(3)
    trace.base = replace(trace.base, dropped=3)
    rows.write(KIND["WaitStarted"], seq=5)
    news = tail.read()
    assert (news.first, news.base, seqs(news)) == (3, trace.base, [5])


def test_loop_gets_the_interpreter_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither reading nor writing many steps keeps it for long."""
    breaths: list[float] = []
    monkeypatch.setattr(live, "sleep", breaths.append)
    recording: Any = rows_of(*range(500))
    recording.failed, recording.fault = False, None
    Follower(recording, Inbox()).tick()
    assert len(breaths) == 2 * 500 / 50
    assert all(breaths)


def test_who_begins_late_begins_with_the_oldest() -> None:
    """All that is kept comes, in portions, from the first round on; so again after a restart."""
    for made in program_that(limit=400, turns=60):
        tail = Tail(made.recording, 100)
        for _ in range(2):
            news = tail.read()
            assert news.base is not None
            assert made.recording.dropped <= news.first < made.recording.dropped + 50
            steps = news.steps
            while not tail.up_to_date:
                steps += tail.read().steps
            assert steps == list(whole(60))[news.first : news.first + len(steps)]
            tail.restart()


# ---- messages ----------------------------------------------------------------------------------


def test_messages_are_a_trace_file(program: Program) -> None:
    """Header, base state, functions before they are named, steps: one after the other it loads."""
    inbox = Inbox()
    follower = Follower(program.recording, inbox, most=20)
    for _ in range(10):
        program.turn()
        follower.tick()
        follower.tick()
    program.turn(3)  # more than goes into one message
    program.recording.stop()
    while follower.tick():
        pass
    assert inbox.types == ["restart", *["steps"] * (len(inbox.types) - 2), "ended"]
    assert inbox.messages[-1] == ({"type": "ended", "fault": None}, "")
    loaded = parse([inbox.text])
    trace = program.recording.trace
    assert (loaded.base, list(loaded), dict(loaded.functions)) == (
        trace.base,
        list(trace),
        dict(trace.functions),
    )
    assert inbox.text.count('"kind":"function"') == len(trace.functions) > 2
    number = sent = 0
    for message, text in inbox.messages[:-1]:
        sent += len(text)
        assert (message["first"], message["sent"], message["run"]) == (number, sent, 0)
        number += message["count"]


def test_fault_of_the_recording_is_told() -> None:
    """A recording that failed ends the messages when it ends, with what it failed of."""
    for made in program_that(turns=1):
        inbox = Inbox()
        made.recording.fail(MemoryError("no more"))
        follower = Follower(made.recording, inbox)
        assert follower.tick() is not None  # what runs now is still written down
        made.recording.poller.poll_once(0)
        assert follower.tick() is None
        assert inbox.messages[-1][0] == {"type": "ended", "fault": "MemoryError: no more"}


def test_again_begins_anew(program: Program) -> None:
    """A player that was opened later, or misses something, gets all that is kept."""
    inbox = Inbox()
    follower = Follower(program.recording, inbox)
    program.turn()
    follower.tick()
    follower._asked = True  # as "again" says, without its thread
    follower.tick()
    assert inbox.types == ["restart", "restart"]
    assert inbox.messages[0][1] == inbox.messages[1][1]


@pytest.mark.parametrize("junk", [None, 7, [], {}, {"type": []}, {"type": "got", "sent": "7"}])
def test_messages_that_mean_nothing_are_ignored(junk: object, program: Program) -> None:
    """Whatever a front end sends, nothing happens."""
    follower = Follower(program.recording, Inbox())
    follower.receive(junk)
    assert not follower._heard


def test_nothing_more_is_sent_to_one_who_does_not_answer(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way is bounded; an answer lets it go on where it was."""
    monkeypatch.setattr(live, "UNANSWERED", 10_000)
    inbox = Inbox()
    follower = Follower(program.recording, inbox, most=50)
    for _ in range(30):
        program.turn()
        follower.tick()
    assert 10_000 < sum(len(text) for _, text in inbox.messages) < 40_000
    count = len(inbox.messages)
    follower.receive({"type": "got", "sent": 10**30})  # more than there is
    assert follower._answered == follower._sent
    follower.tick()
    assert inbox.types[count:] == ["steps"]
    last, now = inbox.messages[-2][0], inbox.messages[-1][0]
    assert now["first"] == last["first"] + last["count"]
    follower.stop()
    while follower._sent - follower._answered <= 10_000:
        program.turn()
        follower.tick()
    follower.receive({"type": "again"})
    follower.tick()
    assert inbox.types[-1] == "restart"


def test_beginning_is_sent_again_until_somebody_answers(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a cell is busy a player can't ask for what came before it was there."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(live, "monotonic", lambda: clock.now)
    inbox = Inbox()
    follower = Follower(program.recording, inbox)
    for _ in range(30):
        follower.tick()
        clock.now += 0.1
    assert 2 <= inbox.types.count("restart") <= 4
    count = len(inbox.messages)
    follower.receive({"type": "got", "sent": 1})
    for _ in range(30):
        follower.tick()
        clock.now += 0.1
    assert len(inbox.messages) == count


def test_idle_loop_is_told_of_every_few_seconds(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message without steps says that the follower is there, and since when nothing happened."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(live, "monotonic", lambda: clock.now)
    inbox = Inbox()
    follower = Follower(program.recording, inbox)
    follower.receive({"type": "got", "sent": 0})
    follower.tick()
    for _ in range(11):
        clock.now += 1
        follower.tick()
    assert inbox.types == ["restart", "steps"]
    message, text = inbox.messages[-1]
    assert (message["count"], text, round(message["quiet"])) == (0, "", 6)
    program.turn()
    follower.tick()
    assert inbox.messages[-1][0]["quiet"] == 0


def test_follower_rests_in_proportion(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as long as it worked, and as long as its bytes need; never less than a tick."""
    times = iter([0.0, 0.0, 0.0, 0.5, 0.0, 0.0])
    monkeypatch.setattr(live, "thread_time", lambda: next(times))
    follower = Follower(program.recording, Inbox())
    assert follower.tick() == live.TICK
    assert follower.tick() == 2
    monkeypatch.setattr(live, "BYTES_A_SECOND", 1000)
    program.turn()
    before = follower._sent
    assert follower.tick() == (follower._sent - before) / 1000 > live.TICK


@pytest.mark.skipif(NODE is None, reason="node is missing: apt-get install nodejs")
def test_browser_shows_the_states_of_the_trace(program: Program) -> None:
    """From message to state: what the player makes of them is what `tracer.Replay` says."""
    inbox = Inbox()
    follower = Follower(program.recording, inbox, most=40)
    for _ in range(20):
        program.turn()
        follower.tick()
    program.recording.stop()
    while follower.tick():
        pass
    trace = program.recording.trace
    base = json.dumps({"registrations": [], "tasks": [], "wakeup_fd": 5})
    script = FEED.replace("STATIC", STATIC.as_uri()).replace("BASE", base)
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", script],
        input=json.dumps(inbox.messages),
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    replay = tracer.Replay(trace)
    assert seen["states"] == [replay.state(at).to_json() for at in range(len(trace))]
    assert (seen["functions"], seen["dropped"]) == (list(trace.functions), 0)


# ---- the thread --------------------------------------------------------------------------------


@contextmanager
def echo_loop() -> Iterator[tuple[netpoll.Poller, Callable[[], None]]]:
    """A real loop in a thread, and what makes it do something and waits for that."""
    poller = netpoll.open_poller()
    here, there = socket.socketpair()
    here.setblocking(False)
    there.settimeout(LONGEST)
    poller.add_read(PollAttachment(here, lambda *args: here.send(here.recv(10))))
    loop = netpoll.run_in_thread(poller)

    def turn() -> None:
        there.send(b"x")
        assert there.recv(1) == b"x"

    with here, there:
        yield poller, turn
        loop.stop()


def test_running_loop_is_followed_until_it_closes() -> None:
    """All its steps come, from a thread of its own, then "ended"; that thread is gone then."""
    came: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
    with echo_loop() as (poller, turn):
        recording = tracer.record(poller)
        follower = Follower(
            recording, lambda message, buffers: came.put((message, b"".join(buffers)))
        )
        follower.start()
        follower.start()  # there is one thread
        message, data = came.get(timeout=LONGEST)
        assert message["type"] == "restart"
        follower.receive({"type": "got", "sent": message["sent"]})
        while b'"Wrote"' not in data:
            turn()
            data += came.get(timeout=LONGEST)[1]
    while message["type"] != "ended":
        message, more = came.get(timeout=LONGEST)
        data += more
    assert list(parse([data.decode()])) == list(recording.trace)
    follower.stop()
    assert "tracer-live" not in [thread.name for thread in threading.enumerate()]


def test_notebook_that_is_opened_after_the_end_gets_all() -> None:
    """The thread has ended; "again" has it send everything once more."""
    came: queue.Queue[str] = queue.Queue()
    for made in program_that(turns=1):
        follower = Follower(made.recording, lambda message, buffers: came.put(message["type"]))
        made.recording.stop()
        for _ in range(2):
            follower.receive({"type": "again"})
            assert came.get(timeout=LONGEST) == "restart"
            assert came.get(timeout=LONGEST) == "ended"
        follower.stop()
        follower.receive({"type": "again"})
        assert came.empty()


def test_again_at_the_very_end_is_not_lost() -> None:
    """What asks while the thread is about to end gets its answer."""
    came: queue.Queue[str] = queue.Queue()

    def send(message: dict[str, Any], buffers: list[bytes]) -> None:
        if message["type"] == "ended" and not follower._heard:
            follower.receive({"type": "again"})
        came.put(message["type"])

    for made in program_that(turns=1):
        follower = Follower(made.recording, send)
        made.recording.stop()
        follower.start()
        types = [came.get(timeout=LONGEST) for _ in range(4)]
        assert types == ["restart", "ended", "restart", "ended"]
        follower.stop()


def test_nothing_is_sent_when_stop_has_returned(program: Program) -> None:
    """It waits for the message that is under way."""
    entered, release = threading.Event(), threading.Event()
    order = []

    def send(message: dict[str, Any], buffers: list[bytes]) -> None:
        entered.set()
        assert release.wait(LONGEST)
        order.append("sent")

    def stop() -> None:
        follower.stop()
        order.append("stopped")

    follower = Follower(program.recording, send)
    follower.start()
    assert entered.wait(LONGEST)
    stopping = threading.Thread(target=stop)
    stopping.start()
    assert follower._stopping.wait(LONGEST)
    release.set()
    stopping.join(LONGEST)
    assert order == ["sent", "stopped"]


def test_fault_of_sending_stays_in_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the loop goes on, and a player that asks again is sent to again."""
    came: queue.Queue[str] = queue.Queue()
    broken = [True]

    def send(message: dict[str, Any], buffers: list[bytes]) -> None:
        came.put(message["type"])
        if broken:
            broken.clear()
            raise OSError("the wire is cut")

    with echo_loop() as (poller, turn):
        recording = tracer.record(poller)
        follower = Follower(recording, send)
        follower.start()
        thread = follower._thread
        assert came.get(timeout=LONGEST) == "restart"
        assert thread is not None
        thread.join(LONGEST)
        turn()
        assert recording.running
        follower.receive({"type": "again"})
        assert came.get(timeout=LONGEST) == "restart"
        follower.stop()
    assert [(one.name, one.levelname) for one in caplog.records] == [("tracer", "ERROR")]
    assert "the wire is cut" in caplog.text


def test_stop_may_be_called_while_sending(program: Program) -> None:
    """A player that closes itself ends its own following."""
    stopped = threading.Event()

    def send(message: dict[str, Any], buffers: list[bytes]) -> None:
        follower.stop()
        stopped.set()

    follower = Follower(program.recording, send)
    follower.start()
    thread = follower._thread
    assert stopped.wait(LONGEST)
    assert thread is not None
    thread.join(LONGEST)
    assert not thread.is_alive()


def test_messages_come_while_a_cell_is_busy() -> None:
    """In a real kernel: steps of a loop arrive before the cell that makes them has ended."""
    pytest.importorskip("ipykernel", reason="needs the extra dev")
    pytest.importorskip("ipywidgets", reason="needs the extra lab")
    manager_module = pytest.importorskip("jupyter_client.manager")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONGEST)
        cell = textwrap.dedent(f"""
            import socket, ipywidgets, netpoll, tracer
            from netpoll.examples.echo_server import EchoServer
            from tracer.follower import Follower
            poller = netpoll.open_poller()
            server = EchoServer(poller)
            loop = netpoll.run_in_thread(poller)
            widget = ipywidgets.HTML()
            follower = Follower(tracer.record(poller), widget.send)
            follower.start()
            client = socket.create_connection(server.address)
            client.send(b"x")
            gate = socket.create_connection({listener.getsockname()!r}, timeout={LONGEST})
            gate.recv(1)  # until the test has seen the messages
            follower.stop(); client.close(); loop.stop(); server.close()
        """)
        manager, client = manager_module.start_new_kernel(kernel_name="python3")
        try:
            executed = client.execute(cell)
            gate, _ = listener.accept()
            text = b""
            with gate:
                while b'"Wrote"' not in text:
                    message = client.get_iopub_msg(timeout=LONGEST)
                    assert message["header"]["msg_type"] not in ("error", "execute_reply"), message
                    state = message["content"].get("execution_state")
                    assert state != "idle" or message["parent_header"]["msg_id"] != executed
                    data = message["content"].get("data", {})
                    if message["header"]["msg_type"] == "comm_msg" and data["method"] == "custom":
                        assert data["content"]["type"] in ("restart", "steps")
                        text += b"".join(bytes(one) for one in message["buffers"])
                gate.send(b"x")
            reply = client.get_shell_msg(timeout=LONGEST)
            assert reply["content"]["status"] == "ok", reply["content"]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
