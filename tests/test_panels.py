"""`findings_json` and `questions_json`: what lint and quiz say, as the player's panels read it."""

from __future__ import annotations

import json

import pytest

from tests.traces import HOSTILE, READ, Script, echo_trace, hostile_trace, random_trace
from tracer.lint import LINTS, lint
from tracer.panels import findings_json, questions_json
from tracer.quiz import MOST, quiz
from tracer.steps import DispatchStarted, WaitEnded
from tracer.trace import BaseState, Trace


def failing(name: str = "echo", sources: dict[str, str] | None = None) -> Trace:
    """Return a trace in which the callback `name` raises twice; its first `seq` is 2."""
    script = Script(BaseState("epoll", 4, 5, 128, running=True), sources)
    for _ in range(2):
        ended = script.wait((7, READ))
        callback = script.ids[name]
        started = script.step(
            "DispatchStarted", ended, fd=7, event=READ, flags=0, callback=callback
        )
        script.step("DispatchEnded", started, fd=7, error=f"ValueError: {name}")
    return Trace(script.base, script.functions, script.steps[1:])


def test_finding_says_where_to_look() -> None:
    """A finding has the indices of its steps, not their `seq`, and its place, line and words."""
    trace = failing()
    values = findings_json(trace)
    (found,) = values["findings"]
    assert found["name"] == "exception-logged"
    first, *others = (trace[index] for index in found["indices"])
    assert found["index"] == found["indices"][0] == 1
    assert isinstance(first, DispatchStarted)
    assert [step.kind for step in others] == ["DispatchEnded"]
    assert found["place"] == "server.py line 50 in echo"
    assert found["source"] == "def echo(fd, event, flags):"
    assert found["text"] == "echo raised ValueError: echo"
    assert found["times"] == 2


def test_findings_come_with_every_lint() -> None:
    """What was looked for is told with a title in words, also when nothing was found."""
    values = findings_json(echo_trace())
    assert values["findings"] == []
    assert values["searched"] == len(echo_trace())
    assert list(values["lints"]) == list(LINTS)
    assert values["lints"]["edge-not-drained"] == {
        "title": "Edge not drained",
        "why": LINTS["edge-not-drained"].why,
        "how": LINTS["edge-not-drained"].how,
    }


@pytest.mark.parametrize("seed", range(6))
def test_findings_are_those_of_lint(seed: int) -> None:
    """Every finding of `lint` is there, in its order, at the step that it names."""
    trace = random_trace(seed, rounds=60)
    found, values = lint(trace), findings_json(trace)["findings"]
    assert [value["name"] for value in values] == [finding.name for finding in found]
    for value, finding in zip(values, found, strict=True):
        assert trace[value["index"]].seq == finding.steps[0]
        assert {trace[index].seq for index in value["indices"]} == set(finding.steps)
        assert value["indices"] == sorted(value["indices"])


@pytest.mark.parametrize("seed", range(6))
def test_questions_are_those_of_quiz(seed: int) -> None:
    """Every question is there, with the right choice and the explanation that `answer` gives."""
    trace = random_trace(seed, rounds=60)
    values = questions_json(trace, most=1_000)
    asked = quiz(trace, most=1_000)
    assert len(values) == len(asked) > 4
    for value, question in zip(values, asked, strict=True):
        verdict = question.answer(value["right"])
        assert verdict.right
        assert value["explanation"] == verdict.explanation
        assert value["choices"] == list(question.choices)
        assert (value["index"], value["text"]) == (question.index, question.text)


def test_proof_is_the_step_that_has_the_answer() -> None:
    """A question has the index of the step that proves it; one about a supposition has none."""
    woken = supposed = 0
    for seed in range(6):
        trace = random_trace(seed, rounds=60)
        for value in questions_json(trace, most=1_000):
            if value["text"].startswith("Suppose"):
                supposed += 1
                assert value["proof"] is None
            elif value["text"].startswith("The loop sleeps in its wait"):
                woken += 1
                assert value["proof"] == value["index"] + 1
                assert isinstance(trace[value["proof"]], WaitEnded)
    assert woken
    assert supposed


def test_at_most_so_many_questions() -> None:
    """There are at most `most` questions, twelve unless the caller says otherwise."""
    trace = random_trace(3, rounds=60)
    assert len(questions_json(trace)) == MOST == 12
    assert len(questions_json(trace, most=2)) == 2
    assert questions_json(Trace(trace.base, {}, [])) == []


def test_values_are_plain_and_harmless() -> None:
    """They go through JSON unchanged; names are cut and have no control or direction marks."""
    named = failing(HOSTILE, {HOSTILE: HOSTILE})
    found = findings_json(named)
    assert found["findings"][0]["source"].startswith("<script>")
    for value in (found, questions_json(named), questions_json(hostile_trace())):
        text = json.dumps(value)
        assert json.loads(text) == value
        assert len(text) < 10_000
        assert "\\n" not in text
        assert "\\u202e" not in text


def test_part_of_a_trace_is_refused() -> None:
    """A slice proves nothing, so both raise ValueError."""
    for make in (findings_json, questions_json):
        with pytest.raises(ValueError, match="part"):
            make(echo_trace()[3:9])
