"""The front end's own files, put together: one ES module and one style sheet for each widget."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

MODULES = (
    *("elements.js", "fold.js", "words.js", "contents.js", "picture.js", "causes.js", "stage.js"),
    *("controls.js", "help.js", "filter.js", "steplist.js", "findings.js", "quiz.js", "lanes.js"),
    *("timeline.js", "tabs.js", "around.js", "compare.js", "feed.js", "live.js", "player.js"),
)
"""In the order of their imports: each names only what stands before it."""

STYLES = tuple(
    f"{name}.css"
    for name in ("player", "panels", "steplist", "findings", "quiz", "timeline", "compare")
)

PREDICTION_MODULES = ("elements.js", "prediction.js")
"""Those of a prediction, in the order of their imports."""

STATIC = Path(__file__).with_name("static")


@cache
def module() -> str:
    """Return the player as one ES module; its default export has `render`.

    The words become a constant.
    """
    words = json.loads((STATIC / "words.json").read_text(encoding="utf-8"))
    constant = f"const WORDS = {json.dumps(words, ensure_ascii=False, separators=(',', ':'))};\n"
    return constant + "\n" + _joined(MODULES)


@cache
def style() -> str:
    """Return the style sheet of the player."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)


@cache
def prediction_module() -> str:
    """Return the front end of a prediction and its verdict as one ES module with `render`."""
    return _joined(PREDICTION_MODULES)


@cache
def prediction_style() -> str:
    """Return the style sheet of a prediction and its verdict."""
    return (STATIC / "prediction.css").read_text(encoding="utf-8")


def _joined(names: tuple[str, ...]) -> str:
    # Between our own modules `import` and `export` are left out.
    parts = []
    for name in names:
        text = (STATIC / name).read_text(encoding="utf-8")
        text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"^export (?!default)", "", text, flags=re.MULTILINE))
    return "\n".join(parts)
