"""run.py, loaded from a copy in a folder with a space; nothing here touches the network."""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import conftest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="run.py is best effort on Windows")


@pytest.fixture
def run_with_uv(tmp_path: Path) -> ModuleType:
    """run.py in a fresh clone; it finds a uv on PATH if there is one."""
    clone = tmp_path / "a clone"
    clone.mkdir()
    for name in ("run.py", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, clone)
    spec = importlib.util.spec_from_file_location("run_in_a_clone", clone / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(run_with_uv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py in a fresh clone, as on a machine without uv."""
    monkeypatch.setattr(run_with_uv, "uv_on_path", lambda: None)
    return run_with_uv


@pytest.fixture
def commands(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that run.py would have run, out of sight or in sight; each of them succeeds."""
    seen: list[list[str]] = []

    def succeed(command: Sequence[str], cwd: Path | None = None) -> int:
        seen.append([*command])
        return 0

    monkeypatch.setattr(run, "quietly", succeed)
    monkeypatch.setattr(run, "call", succeed)
    return seen


def finish_set_up(run: ModuleType, *extras: str) -> None:
    """Make a `.venv` that looks finished; its Python is the one that runs the tests."""
    run.SCRIPTS.mkdir(parents=True)
    Path(run.PYTHON).symlink_to(sys.executable)
    Path(run.OWN_UV).touch()
    run.write_stamp(extras)


# ---------------------------------------------------------------- the stamp


def test_finished_set_up_is_skipped(run: ModuleType, commands: list[list[str]]) -> None:
    """A set-up that is done runs no command at all, also when fewer extras are asked for."""
    finish_set_up(run, "dev", "lab")
    run.set_up("lab")
    assert commands == []


def test_another_extra_is_added_to_the_old_ones(run: ModuleType, commands: list[list[str]]) -> None:
    """A new extra is installed together with the earlier ones, into the same `.venv`."""
    finish_set_up(run, "lab")
    run.set_up("dev")
    assert commands[-1][-1] == ".[dev,lab]"
    assert not any("venv" in command for command in commands)
    assert run.read_stamp()["extras"] == ["dev", "lab"]


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_a_changed_file_is_installed_again(
    run: ModuleType, commands: list[list[str]], name: str
) -> None:
    """A change of what decides the installed packages is noticed, and installed in place."""
    finish_set_up(run, "lab")
    with (run.ROOT / name).open("a") as file:
        file.write("# changed\n")
    run.set_up("lab")
    assert commands[-1][-1] == ".[lab]"
    assert run.is_set_up(["lab"])


def forget(field: str) -> Callable[[ModuleType], None]:
    """A change to the stamp: `field` is another than now."""

    def change(run: ModuleType) -> None:
        stamp = json.loads(run.STAMP.read_text())
        run.STAMP.write_text(json.dumps({**stamp, field: "another"}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda run: run.STAMP.unlink(), id="set-up was interrupted"),
        pytest.param(lambda run: run.STAMP.write_text('{"python":'), id="stamp is torn"),
        pytest.param(lambda run: run.STAMP.write_text("[]"), id="stamp is no object"),
        pytest.param(lambda run: os.unlink(run.PYTHON), id="Python has gone"),
        pytest.param(forget("python"), id="another Python version"),
        pytest.param(forget("folder"), id="another folder"),
    ],
)
def test_unusable_environment_is_made_again(
    run: ModuleType,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[ModuleType], None],
) -> None:
    """A `.venv` that is broken, or was made for something else, is removed and made afresh."""
    finish_set_up(run, "lab")
    (run.VENV / "left over").touch()
    damage(run)
    assert run.read_stamp() is None

    def make(command: list[str]) -> None:
        commands.append(command)
        if "venv" in command:
            run.SCRIPTS.mkdir(parents=True)

    monkeypatch.setattr(run, "quietly", make)
    run.set_up("lab")
    assert commands[0][1:] == ["-m", "venv", str(run.VENV)]
    assert not (run.VENV / "left over").exists()


def test_interrupted_installation_leaves_no_stamp(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C in the middle of an installation nothing says that it was finished."""
    finish_set_up(run, "lab")

    def interrupt(command: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "quietly", interrupt)
    assert run.main(["test"]) == 130
    assert not run.STAMP.exists()


def test_failed_installation_keeps_the_environment(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network `.venv` stays as it was, and the end of the installer's words is shown."""
    finish_set_up(run, "lab")

    def fail(command: list[str]) -> None:
        raise run.CommandFailed(command, "no line\n" * 100 + "no network\n")

    monkeypatch.setattr(run, "quietly", fail)
    with pytest.raises(SystemExit, match="no network") as failure:
        run.set_up("dev")
    assert str(failure.value).count("no line") == 2 * 29  # uv, then pip: thirty lines of each
    assert run.read_stamp()["extras"] == ["lab"]
    assert not run.is_set_up(["dev"])


def test_uv_is_fetched_at_the_locked_version_and_pip_follows(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without uv pip fetches the locked one; where that one cannot install, pip does."""
    finish_set_up(run)
    Path(run.OWN_UV).unlink()
    commands: list[list[str]] = []

    def only_pip_works(command: list[str]) -> None:
        commands.append(command)
        if command[0] == run.OWN_UV:
            raise run.CommandFailed(command, "")

    monkeypatch.setattr(run, "quietly", only_pip_works)
    run.install(["lab"])
    pip = [run.PYTHON, "-m", "pip", "install", "-c", str(run.LOCK)]
    assert commands[0] == [*pip, "uv"]
    assert commands[1][0] == run.OWN_UV
    assert commands[2] == [*pip, "-e", ".[lab]"]
    assert run.is_set_up(["lab"])


@pytest.mark.parametrize(("folder", "taken"), [("tools", True), (".venv/bin", False)])
def test_uv_inside_the_environment_is_not_the_users_own(
    run_with_uv: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: str, taken: bool
) -> None:
    """In an activated `.venv`, its own uv is not used to make that `.venv` again."""
    uv = make_tool(run_with_uv.ROOT / folder / "uv")
    monkeypatch.setenv("PATH", str(uv.parent))
    assert run_with_uv.uv_on_path() == (str(uv) if taken else None)


def make_tool(path: Path) -> Path:
    """Make `path` a command that succeeds."""
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


# ---------------------------------------------------------------- machines that lack something


def start(run: ModuleType, preparation: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start run.py in a process and a session of its own, after the Python code `preparation`."""
    program = (
        "import runpy, sys; del sys.argv[0]\n"
        f"{preparation}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(run.ROOT / "run.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_old_python_gets_a_clear_line(run: ModuleType) -> None:
    """Python 3.9 is told what is needed, in one line and with exit code 1."""
    process = start(run, "sys.version_info = (3, 9, 18)", "test")
    output, errors = process.communicate()
    assert (process.returncode, output) == (1, "")
    assert re.fullmatch(r"run\.py needs Python 3\.10 or newer; this is Python 3\.9 .*\n", errors)


def test_old_python_can_parse_the_file() -> None:
    """The grammar of Python 3.7 is enough for run.py, so an old one gets as far as that line."""
    ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 7))


def test_missing_venv_module_is_answered_with_the_command(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Debian's python3-venv is missing, the apt line is shown and no `.venv` is left."""
    monkeypatch.setenv("PATH", str(make_tool(tmp_path / "tools" / "apt-get").parent))
    process = start(run, "sys.modules['ensurepip'] = None", "demo")
    output, errors = process.communicate()
    assert (process.returncode, output) == (1, "")
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert f"apt-get install {package}\n" in errors
    assert "Traceback" not in errors
    assert not run.VENV.exists()


@pytest.mark.parametrize(("root", "sudo"), [(True, ""), (False, "sudo ")])
def test_sudo_is_for_those_who_are_not_root(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, root: bool, sudo: str
) -> None:
    """The apt line can be pasted as it stands, as root and as anybody else."""
    monkeypatch.setattr(run, "is_root", lambda: root)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    version = run.python_version()
    line = f"    {sudo}apt-get update && {sudo}apt-get install python{version}-venv\n"
    assert line in run.how_to_get_venv()


def test_no_browser_opens_without_a_display(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Linux only a display, or a browser the user named, makes JupyterLab open one."""
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not run.has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert run.has_display()


# ---------------------------------------------------------------- commands


def test_pytest_gets_what_run_does_not_know(
    run: ModuleType, commands: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Arguments after `test` reach pytest in their order, and pytest comes last."""
    finish_set_up(run, "dev", "grade", "lab")
    assert run.main(["test", "-k", "a b", "--slow", "tests/test_run.py::test_x", "-x"]) == 0
    given = ["--slow", "-k", "a b", "tests/test_run.py::test_x", "-x"]
    assert commands[-1] == [run.PYTHON, "-m", "pytest", *given]
    assert [command[2] for command in commands] == ["ruff", "ruff", "mypy", "pytest"]
    assert capfd.readouterr().out.splitlines()[-1].startswith("All checks passed in ")


def test_javascript_tests_run_where_there_is_node(
    run: ModuleType, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each JavaScript test is named to node: newer ones take no folder."""
    finish_set_up(run, "dev", "grade", "lab")
    script = run.ROOT / "tests/js/player.test.mjs"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/node")
    run.main(["test"])
    assert commands[-2] == ["/usr/bin/node", "--test", str(script)]


def test_first_failure_ends_the_tests(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The step that fails is the last, and its exit code is that of `test`."""
    finish_set_up(run, "dev", "grade", "lab")
    monkeypatch.setattr(run, "call", lambda command, cwd=None: 7 if "mypy" in command else 0)
    assert run.main(["test"]) == 7
    output = capfd.readouterr().out
    assert "mypy failed" in output
    assert "pytest" not in output


def test_every_benchmark_runs(run: ModuleType, commands: list[list[str]]) -> None:
    """`bench` runs each bench_*.py in turn, and nothing else that lies beside it."""
    finish_set_up(run, "bench", "dev", "grade", "lab")
    folder = run.ROOT / "tests/benchmarks"
    folder.mkdir(parents=True)
    for name in ("bench_b.py", "bench_a.py", "helper.py"):
        (folder / name).touch()
    assert run.main(["bench"]) == 0
    assert commands == [[run.PYTHON, str(folder / f"bench_{name}.py")] for name in "ab"]


def test_screenshots_are_drawn(run: ModuleType, commands: list[list[str]]) -> None:
    """`screenshots` runs the script that draws them."""
    finish_set_up(run, "dev", "grade", "lab")
    assert run.main(["screenshots"]) == 0
    assert commands == [[run.PYTHON, str(run.ROOT / "tests/screenshots.py")]]


def test_demo_passes_the_output_file(run: ModuleType, commands: list[list[str]]) -> None:
    """`demo` writes replay.html unless it is given another name."""
    finish_set_up(run, "lab")
    run.main(["demo"])
    run.main(["demo", "--output", "my file.html"])
    assert [command[-2:] for command in commands] == [
        ["--output", "replay.html"],
        ["--output", "my file.html"],
    ]


def test_lock_is_remade_without_a_set_up(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that no longer fits pyproject.toml can be remade, and says itself how."""
    finish_set_up(run, "dev")
    run.PROJECT.write_text("changed")

    def compile_lock(command: list[str], cwd: Path) -> int:
        assert command[:3] == [run.OWN_UV, "pip", "compile"]
        run.LOCK.write_text("package==1\n")
        return 0

    monkeypatch.setattr(run, "call", compile_lock)
    assert run.main(["lock"]) == 0
    *header, line = run.LOCK.read_text().splitlines()
    assert "# Remade by: python3 run.py lock" in header
    assert line == "package==1"


@pytest.mark.parametrize(
    "arguments",
    [[], ["lap"], ["lab", "--prot", "1"], ["lab", "--port", "0"], ["lab", "--port", "65536"]],
)
def test_wrong_arguments_are_refused(run: ModuleType, arguments: list[str]) -> None:
    """A wrong command line is answered with its usage before anything is set up."""
    with pytest.raises(SystemExit) as refusal:
        run.main(arguments)
    assert refusal.value.code == 2
    assert not run.VENV.exists()


def test_a_port_in_use_is_refused_or_passed_over(run: ModuleType) -> None:
    """A port that was asked for must be free; without a wish another one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} is not free"):
            run.free_port(port)
    assert 8888 <= run.free_port(None) < 8988


# ---------------------------------------------------------------- lab

STAND_IN = '''
"""Stands in for JupyterLab: listens, and tells of every signal."""
import os, signal, socket, sys
print("argv", sys.argv, "token", os.environ["JUPYTER_TOKEN"], "pid", os.getpid(), flush=True)
signal.signal(signal.SIGINT, lambda *_: print("asked on Ctrl-C", flush=True))
signal.signal(signal.SIGTERM, STUBBORN or (lambda *_: sys.exit()))
port = next(a for a in sys.argv if "port=" in a).split("=")[1]
signal.alarm(60)  # the end, whatever happens to the test
server = socket.create_server(("127.0.0.1", int(port)))
while True:
    signal.pause()
'''


@contextmanager
def running_lab(run: ModuleType, stubborn: str = "None") -> Iterator[tuple[Any, str]]:
    """`run.py lab` with the stand-in; yields the process and what it printed up to the address."""
    finish_set_up(run, "lab")
    # `python -m` looks in the current folder first, which is the clone.
    (run.ROOT / "jupyterlab.py").write_text(STAND_IN.replace("STUBBORN", stubborn))
    process = start(run, "", "lab")
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and "Ctrl-C ends it" in lines[-1]):
        lines.append(process.stdout.readline())
        assert lines[-1], (lines, process.communicate())
    try:
        yield process, "".join(lines)
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_lab_ends_cleanly(run: ModuleType, number: signal.Signals) -> None:
    """Ctrl-C ends JupyterLab without a question or a traceback, and its process is gone."""
    with running_lab(run) as (process, printed):
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""
    assert output == "\nEnding JupyterLab.\n"
    child = int(printed.partition("pid ")[2].split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_second_ctrl_c_does_not_wait(run: ModuleType) -> None:
    """A JupyterLab that does not end when asked is ended by the second Ctrl-C."""
    with running_lab(run, stubborn="signal.SIG_IGN") as (process, _):
        os.killpg(process.pid, signal.SIGINT)
        while "Ending" not in process.stdout.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, "")


def test_lab_tells_the_token_to_the_user_alone(run: ModuleType) -> None:
    """The address holds the token; the command line, which all users can read, does not."""
    with running_lab(run) as (_, printed):
        pass
    command_line, _, rest = printed.partition("token ")
    token = rest.split()[0]
    assert f"00-start-here.ipynb?token={token}\n" in printed
    assert token not in command_line


def test_news_popup_is_off_inside_the_environment(run: ModuleType) -> None:
    """The question about Jupyter's news is switched off in `.venv`, not in the user's settings."""
    with running_lab(run):
        settings = run.VENV / "share/jupyter/lab/settings/overrides.json"
        (values,) = json.loads(settings.read_text()).values()
    assert values["fetchNews"] == "false"


# ---------------------------------------------------------------- what `test` and the lock promise


def test_lock_holds_every_extra_and_no_address() -> None:
    """Each package that an extra names is locked, and nothing in the lock says where it is from."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    named = {
        re.split("[<>=]", requirement)[0]
        for extra in project["optional-dependencies"].values()
        for requirement in extra
    }
    assert named - set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)) == set()
    assert "://" not in lock


def test_missing_browser_skips_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Chromium a browser test is skipped with the way to get it; with CI=true it fails."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    outcomes = (pytest.skip.Exception, pytest.fail.Exception)
    with pytest.raises(outcomes, match="apt-get install chromium") as outcome:
        conftest.find_chromium()
    assert outcome.type is pytest.skip.Exception
    monkeypatch.setenv("CI", "true")
    with pytest.raises(outcomes, match="apt-get install chromium") as outcome:
        conftest.find_chromium()
    assert outcome.type is pytest.fail.Exception


def labs_of(run: ModuleType) -> Path:
    """Give the clone a lab, as an instructor has it."""
    lab: Path = run.LABS / "01-first"
    for name in ("instructor", "student"):
        (lab / name).mkdir(parents=True)
        (lab / name / "first.ipynb").write_text(name)
    (run.LABS / "nbgrader_config.py").write_text("c = get_config()\n")
    return lab


def test_course_has_the_instructors_versions(
    run: ModuleType, commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A course's folder has nbgrader's settings and, for each lab, the source with its solution."""
    finish_set_up(run, "grade", "lab")
    labs_of(run)
    folder = tmp_path / "my course"
    assert run.main(["course", str(folder)]) == 0
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["nbgrader_config.py", "source/01-first/first.ipynb"]
    assert (folder / "source/01-first/first.ipynb").read_text() == "instructor"
    assert f"cd '{folder}'" in capsys.readouterr().out


def test_course_overwrites_nothing(
    run: ModuleType, commands: list[list[str]], tmp_path: Path
) -> None:
    """A folder with something in it is refused, before anything is installed."""
    labs_of(run)
    (tmp_path / "grades.csv").touch()
    with pytest.raises(SystemExit, match="there already"):
        run.main(["course", str(tmp_path)])
    assert commands == []


def test_course_without_solutions_is_told(
    run: ModuleType, commands: list[list[str]], tmp_path: Path
) -> None:
    """In an archive, which has no solutions, a course can't be made; the message says why."""
    (labs_of(run) / "instructor/first.ipynb").unlink()  # an archive keeps the empty folder
    with pytest.raises(SystemExit, match="not in this copy"):
        run.main(["course", str(tmp_path / "new")])
    assert commands == []
