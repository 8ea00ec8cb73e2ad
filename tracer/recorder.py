"""`record(poller)`: writes down what a running loop does, and leaves it as it was.

A poller's collaborators are plain attributes. Recording puts a twin in the place of each, which
writes a step and calls the original, and puts the originals back at the end. A twin owns nothing:
what is registered and queued stays in the original's tables, so that nothing is lost in between.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import io as io_module  # `io` is what record() is told
import logging
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from itertools import chain
from time import monotonic, monotonic_ns
from types import FrameType, MethodType, ModuleType, TracebackType
from typing import Any, cast

import netpoll.background
import netpoll.poller
import netpoll.queue
import netpoll.registrar
import netpoll.simulated
import netpoll.sockets
from netpoll.attachment import Callback
from netpoll.backends import Backend, Interest
from netpoll.backends.epoll import mask_of
from netpoll.errors import AcceptSocketError, EngineShutdown
from netpoll.poller import Poller
from netpoll.queue import AsyncTaskQueue, EventPriority, Task, Timer
from netpoll.registrar import Registrar
from netpoll.simulated import Socket
from netpoll.wakeup import Wakeup
from tracer import kernel_view, socket_calls
from tracer.rows import KIND, NOTHING, ROW, Rows
from tracer.steps import (
    BatchResized,
    Closed,
    Deleted,
    DispatchStarted,
    ListRebuilt,
    Registered,
    Step,
    TaskQueued,
    TaskStarted,
    TimerCanceled,
    TimerFired,
    TimerSet,
)
from tracer.stream import StreamedBytes
from tracer.trace import BaseRegistration, BaseState, BaseTask, BaseTimer, Trace

ATTACH_TIMEOUT = 5.0
"""How many seconds `record` and `Recording.stop` wait for a busy loop to come round."""

logger = logging.getLogger("tracer")

_PASSED_THROUGH = {
    module.__file__
    for module in (
        netpoll.background,
        netpoll.poller,
        netpoll.queue,
        netpoll.registrar,
        netpoll.simulated,
        netpoll.sockets,
        socket_calls,
        socket,
        contextlib,
        threading,
    )
}
_PASSED_THROUGH.add(__file__)
socket_calls.KINDS.append(Socket)


def record(
    poller: Poller,
    *,
    io: bool = True,
    buffers: bool = False,
    kernel: bool = False,
    limit: int = 1_000_000,
    path: str | os.PathLike[str] | None = None,
) -> Recording:
    """Start to record `poller`, running or not, from any thread.

    `io` also writes down what callbacks do to their sockets, which wraps the methods of
    `socket.socket` for as long as the recording runs. Two options ask the kernel more than the
    program itself does: `buffers` adds how many bytes it holds unread and unsent, before and after
    each callback; `kernel` compares the registrations with its own list (``/proc/self/fdinfo``)
    before each wait that follows a change of them.

    About `limit` steps are kept, the newest; the trace's base state counts those that were dropped,
    and holds what they left. With a `path`, all of them also go to that file, each as it happens: a
    crash costs at most the last. A recording of the same poller that still runs is stopped first.
    A fault of the recording itself never reaches the program: it is logged, stands in
    `Recording.fault` and ends the recording; a full disk ends the file alone.

    Raises TypeError for anything but a poller, ValueError for a closed one or a limit below 1,
    NotImplementedError where the kernel can't tell what `buffers` or `kernel` ask, OSError when the
    file can't be made, TimeoutError, with the line that it hangs on, when a callback keeps the loop
    from coming round.
    """
    if not isinstance(poller, Poller):
        raise TypeError(f"record takes a netpoll.Poller, not {poller!r}")
    if limit < 1:
        raise ValueError(f"a recording keeps at least 1 step, not {limit}")
    real = isinstance(poller.backend.kernel, ModuleType) and sys.platform.startswith("linux")
    if buffers and not real:
        raise NotImplementedError("buffers=True needs sockets of Linux, not of a simulated kernel")
    if kernel and not (real and poller.backend.name == "epoll"):
        raise NotImplementedError(
            f"kernel=True needs Linux's epoll; this poller has {poller.backend.name}"
            + (" on a simulated kernel" if not real else "")
        )
    return Recording(poller, io=io, buffers=buffers, kernel=kernel, limit=limit, path=path)


class Recording:
    """A recording of one poller. Made by `record`; as a context manager it yields its trace.

    `trace` is there at once and grows until `stop`, or until the poller is closed. `fault` is the
    text of the exception that ended the recording, or its file; None while there was none.
    """

    trace: Trace

    def __init__(
        self,
        poller: Poller,
        *,
        io: bool,
        buffers: bool,
        kernel: bool,
        limit: int,
        path: str | os.PathLike[str] | None,
    ) -> None:
        self.rows = Rows(_clock_of(poller))
        self.poller = poller
        self.running = False
        self.fault: str | None = None
        self.failed = False
        self.most_bytes = limit * ROW.size
        self.run: object = None  # the call of polling or poll_once that was seen last
        self.thread = 0  # its thread
        self.thread_name = NOTHING
        self.cause = NOTHING  # the seq of the dispatch or task that runs now
        self.last_wait = NOTHING  # the seq of the newest WaitEnded
        self.last_wakeup = NOTHING  # the seq of the WakeupSent that was not received yet
        self.seq_of_task: dict[int, int] = {}  # of the queued ones, by id()
        self.newest_task: dict[int, int] = {}  # the seq of a thread's TaskQueued, until it wakes
        self.buffers = buffers
        self.kernel = kernel
        self.list_changed = True  # since it was compared with the kernel's
        self._io = io
        self._path = path
        _in_loop(poller, self._attach, "start recording")

    def stop(self) -> None:
        """End the recording: the loop runs its own code again. A second call does nothing.

        Raises TimeoutError as `record` does; the recording goes on then.
        """
        if self.running:
            _in_loop(self.poller, self.detach, "stop recording")

    def __enter__(self) -> Trace:
        return self.trace

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "failed" if self.failed else "ended"
        dropped = f", {self.dropped} older ones dropped" if self.dropped else ""
        return f"<Recording of {len(self.rows)} steps{dropped}, {state}>"

    @property
    def dropped(self) -> int:
        """How many steps were dropped, the oldest, to keep within the limit."""
        return self.trace.base.dropped

    # ---- attach and detach: in the loop's thread, or while none runs --------------------------

    def _attach(self) -> None:
        poller = self.poller
        if poller.closed:
            raise ValueError("the poller is closed: record it while it is open")
        base = self._base_state()
        if self._path is not None:
            self.rows.packed = StreamedBytes(self._path, self.rows, base, self.fail_to_write)
        if isinstance(poller.backend, BackendTwin):  # only now that nothing can fail any more
            poller.backend.recording.detach()
        self.trace = Trace(base, self.rows.functions, self.rows)
        self.socket_call = _recorded_call(self)
        self._originals = (poller.backend, poller.callbacks, poller.tasks, poller.wakeup)
        twins = (
            BackendTwin(self, poller.backend),
            CallbacksTwin(self, poller.callbacks),
            TasksTwin(self, poller.tasks),
            WakeupTwin(self, poller.wakeup),
        )
        poller.tasks.end_round()  # should this be one: the twin runs what is left of it
        # No call from here on: an interrupt can't come between.
        poller.backend, poller.callbacks, poller.tasks, poller.wakeup = twins
        poller.attention = self.running = True
        if self._io:  # from now on, also for what is bound before the loop runs: `sock.recv`
            socket_calls.watch(threading.get_ident(), self)

    def detach(self) -> None:
        """Put the originals back, in the loop's thread or while none runs; done, do nothing."""
        poller = self.poller
        if not self.running:
            return
        poller.tasks.end_round()
        socket_calls.unwatch(self)
        self.socket_call = _no_call  # which does not keep this alive
        with cast(
            "WakeupTwin", poller.wakeup
        ).one:  # another thread's write and its row belong together
            self.rows.freeze()
        if isinstance(self.rows.packed, StreamedBytes):
            self.rows.packed.close()
        poller.backend, poller.callbacks, poller.tasks, poller.wakeup = self._originals
        poller.attention = True
        self.running = False

    def _base_state(self) -> BaseState:
        poller = self.poller
        names = {
            fd: socket_calls.name_of(fd, poller.backend.kernel) for fd in poller._registrations
        }
        listed = _kernel_list(poller)
        registrations = [
            BaseRegistration(
                fd,
                names[fd],
                _directions(registration.interest),
                registration.interest.edge_triggered,
                registration.interest.oneshot,
                registration.interest.exclusive,
                self.callback_of(fd),
                armed=not registration.fired,
                closed=names[fd] == socket_calls.CLOSED if listed is None else fd not in listed,
            )
            for fd, registration in poller._registrations.items()
        ]
        running = _running_task(poller.tasks)
        tasks = [
            BaseTask(name, self.rows.function_id(task.func))
            for name, queue in (("high", poller.tasks.urgent), ("low", poller.tasks.low))
            for task in list(queue)
            if task is not running
        ]
        now, now_ns = poller.backend.clock(), self.rows.now_ns()
        timers = [
            BaseTimer(
                now_ns + round(min(max(timer.deadline - now, -_LONGEST), _LONGEST) * 1e9),
                self.rows.function_id(timer.func),
            )
            for timer in poller.tasks.timers
        ]
        return BaseState(
            backend=poller.backend.name,
            fd=_descriptor_of(poller),
            wakeup_fd=poller.wakeup.fd,
            size=poller.size,
            running=poller.running,
            registrations=tuple(registrations),
            tasks=tuple(tasks),
            timers=tuple(timers),
        )

    # ---- what the twins ask -------------------------------------------------------------------

    def make_room(self) -> None:
        """Fold the oldest steps into the base state; while somebody reads, next time."""
        rows = self.rows
        if rows.reading.acquire(blocking=False):
            try:
                count = max(len(rows.packed) // ROW.size // 8, 1)
                base = after(self.trace.base, rows, count)
                rows.drop(count)
                self.trace.base = base
            finally:
                rows.reading.release()

    def guarded(self) -> _Guard:
        """Return a context in which a fault ends the recording, and gets no further."""
        return _Guard(self)

    def error_id(self, error: BaseException) -> int:
        """Return the id of what a call raised, whatever it takes to get its text."""
        try:
            return self.rows.error_id(error)
        except Exception as fault:
            self.fail(fault)
            return NOTHING

    def fail(self, error: Exception) -> None:
        """Note a fault of the recording; the next wait goes on without it."""
        if not self.failed:
            self.failed = True
            self.fault = f"{type(error).__name__}: {error}"
            logger.error("the recording of %r failed and ends here", self.poller, exc_info=error)

    def fail_to_write(self, error: OSError) -> None:
        """Note that the file could not be written; the recording goes on in memory."""
        self.fault = f"{type(error).__name__}: {error}"
        logger.error("%s ends here, the recording goes on in memory: %s", self._path, error)

    def meet_run(self) -> None:
        """Note that this thread runs the loop now, and begin to watch its sockets."""
        self.run = self.poller._run
        self.thread = threading.get_ident()
        self.thread_name = self.rows.string_id(threading.current_thread().name)
        if self._io:
            socket_calls.watch(self.thread, self)

    def cause_here(self) -> int:
        """Return the seq of the dispatch or task that this thread is in."""
        return self.cause if threading.get_ident() == self.thread else NOTHING

    def callback_of(self, fd: int) -> int:
        """Return the function id of the callback that the loop calls for `fd`."""
        callback = self.poller._callback
        if callback is None:
            registration = self.poller._registrations.get(fd)
            if registration is None:
                return NOTHING
            callback = registration.attachment.callback
        return self.rows.function_id(callback)

    def site(self) -> tuple[int, int]:
        """Return where, outside the library, the call under way was made: function id and line."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename in _PASSED_THROUGH:
            frame = frame.f_back
        if frame is None:
            return NOTHING, NOTHING
        return self.rows.code_id(frame.f_code), frame.f_lineno


def _recorded_call(recording: Recording) -> socket_calls.Tell:
    """Return the function that writes down a socket call which a callback or task of the loop made.

    It is called by what stands in for the socket's method, twice for every message: what it needs
    is bound once.
    """
    poller, rows, append = recording.poller, recording.rows, recording.rows.packed.extend
    pack = ROW.pack
    next_seq, now_ns, frame_of = rows.next_seq, rows.now_ns, sys._getframe
    callers: dict[int, int] = {}  # function ids by id() of their code, which `rows` keeps alive
    callers_get = callers.get

    def socket_call(
        kind: int, fd: int, first: int, second: int, told: str | Exception | None = None, /
    ) -> None:
        cause = recording.cause
        if cause == NOTHING and (poller._run is None or poller._run is not recording.run):
            return  # between two calls of poll_once, say
        try:
            failure = NOTHING
            if told is not None:
                if isinstance(told, str):
                    second = rows.string_id(told)
                else:
                    failure = rows.error_id(told)
            frame: FrameType | None = frame_of(2)  # past this one and the method's stand-in
            function = place = NOTHING
            while frame is not None:
                code = frame.f_code
                function = callers_get(id(code), NOTHING)
                if function == NOTHING and code.co_filename not in _PASSED_THROUGH:
                    function = callers[id(code)] = rows.code_id(code)
                if function != NOTHING:
                    place = -2 - frame.f_lasti  # its line is looked up by whoever reads the row
                    break
                frame = frame.f_back
            if function == cause == NOTHING:
                return  # netpoll's own call, such as that of a wakeup which is a socket
            thread = recording.thread_name
            seq, t_ns = next_seq(), now_ns()
            append(
                pack(seq, t_ns, kind, thread, cause, fd, first, second, function, place, failure)
            )
        except Exception as fault:
            recording.fail(fault)

    return socket_call


def _no_call(
    kind: int, fd: int, first: int, second: int, told: str | Exception | None = None, /
) -> None:
    pass


class _Guard:
    """A context that keeps faults of a recording from the program that is recorded."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._recording.fail(error)
        return True


class BackendTwin:
    """Stands in for the backend: writes down registrations, waits and the end."""

    def __init__(self, recording: Recording, original: Backend) -> None:
        self.name = original.name
        self.limits = original.limits
        self.kernel = original.kernel
        self.flags = original.flags
        self.clock = original.clock
        self.fileno = original.fileno
        self.open_wakeup = original.open_wakeup
        self.wait = _recorded_wait(recording, original)
        if recording.kernel:
            self.wait = _checked_wait(recording, self.wait)
        self.recording = recording
        self._original = original

    def add(self, fd: int, interest: Interest) -> bool:
        """Write down a registration."""
        return self._change(
            KIND["Registered"], partial(self._original.add, fd, interest), fd, interest
        )

    def modify(self, fd: int, interest: Interest) -> bool:
        """Write down a changed registration."""
        return self._change(
            KIND["Modified"], partial(self._original.modify, fd, interest), fd, interest
        )

    def remove(self, fd: int) -> bool:
        """Write down the end of a registration."""
        return self._change(KIND["Deleted"], partial(self._original.remove, fd), fd, None)

    def close(self) -> None:
        """Write down that the poller gives its descriptors back, and end the recording."""
        try:
            self.recording.rows.write(KIND["PollerClosed"], cause=self.recording.cause_here())
        except Exception as fault:
            self.recording.fail(fault)
        self.recording.detach()
        self._original.close()

    def _change(
        self, kind: int, change: Callable[[], bool], fd: int, interest: Interest | None
    ) -> bool:
        recording, rows = self.recording, self.recording.rows
        first = second = failure = NOTHING
        try:
            if interest is not None:
                bits = sum(bool(wanted) << place for place, wanted in enumerate(interest))
                first = bits | rows.string_id(socket_calls.name_of(fd, self.kernel)) << 8
                second = recording.callback_of(fd)
            seq, t_ns = rows.next_seq(), rows.now_ns()
        except Exception as fault:
            recording.fail(fault)
            return change()
        changed = False
        try:
            changed = change()
            return changed
        except BaseException as error:
            failure = recording.error_id(error)
            raise
        finally:
            try:
                recording.list_changed = True
                rows.write(
                    kind,
                    seq=seq,
                    t_ns=t_ns,
                    cause=recording.cause_here(),
                    fd=min(fd, _MOST_FD),
                    first=first,
                    second=second,
                    site=recording.site(),
                    error=failure,
                )
                if changed and self.name == "epoll":
                    rows.write(KIND["ListRebuilt"], cause=seq)
            except Exception as fault:
                recording.fail(fault)


Wait = Callable[["float | None", int], "list[tuple[int, int]]"]


def _checked_wait(recording: Recording, recorded: Wait) -> Wait:
    """Return the recorded wait, comparing the kernel's list with the registrations before it."""
    poller, rows = recording.poller, recording.rows

    def wait(timeout: float | None, size: int) -> list[tuple[int, int]]:
        if recording.list_changed:
            with recording.guarded(), poller.lock:  # other threads register meanwhile
                listed = _kernel_list(poller)
                recording.list_changed = listed is None  # no descriptor was left to read it
                if listed is None:
                    return recorded(timeout, size)
                difference = kernel_view.difference(_masks(poller, listed), listed)
                error = rows.string_id(difference) if difference else NOTHING
                rows.write(KIND["ListChecked"], first=len(listed), error=error)
        return recorded(timeout, size)

    return wait


def _recorded_wait(recording: Recording, original: Backend) -> Wait:
    """Return the original's `wait`, writing down when it began and what it returned."""
    poller, rows = recording.poller, recording.rows
    append, pack = rows.packed.extend, ROW.pack
    next_seq, now_ns = rows.next_seq, rows.now_ns
    pairs, flatten = rows.events, chain.from_iterable
    size_before = poller.size

    def wait(timeout: float | None, size: int) -> list[tuple[int, int]]:
        nonlocal size_before
        try:
            if recording.failed:
                recording.detach()
                return original.wait(timeout, size)
            if len(rows.packed) >= recording.most_bytes:
                recording.make_room()
            if recording.run is not poller._run:
                recording.meet_run()
            thread = recording.thread_name
            if size != size_before:
                size_before = size
                rows.write(KIND["BatchResized"], cause=recording.last_wait, first=size)
            pause = NOTHING if timeout is None else round(timeout * 1e9)
            started = next_seq()
            append(pack(started, now_ns(), _WAIT_STARTED, thread, -1, -1, pause, size, -1, -1, -1))
        except Exception as fault:
            recording.fail(fault)
            return original.wait(timeout, size)
        try:
            events = original.wait(timeout, size)
        except BaseException as error:
            failure = recording.error_id(error)
            with recording.guarded():
                first = rows.dropped_events + len(pairs)
                rows.write(_WAIT_ENDED, cause=started, first=first, second=0, error=failure)
            raise
        try:
            seq, t_ns, first = next_seq(), now_ns(), rows.dropped_events + len(pairs)
            pairs.fromlist([*flatten(events)])
            append(
                pack(seq, t_ns, _WAIT_ENDED, thread, started, -1, first, len(events), -1, -1, -1)
            )
            recording.last_wait = seq
        except Exception as fault:
            recording.fail(fault)
        return events

    return wait


class CallbacksTwin(dict[int, Callback]):
    """Stands in for the callback table: what it returns for a descriptor writes down the call.

    As a dict it holds what was made of the original's callbacks, until those change.
    """

    def __init__(self, recording: Recording, original: MutableMapping[int, Callback]) -> None:
        self._recording = recording
        self._original = original

    def __missing__(self, fd: int) -> Callback:
        callback = self._original[fd]
        try:
            recorded = _recorded_callback(self._recording, fd, callback)
        except Exception as fault:
            self._recording.fail(fault)
            return callback
        super().__setitem__(fd, recorded)
        if self._original.get(fd) is not callback:  # another thread changed it meanwhile
            super().pop(fd, None)
        return recorded

    def __setitem__(self, fd: int, callback: Callback) -> None:
        self._original[fd] = callback
        super().pop(fd, None)

    def pop(self, fd: int, *default: Any) -> Any:
        """Take a descriptor out of both."""
        callback = self._original.pop(fd, *default)
        super().pop(fd, None)
        return callback

    def clear(self) -> None:
        """Empty both."""
        self._original.clear()
        super().clear()


def _recorded_callback(recording: Recording, fd: int, callback: Callback) -> Callback:
    """Return `callback`, writing down each call."""
    poller, rows = recording.poller, recording.rows
    append, pack = rows.packed.extend, ROW.pack
    next_seq, now_ns = rows.next_seq, rows.now_ns
    flags_of = poller.backend.flags
    if fd == poller.wakeup.fd:
        return callback

    def drop(fd: int, event: int, flags: int) -> None:
        with recording.guarded():
            rows.write(KIND["EventDropped"], cause=recording.last_wait, fd=fd, first=event)
        callback(fd, event, flags)

    if isinstance(callback, MethodType) and callback.__func__ is Registrar._ignore:
        return drop
    function = recording.callback_of(fd)
    registration = poller._registrations.get(fd)
    if recording.buffers:
        callback = _between_looks(recording, fd, callback)

    def dispatch_once(fd: int, event: int, flags: int) -> None:
        # The kernel may report a one-shot once more when its list was made anew.
        (drop if registration is not None and registration.fired else dispatch)(fd, event, flags)

    def dispatch(fd: int, event: int, flags: int) -> None:
        seq = thread = failure = NOTHING
        try:
            if recording.run is not poller._run:
                recording.meet_run()
            thread, wait = recording.thread_name, recording.last_wait
            first = event | flags_of.get(fd, 0) << 32 if flags_of else event
            seq, t_ns = next_seq(), now_ns()
            append(pack(seq, t_ns, _STARTED, thread, wait, fd, first, function, -1, -1, -1))
            recording.cause = seq
        except Exception as fault:
            recording.fail(fault)
        try:
            callback(fd, event, flags)
        except BaseException as error:
            failure = recording.error_id(error)
            raise
        finally:
            recording.cause = NOTHING
            try:
                append(pack(next_seq(), now_ns(), _ENDED, thread, seq, fd, -1, -1, -1, -1, failure))
            except Exception as fault:
                recording.fail(fault)

    return dispatch_once if registration and registration.interest.oneshot else dispatch


def _between_looks(recording: Recording, fd: int, callback: Callback) -> Callback:
    """Return `callback`, looking at the kernel's buffers of `fd` before and after it."""
    poller, rows = recording.poller, recording.rows

    def look(same: os.stat_result | None) -> os.stat_result | None:
        with recording.guarded(), contextlib.suppress(OSError):
            now = os.fstat(fd)  # it may be closed, or another one's by now
            if fd in poller._registrations and (same is None or os.path.samestat(same, now)):
                unread, unsent = kernel_view.buffers(fd)
                if not unread == unsent == NOTHING:
                    kind, cause = KIND["BuffersSeen"], recording.cause
                    rows.write(kind, cause=cause, fd=fd, first=unread, second=unsent)
                return now
        return None

    def call(fd: int, event: int, flags: int) -> None:
        before = look(None)
        try:
            callback(fd, event, flags)
        finally:
            if before is not None:
                look(before)

    return call


class TasksTwin(AsyncTaskQueue):
    """Stands in for the task queues, over the same two queues."""

    def __init__(self, recording: Recording, original: AsyncTaskQueue) -> None:
        super().__init__(original.crowded, original.low_a_round)
        self.urgent = original.urgent
        self.low = original.low
        self.timers = original.timers
        self._recording = recording

    def push(self, priority: EventPriority, task: Task) -> None:
        """Write down that `task` is queued, and queue it."""
        recording = self._recording
        queue = self.queue_for(priority)
        with recording.guarded():
            seq = recording.rows.write(
                KIND["TaskQueued"],
                cause=recording.cause_here(),
                first=(priority == EventPriority.LOW) | (queue is self.low) << 1,
                second=recording.rows.function_id(task.func),
                site=recording.site(),
            )
            recording.seq_of_task[id(task)] = recording.newest_task[threading.get_ident()] = seq
        queue.append(task)

    def set_timer(self, timer: Timer) -> None:
        """Write down that `timer` is set, and set it."""
        recording = self._recording
        with recording.guarded():
            t_ns = recording.rows.now_ns()  # before the clock: its deadline comes out no later
            delay = timer.deadline - recording.poller.backend.clock()
            seq = recording.rows.write(
                KIND["TimerSet"],
                t_ns=t_ns,
                cause=recording.cause_here(),
                first=round(min(max(delay, 0), _LONGEST) * 1e9),
                second=recording.rows.function_id(timer.func),
                site=recording.site(),
            )
            recording.seq_of_task[id(timer)] = seq
            # The loop's thread need not be woken, nor one that does not run.
            if recording.poller._run is not None and threading.get_ident() != recording.thread:
                recording.newest_task[threading.get_ident()] = seq
        self.timers.add(timer)

    def cancel_timer(self, timer: Timer) -> bool:
        """Call off `timer`, and write it down when it was to be called."""
        recording = self._recording
        waited = super().cancel_timer(timer)
        if waited:
            with recording.guarded():
                recording.rows.write(
                    KIND["TimerCanceled"],
                    cause=recording.cause_here(),
                    first=recording.seq_of_task.pop(id(timer), NOTHING),
                    second=recording.rows.function_id(timer.func),
                    site=recording.site(),
                )
        return waited

    def _run(
        self, queue: deque[Any], count: int, on_error: Callable[[Task, Exception], None]
    ) -> None:
        """Do what the original does, writing down each task."""
        recording, rows = self._recording, self._recording.rows
        with recording.guarded():
            if recording.run is not recording.poller._run:
                recording.meet_run()
        for _ in range(count):
            if self._round_ended:
                return
            task: Task = queue[0]
            if task.over:
                queue.popleft()
                continue
            started = failure = NOTHING
            with recording.guarded():
                started = recording.cause = self._write_start(task)
            try:
                task.over = True
                task.func(task.param)
            except BaseException as error:
                failure = recording.error_id(error)
                gets_out = isinstance(error, (EngineShutdown, AcceptSocketError))
                if gets_out or not isinstance(error, Exception):
                    raise
                on_error(task, error)
            finally:
                recording.cause = NOTHING
                if queue and task.over:
                    queue.popleft()
                with recording.guarded():
                    rows.write(KIND["TaskEnded"], cause=started, error=failure)

    def _write_start(self, task: Task) -> int:
        recording, rows = self._recording, self._recording.rows
        cause = recording.seq_of_task.pop(id(task), NOTHING)
        function = rows.function_id(task.func)
        if isinstance(task, Timer):
            late = recording.poller.backend.clock() - task.deadline
            cause = rows.write(
                KIND["TimerFired"], cause=cause, first=round(late * 1e9), second=function
            )
        return rows.write(KIND["TaskStarted"], cause=cause, second=function)


class WakeupTwin(Wakeup):
    """Stands in for the wakeup, on the same descriptor.

    The lock makes a write or a read and its step one, so that they stand in the order in which
    they happened and a WakeupReceived names the WakeupSent that it read.
    """

    def __init__(self, recording: Recording, original: Wakeup) -> None:
        self.fd = original.fd
        self._recording = recording
        self._original = original
        self.one = threading.RLock()  # a signal handler may wake while this thread does

    def wake(self) -> bool:
        """Write down that the wakeup descriptor was written to, if it was."""
        recording = self._recording
        cause = recording.newest_task.pop(threading.get_ident(), None)
        if cause is None:
            cause = recording.cause_here()
        with self.one:
            seq, t_ns = recording.rows.next_seq(), recording.rows.now_ns()
            try:
                sent = self._original.wake()
            except OSError as error:
                failure = recording.error_id(error)
                with recording.guarded():
                    kind = KIND["WakeupSent"]
                    recording.rows.write(kind, seq=seq, t_ns=t_ns, cause=cause, error=failure)
                raise
            if sent:
                recording.last_wakeup = seq
                with recording.guarded():
                    recording.rows.write(KIND["WakeupSent"], seq=seq, t_ns=t_ns, cause=cause)
        return sent

    def clear(self) -> bool:
        """Write down that the wakeup descriptor was read back to zero, if it was not."""
        recording = self._recording
        with self.one:
            cleared = self._original.clear()
            if cleared:
                with recording.guarded():
                    recording.rows.write(KIND["WakeupReceived"], cause=recording.last_wakeup)
                recording.last_wakeup = NOTHING
        return cleared

    def close(self) -> None:
        """Close the original."""
        self._original.close()


def after(base: BaseState, rows: Rows, count: int) -> BaseState:
    """Return what holds after the first `count` of `rows`, which begin with `base`.

    Call it with `reading` held.
    """
    steps = list(rows.lasting(count))
    if any(getattr(one, "oneshot", False) for one in (*base.registrations, *steps)):
        steps = list(rows.lasting(count, dispatches=True))  # which disarm them
    return folded(base, steps, count)


def folded(base: BaseState, steps: Iterable[Step], count: int) -> BaseState:
    """Return what holds after `steps`, which are what matters of the next `count`."""
    registrations = {row.fd: row for row in base.registrations}
    tasks, timers, size = list(base.tasks), list(base.timers), base.size
    for step in steps:
        if getattr(step, "error", None) is not None:
            continue
        if isinstance(step, Registered):
            registrations[step.fd] = BaseRegistration(
                step.fd,
                step.who,
                step.interest,
                step.edge_triggered,
                step.oneshot,
                step.exclusive,
                step.callback,
            )
        elif isinstance(step, Deleted):
            registrations.pop(step.fd, None)
        elif isinstance(step, DispatchStarted):
            row = registrations.get(step.fd)
            if row is not None and row.oneshot:
                registrations[step.fd] = dataclasses.replace(row, armed=False)
        elif isinstance(step, Closed):
            if step.fd in registrations:
                row = registrations[step.fd]
                registrations[step.fd] = dataclasses.replace(row, closed=True)
        elif isinstance(step, ListRebuilt):
            for fd, row in registrations.items():
                registrations[fd] = dataclasses.replace(row, armed=True)
        elif isinstance(step, BatchResized):
            size = step.size
        elif isinstance(step, TaskQueued):
            tasks.append(BaseTask(step.queue, step.callback, step.seq))
        elif isinstance(step, TimerSet):
            timers.append(BaseTimer(step.t_ns + step.delay_ns, step.callback, step.seq))
        elif isinstance(step, (TimerFired, TimerCanceled)):
            seq = step.cause if isinstance(step, TimerFired) else step.timer
            timers.sort(key=lambda timer: timer.due_ns)
            _take(timers, seq)
        elif isinstance(step, TaskStarted):
            tasks.sort(key=lambda task: task.queue)  # urgent ones first
            _take(tasks, step.cause)
    return dataclasses.replace(
        base,
        size=size,
        running=True,
        registrations=tuple(registrations.values()),
        tasks=tuple(tasks),
        timers=tuple(timers),
        dropped=base.dropped + count,
    )


def _take(waiting: list[Any], seq: int | None) -> None:
    """Take the first with this `seq` off the list."""
    for index, one in enumerate(waiting):
        if one.seq == seq:
            del waiting[index]
            return


_WAIT_STARTED, _WAIT_ENDED = KIND["WaitStarted"], KIND["WaitEnded"]
_STARTED, _ENDED = KIND["DispatchStarted"], KIND["DispatchEnded"]
_LONGEST = 9e9  # seconds: what a row has room for, some 285 years
_MOST_FD = 2**31 - 1  # what a row has room for: the greatest descriptor there can be


def _clock_of(poller: Poller) -> Callable[[], int]:
    """Return the clock of the poller's kernel, in nanoseconds."""
    clock = poller.backend.clock
    return monotonic_ns if clock is monotonic else lambda: round(clock() * 1e9)


def _descriptor_of(poller: Poller) -> int | None:
    try:
        return poller.fileno()
    except io_module.UnsupportedOperation:
        return None


def _kernel_list(poller: Poller) -> dict[int, int] | None:
    """Return the kernel's own interest list, masks by number; None where it can't be read.

    Only there one sees that a number was closed without `delete` and is another file's by now.
    """
    if poller.backend.name != "epoll" or not isinstance(poller.backend.kernel, ModuleType):
        return None
    return kernel_view.interest_list(poller.fileno())


def _masks(poller: Poller, listed: dict[int, int]) -> dict[int, int]:
    """Return the masks that an epoll's registrations should have in the kernel.

    A one-shot that fired has any: a list that was made anew has it armed again.
    """
    wakeup = mask_of(poller.backend.kernel, Interest(read=True, write=False)) | kernel_view.ALWAYS
    return {poller.wakeup.fd: wakeup} | {
        fd: listed.get(fd, 0)
        if registration.fired
        else mask_of(poller.backend.kernel, registration.interest) | kernel_view.ALWAYS
        for fd, registration in poller._registrations.items()
    }


def _directions(interest: Interest) -> str:
    return " ".join(name for name in ("read", "write") if getattr(interest, name))


def _running_task(tasks: AsyncTaskQueue) -> Task | None:
    """Return the task of `tasks` that this thread is in; it stands in its queue until it ends."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_run":
            queue = frame.f_locals.get("queue")
            if any(queue is one for one in (tasks.urgent, tasks.low, tasks.timers.due)):
                running: Task = frame.f_locals["task"]
                return running
        frame = frame.f_back
    return None


def _in_loop(poller: Poller, change: Callable[[], None], purpose: str) -> None:
    """Call `change` where nothing of the loop is under way, and raise what it raises.

    Directly, holding the poller's lock, when no loop runs or this thread runs it; else as a task
    of the loop. Never twice, and never after this has raised.
    """
    outcome: concurrent.futures.Future[None] = concurrent.futures.Future()

    def task(_: object) -> None:
        with poller.lock:
            if not outcome.set_running_or_notify_cancel():
                return
            try:
                change()
            except BaseException as error:
                outcome.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                outcome.set_result(None)

    task.__qualname__ = f"tracer: {purpose}"
    queued = False
    deadline = monotonic() + ATTACH_TIMEOUT
    try:
        while True:
            with poller.lock:
                run = poller._run
                here = run is None or run.thread == threading.get_ident()
                if here and outcome.cancel():
                    change()
                    return
            if not queued:
                with contextlib.suppress(ValueError):  # closed meanwhile: its loop is about to end
                    poller.trigger(EventPriority.HIGH, task)
                queued = True
            with contextlib.suppress(concurrent.futures.TimeoutError):
                outcome.result(0.05)
                return
            if monotonic() > deadline and outcome.cancel():
                raise TimeoutError(
                    f"could not {purpose} within {ATTACH_TIMEOUT:g} seconds: the loop is at\n"
                    + netpoll.background.stack_of(run.thread if run else 0)
                )
    finally:
        outcome.cancel()
