"""What the README shows, run."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import tracer

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def code_block(containing: str) -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if containing in block)


def connect(port: int, server: subprocess.Popen[bytes]) -> socket.socket:
    """Connect as soon as the server listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.02)


def test_echo_server_runs_as_pasted() -> None:
    """The README's server answers two clients at once and survives one that leaves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = code_block("poller.polling()").replace("9090", str(port))
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    with subprocess.Popen([sys.executable, "-c", code]) as server:
        try:
            with connect(port, server) as first, connect(port, server) as second:
                for client in (first, second):
                    client.sendall(b"hello")
                    assert client.recv(100) == b"hello"
            with connect(port, server) as third:
                third.sendall(b"again")
                assert third.recv(100) == b"again"
        finally:
            server.terminate()


def test_names_exist() -> None:
    """Every tracer call in the README is a public name."""
    for name in set(re.findall(r"tracer\.(\w+)\(", README)):
        assert name in tracer.__all__


def test_links_and_pictures_exist() -> None:
    """Every relative link of the README leads to a file."""
    targets = re.findall(r"\]\(([^)#:]+)\)|(?:src|srcset)=\"([^\"]+)\"", README)
    assert len(targets) > 5
    for target in ("".join(pair) for pair in targets):
        assert (Path(__file__).parents[1] / target).exists(), target
