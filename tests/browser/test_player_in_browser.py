"""What one can do in the player, in a real browser: jumps, panels, quiz, two runs, a still."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from netpoll import open_poller
from tests.browser.conftest import Open
from tests.lint_programs import write_interest_left_armed
from tests.test_diff import served
from tests.traces import echo_trace, random_trace
from tracer.lint import lint
from tracer.quiz import quiz
from tracer.recorder import record
from tracer.replay import Replay
from tracer.trace import Trace


def at(page: Any) -> int:
    return int(page.get_attribute("[data-role=step]", "data-step"))


def press(page: Any, *keys: str) -> int:
    for key in keys:
        page.keyboard.press(key)
    return at(page)


@functools.cache
def recorded_trace(edge_triggered: bool = False) -> Trace:
    """An echo server on the simulated kernel: the same each time, with causes."""
    trace: Trace = served("epoll", edge_triggered=edge_triggered)
    return trace


def buggy_trace() -> Trace:
    """A busy loop: write interest that stays armed."""
    with open_poller() as poller, record(poller) as trace:
        write_interest_left_armed.bug(poller)
    return trace


def test_jumps_along_causes(open_page: Open) -> None:
    """C goes to the cause of a step, X to its first effect; the buttons say when there is none."""
    trace = recorded_trace()
    replay = Replay(trace)
    index = next(i for i, step in enumerate(trace) if step.kind == "DispatchStarted")
    page = open_page(trace, step=index + 1)
    cause = replay.cause(index)
    assert cause is not None
    assert press(page, "c") == cause + 1
    assert press(page, "x") == replay.effects(cause)[0] + 1
    assert press(page, "Home") == 0
    assert page.is_disabled("[data-action=cause]")
    assert page.is_disabled("[data-action=effect]")


def test_why_stands_below_the_sentence(open_page: Open) -> None:
    """Below what happened stands why, as `Replay.because` says it."""
    trace = recorded_trace()
    replay = Replay(trace)
    page = open_page(trace)
    for index in range(0, len(trace), 7):
        page.fill("input[type=range]", str(index + 1))
        assert page.inner_text(".because") == replay.because(index)


def test_events_of_a_descriptor(open_page: Open) -> None:
    """E and Shift+E go to the next and the previous step of the same descriptor."""
    trace = recorded_trace()
    index, step = next((i, s) for i, s in enumerate(trace) if s.kind == "Registered" and i > 3)
    page = open_page(trace, step=index + 1)
    later = press(page, "e") - 1
    assert later > index
    assert f"(descriptor {getattr(step, 'fd', None)})" in page.inner_text(".saying")
    assert press(page, "Shift+E") == index + 1


def test_findings_are_counted_marked_and_jumped_to(open_page: Open) -> None:
    """The tab counts what lint finds, ] goes there, and the step is marked in the list."""
    trace = buggy_trace()
    findings = lint(trace)
    page = open_page(trace)
    page.click("[data-tab=findings]")
    assert page.inner_text("[data-tab=findings]") == f"Findings ({len(findings)})"
    assert press(page, "Home", "]") == findings[0].number
    assert page.locator(".findings").inner_text().lower().count("why it hurts") >= 1


def test_quiz_holds_the_replay(open_page: Open) -> None:
    """While a question is open nothing behind its moment can be seen; answered, it can."""
    trace = recorded_trace()
    question = quiz(trace)[0]
    page = open_page(trace)
    page.click("[data-tab=quiz]")
    page.click(".quiz button:has-text('Start')")
    page.wait_for_selector(".netpoll-player.held")
    assert at(page) == question.index + 1
    page.focus(".netpoll-player input[type=range]")
    assert press(page, "End", "ArrowRight") == question.index + 1
    assert page.is_hidden(".timeline")
    assert page.is_hidden(".because")
    assert page.is_disabled("[data-tab=steps]")
    page.click("[data-action=panel]")
    assert press(page, "b") == question.index + 1  # opens the panel, and is no answer
    assert page.is_visible(".quiz")
    page.focus(".netpoll-player")
    page.keyboard.press("a")
    page.wait_for_selector(".netpoll-player:not(.held)")
    assert page.is_enabled("[data-tab=steps]")
    page.keyboard.press("n")  # the quiz has the focus: its next question
    page.wait_for_selector(".quiz:has-text('Question 2')")


def test_focus_is_not_lost(open_page: Open) -> None:
    """When what had the focus is disabled or goes out of sight, the keys still work."""
    trace = recorded_trace()
    index = next(i for i, step in enumerate(trace) if step.kind == "WaitEnded")
    page = open_page(trace, step=index + 1)
    page.click("[data-action=cause]")
    assert page.is_disabled("[data-action=cause]")
    assert press(page, "ArrowRight") == index + 1
    page.focus(".side [role=listbox]")
    page.keyboard.press("b")
    page.keyboard.press("b")
    assert page.is_visible(".side")


def test_search(open_page: Open) -> None:
    """A slash leads into the search, Enter and n to the matches."""
    page = open_page(random_trace(1, rounds=30))
    page.focus(".netpoll-player")
    page.keyboard.press("/")
    page.keyboard.type("accepted")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.kind').textContent === 'accepted'")
    first = at(page)
    page.focus(".netpoll-player")
    page.keyboard.press("n")
    assert at(page) > first
    assert page.inner_text(".kind") == "accepted"


def test_still_is_an_svg_file_of_its_own(open_page: Open, tmp_path: Path) -> None:
    """S saves the picture of the step, with its colors in it and nothing that runs."""
    page = open_page(echo_trace(), step=40)
    with page.expect_download() as download:
        page.keyboard.press("s")
    path = tmp_path / "still.svg"
    download.value.save_as(path)
    assert download.value.suggested_filename == "step-40.svg"
    root = ElementTree.fromstring(path.read_bytes())
    assert root.tag.endswith("svg")
    text = path.read_text()
    assert "12 bytes" in text
    assert 'fill="rgb' in text
    assert "<script" not in text


def test_help_projector_and_panel(open_page: Open) -> None:
    """? opens the sheet of keys, P enlarges the type, B hides the panel."""
    page = open_page(echo_trace(), step=40)
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    size = "parseFloat(getComputedStyle(document.querySelector('.saying')).fontSize)"
    before = page.evaluate(size)
    page.focus(".netpoll-player")
    page.keyboard.press("p")
    assert page.evaluate(size) > before
    page.keyboard.press("p")
    page.keyboard.press("b")
    assert page.is_hidden(".side")
    page.keyboard.press("b")
    assert page.is_visible(".side")


def test_side_by_side(open_page: Open) -> None:
    """Two runs go in step, and D leads to where they part."""
    options = {"beside": recorded_trace(True), "labels": ("level", "edge")}
    page = open_page(recorded_trace(), page_options=options)
    page.keyboard.press("ArrowRight")  # a page has the focus from the beginning
    assert "1 of " in page.inner_text(".compare-at >> nth=0")
    assert page.locator(".compare-side").count() == 2
    assert "level" in page.inner_text(".compare-side >> nth=0")
    page.keyboard.press("d")
    assert "They differ from here" in page.inner_text(".compare-banner")
