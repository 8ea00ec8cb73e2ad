"""`perfetto` writes what a viewer of Chrome's traces can read: every event, every rule."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import netpoll
import tracer
from tests.traces import HOSTILE, READ, WAKEUP, Script, echo_trace, hostile_trace, random_trace
from tracer.perfetto import perfetto
from tracer.steps import WaitStarted
from tracer.trace import BaseRegistration, BaseState, BaseTask, Trace, parse

Event = dict[str, Any]
BASE = BaseState("epoll", 4, WAKEUP, 128, running=True)
EMPTY = Trace(BASE, {}, [])

REQUIRED = {
    "X": {"name", "ts", "dur", "pid", "tid"},
    "b": {"name", "cat", "ts", "pid", "id2"},
    "n": {"name", "cat", "ts", "pid", "id2"},
    "e": {"name", "cat", "ts", "pid", "id2"},
    "C": {"name", "ts", "pid", "args"},
    "s": {"name", "cat", "id", "ts", "pid", "tid"},
    "f": {"name", "cat", "id", "ts", "pid", "tid", "bp"},
    "M": {"name", "pid", "args"},
}
"""The fields that each type of event needs, by the rules of Perfetto's importer."""


def nanoseconds(microseconds: str) -> int:
    """Return a time of the file exactly; it has three decimals."""
    whole, _, rest = microseconds.partition(".")
    assert len(rest) == 3
    return int(whole) * 1000 + int(rest)


def check(path: Path) -> list[Event]:
    """Return the events of a file that keeps every rule, with times in nanoseconds."""
    content = json.loads(path.read_text(encoding="ascii"), parse_float=nanoseconds)
    events: list[Event] = content["traceEvents"]
    for event in events:
        assert event.keys() >= REQUIRED[event["ph"]], event
        assert event["name"]
        assert len(event["name"]) <= 220
        assert event.get("ts", 0) >= 0
    slices = check_slices(events)
    check_arrows(events, slices)
    check_spans(events)
    for event in events:
        if event["ph"] == "C":
            assert event["args"]
            assert all(type(value) is int and value >= 0 for value in event["args"].values())
    named = {e["tid"] for e in events if (e["ph"], e["name"]) == ("M", "thread_name")}
    assert named == {tid for _, tid in slices}
    tracks = [e for e in events if (e["ph"], e["name"]) == ("M", "thread_name")]
    assert len(named) == len(tracks)
    assert not named & {e["pid"] for e in events}
    pids = [e["pid"] for e in events if (e["ph"], e["name"]) == ("M", "process_name")]
    assert sorted(pids) == sorted({e["pid"] for e in events})
    return events


def check_slices(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    """Return the slices by track: one is in another or apart from it, also when times round."""
    tracks: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    for slices in tracks.values():
        slices.sort(key=lambda event: event["ts"])
        enclosing: list[Event] = []
        for event in slices:
            assert event["dur"] > 0
            while enclosing and end(enclosing[-1]) + 3 < event["ts"]:
                enclosing.pop()
            if enclosing:
                assert enclosing[-1]["ts"] + 3 < event["ts"]
                assert end(event) + 3 < end(enclosing[-1])
            enclosing.append(event)
    return tracks


def end(event: Event) -> int:
    """Return when a slice ends."""
    return int(event["ts"] + event["dur"])


def check_arrows(events: list[Event], slices: dict[tuple[int, int], list[Event]]) -> None:
    """Each arrow has an id of its own, leads from slice to slice, and not back in time."""
    arrows = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            arrows[event["id"]].append(event)
            assert around(event, slices)
    for first, last in arrows.values():
        assert (first["ph"], last["ph"], last["bp"]) == ("s", "f", "e")
        assert (first["name"], first["cat"]) == (last["name"], last["cat"])
        assert first["ts"] < last["ts"]
    spans = {e["id2"]["local"] for e in events if e["ph"] == "b"}
    assert not spans & arrows.keys()


def around(arrow: Event, slices: dict[tuple[int, int], list[Event]]) -> Event:
    """Return the innermost slice that one end of an arrow surely lies in."""
    ts = arrow["ts"]
    found = [e for e in slices[arrow["pid"], arrow["tid"]] if e["ts"] < ts - 1 < ts + 1 < end(e)]
    return found[-1]


def check_spans(events: list[Event]) -> None:
    """Each span begins once, then ends once, and is changed between."""
    spans = defaultdict(list)
    for event in events:
        if event["ph"] in "bne":
            spans[event["id2"]["local"]].append(event)
    for first, *between, last in spans.values():
        assert (first["ph"], last["ph"]) == ("b", "e")
        assert {event["ph"] for event in between} <= {"n"}
        times = [event["ts"] for event in (first, *between, last)]
        assert times == sorted(times)
        assert first["name"] == last["name"]


def slices_of(events: list[Event], **wanted: Any) -> list[Event]:
    """Return the slices with these values, in order of time."""
    found = [e for e in events if e["ph"] == "X" and e.items() >= wanted.items()]
    return sorted(found, key=lambda event: event["ts"])


def arrows_of(events: list[Event]) -> Counter[tuple[str, str, str]]:
    """Return how many arrows there are of each name, by the names of their slices."""
    slices = check_slices(events)
    ends = {e["id"]: around(e, slices)["name"] for e in events if e["ph"] == "f"}
    return Counter(
        (e["name"], around(e, slices)["name"], ends[e["id"]]) for e in events if e["ph"] == "s"
    )


def counters(events: list[Event], name: str) -> list[dict[str, int]]:
    """Return the values of a counter."""
    return [e["args"] for e in events if (e["ph"], e["name"]) == ("C", name)]


def names(events: list[Event], kind: str) -> list[str]:
    """Return what processes or threads are called."""
    return [e["args"]["name"] for e in events if (e["ph"], e["name"]) == ("M", kind)]


# ---- the rules, on many traces ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_random_traces(seed: int, tmp_path: Path) -> None:
    """Traces of all sorts keep every rule, and each step is there."""
    trace = random_trace(seed)
    events = check(perfetto(trace, tmp_path / "trace.json"))
    kinds = Counter(step.kind for step in trace)
    cats = Counter(event.get("cat") for event in events if event["ph"] == "X")
    assert cats["wait"] == kinds["WaitStarted"]
    assert cats["dispatch"] == kinds["DispatchStarted"]
    assert cats["task"] == kinds["TaskStarted"]
    quiet = {"WaitStarted", "WaitEnded", "DispatchStarted", "DispatchEnded", "TaskStarted"}
    others = sum(number for kind, number in kinds.items() if kind not in quiet | {"TaskEnded"})
    assert cats["call"] + cats["loop"] == others
    fired = sum(step.kind == "TimerFired" and step.cause is not None for step in trace)
    from_trigger = {step.seq for step in trace if step.kind == "TaskQueued"}
    run = sum(step.kind == "TaskStarted" and step.cause in from_trigger for step in trace)
    arrows = arrows_of(events)
    assert arrows["task", "TaskQueued", "log_stats"] == run
    assert arrows["timer", "TimerSet", "TimerFired"] == fired
    assert arrows["wakeup", "TaskQueued", "WakeupSent"] == kinds["WakeupSent"]
    assert arrows["wakeup", "WakeupSent", "WakeupReceived"] == kinds["WakeupReceived"]


@pytest.mark.parametrize("trace", [echo_trace(), hostile_trace(), EMPTY])
def test_other_traces(trace: Trace, tmp_path: Path) -> None:
    """So do a server's, one with names that are no names, and an empty one."""
    check(perfetto(trace, tmp_path / "trace.json"))


@pytest.mark.parametrize("seed", range(10))
def test_clock_that_stands_or_runs_back(seed: int, tmp_path: Path) -> None:
    """Times that are equal, out of order or centuries apart keep the rules too."""
    trace = random_trace(seed, rounds=15)
    for times in (
        [7] * len(trace),
        list(range(len(trace), 0, -1)),
        [(-1) ** number * 2**62 for number in range(len(trace))],
        [number * 3 // 2 for number in range(len(trace))],
    ):
        steps = [replace(step, t_ns=t_ns) for step, t_ns in zip(trace, times, strict=True)]
        changed = Trace(trace.base, trace.functions, steps)
        check(perfetto(changed, tmp_path / "trace.json"))


@pytest.mark.parametrize("seed", range(10))
def test_steps_missing(seed: int, tmp_path: Path) -> None:
    """A trace with holes, as a file may have, keeps the rules as well."""
    trace = random_trace(seed, rounds=30)
    steps = [step for step in trace if hash((step.seq, seed)) % 3]
    check(perfetto(Trace(trace.base, trace.functions, steps), tmp_path / "trace.json"))


def test_recording_of_two_pollers(tmp_path: Path) -> None:
    """Two pollers of one program are two processes on one clock."""
    with netpoll.open_poller() as one, netpoll.open_poller() as two:
        reader, writer = socket.socketpair()
        with reader, writer:
            done = threading.Event()

            def on_readable(fd: int, event: int, flags: int) -> None:
                reader.recv(100)
                two.trigger(netpoll.EventPriority.LOW, lambda _: two.call_later(0, finish))

            def finish(_: object) -> None:
                done.set()

            one.add_read(netpoll.PollAttachment(reader, on_readable))
            with (
                netpoll.run_in_thread(one, name="one"),
                netpoll.run_in_thread(two, name="two"),
                tracer.record(one) as first,
                tracer.record(two) as second,
            ):
                writer.send(b"x" * 42)
                assert done.wait(10)
    events = check(perfetto([first, second], tmp_path / "trace.json"))
    assert len(names(events, "process_name")) == 2
    (read,) = slices_of(events, name="Read")
    assert read["args"]["count"] == 42
    assert "test_perfetto.py:" in read["args"]["source"]
    assert "on_readable" in read["args"]["source"]
    assert {"loop: one", "loop: two", "thread: one"} <= set(names(events, "thread_name"))
    arrows = arrows_of(events)
    assert arrows["timer", "TimerSet", "TimerFired"] == 1
    assert arrows["wakeup", "WakeupReceived", "<lambda>"] == 1
    (callback,) = slices_of(events, cat="dispatch")
    started = next(s for s in first if s.kind == "DispatchStarted")
    assert callback["ts"] == started.t_ns - min(first.start_ns, second.start_ns)


# ---- one thing each ---------------------------------------------------------------------------


def test_echo(tmp_path: Path) -> None:
    """The server's story is told: calls in their callback, arrows, names, errors."""
    path = tmp_path / "trace.json"
    assert perfetto(echo_trace(), str(path)) == path
    events = check(path)
    assert names(events, "process_name") == ["poller 1 (epoll)"]
    assert names(events, "thread_name") == ["thread: MainThread", "loop: netpoll loop"]
    first, *_ = slices_of(events, name="on_connection")
    assert first["args"]["event"] == "READ"
    assert first["args"]["source"] == "server.py:30 in on_connection"
    inside = [e for e in slices_of(events) if first["ts"] < e["ts"] < end(first)]
    assert [e["name"] for e in inside] == ["Accepted", "Registered", "WouldBlock"]
    assert inside[1]["args"]["callback"] == "echo"
    *_, gone = slices_of(events, name="Read")
    assert gone["args"]["count"] == 0
    failed = slices_of(events, name="Registered")[1]
    assert failed["args"]["error"] == "AlreadyRegistered: 6"
    assert arrows_of(events) == {
        ("task", "TaskQueued", "log_stats"): 1,
        ("wakeup", "TaskQueued", "WakeupSent"): 1,
        ("wakeup", "WakeupSent", "WakeupReceived"): 1,
        ("wakeup", "WakeupReceived", "log_stats"): 1,
    }
    spans = [event["name"] for event in events if event["ph"] == "b"]
    assert spans[:2] == ["fd 6 listener :9090", "fd 7 127.0.0.1:51234"]


def test_unfinished(tmp_path: Path) -> None:
    """What has not ended is closed where the trace ends, and says so."""
    script = Script(replace(BASE, registrations=(BaseRegistration(9, "x", "read", *NO, 0),)))
    script.step("DispatchStarted", fd=9, event=READ, flags=0, callback=2)
    script.thread = "another"
    script.add("main", 1, 7, "y", "echo", after=5000)
    events = check(perfetto(script.trace(), tmp_path / "trace.json"))
    (callback,) = slices_of(events, cat="dispatch")
    assert callback["args"]["unfinished"] == "the trace ends here"
    assert end(callback) >= 5000
    ends = [e["args"]["unfinished"] for e in events if e["ph"] == "e"]
    assert ends == ["the trace ends here"] * 2


NO = (False, False, False)


def test_lost_end(tmp_path: Path) -> None:
    """A slice without an end stops where the next begins; an end without a slice is nothing."""
    script = Script(BASE)
    script.step("TaskEnded", None)
    script.step("DispatchStarted", fd=9, event=READ, flags=0, callback=2)
    script.wait()
    script.step("DispatchEnded", None, fd=9)
    events = check(perfetto(script.trace(), tmp_path / "trace.json"))
    callback, wait = slices_of(events)
    assert callback["args"]["unfinished"] == "its end was not recorded"
    assert end(callback) < wait["ts"]


def test_end_of_something_else(tmp_path: Path) -> None:
    """The end of a task does not end a callback."""
    script = Script(BASE)
    started = script.step("DispatchStarted", fd=9, event=READ, flags=0, callback=2)
    script.step("TaskEnded", None, 50)
    script.step("DispatchEnded", started, 50, fd=9)
    (callback,) = slices_of(check(perfetto(script.trace(), tmp_path / "trace.json")))
    assert callback["dur"] == 100
    assert "unfinished" not in callback["args"]


def test_short_slices(tmp_path: Path) -> None:
    """A call is a microsecond long where there is room, else half the way to the next step."""
    script = Script(BASE)
    for after in (0, 5000, 400):
        script.call("echo", 1, "Read", fd=7, count=1, after=after)
    events = check(perfetto(script.trace(), tmp_path / "trace.json"))
    assert [(e["ts"], e["dur"]) for e in slices_of(events)] == [
        (0, 1000),
        (5000, 200),
        (5400, 1000),
    ]


def test_lives(tmp_path: Path) -> None:
    """A descriptor's span goes from its registration to its end, whichever that is."""
    script = Script(replace(BASE, registrations=(BaseRegistration(5, "base", "read", *NO, 0),)))
    script.add("main", 1, 6, "deleted", "echo")
    script.add("main", 1, 6, "deleted", "echo", kind="Modified")
    script.call("main", 1, "Deleted", fd=6, error="OSError: 9")
    script.call("main", 1, "Deleted", fd=6)
    script.add("main", 1, 7, "replaced", "echo")
    script.call("main", 1, "Closed", fd=7)
    script.add("main", 1, 7, "closed with the poller", "echo")
    script.add("main", 1, 7, "failed", "echo", error="AlreadyRegistered")
    script.step("PollerClosed")
    events = check(perfetto(script.trace(), tmp_path / "trace.json"))
    ends = {e["name"]: (e["ts"], e["args"]) for e in events if e["ph"] == "e"}
    assert ends == {
        "fd 6 deleted": (9000, {}),
        "fd 7 replaced": (18000, {"unfinished": "its number was registered anew"}),
        "fd 5 base": (24000, {"ended": "the poller was closed"}),
        "fd 7 closed with the poller": (24000, {"ended": "the poller was closed"}),
    }
    between = [e["name"] for e in events if e["ph"] == "n"]
    assert between == ["Modified", "closed without delete"]


def test_life_in_two_threads(tmp_path: Path) -> None:
    """A span does not end before it began, where another thread's clock was read late."""
    script = Script(BASE)
    script.add("main", 1, 6, "x", "echo")
    script.thread = "another"
    script.call("main", 1, "Deleted", fd=6, after=-50)
    first, last = (
        event
        for event in check(perfetto(script.trace(), tmp_path / "trace.json"))
        if event["ph"] in "be"
    )
    assert first["ts"] < last["ts"]


def test_counters(tmp_path: Path) -> None:
    """Queues count base tasks, triggers and starts; batches what a wait returned."""
    script = Script(replace(BASE, tasks=(BaseTask("low", 4), BaseTask("low", 4))))
    number = script.ids["log_stats"]
    trigger = {"priority": "high", "queue": "high", "callback": number}
    queued = script.call("client_cell", 1, "TaskQueued", **trigger)
    script.call("client_cell", 1, "TaskQueued", **trigger, error="ValueError: closed")
    for cause in (queued, None):
        script.step("TaskEnded", script.step("TaskStarted", cause, callback=number))
    ended = script.wait((7, READ), (8, READ))
    script.step("BatchResized", ended, size=64)
    script.step("PollerClosed")
    events = check(perfetto(script.trace(), tmp_path / "trace.json"))
    values = [(args["high"], args["low"]) for args in counters(events, "queued tasks")]
    assert values == [(0, 2), (1, 2), (0, 2), (0, 1), (0, 0)]
    assert counters(events, "batch") == [{"events": 2}]
    assert counters(events, "batch size") == [{"most": 128}, {"most": 64}]


def test_no_arrow_back_in_time(tmp_path: Path) -> None:
    """Where another thread's clock was read late, no arrow leads back."""
    script = Script(BASE)
    script.thread = "another"
    callback = script.ids["log_stats"]
    queued = script.call(
        "client_cell", 1, "TaskQueued", priority="low", queue="low", callback=callback
    )
    script.thread = "loop"
    script.step("TaskStarted", queued, after=-50, callback=callback)
    script.step("TaskEnded", 2, after=1000)
    events = check(perfetto(script.trace(), tmp_path / "trace.json"))
    assert not arrows_of(events)


@pytest.mark.parametrize(
    ("first", "second"), [("TimerSet", "TimerFired"), ("WakeupSent", "WakeupReceived")]
)
def test_seq_zero_is_a_cause(first: str, second: str, tmp_path: Path) -> None:
    """The first step of a file has the number 0, and can be a cause."""
    script = Script(BASE)
    number = script.ids["log_stats"]
    timer = first == "TimerSet"
    script.step(first, **({"callback": number, "delay_ns": 1} if timer else {}))
    script.step(second, 1, **({"callback": number, "late_ns": 1} if timer else {}))
    steps = [
        replace(step, seq=step.seq - 1, cause=step.cause and step.cause - 1)
        for step in script.steps
    ]
    trace = Trace(BASE, script.functions, steps)
    events = check(perfetto(trace, tmp_path / "trace.json"))
    assert arrows_of(events) == {("timer" if timer else "wakeup", first, second): 1}


def test_calls_that_failed(tmp_path: Path) -> None:
    """A write that failed has no arrow, and a registration that failed names nobody."""
    script = Script(replace(BASE, registrations=(BaseRegistration(6, "x", "read", *NO, 0),)))
    callback = script.ids["log_stats"]
    queued = script.call(
        "client_cell", 1, "TaskQueued", priority="low", queue="low", callback=callback
    )
    script.step("WakeupSent", queued, error="OSError: 9")
    script.add("main", 1, 6, "y", "echo", error="AlreadyRegistered")
    script.call("main", 1, "Read", fd=6, count=1)
    events = check(perfetto(script.trace(), tmp_path / "trace.json"))
    assert not arrows_of(events)
    (read,) = slices_of(events, name="Read")
    assert read["args"]["who"] == "x"


def test_long_batch(tmp_path: Path) -> None:
    """Of a long batch the first events are told."""
    script = Script(BASE)
    script.wait(*[(fd, READ) for fd in range(10, 1010)])
    (wait,) = slices_of(check(perfetto(script.trace(), tmp_path / "trace.json")))
    assert wait["args"]["events"] == 1000
    assert wait["args"]["returned"].startswith("10 READ, 11 READ")
    assert wait["args"]["returned"].endswith("and 980 more")


def test_hostile_names(tmp_path: Path) -> None:
    """Names are cut and have nothing in them that a screen obeys."""
    path = perfetto(hostile_trace(), tmp_path / "trace.json")
    assert path.stat().st_size < 20_000
    for event in check(path):
        for text in (event["name"], *event.get("args", {}).values()):
            assert not isinstance(text, str) or (text.isprintable() and len(text) < 500)
    assert HOSTILE not in path.read_text()


def test_step_of_a_newer_tracer(tmp_path: Path) -> None:
    """A kind that is not known here is left out."""
    lines = [*echo_trace().to_lines()]
    lines[0] = lines[0].replace('"minor":1', '"minor":99')
    lines.append('{"kind":"Slept","seq":999,"t_ns":0,"thread":"x"}\n')
    trace = parse(lines)
    assert len(trace) == len(echo_trace()) + 1
    check(perfetto(trace, tmp_path / "trace.json"))


def test_part_of_a_trace(tmp_path: Path) -> None:
    """A part is refused, before a file is made; a beginning is not."""
    trace = echo_trace()
    path = tmp_path / "trace.json"
    with pytest.raises(ValueError, match="part of a trace"):
        perfetto([trace, trace.where(kind=WaitStarted)], path)
    assert not path.exists()
    check(perfetto(trace[:20], path))


# ---- the checker ------------------------------------------------------------------------------


def slice_(ts: int, dur: int) -> Event:
    """Return a slice."""
    return {"ph": "X", "name": "x", "pid": 1, "tid": 2, "ts": ts, "dur": dur}


def arrow(phase: str, ts: int, **more: Any) -> Event:
    """Return one end of an arrow."""
    event = {"ph": phase, "name": "a", "cat": "c", "id": "0x1", "pid": 1, "tid": 2, "ts": ts}
    return event | ({"bp": "e"} if phase == "f" else {}) | more


@pytest.mark.parametrize(
    "events",
    [
        [slice_(0, 100), slice_(50, 100)],
        [slice_(0, 100), slice_(50, 50)],
        [slice_(0, 100), slice_(102, 50)],
        [slice_(0, 0)],
        [slice_(0, 100), arrow("s", 5), arrow("f", 500)],
        [slice_(0, 100), arrow("s", 5), arrow("f", 50), arrow("f", 60)],
        [slice_(0, 100), arrow("s", 50), arrow("f", 5)],
        [slice_(0, 100), arrow("s", 0), arrow("f", 50)],
    ],
)
def test_checker_notices(events: list[Event]) -> None:
    """The checker of these tests finds slices that overlap and arrows that hit nothing."""
    with pytest.raises((AssertionError, IndexError, ValueError)):
        check_arrows(events, check_slices(events))
