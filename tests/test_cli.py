"""The command line: `record` in processes of its own, the other subcommands in this one."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import netpoll
from tests.traces import echo_trace, hostile_trace
from tracer import cli, load
from tracer.cli import main
from tracer.steps import PollerClosed, PollerOpened, Read, Registered
from tracer.trace import Trace

HOUSE = Path(__file__).parent.parent
LONG = 30.0  # seconds; no test waits so long unless something is broken
COMMANDS = ["record", "html", "stats", "lint", "diff", "perfetto"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in; child processes find the project from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(HOUSE))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is left in a buffer is tested
    return tmp_path


Ended = tuple[int, str, str]
"""The exit status of a process, and what it wrote to stdout and stderr."""


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start Python, every warning an error."""
    command = [sys.executable, "-W", "error", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for the end of a process, and end it should that take too long."""
    try:
        output, errors = process.communicate(timeout=LONG)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, output, errors


def recorded(*arguments: str) -> Ended:
    """Run ``tracer record`` to its end."""
    return end(start("-m", "tracer", "record", *arguments))


def both(*arguments: str) -> tuple[Ended, Ended]:
    """Run Python without the tracer and with it, at the same time."""
    plain, traced = start(*arguments), start("-m", "tracer", "record", *arguments)
    return end(plain), end(traced)


def write(name: str, text: str) -> str:
    """Write a script and return its name."""
    Path(name).write_text(text)
    return name


# ---- record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_module", [True, False], ids=["-m", "file"])
def test_echo_server_is_recorded_from_its_opening_to_ctrl_c(as_module: bool) -> None:
    """A real server answers, ends in order on Ctrl-C, and its trace tells all of it."""
    name = "netpoll.examples.echo_server"
    file = HOUSE.joinpath(*name.split(".")).with_suffix(".py")
    program = ["-m", name] if as_module else [str(file)]
    process = start("-m", "tracer", "record", *program, "--port", "0")
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found
        with socket.create_connection(("127.0.0.1", int(found[1])), LONG) as client:
            client.sendall(b"hello")
            assert client.recv(5, socket.MSG_WAITALL) == b"hello"
        process.send_signal(signal.SIGINT)
    finally:
        status, output, errors = end(process)
    assert status == 0
    assert "ending within" in output
    trace = load("trace.jsonl")
    assert errors == f"tracer: {len(trace)} steps in trace.jsonl\n"

    opened = trace[0]
    assert isinstance(opened, PollerOpened)
    assert (opened.backend, opened.fd, opened.wakeup_fd) == (
        trace.base.backend,
        trace.base.fd,
        trace.base.wakeup_fd,
    )
    assert opened.function is not None
    assert opened.line is not None
    function = trace.functions[opened.function]
    assert function.text.splitlines()[opened.line - function.first_line].strip() == (
        "with netpoll.open_poller() as poller:"
    )
    assert isinstance(trace[1], Registered)
    assert isinstance(trace[-1], PollerClosed)
    assert not trace.truncated
    assert [step.count for step in trace if isinstance(step, Read)] == [5, 0]


SCRIPTS = {
    "globals": """\
'Words.'
print(__name__, __file__, __package__, __spec__, __doc__, type(__loader__), sorted(globals()))
import __main__, sys
print(sys.argv, sys.path[0], __main__.__dict__ is globals(), (lambda: 0).__code__.co_flags)
""",
    "text": "import sys; sys.exit('goodbye')",
    "exception": "def f():\n    1 / 0\n\nf()",
    "syntax": "def f(:",
    "interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "hook": """\
import sys
sys.excepthook = lambda *error: print("mine", error[1])
raise KeyError(5)
""",
    "at exit": "import atexit; atexit.register(print, 'bye')\nraise SystemExit(2)",
    "thread": """\
import threading
def work():
    threading.main_thread().join()
    import __main__, sys
    print(__main__.work is work, sys.argv)
threading.Thread(target=work).start()
""",
    "processes": """\
import multiprocessing
def work(number):
    return number + 1
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, [1]))
        pool.close()
        pool.join()
""",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=list(SCRIPTS))
def test_script_behaves_as_without_the_tracer(script: str) -> None:
    """Status, output, traceback, threads and child processes are those of plain Python."""
    os.mkdir("place")
    write("place/script.py", script)
    (status, output, errors), traced = both("place/script.py", "--port", "0", "-m", "--", "x")
    own = "tracer: the script opened no poller, so nothing was recorded\n"
    assert traced == (status, output, errors + own)
    assert os.listdir() == ["place"]


@pytest.mark.parametrize(
    "name", ["place", "place.inner", "place.missing", "missing", "empty", ".place"]
)
def test_module_behaves_as_without_the_tracer(name: str) -> None:
    """With -m a package runs its ``__main__``, relative imports work, what can't be run is told."""
    os.mkdir("empty")
    os.mkdir("place")
    write("place/__init__.py", "value = 5")
    code = """\
import sys, __main__
from . import value
print(__name__, __file__, __package__, __spec__.name, sys.argv, sys.path[0], value)
print(__main__.__dict__ is globals(), sorted(globals()))
"""
    write("place/__main__.py", code)
    write("place/inner.py", code)
    plain, (status, output, errors) = both("-m", name, "--port", "0")
    assert output == plain[1]
    if plain[0]:
        assert status == 2
        assert re.fullmatch(rf"tracer: {re.escape(name)}: .+\n", errors)
    else:
        assert status == 0


def test_module_without_code_is_told() -> None:
    """What is written in C can't be run, and nothing more than that is said."""
    status, _, errors = recorded("-m", "sys")
    assert status == 1
    assert errors.startswith("ImportError: No code object available for sys\n")


def test_package_that_keeps_open_poller_is_recorded() -> None:
    """What the packages around a module import is the function that records."""
    os.mkdir("place")
    write("place/__init__.py", "from netpoll import open_poller")
    write("place/inner.py", "from . import open_poller\nopen_poller().close()")
    assert recorded("-m", "place.inner")[2] == "tracer: 2 steps in trace.jsonl\n"


def test_every_poller_gets_a_file_and_none_is_overwritten() -> None:
    """Files are numbered, a number that is taken is passed over, and --force takes it."""
    script = write(
        "script.py",
        """\
import os, netpoll
from netpoll.poller import open_poller
os.chdir("/")
with netpoll.open_poller("epoll"), open_poller("select", on_error=print):
    pass
""",
    )
    Path("run-2.jsonl").write_text("mine")
    assert recorded("--output", "run.jsonl", script)[2] == (
        "tracer: 2 steps in run.jsonl\ntracer: 2 steps in run-3.jsonl\n"
    )
    assert Path("run-2.jsonl").read_text() == "mine"
    assert [load(name).base.backend for name in ("run.jsonl", "run-3.jsonl")] == ["epoll", "select"]
    select = load("run-3.jsonl")[0]
    assert isinstance(select, PollerOpened)
    assert select.fd is None
    assert select.wakeup_fd == load("run-3.jsonl").base.wakeup_fd

    text = "tracer: run.jsonl: is there already; --force overwrites it\n"
    assert recorded("--output", "run.jsonl", script) == (2, "", text)
    forced = recorded("--force", "--output", "run.jsonl", script)
    assert forced[2] == "tracer: 2 steps in run.jsonl\ntracer: 2 steps in run-2.jsonl\n"
    assert load("run-2.jsonl").base.backend == "select"


ROUNDS = """\
import socket, sys, netpoll
left, right = socket.socketpair()
poller = netpoll.open_poller()
def read(fd, event, flags):
    left.recv(1)
poller.add_read(netpoll.PollAttachment(left, read))
for _ in range(100):
    right.send(b"x")
    poller.poll_once()
left.close()
right.close()
"""


@pytest.mark.parametrize(
    "end",
    ["", "1 / 0", "sys.exit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"],
)
def test_recording_of_a_poller_left_open_ends_with_the_script(end: str) -> None:
    """Whatever ends the script, the file is whole and the line at the end says so."""
    _, _, errors = recorded(write("script.py", ROUNDS + end))
    trace = load("trace.jsonl")
    assert len(trace.where(kind="Read")) == 100
    assert f"tracer: {len(trace)} steps in trace.jsonl\n" in errors


def test_steps_of_a_thread_that_outlives_the_script_are_recorded() -> None:
    """The recordings end after the last thread, and after what the script does at exit."""
    end = """\
import atexit, threading
def late():
    threading.main_thread().join()
    poller.trigger(netpoll.EventPriority.HIGH, print, "task")
    poller.poll_once()
atexit.register(poller.close)
threading.Thread(target=late, name="late").start()
"""
    status, output, _ = recorded(write("script.py", ROUNDS + end))
    assert (status, output) == (0, "task\n")
    trace = load("trace.jsonl")
    assert len(trace.where(kind="TaskEnded", thread="late")) == 1
    assert isinstance(trace[-1], PollerClosed)


def test_loop_that_is_stuck_at_the_end_is_told() -> None:
    """A daemon thread whose callback never returns does not keep the process from ending."""
    script = """\
import threading, netpoll, tracer.recorder
tracer.recorder.ATTACH_TIMEOUT = 0.1
poller = netpoll.open_poller()
entered = threading.Event()
def task(param):
    entered.set()
    threading.Event().wait()
poller.trigger(netpoll.EventPriority.HIGH, task)
threading.Thread(target=poller.polling, daemon=True).start()
entered.wait()
"""
    status, _, errors = recorded(write("script.py", script))
    assert status == 0
    assert "steps in trace.jsonl; its loop was busy until the end\n" in errors
    assert load("trace.jsonl").where(kind="TaskStarted")


def test_no_io_and_limit() -> None:
    """--no-io leaves the sockets out; --limit keeps the newest steps."""
    script = write("script.py", ROUNDS + "poller.close()")
    _, _, errors = recorded("--no-io", "--limit", "50", script)
    trace = load("trace.jsonl")
    assert not trace.where(kind="Read")
    assert len(trace) <= 60
    assert trace.base.dropped > 300
    assert errors == (
        f"tracer: the newest {len(trace)} steps ({trace.base.dropped:,} older ones dropped) "
        "in trace.jsonl\n"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk to write to")
def test_full_disk_is_told_and_does_not_stop_the_script() -> None:
    """The script goes on, and the last line says what is missing."""
    status, output, errors = recorded(
        "--force", "--output", "/dev/full", write("script.py", ROUNDS + "print('end')")
    )
    assert (status, output) == (0, "end\n")
    assert "in /dev/full; it ends early: OSError: [Errno 28] No space left" in errors


def test_poller_that_cant_be_recorded_works() -> None:
    """When no file can be made the script gets its poller all the same."""
    os.mkdir("place")
    script = write(
        "script.py",
        """\
import os, netpoll
os.rmdir("place")
with netpoll.open_poller() as poller:
    print(poller)
""",
    )
    status, output, errors = recorded("--output", "place/run.jsonl", script)
    assert (status, output) == (0, "<Poller on epoll, 0 registered>\n")
    assert re.fullmatch(
        "tracer: a poller is not recorded: .*run.jsonl: No such file or directory\n", errors
    )


FORKING = """\
import os, sys, netpoll
poller = netpoll.open_poller()
child = os.fork()
if not child:
    {in_child}
    sys.exit()
os.waitpid(child, 0)
poller.close()
"""


def test_child_process_records_nothing() -> None:
    """A poller that a forked child opens gets no file, and the child says nothing at its end."""
    _, _, errors = recorded(
        write("script.py", FORKING.format(in_child="netpoll.open_poller().close()"))
    )
    assert errors == "tracer: 2 steps in trace.jsonl\n"
    assert sorted(os.listdir()) == ["script.py", "trace.jsonl"]


def test_child_process_that_closes_its_copy_leaves_the_trace_alone() -> None:
    """What a forked child does with its parent's poller is not in the parent's trace."""
    recorded(write("script.py", FORKING.format(in_child="poller.close()")))
    assert [step.kind for step in load("trace.jsonl")] == ["PollerOpened", "PollerClosed"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["missing.py"], "missing.py: No such file or directory"),
        (["folder"], "folder: Is a directory"),
        (["--output", "missing/run.jsonl", "script.py"], "missing/run.jsonl: there is no folder"),
        (["--output", "folder", "script.py"], "folder: is a folder"),
        (["--limit", "0", "script.py"], "argument --limit: '0' is no number of steps"),
        ([], "the following arguments are required: SCRIPT"),
    ],
)
def test_mistakes_in_the_call_of_record(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is told in a line, nothing is run, and `open_poller` stays what it was."""
    os.mkdir("folder")
    write("script.py", "raise AssertionError")
    original = netpoll.open_poller
    assert status_of("record", *arguments) == 2
    assert text in capsys.readouterr().err.splitlines()[-1]
    assert netpoll.open_poller is netpoll.poller.open_poller is original


# ---- looking at traces ------------------------------------------------------------------------


def status_of(*arguments: str) -> int:
    """Return the exit status of a call, in this process; argparse ends by an exception."""
    try:
        return main(arguments)
    except SystemExit as error:
        return int(error.code or 0)


def saved(trace: Trace, name: str = "trace.jsonl") -> str:
    """Save a trace and return the name of its file."""
    return str(trace.save(name))


def test_html(capsys: pytest.CaptureFixture[str]) -> None:
    """The page is written beside the trace, or where -o says, and the place is told."""
    name = saved(echo_trace())
    assert main(["html", name]) == 0
    assert capsys.readouterr().out == "trace.html: open it in a browser.\n"
    assert "<title>trace.jsonl</title>" in Path("trace.html").read_text()
    assert main(["html", name, "-o", "other.html"]) == 0
    assert Path("other.html").read_text() == Path("trace.html").read_text()
    assert main(["html", name, "--beside", name]) == 0
    assert '"pairing":' in Path("trace.html").read_text()
    assert main(["html", name, "--beside", "missing.jsonl"]) == 2
    assert "missing.jsonl" in capsys.readouterr().err


def test_stats(capsys: pytest.CaptureFixture[str]) -> None:
    """The table is printed."""
    assert main(["stats", saved(echo_trace())]) == 0
    printed = capsys.readouterr()
    assert "events a wait" in printed.out
    assert "echo" in printed.out
    assert printed.err == ""


def test_lint_is_1_on_findings(capsys: pytest.CaptureFixture[str]) -> None:
    """A slow callback is a finding when --slow says so; the exit status tells."""
    name = saved(echo_trace())
    assert main(["lint", name, "--slow", "1000"]) == 0
    assert "No findings" in capsys.readouterr().out
    assert main(["lint", name, "--slow", "0"]) == 1
    assert "blocking-callback" in capsys.readouterr().out


def test_diff_is_1_on_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    """Equal runs are status 0, others 1, and the text says which file is which."""
    a, b = saved(echo_trace(), "a.jsonl"), saved(echo_trace(2), "b.jsonl")
    assert main(["diff", a, a]) == 0
    assert "The runs are equal" in capsys.readouterr().out
    assert main(["diff", a, b]) == 1
    assert capsys.readouterr().out.startswith(
        "a is a.jsonl\nb is b.jsonl\n\nThe runs are equal for"
    )


def test_perfetto(capsys: pytest.CaptureFixture[str]) -> None:
    """One file for one trace or several, a track for each."""
    a, b = saved(echo_trace(), "a.jsonl"), saved(echo_trace(), "b.jsonl")
    assert main(["perfetto", a]) == 0
    assert capsys.readouterr().out.startswith("a.perfetto.json: ")
    assert main(["perfetto", a, b, "-o", "both.json"]) == 0
    processes = [
        {event["pid"] for event in json.loads(Path(name).read_text())["traceEvents"]}
        for name in ("a.perfetto.json", "both.json")
    ]
    assert processes == [{1}, {1, 2}]


READERS = ["html", "stats", "lint", "perfetto"]


@pytest.mark.parametrize("command", READERS)
def test_file_that_is_no_trace(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing, corrupt or partial trace is status 2 and one line with the file's name."""
    lines = list(echo_trace().to_lines())
    Path("corrupt.jsonl").write_text("".join([*lines[:8], "{}\n", *lines[8:]]))
    saved(echo_trace()[5:], "part.jsonl")
    os.mkdir("folder")
    for name, text in [
        ("missing.jsonl", "No such file or directory"),
        ("folder", "Is a directory"),
        ("corrupt.jsonl", "line 9: "),
        ("part.jsonl", "is a part of a trace"),
    ]:
        assert main([command, name]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"tracer: {name}: {text}")
        assert printed.err.count("\n") == 1
        assert printed.out == ""
    assert sorted(os.listdir()) == ["corrupt.jsonl", "folder", "part.jsonl"]


@pytest.mark.parametrize("command", READERS)
def test_torn_and_empty_traces(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be read of a torn trace is shown and said to be torn; an empty one is no fault."""
    Path("torn.jsonl").write_text("".join(echo_trace().to_lines())[:-20])
    assert main([command, "torn.jsonl"]) == 0
    assert capsys.readouterr().err == (
        "tracer: torn.jsonl: the end of the file was torn off; this is what can be read\n"
    )
    assert main([command, saved(echo_trace()[:0], "empty.jsonl")]) == 0


@pytest.mark.parametrize("command", [*READERS, "diff"])
def test_hostile_names_stay_on_the_page(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Names from a trace or a file name bring no control characters to the terminal."""
    name = saved(hostile_trace(), "\x1b[31m\nred.jsonl")
    broken = "\x1b[2J\nbroken.jsonl"
    Path(broken).write_text('{"format":"\x1b[2J"}\n')
    other = [saved(echo_trace())] if command == "diff" else []
    assert main([command, name, *other]) in (0, 1)
    assert main([command, broken, *other]) == 2
    printed = capsys.readouterr()
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed.out + printed.err) == []
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("command", ["html", "perfetto"])
def test_output_that_cant_be_written(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is missing is told in a line, and the trace itself is never overwritten."""
    name = saved(echo_trace())
    before = Path(name).read_bytes()
    assert main([command, name, "-o", "missing/file"]) == 2
    assert capsys.readouterr().err == (
        "tracer: missing/file: can't be written: No such file or directory\n"
    )
    os.symlink(name, "link")
    for target in (name, "link"):
        assert main([command, name, "-o", target]) == 2
        assert "is the trace itself" in capsys.readouterr().err
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize("text", ["-1", "nan", "soon"])
def test_slow_that_is_no_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit for lint that is no time is a mistake in the call."""
    assert status_of("lint", saved(echo_trace()), f"--slow={text}") == 2
    assert f"'{text}' is no number of seconds" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["stats", "lint"])
def test_reader_that_goes_away(command: str) -> None:
    """Nobody is left to read the result: no complaint, and the same exit status."""
    name, (reader, writer) = saved(echo_trace()), os.pipe()
    os.close(reader)
    with os.fdopen(writer) as pipe:
        arguments = [sys.executable, "-m", "tracer", command, name]
        arguments += ["--slow", "0"] if command == "lint" else []
        done = subprocess.run(arguments, stdout=pipe, stderr=subprocess.PIPE, timeout=LONG)
    assert (done.returncode, done.stderr) == (int(command == "lint"), b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk to write to")
def test_result_that_cant_be_written() -> None:
    """A full disk behind stdout is one line and status 2."""
    with open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "tracer", "stats", saved(echo_trace())]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, timeout=LONG)
    text = b"tracer: the result can't be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, text)


def test_terminal_without_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stdout has no letter for × and µ, an escape stands in its place."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert main(["stats", saved(echo_trace())]) == 0
    assert rb"\xb5s" in written.getvalue()


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt while a trace is read ends quietly with the shell's status for it."""

    def interrupt(path: object) -> Trace:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load", interrupt)
    assert main(["stats", "trace.jsonl"]) == 130
    assert capsys.readouterr() == ("", "")


# ---- help and progress ------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each subcommand's help shows a call of it, and the overview has the subcommand."""
    assert status_of(command, "--help") == 0
    assert f"\n  tracer {command} " in capsys.readouterr().out
    assert status_of("--help") == 0
    assert re.search(rf"^ +{command} +\w", capsys.readouterr().out, re.MULTILINE)


def test_no_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a subcommand the usage is shown."""
    assert status_of() == 2
    assert "usage: tracer" in capsys.readouterr().err


def test_the_script_is_installed() -> None:
    """What pyproject.toml calls ``tracer`` is `main`."""
    text = (HOUSE / "pyproject.toml").read_text()
    assert re.search(r'^\[project\.scripts\]\ntracer = "tracer\.cli:main"$', text, re.MULTILINE)


class Terminal(io.StringIO):
    """A stderr that may be a terminal, and notes that something was written."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal
        self.written = threading.Event()

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> int:
        length = super().write(text)
        self.written.set()
        return length


@pytest.fixture
def threads() -> Iterator[None]:
    """Afterwards as many threads run as before."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.usefixtures("threads")
def test_progress_is_told_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that lasts shows what it is and for how long, and leaves a clean line."""
    terminal = Terminal(True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with cli._progress("reading \x1b[31m", every=0.001):
        assert terminal.written.wait(LONG)
    text = terminal.getvalue()
    assert text.startswith("\rreading  [31m … 0.0 s")
    assert text.endswith("\r\x1b[K")


@pytest.mark.usefixtures("threads")
def test_progress_is_silent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is started for a file, and short work on a terminal is not announced."""
    for is_terminal in (True, False):
        stream = Terminal(is_terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        before = threading.active_count()
        with cli._progress("reading", every=LONG):
            assert threading.active_count() == before + is_terminal
        assert stream.getvalue() == ""
