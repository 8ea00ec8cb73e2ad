"""The first notebook in a real JupyterLab in a real browser, as a student opens it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request

ROOT = Path(__file__).parents[2]
NOTEBOOK = "00-start-here.ipynb"
ARTIFACTS = ROOT / "build" / "screenshots"
pytestmark = pytest.mark.browser


class Lab:
    """A JupyterLab of its own: temporary folders, a copy of the notebook, a free port."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(8)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        work = self.work = folder / "work"
        work.mkdir()
        shutil.copy(ROOT / "notebooks" / NOTEBOOK, work)
        settings = folder / "settings"
        settings.mkdir()
        (settings / "overrides.json").write_text(
            json.dumps({"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}})
        )
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")},
            **{f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")},
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_TOKEN": self.token,
        }
        self.log = (folder / "jupyter.log").open("w+")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ServerApp.ip=127.0.0.1",
                f"--ServerApp.port={self.port}",
                "--ServerApp.port_retries=0",
                f"--ServerApp.root_dir={work}",
                f"--LabApp.app_settings_dir={settings}",
                "--LabApp.expose_app_in_browser=True",
            ],
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read() or b"null")

    def wait_until(self, what: str, condition: Any, seconds: float = 60) -> None:
        """Ask again and again until `condition()` holds; a server gives no event to wait for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if condition():
                    return
            except (OSError, LookupError):
                pass
            time.sleep(0.1)
        self.log.seek(0)
        pytest.fail(f"JupyterLab: {what} did not come true.\n{self.log.read()[-3000:]}")

    def kernel_is_idle(self) -> bool:
        kernel = self.ask("/api/sessions")[0]["kernel"]
        return bool(kernel["execution_state"] == "idle" and kernel["connections"] > 0)

    def end(self) -> None:
        if self.process.poll() is None:
            try:
                self.ask("/api/shutdown", "POST")
                self.process.wait(10)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, chromium_path: str) -> Iterator[Lab]:
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait_until("an answer", lambda: server.ask("/api/status"))
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def page(lab: Lab, browser: Browser) -> Iterator[Page]:
    """The notebook, opened and run from top to bottom."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    page.strangers = []  # type: ignore[attr-defined]
    page.on("request", lambda request: note_strangers(page, lab, request))
    page.goto(f"{lab.url}/lab/tree/{NOTEBOOK}?token={lab.token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    lab.wait_until("an idle kernel", lab.kernel_is_idle)
    page.wait_for_selector('#jp-main-statusbar :text("Idle")')
    run_all(page)
    yield page
    page.close()


def note_strangers(page: Page, lab: Lab, request: Request) -> None:
    """Write down a request that leaves the local server."""
    if not request.url.startswith((lab.url, lab.url.replace("http", "ws"), "data:", "blob:")):
        page.strangers.append(request.url)  # type: ignore[attr-defined]


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
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    page.goto(f"{lab.url}/lab/workspaces/live/tree/live.ipynb?token={lab.token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector('#jp-main-statusbar :text("Idle")')
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
