"""The vocabulary of a trace: one small frozen class for each thing that happened.

A step is in the past tense and holds plain integers and strings. `STEP_KINDS` maps the
name that stands in a trace file to its class; the file format is this module, one JSON
object a line (see docs/reference/trace-format.md).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

EVENT_NAMES = {1: "READ", 2: "PRI", 4: "WRITE", 8: "ERR", 16: "HUP", 0x2000: "RDHUP"}
"""The bits of an event and what they are called; the values are epoll's (epoll_ctl(2))."""


def event_names(event: int) -> str:
    """Return the names of the bits in `event`, joined by ``|``; ``"0"`` when there are none."""
    return "|".join(name for bit, name in EVENT_NAMES.items() if event & bit) or "0"


@dataclass(frozen=True, slots=True)
class Function:
    """A function that steps refer to by `id`: a callback, a task, or where a call was made.

    `first_line` counts from 1 in `file`; `text` is its source, empty when there is none.
    """

    id: int
    name: str
    file: str
    first_line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened.

    `seq` orders the steps and never repeats; `t_ns` is the monotonic clock in nanoseconds;
    `thread` is the name of the thread it happened on; `cause` is the `seq` of the step that
    made it happen, or None when that lies outside the recording.
    """

    seq: int
    t_ns: int
    thread: str
    cause: int | None = None

    @property
    def kind(self) -> str:
        """The name of the step's class, as it stands in a trace file."""
        return type(self).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStep(Step):
    """A step made by a call in somebody's code.

    `function` and `line` say where the call stands (an id in the trace's functions, a line
    number in its file); `error` is what the call raised, or None when it succeeded.
    """

    function: int | None = None
    line: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollerOpened(CallStep):
    """A poller was opened (`open_poller`); the first step where the recording began with it.

    `backend`, `fd` and `wakeup_fd` are those of the base state.
    """

    backend: str
    fd: int | None
    wakeup_fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(CallStep):
    """A descriptor was put on the interest list (`add_read`, `add_write`, `add_read_write`).

    `interest` is ``"read"``, ``"write"`` or ``"read write"``; `who` names the descriptor
    (``"listener :9090"``, ``"127.0.0.1:51234"``); `callback` is the id of its function.
    """

    fd: int
    who: str
    interest: str
    edge_triggered: bool
    oneshot: bool
    exclusive: bool
    callback: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Modified(Registered):
    """A registration was replaced (`mod_read`, `mod_write`, `mod_read_write`) and armed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted(CallStep):
    """A descriptor was taken off the interest list (`delete`)."""

    fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRebuilt(Step):
    """The backend made the kernel's interest list anew, to get rid of an entry for good.

    That arms the one-shots in it which had fired; the loop drops what the kernel then reports of
    them. `cause` is the Deleted or Registered that needed it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ListChecked(Step):
    """The registrations were compared with the `count` entries of the kernel's own list.

    Only in recordings with ``kernel=True``; `error` says what differs, None when nothing does.
    """

    count: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuffersSeen(Step):
    """A socket's buffers in the kernel were looked at, before or after its callback ran.

    Only in recordings with ``buffers=True``: `unread` bytes had arrived, `unsent` were not yet
    taken by the peer; None where that can't be told. `cause` is the DispatchStarted.
    """

    fd: int
    unread: int | None
    unsent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStarted(Step):
    """The loop asked the kernel for events.

    `timeout_ns` is in nanoseconds, None waits as long as it takes; at most `size` events
    come back.
    """

    timeout_ns: int | None
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitEnded(Step):
    """The kernel answered with a batch of ``(fd, event)`` pairs; `cause` is the WaitStarted."""

    events: tuple[tuple[int, int], ...]
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchStarted(Step):
    """The loop called a descriptor's callback; `cause` is the WaitEnded that brought the event."""

    fd: int
    event: int
    flags: int
    callback: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchEnded(Step):
    """The callback returned, or raised `error`; `cause` is its DispatchStarted."""

    fd: int
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDropped(Step):
    """An event in the batch was not dispatched: its registration was deleted after the wait."""

    fd: int
    event: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQueued(CallStep):
    """A task was put into a queue (`trigger`).

    `priority` is what the caller asked for, `queue` where it went: ``"high"`` or ``"low"``.
    """

    priority: str
    queue: str
    callback: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeupSent(Step):
    """The wakeup descriptor was written to, so that the wait returns.

    `cause` is the TaskQueued, or the callback or task that called `stop`.
    """

    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeupReceived(Step):
    """The loop read the wakeup descriptor back to zero; `cause` is the WakeupSent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerSet(CallStep):
    """A timer was set (`call_later`), to be due `delay_ns` nanoseconds from then."""

    callback: int | None
    delay_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerCanceled(CallStep):
    """A timer was called off (`Timer.cancel`); `timer` is the `seq` of its TimerSet."""

    timer: int | None
    callback: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Step):
    """The loop took up a timer, `late_ns` nanoseconds after it was due; `cause` is its TimerSet."""

    callback: int | None
    late_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(Step):
    """The loop called a task's function; `cause` is its TaskQueued, or the TimerFired."""

    callback: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnded(Step):
    """The task returned, or raised `error`; `cause` is its TaskStarted."""

    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResized(Step):
    """The most events one wait may return became `size`; `cause` is the WaitEnded before."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PollerClosed(Step):
    """The poller gave its descriptors back to the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(CallStep):
    """A listener's `accept` returned the connection `new_fd` from `peer`."""

    fd: int
    new_fd: int | None
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(CallStep):
    """`count` bytes were read from a socket; 0 is the end of the stream.

    `asked` is how many the caller had room for: fewer than that means that no more were there.
    """

    fd: int
    count: int
    asked: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrote(CallStep):
    """`count` of the `asked` bytes were taken by the kernel for sending."""

    fd: int
    count: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldBlock(CallStep):
    """A call on a non-blocking socket found nothing to do; `call` is its name (``"recv"``)."""

    fd: int
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(CallStep):
    """A socket was closed."""

    fd: int


STEP_KINDS: dict[str, type[Step]] = {
    step.__name__: step
    for step in (
        PollerOpened,
        Registered,
        Modified,
        Deleted,
        ListRebuilt,
        ListChecked,
        BuffersSeen,
        WaitStarted,
        WaitEnded,
        DispatchStarted,
        DispatchEnded,
        EventDropped,
        TaskQueued,
        WakeupSent,
        WakeupReceived,
        TimerSet,
        TimerCanceled,
        TimerFired,
        TaskStarted,
        TaskEnded,
        BatchResized,
        PollerClosed,
        Accepted,
        Read,
        Wrote,
        WouldBlock,
        Closed,
    )
}
"""The classes by the name that stands in a trace file."""

_FIELDS = {name: fields(step) for name, step in STEP_KINDS.items()}


def step_to_json(step: Step) -> dict[str, Any]:
    """Return the JSON object of `step`: its kind, then its fields but those at their default."""
    values: dict[str, Any] = {"kind": step.kind}
    for field in _FIELDS[step.kind]:
        value = getattr(step, field.name)
        if value is not field.default:
            values[field.name] = value
    return values
