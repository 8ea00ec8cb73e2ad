"""A course of one lab in a folder: hand out, hand in, grade, with nbgrader's own commands."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LABS = sorted((ROOT / "notebooks/labs").glob("[0-9]*"))
ANSWERS = Path(__file__).parent / "answers"

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
"""nbgrader looks for its helpers there, as in an environment that was activated."""

POINTS = """
import json, sys
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db") as gradebook:
    print(json.dumps({
        submission.student.id: {
            grade.name: [grade.score, grade.max_score]
            for notebook in submission.notebooks for grade in notebook.grades
        }
        for submission in gradebook.assignment_submissions(sys.argv[1])
    }))
"""

Notebook = dict[str, Any]


class Course:
    """An nbgrader course in `folder` with the lab of this name."""

    def __init__(self, lab: str, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        make_course(folder)
        self.source = self._notebook("source")
        self.nbgrader("generate_assignment", lab)
        self.release = self._notebook("release")

    def nbgrader(self, *arguments: str) -> str:
        """Run one of nbgrader's commands in the course and return what it said."""
        return self._run("-m", "nbgrader", *arguments)

    def hand_in(self, student: str, notebook: Notebook) -> None:
        """Put `notebook` where nbgrader collects submissions."""
        folder = self.folder / "submitted" / student / self.lab
        shutil.copytree(self.folder / "release" / self.lab, folder)
        write(folder / self.release.name, notebook)

    def grade(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Grade all; return for each student and part the points, and how many there were."""
        self.nbgrader("autograde", self.lab)
        points = json.loads(self._run("-c", POINTS, self.lab))
        return {
            student: {part: (got, most) for part, (got, most) in parts.items()}
            for student, parts in points.items()
        }

    def says(self, student: str) -> str:
        """Return what the checks said about a student's answer."""
        folder = self.folder / "autograded" / student / self.lab
        return "\n".join(
            "\n".join(output.get("traceback", []))
            for cell in read(folder / self.release.name)["cells"]
            for output in cell.get("outputs", [])
        )

    def _notebook(self, step: str) -> Path:
        (path,) = (self.folder / step / self.lab).glob("*.ipynb")
        return path

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "JUPYTER_PREFER_ENV_PATH": "1", "PATH": PATH},
            capture_output=True,
            encoding="utf-8",
            timeout=900,
        )
        if done.returncode:
            raise AssertionError(f"{arguments} failed:\n{done.stdout}\n{done.stderr[-4000:]}")
        return done.stdout


def make_course(folder: Path) -> None:
    """Do what ``run.py course`` does, in the environment that the tests run in."""
    run = runpy.run_path(str(ROOT / "run.py"))
    run["course"].__globals__["set_up"] = lambda *extras: None
    run["course"](Namespace(folder=str(folder)))


def read(path: Path) -> Notebook:
    """Read a notebook."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def write(path: Path, notebook: Notebook) -> None:
    """Write a notebook."""
    path.write_text(json.dumps(notebook), encoding="utf-8")


def answer_cells(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """Return the cells in which students write, by their ids."""
    found = {}
    for cell in notebook["cells"]:
        about = cell["metadata"].get("nbgrader", {})
        if about.get("solution"):
            found[about["grade_id"]] = cell
    return found


def source(cell: dict[str, Any]) -> str:
    """Return the text of a cell."""
    return "".join(cell["source"])


def answered(course: Course, answer: Path | None) -> Notebook:
    """Return the student's notebook with the right answers, but for the one in the file `answer`.

    A file whose cell is not the only one names it: ``# answers: detectors``.
    """
    notebook, right = read(course.release), answer_cells(read(course.source))
    cells = answer_cells(notebook)
    for name, cell in cells.items():
        cell["source"] = source(right[name])
    if answer is not None:
        text = answer.read_text(encoding="utf-8")
        named = re.search(r"^# answers: (\S+)$", text, re.MULTILINE)
        name = named[1] if named else next(iter(cells))
        cells[name]["source"] = source(cells[name]).partition("\n")[0] + "\n" + text
    return notebook


def is_slow(answer: Path) -> bool:
    """Whether a wrong answer says that it is one too many for every run: ``# slow``."""
    return re.search("^# slow$", answer.read_text(encoding="utf-8"), re.MULTILINE) is not None


def loses(answer: Path) -> set[str]:
    """Return the parts that a wrong answer gets no points for."""
    found = re.search(r"^# loses: (.+)$", answer.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{answer} does not say what it loses"
    return {part.strip() for part in found[1].split(",")}
