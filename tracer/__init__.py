"""tracer: records each step of a running netpoll loop and plays it back as a picture.

::

    recording = tracer.record(poller)
    ...
    recording.stop()
    tracer.play(recording.trace)

``import tracer`` needs the standard library alone: the widgets are imported when `play` is first
used, and Graphviz when something is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.diagram import GraphvizMissing, diagram
from tracer.diff import diff
from tracer.expect import expect, matching
from tracer.lint import lint
from tracer.page import write_page
from tracer.perfetto import perfetto
from tracer.quiz import quiz
from tracer.recorder import Recording, record
from tracer.replay import Replay
from tracer.socket_calls import name
from tracer.state import LoopState
from tracer.stats import stats
from tracer.trace import Trace, TraceFormatError, load

if TYPE_CHECKING:
    from tracer.player import Comparison, LivePlayer, Player, compare, live, play
    from tracer.prediction import Prediction, Verdict, predict

__all__ = [
    "Comparison",
    "GraphvizMissing",
    "LivePlayer",
    "LoopState",
    "Player",
    "Prediction",
    "Recording",
    "Replay",
    "Trace",
    "TraceFormatError",
    "Verdict",
    "compare",
    "diagram",
    "diff",
    "expect",
    "lint",
    "live",
    "load",
    "matching",
    "name",
    "perfetto",
    "play",
    "predict",
    "quiz",
    "record",
    "stats",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name in ("Comparison", "LivePlayer", "Player", "compare", "live", "play"):
        from tracer import player

        return getattr(player, name)
    if name in ("Prediction", "Verdict", "predict"):
        from tracer import prediction

        return getattr(prediction, name)
    raise AttributeError(f"module 'tracer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
