"""The table of registration errors: after each of them the table and the kernel still agree."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

import netpoll
from netpoll import AlreadyRegistered, NotRegistered, PollAttachment, Poller
from tests.conformance.worlds import (
    ADDS,
    HIGH,
    IN,
    LOW,
    MODS,
    OUT,
    PATIENCE,
    Calls,
    World,
    agree,
    ignore,
    is_silent,
    needs,
    on_real_kernels,
)


def test_added_twice(world: World, poller: Poller) -> None:
    """The second add is AlreadyRegistered, a FileExistsError; the first goes on working."""
    here, there = world.pair()
    calls = Calls()
    first = calls.of(here, "first")
    poller.add_read(first)
    for add in ADDS:
        with pytest.raises(AlreadyRegistered) as caught:
            add(poller, calls.of(here, "second"))
        assert isinstance(caught.value, FileExistsError)
        assert caught.value.fd == here.fileno()
    assert poller.attachments == {here.fileno(): first}
    assert agree(world, poller)
    assert calls.in_rounds(poller, 1) == [0]
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    assert calls.names == ["first"]


@pytest.mark.parametrize("closed", [False, True])
def test_never_registered(world: World, poller: Poller, closed: bool) -> None:
    """mod_* and delete are NotRegistered, a FileNotFoundError, whether it is open or closed."""
    here, there = world.pair()
    attachment = PollAttachment(here, ignore)
    there.send(b"x")
    if closed:
        here.close()
    for method in (*MODS, lambda poller, attachment: poller.delete(attachment.fd)):
        with pytest.raises(NotRegistered) as caught:
            method(poller, attachment)
        assert isinstance(caught.value, FileNotFoundError)
        assert caught.value.fd == attachment.fd
    assert agree(world, poller)
    assert poller.poll_once(0) == 0


def test_deleted_twice(world: World, poller: Poller) -> None:
    """After delete it is not registered, nothing is reported, and it can be added again."""
    here, there = world.pair()
    calls = Calls()
    there.send(b"x")
    for _ in range(2):
        poller.add_read(calls.of(here))
        assert calls.in_rounds(poller, 1) == [IN]
        poller.delete(here)
        with pytest.raises(NotRegistered):
            poller.delete(here)
        assert calls.in_rounds(poller, 1) == [0]
    assert not poller.attachments
    assert agree(world, poller)
    assert is_silent(world, poller)


@pytest.mark.parametrize("add", ADDS)
def test_add_of_a_closed_descriptor(world: World, poller: Poller, add: Any) -> None:
    """It is a ValueError, and nothing is left behind."""
    here, _ = world.pair()
    attachment = PollAttachment(here, ignore)
    here.close()
    with pytest.raises(ValueError, match="closed"):
        add(poller, attachment)
    assert not poller.attachments
    assert agree(world, poller)


@pytest.mark.parametrize("mod", MODS)
def test_mod_of_a_closed_descriptor(world: World, poller: Poller, mod: Any) -> None:
    """It is a ValueError; the registration stays as it was, and delete cleans it up."""
    here, _ = world.pair()
    first = PollAttachment(here, ignore)
    poller.add_read(first)
    here.close()
    with pytest.raises(ValueError, match="closed"):
        mod(poller, PollAttachment(first.fd, ignore))
    assert poller.attachments == {first.fd: first}
    poller.delete(first.fd)
    assert not poller.attachments
    assert agree(world, poller)


def test_negative_numbers(world: World, poller: Poller) -> None:
    """A negative number, such as a closed socket's, is a ValueError."""
    here, _ = world.pair()
    for wrong in (-1, -(2**40)):
        with pytest.raises(ValueError, match="negative"):
            PollAttachment(wrong, ignore)
        with pytest.raises(ValueError, match="negative"):
            poller.delete(wrong)
    here.close()
    with pytest.raises(ValueError, match="closed"):
        PollAttachment(here, ignore)
    with pytest.raises(ValueError, match="closed"):
        poller.delete(here)


@pytest.mark.parametrize("wrong", [True, None, "7", 1.5, b"7", [3]])
def test_what_is_no_descriptor(world: World, poller: Poller, wrong: Any) -> None:
    """It is a TypeError, a bool too, for the attachment as for delete."""
    with pytest.raises(TypeError, match="descriptor"):
        PollAttachment(wrong, ignore)
    with pytest.raises(TypeError, match="descriptor"):
        poller.delete(wrong)


@pytest.mark.parametrize("method", [*ADDS, *MODS])
def test_wrong_types_reach_no_kernel(
    world: World, poller: Poller, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no attachment, or can't be called, is a TypeError before any system call."""
    here, _ = world.pair()
    for name in ("add", "modify", "remove"):
        monkeypatch.setattr(poller.backend, name, lambda *_: pytest.fail("asked the backend"))
    for wrong in (None, 7, here, ignore):
        with pytest.raises(TypeError, match="PollAttachment"):
            method(poller, wrong)
    uncallable: Any = 7
    with pytest.raises(TypeError, match="callback"):
        method(poller, PollAttachment(here, uncallable))


@pytest.mark.parametrize("add", ADDS)
def test_number_above_the_kernels_int(world: World, poller: Poller, add: Any) -> None:
    """No C int holds it: an OverflowError."""
    for number in (2**31, 2**64):
        with pytest.raises(OverflowError):
            add(poller, PollAttachment(number, ignore))
    assert not poller.attachments
    assert agree(world, poller)


@on_real_kernels
@pytest.mark.parametrize("path", [__file__, os.path.dirname(__file__)])
def test_regular_file_and_directory(world: World, poller: Poller, path: str) -> None:
    """On epoll neither is taken: PermissionError. Elsewhere they are always ready.

    The simulated kernel has no files.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        if world.backend == "epoll":
            for add in ADDS:
                with pytest.raises(PermissionError, match="regular file or directory"):
                    add(poller, PollAttachment(fd, ignore))
            assert not poller.attachments
            assert agree(world, poller)
        else:
            poller.add_read(PollAttachment(fd, ignore))
            assert poller.poll_once(0) == 1
            poller.delete(fd)
    finally:
        os.close(fd)


def test_the_pollers_own_descriptors(world: World, poller: Poller) -> None:
    """Neither the kernel's object nor the wakeup can be registered, and the wakeup goes on."""
    if world.backend != "select":
        with pytest.raises(OSError) as caught:  # noqa: PT011 (what it says is each kernel's own)
            poller.add_read(PollAttachment(poller, ignore))
        assert caught.value.errno == errno.EINVAL
    wakeup = PollAttachment(poller.wakeup.fd, ignore)
    for add in ADDS:
        with pytest.raises(AlreadyRegistered):
            add(poller, wakeup)
    for method in (*MODS, lambda poller, wakeup: poller.delete(wakeup.fd)):
        with pytest.raises(NotRegistered):
            method(poller, wakeup)
    assert not poller.attachments
    ran: list[int] = []
    world.after(world.tick, lambda: poller.trigger(HIGH, ran.append, 1))
    while not ran:
        assert poller.poll_once(PATIENCE) == 0


@pytest.mark.parametrize("add", ADDS)
def test_modes_that_exclude_each_other(world: World, poller: Poller, add: Any) -> None:
    """Exclusive with one-shot is a ValueError, before the backend is asked what it can."""
    here, _ = world.pair()
    with pytest.raises(ValueError, match="exclude each other"):
        add(poller, PollAttachment(here, ignore), oneshot=True, exclusive=True)
    assert not poller.attachments
    assert agree(world, poller)


@pytest.mark.parametrize("mod", MODS)
@needs("exclusive")
def test_mod_of_an_exclusive_one(world: World, poller: Poller, mod: Any) -> None:
    """It is a ValueError; the registration stays as it was."""
    here, there = world.pair()
    calls = Calls()
    first = calls.of(here, "first")
    poller.add_read(first, exclusive=True)
    with pytest.raises(ValueError, match="delete it and add it anew"):
        mod(poller, calls.of(here, "second"))
    assert poller.attachments == {here.fileno(): first}
    assert agree(world, poller)
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    assert calls.names == ["first"]


def test_unexpected_refusal_rolls_back(
    world: World, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the kernel refuses with, the table is as before: no entry, or the old one."""
    here, there = world.pair()
    calls = Calls()

    def refuse(*_: object) -> bool:
        raise OSError(12, "Cannot allocate memory")

    first = calls.of(here, "first")
    with monkeypatch.context() as patch:
        patch.setattr(poller.backend, "add", refuse)
        with pytest.raises(OSError, match="memory"):
            poller.add_read(first)
    assert not poller.attachments
    poller.add_read(first)
    with monkeypatch.context() as patch:
        patch.setattr(poller.backend, "modify", refuse)
        with pytest.raises(OSError, match="memory"):
            poller.mod_write(calls.of(here, "second"))
    there.send(b"x")
    assert calls.in_rounds(poller, 1) == [IN]
    assert calls.names == ["first"]


def test_descriptors_are_numbers_or_objects(world: World, poller: Poller) -> None:
    """What was added by number can be deleted by object, and the other way round."""
    here, _ = world.pair()
    poller.add_read(PollAttachment(here.fileno(), ignore))
    poller.delete(here)
    poller.add_read(PollAttachment(here, ignore))
    poller.delete(here.fileno())
    assert not poller.attachments


def test_attachments_is_a_live_read_only_view(world: World, poller: Poller) -> None:
    """It maps the number to the attachment of the latest add or mod, and can't be written to."""
    here, _ = world.pair()
    view: Any = poller.attachments
    assert dict(view) == {}
    first, second = PollAttachment(here, ignore), PollAttachment(here, ignore)
    poller.add_read(first)
    assert dict(view) == {here.fileno(): first}
    poller.mod_write(second)
    assert dict(view) == {here.fileno(): second}
    with pytest.raises(TypeError):
        view[here.fileno()] = first
    poller.delete(here)
    assert dict(view) == {}


@pytest.mark.parametrize("oneshot", [False, True])
@pytest.mark.parametrize("edge_triggered", [False, True])
@pytest.mark.parametrize("add", ADDS)
@pytest.mark.parametrize("mod", MODS)
def test_every_add_and_mod(
    world: World, poller: Poller, add: Any, mod: Any, edge_triggered: bool, oneshot: bool
) -> None:
    """In every mode: the kernel reports what the table says, and nothing after delete."""
    here, there = world.pair()
    there.send(b"x")
    calls = Calls()
    bits = dict(zip((*ADDS, *MODS), (IN, OUT, IN | OUT) * 2, strict=True))
    modes = {"edge_triggered": edge_triggered, "oneshot": oneshot}
    if world.backend == "select" and True in modes.values():
        with pytest.raises(NotImplementedError):
            add(poller, calls.of(here), **modes)
        return
    again = 0 if edge_triggered or oneshot else 1
    for method in (add, mod):
        method(poller, calls.of(here), **modes)
        assert agree(world, poller)
        assert calls.in_rounds(poller, 2) == [bits[method], again * bits[method]]
    poller.delete(here)
    assert agree(world, poller)
    assert calls.in_rounds(poller, 1) == [0]


METHODS: list[Callable[[Poller, PollAttachment], object]] = [
    *ADDS,
    *MODS,
    lambda poller, attachment: poller.delete(attachment.fd),
    lambda poller, _: poller.polling(),
    lambda poller, _: poller.poll_once(0),
    lambda poller, _: poller.trigger(LOW, print),
    lambda poller, _: poller.call_later(0, print),
    lambda poller, _: poller.fileno(),
    lambda poller, _: poller.__enter__(),
]


@pytest.mark.parametrize("method", METHODS)
def test_closed_poller(
    world: World, poller: Poller, method: Callable[[Poller, PollAttachment], object]
) -> None:
    """Every method is a ValueError, but close and stop, which do nothing, and `closed`."""
    here, _ = world.pair()
    attachment = PollAttachment(here, ignore)
    poller.add_read(attachment)
    assert not poller.closed
    poller.close()
    assert poller.closed
    with pytest.raises(ValueError, match="closed"):
        method(poller, attachment)
    poller.stop()
    poller.close()
    assert poller.closed


def test_fileno(world: World, poller: Poller) -> None:
    """It is the kernel's object, readable when events are ready; select has none."""
    if world.backend == "select":
        with pytest.raises(OSError, match="select"):
            poller.fileno()
        return
    assert poller.fileno() >= 0
    assert poller.fileno() != poller.wakeup.fd


def test_opening(world: World) -> None:
    """`open_poller` takes the backend by name; a name that is none is a ValueError."""
    poller = world.open_poller()
    assert poller.backend.name == world.backend
    with pytest.raises(ValueError, match="unknown backend"):
        netpoll.open_poller("poll", kernel=world.kernel)
    wrong: Any = 7
    with pytest.raises(TypeError, match="on_error"):
        netpoll.open_poller(world.backend, kernel=world.kernel, on_error=wrong)


@on_real_kernels
def test_descriptors_are_not_inherited(world: World, poller: Poller) -> None:
    """A program that is executed later gets neither the kernel's object nor the wakeup."""
    numbers = [poller.wakeup.fd]
    if world.backend != "select":
        numbers.append(poller.fileno())
    assert not any(map(os.get_inheritable, numbers))
