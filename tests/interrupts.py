"""KeyboardInterrupt at every point of some code where Python could raise it, one by one."""

import dis
import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

NEEDS_REHEARSAL = sys.version_info >= (3, 13)

# After a call, and when one of these has jumped, CPython looks for signals (ceval.c, eval_breaker),
JUMPS: tuple[str, ...] = ("JUMP_BACKWARD", "POP_JUMP_BACKWARD")
SHIELDED: tuple[str, ...] = ()  # unless one of these comes next.
if sys.version_info < (3, 11):
    JUMPS = ("JUMP_ABSOLUTE", "POP_JUMP_IF", "JUMP_IF_NOT")
    SHIELDED = ("SETUP_FINALLY", "SETUP_WITH")
NOTHING = ("", 0)  # what comes before a function, and before what follows a Python function's call


class InterruptAt:
    """Runs a function and raises KeyboardInterrupt at the `place`-th point where Python could.

    Those are the start of a Python function, the moment after a call of a C function and the end
    of a loop's pass (on Python 3.10 every jump but those of `and` and `or`), in the files whose
    names start with one of `watched`; in the file `calling` only the start of functions that are
    named `callback`. `reached` tells whether there were that many; with `place` -1 nothing is
    raised. Python 3.13 forgets after an exception which functions it was asked to tell the
    instructions of: `NEEDS_REHEARSAL` says to run with -1 before each.
    """

    def __init__(self, place: int, watched: tuple[str, ...], calling: str = "") -> None:
        self.place = place
        self.reached = False
        self._watched = watched
        self._calling = calling
        self._before: dict[FrameType, tuple[str, int]] = {}
        self._code: dict[CodeType, bytes] = {}

    def run(self, function: Callable[[], object]) -> bool:
        """Return whether it was interrupted and the interrupt got out."""
        outer = sys.gettrace()
        # Python 3.12 and later tell of single instructions only if a frame asked before settrace.
        sys._getframe().f_trace_opcodes = True
        gc.disable()  # a finalizer would swallow the interrupt
        sys.settrace(self._called)
        try:
            function()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(outer)
            gc.enable()
            self._before.clear()
        return False

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_back is not None and frame.f_back in self._before:
            self._before[frame.f_back] = NOTHING
        if frame.f_code.co_filename == self._calling:
            if frame.f_code.co_name == "callback":
                self._point()
            return None
        if not frame.f_code.co_filename.startswith(self._watched):
            return None
        if not self._name_of(frame, 0).startswith(SHIELDED):
            self._point()
        frame.f_trace_opcodes = True
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            name = self._name_of(frame, frame.f_lasti)
            before, following = self._before.get(frame, NOTHING)
            looks = before.startswith("CALL")
            looks = looks or (before.startswith(JUMPS) and frame.f_lasti != following)
            if looks and not name.startswith(SHIELDED):
                self._point()
            self._before[frame] = name, frame.f_lasti + 2
        return self._stepped

    def _name_of(self, frame: FrameType, place: int) -> str:
        """Return the name of the instruction at this place."""
        return dis.opname[self._code.setdefault(frame.f_code, frame.f_code.co_code)[place]]

    def _point(self) -> None:
        if self.place == 0:
            self.reached = True
            self.place = -1
            raise KeyboardInterrupt
        self.place -= 1
