"""What `lint` and `quiz` say of a trace, as plain values for the player's panels.

``static/findings.js`` and ``static/quiz.js`` show them. Steps are told by their index in the trace.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from tracer.lint import LINTS, lint, source_line, source_place
from tracer.quiz import MOST, quiz
from tracer.trace import Trace


def findings_json(trace: Trace) -> dict[str, Any]:
    """Return the findings of `lint`, and the lints that were looked for.

    ``searched`` counts the steps, ``lints`` has each lint's ``title``, ``why`` and ``how`` by its
    name, ``findings`` are in the order of the steps. Of each, ``index`` is where to look and
    ``indices`` are all the steps that show it, in the order of the trace. Raises ValueError for a
    part of a trace.
    """
    findings = lint(trace)
    order = [step.seq for step in trace] if findings else []
    return {
        "searched": len(trace),
        "lints": {
            name: {"title": _title(name), "why": about.why, "how": about.how}
            for name, about in LINTS.items()
        },
        "findings": [
            {
                "name": finding.name,
                "index": finding.number - 1,
                "indices": sorted({bisect_left(order, seq) for seq in finding.steps}),
                "place": source_place(finding.function, finding.line),
                "source": source_line(finding.function, finding.line),
                "text": finding.text,
                "times": finding.times,
            }
            for finding in findings
        ],
    }


def questions_json(trace: Trace, most: int = MOST) -> list[dict[str, Any]]:
    """Return the questions of `quiz`, with their answers.

    A question is asked while the state after the step ``index`` is shown; ``right`` is the number
    of the right choice, from 0; ``proof`` is the index of the step that has the answer, or None.
    Raises ValueError for a part of a trace.
    """
    values = []
    for question in quiz(trace, most=most):
        verdict = question.answer(0)  # nobody keeps the score of this quiz
        values.append(
            {
                "index": question.index,
                "text": question.text,
                "choices": list(question.choices),
                "right": question.choices.index(verdict.truth),
                "explanation": verdict.explanation,
                "proof": question.proof,
            }
        )
    return values


def _title(name: str) -> str:
    return name.replace("-", " ").capitalize()
