"""Every notebook, run in a real kernel; and small broken ones, each of which must be noticed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.notebooks.course import TUTORIALS
from tests.notebooks.kernel import (
    NOT_RUN,
    STAGES,
    Complaints,
    Results,
    fresh_kernel,
    in_background,
    interrupted,
    run_notebooks,
    stage,
    through_all_stages,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the course looks at Linux, and the watch at its /proc"
)

every_notebook = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


# ---- the notebooks ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def complaints_about(request: pytest.FixtureRequest) -> Iterator[Results]:
    """What is wrong with a notebook at a stage.

    All notebooks that this session asks about run in the background, from the first question on.
    """
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = {
        item.callspec.params["path"] for item in items if "complaints_about" in item.fixturenames
    }
    # The gallery comes last and takes longest, by waiting: it begins first.
    paths = [path for path in TUTORIALS if path in asked]
    paths.sort(key=lambda path: path.stem != "bug-gallery")
    results = Results(path.stem for path in paths)
    with in_background(results, run_notebooks(paths, results)):
        yield results


def check(complaints: Complaints) -> None:
    if complaints == [NOT_RUN]:
        pytest.skip(NOT_RUN)
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@every_notebook
def test_runs_from_top_to_bottom(path: Path, complaints_about: Results) -> None:
    """A fresh kernel runs every cell, in silence on standard error, and nothing is left after."""
    check(complaints_about(path.stem, "fresh"))


@every_notebook
def test_runs_again_without_a_clean_up(path: Path, complaints_about: Results) -> None:
    """Where the last cell, which cleans up, was not reached, all runs again and nothing is left."""
    check(complaints_about(path.stem, "again"))


@every_notebook
def test_survives_interrupts(path: Path, complaints_about: Results) -> None:
    """A cell that was interrupted half-way, or ran to its end, runs again at once."""
    check(complaints_about(path.stem, "interrupted"))


# ---- the guards -------------------------------------------------------------------------------

SOUND = """
import socket, threading
import netpoll
import tracer
---
poller = netpoll.open_poller()
loop = netpoll.run_in_thread(poller)
with tracer.record(poller) as trace:
    poller.trigger(netpoll.EventPriority.HIGH, print, "printed by the loop")
---
tracer.play(trace)
---
loop.stop()
"""

# Name: what the complaint says, the cells, and a cell that takes away what they leave.
BROKEN = {
    "exception in a cell": ("ZeroDivisionError", "1 / 0", ""),
    "no python": ("SyntaxError", "x = = 1", ""),
    "input": ("input", "input()", ""),
    "exception in a thread": (
        "an exception in thread 'worker': Traceback",
        """
        import threading
        worker = threading.Thread(target=lambda: 1 / 0, name="worker")
        worker.start()
        worker.join()
        """,
        "",
    ),
    "exception that ends a loop": (
        "on standard error: the loop of 'server' ended with an exception",
        """
        import netpoll
        poller = netpoll.open_poller()
        loop = netpoll.run_in_thread(poller)
        def leave(_):
            raise SystemExit
        poller.trigger(netpoll.EventPriority.HIGH, leave)
        ---
        try:
            loop.stop()
        except SystemExit:
            pass
        """,
        "",
    ),
    "exception in a callback": (
        "on standard error: exception in",
        """
        import netpoll
        with netpoll.open_poller() as poller:
            poller.trigger(netpoll.EventPriority.HIGH, lambda _: 1 / 0)
            poller.poll_once(5)
        """,
        "",
    ),
    "exception after the cell": (
        "an exception in thread",
        """
        import threading
        go_on = threading.Event()
        def fail():
            go_on.wait(5)
            raise ValueError
        worker = threading.Thread(target=fail)
        worker.start()
        ---
        go_on.set()
        """,
        "",
    ),
    "exception in a finalizer": (
        "an exception ignored in",
        """
        class Broken:
            def __del__(self):
                raise ValueError
        Broken()
        None
        """,
        "",
    ),
    "exception in a coroutine": (
        "on standard error: Task exception was never retrieved",
        """
        import asyncio, gc
        async def fail():
            raise ValueError
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()
        None
        """,
        "",
    ),
    "warning": ("UserWarning", "import warnings; warnings.warn('careful')", ""),
    "print to standard error": (
        "on standard error: oh",
        "import sys; print('oh', file=sys.stderr)",
        "",
    ),
    "thread": (
        "a thread is left: 'sleeper'",
        """
        import threading
        over = threading.Event()
        threading.Thread(target=over.wait, name="sleeper", daemon=True).start()
        """,
        "over.set()",
    ),
    "running loop": (
        "a thread is left: 'server'",
        "import netpoll; loop = netpoll.run_in_thread(netpoll.open_poller())",
        "loop.stop()",
    ),
    "socket": (
        "a descriptor is left: ",
        "import socket; left = socket.create_server(('127.0.0.1', 0))",
        "left.close()",
    ),
    "socket says where": (
        "socket AF_INET ('127.0.0.1', ",
        "import socket; left = socket.create_server(('127.0.0.1', 0))",
        "left.close()",
    ),
    "pair of sockets": (
        "socket AF_UNIX unnamed to unnamed",
        "import socket; left = socket.socketpair()",
        "[each.close() for each in left]",
    ),
    "epoll": ("eventpoll", "import select; left = select.epoll()", "left.close()"),
    "eventfd": (
        "eventfd",
        "from netpoll.wakeup import eventfd_channel; left = eventfd_channel()",
        "left.close()",
    ),
    "pipe": ("pipe", "import os; left = os.pipe()", "[os.close(fd) for fd in left]"),
    "open file": ("/dev/zero", "left = open('/dev/zero')", "left.close()"),
    "socket left to the garbage collector": (
        "closed by the garbage collector alone: unclosed <socket",
        "import socket; left = socket.socketpair(); del left",
        "",
    ),
    "socket in a circle": (
        "closed by the garbage collector alone: unclosed <socket",
        """
        import socket
        circle = [socket.socket()]
        circle.append(circle)
        del circle
        """,
        "",
    ),
    "poller left to the garbage collector": (
        "closed by the garbage collector alone: unclosed <Poller",
        "import netpoll; poller = netpoll.open_poller(); del poller",
        "",
    ),
    "recording": (
        "a recording still runs: <Recording",
        "import netpoll, tracer; left = tracer.record(netpoll.open_poller())",
        "left.stop(); left.poller.close()",
    ),
    "recording without sockets": (
        "a recording still runs: <Recording",
        "import netpoll, tracer; left = tracer.record(netpoll.open_poller(), io=False)",
        "left.stop(); left.poller.close()",
    ),
    "wrapped socket": (
        "socket.socket.recv is wrapped",
        "import socket; socket.socket.recv = socket.socket.recv",
        "del socket.socket.recv",
    ),
    "file": (
        "a file is left: notes.txt",
        "open('notes.txt', 'w').close()",
        "import os; os.remove('notes.txt')",
    ),
}

# Name: the stage that finds it, what the complaint says, the cells.
BROKEN_THE_SECOND_TIME = {
    "keeps a lock": (
        "interrupted",
        "cell 2 (assert lock.acquire(timeout=0.1)): ",
        """
        import threading
        lock = threading.Lock()
        ---
        assert lock.acquire(timeout=0.1)
        number = 1
        lock.release()
        ---
        pass
        """,
    ),
    "goes on after an interrupt": (
        "interrupted",
        "it went on as if nothing had happened:",
        """
        try:
            number = 1
        except KeyboardInterrupt:
            pass
        ---
        pass
        """,
    ),
    "leaves a thread when interrupted": (
        "interrupted",
        "a thread is left: 'waiter'",
        """
        import threading
        ---
        over = threading.Event()
        waiter = threading.Thread(target=over.wait, args=(30,), name="waiter", daemon=True)
        waiter.start()
        over.set()
        waiter.join()
        ---
        pass
        """,
    ),
    "turns an interrupt into something else": (
        "interrupted",
        "interrupted half-way:",
        """
        try:
            number = 1
        except KeyboardInterrupt:
            raise ValueError from None
        ---
        pass
        """,
    ),
    "runs a few times only": (
        "again",
        "AssertionError",
        """
        runs = globals().get("runs", 0) + 1
        assert runs < 3
        ---
        pass
        """,
    ),
    "counts on a clean-up": (
        "again",
        "a descriptor is left: ",
        """
        import os
        ends = os.pipe()
        ---
        [os.close(fd) for fd in ends]
        """,
    ),
}

DEADLY = {
    "hangs": ("did not end within 1 s: ", "import time; time.sleep(20)"),
    "hangs where": ("KeyboardInterrupt", "import time; time.sleep(20)"),
    "takes the kernel with it": ("the kernel died: ", "import os; os._exit(1)"),
}


def cells_of(text: str) -> list[str]:
    return dedent(text).strip().split("---\n")


async def run_those_that_share(results: Results) -> None:
    """Run all that can share a kernel in one; each takes away what it left."""
    async with fresh_kernel(patience=0.5) as kernel:
        for name, (_, cells, clean_up) in BROKEN.items():
            complaints = await stage(kernel, "fresh", cells_of(cells))
            await kernel.run(clean_up)
            left = await kernel.left(strict=True)
            results.add(name, "fresh", [] if left else complaints)
        for name, (_, _, cells) in BROKEN_THE_SECOND_TIME.items():
            await kernel.watch(patience=0.5)  # what the one before left may stay
            stages = iter(STAGES)
            async for complaints in through_all_stages(kernel, cells_of(cells)):
                results.add(name, next(stages), complaints)


async def run_the_others(results: Results) -> None:
    async with fresh_kernel() as kernel:
        stages = iter(STAGES)
        async for complaints in through_all_stages(kernel, cells_of(SOUND)):
            results.add("sound", next(stages), complaints)
        kernel.cell_seconds = 1
        for name, (_, cells) in DEADLY.items():
            results.add(name, "fresh", await stage(kernel, "fresh", cells_of(cells)))


@pytest.fixture(scope="module")
def found() -> Iterator[Results]:
    """What is wrong with each of these notebooks."""
    results = Results([*BROKEN, *BROKEN_THE_SECOND_TIME, *DEADLY, "sound"])

    async def run() -> None:
        await asyncio.gather(run_those_that_share(results), run_the_others(results))

    with in_background(results, run()):
        yield results


@pytest.mark.parametrize("name", [*BROKEN, *DEADLY])
def test_notices(name: str, found: Results) -> None:
    """What a broken notebook does is complained about."""
    expected = (BROKEN | DEADLY)[name][0]
    assert any(expected in complaint for complaint in found(name)), found(name)


@pytest.mark.parametrize("name", BROKEN_THE_SECOND_TIME)
def test_notices_what_fails_the_second_time(name: str, found: Results) -> None:
    """What an interrupt or a second run breaks is found there and not before."""
    stage, expected, _ = BROKEN_THE_SECOND_TIME[name]
    assert [each for each in STAGES if found(name, each) not in ([], [NOT_RUN])] == [stage]
    assert any(expected in complaint for complaint in found(name, stage)), found(name, stage)


@pytest.mark.parametrize("stage", STAGES)
def test_lets_a_sound_notebook_pass(stage: str, found: Results) -> None:
    """A loop, a recording and a player, all ended: no complaint."""
    assert found("sound", stage) == []


def test_a_failed_stage_is_the_last(tmp_path: Path) -> None:
    """A notebook that does not run once is not run again, and says so."""
    path = tmp_path / "broken.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["1 / 0"]}]}))
    results = Results(["broken"])
    with in_background(results, run_notebooks([path], results)):
        assert results("broken", "fresh")[0].startswith("cell 1 (1 / 0): ")
        assert results("broken", "interrupted") == results("broken", "again") == [NOT_RUN]


def test_passes_on_what_goes_wrong_around_a_notebook(tmp_path: Path) -> None:
    """A file that is no notebook fails who asks for it, instead of making the tests wait."""
    path = tmp_path / "empty.ipynb"
    path.write_text("")
    results = Results(["empty"])
    with in_background(results, run_notebooks([path], results)), pytest.raises(ValueError):  # noqa: PT011
        results("empty")


@pytest.mark.parametrize(
    ("cell", "half"),
    [
        ("first()\nsecond()", "first()\nraise KeyboardInterrupt\nsecond()"),
        ("only()", "only()\nraise KeyboardInterrupt"),
        ("with a:\n    b()\n    c()", "with a:\n    b()\n    raise KeyboardInterrupt\n    c()"),
        ("def f():\n    pass", "def f():\n    pass\nraise KeyboardInterrupt"),
    ],
)
def test_interrupts_half_way(cell: str, half: str) -> None:
    """A cell is interrupted after its first half, one that is a block inside of it."""
    assert interrupted(cell) == half
