"""What the front end is given to show: plain values, the same for a notebook and for a page.

``static/player.js`` reads them by these names.
"""

from __future__ import annotations

import json
from typing import Any

from tracer.diagram import GraphvizMissing, compact_layout, layout, live_layout
from tracer.pairing import pair
from tracer.panels import findings_json, questions_json
from tracer.trace import Trace

Values = dict[str, Any]


def replayed(trace: Trace) -> Values:
    """Return what a player of one trace begins with."""
    values: Values = {"trace_text": text_of(trace), "svg": "", "problem": ""}
    try:
        values["svg"] = layout(trace)
    except GraphvizMissing as error:
        values["problem"] = str(error)
    return values


def followed(trace: Trace) -> Values:
    """Return what a player of a running loop begins with: the base state, and room for the rest."""
    values: Values = {"trace_text": text_of(trace[:0]), "svg": "", "problem": ""}
    try:
        values["svg"] = live_layout()
    except GraphvizMissing as error:
        values["problem"] = str(error)
    return values


def findings_of(trace: Trace) -> str:
    """Return what `lint` finds, as JSON text."""
    return json.dumps(findings_json(trace))


def questions_of(trace: Trace) -> str:
    """Return the questions of `quiz`, as JSON text."""
    return json.dumps(questions_json(trace))


def compared(a: Trace, b: Trace, labels: tuple[str, str]) -> Values:
    """Return what the view of two traces side by side begins with.

    Raises ValueError for a part of a trace.
    """
    pairing = pair(a, b)
    ways = {"labels": list(labels), "ways": pairing.to_json(), "divergence": pairing.divergence()}
    values: Values = {
        "trace_text": text_of(a),
        "other_text": text_of(b),
        "svg": "",
        "problem": "",
        "pairing": json.dumps(ways),
    }
    try:
        values["svg"] = compact_layout(a, b)
    except GraphvizMissing as error:
        values["problem"] = str(error)
    return values


def text_of(trace: Trace) -> str:
    """Return the text of the trace's file."""
    return "".join(trace.to_lines())
