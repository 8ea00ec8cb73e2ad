"""Recording begins and ends at any time, from anywhere, and leaves the loop as it was."""

import contextlib
import gc
import os
import random
import re
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import netpoll
import tracer
from netpoll import (
    AcceptSocketError,
    AsyncTaskQueue,
    EngineShutdown,
    EventPriority,
    PollAttachment,
    Poller,
    open_poller,
)
from tracer import recorder
from tracer.recorder import Recording
from tracer.trace import BaseRegistration, BaseTask, Trace

HIGH, LOW = EventPriority.HIGH, EventPriority.LOW
LONG = 10.0  # seconds: what a test waits for happens long before
SOCKET_METHODS = list(vars(socket.socket).items())


@pytest.fixture(autouse=True)
def sockets_as_before() -> Iterator[None]:
    """After every test `socket.socket` is what it was before all of them."""
    yield
    assert list(vars(socket.socket).items()) == SOCKET_METHODS


@pytest.fixture
def poller() -> Iterator[Poller]:
    """An open poller."""
    with open_poller() as poller:
        yield poller


@pytest.fixture
def fd() -> Iterator[int]:
    """A descriptor that is always ready for reading."""
    fd = os.eventfd(1)
    yield fd
    os.close(fd)


@contextmanager
def running(poller: Poller, callback: netpoll.Callback | None = None) -> Iterator[threading.Thread]:
    """Run the loop in a thread; it runs when the block begins and is joined at its end."""
    thread = threading.Thread(target=poller.polling, args=(callback,), name="loop")
    thread.start()
    in_loop(poller, lambda: None)
    try:
        yield thread
    finally:
        poller.stop()
        thread.join(LONG)
        assert not thread.is_alive()


def in_loop(poller: Poller, function: Callable[[], object]) -> None:
    """Call `function` as a task of the running loop, wait for it, and raise what it raises."""
    done = threading.Event()
    errors: list[BaseException] = []

    def task(_: object) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
        done.set()

    poller.trigger(HIGH, task)
    assert done.wait(LONG)
    if errors:
        raise errors[0]


def collaborators(poller: Poller) -> tuple[object, ...]:
    return poller.backend, poller.callbacks, poller.tasks, poller.wakeup


def same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))


def kinds(trace: Trace) -> list[str]:
    return [step.kind for step in trace]


def nothing(*args: object) -> None:
    """Be a callback or a task."""


# ---- from everywhere --------------------------------------------------------------------------


def test_idle(poller: Poller, fd: int) -> None:
    """A poller that does not run is recorded at once, and is itself again afterwards."""
    before = collaborators(poller)
    recording = tracer.record(poller)
    assert recording.running
    assert not any(a is b for a, b in zip(before, collaborators(poller), strict=True))
    poller.add_read(PollAttachment(fd, nothing))
    recording.stop()
    assert not recording.running
    assert same(before, collaborators(poller))
    poller.delete(fd)
    assert kinds(recording.trace) == ["Registered"]


@pytest.mark.parametrize("callback", [None, nothing])
def test_loop_in_another_thread(callback: netpoll.Callback | None, poller: Poller, fd: int) -> None:
    """A running loop, in both forms, is recorded from another thread, while it waits."""
    before = collaborators(poller)
    with running(poller, callback):
        recording = tracer.record(poller)
        poller.add_read(PollAttachment(fd, nothing), oneshot=True)
        in_loop(poller, lambda: None)
        recording.stop()
        assert same(before, collaborators(poller))
        length = len(recording.trace)
        poller.mod_read(PollAttachment(fd, nothing), oneshot=True)
        in_loop(poller, lambda: None)
    assert len(recording.trace) == length
    assert recording.trace.base.running
    assert {"Registered", "WaitEnded", "TaskEnded"} <= set(kinds(recording.trace))


def test_from_callbacks(poller: Poller, fd: int) -> None:
    """A callback can start a recording, and a later one stop it."""
    before = collaborators(poller)
    recordings: list[Recording] = []

    def start_or_stop(fd: int, event: int, flags: int) -> None:
        if not recordings:
            recordings.append(tracer.record(poller))
        else:
            recordings[0].stop()
            raise EngineShutdown

    poller.add_read(PollAttachment(fd, start_or_stop))
    poller.polling()
    assert same(before, collaborators(poller))
    assert kinds(recordings[0].trace) == ["WaitStarted", "WaitEnded", "DispatchStarted"]


def test_from_tasks(poller: Poller) -> None:
    """A task can start a recording: the tasks after it are recorded, it itself is not queued."""
    before = collaborators(poller)
    ran: list[int] = []

    def start(_: object) -> None:
        ran.append(0)
        recordings.append(tracer.record(poller))

    def stop(_: object) -> None:
        ran.append(3)
        recordings[0].stop()

    def look(_: object) -> None:
        ran.append(4)
        callers.append(sys._getframe(1).f_code)

    recordings: list[Recording] = []
    callers: list[object] = []
    poller.trigger(HIGH, start)
    poller.trigger(HIGH, ran.append, 1)
    poller.trigger(HIGH, ran.append, 2)
    poller.trigger(HIGH, stop)
    poller.trigger(HIGH, look)
    while poller.tasks:
        poller.poll_once(0)
    assert ran == [0, 1, 2, 3, 4]
    assert callers == [AsyncTaskQueue._run.__code__]  # the original's, in the round of the stop
    assert same(before, collaborators(poller))
    trace = recordings[0].trace
    assert [task.queue for task in trace.base.tasks] == ["high"] * 4
    assert [kind for kind in kinds(trace) if kind.startswith("Task")] == [
        "TaskStarted",
        "TaskEnded",
        "TaskStarted",
        "TaskEnded",
        "TaskStarted",
    ]


def test_between_rounds(poller: Poller, fd: int) -> None:
    """With poll_once the loop is idle in between, and events left over are dispatched."""
    other = os.eventfd(1)

    def shut_down(fd: int, event: int, flags: int) -> None:
        raise EngineShutdown

    for each in (fd, other):
        poller.add_read(PollAttachment(each, shut_down))
    assert poller.poll_once(LONG) == 1
    recording = tracer.record(poller)
    assert poller.poll_once(LONG) == 1
    recording.stop()
    assert kinds(recording.trace) == ["DispatchStarted", "DispatchEnded"]
    assert recording.trace[0].cause is None
    assert not recording.trace.base.running
    os.close(other)


def test_while_poll_once_waits(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single round that waits in another thread ends for the recording's sake."""
    entered = threading.Event()
    wait = poller.backend.wait

    def told(timeout: float | None, size: int) -> list[tuple[int, int]]:
        entered.set()
        return wait(timeout, size)

    monkeypatch.setattr(poller.backend, "wait", told)
    thread = threading.Thread(target=poller.poll_once)
    thread.start()
    assert entered.wait(LONG)
    tracer.record(poller).stop()
    thread.join(LONG)
    assert not thread.is_alive()


# ---- closed, stopped, twice -------------------------------------------------------------------


def test_what_can_not_be_recorded(poller: Poller) -> None:
    """Only an open poller can be recorded."""
    with pytest.raises(TypeError, match=r"netpoll\.Poller"):
        tracer.record(7)  # type: ignore[arg-type]
    poller.close()
    with pytest.raises(ValueError, match="closed"):
        tracer.record(poller)


def test_stop_after_close(poller: Poller) -> None:
    """A recording of a poller that was closed meanwhile has ended, and can be stopped."""
    recording = tracer.record(poller)
    poller.poll_once(0)
    poller.close()
    recording.stop()
    recording.stop()
    assert kinds(recording.trace)[-1] == "PollerClosed"
    assert repr(recording) == "<Recording of 3 steps, ended>"


def test_stop_when_another_thread_closes(poller: Poller) -> None:
    """A running poller that is closed takes its recording's end with it, and nothing hangs."""
    with running(poller):
        recording = tracer.record(poller)
        poller.close()
        recording.stop()
    assert kinds(recording.trace)[-1] == "PollerClosed"


def test_stop_twice(poller: Poller) -> None:
    """The second stop does nothing, also when another recording runs by then."""
    first = tracer.record(poller)
    first.stop()
    second = tracer.record(poller)
    first.stop()
    assert second.running
    second.stop()


@pytest.mark.parametrize("live", [False, True])
def test_record_twice(live: bool, poller: Poller, fd: int) -> None:
    """A second recording of one poller ends the first, and leaves no layer of it behind."""
    before = collaborators(poller)
    with running(poller) if live else contextlib.nullcontext():
        first = tracer.record(poller)
        second = tracer.record(poller)
        assert (first.running, second.running) == (False, True)
        poller.add_write(PollAttachment(fd, nothing), True)
        second.stop()
        first.stop()
    assert "Registered" in kinds(second.trace)
    assert "Registered" not in kinds(first.trace)
    assert same(before, collaborators(poller))


def test_two_threads_record_one_poller(poller: Poller) -> None:
    """Whatever the order of their starts and stops, the originals are back at the end."""
    before = collaborators(poller)

    def record_and_stop() -> None:
        for _ in range(40):
            tracer.record(poller).stop()

    with running(poller):
        threads = [threading.Thread(target=record_and_stop) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    assert same(before, collaborators(poller))


def test_with_statement(poller: Poller, fd: int) -> None:
    """As a context manager a recording yields its trace, and ends with the block."""
    with tracer.record(poller) as trace:
        poller.add_read(PollAttachment(fd, nothing))
        assert len(trace) == 1
    poller.delete(fd)
    assert len(trace) == 1


# ---- a loop that does not come round ----------------------------------------------------------


@contextmanager
def hanging(poller: Poller, fd: int) -> Iterator[None]:
    """Keep the running loop in a callback for the length of the block."""
    inside, go_on = threading.Event(), threading.Event()

    def hang(fd: int, event: int, flags: int) -> None:
        inside.set()
        assert go_on.wait(LONG)  # hangs here
        poller.delete(fd)

    poller.add_read(PollAttachment(fd, hang))
    assert inside.wait(LONG)
    try:
        yield
    finally:
        go_on.set()
        in_loop(poller, lambda: None)


def test_record_names_the_line_that_hangs(
    poller: Poller, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a callback hangs, record says where and gives up: no late task starts a recording."""
    before = collaborators(poller)
    with running(poller):
        monkeypatch.setattr(recorder, "ATTACH_TIMEOUT", 0.1)
        with hanging(poller, fd), pytest.raises(TimeoutError, match="hangs here") as caught:
            tracer.record(poller)
        assert "start recording" in str(caught.value)
        assert __file__ in str(caught.value)
        assert same(before, collaborators(poller))
        assert list(vars(socket.socket).items()) == SOCKET_METHODS


def test_stop_names_the_line_that_hangs(
    poller: Poller, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a callback hangs, stop says where; the recording goes on and can be stopped later."""
    before = collaborators(poller)
    with running(poller):
        recording = tracer.record(poller)
        monkeypatch.setattr(recorder, "ATTACH_TIMEOUT", 0.1)
        with hanging(poller, fd), pytest.raises(TimeoutError, match="stop recording"):
            recording.stop()
        monkeypatch.undo()
        assert recording.running
        recording.stop()
        assert "Deleted" in kinds(recording.trace)
        assert same(before, collaborators(poller))


def test_lock_held_by_the_caller(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the poller's lock gets the TimeoutError, and no deadlock."""
    monkeypatch.setattr(recorder, "ATTACH_TIMEOUT", 0.1)
    with running(poller):
        with poller.lock, pytest.raises(TimeoutError):
            tracer.record(poller)
        in_loop(poller, lambda: None)


def test_error_while_attaching_is_raised_by_record(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in the loop's thread is raised where record was called."""

    def fail(self: Recording) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Recording, "_base_state", fail)
    before = collaborators(poller)
    with running(poller), pytest.raises(MemoryError, match="no room"):
        tracer.record(poller)
    assert same(before, collaborators(poller))


# ---- nothing is lost --------------------------------------------------------------------------


def test_queued_tasks_survive(poller: Poller) -> None:
    """Tasks queued before, while and after a recording run once each, in order."""
    ran: list[int] = []
    for number in range(1500):
        poller.trigger(LOW, ran.append, number)
    recording = tracer.record(poller)
    for number in range(1500, 1600):
        poller.trigger(LOW, ran.append, number)
    poller.poll_once(0)
    recording.stop()
    for number in range(1600, 1700):
        poller.trigger(LOW, ran.append, number)
    while poller.tasks:
        poller.poll_once(0)
    assert ran == list(range(1700))
    assert len(recording.trace.base.tasks) == 1500


def test_tasks_of_four_threads_while_recordings_come_and_go(poller: Poller) -> None:
    """Through 50 recordings each task runs exactly once, and those of one thread in order."""
    ran: list[tuple[int, int]] = []
    done = threading.Semaphore(0)

    def task(what: tuple[int, int]) -> None:
        ran.append(what)
        done.release()

    def trigger(thread: int) -> None:
        for number in range(500):
            poller.trigger(HIGH, task, (thread, number))

    before = collaborators(poller)
    with running(poller):
        threads = [threading.Thread(target=trigger, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            tracer.record(poller).stop()
        for thread in threads:
            thread.join(LONG)
        for _ in range(2000):
            assert done.acquire(timeout=LONG)
        in_loop(poller, lambda: None)
    assert len(ran) == 2000
    for number in range(4):
        assert [n for thread, n in ran if thread == number] == list(range(500))
    assert same(before, collaborators(poller))


def watched_by_the_kernel(poller: Poller) -> set[int]:
    """Return the interest list that the kernel shows, without the wakeup."""
    text = Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text()
    return {int(fd) for fd in re.findall(r"^tfd:\s*(\d+)", text, re.MULTILINE)} - {poller.wakeup.fd}


def test_registrations_of_another_thread_survive(poller: Poller) -> None:
    """Through 50 recordings the table and the kernel agree on what other threads register."""
    descriptors = [os.eventfd(1) for _ in range(40)]
    called: set[int] = set()
    over = threading.Event()

    def note(fd: int, event: int, flags: int) -> None:
        called.add(fd)

    def register(seed: int) -> None:
        pick = random.Random(seed)
        mine = descriptors[seed::2]
        while not over.is_set():
            fd = pick.choice(mine)
            if fd in poller.attachments:
                poller.delete(fd)
            else:
                poller.add_read(PollAttachment(fd, note), oneshot=True)

    with running(poller):
        threads = [threading.Thread(target=register, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            recording = tracer.record(poller)
            recording.stop()
        over.set()
        for thread in threads:
            thread.join(LONG)
        assert set(poller.attachments) == watched_by_the_kernel(poller)
        called.clear()
        for fd in poller.attachments:
            poller.mod_read(PollAttachment(fd, note), oneshot=True)
        in_loop(poller, lambda: None)
        in_loop(poller, lambda: None)
        assert called == set(poller.attachments)
    for fd in descriptors:
        os.close(fd)


def test_registrations_recorded_are_those_of_the_kernel(poller: Poller) -> None:
    """The base state and the steps after it lead to the interest list that the kernel shows."""
    descriptors = [os.eventfd(0) for _ in range(40)]
    pick = random.Random(1)

    def change(times: int) -> None:
        for _ in range(times):
            fd = pick.choice(descriptors)
            if fd in poller.attachments:
                poller.delete(fd)
            else:
                poller.add_read(PollAttachment(fd, nothing))

    change(100)
    with running(poller):
        recording = tracer.record(poller)
        in_loop(poller, lambda: change(100))
        change(100)
        recording.stop()
        watched = {registration.fd for registration in recording.trace.base.registrations}
        steps: Any = recording.trace
        for step in steps:
            if step.kind == "Registered":
                watched.add(step.fd)
            elif step.kind == "Deleted":
                watched.remove(step.fd)
        assert watched == watched_by_the_kernel(poller)
    for fd in descriptors:
        os.close(fd)


def test_base_state(poller: Poller, fd: int) -> None:
    """A trace begins with what was registered and queued when the recording began."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener_fd, port = listener.fileno(), listener.getsockname()[1]
        poller.add_read(PollAttachment(listener, nothing))
        poller.add_read_write(PollAttachment(fd, nothing), True, oneshot=True)
        poller.trigger(LOW, print)
        for _ in range(1023):
            poller.trigger(HIGH, nothing)
        poller.trigger(LOW, nothing)
        with tracer.record(poller) as trace:
            pass
    functions = {number: function.name for number, function in trace.functions.items()}
    (number,) = (number for number, name in functions.items() if name == "nothing")
    (printing,) = (number for number, name in functions.items() if name == "print")
    assert trace.base.registrations == (
        BaseRegistration(listener_fd, f"listener :{port}", "read", False, False, False, number),
        BaseRegistration(fd, "eventfd", "read write", True, True, False, number),
    )
    assert trace.base.tasks == (
        BaseTask("high", printing),
        *[BaseTask("high", number)] * 1023,
        BaseTask("low", number),
    )
    assert (trace.base.backend, trace.base.fd) == ("epoll", poller.fileno())
    assert (trace.base.wakeup_fd, trace.base.size) == (poller.wakeup.fd, 128)
    assert not trace.base.running
    poller.tasks.drop()


def test_base_state_of_a_running_loop(
    poller: Poller, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that wait behind the recording's own stand in the base state, and it does not."""
    recordings: list[Recording] = []
    inside, go_on, queued = threading.Event(), threading.Event(), threading.Event()
    trigger = poller.trigger

    def told(*args: Any) -> None:
        trigger(*args)
        queued.set()

    def hold(_: object) -> None:
        inside.set()
        assert go_on.wait(LONG)

    poller.add_read(PollAttachment(fd, nothing), oneshot=True)
    with running(poller):
        poller.trigger(HIGH, hold)
        assert inside.wait(LONG)
        monkeypatch.setattr(poller, "trigger", told)
        thread = threading.Thread(target=lambda: recordings.append(tracer.record(poller)))
        thread.start()
        assert queued.wait(LONG)  # the recording's task, behind `hold`
        poller.trigger(HIGH, nothing)
        go_on.set()
        thread.join(LONG)
        in_loop(poller, lambda: None)
        recordings[0].stop()
    trace = recordings[0].trace
    assert [trace.functions[task.callback or 0].name for task in trace.base.tasks] == ["nothing"]
    assert trace.base.running
    first = trace[kinds(trace).index("TaskStarted")]
    assert first.cause is None


# ---- the loop behaves as without --------------------------------------------------------------


@pytest.mark.parametrize("place", ["callback", "task"])
@pytest.mark.parametrize(
    "error", [ValueError, EngineShutdown, AcceptSocketError, KeyboardInterrupt, SystemExit]
)
def test_exceptions_do_what_they_do_without(error: type[BaseException], place: str) -> None:
    """Whatever a callback or task raises ends the loop, or does not, as without a recording."""

    def outcome(recorded: bool) -> list[object]:
        seen: list[object] = []

        def raising(*args: object) -> None:
            raise error("reason")

        def on_error(source: object, raised: Exception) -> None:
            seen.append((type(source).__name__, type(raised), str(raised)))

        fd, other = os.eventfd(1), os.eventfd(1)
        with open_poller(on_error=on_error) as poller:
            poller.add_read(PollAttachment(fd, raising))
            poller.add_read(PollAttachment(other, lambda *_: seen.append("other")))
            if place == "callback":
                poller.trigger(HIGH, lambda _: None)
            else:
                poller.mod_read(PollAttachment(fd, lambda *_: seen.append("first")))
                poller.trigger(HIGH, raising)
            poller.trigger(HIGH, seen.append, "task")
            recording = tracer.record(poller) if recorded else None
            for _ in range(3):
                try:
                    seen.append(poller.poll_once(0))
                except BaseException as raised:
                    seen.append((type(raised), str(raised)))
                seen.append((len(poller.tasks), sorted(poller.attachments) == sorted((fd, other))))
            if recording is not None:
                recording.stop()
                assert "WaitStarted" in kinds(recording.trace)
        os.close(fd)
        os.close(other)
        return seen

    assert outcome(recorded=True) == outcome(recorded=False)


def test_poller_is_not_kept_alive(fd: int) -> None:
    """A closed poller goes away with its recording; the trace alone keeps nothing of it."""
    poller = open_poller()
    poller.add_read(PollAttachment(fd, nothing))
    recording = tracer.record(poller)
    poller.poll_once(LONG)
    recording.stop()
    poller.close()
    trace, gone = recording.trace, weakref.ref(poller)
    gc.disable()
    try:
        del poller, recording
        assert gone() is None
    finally:
        gc.enable()
    assert len(trace) == 4


def test_closing_ends_a_recording_that_nobody_stopped(fd: int) -> None:
    """A poller that is closed while it is recorded goes away too, and sockets are themselves."""
    poller = open_poller()
    poller.add_read(PollAttachment(fd, nothing))
    tracer.record(poller)
    poller.poll_once(LONG)
    poller.close()
    assert list(vars(socket.socket).items()) == SOCKET_METHODS
    gone = weakref.ref(poller)
    del poller
    gc.collect()
    assert gone() is None
