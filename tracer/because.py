"""`because(causes, index)`: one short sentence that says why a step happened.

It stands below the step's own sentence, is empty where that says it all, and claims no more than
the steps prove; what they don't prove begins with "Inferred". The words are in `static/words.json`;
`static/causes.js` is the same for the browser.
"""

from __future__ import annotations

from typing import Any

from tracer.causes import Causes, after, before
from tracer.state import ERR, HUP, RDHUP, READ, WRITE
from tracer.steps import (
    Accepted,
    BatchResized,
    CallStep,
    Closed,
    Deleted,
    DispatchStarted,
    EventDropped,
    Modified,
    Read,
    Registered,
    Step,
    TaskQueued,
    TaskStarted,
    TimerFired,
    TimerSet,
    WaitEnded,
    WaitStarted,
    WakeupReceived,
    WakeupSent,
    WouldBlock,
    Wrote,
)
from tracer.words import count, descriptor, duration, event_words, function_name, shown, words

SHORT = 24
"""Names are cut to so many characters: the sentence above has them in full."""

MOST_SIBLINGS = 1000
"""A callback that made more calls is not looked through."""


def because(causes: Causes, index: int) -> str:
    """Return why the step at `index` happened; `causes` has read the trace."""
    return _Because(causes).of(index)


class _Because:
    """Finds and fills in the sentence of a step, kind by kind."""

    def __init__(self, causes: Causes) -> None:
        self.causes = causes
        self.trace = causes.trace
        self.whole: dict[str, Any] = words()["why"]
        self.texts: dict[str, str] = self.whole["because"]

    def of(self, index: int) -> str:
        step, cause = self.trace[index], self.causes.cause(index)
        if isinstance(step, CallStep):
            return self.call(index, step, cause)
        if isinstance(step, WaitStarted):
            return self.wait(index)
        if isinstance(step, WaitEnded):
            return self.answer(index, step, cause)
        if isinstance(step, DispatchStarted):
            return self.dispatch(index, step, cause)
        if isinstance(step, EventDropped):
            return self.dropped(index, step, cause)
        if isinstance(step, WakeupSent):
            return "" if step.error is not None else self.wakeup_sent(index, cause)
        if isinstance(step, WakeupReceived):
            if cause is None:
                return self.given("earlier wakeup")
            return self.say("read back", duration=self.between(cause, index))
        if isinstance(step, TimerFired):
            return self.timer("fired", cause, index)
        if isinstance(step, TaskStarted):
            return self.task(index, cause)
        if isinstance(step, BatchResized):
            return self.resized(cause)
        return ""

    # ---- the loop -----------------------------------------------------------------------------

    def wait(self, index: int) -> str:
        step, queued = self.trace[index], self.causes.tasks(index)
        timer = self.causes.limiting_timer(index)
        if isinstance(step, WaitStarted) and step.timeout_ns == 0 and queued:
            return self.given("no sleep", tasks=count(queued, "task"))
        if timer is not None:
            return self.given("until timer", callback=self.function(timer.callback))
        ended = before(self.causes.returned, index)
        if ended is None:
            return self.given("first")
        last = self.trace[ended]
        handled = isinstance(last, WaitEnded) and (last.events or last.error is not None)
        return self.given("again") if handled else self.say("nothing came")

    def answer(self, index: int, step: WaitEnded, began: int | None) -> str:
        wakeup = self.trace.base.wakeup_fd
        if step.error is not None:
            return ""
        started = None if began is None else self.trace[began]
        size = started.size if isinstance(started, WaitStarted) else None
        if not step.events:
            return self.empty(index, started)
        if len(step.events) > 1:
            full = size is not None and len(step.events) >= size
            return self.say("full" if full else "all", count=f"{len(step.events):,}")
        ((fd, event),) = step.events
        if fd == wakeup:
            return self.woken(index)
        dispatch = next(
            (e for e in self.causes.effects(index) if self.trace[e].kind == "DispatchStarted"), None
        )
        ready, found = self.readiness(fd, event, self.causes.name(fd, index), dispatch)
        return ready + found + "."

    def empty(self, index: int, started: Step | None) -> str:
        if not isinstance(started, WaitStarted):
            return ""
        limit = started.timeout_ns
        if limit == 0:
            return self.say("not to sleep")
        if limit is not None and self.trace[index].t_ns - started.t_ns >= limit:
            return self.say("time over", limit=duration(limit))
        return self.say("interrupted")

    def woken(self, index: int) -> str:
        sent = before(self.causes.sent, index)
        if sent is None:
            return self.given("earlier wakeup")
        received = after(self.causes.received, sent)
        if received is not None and received < index:
            return ""
        cause = self.causes.cause(sent)
        queued = None if cause is None else self.trace[cause]
        if not isinstance(queued, TaskQueued):
            return self.say("woken otherwise", duration=self.between(sent, index))
        return self.say(
            "woken",
            duration=self.between(sent, index),
            callback=self.function(queued.callback),
            thread=shown(queued.thread, SHORT),
        )

    def dispatch(self, index: int, step: DispatchStarted, wait: int | None) -> str:
        name = self.causes.name_then(step.fd, index)
        ready, found = self.readiness(step.fd, step.event, name, index)
        if wait is None:
            returned = self.texts["returned earlier"]
        else:
            slept = self.causes.slept(wait)
            returned = self.texts["returned" if slept else "returned at once"]
            returned = returned.format(duration=duration(slept))
        return ready + returned + found + "."

    def readiness(self, fd: int, event: int, name: str, dispatch: int | None) -> tuple[str, str]:
        """Return what made `fd` ready, and what the callback found, in two parts of a sentence."""
        totals = {"Read": 0, "Wrote": 0, "Accepted": 0}
        ended = False
        started = None if dispatch is None else self.trace[dispatch]
        for effect in [] if dispatch is None else self.causes.effects(dispatch):
            step = self.trace[effect]
            if not isinstance(step, (Read, Wrote, Accepted)) or step.fd != fd:
                continue
            if step.error is None:
                totals[step.kind] += 1 if isinstance(step, Accepted) else step.count
                ended = ended or (isinstance(step, Read) and step.count == 0)
        found = ""
        if event & READ and totals["Read"]:
            ready, found = "arrived", "then read"
        elif event & READ and totals["Accepted"]:
            ready, found = "connected", "then accepted"
        elif event & (HUP | ERR):
            ready = "hung up"
        elif event & RDHUP or (event & READ and ended):
            ready = "ended"
        elif event & READ:
            ready = "connected?" if fd in self.causes.listeners else "arrived?"
        elif event & WRITE:
            ready, found = "room", "then wrote" if totals["Wrote"] else ""
        else:
            ready = "ready"
        done = "".join(
            self.texts[found].format(
                callback=self.function(getattr(started, "callback", None)), count=number
            )
            for kind, number in (
                ("then read", count(totals["Read"], "byte")),
                ("then accepted", count(totals["Accepted"], "connection")),
                ("then wrote", count(totals["Wrote"], "byte")),
            )
            if kind == found
        )
        return self.texts[ready].format(who=self.who(fd, name)), done

    def dropped(self, index: int, step: EventDropped, wait: int | None) -> str:
        deleted = before(self.causes.deleted.get(step.fd, ()), index)
        registered = before(self.causes.registered.get(step.fd, ()), index)
        newer = min(-1 if since is None else since for since in (wait, registered))
        if deleted is None or deleted <= newer:
            return ""
        return self.since("deleted", deleted, index)

    def resized(self, ended: int | None) -> str:
        step = None if ended is None else self.trace[ended]
        began = None if ended is None else before(self.causes.waits, ended)
        wait = None if began is None else self.trace[began]
        if not isinstance(step, WaitEnded) or not isinstance(wait, WaitStarted):
            return ""
        return self.say("resized", count=f"{len(step.events):,}", size=f"{wait.size:,}")

    # ---- tasks --------------------------------------------------------------------------------

    def wakeup_sent(self, index: int, cause: int | None) -> str:
        queued = None if cause is None else self.trace[cause]
        if not isinstance(queued, TaskQueued):
            return self.say("no task")
        return self.say(
            "wake the sleeper" if self.causes.asleep(index) else "wake the next",
            callback=self.function(queued.callback),
        )

    def task(self, index: int, cause: int | None) -> str:
        if cause is None:
            return self.given("earlier task")
        queued = self.trace[cause]
        if isinstance(queued, TimerFired):
            return self.timer("timed", self.causes.cause(cause), index)
        text = self.since("queued", cause, index)
        if queued.thread == self.trace[index].thread:
            return text
        return self.since("queued outside", cause, index)

    def timer(self, name: str, cause: int | None, index: int) -> str:
        timer = None if cause is None else self.trace[cause]
        if cause is None or not isinstance(timer, TimerSet):
            return self.given("earlier timer")
        return self.since(name, cause, index, delay=duration(timer.delay_ns))

    # ---- calls --------------------------------------------------------------------------------

    def call(self, index: int, step: CallStep, cause: int | None) -> str:
        if step.error is not None:
            return self.failed(index, step)
        own = self.special(index, step)
        if own:
            return own
        if cause is None:
            return self.outside(index, step)
        started = self.trace[cause]
        callback = self.function(getattr(started, "callback", None))
        if isinstance(started, DispatchStarted):
            name = self.causes.name_then(started.fd, cause)
            return self.say(
                "in callback",
                callback=callback,
                who=self.who(started.fd, name),
                event=event_words(next((bit for bit in TELLING if started.event & bit), 0)),
            )
        return self.say("in task", callback=callback) if isinstance(started, TaskStarted) else ""

    def failed(self, index: int, step: CallStep) -> str:
        """Why the kernel refused: what had been registered or deleted before."""
        fd, error = getattr(step, "fd", None), step.error or ""
        if fd is None:
            return ""
        registered = before(self.causes.registered.get(fd, ()), index)
        deleted = before(self.causes.deleted.get(fd, ()), index)
        order = (NEVER if registered is None else registered, NEVER if deleted is None else deleted)
        if error.startswith("AlreadyRegistered") and registered is not None and order[0] > order[1]:
            return self.since("on the list", registered, index)
        if error.startswith("NotRegistered") and deleted is not None and order[1] > order[0]:
            return self.since("off the list", deleted, index)
        return ""

    def special(self, index: int, step: CallStep) -> str:
        """What the callback did before, in the same call, where that tells more than the call."""
        if isinstance(step, Registered) and not isinstance(step, Modified):
            accepted = before(self.causes.accepted.get(step.fd, ()), index)
            earlier = before(self.causes.registered.get(step.fd, ()), index)
            if accepted is not None and (earlier is None or earlier < accepted):
                same = self.causes.name(step.fd, accepted) == self.causes.name(step.fd, index)
                return self.since("accepted", accepted, index) if same else ""
            return ""
        if not isinstance(step, (Wrote, WouldBlock, Closed, Deleted)):
            return ""
        siblings = self.causes.siblings(index, MOST_SIBLINGS) or []
        if isinstance(step, Wrote):
            for sibling in siblings:
                other = self.trace[sibling]
                if isinstance(other, Read) and other.error is None and other.count:
                    who = self.who(other.fd, self.causes.name(other.fd, sibling))
                    return self.say("had read", count=count(other.count, "byte"), who=who)
            return ""
        if isinstance(step, WouldBlock):
            return self.exhausted(step, siblings)
        for sibling in siblings:
            other = self.trace[sibling]
            if not isinstance(other, (Read, Wrote)) or other.fd != step.fd:
                continue
            if other.error is not None:
                name = "reading failed" if isinstance(other, Read) else "writing failed"
                return self.say(name, error=shown(other.error, 2 * SHORT))
            return self.say("had ended") if isinstance(other, Read) and not other.count else ""
        return ""

    def exhausted(self, step: WouldBlock, siblings: list[int]) -> str:
        """Why a call would block: what the same calls before it had used up."""
        kind = next((kind for start, kind in CALLS if step.call.startswith(start)), "")
        total = 0
        for sibling in siblings:
            other = self.trace[sibling]
            if isinstance(other, CallStep) and other.error is None and other.kind == kind:
                if isinstance(other, Accepted) and other.fd == step.fd:
                    total += 1
                elif isinstance(other, (Read, Wrote)) and other.fd == step.fd:
                    total += other.count
        if not total:
            return ""
        return self.say(f"no more {kind}", count=count(total, THINGS[kind]))

    def outside(self, index: int, step: CallStep) -> str:
        if step.cause is not None:
            return self.given("earlier")
        if self.causes.in_callback(index):
            return ""
        began = before(self.causes.waits, index)
        if began is None and not self.trace.base.running:
            return self.say("not running")
        if not isinstance(step, TaskQueued):
            return self.say("outside", thread=shown(step.thread, SHORT))
        if began is None or not self.causes.asleep(index):
            return ""
        if self.trace[began].thread == step.thread:  # a signal handler, say
            return ""
        return self.say("queued asleep", duration=self.between(began, index))

    # ---- words --------------------------------------------------------------------------------

    def since(self, name: str, call: int, index: int, **fields: str) -> str:
        """Fill in who made an earlier call, on which thread, and how long before."""
        step = self.trace[call]
        actor = getattr(step, "function", None)
        known = actor is not None and actor in self.trace.functions
        return self.say(
            name,
            actor=self.function(actor) if known else words()["nobody"],
            duration=self.between(call, index),
            thread=shown(step.thread, SHORT),
            **fields,
        )

    def between(self, earlier: int, later: int) -> str:
        return duration(max(0, self.trace[later].t_ns - self.trace[earlier].t_ns))

    def function(self, function: int | None) -> str:
        return shown(function_name(self.trace, function), SHORT)

    def who(self, fd: int, name: str) -> str:
        return shown(name, SHORT) if name else descriptor(fd, "")

    def say(self, text: str, **fields: str) -> str:
        return self.texts[text].format(**fields)

    def given(self, text: str, **fields: str) -> str:
        """The same words as in a chain of reasons."""
        said: str = self.whole[text]
        return said.format(**fields)


NEVER = -1

TELLING = (ERR, HUP, READ, RDHUP, WRITE)
"""The bits of an event; of several, the first says most."""

CALLS = (("accept", "Accepted"), ("recv", "Read"), ("send", "Wrote"))
"""How the names of calls begin, and the steps they make."""

THINGS = {"Accepted": "connection", "Read": "byte", "Wrote": "byte"}
