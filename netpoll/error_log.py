"""`ErrorLog`: where exceptions of callbacks and tasks go when the program says nothing else."""

from __future__ import annotations

import logging
from time import monotonic

from netpoll.attachment import PollAttachment
from netpoll.queue import Task

logger = logging.getLogger("netpoll")


class ErrorLog:
    """Logs exceptions with their traceback to the ``netpoll`` logger, the same one once a second.

    A callback that fails before it has read is called again in every round: without the limit it
    would fill a terminal or a notebook with a hundred thousand tracebacks before anybody can react.
    What was left out is counted in the next message.
    """

    MOST_KINDS = 100
    """So many different exceptions are remembered."""

    def __init__(self) -> None:
        self._logged: dict[tuple[int, type[Exception], str], tuple[float, int]] = {}

    def __call__(self, source: PollAttachment | Task, error: Exception) -> None:
        """Log `error`, unless the same came from the same function less than a second ago."""
        function = source.callback if isinstance(source, PollAttachment) else source.func
        kind = id(function), type(error), str(error)
        now = monotonic()
        last, left_out = self._logged.get(kind, (-1.0, 0))
        if last >= 0 and now - last < 1:
            self._logged[kind] = last, left_out + 1
            return
        if len(self._logged) >= self.MOST_KINDS:
            self._logged.clear()
        self._logged[kind] = now, 0
        again = f" ({left_out:,} times more since the last message)" if left_out else ""
        logger.error("exception in %r%s", source, again, exc_info=error)
