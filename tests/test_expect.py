"""`expect` passes what is true of a trace, and fails with the step, the line and a sentence."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import netpoll
import tracer
from tests.lint_programs import closed_without_delete, leaked_descriptor, read_after_would_block
from tests.traces import LISTENER, WAKEUP, Script, echo_trace
from tracer.expect import Expectation, expect, matching
from tracer.lint import LINTS, lint
from tracer.trace import BaseRegistration, BaseState, Trace

HOUSE = Path(__file__).parent.parent
Check = Callable[[Expectation], object]


def recorded(program: Callable[[netpoll.Poller], Any]) -> Trace:
    """Return the recording of a small program."""
    with netpoll.open_poller() as poller:
        with tracer.record(poller) as trace:
            left_open = program(poller)
        for sock in left_open or ():
            sock.close()
    return trace


def failure(check: Check, trace: Trace | None = None) -> str:
    """Return what a check that fails says."""
    with pytest.raises(AssertionError) as caught:
        check(expect(echo_trace() if trace is None else trace))
    return str(caught.value)


def left_alone() -> Trace:
    """Return a trace in which two connections were accepted and one of them registered."""
    script = Script(BaseState("epoll", 4, WAKEUP, 128, running=True))
    ended = script.wait((LISTENER, 1))
    started = script.step(
        "DispatchStarted", ended, fd=LISTENER, event=1, flags=0, callback=script.ids["echo"]
    )
    for fd in (7, 8):
        script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=fd, peer="peer")
    script.add("on_connection", 8, 7, "peer", "echo")
    script.step("DispatchEnded", started, fd=LISTENER)
    return script.trace()


TRUE: list[Check] = [
    lambda e: e.registered(LISTENER),
    lambda e: e.registered(7).deleted(7).deleted(9),
    lambda e: e.no_findings(),
    lambda e: e.never("read after would-block", "Leaked descriptor", "task_flood"),
    lambda e: e.order("Registered", "Accepted", "Closed", "Closed", "WaitStarted"),
    lambda e: e.order(
        matching("Accepted", new_fd=9), matching("Read", fd=9), matching("Closed", fd=9)
    ),
    lambda e: e.order(),
    lambda e: e.at_least(3, "Accepted").at_most(3, "Accepted"),
    lambda e: e.at_least(0, "PollerClosed").at_most(0, "PollerClosed"),
    lambda e: e.at_least(1, "Read", fd=7, count=0),
    lambda e: e.at_least(2, "DispatchStarted", callback="on_connection").at_most(
        8, "DispatchStarted", callback="echo"
    ),
    lambda e: e.at_least(1, "WouldBlock", function="on_connection", call="accept"),
]


@pytest.mark.parametrize("check", TRUE)
def test_true(check: Check) -> None:
    """What is true passes, and returns the expectation, so that checks chain."""
    trace = echo_trace()
    expectation = expect(trace)
    assert check(expectation) is expectation


def test_registered_before_the_recording() -> None:
    """What was registered when the recording began is registered."""
    row = BaseRegistration(6, "listener", "read", False, False, False, None)
    expect(Trace(BaseState("epoll", 4, 5, 128, True, (row,)), {}, [])).registered(6)


def test_socket_for_a_descriptor() -> None:
    """A socket stands for its descriptor."""
    with netpoll.open_poller() as poller:
        recording = tracer.record(poller)
        reader, writer = socket.socketpair()
        with reader, writer:
            poller.add_read(netpoll.PollAttachment(reader, print))
            poller.delete(reader)
            expect(recording.trace).registered(reader).deleted(reader)
            with pytest.raises(AssertionError):
                expect(recording.trace).registered(writer)


def test_never_registered() -> None:
    """The text tells which descriptors were."""
    assert (
        failure(lambda e: e.registered(42))
        == "Descriptor 42 was never registered, only 6, 7, 8, 9."
    )
    assert failure(lambda e: e.deleted(8)) == "Descriptor 8 was never deleted, only 9, 7."
    empty = Trace(BaseState("epoll", 4, 5, 128, True), {}, [])
    assert (
        failure(lambda e: e.deleted(8), empty)
        == "Descriptor 8 was never deleted, nor was any other."
    )


def test_call_that_failed() -> None:
    """A call that failed is none, and is told with its step, its line and what it said."""
    script = Script(BaseState("epoll", 4, 5, 128, True))
    script.call("goodbye", 1, "Deleted", fd=7, error="NotRegistered: 7")
    text = failure(lambda e: e.deleted(7), script.trace())
    assert (
        "Descriptor 7 was never deleted; it was tried in step 1, server.py line 71 in goodbye"
        in text
    )
    assert "poller.delete(conn.fileno())" in text
    assert "NotRegistered: 7" in text
    script.add("main", 2, 8, "x", "echo", error="OSError")
    assert "it was tried in step 2" in failure(lambda e: e.registered(8), script.trace())


def test_every_accepted_descriptor() -> None:
    """Each that was not deleted, or not closed, is told with the step and line of its accept."""
    text = failure(lambda e: e.every_accepted_descriptor_is_deleted(), left_alone())
    assert text.startswith(
        "client A (descriptor 7) was accepted and registered, and never deleted: "
    )
    assert "step 4, server.py line 33 in on_connection" in text
    assert "conn, peer = listener.accept()" in text
    assert "client B" not in text  # it was not registered
    text = failure(lambda e: e.every_accepted_descriptor_is_closed(), left_alone())
    assert "client A (descriptor 7) was accepted, and never closed: step 4" in text
    assert "client B (descriptor 8) was accepted, and never closed: step 5" in text


def test_every_accepted_descriptor_of_real_programs() -> None:
    """A server that lets all its clients go passes; one that forgets to close does not."""
    trace = recorded(leaked_descriptor.mended)
    expect(trace).every_accepted_descriptor_is_deleted().every_accepted_descriptor_is_closed()
    trace = recorded(leaked_descriptor.bug)
    expect(trace).every_accepted_descriptor_is_deleted()
    assert failure(lambda e: e.every_accepted_descriptor_is_closed(), trace).count("step") == 3


def test_many_offenders() -> None:
    """Of many that offend a few are told."""
    script = Script(BaseState("epoll", 4, 5, 128, True))
    for fd in range(7, 20):
        script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=fd, peer="peer")
    text = failure(lambda e: e.every_accepted_descriptor_is_closed(), script.trace())
    assert text.count("never closed") == 5
    assert text.endswith("… and 8 more")
    few = Trace(script.base, script.functions, script.steps[:5])
    assert "more" not in failure(lambda e: e.every_accepted_descriptor_is_closed(), few)


def test_number_that_came_back() -> None:
    """A number that accept returned again was closed."""
    script = Script(BaseState("epoll", 4, 5, 128, True))
    for _ in range(2):
        script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=7, peer="peer")
    script.call("goodbye", 3, "Closed", fd=7)
    expect(script.trace()).every_accepted_descriptor_is_closed()


def test_never() -> None:
    """A mistake is told as lint tells it, with the step and the source line."""
    trace = recorded(read_after_would_block.bug)
    expect(trace).never("task flood")
    text = failure(lambda e: e.never("task flood", "read after would-block"), trace)
    assert text.startswith(
        "read-after-would-block, 2 times\n    step 7, read_after_would_block.py line"
    )
    assert "message.extend(ours.recv(64))" in text
    assert "Mend" in text
    trace = recorded(closed_without_delete.bug)
    assert failure(lambda e: e.no_findings(), trace).startswith("closed-without-delete")


@pytest.mark.parametrize("name", [name for name in LINTS if name != "blocking-callback"])
def test_names_of_lints(name: str) -> None:
    """A lint is called by its name, or in words."""
    expect(echo_trace()).never(name, name.replace("-", " "), name.upper().replace("-", "_"))


@pytest.mark.parametrize("names", [("reading",), ("read after would-block", "x"), ()])
def test_no_such_lint(names: tuple[str, ...]) -> None:
    """A misspelled name would pass for ever: it is refused, with the names that there are."""
    with pytest.raises(ValueError, match="edge-not-drained, read-after-would-block"):
        expect(echo_trace()).never(*names)


def test_time_is_no_check() -> None:
    """Nobody is graded on how fast the machine is."""
    with pytest.raises(ValueError, match="depends on how fast the machine is"):
        expect(echo_trace()).never("blocking callback")
    script = Script(BaseState("epoll", 4, 5, 128, True))
    started = script.step("TaskStarted", callback=None)
    script.step("TaskEnded", started, after=10**12)
    assert [finding.name for finding in lint(script.trace())] == ["blocking-callback"]
    expect(script.trace()).no_findings()


def test_order() -> None:
    """The text tells where the order ends, and where the missing step is instead."""
    text = failure(lambda e: e.order("Accepted", matching("Closed", fd=9), matching("Read", fd=9)))
    assert text.startswith("There is no Read with fd=9 after the Closed with fd=9 of step ")
    assert "server.py line 73 in goodbye" in text
    assert "; the last one was step " in text
    assert "server.py line 53 in echo" in text
    text = failure(lambda e: e.order(matching("Closed", fd=8)))
    assert text == "There is no Closed with fd=8 after the beginning"
    text = failure(lambda e: e.order(*["Accepted"] * 4))
    assert text.startswith("There is no Accepted after the Accepted of step ")


def test_numbers() -> None:
    """The text tells how many there were, and shows the last, or the first too many."""
    text = failure(lambda e: e.at_least(4, "Accepted"))
    assert text.startswith("There were 3 steps Accepted, not 4 or more; the last was step ")
    assert "server.py line 33 in on_connection" in text
    assert failure(lambda e: e.at_least(1, "Closed", fd=8)) == (
        "There were 0 steps Closed with fd=8, not 1 or more."
    )
    text = failure(lambda e: e.at_most(1, "Deleted"))
    assert text.startswith("There were 2 steps Deleted, more than 1; the first too many was step ")
    assert "server.py line 71 in goodbye" in text


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        ("Reed", {}, "'Reed' is no kind of step; they are PollerOpened, Registered"),
        ("Read", {"descriptor": 7}, "a Read has no 'descriptor'; it has seq, t_ns"),
    ],
)
def test_no_such_step(kind: str, fields: dict[str, Any], problem: str) -> None:
    """A misspelled kind or field is refused: with it, at_most would always pass."""
    for check in (matching, lambda *a, **k: expect(echo_trace()).at_most(0, *a, **k)):
        with pytest.raises(ValueError, match=problem):
            check(kind, **fields)


def test_kind_is_exact() -> None:
    """A Modified is no Registered."""
    script = Script(BaseState("epoll", 4, 5, 128, True))
    script.add("main", 2, 7, "x", "echo", kind="Modified")
    expect(script.trace()).at_most(0, "Registered").at_least(1, "Modified")


def test_method_by_its_own_name() -> None:
    """A callback is called by its name, with or without its class."""
    script = Script(BaseState("epoll", 4, 5, 128, True), {"Server.echo": ""})
    script.step("TaskStarted", callback=0)
    script.step("TaskStarted", callback=None)
    expect(script.trace()).at_least(1, "TaskStarted", callback="echo")
    expect(script.trace()).at_least(1, "TaskStarted", callback="Server.echo")
    expect(script.trace()).at_least(1, "TaskStarted", callback=0)
    expect(script.trace()).at_most(0, "TaskStarted", callback="cho")


INCOMPLETE: list[Check] = [
    lambda e: e.never("task flood"),
    lambda e: e.no_findings(),
    lambda e: e.every_accepted_descriptor_is_closed(),
    lambda e: e.every_accepted_descriptor_is_deleted(),
    lambda e: e.at_most(99, "Read"),
    lambda e: e.at_least(99, "Read"),
    lambda e: e.registered(42),
    lambda e: e.deleted(42),
    lambda e: e.order("PollerClosed"),
]


def incomplete() -> list[Trace]:
    """Return traces that lack steps: dropped, torn off."""
    whole = echo_trace()
    whole = echo_trace()
    dropped = Trace(replace(whole.base, dropped=7), whole.functions, list(whole))
    torn = Trace(whole.base, whole.functions, list(whole), truncated=True)
    return [dropped, torn]


@pytest.mark.parametrize("check", INCOMPLETE)
def test_incomplete_trace(check: Check) -> None:
    """What may turn on missing steps is refused: neither passed nor failed."""
    for trace, reason in zip(incomplete(), ("7 steps were dropped", "torn off"), strict=True):
        with pytest.raises(ValueError, match=reason):
            check(expect(trace))


def test_what_incomplete_traces_show() -> None:
    """What is there is there, and what is too much is too much."""
    for trace in incomplete():
        expect(trace).deleted(7).at_least(1, "Read").order("Accepted", "Closed")
        with pytest.raises(AssertionError, match="more than 0"):
            expect(trace).at_most(0, "Read")


def test_part_of_a_trace() -> None:
    """A part is refused, as a whole trace is at hand."""
    with pytest.raises(ValueError, match="expect needs the whole"):
        expect(echo_trace()[1:])


def test_moment() -> None:
    """An expectation is about the trace as it was, although the recording goes on."""
    with netpoll.open_poller() as poller:
        recording = tracer.record(poller)
        expectation = expect(recording.trace)
        poller.trigger(netpoll.EventPriority.HIGH, print)
        expectation.at_most(0, "TaskQueued")
        expect(recording.trace).at_least(1, "TaskQueued")


def test_repr() -> None:
    """It says which trace it is about."""
    assert repr(expect(echo_trace())) == "<Expectation of 72 steps>"


FAILING = [
    "registered(42)",
    "deleted(42)",
    "never('exception logged')",
    "no_findings()",
    "every_accepted_descriptor_is_deleted()",
    "every_accepted_descriptor_is_closed()",
    "order('PollerClosed')",
    "at_least(99, 'Read')",
    "at_most(0, 'Accepted')",
]


def test_what_pytest_shows(tmp_path: Path) -> None:
    """A failing test shows its own line and the text, and nothing of how the check works."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "from tests.test_expect import failing_trace\nfrom tracer.expect import expect\n"
        + "".join(
            f"def test_{number}():\n    expect(failing_trace()).{check}\n"
            for number, check in enumerate(FAILING)
        )
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, test],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=HOUSE,
        env={"PYTHONPATH": str(HOUSE), "PATH": ""},
    )
    for check in FAILING:
        assert f">       expect(failing_trace()).{check}\n" in done.stdout
    assert done.stdout.count("\nE       AssertionError: ") == len(FAILING)
    assert "tracer/expect.py" not in done.stdout


def failing_trace() -> Trace:
    """Return a trace about which each of those checks is wrong."""
    script = Script(BaseState("epoll", 4, 5, 128, True))
    ended = script.wait((LISTENER, 1))
    started = script.step(
        "DispatchStarted", ended, fd=LISTENER, event=1, flags=0, callback=script.ids["echo"]
    )
    script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=7, peer="peer")
    script.add("on_connection", 8, 7, "peer", "echo")
    script.step("DispatchEnded", started, fd=LISTENER, error="ValueError: x")
    return script.trace()
