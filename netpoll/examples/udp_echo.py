"""A UDP echo server: every datagram goes back to its sender.

Run it with ``python -m netpoll.examples.udp_echo``, talk to it with ``nc -u 127.0.0.1 9091``.
"""

from __future__ import annotations

from typing import Any

import netpoll
from netpoll import sockets
from netpoll.examples import serving

MOST_AT_THE_END = 1000
"""So many datagrams that wait already are answered after Ctrl-C: senders may never stop."""


class UdpEcho:
    """A UDP echo server on one poller: one socket is all there is, whoever sends.

    `address` is where it receives; port 0 takes a free one. Raises OSError when it is taken.
    """

    def __init__(self, poller: netpoll.Poller, host: str = "127.0.0.1", port: int = 0) -> None:
        self.poller = poller
        self.unsent: tuple[bytes, Any] | None = None
        self.socket = sockets.bind_udp(host, port)
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        poller.add_read(netpoll.PollAttachment(self.socket, self.echo))

    def echo(self, fd: int, event: int, flags: int) -> None:
        """Answer one datagram; while more wait, the next round calls this again."""
        if self.unsent is None:
            self.unsent = sockets.read_from(self.socket)
            if not self.send():
                self.poller.mod_write(netpoll.PollAttachment(fd, self.echo))
        elif self.send():
            self.poller.mod_read(netpoll.PollAttachment(fd, self.echo))

    def send(self) -> bool:
        """Send what is unsent, if anything; return False when the kernel takes none now."""
        if self.unsent is not None:
            try:
                if sockets.write_to(self.socket, *self.unsent) is None:
                    return False
            except OSError:
                pass  # the sender can't be reached, and UDP promises nothing
            self.unsent = None
        return True

    def shut_down(self) -> None:
        """Answer what has come already, then stop the poller."""
        self.poller.delete(self.socket)
        for _ in range(MOST_AT_THE_END):
            if not self.send():
                break
            self.unsent = sockets.read_from(self.socket)
        self.poller.stop()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = serving.server_options("udp_echo", "Send every datagram back to its sender.", 9091)
    arguments = parser.parse_args()
    serving.run(
        parser,
        arguments,
        "udp echo on {}",
        lambda poller: UdpEcho(poller, arguments.host, arguments.port),
    )


if __name__ == "__main__":
    main()
