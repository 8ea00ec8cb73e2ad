"""Other threads: what they register, trigger, stop and close while the loop runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

import netpoll
from netpoll import PollAttachment, Poller
from tests.conformance.worlds import (
    HIGH,
    LOW,
    PATIENCE,
    SIMULATED,
    World,
    agree,
    ignore,
    on_real_kernels,
)


class Loop:
    """A poller that runs in a thread, and the names of the callbacks that it calls."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.poller = world.open_poller()
        self._world = world
        self._called: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._waits = threading.Event()
        self._wait = self.poller.backend.wait
        monkeypatch.setattr(self.poller.backend, "wait", self._noted_wait)
        self._thread = threading.Thread(target=self.poller.polling)
        self._thread.start()

    def _noted_wait(self, timeout: float | None, size: int) -> list[tuple[int, int]]:
        if timeout is None:
            self._waits.set()
        try:
            return self._wait(timeout, size)
        finally:
            self._waits.clear()

    def until_it_waits(self) -> Poller:
        """Return the poller when its loop waits, or is about to."""
        assert self._waits.wait(PATIENCE)
        return self.poller

    def attachment(self, fd: int | netpoll.attachment.HasFileno, name: str) -> PollAttachment:
        """Return an attachment whose callback notes its name, and reads if it can."""

        def callback(fd: int, event: int, flags: int) -> None:
            if netpoll.is_read_event(event):
                self._world.read(fd)
            self._called.put(name)

        return PollAttachment(fd, callback)

    def next_call(self) -> str:
        """Wait for a callback to be called and return its name."""
        return self._called.get(timeout=PATIENCE)

    def is_silent(self) -> bool:
        """Return whether nothing was called, after two more rounds."""
        over = threading.Event()
        self.poller.trigger(HIGH, lambda _: self.poller.trigger(HIGH, lambda _: over.set()))
        assert over.wait(PATIENCE)
        return self._called.empty()

    def ended(self) -> bool:
        """Wait for polling() to return."""
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()


@pytest.fixture
def loop(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop(world, monkeypatch)
    yield loop
    loop.poller.stop()
    assert loop.ended()


def run_all(works: list[Callable[[], object]]) -> None:
    """Run each in a thread of its own, all at once; an exception in one fails the test."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@on_real_kernels
def test_add_during_a_wait(world: World, loop: Loop) -> None:
    """A wait under way reports what is added meanwhile, ready at once or later."""
    (here, there), (other, peer) = world.pair(), world.pair()
    loop.until_it_waits().add_read(loop.attachment(here, "later"))
    there.send(b"x")
    assert loop.next_call() == "later"
    peer.send(b"x")
    loop.until_it_waits().add_read(loop.attachment(other, "at once"))
    assert loop.next_call() == "at once"
    assert loop.is_silent()


@on_real_kernels
def test_mod_during_a_wait(world: World, loop: Loop) -> None:
    """A wait under way honors the new interest and calls the new callback, time and again."""
    here, there = world.pair()
    loop.poller.add_read(loop.attachment(here, "read"))

    def write_once(fd: int, event: int, flags: int) -> None:
        loop.poller.mod_read(loop.attachment(fd, "read"))
        written.callback(fd, event, flags)

    written = loop.attachment(here, "written")
    for _ in range(20):
        loop.until_it_waits().mod_write(PollAttachment(here, write_once))
        assert loop.next_call() == "written"
    assert loop.is_silent()
    there.send(b"x")
    assert loop.next_call() == "read"


@on_real_kernels
def test_delete_during_a_wait(world: World, loop: Loop) -> None:
    """What is deleted is not called by the wait under way; added again, it is, by that wait."""
    here, there = world.pair()
    loop.poller.add_read(loop.attachment(here, "old"))
    poller = loop.until_it_waits()
    poller.delete(here)
    there.send(b"x")
    assert loop.is_silent()
    assert set(poller.callbacks) == {poller.wakeup.fd}
    loop.until_it_waits().add_read(loop.attachment(here, "new"))
    assert loop.next_call() == "new"


@on_real_kernels
def test_delete_with_an_event_pending(world: World, loop: Loop) -> None:
    """Deleted while the loop is busy elsewhere, its event is dropped, in the batch or not."""
    (here, there), (busy, peer) = world.pair(), world.pair()
    entered, go_on = threading.Event(), threading.Event()

    def callback(fd: int, event: int, flags: int) -> None:
        world.read(fd)
        entered.set()
        assert go_on.wait(PATIENCE)

    loop.poller.add_read(PollAttachment(busy, callback))
    loop.poller.add_read(loop.attachment(here, "deleted"))
    peer.send(b"x")
    assert entered.wait(PATIENCE)
    there.send(b"x")
    loop.poller.delete(here)
    go_on.set()
    assert loop.is_silent()


@pytest.mark.parametrize("change", ["delete", "add", "modify"])
@on_real_kernels
def test_closed_one_changed_during_a_wait(world: World, loop: Loop, change: str) -> None:
    """Closed without delete, a duplicate alive: the wait reports the others and what is new."""
    (here, there), (other, peer), (closed, _) = (world.pair() for _ in range(3))
    world.dup(closed)
    loop.poller.add_read(loop.attachment(other, "other"))
    loop.poller.add_read(loop.attachment(closed, "closed"))
    number = closed.fileno()
    new = loop.attachment(number, "new")
    poller = loop.until_it_waits()
    closed.close()
    if change == "delete":
        poller.delete(number)
    world.dup2(here, number)
    if change == "modify":
        with pytest.raises(netpoll.NotRegistered):
            poller.mod_read(new)
    poller.add_read(new)
    there.send(b"x")
    assert loop.next_call() == "new"
    peer.send(b"x")
    assert loop.next_call() == "other"
    assert loop.is_silent()


@on_real_kernels
def test_each_trigger_ends_its_wait(world: World, loop: Loop) -> None:
    """One trigger, wait for its task, the next trigger: 300 times, and none is missed."""
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(300):
        loop.poller.trigger(HIGH, done.put, number)
        assert done.get(timeout=PATIENCE) == number


@on_real_kernels
def test_triggers_from_many_threads(world: World, loop: Loop) -> None:
    """All tasks run once, those of one thread and priority in their order."""
    ran: dict[tuple[int, int], list[int]] = {}
    over = threading.Event()

    def push(name: int) -> None:
        for number in range(500):
            for priority in (HIGH, LOW):
                loop.poller.trigger(priority, ran[name, priority].append, number)

    for name in range(8):
        ran.update({(name, HIGH): [], (name, LOW): []})
    run_all([lambda name=name: push(name) for name in range(8)])  # type: ignore[misc]
    loop.poller.trigger(LOW, lambda _: over.set())
    assert over.wait(PATIENCE)
    assert list(ran.values()) == [list(range(500))] * 16


@on_real_kernels
def test_registrations_from_many_threads(world: World, loop: Loop) -> None:
    """Threads add, modify, delete and reuse numbers while the loop dispatches: nothing is left."""
    poller = loop.poller
    ends = [world.pair() for _ in range(4)]

    def spurious(fd: int, event: int, flags: int) -> None:
        """Be called for a number that another thread has just reused, and survive it."""

    def work(number: int) -> None:
        here, there = ends[number]
        there.send(b"x")
        for _ in range(60):
            attachment = PollAttachment(world.dup(here), spurious)
            poller.add_read(attachment)
            poller.mod_read_write(attachment)
            poller.delete(attachment.fd)
            world.close(attachment.fd)

    run_all([lambda number=number: work(number) for number in range(4)])  # type: ignore[misc]
    assert loop.is_silent()
    assert not poller.attachments
    assert set(poller.callbacks) == {poller.wakeup.fd}
    assert agree(world, poller)


@on_real_kernels
def test_stop_from_another_thread(world: World, loop: Loop) -> None:
    """It ends a wait that nothing else would end; the loop can be run again by any thread."""
    loop.until_it_waits().stop()
    assert loop.ended()
    ran: list[str] = []
    loop.poller.trigger(HIGH, lambda _: ran.append(threading.current_thread().name))
    loop.poller.stop()
    loop.poller.polling()
    assert ran == [threading.current_thread().name]


@on_real_kernels
def test_close_from_another_thread(world: World, loop: Loop) -> None:
    """It ends the wait and returns when the descriptors are given back; polling() returns."""
    before = world.open_descriptors()
    poller = loop.until_it_waits()
    run_all([poller.close] * 3)
    assert len(world.open_descriptors()) < len(before)
    assert loop.ended()
    with pytest.raises(ValueError, match="closed"):
        poller.trigger(HIGH, int)


@on_real_kernels
def test_close_waits_for_the_callback_under_way(world: World, loop: Loop) -> None:
    """A close from outside does not pull the floor from under it; the batch ends with it."""
    order: list[str] = []

    def close() -> None:
        loop.poller.close()
        order.append("closed")

    closer = threading.Thread(target=close)

    def callback(fd: int, event: int, flags: int) -> None:
        closer.start()
        while not loop.poller.closed:
            closer.join(0.001)
        closer.join(4 * world.tick)  # as long as it takes one that does not wait
        assert closer.is_alive()
        order.append("callback ends")

    loop.poller.add_write(PollAttachment(world.pair()[0], callback))
    assert loop.ended()
    closer.join()
    assert order == ["callback ends", "closed"]


@on_real_kernels
def test_close_while_others_trigger(world: World, loop: Loop) -> None:
    """Threads that go on triggering get ValueError, and write to no strange descriptor."""
    endings: list[str] = []
    busy = threading.Barrier(4)

    def trigger() -> None:
        loop.poller.trigger(HIGH, int, 0)
        busy.wait(PATIENCE)
        try:
            while True:
                loop.poller.trigger(HIGH, int, 0)
        except ValueError as error:
            endings.append(str(error))

    def close() -> None:
        busy.wait(PATIENCE)
        loop.poller.close()
        ends.extend(world.pair() for _ in range(4))

    ends: list[tuple[object, object]] = []
    run_all([trigger, trigger, trigger, close])
    assert endings == ["the poller is closed"] * 3
    for end in (end for pair in ends for end in pair):
        with pytest.raises(BlockingIOError):
            end.recv(1)  # type: ignore[attr-defined]


@on_real_kernels
def test_no_second_loop_in_another_thread(world: World, loop: Loop) -> None:
    """While one thread runs the loop, polling() and poll_once() in another are RuntimeErrors."""
    poller = loop.until_it_waits()
    for method in (poller.polling, poller.poll_once):
        with pytest.raises(RuntimeError, match="runs already"):
            method()
    assert loop.is_silent()


@pytest.mark.parametrize("world", SIMULATED, indirect=True)
def test_simulated_kernel_has_one_thread(world: World, poller: Poller) -> None:
    """What another thread asks of the simulated kernel is a RuntimeError that says so."""
    here, _ = world.pair()
    errors: list[str] = []

    def act() -> None:
        for method in (
            lambda: poller.add_read(PollAttachment(here, ignore)),
            lambda: poller.trigger(HIGH, int, 0),
            lambda: poller.poll_once(0),
        ):
            with pytest.raises(RuntimeError) as caught:
                method()
            errors.append(str(caught.value))

    run_all([act])
    assert len(errors) == 3
    assert all("thread" in error for error in errors)
    assert not poller.attachments
