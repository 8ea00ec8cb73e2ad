"""`quiz(trace)`: what happens next? Questions made from a recording, for a student to predict.

::

    for question in (asked := tracer.quiz(trace)):
        print(question)
        print(question.answer("b"))
    asked.score

A question is made only where the rules of the loop and what the picture shows at its `index`
decide the answer, and where the recording then proved it. What the kernel alone decides (which
descriptors become ready, in which order a batch holds them, how long a wait lasts) is never asked.
Nothing shows the answer before it was given.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from textwrap import fill
from typing import NamedTuple, overload

from tracer.replay import Replay
from tracer.state import (
    READ,
    BatchEvent,
    LoopState,
    QueuedTask,
    Registration,
    advance,
    initial,
)
from tracer.steps import (
    BatchResized,
    BuffersSeen,
    DispatchEnded,
    DispatchStarted,
    EventDropped,
    ListChecked,
    Read,
    Registered,
    Step,
    TaskQueued,
    TaskStarted,
    TimerFired,
    WaitEnded,
    WaitStarted,
    WakeupReceived,
    WakeupSent,
    WouldBlock,
)
from tracer.trace import Trace
from tracer.words import descriptor, function_name, shown

MOST = 12
"""So many questions are asked, unless the caller says otherwise."""

EACH = 2
"""So many of them are alike."""

LOOKED_AT = 50_000
"""Questions are looked for in so many steps from the beginning."""

STOPPED_BY = "tracer: stop recording"
"""What the recorder calls the task that ends a recording."""

WRONG = 3
"""A question has at most so many wrong answers, and at least two."""


class Verdict(NamedTuple):
    """What becomes of an answer: whether it is `right`, the `truth`, and why it is so."""

    right: bool
    truth: str
    explanation: str

    def __bool__(self) -> bool:
        return self.right

    def __str__(self) -> str:
        lead = "Right." if self.right else f"Wrong. The answer is: {self.truth}"
        return "\n".join([fill(lead, 88), fill(self.explanation, 88)])


class Score(NamedTuple):
    """How it stands: so many answers were `right` of those `asked`; there are `total` questions."""

    right: int
    asked: int
    total: int

    def __str__(self) -> str:
        return f"{self.right} right of {self.asked} answered; {self.total} questions in all"


class Question:
    """What happens next, after the step at `index`? Printed, it is a text with lettered choices.

    `about` names what it asks for; two questions with the same `about` are alike. `proof` is the
    index of the step that has the answer; None where it follows from the rules alone. `given` is
    the first verdict, None as long as nobody has answered; a later answer changes no score.
    """

    def __init__(
        self,
        about: str,
        index: int,
        text: str,
        truth: str,
        wrong: Sequence[str],
        explanation: Callable[[], str],
        proof: int | None,
        shuffle: random.Random,
    ) -> None:
        self.about = about
        self.index = index
        self.proof = proof
        self.text = text
        choices = [truth, *wrong]
        shuffle.shuffle(choices)
        self.choices = tuple(choices)
        self.given: Verdict | None = None
        self._truth = choices.index(truth)
        self._explanation = explanation

    def answer(self, choice: str | int) -> Verdict:
        """Return whether `choice` is right, and why.

        It is a letter (``"b"``), a number from 0, or the text of a choice. Raises ValueError for
        anything else.
        """
        number = self._number(choice)
        verdict = Verdict(number == self._truth, self.choices[self._truth], self._explanation())
        if self.given is None:
            self.given = verdict
        return verdict

    def _number(self, choice: str | int) -> int:
        if isinstance(choice, str):
            if choice in self.choices:
                return self.choices.index(choice)
            letter = choice.strip().lower().rstrip(")")
            choice = ord(letter) - ord("a") if len(letter) == 1 else -1
        if isinstance(choice, bool) or not 0 <= choice < len(self.choices):
            last = chr(ord("a") + len(self.choices) - 1)
            raise ValueError(f"answer with a letter from a to {last}, or a number from 0")
        return choice

    def __str__(self) -> str:
        lines = [fill(f"Step {self.index + 1:,}. {self.text}", 88)]
        for number, choice in enumerate(self.choices):
            lead = f"  {chr(ord('a') + number)}) "
            lines.append(fill(choice, 88, initial_indent=lead, subsequent_indent="     "))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Question after step {self.index + 1:,}: {self.about}>"


class Quiz(Sequence[Question]):
    """The questions of `quiz`, in the order of the steps, and the score."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = tuple(questions)

    def __len__(self) -> int:
        return len(self._questions)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, index: int | slice) -> Question | tuple[Question, ...]:
        return self._questions[index]

    @property
    def score(self) -> Score:
        """How many were answered rightly, how many answered, and how many there are."""
        given = [question.given for question in self if question.given is not None]
        return Score(sum(verdict.right for verdict in given), len(given), len(self))

    def __repr__(self) -> str:
        return f"<Quiz: {self.score}>"


def quiz(trace: Trace, *, most: int = MOST, seed: int = 0) -> Quiz:
    """Make at most `most` questions of `trace`, the same ones for the same `seed`.

    The seed decides which of the alike ones are asked, and the order of the choices. Raises
    ValueError for a part of a trace. Looked at are the first `LOOKED_AT` steps.
    """
    replay = Replay(trace)
    found: dict[str, list[_Draft]] = {}
    for draft in _drafts(trace):
        found.setdefault(draft.about, []).append(draft)
    drafts: list[_Draft] = []
    for about, alike in found.items():
        pick = random.Random(f"{seed} {about}")
        drafts += pick.sample(alike, min(EACH, len(alike)))
    if len(drafts) > most:
        drafts = random.Random(f"{seed}").sample(drafts, max(most, 0))
    return Quiz([_question(draft, replay, seed) for draft in sorted(drafts, key=lambda d: d.at)])


class _Draft(NamedTuple):
    """A question to be asked after the step `at`; the step `proof`, if any, has the answer."""

    about: str
    at: int
    text: str
    truth: str
    wrong: tuple[str, ...]
    rule: str
    proof: int | None = None


def _question(draft: _Draft, replay: Replay, seed: int) -> Question:
    shuffle = random.Random(f"{seed} {draft.at} {draft.about}")

    def explanation() -> str:
        if draft.proof is None:
            return draft.rule
        return f"{draft.rule} Step {draft.proof + 1:,}: {replay.sentence(draft.proof)}"

    return Question(
        draft.about,
        draft.at,
        draft.text,
        draft.truth,
        draft.wrong,
        explanation,
        draft.proof,
        shuffle,
    )


_BESIDE = (BatchResized, BuffersSeen, ListChecked)
"""Steps that the recording or the poller makes beside what the loop does."""


def _of_the_program(trace: Trace) -> list[Step]:
    """Return the steps up to the recorder's own task, by which it ends itself."""
    steps = list(trace[:LOOKED_AT])
    for index, step in enumerate(steps):
        if isinstance(step, TaskQueued) and step.callback is not None:
            function = trace.functions.get(step.callback)
            if function is not None and function.name == STOPPED_BY:
                return steps[:index]
    return steps


def _drafts(trace: Trace) -> Iterator[_Draft]:
    """Yield every question that the beginning of `trace` allows."""
    steps = _of_the_program(trace)
    state = initial(trace.base)
    written = {step.cause for step in steps if isinstance(step, WakeupSent)}
    calls: list[Step] = []  # those made in the callback that runs, or ran last
    sleeps_on: str | None = None  # the thread that sleeps in its wait
    for index, step in enumerate(steps):
        before, state = state, advance(state, step)
        if isinstance(step, WaitStarted):
            sleeps_on = None if step.timeout_ns == 0 else step.thread
        if isinstance(step, DispatchStarted):
            calls = []
        calls.append(step)
        following = next(
            (at for at in range(index + 1, len(steps)) if not isinstance(steps[at], _BESIDE)), None
        )
        if following is None:
            return
        moment = _Moment(trace, index, following, step, before, state, steps[following], calls)
        made: list[_Draft | None] = []
        if isinstance(step, TaskQueued) and step.error is None:
            made = [moment.queued_elsewhere(sleeps_on)]
            if step.seq not in written:
                made.append(moment.written_again())
        elif isinstance(step, WakeupSent) and step.error is None and sleeps_on is not None:
            made = [moment.woken()]
        elif isinstance(step, WaitEnded) and step.error is None:
            made = [moment.first_of_batch(), moment.dropped(), moment.timer_due()]
        elif isinstance(step, DispatchEnded):
            made = [
                moment.next_of_batch(),
                moment.dropped(),
                moment.task(),
                moment.wait(),
                moment.unread(),
                moment.one_shot(),
            ]
        elif isinstance(step, WakeupReceived):
            made = [moment.task()]
        for draft in made:
            if draft is not None and len(draft.wrong) >= 2:
                yield draft


class _Moment:
    """The loop after one step, and the questions to be asked there; None where one is not fair."""

    def __init__(
        self,
        trace: Trace,
        index: int,
        following: int,
        step: Step,
        before: LoopState,
        state: LoopState,
        after: Step,
        calls: list[Step],
    ) -> None:
        self.trace = trace
        self.index = index
        self.following = following
        self.step = step
        self.before = before
        self.state = state
        self.after = after
        self.calls = calls

    # ---- the batch ----------------------------------------------------------------------------

    def first_of_batch(self) -> _Draft | None:
        """A batch came back, and something is called first."""
        return self._dispatched(
            "the first of a batch", "The wait has returned a batch. What does the loop do next?"
        )

    def next_of_batch(self) -> _Draft | None:
        """A callback returned, and events are left."""
        return self._dispatched(
            "the next of a batch",
            "The callback has returned, and the batch is not done. What does the loop do next?",
        )

    def _dispatched(self, about: str, text: str) -> _Draft | None:
        pending = self._pending()
        if not pending or not isinstance(self.after, DispatchStarted):
            return None
        first = pending[0]
        if first.fd != self.after.fd or not self._is_registered(first):
            return None
        truth = self._call(first.fd, first.name, self.after.callback)
        wrong = []
        for other in pending[1:3]:
            row = self.state.registrations.get(other.fd)
            if row is not None and row.name == other.name:
                wrong.append(self._call(other.fd, other.name, row.callback))
        wrong += self._tasks_run()[:1]
        finished = self.state.finished
        if isinstance(self.step, DispatchEnded) and finished and finished.fd is not None:
            again = self._call(finished.fd, finished.name, finished.callback)
            wrong.append(again + " It is called until nothing is left to read.")
        wrong += [
            "It begins the next wait; what was not called comes back with the next batch."
            if isinstance(self.step, DispatchEnded)
            else "It asks the kernel once more, to be sure that the batch is complete.",
            *self._unreturned(),
        ]
        rule = (
            "The loop handles the events of a batch one after the other, in the order in which "
            "the wait returned them, and everything else waits until the batch is done."
        )
        return self._draft(about, text, truth, wrong, rule, self.following)

    def dropped(self) -> _Draft | None:
        """An event in the batch belongs to a registration that was deleted."""
        pending = self._pending()
        if not pending or not isinstance(self.after, EventDropped):
            return None
        first = pending[0]
        if first.fd != self.after.fd or first.fd in self.state.registrations:
            return None
        name = descriptor(first.fd, first.name)
        return self._draft(
            "a deleted event",
            f"The next event of the batch is that of {name}, which was deleted after the wait had "
            "returned it. What does the loop do with the event?",
            "It drops the event: no callback is called for it.",
            [
                "It calls the callback that was registered, since the kernel had reported the "
                "event before.",
                "It keeps the event until the descriptor is registered again.",
                "It gives the event back to the kernel, and the next wait returns it again.",
            ],
            "After delete no callback of that registration runs, not even for an event that is in "
            "the batch already: its connection may be closed, its number used again.",
            self.following,
        )

    # ---- tasks, timers, the wakeup ------------------------------------------------------------

    def task(self) -> _Draft | None:
        """The batch is done, and tasks are queued."""
        state = self.state
        queue = state.urgent or state.low
        if not isinstance(self.after, TaskStarted) or self._pending() or state.timers:
            return None  # a timer may be due, and goes first
        if not queue or queue[0].seq is None or queue[0].seq != self.after.cause:
            return None
        truth = self._run(queue[0])
        wrong = self._tasks_run()
        wrong += [
            "It begins the next wait; tasks run when no descriptor is ready.",
            "It waits until the thread that queued the task runs it.",
            *self._unreturned(),
        ]
        return self._draft(
            "a task",
            "The batch is done. What does the loop do next?",
            truth,
            wrong,
            "Between the batch and the next wait the loop runs the tasks that are queued, in its "
            "own thread: urgent ones first, the oldest of a queue first.",
            self.following,
        )

    def timer_due(self) -> _Draft | None:
        """The wait ended without events and a timer fires."""
        timers = self.state.timers
        if not isinstance(self.after, TimerFired) or self.state.batch or not timers:
            return None
        if timers[0].seq is None or self.after.cause != timers[0].seq:
            return None
        callback = function_name(self.trace, timers[0].callback)
        return self._draft(
            "a timer",
            f"The wait has returned nothing, and the timer for {callback} is due. What does the "
            "loop do next?",
            f"It calls {callback}.",
            [
                "It waits once more, until the kernel returns an event of the timer.",
                f"It lets another thread call {callback}, so that it is free for events.",
                "It ends, since nothing is ready.",
            ],
            "A timer is no descriptor. The loop sleeps no longer than until the next one is due, "
            "and then calls its function itself.",
            self.following,
        )

    def woken(self) -> _Draft | None:
        """The wakeup descriptor is written to while the loop sleeps."""
        if not isinstance(self.after, WaitEnded):
            return None
        state, wakeup = self.state, self.trace.base.wakeup_fd
        if self.after.error is not None or wakeup not in [fd for fd, _ in self.after.events]:
            return None
        wrong = [
            "The wait goes on until a client sends something or connects.",
            "The wait is broken off with an error, and the loop begins a new one.",
        ]
        if state.urgent:
            task = function_name(self.trace, state.urgent[0].callback)
            wrong.append(
                f"The task {task} runs at once, on thread {shown(self.step.thread)}, "
                "while the loop sleeps on."
            )
        return self._draft(
            "a wakeup",
            "The loop sleeps in its wait, and the wakeup descriptor was just written to. What "
            "happens next?",
            "The wait returns: the wakeup descriptor is ready.",
            wrong,
            "The loop watches the wakeup descriptor like any other. Written to, it can be read, so "
            "the wait has something to return.",
            self.following,
        )

    def written_again(self) -> _Draft | None:
        """A task was queued while a wakeup is on its way already."""
        if self.before.wakeup_counter < 1:
            return None
        return self._draft(
            "a wakeup that is on its way",
            "One more task was queued, and the counter of the wakeup descriptor is not 0. What "
            "does trigger do to make the loop run the task?",
            "Nothing more: the wakeup that is on its way is enough for all the tasks.",
            [
                "It writes to the wakeup descriptor again, one write for each task.",
                "It waits until the loop has read the wakeup descriptor, and then writes to it.",
                "It calls the task itself, since the loop is busy.",
            ],
            "While the counter is not 0 the loop does not sleep, and when it has read it back to 0 "
            "it runs the tasks that are queued, whoever queued them. So any number of triggers "
            "between two rounds costs one write.",
        )

    def queued_elsewhere(self, sleeps_on: str | None) -> _Draft | None:
        """Another thread queued a task while the loop sleeps, and no wakeup is on its way."""
        after = self.after
        if self.before.phase != "waiting" or self.before.wakeup_counter:
            return None
        if not isinstance(after, WakeupSent) or after.cause != self.step.seq or after.error:
            return None
        if sleeps_on is None or self.step.thread == sleeps_on:
            return None
        thread = shown(self.step.thread)
        return self._draft(
            "a task for a sleeping loop",
            f"Thread {thread} has just queued a task, while the loop sleeps in its wait. What "
            "happens next?",
            "The wakeup descriptor is written to.",
            [
                f"The task runs, on thread {thread}.",
                "The task runs in the loop, while its wait goes on.",
                "Nothing: the task stays in its queue until a client makes the wait return.",
            ],
            "A loop that sleeps in the kernel sees no queue. trigger writes to a descriptor that "
            "the loop watches, and that ends the wait.",
            self.following,
        )

    # ---- the next wait, and what it reports ---------------------------------------------------

    def wait(self) -> _Draft | None:
        """The batch is done and nothing is queued."""
        state = self.state
        queued = state.urgent or state.low or state.timers or state.wakeup_counter
        if not isinstance(self.after, WaitStarted) or self._pending() or queued:
            return None
        finished = state.finished
        if finished is None or finished.fd is None:
            return None
        again = self._call(finished.fd, finished.name, finished.callback)
        return self._draft(
            "the end of a round",
            "The batch is done, and no task or timer is queued. What does the loop do next?",
            "It begins the next wait: it asks the kernel what is ready.",
            [
                f"{again} A callback is called until it finds nothing to do.",
                "It tries to read from every descriptor on the interest list, one after the other.",
                "It sleeps for a fixed time, to spare the processor, before it asks the kernel.",
            ],
            "A round is: wait, dispatch the batch, run what is due. The loop itself never reads, "
            "and it sleeps nowhere but in the wait.",
            self.following,
        )

    def unread(self) -> _Draft | None:
        """Bytes that are left in the socket are reported again, or not."""
        row = self._served()
        if row is None or not row.armed or row.interest != "read" or row.exclusive:
            return None
        own = [call for call in self.calls if getattr(call, "fd", None) == row.fd]
        reads = [call for call in own if isinstance(call, Read) and call.error is None]
        # After a modify the kernel looks again, at an edge-triggered one too.
        changed = any(isinstance(call, (WouldBlock, Registered)) for call in own)
        if not reads or changed:
            return None
        name = descriptor(row.fd, row.name)
        again = "Yes: the next wait returns it again, at once."
        once = "No: only when more bytes arrive, or the connection ends, is it returned again."
        return self._draft(
            f"unread bytes, {'edge' if row.edge_triggered else 'level'}-triggered",
            f"Suppose that the callback had left bytes unread in {name}, that nothing has arrived "
            "or arrives since the wait returned it, and that nobody changes its registration. Does "
            "the kernel report it again?",
            once if row.edge_triggered else again,
            [
                again if row.edge_triggered else once,
                "No: what was not read in the callback is lost.",
                "Yes, but only after it was deleted and another descriptor was ready.",
            ],
            "Edge-triggered means: reported once each time something arrives. So the callback has "
            "to read until it would block."
            if row.edge_triggered
            else "Level-triggered means: reported by every wait for as long as there is something "
            "to read. So the callback need not read everything at once.",
        )

    def one_shot(self) -> _Draft | None:
        """A one-shot registration fired and was not armed again."""
        row = self._served()
        if row is None or not row.oneshot or row.armed:
            return None
        name = descriptor(row.fd, row.name)
        return self._draft(
            "a one-shot that fired",
            f"Suppose that bytes arrive for {name} now, before the program does anything more with "
            "it. What does the kernel report?",
            "Nothing: the registration is disarmed until it is modified.",
            [
                "That it can be read, as the first time.",
                "An error, since the registration is used up.",
                "That it can be read, but only if the bytes before were all read.",
            ],
            "A one-shot registration reports one event. It then stays on the interest list, "
            "disarmed, until mod_read (or another mod) arms it again.",
        )

    # ---- what the choices are made of ---------------------------------------------------------

    def _draft(
        self,
        about: str,
        text: str,
        truth: str,
        wrong: Sequence[str],
        rule: str,
        proof: int | None = None,
    ) -> _Draft:
        others = [one for one in dict.fromkeys(wrong) if one != truth]
        return _Draft(about, self.index, text, truth, tuple(others[:WRONG]), rule, proof)

    def _pending(self) -> list[BatchEvent]:
        """Return the events still to be handled, without the wakeup's, which has no callback."""
        wakeup = self.state.wakeup_fd
        return [e for e in self.state.batch if e.status == "pending" and e.fd != wakeup]

    def _is_registered(self, event: BatchEvent) -> bool:
        row = self.state.registrations.get(event.fd)
        return row is not None and not row.closed and row.name == event.name

    def _served(self) -> Registration | None:
        """Return the registration of the connection whose callback has just returned.

        None when it is over, or is not known to be a connection: the rest of a datagram is lost.
        """
        finished = self.state.finished
        if not isinstance(self.step, DispatchEnded) or self.step.error is not None:
            return None
        if finished is None or finished.fd is None or not (finished.event or 0) & READ:
            return None
        row = self.state.registrations.get(finished.fd)
        known = self.state.descriptors.get(finished.fd)
        if row is None or row.closed:
            return None
        if known is None or not known.accepted or known.end_of_stream or known.closed:
            return None
        return row

    def _call(self, fd: int, name: str, callback: int | None) -> str:
        return f"It calls {function_name(self.trace, callback)} for {descriptor(fd, name)}."

    def _run(self, task: QueuedTask) -> str:
        return f"It runs the task {function_name(self.trace, task.callback)}."

    def _tasks_run(self) -> list[str]:
        return [self._run(task) for task in (*self.state.urgent, *self.state.low)]

    def _unreturned(self) -> list[str]:
        """Return calls for descriptors that are watched, but of which no event is in the batch."""
        returned = {event.fd for event in self.state.batch} | {self.state.wakeup_fd}
        return [
            self._call(row.fd, row.name, row.callback)
            for row in self.state.registrations.values()
            if row.fd not in returned
        ][:1]
