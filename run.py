#!/usr/bin/env python3
"""The one command of this project: it sets up `.venv` beside it, then does what it was asked.

    python3 run.py lab          open the notebooks in JupyterLab
    python3 run.py demo         write replay.html, a recorded session to play back in a browser
    python3 run.py course DIR   make an nbgrader course of the labs
    python3 run.py test         lint, types and every test
    python3 run.py bench        the benchmarks
    python3 run.py screenshots  the player at its moments, drawn into build/screenshots
    python3 run.py lock         remake requirements.lock after a change of pyproject.toml

It needs Python 3.10 or newer and the standard library, nothing else. A set-up that is already
done is recognized by a stamp file in `.venv` and skipped, without touching the network.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

# Old Pythons must get as far as this line: it has to stay free of newer syntax, like all below.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit(
        f"run.py needs Python 3.10 or newer; this is Python {sys.version_info[0]}."
        f"{sys.version_info[1]} ({sys.executable})."
    )

ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / "pyproject.toml"
LOCK = ROOT / "requirements.lock"
FIRST_NOTEBOOK = "notebooks/00-start-here.ipynb"
LABS = ROOT / "notebooks" / "labs"

VENV = ROOT / ".venv"
STAMP = VENV / "set-up.json"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
SUFFIX = ".exe" if os.name == "nt" else ""
PYTHON = str(SCRIPTS / f"python{SUFFIX}")
OWN_UV = str(SCRIPTS / f"uv{SUFFIX}")

LOCK_HEADER = """\
# The versions that run.py installs, for every extra and for Python 3.10 and newer.
# Used as constraints: pip install -c requirements.lock -e ".[lab,dev]"
# Remade by: python3 run.py lock
"""

# JupyterLab's own settings, kept inside .venv: the user's Jupyter configuration is not touched.
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}
}


class CommandFailed(Exception):
    """A command run out of sight failed; `output` is all that it printed."""

    def __init__(self, command: Sequence[str], output: str) -> None:
        super().__init__(" ".join(command))
        self.output = output


def say(text: str) -> None:
    """Print `text` now, so that it stays in order with what child processes print."""
    print(text, flush=True)


def give_up(text: str) -> NoReturn:
    """End with exit code 1 and `text` on standard error."""
    sys.exit(f"run.py: {text}")


# ---------------------------------------------------------------- set-up


def set_up(*extras: str) -> None:
    """Make `.venv` hold this project and `extras` at the locked versions, if it does not yet."""
    with one_at_a_time():
        if is_set_up(extras):
            return
        started = time.monotonic()
        stamp = read_stamp()
        if stamp is None or not can_install():
            make_environment()
            stamp = None
        earlier = stamp["extras"] if stamp else []
        install(sorted({*extras, *earlier}))
        say(f"Set-up done in {time.monotonic() - started:.0f} s.")


def is_set_up(extras: Sequence[str]) -> bool:
    """Whether the stamp says that nothing is left to do."""
    stamp = read_stamp()
    return stamp is not None and stamp["digest"] == digest() and {*extras} <= {*stamp["extras"]}


def digest() -> str:
    """The SHA-256 of the two files that decide what is installed."""
    return hashlib.sha256(PROJECT.read_bytes() + LOCK.read_bytes()).hexdigest()


def python_version() -> str:
    """The version that decides which packages fit, such as ``"3.11"``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def read_stamp() -> dict[str, Any] | None:
    """What the last finished set-up wrote, or None where `.venv` must be made (again).

    That is so when there is none, when its set-up was interrupted, when its Python has gone, and
    when it was made by another version of Python or in another folder (scripts hold full paths).
    """
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        usable = stamp["python"] == python_version() and stamp["folder"] == str(ROOT)
        usable = usable and isinstance(stamp["digest"], str) and isinstance(stamp["extras"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stamp if usable and os.path.exists(PYTHON) else None


def write_stamp(extras: Sequence[str]) -> None:
    """Say that the set-up is finished; `read_stamp` reads it back."""
    stamp = {
        "python": python_version(),
        "folder": str(ROOT),
        "digest": digest(),
        "extras": sorted(extras),
    }
    STAMP.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold a lock on run.py itself, so that two set-ups never write one `.venv` at once."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(__file__, "r+b") as file:  # open for writing: NFS locks no other
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another run.py is setting up; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_environment() -> None:
    """Make `.venv` afresh, in place of what may be left of an earlier one."""
    uv = uv_on_path()
    if uv is None and not can_make_environments():
        give_up(how_to_get_venv())
    if VENV.is_symlink() or VENV.exists():
        say("Removing the old .venv: it is unfinished or was made for something else.")
        remove_environment()
    say(f"Making .venv with Python {python_version()}.")
    # Where run.py was started with the Python of a virtual environment, this is the one below it.
    base: str = getattr(sys, "_base_executable", sys.executable)
    command = [uv, "venv", "--python", base] if uv else [base, "-m", "venv"]
    try:
        quietly([*command, str(VENV)])
    except CommandFailed as failure:
        remove_environment()
        give_up(f"could not make .venv.\n{tail(failure)}")


def remove_environment() -> None:
    """Remove `.venv`, whatever it is."""
    try:
        if VENV.is_symlink() or VENV.is_file():
            VENV.unlink()
        elif VENV.exists():
            shutil.rmtree(VENV)
    except OSError as error:
        give_up(f"could not remove {VENV} ({error}). Remove it by hand, then run this again.")


def can_make_environments() -> bool:
    """Whether the venv module works here; Debian keeps a part of it in a package of its own."""
    try:
        importlib.import_module("venv")
        return bool(importlib.import_module("ensurepip").version())
    except Exception:
        return False


def how_to_get_venv() -> str:
    """What to tell a person whose Python has no venv: where it is Debian's, the exact command."""
    problem = f"Python {python_version()} ({sys.executable}) cannot make virtual environments"
    if not shutil.which("apt-get"):
        return f"{problem}: it has no ensurepip. Install that, or uv, then run this again."
    sudo = "" if is_root() else "sudo "
    package = f"python{python_version()}-venv"
    command = f"{sudo}apt-get update && {sudo}apt-get install {package}"
    return f"{problem} yet. Install what it lacks, then run this again:\n\n    {command}\n"


def install(extras: Sequence[str]) -> None:
    """Install this project, editable, with `extras`.

    Meanwhile there is no stamp, so that an installation cut short is made afresh. One that fails
    puts the old stamp back: without a network, what was there goes on being mended, not removed.
    """
    say(f"Installing the extras {', '.join(extras)}. The first time this may take a minute.")
    old_stamp = STAMP.read_bytes() if STAMP.exists() else None
    STAMP.unlink(missing_ok=True)
    what = ["-c", str(LOCK), "-e", f".[{','.join(extras)}]"]
    report = ""
    for installer in installers():
        try:
            quietly([*installer, *what])
        except CommandFailed as failure:
            report += "\n" + tail(failure)
        else:
            write_stamp(extras)
            return
    if old_stamp is not None:
        STAMP.write_bytes(old_stamp)
    give_up(f"the installation failed.{report}")


def installers() -> Iterator[list[str]]:
    """The commands that may install into `.venv`, best first.

    uv takes a quarter of pip's time, so where there is none, pip fetches one into `.venv`.
    """
    uv = uv_on_path()
    if uv is not None:
        yield [uv, "pip", "install", "--python", PYTHON]
        return
    pip = [PYTHON, "-m", "pip", "install"]
    if os.path.exists(OWN_UV) or works([*pip, "-c", str(LOCK), "uv"]):
        yield [OWN_UV, "pip", "install", "--python", PYTHON]
    yield pip


def can_install() -> bool:
    """Whether packages can be added to `.venv`: one made by a uv that has gone has no pip."""
    uv = uv_on_path() is not None or os.path.exists(OWN_UV)
    return uv or works([PYTHON, "-m", "pip", "--version"])


def uv_on_path() -> str | None:
    """The user's own uv, if it works; the one inside `.venv` goes when `.venv` is made again."""
    uv = shutil.which("uv")
    if uv is None or Path(uv).absolute().is_relative_to(VENV):
        return None
    return uv if works([uv, "--version"]) else None


# ---------------------------------------------------------------- commands


def lab(options: argparse.Namespace) -> int:
    """JupyterLab on the first notebook, until Ctrl-C."""
    set_up("lab")
    port = free_port(options.port)
    settings = VENV / "share/jupyter/lab/settings/overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(LAB_SETTINGS, indent=2) + "\n", encoding="utf-8")
    token = secrets.token_hex(16)
    command = [
        PYTHON,
        "-m",
        "jupyterlab",
        FIRST_NOTEBOOK,
        f"--ServerApp.root_dir={ROOT}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--Application.log_level=ERROR",
    ]
    if is_root():
        command.append("--allow-root")
    if options.no_browser or not has_display():
        command.append("--no-browser")
    # The token goes by the environment: every user of the machine can read a command line.
    environment = {**project_environment(), "JUPYTER_TOKEN": token}
    end_like_ctrl_c()
    # In a session of its own, Jupyter does not see the terminal's Ctrl-C and asks no question.
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}/lab/tree/{FIRST_NOTEBOOK}?token={token}"
    try:
        if answers(server, port):
            say(f"JupyterLab is at\n\n    {url}\n\nCtrl-C ends it.")
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        end(server)


def demo(options: argparse.Namespace) -> int:
    """One self-contained HTML file with a recorded session."""
    set_up("lab")
    return call([PYTHON, "-m", "tracer.demo", "--output", options.output])


def course(options: argparse.Namespace) -> int:
    """A folder in which nbgrader's commands hand out, collect and grade the labs."""
    folder = Path(options.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        give_up(f"{folder} is there already. Name a folder that is new or empty.")
    labs = sorted({path.parents[1] for path in LABS.glob("*/instructor/*.ipynb")})
    if not labs:
        give_up("The solutions of the labs are not in this copy. Use a clone: archives lack them.")
    set_up("lab", "grade")
    shutil.copytree(LABS, folder, ignore=shutil.ignore_patterns("[0-9]*"), dirs_exist_ok=True)
    for source in labs:
        shutil.copytree(source / "instructor", folder / "source" / source.name)
    say(f"""{folder} is an nbgrader course with {len(labs)} labs. Next:

    source {shlex.quote(str(VENV / "bin" / "activate"))}
    cd {shlex.quote(str(folder))}
    nbgrader generate_assignment {labs[0].name}

docs/teaching/grading.md tells how to go on.""")
    return 0


def test(options: argparse.Namespace) -> int:
    """Every check there is, quickest first; the first failure ends it."""
    set_up("lab", "dev", "grade")
    started = time.monotonic()
    pytest = [PYTHON, "-m", "pytest", *(["--slow"] if options.slow else [])]
    if options.coverage:
        pytest[1:1] = ["-m", "coverage", "run"]
    steps = [
        ("ruff check", [PYTHON, "-m", "ruff", "check", "."]),
        ("ruff format", [PYTHON, "-m", "ruff", "format", "--check", "."]),
        ("mypy", [PYTHON, "-m", "mypy"]),
        ("pytest", [*pytest, *options.pytest_arguments]),
    ]
    node = shutil.which("node")
    javascript = sorted(map(str, (ROOT / "tests/js").glob("*.test.mjs")))
    if node and javascript:
        steps.insert(-1, ("node", [node, "--test", *javascript]))
    elif javascript:
        say("There is no node here: the JavaScript tests are left out.")
    if options.coverage:
        shutil.rmtree(ROOT / "build/coverage", ignore_errors=True)
        coverage = [PYTHON, "-m", "coverage"]
        steps += [
            ("coverage combine", [*coverage, "combine", "--quiet"]),
            ("coverage report", [*coverage, "report"]),
        ]
    for name, command in steps:
        say(f"--- {name}")
        step_started = time.monotonic()
        code = call(command, cwd=ROOT)
        seconds = time.monotonic() - step_started
        if code:
            say(f"--- {name} failed after {seconds:.1f} s.")
            return code
        say(f"    {seconds:.1f} s")
    say(f"All checks passed in {time.monotonic() - started:.0f} s.")
    return 0


def bench(options: argparse.Namespace) -> int:
    """Every benchmark, one after the other."""
    set_up("bench", "dev", "grade", "lab")  # they run a browser, JupyterLab and nbgrader
    for script in sorted((ROOT / "tests/benchmarks").glob("bench_*.py")):
        say(f"--- {script.stem}")
        code = call([PYTHON, str(script)])
        if code:
            return code
    return 0


def screenshots(options: argparse.Namespace) -> int:
    """The player at the moments that matter, to be looked at."""
    set_up("lab", "dev")
    return call([PYTHON, str(ROOT / "tests/screenshots.py")])


def lock(options: argparse.Namespace) -> int:
    """A new requirements.lock, without the address that the versions came from."""
    uv = uv_on_path() or OWN_UV
    # A uv that is there needs no set-up, which could not work if the old lock no longer fits.
    if uv == OWN_UV and not os.path.exists(uv):
        set_up("dev")
    command = [uv, "pip", "compile", "--universal", "--all-extras", "--python-version", "3.10"]
    command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
    if options.upgrade:
        command.append("--upgrade")
    code = call([*command, "--output-file", LOCK.name, PROJECT.name], cwd=ROOT)
    if code == 0:
        text = LOCK_HEADER + LOCK.read_text(encoding="utf-8")
        LOCK.write_text(text, encoding="utf-8", newline="\n")
        say(f"Wrote {LOCK}.")
    return code


# ---------------------------------------------------------------- helpers


def free_port(wanted: int | None) -> int:
    """`wanted` if it is free, else an error; without a wish the first free port from 8888 on."""
    for port in [wanted] if wanted else range(8888, 8988):
        with socket.socket() as probe, contextlib.suppress(OSError):
            if os.name != "nt":  # there it would take a port that is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    give_up(f"port {wanted} is not free." if wanted else "no port from 8888 to 8987 is free.")


def end_like_ctrl_c() -> None:
    """Make the signals that ask a program to end raise KeyboardInterrupt, as Ctrl-C does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A hang-up that is ignored, as under nohup, stays ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def answers(server: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until `server` accepts a connection; False when it ended instead."""
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.1)
    return False


def end(server: "subprocess.Popen[bytes]") -> None:
    """End Jupyter and, through it, its kernels; a second Ctrl-C or ten seconds make it abrupt."""
    if server.poll() is not None:
        return
    try:
        with contextlib.suppress(OSError):  # after a hang-up there is no terminal to write to
            say("\nEnding JupyterLab.")
        server.terminate()
        server.wait(timeout=10)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        server.kill()
        server.wait()


def has_display() -> bool:
    """Whether a browser could open here."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in names)


def is_root() -> bool:
    """Whether this runs as root: no sudo is needed, and JupyterLab wants to be told."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def project_environment() -> dict[str, str]:
    """The environment variables for what runs inside `.venv`: its scripts come first on PATH."""
    environment = dict(os.environ)
    for unwanted in ("PYTHONHOME", "PIP_USER"):  # they would lead out of .venv
        environment.pop(unwanted, None)
    environment["VIRTUAL_ENV"] = str(VENV)
    environment["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of .venv, not one of the user's
    environment["PATH"] = os.pathsep.join([str(SCRIPTS), environment.get("PATH", os.defpath)])
    return environment


def call(command: Sequence[str], cwd: Path | None = None) -> int:
    """Run `command` in sight and return its exit code; after Ctrl-C wait until it has tidied up."""
    child = subprocess.Popen(command, cwd=cwd, env=project_environment())
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.wait()
        raise


def quietly(command: Sequence[str]) -> None:
    """Run `command` in the project's folder, out of sight."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=project_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise CommandFailed(command, done.stdout)


def works(command: Sequence[str]) -> bool:
    """Whether `command` can be run and succeeds."""
    try:
        quietly(command)
    except (CommandFailed, OSError):
        return False
    return True


def tail(failure: CommandFailed, lines: int = 30) -> str:
    """The failed command and the end of what it printed."""
    return "\n".join([f"$ {failure}", *failure.output.splitlines()[-lines:]])


def build_parser() -> argparse.ArgumentParser:
    """The command line; every command sets `run`, the function that does it."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Set up .venv beside this file, then do one of these. "
        "A set-up that is already done is skipped.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="command", required=True)

    def add(name: str, run: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
        )
        command.set_defaults(run=run)
        return command

    command = add("lab", lab, "open the notebooks in JupyterLab")
    command.add_argument(
        "--port", type=port_number, help="listen on this port (default: the first free from 8888)"
    )
    command.add_argument(
        "--no-browser", action="store_true", help="print the address, open no browser"
    )
    command = add("demo", demo, "record a session and write it as one HTML file to play back")
    command.add_argument(
        "--output",
        metavar="FILE",
        default="replay.html",
        help="the file to write (default: %(default)s)",
    )
    command = add("course", course, "make a folder in which nbgrader grades the labs")
    command.add_argument("folder", metavar="DIR", help="the folder, which must be new or empty")
    command = add("test", test, "lint, check the types and run every test")
    command.usage = "run.py test [--slow] [--coverage] [pytest argument ...]"
    command.epilog = "What is not listed here goes to pytest: run.py test -k wakeup -x"
    command.add_argument("--slow", action="store_true", help="also run the tests marked slow")
    command.add_argument(
        "--coverage", action="store_true", help="also report which lines of netpoll they ran"
    )
    add("bench", bench, "run the benchmarks in tests/benchmarks")
    add("screenshots", screenshots, "draw the player at its moments into build/screenshots")
    command = add("lock", lock, "remake requirements.lock from pyproject.toml (needs the network)")
    command.add_argument(
        "--upgrade", action="store_true", help="take the newest versions, not those locked now"
    )
    return parser


def port_number(text: str) -> int:
    """A TCP port from the command line."""
    if not (re.fullmatch(r"\d+", text) and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command and return the exit code; Ctrl-C during it is 130."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run is not test:
        parser.error(f"unknown argument: {rest[0]}")
    options.pytest_arguments = rest
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        say("\nInterrupted.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
