"""`ruff check` and `ruff format --check`, which `run.py test` runs, read the notebooks too."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.notebooks.course import EVERY_NOTEBOOK, ROOT

CHECK = ["check", "--output-format", "concise"]
FORMAT = ["format", "--check"]


def ruff(arguments: list[str], *cells: str) -> subprocess.CompletedProcess[str]:
    """Ask ruff about a notebook of these cells as if it stood among the tutorials."""
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {},
                "source": source.splitlines(keepends=True),
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(cells)
        ],
        "metadata": {"language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", "notebooks/new.ipynb", "-"],
        input=json.dumps(notebook),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_reads_every_notebook() -> None:
    """What ruff looks at has all notebooks in it but those that nbgrader makes."""
    written = {str(path) for path in EVERY_NOTEBOOK if path.parent.name != "student"}
    command = [sys.executable, "-m", "ruff", "check", ".", "--show-files"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert written <= set(done.stdout.splitlines())


@pytest.mark.parametrize(
    ("rule", "cells"),
    [
        ("E501", ["total = 0", f"total += {'1 + ' * 25}1"]),
        ("F401", ["import socket"]),
        ("F821", ["print(undefined)"]),
        ("F841", ["def accept(fd, event, flags):\n    unused = 1"]),
        ("I001", ["import tracer\nimport socket\n\ntracer, socket"]),
        ("B006", ["def collect(found=[]):\n    return found"]),
        ("invalid-syntax", ["total = = 1"]),
        ("invalid-syntax", ["try:\n    total = 1\nexcept* OSError:\n    pass"]),
    ],
)
def test_check_notices(rule: str, cells: list[str]) -> None:
    """A notebook with a fault in a cell fails the check, by the rule that is meant."""
    done = ruff(CHECK, *cells)
    assert done.returncode == 1
    assert rule in done.stdout


@pytest.mark.parametrize("cell", ["total=0", "total = 'single'", "total = [1,\n  2]"])
def test_format_notices(cell: str) -> None:
    """A notebook with a cell that is not formatted fails the check."""
    done = ruff(FORMAT, "total = 0", cell)
    assert done.returncode == 1, done


@pytest.mark.parametrize("arguments", [CHECK, FORMAT], ids=["check", "format"])
def test_lets_pass(arguments: list[str]) -> None:
    """A cell may end in an expression, and import what it needs where it needs it."""
    done = ruff(arguments, "import socket", "import tracer\n\ntracer.name", "socket.socket")
    assert done.returncode == 0, done
