"""A trace: a sequence of steps that survives being written to a file and read back."""

import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.traces import HOSTILE, echo_trace, hostile_trace, random_trace
from tracer.steps import Closed, Function, Step, WaitEnded
from tracer.trace import BaseState, Trace, TraceFormatError, load, parse

HEADER = '{"format":"netpoll-trace","version":1}\n'
BASE = (
    '{"kind":"base","backend":"epoll","fd":3,"wakeup_fd":4,"size":128,"running":true,'
    '"registrations":[],"tasks":[]}\n'
)
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
    """What stood in the file before is gone."""
    path = tmp_path / "trace.jsonl"
    path.write_text("x" * 1_000_000)
    echo_trace().save(path)
    assert len(load(path)) == len(echo_trace())


def test_sequence() -> None:
    """A trace is indexed, sliced, measured and walked like a list of its steps."""
    trace = echo_trace()
    steps = list(trace)
    assert len(trace) == len(steps)
    assert trace[0] == steps[0]
    assert trace[-1] == steps[-1]
    assert list(trace[3:9:2]) == steps[3:9:2]
    assert steps[5] in trace
    assert trace.index(steps[5]) == 5
    with pytest.raises(IndexError):
        trace[len(trace)]


def test_repr_fits_a_line() -> None:
    """The repr says how much there is, and whether the file was torn."""
    trace = echo_trace()
    assert repr(trace) == f"<Trace of {len(trace)} steps on epoll>"
    torn = Trace(trace.base, {}, [], truncated=True)
    assert repr(torn) == "<Trace of 0 steps on epoll, truncated>"


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
        (HEADER, 1, "ends before the base state"),
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
        (HEADER + BASE + CLOSED.replace("7", "NaN"), 3, "'fd' of a Closed is int, not float"),
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


@pytest.mark.parametrize(
    "events", ["7", '"ab"', "[7]", "[[7]]", "[[7,1,0]]", "[[7,true]]", "[[7.5,1]]", '["ab"]', "{}"]
)
def test_events_are_pairs_of_ints(events: str) -> None:
    """Nothing else passes for the batch of a wait."""
    line = CLOSED.replace("Closed", "WaitEnded").replace('"fd":7', f'"events":{events}')
    with pytest.raises(TraceFormatError, match="events"):
        parse(iter([HEADER, BASE, line]))
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


def mutations(lines: list[str], seed: int) -> Iterable[str]:
    """Yield a trace file with one to three things wrong: bytes, lines, keys or values."""
    pick = random.Random(seed)
    values: list[Any] = [
        None,
        True,
        -1,
        2**70,
        1.5,
        float("nan"),
        "",
        "\ud800",
        [],
        [[]],
        {},
        [[1, 2, 3]],
    ]
    for _ in range(60):
        mutated = list(lines)
        for _ in range(pick.randint(1, 3)):
            at = pick.randrange(len(mutated))
            line = mutated[at]
            what = pick.randrange(6)
            if what == 0 and line:
                cut = pick.randrange(len(line))
                mutated[at] = line[:cut] + chr(pick.randrange(0x250)) + line[cut + 1 :]
            elif what == 1:
                mutated[at] = line[: pick.randrange(len(line) + 1)]
            elif what == 2:
                mutated.insert(at, mutated[pick.randrange(len(mutated))])
            elif what == 3 and len(mutated) > 1:
                del mutated[at]
            else:
                try:
                    fields = json.loads(line)
                    key = pick.choice(sorted(fields))
                except (ValueError, TypeError, IndexError):
                    continue
                if what == 4:
                    fields[key] = pick.choice(values)
                else:
                    fields[pick.choice([key + "s", "cause", "events"])] = fields.pop(key)
                mutated[at] = json.dumps(fields) + "\n"
        yield "".join(mutated)


@pytest.mark.parametrize("seed", range(10))
def test_mutated_file_loads_or_says_why(seed: int, tmp_path: Path) -> None:
    """Of 600 damaged files each loads or raises TraceFormatError, and what loads is well-typed."""
    lines = list((echo_trace() if seed % 2 else random_trace(seed, rounds=5)).to_lines())
    path = tmp_path / "trace.jsonl"
    outcomes = set()
    for text in mutations(lines, seed):
        path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        try:
            trace = load(path)
        except TraceFormatError:
            outcomes.add("error")
        else:
            outcomes.add("loaded")
            assert all(isinstance(step, Step) for step in trace)
            assert parts(parse(trace.to_lines())) == (*parts(trace)[:3], False)
    assert outcomes == {"error", "loaded"}
