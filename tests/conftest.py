"""What all tests share: the option --slow, and where Chromium is."""

import os
import shutil

import pytest

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
NO_BROWSER = "there is no Chromium here; install it with: apt-get install chromium"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --slow."""
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what was not asked for or cannot run, before any fixture does work for it."""
    if item.get_closest_marker("slow") and not item.config.getoption("--slow"):
        pytest.skip("slow; runs with --slow")
    if item.get_closest_marker("browser"):
        find_chromium()


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The path of the browser that tests drive."""
    return find_chromium()


def find_chromium() -> str:
    """The browser's path; without one the test is skipped, or fails where CI promised a browser."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    if os.environ.get("CI") == "true":
        pytest.fail(NO_BROWSER, pytrace=False)
    pytest.skip(NO_BROWSER)
