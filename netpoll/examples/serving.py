"""What the example programs share: their options, and an orderly end on Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import netpoll


class Server(Protocol):
    """What `run` needs of a server."""

    address: tuple[str, int]

    def shut_down(self) -> None:
        """Take no new clients, finish with those that are there, then stop the poller."""
        ...

    def close(self) -> None:
        """Close every socket."""
        ...


def options(module: str, description: str) -> argparse.ArgumentParser:
    """The command line of the example `module`."""
    return argparse.ArgumentParser(
        prog=f"python -m netpoll.examples.{module}", description=description
    )


def server_options(module: str, description: str, port: int) -> argparse.ArgumentParser:
    """The command line of a server that listens on `port` unless told otherwise."""
    parser = options(module, description)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=port_number, default=port, help="port, 0 for any (%(default)s)"
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long clients have to finish after Ctrl-C (%(default)g)",
    )
    return parser


def port_number(text: str) -> int:
    """The number of a port. Raises ArgumentTypeError."""
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: they go from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """A time in seconds. Raises ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")


def host_and_port(address: tuple[str, int]) -> str:
    """An address as people write it; IPv6 has colons of its own."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    announcement: str,
    make: Callable[[netpoll.Poller], Server],
) -> None:
    """Serve until Ctrl-C; `announcement` has a ``{}`` where the address goes.

    Exits with status 1 when the address can't be had.
    """
    with netpoll.open_poller() as poller:
        try:
            server = make(poller)
        except OSError as error:
            where = host_and_port((arguments.host, arguments.port))
            reason = str(error.strerror).partition(": ")[0]  # without the address, said already
            sys.exit(f"{parser.prog}: can't listen on {where}: {reason}")

        def shut_down() -> None:
            server.shut_down()
            print(f"\nending within {arguments.grace:g} s; Ctrl-C again ends at once", flush=True)

        with contextlib.closing(server):
            on_ctrl_c(poller, shut_down, arguments.grace)
            where = host_and_port(server.address)
            print(f"{announcement.format(where)}; Ctrl-C ends it", flush=True)
            poller.polling()


def on_ctrl_c(poller: netpoll.Poller, shut_down: Callable[[], object], grace: float) -> None:
    """On Ctrl-C or SIGTERM call `shut_down` in the loop, and after `grace` seconds stop the loop.

    A second Ctrl-C ends the process at once.
    """

    def begin_to_end(_: object) -> None:
        poller.call_later(grace, lambda _: poller.stop())
        shut_down()

    def handler(signal_number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        # It may come in the middle of a callback, so a task does the rest. A poller that is closed
        # takes none: then the end is near anyway.
        with contextlib.suppress(ValueError):
            poller.trigger(netpoll.EventPriority.HIGH, begin_to_end)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, handler)
