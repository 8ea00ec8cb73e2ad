"""The browser that these tests drive, started once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.lab import Lab
from tracer.page import write_page
from tracer.trace import Trace

ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def browser(chromium_path: str) -> Iterator[Browser]:
    """A headless Chromium that asks nobody outside for anything by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, chromium_path: str) -> Iterator[Lab]:
    """A JupyterLab with a copy of the notebooks, started once."""
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait_until("an answer", lambda: server.ask("/api/status"))
        yield server
    finally:
        server.end()


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open the page of a trace; fail on a request, an error, or a breach of the policy."""
    wrong: list[str] = []
    contexts = []

    def requested(request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            wrong.append(request.url)

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    def open_page(
        trace: Trace,
        step: int = 0,
        page_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        path = write_page(trace, tmp_path / "replay.html", **(page_options or {}))
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", requested)
        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{path.as_uri()}#step={step}")
        page.wait_for_selector(".netpoll-player.complete, .netpoll-player .compare")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
