"""The labs, graded with nbgrader's own commands: right, untouched, wrong, hostile."""

from __future__ import annotations

import faulthandler
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.labs.grading import (
    ANSWERS,
    LABS,
    ROOT,
    Course,
    answer_cells,
    answered,
    is_slow,
    loses,
    read,
    source,
)

CASES = [
    pytest.param(
        lab.name,
        path,
        id=f"{lab.name}-{path.stem}",
        marks=[pytest.mark.slow] if is_slow(path) else [],
    )
    for lab in LABS
    for path in sorted((ANSWERS / lab.name).glob("*.py"))
]
each_lab = pytest.mark.parametrize("lab", [lab.name for lab in LABS])
ATTACKED = "01-echo-server"

Points = dict[str, dict[str, tuple[float, float]]]


def extra_cell(code: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": "mine",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": code,
    }


def careless(course: Course) -> dict[str, Any]:
    """The right answer without its first line, and cells of one's own that hang and crash."""
    notebook = answered(course, None)
    for cell in answer_cells(notebook).values():
        cell["source"] = cell["source"].partition("\n")[2]
    killing = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    notebook["cells"][2:2] = [extra_cell("while True: pass"), extra_cell(killing)]
    return notebook


def tampering(course: Course) -> dict[str, Any]:
    """No answer, and everything that a notebook can do to get points all the same."""
    notebook = read(course.release)
    checks = [
        cell for cell in notebook["cells"] if "points" in cell["metadata"].get("nbgrader", {})
    ]
    notebook["cells"].remove(checks.pop())
    for cell in checks:
        cell["source"] = "pass"
        cell["metadata"]["tags"] = ["skip-execution"]
    checks[0]["metadata"]["nbgrader"]["points"] = 100
    checks[1]["metadata"]["nbgrader"]["locked"] = False
    checks[2]["cell_type"] = "raw"
    patch = """
import contextlib, unittest.mock
from tracer import classroom
classroom.serving = lambda *a, **k: contextlib.nullcontext(unittest.mock.MagicMock())
get_ipython().showtraceback = lambda *a, **k: None
"""
    notebook["cells"].insert(0, extra_cell(patch))
    (cell,) = answer_cells(notebook).values()
    cell["source"] = patch + "get_ipython().run_line_magic('alias', 'x')"
    return notebook


def grade(lab: str, folder: Path, with_slow: bool) -> tuple[Course, Points]:
    course = Course(lab, folder)
    course.hand_in("right", answered(course, None))
    course.hand_in("untouched", read(course.release))
    for path in sorted((ANSWERS / lab).glob("*.py")):
        if with_slow or not is_slow(path):
            course.hand_in(path.stem, answered(course, path))
    if lab == ATTACKED:
        course.hand_in("careless", careless(course))
        course.hand_in("tampering", tampering(course))
    return course, course.grade()


Graded = Callable[[str], tuple[Course, Points]]


@pytest.fixture(scope="session")
def graded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Graded]:
    """Each lab that a test of this session asks for, graded once, all at the same time."""
    wanted = {ATTACKED}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "graded" in item.fixturenames:
            wanted.add(str(item.callspec.params["lab"]) if hasattr(item, "callspec") else ATTACKED)
    with_slow = bool(request.config.getoption("--slow"))
    with ThreadPoolExecutor(len(LABS)) as pool:
        results = {
            lab: pool.submit(grade, lab, tmp_path_factory.mktemp(lab) / "course", with_slow)
            for lab in sorted(wanted)
        }

        def wait_for(lab: str) -> tuple[Course, Points]:
            faulthandler.cancel_dump_traceback_later()  # nbgrader's commands have their own limit
            return results[lab].result()

        yield wait_for


@each_lab
def test_right_answer_gets_full_marks(lab: str, graded: Graded) -> None:
    """The instructor's own answer gets every point, and there are ten."""
    course, points = graded(lab)
    got = points["right"]
    assert all(score == most for score, most in got.values()), course.says("right")
    assert sum(most for _, most in got.values()) == 10


@each_lab
def test_untouched_version_gets_nothing(lab: str, graded: Graded) -> None:
    """Who hands in what was handed out gets no point, and is told what is missing."""
    course, points = graded(lab)
    assert {score for score, _ in points["untouched"].values()} == {0}
    assert "not written yet" in course.says("untouched")


@pytest.mark.parametrize(("lab", "answer"), CASES)
def test_wrong_answer_loses_what_it_deserves(lab: str, answer: Path, graded: Graded) -> None:
    """A wrong answer gets nothing for the parts that it names, and full marks for the others."""
    course, points = graded(lab)
    got = points[answer.stem]
    lost = {part for part, (score, _) in got.items() if score == 0}
    kept = {part for part, (score, most) in got.items() if score == most}
    assert lost == loses(answer), course.says(answer.stem)
    assert kept == got.keys() - lost


@each_lab
def test_there_are_enough_wrong_answers(lab: str) -> None:
    """Each lab is tried with three wrong answers or more."""
    assert len([*(ANSWERS / lab).glob("*.py")]) >= 3


def test_a_notebook_cannot_harm_or_deceive_the_grader(graded: Graded) -> None:
    """A student's own cells never run; checks that were changed or left out run all the same."""
    course, points = graded(ATTACKED)
    assert all(score == most for score, most in points["careless"].values()), course.says(
        "careless"
    )
    assert {score for score, _ in points["tampering"].values()} == {0}
    assert len(points["tampering"]) == len(points["right"])


def test_grades_and_feedback_come_out(graded: Graded) -> None:
    """The export has everybody's total, and the feedback tells a student what was wrong."""
    course, points = graded(ATTACKED)
    course.nbgrader("export")
    table = (course.folder / "grades.csv").read_text()
    assert table.count("\n") == len(points) + 1
    course.nbgrader("generate_feedback", ATTACKED, "--student", "untouched")
    (page,) = (course.folder / "feedback/untouched" / ATTACKED).glob("*.html")
    assert "not written yet" in page.read_text(encoding="utf-8")


@each_lab
def test_student_version_is_the_generated_one(lab: str, graded: Graded) -> None:
    """The student folder is what nbgrader makes; `python -m tests.labs.generate` remakes it."""
    course, _ = graded(lab)
    made = {path.name: path.read_bytes() for path in course.release.parent.iterdir()}
    committed = {
        path.name: path.read_bytes()
        for path in (ROOT / "notebooks/labs" / lab / "student").iterdir()
        if path.is_file()
    }
    assert made == committed


@each_lab
def test_solutions_are_not_in_what_students_get(lab: str) -> None:
    """No solution or hidden check is in the student's folder or in what `git archive` packs."""
    folder = ROOT / "notebooks/labs" / lab
    handed_out = "".join(p.read_text() for p in (folder / "student").iterdir() if p.is_file())
    for path in (folder / "instructor").glob("*.ipynb"):
        for cell in read(path)["cells"]:
            text = source(cell)
            for kind in ("SOLUTION", "HIDDEN TESTS"):
                for region in text.split(f"### BEGIN {kind}")[1:]:
                    hidden = region.partition(f"### END {kind}")[0].strip()
                    assert json.dumps(hidden)[1:-1] not in handed_out
    assert "BEGIN" not in handed_out
    if shutil.which("git") and (ROOT / ".git").exists():
        secrets = [folder / "instructor" / "x", folder / "rubric.md", ANSWERS / lab / "x"]
        told = subprocess.run(
            ["git", "check-attr", "export-ignore", *map(str, secrets)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.count("export-ignore: set") == len(secrets)


@each_lab
def test_lab_has_a_rubric_with_its_points(lab: str) -> None:
    """The rubric names each part with the points that the notebook gives for it."""
    folder = ROOT / "notebooks/labs" / lab
    rubric = (folder / "rubric.md").read_text(encoding="utf-8")
    (path,) = (folder / "instructor").glob("*.ipynb")
    for cell in read(path)["cells"]:
        about = cell["metadata"].get("nbgrader", {})
        if about.get("grade"):
            assert f"| `{about['grade_id']}` | {about['points']} |" in rubric
