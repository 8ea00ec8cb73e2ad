"""A recording is the same thing on every backend, and on the simulated kernel too."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

import netpoll
import netpoll.simulated
import tracer
from netpoll import PollAttachment, sockets
from netpoll.simulated import Kernel
from tests.test_recorder_steps import of, only
from tracer.trace import Trace

BACKENDS = {
    "epoll": ("epoll", None),
    "select": ("select", None),
    "simulated epoll": ("epoll", Kernel),
    "simulated kqueue": ("kqueue", Kernel),
}


@pytest.fixture(params=BACKENDS)
def echoed(request: pytest.FixtureRequest) -> Iterator[Trace]:
    """Record an echo and the end of the stream; the same program in every world."""
    backend, make = BACKENDS[request.param]
    kernel: Any = make and make()
    with contextlib.ExitStack() as stack:
        poller = stack.enter_context(netpoll.open_poller(backend, kernel=kernel))
        here, there = (kernel or socket).socketpair()
        stack.callback(here.close)
        stack.callback(there.close)
        here.setblocking(False)

        def echo(fd: int, event: int, flags: int) -> None:
            data = sockets.read(here, 100)
            if data:
                sockets.write(here, data)
                there.recv(100)
                there.shutdown(socket.SHUT_WR)
            else:
                poller.delete(here)
                here.close()
                poller.call_later(1.5 if kernel else 0.001, lambda _: poller.stop())

        with tracer.record(poller) as trace:
            poller.add_read(PollAttachment(here, echo))
            there.send(b"hello")
            poller.polling()
        yield trace


def test_same_story_on_every_backend(echoed: Trace) -> None:
    """Registration, wait, dispatch, bytes, end and timer, each with its cause."""
    steps = [step for step in echoed if step.kind != "BatchResized"]
    assert [step.kind for step in steps] == [
        *["Registered", "WaitStarted", "WaitEnded"],
        *["DispatchStarted", "Read", "Wrote", "Read", "DispatchEnded", "WaitStarted", "WaitEnded"],
        *["DispatchStarted", "Read", "Deleted", "Closed", "TimerSet", "DispatchEnded"],
        *["WaitStarted", "WaitEnded", "TimerFired", "TaskStarted", "WakeupSent", "TaskEnded"],
    ]
    registered, _, ended, started, *inside = cast("list[Any]", steps[:8])
    assert registered.who == "socket pair"
    assert ended.events == ((registered.fd, 1),)
    assert started.cause == ended.seq
    assert {step.cause for step in inside} == {started.seq}
    assert [step.count for step in of(echoed, "Read")] == [5, 5, 0]
    assert only(echoed, "TimerFired").cause == only(echoed, "TimerSet").seq
    assert tracer.Replay(echoed).state(len(echoed) - 1).error is None


def test_virtual_clock() -> None:
    """On the simulated kernel steps have its times: a wait lasts as long as it says."""
    kernel = Kernel()
    with netpoll.open_poller("epoll", kernel=kernel) as poller:
        kernel.sleep(5)
        with tracer.record(poller) as trace:
            poller.poll_once(0.25)
    began, ended = trace
    assert (began.t_ns, ended.t_ns) == (5_000_000_000, 5_250_000_000)


def test_names_of_the_simulated_kernel() -> None:
    """A descriptor is what it is there, not what its number stands for in this process."""
    kernel = Kernel()
    with netpoll.open_poller("kqueue", kernel=kernel) as poller, tracer.record(poller) as trace:
        listener = kernel.listen(("127.0.0.1", 9090))
        kernel.connect(("127.0.0.1", 9090))
        connection, _ = listener.accept()
        for one in (listener, connection, kernel.pipe()[0]):
            poller.add_read(PollAttachment(one, print))
    names = [step.who for step in of(trace, "Registered")]
    assert names == ["listener :9090", "127.0.0.1:49152", "reading end of a pipe"]


def test_flags_of_kqueue() -> None:
    """The raw flags that the callback gets stand in its DispatchStarted."""
    kernel = Kernel()
    seen: list[int] = []
    with netpoll.open_poller("kqueue", kernel=kernel) as poller, tracer.record(poller) as trace:
        here, there = kernel.socketpair()
        poller.add_read(PollAttachment(here, lambda fd, event, flags: seen.append(flags)))
        there.close()
        poller.poll_once(0)
    assert seen
    assert seen[0] & kernel.KQ_EV_EOF
    assert only(trace, "DispatchStarted").flags == seen[0]


def test_sockets_are_themselves_again() -> None:
    """When the last recording has ended, the simulated sockets' methods are the original ones."""
    kernel = Kernel()
    before = vars(netpoll.simulated.Socket)["recv"]
    with netpoll.open_poller("epoll", kernel=kernel) as poller:
        with tracer.record(poller):
            assert vars(netpoll.simulated.Socket)["recv"] is not before
        assert vars(netpoll.simulated.Socket)["recv"] is before


@pytest.mark.parametrize("backend", ["epoll", "select"])
def test_registration_from_another_thread_is_heard_while_recording(backend: str) -> None:
    """What is registered while the loop sleeps is heard, also where that must end the wait."""
    called = threading.Event()
    with netpoll.open_poller(backend) as poller, tracer.record(poller) as trace:
        loop = netpoll.run_in_thread(poller)
        while not of(trace, "WaitStarted"):
            poller.trigger(netpoll.EventPriority.HIGH, lambda _: None)
        here, there = socket.socketpair()
        with here, there:
            there.send(b"x")
            poller.add_read(PollAttachment(here, lambda fd, event, flags: called.set()))
            assert called.wait(10)
            poller.delete(here)
        loop.stop()
    assert of(trace, "ListRebuilt") == []
