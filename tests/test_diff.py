"""`diff`: where two runs of one program part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import tracer
from netpoll import EventPriority, PollAttachment, open_poller
from netpoll.simulated import Kernel
from tests.traces import (
    HOSTILE,
    READ,
    WAKEUP,
    Script,
    echo_trace,
    hostile_trace,
    random_trace,
)
from tracer.diff import FOLLOWING, LISTED, diff
from tracer.steps import Step
from tracer.trace import BaseRegistration, BaseState, Trace

Change = Callable[[Step], Step]


def changed(trace: Trace, change: Change) -> Trace:
    return Trace(trace.base, trace.functions, [change(step) for step in trace])


def with_step(trace: Trace, index: int, **values: Any) -> Trace:
    steps = list(trace)
    steps[index] = replace(steps[index], **values)
    return Trace(trace.base, trace.functions, steps)


def index_of(trace: Trace, kind: str) -> int:
    return next(index for index, step in enumerate(trace) if step.kind == kind)


def served(backend: str, *, edge_triggered: bool = False, size: int = 4, late: bool = False) -> Any:
    """Return the recording of an echo server on a simulated kernel with a client and a task."""
    kernel = Kernel()
    listener = kernel.listen(("127.0.0.1", 80))
    connections: dict[int, Any] = {}
    with open_poller(backend, kernel=kernel) as poller:

        def on_connection(fd: int, event: int, flags: int) -> None:
            connection, _ = listener.accept()
            connection.setblocking(False)
            connections[connection.fileno()] = connection
            attachment = PollAttachment(connection.fileno(), echo)
            poller.add_read(attachment, edge_triggered=edge_triggered)

        def echo(fd: int, event: int, flags: int) -> None:
            connections[fd].recv(size)

        def note(param: object) -> None:
            pass

        listener.setblocking(False)
        poller.add_read(PollAttachment(listener.fileno(), on_connection))
        recording = tracer.record(poller)
        client = kernel.connect(("127.0.0.1", 80))
        kernel.at(1.0, lambda: client.send(b"hello, world"))
        poller.call_later(2.0 if not late else 3.0, note)
        poller.trigger(EventPriority.HIGH, note)
        for _ in range(8):
            poller.poll_once(4.0)
        recording.stop()
        for connection in connections.values():
            connection.close()
        client.close()
        listener.close()
    return recording.trace


@pytest.mark.parametrize("backend", ["epoll", "kqueue"])
def test_two_runs_of_one_program_are_equal(backend: str) -> None:
    """On the simulated kernel a program does the same twice, and the difference is false."""
    a, b = served(backend), served(backend)
    found = diff(a, b)
    assert len(a) > 20
    assert not found
    assert repr(found) == f"The runs are equal: {len(a):,} steps each."
    assert (found.index_a, found.step_b) == (None, None)


def test_level_and_edge_part_at_the_registration() -> None:
    """The trigger mode is where a level- and an edge-triggered server part, and why is told."""
    a, b = served("epoll"), served("epoll", edge_triggered=True)
    found = diff(a, b)
    assert found
    assert found.index_a == found.index_b
    assert (found.step_a and found.step_a.kind) == "Registered"
    assert "edge-triggered is False in a, True in b" in found.text
    assert found.a is not None
    assert found.a.why is not None
    assert found.a.why[0].step == index_of(a, "DispatchStarted")
    again = [a[index] for index in found.a.only if a[index].kind == "DispatchStarted"]
    assert len(again) == 2  # level: reported until the 12 bytes were read, 4 at a time


def test_epoll_and_kqueue_do_the_same() -> None:
    """The same program on two kinds of kernel gives equal runs: one contract for all backends."""
    assert not diff(served("epoll"), served("kqueue"))


def test_batch_sizes_count_on_one_backend() -> None:
    """Another batch size is a difference on one backend, and none between two."""
    trace = echo_trace()
    index = index_of(trace, "WaitStarted")
    other = with_step(trace, index, size=64)
    assert diff(trace, other).index_a == index
    assert not diff(trace, Trace(replace(trace.base, backend="kqueue"), other.functions, other))


def test_a_timer_that_is_later_differs() -> None:
    """Another delay is a difference; a delay that the clock shortened a little is none."""
    found = diff(served("epoll"), served("epoll", late=True))
    assert "the delay in milliseconds is 2000 in a, 3000 in b" in found.text
    script = Script(BaseState("epoll", 4, WAKEUP, 128, True))
    script.step("TimerSet", callback=0, delay_ns=2_000_000_000)
    trace = script.trace()
    for delay, differs in ((1_999_950_000, False), (2_000_000_400, False), (2_002_000_000, True)):
        assert bool(diff(trace, with_step(trace, 0, delay_ns=delay))) is differs


def test_what_does_not_matter_is_not_compared() -> None:
    """Times, threads, gaps in seq, lines, paths, peers and numbers make no difference."""
    trace = echo_trace()

    def other(step: Step) -> Step:
        values: dict[str, Any] = {"seq": step.seq * 3, "t_ns": step.t_ns * 2, "thread": "other"}
        if step.cause is not None:
            values["cause"] = step.cause * 3
        for name in ("fd", "new_fd"):
            if getattr(step, name, None) not in (None, WAKEUP):
                values[name] = getattr(step, name) + 100
        if hasattr(step, "events"):
            events = step.events
            values["events"] = tuple((fd + 100 * (fd != WAKEUP), event) for fd, event in events)
        if hasattr(step, "line"):
            values["line"] = 1
        for name in ("who", "peer"):
            if hasattr(step, name):
                values[name] = "somebody"
        if getattr(step, "error", None) == "AlreadyRegistered: 6":
            values["error"] = "AlreadyRegistered: 106"
        return replace(step, **values)

    moved = changed(trace, other)
    functions = {
        number: replace(one, file="/elsewhere", text="") for number, one in trace.functions.items()
    }
    assert not diff(trace, Trace(moved.base, functions, list(moved)))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("Read", {"count": 4}, "the number of bytes is 5 in a, 4 in b"),
        ("Wrote", {"asked": 9}, "the number of bytes asked for is 5 in a, 9 in b"),
        ("DispatchStarted", {"event": READ | 16}, "event is READ in a, READ|HUP in b"),
        ("DispatchStarted", {"callback": 2}, "the function is on_connection in a, echo in b"),
        ("DispatchStarted", {"cause": 1}, "cause is step 4 in a, step 1 in b"),
        ("DispatchEnded", {"error": "ValueError: x"}, "error is none in a, ValueError: x in b"),
        ("TaskQueued", {"queue": "low"}, "queue is high in a, low in b"),
        ("WaitStarted", {"timeout_ns": 0}, "the loop may sleep is forever in a, not in b"),
        ("WaitEnded", {"events": ()}, "what the wait returned is #1 READ in a, nothing in b"),
        ("Closed", {"fd": 7}, "in the order in which they came, is #4 in a, #2 in b"),
        ("Accepted", {"new_fd": None, "error": "OSError: 24"}, "is #2 in a, none in b"),
    ],
)
def test_what_matters_is_compared(kind: str, values: dict[str, Any], words: str) -> None:
    """Each thing that a program or the loop does otherwise is found, and named with both values."""
    trace = echo_trace()
    index = index_of(trace, kind)
    found = diff(trace, with_step(trace, index, **values))
    assert (found.index_a, found.index_b) == (index, index)
    assert words in found.text


def test_a_run_that_is_over_is_told() -> None:
    """When one run goes on where the other is over, the sentence says which."""
    trace = echo_trace()
    found = diff(trace[:20], trace)
    assert (found.index_a, found.index_b) == (None, 20)
    assert found.text == "The runs are equal for 20 steps. Then a is over, while b goes on."
    assert "over after 20 steps" in repr(found)
    assert diff(trace, trace[:20]).index_a == 20


def test_another_kind_of_step_is_told() -> None:
    """Two steps of different kinds are called by their names."""
    trace = echo_trace()
    index = index_of(trace, "Wrote")
    steps = [step for place, step in enumerate(trace) if place != index]
    found = diff(trace, Trace(trace.base, trace.functions, steps))
    assert found.text.endswith("another one: wrote in a, dispatch ended in b.")
    assert found.a is not None
    assert found.b is not None
    assert (found.a.only, found.b.only) == ((index,), ())  # what follows is matched again


def test_a_number_used_again_is_another_descriptor() -> None:
    """A number that was closed and registered anew is not the descriptor it was before."""

    def run(second: int) -> Trace:
        script = Script(BaseState("epoll", 4, WAKEUP, 128, True))
        script.add("main", 1, 7, "a", "echo")
        script.call("goodbye", 1, "Deleted", fd=7)
        script.call("goodbye", 3, "Closed", fd=7)
        script.add("main", 1, second, "b", "echo")
        script.wait((second, READ))
        return script.trace()

    assert not diff(run(7), run(8))


def test_another_beginning_is_told() -> None:
    """Recordings that begin with other registrations differ, and no step is named."""
    row = BaseRegistration(7, "a", "read", False, False, False, None)
    plain, other = (
        Trace(BaseState("epoll", 4, WAKEUP, 128, True, (one,)), {}, [])
        for one in (row, replace(row, interest="write"))
    )
    found = diff(plain, other)
    assert found
    assert found.index_a is None
    assert "did not begin alike" in found.text
    assert "began otherwise" in repr(found)
    assert "began otherwise" in found._repr_html_()


def test_what_is_told_is_short_and_harmless() -> None:
    """However much differs, a few steps are listed; names cannot break out of the page."""
    a, b = random_trace(1), random_trace(2)
    b = Trace(a.base, b.functions, list(b))
    found = diff(a, b)
    assert found.a is not None
    assert len(found.a.told) <= LISTED + 1
    assert len(found.a.only) <= FOLLOWING + 1
    hostile = hostile_trace()
    other = with_step(hostile, len(hostile) - 1, error=HOSTILE + "!", fd=None)
    other = with_step(other, 2, callback=None)
    page = diff(hostile, other)._repr_html_()
    assert "&lt;script" in page
    assert "<script" not in page
    assert "\u202e" not in page


def test_part_of_a_trace_is_refused() -> None:
    """Two parts can't be compared: what came before them may differ."""
    trace = echo_trace()
    for pair in ((trace[3:], trace[3:]), (trace[3:], trace), (trace, trace.where(kind="Read"))):
        with pytest.raises(ValueError, match="diff needs the whole"):
            diff(*pair)
