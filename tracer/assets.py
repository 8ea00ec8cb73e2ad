"""The player's own files, put together into one ES module and one style sheet."""

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


@cache
def module() -> str:
    """Return the player as one ES module; its default export has `render`.

    Between our own modules `import` and `export` are left out; the words become a constant.
    """
    static = Path(__file__).with_name("static")
    words = json.loads((static / "words.json").read_text(encoding="utf-8"))
    parts = [f"const WORDS = {json.dumps(words, ensure_ascii=False, separators=(',', ':'))};\n"]
    for name in MODULES:
        text = (static / name).read_text(encoding="utf-8")
        text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"^export (?!default)", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


@cache
def style() -> str:
    """Return the style sheet of the player."""
    static = Path(__file__).with_name("static")
    return "\n".join((static / name).read_text(encoding="utf-8") for name in STYLES)
