"""A chat server: what one says, all others hear, line by line.

Run it with ``python -m netpoll.examples.chat_server``, join with ``nc 127.0.0.1 9092``. The first
line is your name.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket

import netpoll
from netpoll import sockets
from netpoll.examples import serving

MOST_IN_A_LINE = 1000
"""Bytes. A longer line is not passed on."""

MOST_IN_A_NAME = 20
"""Characters. The rest is cut off."""

MOST_PENDING = 65536
"""Bytes. A client with more of them waiting for it to read is let go."""

logger = logging.getLogger("netpoll.examples.chat_server")


class Client:
    """One who is connected. `name` is empty until the first line has come."""

    def __init__(self, connection: socket.socket, outbound: sockets.OutboundBuffer) -> None:
        self.connection = connection
        self.outbound = outbound
        self.name = ""
        self.received = b""  # the line that has begun
        self.skipping = False  # until a line that is too long ends

    @property
    def gone(self) -> bool:
        """Whether the server has let it go."""
        return self.connection.fileno() < 0


class ChatServer:
    """A chat server on one poller.

    `address` is where it listens; port 0 takes a free one. Raises OSError when it is taken.
    """

    def __init__(self, poller: netpoll.Poller, host: str = "127.0.0.1", port: int = 0) -> None:
        self.poller = poller
        self.clients: dict[int, Client] = {}
        self.ending = False
        self.listener = sockets.listen_tcp(host, port)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        poller.add_read(netpoll.PollAttachment(self.listener, self.accept))

    # ---- events -------------------------------------------------------------------------------

    def accept(self, fd: int, event: int, flags: int) -> None:
        """Take every client that waits, and ask for its name."""
        for connection, _ in sockets.accept(self.listener):
            self.poller.add_read(netpoll.PollAttachment(connection, self.talk))
            outbound = sockets.OutboundBuffer(self.poller, connection, self.talk)
            client = self.clients[connection.fileno()] = Client(connection, outbound)
            self.send(client, "* welcome; your first line is your name, an empty one: a guest")

    def talk(self, fd: int, event: int, flags: int) -> None:
        """Send what is pending to a client, and hear what it says."""
        client = self.clients[fd]
        try:
            if netpoll.is_write_event(event):
                client.outbound.flush()
            data = None if event == netpoll.WRITE_EVENTS else sockets.read(client.connection, 4096)
        except OSError:
            self.let_go(client, "left")
            return
        if self.ending:
            self.let_go_when_all_is_sent(client)
        elif data:
            *lines, client.received = (client.received + data).split(b"\n")
            for line in lines:
                self.hear(client, line)
            if len(client.received) > MOST_IN_A_LINE:
                if not client.skipping:
                    self.refuse(client)
                client.received, client.skipping = b"", True
        elif data == b"":
            if client.received:
                self.hear(client, client.received)
            if not client.gone:
                self.let_go(client, "left")

    # ---- what is said -------------------------------------------------------------------------

    def hear(self, client: Client, line: bytes) -> None:
        """Take a line as the client's name, or pass it on."""
        if client.gone:
            return
        if client.skipping:
            client.skipping = False
            return
        if len(line) > MOST_IN_A_LINE:
            self.refuse(client)
            return
        # Control characters would reach the others' terminals and could do anything there.
        text = "".join(filter(str.isprintable, line.decode("utf-8", "replace"))).strip()
        if not client.name:
            self.give_name(client, text[:MOST_IN_A_NAME].strip())
        elif text:
            self.tell_all(f"{client.name}: {text}", but=client)

    def give_name(self, client: Client, name: str) -> None:
        """Let the client in under this name, or as a guest, unless the name is taken."""
        names = [other.name for other in self.clients.values() if other.name]
        taken = {other.casefold() for other in names}
        if not name:
            guests = (f"guest {number}" for number in itertools.count(1))
            name = next(guest for guest in guests if guest not in taken)
        elif name.casefold() in taken:
            self.send(client, f"* {name} is here already; another name?")
            return
        client.name = name
        self.send(client, f"* you are {name}; here: {', '.join(names) or 'nobody else'}")
        self.tell_all(f"* {name} joined", but=client)

    def refuse(self, client: Client) -> None:
        """Tell a client that its line is too long."""
        self.send(client, f"* not sent: a line has at most {MOST_IN_A_LINE} bytes")

    def tell_all(self, text: str, but: Client | None = None) -> None:
        """Send a line to everybody who has a name, except one."""
        for client in list(self.clients.values()):
            if client.name and client is not but:
                self.send(client, text)

    def send(self, client: Client, text: str) -> None:
        """Send a line to one client; let it go when it does not read what it is sent."""
        if client.gone:
            return
        try:
            client.outbound.write(text.encode() + b"\n")
        except OSError:
            self.let_go(client, "left")
            return
        if len(client.outbound) > MOST_PENDING:
            logger.warning("%s reads too slowly: let go", client.name or "somebody without a name")
            self.let_go(client, "was let go: too slow")

    # ---- the end ------------------------------------------------------------------------------

    def let_go(self, client: Client, how: str) -> None:
        """Forget a client and tell the others."""
        self.poller.delete(client.connection)
        del self.clients[client.connection.fileno()]
        client.connection.close()
        if client.name and not self.ending:
            # As a task: this may happen while all are being told something, and the news of it may
            # make the next one too slow.
            news = f"* {client.name} {how}"
            self.poller.trigger(netpoll.EventPriority.HIGH, self.tell_all, news)
        if self.ending and not self.clients:
            self.poller.stop()

    def let_go_when_all_is_sent(self, client: Client) -> None:
        """Let a client go, at once or after it has read what is pending."""
        if client.outbound:
            client.outbound.pause()
        else:
            # Closing with unread bytes would reset the connection: what was sent could get lost.
            with contextlib.suppress(OSError):
                sockets.read(client.connection)
            self.let_go(client, "left")

    def shut_down(self) -> None:
        """Take no new clients, send what is pending, then stop the poller."""
        self.poller.delete(self.listener)
        self.listener.close()
        self.tell_all("* the server ends; goodbye")
        self.ending = True
        for client in list(self.clients.values()):
            self.let_go_when_all_is_sent(client)
        if not self.clients:
            self.poller.stop()

    def close(self) -> None:
        """Close every socket."""
        self.listener.close()
        for client in self.clients.values():
            client.connection.close()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = serving.server_options("chat_server", "Pass every line on to all others.", 9092)
    arguments = parser.parse_args()
    serving.run(
        parser,
        arguments,
        "chat server on {}",
        lambda poller: ChatServer(poller, arguments.host, arguments.port),
    )


if __name__ == "__main__":
    main()
