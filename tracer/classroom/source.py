"""What a student's file may say: it is read before it runs.

A seat belt and no prison: it keeps a submission from reaching the recorder or the grader by
accident, or by the first idea that comes to mind. What it lets through runs in a process of its
own, and what its recording tells is compared with what the clients saw.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tracer.classroom.wrong import Wrong

MODULES = frozenset(
    (
        "__future__",
        "bisect",
        "collections",
        "contextlib",
        "dataclasses",
        "enum",
        "errno",
        "functools",
        "hashlib",
        "heapq",
        "io",
        "itertools",
        "json",
        "math",
        "netpoll",
        "operator",
        "re",
        "socket",
        "string",
        "struct",
        "time",
        "types",
        "typing",
    )
)
"""A student's file may import these alone, and modules inside them."""

NAMES = frozenset(
    (
        "__builtins__",
        "__import__",
        "__loader__",
        "__spec__",
        "breakpoint",
        "compile",
        "eval",
        "exec",
        "globals",
        "input",
        "open",
        "vars",
    )
)
ATTRIBUTES = frozenset(
    (
        "Path",
        "_os",
        "_sys",
        "builtins",
        "gc",
        "importlib",
        "inspect",
        "modules",
        "open",
        "os",
        "pathlib",
        "sys",
    )
)
DUNDERS = frozenset(
    ("__init__", "__enter__", "__exit__", "__name__", "__len__", "__iter__", "__doc__")
)


def read(path: Path, modules: tuple[str, ...] = ()) -> str:
    """Return the source of a student's file, which may import `modules` too.

    Raises `Wrong` where there is none, where it is no Python, and where it reaches for what is not
    part of the task.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Wrong(
            f"There is no {path.name}. Run the cell that begins with %%writefile {path.name}."
        ) from None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise Wrong(f"{path.name}{at(line)} is no Python: {error}") from None
    allowed = MODULES.union(modules)
    for node in ast.walk(tree):
        reason = _refused(node, allowed)
        if reason:
            raise Wrong(
                f"{path.name}{at(getattr(node, 'lineno', None))} {reason}, which this task has no "
                f"use for. It may import {', '.join(sorted(allowed - {'__future__'}))}."
            )
    return text


def at(line: int | None) -> str:
    """Return a line number as it stands in a sentence."""
    return "" if line is None else f", line {line},"


def _refused(node: ast.AST, allowed: frozenset[str]) -> str:
    """Return what is not allowed in `node`, in words; empty when all of it is."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] not in allowed:
                return f"imports {alias.name}"
    elif isinstance(node, ast.ImportFrom):
        if node.level or (node.module or "").split(".")[0] not in allowed:
            return f"imports from {node.module or '.'}"
        for alias in node.names:
            if alias.name in ATTRIBUTES:
                return f"imports {alias.name}"
    elif isinstance(node, ast.Name):
        if node.id in NAMES:
            return f"uses {node.id}"
    elif isinstance(node, ast.Attribute):
        hidden = node.attr.startswith("__") and node.attr not in DUNDERS
        if hidden or node.attr in ATTRIBUTES:
            return f"uses .{node.attr}"
    return ""
