"""Runs notebooks in real kernels, some at a time, and collects what is wrong with them.

A notebook goes through three stages in one kernel:

1. ``fresh``: every cell, as Restart & Run All does. After that nothing may be left.
2. ``again``: all but the last cell, which cleans up, and then every cell. After that nothing may be
   left.
3. ``interrupted``: each cell is interrupted half-way and then run again whole; before the last, a
   cell that waits gets the signal that the stop button sends. After that no thread may be left; a
   descriptor that was opened when the interrupt came may.

What a stage finds wrong is a list of complaints. What the garbage collector has to close counts in
the first stage alone: a cell that runs again may leave what it replaces to Python.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from tests.notebooks.course import code_cells

STAGES = ("fresh", "again", "interrupted")
KERNELS_AT_ONCE = 3
CELL_SECONDS = 25.0
"""So long a cell may take on a busy machine."""
THREAD_SECONDS = 5.0
"""So long threads that are about to end may take after the last cell."""

NOT_RUN = "not run: the stage before failed"
WAITING = "print('waiting', flush=True); __import__('time').sleep(60)"
BEGIN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("notebook_watch", {path!r})
sys.modules["notebook_watch"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.watch = module.Watch({own!r}, {patience!r})
del importlib, sys, spec, module
"""
TELL = """
import json as _json, sys as _sys
_watch = _sys.modules["notebook_watch"].watch
_left = _watch.left()
print(_json.dumps([_left, _watch.heard, _watch.unclosed]))
_watch.heard.clear(); _watch.unclosed.clear()
del _json, _sys, _watch, _left
"""

Complaints = list[str]


class Failed(Exception):
    """A cell raised an exception, hung, or took the kernel with it; says which and how."""


class Kernel:
    """A fresh kernel as JupyterLab starts one, with all that it says on standard error.

    It speaks through sockets in `folder`, not through ports, which another kernel's notebook may
    be given at the same moment, and keeps no history. Its working directory is
    ``folder/notebooks``.
    """

    def __init__(self, folder: Path, cell_seconds: float = CELL_SECONDS) -> None:
        self.folder = folder
        self.cell_seconds = cell_seconds
        self.stderr = ""
        self.own = str(folder / "own")
        self._manager: Any = AsyncKernelManager(
            kernel_name="python3",
            transport="ipc",
            ip=self.own,
            connection_file=str(folder / "connection.json"),
        )
        self._log = folder / "log"

    async def __aenter__(self) -> Kernel:
        working = self.folder / "notebooks"
        working.mkdir(exist_ok=True)
        (self.folder / "ipython").mkdir()
        environment = os.environ | {
            "IPYTHONDIR": str(self.folder / "ipython"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # or the debugger warns when it starts
        }
        with self._log.open("wb") as log:
            await self._manager.start_kernel(
                cwd=str(working),
                env=environment,
                stdout=log,
                stderr=log,
                extra_arguments=["--HistoryManager.hist_file=:memory:"],
            )
        self._client: Any = self._manager.client()
        self._client.start_channels()
        try:
            await self._client.wait_for_ready(timeout=50)
        except BaseException as error:
            await self.__aexit__(type(error))
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._client.stop_channels()
        ending = asyncio.ensure_future(self._manager.shutdown_kernel(now=exc_info[0] is not None))
        while not ending.done():  # who is cancelled here still ends the kernel
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(ending)
        ending.result()

    async def watch(self, patience: float) -> None:
        """Begin to watch: what is there now may stay."""
        path = str(Path(__file__).with_name("watch.py"))
        code = BEGIN.format(path=path, own=self.own, patience=patience)
        await self.run(code, silent=True)

    async def left(self, strict: bool) -> Complaints:
        """Return what went wrong out of sight since the last time, and what is left now."""
        left, heard, unclosed = json.loads(await self.run(TELL, silent=True))
        stderr, self.stderr = self.stderr, ""
        said = [f"on standard error: {stderr}"] if stderr else []
        return [*heard, *said, *(unclosed if strict else []), *left]

    async def run(self, code: str, *, silent: bool = False, interrupt_at: str = "") -> str:
        """Run `code` and return what it printed; when it prints `interrupt_at`, interrupt it."""
        message_id = self._client.execute(code, silent=silent, allow_stdin=False)
        printed = ""
        deadline = time.monotonic() + self.cell_seconds
        hung = False
        while True:
            try:
                message = await self._client.get_iopub_msg(timeout=0.5)
            except Empty:
                if not await self._manager.is_alive():
                    log = self._log.read_text(errors="replace")
                    raise Failed(f"the kernel died: {log[-2000:]}") from None
                if time.monotonic() < deadline:
                    continue
                if hung:
                    raise Failed("it hangs, and an interrupt does not end it") from None
                hung = True
                deadline += 5
                await self._manager.interrupt_kernel()  # so that the traceback says where it hangs
                continue
            content = message["content"]
            if message["msg_type"] == "stream" and content["name"] == "stderr":
                self.stderr += content["text"]
            if message["parent_header"].get("msg_id") != message_id:
                continue
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                printed += content["text"]
                if interrupt_at and interrupt_at in printed:
                    interrupt_at = ""
                    await self._manager.interrupt_kernel()
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        reply = await self._reply(message_id)
        if reply["status"] != "ok" or hung:
            lines = "\n".join(reply.get("traceback", [reply["status"]]))
            late = f"it did not end within {self.cell_seconds:g} s: " if hung else ""
            raise Failed(late + re.sub(r"\x1b\[[0-9;]*m", "", lines))
        return printed

    async def _reply(self, message_id: str) -> dict[str, Any]:
        while True:  # replies to what was asked while the kernel started may still come
            message = await self._client.get_shell_msg(timeout=10)
            if message["parent_header"].get("msg_id") == message_id:
                content: dict[str, Any] = message["content"]
                return content


def interrupted(source: str) -> str:
    """Return the cell as an interrupt half-way leaves it: its first half, then KeyboardInterrupt.

    A cell that is one block, such as a ``with`` statement, is interrupted half-way in the block.
    """
    tree = ast.parse(source)
    body = tree.body
    while len(body) == 1 and isinstance(body[0], ast.With | ast.For | ast.While | ast.If | ast.Try):
        body = body[0].body
    body.insert((len(body) + 1) // 2, ast.parse("raise KeyboardInterrupt").body[0])
    return ast.unparse(tree)


async def run_cell(kernel: Kernel, number: int, source: str) -> None:
    """Run one cell of a notebook; raises Failed with its number and its first line."""
    try:
        await kernel.run(source)
    except Failed as failed:
        first = source.partition("\n")[0]
        raise Failed(f"cell {number} ({first}): {failed}") from None


async def run_cells(kernel: Kernel, cells: list[str]) -> None:
    """Run some cells of a notebook, one after the other."""
    for number, source in enumerate(cells, 1):
        await run_cell(kernel, number, source)


async def stage(kernel: Kernel, name: str, cells: list[str]) -> Complaints:
    """Take a notebook, of which only the code cells matter, through one stage."""
    files = files_in(kernel.folder / "notebooks")
    complaints: Complaints = []
    try:
        if name == "again":
            await run_cells(kernel, cells[:-1])
        if name == "interrupted":
            for number, source in enumerate(cells, 1):
                if number == len(cells):
                    await interrupt(kernel, WAITING, at="waiting")
                await interrupt(kernel, interrupted(source))
                await run_cell(kernel, number, source)
        else:
            await run_cells(kernel, cells)
    except Failed as failed:
        complaints.append(str(failed))
    try:
        left = await kernel.left(strict=name == "fresh" and not complaints)
    except Failed as failed:
        return complaints or [str(failed)]
    if name == "interrupted":
        left = [each for each in left if not re.match("a descriptor|a recording", each)]
    new = files_in(kernel.folder / "notebooks") - files
    return [*complaints, *left, *(f"a file is left: {each}" for each in sorted(new))]


async def interrupt(kernel: Kernel, source: str, at: str = "") -> None:
    """Run a cell that is interrupted; raises Failed when it ends otherwise."""
    try:
        await kernel.run(source, interrupt_at=at)
    except Failed as failed:
        if re.search(r"(?m)^KeyboardInterrupt", str(failed)) and "did not end" not in str(failed):
            return
        raise Failed(f"interrupted half-way:\n{source}\n{failed}") from None
    raise Failed(f"interrupted half-way, it went on as if nothing had happened:\n{source}")


def files_in(folder: Path) -> set[str]:
    """Return the paths of all files in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextlib.asynccontextmanager
async def fresh_kernel(
    beside: Iterable[Path] = (),
    *,
    cell_seconds: float = CELL_SECONDS,
    patience: float = THREAD_SECONDS,
) -> AsyncIterator[Kernel]:
    """Start a watched kernel in a folder of its own that holds copies of the files `beside`."""
    with tempfile.TemporaryDirectory(prefix="notebook", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "notebooks").mkdir()
        for path in beside:
            shutil.copy(path, folder / "notebooks")
        async with Kernel(folder, cell_seconds) as kernel:
            await kernel.watch(patience)
            yield kernel


Key = tuple[str, str]
"""The name of a notebook and of a stage."""


class Results:
    """What is wrong with each notebook at each stage, as soon as it is known."""

    def __init__(self, names: Iterable[str], stages: Iterable[str] = STAGES) -> None:
        self._futures: dict[Key, Future[Complaints]] = {
            (name, stage): Future() for name in names for stage in stages
        }

    def __call__(self, name: str, stage: str = "fresh") -> Complaints:
        """Wait, less long than until faulthandler ends the whole run, and return the complaints."""
        return self._futures[name, stage].result(timeout=55)

    def add(self, name: str, stage: str, complaints: Complaints) -> None:
        """Tell who waits, or will ask."""
        self._futures[name, stage].set_result(complaints)

    def fail(self, error: BaseException) -> None:
        """Raise `error` where somebody waits, or will ask, for what is not known yet."""
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)


@contextlib.contextmanager
def in_background(results: Results, work: Coroutine[Any, Any, None]) -> Iterator[Results]:
    """Run `work`, which fills `results`, in a thread; on leaving, stop what still runs."""
    stop = threading.Event()

    async def run_until_stopped() -> None:
        task = asyncio.ensure_future(work)
        while not task.done() and not stop.is_set():
            await asyncio.wait([task], timeout=0.1)
        task.cancel()
        try:
            await task
        except (Exception, asyncio.CancelledError) as error:
            results.fail(error)

    thread = threading.Thread(target=asyncio.run, args=(run_until_stopped(),), name="notebooks")
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join()


async def through_all_stages(kernel: Kernel, cells: list[str]) -> AsyncIterator[Complaints]:
    """Yield the complaints of each stage; those after one with complaints are not run."""
    failed = False
    for name in STAGES:
        complaints = [NOT_RUN] if failed else await stage(kernel, name, cells)
        failed = bool(complaints)
        yield complaints


async def run_notebooks(paths: Iterable[Path], results: Results) -> None:
    """Take each notebook through all stages, a few notebooks at a time."""
    places = asyncio.Semaphore(KERNELS_AT_ONCE)

    async def run_one(path: Path) -> None:
        beside = [each for each in path.parent.iterdir() if each.is_file()]
        async with places, fresh_kernel(beside) as kernel:
            stages = iter(STAGES)
            async for complaints in through_all_stages(kernel, code_cells(path)):
                results.add(path.stem, next(stages), complaints)

    await asyncio.gather(*(run_one(path) for path in paths))
