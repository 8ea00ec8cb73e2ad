"""axe-core finds nothing in the page: at its moments, in both themes, wide and narrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_tools import installed
from tests.traces import echo_trace, hostile_trace, random_trace
from tracer.page import write_page
from tracer.trace import Trace

pytestmark = pytest.mark.browser

Open = Callable[..., Any]

SIZES = {"wide": (1280, 800), "narrow": (600, 900)}
MOMENTS = {
    "start": 0,
    "registration": 7,
    "failed registration": 2,
    "wait": 47,
    "dispatch": 40,
    "task by wakeup": 52,
    "error": 57,
    "end": 72,
}
"""Step in `echo_trace`."""


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    return (installed() / "axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def open_page(browser: Any, axe: str, tmp_path: Path) -> Iterator[Open]:
    """Open the page of a trace, with axe-core in it."""
    contexts = []

    def open_page(trace: Trace, step: int = 0, size: str = "wide", **options: Any) -> Any:
        path = write_page(trace, tmp_path / "replay.html")
        width, height = SIZES[size]
        # Without motion nothing is half faded in when its colors are compared.
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{path.as_uri()}#step={step}")
        page.wait_for_selector(f".netpoll-player [data-role=step][data-step='{step}']")
        page.evaluate(axe)
        return page

    yield open_page
    for context in contexts:
        context.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds, one line an element."""
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def show(page: Any, step: int) -> None:
    """Go to a step by the address, as a link does."""
    page.evaluate(f"location.hash = '#step={step}'")
    page.wait_for_selector(f"[data-role=step][data-step='{step}']")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_moments(open_page: Open, scheme: str, size: str) -> None:
    """No violation at any of the moments that a class looks at."""
    page = open_page(echo_trace(), size=size, color_scheme=scheme)
    found = {}
    for moment, step in MOMENTS.items():
        show(page, step)
        found[moment] = violations(page)
    assert found == {moment: [] for moment in MOMENTS}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tabs(open_page: Open, scheme: str) -> None:
    """Nor with any tab in front: steps, findings, quiz."""
    page = open_page(echo_trace(), step=13, color_scheme=scheme)
    tabs = page.locator("[role=tab]").all()
    assert len(tabs) >= 3
    for tab in tabs:
        tab.click()
        assert tab.get_attribute("aria-selected") == "true"
        assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sheet_of_keys(open_page: Open, scheme: str) -> None:
    """Nor with the sheet of keys open."""
    page = open_page(echo_trace(), step=13, color_scheme=scheme)
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    assert violations(page) == []


def test_playing(open_page: Open) -> None:
    """Nor while it plays."""
    page = open_page(echo_trace(), step=3)
    page.click("[data-action=play]")
    page.wait_for_selector(".netpoll-player.playing")
    assert violations(page) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_crowd_and_hostile_names(open_page: Open, scheme: str, size: str) -> None:
    """Nor with hundreds of descriptors, nor with names of 10 kB full of markup."""
    for trace in (random_trace(3, rounds=60, most_clients=300), hostile_trace()):
        page = open_page(trace, step=len(trace), size=size, color_scheme=scheme)
        assert violations(page) == []


BREAKS = {
    "button-name": "document.querySelector('button').removeAttribute('aria-label'),"
    " document.querySelector('button').removeAttribute('title')",
    "color-contrast": "document.querySelector('.saying').style.color = 'gray',"
    " document.querySelector('.saying').style.backgroundColor = 'silver'",
    "aria-valid-attr-value": "document.querySelector('.saying').setAttribute('aria-live', 'loud')",
}


@pytest.mark.parametrize("rule", BREAKS)
def test_what_is_wrong_is_found(open_page: Open, rule: str) -> None:
    """A control without a name, text too pale or a wrong attribute is found: axe-core does run."""
    page = open_page(echo_trace(), step=13)
    page.evaluate(BREAKS[rule])
    assert json.dumps(violations(page)).count(f"{rule}:") >= 1
