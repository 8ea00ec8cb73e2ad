"""Registering: the error table, and that table and kernel agree after every call."""

import fcntl
import os
import pathlib
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netpoll
from netpoll import AlreadyRegistered, NotRegistered, PollAttachment, Poller
from netpoll.backends.epoll import mask_of

ADDS: list[Any] = [Poller.add_read, Poller.add_write, Poller.add_read_write]
MODS: list[Any] = [Poller.mod_read, Poller.mod_write, Poller.mod_read_write]


def ignore(fd: int, event: int, flags: int) -> None:
    """Be a callback that does nothing."""


def kernel_list(poller: Poller) -> dict[int, int]:
    """Return the interest list as the kernel shows it, without the wakeup."""
    lines = pathlib.Path(f"/proc/self/fdinfo/{poller.fileno()}").read_text().splitlines()
    entries = [line.split() for line in lines if line.startswith("tfd:")]
    always = select.EPOLLERR | select.EPOLLHUP
    listed = {int(entry[1]): int(entry[3], 16) & ~always for entry in entries}
    del listed[poller.wakeup.fd]
    return listed


def table(poller: Poller) -> dict[int, int]:
    """Return what the poller believes is on the kernel's list."""
    return {fd: mask_of(select, known.interest) for fd, known in poller._registrations.items()}


@pytest.fixture
def here() -> Iterator[socket.socket]:
    here, there = socket.socketpair()
    with here, there:
        yield here


@pytest.fixture
def poller(here: socket.socket) -> Iterator[Poller]:
    with netpoll.open_poller() as poller:
        yield poller
        if not poller.closed:
            assert kernel_list(poller) == table(poller)
            poller.poll_once(0)  # settles what was deleted
            assert set(poller.callbacks) == {*poller.attachments, poller.wakeup.fd}


@pytest.mark.parametrize("edge_triggered", [False, True])
@pytest.mark.parametrize("oneshot", [False, True])
@pytest.mark.parametrize("add", ADDS)
@pytest.mark.parametrize("mod", MODS)
def test_table_and_kernel_agree(
    poller: Poller, here: socket.socket, add: Any, mod: Any, oneshot: bool, edge_triggered: bool
) -> None:
    """After each add, mod and delete, in every mode, the kernel has what the table says."""
    add(poller, PollAttachment(here, ignore), edge_triggered, oneshot=oneshot)
    assert kernel_list(poller) == table(poller) != {}
    mod(poller, PollAttachment(here, ignore), edge_triggered, oneshot=oneshot)
    assert kernel_list(poller) == table(poller) != {}
    poller.delete(here)
    assert kernel_list(poller) == table(poller) == {}


@pytest.mark.parametrize("edge_triggered", [False, True])
@pytest.mark.parametrize("add", ADDS)
def test_exclusive_in_every_direction(
    poller: Poller, here: socket.socket, add: Any, edge_triggered: bool
) -> None:
    """Exclusive masks out PRI and RDHUP, which the kernel would refuse with it."""
    add(poller, PollAttachment(here, ignore), edge_triggered, exclusive=True)
    assert kernel_list(poller) == table(poller)
    mask = kernel_list(poller)[here.fileno()]
    assert mask & select.EPOLLEXCLUSIVE
    assert not mask & (select.EPOLLPRI | select.EPOLLRDHUP)


def test_add_twice_keeps_the_first(poller: Poller, here: socket.socket) -> None:
    """The second add is AlreadyRegistered, a FileExistsError; the first one goes on working."""
    first = PollAttachment(here, ignore)
    poller.add_write(first)
    for add in ADDS:
        with pytest.raises(AlreadyRegistered) as caught:
            add(poller, PollAttachment(here, print))
        assert caught.value.fd == here.fileno()
    assert poller.attachments[here.fileno()] is first
    assert kernel_list(poller) == table(poller)
    assert poller.poll_once(0) == 1


@pytest.mark.parametrize("closed", [False, True])
def test_mod_and_delete_of_the_unknown(poller: Poller, closed: bool) -> None:
    """mod_* and delete of what was never registered are NotRegistered, closed or not."""
    here, there = socket.socketpair()
    attachment = PollAttachment(here, ignore)
    if closed:
        here.close()
    for mod in MODS:
        with pytest.raises(NotRegistered):
            mod(poller, attachment)
    with pytest.raises(NotRegistered) as caught:
        poller.delete(attachment.fd)
    assert caught.value.fd == attachment.fd
    here.close()
    there.close()


def test_add_of_a_closed_descriptor(poller: Poller, here: socket.socket) -> None:
    """A descriptor that was closed meanwhile is a ValueError, and nothing is left behind."""
    attachment = PollAttachment(os.dup(here.fileno()), ignore)
    os.close(attachment.fd)
    for add in ADDS:
        with pytest.raises(ValueError, match="closed"):
            add(poller, attachment)
    assert not poller.attachments


def test_mod_of_a_closed_descriptor(poller: Poller, here: socket.socket) -> None:
    """It is a ValueError; the registration stays as it was, and delete cleans it up."""
    number = os.dup(here.fileno())
    first = PollAttachment(number, ignore)
    poller.add_read(first)
    os.close(number)
    with pytest.raises(ValueError, match="closed"):
        poller.mod_write(PollAttachment(number, ignore))
    assert poller.attachments[number] is first
    poller.delete(number)
    assert not poller.attachments


def test_mod_when_the_number_stands_for_another_file(poller: Poller, here: socket.socket) -> None:
    """Closed without delete and reused, mod_* is NotRegistered, and forgets the old one."""
    other, peer = socket.socketpair()
    number = other.fileno()
    poller.add_read(PollAttachment(number, ignore))
    os.dup2(here.fileno(), number)
    with pytest.raises(NotRegistered):
        poller.mod_read(PollAttachment(number, ignore))
    assert kernel_list(poller) == table(poller) == {}
    poller.add_read(PollAttachment(number, ignore))
    poller.delete(number)
    other.close()
    peer.close()


@pytest.mark.parametrize("path", [__file__, os.path.dirname(__file__)])
def test_regular_file_and_directory(poller: Poller, path: str) -> None:
    """Epoll takes neither: a PermissionError that says so, and nothing is left behind."""
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(PermissionError, match="regular file or directory"):
        poller.add_read(PollAttachment(fd, ignore))
    assert kernel_list(poller) == table(poller) == {}
    os.close(fd)


def test_descriptor_above_the_kernels_int(poller: Poller) -> None:
    """A number that no C int holds is an OverflowError."""
    with pytest.raises(OverflowError):
        poller.add_read(PollAttachment(2**31, ignore))
    assert not poller.attachments


def test_the_pollers_own_descriptors(poller: Poller) -> None:
    """Neither the epoll descriptor nor the wakeup can be added; the wakeup goes on working."""
    with pytest.raises(OSError, match="Invalid"):
        poller.add_read(PollAttachment(poller, ignore))
    with pytest.raises(AlreadyRegistered):
        poller.add_read(PollAttachment(poller.wakeup.fd, ignore))
    for method in (poller.mod_read, lambda one: poller.delete(one.fd)):
        with pytest.raises(NotRegistered):
            method(PollAttachment(poller.wakeup.fd, ignore))
    poller.poll_once(0)
    ran: list[int] = []
    poller.trigger(netpoll.EventPriority.HIGH, ran.append, 1)
    assert kernel_readable(poller)
    poller.poll_once(0)
    assert ran == [1]


def kernel_readable(poller: Poller) -> bool:
    """Return whether a wait would return at once."""
    return bool(select.select([poller], [], [], 0)[0])


def test_modes_that_exclude_each_other(poller: Poller, here: socket.socket) -> None:
    """Exclusive with one-shot, and mod_* of an exclusive one, are ValueErrors."""
    attachment = PollAttachment(here, ignore)
    for add in ADDS:
        with pytest.raises(ValueError, match="exclude each other"):
            add(poller, attachment, oneshot=True, exclusive=True)
    poller.add_read(attachment, exclusive=True)
    for mod in MODS:
        with pytest.raises(ValueError, match="delete it and add it anew"):
            mod(poller, attachment)
    assert kernel_list(poller) == table(poller)
    assert poller.attachments[here.fileno()] is attachment


@pytest.mark.parametrize("bad", [None, 7, "socket", ignore])
def test_anything_but_an_attachment(poller: Poller, bad: Any) -> None:
    """A bare descriptor or function is a TypeError before any system call."""
    for method in (*ADDS, *MODS):
        with pytest.raises(TypeError, match="PollAttachment"):
            method(poller, bad)


@pytest.mark.parametrize("bad", [True, None, "7", 1.5])
def test_delete_of_a_non_descriptor(poller: Poller, bad: Any) -> None:
    """Delete takes ints and objects with `fileno()`, nothing else."""
    with pytest.raises(TypeError, match="descriptor"):
        poller.delete(bad)


def test_delete_of_a_negative(poller: Poller, here: socket.socket) -> None:
    """A negative number, such as a closed socket's, is a ValueError."""
    with pytest.raises(ValueError, match="negative"):
        poller.delete(-1)
    here.close()
    with pytest.raises(ValueError, match="closed"):
        poller.delete(here)


def test_numbers_and_objects_are_the_same(poller: Poller, here: socket.socket) -> None:
    """What was added by number can be deleted by object, and the other way round."""
    poller.add_read(PollAttachment(here.fileno(), ignore))
    poller.delete(here)
    poller.add_read(PollAttachment(here, ignore))
    poller.delete(here.fileno())
    assert not poller.attachments


def test_unexpected_refusal_rolls_back(
    poller: Poller, here: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the kernel refuses with, the table is as before: no entry, or the old one."""

    def refuse(*_: object) -> bool:
        raise OSError(12, "Cannot allocate memory")

    attachment = PollAttachment(here, ignore)
    with monkeypatch.context() as patch:
        patch.setattr(poller.backend, "add", refuse)
        with pytest.raises(OSError, match="memory"):
            poller.add_read(attachment)
    assert not poller.attachments
    poller.add_read(attachment)
    with monkeypatch.context() as patch:
        patch.setattr(poller.backend, "modify", refuse)
        with pytest.raises(OSError, match="memory"):
            poller.mod_write(PollAttachment(here, ignore))
    assert poller.attachments[here.fileno()] is attachment
    assert kernel_list(poller) == table(poller)


# ---- closed without delete --------------------------------------------------------------------


@pytest.mark.parametrize("survives", [False, True])
def test_delete_after_close(poller: Poller, survives: bool) -> None:
    """Delete of a closed descriptor succeeds; a surviving duplicate's events do not appear."""
    here, there = socket.socketpair()
    calls: list[int] = []
    poller.add_read(PollAttachment(here, lambda fd, *_: calls.append(fd)))
    number = here.fileno()
    survivor = here.dup() if survives else None
    here.close()
    there.send(b"x") if survivor else None
    poller.delete(number)
    assert [poller.poll_once(0) for _ in range(2)] == [0, 0]
    assert calls == []
    with pytest.raises(NotRegistered):
        poller.delete(number)
    there.close()
    if survivor:
        survivor.close()


@pytest.mark.parametrize("survives", [False, True])
def test_number_added_again_after_close(poller: Poller, survives: bool) -> None:
    """The new registration replaces the old one and has its own events only."""
    here, there = socket.socketpair()
    other, peer = socket.socketpair()
    calls: list[str] = []
    number = here.fileno()
    poller.add_read(PollAttachment(here, lambda *_: calls.append("old")))
    survivor = here.dup() if survives else None
    here.close()
    os.dup2(other.fileno(), number)
    new = PollAttachment(number, lambda *_: calls.append("new"))
    poller.add_read(new)
    assert poller.attachments == {number: new}
    there.send(b"x") if survivor else None
    assert poller.poll_once(0) == 0
    peer.send(b"x")
    assert poller.poll_once(0) == 1
    assert calls == ["new"]
    poller.delete(number)
    os.close(number)
    for one in (there, other, peer, *([survivor] if survivor else [])):
        one.close()


def test_delete_when_descriptors_run_out(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete that can't rebuild the kernel's set raises, and the loop survives what is left."""
    here, there = socket.socketpair()
    number = here.fileno()
    poller.add_read(PollAttachment(here, ignore))
    survivor = here.dup()
    here.close()

    def no_more() -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", no_more)
        with pytest.raises(OSError, match="Too many"):
            poller.delete(number)
    there.send(b"x")
    assert [poller.poll_once(0) for _ in range(3)] == [0, 0, 0]
    assert kernel_list(poller) == table(poller) == {}
    there.close()
    survivor.close()


# ---- what is registered -----------------------------------------------------------------------


def test_attachments_is_a_live_view(poller: Poller, here: socket.socket) -> None:
    """`attachments` shows what is registered now, and can't be written to."""
    view: Any = poller.attachments
    assert len(view) == 0
    attachment = PollAttachment(here, ignore)
    poller.add_read(attachment)
    assert dict(view) == {here.fileno(): attachment}
    assert view[here.fileno()] is attachment
    assert here.fileno() in view
    assert repr(attachment) in repr(view)
    with pytest.raises(TypeError):
        view[here.fileno()] = attachment
    with pytest.raises(KeyError):
        view[10**6]


def test_attachments_while_deleting(poller: Poller) -> None:
    """Deleting in a loop over `attachments` is fine."""
    pairs = [socket.socketpair() for _ in range(4)]
    for here, _ in pairs:
        poller.add_read(PollAttachment(here, ignore))
    for fd in poller.attachments:
        poller.delete(fd)
    assert not poller.attachments
    for one in pairs:
        one[0].close()
        one[1].close()


# ---- closed -----------------------------------------------------------------------------------

METHODS: list[Callable[[Poller, PollAttachment], object]] = [
    *ADDS,
    *MODS,
    lambda poller, attachment: poller.delete(attachment.fd),
    lambda poller, _: poller.polling(),
    lambda poller, _: poller.poll_once(0),
    lambda poller, _: poller.trigger(netpoll.EventPriority.LOW, print),
    lambda poller, _: poller.fileno(),
    lambda poller, _: poller.__enter__(),
]


@pytest.mark.parametrize("method", METHODS)
def test_closed_poller(
    poller: Poller, here: socket.socket, method: Callable[[Poller, PollAttachment], object]
) -> None:
    """On a closed poller every method is a ValueError; close and stop do nothing."""
    attachment = PollAttachment(here, ignore)
    poller.add_read(attachment)
    poller.close()
    assert poller.closed
    with pytest.raises(ValueError, match="closed"):
        method(poller, attachment)
    poller.stop()
    poller.close()


# ---- any sequence -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "mod", "delete", "close", "dup", "write", "round"]),
            st.integers(0, 2),
            st.integers(0, 2),
            st.booleans(),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_any_sequence(actions: list[tuple[str, int, int, bool, bool]]) -> None:
    """Whatever is added, modified, deleted, closed, duplicated, used again: they agree."""
    called: list[int] = []
    descriptors = [500, 501, 502]
    duplicates: list[int] = []
    closed: set[int] = set()  # now
    stale: set[int] = set()  # registered, and closed since
    for fd in descriptors:
        open_as(fd)
    with netpoll.open_poller() as poller:
        for action, which, direction, edge_triggered, oneshot in actions:
            fd = descriptors[which]
            attachment = PollAttachment(fd, lambda fd, *_: called.append(fd))
            known = fd in poller.attachments
            try:
                if action == "add":
                    ADDS[direction](poller, attachment, edge_triggered, oneshot=oneshot)
                    assert fd not in closed
                    assert not known or fd in stale
                    stale.discard(fd)
                elif action == "mod":
                    MODS[direction](poller, attachment, edge_triggered, oneshot=oneshot)
                    assert known
                    assert fd not in stale
                elif action == "delete":
                    poller.delete(fd)
                    assert known
                    stale.discard(fd)
                elif action == "close" and fd not in closed:
                    os.close(fd)
                    closed.add(fd)
                    if known:
                        stale.add(fd)
                elif action == "close":
                    open_as(fd)  # another file, the same number
                    closed.remove(fd)
                elif action == "dup" and fd not in closed:
                    duplicates.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 600))
                elif action == "write" and fd not in closed:
                    os.eventfd_write(fd, 1)
                elif action == "round":
                    called.clear()
                    assert poller.poll_once(0) == len(called)
            except AlreadyRegistered:
                assert action == "add"
                assert known
            except NotRegistered:
                assert not known or (action == "mod" and fd in stale)
                stale.discard(fd)
            except ValueError:
                assert action in ("add", "mod")
                assert fd in closed
        for fd in stale:
            poller.delete(fd)
        listed, believed = kernel_list(poller), table(poller)
        for fd, registration in poller._registrations.items():
            if registration.fired:  # the kernel shows a disarmed one-shot without its events
                assert fd in listed
                listed[fd] = believed[fd]
        assert listed == believed
    for fd in {*descriptors, *duplicates} - closed:
        os.close(fd)


def open_as(number: int) -> None:
    """Open an eventfd under this number."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    os.dup2(fd, number)
    os.close(fd)
