"""Two notebooks, gone through as a student does: predict, run, answer the quiz, step, reveal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.browser.lab import ARTIFACTS, Lab

pytestmark = pytest.mark.browser

NOTEBOOKS = ("00-start-here", "06-level-and-edge")

RUN = """
async ([first, last]) => {
    const {commands, shell} = window.jupyterapp;
    const notebook = shell.currentWidget.content;
    notebook.deselectAll();
    notebook.activeCellIndex = first;
    notebook.extendContiguousSelectionTo(last);
    await commands.execute("notebook:run-cell");
    const errors = [];
    for (const cell of notebook.widgets.slice(first, last + 1)) {
        if (cell.model.type !== "code") continue;
        for (const output of cell.model.outputs.toJSON()) {
            if (output.output_type === "error") errors.push(`${output.ename}: ${output.evalue}`);
        }
    }
    return errors;
}
"""


@pytest.fixture(scope="module", params=NOTEBOOKS)
def page(request: pytest.FixtureRequest, lab: Lab, browser: Browser) -> Iterator[Page]:
    """A notebook, run up to each prediction, whose first choice was taken, and to its end."""
    page = lab.open(browser, f"{request.param}.ipynb")
    page.name = request.param  # type: ignore[attr-defined]
    cells = json.loads((lab.work / f"{request.param}.ipynb").read_text())["cells"]
    asking = [at for at, cell in enumerate(cells) if "tracer.predict(" in "".join(cell["source"])]
    first = 0
    for number, last in enumerate([*asking, len(cells) - 1]):
        assert page.evaluate(RUN, [first, last]) == []
        if last in asking:
            predict(page.locator(".netpoll-prediction:not(.verdict)").nth(number))
        first = last + 1
    yield page
    page.close()


def predict(prediction: Locator) -> None:
    prediction.scroll_into_view_if_needed()
    prediction.locator("input").first.check()
    prediction.locator(":text('Noted')").wait_for()


def test_every_prediction_is_told_right_or_wrong(page: Page) -> None:
    """What was chosen before the replay is what the verdict tells after it."""
    predictions = page.locator(".netpoll-prediction:not(.verdict)")
    verdicts = page.locator(".netpoll-prediction.verdict")
    assert predictions.count() == verdicts.count() >= 3
    for number in range(verdicts.count()):
        chosen = predictions.nth(number).locator(".prediction-label").first.text_content()
        told = verdicts.nth(number).locator(".verdict-told").text_content()
        assert told
        assert f"You said {chosen}" in told.translate({ord(quote): None for quote in "“”"})
    results = verdicts.evaluate_all("all => all.map(one => one.classList.contains('right'))")
    assert True in results
    assert False in results


def test_every_player_is_stepped_and_its_quiz_answered(page: Page) -> None:
    """Each player shows its picture and steps; a quiz stops the replay until it is answered."""
    players = page.locator(".netpoll-player:visible")
    answered = 0
    for number in range(players.count()):
        player = players.nth(number)
        player.scroll_into_view_if_needed()
        player.locator("svg text").first.wait_for()
        slider = player.locator("input[type=range]").first.element_handle()
        before = slider.input_value()
        player.locator("input[type=range]").first.press("ArrowRight")
        page.wait_for_function(
            "([slider, before]) => slider.value !== before", arg=[slider, before]
        )
        if player.locator("[data-tab=quiz]").count():
            answer_the_quiz(page, player)
            answered += 1
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        name = f"{page.name}-player-{number}.png"  # type: ignore[attr-defined]
        page.screenshot(path=ARTIFACTS / name)
    assert players.count() >= 1
    assert answered >= 1


def answer_the_quiz(page: Page, player: Locator) -> None:
    player.locator("[data-tab=quiz]").click()
    player.locator(".quiz button:has-text('Start')").click()
    root = player.element_handle()
    page.wait_for_function("root => root.classList.contains('held')", arg=root)
    page.keyboard.press("a")
    page.wait_for_function("root => !root.classList.contains('held')", arg=root)


def test_nothing_leaves_the_machine(page: Page) -> None:
    """Neither the notebook nor its widgets asked any other server for anything."""
    assert page.strangers == []  # type: ignore[attr-defined]
