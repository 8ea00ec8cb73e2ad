"""The player in a notebook: `play(trace)` shows a recorded loop, to step through.

What it shares with other widgets stands in `tracer.widget`.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import traitlets

from tracer.assets import module, style
from tracer.diagram import GraphvizMissing, diagram, draw
from tracer.diff import diff
from tracer.follower import Follower
from tracer.model import compared, findings_of, followed, questions_of, replayed
from tracer.recorder import Recording, record
from tracer.replay import Replay
from tracer.trace import Trace
from tracer.widget import Shown, close_those_of_the_last_run
from tracer.words import sentence

if TYPE_CHECKING:
    from netpoll.poller import Poller

AT_ONCE = 20_000
"""In a trace of so many steps mistakes and questions are looked for before anybody asks."""


class Recorded(Protocol):
    """What has a trace, such as a recording."""

    @property
    def trace(self) -> Trace:
        """The trace, as it is now."""


class _Replayed(Shown):
    """What players have in common: the front end, the picture's layout, the still picture."""

    _esm = module()
    _css = style()

    trace_text = traitlets.Bytes().tag(sync=True)
    svg = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    step = traitlets.Int().tag(sync=True)

    def still(self) -> str:
        """Return the picture of the step that is shown, as SVG."""
        raise NotImplementedError

    def standing_in(self) -> dict[str, str]:
        """Return the sentence and the still picture."""
        data = super().standing_in()
        with suppress(GraphvizMissing, ImportError):
            svg = self.still()
            address = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
            data["text/html"] += f'<img alt="" style="max-width: 100%" src="{address}">'
            data["image/svg+xml"] = svg
        return data


class Player(_Replayed):
    """A replay of `trace`: the picture, the words, the controls, and what stands around them.

    `step` is how many steps have happened in what is shown, from 0 to ``len(trace)``; set it from
    Python, or read where the reader stands. `score` tells how the quiz goes: ``right``, ``asked``
    and ``total``. What the trace holds when the player is made is what it shows.
    """

    findings = traitlets.Unicode().tag(sync=True)
    questions = traitlets.Unicode().tag(sync=True)
    quiz = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    score = traitlets.Dict(default_value={}).tag(sync=True)

    def __init__(self, trace: Trace, *, step: int = 0) -> None:
        steps = list(trace)
        self.trace = Trace(
            trace.base,
            dict(trace.functions),
            steps,
            truncated=trace.truncated,
            partial=trace.partial,
        )
        self._replay = Replay(self.trace)
        super().__init__(step=step, **_as_bytes(replayed(self.trace)))
        self.on_msg(self._asked)
        if len(self.trace) <= AT_ONCE:
            self._asked(self, {"type": "findings"}, [])
            self._asked(self, {"type": "questions"}, [])

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
        return _still(self._replay, self.step)

    def _asked(self, _: object, message: dict[str, Any], buffers: list[bytes]) -> None:
        # Looking for mistakes takes a while in a long trace: the front end asks when it is to be
        # shown.
        if message.get("type") == "findings":
            self.findings = findings_of(self.trace)
        elif message.get("type") == "questions":
            self.questions = questions_of(self.trace)


class Comparison(_Replayed):
    """Two replays in step, side by side; made by `compare`. `step` is that of the first."""

    other_text = traitlets.Bytes().tag(sync=True)
    pairing = traitlets.Unicode().tag(sync=True)

    def __init__(self, a: Trace, b: Trace, labels: tuple[str, str]) -> None:
        self.traces = (a, b)
        self.labels = labels
        self._replay = Replay(a)
        super().__init__(step=0, **_as_bytes(compared(a, b, labels)))

    @property
    def text(self) -> str:
        """Which two runs these are, and where they part."""
        difference = diff(*self.traces)
        told = str(difference) if difference else "They are equal."
        return f"{self.labels[0]} beside {self.labels[1]}. {told}"

    def still(self) -> str:
        """Return the picture of the first run at the step that is shown, as SVG."""
        return _still(self._replay, self.step)


class LivePlayer(_Replayed):
    """A view of a loop while it runs; made by `live`. `close` ends it and the recording.

    `recording` writes down what it shows, and holds the newest steps.
    """

    live = traitlets.Bool(True).tag(sync=True)
    most = traitlets.Int().tag(sync=True)

    def __init__(self, recording: Recording, most: int) -> None:
        self.recording = recording
        super().__init__(most=most, **_as_bytes(followed(recording.trace)))
        self._follower = Follower(recording, self.send)
        self.on_msg(lambda _, message, buffers: self._follower.receive(message))
        self._follower.start()

    def stop(self) -> None:
        """End the recording; what it holds stays in the view. `recording.trace` can be played."""
        self.recording.stop()

    def close(self) -> None:
        """Take the view away, and end the recording."""
        self._follower.stop()
        with suppress(TimeoutError):
            self.recording.stop()
        super().close()

    @property
    def text(self) -> str:
        """What the view is of, and how far it has come."""
        return f"A live view of {self.recording!r}."

    def still(self) -> str:
        """Return the picture of the newest step, as SVG."""
        replay = Replay(self.recording.trace[:])
        return _still(replay, len(replay))


def play(recorded: Trace | Recorded, *, step: int = 0) -> Player:
    """Return a player for a trace, or for what a recording has written down so far.

    As the last line of a notebook cell it is shown below it.
    """
    shown = Player(_trace_of(recorded), step=step)
    close_those_of_the_last_run(shown)
    return shown


def compare(
    a: Trace | Recorded, b: Trace | Recorded, *, labels: tuple[str, str] = ("first", "second")
) -> Comparison:
    """Return two players in step, side by side, with the first difference of the runs marked.

    They go round by round, or by the time since each began. `labels` say what the two are.
    """
    shown = Comparison(_trace_of(a), _trace_of(b), labels)
    close_those_of_the_last_run(shown)
    return shown


def _as_bytes(values: dict[str, Any]) -> dict[str, Any]:
    # Text of a trace goes to the front end as bytes: in a message of its own, and not as JSON.
    texts = ("trace_text", "other_text")
    return {
        name: value.encode(errors="replace") if name in texts else value
        for name, value in values.items()
    }


def live(poller: Poller, *, io: bool = True, limit: int = 20_000) -> LivePlayer:
    """Return a player that follows `poller` while it runs.

    It records the poller, as `record` does, until it is closed: about `limit` of the newest steps
    can be seen. The loop does not wait for the browser. Stepping back holds the view still; the
    button Live goes on with the newest step. As the last line of a notebook cell it is shown below
    it; run again, the cell ends the one before.
    """
    recording = record(poller, io=io, limit=limit)
    shown = LivePlayer(recording, limit)
    close_those_of_the_last_run(shown)
    return shown


def _trace_of(recorded: Trace | Recorded) -> Trace:
    return recorded if isinstance(recorded, Trace) else recorded.trace


def _still(replay: Replay, step: int) -> str:
    state = replay.state(step - 1)
    before = replay.state(step - 2) if step else None
    return draw(diagram(state, replay.trace, before))
