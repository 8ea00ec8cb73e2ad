"""The command line: record the pollers of a script, and look at the traces.

Each subcommand imports what it needs when it runs, so that ``tracer --help`` answers at once.
"""

from __future__ import annotations

import argparse
import atexit
import builtins
import contextlib
import functools
import importlib.machinery
import importlib.util
import io
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from types import CodeType, FrameType, ModuleType
from typing import Any, TextIO

import netpoll
import netpoll.poller
from tracer.recorder import Recording, record
from tracer.rows import KIND
from tracer.trace import Trace, TraceFormatError, load
from tracer.words import count, shown

PROGRESS_AFTER = 0.5
"""Seconds that work may take before it is announced on a terminal; then how often it is told."""

EXAMPLES = {
    "record": """\
examples:
  tracer record server.py --port 9090          # the script, with its own arguments
  tracer record -m netpoll.examples.echo_server
  tracer record --output run.jsonl server.py   # a second poller goes to run-2.jsonl""",
    "html": """\
example:
  tracer html trace.jsonl   # writes trace.html; open it in a browser""",
    "stats": """\
example:
  tracer stats trace.jsonl""",
    "lint": """\
example:
  tracer lint trace.jsonl --slow 0.02   # a callback may take 20 ms

The exit status is 1 when there are findings, and 0 when there are none.""",
    "diff": """\
example:
  tracer diff monday.jsonl tuesday.jsonl

The exit status is 1 when the runs differ, and 0 when they are equal.""",
    "perfetto": """\
examples:
  tracer perfetto trace.jsonl                          # writes trace.perfetto.json
  tracer perfetto trace.jsonl trace-2.jsonl -o both.json   # two pollers of one run

Drop the file on https://ui.perfetto.dev.""",
}


class UserError(Exception):
    """What the person at the keyboard can mend: told in one line, exit status 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    0 is success, 1 that lint found something or that two runs differ, 2 a mistake in the call or a
    file that can't be used, 130 Ctrl-C. `record` ends as the script does that it runs.
    """
    options = _parser().parse_args(arguments)
    try:
        return _record(options) if options.run is _record else _look(options)
    except UserError as error:
        _tell(str(error))
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tracer",
        description="Record what netpoll loops do, step by step, and look at the recordings.",
        epilog="Begin with: tracer record server.py, then: tracer html trace.jsonl",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=text[0].lower() + text[1:].partition(".")[0],
            description=text,
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        return command

    command = add(
        "record",
        _record,
        "Run a script and record every poller that it opens.\n\n"
        "The script runs as it would without this, to its own exit status. Each poller gets a\n"
        "file, into which every step is written as it happens. A trace holds source code, paths\n"
        "and addresses: think of that before you share one.",
    )
    command.add_argument(
        "--output",
        type=Path,
        default=Path("trace.jsonl"),
        metavar="FILE",
        help="the first poller's file (%(default)s); others get a number: trace-2.jsonl",
    )
    command.add_argument("--force", action="store_true", help="overwrite files that are there")
    command.add_argument(
        "--no-io", action="store_true", help="leave out what callbacks do to their sockets"
    )
    command.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="keep the newest N steps or so of each poller, in memory, and write them at the end",
    )
    command.add_argument(
        "-m", action="store_true", dest="module", help="SCRIPT is the name of a module"
    )
    command.add_argument("script", metavar="SCRIPT", help="the file to run")
    command.add_argument(
        "arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="its own arguments"
    )

    command = add("html", _html, "Write the replay as one HTML file.")
    _add_trace(command)
    _add_output(command, "the page (the trace's name, ending in .html)")
    command.add_argument(
        "--beside", type=Path, metavar="TRACE", help="another trace, to be shown side by side"
    )

    command = add("stats", _stats, "Show where the loop's time went.")
    _add_trace(command)

    command = add("lint", _lint, "Find mistakes in what the loop and its callbacks did.")
    _add_trace(command)
    command.add_argument(
        "--slow",
        type=_seconds,
        metavar="SECONDS",
        help="how long a callback or task may hold the loop (0.1)",
    )

    command = add("diff", _diff, "Show where two runs part, and why.")
    for name in "ab":
        command.add_argument(name, type=Path, metavar=name.upper(), help="a trace file")

    command = add("perfetto", _perfetto, "Write a file for the Perfetto viewer.")
    command.add_argument("traces", type=Path, nargs="+", metavar="TRACE", help="a trace file")
    _add_output(command, "the file (the first trace's name, ending in .perfetto.json)")
    return parser


def _add_trace(command: argparse.ArgumentParser) -> None:
    command.add_argument("trace", type=Path, metavar="TRACE", help="a trace file")


def _add_output(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)


def _positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) > 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number of steps")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (number := float(text)) >= 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")


def _tell(text: str) -> None:
    """Say something on stderr, in one line; nobody may be there to hear it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"tracer: {shown(text, 2000)}", file=sys.stderr, flush=True)


# ---- record -----------------------------------------------------------------------------------


def _record(options: argparse.Namespace) -> int:
    """Run the script, recording, and return 0, or 1 after an exception; others pass through.

    The recordings end when the process does, after the threads that the script leaves behind.
    """
    output = options.output
    if not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}")
    if output.is_dir():
        raise UserError(f"{output}: is a folder")
    if output.exists() and not options.force:
        raise UserError(f"{output}: is there already; --force overwrites it")
    recorder = Recorder(output, io=not options.no_io, limit=options.limit, force=options.force)
    recorder.watch()  # first: to find a module imports the packages around it
    try:
        program, code = (_module if options.module else _script)(options.script)
    except UserError:
        recorder.unwatch()
        raise
    atexit.register(recorder.finish)

    # From here on all is as if the script had been started alone.
    sys.modules["__main__"] = program
    sys.argv = [str(program.__file__) if options.module else options.script, *options.arguments]
    try:
        exec(code(), program.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
            traceback = traceback.tb_next
        sys.excepthook(type(error), error.with_traceback(traceback), traceback)
        if isinstance(error, Exception):
            return 1
        sys.excepthook = lambda *_: None  # it has been shown
        raise  # Python ends by the signal then, as a shell expects of an interrupted program
    return 0


Script = tuple[ModuleType, Callable[[], CodeType]]
"""What runs as ``__main__``, and a function that compiles its code."""


def _script(name: str) -> Script:
    """Find the script in the file `name`."""
    path = os.path.abspath(name)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error
    program = _program(__file__=path, __cached__=None)
    program.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    _import_from(os.path.dirname(os.path.realpath(name)))
    return program, lambda: compile(source, path, "exec", dont_inherit=True)


def _module(name: str) -> Script:
    """Find the module `name`, or the ``__main__`` of the package `name`, as ``python -m`` does."""
    _import_from(os.getcwd())
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ImportError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
    if spec is None:
        raise UserError(f"{name}: there is no such module, or it is a package that can't be run")
    loader: Any = spec.loader
    module = spec.name

    def code() -> CodeType:
        found: CodeType | None = loader.get_code(module)
        if found is None:
            raise ImportError(f"No code object available for {module}")
        return found

    program = _program(
        __file__=spec.origin,
        __cached__=spec.cached,
        __loader__=loader,
        __package__=spec.parent,
        __spec__=spec,
    )
    return program, code


def _import_from(folder: str) -> None:
    """Let imports begin in `folder`, unless Python was told not to (-I, -P)."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = folder


def _program(**values: object) -> ModuleType:
    program = ModuleType("__main__")
    program.__dict__.update(__builtins__=builtins, __annotations__={}, **values)
    return program


class Recorder:
    """Records every poller that `open_poller` opens, each into a file of its own.

    With a `limit`, the newest steps are kept in memory and written by `finish`; without, each goes
    to the file as it happens.
    """

    def __init__(self, output: Path, *, io: bool, limit: int | None, force: bool) -> None:
        self.output = output
        self._absolute = Path(os.path.abspath(output))  # the script may go to another folder
        self._io = io
        self._limit = limit
        self._force = force
        self._numbers = itertools.count(1)
        self._recordings: list[tuple[Path, Path, Recording]] = []
        self._original = netpoll.poller.open_poller
        self._process = os.getpid()
        self._failed = False

    def watch(self) -> None:
        """Put a function that also records in the place of `open_poller`."""
        original = self._original

        @functools.wraps(original)
        def open_poller(*arguments: Any, **options: Any) -> netpoll.Poller:
            poller = original(*arguments, **options)
            if os.getpid() == self._process:  # two processes would write into one file
                try:
                    self._begin(poller, sys._getframe(1))
                except Exception as error:  # never the script's problem
                    self._failed = True
                    _tell(f"a poller is not recorded: {_reason(error)}")
            return poller

        netpoll.open_poller = netpoll.poller.open_poller = open_poller

    def unwatch(self) -> None:
        """Put the original back."""
        netpoll.open_poller = netpoll.poller.open_poller = self._original

    def _begin(self, poller: netpoll.Poller, caller: FrameType) -> None:
        name, path = self._new_file()
        if self._limit is None:
            recording = record(poller, io=self._io, path=path)
        else:
            recording = record(poller, io=self._io, limit=self._limit)
        self._recordings.append((name, path, recording))
        base, rows = recording.trace.base, recording.rows
        with recording.guarded():
            rows.write(
                KIND["PollerOpened"],
                first=(-1 if base.fd is None else base.fd) << 32 | base.wakeup_fd,
                second=rows.string_id(base.backend),
                site=(rows.code_id(caller.f_code), caller.f_lineno),
            )

    def _new_file(self) -> tuple[Path, Path]:
        """Make the next file, one that was not there unless told to; return its name and path."""
        for number in self._numbers:
            name, path = _numbered(self.output, number), _numbered(self._absolute, number)
            with contextlib.suppress(FileExistsError):
                path.open("w" if self._force else "x").close()
                return name, path
        raise AssertionError("the numbers never end")

    def finish(self) -> None:
        """End all recordings and say where they are."""
        if os.getpid() != self._process:
            return
        for name, path, recording in self._recordings:
            problems = []
            try:
                recording.stop()
            except (TimeoutError, KeyboardInterrupt):
                problems.append("its loop was busy until the end")
            try:
                if self._limit is not None:
                    recording.trace.save(path)
            except (OSError, KeyboardInterrupt) as error:
                problems.append(f"it could not be written: {_reason(error)}")
            if recording.fault is not None:
                problems.append(f"it ends early: {recording.fault}")
            steps = count(len(recording.trace), "step")
            if recording.dropped:
                if self._limit is None:
                    steps = count(len(recording.trace) + recording.dropped, "step")
                else:
                    steps = f"the newest {steps} ({recording.dropped:,} older ones dropped)"
            _tell("; ".join([f"{steps} in {name}", *problems]))
        if not (self._recordings or self._failed):
            _tell("the script opened no poller, so nothing was recorded")


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


# ---- looking at traces ------------------------------------------------------------------------


def _look(options: argparse.Namespace) -> int:
    """Run a subcommand that reads traces."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal has no letter for
    try:
        status: int = options.run(options)
        return status
    except KeyboardInterrupt:
        return 130


def _html(options: argparse.Namespace) -> int:
    from tracer.page import write_page

    target = _target(options.output or options.trace.with_suffix(".html"), options.trace)
    trace = _load(options.trace)
    beside = None if options.beside is None else _load(options.beside)
    labels = (shown(options.trace.name), shown(options.beside.name) if options.beside else "")
    with _writing(target), _progress("writing the page"):
        write_page(trace, target, title=shown(options.trace.name), beside=beside, labels=labels)
    _show(f"{shown(str(target), 2000)}: open it in a browser.")
    return 0


def _stats(options: argparse.Namespace) -> int:
    from tracer.stats import stats

    trace = _load(options.trace)
    with _progress("counting"):
        text = repr(stats(trace))
    _show(text)
    return 0


def _lint(options: argparse.Namespace) -> int:
    from tracer.lint import SLOW, lint

    trace = _load(options.trace)
    with _progress("looking for mistakes"):
        findings = lint(trace, slow=SLOW if options.slow is None else options.slow)
    _show(repr(findings))
    return 1 if findings else 0


def _diff(options: argparse.Namespace) -> int:
    from tracer.diff import diff

    a, b = _load(options.a), _load(options.b)
    with _progress("comparing"):
        difference = diff(a, b)
        text = repr(difference)
    _show(f"a is {shown(str(options.a), 200)}\nb is {shown(str(options.b), 200)}\n\n{text}")
    return 1 if difference else 0


def _perfetto(options: argparse.Namespace) -> int:
    from tracer.perfetto import perfetto

    paths: list[Path] = options.traces
    target = _target(options.output or paths[0].with_suffix(".perfetto.json"), *paths)
    traces = [_load(path) for path in paths]
    with _writing(target):
        perfetto(traces, target)
    _show(f"{shown(str(target), 2000)}: drop it on https://ui.perfetto.dev")
    return 0


def _load(path: Path) -> Trace:
    """Load a whole trace."""
    try:
        with _progress(f"reading {path}"):
            trace = load(path)
    except TraceFormatError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if trace.partial:
        raise UserError(f"{path}: is a part of a trace; this needs the whole")
    if trace.truncated:
        _tell(f"{path}: the end of the file was torn off; this is what can be read")
    return trace


def _target(target: Path, *traces: Path) -> Path:
    """Return `target`, unless it is one of the traces: they can't be made again."""
    for trace in traces:
        with contextlib.suppress(OSError):
            if target.samefile(trace):
                raise UserError(f"{target}: is the trace itself; give another name with -o")
    return target


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        with _progress(f"writing {target}"):
            yield
    except OSError as error:
        raise UserError(f"{target}: can't be written: {error.strerror or error}") from error


def _show(text: str) -> None:
    """Print the result; somebody like `head` may read only the beginning."""
    try:
        print(text, flush=True)
    except OSError as error:
        # Python flushes once more when it ends, and would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"the result can't be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _progress(work: str, every: float = PROGRESS_AFTER) -> Iterator[None]:
    """Tell on stderr how long `work` has been going on, once it lasts; only on a terminal."""
    stream: TextIO | None = sys.stderr
    if stream is None or not stream.isatty():
        yield
        return
    over = threading.Event()
    line = f"{shown(work, 60)} …"

    def tell() -> None:
        begin, told = monotonic(), False
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone
            while not over.wait(every):
                stream.write(f"\r{line} {monotonic() - begin:.1f} s")
                stream.flush()
                told = True
            if told:
                stream.write("\r\x1b[K")
                stream.flush()

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
