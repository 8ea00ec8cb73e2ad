"""The first recording, without Jupyter: an echo server, three clients, and the replay as a page."""

from __future__ import annotations

import argparse
import socket
import struct
import threading
from pathlib import Path

import netpoll
from netpoll.examples.echo_server import EchoServer
from tracer.page import write_page
from tracer.recorder import record
from tracer.trace import Trace


def session() -> Trace:
    """Return the recording of an echo server with three clients and a task.

    One client is chatty, one connects and stays silent, one hangs up in the middle.
    """
    poller = netpoll.open_poller()
    server = EchoServer(poller)
    with netpoll.run_in_thread(poller, name="demo", on_end=server.close), record(poller) as trace:
        silent = socket.create_connection(server.address)
        with socket.create_connection(server.address) as chatty:
            for line in (b"hello", b"how are you?", b"bye"):
                ask(chatty, line)
        hasty = socket.create_connection(server.address)
        ask(hasty, b"wait, I have to")
        hang_up(hasty)

        reported = threading.Event()

        def report(_: object) -> None:
            print(f"A task in the loop's thread counts {len(server.connections)} connection(s).")
            reported.set()

        poller.trigger(netpoll.EventPriority.LOW, report)
        reported.wait(5)
        silent.close()
    return trace


def ask(client: socket.socket, line: bytes) -> bytes:
    """Send `line` and return the answer, of the same length."""
    client.sendall(line)
    answer = b""
    while len(answer) < len(line):
        answer += client.recv(4096)
    return answer


def hang_up(client: socket.socket) -> None:
    """Close the connection without a goodbye: the other end gets an error, ECONNRESET."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def main() -> None:
    """Record the session and write the page."""
    parser = argparse.ArgumentParser(
        prog="run.py demo", description="Record an echo server and write the replay as one page."
    )
    parser.add_argument("--output", type=Path, default=Path("replay.html"), metavar="FILE")
    page = write_page(session(), parser.parse_args().output, title="An echo server, step by step")
    print(f"The replay is in {page.resolve()}: open it in a browser.")


if __name__ == "__main__":
    main()
