"""A small HTTP/1.1 server for the files of a folder.

Run it with ``python -m netpoll.examples.http_server FOLDER``, look at http://127.0.0.1:8080/. It
answers GET and HEAD, keeps connections open, and bounds what a client may send and how long it may
take. Source: RFC 9110 (what the words mean) and RFC 9112 (how they are sent).
"""

from __future__ import annotations

import argparse
import email.utils
import mimetypes
import os
import re
import socket
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import netpoll
from netpoll import sockets
from netpoll.examples import serving

MOST_IN_A_LINE = 8000
"""Bytes of a request line, 414 beyond: RFC 9112 asks for at least so many."""

MOST_IN_A_HEAD = 16384
"""Bytes of a request line and the fields after it, 431 beyond."""

PIECE = 65536
"""Bytes of a file that are held in memory at a time."""

LINGER_SECONDS = 2.0
"""A client has so long to close its end after the last answer."""

END_OF_HEAD = re.compile(rb"\n\r?\n")
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rf"({TOKEN}) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
FIELD = re.compile(rf"({TOKEN}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
OTHER_METHODS = {"CONNECT", "DELETE", "OPTIONS", "PATCH", "POST", "PUT"}


# ---- requests ---------------------------------------------------------------------------------


class Refused(Exception):
    """A request that is answered with an error page of this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class Request(NamedTuple):
    """What a client asks for. `keep` is whether it may ask again on the same connection."""

    method: str
    target: str
    keep: bool
    has_body: bool


def next_request(received: bytearray) -> Request | None:
    """Take the first request off what was received; None while it is not complete.

    Raises Refused, which leaves `received` as it is: where the next request would begin is unknown.
    """
    while received.startswith((b"\n", b"\r\n")):
        del received[: received.index(b"\n") + 1]
    end = END_OF_HEAD.search(received)
    head = received[: end.start()] if end else received
    if len(head.partition(b"\n")[0].rstrip(b"\r")) > MOST_IN_A_LINE:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG)
    if len(head) > MOST_IN_A_HEAD:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if end is None:
        return None
    request = parse_head(head.decode("latin-1"))
    del received[: end.end()]
    return request


def parse_head(head: str) -> Request:
    """Read a request line and the fields after it. Raises Refused."""
    first, *others = [line.removesuffix("\r") for line in head.split("\n")]
    match = REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Refused(HTTPStatus.BAD_REQUEST)
    method, target, major, minor = match.groups()
    if major != "1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    fields: dict[str, str] = {}
    for line in others:
        match = FIELD.fullmatch(line)
        if match is None:
            raise Refused(HTTPStatus.BAD_REQUEST)
        name, value = match[1].lower(), match[2].rstrip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    length = fields.get("content-length", "0")
    if not length.isdecimal():
        raise Refused(HTTPStatus.BAD_REQUEST)
    if minor != "0" and ("host" not in fields or "," in fields["host"]):
        raise Refused(HTTPStatus.BAD_REQUEST)
    has_body = length.strip("0") != "" or "transfer-encoding" in fields
    wishes = {word.strip().lower() for word in fields.get("connection", "").split(",")}
    keep = "close" not in wishes and (minor != "0" or "keep-alive" in wishes)
    return Request(method, target, keep and not has_body, has_body)


def find_file(root: str, target: str) -> str:
    """Return the path of the file that `target` names inside the folder `root`. Raises Refused.

    `root` is a real path, without symbolic links. What leads out of it is forbidden, whether it
    exists or not.
    """
    path = re.sub(r"^https?://[^/?]*", "", target, flags=re.IGNORECASE).partition("?")[0] or "/"
    if not path.startswith("/") or re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise Refused(HTTPStatus.BAD_REQUEST)
    name = os.fsdecode(unquote_to_bytes(path.encode("latin-1")))
    if "\0" in name:
        raise Refused(HTTPStatus.BAD_REQUEST)
    found = real_path_inside(root, os.path.join(root, name.lstrip("/")))
    if os.path.isdir(found):
        return real_path_inside(root, os.path.join(found, "index.html"))
    if name.endswith("/"):
        raise Refused(HTTPStatus.NOT_FOUND)
    return found


def real_path_inside(root: str, path: str) -> str:
    """Return `path` without symbolic links. Raises Refused when that is not below `root`."""
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(root):
        raise Refused(HTTPStatus.FORBIDDEN)
    return real


# ---- answers ----------------------------------------------------------------------------------


def answer_head(status: HTTPStatus, content_type: str, length: int, keep: bool) -> bytes:
    """Return the status line and the fields of an answer, with the empty line that ends them."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {email.utils.formatdate(usegmt=True)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def error_page(status: HTTPStatus) -> bytes:
    """Return a small page. Nothing that a client sent is on it, so there is nothing to escape."""
    title = f"{status.value} {status.phrase}"
    return f"<!doctype html><title>{title}</title><h1>{title}</h1>\n".encode("ascii")


def content_type_of(path: str) -> str:
    """Return the media type that the end of a file's name stands for."""
    kind, encoding = mimetypes.guess_type(path)
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


class Connection:
    """One client: the bytes it sent that are not answered yet, and the answer under way.

    It is registered for reading, and while an answer is under way for writing instead: who does not
    read its answer is not listened to. After the last answer it lingers, reading and forgetting,
    until the client closes its end: closing with unread bytes would reset the connection, and the
    client might lose the answer.
    """

    def __init__(self, server: HttpServer, sock: socket.socket) -> None:
        self.server = server
        self.socket = sock
        self.received = bytearray()
        self.unsent = b""
        self.file: FileIO | None = None
        self.left_of_file = 0
        self.answering = False
        self.keep = True
        self.lingering = False
        self.writing = False  # what it is registered for
        self.deadline = monotonic() + server.timeout
        # One timer looks at a deadline that moves: cheaper than a new timer for each move.
        self.timer = server.poller.call_later(server.timeout, self.look_at_the_clock)

    # ---- events -------------------------------------------------------------------------------

    def serve(self, fd: int, event: int, flags: int) -> None:
        """Go on with the answer under way, or read; then answer what is complete."""
        try:
            if self.answering:
                self.send()
            else:
                self.receive()
            self.answer_all()
        except OSError:
            self.close()

    def receive(self) -> None:
        """Read once, and note when a request begins; close at the end of the stream."""
        data = sockets.read(self.socket, MOST_IN_A_HEAD)
        if data == b"":
            self.close()
        elif data and not self.lingering:
            if not self.received:
                self.deadline = monotonic() + self.server.timeout
            self.received += data

    def answer_all(self) -> None:
        """Answer one request after the other, until one is not complete or an answer waits."""
        while self.received and not self.answering:
            request = None
            try:
                request = next_request(self.received)
                if request is None:
                    break
                self.answer_with_file(request)
            except Refused as refusal:
                self.answer_with_page(refusal.status, request)
        if self.writing != self.answering:
            attachment = netpoll.PollAttachment(self.socket, self.serve)
            if self.answering:
                self.server.poller.mod_write(attachment)
            else:
                self.server.poller.mod_read(attachment)
            self.writing = self.answering

    def look_at_the_clock(self, _: object) -> None:
        """Close when the client took too long; in the middle of a request it is told so."""
        remaining = self.deadline - monotonic()
        if remaining > 0:
            self.call_again_after(remaining)
        elif self.received and not self.answering:
            self.call_again_after(self.server.timeout)
            try:
                self.answer_with_page(HTTPStatus.REQUEST_TIMEOUT, None)
                self.answer_all()
            except OSError:
                self.close()
        else:
            self.close()

    def call_again_after(self, seconds: float) -> None:
        """Set the timer."""
        self.deadline = monotonic() + seconds
        self.timer.cancel()
        self.timer = self.server.poller.call_later(seconds, self.look_at_the_clock)

    # ---- answers ------------------------------------------------------------------------------

    def answer_with_file(self, request: Request) -> None:
        """Begin to send a file. Raises Refused."""
        if request.method in OTHER_METHODS:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED)
        if request.method not in ("GET", "HEAD"):
            raise Refused(HTTPStatus.NOT_IMPLEMENTED)
        if request.has_body:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        path = find_file(self.server.root, request.target)
        if not os.path.isfile(path):  # a named pipe would keep open() waiting
            raise Refused(HTTPStatus.NOT_FOUND)
        try:
            file = FileIO(path)
        except PermissionError:
            raise Refused(HTTPStatus.FORBIDDEN) from None
        except OSError:
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR) from None
        length = os.fstat(file.fileno()).st_size
        if request.method == "HEAD":
            file.close()
        else:
            self.file, self.left_of_file = file, length
        self.begin(HTTPStatus.OK, content_type_of(path), length, request.keep)

    def answer_with_page(self, status: HTTPStatus, request: Request | None) -> None:
        """Begin to send an error page; without a request that was understood it is the last."""
        page = error_page(status)
        keep = request is not None and request.keep
        with_page = request is None or request.method != "HEAD"
        self.begin(status, "text/html", len(page), keep, page if with_page else b"")

    def begin(
        self, status: HTTPStatus, kind: str, length: int, keep: bool, body: bytes = b""
    ) -> None:
        """Begin to send an answer: what the kernel takes now, the rest on write events."""
        self.keep = keep and not self.server.ending
        self.unsent = answer_head(status, kind, length, self.keep) + body
        self.answering = True
        self.send()

    def send(self) -> None:
        """Send a piece of the answer, which ends or goes on at the next write event."""
        if self.file is not None and self.left_of_file and len(self.unsent) < PIECE:
            # This may wait for the disk: the kernel calls a file ready, always.
            data = self.file.read(min(PIECE, self.left_of_file))
            if not data:
                raise OSError("the file has become shorter than the length that was promised")
            self.left_of_file -= len(data)
            self.unsent += data
        sent = sockets.write(self.socket, self.unsent)
        if sent:
            self.unsent = self.unsent[sent:]
            self.deadline = monotonic() + self.server.timeout
        if not self.unsent and not self.left_of_file:
            self.end_answer()

    def end_answer(self) -> None:
        """Be ready for the next request, or linger after the last."""
        self.answering = False
        self.close_file()
        if not self.keep or (self.server.ending and not self.received):
            self.socket.shutdown(socket.SHUT_WR)
            self.lingering = True
            self.received.clear()
            self.call_again_after(LINGER_SECONDS)

    # ---- the end ------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Finish the request under way, if there is one; one that has come unread counts."""
        self.serve(self.socket.fileno(), netpoll.READ_EVENTS, 0)
        if not (self.answering or self.lingering or self.received):
            self.close()

    def close(self) -> None:
        """Forget the client."""
        fd = self.socket.fileno()
        if fd in self.server.connections:
            self.timer.cancel()
            self.close_file()
            self.server.poller.delete(fd)
            self.socket.close()
            self.server.forget(fd)

    def close_file(self) -> None:
        """Close the file of the answer, if there is one."""
        if self.file is not None:
            self.file.close()
            self.file = None
            self.left_of_file = 0


class HttpServer:
    """A server for the files below `root` on one poller.

    `address` is where it listens; port 0 takes a free one. `timeout` is how many seconds a client
    may take: until the next request begins, for the whole head of one, and to accept another piece
    of the answer. Raises OSError when the address is taken.
    """

    def __init__(
        self,
        poller: netpoll.Poller,
        root: str | os.PathLike[str],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        timeout: float = 15.0,
    ) -> None:
        self.poller = poller
        self.root = os.path.realpath(root)
        self.timeout = timeout
        self.connections: dict[int, Connection] = {}
        self.ending = False
        self.listener = sockets.listen_tcp(host, port)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    def accept(self, fd: int, event: int, flags: int) -> None:
        """Take every client that waits."""
        for sock, _ in sockets.accept(self.listener):
            connection = Connection(self, sock)
            self.poller.add_read(netpoll.PollAttachment(sock, connection.serve))
            self.connections[sock.fileno()] = connection

    def forget(self, fd: int) -> None:
        """Take a connection off the list; the last one ends a server that shuts down."""
        del self.connections[fd]
        if self.ending and not self.connections:
            self.poller.stop()

    def shut_down(self) -> None:
        """Take no new clients, finish the requests under way, then stop the poller."""
        self.ending = True
        self.poller.delete(self.listener)
        self.listener.close()
        for connection in list(self.connections.values()):
            connection.shut_down()
        if not self.connections:
            self.poller.stop()

    def close(self) -> None:
        """Close every socket and file."""
        self.listener.close()
        for connection in self.connections.values():
            connection.socket.close()
            connection.close_file()


def folder(text: str) -> str:
    """The path of a folder. Raises ArgumentTypeError."""
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return text


def main() -> None:
    """Serve until Ctrl-C."""
    parser = serving.server_options("http_server", "Serve the files of a folder by HTTP.", 8080)
    parser.add_argument("folder", nargs="?", default=".", type=folder, help="(%(default)s)")
    parser.add_argument(
        "--timeout",
        type=serving.seconds,
        default=15.0,
        metavar="SECONDS",
        help="how long a client may take for a request or a piece of an answer (%(default)g)",
    )
    arguments = parser.parse_args()
    serving.run(
        parser,
        arguments,
        "http server on http://{}/",
        lambda poller: HttpServer(
            poller, arguments.folder, arguments.host, arguments.port, timeout=arguments.timeout
        ),
    )


if __name__ == "__main__":
    main()
