"""The event loop: wait for the kernel, dispatch callbacks, run tasks.

Read `Poller._loop` first: it is the loop, and everything else is there so that it can be short.
How descriptors get on the list that it waits for is in `netpoll/registrar.py`.
Source: gnet `pkg/netpoll/poller_epoll_default.go`; where it differs, docs/explanation says why.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from netpoll.attachment import Callback, PollAttachment
from netpoll.backends import Backend, open_backend
from netpoll.error_log import ErrorLog, logger
from netpoll.errors import AcceptSocketError, EngineShutdown
from netpoll.queue import AsyncTaskQueue, EventPriority, Task, Timer
from netpoll.registrar import Registrar

OnError = Callable[[PollAttachment | Task, Exception], object]
"""``on_error(source, exception)``: where exceptions from callbacks and tasks go."""

LONGEST_WAIT = 2_000_000.0
"""Seconds (23 days): what every kernel can wait in one go. The loop then waits once more."""


def open_poller(
    backend: str | None = None, *, kernel: Any = None, on_error: OnError | None = None
) -> Poller:
    """Open a poller on the best backend here, or on the one named (gnet: `OpenPoller`).

    `backend` is "epoll", "kqueue" or "select". `kernel` has the interface of Python's `select`
    module, which it is unless given; `netpoll.simulated.Kernel()` is another. `on_error` gets the
    exceptions that callbacks and tasks raise; without it they are logged, with their traceback, to
    the ``netpoll`` logger, the same one at most once a second. Raises ValueError for an unknown
    name, NotImplementedError for a backend that this system lacks, OSError when descriptors run
    out.
    """
    return Poller(open_backend(backend, kernel), on_error=on_error)


class Poller(Registrar):
    """An event loop over one kernel interest list (gnet: `Poller`). Made by `open_poller`.

    A round is: wait, dispatch the batch, run timers that are due, run tasks. `add_*`, `mod_*`,
    `delete`, `trigger`, `call_later`, `stop` and `close` may be called from any thread; one thread
    at a time runs the loop. Every method but `close` and `stop` raises ValueError on a closed
    poller, RuntimeError in a forked child.

    The loop's collaborators are plain attributes: `backend`, `callbacks`, `tasks`, `wakeup`. The
    loop looks them up anew whenever `attention` was set, so that others of the same kind can be put
    in their place, holding `lock`, while it is idle or from its own thread.
    """

    def __init__(self, backend: Backend, *, on_error: OnError | None = None) -> None:
        if on_error is not None and not callable(on_error):
            backend.close()
            raise TypeError(f"on_error is a function of (source, exception), not {on_error!r}")
        super().__init__(backend)
        self.tasks = AsyncTaskQueue(backend.limits.crowded, backend.limits.low_a_round)
        self.size = backend.limits.events
        self._on_error = on_error or ErrorLog()
        self._clock = backend.clock
        self._run: _Run | None = None
        self._interrupted = False
        self._stopping = False
        self._freed = False
        _pollers.add(self)

    # ---- the loop -----------------------------------------------------------------------------

    def polling(self, callback: Callback | None = None) -> None:
        """Run the loop until `stop`, `close` or `EngineShutdown` (gnet: `Polling`).

        `callback` is called for every descriptor; without it each attachment's own (gnet's
        `poll_opt` build). Exceptions of callbacks and tasks go to `on_error` and the loop goes on,
        except `AcceptSocketError`, KeyboardInterrupt and SystemExit, which get out. After any exit
        it can be called again, and nothing is lost. Raises RuntimeError when it runs already.
        """
        self._serve(callback, None, once=False)

    def poll_once(self, timeout: float | None = None, callback: Callback | None = None) -> int:
        """Run one round and return how many events were dispatched.

        Waits up to `timeout` seconds for an event, and no longer than until a timer is due; None
        (or more than 23 days) waits as long as it takes, zero or less not at all. Tasks that are
        queued and timers that are due already run first, and then it does not wait either. Raises
        as `polling`, and ValueError for a timeout that is not a number.
        """
        if timeout is not None:
            if math.isnan(timeout):
                raise ValueError("the timeout is not a number")
            timeout = None if timeout > LONGEST_WAIT else max(timeout, 0)
        return self._serve(callback, timeout, once=True)

    def _serve(self, callback: Callback | None, timeout: float | None, *, once: bool) -> int:
        """Run `_loop` as the only one who does, whatever ends it."""
        run = _Run()
        try:
            self._begin(run, callback)
            try:
                dispatched = self._loop(timeout, once)
            except AcceptSocketError:
                self._interrupted = self._stopping = False
                raise
            self._interrupted = self._stopping = False
            return dispatched
        finally:
            # No call stands before the assignment: an interrupt can't come between (_Run says why).
            if self._run is run:
                self._run = None
                try:
                    if self._closed:
                        self._free()
                finally:
                    run.over.release()

    def _loop(self, timeout: float | None, once: bool) -> int:
        """Wait, dispatch, run tasks: the loop itself. Returns how many events were dispatched."""
        wait, callbacks, batch = self.backend.wait, self.callbacks, self._batch
        offered, skipped = operator.length_hint(batch), self._not_dispatched
        fd, waited = -1, False
        size, shrink_below = self._resize(0)
        if once and (offered or self._pause(None) == 0):
            timeout = 0
        pause = timeout
        try:
            while True:
                try:
                    for fd, event in batch:
                        callbacks[fd](fd, event, 0)
                except (EngineShutdown, AcceptSocketError):
                    raise
                except Exception as error:
                    self._report(fd, error)
                    continue  # with what is left of the batch
                if self.attention:
                    if not self._attend():
                        break
                    wait, callbacks = self.backend.wait, self.callbacks
                    pause = self._pause(timeout)
                if waited:
                    break
                events = wait(pause, size)
                batch = self._batch = iter(events)
                if not shrink_below <= len(events) < size:
                    size, shrink_below = self._resize(len(events))
                if once:
                    waited = True
                    offered += len(events)
        except EngineShutdown:
            pass
        return offered - operator.length_hint(self._batch) - (self._not_dispatched - skipped)

    def _attend(self) -> bool:
        """Do what is to be done between two waits; return False when the loop is to end."""
        self.attention = False
        if not self._closed:
            self._check_process()  # a callback may have forked
            self.wakeup.clear()
            self.tasks.run_round(self._clock(), self._handle)
        if not self._closed:
            self._check_process()  # or a task
        if self._deleted:
            self._settle()
        return not (self._stopping or self._closed)

    def _pause(self, timeout: float | None) -> float | None:
        """Return how long the next wait may last: `timeout`, unless tasks or timers are to run."""
        if self.tasks:
            pause: float | None = 0
        else:
            pause = self.tasks.timers.until_next(self._clock())
        if pause is None:
            return timeout
        self.attention = True  # after that wait they run
        return min(pause, LONGEST_WAIT if timeout is None else timeout)

    def _resize(self, returned: int) -> tuple[int, int]:
        """Fit the batch size to how many events the last wait returned, as gnet's event list does.

        Returns the size and the number of events below which it is to shrink.
        """
        limits = self.backend.limits
        if returned >= self.size:
            self.size = min(self.size * 2, limits.most_events)
        elif 0 < returned < self.size // 2:
            self.size = max(self.size // 2, limits.fewest_events)
        return self.size, self.size // 2 if self.size > limits.fewest_events else 0

    def _begin(self, run: _Run, callback: Callback | None) -> None:
        """Make `run` the one that runs the loop, and put right what an interrupt left."""
        if callback is not None and not callable(callback):
            raise TypeError(f"a callback is a function of (fd, event, flags), not {callback!r}")
        self._check_usable()
        with self.lock:
            self._check_usable()
            if self._run is not None:
                raise RuntimeError("this poller's loop runs already")
            self._run = run
            interrupted, self._interrupted = self._interrupted, True  # until it ends in order
            if interrupted or self._callback != callback:
                self._use(callback)
            if interrupted:
                self._arm_again()
            self.attention = True  # tasks first

    def _report(self, fd: int, error: Exception) -> None:
        """Pass on what the callback of `fd` raised, with the attachment it was called for."""
        called = self._called
        if called is not None and called[:2] == (self._batch, fd):
            attachment: PollAttachment | None = called[2]
        else:
            attachment = self.attachments.get(fd)
        if attachment is None:
            if fd == self.wakeup.fd or not isinstance(error, KeyError):
                raise error  # not from a callback: a signal handler raised it
            # The kernel kept what the table gave up (descriptors ran out in a delete, say).
            self._not_dispatched += 1
            with contextlib.suppress(OSError, ValueError), self.lock:
                self.backend.remove(fd)
            return
        self._handle(attachment, error)

    def _handle(self, source: PollAttachment | Task, error: Exception) -> None:
        try:
            self._on_error(source, error)
        except Exception:
            logger.exception("on_error failed on an exception from %r", source)

    # ---- tasks, stop and close ----------------------------------------------------------------

    def trigger(
        self, priority: EventPriority, func: Callable[[Any], object], param: Any = None
    ) -> None:
        """Queue ``func(param)`` to run in the loop's thread, and wake the loop (gnet: `Trigger`).

        Safe from any thread and from signal handlers. Raises TypeError when `priority` is no
        `EventPriority` or `func` can't be called.
        """
        self._check_usable()
        if not isinstance(priority, EventPriority):
            raise TypeError(f"a priority is EventPriority.HIGH or .LOW, not {priority!r}")
        task = Task(func, param)
        try:
            self.tasks.push(priority, task)
            self.attention = True
            self.wakeup.wake()
        except BaseException:  # interrupted, perhaps after the push
            self.wakeup.wake()
            raise

    def call_later(
        self, delay_seconds: float, func: Callable[[Any], object], param: Any = None
    ) -> Timer:
        """Call ``func(param)`` in the loop's thread, so many seconds from now or a little later.

        Never earlier; those of one deadline in the order in which they were made. `Timer.cancel`
        calls it off. A negative delay counts as zero. Safe from any thread. Raises ValueError for a
        delay that is not a number, TypeError when `func` can't be called.
        """
        self._check_usable()
        if math.isnan(delay_seconds):
            raise ValueError("the delay is not a number")
        timer = Timer(self, self._clock() + max(delay_seconds, 0), func, param)
        try:
            self.tasks.set_timer(timer)
            self.attention = True
            if self._loop_thread and (not self._in_loop or self._dispatched() is None):
                self.wakeup.wake()  # it may be waiting
        except BaseException:  # interrupted: nobody will hold the timer
            timer.cancel()
            raise
        return timer

    def stop(self) -> None:
        """Make the loop return after the current round, or at once when it is started next.

        Safe from any thread and from signal handlers; nothing happens on a closed poller.
        """
        if not self._closed and self._process == os.getpid():
            self._stopping = True
            self.attention = True
            self.wakeup.wake()

    def close(self) -> None:
        """Give the kernel's descriptors back; what is registered stays open (gnet: `Close`).

        A running loop ends first: called from another thread, this waits for that; called from a
        callback, nothing more is dispatched after it. Queued tasks are dropped and their number
        logged. A second close does nothing. In a forked child only the child's copies are closed.
        """
        if self._process != os.getpid():
            self._closed = True
            self.lock = threading.RLock()  # a thread that the child lacks may hold the other one
            self.tasks.end_round()
            self.tasks.drop()
            self._free()
            return
        with self.lock:
            self._closed = True
            self.tasks.end_round()
            run = self._run
        if run is None:
            self._free()
        elif run.thread == threading.get_ident():
            self._drop_batch()
        else:
            self.attention = True
            self.wakeup.wake()
            with run.over:
                pass

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def running(self) -> bool:
        """Whether a thread is in `polling` or `poll_once`."""
        return self._run is not None

    def fileno(self) -> int:
        """Return the descriptor of the kernel's object, which is readable when events are ready."""
        self._check_usable()
        return self.backend.fileno()

    def __enter__(self) -> Poller:
        self._check_usable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:
            return f"<Poller on {self.backend.name}, closed>"
        return f"<Poller on {self.backend.name}, {len(self._registrations)} registered>"

    def __del__(self) -> None:
        if hasattr(self, "wakeup") and not self._freed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._free()

    def _free(self) -> None:
        with self.lock:
            if self._freed:
                return
            dropped = self.tasks.drop()
            self.backend.close()
            self.wakeup.close()
            self._registrations.clear()
            self._deleted.clear()
            self.callbacks.clear()
            self._freed = True  # last: when an interrupt comes first, the next close ends it
        if dropped:
            logger.warning("closed with %d queued tasks, which will not run", dropped)

    def _drop_batch(self) -> None:
        """End the batch; what is to be done after it comes next."""
        self._not_dispatched += sum(1 for _ in self._batch)
        self.attention = True

    @property
    def _loop_thread(self) -> int:
        run = self._run
        return 0 if run is None else run.thread


class _Run:
    """One call of `polling` or `poll_once`: its thread, and a lock that is held until it is over.

    CPython raises KeyboardInterrupt between a call and what follows it, at the start of a function
    and at a jump, nowhere else. What must not be torn apart stands between two such places.
    """

    __slots__ = ("over", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.over = threading.Lock()
        self.over.acquire()


_pollers: weakref.WeakSet[Poller] = weakref.WeakSet()


def _end_loop_in_child() -> None:
    """After a fork in a callback: in the child the loop dispatches nothing more and raises."""
    for poller in list(_pollers):
        if poller._in_loop:
            poller._drop_batch()
            poller.tasks.end_round()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_loop_in_child)
