"""The notebooks of the course as files: where they are, and their cells as plain dicts."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"

Notebook = dict[str, Any]
"""What stands in the file, with each cell's source as one string."""


def visible(path: Path) -> bool:
    """Whether no part of a path below the project's folder begins with a dot."""
    return not any(part.startswith(".") for part in path.relative_to(ROOT).parts)


TUTORIALS = sorted(filter(visible, NOTEBOOKS.glob("*.ipynb")))
"""00 to 12 and the bug gallery."""

EVERY_NOTEBOOK = sorted(filter(visible, NOTEBOOKS.rglob("*.ipynb")))
"""The labs too."""


def read(path: Path) -> Notebook:
    """Read a notebook as it is, without making it valid."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def sources(notebook: Notebook, kind: str) -> list[str]:
    """Return the sources of all ``"code"`` or ``"markdown"`` cells."""
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == kind]


def prose(notebook: Notebook) -> str:
    """Return all that is written between the cells of code."""
    return "\n\n".join(sources(notebook, "markdown"))


def code_cells(path: Path) -> list[str]:
    """Return the cells of code that have something in them."""
    return [source for source in sources(read(path), "code") if source.strip()]


def trees(notebook: Notebook) -> list[ast.Module]:
    """Return the cells of code parsed, as Python 3.10 would; those that are no Python left out."""
    found = []
    for source in sources(notebook, "code"):
        try:
            found.append(ast.parse(source, feature_version=(3, 10)))
        except SyntaxError:
            continue
    return found


def without_code(markdown: str) -> str:
    """Return Markdown with its blocks and spans of code blanked out, line by line the same."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match.group())

    markdown = re.sub(r"(?ms)^ *(```+|~~~+).*?^ *\1`* *$", blank, markdown)
    return re.sub(r"(?s)(`+)(?!`)(?:(?!\n\s*\n).)*?(?<!`)\1(?!`)", blank, markdown)


def headings(markdown: str) -> list[tuple[int, str]]:
    """Return the level and the text of every heading (those with ``#``, not the underlined)."""
    no_fences = re.sub(r"(?ms)^ *(```+|~~~+).*?^ *\1`* *$", "", markdown)
    return [
        (len(marks), text.strip())
        for marks, text in re.findall(r"(?m)^ {0,3}(#{1,6}) +(.*?)#*$", no_fences)
    ]
