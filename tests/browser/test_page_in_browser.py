"""The page in a real browser, opened from a file, with the network forbidden."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from tests.browser.conftest import Open
from tests.traces import echo_trace, hostile_trace, random_trace
from tracer import model as model_module
from tracer.diagram import GraphvizMissing
from tracer.trace import Trace

pytestmark = pytest.mark.browser


def at(page: Any) -> int:
    return int(page.get_attribute("[data-role=step]", "data-step"))


def press(page: Any, *keys: str) -> int:
    for key in keys:
        page.keyboard.press(key)
    return at(page)


def click(page: Any, action: str) -> int:
    page.click(f"[data-action={action}]")
    return at(page)


def test_buttons_step_by_step_and_by_round(open_page: Open) -> None:
    """Each button goes where it says, and stays within the trace."""
    page = open_page(echo_trace())
    assert [click(page, "forward"), click(page, "forward"), click(page, "back")] == [1, 2, 1]
    assert [click(page, "round-forward"), click(page, "round-forward")] == [3, 10]
    assert click(page, "round-back") == 3
    assert [click(page, "last"), click(page, "forward"), click(page, "round-forward")] == [72] * 3
    assert [click(page, "first"), click(page, "back"), click(page, "round-back")] == [0] * 3


def test_keyboard(open_page: Open) -> None:
    """Arrows step, Shift with them goes by rounds, Home and End to the ends, Space plays."""
    page = open_page(echo_trace())
    assert press(page, "ArrowRight", "ArrowRight", "ArrowLeft") == 1
    assert press(page, "Shift+ArrowRight", "Shift+ArrowRight") == 10
    assert press(page, "Shift+ArrowLeft") == 3
    assert press(page, "End") == 72
    assert press(page, "Home") == 0
    page.keyboard.press("Space")
    page.wait_for_selector(".netpoll-player.playing")
    page.keyboard.press("Space")
    page.wait_for_selector(".netpoll-player:not(.playing)")


def test_play_runs_to_the_end(open_page: Open) -> None:
    """Playing goes on by itself, at the speed chosen, and stops at the end."""
    page = open_page(echo_trace(), step=60)
    page.select_option("select", "100")
    page.click("[data-action=play]")
    page.wait_for_selector("[data-step='72']")
    page.wait_for_selector(".netpoll-player:not(.playing)")


def test_slider_and_address(open_page: Open) -> None:
    """Dragging the slider goes there; the address follows, and leads there again."""
    page = open_page(echo_trace())
    page.fill("input[type=range]", "40")
    assert at(page) == 40
    page.wait_for_url("**/replay.html#step=40")
    page.evaluate("location.hash = '#step=13'")
    page.wait_for_selector("[data-step='13']")
    assert page.input_value("input[type=range]") == "13"


def test_step_lights_marks_and_says(open_page: Open) -> None:
    """A step lights what changed, marks the line of the call, and says what happened."""
    page = open_page(echo_trace(), step=40)
    assert page.inner_text(".saying") == "echo read 12 bytes from client A (descriptor 7)."
    lit = page.eval_on_selector_all(".lit", "all => all.map(one => one.dataset.place)")
    assert {"row2-in", "arrow-in2", "flow2"} <= set(lit)
    marked = page.locator(".source-line.marked")
    assert marked.get_attribute("data-line") == "53"
    assert marked.text_content().strip() == "data = conn.recv(64)"
    assert page.inner_text(".cycle .current") == "dispatch"
    click(page, "forward")
    assert marked.get_attribute("data-line") == "58"
    lit = page.eval_on_selector_all(".lit", "all => all.map(one => one.dataset.place)")
    assert {"row2-out", "arrow-out2"} <= set(lit)
    assert "row2-in" not in lit


def test_stepping_back_shows_the_same(open_page: Open) -> None:
    """A step looks the same whether one came to it forward, backward or by a jump."""
    page = open_page(random_trace(2), step=50)
    look = """() => document.querySelector('.netpoll-player').textContent
      + [...document.querySelectorAll('.netpoll-picture g')]
        .map(group => group.getAttribute('class').replace(/turn[01]/, ''))"""
    jumped = page.evaluate(look)
    click(page, "forward")
    click(page, "back")
    assert page.evaluate(look) == jumped
    click(page, "back")
    assert page.evaluate(look) != jumped
    click(page, "forward")
    assert page.evaluate(look) == jumped


def test_failed_call_is_seen(open_page: Open) -> None:
    """A call that failed is marked as failed and its error is told."""
    page = open_page(echo_trace(), step=2)
    assert "AlreadyRegistered" in page.inner_text(".sentence.failed")
    assert page.locator(".arrow.register.lit.failed").count() == 1


def test_hostile_names_are_text(open_page: Open) -> None:
    """Names full of markup show as text: no element, no script and no attribute comes of them."""
    page = open_page(hostile_trace())
    page.evaluate("void (window.alert = () => { window.broken = true; })")
    elements = page.evaluate("document.querySelectorAll('*').length")
    for step in range(1, 9):
        assert click(page, "forward") == min(step, len(hostile_trace()))
        assert "<script>" in page.text_content(".netpoll-picture")
    added = page.evaluate("document.querySelectorAll('*').length") - elements
    titles = page.evaluate("document.querySelectorAll('.netpoll-picture title').length")
    assert added <= titles  # tooltips come with the texts; nothing else does
    assert page.evaluate("document.scripts.length") == 2
    assert page.evaluate("window.broken") is None


def test_nothing_is_clipped_or_jumps(open_page: Open) -> None:
    """At every step each text fits its cell, and nothing moves or changes its height."""
    trace = echo_trace()
    page = open_page(trace)
    boxes = """() => ['.bar', '.sentence', '.strip', '.netpoll-picture', '[data-place=row2-fd]']
      .map(name => document.querySelector(name).getBoundingClientRect())
      .map(box => [box.top, box.height, box.left, box.width].map(Math.round)).join(';')"""
    overflowing = """() => [...document.querySelectorAll('.place')].filter(place => {
      const cell = place.querySelector('rect').getBBox();
      const text = place.querySelector('text').getBBox();
      return text.width && (text.x < cell.x - 1 || text.x + text.width > cell.x + cell.width + 1);
    }).map(place => place.dataset.place + ': ' + place.textContent)"""
    first = page.evaluate(boxes)
    for _ in range(0, len(trace), 3):
        for _ in range(3):
            click(page, "forward")
        assert page.evaluate(boxes) == first
        assert page.evaluate(overflowing) == []
        saying = page.evaluate(
            "(() => { const e = document.querySelector('.saying');"
            " return e.scrollHeight - e.clientHeight; })()"
        )
        assert saying <= 2


def test_without_graphviz_the_rest_works(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a picture the page says what to install, and still steps, tells and marks lines."""

    def missing(trace: Trace) -> str:
        raise GraphvizMissing

    monkeypatch.setattr(model_module, "layout", missing)
    page = open_page(echo_trace(), step=40)
    assert "pip install" in page.inner_text(".problem")
    assert page.locator(".source-line.marked").get_attribute("data-line") == "53"
    assert click(page, "forward") == 41


def test_line_after_the_marked_one_is_not_hidden(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line of the source panel stands below the one before, at the left."""

    def missing(trace: Trace) -> str:
        raise GraphvizMissing

    monkeypatch.setattr(model_module, "layout", missing)
    page = open_page(echo_trace(), step=40)
    places = page.locator(".source-line").evaluate_all(
        "lines => lines.map(line => line.getBoundingClientRect()).map(box => [box.left, box.top])"
    )
    assert len(places) > 3
    assert len({left for left, _ in places}) == 1
    assert all(above < below for (_, above), (_, below) in itertools.pairwise(places))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(open_page: Open, scheme: str) -> None:
    """Every text has WCAG AA's contrast to the ground it stands on, in both themes."""
    page = open_page(echo_trace(), color_scheme=scheme, reduced_motion="reduce")
    for step in (2, 6, 38, 40, 49, 57, 60):
        page.fill("input[type=range]", str(step))
        poor = [
            found
            for found in page.evaluate(CONTRASTS)
            if found["ratio"] < (3 if found["size"] >= 24 else 4.5)
        ]
        assert poor == []


CONTRASTS = """() => {
  const numbers = (color) => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => numbers(color).slice(0, 3)
    .map(n => n / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const opaque = (color) => numbers(color)[3] > 0;
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  const texts = document.querySelectorAll(
    '.netpoll-picture text, .netpoll-player span, .netpoll-player li');
  for (const text of texts) {
    if (!text.textContent) continue;
    const style = getComputedStyle(text), inPicture = text.tagName === 'text';
    const box = text.getBoundingClientRect();
    const x = box.left + box.width / 2, y = box.top + box.height / 2;
    // The topmost ground below the text's middle that is painted.
    const below = document.elementsFromPoint(x, y);
    if (inPicture) below.unshift(text.parentNode.querySelector('rect'));
    const ground = below.filter(e => e.tagName === 'rect' || !(e instanceof SVGElement))
      .map(e => getComputedStyle(e)[e.tagName === 'rect' ? 'fill' : 'backgroundColor'])
      .find(color => color !== 'none' && opaque(color)) ?? 'white';
    const color = inPicture ? style.fill : style.color;
    const size = parseFloat(style.fontSize);
    found.push({ text: text.textContent.slice(0, 40), color, ground, size,
      ratio: ratio(color, ground) });
  }
  return found;
}"""


def test_long_trace_scrubs(open_page: Open) -> None:
    """On some 10,000 steps, jumping about shows each step that was asked for."""
    trace = random_trace(1, rounds=430, most_clients=40)
    assert len(trace) > 10_000
    page = open_page(trace)
    wrong = page.evaluate("""() => {
      const slider = document.querySelector('input[type=range]');
      const counter = document.querySelector('[data-role=step]');
      const wrong = [];
      for (let i = 0; i < 200; i++) {
        slider.value = String((i * 7919) % Number(slider.max));
        slider.dispatchEvent(new Event('input'));
        if (counter.dataset.step !== slider.value) wrong.push(slider.value);
      }
      return wrong;
    }""")
    assert wrong == []


def test_screen_reader_and_reduced_motion(open_page: Open) -> None:
    """The sentence is a live region, controls have names, and nothing moves if one asks so."""
    page = open_page(echo_trace(), reduced_motion="reduce")
    click(page, "forward")
    assert page.get_attribute(".saying", "aria-live") == "polite"
    named = "all => all.map(one => one.ariaLabel || one.textContent)"
    names = page.eval_on_selector_all("button:visible", named)
    assert all(names)
    assert len(set(names)) == len(names) > 12
    moving = "all => all.map(one => getComputedStyle(one).animationName)"
    assert set(page.eval_on_selector_all(".lit rect", moving)) == {"none"}
    assert not re.search("lit", page.get_attribute(".netpoll-player", "class"))
