"""The player in a notebook: `play(trace)` shows a recorded loop, to step through.

The only file of the tracer that needs Jupyter's widgets.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Protocol

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError(
        "The player needs Jupyter's widgets: "
        'install them with `pip install "netpoll-tracer[lab]"`.'
    ) from error

from tracer.assets import module, style
from tracer.diagram import GraphvizMissing, diagram, draw, layout
from tracer.replay import Replay
from tracer.trace import Trace
from tracer.words import sentence


class Recorded(Protocol):
    """What has a trace, such as a recording."""

    @property
    def trace(self) -> Trace:
        """The trace, as it is now."""


class Player(anywidget.AnyWidget):
    """A replay of `trace`: the picture, the words and the controls.

    `step` is how many steps have happened in what is shown, from 0 to ``len(trace)``; set it from
    Python, or read where the reader stands. What the trace holds when the player is made is what
    it shows.
    """

    _esm = module()
    _css = style()

    trace_text = traitlets.Bytes().tag(sync=True)
    svg = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    step = traitlets.Int().tag(sync=True)

    def __init__(self, trace: Trace, *, step: int = 0) -> None:
        steps = list(trace)
        self.trace = Trace(trace.base, dict(trace.functions), steps, truncated=trace.truncated)
        self._replay = Replay(self.trace)
        svg, problem = "", ""
        try:
            svg = layout(self.trace)
        except GraphvizMissing as error:
            problem = str(error)
        text = "".join(self.trace.to_lines()).encode(errors="replace")
        super().__init__(trace_text=text, svg=svg, problem=problem, step=step)

    def close(self) -> None:
        """Take the player away, in the front end and in the kernel."""
        layout = self.layout
        super().close()
        if layout is not None:
            layout.close()

    @traitlets.validate("step")
    def _within(self, proposal: dict[str, Any]) -> int:
        return max(0, min(len(self.trace), int(proposal["value"])))

    @property
    def text(self) -> str:
        """The sentence for the step that is shown."""
        state = self._replay.state(self.step - 1)
        step = self.trace[self.step - 1] if self.step else None
        return f"Step {self.step} of {len(self.trace)}. {sentence(step, state, self.trace)}"

    def still(self) -> str:
        """Return the picture of the step that is shown, as SVG.

        Raises `GraphvizMissing` or ImportError when it can't be drawn.
        """
        state = self._replay.state(self.step - 1)
        before = self._replay.state(self.step - 2) if self.step else None
        return draw(diagram(state, self.trace, before))

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        # Where no front end runs, the sentence and the still picture stand in.
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        data, metadata = bundle
        data["text/plain"] = self.text
        with suppress(GraphvizMissing, ImportError):
            data["image/svg+xml"] = self.still()
        return data, metadata


def play(recorded: Trace | Recorded, *, step: int = 0) -> Player:
    """Return a player for a trace, or for what a recording has written down so far.

    As the last line of a notebook cell it is shown below it.
    """
    trace = recorded if isinstance(recorded, Trace) else recorded.trace
    shown = Player(trace, step=step)
    _close_those_of_the_last_run(shown)
    return shown


_of_cell: dict[str, tuple[str, list[Player]]] = {}


def _close_those_of_the_last_run(shown: Player) -> None:
    """Close the players that the running cell made when it ran before.

    ipywidgets keeps every widget, and its trace, until it is closed.
    """
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = (parent.get("metadata") or {}).get("cellId")
    run = (parent.get("header") or {}).get("msg_id", "")
    if not cell:
        return
    last_run, players = _of_cell.get(cell, ("", []))
    if run != last_run:
        for old in players:
            old.close()
        players = []
    _of_cell[cell] = (run, [*players, shown])
