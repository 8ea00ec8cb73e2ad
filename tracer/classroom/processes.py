"""A student's file in a process of its own, with an end to its time, its memory and its files."""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tracer.classroom import source
from tracer.classroom.wrong import Wrong
from tracer.trace import Trace

ROOT = Path(__file__).resolve().parents[2]
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tracer.classroom.child import main; main()"
)
SECONDS = 20.0
"""So long may a student's program run, unless the task says otherwise."""

Answer = Any
"""What a student's function returned: None, numbers, texts, lists and dicts of them."""


def call(
    path: str | os.PathLike[str],
    function: str,
    *arguments: Any,
    modules: tuple[str, ...] = (),
    seconds: float = SECONDS,
) -> Answer:
    """Call a function of a student's file in a process of its own and return what it returned.

    `arguments` and the answer are what JSON knows; a `Trace` may be given too. The file may import
    `modules` beside the usual ones. Raises `Wrong` when it raises, crashes or does not come back
    within `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        prepared = []
        for number, argument in enumerate(arguments):
            if isinstance(argument, Trace):
                file = Path(folder, f"trace-{number}.jsonl")
                argument.save(file)
                argument = {"load": str(file)}
            prepared.append(argument)
        child = Child(Path(path), folder, seconds, modules, function=function, arguments=prepared)
        try:
            return _answer(child, function, seconds)
        finally:
            child.kill()


def _answer(child: Child, function: str, seconds: float) -> Answer:
    report = child.report(time.monotonic() + seconds)
    if report is None:
        raise Wrong(
            f"{function}() in {child.name} did not come back within {seconds:g} seconds. "
            f"{child.where_it_is()}"
        )
    child.raise_error(report)
    if "result" not in report:
        raise Wrong(f"{function}() in {child.name} gave no answer.")
    return report["result"]


class Unwritten(Wrong):
    """The student's program came to a part that raises NotImplementedError still."""


class Child:
    """A process that runs a student's file. It is told its task, and reports in JSON.

    `output` is the end of what the program printed, errors included.
    """

    def __init__(
        self, path: Path, folder: str, seconds: float, modules: tuple[str, ...], **task: Any
    ) -> None:
        self.name = path.name
        self.path = str(path.resolve())
        text = source.read(path, modules)
        self._printed = Path(folder, "printed.txt")
        self._reports, report = os.pipe()
        self._pending = b""
        task |= {"file": self.path, "source": text, "seconds": seconds, "report": report}
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
        }
        try:
            with self._printed.open("wb") as printed:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-X", "utf8", "-c", START, str(ROOT)],
                    stdin=subprocess.PIPE,
                    stdout=printed,
                    stderr=printed,
                    cwd=folder,
                    env=environment,
                    pass_fds=(report,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._reports)
            raise
        finally:
            os.close(report)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()

    @property
    def output(self) -> str:
        """The end of what the program printed."""
        try:
            with self._printed.open("rb") as file:
                file.seek(max(0, self._printed.stat().st_size - 2000))
                return file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def report(self, end: float) -> dict[str, Any] | None:
        """Return the next report; None when none comes until `end`, {} when the process ended."""
        while b"\n" not in self._pending:
            wait = max(0.0, end - time.monotonic())
            if not select.select([self._reports], [], [], wait)[0]:
                return None
            data = os.read(self._reports, 65536)
            if not data:
                return {}
            self._pending += data
            if len(self._pending) > 1 << 20:
                raise Wrong(f"{self.name} answered with far more than was asked for.")
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            report = json.loads(line)
        except ValueError:
            report = None
        if not isinstance(report, dict):
            raise Wrong(f"{self.name} wrote to a descriptor that is not its own.")
        return report

    def raise_error(self, report: dict[str, Any]) -> None:
        """Raise `Wrong` for a report that tells of an error, or for a process that has ended."""
        if "error" in report:
            where = source.at(report.get("where"))
            if str(report["error"]).startswith("NotImplementedError"):
                raise Unwritten(f"{self.name}{where} this part is not written yet.")
            raise Wrong(f"{self.name}{where} raised {report['error']}")
        if not report:
            raise Wrong(f"{self.name} {self.how_it_ended()}")

    def where_it_is(self) -> str:
        """Return in words which line of its file the program is at; empty when at none."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"?\n")
            self.process.stdin.flush()
            report = self.report(time.monotonic() + 1)
        except (OSError, ValueError, Wrong):
            return ""
        if not report or not isinstance(report.get("at"), list):
            return ""
        line, function = report["at"]
        code = linecache.getline(self.path, int(line)).strip()
        return f"It is still in {function}(), line {line}: {code}"

    def how_it_ended(self) -> str:
        """Return in words how the process came to its end, with what it printed last."""
        try:
            code = self.process.wait(2)
        except subprocess.TimeoutExpired:
            return "closed what it was to report on."
        why = f"ended with exit code {code}"
        if code < 0:
            why = f"was ended by the signal {signal.Signals(-code).name}"
            if -code in (signal.SIGXCPU, signal.SIGKILL):
                why += " (it used more time or memory than it may)"
        printed = self.output
        return f"{why}." + (f" It printed last:\n{printed[-500:]}" if printed else "")

    def hold(self) -> None:
        """Stop the process, and come back when it stands still or has ended."""
        self.process.send_signal(signal.SIGSTOP)
        if self.process.returncode is None:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        """Let the process go on after `hold`."""
        self.process.send_signal(signal.SIGCONT)

    def end_input(self) -> None:
        """Ask a server to end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def kill(self) -> None:
        """End the process, whatever it does, and everything that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.end_input()
        if self._reports >= 0:
            os.close(self._reports)
            self._reports = -1
