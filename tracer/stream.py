"""`StreamedBytes`: the memory of a recording, which also goes to a file, step by step."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tracer.rows import Rows
from tracer.steps import step_to_json
from tracer.trace_file import MINOR, BaseState, head_lines, header_line, line


class StreamedBytes(bytearray):
    """Rows that are written to a trace file as they come.

    Each step is one write(2), so that a crash of the program costs at most the last line. When a
    write fails, `on_error` is called once, the file is left as it is, and the rows are kept in
    memory alone.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rows: Rows,
        base: BaseState,
        on_error: Callable[[OSError], None],
    ) -> None:
        super().__init__()
        self._rows = rows
        self._on_error = on_error
        self._process = os.getpid()
        self._functions = len(rows.functions)  # so many are written
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._fd = os.open(Path(path), flags, 0o666)
        known = list(rows.functions.values())
        self._write("".join((header_line(MINOR, partial=False), *head_lines(base, known))))

    def extend(self, row: bytes) -> None:  # type: ignore[override]
        """Keep a row, and write its step."""
        super().extend(row)
        if self._fd < 0 or self._process != os.getpid():  # a forked child's steps are not ours
            return
        text = line(step_to_json(self._rows.step(row)))
        if len(self._rows.functions) > self._functions:
            functions = list(self._rows.functions.values())
            new, self._functions = functions[self._functions :], len(functions)
            text = "".join(line({"kind": "function", **asdict(one)}) for one in new) + text
        self._write(text)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:  # somebody else has closed it
                self._on_error(error)

    def _write(self, text: str) -> None:
        try:
            data = text.encode()
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.close()
            self._on_error(error)
