"""A prediction and its verdict in a real browser: chosen by keyboard and mouse, marked, told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anywidget", reason="a prediction needs anywidget: pip install anywidget")

from tests.javascript_tools import installed
from tracer.assets import prediction_module, prediction_style
from tracer.prediction import Prediction, predict

pytestmark = pytest.mark.browser

OWN = [
    "question",
    "choices",
    "chosen",
    "revealed",
    "result",
    "before",
    "verdict",
    "after",
    "because",
]
HOSTILE = "<img src=x onerror='document.title = \"broken in\"'> & `<b>recv</b>`"
LONG = "a" * 80 + " and, without end, `" + "x" * 80 + "`"
ASKED = "Two clients talk to one thread. How many callbacks run at once, at most?"

# What anywidget's model does, as far as a front end sees it; `told` is what the kernel would hear.
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Predictions</title>
<style>body {{ margin: 8px; }} {style}</style>
<body data-jp-theme-light="{light}"><main><h1>Predictions</h1></main>
<script type="module">
{module}
class Model {{
  constructor(values) {{ this.values = values; this.heard = {{}}; this.told = []; }}
  get(name) {{ return this.values[name]; }}
  set(name, value) {{ this.values[name] = value; this.tell(name); }}
  tell(name) {{ for (const one of this.heard[`change:${{name}}`] ?? []) one(); }}
  on(name, listener) {{ (this.heard[name] ??= new Set()).add(listener); }}
  off(name, listener) {{ this.heard[name]?.delete(listener); }}
  save_changes() {{ this.told.push(this.values.chosen); }}
}}
window.models = JSON.parse({states}).map((state) => new Model(state));
window.show = (model) => {{
  const el = document.createElement("div");
  document.querySelector("main").append(el);
  return render({{ model, el }});
}};
window.views = window.models.map(window.show);
</script></body></html>
"""

Show = Callable[..., Any]


def state_of(widget: Any) -> dict[str, Any]:
    state = widget.get_state()
    return {name: state[name] for name in OWN if name in state}


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Show]:
    """Open a page with these widgets, in their present state; fail on what the console says."""
    wrong: list[str] = []
    contexts = []

    def show(*widgets: Any, width: int = 1000, dark: bool = False) -> Any:
        states = json.dumps(json.dumps([state_of(widget) for widget in widgets]))
        text = PAGE.format(
            style=prediction_style(),
            module=prediction_module(),
            light=str(not dark).lower(),
            states=states.replace("<", "\\u003c"),
        )
        path = tmp_path / "prediction.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_function("window.views?.length && document.querySelector('[role=status]')")
        page.wait_for_function(
            "[...document.querySelectorAll('[role=status]')].every(one => one.textContent)"
        )
        return page

    yield show
    for context in contexts:
        context.close()
    assert wrong == []


def reveal_in(page: Any, guess: Prediction, answer: object) -> None:
    """Reveal in the kernel, and tell the front end as the kernel would."""
    guess.reveal(answer)
    page.evaluate("value => window.models[0].set('revealed', value)", guess.revealed)


def test_keyboard_chooses(show: Show) -> None:
    """Tab leads to the radio buttons, the arrow keys choose, and the kernel hears each choice."""
    page = show(predict(ASKED, [1, 2, 3]))
    assert page.inner_text("[role=status]") == "Choose, then go on."
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.inner_text("[role=status]") == "Noted. Go on."
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("window.models[0].told") == [0, 1, 2]
    assert page.get_by_role("radio", name="3").is_checked()
    assert page.get_by_role("group", name=ASKED).count() == 1
    outline = "getComputedStyle(document.activeElement.closest('label')).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_keys_that_choose_are_kept_from_jupyter(show: Show) -> None:
    """Jupyter sees a mark on the arrow keys, and none on Shift+Enter, which runs the cell."""
    page = show(predict(ASKED, [1, 2, 3]))
    page.evaluate(
        """() => {
          window.seen = [];
          document.addEventListener("keydown", (event) => window.seen.push(
            [event.key, event.target.hasAttribute("data-lm-suppress-shortcuts")]), true);
        }"""
    )
    page.click("label >> nth=1")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+Enter")
    seen = page.evaluate("window.seen")
    assert seen == [["ArrowUp", True], ["Shift", False], ["Enter", False]]


def test_questions_do_not_disturb_each_other(show: Show) -> None:
    """Two questions, and two views of one, have their own buttons; views of one agree."""
    page = show(predict(ASKED, [1, 2]), predict("Another?", [1, 2]))
    page.evaluate("void window.show(window.models[0])")
    page.click(".netpoll-prediction >> nth=0 >> label >> nth=0")
    page.click(".netpoll-prediction >> nth=1 >> label >> nth=1")
    checked = page.evaluate("[...document.querySelectorAll('input')].map(one => one.checked)")
    assert checked == [True, False, False, True, True, False]


def test_nothing_says_right_or_wrong_before_the_reveal(show: Show) -> None:
    """The marks come with the reveal, in words and signs, and stay when somebody chooses again."""
    guess = predict(ASKED, [1, 2, 3])
    page = show(guess)
    page.click("label:has-text('2')")
    guess.chosen = 1
    assert page.locator(".right, .wrong").count() == 0
    assert page.inner_text(".netpoll-prediction").split("\n")[-1] == "Noted. Go on."
    reveal_in(page, guess, 3)

    def marks() -> list[str]:
        texts = page.locator("label").evaluate_all("all => all.map(one => one.innerText)")
        return [" ".join(text.split()) for text in texts]

    assert marks() == ["1", "2 ✗ your choice", "3 ✓ right"]
    assert page.inner_text("[role=status]") == "To begin anew, run this cell again."
    page.click("label:has-text('1')")
    assert page.get_by_role("radio", name="1").is_checked()
    assert marks() == ["1", "2 ✗ your choice", "3 ✓ right"]


def test_verdict_is_a_status(show: Show) -> None:
    """The verdict stands in a status, with a sign before it and the reason below it."""
    told = []
    for chosen in (None, 0, 1):
        guess = predict(ASKED, ["`recv`", "`send`"])
        guess.chosen = chosen
        page = show(guess.reveal("`recv`", "It gets `ConnectionResetError`."))
        assert page.inner_text(".verdict-question") == "How many callbacks run at once, at most?"
        assert page.locator("[role=status] code").last.inner_text() == "ConnectionResetError"
        told.append(page.inner_text(".verdict-told"))
    assert told == [
        "It is recv. (You had not chosen.)",
        "✓ You said recv. Right.",
        "✗ You said send. It is recv.",
    ]


def test_hostile_text_is_text(show: Show) -> None:
    """Markup in a question, a choice or a reason is shown as it is; backticks make code."""
    guess = predict(HOSTILE, [HOSTILE, "b"])
    guess.chosen = 0
    page = show(guess, guess.reveal(HOSTILE, HOSTILE))
    assert page.locator(".netpoll-prediction :is(img, b b, code *)").count() == 0
    assert page.inner_text("legend") == HOSTILE.replace("`", "")
    assert page.inner_text("legend code") == "<b>recv</b>"
    assert page.title() == "Predictions"


def test_closed_view_lets_go(show: Show) -> None:
    """A view that is taken away hears neither its model nor the keys any more."""
    guess = predict(ASKED, [1, 2])
    page = show(guess)
    page.evaluate("window.views[0]()")
    heard = page.evaluate("Object.values(window.models[0].heard).map(all => all.size)")
    assert heard == [0, 0]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000])
def test_accessible_and_within_its_width(show: Show, width: int, dark: bool) -> None:
    """axe-core finds nothing, at any moment, in either theme; no text is wider than the page."""
    fresh, chosen, wrong, right = (predict(ASKED, [1, LONG, "`recv`"]) for _ in range(4))
    chosen.chosen, wrong.chosen, right.chosen = 1, 1, 2
    verdicts = [wrong.reveal(1, LONG), right.reveal("`recv`", "Why: `recv`.")]
    verdicts.append(predict(LONG, ["`a`", "b"]).reveal("b"))
    page = show(fresh, chosen, wrong, right, *verdicts, width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate((installed() / "axe-core/axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert [(one["id"], one["nodes"][0]["failureSummary"]) for one in found["violations"]] == []
