"""The packed form of a running recording, and the functions it names."""

import functools
import linecache
import signal
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tracer.rows import KIND, NOTHING, ROW, Rows
from tracer.steps import Closed, Function, Step


def module_function(fd: int) -> int:
    """Be a function whose source is these lines."""
    return fd


class Handler:
    """Callable, and with a method."""

    def method(self, fd: int) -> int:
        return fd + 1

    def __call__(self, fd: int) -> int:
        return fd + 2


def named(function: object) -> Function:
    rows = Rows()
    return rows.functions[rows.function_id(function)]


def test_row_becomes_a_step() -> None:
    """What was written comes back as the step it stands for, with the thread that wrote it."""
    rows = Rows()
    error = rows.error_id(OSError(9, "bad"))
    site = (rows.function_id(module_function), 17)
    seq = rows.write(KIND["Closed"], t_ns=5, cause=3, fd=7, site=site, error=error)
    assert list(rows) == [
        Closed(
            seq=seq,
            t_ns=5,
            thread=threading.current_thread().name,
            cause=3,
            function=site[0],
            line=17,
            error="OSError: [Errno 9] bad",
            fd=7,
        )
    ]


def test_every_kind_can_be_written_and_read() -> None:
    """No kind lacks the reader of its row."""
    rows = Rows()
    text = rows.string_id("text")
    for kind in KIND.values():
        rows.write(kind, fd=7, first=text, second=0)
    assert [step.kind for step in rows] == list(KIND)


def test_call_on_a_closed_socket_can_be_read_back() -> None:
    """Its descriptor is -1, which is what a row holds where there is none."""
    rows = Rows()
    rows.write(KIND["Closed"], fd=-1)
    step = rows[0]
    assert isinstance(step, Closed)
    assert step.fd == -1


def test_rows_are_ordered_by_seq() -> None:
    """A step that is appended late, because its call took long, stands where it happened."""
    rows = Rows()
    early = rows.next_seq()
    late = rows.write(KIND["Closed"], fd=1)
    assert [step.seq for step in rows] == [late]
    rows.write(KIND["Closed"], fd=2, seq=early)
    assert [step.seq for step in rows] == [early, late]
    assert rows[0].seq == early


def test_sequence() -> None:
    """Indices and slices are a list's."""
    rows = Rows()
    for fd in range(5):
        rows.write(KIND["Closed"], fd=fd)
    steps = list(rows)
    assert rows[0] == steps[0]
    assert rows[-1] == steps[-1]
    assert rows[-5] == steps[0]
    assert rows[1:4:2] == steps[1:4:2]
    assert rows[::-1] == steps[::-1]
    for index in (5, -6):
        with pytest.raises(IndexError):
            rows[index]


def test_frozen_rows_do_not_grow() -> None:
    """What a thread writes after the end is no part of the sequence."""
    rows = Rows()
    rows.write(KIND["Closed"], fd=1)
    rows.freeze()
    rows.write(KIND["Closed"], fd=2)
    rows.freeze()
    assert len(rows) == len(list(rows)) == 1


def test_a_step_is_61_bytes_and_no_object() -> None:
    """A recording's memory is a row a step, whatever it says."""
    rows = Rows()
    rows.write(KIND["Closed"], fd=1)
    assert len(rows.packed) == ROW.size == 61


def test_more_texts_than_a_short_number_counts() -> None:
    """After 40,000 errors with a text of their own a new thread still has a name."""
    rows = Rows()
    for number in range(40_000):
        rows.string_id(f"KeyError: {number}")
    thread = threading.Thread(target=rows.write, args=(KIND["Closed"],), kwargs={"fd": 1})
    thread.name = "late"
    thread.start()
    thread.join()
    assert rows[0].thread == "late"


def test_function_is_known_by_name_place_and_text() -> None:
    """A function's source is what stands in its file, from its first line on."""
    function = named(module_function)
    assert function.name == "module_function"
    assert function.file == __file__
    assert function.first_line == module_function.__code__.co_firstlineno
    assert function.text.startswith("def module_function")
    assert function.text.endswith("return fd\n")


def test_functions_of_all_sorts() -> None:
    """Methods, partials, callable objects, lambdas, closures and wrapped ones have a source."""

    def inner(fd: int) -> None: ...

    @functools.wraps(module_function)
    def wrapper(fd: int) -> int:
        return module_function(fd)

    functions: dict[object, tuple[str, str]] = {
        Handler().method: ("Handler.method", "return fd + 1"),
        Handler(): ("Handler", "return fd + 2"),
        functools.partial(functools.partial(module_function), 1): ("module_function", "return fd"),
        (lambda fd: fd + 3): ("<lambda>", "fd + 3"),
        inner: ("inner", "..."),
        wrapper: ("module_function", "return fd"),
    }
    for function, (name, text) in functions.items():
        assert named(function).name == name
        assert text in named(function).text


@pytest.mark.parametrize(
    ("function", "name"),
    [(print, "print"), (deque().append, "deque.append"), (int, "int"), (object(), "object")],
)
def test_builtins_have_a_name(function: object, name: str) -> None:
    """What is written in C has no source, only a name."""
    assert named(function) == Function(0, name, "", 0, "")


def test_source_of_a_notebook_cell() -> None:
    """A function that was typed into a cell, whose source linecache keeps, has its text."""
    source = "x = 1\ndef in_cell(fd):\n    return fd\n"
    linecache.cache["<cell 7>"] = (len(source), None, source.splitlines(True), "<cell 7>")
    names: dict[str, Any] = {}
    exec(compile(source, "<cell 7>", "exec"), names)
    try:
        assert named(names["in_cell"]) == Function(
            0, "in_cell", "<cell 7>", 2, "def in_cell(fd):\n    return fd\n"
        )
    finally:
        del linecache.cache["<cell 7>"]


@pytest.mark.parametrize("cached", [None, "x = '''\n", "", "(\n" * 9])
def test_function_whose_source_is_gone_or_another(cached: str | None) -> None:
    """Without a source, or with one that is not what was compiled, a function still has a name."""
    names: dict[str, Any] = {}
    exec(compile("\n\n\ndef lost(fd): pass", "<lost>", "exec"), names)
    if cached is not None:
        linecache.cache["<lost>"] = (len(cached), None, cached.splitlines(True), "<lost>")
    try:
        function = named(names["lost"])
        assert (function.name, function.file) == ("lost", "<lost>")
    finally:
        linecache.cache.pop("<lost>", None)


def test_same_function_has_one_id() -> None:
    """Bound methods of two objects, and a function met as callback and as place, are one."""
    rows = Rows()
    assert rows.function_id(Handler().method) == rows.function_id(Handler().method)
    assert rows.function_id(module_function) == rows.code_id(module_function.__code__)
    assert len(rows.functions) == 2


class Proxy:
    """Answers every question with itself, as remote-call proxies and some mocks do."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any) -> Any:
        return self


class Broken(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_strange_objects_are_named_without_harm() -> None:
    """An object that lies about its attributes, and an error without text, raise nothing."""
    assert named(Proxy()).file == __file__
    rows = Rows()
    assert rows.strings[rows.error_id(Broken())].startswith("Broken: ")
    assert rows.strings[rows.error_id(ValueError())] == "ValueError"


def test_threads_share_the_tables() -> None:
    """Four threads that name the same things at once give each one id, and lose no row."""
    rows = Rows()
    functions: list[Callable[[], int]] = []
    for number in range(200):
        names: dict[str, Any] = {}
        exec(compile(f"def f{number}(): pass", f"<{number}>", "exec"), names)
        functions.append(names[f"f{number}"])
    ids: list[list[int]] = []

    def write() -> None:
        mine = [rows.function_id(function) for function in functions]
        ids.append(mine + [rows.string_id(str(number)) for number in range(200)])
        for number in range(500):
            rows.write(KIND["Closed"], fd=number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids[0] == ids[1] == ids[2] == ids[3]
    assert [function.name for function in rows.functions.values()] == [f"f{n}" for n in range(200)]
    steps: list[Step] = list(rows)
    assert len({step.seq for step in steps}) == len(steps) == 2000


def test_signal_handler_may_write_at_any_time() -> None:
    """A handler that interrupts the writing of a row writes one too, and nothing hangs."""
    rows = Rows()
    handled = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal handled
        handled += 1
        rows.write(KIND["Closed"], fd=1, first=rows.string_id(f"handler {handled}"))
        rows.function_id(lambda: None)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        written = 0
        while handled < 50:
            written += 1
            number = rows.string_id(f"main {written}")
            assert rows.strings[number] == f"main {written}"
            rows.write(KIND["Closed"], fd=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    fds = [step.fd for step in rows if isinstance(step, Closed)]
    assert (fds.count(1), fds.count(2)) == (handled, written)
    assert NOTHING not in rows.strings
