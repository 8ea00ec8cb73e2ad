"""`run_in_thread`: a server beside other work, in a notebook, a test or an interpreter session."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable

from netpoll.attachment import Callback
from netpoll.error_log import logger
from netpoll.poller import Poller

_started: dict[str, LoopThread] = {}


class LoopThread:
    """A thread that runs a poller's loop and closes the poller when the loop ends.

    Made by `run_in_thread`. `exception` is what ended the loop, None while it runs and after an
    orderly end. As a context manager it stops on leaving.
    """

    def __init__(
        self,
        poller: Poller,
        name: str,
        callback: Callback | None,
        on_end: Callable[[], object] | None,
    ) -> None:
        self.poller = poller
        self.name = name
        self.exception: BaseException | None = None
        self._callback = callback
        self._on_end = on_end
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def stop(self, timeout: float = 5.0) -> None:
        """End the loop, wait for the thread and raise what the loop raised, if anything.

        Not for the loop's own callbacks and tasks, which raise RuntimeError: call `poller.stop`
        there. Raises TimeoutError, with the line that it hangs on, when the loop does not come back
        within `timeout` seconds. A second call does nothing.
        """
        self._end(timeout)
        exception, self.exception = self.exception, None
        if exception is not None:
            raise exception

    def _end(self, timeout: float) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a loop can't wait for its own end: call poller.stop() instead")
        self.poller.stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(
                f"the loop of {self.name!r} did not return within {timeout:g} seconds; it is at\n"
                + stack_of(self._thread.ident or 0)
            )

    def __enter__(self) -> LoopThread:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<LoopThread {self.name!r}, {'running' if self.running else 'ended'}>"

    def _serve(self) -> None:
        try:
            try:
                self.poller.polling(self._callback)
            finally:
                self.poller.close()
                if self._on_end is not None:
                    self._on_end()
        except BaseException as exception:
            self.exception = exception
            logger.error("the loop of %r ended with an exception", self.name, exc_info=exception)


def run_in_thread(
    poller: Poller,
    *,
    name: str = "server",
    callback: Callback | None = None,
    on_end: Callable[[], object] | None = None,
) -> LoopThread:
    """Run ``poller.polling(callback)`` in a thread and return at once.

    A loop that was started under the same `name` before is stopped first, so that a notebook cell
    can be run again and again; one that runs this very poller goes on and is returned. When the
    loop ends, in whatever way, the poller is closed and then `on_end` is called in the loop's
    thread: close the server's sockets there. An exception that ends the loop is logged as it
    happens and raised by `LoopThread.stop`. Raises ValueError for a closed poller, RuntimeError for
    one whose loop runs elsewhere.
    """
    before = _started.get(name)
    if before is not None:
        if before.poller is poller and before.running:
            return before
        before._end(5.0)
        del _started[name]
    if poller.closed:
        raise ValueError("the poller is closed: open a new one for every loop")
    if poller.running:
        raise RuntimeError("this poller's loop runs already, in another thread")
    _started[name] = LoopThread(poller, name, callback, on_end)
    return _started[name]


def stack_of(thread: int) -> str:
    """Return the lines that the thread of this identifier is executing, the innermost last."""
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame else "(nowhere: it has ended)"
