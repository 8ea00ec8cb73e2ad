"""The player's modules are checked JavaScript: the types of their comments hold."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.javascript_tools import give_up, installed
from tracer.assets import MODULES, PREDICTION_MODULES, module, prediction_module

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "tracer/static"
CHECKS = ROOT / "tests/js"


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder of the pinned packages."""
    return installed()


def complaints(packages: Path, configuration: Path) -> str:
    """What TypeScript's compiler says to the files of a configuration; nothing is good."""
    compiler = shutil.which("tsc", path=packages / ".bin")
    assert compiler is not None
    command = [compiler, "-p", str(configuration), "--typeRoots", str(packages / "@types")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout


def test_types_of_the_player(packages: Path) -> None:
    """TypeScript's compiler, at its strictest, has nothing to say to the player's modules."""
    assert complaints(packages, CHECKS / "tsconfig.json") == ""


def test_types_of_the_tests(packages: Path) -> None:
    """Nor to the tests written in JavaScript."""
    assert complaints(packages, CHECKS / "tsconfig.tests.json") == ""


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ('clientName("a");', "TS2345"),  # a type that does not fit
        ("export function f(state) { return state; }", "TS7006"),  # a parameter without a type
        ("missing();", "TS2304"),
        ("process.exit();", "TS2591"),  # a browser is not node
    ],
)
def test_wrong_types_are_found(packages: Path, tmp_path: Path, broken: str, code: str) -> None:
    """A mistake in a copy of the modules is found: the checks above look at what they should."""
    static = tmp_path / "tracer/static"
    shutil.copytree(STATIC, static)
    checks = tmp_path / "tests/js"
    checks.mkdir(parents=True)
    shutil.copy(CHECKS / "tsconfig.json", checks)
    with (static / "fold.js").open("a", encoding="utf-8") as file:
        file.write(broken)
    assert f"error {code}" in complaints(packages, checks / "tsconfig.json")


def test_all_modules_are_served() -> None:
    """Every module is put into one that is served, behind those that it imports."""
    served = {*MODULES, *PREDICTION_MODULES}
    assert sorted(served) == sorted(path.name for path in STATIC.glob("*.js"))
    for modules in (MODULES, PREDICTION_MODULES):
        for number, name in enumerate(modules):
            text = (STATIC / name).read_text(encoding="utf-8")
            found = re.findall(r'^import [^;]* from "\./([\w-]+\.js)";$', text, re.MULTILINE)
            assert set(found) <= set(modules[:number]), name


def test_names_are_unique_over_all_modules(tmp_path: Path) -> None:
    """Put together, the modules are one that a browser takes: no name is declared twice."""
    node = shutil.which("node")
    if node is None:
        give_up("node is missing: apt-get install nodejs")
    whole = tmp_path / "player.mjs"
    twice = module() + "const parseTrace = 1;\n"
    for text, well in ((module(), True), (prediction_module(), True), (twice, False)):
        whole.write_text(text, encoding="utf-8")
        done = subprocess.run([node, "--check", str(whole)], capture_output=True, text=True)
        assert (done.returncode == 0) == well, done.stderr
