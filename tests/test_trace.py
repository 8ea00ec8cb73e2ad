"""A trace: a sequence of steps that survives being written to a file and read back."""

import csv
import io
import itertools
import json
import os
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

from tests.traces import HOSTILE, Script, echo_trace, hostile_trace, random_trace
from tracer.rows import KIND, Rows
from tracer.steps import (
    STEP_KINDS,
    Accepted,
    Closed,
    Function,
    Read,
    Registered,
    Step,
    WaitEnded,
    Wrote,
    step_to_json,
)
from tracer.trace import (
    MINOR,
    BaseRegistration,
    BaseState,
    BaseTask,
    BaseTimer,
    Trace,
    TraceFormatError,
    UnknownStep,
    load,
    parse,
)
from tracer.trace_file import LONGEST_LINE, read, step_lines
from tracer.trace_rows import COLUMNS, span

HEADER = '{"format":"netpoll-trace","version":1}\n'
BASE = (
    '{"kind":"base","backend":"epoll","fd":3,"wakeup_fd":4,"size":128,"running":true,'
    '"registrations":[],"tasks":[]}\n'
)
FUNCTION = '{"kind":"function","id":0,"name":"f","file":"f.py","first_line":1,"text":""}\n'
CLOSED = '{"kind":"Closed","seq":1,"t_ns":2,"thread":"main","fd":7}\n'


def parts(trace: Trace) -> tuple[Any, ...]:
    """Return everything that a trace is made of, to be compared."""
    return trace.base, dict(trace.functions), list(trace), trace.truncated


@pytest.mark.parametrize("make", [echo_trace, hostile_trace, lambda: random_trace(7)])
def test_load_returns_what_was_saved(make: Callable[[], Trace], tmp_path: Path) -> None:
    """A trace that is saved and loaded is the same, names that try to break out included."""
    trace = make()
    path = trace.save(str(tmp_path / "trace.jsonl"))
    assert path == tmp_path / "trace.jsonl"
    assert parts(load(path)) == parts(trace)


@pytest.mark.parametrize(
    "text",
    [HOSTILE, "\ud800", "a\x00b\x1b[31m", "\u2028\u2029\x85\r\n", "😀" * 3, "__import__('os')"],
)
def test_hostile_text_survives(text: str, tmp_path: Path) -> None:
    """Line ends, control characters and half a surrogate pair come back as they were."""
    base = BaseState(text, None, 4, 128, running=False)
    step = Closed(seq=1, t_ns=2, thread=text, fd=7, error=text)
    trace = Trace(base, {0: Function(0, text, text, 1, text)}, [step])
    path = trace.save(tmp_path / "trace.jsonl")
    assert parts(load(path)) == parts(trace)
    assert path.read_bytes().count(b"\n") == 4


def test_save_replaces_an_old_file(tmp_path: Path) -> None:
    """What stood in the file before is gone, its permissions stay, and nothing else is left."""
    path = tmp_path / "trace.jsonl"
    path.write_text("x" * 1_000_000)
    path.chmod(0o640)
    echo_trace().save(path)
    assert len(load(path)) == len(echo_trace())
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_save_follows_a_link(tmp_path: Path) -> None:
    """A symbolic link stays one; the file that it names is replaced."""
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(real)
    assert echo_trace().save(link) == link
    assert link.is_symlink()
    assert len(load(real)) == len(echo_trace())


class Breaks(list[Step]):
    """Steps that end in an error, like a disk that is full."""

    def __iter__(self) -> Iterator[Step]:
        yield from super().__iter__()
        raise OSError("no space left")

    def __getitem__(self, index: Any) -> Any:
        return self


def test_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Until the new file is written whole, the old one is there; what was begun is removed."""
    path = echo_trace().save(tmp_path / "trace.jsonl")
    before = path.read_bytes()
    trace = Trace(echo_trace().base, {}, Breaks(echo_trace()))
    with pytest.raises(OSError, match="no space"):
        trace.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_into_what_is_no_file(tmp_path: Path) -> None:
    """A named pipe is written into, as /dev/stdout would be, and not replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen: list[Trace] = []
    reader = threading.Thread(target=lambda: seen.append(load(pipe)), daemon=True)
    reader.start()
    echo_trace().save(pipe)
    reader.join(20)
    assert list(seen[0]) == list(echo_trace())
    assert pipe.is_fifo()


def test_lines_are_what_the_encoder_writes() -> None:
    """The quick templates write what `step_to_json` says, for every kind and every optional."""
    for trace in (random_trace(3), hostile_trace(), every_kind(), every_kind(optional=False)):
        lines = list(trace.to_lines())[2 + len(trace.functions) :]
        written = [json.dumps(step_to_json(step), separators=(",", ":")) + "\n" for step in trace]
        assert lines == written


def test_numbers_of_other_types_are_written_as_numbers() -> None:
    """An enum, which may have a name for itself, is no name in the file."""

    class Number(int):
        def __str__(self) -> str:
            return "SEVEN"

    step = Closed(seq=1, t_ns=2, thread="main", fd=Number(7))
    assert '"fd":7}' in list(Trace(echo_trace().base, {}, [step]).to_lines())[-1]


def test_more_texts_than_are_remembered() -> None:
    """Texts are remembered to be written quickly, but not for ever, and never mixed up."""
    count = 25_000

    def steps() -> Iterator[Step]:
        for n in range(count):
            yield Closed(seq=n, t_ns=n, thread="main", fd=7, error=f"{n} " + "x" * 1000)

    tracemalloc.start()
    try:
        for n, line in enumerate(step_lines(steps())):
            assert f'"error":"{n} x' in line
        assert tracemalloc.get_traced_memory()[1] < 2 * 1100 * count * 0.6
    finally:
        tracemalloc.stop()
    assert n == count - 1


def every_kind(optional: bool = True) -> Trace:
    """Return a trace of one step of each kind, each text in it another one."""
    steps: list[Step] = []
    texts = itertools.count(1)
    for number, make in enumerate(STEP_KINDS.values(), 1):
        values: dict[str, Any] = {"seq": number, "t_ns": 10**12 + number}
        hints = get_type_hints(make)
        for own in fields(make):
            if own.name in values or (own.default is None and not optional):
                continue
            kinds = str(hints[own.name])
            if own.name == "cause":
                values["cause"] = number - 1
            elif "tuple" in kinds:
                values[own.name] = ((7, 1), (8, 5))
            elif "bool" in kinds:
                values[own.name] = number % 2 == 0
            elif "int" in kinds:
                values[own.name] = 0 if own.name in ("callback", "function") else 7
            elif own.name == "error":
                values["error"] = f"OSError: secret{next(texts)}"
            else:
                values[own.name] = f"secret{next(texts)}"
        steps.append(make(**values))
    functions = {0: Function(0, "secret_f", "/home/secret/file.py", 5, "secret source")}
    base = BaseState(
        "secret backend",
        3,
        4,
        128,
        True,
        (BaseRegistration(6, "secret who", "secret interest", False, False, False, 0),),
        (BaseTask("secret queue", 0),),
        (BaseTimer(10**12 + 5, 0),),
    )
    return Trace(base, functions, steps)


@pytest.mark.parametrize("optional", [True, False])
def test_every_kind_survives(optional: bool, tmp_path: Path) -> None:
    """No kind, and no field of one, is lost on the way to a file and back."""
    trace = every_kind(optional)
    assert parts(load(trace.save(tmp_path / "trace.jsonl"))) == parts(trace)


# ---- a sequence ---------------------------------------------------------------------------------


def saved(trace: Trace, tmp_path: Path) -> Trace:
    return load(trace.save(tmp_path / "saved.jsonl"))


@pytest.fixture(params=["made", "loaded"])
def trace(request: pytest.FixtureRequest, tmp_path: Path) -> Trace:
    """The echo trace, of step objects and of a file."""
    return echo_trace() if request.param == "made" else saved(echo_trace(), tmp_path)


def test_sequence(trace: Trace) -> None:
    """A trace is indexed, sliced, measured and walked like a list of its steps."""
    steps = list(echo_trace())
    assert list(trace) == steps
    assert len(trace) == len(steps)
    assert trace[0] == steps[0]
    assert trace[-1] == steps[-1]
    assert list(trace[3:9:2]) == steps[3:9:2]
    assert list(trace[-5:]) == steps[-5:]
    assert list(trace[3:9][1:3]) == steps[4:6]
    assert list(reversed(trace)) == steps[::-1]
    assert steps[5] in trace
    assert trace.index(steps[5]) == 5
    with pytest.raises(IndexError):
        trace[len(trace)]
    with pytest.raises(ValueError, match="reversed"):
        trace[::-1]


def test_part_is_a_trace(trace: Trace, tmp_path: Path) -> None:
    """A slice keeps functions and base, and can be saved; it says that steps are missing."""
    for part in (trace[10:20], trace.where(fd=7), trace.search("echo"), trace[::2]):
        assert part.partial
        again = saved(part, tmp_path)
        assert parts(again) == parts(part)
        assert again.partial
        assert again[:2].partial
    for whole in (trace, trace[:20], trace[:], trace[:20][:10], saved(trace[:20], tmp_path)):
        assert not whole.partial
    assert parts(saved(trace[:20], tmp_path)) == parts(trace[:20])


def test_where_by_descriptor(trace: Trace) -> None:
    """What a descriptor was in: its own steps, the accept that made it, the waits that told."""
    steps = list(trace.where(fd=7))
    kinds = [step.kind for step in steps]
    assert kinds[:4] == ["Accepted", "Registered", "WaitEnded", "DispatchStarted"]
    assert kinds[-3:] == ["Deleted", "Closed", "DispatchEnded"]
    assert set(kinds) & {"WaitStarted", "TaskStarted", "WakeupSent"} == set()
    assert len(trace.where(fd=77)) == 0


def test_where_by_kind(trace: Trace) -> None:
    """A kind is a name or a class, or several; one that there is not is an error."""
    assert {step.kind for step in trace.where(kind="Read")} == {"Read"}
    assert list(trace.where(kind=Read)) == list(trace.where(kind="Read"))
    both = trace.where(kind=("Read", Wrote))
    assert {step.kind for step in both} == {"Read", "Wrote"}
    assert len(both) == len(trace.where(kind=Read)) + len(trace.where(kind=Wrote))
    with pytest.raises(ValueError, match=r"no kind of step 'Reed'; there are PollerOpened, "):
        trace.where(kind="Reed")


def test_where_by_callback(trace: Trace) -> None:
    """A function's steps name it, or happened in a call of it."""
    kinds = [step.kind for step in trace.where(callback="log_stats")]
    assert kinds == ["TaskQueued", "TaskStarted", "TaskEnded"]
    accepting = [step.kind for step in trace.where(callback="on_connection")]
    assert accepting.count("DispatchStarted") == accepting.count("DispatchEnded") == 2
    assert "Registered" in accepting  # those of the clients, made in the call
    assert len(trace.where(callback="nobody")) == 0
    methods = {n: Function(n, f"Server.{f.name}", "", 1, "") for n, f in trace.functions.items()}
    renamed = Trace(trace.base, methods, list(trace))
    for name in ("echo", "Server.echo"):
        assert list(renamed.where(callback=name)) == list(trace.where(callback="echo"))
    assert len(renamed.where(callback="cho")) == 0


def test_where_by_thread_and_time(trace: Trace) -> None:
    """Threads go by name, times by seconds since the first step, also in a part of a trace."""
    main = trace.where(thread="MainThread")
    assert [step.kind for step in main] == ["Registered", "Registered", "TaskQueued", "WakeupSent"]
    assert list(trace.where(between=(0, 0))) == [trace[0]]
    end = (trace[-1].t_ns - trace[0].t_ns) / 1e9
    assert len(trace.where(between=(0, end))) == len(trace)
    late = trace.where(between=(end / 2, end))
    assert 0 < len(late) < len(trace)
    assert list(late.where(between=(end, end))) == [trace[-1]]
    assert late.start_ns == trace.start_ns == trace[0].t_ns


def test_where_means_all_of_it(trace: Trace) -> None:
    """Several conditions are joined by AND, at once or one after the other."""
    both = trace.where(fd=7, kind=Read, thread="netpoll loop")
    assert list(both) == list(trace.where(kind=Read).where(fd=7))
    assert {(step.kind, getattr(step, "fd", 0)) for step in both} == {("Read", 7)}
    assert 0 < len(both) < len(trace.where(kind=Read))
    assert len(trace.where(fd=7, kind=Read, thread="MainThread")) == 0
    started = trace.where(fd=7, callback="echo", kind="DispatchStarted")
    assert len(started) == 6
    ended = trace.where(fd=7, callback="echo", kind="DispatchEnded")
    assert [step.cause for step in ended] == [step.seq for step in started]
    assert list(trace.where()) == list(trace)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("connectionRESET", {"Read"}),
        ("wakeupsent", {"WakeupSent"}),
        ("client_cell", {"TaskQueued"}),
        ("AlreadyReg", {"Registered"}),
        ("listener :9090", {"Registered", "DispatchStarted", "Accepted", "WouldBlock"}),
        ("RDHUP", {"WaitEnded", "DispatchStarted"}),
        ("no such text", set()),
    ],
)
def test_search(trace: Trace, text: str, kinds: set[str]) -> None:
    """Names, errors, kinds, functions, peers and events are searched, whatever their case."""
    found = {step.kind for step in trace.search(text)}
    assert found - {"DispatchEnded"} == kinds


def test_empty_trace() -> None:
    """A trace without steps answers every question."""
    empty = Trace(echo_trace().base, {}, [])
    assert len(empty[:5]) == len(empty.where(fd=7)) == len(empty.search("x")) == 0
    assert empty.to_rows() == []
    assert (empty.start_ns, repr(empty)) == (0, "<Trace of 0 steps on epoll>")
    assert "Trace of 0 steps" in empty._repr_html_()
    assert parts(parse(empty.redacted().to_lines()))[2] == []


# ---- other forms --------------------------------------------------------------------------------


def test_rows_are_flat_and_named(trace: Trace) -> None:
    """Each row has every column, plain values in them, and names in place of ids."""
    rows = trace.to_rows()
    assert len(rows) == len(trace)
    assert {tuple(row) for row in rows} == {COLUMNS}
    plain = (int, float, str, bool, type(None))
    assert all(isinstance(value, plain) for row in rows for value in row.values())
    dispatch = next(row for row in rows if row["kind"] == "DispatchStarted" and row["fd"] == 7)
    assert (dispatch["callback"], dispatch["who"]) == ("echo", "127.0.0.1:51234")
    assert dispatch["event"] == "READ"
    read = next(row for row in rows if row["kind"] == "Read")
    assert (read["function"], read["file"], read["line"]) == ("echo", "server.py", 53)
    waited = next(row for row in rows if row["events"] and "," in row["events"])
    assert waited["events"] == "7 READ, 9 READ"
    assert rows[0]["seconds"] == 0
    assert rows[-1]["seconds"] == pytest.approx(0.007, abs=0.001)
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    assert len(file.getvalue().splitlines()) == len(trace) + 1


def test_rows_of_a_part_know_the_names(trace: Trace) -> None:
    """A descriptor has its name also where the steps that told it were left out."""
    for part in (trace.where(kind="Read"), trace[12:20], trace.where(fd=7).where(kind="Read")):
        rows = part.to_rows()
        whole = {row["seq"]: row for row in trace.to_rows()}
        assert rows == [whole[row["seq"]] for row in rows]
        assert any(row["who"] == "127.0.0.1:51234" for row in rows)


def test_number_used_again_gets_its_new_name() -> None:
    """`who` is what the descriptor was called at that time; a failed registration names nobody."""
    script = Script(BaseState("epoll", 3, 4, 128, False))
    script.add("main", 1, 7, "first", "echo")
    script.add("main", 1, 7, "not taken", "echo", error="AlreadyRegistered: 17")
    script.call("goodbye", 1, "Closed", fd=7)
    script.add("main", 1, 7, "second", "echo")
    script.call("goodbye", 1, "Closed", fd=7)
    script.call("main", 1, "Accepted", fd=6, new_fd=7, peer="third")
    script.call("goodbye", 1, "Closed", fd=7)
    whole = script.trace()
    for trace in (whole, whole.where(kind="Closed")):
        closed = [row["who"] for row in trace.to_rows() if row["kind"] == "Closed"]
        assert closed == ["first", "second", "third"]


def test_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data frame is made of the rows; without pandas the error says what to do."""
    given: dict[str, Any] = {}
    fake = SimpleNamespace(DataFrame=lambda rows, columns: given.update(rows=rows, columns=columns))
    monkeypatch.setitem(sys.modules, "pandas", fake)
    echo_trace().to_pandas()
    assert given == {"rows": echo_trace().to_rows(), "columns": list(COLUMNS)}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install pandas.*to_rows"):
        echo_trace().to_pandas()


def test_redacted_tells_nothing(tmp_path: Path) -> None:
    """Of a trace in which every text is a secret, none is left, in any form of it."""
    for trace in (every_kind(), saved(every_kind(), tmp_path), every_kind(optional=False)):
        assert "secret" in "".join(trace.to_lines())
        shared = trace.redacted()
        forms = [*shared.to_lines(), repr(shared), shared._repr_html_(), str(shared.to_rows())]
        assert "secret" not in "".join(forms)
        assert str(10**12)[:6] not in "".join(shared.to_lines())  # how long the machine runs


def test_redacted_keeps_the_structure() -> None:
    """Who was whom is gone; what happened to whom, why, and how long it took is there."""
    trace = echo_trace()
    shared = trace.redacted()
    assert [step.kind for step in shared] == [step.kind for step in trace]
    for before, after in zip(trace, shared, strict=True):
        assert (before.seq, before.cause) == (after.seq, after.cause)
        assert before.t_ns - trace[0].t_ns == after.t_ns
        assert getattr(before, "fd", None) == getattr(after, "fd", None)
        assert getattr(before, "count", None) == getattr(after, "count", None)
    accepted, registered = shared[5], shared[6]
    assert isinstance(accepted, Accepted)
    assert isinstance(registered, Registered)
    assert accepted.peer == registered.who == "peer 1"
    listening = shared[0]
    assert isinstance(listening, Registered)
    assert (listening.who, listening.line) == ("listener 1", 3)
    errors = [step.error for step in shared if getattr(step, "error", None) is not None]  # type: ignore[attr-defined]
    assert errors == ["AlreadyRegistered", "ConnectionResetError"]
    names = {function.name for function in shared.functions.values()}
    assert "callback 1" in names
    assert {function.text + function.file for function in shared.functions.values()} == {""}
    assert {step.thread for step in shared} == {"MainThread", "thread 1"}
    assert not shared.partial
    assert parts(parse(shared.to_lines())) == parts(shared)


def test_repr_fits_a_screen() -> None:
    """The repr is a short table, whatever the names; a torn file and a part are told."""
    long = random_trace(3)
    for trace in (long, long[:3], long.where(fd=7), hostile_trace(), every_kind()):
        lines = repr(trace).splitlines()
        assert len(lines) <= 18
        assert max(map(len, lines)) <= 79
        assert all(line.isprintable() for line in lines)
    assert repr(echo_trace()).startswith("<Trace of 72 steps on epoll in 7.0 ms>\n")
    assert repr(long).endswith(f"… and {len(long) - 15:,} more")
    assert repr(echo_trace()[3:4]).startswith("<Part of a trace: 1 step on epoll>")
    torn = Trace(echo_trace().base, {}, [], truncated=True)
    assert repr(torn) == "<Trace of 0 steps on epoll, truncated>"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        *[(0, "0 ns"), (999, "999 ns"), (1250, "1.2 µs"), (99_999, "99.9 µs"), (-5, "-5 ns")],
        *[(999_999_999, "999 ms"), (61_000_000_000, "61.0 s"), (2**63 - 1, "9,223,372,036 s")],
    ],
)
def test_span(nanoseconds: int, text: str) -> None:
    """A time is told with its unit and never more digits than one reads."""
    assert span(nanoseconds) == text


def test_html_is_a_short_table() -> None:
    """A notebook shows what it is, how often each kind comes, and the first steps."""
    html = echo_trace()._repr_html_()
    assert "Trace of 72 steps on epoll in 7.0 ms" in html
    assert "Read <b>8</b>" in html
    assert html.count("<tr") == 16
    assert "… and 57 more" in html
    assert "torn off" in Trace(echo_trace().base, {}, [], truncated=True)._repr_html_()


def test_html_escapes_names() -> None:
    """Nothing in a trace becomes markup, and no name makes the table long."""
    html = hostile_trace()._repr_html_()
    assert "<script" not in html
    assert "\u202e" not in html
    assert len(html) < 10_000


# ---- while it grows -----------------------------------------------------------------------------


class Grows(list[Step]):
    """Steps to which one is added, with a function of its own, just before somebody copies them."""

    def __init__(self, functions: dict[int, Function]) -> None:
        super().__init__([])
        self.functions = functions

    def __getitem__(self, index: Any) -> Any:
        number = len(self)
        self.functions[number] = Function(number, "new", "", 1, "")
        self.append(Closed(seq=number, t_ns=2, thread="main", function=number, line=1, fd=7))
        return super().__getitem__(index)


def test_functions_are_read_after_the_steps() -> None:
    """A function that was met while the lines were made is told when a step names it."""
    functions: dict[int, Function] = {}
    again = parse(Trace(echo_trace().base, functions, Grows(functions)).to_lines())
    assert len(again) == 1
    assert set(again.functions) == {0}


def test_lines_of_a_growing_trace_are_of_one_moment() -> None:
    """While threads record, the text has each step once and every function that it names."""
    rows = Rows()
    done = threading.Event()

    def work(number: int) -> None:
        while not done.is_set():
            for line in range(50):
                names: dict[str, Any] = {}
                exec(compile(f"def f{number}(): pass", f"<{number}>", "exec"), names)
                function = rows.function_id(names[f"f{number}"])
                rows.write(KIND["TaskQueued"], first=0, second=function, site=(function, line))
            if len(rows) > 5_000:
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        trace = Trace(BaseState("epoll", 3, 4, 128, False), rows.functions, rows)
        lengths = []
        while any(thread.is_alive() for thread in threads):
            again = parse(trace.to_lines())
            lengths.append(len(again))
            assert {step.callback for step in again} <= set(again.functions)  # type: ignore[attr-defined]
            assert len(repr(trace).splitlines()) <= 18
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert lengths == sorted(lengths)


# ---- files that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "number", "reason"),
    [
        ("", 1, "ends before the header"),
        ("{", 1, "ends before the header"),
        ('{"format":"something else"}\n', 1, "no netpoll-trace"),
        ("[]\n", 1, "no JSON object"),
        ("\ufeff" + HEADER, 1, "no JSON"),
        ('{"format":"netpoll-trace","version":2}\n', 1, "version 2 was written by a newer"),
        ('{"format":"netpoll-trace","version":0}\n', 1, "0 is no version"),
        ('{"format":"netpoll-trace","version":true}\n', 1, "True is no version"),
        ('{"format":"netpoll-trace"}\n', 1, "None is no version"),
        (HEADER, 2, "ends before the base state"),
        (HEADER.replace("1}", '1,"minor":"1"}'), 1, "'1' is no minor version"),
        (HEADER.replace("1}", '1,"minor":true}'), 1, "True is no minor version"),
        (HEADER.replace("1}", '1,"minor":-1}'), 1, "-1 is no minor version"),
        (HEADER.replace("1}", '1,"partial":1}'), 1, "'partial' is true or false"),
        (HEADER + CLOSED, 2, "base state must follow"),
        (HEADER + BASE.replace("[]", "7", 1), 2, "list of BaseRegistration"),
        (HEADER + BASE.replace("[]", '[{"fd":7}]', 1), 2, "BaseRegistration lacks .*'who'"),
        (HEADER + BASE.replace("128", '"128"'), 2, "'size' of a BaseState is int, not str"),
        (HEADER + BASE + "{]\n" + CLOSED, 3, "no JSON"),
        (HEADER + BASE + "\n" + CLOSED, 3, "no JSON"),
        (HEADER + BASE + "[" * 100_000 + "\n", 3, "no JSON"),
        (HEADER + BASE + "7" * 100_000 + "\n", 3, "no JSON"),
        (HEADER + BASE + "7\n", 3, "no JSON object"),
        (HEADER + BASE + CLOSED + '{"kind":"Exploded"}\n', 4, "unknown kind 'Exploded'"),
        (HEADER + BASE + '{"kind":["Closed"]}\n', 3, "unknown kind"),
        (HEADER + BASE + '{"seq":1}\n', 3, "unknown kind None"),
        (HEADER + BASE + CLOSED.replace(',"fd":7', ""), 3, "Closed lacks .*'fd'"),
        (HEADER + BASE + CLOSED.replace("fd", "fds"), 3, "Closed has no 'fds'"),
        (HEADER + BASE + CLOSED.replace("7", "true"), 3, "'fd' of a Closed is int, not bool"),
        (HEADER + BASE + CLOSED.replace("7", "7.0"), 3, "'fd' of a Closed is int, not float"),
        (HEADER + BASE + CLOSED.replace("7", "NaN"), 3, "no JSON: NaN is no number"),
        (HEADER + BASE + CLOSED.replace("7", str(2**63)), 3, "more than 64 bits"),
        (HEADER + BASE + CLOSED.replace("7", str(-(2**63) - 1)), 3, "more than 64 bits"),
        (HEADER + BASE.replace("128", str(2**63)), 2, "'size' has more than 64 bits"),
        (HEADER + BASE + CLOSED + CLOSED, 4, "seq 1 already"),
        (HEADER + BASE + CLOSED.replace("1,", "5,") + CLOSED + CLOSED, 5, "seq 1 already"),
        (HEADER + BASE + CLOSED.replace(":1,", ":-1,"), 3, "'seq' counts from 0"),
        (HEADER + BASE + CLOSED.replace("7", '7,"cause":1'), 3, "cause of a step comes before"),
        (HEADER + BASE + CLOSED.replace("7", '7,"cause":-1'), 3, "cause of a step comes before"),
        (HEADER + BASE + CLOSED[:-1] + CLOSED, 3, "no JSON: more follows"),
        (HEADER + BASE + FUNCTION + FUNCTION.replace("f.py", "g.py"), 4, "function 0 is another"),
        (HEADER + BASE + CLOSED.replace("main", "\udcff"), 3, "no UTF-8"),
        (HEADER + BASE + CLOSED.replace("main", "a\x00b"), 3, "no JSON"),
        (HEADER + BASE + CLOSED.replace("main", "x" * LONGEST_LINE), 3, "too long"),
        (HEADER + BASE + "x" * (LONGEST_LINE + 1), 3, "too long"),
        (HEADER + BASE + CLOSED.replace('"main"', "null"), 3, "is str, not NoneType"),
        (HEADER + BASE + CLOSED.replace("7", '7,"error":7'), 3, "is str or NoneType, not int"),
        (HEADER + BASE + '{"kind":"function","id":[]}\n', 3, "'id' of a Function is int"),
    ],
)
def test_corrupt_file_names_line_and_reason(lines: str, number: int, reason: str) -> None:
    """Whatever is wrong with a file, the error says in which line and what."""
    with pytest.raises(TraceFormatError, match=reason) as caught:
        parse(iter(lines.splitlines(keepends=True)))
    assert caught.value.line == number
    assert str(caught.value).startswith(f"line {number}: ")
    assert caught.value.reason in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    "events", ["7", '"ab"', "[7]", "[[7]]", "[[7,1,0]]", "[[7,true]]", "[[7.5,1]]", '["ab"]', "{}"]
)
def test_events_are_pairs_of_ints(events: str) -> None:
    """Nothing else passes for the batch of a wait."""
    line = CLOSED.replace("Closed", "WaitEnded").replace('"fd":7', f'"events":{events}')
    with pytest.raises(TraceFormatError, match="events"):
        parse(iter([HEADER, BASE, line]))
    line_of = line.replace(events, f"[[7,{2**63}]]")
    with pytest.raises(TraceFormatError, match="64 bits"):
        parse([HEADER, BASE, line_of])
    waited = WaitEnded(seq=1, t_ns=2, thread="main", events=((7, 1),))
    assert parse(iter([HEADER, BASE, line.replace(events, "[[7,1]]")]))[0] == waited


def test_torn_last_line_is_reported(tmp_path: Path) -> None:
    """Wherever a crash cuts a file, the whole lines are read and `truncated` is told."""
    path = echo_trace().save(tmp_path / "trace.jsonl")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    last = len(whole) - len(lines[-1])
    for cut in range(last - len(lines[-2]), len(whole)):
        path.write_bytes(whole[:cut])
        trace = load(path)
        at_a_line_end = cut in (last - len(lines[-2]), last - 1, last, len(whole) - 1)
        assert trace.truncated == (not at_a_line_end)
        assert len(trace) == len(echo_trace()) - (2 if cut < last - 1 else cut < len(whole) - 1)


def test_torn_line_in_the_middle_is_an_error() -> None:
    """Only the last line may be torn; in the middle something else went wrong."""
    with pytest.raises(TraceFormatError, match="line 3"):
        parse(iter([HEADER, BASE, CLOSED[:-9] + "\n", CLOSED]))


def test_steps_may_stand_in_any_order() -> None:
    """Threads write as they come; what is read is ordered by `seq`."""
    steps = [CLOSED.replace(":1,", f":{seq},") for seq in (3, 1, 2, 9, 4)]
    trace = parse([HEADER, BASE, *steps])
    assert [step.seq for step in trace] == [1, 2, 3, 4, 9]
    assert [step.seq for step in parse(trace.to_lines())] == [1, 2, 3, 4, 9]


def test_a_function_may_be_told_twice_and_late() -> None:
    """The same function again is no harm, nor one that no line tells."""
    late = [HEADER, BASE, CLOSED.replace("7", '7,"function":5,"line":3'), FUNCTION, FUNCTION]
    trace = parse(late)
    assert set(trace.functions) == {0}
    assert trace.to_rows()[0]["function"] is None
    assert parts(parse(trace.to_lines())) == parts(trace)


def test_spaces_and_letters_of_other_writers() -> None:
    """Another program may put spaces, Windows line ends and letters beyond ASCII into a file."""
    line = json.dumps(json.loads(CLOSED) | {"thread": "Fädchen 😀"}, ensure_ascii=False)
    trace = parse([HEADER, BASE, f" {line} \r\n", line.replace(" 1,", " 2,") + "\n"])
    assert [step.thread for step in trace] == ["Fädchen 😀"] * 2
    assert parts(parse(trace.to_lines())) == parts(trace)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_blocks_of_any_size(size: int) -> None:
    """Where a block of the file ends makes no difference."""
    text = "".join(random_trace(1, rounds=4).to_lines()).encode()
    loaded = read(text[at : at + size] for at in range(0, len(text), size))
    assert list(loaded.steps) == list(random_trace(1, rounds=4))


def test_line_that_never_ends_is_refused(tmp_path: Path) -> None:
    """A file without line ends, or one that has no end, is given up after a bounded read."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no space on the disk
    tracemalloc.start()
    try:
        with pytest.raises(TraceFormatError, match="line 1: this line is too long"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST_LINE
    finally:
        tracemalloc.stop()


# ---- files of a newer tracer --------------------------------------------------------------------

NEWER = (
    HEADER.replace("}", ',"minor":99,"by":"x"}'),
    BASE.replace('"size"', '"cpu":3,"size"'),
    FUNCTION.replace('"id"', '"column":4,"id"'),
    CLOSED.replace("7", '7,"reason":{"deep":[1,2.5,null]},"events":[["a"]]'),
    '{"kind":"Sneezed","seq":2,"t_ns":9,"thread":"main","cause":1,"fd":7,"name":"n","values":[[]]}\n',
)


def test_newer_minor_version_survives(tmp_path: Path) -> None:
    """Kinds and fields that only a newer tracer knows are kept, word for word, and left alone."""
    trace = parse(NEWER)
    closed, sneezed = trace
    assert closed == Closed(seq=1, t_ns=2, thread="main", fd=7)
    assert isinstance(sneezed, UnknownStep)
    assert (sneezed.kind, sneezed.seq, sneezed.cause) == ("Sneezed", 2, 1)
    assert sneezed.values == {"fd": 7, "name": "n", "values": [[]]}
    assert hash(sneezed) == hash(list(trace)[1])
    lines = list(trace.to_lines())
    assert json.loads(lines[0])["minor"] == 99
    assert lines[1:] == list(NEWER[1:])
    assert lines[1:] == list(saved(trace, tmp_path).to_lines())[1:]
    assert list(trace.where(kind="Sneezed").to_lines())[1:] == [*NEWER[1:3], NEWER[4]]
    assert trace.to_rows()[1]["kind"] == "Sneezed"
    assert "Sneezed" in repr(trace)
    assert "Sneezed" in trace._repr_html_()


def test_steps_of_a_newer_tracer_in_another_trace() -> None:
    """A trace that is put together of steps read from a newer file can be saved and loaded."""
    trace = parse(NEWER)
    copy = Trace(trace.base, trace.functions, list(trace))
    assert list(parse(copy.to_lines())) == list(trace)


def test_redacted_leaves_out_what_it_does_not_know() -> None:
    """Of a newer tracer's kinds and fields nobody here knows what they tell."""
    shared = parse(NEWER).redacted()
    assert [step.kind for step in shared] == ["Closed"]
    text = "".join(shared.to_lines())
    assert not any(word in text for word in ("Sneezed", "reason", "cpu", "column"))
    assert shared.partial


def test_what_a_newer_tracer_must_keep() -> None:
    """Its steps have the common fields of the right types, and nothing deep that could hurt."""
    for change, reason in {
        ('"seq":2,', ""): "UnknownStep lacks 'seq'",
        ('"cause":1', '"cause":2'): "comes before",
        ('"t_ns":9', '"t_ns":"9"'): "is int, not str",
        ("[[]]", "[" * 500 + "]" * 500): "too deep",
        ('"Sneezed"', '["Sneezed"]'): "unknown kind",
    }.items():
        with pytest.raises(TraceFormatError, match=f"line 5: .*{reason}"):
            parse([*NEWER[:4], NEWER[4].replace(*change)])
    for lines in (NEWER[:4], (NEWER[0], *NEWER[4:])):
        with pytest.raises(TraceFormatError, match=r"line [24]: "):
            parse([HEADER, *lines[1:]])


def test_old_files_load() -> None:
    """A file without a minor version is one of before there was any; saved, it gets this one."""
    trace = parse([HEADER, BASE, CLOSED])
    assert json.loads(next(trace.to_lines()))["minor"] == MINOR
    assert list(parse(trace.to_lines())) == list(trace)


# ---- the file as a file -------------------------------------------------------------------------


def test_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    """What can't be opened raises what `open` raises."""
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.jsonl")
    with pytest.raises(OSError, match=r"directory|denied"):
        load(tmp_path)


def test_loading_executes_nothing(tmp_path: Path) -> None:
    """Loading a trace full of source code compiles, imports and runs none of it."""
    path = hostile_trace().save(tmp_path / "trace.jsonl")
    load(path)
    seen: list[str] = []
    watching = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if watching and event.partition(".")[0] in ("compile", "exec", "import", "os"):
            seen.append(event)

    sys.addaudithook(hook)
    load(path)
    watching = False
    assert seen == []
