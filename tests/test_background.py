"""run_in_thread: a loop beside other work."""

import logging
import os
import threading
import uuid
from collections.abc import Iterator

import pytest

import netpoll
from netpoll import EventPriority, PollAttachment, Poller
from netpoll.background import stack_of

HIGH = EventPriority.HIGH


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"test {uuid.uuid4()}"


@pytest.fixture
def poller() -> Iterator[Poller]:
    with netpoll.open_poller() as poller:
        yield poller


def test_runs_and_stops(poller: Poller, name: str) -> None:
    """The loop runs in a thread of that name; stop ends it and closes the poller, once."""
    seen = threading.Event()
    names: list[str] = []
    server = netpoll.run_in_thread(poller, name=name)
    poller.trigger(HIGH, lambda _: names.append(threading.current_thread().name))
    poller.trigger(HIGH, lambda _: seen.set())
    assert seen.wait(10)
    assert server.running
    assert "running" in repr(server)
    server.stop()
    assert not server.running
    assert "ended" in repr(server)
    assert names == [name]
    assert poller.closed
    server.stop()


def test_stop_before_the_loop_has_begun(poller: Poller, name: str) -> None:
    """A stop right after the start is not lost."""
    netpoll.run_in_thread(poller, name=name).stop()
    assert poller.closed


def test_close_from_outside_ends_it(poller: Poller, name: str) -> None:
    """Closing the poller ends the thread in order."""
    began = threading.Event()
    server = netpoll.run_in_thread(poller, name=name)
    poller.trigger(HIGH, lambda _: began.set())
    assert began.wait(10)
    poller.close()
    server.stop()


def test_callback_for_all(poller: Poller, name: str) -> None:
    """`callback` is called for every descriptor, as polling(callback) does."""
    called = threading.Event()
    fd = os.eventfd(1)
    poller.add_read(PollAttachment(fd, lambda *_: None))
    with netpoll.run_in_thread(poller, name=name, callback=lambda *_: called.set()):
        assert called.wait(10)
    os.close(fd)


def test_same_name_stops_the_former(name: str) -> None:
    """A cell that is run again replaces its server: the former is stopped and cleaned up first."""
    order: list[str] = []
    first, second = netpoll.open_poller(), netpoll.open_poller()
    one = netpoll.run_in_thread(first, name=name, on_end=lambda: order.append("first ended"))
    other = netpoll.run_in_thread(second, name=name, on_end=lambda: order.append("second ended"))
    assert order == ["first ended"]
    assert not one.running
    assert first.closed
    other.stop()
    assert order == ["first ended", "second ended"]


def test_different_names_run_side_by_side(name: str) -> None:
    """Two servers in one notebook need two names."""
    first, second = netpoll.open_poller(), netpoll.open_poller()
    with netpoll.run_in_thread(first, name=name) as one:
        with netpoll.run_in_thread(second, name=f"{name} too"):
            assert one.running
        assert one.running


def test_exception_is_logged_and_raised_by_stop(
    poller: Poller, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What ends the loop is logged when it happens, and raised once by stop."""
    error = netpoll.AcceptSocketError("no more")
    ended = threading.Event()

    def fail(_: object) -> None:
        raise error

    server = netpoll.run_in_thread(poller, name=name, on_end=ended.set)
    poller.trigger(HIGH, fail)
    assert ended.wait(10)
    with pytest.raises(netpoll.AcceptSocketError) as caught:
        server.stop()
    assert caught.value is error
    assert [(one.name, one.levelno) for one in caplog.records] == [("netpoll", logging.ERROR)]
    assert "no more" in caplog.text
    assert poller.closed
    server.stop()


def test_failed_loop_does_not_hinder_the_next(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """After a loop that failed, the same name can be used again."""
    first, second = netpoll.open_poller(), netpoll.open_poller()
    ended = threading.Event()

    def fail(_: object) -> None:
        raise netpoll.AcceptSocketError

    one = netpoll.run_in_thread(first, name=name, on_end=ended.set)
    first.trigger(HIGH, fail)
    assert ended.wait(10)
    netpoll.run_in_thread(second, name=name).stop()
    assert isinstance(one.exception, netpoll.AcceptSocketError)
    assert "ended with an exception" in caplog.text


@pytest.mark.parametrize("how", ["stop", "shutdown", "exception"])
def test_on_end_runs_once_after_the_poller_is_closed(
    poller: Poller, name: str, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """However the loop ends, on_end is called in its thread, when the poller is closed."""
    ends: list[tuple[str, bool]] = []
    ended = threading.Event()

    def on_end() -> None:
        ends.append((threading.current_thread().name, poller.closed))
        ended.set()

    def end(_: object) -> None:
        if how == "stop":
            poller.stop()
        raise netpoll.EngineShutdown if how == "shutdown" else SystemExit(how)

    server = netpoll.run_in_thread(poller, name=name, on_end=on_end)
    if how == "stop":
        server.stop()
    else:
        poller.trigger(HIGH, end)
        assert ended.wait(10)
        if how == "exception":
            with pytest.raises(SystemExit):
                server.stop()
    server.stop()
    assert ends == [(name, True)]


def test_exception_of_on_end(poller: Poller, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and raised by stop, like one of the loop."""

    def on_end() -> None:
        raise ZeroDivisionError("on_end")

    server = netpoll.run_in_thread(poller, name=name, on_end=on_end)
    with pytest.raises(ZeroDivisionError):
        server.stop()
    assert "ZeroDivisionError: on_end" in caplog.text


def test_with_statement_stops(poller: Poller, name: str) -> None:
    """Leaving the block stops the loop."""
    with netpoll.run_in_thread(poller, name=name) as server:
        assert server.running
    assert not server.running


def test_hanging_callback_is_named(poller: Poller, name: str) -> None:
    """A loop that does not come back is a TimeoutError that shows the line it hangs on."""
    entered, proceed = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        entered.set()
        assert proceed.wait(30)  # here

    server = netpoll.run_in_thread(poller, name=name)
    poller.trigger(HIGH, hang)
    assert entered.wait(10)
    try:
        with pytest.raises(TimeoutError) as caught:
            server.stop(timeout=0.01)
    finally:
        proceed.set()
    message = str(caught.value)
    assert f"'{name}'" in message
    assert "assert proceed.wait(30)  # here" in message
    assert "in hang" in message
    server.stop()
    assert not server.running


def test_stack_of_nobody() -> None:
    """A thread that has ended is nowhere."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert "nowhere" in stack_of(-1)


def test_same_poller_again_goes_on() -> None:
    """Running a cell twice that starts the same poller leaves the one loop running."""
    poller = netpoll.open_poller()
    first = netpoll.run_in_thread(poller, name="again")
    try:
        assert netpoll.run_in_thread(poller, name="again") is first
        in_the_loop = threading.Event()
        poller.trigger(netpoll.EventPriority.HIGH, lambda _: in_the_loop.set())
        assert in_the_loop.wait(5)
        with pytest.raises(RuntimeError, match="runs already"):
            netpoll.run_in_thread(poller, name="another")
    finally:
        first.stop()
    with pytest.raises(ValueError, match="closed"):
        netpoll.run_in_thread(poller, name="again")


def test_stop_in_its_own_loop_says_what_to_do() -> None:
    """A task that waits for its own loop's end gets a clear error instead of a hang."""
    errors: list[Exception] = []
    told = threading.Event()

    def on_error(source: object, error: Exception) -> None:
        errors.append(error)
        told.set()

    poller = netpoll.open_poller(on_error=on_error)
    with netpoll.run_in_thread(poller, name="own") as loop:
        poller.trigger(netpoll.EventPriority.HIGH, lambda _: loop.stop())
        assert told.wait(5)
    assert "poller.stop()" in str(errors[0])
