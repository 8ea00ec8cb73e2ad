"""A recording keeps the newest steps, and its own faults to itself."""

import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest

import netpoll
import tracer
from netpoll import EventPriority, PollAttachment
from netpoll.simulated import Kernel
from tracer.rows import Rows
from tracer.trace import Trace


def nothing(*args: object) -> None:
    """Be a callback or a task."""


def eventful(limit: int) -> tuple[tracer.Recording, Trace]:
    """Record a program that leaves a bit of everything; it is the same every time."""
    kernel = Kernel()
    with netpoll.open_poller("epoll", kernel=kernel) as poller:
        recording = tracer.record(poller, limit=limit)
        pairs = [kernel.socketpair() for _ in range(5)]
        for here, there in pairs:
            poller.add_read(PollAttachment(here, nothing), edge_triggered=True)
            there.send(b"x")
        poller.call_later(1000, nothing)
        poller.call_later(2000, nothing).cancel()
        for number in range(60):
            here, there = pairs[number % 5]
            there.send(b"y")
            poller.call_later(0.5, nothing)
            poller.trigger(EventPriority(number % 2), nothing)
            poller.delete(here)
            poller.add_write(PollAttachment(here, nothing), edge_triggered=number % 3 == 0)
            poller.poll_once(0.01)
            kernel.sleep(0.1)
        poller.trigger(EventPriority.HIGH, nothing)
        recording.stop()
        return recording, recording.trace


def test_newest_steps_are_kept() -> None:
    """Beyond the limit the oldest go and are counted; what is kept is what was recorded."""
    _, whole = eventful(limit=100_000)
    recording, kept = eventful(limit=200)
    assert 150 < len(kept) <= 250
    assert recording.dropped == kept.base.dropped == len(whole) - len(kept)
    assert list(kept) == list(whole)[-len(kept) :]
    assert f"{recording.dropped} older ones dropped" in repr(recording)


def test_state_is_the_same_without_the_oldest_steps() -> None:
    """What the dropped steps left stands in the base state: the list, the queues, the timers."""
    states = []
    for limit in (100_000, 150):
        _, trace = eventful(limit)
        state = tracer.Replay(trace).state(len(trace) - 1)
        assert {timer.due_ns > 10**11 for timer in state.timers} == {True, False}
        states.append(
            (
                {
                    (row.fd, row.who, row.interest, row.edge_triggered, row.callback is not None)
                    for row in state.registrations.values()
                },
                [task.seq for task in (*state.urgent, *state.low)],
                [(timer.seq, timer.due_ns) for timer in state.timers],
                state.size,
            )
        )
    assert states[0] == states[1]
    assert states[0][1]


def test_saved_and_loaded_with_what_was_dropped(tmp_path: Any) -> None:
    """The file tells how many steps went before, and whose tasks and timers are meant."""
    _, trace = eventful(limit=150)
    loaded = tracer.load(trace.save(tmp_path / "trace.jsonl"))
    assert loaded.base == trace.base
    assert loaded.base.dropped
    assert list(loaded) == list(trace)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_that_keeps_nothing(limit: int) -> None:
    """It is refused before anything is changed."""
    with netpoll.open_poller() as poller:
        backend = poller.backend
        with pytest.raises(ValueError, match="at least 1 step"):
            tracer.record(poller, limit=limit)
        assert poller.backend is backend


class Torn(bytearray):
    """The memory of a recording that is full after some bytes."""

    left = 0

    def extend(self, row: Any) -> None:
        """Take a row, or fail."""
        if self.left <= 0:
            raise MemoryError("no more")
        self.left -= 1
        super().extend(row)


def work(poller: netpoll.Poller, kernel: Kernel) -> list[str]:
    """Do a bit of everything, and return what happened."""
    done: list[str] = []
    here, there = kernel.socketpair()

    def echo(fd: int, event: int, flags: int) -> None:
        done.append(here.recv(10).decode())
        poller.trigger(EventPriority.HIGH, done.append, "task")
        poller.call_later(1, done.append, "timer")
        poller.call_later(2, done.append, "never").cancel()
        poller.mod_read(PollAttachment(here, echo))

    poller.add_read(PollAttachment(here, echo))
    there.send(b"bytes")
    for _ in range(4):
        poller.poll_once()
        poller.trigger(EventPriority.LOW, done.append, "low")
    kernel.sleep(2)
    poller.delete(here)
    poller.poll_once(0)
    return done


@pytest.mark.parametrize("rows_before", range(30))
def test_fault_of_the_recording_does_not_reach_the_program(
    rows_before: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever it comes, the program does what it does; log and recording tell of it once."""
    kernel = Kernel()
    with netpoll.open_poller("epoll", kernel=kernel) as poller:
        expected = work(poller, kernel)
    make = Rows.__init__

    def torn(self: Rows, *args: Any) -> None:
        make(self, *args)
        self.packed = Torn()
        self.packed.left = rows_before

    monkeypatch.setattr(Rows, "__init__", torn)
    kernel = Kernel()
    with netpoll.open_poller("epoll", kernel=kernel) as poller:
        backend = poller.backend
        recording = tracer.record(poller)
        assert work(poller, kernel) == expected
        assert "timer" in expected
        poller.poll_once(0)
        assert (recording.fault, recording.running) == ("MemoryError: no more", False)
        assert poller.backend is backend
        assert repr(recording).endswith("failed>")
    assert len(recording.trace) == rows_before
    assert [record.name for record in caplog.records] == ["tracer"]


def test_nothing_is_dropped_while_somebody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a slice gives the steps that were asked for, although the recording wants room."""
    recording, trace = eventful(limit=200)
    whole = list(trace)
    plain = Rows._step

    def step(self: Rows, offset: int) -> Any:
        recording.make_room()
        return plain(self, offset)

    monkeypatch.setattr(Rows, "_step", step)
    assert list(trace) == whole
    assert trace[-1] == whole[-1]


def test_failed_wait_in_a_ring() -> None:
    """A wait that raised leaves the events of the waits around it as they were."""
    kernel = Kernel()
    with netpoll.open_poller("epoll", kernel=kernel) as poller:
        here, there = kernel.socketpair()
        there.send(b"x")
        poller.add_read(PollAttachment(here, nothing))
        recording = tracer.record(poller, limit=8)
        wait = poller.backend._original.wait  # type: ignore[attr-defined]
        for number in range(60):
            if number == 20:
                kernel.at(kernel.monotonic(), raise_alarm)
                poller.delete(here)
                with pytest.raises(InterruptedError):
                    poller.poll_once(1)
                poller.add_read(PollAttachment(here, nothing))
            poller.poll_once(0)
            ended = recording.trace.where(kind="WaitEnded")[-1]
            assert getattr(ended, "events", None) == ((here.fileno(), 1),)
        assert wait is not None
        recording.stop()


def raise_alarm() -> None:
    """Be a signal handler that raises."""
    raise InterruptedError


def test_one_shots_and_closed_ones_stay_so_in_a_ring() -> None:
    """A one-shot whose dispatch was dropped is disarmed in the base; what was closed is closed."""
    with netpoll.open_poller("epoll") as poller:
        once, ready, other = os.eventfd(1), os.eventfd(1), socket.socket()
        number = other.fileno()
        poller.add_read(PollAttachment(once, nothing), oneshot=True)
        poller.add_read(PollAttachment(other, nothing))
        recording = tracer.record(poller, limit=60)
        poller.poll_once(0)
        poller.trigger(EventPriority.HIGH, lambda _: other.close())
        poller.poll_once(0)
        poller.add_read(PollAttachment(ready, nothing))
        for _ in range(100):
            poller.poll_once(0)
        rows = {row.fd: row for row in recording.trace.base.registrations}
        assert recording.dropped
        assert (rows[once].armed, rows[number].closed) == (False, True)
        recording.stop()
        os.close(once)
        os.close(ready)


def test_record_that_fails_leaves_the_older_one_running() -> None:
    """A file that can't be made is told before the recording that runs is ended."""
    with netpoll.open_poller("epoll", kernel=Kernel()) as poller:
        first = tracer.record(poller)
        with pytest.raises(OSError, match="nowhere"):
            tracer.record(poller, path="/nowhere/trace.jsonl")
        assert first.running


def test_timer_without_end() -> None:
    """A timer may be set for ever; the base state keeps what a file has room for."""
    with netpoll.open_poller("epoll", kernel=Kernel()) as poller:
        poller.call_later(math.inf, nothing)
        with tracer.record(poller) as trace:
            assert trace.base.timers[0].due_ns < 2**63


def test_stop_survives_a_file_that_somebody_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The originals are put back, and the log says what happened to the file."""
    with netpoll.open_poller("epoll", kernel=Kernel()) as poller:
        recording = tracer.record(poller, path=tmp_path / "trace.jsonl")
        os.close(recording.rows.packed._fd)  # type: ignore[attr-defined]
        recording.stop()
        assert not recording.running
        assert "trace.jsonl ends here" in caplog.text


class Odd:
    """A callback that can't be asked anything."""

    called = 0

    def __call__(self, fd: int, event: int, flags: int) -> None:
        Odd.called += 1

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("don't compare")

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("don't ask")


def test_odd_callback_is_called() -> None:
    """A callback that raises when it is compared or looked at is called all the same."""
    kernel = Kernel()
    with netpoll.open_poller("epoll", kernel=kernel) as poller:
        here, there = kernel.socketpair()
        there.send(b"x")
        poller.add_read(PollAttachment(here, Odd()))
        before = Odd.called
        with tracer.record(poller) as trace:
            poller.poll_once(0)
        assert Odd.called == before + 1
        assert trace.where(kind="DispatchStarted")
