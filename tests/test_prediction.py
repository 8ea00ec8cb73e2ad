"""A prediction and its verdict, on the kernel's side."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import escape
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("anywidget", reason="a prediction needs anywidget: pip install anywidget")

import traitlets

import tracer
from tracer.assets import prediction_style, style
from tracer.prediction import Prediction, Verdict, predict

QUESTION = "The server has one thread. How many callbacks run at once, at most?"
CHOICES = [1, 2, "as many as there are clients"]
HOSTILE = "</legend><script>alert(1)</script> & `<b>`"


def told(verdict: Verdict) -> str:
    """The line that says what was chosen and what is right."""
    return verdict.text.splitlines()[1]


def in_cells(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Pretend to be a kernel; what is returned says which cell runs, and which run that is."""
    parent = {"metadata": {"cellId": "cell 1"}, "header": {"msg_id": "run 1"}}
    shell = SimpleNamespace(get_parent=lambda: parent)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    return parent


def test_choice_is_the_object_that_was_given() -> None:
    """Before anybody chooses it is None; then it is the object, not its text."""
    guess = tracer.predict(QUESTION, CHOICES)
    assert isinstance(guess, tracer.Prediction)
    assert guess.choices == ["1", "2", "as many as there are clients"]
    assert guess.choice is None
    guess.set_state({"chosen": 1})  # as the front end does it
    assert guess.choice == 2
    with pytest.raises(traitlets.TraitError):
        guess.chosen = 3


def test_verdict_says_what_was_chosen_and_what_is_right() -> None:
    """Right, wrong, and nothing chosen each have their words; several words stand in quotes."""
    lines = {}
    for chosen in (None, 0, 1, 2):
        guess = predict(QUESTION, CHOICES)
        guess.chosen = chosen
        verdict = guess.reveal(1, "One after the other.")
        assert isinstance(verdict, tracer.Verdict)
        first, _, last = verdict.text.splitlines()
        assert (first, last) == ("How many callbacks run at once, at most?", "One after the other.")
        lines[chosen] = (verdict.result, told(verdict))
    assert lines == {
        None: ("none", "It is 1. (You had not chosen.)"),
        0: ("right", "You said 1. Right."),
        1: ("wrong", "You said 2. It is 1."),
        2: ("wrong", "You said “as many as there are clients”. It is 1."),
    }


def test_question_in_short_is_its_last_sentence() -> None:
    """The verdict repeats the question proper; the whole, where its last sentence is none."""
    for question, short in {
        "It sleeps. How long?": "How long?",
        "Which is it: `recv` or `send`?": "Which is it: `recv` or `send`?",
        "How long? Choose.": "How long? Choose.",
        "What does `a. b?` do?": "What does `a. b?` do?",
    }.items():
        assert predict(question, [1, 2]).reveal(1).question == short


def test_first_reveal_counts() -> None:
    """Who chooses after the first reveal is still told what he said before it."""
    guess = predict(QUESTION, CHOICES)
    guess.chosen = 1
    assert told(guess.reveal(1)) == "You said 2. It is 1."
    guess.chosen = 0
    assert guess.choice == 1
    assert told(guess.reveal(1)) == "You said 2. It is 1."
    assert told(guess.reveal(2)) == "You said 2. Right."
    assert guess.revealed == {"right": 1, "said": 1}


def test_true_is_not_one() -> None:
    """``True == 1`` in Python; as a choice and as an answer they differ."""
    guess = predict("Which?", [1, True, False, 0])
    for number, answer in enumerate([1, True, False, 0]):
        guess.reveal(answer)
        assert guess.revealed is not None
        assert guess.revealed["right"] == number
    with pytest.raises(ValueError, match="not one of"):
        predict("Which?", [1, 2]).reveal(True)
    with pytest.raises(ValueError, match="not one of"):
        predict("Which?", [True, False]).reveal(1)


def test_wrong_claim_is_an_error() -> None:
    """An answer that is no choice names itself and the choices, and reveals nothing."""
    guess = predict("Which?", [1, "two"])
    with pytest.raises(
        ValueError, match=re.escape("'Which?' is 3, which is not one of the choices")
    ):
        guess.reveal(3)
    with pytest.raises(ValueError, match=re.escape("the choices: 1, 'two'.")):
        guess.reveal("1")
    assert guess.revealed is None
    with pytest.raises(TypeError, match="because"):
        guess.reveal(1, 2)


@pytest.mark.parametrize(
    ("question", "choices", "error", "says"),
    [
        ("Which?", [], ValueError, "at least two"),
        ("Which?", [1], ValueError, "at least two"),
        ("Which?", [1, 2, 1], ValueError, "equal: 1 and 1"),
        ("Which?", [1, 1.0], ValueError, "equal"),
        ("Which?", [1, "1"], ValueError, "equal: 1 and '1'"),
        ("Which?", ["one", " one "], ValueError, "equal"),
        ("Which?", ["one", "  "], ValueError, "Choice 2 is empty"),
        (" \n", [1, 2], ValueError, "question is empty"),
        (None, [1, 2], TypeError, "question"),
        ("Which?", "ab", TypeError, "list"),
        ("Which?", {1, 2}, TypeError, "list"),
        ("Which?", None, TypeError, "list"),
    ],
)
def test_what_can_be_no_question(
    question: Any, choices: Any, error: type[Exception], says: str
) -> None:
    """Too few choices, equal ones, empty texts and wrong types are refused, each in its words."""
    with pytest.raises(error, match=says):
        predict(question, choices)


def test_answer_stays_in_the_kernel() -> None:
    """What the front end gets before the reveal has the question and the choices, and no more."""
    guess = predict(QUESTION, CHOICES)
    own = {name: value for name, value in guess.get_state().items() if name in Prediction.__dict__}
    assert own == {"choices": guess.choices, "chosen": None, "revealed": None}
    guess.reveal(2)
    assert guess.get_state()["revealed"] == {"right": 1, "said": None}


def test_static_fallback() -> None:
    """Where no front end runs, the texts stand in: nothing in them is markup but code."""
    guess = predict(HOSTILE, [HOSTILE, "`recv`"])
    data, _ = guess._repr_mimebundle_() or ({}, {})
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"] == f"{HOSTILE}\n- {HOSTILE}\n- `recv`\nChoose, then go on."
    safe = escape("</legend><script>alert(1)</script> & ") + "<code>&lt;b&gt;</code>"
    assert data["text/html"] == (
        f"<p><b>{safe}</b></p><ul><li>{safe}</li><li><code>recv</code></li></ul>"
        "<p>Choose, then go on.</p>"
    )
    guess.chosen = 1
    data, _ = guess.reveal(HOSTILE, HOSTILE)._repr_mimebundle_() or ({}, {})
    assert data["text/plain"].splitlines() == [
        HOSTILE,
        f"You said `recv`. It is “{HOSTILE}”.",
        HOSTILE,
    ]
    assert data["text/html"] == (
        f"<p>{safe}</p><p>You said <code>recv</code>. <b>It is “{safe}”.</b></p><p>{safe}</p>"
    )


def test_running_a_cell_again_closes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that runs again closes the question, or the verdict, of its last run alone."""
    parent = in_cells(monkeypatch)
    first = predict(QUESTION, CHOICES)
    parent["metadata"]["cellId"] = "cell 2"
    other = predict("Another?", [1, 2])
    parent["metadata"]["cellId"] = "cell 3"
    verdict = first.reveal(1)
    assert None not in (first.comm, other.comm, verdict.comm)
    parent["header"]["msg_id"] = "run 2"
    again = first.reveal(1)
    assert verdict.comm is None
    assert None not in (first.comm, other.comm, again.comm)
    parent["metadata"]["cellId"] = "cell 1"
    second = predict(QUESTION, CHOICES)
    assert first.comm is None
    assert None not in (second.comm, other.comm, again.comm)


def test_running_a_cell_again_keeps_the_choice_until_the_reveal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shift+Enter after a click loses nothing; after the reveal the question begins anew."""
    parent = in_cells(monkeypatch)
    first = predict(QUESTION, CHOICES)
    first.chosen = 2
    parent["header"]["msg_id"] = "run 2"
    second = predict(QUESTION, CHOICES)
    assert second.choice == CHOICES[2]
    assert predict(QUESTION, ["1", 2]).choice is None  # other choices
    parent["metadata"]["cellId"] = "cell 2"
    assert predict(QUESTION, CHOICES).choice is None  # another cell
    second.reveal(1)
    parent["metadata"]["cellId"] = "cell 1"
    parent["header"]["msg_id"] = "run 3"
    third = predict(QUESTION, CHOICES)
    assert third.choice is None
    assert third.revealed is None
    third.chosen = 0
    assert told(third.reveal(1)) == "You said 1. Right."


def test_closing_leaves_nothing_behind() -> None:
    """A closed question and a closed verdict are gone from the registry of widgets."""
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)
    guess = predict(QUESTION, CHOICES)
    verdict = guess.reveal(1)
    assert len(set(_instances) - before) == 4  # each with its layout
    guess.close()
    verdict.close()
    assert set(_instances) == before


def test_colors_are_those_of_the_player() -> None:
    """Each color and font of the style sheet has the value that it has in the player."""
    declared = re.compile(r"(--[\w-]+: [^;]+);")
    ours = declared.findall(prediction_style())
    assert len(ours) > 10
    assert set(ours) <= set(declared.findall(style()))


def test_state_is_json() -> None:
    """What goes to the front end is text and numbers, whatever the choices are."""
    guess = predict("Which?", [object, {"a": 1}, None])
    own = {key: guess.get_state()[key] for key in ("question", "choices", "chosen", "revealed")}
    assert json.loads(json.dumps(own))["choices"] == ["<class 'object'>", "{'a': 1}", "None"]


def test_missing_anywidget_says_what_to_install() -> None:
    """`import tracer` works without anywidget; `tracer.predict` says which command installs it."""
    code = "import sys; sys.modules['anywidget'] = None; import tracer; tracer.predict"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "netpoll-tracer[lab]"' in done.stderr
