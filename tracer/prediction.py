"""A question before the replay: `predict` asks, and `Prediction.reveal` tells the answer later.

::

    guess = tracer.predict("How many callbacks run at once?", [1, 2, "one for each client"])
    guess

    ...  # run, replay

    guess.reveal(1, "The loop calls one callback after the other.")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import traitlets

from tracer.assets import prediction_module, prediction_style
from tracer.widget import Shown, close_those_of_the_last_run, running_cell

PROMPT = "Choose, then go on."
CODE = re.compile(r"`([^`]+)`")


class _Asking(Shown):
    """What the question and the verdict have in common: the front end."""

    _esm = prediction_module()
    _css = prediction_style()

    question = traitlets.Unicode().tag(sync=True)


class Prediction(_Asking):
    """A question with choices, shown as radio buttons; made by `predict`.

    The front end is told the question and the choices; `reveal` tells it the answer.
    """

    choices = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Int(None, allow_none=True).tag(sync=True)
    revealed = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)

    def __init__(self, question: str, choices: Sequence[Any]) -> None:
        self._objects = _checked(question, choices)
        self._told: int | None = None
        labels = [str(choice) for choice in self._objects]
        super().__init__(question=question.strip(), choices=labels)

    @traitlets.validate("chosen")
    def _one_of_them(self, proposal: dict[str, Any]) -> int | None:
        number: int | None = proposal["value"]
        if number is not None and not 0 <= number < len(self._objects):
            raise traitlets.TraitError(f"{number} is not the number of a choice.")
        return number

    @property
    def choice(self) -> Any:
        """What is chosen: the object that `predict` was given; None before."""
        return None if self.chosen is None else self._objects[self.chosen]

    def reveal(self, answer: object, because: str = "") -> Verdict:
        """Return a verdict: what was chosen, what is right, and `because`, why.

        As the last line of a notebook cell it is shown below it. The question is marked, too. The
        choice that counts is that of the first call.

        Raises ValueError when `answer` is not one of the choices: then what the notebook claims
        does not hold.
        """
        if not isinstance(because, str):
            raise TypeError(f"because is a text, not {because!r}.")
        right = next((i for i, one in enumerate(self._objects) if _same(one, answer)), None)
        if right is None:
            raise ValueError(
                f"The answer to {self.question!r} is {answer!r}, which is not one of the choices: "
                f"{', '.join(map(repr, self._objects))}."
            )
        if self.revealed is None:
            self._told = self.chosen
        said = self._told
        self.revealed = {"right": right, "said": said}
        verdict = Verdict(self.question, self.choices, right, said, because)
        close_those_of_the_last_run(verdict)
        return verdict

    @property
    def text(self) -> str:
        """The question and its choices; never the answer."""
        return "\n".join([self.question, *(f"- {choice}" for choice in self.choices), PROMPT])

    def standing_in(self) -> dict[str, str]:
        """Return the question and its choices as text and as HTML."""
        choices = "".join(f"<li>{_html(choice)}</li>" for choice in self.choices)
        page = f"<p><b>{_html(self.question)}</b></p><ul>{choices}</ul><p>{escape(PROMPT)}</p>"
        return {"text/plain": self.text, "text/html": page}


class Verdict(_Asking):
    """What was predicted, what is right, and why; made by `Prediction.reveal`.

    `result` is ``"right"``, ``"wrong"``, or ``"none"`` when nothing was chosen.
    """

    result = traitlets.Unicode().tag(sync=True)
    before = traitlets.Unicode().tag(sync=True)
    verdict = traitlets.Unicode().tag(sync=True)
    after = traitlets.Unicode().tag(sync=True)
    because = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, question: str, choices: list[str], right: int, said: int | None, because: str
    ) -> None:
        before = after = ""
        verdict = f"It is {_told(choices[right])}."
        if said is None:
            result, after = "none", "(You had not chosen.)"
        else:
            before = f"You said {_told(choices[said])}."
            result = "right" if said == right else "wrong"
            if said == right:
                verdict = "Right."
        super().__init__(
            question=_in_short(question),
            result=result,
            before=before,
            verdict=verdict,
            after=after,
            because=because.strip(),
        )

    @property
    def text(self) -> str:
        """The question, the verdict, and why."""
        told = " ".join(filter(None, [self.before, self.verdict, self.after]))
        return "\n".join(filter(None, [self.question, told, self.because]))

    def standing_in(self) -> dict[str, str]:
        """Return the verdict as text and as HTML."""
        told = f"{_html(self.before)} <b>{_html(self.verdict)}</b> {escape(self.after)}".strip()
        parts = [_html(self.question), told, _html(self.because)]
        page = "".join(f"<p>{part}</p>" for part in parts if part)
        return {"text/plain": self.text, "text/html": page}


def predict(question: str, choices: Sequence[Any]) -> Prediction:
    """Return a question with radio buttons, one for each of `choices`, to be answered by `reveal`.

    As the last line of a notebook cell it is shown below it. A choice is any object, shown as
    `str` gives it; ``choice`` is what the reader chose. `code` between backticks is shown as such.
    The cell run again begins anew; before the answer was revealed, it keeps what was chosen.

    Raises ValueError for fewer than two choices, for two that are equal or look equal, and for an
    empty text.
    """
    shown = Prediction(question, choices)
    cell, _ = running_cell()
    if cell:
        # Who clicks a choice is in this cell: Shift+Enter runs it again, and must lose nothing.
        key = (cell, shown.question, tuple(shown.choices))
        before = _asked.get(key)
        if before is not None and before.revealed is None:
            shown.chosen = before.chosen
        _asked[key] = shown
    close_those_of_the_last_run(shown)
    return shown


_asked: dict[tuple[str, str, tuple[str, ...]], Prediction] = {}
"""The latest prediction by cell, question and choices."""


def _checked(question: str, choices: Sequence[Any]) -> list[Any]:
    if not isinstance(question, str):
        raise TypeError(f"The question is a text, not {question!r}.")
    if not isinstance(choices, Sequence) or isinstance(choices, str | bytes):
        raise TypeError(f"The choices are a list, not {choices!r}.")
    if not question.strip():
        raise ValueError("The question is empty.")
    objects = list(choices)
    if len(objects) < 2:
        raise ValueError(f"A question has at least two choices, not {objects!r}.")
    for number, choice in enumerate(objects):
        label = str(choice).strip()
        if not label:
            raise ValueError(f"Choice {number + 1} is empty: {choice!r}.")
        for other in objects[:number]:
            if _same(choice, other) or label == str(other).strip():
                raise ValueError(f"Two choices are equal: {other!r} and {choice!r}.")
    return objects


def _same(one: object, other: object) -> bool:
    """Whether two objects are one choice: ``True`` is not ``1``."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _told(choice: str) -> str:
    """Return a choice as part of a sentence: between quotes when it is several words."""
    text = choice.strip().rstrip(".")
    return f"“{text}”" if len(text.split()) > 1 else text


def _in_short(question: str) -> str:
    """Return the question proper: the last sentence, where that is one."""
    last = re.split(r"(?<=[.!?])\s+", question)[-1]
    return last if last.endswith("?") and last.count("`") % 2 == 0 else question


def _html(text: str) -> str:
    return CODE.sub(r"<code>\1</code>", escape(text))
