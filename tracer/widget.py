"""What everything that shows itself in a notebook has in common.

It closes with all it holds, something stands in for it where no front end runs, and a cell that is
run again closes what it showed before.
"""

from __future__ import annotations

import sys
from html import escape
from typing import Any

try:
    import anywidget
except ImportError as error:
    raise ImportError(
        "Players and predictions need Jupyter's widgets: "
        'install them with `pip install "netpoll-tracer[lab]"`.'
    ) from error


class Shown(anywidget.AnyWidget):
    """A widget with a fallback; its front end is the ES module in `_esm`."""

    def close(self) -> None:
        """Take the widget away, in the front end and in the kernel."""
        layout = self.layout
        super().close()
        if layout is not None:
            layout.close()

    @property
    def text(self) -> str:
        """What it shows, in words."""
        raise NotImplementedError

    def standing_in(self) -> dict[str, str]:
        """Return what is shown where no front end runs, by MIME type."""
        return {"text/plain": self.text, "text/html": f"<p>{escape(self.text)}</p>"}

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        data, metadata = bundle
        return data | self.standing_in(), metadata


def running_cell() -> tuple[str, str]:
    """Return the ids of the running cell and of this run of it; empty where there is none."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = (parent.get("metadata") or {}).get("cellId")
    run = (parent.get("header") or {}).get("msg_id")
    return cell or "", run or ""


_of_cell: dict[str, tuple[str, list[Shown]]] = {}


def close_those_of_the_last_run(shown: Shown) -> None:
    """Close what the running cell, which has now made `shown`, made when it ran before.

    ipywidgets keeps every widget, and its trace, until it is closed.
    """
    cell, run = running_cell()
    if not cell:
        return
    last_run, made = _of_cell.get(cell, ("", []))
    if run != last_run:
        for old in made:
            old.close()
        made = []
    _of_cell[cell] = (run, [*made, shown])
