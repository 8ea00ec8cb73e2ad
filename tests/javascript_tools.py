"""The JavaScript packages that only tests need, pinned in tests/js and kept in build/."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
PINNED = [ROOT / "tests/js" / name for name in ("package.json", "package-lock.json")]


def installed() -> Path:
    """Return the folder `node_modules`; what was installed once is used again.

    Without node or npm, or without a network the first time, the test is skipped, or fails where
    CI promised them.
    """
    pins = b"".join(path.read_bytes() for path in PINNED)
    target = ROOT / "build" / f"javascript-{hashlib.sha256(pins).hexdigest()[:12]}"
    if not target.exists():
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            give_up("node or npm is missing: apt-get install nodejs npm")
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder, "made")
            made.mkdir()
            for path in PINNED:
                shutil.copy(path, made)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=300)
            if done.returncode:
                give_up(f"npm ci failed: {done.stderr[-500:]}")
            try:
                os.rename(made, target)  # at once, so that nobody sees half of it
            except OSError:
                assert target.exists()  # another test run was quicker
    return target / "node_modules"


def give_up(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
