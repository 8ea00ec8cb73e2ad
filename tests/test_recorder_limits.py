"""A recording keeps the newest steps, and its own faults to itself."""

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
