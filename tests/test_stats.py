"""`stats` counts what the steps tell, to the nanosecond, and shows it to people."""

from __future__ import annotations

import re
import socket
import threading
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

import netpoll
import tracer
from tests.traces import (
    HOSTILE,
    LISTENER,
    READ,
    WAKEUP,
    Script,
    echo_trace,
    hostile_trace,
    random_trace,
)
from tracer.stats import Distribution, FunctionStats, Stats, stats
from tracer.steps import BatchResized, DispatchEnded, DispatchStarted, TaskQueued, TaskStarted
from tracer.trace import BaseRegistration, BaseState, BaseTask, BaseTimer, Trace

BASE = BaseState("epoll", 4, WAKEUP, 128, running=True)
EMPTY = Trace(BASE, {}, [])
LOOP_KINDS = {
    *("WaitStarted", "WaitEnded", "DispatchStarted", "DispatchEnded", "EventDropped"),
    *("WakeupReceived", "BatchResized", "TimerFired", "TaskStarted", "TaskEnded"),
}


def dispatch(script: Script, ended: int, fd: int, took: int, after: int = 0) -> None:
    """Append a dispatch of `echo`, `after` nanoseconds from the last step."""
    started = script.step(
        "DispatchStarted", ended, after, fd=fd, event=READ, flags=0, callback=script.ids["echo"]
    )
    script.step("DispatchEnded", started, took, fd=fd)


def queue(script: Script, priority: str = "high", went: str = "high", after: int = 0) -> int:
    """Append the trigger of `log_stats`."""
    return script.call(
        "client_cell",
        1,
        "TaskQueued",
        priority=priority,
        queue=went,
        callback=script.ids["log_stats"],
        after=after,
    )


def of(found: Stats, role: str, name: str) -> FunctionStats:
    """Return what is said of a function."""
    (one,) = (f for f in found.functions if (f.role, f.name) == (role, name))
    return one


# ---- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 99, 100, 101, 200, 1000])
def test_percentiles_by_nearest_rank(length: int) -> None:
    """A percentile is the smallest duration that so many of 100 do not exceed."""
    durations = [7 * n for n in range(length)]
    found = Distribution.of(reversed(durations))
    for percent, value in ((50, found.p50), (99, found.p99)):
        enough = (d for d in durations if 100 * sum(e <= d for e in durations) >= percent * length)
        assert value == min(enough)
    assert (found.count, found.total) == (length, sum(durations))
    assert found.max == durations[-1]


def test_histogram() -> None:
    """A duration of n binary digits is counted at n; zero and less at 0."""
    assert Distribution.of([-5, 0, 1, 2, 3, 4, 7, 8]).histogram == (2, 1, 2, 2, 1)
    assert Distribution.of([]) == Distribution(0, 0, 0, 0, 0, ())


def test_loop_time() -> None:
    """Each nanosecond between the loop's steps belongs to one phase."""
    script = Script(BASE)
    ended = script.wait((7, READ), slept=1000)
    dispatch(script, ended, 7, took=200, after=10)
    queued = queue(script, after=5)
    started = script.step("TaskStarted", queued, 15, callback=script.ids["log_stats"])
    script.step("TaskEnded", started, 300)
    fired = script.step("TimerFired", None, 7, late_ns=4, callback=script.ids["log_stats"])
    started = script.step("TaskStarted", fired, 3, callback=script.ids["log_stats"])
    script.step("TaskEnded", started, 50)
    script.step("WaitStarted", None, 20, timeout_ns=0, size=128)
    script.step("WaitEnded", len(script.steps), 400, events=())
    found = stats(script.trace())
    assert found.waiting_ns == 1400
    assert found.dispatching_ns == 200
    assert found.tasks_ns == 350
    assert found.loop_ns == 10 + 20 + 10 + 20
    assert found.total_ns == found.span_ns == 2010
    assert found.utilization == pytest.approx(610 / 2010)
    assert (found.rounds, found.batches) == (2, ((0, 1), (1, 1)))
    assert (found.away.count, found.away.total) == (1, 610)


@pytest.mark.parametrize(
    ("kind", "fields", "phase"),
    [
        ("WaitStarted", {"timeout_ns": None, "size": 1}, "waiting_ns"),
        ("DispatchStarted", {"fd": 7, "event": 1, "flags": 0, "callback": 2}, "dispatching_ns"),
        ("TaskStarted", {"callback": 2}, "tasks_ns"),
    ],
)
def test_unfinished(kind: str, fields: dict[str, int], phase: str) -> None:
    """What has not ended lasts until the trace does; it is a call, and has no duration."""
    script = Script(BASE)
    script.step(kind, **fields)
    script.thread = "another"
    queue(script, after=500)
    found = stats(script.trace())
    assert getattr(found, phase) == found.total_ns == 500
    for one in found.functions:
        assert (one.calls, one.time.count) == (1, 0)
    assert found.rounds == 0


def test_lost_end() -> None:
    """A callback whose end is missing lasts until the loop's next step."""
    script = Script(BASE)
    script.step("DispatchStarted", fd=7, event=1, flags=0, callback=2)
    script.step("WaitStarted", None, 40, timeout_ns=None, size=1)
    script.step("WaitEnded", 2, 60, events=())
    script.step("DispatchEnded", None, 30, fd=7)
    found = stats(script.trace())
    assert (found.dispatching_ns, found.waiting_ns, found.loop_ns) == (40, 60, 30)
    assert found.functions[0].time.count == 0


def test_other_threads_take_no_loop_time() -> None:
    """Steps of other threads, before, within and after those of the loop, change no share."""
    plain = Script(BASE)
    dispatch(plain, plain.wait((7, READ)), 7, took=100)
    other = Script(BASE)
    script_thread = other.thread

    def elsewhere() -> None:
        other.thread = "another"
        queue(other)
        other.thread = script_thread

    elsewhere()
    other.t_ns = 1_000_000_000_000
    started = other.step("WaitStarted", timeout_ns=None, size=128)
    elsewhere()
    ended = other.step("WaitEnded", started, 800_000, events=((7, READ),))
    elsewhere()
    dispatch(other, ended, 7, took=100)
    elsewhere()
    one, two = stats(plain.trace()), stats(other.trace())
    names = ("waiting_ns", "dispatching_ns", "tasks_ns", "loop_ns", "functions")
    for name in names:
        assert getattr(one, name) == getattr(two, name)


def test_delay_before_a_dispatch() -> None:
    """Later events of a batch wait for the earlier ones; one of another wait has no delay."""
    script = Script(BASE)
    ended = script.wait((7, READ), (8, READ))
    dispatch(script, ended, 7, took=500, after=10)
    dispatch(script, ended, 8, took=100, after=20)
    dispatch(script, 1, 9, took=100)
    found = stats(script.trace())
    delays = {one.fd: one.delay for one in found.descriptors}
    assert (delays[7].max, delays[8].max, delays[9].count) == (10, 530, 0)
    echo = of(found, "callback", "echo")
    assert (echo.calls, echo.time.total, echo.delay.count, echo.delay.p50) == (3, 700, 2, 10)


def test_task_delay_by_priority() -> None:
    """A task waits from its trigger to its start, and counts for the priority asked for."""
    script = Script(replace(BASE, tasks=(BaseTask("high", 4), BaseTask("low", 4))))
    for priority, delay in (("low", 100), ("high", 200)):
        queued = queue(script, priority)
        script.step("TaskStarted", queued, delay, callback=script.ids["log_stats"])
    script.step("TaskStarted", None, callback=script.ids["log_stats"])
    queue(script)
    found = stats(script.trace())
    assert [(name, d.count, d.max) for name, d in found.queue_delays] == [
        ("high", 1, 200),
        ("low", 1, 100),
    ]
    assert (found.triggers, found.tasks_left) == (3, 2)
    task = of(found, "task", "log_stats")
    assert (task.calls, task.delay.count, task.delay.max) == (3, 2, 200)


def test_timers() -> None:
    """Timers are told from tasks; their delay runs from when they were due."""
    script = Script(replace(BASE, timers=(BaseTimer(5, 4), BaseTimer(6, 4))))
    number = script.ids["log_stats"]
    due = [script.call("echo", 1, "TimerSet", callback=number, delay_ns=9) for _ in range(4)]
    script.call("echo", 1, "TimerCanceled", callback=number, timer=due[0])
    script.call("echo", 1, "TimerCanceled", callback=number, timer=None)
    for cause, late in ((due[1], 10), (None, 30)):
        fired = script.step("TimerFired", cause, callback=number, late_ns=late)
        started = script.step("TaskStarted", fired, 5, callback=number)
        script.step("TaskEnded", started, 40)
    found = stats(script.trace())
    assert (found.timers_set, found.timers_canceled, found.timers_left) == (4, 2, 2)
    assert (found.lateness.count, found.lateness.max) == (2, 30)
    timer = of(found, "timer", "log_stats")
    assert (timer.calls, timer.time.total, timer.delay.p50, timer.delay.max) == (2, 80, 15, 35)
    assert [one.role for one in found.functions] == ["timer"]


def test_wakeups() -> None:
    """Many triggers share one write; one that failed is none."""
    script = Script(BASE)
    queued = [queue(script) for _ in range(6)][-1]
    script.step("WakeupSent", queued)
    script.step("WakeupSent", queued, error="OSError: 9")
    script.step("WakeupSent")
    found = stats(script.trace())
    assert (found.wakeups, found.triggers, found.triggers_per_wakeup) == (2, 6, 3.0)


def test_bytes() -> None:
    """Bytes count for the socket and for the function that moved them."""
    script = Script(BASE)
    ended = script.wait((7, READ))
    started = script.step(
        "DispatchStarted", ended, fd=7, event=READ, flags=0, callback=script.ids["echo"]
    )
    script.call("echo", 3, "Read", fd=7, count=100)
    script.call("echo", 8, "Wrote", fd=8, count=60, asked=100)
    script.call("echo", 8, "Wrote", fd=-1, count=0, asked=1, error="OSError: 9")
    script.step("DispatchEnded", started, fd=7)
    script.call("echo", 3, "Read", fd=7, count=5)
    found = stats(script.trace())
    moved = {one.fd: (one.bytes_read, one.bytes_written) for one in found.descriptors}
    assert moved == {7: (105, 0), 8: (0, 60)}
    echo = of(found, "callback", "echo")
    assert (echo.bytes_read, echo.bytes_written) == (100, 60)


def test_errors_and_dropped_events() -> None:
    """Errors count by kind and name, without their text; dropped events by descriptor."""
    script = Script(BASE)
    ended = script.wait((7, READ), (8, READ))
    started = script.step("DispatchStarted", ended, fd=7, event=READ, flags=0, callback=2)
    for text in ("ConnectionResetError: one", "ConnectionResetError: two"):
        script.call("echo", 3, "Read", fd=7, count=0, error=text)
    script.step("DispatchEnded", started, fd=7, error="ValueError: x")
    script.step("EventDropped", ended, fd=8, event=READ)
    started = script.step("WaitStarted", timeout_ns=None, size=1)
    script.step("WaitEnded", started, events=(), error="KeyboardInterrupt")
    found = stats(script.trace())
    assert found.errors == (
        ("Read", "ConnectionResetError", 2),
        ("DispatchEnded", "ValueError", 1),
        ("WaitEnded", "KeyboardInterrupt", 1),
    )
    assert found.dropped == 1
    assert [one.fd for one in found.descriptors if one.dropped] == [8]
    assert of(found, "callback", "echo").errors == 1
    assert (found.rounds, found.batches) == (1, ((2, 1),))


@pytest.mark.parametrize(
    ("between", "rows"),
    [
        ([("Closed", {})], ["old", "new"]),
        ([("Deleted", {})], ["old", "new"]),
        ([], ["old", "new"]),
        ([("Deleted", {"error": "NotRegistered"})], ["old", "new"]),
        ([("Accepted", {})], ["old", "new"]),
    ],
)
def test_number_used_again(between: list[tuple[str, dict[str, str]]], rows: list[str]) -> None:
    """A number that comes back is another descriptor, however the first one went."""
    script = Script(BASE)
    script.add("main", 1, 7, "old", "echo")
    for kind, fields in between:
        if kind == "Accepted":
            script.call("main", 1, kind, fd=6, new_fd=7, peer="new")
        else:
            script.call("main", 1, kind, fd=7, **fields)
    script.add("main", 1, 7, "new", "echo")
    assert [one.name for one in stats(script.trace()).descriptors] == rows


def test_same_descriptor_registered_again() -> None:
    """One that is modified, or deleted and registered again, stays the same until it is closed."""
    script = Script(
        replace(BASE, registrations=(BaseRegistration(7, "x", "", False, False, False, 2),))
    )
    script.add("main", 1, 7, "x", "echo", kind="Modified")
    script.call("main", 1, "Deleted", fd=7)
    script.add("main", 1, 7, "x", "echo")
    script.add("main", 1, 7, "x", "echo", error="AlreadyRegistered")
    script.call("main", 1, "Accepted", fd=6, new_fd=8, peer="peer")
    script.add("main", 1, 8, "a name of its own", "echo")
    script.call("main", 1, "Deleted", fd=8)
    script.call("main", 1, "Closed", fd=8)
    script.add("main", 1, 8, "a name of its own", "echo")
    found = [(one.fd, one.name) for one in stats(script.trace()).descriptors]
    assert found == [(7, "x"), (8, "a name of its own"), (8, "a name of its own")]


def test_order() -> None:
    """What took the most time stands first."""
    script = Script(BASE)
    ended = script.wait((7, READ), (8, READ))
    dispatch(script, ended, 7, took=5)
    dispatch(script, ended, 8, took=50)
    assert [one.fd for one in stats(script.trace()).descriptors] == [8, 7]


def test_empty() -> None:
    """A trace without steps gives zeros, a table and a picture."""
    found = stats(EMPTY)
    assert (found.steps, found.total_ns, found.utilization, found.triggers_per_wakeup) == (0,) * 4
    assert not any((found.functions, found.descriptors, found.batches))
    assert "0 steps" in repr(found)
    ElementTree.fromstring(found.picture())
    assert "0 steps" in found._repr_html_()


def test_part_of_a_trace() -> None:
    """A part is refused, a beginning is not."""
    trace = echo_trace()
    with pytest.raises(ValueError, match="part of a trace"):
        stats(trace.where(kind="Read"))
    assert stats(trace[:10]).steps == 10


@pytest.mark.parametrize("seed", range(20))
def test_random_traces(seed: int) -> None:
    """What is added up agrees with a plain count of the steps."""
    trace = random_trace(seed)
    found, steps = stats(trace), list(trace)
    kinds = Counter(step.kind for step in steps)
    starts = [step for step in steps if isinstance(step, (DispatchStarted, TaskStarted))]
    assert sum(one.calls for one in found.functions) == len(starts)
    assert sum(one.calls for one in found.descriptors) == kinds["DispatchStarted"]
    assert found.dropped == kinds["EventDropped"]
    assert found.rounds == kinds["WaitEnded"] == sum(times for _, times in found.batches)
    assert found.triggers == sum(isinstance(step, TaskQueued) for step in steps)
    tasks = sum(one.calls for one in found.functions if one.role == "task")
    assert found.tasks_left == len(trace.base.tasks) + found.triggers - tasks
    fired = sum(one.calls for one in found.functions if one.role == "timer")
    before = len(trace.base.timers) + found.timers_set
    assert found.timers_left == before - found.timers_canceled - fired
    assert found.lateness.count == fired
    loop = [step.t_ns for step in steps if step.kind in LOOP_KINDS]
    assert found.total_ns == loop[-1] - loop[0]
    ended = sum(one.time.count for one in found.descriptors)
    assert ended == sum(isinstance(step, DispatchEnded) for step in steps)
    assert sum(isinstance(step, BatchResized) for step in steps) == kinds["BatchResized"]


def test_recording() -> None:
    """A real recording, live in another thread, has sound statistics."""
    reader, writer = socket.socketpair()
    with reader, writer, netpoll.open_poller() as poller:
        done = threading.Event()

        def on_readable(fd: int, event: int, flags: int) -> None:
            reader.recv(100)
            poller.call_later(0, lambda _: done.set())

        poller.add_read(netpoll.PollAttachment(reader, on_readable))
        with netpoll.run_in_thread(poller), tracer.record(poller) as trace:
            writer.send(b"x" * 42)
            assert done.wait(10)
        found = stats(trace)
    callback = of(found, "callback", "on_readable")
    assert (callback.calls, callback.bytes_read) == (1, 42)
    assert 0 < callback.time.p50 == callback.time.max
    assert callback.delay.max > 0
    assert of(found, "timer", "<lambda>").calls == 1
    assert 0 < found.waiting_ns < found.total_ns
    assert re.search(r"test_stats\.py:\d+$", callback.place)


# ---- for people -------------------------------------------------------------------------------


TRACES = [
    echo_trace(),
    hostile_trace(),
    *(random_trace(seed, 60) for seed in range(5)),
    EMPTY,
]


@pytest.mark.parametrize("trace", TRACES)
def test_text(trace: Trace) -> None:
    """The table fits a terminal and has nothing in it that one obeys."""
    for line in repr(stats(trace)).split("\n"):
        assert len(line) <= 79
        assert line.isprintable()


def test_text_tells() -> None:
    """The table names functions and descriptors, with times and sizes."""
    text = repr(stats(echo_trace()))
    for part in ("callback ", "echo", "task ", "log_stats", "7 127.0.0.1:51234", "33 B", "µs"):
        assert part in text


def test_only_the_first_are_shown() -> None:
    """Of many descriptors a table shows some and says how many there are."""
    script = Script(BASE)
    for fd in range(10, 30):
        script.add("main", 1, fd, f"peer {fd}", "echo")
    found = stats(script.trace())
    assert len(found.descriptors) == 20
    assert "… and 12 more" in repr(found)
    assert "… and 12 more" in found._repr_html_()


class Tags(HTMLParser):
    """Collects the tags and attributes of some HTML, and checks that they are nested right."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag} | {name for name, _ in attrs}
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag} | {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("trace", TRACES)
def test_html(trace: Trace) -> None:
    """It is well formed, whatever the names are, and nothing in it runs."""
    found = stats(trace)
    tags = Tags(found._repr_html_())
    assert "table" in tags.seen
    assert "svg" in tags.seen
    assert not {"script", "a", "img", "iframe", "onload", "onclick", "href", "src"} & tags.seen
    assert HOSTILE not in found._repr_html_()
    assert "\u202e" not in found._repr_html_()


@pytest.mark.parametrize("trace", TRACES)
def test_picture(trace: Trace) -> None:
    """It is XML, says what it is, and nothing lies outside of it."""
    root = ElementTree.fromstring(stats(trace).picture())
    name = "{http://www.w3.org/2000/svg}"
    assert (root.tag, root.get("role")) == (f"{name}svg", "img")
    assert root[0].tag == f"{name}title"
    assert root[1].tag == f"{name}desc"
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for box in root.iter(f"{name}rect"):
        x, y, wide, high = (float(box.get(a) or "") for a in ("x", "y", "width", "height"))
        assert -0.01 <= x <= x + wide <= width + 0.01
        assert -0.01 <= y <= y + high <= height + 0.01
    for box in root.iterfind(f"{name}g/{name}rect"):
        assert float(box.get("x") or "") >= 190  # right of the names
    for line in root.iter(f"{name}line"):
        assert 0 <= float(line.get("x1") or "") <= width
    for text in root.iter(f"{name}text"):
        assert 0 <= float(text.get("y") or "") <= height


def test_picture_of_extremes() -> None:
    """Durations from none to centuries, and batches of thousands, stay in the picture."""
    script = Script(BASE)
    ended = script.wait(*[(fd, READ) for fd in range(5000)])
    for took in (0, 2**62):
        dispatch(script, ended, LISTENER, took)
    trace = script.trace()
    test_picture(trace)
    assert "&gt; 1,024" in stats(trace).picture()
    test_text(trace)
