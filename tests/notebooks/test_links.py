"""Every link inside the project, from notebooks and from documentation, leads somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from tests.notebooks.course import (
    EVERY_NOTEBOOK,
    ROOT,
    headings,
    prose,
    read,
    visible,
    without_code,
)

NOT_DOCUMENTATION = {"build", "node_modules"}
DOCUMENTS = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if visible(path) and not NOT_DOCUMENTATION & set(path.relative_to(ROOT).parts)
]

INLINE = r"\]\(\s*<?([^)\s>]*)>?(?:\s+[\"'(][^)]*)?\)"
REFERENCE = r"(?m)^ {0,3}\[[^\]^]+\]:\s*<?([^\s>]+)"
HTML = r"(?i)<(?:a|img|source)\b[^>]*?\s(?:href|src|srcset)=[\"']([^\"'\s]*)"
ANCHOR = r"(?i)<\w+\b[^>]*?\s(?:id|name)=[\"']([^\"']+)"
LABEL = r"(?m)^\(([\w-]+)\)=$"


class Link(NamedTuple):
    """A link to a file, an anchor in one, or both."""

    path: str
    anchor: str


def markdown_of(path: Path) -> str:
    """Return the text of a document, and of a notebook what is not code."""
    if path.suffix == ".ipynb":
        return prose(read(path))
    return path.read_text(encoding="utf-8")


def links(markdown: str) -> Iterator[Link]:
    """Yield every link and picture that does not lead to another machine."""
    text = without_code(markdown)
    for pattern in (INLINE, REFERENCE, HTML):
        for target in re.findall(pattern, text):
            if not re.match(r"(?:https?:)?//|mailto:", target):
                path, _, anchor = target.partition("#")
                yield Link(unquote(path), unquote(anchor))


def anchors(path: Path) -> set[str]:
    """Return what can stand after ``#``.

    GitHub and Sphinx make an anchor of a heading of a document; JupyterLab and GitHub keep the
    letters of a notebook's heading as they are.
    """
    markdown = markdown_of(path)
    found = {*re.findall(ANCHOR, markdown), *re.findall(LABEL, markdown)}
    for _, text in headings(markdown):
        anchor = anchor_in_notebook(text) if path.suffix == ".ipynb" else anchor_in_document(text)
        twins = [f"{anchor}-{number}" for number in range(1, 100)]
        found.add(next(each for each in [anchor, *twins] if each not in found))
    return found


def anchor_in_document(heading: str) -> str:
    """Return ``where-it-runs`` for "Where it runs"."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")


def anchor_in_notebook(heading: str) -> str:
    """Return ``Where-it-runs`` for "Where it runs"."""
    return re.sub(r"[`*]", "", heading).replace(" ", "-")


def dead_links(path: Path, root: Path = ROOT) -> list[str]:
    """Complain about every link of a document that leads nowhere, or out of the project."""
    complaints = []
    for link in links(markdown_of(path)):
        target = (path.parent / link.path).resolve() if link.path else path
        written = f"{link.path}#{link.anchor}" if link.anchor else link.path
        if not written:
            complaints.append("a link without a target")
        elif link.path.startswith("/") or not target.is_relative_to(root):
            complaints.append(f"{written}: leads out of the project")
        elif not target.exists():
            complaints.append(f"{written}: there is no such file")
        elif link.anchor and target.suffix in (".md", ".ipynb"):
            if link.anchor not in anchors(target):
                complaints.append(f"{written}: there is no such heading")
        elif link.anchor and not re.fullmatch(r"L\d+(-L\d+)?", link.anchor):
            complaints.append(f"{written}: only documents have headings")
    return complaints


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *EVERY_NOTEBOOK], ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_somewhere(path: Path) -> None:
    """A link leads to a file of the project, and to a heading that the file has."""
    assert dead_links(path) == []


def test_all_documents_are_looked_at() -> None:
    """The search for documents finds those that everybody knows."""
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert names > {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/reference/netpoll.md"}


# ---- the rule itself --------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project in a folder: a document, a picture, a script and a notebook."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "my page.md").write_text(
        "# A page\n\n## Where `it` runs, 1!\n\n## Twin\n## Twin\n"
    )
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "run.py").write_text("")
    cell = {"cell_type": "markdown", "source": ["# Start here\n", '<a id="there"></a>']}
    (tmp_path / "00.ipynb").write_text(json.dumps({"cells": [cell]}))
    return tmp_path


@pytest.mark.parametrize(
    "markdown",
    [
        "[a](docs/my%20page.md)",
        "[a](<docs>)",
        "[a](docs/my%20page.md#where-it-runs-1)",
        "[a](docs/my%20page.md#twin-1)",
        "[a](00.ipynb#Start-here)",
        "[a](00.ipynb#there)",
        "[a](run.py#L3)",
        "[a](#title)",
        '![a](picture.png "a picture")',
        "[over\ntwo lines](picture.png)",
        "[a][b]\n\n[b]: picture.png",
        '<picture><img alt="" src="picture.png"></picture>',
        "[a](https://example.org/x#y) <https://example.org> [b](mailto:me@example.org)",
        "`[a](gone.md)` and ``a ` [a](gone.md)``",
        "```\n[a](gone.md)\n```",
        "~~~text\n# Not a title\n[a](gone.md)\n~~~",
    ],
)
def test_lets_links_pass(project: Path, markdown: str) -> None:
    """A link to what is there, to another machine, or in code, is not complained about."""
    path = project / "README.md"
    path.write_text(f"# Title\n\n{markdown}\n")
    assert dead_links(path, project) == []


@pytest.mark.parametrize(
    ("markdown", "complaint"),
    [
        ("[a](gone.md)", "gone.md: there is no such file"),
        ("![a](gone.png)", "gone.png: there is no such file"),
        ("[a](Picture.png)", "Picture.png: there is no such file"),
        ("[over\ntwo lines](gone.md)", "gone.md: there is no such file"),
        ("[a][b]\n\n[b]: gone.md", "gone.md: there is no such file"),
        ('<img alt="" src="gone.png">', "gone.png: there is no such file"),
        ('<source media="x" srcset="gone.png">', "gone.png: there is no such file"),
        ("[a](#gone)", "#gone: there is no such heading"),
        ("[a](docs/my%20page.md#gone)", "docs/my page.md#gone: there is no such heading"),
        ("[a](docs/my%20page.md#twin-2)", "docs/my page.md#twin-2: there is no such heading"),
        ("[a](00.ipynb#start-here)", "00.ipynb#start-here: there is no such heading"),
        ("[a](run.py#main)", "run.py#main: only documents have headings"),
        ("[a](/docs)", "/docs: leads out of the project"),
        ("[a](../elsewhere.md)", "../elsewhere.md: leads out of the project"),
        ("[a](localhost:8888/x)", "localhost:8888/x: there is no such file"),
        ("[a]()", "a link without a target"),
        ("a ` alone\n\n[a](gone.md)\n\nand ` another", "gone.md: there is no such file"),
    ],
)
def test_notices_dead_links(project: Path, markdown: str, complaint: str) -> None:
    """A link that leads nowhere is complained about, in a document and in a notebook."""
    path = project / "README.md"
    path.write_text(f"# Title\n\n{markdown}\n")
    assert dead_links(path, project) == [complaint]
    notebook = project / "01.ipynb"
    cell = {"cell_type": "markdown", "source": [f"# Title\n\n{markdown}"]}
    code = {"cell_type": "code", "source": ["table = rows[first](second)"]}
    notebook.write_text(json.dumps({"cells": [cell, code]}))
    assert dead_links(notebook, project) == [complaint]
