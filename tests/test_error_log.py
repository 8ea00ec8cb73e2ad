"""What happens to exceptions when the program says nothing."""

import logging

import pytest

import netpoll
from netpoll import error_log
from netpoll.error_log import ErrorLog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until the test moves it."""
    now = [100.0]
    monkeypatch.setattr(error_log, "monotonic", lambda: now[0])
    return now


def test_first_of_a_kind_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The message names the source and carries the exception."""
    error = RuntimeError("broken")
    ErrorLog()(netpoll.Task(print, 1), error)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("netpoll", logging.ERROR)
    assert "Task(print, 1)" in record.message
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_same_again_is_counted(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Within a second the same exception of the same function is counted, then told."""
    log, source = ErrorLog(), netpoll.PollAttachment(0, print)
    for _ in range(1001):
        log(source, RuntimeError("broken"))
    assert len(caplog.records) == 1
    clock[0] += 1
    log(source, RuntimeError("broken"))
    assert "(1,000 times more" in caplog.records[1].message


def test_others_are_not_held_back(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Another text, another type or another function is another exception."""
    log = ErrorLog()
    log(netpoll.Task(print), RuntimeError("broken"))
    log(netpoll.Task(print), RuntimeError("broken otherwise"))
    log(netpoll.Task(print), ValueError("broken"))
    log(netpoll.Task(repr), RuntimeError("broken"))
    assert len(caplog.records) == 4


def test_memory_is_bounded(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """A program with ever new exceptions does not fill the memory."""
    log = ErrorLog()
    for number in range(1000):
        log(netpoll.Task(print), RuntimeError(str(number)))
    assert len(caplog.records) == 1000
    assert len(log._logged) <= ErrorLog.MOST_KINDS
