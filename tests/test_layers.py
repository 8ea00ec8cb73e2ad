"""The rules of the house: who may import whom, and which words belong where.

Each rule is a function from sources to complaints. It is held against the project, and against a
small source that breaks it.
"""

import ast
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

HOUSE = pathlib.Path(__file__).parent.parent
Sources = dict[str, str]
"""Module name, or path of a notebook, to source."""

NETPOLL_FLOORS = [
    {"events", "errors"},
    {"attachment", "queue", "wakeup", "simulated"},
    {"backends", "error_log", "sockets"},
    {"registrar"},
    {"poller"},
    {"background"},
    {"__init__"},
    {"examples"},
]
"""A room imports from the floors below its own, never from its own floor or above."""

TRACER_FLOW = [
    {"steps", "trace", "trace_file", "trace_rows", "redaction"},
    {"state"},
    {"words"},
    {"causes"},
    {"because", "replay", "history", "contents"},
    {"diagram", "stats", "lint_rules", "lint", "diff", "quiz", "perfetto"},
    {"expect", "pairing", "panels"},
    {"model", "assets"},
    {"page", "widget"},
    {"player", "prediction"},
]
"""Arrows point from right to left; inside a group they may not run in a circle."""

WITH_RUNNING_LOOPS = {"follower", "player"}
"""What follows a loop while it runs may import the recorder and netpoll."""

TRACER_DOORS = {"__init__", "__main__", "classroom", "cli", "demo"}
STANDARD_ALONE = {"steps", "trace", "trace_file", "trace_rows", "redaction", "state"}
ONLY_IN = {
    "graphviz": {"diagram"},
    "anywidget": {"widget"},
    "traitlets": {"player", "prediction"},
}


# ---- reading ----------------------------------------------------------------------------------


def sources_of(package: str) -> Sources:
    """Read a package of the house: dotted module name to source."""
    sources = {}
    for path in sorted((HOUSE / package).rglob("*.py")):
        sources[".".join(path.relative_to(HOUSE).with_suffix("").parts)] = path.read_text()
    return sources


def notebook_cells() -> Sources:
    """Read every notebook: path and number of a code cell to its Python."""
    cells = {}
    for path in sorted((HOUSE / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            if cell["cell_type"] == "code":
                lines = "".join(cell["source"]).splitlines()
                python = [line if line.lstrip()[:1] not in ("%", "!") else "" for line in lines]
                cells[f"{path.relative_to(HOUSE)}[{number}]"] = "\n".join(python)
    return cells


def imports(module: str, source: str) -> Iterator[str]:
    """Yield the dotted names that a module imports, anywhere in it, relative ones resolved.

    ``from a import b`` yields ``a.b``: b may be a module or a name in one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            if node.module:
                base = [*base, *node.module.split(".")]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def room_of(name: str) -> str:
    """Return the room that a dotted name is in: ``netpoll.backends.epoll.x`` is in `backends`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported_rooms(module: str, source: str, package: str, rooms: set[str]) -> set[str]:
    """Return the rooms of `package` that a module imports; a public name is `__init__`'s."""
    found = set()
    for name in imports(module, source):
        if name == package or name.startswith(f"{package}."):
            room = room_of(name)
            found.add(room if room in rooms else "__init__")
    return found


def rooms_in(sources: Sources) -> set[str]:
    """Return the names of the rooms of a package."""
    return {room_of(module) for module in sources}


# ---- the rules --------------------------------------------------------------------------------


def foreign_to_netpoll(sources: Sources) -> list[str]:
    """Complain about imports of anything but the standard library and netpoll itself."""
    allowed = sys.stdlib_module_names | {"netpoll"}
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imports(module, source)
        if name.split(".")[0] not in allowed
    ]


def words_of_tracing(sources: Sources) -> list[str]:
    """Complain about words of tracing, in names, comments and strings.

    They are looked for word by word (`_is_tracing` has two): what holds "trac", but not as in
    "traceback" or "contract", or "record".
    """
    complaints = []
    for module, source in sources.items():
        for number, line in enumerate(source.splitlines(), 1):
            for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", line):
                if re.search(r"trac(?!t|eback)|record", word.lower()):
                    complaints.append(f"{module}:{number}: {word}")
    return complaints


def wrong_way_in_netpoll(sources: Sources) -> list[str]:
    """Complain about imports from the same floor or above, and rooms without a floor."""
    floor = {room: number for number, rooms in enumerate(NETPOLL_FLOORS) for room in rooms}
    rooms = rooms_in(sources) | {room for rooms in NETPOLL_FLOORS for room in rooms}
    complaints = [f"{room} has no floor" for room in rooms if room not in floor]
    for module, source in sources.items():
        here = room_of(module)
        for room in imported_rooms(module, source, "netpoll", rooms) - {here}:
            if floor.get(room, 0) >= floor.get(here, 0):
                complaints.append(f"{module} imports {room}")
    return complaints


def more_than_the_contract(sources: Sources) -> list[str]:
    """Complain when poller.py imports more of backends than the package itself."""
    contract = {
        node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
        for node in ast.parse(sources.get("netpoll.backends.__init__", "")).body
    }
    return [
        name
        for name in imports("netpoll.poller", sources["netpoll.poller"])
        if name.startswith("netpoll.backends")
        and name.removeprefix("netpoll.backends.") not in contract
    ]


def wrong_way_in_tracer(sources: Sources) -> list[str]:
    """Complain about arrows to the right.

    The recorder imports steps and trace of the flow; other rooms, which read a trace, anything
    but the player; nobody but a door, or who follows a running loop, imports the recorder; nobody
    imports a door; nothing runs in a circle.
    """
    place = {room: number for number, rooms in enumerate(TRACER_FLOW) for room in rooms}
    rooms = rooms_in(sources) | set(place) | TRACER_DOORS | {"recorder"}
    complaints = []
    arrows: dict[str, set[str]] = {}
    for module, source in sources.items():
        here = room_of(module)
        if here in TRACER_DOORS:
            continue
        found = imported_rooms(module, source, "tracer", rooms) - {here}
        arrows.setdefault(here, set()).update(found)
        for room in found:
            if here in place:
                wrong = place.get(room, -1) > place[here]
                wrong |= room == "recorder" and here not in WITH_RUNNING_LOOPS
            elif here == "recorder":
                wrong = room in place and room not in ("steps", "trace")
            else:
                wrong = room == "player" or (room == "recorder" and here not in WITH_RUNNING_LOOPS)
            if wrong or room in TRACER_DOORS:
                complaints.append(f"{module} imports {room}")
    return complaints + [f"in a circle: {' -> '.join(circle)}" for circle in circles(arrows)]


def circles(arrows: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield the circles in a graph, each from where it was first entered."""
    finished: set[str] = set()

    def follow(room: str, path: list[str]) -> Iterator[list[str]]:
        if room in path:
            yield [*path[path.index(room) :], room]
        elif room not in finished:
            for other in sorted(arrows.get(room, ())):
                yield from follow(other, [*path, room])
            finished.add(room)

    for room in sorted(arrows):
        yield from follow(room, [])


def foreign_to_tracer(sources: Sources) -> list[str]:
    """Complain about imports of netpoll, Graphviz and Jupyter outside the one room for each.

    What the core imports, directly or not, is the standard library and itself.
    """
    rooms = rooms_in(sources)
    core = set(STANDARD_ALONE)
    while True:
        reached = {
            room
            for module, source in sources.items()
            if room_of(module) in core
            for room in imported_rooms(module, source, "tracer", rooms)
        }
        if reached <= core:
            break
        core |= reached
    complaints = []
    for module, source in sources.items():
        here = room_of(module)
        for name in imports(module, source):
            root = name.split(".")[0]
            if root in sys.stdlib_module_names or root == "tracer":
                continue
            if root == "netpoll":
                allowed = here in TRACER_DOORS | WITH_RUNNING_LOOPS | {"recorder"}
            else:
                allowed = here in ONLY_IN.get(root, ())
            if here in core or not allowed:
                complaints.append(f"{module} imports {name}")
    return complaints


def private_names(sources: Sources) -> list[str]:
    """Complain about ``something._name`` and imports of ``_name``, except on `self` and `cls`."""
    complaints = []
    for module, source in sources.items():
        for name in imports(module, source):
            if name.split(".")[0] in ("netpoll", "tracer") and any(
                part.startswith("_") and not part.endswith("__") for part in name.split(".")
            ):
                complaints.append(f"{module} imports {name}")
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Attribute)
                and re.match(r"_(?!.*__$)", node.attr)
                and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
            ):
                complaints.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    return complaints


# ---- the house --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [foreign_to_netpoll, words_of_tracing, wrong_way_in_netpoll, more_than_the_contract],
    ids=lambda rule: rule.__name__,
)
def test_netpoll(rule: Callable[[Sources], list[str]]) -> None:
    """The library keeps each rule."""
    assert rule(sources_of("netpoll")) == []


@pytest.mark.parametrize(
    "rule", [wrong_way_in_tracer, foreign_to_tracer], ids=lambda rule: rule.__name__
)
def test_tracer(rule: Callable[[Sources], list[str]]) -> None:
    """The tracer keeps each rule."""
    assert rule(sources_of("tracer")) == []


def test_notebooks_use_public_names() -> None:
    """What a student reads uses nothing that starts with an underscore."""
    assert private_names(notebook_cells()) == []


def test_examples_use_public_names() -> None:
    """So do the examples, and they import nothing of netpoll but netpoll and its sockets."""
    sources = sources_of("netpoll")
    examples = {module: sources[module] for module in sources if room_of(module) == "examples"}
    assert private_names(examples) == []
    rooms = rooms_in(sources) - {"__init__", "examples", "sockets"}
    for module, source in examples.items():
        assert not imported_rooms(module, source, "netpoll", rooms) & rooms


@pytest.mark.parametrize("package", ["netpoll", "tracer"])
def test_import_needs_the_standard_library_alone(package: str) -> None:
    """Importing a package, without site-packages, brings in nothing but the standard library."""
    code = f"""
import sys
sys.path.insert(0, {str(HOUSE)!r})
import {package}
roots = {{name.split(".")[0] for name in sys.modules}}
print(*sorted(roots - sys.stdlib_module_names - {{"__main__", "netpoll", "tracer"}}))
if {package!r} == "netpoll":
    assert "tracer" not in roots
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout.strip()) == ("", "")


# ---- the rules themselves ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (foreign_to_netpoll, "netpoll.poller", "import tracer"),
        (foreign_to_netpoll, "netpoll.queue", "def f():\n    from numpy import array"),
        (words_of_tracing, "netpoll.poller", "on_trace = None"),
        (words_of_tracing, "netpoll.poller", "class IsTracing: ..."),
        (words_of_tracing, "netpoll.poller", "# for the recorder"),
        (words_of_tracing, "netpoll.poller", "'''recorded by the tracer'''"),
        (words_of_tracing, "netpoll.poller", "traces = traceback = 1"),
        (wrong_way_in_netpoll, "netpoll.queue", "from netpoll.poller import Poller"),
        (wrong_way_in_netpoll, "netpoll.queue", "from netpoll import wakeup"),
        (wrong_way_in_netpoll, "netpoll.queue", "from . import wakeup"),
        (wrong_way_in_netpoll, "netpoll.backends.epoll", "from ..poller import Poller"),
        (wrong_way_in_netpoll, "netpoll.poller", "import netpoll.background"),
        (wrong_way_in_netpoll, "netpoll.poller", "from netpoll import open_poller"),
        (wrong_way_in_netpoll, "netpoll.somewhere", "import os"),
        (more_than_the_contract, "netpoll.poller", "from netpoll.backends.epoll import Epoll"),
        (more_than_the_contract, "netpoll.poller", "from netpoll.backends import epoll"),
        (wrong_way_in_tracer, "tracer.state", "from tracer.words import of"),
        (wrong_way_in_tracer, "tracer.steps", "import tracer.recorder"),
        (wrong_way_in_tracer, "tracer.page", "from tracer import player"),
        (wrong_way_in_tracer, "tracer.page", "from tracer import record"),
        (wrong_way_in_tracer, "tracer.recorder", "from tracer.state import LoopState"),
        (wrong_way_in_tracer, "tracer.lint", "from tracer.recorder import record"),
        (wrong_way_in_tracer, "tracer.lint", "from tracer.cli import main"),
        (foreign_to_tracer, "tracer.state", "import graphviz"),
        (foreign_to_tracer, "tracer.state", "from netpoll import IOEvent"),
        (foreign_to_tracer, "tracer.words", "import netpoll"),
        (foreign_to_tracer, "tracer.page", "import graphviz"),
        (foreign_to_tracer, "tracer.diagram", "from ipywidgets import HTML"),
        (foreign_to_tracer, "tracer.demo", "import anywidget"),
        (foreign_to_tracer, "tracer.player", "import pandas"),
        (private_names, "cell", "poller._batch"),
        (private_names, "cell", "x = poller.wakeup._sent"),
        (private_names, "cell", "from netpoll.poller import _Run"),
        (private_names, "cell", "import tracer._twins"),
    ],
)
def test_rule_notices(rule: Callable[[Sources], list[str]], module: str, source: str) -> None:
    """Each rule complains about a source that breaks it."""
    assert rule({module: source})


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (
            words_of_tracing,
            "netpoll.poller",
            "import traceback  # contract, extract, TracebackType",
        ),
        (wrong_way_in_netpoll, "netpoll.poller", "from netpoll.backends import Backend"),
        (wrong_way_in_netpoll, "netpoll.backends.epoll", "from netpoll.backends import Limits"),
        (wrong_way_in_netpoll, "netpoll.examples.echo", "import netpoll"),
        (wrong_way_in_tracer, "tracer.recorder", "import netpoll.poller\nimport tracer.steps"),
        (wrong_way_in_tracer, "tracer.demo", "from tracer.recorder import record"),
        (foreign_to_tracer, "tracer.diagram", "import graphviz"),
        (foreign_to_tracer, "tracer.recorder", "import netpoll.poller"),
        (private_names, "cell", "self._sent = __name__ + x.__class__.__name__"),
    ],
)
def test_rule_lets_pass(rule: Callable[[Sources], list[str]], module: str, source: str) -> None:
    """What only looks like a breach is none."""
    assert rule({module: source}) == []


def test_circle_is_noticed() -> None:
    """Two rooms of one group that import each other are a circle."""
    sources = {"tracer.steps": "import tracer.trace", "tracer.trace": "import tracer.steps"}
    assert wrong_way_in_tracer(sources) == ["in a circle: steps -> trace -> steps"]
