"""One self-contained HTML file with the player in it: opens anywhere, needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from tracer.assets import module, style
from tracer.model import compared, findings_of, questions_of, replayed
from tracer.trace import Trace

TITLE = "Replay of an event loop"

HOST = """
const values = JSON.parse(document.getElementById("trace").textContent);
const watchers = new Set();
const stepInAddress = () => Number(new URLSearchParams(location.hash.slice(1)).get("step")) || 0;
const model = {
  get: (name) => values[name] ?? "",
  set: (name, value) => { values[name] = value; },
  save_changes: () => {
    if (location.protocol !== "about:") history.replaceState(null, "", `#step=${values.step}`);
  },
  on: (event, watcher) => event === "change:step" && watchers.add(watcher),
  off: (_event, watcher) => watchers.delete(watcher),
};
const follow = () => {
  values.step = stepInAddress();
  for (const watcher of watchers) watcher();
};
values.step = stepInAddress();
addEventListener("hashchange", follow);
render({ model, el: document.getElementById("player") });
document.querySelector(".netpoll-player[tabindex], .compare")?.focus();
"""

PAGE_STYLE = """
html { color-scheme: light dark; }
.netpoll-page h1 { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden;
  clip-path: inset(50%); }
body.netpoll-page { margin: 0; padding: 12px; background: light-dark(#eef1f5, #0b0e12); }
"""


def write_page(
    trace: Trace,
    path: str | PathLike[str] = "replay.html",
    title: str = TITLE,
    *,
    beside: Trace | None = None,
    labels: tuple[str, str] = ("first", "second"),
) -> Path:
    """Write the player with `trace` in it to the HTML file `path`, and return that.

    With another trace `beside` it, the two are shown side by side, called by their `labels`.
    `#step=12` behind its address opens it at that step. Without Graphviz the page has no picture
    and says so.
    """
    target = Path(path)
    values = _replayed(trace) if beside is None else compared(trace, beside, labels)
    target.write_text(_page(values, title), encoding="utf-8", newline="\n")
    return target


def page(trace: Trace, title: str = TITLE) -> str:
    """Return the text of the HTML file that `write_page` writes."""
    return _page(_replayed(trace), title)


def _replayed(trace: Trace) -> dict[str, Any]:
    return {
        **replayed(trace),
        "findings": findings_of(trace),
        "questions": questions_of(trace),
    }


def _page(values: dict[str, Any], title: str) -> str:
    values = {**values, "step": 0}
    # In a script element only "<" can end it; JSON may spell it otherwise.
    data = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
    sheet = style() + PAGE_STYLE
    script = module() + HOST
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(sheet)};"
        " base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{sheet}</style>
</head>
<body class="netpoll-page">
<main id="player"><h1>{escape(title)}</h1></main>
<script type="application/json" id="trace">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
