"""`Follower`: sends what a recording writes down to a player in a browser, while it is written.

The player shows what came, keeps the newest, and asks for a new beginning when it misses some. The
messages to it, each with at most one buffer of lines as they stand in a trace file:

`{"type": "restart", "run", "first", "count", "quiet", "sent"}`: a header, a base state, all
functions and steps; what was sent before may be forgotten. `first` is the number of the first step
(so many went before it), `count` how many there are, `quiet` for how many seconds no other came,
`sent` how many bytes were sent since the beginning. `run` changes when a step turned up
between others that were sent already: numbers of another run mean other steps.

`{"type": "steps", …}`: the next steps, and the functions that are new; without any, a sign of life.

`{"type": "ended", "fault"}`: the recording has ended; what it ended with, or null.

And from it: `{"type": "again"}` asks for a restart, `{"type": "got", "sent"}` says how many of the
bytes came. A kernel reads these only between cells, unless it has subshells; so a cell that is busy
must neither end the messages, nor may they grow without bound.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from operator import attrgetter
from time import monotonic, sleep, thread_time
from typing import Any, NamedTuple, TypeVar

from tracer.recorder import Recording, after, folded
from tracer.steps import Step, WaitStarted
from tracer.trace_file import MINOR, BaseState, head_lines, header_line, line, step_lines

TICK = 0.1
"""Seconds from one message to the next, at least."""

QUIET = 5.0
"""Seconds after which an idle loop's follower says that it is still there."""

BYTES_A_SECOND = 2_000_000
"""What a connection and a browser are asked to take."""

UNANSWERED = 16_000_000
"""Bytes on their way to a player of which nothing is heard; then nothing more is sent."""

_SHARE = 4  # so many times as long as it has worked, a follower rests
_PIECE = 50  # steps
_BREATH = 0.0001  # seconds; with less the loop would not get the interpreter

logger = logging.getLogger("tracer")

Send = Callable[[dict[str, Any], list[bytes]], object]
_T = TypeVar("_T")


class News(NamedTuple):
    """Steps in their order; `first` is the number of the first, `base` what they begin with.

    `base` is None when they go on from those before.
    """

    run: int
    first: int
    base: BaseState | None
    steps: list[Step]


class Tail:
    """Reads a recording from its end: what was written since the last look, at most `most` steps.

    Threads write rows out of order, and some `seq` never come. A step with a gap before it is kept
    back until the next look: what should stand before it has come by then.
    """

    def __init__(self, recording: Recording, most: int) -> None:
        self._recording = recording
        self._most = most
        self._run = 0
        self._next = 0  # the number of the next step
        self._next_seq = 0  # its seq, when none is left out
        self._sure = -1  # no step with a lower seq is still to come
        self.up_to_date = False
        self.restart()

    def restart(self) -> None:
        """Begin anew with the oldest step that there is."""
        self._taken = -1  # the number of the next row
        self._kept_back: list[Step] = []

    def read(self, *, all_written: bool = False) -> News:
        """Return the news; `all_written`: no row will come any more.

        When the recording has dropped steps that were not read, the news are the newest steps.
        """
        rows, begins = self._recording.rows, self._taken < 0
        with rows.reading:
            base = self._recording.trace.base
            oldest, end = base.dropped, base.dropped + len(rows)
            begin = oldest if begins else self._taken
            if begin < oldest:
                begins, begin = True, max(oldest, end - self._most)
            self._taken = min(end, begin + self._most)
            skipped = begin - oldest
            steps = list(_breathing(rows.written(skipped, self._taken - oldest)))
            if begins and skipped:
                base = after(base, rows, skipped)
        if begins:
            base = self._begin(base, steps)
        news = sorted(self._kept_back + steps, key=attrgetter("seq"))
        if not begins and news and news[0].seq < self._next_seq:
            self._run += 1
            self.restart()
            return self.read(all_written=all_written)
        due = len(news) if all_written and self._taken == end else self._due(news)
        first, self._next = self._next, self._next + due
        self._kept_back = news[due:]
        if news:
            self._next_seq = news[due - 1].seq + 1 if due else self._next_seq
            self._sure = max(self._sure, news[-1].seq)
        self.up_to_date = self._taken == end and not self._kept_back
        return News(self._run, first, base if begins else None, news[:due])

    def _begin(self, base: BaseState, steps: list[Step]) -> BaseState:
        """Begin with `steps`, but not within a round, and return the base state of what is left."""
        if base.dropped:
            waits = (at for at, step in enumerate(steps) if isinstance(step, WaitStarted))
            inside = next(waits, 0)
            base = folded(base, steps[:inside], inside)
            del steps[:inside]
        self._kept_back = []
        self._next = base.dropped
        self._next_seq = min((step.seq for step in steps), default=0)
        self._sure = -1
        return base

    def _due(self, news: list[Step]) -> int:
        """Return how many of `news` surely have no other before them that is still to come."""
        seq = self._next_seq
        for number, step in enumerate(news):
            if step.seq != seq and step.seq > self._sure:
                return number
            seq = step.seq + 1
        return len(news)


class Follower:
    """A thread that sends to a player what a recording writes down, until that ends.

    `send` takes a message and a list of buffers, and is called in that thread. At most `most` steps
    go into one message. A fault of `send` ends the following and is logged; `again` revives it.
    """

    def __init__(self, recording: Recording, send: Send, *, most: int = 5_000) -> None:
        self._recording = recording
        self._send = send
        self._tail = Tail(recording, most)
        self._told: set[int] = set()  # the ids of the functions that were sent
        self._sent = self._answered = 0  # bytes
        self._heard = False
        self._asked = False
        self._last_sent = self._last_restart = self._last_step = monotonic()
        self._lock = threading.Lock()  # of the thread's beginning and end
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to follow; the first message is a restart, again each second until one answers."""
        with self._lock:
            self._start()

    def stop(self) -> None:
        """Stop following: nothing is sent when this has returned, unless `send` called it."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def receive(self, message: object) -> None:
        """Take a message from the player, in any thread; what is no such message is ignored."""
        if not isinstance(message, dict):
            return
        sent = message.get("sent")
        if message.get("type") == "got" and isinstance(sent, int):
            self._heard = True
            self._answered = max(self._answered, min(sent, self._sent))
        elif message.get("type") == "again":
            self._heard = True
            self._answered = self._sent
            with self._lock:  # the thread may be about to end
                self._asked = True
                self._start()

    def tick(self) -> float | None:
        """Send what is new; return how many seconds to rest, None when all was sent."""
        began, sent, now = thread_time(), self._sent, monotonic()
        if sent - self._answered > UNANSWERED:
            return TICK
        if self._asked or (not self._heard and now - self._last_restart > 1):
            self._asked = False
            self._tail.restart()
        over = not self._recording.running
        news = self._tail.read(all_written=over)
        if news.steps and news.base is None:
            self._last_step = now
        if news.base or news.steps or now - self._last_sent > QUIET:
            self._last_sent = now
            self._send_news(news)
        if over and self._tail.up_to_date and not self._asked:
            self._send({"type": "ended", "fault": self._recording.fault}, [])
            return None
        worked, rate = thread_time() - began, (self._sent - sent) / BYTES_A_SECOND
        return max(TICK, _SHARE * worked, rate)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="tracer-live", daemon=True)
            self._thread.start()

    def _send_news(self, news: News) -> None:
        lines: list[str] = []
        if news.base is not None:
            self._told.clear()
            self._last_restart = monotonic()
            lines += header_line(MINOR, partial=False), *head_lines(news.base, ())
        for function in list(self._recording.rows.functions.values()):
            if function.id not in self._told:
                self._told.add(function.id)
                lines.append(line({"kind": "function", **asdict(function)}))
        lines += _breathing(step_lines(news.steps))
        data = "".join(lines).encode("ascii")
        self._sent += len(data)
        message = {
            "type": "steps" if news.base is None else "restart",
            "run": news.run,
            "first": news.first,
            "count": len(news.steps),
            "quiet": self._last_sent - self._last_step,
            "sent": self._sent,
        }
        self._send(message, [data])

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                rest = self.tick()
            except Exception as fault:
                logger.error("following %r ends here", self._recording, exc_info=fault)
                rest = None
            if rest is not None:
                self._stopping.wait(rest)
                continue
            with self._lock:
                if not self._asked:
                    self._thread = None
                    return


def _breathing(values: Iterable[_T]) -> Iterator[_T]:
    """Yield `values`, and now and then leave the interpreter to the loop that is followed.

    A thread that wants it back after a system call waits 5 ms for one that is busy, as this is.
    """
    for number, value in enumerate(values, 1):
        yield value
        if number % _PIECE == 0:
            sleep(_BREATH)
