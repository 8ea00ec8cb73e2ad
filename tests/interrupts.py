"""KeyboardInterrupt at every point of some code where Python could raise it, one by one."""

import dis
import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

NEEDS_REHEARSAL = sys.version_info >= (3, 13)


class InterruptAt:
    """Runs a function and raises KeyboardInterrupt at the `place`-th point where Python could.

    Those are the start of a Python function, the moment after a call of a C function and the end
    of a loop's pass, in the files whose names start with one of `watched`; in the file `calling`
    only the start of functions that are named `callback`. `reached` tells whether there were that
    many; with `place` -1 nothing is raised. Python 3.13 forgets after an exception which functions
    it was asked to tell the instructions of: `NEEDS_REHEARSAL` says to run with -1 before each.
    """

    def __init__(self, place: int, watched: tuple[str, ...], calling: str = "") -> None:
        self.place = place
        self.reached = False
        self._watched = watched
        self._calling = calling
        self._before: dict[FrameType, str] = {}
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
            self._before[frame.f_back] = "a Python function"
        if frame.f_code.co_filename == self._calling:
            if frame.f_code.co_name == "callback":
                self._point()
            return None
        if not frame.f_code.co_filename.startswith(self._watched):
            return None
        self._point()
        frame.f_trace_opcodes = True
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            before = self._before.get(frame, "")
            if before.startswith("CALL") or before in ("JUMP_BACKWARD", "JUMP_ABSOLUTE"):
                self._point()
            code = self._code.setdefault(frame.f_code, frame.f_code.co_code)
            self._before[frame] = dis.opname[code[frame.f_lasti]]
        return self._stepped

    def _point(self) -> None:
        if self.place == 0:
            self.reached = True
            self.place = -1
            raise KeyboardInterrupt
        self.place -= 1
