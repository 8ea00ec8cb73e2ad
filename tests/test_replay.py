"""`Replay`: seeking, rounds, causes and effects."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import pytest

import tracer
from netpoll import EventPriority, PollAttachment, open_poller
from tests.traces import (
    ERR,
    HUP,
    LISTENER,
    RDHUP,
    READ,
    WAKEUP,
    WRITE,
    Script,
    echo_trace,
    hostile_trace,
    random_trace,
)
from tracer.replay import LONGEST_CHAIN, Replay
from tracer.state import LoopState, advance, initial
from tracer.trace import BaseRegistration, BaseState, BaseTask, BaseTimer, Trace
from tracer.words import sentence

BASE = BaseState("epoll", 4, WAKEUP, 128, running=False)


def kinds(trace: Trace, indices: Any) -> list[str]:
    return [trace[index].kind for index in indices]


def chain(trace: Trace, index: int) -> list[str]:
    """Return the kinds of the steps in a chain of causes; what is no step begins with a mark."""
    return [
        "~ " + reason.text.split(":")[0][:8] if reason.step is None else trace[reason.step].kind
        for reason in Replay(trace).why(index)
    ]


def last(trace: Trace, kind: str) -> int:
    return max(index for index, step in enumerate(trace) if step.kind == kind)


# ---- seeking ----------------------------------------------------------------------------------


def test_replay_seeks_to_the_same_states() -> None:
    """In any order of asking, `Replay` gives what a fold from the start gives."""
    trace = random_trace(3)
    states = [initial(trace.base)]
    for step in trace:
        states.append(advance(states[-1], step))
    replay = Replay(trace)
    spacing = Replay.SPACING
    for index in (len(trace) - 1, 0, 200, spacing, spacing - 1, 199, -1, 65, 100, len(trace) // 2):
        assert replay.state(index) == states[index + 1]
    for outside in (len(trace), -2):
        with pytest.raises(IndexError):
            replay.state(outside)


def test_replay_seeks_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has been there, a seek costs at most one spacing of steps."""
    trace = random_trace(5)
    replay = Replay(trace)
    replay.state(len(trace) - 1)
    calls = []

    def counted(state: LoopState, step: Any) -> LoopState:
        calls.append(step)
        return advance(state, step)

    monkeypatch.setattr("tracer.replay.advance", counted)
    for index in (150, 2, len(trace) - 1):
        calls.clear()
        replay.state(index)
        assert 0 < len(calls) <= Replay.SPACING


def test_replay_follows_a_growing_trace() -> None:
    """What comes later in a trace is found by a replay that was made and asked before."""
    script = Script(BASE)
    trace = script.trace()
    replay = Replay(trace)
    assert (len(replay.rounds()), replay.state(-1).steps) == (0, 0)
    script.wait((LISTENER, READ))
    assert (len(replay.rounds()), replay.state(1).steps) == (1, 2)
    script.wait((LISTENER, READ))
    assert (len(replay.rounds()), replay.effects(2)) == (2, [3])


def test_part_of_a_trace_is_refused() -> None:
    """No state follows from a trace without its beginning."""
    trace = echo_trace()
    assert Replay(trace[:20]).state(19) == Replay(trace).state(19)
    with pytest.raises(ValueError, match="part of a trace"):
        Replay(trace[3:])


def test_index_of_finds_a_seq() -> None:
    """A step is found by its seq, also when the first ones are missing."""
    trace = echo_trace()
    assert Replay(trace).index_of(10) == 9
    assert Replay(trace).index_of(10_000) is None


# ---- rounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_rounds_cover_the_trace(seed: int) -> None:
    """Each step is in one round, each round but the first begins with its wait."""
    trace = random_trace(seed)
    rounds = Replay(trace).rounds()
    assert [index for one in rounds for index in one.steps] == list(range(len(trace)))
    assert all(one.waited == one.steps.start for one in rounds[1:])
    for name, kind in (("dispatched", "DispatchStarted"), ("timers", "TimerFired")):
        told = [index for one in rounds for index in getattr(one, name)]
        assert told == [index for index, step in enumerate(trace) if step.kind == kind]
    for index in (0, len(trace) // 2, len(trace) - 1):
        assert index in rounds.at(index).steps
    with pytest.raises(IndexError):
        rounds.at(len(trace))


def test_what_comes_before_the_first_wait_is_a_round() -> None:
    """Registrations before the loop runs stand in a round without a wait."""
    first = Replay(echo_trace()).rounds()[0]
    assert (first.steps, first.waited, first.returned) == (range(2), None, None)


def test_a_round_says_what_was_done_in_it() -> None:
    """A round tells waited, returned, dispatched, dropped, timers and tasks apart."""
    script = Script(BaseState("epoll", 4, WAKEUP, 128, True, tasks=(BaseTask("high", 4),)))
    ended = script.wait((LISTENER, READ), (7, READ))
    started = script.step("DispatchStarted", ended, fd=LISTENER, event=READ, flags=0, callback=1)
    timer = script.call("echo", 1, "TimerSet", callback=4, delay_ns=0, cause=started)
    script.step("DispatchEnded", started, fd=LISTENER)
    script.step("EventDropped", ended, fd=7, event=READ)
    fired = script.step("TimerFired", timer, callback=4, late_ns=1)
    script.step("TaskEnded", script.step("TaskStarted", fired, callback=4))
    script.step("TaskEnded", script.step("TaskStarted", None, callback=4))
    (one,) = Replay(script.trace()).rounds()
    assert (one.waited, one.returned) == (0, 1)
    assert one.events == ((LISTENER, READ), (7, READ))
    assert (one.dispatched, one.dropped, one.timers, one.tasks) == ((2,), (5,), (6,), (9,))
    assert repr(one) == (
        "<Round 0: steps 1 to 11, 2 events returned, 1 dispatched, 1 dropped, 1 timer, 1 task>"
    )


# ---- why --------------------------------------------------------------------------------------


def test_a_dispatch_leads_back_to_wait_and_registration() -> None:
    """Behind a callback stand the wait that returned it, its registration and its accept."""
    trace = echo_trace()
    index = last(trace, "DispatchStarted")
    why = Replay(trace).why(index)
    assert chain(trace, index) == ["WaitEnded", "~ Inferred", "Registered", "Accepted"]
    assert why.step == index
    assert "that had begun 800 µs before returned client A (descriptor 7)" in why[0].text
    assert "server.py line 38, thread netpoll loop" in why[2].text
    assert trace[why[2].step or 0].cause == 5


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (READ, "bytes had arrived"),
        (WRITE, "there was room"),
        (READ | RDHUP, "will send"),
        (READ | RDHUP | HUP, "was over"),
    ],
)
def test_what_the_kernel_saw_is_called_inferred(event: int, words: str) -> None:
    """No step tells what arrived, so the sentence about it says that it is inferred."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    ended = script.wait((7, event))
    script.step("DispatchStarted", ended, fd=7, event=event, flags=0, callback=2)
    why = Replay(script.trace()).why(3)
    (inferred,) = [reason.text for reason in why if reason.step is None]
    assert inferred.startswith("Inferred: ")
    assert words in inferred


def test_a_listener_has_connections_not_bytes() -> None:
    """What was accepted from can be read because somebody connected."""
    trace = echo_trace()
    index = next(i for i, step in enumerate(trace) if step.kind == "DispatchStarted")
    assert "had connected to listener :9090" in repr(Replay(trace).why(index))


def test_a_modified_registration_leads_to_the_first() -> None:
    """Behind a modified registration stands the one that it replaced."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    script.add("echo", 2, 7, "a:1", "echo", kind="Modified")
    script.add("echo", 2, 7, "a:1", "echo", error="AlreadyRegistered: 7")  # changed nothing
    ended = script.wait((7, READ))
    script.step("DispatchStarted", ended, fd=7, event=READ, flags=0, callback=2)
    trace = script.trace()
    assert chain(trace, 5) == ["WaitEnded", "~ Inferred", "Modified", "Registered"]


def test_a_number_used_again_leads_to_its_own_beginning() -> None:
    """A registration is not led back to the accept of what had its number before."""
    script = Script(BASE)
    script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=7, peer="a:1")
    script.add("on_connection", 8, 7, "a:1", "echo")
    script.call("goodbye", 3, "Closed", fd=7)
    script.add("main", 2, 7, "pipe", "echo")
    ended = script.wait((7, READ))
    script.step("DispatchStarted", ended, fd=7, event=READ, flags=0, callback=2)
    assert chain(script.trace(), 6) == ["WaitEnded", "~ Inferred", "Registered"]


def test_a_dropped_event_leads_to_the_delete() -> None:
    """Behind a dropped event stand the delete and the wait before it."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    ended = script.wait((7, READ))
    script.call("goodbye", 1, "Deleted", fd=7)
    script.step("EventDropped", ended, fd=7, event=READ)
    assert chain(script.trace(), 4)[:2] == ["Deleted", "WaitEnded"]


def test_a_delete_during_the_wait_counts() -> None:
    """A delete by another thread, before the wait ended, is told; one of an older life is not."""
    for deleted_in_wait in (True, False):
        script = Script(BASE)
        script.add("main", 2, 7, "a:1", "echo")
        script.call("goodbye", 1, "Deleted", fd=7)
        script.add("main", 2, 7, "a:1", "echo")
        script.step("WaitStarted", timeout_ns=None, size=128)
        if deleted_in_wait:
            script.call("goodbye", 1, "Deleted", fd=7, thread="other")
        ended = script.step("WaitEnded", 4, events=((7, READ),))
        script.step("EventDropped", ended, fd=7, event=READ)
        first = chain(script.trace(), len(script.steps) - 1)[0]
        assert first == ("Deleted" if deleted_in_wait else "WaitEnded")


def test_what_lies_before_the_trace_is_said() -> None:
    """A registration, task, timer or wait of which no step tells is said to be older."""
    row = BaseRegistration(7, "a:1", "read", False, False, False, 2)
    tasks, timers = (BaseTask("high", 4),), (BaseTimer(5, 4),)
    script = Script(BaseState("epoll", 4, WAKEUP, 128, True, (row,), tasks, timers))
    script.step("DispatchStarted", None, fd=7, event=READ, flags=0, callback=2)
    script.step("TaskStarted", None, callback=4)
    script.step("TimerFired", None, callback=4, late_ns=0)
    script.step("WaitEnded", None, events=((WAKEUP, READ),))
    trace, replay = script.trace(), Replay(script.trace())
    assert [reason.step for index in range(4) for reason in replay.why(index)] == [None] * 6
    texts = [replay.why(index)[-1].text for index in range(len(trace))]
    assert [text.partition(" before ")[2] for text in texts] == ["this trace begins."] * 4


def test_a_task_leads_to_its_trigger_and_the_wakeup() -> None:
    """Behind a task stand the trigger with thread and line, the write, and the wait it ended."""
    trace = echo_trace()
    index = last(trace, "TaskStarted")
    assert chain(trace, index) == ["TaskQueued", "WakeupSent", "WaitEnded"]
    why = Replay(trace).why(index)
    assert "(server.py line 111, thread MainThread)" in why[0].text
    assert why[1].text.startswith("The wakeup descriptor was written to")
    assert "its counter was not 0" in why[2].text


def queued(script: Script, **more: Any) -> int:
    values: dict[str, Any] = {"priority": "high", "queue": "high", "callback": 4} | more
    return script.call("client_cell", 1, "TaskQueued", **values)


def test_coalesced_triggers_share_one_write() -> None:
    """A task without a write of its own names the one on its way, and how many tasks it carried."""
    script = Script(BASE)
    script.step("WaitStarted", timeout_ns=None, size=128)
    first = queued(script)
    sent = script.step("WakeupSent", first)
    others = [queued(script), queued(script)]
    script.step("WaitEnded", 1, events=((WAKEUP, READ),))
    script.step("WakeupReceived", sent)
    for task in (first, *others):
        script.step("TaskEnded", script.step("TaskStarted", task, callback=4))
    trace, replay = script.trace(), Replay(script.trace())
    assert "the same write carried 2 more tasks" in repr(replay.why(2))
    for started in (9, 11):
        assert chain(trace, started) == ["TaskQueued", "WakeupSent", "WaitEnded"]
        shared = replay.why(started)[1]
        assert (shared.step, "it carried 3 tasks" in shared.text) == (2, True)


def test_a_write_that_came_a_moment_after_the_trigger_counts() -> None:
    """A trigger that found another thread about to write is carried by that write."""
    script = Script(BASE)
    script.step("WaitStarted", timeout_ns=None, size=128)
    first, second = queued(script), queued(script)
    sent = script.step("WakeupSent", first)
    script.step("WaitEnded", 1, events=((WAKEUP, READ),))
    script.step("WakeupReceived", sent)
    script.step("TaskEnded", script.step("TaskStarted", first, callback=4))
    script.step("TaskStarted", second, callback=4)
    assert chain(script.trace(), 8) == ["TaskQueued", "WakeupSent", "WaitEnded"]


def test_a_task_of_a_callback_needs_no_wait() -> None:
    """A task queued by a callback runs in the same round: no wait is said to have carried it."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    ended = script.wait((7, READ))
    started = script.step("DispatchStarted", ended, fd=7, event=READ, flags=0, callback=2)
    task = queued(script, cause=started)
    sent = script.step("WakeupSent", task)
    script.step("DispatchEnded", started, fd=7)
    script.step("WakeupReceived", sent)
    script.step("TaskStarted", task, callback=4)
    trace = script.trace()
    assert chain(trace, 8)[:4] == [
        "TaskQueued",
        "WakeupSent",
        "WakeupReceived",
        "DispatchStarted",
    ]
    assert "no wait had to end" in Replay(trace).why(8)[2].text


def test_a_timer_leads_to_where_it_was_set() -> None:
    """Behind a timer's function stand its firing, the wait before and where it was set."""
    script = Script(BASE)
    timer = script.call("main", 1, "TimerSet", callback=4, delay_ns=10**6)
    script.step("WaitStarted", timeout_ns=10**6, size=128)
    script.step("WaitEnded", 2, 10**6, events=())
    fired = script.step("TimerFired", timer, callback=4, late_ns=10)
    script.step("TaskStarted", fired, callback=4)
    trace = script.trace()
    assert chain(trace, 4) == ["TimerFired", "WaitEnded", "TimerSet"]
    assert chain(trace, 1) == ["~ Inferred", "TimerSet", "~ Inferred"]
    assert "sleeps no longer than until log_stats is due" in Replay(trace).why(1)[0].text


def test_a_timer_far_away_does_not_limit_a_wait() -> None:
    """A wait that is limited for another reason than a timer is not put down to the timer."""
    script = Script(BASE)
    script.call("main", 1, "TimerSet", callback=4, delay_ns=10**10)
    script.step("WaitStarted", timeout_ns=10**6, size=128)
    assert chain(script.trace(), 1) == ["~ Inferred"]


def test_effects_are_the_steps_that_name_it() -> None:
    """The effects of a step are all that have it as their cause, however much later."""
    trace = echo_trace()
    replay = Replay(trace)
    for index, step in enumerate(trace):
        effects = [i for i, other in enumerate(trace) if other.cause == step.seq]
        assert replay.effects(index) == effects


@pytest.mark.parametrize(
    "make",
    [
        echo_trace,
        hostile_trace,
        *(lambda seed=seed: random_trace(seed) for seed in range(4)),
    ],
)
def test_every_step_has_reasons_in_plain_words(make: Any) -> None:
    """No chain is empty, names a later step as a cause, or shows an unfilled field or raw name."""
    trace = make()
    replay = Replay(trace)
    for index in range(len(trace)):
        why = replay.why(index)
        assert 0 < len(why) <= LONGEST_CHAIN + 1
        for reason in why:
            assert "{" not in reason.text.replace("{a|b}", "")
            assert "\u202e" not in reason.text
            assert "\n" not in reason.text
            assert reason.step is None or reason.step < index or trace[reason.step].kind == "Read"
        steps = [reason.step for reason in why if reason.step is not None]
        assert len(set(steps)) == len(steps)
        assert "<script" not in why._repr_html_()
    for outside in (len(trace), -1):
        with pytest.raises(IndexError):
            replay.why(outside)


# ---- because ----------------------------------------------------------------------------------


def because(script: Script, kind: str) -> str:
    """Return the short reason of the last step of a kind."""
    trace = script.trace()
    return Replay(trace).because(last(trace, kind))


def dispatched(script: Script, event: int, fd: int = 7) -> int:
    ended = script.wait((fd, event))
    return script.step("DispatchStarted", ended, fd=fd, event=event, flags=0, callback=2)


def test_a_dispatch_is_put_down_to_what_was_read() -> None:
    """The bytes that the callback read prove why its descriptor was returned; both steps say so."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    started = dispatched(script, READ)
    assert because(script, "DispatchStarted").startswith("Inferred: bytes had arrived from a:1, or")
    for size in (64, 6):
        script.call("echo", 3, "Read", fd=7, count=size, cause=started)
    assert because(script, "DispatchStarted") == (
        "Bytes had arrived from a:1, so the wait returned it after 800 µs; echo then read 70 bytes."
    )
    assert because(script, "WaitEnded") == "Bytes had arrived from a:1; echo then read 70 bytes."


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (READ | RDHUP, "The stream of a:1 had ended"),
        (READ | HUP | ERR, "The connection of a:1 was over or had failed"),
        (WRITE, "The kernel had room for bytes to a:1"),
    ],
)
def test_an_event_that_needs_no_proof_is_told_as_it_is(event: int, words: str) -> None:
    """What the bits of an event say by themselves is not called inferred."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    dispatched(script, event)
    assert because(script, "DispatchStarted") == f"{words}{MORE.get(event, '')}, {RETURNED}"


MORE = {READ | RDHUP: ": it will send nothing more"}
RETURNED = "so the wait returned it after 800 µs."


def test_a_refused_call_is_put_down_to_the_one_before() -> None:
    """A second add names the first one, a delete too many the first; else nothing is said."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo", error="PermissionError: 1")
    assert because(script, "Registered") == ""
    script.add("main", 2, 7, "a:1", "echo")
    script.add("main", 2, 7, "a:1", "echo", error="AlreadyRegistered: 17")
    assert because(script, "Registered") == (
        "It was on the list already: main had registered it 3.0 µs before."
    )
    script.call("goodbye", 1, "Deleted", fd=7)
    script.call("goodbye", 1, "Deleted", fd=7, error="NotRegistered: 2")
    assert because(script, "Deleted") == (
        "It was no longer on the list: goodbye had deleted it 3.0 µs before."
    )


def test_calls_are_put_down_to_earlier_ones_of_the_same_callback() -> None:
    """A read explains the write behind it, the would-block and, at the stream's end, the delete."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    started = dispatched(script, READ)
    script.call("echo", 3, "Read", fd=7, count=5, cause=started)
    assert because(script, "Read") == "The loop had called echo for a:1, because it can be read."
    script.call("echo", 8, "Wrote", fd=9, count=5, asked=5, cause=started)
    assert because(script, "Wrote") == "In the same call, 5 bytes had been read from a:1."
    script.call("echo", 3, "WouldBlock", fd=7, call="recv_into", cause=started)
    assert because(script, "WouldBlock") == "All that had arrived was read: 5 bytes in this call."
    script.call("echo", 3, "Read", fd=7, count=0, cause=started)
    script.call("goodbye", 1, "Deleted", fd=7, cause=started)
    assert because(script, "Deleted") == "In the same call, the end of its stream had been read."
    script.call("echo", 8, "Wrote", fd=7, count=0, asked=5, error="EPIPE", cause=started)
    script.call("goodbye", 3, "Closed", fd=7, cause=started)
    assert because(script, "Closed") == "In the same call, writing to it had failed: EPIPE"


def test_a_callback_of_very_many_calls_is_not_looked_through() -> None:
    """Behind a thousand calls the reason is the callback itself, so that asking stays quick."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    started = dispatched(script, READ)
    script.call("echo", 3, "Read", fd=7, count=5, cause=started)
    for _ in range(1_001):
        script.call("echo", 8, "Wrote", fd=9, count=1, asked=1, cause=started)
    assert because(script, "Wrote") == "The loop had called echo for a:1, because it can be read."


def test_a_timer_and_a_wait_without_events_are_explained() -> None:
    """A wait limited by a timer says so, its end too, and the timer who set it."""
    script = Script(BASE)
    timer = script.call("main", 1, "TimerSet", callback=4, delay_ns=10**6)
    assert because(script, "TimerSet") == "The loop is not running yet: the program prepares it."
    script.step("WaitStarted", timeout_ns=10**6, size=128)
    assert because(script, "WaitStarted").endswith("no longer than until log_stats is due.")
    script.step("WaitEnded", 2, 10**6, events=())
    assert because(script, "WaitEnded").startswith("Its time limit of 1.0 ms was over")
    script.step("TimerFired", timer, callback=4, late_ns=10)
    assert because(script, "TimerFired") == (
        "main had set it 1.0 ms before, to be called after 1.0 ms."
    )
    script.step("WaitStarted", timeout_ns=10**9, size=128)
    assert because(script, "WaitStarted").startswith("The wait before had returned nothing")
    script.step("WaitEnded", 5, 10**6, events=())
    assert because(script, "WaitEnded").startswith("Inferred: something interrupted it")


def test_a_trigger_says_that_the_loop_slept() -> None:
    """Trigger, write and wakeup of another thread are told by each other."""
    trace = echo_trace()
    replay = Replay(trace)
    told = {step.kind: replay.because(index) for index, step in enumerate(trace) if index > 46}
    assert told["TaskQueued"].endswith("the loop had been asleep in its wait for 400 µs.")
    assert told["WakeupSent"].startswith("The task log_stats had been queued while the loop slept")
    assert replay.because(last(trace, "WakeupReceived") - 1).startswith(
        "Thread MainThread had queued the task log_stats"
    )
    assert told["TaskStarted"].endswith("12.0 µs before, on thread MainThread.")


@pytest.mark.parametrize(
    "make",
    [echo_trace, hostile_trace, *(lambda seed=seed: random_trace(seed) for seed in range(4))],
)
def test_because_is_one_short_line(make: Any) -> None:
    """With any names it stays short, on one line, and no field is left unfilled."""
    trace = make()
    replay = Replay(trace)
    for index in range(len(trace)):
        text = replay.because(index)
        assert len(text) <= 150
        assert "{" not in text.replace("{a|b}", "")
        assert not set(text) & {"\n", "\u202e"}
    for outside in (len(trace), -1):
        with pytest.raises(IndexError):
            replay.because(outside)


@pytest.mark.parametrize("seed", range(6))
def test_sentences_need_no_state(seed: int) -> None:
    """The sentence made from the index equals the one made from the whole state, at every step."""
    trace = random_trace(seed) if seed else hostile_trace()
    replay = Replay(trace)
    for index, step in enumerate(trace):
        assert replay.sentence(index) == sentence(step, replay.state(index), trace)


def test_sentences_need_no_state_where_numbers_are_used_again() -> None:
    """Also names that changed, rows that were dropped and calls that lack their beginning agree."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    script.call("goodbye", 3, "Closed", fd=7)
    script.call("goodbye", 1, "Deleted", fd=7)
    script.add("main", 2, 7, "b:2", "echo")
    script.call("echo", 3, "Read", fd=7, count=1)
    ended = script.wait((7, READ), (WAKEUP, READ))
    script.step("WakeupSent")  # the counter was not 0 before
    script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=7, peer="c:3")
    script.step("EventDropped", ended, fd=7, event=READ)
    script.wait((7, READ))  # so it was not closed after all
    script.call("goodbye", 3, "Closed", fd=7)
    dispatched(script, READ, fd=9)
    script.step("DispatchEnded", fd=9)
    script.call("main", 1, "Closed", fd=8)
    script.step("DispatchEnded", fd=9)
    trace = script.trace()
    replay = Replay(trace)
    for index, step in enumerate(trace):
        assert replay.sentence(index) == sentence(step, replay.state(index), trace)


def test_because_claims_nothing_that_is_not_recorded() -> None:
    """No reason is given where the earlier step does not explain it, or the cause is not told."""
    script = Script(BASE)
    script.add("main", 2, 7, "a:1", "echo")
    script.call("goodbye", 1, "Deleted", fd=7)
    script.add("main", 2, 7, "a:1", "echo", error="AlreadyRegistered: 17")
    assert because(script, "Registered") == ""
    script.add("main", 2, 7, "a:1", "echo")
    ended = script.wait((7, READ))
    script.step("EventDropped", ended, fd=7, event=READ)
    assert because(script, "EventDropped") == ""
    dispatched(script, READ)
    script.call("echo", 3, "Read", fd=7, count=5)
    assert because(script, "Read") == ""


def test_an_endless_chain_is_cut() -> None:
    """A task that queues itself again and again has its last reasons told, not a thousand."""
    script = Script(BASE)
    task = queued(script)
    for _ in range(2_000):
        started = script.step("TaskStarted", task, callback=4)
        task = queued(script, cause=started)
        script.step("TaskEnded", started)
    why = Replay(script.trace()).why(len(script.steps) - 1)
    assert len(why) == LONGEST_CHAIN + 1
    assert why[-1].text.startswith("And so on")


def test_why_of_a_real_recording() -> None:
    """On a real loop: a read leads to its dispatch and registration, a task to its thread."""
    near, far = socket.socketpair()
    done = threading.Event()
    with near, far, open_poller() as poller:
        near.setblocking(False)

        def echo(fd: int, event: int, flags: int) -> None:
            near.recv(64)
            poller.stop()

        recording = tracer.record(poller)
        poller.add_read(PollAttachment(near.fileno(), echo))

        def work() -> None:
            poller.trigger(EventPriority.HIGH, lambda _: done.set())
            done.wait(10)
            far.send(b"hello")

        thread = threading.Thread(target=work, name="worker")
        thread.start()
        poller.polling()
        thread.join(10)
        recording.stop()
    trace = recording.trace
    replay = Replay(trace)
    read = replay.why(last(trace, "Read"))
    assert kinds(trace, [reason.step for reason in read if reason.step is not None]) == [
        "DispatchStarted",
        "WaitEnded",
        "Registered",
    ]
    dispatch = repr(replay.why(last(trace, "DispatchStarted")))
    assert "read 5 bytes" in dispatch
    task = replay.why(last(trace, "TaskStarted"))
    assert kinds(trace, [task[0].step, task[1].step]) == ["TaskQueued", "WakeupSent"]
    assert f"{os.path.basename(__file__)} line" in task[0].text
    assert "thread worker" in task[0].text
