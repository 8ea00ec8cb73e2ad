"""The epoll backend against the contract of `netpoll.backends.Backend`, and the kernel's view."""

import itertools
import os
import pathlib
import select
import socket
from collections.abc import Iterator

import pytest

from netpoll import AlreadyRegistered, IOEvent, NotRegistered
from netpoll.backends import Interest, open_backend
from netpoll.backends.epoll import Epoll, mask_of

READ = Interest(read=True, write=False)
WRITE = Interest(read=False, write=True)
BOTH = Interest(read=True, write=True)


@pytest.fixture
def epoll() -> Iterator[Epoll]:
    epoll = Epoll(select)
    yield epoll
    epoll.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def kernel_list(epoll: Epoll) -> dict[int, int]:
    """Return the interest list as the kernel shows it: descriptor to mask."""
    lines = pathlib.Path(f"/proc/self/fdinfo/{epoll.fileno()}").read_text().splitlines()
    entries = [line.split() for line in lines if line.startswith("tfd:")]
    always = select.EPOLLERR | select.EPOLLHUP
    return {int(entry[1]): int(entry[3], 16) & ~always for entry in entries}


def test_opened_by_name_or_by_default() -> None:
    """The default here is epoll, which also has a name."""
    for name in (None, "epoll"):
        backend = open_backend(name)
        assert backend.name == "epoll"
        backend.close()


@pytest.mark.parametrize("name", ["", "Epoll", "iocp"])
def test_unknown_name(name: str) -> None:
    """A name that is none is a ValueError that tells the right ones."""
    with pytest.raises(ValueError, match="'epoll'"):
        open_backend(name)


def test_limits_are_those_of_gnet() -> None:
    """Batches start at 128 within 32 and 1024; tasks are crowded at 1024, 256 low ones a round."""
    assert Epoll.limits == (128, 32, 1024, 1024, 256)


@pytest.mark.parametrize(
    ("interest", "names"),
    [
        (READ, "IN PRI RDHUP"),
        (WRITE, "OUT"),
        (BOTH, "IN PRI RDHUP OUT"),
        (READ._replace(edge_triggered=True), "IN PRI RDHUP ET"),
        (WRITE._replace(edge_triggered=True), "OUT ET"),
        (BOTH._replace(oneshot=True), "IN PRI RDHUP OUT ONESHOT"),
        (READ._replace(exclusive=True), "IN EXCLUSIVE"),
        (BOTH._replace(exclusive=True, edge_triggered=True), "IN OUT ET EXCLUSIVE"),
    ],
)
def test_masks(interest: Interest, names: str) -> None:
    """RDHUP comes with reading and never with writing alone; exclusive does without PRI, RDHUP."""
    expected = 0
    for name in names.split():
        expected |= getattr(select, f"EPOLL{name}")
    assert mask_of(select, interest) == expected


FLAGS = list(itertools.product((False, True), repeat=2))


@pytest.mark.parametrize(("edge", "oneshot"), FLAGS)
@pytest.mark.parametrize("interest", [READ, WRITE, BOTH])
def test_kernel_shows_what_was_asked(
    epoll: Epoll,
    pair: tuple[socket.socket, socket.socket],
    interest: Interest,
    edge: bool,
    oneshot: bool,
) -> None:
    """add, modify and remove do to the kernel's list what they say, in every mode."""
    fd = pair[0].fileno()
    interest = interest._replace(edge_triggered=edge, oneshot=oneshot)
    assert not epoll.add(fd, WRITE)
    assert not epoll.modify(fd, interest)
    assert kernel_list(epoll) == {fd: mask_of(select, interest)}
    assert not epoll.remove(fd)
    assert not epoll.add(fd, interest)
    assert kernel_list(epoll) == {fd: mask_of(select, interest)}
    assert not epoll.remove(fd)
    assert kernel_list(epoll) == {}


def test_errors_change_nothing(epoll: Epoll, pair: tuple[socket.socket, socket.socket]) -> None:
    """Each error is the contract's, and the kernel's list stays what it was."""
    here, there = pair
    epoll.add(here.fileno(), READ)
    before = kernel_list(epoll)
    with pytest.raises(AlreadyRegistered):
        epoll.add(here.fileno(), WRITE)
    with pytest.raises(NotRegistered):
        epoll.modify(there.fileno(), READ)
    with pytest.raises(NotRegistered):
        epoll.remove(there.fileno())
    with pytest.raises(PermissionError, match="regular file"), open(__file__) as file:
        epoll.add(file.fileno(), READ)
    with pytest.raises(OSError, match="Invalid"):
        epoll.add(epoll.fileno(), READ)
    there.close()
    closed = os.dup(here.fileno())
    os.close(closed)
    for method in (epoll.add, epoll.modify):
        with pytest.raises(ValueError, match="closed"):
            method(closed, READ)
    with pytest.raises(ValueError, match="closed"):
        epoll.remove(closed)
    assert kernel_list(epoll) == before


def test_wait_is_the_kernels_own_function(epoll: Epoll) -> None:
    """Nothing stands between the loop and the system call."""
    assert getattr(epoll.wait, "__self__", None).__class__ is select.epoll


def test_wait_returns_at_most_size_and_one_pair_a_descriptor(
    epoll: Epoll, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Read and write readiness of one descriptor come as one event; `size` bounds the batch."""
    here, there = pair
    there.send(b"x")
    for one in pair:
        epoll.add(one.fileno(), BOTH)
    assert len(epoll.wait(0, 1)) == 1
    events = dict(epoll.wait(0, 8))
    assert events == {here.fileno(): IOEvent.IN | IOEvent.OUT, there.fileno(): IOEvent.OUT}


def test_closed_number_used_again_replaces(epoll: Epoll) -> None:
    """A number closed without remove and added for another file has that file's events only."""
    here, there = socket.socketpair()
    number = here.fileno()
    epoll.add(number, READ)
    survivor = here.dup()
    other, peer = socket.socketpair()
    here.close()
    os.dup2(other.fileno(), number)
    try:
        assert epoll.add(number, WRITE)
        there.send(b"x")  # readable under the old entry, which would be reported as `number`
        assert epoll.wait(0, 8) == [(number, IOEvent.OUT)]
        assert kernel_list(epoll) == {number: select.EPOLLOUT}
    finally:
        os.close(number)
        for one in (there, survivor, other, peer):
            one.close()


@pytest.mark.parametrize("survives", [False, True])
def test_remove_after_close(
    epoll: Epoll, pair: tuple[socket.socket, socket.socket], survives: bool
) -> None:
    """A closed number can be removed, and no later event is its own, though a duplicate lives."""
    here, there = socket.socketpair()
    number = here.fileno()
    epoll.add(number, READ)
    epoll.add(pair[0].fileno(), READ)
    descriptor = epoll.fileno()
    survivor = here.dup() if survives else None
    here.close()
    there.send(b"x") if survivor else there.close()
    assert epoll.remove(number)
    assert epoll.wait(0, 8) == []
    assert list(kernel_list(epoll)) == [pair[0].fileno()]
    assert epoll.fileno() == descriptor
    assert not os.get_inheritable(descriptor)
    with pytest.raises((NotRegistered, ValueError)):
        epoll.remove(number)
    there.close()
    if survivor:
        survivor.close()


def test_rebuilt_list_leaves_strangers_out(epoll: Epoll) -> None:
    """What took the number of a closed descriptor, and was never added, is not on the new list."""
    pairs = [socket.socketpair() for _ in range(5)]
    closed, (stranger, peer), (here, _) = [one for one, _ in pairs[:3]], pairs[3], pairs[4]
    numbers = [one.fileno() for one in closed]
    with open(__file__) as file:
        for one in closed:
            epoll.add(one.fileno(), READ)
        epoll.add(here.fileno(), READ._replace(exclusive=True))
        for one in closed:
            one.close()
        os.dup2(stranger.fileno(), numbers[0])
        os.dup2(file.fileno(), numbers[1])  # epoll would refuse it
    peer.send(b"x")
    assert epoll.remove(numbers[2])
    assert kernel_list(epoll) == {here.fileno(): select.EPOLLIN | select.EPOLLEXCLUSIVE}
    assert epoll.wait(0, 8) == []
    for number in numbers[:2]:
        os.close(number)
    for pair in pairs:
        for one in pair:
            one.close()


def test_failed_rebuild_can_be_repeated(epoll: Epoll, monkeypatch: pytest.MonkeyPatch) -> None:
    """When descriptors run out in a removal, the next attempt still knows what to do."""
    here, there = socket.socketpair()
    number = here.fileno()
    epoll.add(number, READ)
    survivor = here.dup()
    here.close()

    def no_more() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(select, "epoll", no_more)
    with pytest.raises(OSError, match="Too many"):
        epoll.remove(number)
    monkeypatch.undo()
    assert epoll.remove(number)
    assert kernel_list(epoll) == {}
    there.close()
    survivor.close()


def test_modify_exclusive(epoll: Epoll, pair: tuple[socket.socket, socket.socket]) -> None:
    """An exclusive entry, which the kernel does not modify, is replaced, and reports again."""
    here, there = pair
    interest = READ._replace(exclusive=True, edge_triggered=True)
    epoll.add(here.fileno(), interest)
    there.send(b"x")
    assert epoll.wait(0, 8) == [(here.fileno(), IOEvent.IN)]
    assert epoll.wait(0, 8) == []
    epoll.modify(here.fileno(), interest)
    assert epoll.wait(0, 8) == [(here.fileno(), IOEvent.IN)]
    assert kernel_list(epoll) == {here.fileno(): mask_of(select, interest)}


def test_close_twice() -> None:
    """A second close does nothing."""
    epoll = Epoll(select)
    epoll.close()
    epoll.close()
    with pytest.raises(ValueError, match="closed"):
        epoll.fileno()
