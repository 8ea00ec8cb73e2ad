"""A JupyterLab of one's own, to be driven by a browser."""

from __future__ import annotations

import faulthandler
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
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "build" / "screenshots"


class Lab:
    """A JupyterLab of its own: temporary folders, a copy of the notebooks, a free port."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(8)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        work = self.work = folder / "work"
        work.mkdir()
        for notebook in (ROOT / "notebooks").glob("*.ipynb"):
            shutil.copy(notebook, work)
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

    def kernel_is_idle(self, notebook: str) -> bool:
        sessions = {session["path"]: session["kernel"] for session in self.ask("/api/sessions")}
        kernel = sessions[notebook]
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

    def open(self, browser: Browser, notebook: str) -> Page:
        """Open a notebook and wait for its kernel; `strangers` of the page are foreign requests."""
        faulthandler.cancel_dump_traceback_later()  # each wait below has a limit of its own
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(40_000)
        page.strangers = []  # type: ignore[attr-defined]
        page.on("request", lambda request: note_strangers(page, self, request))
        name = notebook.partition(".")[0]
        page.goto(f"{self.url}/lab/workspaces/{name}/tree/{notebook}?token={self.token}&reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        self.wait_until("an idle kernel", lambda: self.kernel_is_idle(notebook))
        page.wait_for_selector('#jp-main-statusbar :text("Idle")')
        return page


def note_strangers(page: Page, lab: Lab, request: Request) -> None:
    """Write down a request that leaves the local server."""
    if not request.url.startswith((lab.url, lab.url.replace("http", "ws"), "data:", "blob:")):
        page.strangers.append(request.url)  # type: ignore[attr-defined]
