"""What a callback does to its sockets: the methods of `socket.socket`, wrapped while recording.

Other classes with methods of the same names can be added to `KINDS`.

Only calls that a watched thread makes inside a callback or task are written down; every other call
goes straight through. When the last recording ends, the methods are the original ones again.
"""

from __future__ import annotations

import _socket
import contextlib
import functools
import socket
import stat
import threading
from collections.abc import Callable
from os import fstat, readlink
from typing import Any, Protocol, TypeVar

from tracer.rows import KIND, NOTHING

T = TypeVar("T")


class HasFileno(Protocol):
    """Anything with a `fileno()` method, such as a socket."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class Tell(Protocol):
    """Writes down a step: `first` and `second` are as in a row of `tracer.rows`.

    `told` is the error of a call that failed, or a text in the place of `second`.
    """

    def __call__(
        self, kind: int, fd: int, first: int, second: int, told: str | Exception | None = None, /
    ) -> None:
        """Write it down."""


class Watcher(Protocol):
    """Who wants to know: gets each step that a socket call makes."""

    @property
    def socket_call(self) -> Tell:
        """The function that writes it down."""
        ...


CLOSED = "closed"
"""The name of a descriptor that is none."""

KINDS: list[type] = [socket.socket]
"""The classes of sockets whose methods are wrapped."""

_watchers: dict[int, tuple[Watcher, ...]] = {}
_tells: dict[int, Tell] = {}  # by thread, what tells all of its watchers
_originals: dict[tuple[type, str], Any] = {}
_lock = threading.Lock()


def watch(thread: int, watcher: Watcher) -> None:
    """Tell `watcher` of the calls that the thread of this identifier makes, and of no other's."""
    with _lock:
        if not _watchers:
            _wrap()
        others = _watchers.get(thread, ())
        if watcher not in others:
            _leave(watcher)
            _set_watchers(thread, (*others, watcher))


def unwatch(watcher: Watcher) -> None:
    """Stop telling `watcher`."""
    with _lock:
        _leave(watcher)
        if not _watchers:
            _unwrap()


def _leave(watcher: Watcher) -> None:
    for thread, watchers in list(_watchers.items()):
        if watcher in watchers:
            _set_watchers(thread, tuple(other for other in watchers if other is not watcher))


def _set_watchers(thread: int, watchers: tuple[Watcher, ...]) -> None:
    if not watchers:
        _tells.pop(thread, None)
        _watchers.pop(thread, None)
        return
    _watchers[thread] = watchers
    tells = [watcher.socket_call for watcher in watchers]

    def tell_all(
        kind: int, fd: int, first: int, second: int, told: str | Exception | None = None, /
    ) -> None:
        for tell in tells:
            tell(kind, fd, first, second, told)

    _tells[thread] = tells[0] if len(tells) == 1 else tell_all


def address_text(address: object) -> str:
    """Return a socket address as people write it: ``127.0.0.1:9090``, ``[::1]:9090``, a path."""
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    if isinstance(address, bytes):
        address = address.decode("utf-8", "replace").replace("\0", "@")
    return str(address) if address else "unnamed"


_given: dict[tuple[int, int, int], str] = {}


def name(fd: int | HasFileno, text: str) -> None:
    """Call a descriptor `text` in what is recorded from now on, for as long as it stays open.

    `fd` is an int or has `fileno()`. Give the name before the descriptor is registered. Raises
    OSError or ValueError when it is closed.
    """
    number = fd if isinstance(fd, int) else fd.fileno()
    if number < 0:
        raise ValueError(f"descriptor {number} is negative: is the socket closed?")
    status = fstat(number)
    if len(_given) > 10_000:  # most of them closed by now
        _given.clear()
    _given[number, status.st_dev, status.st_ino] = text


def name_of(fd: int, kernel: Any = None) -> str:
    """Return what a descriptor is called: its given name, ``listener :9090``, a peer, ``pipe``.

    It is one of `kernel`, where that can describe it, as a simulated one can.
    """
    try:
        if hasattr(kernel, "describe"):
            return str(kernel.describe(fd))
        status = fstat(fd)
        given = _given.get((fd, status.st_dev, status.st_ino))
        if given is not None:
            return given
        if not stat.S_ISSOCK(status.st_mode):
            return _kind_of_file(fd)
        if socket.getdefaulttimeout() is not None:  # a socket object would set it on the descriptor
            return "socket"
        return ask_as_socket(fd, _name_of_socket)
    except (OSError, OverflowError):
        return CLOSED


def ask_as_socket(fd: int, read: Callable[[_socket.socket], T]) -> T:
    """Return what `read` says of a socket object for `fd`, which does not keep that.

    Raises OSError for what is no socket. Not while there is a default timeout: a socket object
    would set it on the descriptor.
    """
    # Made empty, filled inside the try: wherever an interrupt comes, the socket object never
    # goes away with the user's descriptor in it, which would close that.
    connection = _socket.socket.__new__(_socket.socket)
    try:
        connection.__init__(fileno=fd)  # type: ignore[misc]
        return read(connection)
    finally:
        connection.detach()


def _name_of_socket(connection: _socket.socket) -> str:
    own: object = connection.getsockname()
    internet = connection.family in (socket.AF_INET, socket.AF_INET6)
    port = f":{own[1]}" if internet and isinstance(own, tuple) else address_text(own)
    with contextlib.suppress(OSError):
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"listener {port}"
    with contextlib.suppress(OSError):
        peer = address_text(connection.getpeername())
        return "socket pair" if peer == "unnamed" else peer
    return f"udp {port}" if internet and connection.type == socket.SOCK_DGRAM else f"socket {port}"


def _kind_of_file(fd: int) -> str:
    try:
        target = readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "descriptor"
    return target.removeprefix("anon_inode:").strip("[]").partition(":")[0]


def _wrap() -> None:
    for kind in KINDS:
        for name, wrapper in _WRAPPERS.items():
            method = getattr(kind, name, None)
            # It is wrapped already when an interrupt ended an _unwrap.
            if method is not None and (kind, name) not in _originals:
                wrapped = functools.wraps(method)(wrapper(name, method))
                _originals[kind, name] = (vars(kind).get(name), wrapped)
                setattr(kind, name, wrapped)


def _unwrap() -> None:
    for (kind, name), (original, wrapped) in list(_originals.items()):
        # It is another when an interrupt ended this before, or somebody put his own there.
        if vars(kind).get(name) is wrapped:
            if original is not None:
                setattr(kind, name, original)
            else:
                delattr(kind, name)
        del _originals[kind, name]


Method = Callable[..., Any]


def _transfer(kind: int, count: Callable[[Any], int], asked: Callable[..., int]) -> Any:
    """Return a wrapper for calls that move bytes; `count` reads how many from the result.

    Two of them stand in every message that a server echoes, so they make few calls themselves.
    """
    told, this_thread = _tells.get, threading.get_ident

    def wrapper(name: str, method: Method) -> Method:
        def call(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
            tell = told(this_thread())
            if tell is None or _looks_only(name, args, kwargs):
                return method(self, *args, **kwargs)
            fd = self.fileno()
            try:
                result = method(self, *args, **kwargs)
            except BlockingIOError:
                tell(_WOULD_BLOCK, fd, NOTHING, NOTHING, name)
                raise
            except OSError as error:
                tell(kind, fd, 0, NOTHING if kwargs else _number(asked, args), error)
                raise
            wanted = NOTHING if kwargs else _number(asked, args)
            tell(kind, fd, wanted if result is None else count(result), wanted)
            return result

        return call

    return wrapper


def _recv(name: str, method: Method) -> Method:
    """Return a wrapper for `recv`; like `send`, the original takes no keyword."""
    told, this_thread = _tells.get, threading.get_ident
    others = _transfer(_READ, len, _room)(name, method)

    def call(self: socket.socket, size: int, /, *flags: int) -> Any:
        tell = told(this_thread())
        if tell is None or flags:
            return others(self, size, *flags)
        fd = self.fileno()
        try:
            result = method(self, size)
        except BlockingIOError:
            tell(_WOULD_BLOCK, fd, NOTHING, NOTHING, name)
            raise
        except OSError as error:
            tell(_READ, fd, 0, size, error)
            raise
        tell(_READ, fd, len(result), size)
        return result

    return call


def _send(name: str, method: Method) -> Method:
    """Return a wrapper for `send`."""
    told, this_thread = _tells.get, threading.get_ident
    others = _transfer(_WROTE, int, _first_size)(name, method)

    def call(self: socket.socket, data: Any, /, *flags: int) -> Any:
        tell = told(this_thread())
        if tell is None or type(data) is not bytes:
            return others(self, data, *flags)
        fd = self.fileno()
        try:
            count = method(self, data)
        except BlockingIOError:
            tell(_WOULD_BLOCK, fd, NOTHING, NOTHING, name)
            raise
        except OSError as error:
            tell(_WROTE, fd, 0, len(data), error)
            raise
        tell(_WROTE, fd, count, len(data))
        return count

    return call


def _send_all(name: str, method: Method) -> Method:
    """Return a wrapper for `sendall`, which does not say what it sent before it failed.

    On a non-blocking socket it is done as the original does it, send by send, so that this is
    known.
    """
    plain = _transfer(_WROTE, int, _first_size)(name, method)

    def call(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        tell = _tells.get(threading.get_ident())
        ours = method is _socket.socket.sendall and type(self) is socket.socket
        if tell is None or kwargs or not ours or self.gettimeout() != 0:
            return plain(self, *args, **kwargs)
        fd, asked, sent = self.fileno(), _number(_first_size, args), 0
        if asked == NOTHING or not memoryview(args[0]).c_contiguous:
            return plain(self, *args)
        try:
            # Views are released before an exception gets out: the caller may want to cut the data.
            with memoryview(args[0]) as view, view.cast("B") as whole:
                while True:
                    with whole[sent:] as left:
                        sent += _socket.socket.send(self, left, *args[1:])
                    if sent >= asked:
                        break
        except OSError as error:
            if sent or not isinstance(error, BlockingIOError):
                stopped = isinstance(error, BlockingIOError)
                tell(_WROTE, fd, sent, asked, None if stopped else error)
            if isinstance(error, BlockingIOError):
                tell(_WOULD_BLOCK, fd, NOTHING, NOTHING, name)
            raise
        tell(_WROTE, fd, sent, asked)
        return None

    return call


def _accept(name: str, method: Method) -> Method:
    def call(self: socket.socket) -> Any:
        tell = _tells.get(threading.get_ident())
        if tell is None:
            return method(self)
        fd = self.fileno()
        try:
            connection, address = method(self)
        except BlockingIOError:
            tell(_WOULD_BLOCK, fd, NOTHING, NOTHING, name)
            raise
        except OSError as error:
            tell(_ACCEPTED, fd, NOTHING, NOTHING, error)
            raise
        tell(_ACCEPTED, fd, connection.fileno(), NOTHING, address_text(address))
        return connection, address

    return call


def _close(name: str, method: Method) -> Method:
    def call(self: socket.socket) -> None:
        tell = _tells.get(threading.get_ident())
        fd = self.fileno()
        method(self)
        if tell is not None and fd >= 0 and self.fileno() < 0:
            tell(_CLOSED, fd, NOTHING, NOTHING)

    return call


def _looks_only(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call to receive leaves the bytes where they are, or gets none of the stream."""
    place = _FLAGS_AT.get(name)
    if place is None or (len(args) <= place and not kwargs):
        return False
    flags = args[place] if len(args) > place else kwargs.get("flags", 0)
    return isinstance(flags, int) and bool(flags & _ASIDE)


def _number(asked: Callable[..., int], args: tuple[Any, ...]) -> int:
    try:
        return asked(args)
    except Exception:  # given by keyword, or of a type that only the call itself understands
        return NOTHING


def _bytes_of(data: object) -> int:
    return memoryview(data).nbytes  # type: ignore[arg-type]


def _room(args: tuple[Any, ...]) -> int:
    return int(args[0])


def _room_in_buffer(args: tuple[Any, ...]) -> int:
    return (int(args[1]) if len(args) > 1 else 0) or _bytes_of(args[0])


def _sum_of_sizes(args: tuple[Any, ...]) -> int:
    if not isinstance(args[0], (list, tuple)):  # an iterator is used up by the call
        return NOTHING
    return sum(map(_bytes_of, args[0]))


def _first_size(args: tuple[Any, ...]) -> int:
    data = args[0]
    return len(data) if type(data) is bytes else _bytes_of(data)


_FLAGS_AT = {"recv": 1, "recv_into": 2, "recvfrom": 1, "recvfrom_into": 2, "recvmsg": 2}
_FLAGS_AT["recvmsg_into"] = 2
_ASIDE = socket.MSG_PEEK | getattr(socket, "MSG_ERRQUEUE", 0)
_READ, _WROTE, _WOULD_BLOCK = KIND["Read"], KIND["Wrote"], KIND["WouldBlock"]
_ACCEPTED, _CLOSED = KIND["Accepted"], KIND["Closed"]
_WRAPPERS: dict[str, Callable[[str, Method], Method]] = {
    "accept": _accept,
    "close": _close,
    "recv": _recv,
    "recv_into": _transfer(_READ, int, _room_in_buffer),
    "recvfrom": _transfer(_READ, lambda result: len(result[0]), _room),
    "recvfrom_into": _transfer(_READ, lambda result: int(result[0]), _room_in_buffer),
    "recvmsg": _transfer(_READ, lambda result: len(result[0]), _room),
    "recvmsg_into": _transfer(_READ, lambda result: int(result[0]), _sum_of_sizes),
    "send": _send,
    "sendall": _send_all,
    "sendto": _transfer(_WROTE, int, _first_size),
    "sendmsg": _transfer(_WROTE, int, _sum_of_sizes),
}
