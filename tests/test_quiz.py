"""`quiz`: questions about what happens next, with one true answer each."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

import netpoll
from tests.traces import (
    LISTENER,
    READ,
    WAKEUP,
    Script,
    echo_trace,
    hostile_trace,
    random_trace,
)
from tracer.quiz import EACH, STOPPED_BY, WRONG, Question, quiz
from tracer.recorder import record
from tracer.replay import Replay
from tracer.state import LoopState
from tracer.steps import DispatchStarted, EventDropped, TaskStarted, WaitEnded, WaitStarted
from tracer.trace import BaseState, Trace, UnknownStep
from tracer.words import descriptor, function_name, name_then

BASE = BaseState("epoll", 4, WAKEUP, 128, running=True)


def truth(question: Question) -> str:
    return question.answer(0).truth


def about(trace: Trace, what: str) -> list[Question]:
    return [question for question in quiz(trace, most=1_000) if question.about == what]


def only(trace: Trace, what: str) -> Question:
    (question,) = about(trace, what)
    return question


def connection(script: Script, fd: int, callback: str = "echo", **mode: Any) -> None:
    peer = f"127.0.0.1:{50000 + fd}"
    script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=fd, peer=peer)
    script.add("on_connection", 8, fd, peer, callback, **mode)


def dispatch(script: Script, ended: int, fd: int, *reads: int, event: int = READ) -> None:
    number = script.ids["echo"]
    started = script.step("DispatchStarted", ended, fd=fd, event=event, flags=0, callback=number)
    for count in reads:
        script.call("echo", 3, "Read", fd=fd, count=count, asked=64)
    script.step("DispatchEnded", started, fd=fd)


def queued(script: Script, name: str = "log_stats", **more: Any) -> int:
    values: dict[str, Any] = {"priority": "high", "queue": "high", "callback": script.ids[name]}
    return script.call("client_cell", 1, "TaskQueued", **(values | more))


# ---- every question ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_the_recording_proves_each_answer(seed: int) -> None:
    """What the next step does is the truth where it is asked for, and is never a wrong choice."""
    trace = random_trace(seed, rounds=60)
    replay = Replay(trace)
    questions = quiz(trace, most=1_000, seed=seed)
    assert len(questions) > 4
    for question in questions:
        beside = ("BatchResized", "BuffersSeen", "ListChecked")
        following = (step for step in trace[question.index + 1 :] if step.kind not in beside)
        state, after = replay.state(question.index), next(following)
        right = truth(question)
        wrong = [choice for choice in question.choices if choice != right]
        assert len(set(question.choices)) == len(question.choices)
        assert 2 <= len(wrong) <= WRONG
        happened = what_happened(after, state, trace)
        if question.about.startswith(("unread", "a one-shot", "a wakeup that")):
            continue  # these ask what would be, or what is not done
        assert happened, question
        assert right.startswith(happened)
        assert not any(choice.startswith(happened) for choice in wrong)


def what_happened(step: Any, state: LoopState, trace: Trace) -> str:
    """Return the beginning of the sentence that says what `step` does, as a choice says it."""
    if isinstance(step, DispatchStarted):
        name = descriptor(step.fd, name_then(state, step.fd))
        return f"It calls {function_name(trace, step.callback)} for {name}."
    if isinstance(step, TaskStarted):
        return f"It runs the task {function_name(trace, step.callback)}."
    if isinstance(step, EventDropped):
        return "It drops the event"
    if isinstance(step, WaitStarted):
        return "It begins the next wait: "
    if isinstance(step, WaitEnded):
        return "The wait returns: "
    return {"TimerFired": "It calls log_stats.", "WakeupSent": "The wakeup descriptor is"}.get(
        step.kind, ""
    )


def test_the_same_seed_asks_the_same() -> None:
    """Questions and the order of their choices depend on the trace and the seed alone."""
    trace = random_trace(3, rounds=80)
    state = random.getstate()
    texts = [[str(question) for question in quiz(trace, seed=seed)] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert random.getstate() == state


def test_alike_questions_are_few() -> None:
    """Of one sort of question a few are asked, and no more in all than one wants."""
    trace = random_trace(3, rounds=200)
    sorts = [question.about for question in quiz(trace, most=1_000)]
    assert len(set(sorts)) >= 8
    assert max(sorts.count(sort) for sort in sorts) == EACH
    assert len(quiz(trace, most=3)) == 3
    indices = [question.index for question in quiz(trace)]
    assert indices == sorted(indices)


def test_the_answer_is_not_shown_before() -> None:
    """Neither `repr` nor `str` tells which choice is right, and the explanation waits, too."""
    for question in quiz(echo_trace()):
        before = str(question), repr(question)
        right = truth(question)
        assert (str(question), repr(question)) == before
        assert right not in repr(question)
        assert question.answer(right).explanation not in before[0]
        assert question.given is not None
    first = {
        quiz(random_trace(seed))[0].choices.index(truth(quiz(random_trace(seed))[0]))
        for seed in range(12)
    }
    assert len(first) > 1  # it is not always the same letter


def test_answers_are_judged_and_counted() -> None:
    """A letter, a number or a text answers; the first answer to a question counts."""
    questions = quiz(echo_trace())
    total = len(questions)
    assert questions.score == (0, 0, total)
    letters = []
    for question in quiz(echo_trace()):
        letters.append("abcd"[question.choices.index(truth(question))])
    right = questions[0].answer(letters[0])
    assert right
    assert str(right).startswith("Right.\n")
    wrong_number = (("abcd".index(letters[1])) + 1) % len(questions[1].choices)
    wrong = questions[1].answer(wrong_number)
    assert not wrong
    assert wrong.truth in str(wrong).replace("\n", " ")
    assert questions.score == (1, 2, total)
    assert questions[1].answer(f" {letters[1].upper()}) ")
    assert questions[2].answer(questions[2].choices["abcd".index(letters[2])])
    assert questions.score == (2, 3, total)
    assert repr(questions) == f"<Quiz: 2 right of 3 answered; {total} questions in all>"


@pytest.mark.parametrize("choice", ["", "z", "ab", "1", -1, 4, True])
def test_what_is_no_choice_is_refused(choice: Any) -> None:
    """An answer that is no choice is an error, and no wrong answer."""
    question = quiz(echo_trace())[0]
    with pytest.raises(ValueError, match="a letter from a to d"):
        question.answer(choice)
    assert question.given is None


@pytest.mark.parametrize(
    "make", [hostile_trace, lambda: hostile_trace()[:3], lambda: Script(BASE).trace()]
)
def test_any_trace_can_be_asked_about(make: Any) -> None:
    """Strange, short and empty traces give fewer questions, and none that a terminal obeys."""
    for question in quiz(make()):
        assert "\u202e" not in str(question)
        assert max(map(len, str(question).split("\n"))) < 100
    with pytest.raises(ValueError, match="part of a trace"):
        quiz(echo_trace()[3:])


def test_steps_of_a_newer_version_are_passed_over() -> None:
    """A step of an unknown kind leads to no question and can be told."""
    script = Script(BASE)
    ended = script.wait((LISTENER, READ))
    script.steps.append(UnknownStep(seq=9, t_ns=1, thread="x", cause=ended, name="New", values={}))
    trace = script.trace()
    assert len(quiz(trace)) == 0
    assert "not known here: New" in repr(Replay(trace).why(2))


# ---- one sort each ----------------------------------------------------------------------------


def test_order_within_a_batch_that_is_shown() -> None:
    """The batch stands in the picture, so its first is asked for; the wrong ones are its others."""
    question = about(echo_trace(), "the first of a batch")
    state = Replay(echo_trace()).state(question[-1].index)
    assert truth(question[-1]).endswith(f"(descriptor {state.batch[0].fd}).")


def test_what_a_batch_will_hold_is_never_asked() -> None:
    """No question has a wait for its subject whose answer the kernel alone decides."""
    for seed in range(10):
        trace = random_trace(seed)
        for question in quiz(trace, most=1_000):
            if isinstance(trace[question.index + 1], WaitEnded):
                assert question.about in ("a wakeup", "a wakeup that is on its way")


@pytest.mark.parametrize(
    ("edge", "answer"), [(False, "Yes: the next wait"), (True, "No: only when")]
)
def test_unread_bytes(edge: bool, answer: str) -> None:
    """Level-triggered, unread bytes are reported again; edge-triggered they are not."""
    script = Script(BASE)
    connection(script, 7, edge_triggered=edge)
    dispatch(script, script.wait((7, READ)), 7, 64)
    script.wait((7, READ))
    question = only(script.trace(), f"unread bytes, {'edge' if edge else 'level'}-triggered")
    assert truth(question).startswith(answer)
    assert question.text.startswith("Suppose ")


@pytest.mark.parametrize(
    "change",
    [
        "end",
        "blocked",
        "unread",
        "deleted",
        "modified",
        "oneshot",
        "datagram",
        "write",
        "exclusive",
    ],
)
def test_unread_bytes_are_not_asked_about_where_it_depends(change: str) -> None:
    """At the end of a stream, after would-block, for datagrams and such nobody asks."""
    script = Script(BASE)
    mode: dict[str, Any] = {"exclusive": change == "exclusive", "oneshot": change == "oneshot"}
    mode |= {"interest": "read write"} if change == "write" else {}
    if change == "datagram":
        script.add("main", 1, 7, "udp", "echo")
    else:
        connection(script, 7, **mode)
    ended = script.wait((7, READ))
    started = script.step("DispatchStarted", ended, fd=7, event=READ, flags=0, callback=2)
    if change != "unread":
        script.call("echo", 3, "Read", fd=7, count=0 if change == "end" else 64)
    if change == "blocked":
        script.call("echo", 3, "WouldBlock", fd=7, call="recv")
    if change == "deleted":
        script.call("goodbye", 1, "Deleted", fd=7)
    if change == "modified":
        script.add("echo", 5, 7, "a", "echo", kind="Modified", edge_triggered=change == "modified")
    script.step("DispatchEnded", started, fd=7)
    script.wait((7, READ))
    for mode_name in ("level", "edge"):
        assert about(script.trace(), f"unread bytes, {mode_name}-triggered") == []


@pytest.mark.parametrize("armed", [False, True])
def test_a_one_shot_that_fired(armed: bool) -> None:
    """A one-shot that fired reports nothing; one that was armed again is not asked about."""
    script = Script(BASE)
    connection(script, 7, oneshot=True)
    ended = script.wait((7, READ))
    started = script.step("DispatchStarted", ended, fd=7, event=READ, flags=0, callback=2)
    script.call("echo", 3, "Read", fd=7, count=5)
    if armed:
        script.add("echo", 5, 7, "a", "echo", kind="Modified", oneshot=True)
    script.step("DispatchEnded", started, fd=7)
    script.wait()
    questions = about(script.trace(), "a one-shot that fired")
    assert [truth(question).startswith("Nothing") for question in questions] == [True] * (not armed)


def test_a_deleted_event() -> None:
    """The event of a registration that was deleted in the batch is dropped."""
    script = Script(BASE)
    connection(script, 7)
    connection(script, 8)
    ended = script.wait((7, READ), (8, READ))
    started = script.step("DispatchStarted", ended, fd=7, event=READ, flags=0, callback=2)
    script.call("goodbye", 1, "Deleted", fd=8)
    script.step("DispatchEnded", started, fd=7)
    script.step("EventDropped", ended, fd=8, event=READ)
    script.wait()
    assert truth(only(script.trace(), "a deleted event")).startswith("It drops the event")


def test_a_deleted_event_that_may_come_back() -> None:
    """Registered again, the descriptor may be returned by the next wait: nobody asks."""
    script = Script(BASE)
    connection(script, 7)
    ended = script.wait((7, READ))
    script.call("goodbye", 1, "Deleted", fd=7, thread="other")
    script.add("main", 2, 7, "a", "echo", thread="other")
    started = script.step("DispatchStarted", ended, fd=LISTENER, event=READ, flags=0, callback=1)
    script.step("DispatchEnded", started, fd=LISTENER)
    script.step("EventDropped", ended, fd=7, event=READ)
    script.wait()
    assert about(script.trace(), "a deleted event") == []


def test_a_trigger_without_a_wakeup() -> None:
    """Where no wakeup is on its way, nobody asks why none is written."""
    script = Script(BASE)
    script.step("WaitStarted", timeout_ns=None, size=128)
    queued(script)
    queued(script)
    assert len(quiz(script.trace())) == 0


@pytest.mark.parametrize("second_write", [False, True])
def test_a_second_trigger(second_write: bool) -> None:
    """While a wakeup is on its way a trigger writes no more; where a race wrote, nobody asks."""
    script = Script(BASE)
    script.step("WaitStarted", timeout_ns=None, size=128)
    script.step("WakeupSent", queued(script))
    second = queued(script)
    queued(script)
    if second_write:
        script.step("WakeupSent", second)
    questions = about(script.trace(), "a wakeup that is on its way")
    assert [question.index for question in questions] == [4 if second_write else 3]


@pytest.mark.parametrize(("timeout", "asked"), [(None, 2), (10**9, 2), (0, 0)])
def test_a_trigger_and_its_wakeup(timeout: int | None, asked: int) -> None:
    """A trigger from another thread writes, and ends the wait of a loop that sleeps."""
    script = Script(BASE)
    script.step("WaitStarted", timeout_ns=timeout, size=128)
    script.thread = "other"
    sent = script.step("WakeupSent", queued(script))
    script.thread = "netpoll loop"
    script.step("WaitEnded", 1, events=((WAKEUP, READ),))
    script.step("WakeupReceived", sent)
    questions = quiz(script.trace())
    assert len(questions) == asked
    if asked:
        assert truth(questions[0]) == "The wakeup descriptor is written to."
        assert truth(questions[1]) == "The wait returns: the wakeup descriptor is ready."
        assert any("log_stats runs at once, on thread other" in c for c in questions[1].choices)


def test_a_trigger_of_a_signal_handler() -> None:
    """A trigger on the loop's own thread, during its wait, is no other thread's."""
    script = Script(BASE)
    script.step("WaitStarted", timeout_ns=None, size=128)
    script.step("WakeupSent", queued(script))
    script.step("WaitEnded", 1, events=((WAKEUP, READ),))
    assert [question.about for question in quiz(script.trace())] == ["a wakeup"]


@pytest.mark.parametrize("timer", [False, True])
def test_which_task_runs(timer: bool) -> None:
    """The oldest urgent task runs first; with a timer set, which may be due, nobody asks."""
    script = Script(BASE)
    low = queued(script, "goodbye", queue="low")
    first, second = queued(script, "log_stats"), queued(script, "echo")
    if timer:
        script.step("TimerSet", callback=4, delay_ns=10**9)
    ended = script.wait((WAKEUP, READ))
    script.step("WakeupReceived", ended)
    for task, name in ((first, "log_stats"), (second, "echo"), (low, "goodbye")):
        script.step("TaskEnded", script.step("TaskStarted", task, callback=script.ids[name]))
    if timer:
        assert about(script.trace(), "a task") == []
        return
    question = only(script.trace(), "a task")
    assert truth(question) == "It runs the task log_stats."
    assert {"It runs the task echo.", "It runs the task goodbye."} < set(question.choices)


def test_a_timer_that_is_due() -> None:
    """A wait that returned nothing is followed by the timer that is due."""
    script = Script(BASE)
    timer = script.step("TimerSet", callback=4, delay_ns=10**6)
    script.step("WaitStarted", timeout_ns=10**6, size=128)
    script.step("WaitEnded", 2, 10**6, events=())
    fired = script.step("TimerFired", timer, callback=4, late_ns=1)
    script.step("TaskEnded", script.step("TaskStarted", fired, callback=4))
    assert truth(only(script.trace(), "a timer")) == "It calls log_stats."


def test_the_end_of_a_round() -> None:
    """When the batch is done and nothing is queued, the next wait begins."""
    script = Script(BASE)
    connection(script, 7)
    dispatch(script, script.wait((7, READ)), 7)
    script.wait()
    assert truth(only(script.trace(), "the end of a round")).startswith("It begins the next wait")


def test_the_recorder_s_own_task_is_not_asked_about() -> None:
    """How a recording of a sleeping loop ends itself teaches nothing of the program."""
    poller = netpoll.open_poller()
    with netpoll.run_in_thread(poller, name="quiz"):
        recording = record(poller)
        done = threading.Event()
        poller.trigger(netpoll.EventPriority.LOW, lambda _: done.set())
        assert done.wait(5)
        recording.stop()
    questions = quiz(recording.trace, most=1_000)
    assert questions
    stops = [
        at
        for at, step in enumerate(recording.trace)
        if step.kind == "TaskQueued"
        and function_name(recording.trace, getattr(step, "callback", None)) == STOPPED_BY
    ]
    assert all(question.index < at for question in questions for at in stops)


@pytest.mark.parametrize("beside", ["ListChecked", "BatchResized"])
def test_a_step_beside_hides_no_question(beside: str) -> None:
    """The end of a round is asked about also where the recording wrote something between."""
    script = Script(BASE)
    connection(script, 7)
    dispatch(script, script.wait((7, READ)), 7)
    script.step(beside, **({"count": 1} if beside == "ListChecked" else {"size": 64}))
    script.wait()
    assert truth(only(script.trace(), "the end of a round")).startswith("It begins the next wait")
