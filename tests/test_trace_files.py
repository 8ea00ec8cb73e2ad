"""Damaged trace files: each loads, or says in which line it is wrong; nothing else happens."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.traces import echo_trace, hostile_trace, random_trace
from tracer.steps import STEP_KINDS, Step
from tracer.trace import Trace, TraceFormatError, UnknownStep, load, parse

VALUES: list[Any] = [
    *[None, True, False, -1, 0, 1.5, 2**31, 2**63 - 1, 2**63, -(2**70), 10**4000, float("inf")],
    *[float("nan"), "", "\ud800", "<b>&\u202e\x00", "x" * 100_000, [], [[]], {}, [[1, 2]]],
    *[[[1, 2, 3]], [[1.5, True]], {"kind": "Read"}, [None] * 1000],
]

Damage = Callable[[random.Random, list[bytes], int], None]


def flip(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Change some bytes of a line to any others: NUL, quotes, half of a UTF-8 letter."""
    line = bytearray(lines[at])
    for _ in range(min(len(line), pick.randint(1, 4))):
        line[pick.randrange(len(line))] = pick.choice([pick.randrange(256), 0, 34, 44, 0xC3, 0xFF])
    lines[at] = bytes(line)


def cut(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Cut a line off somewhere, with or without its end."""
    lines[at] = lines[at][: pick.randrange(len(lines[at]) + 1)] + pick.choice([b"", b"\n"])


def repeat(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Put a line somewhere once more."""
    lines.insert(pick.randrange(len(lines) + 1), lines[at])


def swap(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Let two lines change places."""
    other = pick.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def remove(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Take a line out."""
    del lines[at]


def join(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Lose a line end, or find one too many."""
    if pick.random() < 0.5:
        lines[at] = lines[at].rstrip(b"\n")
    else:
        place = pick.randrange(len(lines[at]) + 1)
        lines[at] = lines[at][:place] + b"\n" + lines[at][place:]


def end(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Tear the file off, as a crash does; the disk may have put NULs there."""
    del lines[at + 1 :]
    cut(pick, lines, at)
    lines[at] = lines[at].rstrip(b"\n") + b"\0" * pick.choice([0, 0, 512])


def change(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Give a field another value, or another name."""
    try:
        values = json.loads(lines[at])
        name = pick.choice(sorted(values))
    except (ValueError, TypeError, IndexError, RecursionError):
        return
    value = values.pop(name)
    if pick.random() < 0.8:
        values[name] = pick.choice([*VALUES, *values.values()])
    else:
        values[pick.choice([name + "s", "cause", "events", "kind", ""])] = value
    lines[at] = json.dumps(values).encode("utf-8", "surrogatepass") + b"\n"


def nest(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Put a value a thousand lists or objects deep, closed or not."""
    opening, closing = pick.choice([(b"[", b"]"), (b'{"a":', b"}")])
    depth = pick.choice([5, 100, 900, 20_000])
    deep = opening * depth + b"7" + closing * pick.choice([depth, depth, 0])
    place = lines[at].rfind(b":") + 1
    lines[at] = lines[at][:place] + deep + b"}\n"


def renew(pick: random.Random, lines: list[bytes], at: int) -> None:
    """Say that another version of the tracer wrote the file, and let a line be of its kinds."""
    version, minor = pick.choice([(1, 99), (1, 99), (1, 99), (2, 0), (1, -1), (0, 0)])
    header = {"format": "netpoll-trace", "version": version, "minor": minor}
    lines[0] = json.dumps(header).encode() + b"\n"
    lines[at] = lines[at].replace(b'"kind":"', b'"kind":"' + pick.choice([b"", b"New"]))


DAMAGES: list[Damage] = [flip, cut, repeat, swap, remove, join, end, change, change, nest, renew]


def damaged(whole: list[bytes], seed: int) -> bytes:
    """Return the text of a trace file with one to three things wrong."""
    pick = random.Random(seed)
    lines = list(whole)
    for _ in range(pick.choice([1, 1, 2, 3])):
        if lines:
            pick.choice(DAMAGES)(pick, lines, pick.randrange(len(lines)))
    return b"".join(lines)


def use(trace: Trace) -> None:
    """Do with a trace what people do, which must not fail once it has loaded."""
    steps = list(trace)
    assert all(isinstance(step, (*STEP_KINDS.values(), UnknownStep)) for step in steps)
    seqs = [step.seq for step in steps]
    assert seqs == sorted(set(seqs))
    assert all(step.cause is None or 0 <= step.cause < step.seq for step in steps)
    again = parse(trace.to_lines())
    assert list(again) == steps
    assert (again.base, again.functions) == (trace.base, trace.functions)
    assert list(Trace(trace.base, trace.functions, steps).to_lines())
    assert len(trace.to_rows()) == len(steps)
    assert len(repr(trace).splitlines()) <= 18
    trace._repr_html_()
    assert list(parse(trace.redacted().to_lines())) == list(trace.redacted())
    assert len(trace.where(fd=7, between=(0, 1), callback="echo")) <= len(steps)
    assert all(isinstance(step, Step) for step in trace.search("echo"))


def loaded(path: Path, lines: int, seed: int) -> Trace | None:
    """Return the trace in a file, or None when it is refused.

    The line that is named is one of the file's, or, where that ends too early, the next.
    """
    try:
        return load(path)
    except TraceFormatError as error:
        if not 1 <= error.line <= lines + 1 or len(str(error)) > 500:
            raise AssertionError(f"the damaged file of seed {seed} is refused badly") from error
        return None
    except BaseException as error:
        raise AssertionError(f"the damaged file of seed {seed} has another error") from error


def check(seeds: range, path: Path) -> dict[str, int]:
    """Load a damaged file for each seed; return how many loaded, and how many said why not."""
    sources = [
        [line.encode() for line in trace.to_lines()]
        for trace in (echo_trace(), random_trace(1, rounds=4), random_trace(2, rounds=6))
    ]
    sources.append([line.encode() for line in hostile_trace().to_lines()])
    outcomes = {"loaded": 0, "truncated": 0, "refused": 0}
    for seed in seeds:
        text = damaged(sources[seed % len(sources)], seed)
        path.write_bytes(text)
        trace = loaded(path, 1 + text.count(b"\n"), seed)
        if trace is None:
            outcomes["refused"] += 1
            continue
        outcomes["truncated" if trace.truncated else "loaded"] += 1
        try:
            use(trace)
        except BaseException as error:
            raise AssertionError(f"the damaged file of seed {seed} can't be used") from error
    return outcomes


def test_300_damaged_files(tmp_path: Path) -> None:
    """Whatever is wrong with it, a file loads and can be used, or is refused with its line."""
    outcomes = check(range(300), tmp_path / "trace.jsonl")
    assert min(outcomes.values()) > 10, outcomes


@pytest.mark.slow
def test_10_000_damaged_files(tmp_path: Path) -> None:
    """The same, for 10,000 files."""
    outcomes = check(range(300, 10_300), tmp_path / "trace.jsonl")
    assert min(outcomes.values()) > 300, outcomes


def test_random_bytes_are_no_trace(tmp_path: Path) -> None:
    """What never was a trace is refused in its first line."""
    path = tmp_path / "noise"
    path.write_bytes(os.urandom(100_000))
    with pytest.raises(TraceFormatError, match="line 1: "):
        load(path)
