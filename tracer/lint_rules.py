"""The rules of `tracer.lint`: how each lint is recognized, a function a lint.

A rule yields what it sees; `RULES` names them. It looks for what the steps prove, and where
something that makes no step could be the excuse, it is silent: what happened before the recording
began or after it ended, in other threads, or by calls around the methods of `socket.socket`
(os.read, os.sendfile, TLS). docs/reference/lints.md tells users the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from typing import NamedTuple

from tracer.history import (
    END,
    History,
    Life,
    Run,
    done,
    is_over,
    sends,
    takes,
    would_block,
)
from tracer.state import ERR, HUP, RDHUP, READ, WRITE
from tracer.steps import (
    Accepted,
    CallStep,
    Closed,
    Deleted,
    DispatchStarted,
    Modified,
    Read,
    Registered,
    Step,
    TaskQueued,
    TimerSet,
    WouldBlock,
    Wrote,
)
from tracer.words import count, duration, function_name, shown

IDLE_ROUNDS = 10
"""So many rounds in a row with the same pointless event are a busy loop."""

ROUNDS_DISARMED = 100
"""So many rounds after its event a one-shot has been forgotten."""

MOST_READS = 1000
"""So many reads for one event, while others wait, are too many."""

MOST_RETRIES = 100
"""So many sends in a row that would block are a loop."""

LONGEST_CHAIN = 1000
"""A task that has queued itself so often, and has just done so again, does not end."""

FLOOD_ROUNDS, FLOOD = 4, 1024
"""Queues that were longer in each of the last so many rounds, with so many tasks left, grow.

A poller calls its urgent queue crowded from 1024 tasks on.
"""


class Sighting(NamedTuple):
    """What a rule has seen: where to look, in words, about which descriptor.

    `others` are further steps that show it. Those of one `kind` at the same place are one finding.
    """

    at: CallStep | Run
    text: str
    fd: int | None
    others: tuple[Step, ...] = ()
    kind: str = ""


# ---- time ---------------------------------------------------------------------------------------


def _blocking_callback(history: History, slow: float) -> Iterator[Sighting]:
    """Look for what held the loop too long; the only rule that looks at a clock."""
    for run in history.runs:
        end = run.ended or history.steps[-1]  # at the latest step, when it has not ended yet
        held = end.t_ns - run.started.t_ns
        if held > slow * 1e9:
            at_least = "" if run.ended else "at least "
            text = f"{history.called(run)} held the loop for {at_least}{duration(held)}"
            tasks = run.tasks if run.ended else len(history.queued)
            waiting = [
                count(number, thing)
                for number, thing in ((_behind(history, run), "event"), (tasks, "task"))
                if number
            ]
            if waiting:
                text += f", and {' and '.join(waiting)} waited meanwhile"
            yield Sighting(run, f"{text}.", run.fd)


def _behind(history: History, run: Run) -> int:
    """Return how many events of the batch stood behind the one that `run` was called for."""
    batch = history.batches.get(run.started.cause)
    fds = [fd for fd, _ in batch.events if fd != history.trace.base.wakeup_fd] if batch else []
    return len(fds) - fds.index(run.fd) - 1 if run.fd in fds else 0


# ---- sending ------------------------------------------------------------------------------------


def _write_interest_left_armed(history: History, slow: float) -> Iterator[Sighting]:
    """Look for write events, wait after wait, with nothing written."""
    for life in history.lives:
        if not life.is_socket:
            continue
        for idle in _idle_writes(history, life):
            if len(idle) >= IDLE_ROUNDS:
                text = (
                    f"In {len(idle):,} rounds in a row the kernel reported that {life.full_name} "
                    f"can be written, and {history.called(idle[0])} wrote nothing."
                )
                yield Sighting(idle[0], text, life.fd, (idle[-1].started,))


def _idle_writes(history: History, life: Life) -> Iterator[list[Run]]:
    """Yield the dispatches in a row that said "can be written" to somebody with nothing to write.

    Who sends by calls that make no step (os.sendfile, TLS) gives the write interest up in a
    dispatch for writing alone, when all is sent. A row that ends so is left out.
    """
    idle: list[Run] = []
    runs = {run.started.seq: run for run in life.runs}
    for step in life.steps:
        if isinstance(step, DispatchStarted):
            run = runs[step.seq]
            if idle and run.round != idle[-1].round + 1:
                yield idle
                idle = []
            if _level_write(run):
                idle.append(run)
        elif idle and (sends(step) or done(step, Registered, Deleted, Closed)):
            in_last = history.run_of.get(step.seq) is idle[-1]
            if in_last and sends(step):
                idle.pop()
            if not in_last or sends(step) or idle[-1].event & READ:
                yield idle
            idle = []
    yield idle


def _level_write(run: Run) -> bool:
    mode = run.registration
    if mode is None or mode.edge_triggered or mode.oneshot:
        return False
    return run.event & WRITE != 0


def _write_retried_in_a_loop(history: History, slow: float) -> Iterator[Sighting]:
    """Look for one call after the other that would block."""
    for run in history.runs:
        for fd, group in groupby(run.calls, key=_blocked_send):
            tries = list(group)
            if fd is not None and len(tries) >= MOST_RETRIES:
                text = (
                    f"{history.called(run)} tried {len(tries):,} times in a row to send to "
                    f"{history.life_of[tries[0].seq].full_name}, which took nothing."
                )
                yield Sighting(tries[0], text, fd, (tries[-1],))


def _blocked_send(call: CallStep) -> int | None:
    return call.fd if would_block(call, "send") else None


def _short_write_forgotten(history: History, slow: float) -> Iterator[Sighting]:
    """Look for a part that was sent, and a rest that nothing in the loop can send."""
    for run in history.runs:
        if run.ended is None or run.error is not None or not _left_alone(history, run):
            continue
        last = {call.fd: call for call in run.calls if isinstance(call, (Wrote, WouldBlock))}
        for fd, call in last.items():
            life = history.life_of[call.seq]
            mode = life.registration(run.ended.seq)
            if not isinstance(call, Wrote) or not 0 < call.count < call.asked or life.came_back:
                continue
            if mode is None or "write" in mode.interest:
                continue
            following = life.between(call.seq, life.next_dispatch(call.seq))
            if not any(sends(s) or _takes_over(history, call, s) for s in following):
                text = (
                    f"{life.full_name} took {call.count:,} of {count(call.asked, 'byte')}, and "
                    f"{history.called(run)} did nothing to have the other "
                    f"{call.asked - call.count:,} sent."
                )
                yield Sighting(call, text, fd)


def _takes_over(history: History, call: CallStep, step: Step) -> bool:
    """Whether `step` makes up for what `call` left undone.

    A new registration makes the kernel look again, at any time. To delete or close is to give up,
    on purpose only if the loop has not waited meanwhile.
    """
    if isinstance(step, (Deleted, Closed)):
        return step.seq < history.next_wait(call.seq)
    return isinstance(step, Registered)


# ---- reading ------------------------------------------------------------------------------------


def _error_before_data(history: History, slow: float) -> Iterator[Sighting]:
    """Look for readable descriptors that were given up unread because they were hung up too."""
    readers = {run.started.callback for run in history.runs if any(map(_reads, run.own))}
    for life in history.lives:
        if life.older:
            continue  # it may have been read to its end before
        for run in life.runs:
            calls = run.own
            if any(map(is_over, calls)):
                break
            if any(takes(call) or call.error is not None for call in calls):
                continue
            gone = [call for call in calls if isinstance(call, (Deleted, Closed))]
            if not gone:
                if run.event & READ:
                    break  # it is read, but by calls that make no step, or by somebody else
                continue
            # Who only deletes may have given it to somebody else, who reads.
            kept = not any(isinstance(call, Closed) for call in gone)
            if kept and run.started.callback not in readers:
                continue
            if run.event & READ and run.event & (ERR | HUP | RDHUP):
                did = "deleted" if kept else "closed"
                text = (
                    f"{life.full_name} could be read and was hung up, and "
                    f"{history.called(run)} {did} it without reading."
                )
                yield Sighting(gone[0], text, life.fd, (run.started,))


def _reads(step: Step) -> bool:
    return isinstance(step, Read)


def _edge_not_drained(history: History, slow: float) -> Iterator[Sighting]:
    """Look for edge-triggered descriptors that were left before they had nothing more."""
    for life in history.lives:
        if life.older:
            continue  # bytes of before the recording that can't be sent may be why it stops
        for run in life.runs:
            mode, taken = run.registration, [call for call in run.own if takes(call)]
            if mode is None or not mode.edge_triggered or mode.oneshot or not run.event & READ:
                continue
            if run.error is not None or not taken or not _more(taken[-1]):
                continue
            if run.ended is None or not history.waits_after(run.ended.seq):
                continue
            if run.pressed or run.tasks or any(isinstance(call, TimerSet) for call in run.calls):
                continue  # it may go on when bytes were sent, or in a task
            last = taken[-1]
            following = life.between(last.seq, life.next_dispatch(last.seq))
            if any(takes(s) or _takes_over(history, last, s) for s in following):
                continue
            text = f"{history.called(run)} stopped "
            if isinstance(last, Read):
                text += (
                    f"reading {life.full_name} after a read that filled the "
                    f"{count(last.count, 'byte')} it had room for: more may be there."
                )
            else:
                text += (
                    f"accepting from {life.full_name} after {count(len(taken), 'connection')}: "
                    "more may be waiting."
                )
            yield Sighting(last, text, life.fd, (run.started,))


def _more(call: CallStep) -> bool:
    """Whether there may be more to take after this call; a short read has taken all there was."""
    if isinstance(call, Read):
        return 0 < call.count == call.asked
    return done(call, Accepted)


def _read_after_would_block(history: History, slow: float) -> Iterator[Sighting]:
    """Look in each dispatch for a read of what has just had nothing."""
    for run in history.runs:
        if run.life is None:
            continue
        blocked: dict[int, CallStep] = {}
        for call in run.calls:
            if isinstance(call, Closed):
                blocked.pop(call.fd, None)  # the number may stand for another socket soon
            elif takes(call):
                if call.fd in blocked:
                    accepts = isinstance(call, Accepted) or would_block(call, "accept")
                    text = (
                        f"{history.called(run)} {'accepted' if accepts else 'read'} from "
                        f"{history.life_of[call.seq].full_name} again after the kernel had said "
                        "that nothing was there."
                    )
                    yield Sighting(call, text, call.fd, (blocked[call.fd],))
                    break
                if isinstance(call, WouldBlock):
                    blocked[call.fd] = call


def _end_of_stream_ignored(history: History, slow: float) -> Iterator[Sighting]:
    """Look for the end of a stream that is read in one round after the other."""
    for life in history.lives:
        rows: list[list[Run]] = []
        for run in life.runs:
            if _ends_in_vain(life, run):
                if not rows or run.round != rows[-1][-1].round + 1:
                    rows.append([])
                rows[-1].append(run)
        for row in rows:
            if len(row) >= IDLE_ROUNDS:
                text = (
                    f"In {len(row):,} rounds in a row {history.called(row[0])} read the end "
                    f"of the stream of {life.full_name}, and kept it registered."
                )
                yield Sighting(row[0].own[0], text, life.fd, (row[-1].started,))


def _ends_in_vain(life: Life, run: Run) -> bool:
    """Whether a callback read the end of a stream and did nothing else with the socket.

    To send no bytes is nothing. To read none may also be an empty datagram; those come neither
    with RDHUP nor out of accept.
    """
    stream = run.event & RDHUP or life.accepted
    calls = [step for step in run.own if not (isinstance(step, Wrote) and step.asked == 0)]
    return bool(stream and calls) and all(map(is_over, calls))


def _starved_descriptor(history: History, slow: float) -> Iterator[Sighting]:
    """Look for many reads for one event while another event of the batch waited."""
    for run, following in pairwise(history.runs):
        behind, batch = following.started, history.batches.get(run.started.cause)
        if batch is None or behind.cause != batch.seq or not run.life or not following.life:
            continue
        reads = sum(map(_reads, run.own))
        if reads >= MOST_READS:
            text = (
                f"{following.life.full_name} was ready, and waited "
                f"{duration(behind.t_ns - batch.t_ns)} until {history.called(run)} had read "
                f"{reads:,} times from {run.life.full_name}."
            )
            yield Sighting(run, text, following.fd, (behind,))


# ---- registrations ------------------------------------------------------------------------------


def _closed_without_delete(history: History, slow: float) -> Iterator[Sighting]:
    """Look for registrations that outlived their socket."""
    for life in history.lives:
        closings = (s for s in life.steps if isinstance(s, Closed) and s.error is None)
        closed = next(closings, None)
        if closed is None:
            continue
        wait = history.next_wait(closed.seq)
        if wait < END and life.registration(wait):
            text = f"{life.full_name} was closed, and the loop went on with it registered."
            yield Sighting(closed, text, life.fd)
    for life, step in history.replaced:
        what = "Accept returned" if isinstance(step, Accepted) else "A new registration has"
        text = (
            f"{what} the number of {life.full_name}, which was still registered: its socket "
            "had been closed, by the garbage collector perhaps, but not deleted."
        )
        yield Sighting(step, text, life.fd)


def _leaked_descriptor(history: History, slow: float) -> Iterator[Sighting]:
    """Look for sockets that somebody stopped using in the loop and did not close there.

    A connection that is accepted and no more may serve another loop or thread.
    """
    for life in history.lives:
        if life.closed or life.came_back:
            continue
        accepted = life.accepted
        if accepted is not None and accepted.seq in history.run_of:
            run = history.run_of[accepted.seq]
            unused = not any(done(s, Registered, Read, Wrote, Deleted) for s in life.steps)
            failed = _failed(run) or any(isinstance(step, Registered) for step in life.steps)
            if unused and failed and _left_alone(history, run):
                text = (
                    f"{life.full_name} was accepted, {history.called(run)} failed before it was "
                    "registered, and nothing in the loop closed it."
                )
                yield Sighting(accepted, text, life.fd)
        for run in life.runs:
            calls = run.own
            deleted = next((call for call in calls if done(call, Deleted)), None)
            last = not calls or not any(True for _ in life.between(calls[-1].seq))
            if deleted and last and any(map(is_over, calls)) and _left_alone(history, run):
                text = (
                    f"{life.full_name} was over, {history.called(run)} deleted it, and nothing in "
                    "the loop closed it."
                )
                yield Sighting(deleted, text, life.fd)


def _left_alone(history: History, run: Run) -> bool:
    """Whether the loop went on after `run` without a task or timer that could still do a thing."""
    ended = run.ended
    return bool(ended and not run.tasks and not run.timers and history.waits_after(ended.seq))


def _one_shot_never_rearmed(history: History, slow: float) -> Iterator[Sighting]:
    """Look for one-shots that were used up long ago.

    Where tasks or other threads modify registrations, they may do so when they have finished.
    """
    modified = (history.run_of.get(s.seq) for s in history.steps if done(s, Modified))
    if any(run is None or run.life is None for run in modified):
        return
    for life in history.lives:
        if not life.is_socket or life.came_back:
            continue
        for run in life.runs:
            mode = run.registration
            if mode and mode.oneshot and run.ended and _left_alone(history, run):
                rounds = history.waits_after(run.ended.seq)
                following = life.between(run.started.seq)
                again = any(done(step, Registered, Deleted, Closed) for step in following)
                if rounds >= ROUNDS_DISARMED and not again:
                    text = (
                        f"The one-shot registration of {life.full_name} was used up by this "
                        f"event, and was not armed again or deleted in {rounds:,} rounds since."
                    )
                    yield Sighting(run, text, life.fd)


# ---- tasks and exceptions -----------------------------------------------------------------------


def _task_flood(history: History, slow: float) -> Iterator[Sighting]:
    """Look for a task that queues itself forever, and for queues that only grow."""
    chains: dict[int | None, tuple[int, TaskQueued]] = {}  # by the newest: how many, the first
    for run in history.runs:
        length, first = chains.pop(run.started.cause, (0, None))
        if any(done(call, Read, Wrote, Accepted) for call in run.calls):
            continue  # it gets on with something
        for call in run.calls:
            if isinstance(call, TaskQueued) and call.callback == run.started.callback:
                chains[call.seq] = length + 1, first or call
    for newest, (length, queued) in chains.items():
        if length >= LONGEST_CHAIN:
            name = function_name(history.trace, queued.callback)
            text = f"{name} queued itself {length:,} times in a row, and was to run once more."
            yield Sighting(queued, text, None, (history.queued[newest],))
    yield from _growing_queues(history)


def _growing_queues(history: History) -> Iterator[Sighting]:
    rounds = history.task_rounds
    first = len(rounds) - 1
    while first > 0 and rounds[first - 1][0] < rounds[first][0]:
        first -= 1
    left = len(history.queued)
    if len(rounds) - first < FLOOD_ROUNDS or left < FLOOD or history.ends:
        return
    callbacks = Counter(task.callback for task in history.queued.values())
    callback = callbacks.most_common(1)[0][0]
    task = next(task for task in history.queued.values() if task.callback == callback)
    text = (
        f"In {len(rounds) - first} rounds in a row more tasks were waiting than in the one before, "
        f"from {rounds[first][0]:,} to {rounds[-1][0]:,}; {left:,} are left, most of them "
        f"{function_name(history.trace, callback)}."
    )
    yield Sighting(task, text, None, (rounds[-1][1].started,))


def _exception_logged(history: History, slow: float) -> Iterator[Sighting]:
    """Look for exceptions that were none of the loop's own."""
    for run in history.runs:
        if run.ended is not None and _failed(run):
            text = f"{history.called(run)} raised {shown(run.error or '', 200)}"
            yield Sighting(run, text, run.fd, (run.ended,), kind=run.error or "")


def _failed(run: Run) -> bool:
    error = run.error
    return error is not None and error.partition(":")[0] not in _GET_OUT


_GET_OUT = {"EngineShutdown", "AcceptSocketError", "KeyboardInterrupt", "SystemExit"}

RULES: dict[str, Callable[[History, float], Iterator[Sighting]]] = {
    "blocking-callback": _blocking_callback,
    "write-interest-left-armed": _write_interest_left_armed,
    "write-retried-in-a-loop": _write_retried_in_a_loop,
    "short-write-forgotten": _short_write_forgotten,
    "error-before-data": _error_before_data,
    "edge-not-drained": _edge_not_drained,
    "read-after-would-block": _read_after_would_block,
    "end-of-stream-ignored": _end_of_stream_ignored,
    "closed-without-delete": _closed_without_delete,
    "leaked-descriptor": _leaked_descriptor,
    "starved-descriptor": _starved_descriptor,
    "task-flood": _task_flood,
    "one-shot-never-rearmed": _one_shot_never_rearmed,
    "exception-logged": _exception_logged,
}
"""The rules by the name of their lint; each takes a history and `slow` in seconds."""
