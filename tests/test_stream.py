"""A recording that goes to a file, step by step."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import netpoll
import tracer
from netpoll import PollAttachment

PROGRAM = """
import os, signal, socket, sys
import netpoll, tracer

here, there = socket.socketpair()
poller = netpoll.open_poller()
recording = tracer.record(poller, path=sys.argv[1])
rounds = 0

def echo(fd, event, flags):
    global rounds
    rounds += 1
    here.recv(100)
    there.send(b"again")
    if rounds == 50:
        os.kill(os.getpid(), signal.SIGKILL)

poller.add_read(netpoll.PollAttachment(here, echo))
there.send(b"begin")
poller.polling()
"""


def nothing(*args: object) -> None:
    """Be a callback or a task."""


def test_file_is_the_recording(tmp_path: Path) -> None:
    """What is in the file is what is in memory: base, functions and steps."""
    path = tmp_path / "live.jsonl"
    fd = os.eventfd(1)
    with netpoll.open_poller() as poller:
        poller.add_read(PollAttachment(fd, nothing))
        poller.call_later(60, nothing)
        with tracer.record(poller, path=path) as trace:
            for number in range(5):
                poller.trigger(netpoll.EventPriority(number % 2), nothing)
                poller.poll_once(0)
    os.close(fd)
    loaded = tracer.load(path)
    assert loaded.base == trace.base
    assert dict(loaded.functions) == dict(trace.functions)
    assert list(loaded) == list(trace)
    assert len(loaded) > 20
    assert not loaded.truncated


def test_crash_costs_at_most_the_last_line(tmp_path: Path) -> None:
    """A program that is killed leaves everything that happened before in the file."""
    path = tmp_path / "killed.jsonl"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, timeout=60, cwd=Path(__file__).parent.parent)
    assert done.returncode == -signal.SIGKILL
    trace = tracer.load(path)
    assert [step.kind for step in trace[-3:]] == ["DispatchStarted", "Read", "Wrote"]
    assert len(trace.where(kind="DispatchStarted")) == 50
    assert tracer.Replay(trace).state(len(trace) - 1).running is not None


def test_all_steps_go_to_the_file(tmp_path: Path) -> None:
    """The limit bounds the memory; the file has what was dropped from that."""
    path = tmp_path / "long.jsonl"
    with netpoll.open_poller() as poller, tracer.record(poller, path=path, limit=30) as trace:
        for _ in range(100):
            poller.poll_once(0)
    loaded = tracer.load(path)
    assert trace.base.dropped
    assert len(loaded) == len(trace) + trace.base.dropped
    assert list(loaded)[-len(trace) :] == list(trace)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk here")
def test_full_disk_ends_the_file_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The recording goes on in memory; the log and `fault` say so, once."""
    with netpoll.open_poller() as poller:
        recording = tracer.record(poller, path="/dev/full")
        for _ in range(3):
            poller.poll_once(0)
        assert recording.running
        recording.stop()
    assert len(recording.trace) == 6
    assert recording.fault is not None
    assert recording.fault.startswith("OSError: [Errno 28]")
    assert len(caplog.records) == 1


def test_file_that_can_not_be_made(tmp_path: Path) -> None:
    """The error comes at once, and the poller is as it was."""
    with netpoll.open_poller() as poller:
        backend = poller.backend
        with pytest.raises(FileNotFoundError):
            tracer.record(poller, path=tmp_path / "no" / "such" / "folder")
        assert poller.backend is backend
        poller.poll_once(0)
