"""Pictures of the player at the moments that matter, to be looked at: `run.py screenshots`.

Each moment is drawn light and dark, in 1280×800 and in 1920×1080, into build/screenshots.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import ARGUMENTS
from tests.conftest import find_chromium
from tests.test_diff import served
from tracer.demo import session
from tracer.page import write_page
from tracer.steps import Step
from tracer.trace import Trace

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "build/screenshots"
SCHEMES = ("light", "dark")
SIZES = ((1280, 800), (1920, 1080))

Moment = Callable[[Page, Path], None]
"""Opens and prepares a page, with a folder to write files to."""


def at_step(found: Callable[[Step], bool], number: int = 0) -> Moment:
    """The player at the first step, or a later one, for which `found` is true."""

    def show(page: Page, folder: Path) -> None:
        trace = recorded()
        steps = [index + 1 for index, step in enumerate(trace) if found(step)]
        path = write_page(trace, folder / "replay.html", title="An echo server")
        page.goto(f"{path.as_uri()}#step={steps[number] if steps else 0}")
        page.wait_for_selector(".netpoll-player.complete")

    return show


def of_kind(kind: str) -> Callable[[Step], bool]:
    """Whether a step is of this kind."""
    return lambda step: step.kind == kind


def side_by_side(page: Page, folder: Path) -> None:
    """Level beside edge, where they part."""
    a, b = (served("epoll", edge_triggered=edge) for edge in (False, True))
    path = write_page(
        a, folder / "two.html", beside=b, labels=("level-triggered", "edge-triggered")
    )
    page.goto(path.as_uri())
    page.focus(".compare")
    page.keyboard.press("d")


def quiz(page: Page, folder: Path) -> None:
    """A question that waits for its answer."""
    at_step(lambda step: False)(page, folder)
    page.click("[data-tab=quiz]")
    page.click(".quiz button:has-text('Start')")
    page.wait_for_selector(".netpoll-player.held")


@functools.cache
def recorded() -> Trace:
    """The session that `run.py demo` shows."""
    return session()


MOMENTS: dict[str, Moment] = {
    "start": at_step(lambda step: False),
    "registration": at_step(of_kind("Registered"), -1),
    "wait": at_step(of_kind("WaitStarted"), 3),
    "dispatch": at_step(of_kind("Wrote"), 1),
    "task-by-wakeup": at_step(of_kind("TaskStarted")),
    "error": at_step(lambda step: getattr(step, "error", None) is not None),
    "side-by-side": side_by_side,
    "quiz": quiz,
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
    """Draw every moment and print where it went."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=ARGUMENTS.split()
        )
        for name, moment in MOMENTS.items():
            for path in take(browser, name, moment, Path(folder)):
                print(f"  {path.relative_to(ROOT)}")
        browser.close()


if __name__ == "__main__":
    main()
