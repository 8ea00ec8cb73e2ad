"""What a recording says happened is what happened, why, and where."""

import gc
import inspect
import linecache
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tracer
from netpoll import (
    AlreadyRegistered,
    EngineShutdown,
    EventPriority,
    NotRegistered,
    PollAttachment,
    Poller,
    open_poller,
)
from tracer.steps import CallStep, Step
from tracer.trace import Trace

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
LONG = 10.0  # seconds: what a test waits for happens long before


@pytest.fixture
def poller() -> Iterator[Poller]:
    """An open poller."""
    with open_poller() as poller:
        yield poller


@contextmanager
def running(poller: Poller, name: str = "loop") -> Iterator[None]:
    """Run the loop in a thread that is joined at the end."""
    thread = threading.Thread(target=poller.polling, name=name)
    thread.start()
    try:
        yield
    finally:
        poller.stop()
        thread.join(LONG)
        assert not thread.is_alive()


def in_thread(name: str, function: Any, *args: Any) -> None:
    """Call `function` in a thread of this name."""
    thread = threading.Thread(target=lambda: function(*args), name=name)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive()


def ready() -> int:
    """Return a descriptor that is always ready for reading."""
    return os.eventfd(1)


def nothing(*args: object) -> None:
    """Be a callback or a task."""


def kinds(trace: Trace) -> list[str]:
    return [step.kind for step in trace]


def of(trace: Trace, kind: str) -> list[Any]:
    """Return the steps of this kind."""
    return [step for step in trace if step.kind == kind]


def only(trace: Trace, kind: str) -> Any:
    """Return the step of this kind, of which there is one."""
    (step,) = of(trace, kind)
    return step


def story(trace: Trace) -> list[tuple[Any, ...]]:
    """Return each step as its kind, the index of its cause, and what it carries."""
    index = {step.seq: number for number, step in enumerate(trace)}
    plain = {"seq", "t_ns", "thread", "cause", "function", "line", "who", "peer"}
    return [
        (
            step.kind,
            None if step.cause is None else index[step.cause],
            {name: getattr(step, name) for name in fields(step) if name not in plain},
        )
        for step in trace
    ]


def fields(step: Step) -> list[str]:
    return [name for name in step.__dataclass_fields__ if getattr(step, name) is not None]


def marked(note: str) -> int:
    """Return the number of the line in this file that ends in this note."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = (at for at, line in enumerate(lines, 1) if line.endswith(f"# {note}"))
    return number


def place(trace: Trace, step: CallStep) -> tuple[str, int | None]:
    """Return the name of the function that made a call, and the line."""
    assert step.function is not None
    assert trace.functions[step.function].file == __file__
    return trace.functions[step.function].name, step.line


# ---- a whole program --------------------------------------------------------------------------


class EchoServer:
    """One listener; each connection gets back what it sends, until it hangs up."""

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.connections: dict[int, socket.socket] = {}
        poller.add_read(PollAttachment(self.listener, self.accept))

    def accept(self, fd: int, event: int, flags: int) -> None:
        connection, _ = self.listener.accept()  # accepts
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        self.poller.add_read(PollAttachment(connection, self.echo))  # registers

    def echo(self, fd: int, event: int, flags: int) -> None:
        with_data = self.connections[fd].recv(64)
        if with_data:
            send_back(self.connections[fd], with_data)
            return
        self.poller.delete(fd)
        with self.connections.pop(fd):
            pass  # closes

    def close(self) -> None:
        self.listener.close()


def send_back(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)  # sends


def test_every_step_of_a_small_server(poller: Poller) -> None:
    """One client connects, is echoed and hangs up: these steps, for these reasons, no others."""
    recording = tracer.record(poller)
    with closing(EchoServer(poller)) as server:
        with socket.create_connection(server.listener.getsockname()) as client:
            poller.poll_once(LONG)
            client.sendall(b"hello")
            poller.poll_once(LONG)
            assert client.recv(64) == b"hello"
        poller.poll_once(LONG)
        listener, port = server.listener.fileno(), server.listener.getsockname()[1]
    recording.stop()
    trace = recording.trace

    fd = only(trace, "Accepted").new_fd
    add = {"interest": "read", "edge_triggered": False, "oneshot": False, "exclusive": False}
    wait = {"timeout_ns": int(LONG * 1e9)}
    names = {function.name: number for number, function in trace.functions.items()}
    accept, echo = names["EchoServer.accept"], names["EchoServer.echo"]
    started = {"event": 1, "flags": 0}
    assert story(trace) == [
        ("Registered", None, {"fd": listener, "callback": accept} | add),
        ("WaitStarted", None, wait | {"size": 128}),
        ("WaitEnded", 1, {"events": ((listener, 1),)}),
        ("DispatchStarted", 2, {"fd": listener, "callback": accept} | started),
        ("Accepted", 3, {"fd": listener, "new_fd": fd}),
        ("Registered", 3, {"fd": fd, "callback": echo} | add),
        ("DispatchEnded", 3, {"fd": listener}),
        ("BatchResized", 2, {"size": 64}),
        ("WaitStarted", None, wait | {"size": 64}),
        ("WaitEnded", 8, {"events": ((fd, 1),)}),
        ("DispatchStarted", 9, {"fd": fd, "callback": echo} | started),
        ("Read", 10, {"fd": fd, "count": 5, "asked": 64}),
        ("Wrote", 10, {"fd": fd, "count": 5, "asked": 5}),
        ("DispatchEnded", 10, {"fd": fd}),
        ("BatchResized", 9, {"size": 32}),
        ("WaitStarted", None, wait | {"size": 32}),
        ("WaitEnded", 15, {"events": ((fd, 0x2001),)}),
        ("DispatchStarted", 16, {"fd": fd, "callback": echo} | started | {"event": 0x2001}),
        ("Read", 17, {"fd": fd, "count": 0, "asked": 64}),
        ("Deleted", 17, {"fd": fd}),
        ("Closed", 17, {"fd": fd}),
        ("DispatchEnded", 17, {"fd": fd}),
    ]
    times = [step.t_ns for step in trace]
    assert times == sorted(times)
    assert {step.thread for step in trace} == {threading.current_thread().name}

    assert of(trace, "Registered")[0].who == f"listener :{port}"
    assert of(trace, "Registered")[1].who == only(trace, "Accepted").peer
    assert place(trace, only(trace, "Accepted")) == ("EchoServer.accept", marked("accepts"))
    assert place(trace, of(trace, "Registered")[1]) == ("EchoServer.accept", marked("registers"))
    assert place(trace, only(trace, "Wrote")) == ("send_back", marked("sends"))
    name, line = place(trace, only(trace, "Closed"))
    assert name == "EchoServer.echo"
    assert line in (marked("closes"), marked("closes") - 1)


def test_causes_point_back_to_the_right_kind(poller: Poller) -> None:
    """With threads, tasks and I/O at once, each cause is an earlier step of a kind that causes."""
    right = {
        "WaitEnded": {"WaitStarted"},
        "DispatchStarted": {"WaitEnded"},
        "DispatchEnded": {"DispatchStarted"},
        "TaskStarted": {"TaskQueued"},
        "TaskEnded": {"TaskStarted"},
        "WakeupSent": {"TaskQueued"},
        "WakeupReceived": {"WakeupSent"},
        "EventDropped": {"WaitEnded"},
        "BatchResized": {"WaitEnded"},
    }
    recording = tracer.record(poller)
    with closing(EchoServer(poller)) as server, running(poller):
        address = server.listener.getsockname()

        def talk() -> None:
            for _ in range(20):
                poller.trigger(HIGH, nothing)
                with socket.create_connection(address) as client:
                    client.sendall(b"x")
                    assert client.recv(9) == b"x"
                poller.trigger(LOW, partial(poller.trigger, HIGH, nothing))

        threads = [threading.Thread(target=talk) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        recording.stop()
    by_seq = {step.seq: step for step in recording.trace}
    must_have = set(right) - {"WakeupSent"}
    for step in recording.trace:
        if step.cause is None:
            assert step.kind not in must_have
        else:
            assert step.cause < step.seq
            caused_by = right.get(step.kind, {"DispatchStarted", "TaskStarted"})
            assert by_seq[step.cause].kind in caused_by
    received = [step.cause for step in of(recording.trace, "WakeupReceived")]
    sent = [step.seq for step in of(recording.trace, "WakeupSent")]
    assert received == sent[: len(received)]
    assert len(sent) - len(received) in (0, 1)  # the stop's own task may run before its write
    started = [step.cause for step in of(recording.trace, "TaskStarted")]
    assert len(set(started)) == len(started) > 120


# ---- registering ------------------------------------------------------------------------------


def test_modes_of_a_registration(poller: Poller) -> None:
    """Interest and trigger mode are those of the call."""
    fd = ready()
    with tracer.record(poller) as trace:
        attachment = PollAttachment(fd, nothing)
        poller.add_read_write(attachment, True, oneshot=True)
        poller.mod_write(attachment)
        poller.delete(fd)
        poller.add_read(attachment, exclusive=True)
        poller.delete(fd)
    steps: list[Any] = list(trace)
    first, modified, _, second, _ = steps
    assert (first.kind, first.interest) == ("Registered", "read write")
    assert (first.edge_triggered, first.oneshot, first.exclusive) == (True, True, False)
    assert (modified.kind, modified.interest) == ("Modified", "write")
    assert (modified.edge_triggered, modified.oneshot) == (False, False)
    assert (second.kind, second.exclusive, second.who) == ("Registered", True, "eventfd")
    os.close(fd)


def test_failed_registrations_are_steps(poller: Poller, tmp_path: Path) -> None:
    """What the kernel refuses is written down with the error, and raised as without a recording."""
    fd, closed = ready(), ready()
    with (tmp_path / "file").open("w") as file, tracer.record(poller) as trace:
        os.close(closed)
        poller.add_read(PollAttachment(fd, nothing))
        with pytest.raises(AlreadyRegistered):
            poller.add_write(PollAttachment(fd, nothing))
        with pytest.raises(PermissionError):
            poller.add_read(PollAttachment(file, nothing))
        with pytest.raises(ValueError, match="closed"):
            poller.add_read(PollAttachment(closed, nothing))
        with pytest.raises(OverflowError):
            poller.add_read(PollAttachment(2**40, nothing))
    steps = of(trace, "Registered")
    names = [step.error and step.error.partition(":")[0] for step in steps]
    assert names == [None, "AlreadyRegistered", "PermissionError", "ValueError", "OverflowError"]
    assert (steps[1].who, steps[3].who) == ("eventfd", "closed")
    assert list(poller.attachments) == [fd]
    os.close(fd)


def test_modify_that_the_kernel_does_not_know(poller: Poller) -> None:
    """ENOENT from the kernel, for a number that stands for another file now, is a step."""
    fd, other = ready(), ready()
    poller.add_read(PollAttachment(fd, nothing))
    with tracer.record(poller) as trace:
        os.dup2(other, fd)
        with pytest.raises(NotRegistered):
            poller.mod_read(PollAttachment(fd, nothing))
    assert kinds(trace) == ["Modified", "Deleted", "ListRebuilt"]
    assert only(trace, "Modified").error.startswith("NotRegistered: ")
    assert not poller.attachments
    os.close(fd)
    os.close(other)


def test_error_keeps_nothing_alive(poller: Poller) -> None:
    """A refused call leaves no reference cycle that would keep the caller's objects."""
    fd = ready()
    poller.add_read(PollAttachment(fd, nothing))

    class Thing:
        pass

    def refuse() -> Any:
        thing = Thing()
        try:
            poller.add_read(PollAttachment(fd, nothing))
        except AlreadyRegistered:
            return weakref.ref(thing)
        return None

    with tracer.record(poller):
        gc.disable()
        try:
            kept = refuse()
            assert kept is not None
            assert kept() is None
        finally:
            gc.enable()
    os.close(fd)


# ---- dispatching ------------------------------------------------------------------------------


def test_event_of_a_deleted_descriptor_is_dropped(poller: Poller) -> None:
    """When A deletes B in a batch that holds both, B's event is a step of its own."""
    one, two = ready(), ready()

    def delete_the_other(fd: int, event: int, flags: int) -> None:
        poller.delete(two if fd == one else one)

    for fd in (one, two):
        poller.add_read(PollAttachment(fd, delete_the_other))
    with tracer.record(poller) as trace:
        assert poller.poll_once(LONG) == 1
    (left,) = poller.attachments
    dropped = only(trace, "EventDropped")
    assert kinds(trace)[1:] == [
        "WaitEnded",
        "DispatchStarted",
        "Deleted",
        "DispatchEnded",
        "EventDropped",
    ]
    assert (dropped.fd, dropped.event) == (two if left == one else one, 1)
    assert dropped.cause == only(trace, "WaitEnded").seq
    os.close(one)
    os.close(two)


def test_callback_of_polling_is_the_one_named(poller: Poller) -> None:
    """In the one-callback form the loop's callback runs, in the other the attachment's own."""
    fd = ready()

    def for_all(fd: int, event: int, flags: int) -> None: ...

    def own(fd: int, event: int, flags: int) -> None: ...

    poller.add_read(PollAttachment(fd, own))
    with tracer.record(poller) as trace:
        poller.poll_once(LONG, for_all)
        poller.poll_once(LONG)
        poller.mod_read(PollAttachment(fd, nothing))
        poller.poll_once(LONG)
    names = [trace.functions[step.callback].name for step in of(trace, "DispatchStarted")]
    assert names == ["for_all", "own", "nothing"]
    os.close(fd)


def test_timeouts_and_batch_size(poller: Poller) -> None:
    """A wait says how long it may take, and a batch that is full makes the next one larger."""
    descriptors = [ready() for _ in range(130)]
    for fd in descriptors:
        poller.add_read(PollAttachment(fd, nothing))
    with tracer.record(poller) as trace:
        for timeout in (None, 0.25, 0, -5):
            poller.poll_once(timeout)
    waits = of(trace, "WaitStarted")
    assert [wait.timeout_ns for wait in waits] == [None, 250_000_000, 0, 0]
    assert [wait.size for wait in waits] == [128, 256, 256, 256]
    resized = only(trace, "BatchResized")
    assert resized.size == 256
    assert resized.cause == of(trace, "WaitEnded")[0].seq
    assert [len(wait.events) for wait in of(trace, "WaitEnded")] == [128, 130, 130, 130]
    for fd in descriptors:
        os.close(fd)


def test_wait_that_fails(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel's wait raises gets out as it is, and is written down."""

    def fail(timeout: float | None, size: int) -> list[tuple[int, int]]:
        raise OSError("injected")

    monkeypatch.setattr(poller.backend, "wait", fail)
    with tracer.record(poller) as trace, pytest.raises(OSError, match="injected"):
        poller.poll_once(0)
    assert only(trace, "WaitEnded").error == "OSError: injected"


def test_error_of_a_callback(poller: Poller) -> None:
    """What a callback raises stands in its end, also when its text can't be had."""
    fd = ready()
    seen: list[Exception] = []
    poller._on_error = lambda source, error: seen.append(error)

    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail(fd: int, event: int, flags: int) -> None:
        raise errors[len(seen)]

    errors = [ValueError("boom"), Silent()]
    poller.add_read(PollAttachment(fd, fail))
    with tracer.record(poller) as trace:
        poller.poll_once(LONG)
        poller.poll_once(LONG)
    assert seen == errors
    ends = [step.error for step in of(trace, "DispatchEnded")]
    assert ends[0] == "ValueError: boom"
    assert ends[1].startswith("Silent")
    os.close(fd)


# ---- tasks ------------------------------------------------------------------------------------


def test_many_triggers_one_wakeup(poller: Poller) -> None:
    """N triggers between two rounds are N tasks and one write, caused by the first of them."""
    with tracer.record(poller) as trace:
        for _ in range(5):
            poller.trigger(HIGH, nothing)
        poller.poll_once(LONG)
    queued = of(trace, "TaskQueued")
    assert len(queued) == 5
    assert only(trace, "WakeupSent").cause == queued[0].seq
    assert only(trace, "WakeupReceived").cause == only(trace, "WakeupSent").seq
    assert [step.cause for step in of(trace, "TaskStarted")] == [step.seq for step in queued]
    starts = [step.seq for step in of(trace, "TaskStarted")]
    assert [step.cause for step in of(trace, "TaskEnded")] == starts


def test_priorities_and_queues(poller: Poller) -> None:
    """A step says which priority was asked for and which queue the task went to."""
    with tracer.record(poller) as trace:
        poller.trigger(HIGH, nothing)
        for _ in range(1024):
            poller.trigger(LOW, nothing)
    queued = [(step.priority, step.queue) for step in of(trace, "TaskQueued")]
    assert queued == [("high", "high")] + [("low", "high")] * 1023 + [("low", "low")]


def test_thread_and_place_of_a_trigger(poller: Poller) -> None:
    """A task names the thread that queued it, and the line; what it did is caused by it."""
    fd = ready()

    def register(attachment: PollAttachment) -> None:
        poller.add_read(attachment)

    def ask() -> None:
        poller.trigger(HIGH, register, PollAttachment(fd, nothing))  # asks

    with tracer.record(poller) as trace, running(poller, "the loop"):
        in_thread("asker", ask)
        ran = threading.Event()
        poller.trigger(HIGH, lambda _: ran.set())
        assert ran.wait(LONG)
    queued, started = of(trace, "TaskQueued")[0], of(trace, "TaskStarted")[0]
    assert (queued.thread, started.thread) == ("asker", "the loop")
    assert place(trace, queued) == ("ask", marked("asks"))
    assert trace.functions[queued.callback].name == "register"
    assert queued.callback == started.callback
    assert only(trace, "Registered").cause == started.seq
    assert {step.thread for step in of(trace, "WaitStarted")} == {"the loop"}
    os.close(fd)


def test_trigger_that_nobody_s_code_made(poller: Poller) -> None:
    """A thread that has `trigger` itself as its function has no place, not one in the library."""
    with tracer.record(poller) as trace:
        thread = threading.Thread(target=poller.trigger, args=(HIGH, nothing))
        thread.start()
        thread.join(LONG)
    assert only(trace, "TaskQueued").function is None


def test_error_and_shutdown_of_tasks(poller: Poller) -> None:
    """A task's end holds what it raised, whether the loop went on or not."""
    poller._on_error = nothing

    def fail(error: BaseException) -> None:
        raise error

    with tracer.record(poller) as trace:
        poller.trigger(HIGH, fail, ValueError("boom"))
        poller.trigger(HIGH, fail, EngineShutdown())
        poller.trigger(HIGH, fail, KeyboardInterrupt())
        poller.poll_once(LONG)
        with pytest.raises(KeyboardInterrupt):
            poller.poll_once(LONG)
    ends = [step.error for step in of(trace, "TaskEnded")]
    assert ends == ["ValueError: boom", "EngineShutdown", "KeyboardInterrupt"]


def test_stop_from_a_callback_is_why_the_loop_woke(poller: Poller) -> None:
    """The write that `stop` makes is caused by the callback that called it."""
    fd = ready()
    poller.add_read(PollAttachment(fd, lambda *_: poller.stop()))
    with tracer.record(poller) as trace:
        poller.polling()
    assert only(trace, "WakeupSent").cause == only(trace, "DispatchStarted").seq
    os.close(fd)


def test_close_is_the_last_step(poller: Poller) -> None:
    """A poller that is closed says so, and its recording has ended."""
    recording = tracer.record(poller)
    poller.close()
    assert kinds(recording.trace) == ["PollerClosed"]
    assert not recording.running


def test_close_from_a_callback(poller: Poller) -> None:
    """The callback ends before the poller is closed."""
    fd = ready()
    poller.add_read(PollAttachment(fd, lambda *_: poller.close()))
    recording = tracer.record(poller)
    poller.polling()
    assert kinds(recording.trace)[-3:] == ["DispatchStarted", "DispatchEnded", "PollerClosed"]
    os.close(fd)


# ---- functions and places ---------------------------------------------------------------------


def test_functions_of_callbacks(poller: Poller) -> None:
    """A cell's function, a lambda, a partial, a method and a builtin are known by their source."""
    source = "def in_cell(fd, event, flags):\n    pass\n"
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
    cell: dict[str, Any] = {}
    exec(compile(source, "<cell>", "exec"), cell)
    descriptors = [ready() for _ in range(5)]
    callbacks = [
        cell["in_cell"],
        lambda fd, event, flags: None,
        partial(nothing, 1),
        Recorder().method,
        max,
    ]
    with tracer.record(poller) as trace:
        for fd, callback in zip(descriptors, callbacks, strict=True):
            poller.add_read(PollAttachment(fd, callback))
            poller.delete(fd)
    functions = [trace.functions[step.callback] for step in of(trace, "Registered")]
    assert [function.name for function in functions] == [
        "in_cell",
        "<lambda>",
        "nothing",
        "Recorder.method",
        "max",
    ]
    assert functions[0].text == source
    assert "lambda fd, event, flags: None" in functions[1].text
    assert functions[2].text == inspect.getsource(nothing)
    assert functions[4].text == ""
    del linecache.cache["<cell>"]
    for fd in descriptors:
        os.close(fd)


class Recorder:
    def method(self, fd: int, event: int, flags: int) -> None: ...


def test_place_of_a_call_in_a_cell(poller: Poller) -> None:
    """A call at the top level of a cell is known by the cell, its text and the line."""
    source = "x = 1\n\npoller.trigger(HIGH, print)\n"
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
    with tracer.record(poller) as trace:
        exec(compile(source, "<cell>", "exec"), {"poller": poller, "HIGH": HIGH})
    queued = only(trace, "TaskQueued")
    function = trace.functions[queued.function]
    assert (function.name, function.first_line, function.text) == ("<module>", 1, source)
    assert queued.line == 3
    assert trace.functions[queued.callback].name == "print"
    del linecache.cache["<cell>"]


def test_place_behind_closing(poller: Poller) -> None:
    """A socket that `contextlib.closing` closes is closed by who wrote the with statement."""
    fd = ready()

    def close_one(fd: int, event: int, flags: int) -> None:
        with closing(socket.socket()):
            pass

    poller.add_read(PollAttachment(fd, close_one))
    with tracer.record(poller) as trace:
        poller.poll_once(LONG)
    assert place(trace, only(trace, "Closed"))[0] == "close_one"
    os.close(fd)


# ---- sockets ----------------------------------------------------------------------------------


def test_would_block_end_and_reset_in_a_callback(poller: Poller) -> None:
    """What a callback finds out about its sockets stands between its start and its end."""
    one, other = socket.socketpair()
    one.setblocking(False)

    def read_all(fd: int, event: int, flags: int) -> None:
        while True:
            try:
                if not one.recv(2):
                    poller.delete(fd)
                    one.close()
                    return
            except BlockingIOError:
                return

    poller.add_read(PollAttachment(one, read_all))
    with tracer.record(poller) as trace:
        other.send(b"abc")
        poller.poll_once(LONG)
        other.close()
        poller.poll_once(LONG)
    read = [step for step in trace if step.kind in ("Read", "WouldBlock", "Closed")]
    assert [(step.kind, getattr(step, "count", None)) for step in read] == [
        ("Read", 2),
        ("Read", 1),
        ("WouldBlock", None),
        ("Read", 0),
        ("Closed", None),
    ]
    starts = [step.seq for step in of(trace, "DispatchStarted")]
    assert [step.cause for step in read] == [starts[0]] * 3 + [starts[1]] * 2


@pytest.mark.parametrize("family", ["IPv4", "IPv6", "Unix"])
def test_peers(family: str, poller: Poller, tmp_path: Path) -> None:
    """An accepted connection is known by its peer's address."""
    path = str(tmp_path / "s")
    listener = {
        "IPv4": lambda: socket.create_server(("127.0.0.1", 0)),
        "IPv6": lambda: socket.create_server(("::1", 0), family=socket.AF_INET6),
        "Unix": lambda: socket.socket(socket.AF_UNIX),
    }[family]()
    client = socket.socket(listener.family)
    if family == "Unix":
        listener.bind(path)
        listener.listen()
        client.bind(path + "client")
    poller.add_read(PollAttachment(listener, lambda *_: listener.accept()[0].close()))
    with listener, client, tracer.record(poller) as trace:
        client.connect(listener.getsockname())
        poller.poll_once(LONG)
        own: Any = client.getsockname()
    port = own[1]
    expected = {"IPv4": f"127.0.0.1:{port}", "IPv6": f"[::1]:{port}", "Unix": path + "client"}
    assert only(trace, "Accepted").peer == expected[family]


def test_calls_outside_callbacks_and_of_other_threads(poller: Poller) -> None:
    """Only what a callback or task does in the loop's thread is written down."""
    one, other = socket.socketpair()
    fd = ready()
    in_callback, go_on = threading.Event(), threading.Event()

    def wait(fd: int, event: int, flags: int) -> None:
        in_callback.set()
        assert go_on.wait(LONG)
        poller.delete(fd)

    with one, other, tracer.record(poller) as trace:
        poller.poll_once(0)  # this thread has run the loop too
        one.send(b"x")
        poller.add_read(PollAttachment(fd, wait))
        with running(poller):
            assert in_callback.wait(LONG)
            one.send(b"y")
            other.recv(9)
            in_thread("other", one.send, b"z")
            go_on.set()
    assert not {"Read", "Wrote"} & set(kinds(trace))
    os.close(fd)


def test_two_recorded_pollers_in_one_thread() -> None:
    """Each trace holds what its own poller's callbacks did, also after the other has stopped."""
    one, other = socket.socketpair()
    fd = ready()
    with one, other, open_poller() as first, open_poller() as second:
        first.add_read(PollAttachment(fd, lambda *_: one.send(b"first")))
        second.add_read(PollAttachment(fd, lambda *_: one.send(b"2nd")))
        recording = tracer.record(first)
        with tracer.record(second) as trace:
            first.poll_once(LONG)
            second.poll_once(LONG)
        first.poll_once(LONG)
        recording.stop()
    assert [step.count for step in of(recording.trace, "Wrote")] == [5, 5]
    assert [step.count for step in of(trace, "Wrote")] == [3]
    os.close(fd)


def test_without_io_sockets_are_left_alone(poller: Poller) -> None:
    """With io=False no method of a socket is replaced, and none of its calls written down."""
    one, other = socket.socketpair()
    fd = ready()
    poller.add_read(PollAttachment(fd, lambda *_: one.send(b"x")))
    before = list(vars(socket.socket).items())
    with one, other, tracer.record(poller, io=False) as trace:
        poller.poll_once(LONG)
        assert list(vars(socket.socket).items()) == before
    assert kinds(trace) == ["WaitStarted", "WaitEnded", "DispatchStarted", "DispatchEnded"]
    os.close(fd)


def test_names_of_threads_that_follow_each_other(poller: Poller) -> None:
    """A thread that gets the identifier of one that ended is known by its own name."""
    fd = ready()
    one, other = socket.socketpair()
    poller.add_read(PollAttachment(fd, lambda *_: one.send(b"x")))
    with one, other, tracer.record(poller) as trace:
        for name in ("first", "second", "third"):
            in_thread(name, poller.poll_once, LONG)
    for kind in ("WaitStarted", "DispatchStarted", "Wrote", "DispatchEnded"):
        assert [step.thread for step in of(trace, kind)] == ["first", "second", "third"]
    os.close(fd)


def test_tasks_before_the_first_wait_of_a_thread(poller: Poller) -> None:
    """A run begins with tasks: the thread that runs them is known before it waits."""
    one, other = socket.socketpair()
    with one, other, tracer.record(poller) as trace:
        poller.trigger(HIGH, one.send, b"abc")
        poller.trigger(HIGH, lambda _: one.send(b"abc"))
        in_thread("loop", poller.poll_once, 0)
    assert [step.thread for step in of(trace, "Wrote")] == ["loop", "loop"]
    starts = [step.seq for step in of(trace, "TaskStarted")]
    assert [step.cause for step in of(trace, "Wrote")] == starts


def test_timer_from_set_to_fired(poller: Poller) -> None:
    """A timer that fires leads back to the call that set it; a canceled one is taken back."""

    def end(param: object) -> None:
        raise EngineShutdown

    with tracer.record(poller) as trace:
        poller.call_later(0.002, end)
        canceled = poller.call_later(60, end)
        assert canceled.cancel()
        assert not canceled.cancel()
        poller.polling()
    first, second = of(trace, "TimerSet")
    taken_back = only(trace, "TimerCanceled")
    assert taken_back.timer == second.seq
    fired = only(trace, "TimerFired")
    assert fired.cause == first.seq
    assert fired.late_ns >= 0
    assert fired.t_ns >= first.t_ns + first.delay_ns
    started = only(trace, "TaskStarted")
    assert started.cause == fired.seq
    assert only(trace, "TaskEnded").error == "EngineShutdown"
    states = [tracer.Replay(trace).state(index) for index in range(len(trace))]
    assert max(len(state.timers) for state in states) == 2
    assert states[-1].timers == ()
    for call in (first, taken_back):
        assert trace.functions[call.function].name.endswith("test_timer_from_set_to_fired")


def test_timers_that_were_set_before(poller: Poller) -> None:
    """The base state holds the timers with their deadlines, and firing takes them off."""
    calls: list[str] = []
    poller.call_later(60, calls.append, "late")
    poller.call_later(0.001, calls.append, "early")
    poller.call_later(0.001, calls.append, "never").cancel()
    with tracer.record(poller) as trace:
        poller.poll_once()
    assert calls == ["early"]
    early, late = sorted(trace.base.timers, key=lambda timer: timer.due_ns)
    assert 59e9 < late.due_ns - early.due_ns < 61e9
    assert only(trace, "TimerFired").cause is None
    (left,) = tracer.Replay(trace).state(len(trace) - 1).timers
    assert left.due_ns == late.due_ns
