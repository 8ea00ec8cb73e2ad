"""The first notebook in a real JupyterLab in a real browser, as a student opens it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.lab import ARTIFACTS, Lab

NOTEBOOK = "00-start-here.ipynb"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(lab: Lab, browser: Browser) -> Iterator[Page]:
    """The notebook, opened and run from top to bottom."""
    page = lab.open(browser, NOTEBOOK)
    run_all(page)
    yield page
    page.close()


def run_all(page: Page) -> None:
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
    page.wait_for_selector(".netpoll-player [data-role=step]")
    page.wait_for_selector('.jp-OutputArea-output:has-text("ConnectionResetError")')


def test_stepping_changes_counter_light_and_line(page: Page) -> None:
    """Step forward moves the counter, lights other places and marks the line that ran."""
    player = page.locator(".netpoll-player").first
    player.scroll_into_view_if_needed()
    seen: list[tuple[str | None, list[str], str | None]] = []
    marked: set[str | None] = set()
    for _ in range(12):
        step = player.locator("[data-role=step]").get_attribute("data-step")
        lit = player.locator(".lit").evaluate_all("all => all.map(one => one.id).sort()")
        line = player.locator(".source-line.marked")
        mark = line.first.get_attribute("data-line") if line.count() else None
        seen.append((step, lit, mark))
        marked.add(mark)
        player.locator("[data-action=forward]").click()
        page.wait_for_function(
            "([root, before]) => root.querySelector('[data-role=step]').dataset.step !== before",
            arg=[player.element_handle(), step],
        )
    assert len({step for step, _, _ in seen}) == 12
    assert len({tuple(lit) for _, lit, _ in seen}) > 3
    assert len(marked) >= 3


def test_playing_goes_on(page: Page) -> None:
    """Playing is not ended by the step that the player tells the kernel, and the kernel it."""
    player = page.locator(".netpoll-player").first
    player.locator("[data-action=first]").click()
    player.locator("select[aria-label=Speed]").select_option("20")
    player.locator("[data-action=play]").click()
    page.wait_for_function(
        "root => Number(root.querySelector('[data-role=step]').dataset.step) > 15",
        arg=player.element_handle(),
    )
    assert "playing" in (player.get_attribute("class") or "")
    player.locator("[data-action=play]").click()


def test_looks(page: Page) -> None:
    """Screenshots of the player, light and dark, at two sizes, are left in build/screenshots."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    player = page.locator(".netpoll-player").first
    for theme in ("Light", "Dark"):
        page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
            f"JupyterLab {theme}",
        )
        light = str(theme == "Light").lower()
        page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        for width, height in ((1280, 800), (1920, 1080)):
            page.set_viewport_size({"width": width, "height": height})
            player.scroll_into_view_if_needed()
            name = f"lab-{theme.lower()}-{width}x{height}.png"
            page.screenshot(path=ARTIFACTS / name)
            assert (ARTIFACTS / name).stat().st_size > 20_000


LIVE = """\
import socket, threading
import netpoll, tracer
from netpoll.examples.echo_server import EchoServer
poller = netpoll.open_poller()
server = EchoServer(poller)
loop = netpoll.run_in_thread(poller, name="live", on_end=server.close)
view = tracer.live(poller, limit=1000)
view
"""
TALK = """\
with socket.create_connection(server.address) as client:
    for _ in range(300):
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
"""


END = "loop.stop(); view.stop()"


def test_live(lab: Lab, browser: Browser) -> None:
    """A live view follows while a cell runs, holds still when asked, and catches up."""
    cells = [code_cell(source) for source in (LIVE, TALK, TALK, END)]
    spec = {"name": "python3", "display_name": "Python 3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4}
    (lab.work / "live.ipynb").write_text(json.dumps({**notebook, "nbformat_minor": 5}))
    page = lab.open(browser, "live.ipynb")
    view = page.locator(".netpoll-player")
    note = view.locator("[data-role=live]")

    def run(cell: int) -> None:
        page.locator(".jp-CodeCell").nth(cell).locator(".jp-InputArea").click()
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-cell')")

    def says(text: str) -> None:
        view.locator(f"[data-role=live]:has-text('{text}')").wait_for()

    run(0)
    says("live")
    run(1)
    says("older ones dropped")
    view.locator("[data-action=back]").click()
    says("holding still")
    held = view.locator("[data-role=step]").get_attribute("data-step")
    before = note.inner_text()
    run(2)
    page.wait_for_function(
        "([note, before]) => note.textContent !== before", arg=[note.element_handle(), before]
    )
    assert view.locator("[data-role=step]").get_attribute("data-step") == held
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / "live-holds-still.png")
    view.locator("[data-action=follow]").click()
    says("live")
    page.screenshot(path=ARTIFACTS / "live.png")
    run(3)
    says("has ended")
    page.close()


def code_cell(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": secrets.token_hex(4),
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def test_nothing_leaves_the_machine(page: Page) -> None:
    """Neither JupyterLab nor the player asked any other server for anything."""
    assert page.strangers == []  # type: ignore[attr-defined]
