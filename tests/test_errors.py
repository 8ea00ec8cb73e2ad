"""The tree of exceptions."""

import errno
import pickle

import pytest

import netpoll
from netpoll import AlreadyRegistered, NotRegistered


def test_places_in_the_tree() -> None:
    """Who knows only OSError, FileExistsError or FileNotFoundError can catch ours."""
    assert issubclass(AlreadyRegistered, FileExistsError)
    assert issubclass(NotRegistered, FileNotFoundError)
    for ending in (netpoll.EngineShutdown, netpoll.AcceptSocketError):
        assert issubclass(ending, Exception)
        assert not issubclass(ending, OSError)


@pytest.mark.parametrize(
    ("error", "number"), [(AlreadyRegistered(7), errno.EEXIST), (NotRegistered(7), errno.ENOENT)]
)
def test_registration_errors_say_what_and_which(
    error: AlreadyRegistered | NotRegistered, number: int
) -> None:
    """They carry the errno and the descriptor, and the message names the way out."""
    assert error.errno == number
    assert error.fd == 7
    assert "descriptor 7" in str(error)
    assert "mod_*" in str(error) or "add_*" in str(error)


@pytest.mark.parametrize("kind", [netpoll.EngineShutdown, netpoll.AcceptSocketError])
def test_endings_can_be_pickled(kind: type[Exception]) -> None:
    """An ending travels between processes with its message."""
    assert pickle.loads(pickle.dumps(kind("why"))).args == ("why",)
