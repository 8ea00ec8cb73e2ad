"""The self-contained page."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

import pytest

from tests.traces import HOSTILE, echo_trace, hostile_trace
from tracer import model as model_module
from tracer.assets import module
from tracer.diagram import GraphvizMissing
from tracer.page import page, write_page
from tracer.trace import Trace, parse


class Tags(html.parser.HTMLParser):
    """The tags of a page, with their attributes and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.open in self.inside:
            self.inside[self.open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = ""


def test_page_is_one_file(tmp_path: Path) -> None:
    """It is written where it was asked for, and nothing in it points anywhere else."""
    path = write_page(echo_trace(), tmp_path / "replay.html", title="<b>A & B</b>")
    text = path.read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;A &amp; B&lt;/b&gt;</title>" in text
    assert all(not {"src", "href"} & set(attributes) for _, attributes in Tags(text).tags)
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_page_holds_the_trace_file() -> None:
    """The trace in the page is the trace file itself: parsed again it has the same steps."""
    trace = echo_trace()
    values = json.loads(Tags(page(trace)).inside["script"][0])
    again = parse(iter(values["trace_text"].splitlines(keepends=True)))
    assert list(again) == list(trace)


def test_hostile_names_stay_in_the_data() -> None:
    """Names with </script>, quotes and markup add no tag to the page."""
    plain = [tag for tag, _ in Tags(page(echo_trace())).tags]
    text = page(hostile_trace())
    assert [tag for tag, _ in Tags(text).tags] == plain
    values = json.loads(Tags(text).inside["script"][0])
    assert parse(iter(values["trace_text"].splitlines(keepends=True))).base.backend == HOSTILE


def test_policy_allows_only_its_own_script_and_style() -> None:
    """The policy forbids everything but the one module and the one style sheet, by their hashes."""
    tags = Tags(page(echo_trace()))
    policy = next(a["content"] for t, a in tags.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for text in (tags.inside["script"][1], tags.inside["style"][0]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not any(name.startswith("on") for _, attributes in tags.tags for name in attributes)
    assert not any("style" in attributes for _, attributes in tags.tags)


def test_page_without_graphviz_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Graphviz the page is written all the same, with the line of what to install."""

    def missing(trace: Trace) -> str:
        raise GraphvizMissing

    monkeypatch.setattr(model_module, "layout", missing)
    values = json.loads(Tags(page(echo_trace())).inside["script"][0])
    assert values["svg"] == ""
    assert "pip install" in values["problem"]


def test_module_is_whole() -> None:
    """The one module has no import left and exports only its default."""
    assert not re.search(r"^import ", module(), re.MULTILINE)
    assert re.findall(r"^export .*", module(), re.MULTILINE) == ["export default { render };"]
