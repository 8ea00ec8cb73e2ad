"""Pictures of the player at the moments that matter, to be looked at: `run.py screenshots`.

Each moment is drawn light and dark, in 1280×800 and in 1920×1080, into build/screenshots.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import ARGUMENTS
from tests.conftest import find_chromium
from tests.traces import echo_trace
from tracer.page import write_page

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "build/screenshots"
SCHEMES = ("light", "dark")
SIZES = ((1280, 800), (1920, 1080))

Moment = Callable[[Page, Path], None]
"""Opens and prepares a page, with a folder to write files to."""


def at_step(step: int) -> Moment:
    """The player at a step of the echo server."""

    def show(page: Page, folder: Path) -> None:
        path = write_page(echo_trace(), folder / "replay.html", title="An echo server")
        page.goto(f"{path.as_uri()}#step={step}")
        page.wait_for_selector(f"[data-role=step][data-step='{step}']")

    return show


MOMENTS: dict[str, Moment | None] = {
    "start": at_step(0),
    "registration": at_step(7),
    "wait": at_step(47),
    "dispatch": at_step(40),
    "task-by-wakeup": at_step(52),
    "error": at_step(57),
    "side-by-side": None,  # there is no tracer.compare yet
    "quiz": None,  # nor a quiz in the page
}


def take(browser: Browser, name: str, moment: Moment, folder: Path) -> list[Path]:
    """Draw one moment in every scheme and size, and return the pictures."""
    paths = []
    for scheme in SCHEMES:
        for width, height in SIZES:
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="light" if scheme == "light" else "dark",
            )
            moment(page, folder)
            # What lights up fades slowly; at its end it is as it stays.
            page.evaluate("document.getAnimations().forEach(animation => animation.finish())")
            path = TARGET / f"{name}-{scheme}-{width}x{height}.png"
            page.screenshot(path=path)
            paths.append(path)
            page.close()
    return paths


def main() -> None:
    """Draw every moment that there is and print where it went."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=ARGUMENTS.split()
        )
        for name, moment in MOMENTS.items():
            if moment is None:
                print(f"  {name}: not there yet")
                continue
            for path in take(browser, name, moment, Path(folder)):
                print(f"  {path.relative_to(ROOT)}")
        browser.close()


if __name__ == "__main__":
    main()
