"""Every notebook, executed in a real kernel; and what holds of its text."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What must be so after the last cell: nothing of the notebook's is left running.
NOTHING_LEFT = """
import threading as _threading
_left = [t.name for t in _threading.enumerate() if t.name == "server"]
assert not _left, f"threads left: {_left}"
import socket as _socket
assert type(_socket.socket.__dict__.get("recv")).__name__ == "NoneType", "a recording still runs"
"""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def execute(notebook: Any) -> Any:
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return notebook


def streams_and_errors(notebook: Any) -> str:
    return "".join(
        output.get("text", "") if output.output_type == "stream" else "".join(output.traceback)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error" or output.get("name") == "stderr"
    )


@every_notebook
def test_runs_from_top_to_bottom(path: Path) -> None:
    """A fresh kernel runs every cell; nothing is written to stderr, no thread is left."""
    notebook = read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(NOTHING_LEFT))  # type: ignore[no-untyped-call]
    assert streams_and_errors(execute(notebook)) == ""


@every_notebook
def test_runs_again_without_a_clean_up(path: Path) -> None:
    """Without its last cell, which cleans up, a notebook runs a second time in the same kernel."""
    notebook = read(path)
    cells = notebook.cells
    while cells and cells[-1].cell_type != "code":
        cells.pop()
    notebook.cells = [*cells[:-1], *[cell.copy() for cell in cells]]
    notebook.cells.append(nbformat.v4.new_code_cell(NOTHING_LEFT))  # type: ignore[no-untyped-call]
    assert streams_and_errors(execute(notebook)) == ""


@every_notebook
def test_survives_an_interrupted_cell(path: Path) -> None:
    """After a cell was interrupted while it waits, every cell runs again in the same kernel."""
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    waiting = "print('waiting', flush=True); __import__('time').sleep(60)"
    manager, client = start_new_kernel(kernel_name="python3")

    def interrupt_when_it_waits(message: dict[str, Any]) -> None:
        if message["content"].get("text") == "waiting\n":
            manager.interrupt_kernel()

    def ask(code: str) -> str:
        reply = client.execute_interactive(
            code, output_hook=interrupt_when_it_waits, timeout=60, allow_stdin=False
        )
        return str(reply["content"].get("ename", reply["content"]["status"]))

    try:
        assert {ask(code) for code in cells[:-1]} == {"ok"}
        assert ask(waiting) == "KeyboardInterrupt"
        assert {ask(code) for code in [*cells, NOTHING_LEFT]} == {"ok"}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@every_notebook
def test_has_no_outputs(path: Path) -> None:
    """A notebook is committed without outputs: a person sees results that are their own."""
    for cell in read(path).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@every_notebook
def test_prose(path: Path) -> None:
    """One H1, objectives, a summary and exercises; no absolute path; code that parses."""
    cells = read(path).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert len(re.findall(r"(?m)^# ", prose)) == 1
    for phrase in ("You will be able to", "You need", "## Summary", "## Exercises"):
        assert phrase in prose
    assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp)/", prose)
    for cell in cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
