"""The sentences, and the words they are made of."""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable

import pytest

import tracer.contents
import tracer.words
from tests.traces import READ, WAKEUP, Script, echo_trace, hostile_trace, random_trace
from tracer.replay import Replay
from tracer.steps import EVENT_NAMES, STEP_KINDS
from tracer.trace import BaseState, Trace
from tracer.words import duration, event_words, label, sentence, shown, words


def told(trace: Trace, number: int) -> str:
    """Return the sentence of the step `number`, from 1."""
    return sentence(trace[number - 1], Replay(trace).state(number - 1), trace)


def test_sentences_of_an_echo() -> None:
    """The sentences of the echo server's trace read as written here."""
    trace = echo_trace()
    assert sentence(None, Replay(trace).state(-1), trace) == (
        "The recording begins. Nothing is on the list of what the kernel watches;"
        " the loop is not running yet."
    )
    assert told(trace, 2) == (
        "main tried to register listener :9090 (descriptor 6), but the call failed"
        " and changed nothing: AlreadyRegistered: 6"
    )
    assert told(trace, 13) == "echo read 5 bytes from client A (descriptor 7)."
    assert told(trace, 38) == (
        "The wait ended after 800 µs with a batch of 2 events:"
        " client A (descriptor 7) can be read; client C (descriptor 9) can be read."
    )
    assert told(trace, 42) == "echo returned to the loop; 1 event of this batch to go."
    assert told(trace, 52) == "The loop called the task log_stats."


def test_dropped_event_keeps_its_old_name() -> None:
    """An event that waited in the batch is told with the name it had when it was returned."""
    script = Script(BaseState("epoll", 4, WAKEUP, 128, running=True))
    for peer in ("a:1", "b:2"):
        script.call("on_connection", 3, "Accepted", fd=6, new_fd=7, peer=peer)
        if peer == "a:1":
            script.add("on_connection", 8, 7, peer, "echo")
            script.wait((7, READ))
    script.step("EventDropped", None, fd=7, event=READ)
    assert told(script.trace(), 6).startswith("The loop dropped the event of client A (desc")


def test_every_kind_has_words() -> None:
    """Each kind of step has a label and a text, and nothing else has."""
    assert set(words()["steps"]) == {*STEP_KINDS, "unknown"}
    assert all({"label", "text"} <= set(texts) for texts in words()["steps"].values())
    assert {bit: names[0] for bit, names in words()["events"].items()} == {
        str(bit): name for bit, name in EVENT_NAMES.items()
    }


def test_every_tooltip_has_its_term() -> None:
    """Each tooltip of the picture names a term of the glossary."""
    assert set(words()["tooltips"].values()) <= set(words()["glossary"])


@pytest.mark.parametrize("make", [echo_trace, hostile_trace, lambda: random_trace(7)])
def test_every_step_can_be_told(make: Callable[[], Trace]) -> None:
    """No sentence is empty, holds an unfilled field, a line break or a control character."""
    trace = make()
    replay = Replay(trace)
    for index, step in enumerate(trace):
        text = sentence(step, replay.state(index), trace)
        assert label(step)
        assert not re.search(r"\{\w+\}|None|[\x00-\x1f\u202e]", text), text
        assert 10 < len(text) < 400


def test_long_and_hostile_names_are_made_harmless() -> None:
    """A name is cut, put on one line and freed of marks that turn the direction of text."""
    assert shown("a\nb\tc") == "a b c"
    assert shown("abc\u202edef\x9b") == "abc\ufffddef\ufffd"
    assert shown("x" * 100, 10) == "x" * 9 + "…"


def test_numbers_and_events() -> None:
    """Times carry the unit that fits; an event's bits are all told."""
    assert [duration(ns) for ns in (0, 999, 1_250, 99_999, 2_000_000, 10**12)] == [
        "0 ns",
        "999 ns",
        "1.2 µs",
        "99.9 µs",
        "2.0 ms",
        "1,000 s",
    ]
    assert event_words(0x2001) == "can be read and will get no more data"
    assert event_words(0) == "is ready"


def test_examples_in_docstrings() -> None:
    """The examples in the docstrings give what they say."""
    assert doctest.testmod(tracer.words).failed == 0
    assert doctest.testmod(tracer.contents).failed == 0
