"""The process in which a student's file runs. Started by `processes`, not by people.

What it is to do stands in one JSON object on its standard input; what came of it, in one JSON
object a line, on the descriptor that it was given. The end of its input ends a server.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

import netpoll
from netpoll.error_log import ErrorLog
from tracer.recorder import record
from tracer.trace import load

MEMORY = 2 << 30
FILES = 64 << 20
"""Bytes of memory, and of each file: a program that runs wild does not take the machine along."""


def main() -> None:
    """Do what the first line of standard input says."""
    task: dict[str, Any] = json.loads(sys.stdin.readline())
    limit(task["seconds"])
    with os.fdopen(task["report"], "w", encoding="utf-8") as report:

        def tell(**what: Any) -> None:
            report.write(json.dumps(what) + "\n")
            report.flush()

        main_thread = threading.get_ident()
        listener = Listener(lambda: tell(at=student_line(main_thread, task["file"])))
        try:
            function = loaded(task)
            if "trace" in task:
                serve(function, task["trace"], tell, listener)
            else:
                arguments = [
                    load(a["load"]) if isinstance(a, dict) else a for a in task["arguments"]
                ]
                tell(result=function(*arguments))
        except BaseException as error:
            tell(error=described(error), where=place(error, task["file"]))
    sys.stdout.flush()
    os._exit(0)


def limit(seconds: float) -> None:
    """Bound what this process may use."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, FILES),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError):
            continue


def loaded(task: dict[str, Any]) -> Any:
    """Run the student's file as a module and return the function that is asked for."""
    module = types.ModuleType("student")
    module.__file__ = task["file"]
    sys.modules["student"] = module  # dataclasses look their module up
    source: str = task["source"]
    linecache.cache[task["file"]] = (len(source), None, source.splitlines(True), task["file"])
    exec(compile(source, task["file"], "exec", dont_inherit=True), module.__dict__)
    function = getattr(module, task["function"], None)
    if not callable(function):
        raise TypeError(f"there is no function {task['function']}() in the file")
    return function


class Listener(threading.Thread):
    """Reads standard input: each line asks where the program is, the end of it ends a server."""

    def __init__(self, answer: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.at_end: Callable[[], None] = lambda: None
        self.start()

    def run(self) -> None:
        """Answer until the input ends."""
        for _ in sys.stdin:
            self.answer()
        self.at_end()


def serve(
    start: Callable[[netpoll.Poller], Any],
    trace: str,
    tell: Callable[..., None],
    listener: Listener,
) -> None:
    """Record the loop of the server that `start(poller)` makes, until standard input ends."""
    log = ErrorLog()

    def end_when_not_written(source: Any, error: Exception) -> None:
        if isinstance(error, NotImplementedError):  # nobody has to wait for what will not come
            raise SystemExit from error
        log(source, error)

    poller = netpoll.open_poller(on_error=end_when_not_written)
    listener.at_end = poller.stop
    recording = record(poller, path=trace)
    address = start(poller)
    if not (isinstance(address, (tuple, list)) and [*map(type, address[:2])] == [str, int]):
        raise TypeError(
            f"start() returned {address!r}: let it return the address of the listener, "
            "listener.getsockname()"
        )
    tell(address=address[:2])
    try:
        poller.polling()
    except SystemExit as end:
        if isinstance(end.__cause__, NotImplementedError):
            raise end.__cause__ from None
        raise
    finally:
        recording.stop()
    tell(ended=True)


def student_line(thread: int, file: str) -> list[Any] | None:
    """Return line and function where `thread` is in the student's file; None when it is not."""
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    return None if frame is None else [frame.f_lineno, frame.f_code.co_name]


def described(error: BaseException) -> str:
    """Return an exception as Python prints it, cut to a readable length."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return text if len(text) <= 500 else text[:499] + "…"


def place(error: BaseException, file: str) -> int | None:
    """Return the innermost line of the student's file that an exception went through."""
    lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == file]
    return lines[-1] if lines else None
