"""What holds of every notebook's text: the file, the prose and the code, without running it.

Each rule is a function from a notebook to complaints. It is held against the notebooks, and
against a small notebook that breaks it.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
import pytest

import netpoll
import tracer
from tests.notebooks.course import (
    EVERY_NOTEBOOK,
    NOTEBOOKS,
    TUTORIALS,
    Notebook,
    headings,
    prose,
    read,
    sources,
    trees,
)

Rule = Callable[[Notebook], list[str]]

PLAYERS = {"tracer.play", "tracer.compare", "tracer.live"}
LONGEST_CELL = 39
LONGEST_SLEEP = 0.5
MINUTES = range(15, 46)
DOORS = {"netpoll", "netpoll.sockets", "netpoll.simulated", "tracer"}
"""What a notebook may import of the project, and `netpoll.examples.*`."""

MACHINES_OWN_PATHS = r"(?<![\w.:~/-])(?:/(?:home|root|work|tmp|Users|mnt|opt|private)/|[A-Z]:\\)"
REGISTRIES = (
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|unpkg\.com|jsdelivr\.net|anaconda\.org"
    r"|conda-forge\.org|crates\.io|proxy\.golang\.org|docker\.io|ghcr\.io|quay\.io|artifactory)\b"
)
BRITISH = {
    r"(?:mis)?behaviour(?:s|al)?": "behavior",
    r"colour(?:s|ed|ing|ful)?": "color",
    r"(?:un)?favou?rites?(?<!favorite)(?<!favorites)": "favorite",
    r"honour(?:s|ed|ing)?": "honor",
    r"neighbour(?:s|ing)?": "neighbor",
    r"centre[sd]?": "center",
    r"analyse[sdr]?|analysing": "analyze",
    r"(?:recogn|organ|initial|serial|synchron|optim|real|minim|maxim|summar|visual|emphas)"
    r"is(?:e|es|ed|ing|ation|ations)": "-ize",
    r"labell(?:ed|ing)": "labeled",
    r"signall(?:ed|ing)": "signaled",
    r"modell(?:ed|ing)": "modeled",
    r"travell(?:ed|ing|er|ers)": "traveled",
    r"fulfil(?:s|ment)?": "fulfill",
    r"grey": "gray",
    r"licence": "license",
    r"defence": "defense",
    r"catalogue": "catalog",
    r"artefacts?": "artifact",
    r"programmes?": "program",
    r"whilst": "while",
    r"amongst": "among",
    r"learnt": "learned",
    r"judgement": "judgment",
}


# ---- the file ---------------------------------------------------------------------------------


def invalid(notebook: Notebook) -> list[str]:
    """Complain about what Jupyter itself would."""
    try:
        nbformat.validate(copy.deepcopy(notebook))
    except nbformat.ValidationError as error:
        return [str(error).splitlines()[0]]
    return []


def outputs(notebook: Notebook) -> list[str]:
    """Complain about stored outputs: a reader sees results that are their own."""
    return [
        f"cell {number} has stored results: clear all outputs"
        for number, cell in enumerate(notebook["cells"])
        if cell.get("outputs") or cell.get("execution_count") is not None
    ]


def metadata_of_cells(notebook: Notebook) -> list[str]:
    """Complain about metadata, such as what widgets and editors leave, but nbgrader's in a lab."""
    in_labs = {"nbgrader", "deletable", "editable"}
    graded = any("nbgrader" in cell["metadata"] for cell in notebook["cells"])
    return [
        f"cell {number} has metadata: {sorted(cell['metadata'])}"
        for number, cell in enumerate(notebook["cells"])
        if set(cell["metadata"]) - (in_labs if graded else set())
    ]


def metadata_of_notebook(notebook: Notebook) -> list[str]:
    """Complain about another kernel, and about what a front end leaves: versions, widget states."""
    metadata = notebook["metadata"]
    complaints = []
    if metadata.get("kernelspec", {}).get("name") != "python3":
        complaints.append(f"the kernel is not python3: {metadata.get('kernelspec')}")
    if unknown := set(metadata) - {"kernelspec", "language_info", "celltoolbar"}:
        complaints.append(f"metadata of the notebook: {sorted(unknown)}")
    if "version" in metadata.get("language_info", {}):
        complaints.append("language_info has the version of somebody's Python")
    return complaints


def ids(notebook: Notebook) -> list[str]:
    """Complain about cells without an id or with one that another has."""
    all_ids = [cell.get("id") for cell in notebook["cells"]]
    return [f"id {each!r} is not unique" for each in all_ids if not each or all_ids.count(each) > 1]


def attachments(notebook: Notebook) -> list[str]:
    """Complain about pictures pasted into cells: nobody can review or change them."""
    return [
        f"cell {number} has an attachment"
        for number, cell in enumerate(notebook["cells"])
        if cell.get("attachments")
    ]


# ---- the prose --------------------------------------------------------------------------------


def first_heading(notebook: Notebook) -> list[str]:
    """Complain unless there is one H1 and the notebook begins with it."""
    titles = [text for level, text in headings(prose(notebook)) if level == 1]
    complaints = [] if len(titles) == 1 else [f"not one H1 but {len(titles)}: {titles}"]
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown" or not first["source"].startswith("# "):
        complaints.append("the notebook does not begin with its H1")
    return complaints


def heading_levels(notebook: Notebook) -> list[str]:
    """Complain about a heading that is more than one level below the one before."""
    complaints = []
    before = 0
    for level, text in headings(prose(notebook)):
        if level > before + 1:
            complaints.append(f"from H{before} to H{level}: {text}")
        before = level
    return complaints


def parts(notebook: Notebook) -> list[str]:
    """Complain about a missing part, or one in the wrong place."""
    text = prose(notebook)
    order = [
        r"^\*\*You will be able to\*\*",
        r"^\*\*You need\*\*",
        r"^## Summary$",
        r"^## Exercises$",
        r"^## Where to read on$",
    ]
    found = [re.search(pattern, text, re.MULTILINE) for pattern in order]
    complaints = [f"no {pattern}" for pattern, match in zip(order, found, strict=True) if not match]
    places = [match.start() for match in found if match]
    if places != sorted(places):
        complaints.append("the parts are not in the order of 00-start-here")
    sections = [name for level, name in headings(text) if level == 2]
    if not complaints and sections[-3:] != ["Summary", "Exercises", "Where to read on"]:
        complaints.append("summary, exercises and where to read on are not the last sections")
    return complaints


def objectives(notebook: Notebook) -> list[str]:
    """Complain unless three objectives or more follow "You will be able to"."""
    after = prose(notebook).partition("**You will be able to**")[2]
    bullets = re.match(r"[^\n]*\n+((?:[-*] .*(?:\n(?![-*] |\n).*)*\n?)*)", after)
    count = len(re.findall(r"(?m)^[-*] ", bullets.group(1))) if bullets else 0
    return [] if count >= 3 else [f"{count} objectives, not three"]


def minutes(notebook: Notebook) -> list[str]:
    """Complain unless "You need" says how long it takes, and that is what one sitting can hold."""
    need = prose(notebook).partition("**You need**")[2].partition("\n\n")[0]
    stated = re.findall(r"(\d+)(?:–(\d+))? minutes", need)
    if len(stated) != 1:
        return ["You need does not say how many minutes it takes"]
    return [f"{each} minutes" for each in stated[0] if each and int(each) not in MINUTES]


def exercises(notebook: Notebook) -> list[str]:
    """Complain about fewer than three exercises."""
    section = re.search(r"(?ms)^## Exercises$(.*?)(?=^## |\Z)", prose(notebook))
    count = len(re.findall(r"(?m)^(?:\d+\. |### |\*\*\d)", section.group(1))) if section else 0
    return [] if count >= 3 else [f"{count} exercises, not three"]


def absolute_paths(notebook: Notebook) -> list[str]:
    """Complain about a path that only one machine has."""
    return [
        f"a path of one machine: {line.strip()}"
        for line in text_of(notebook).splitlines()
        if re.search(MACHINES_OWN_PATHS, line)
    ]


def registries(notebook: Notebook) -> list[str]:
    """Complain about a package registry: the course works without a network."""
    return [
        f"a registry: {line.strip()}"
        for line in text_of(notebook).splitlines()
        if re.search(REGISTRIES, line, re.IGNORECASE)
    ]


def british(notebook: Notebook) -> list[str]:
    """Complain about British spelling, in prose and in comments and strings of the code."""
    text = text_of(notebook)
    return [
        f"{match.group()!r} for {american!r}"
        for pattern, american in BRITISH.items()
        for match in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE)
    ]


def text_of(notebook: Notebook) -> str:
    """Return all that a reader reads, with code."""
    return "\n\n".join(cell["source"] for cell in notebook["cells"])


# ---- the code ---------------------------------------------------------------------------------


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def no_python(notebook: Notebook) -> list[str]:
    """Complain about cells that Python 3.10 cannot read, magics among them."""
    complaints = []
    for source in sources(notebook, "code"):
        try:
            ast.parse(source, feature_version=(3, 10))
        except SyntaxError as error:
            complaints.append(f"{error}: {source.splitlines()[(error.lineno or 1) - 1]}")
    return complaints


def long_cells(notebook: Notebook) -> list[str]:
    """Complain about cells that do not fit a screen, and about empty ones."""
    complaints = []
    for source in sources(notebook, "code"):
        lines = source.splitlines()
        if len(lines) > LONGEST_CELL:
            complaints.append(f"a cell of {len(lines)} lines: {lines[0]}")
        if not source.strip():
            complaints.append("an empty cell")
    return complaints


def sleeps(notebook: Notebook) -> list[str]:
    """Complain about sleeping long: wait for an event or an answer instead."""
    complaints = []
    for tree in trees(notebook):
        for name, call in calls(tree):
            arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
            if name.split(".")[-1] != "sleep" or not arguments:
                continue
            try:
                seconds = eval(ast.unparse(arguments[0]), {"__builtins__": {}})
            except NameError:
                continue  # not a number but a variable
            if seconds > LONGEST_SLEEP:
                complaints.append(f"sleeps long: {ast.unparse(call)}")
    return complaints


def fixed_ports(notebook: Notebook) -> list[str]:
    """Complain about a port chosen by hand: it may be in use."""
    complaints = []
    for tree in trees(notebook):
        for name, call in calls(tree):
            if name.split(".")[-1] not in ("create_server", "bind", "listen_tcp", "listen_udp"):
                continue
            for node in ast.walk(call):
                if isinstance(node, ast.Tuple) and len(node.elts) == 2:
                    port = node.elts[1]
                    if isinstance(port, ast.Constant) and port.value != 0:
                        complaints.append(f"a fixed port: {ast.unparse(call)}")
    return complaints


def foreign_names(notebook: Notebook) -> list[str]:
    """Complain about what is not public: `netpoll.poller`, `tracer.state`, names not in __all__."""
    public: dict[str, set[str]] = {
        "netpoll": {*netpoll.__all__, "sockets", "simulated", "examples"},
        "tracer": set(tracer.__all__),
    }
    complaints = []
    for tree in trees(notebook):
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module in public:
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [f"{node.value.id}.{node.attr}"]
            for name in names:
                root, _, rest = name.partition(".")
                first = rest.partition(".")[0]
                if root not in public or name in DOORS or name.startswith("netpoll.examples."):
                    continue
                if first not in public[root] or (isinstance(node, ast.Import) and rest):
                    complaints.append(f"{name} is not public")
    return complaints


def player(notebook: Notebook) -> list[str]:
    """Complain unless something is replayed."""
    names = {name for tree in trees(notebook) for name, _ in calls(tree)}
    return [] if names & PLAYERS else ["no player"]


def predictions(notebook: Notebook) -> list[str]:
    """Complain unless each prediction is revealed and one stands before the first replay."""
    in_order = [name for tree in trees(notebook) for name in names_in_order(tree)]
    asked = in_order.count("tracer.predict")
    revealed = sum(name.endswith(".reveal") for name in in_order)
    complaints = []
    if not asked:
        complaints.append("no prediction")
    if asked != revealed:
        complaints.append(f"{asked} predictions, {revealed} revealed")
    first_player = next((i for i, name in enumerate(in_order) if name in PLAYERS), len(in_order))
    if "tracer.predict" not in in_order[:first_player]:
        complaints.append("no prediction before the first replay")
    return complaints


def names_in_order(tree: ast.Module) -> list[str]:
    """Return the names of all that is called in a cell, as it is written from top to bottom."""
    found = sorted(calls(tree), key=lambda each: (each[1].lineno, each[1].col_offset))
    return [name for name, _ in found]


def unseen(notebook: Notebook) -> list[str]:
    """Complain about a player, a question or an answer that no cell shows: it is not the last."""
    complaints = []
    for tree in trees(notebook):
        for statement in tree.body[:-1]:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                name = ast.unparse(statement.value.func)
                if name in PLAYERS | {"tracer.predict"} or name.endswith(".reveal"):
                    complaints.append(f"never shown: {ast.unparse(statement)}")
    return complaints


# ---- the notebooks ----------------------------------------------------------------------------

OF_EVERY_NOTEBOOK: list[Rule] = [
    *(invalid, outputs, metadata_of_cells, metadata_of_notebook, ids, attachments),
    *(absolute_paths, registries, british, heading_levels),
]
OF_TUTORIALS: list[Rule] = [
    *(first_heading, parts, objectives, minutes, exercises),
    *(no_python, long_cells, sleeps, fixed_ports, foreign_names, player, predictions, unseen),
]


def named(path: Path) -> str:
    return str(path.relative_to(NOTEBOOKS).with_suffix(""))


@pytest.mark.parametrize("path", EVERY_NOTEBOOK, ids=named)
def test_every_notebook(path: Path) -> None:
    """A notebook keeps the rules that hold for all, labs included."""
    notebook = read(path)
    assert [(rule.__name__, each) for rule in OF_EVERY_NOTEBOOK for each in rule(notebook)] == []


@pytest.mark.parametrize("path", TUTORIALS, ids=named)
def test_tutorial(path: Path) -> None:
    """A tutorial has every part that students count on, and code that they can run anywhere."""
    notebook = read(path)
    assert [(rule.__name__, each) for rule in OF_TUTORIALS for each in rule(notebook)] == []


# ---- the rules themselves ---------------------------------------------------------------------

SOUND = """
# A title

An opening.

**You will be able to**

- do this;
- do that, in a sentence that goes on
  in the next line;
- do more.

**You need** Python. It takes about 20 minutes.
===
import netpoll, tracer
from netpoll.examples.echo_server import EchoServer
from netpoll import sockets
===
## A round

From `/proc/self/fd`, `/dev/null` and src/tmp/x.
===
guess = tracer.predict("How many?", [1, 2])
guess
===
trace = tracer.load("x")
tracer.play(trace)
===
guess.reveal(1, "One.")
===
### Deeper
===
time.sleep(0.01)
time.sleep(delay)
socket.create_server(("127.0.0.1", 0))
tracer.record(netpoll.open_poller()).stop()
===
## Summary

## Exercises

1. One.
2. Two.
3. Three.

## Where to read on
"""


def notebook_of(text: str) -> Notebook:
    """Make a notebook from cells parted by ``===``; one that begins as prose does is Markdown."""
    cells: list[Notebook] = []
    for number, source in enumerate(dedent(text).strip("\n").split("\n===\n")):
        cell: Notebook = {"id": f"cell-{number}", "metadata": {}, "source": source}
        if re.match(r"\s*(#+ |\*\*|[A-Z])", source):
            cell["cell_type"] = "markdown"
        else:
            cell |= {"cell_type": "code", "outputs": [], "execution_count": None}
        cells.append(cell)
    metadata: Notebook = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize("rule", OF_EVERY_NOTEBOOK + OF_TUTORIALS, ids=lambda rule: rule.__name__)
def test_rule_lets_pass(rule: Rule) -> None:
    """A notebook with all that is asked for is not complained about."""
    assert rule(notebook_of(SOUND)) == []


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (first_heading, "## Summary", "# Summary"),
        (first_heading, "# A title\n", ""),
        (first_heading, "# A title", "**A title**"),
        (first_heading, "# A title\n", "import first\n===\n# A title\n"),
        (heading_levels, "### Deeper", "#### Deeper"),
        (heading_levels, "## A round", "### A round"),
        (parts, "**You will be able to**", "You will learn"),
        (parts, "**You need** Python", "Python is needed"),
        (parts, "## Summary", "## What was that"),
        (parts, "## Exercises", "## Homework"),
        (parts, "## Where to read on", "## Links"),
        (parts, "## Exercises\n", "## Where to read on\n\n## Exercises\n"),
        (parts, "## Where to read on\n", "## Where to read on\n\n## One more thing\n"),
        (objectives, "- do more.\n", ""),
        (objectives, "- do that", "* * *\n\nor that"),
        (minutes, "20 minutes", "half an hour"),
        (minutes, "20 minutes", "14 minutes"),
        (minutes, "20 minutes", "46 minutes"),
        (minutes, "20 minutes", "20–60 minutes"),
        (exercises, "3. Three.\n", ""),
        (absolute_paths, "An opening.", "Look into /home/me/notebooks."),
        (absolute_paths, 'load("x")', 'load("/tmp/x")'),
        (absolute_paths, 'load("x")', r'load(r"C:\x")'),
        (registries, "An opening.", "Get it from https://pypi.org/simple."),
        (registries, 'load("x")', 'load("https://registry.npmjs.org/x")'),
        (british, "An opening.", "The behaviour of a loop."),
        (british, "An opening.", "We initialise it."),
        (british, 'load("x")', 'load("x")  # in the centre'),
        (no_python, 'load("x")', 'load("x"'),
        (no_python, "import netpoll, tracer", "%pip install netpoll"),
        (no_python, "import netpoll, tracer", "!ls"),
        (no_python, "time.sleep(delay)", "try:\n    pass\nexcept* OSError:\n    pass"),
        (long_cells, "time.sleep(delay)\n", "time.sleep(delay)\n" * 40),
        (long_cells, "guess\n===\n", "guess\n===\n\n===\n"),
        (sleeps, "sleep(0.01)", "sleep(0.6)"),
        (sleeps, "sleep(0.01)", "sleep(2 * 0.4)"),
        (sleeps, "time.sleep(0.01)", "await asyncio.sleep(delay=1)"),
        (fixed_ports, '("127.0.0.1", 0)', '("127.0.0.1", 9090)'),
        (foreign_names, "import netpoll, tracer", "import netpoll.poller"),
        (foreign_names, "import netpoll, tracer", "from netpoll.poller import Poller"),
        (foreign_names, "import netpoll, tracer", "from netpoll import poller"),
        (foreign_names, "import netpoll, tracer", "from tracer.trace import Trace"),
        (foreign_names, "import netpoll, tracer", "from tracer import state"),
        (foreign_names, "tracer.record(", "tracer.recorder.record("),
        (foreign_names, "netpoll.open_poller()", "netpoll.queue.AsyncTaskQueue()"),
        (player, "tracer.play(trace)", "print(trace)"),
        (predictions, 'tracer.predict("How many?", [1, 2])', "None"),
        (predictions, 'guess.reveal(1, "One.")', "guess"),
        (predictions, "guess = tracer.predict", "tracer.play(0)\n===\nguess = tracer.predict"),
        (unseen, "tracer.play(trace)", "tracer.play(trace)\nprint()"),
        (unseen, 'guess.reveal(1, "One.")', 'guess.reveal(1, "One.")\nprint()'),
    ],
)
def test_rule_notices(rule: Rule, old: str, new: str) -> None:
    """Each rule complains about a notebook in which a small thing is wrong."""
    assert old in SOUND
    assert rule(notebook_of(SOUND.replace(old, new)))


def results_of_a_run(notebook: Notebook) -> None:
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]


def number_of_a_run(notebook: Notebook) -> None:
    notebook["cells"][1]["execution_count"] = 1


def trusted_cell(notebook: Notebook) -> None:
    notebook["cells"][1]["metadata"] = {"trusted": True}


def graded_cell_in_a_tutorial(notebook: Notebook) -> None:
    notebook["cells"][1]["metadata"] = {"deletable": False}


def other_kernel(notebook: Notebook) -> None:
    notebook["metadata"]["kernelspec"]["name"] = "venv"


def python_of_somebody(notebook: Notebook) -> None:
    notebook["metadata"]["language_info"]["version"] = "3.11.2"


def states_of_widgets(notebook: Notebook) -> None:
    notebook["metadata"]["widgets"] = {}


def twins(notebook: Notebook) -> None:
    notebook["cells"][1]["id"] = notebook["cells"][0]["id"]


def no_id(notebook: Notebook) -> None:
    del notebook["cells"][1]["id"]


def no_outputs_at_all(notebook: Notebook) -> None:
    del notebook["cells"][1]["outputs"]


def pasted_picture(notebook: Notebook) -> None:
    notebook["cells"][0]["attachments"] = {"x.png": {"image/png": ""}}


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        (outputs, results_of_a_run),
        (outputs, number_of_a_run),
        (metadata_of_cells, trusted_cell),
        (metadata_of_cells, graded_cell_in_a_tutorial),
        (metadata_of_notebook, other_kernel),
        (metadata_of_notebook, python_of_somebody),
        (metadata_of_notebook, states_of_widgets),
        (ids, twins),
        (ids, no_id),
        (invalid, no_outputs_at_all),
        (attachments, pasted_picture),
    ],
)
def test_rule_notices_in_the_file(rule: Rule, spoil: Callable[[Notebook], Any]) -> None:
    """The rules about the file complain about one that a front end has written into."""
    notebook = notebook_of(SOUND)
    spoil(notebook)
    assert rule(notebook)


def test_nbgrader_may_mark_cells() -> None:
    """In a lab, cells carry what nbgrader grades by."""
    notebook = notebook_of(SOUND)
    for cell in notebook["cells"]:
        cell["metadata"] = {"nbgrader": {"grade": True}, "deletable": False}
    assert metadata_of_cells(notebook) == []
