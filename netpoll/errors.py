"""The exceptions of netpoll.

::

    Exception
    ├── EngineShutdown        raise it in a callback or task: polling() returns
    ├── AcceptSocketError     raise it in a callback or task: polling() raises it
    └── OSError
        ├── FileExistsError
        │   └── AlreadyRegistered     add_* of a descriptor that is on the list
        └── FileNotFoundError
            └── NotRegistered         mod_* or delete of one that is not

Source: gnet `pkg/errors/errors.go` (`ErrEngineShutdown`, `ErrAcceptSocket`).
"""

from __future__ import annotations

import errno


class EngineShutdown(Exception):
    """A request to leave the loop: `polling()` returns normally."""


class AcceptSocketError(Exception):
    """A listener that can't go on: `polling()` ends by raising it."""


class AlreadyRegistered(FileExistsError):
    """The descriptor is registered with this poller already; use `mod_*` to change it."""

    def __init__(self, fd: int) -> None:
        super().__init__(
            errno.EEXIST, f"descriptor {fd} is registered already: change it with mod_*"
        )
        self.fd = fd


class NotRegistered(FileNotFoundError):
    """The descriptor is not registered with this poller; use `add_*` first."""

    def __init__(self, fd: int) -> None:
        super().__init__(errno.ENOENT, f"descriptor {fd} is not registered: add it with add_*")
        self.fd = fd
