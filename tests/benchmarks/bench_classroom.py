"""What a student costs: memory, processor, ports and descriptors of each notebook and lab.

Runs every tutorial as a student would have it, in a kernel of its own, and prints the most memory
that the kernel held, the processor seconds that it used, how many descriptors it had open at most,
and on how many ports it listened when it began; then a JupyterLab server without kernels, and the
grading of one answer to each lab. Linux only: it asks ``/proc``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import start_new_kernel

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.browser.lab import Lab
from tests.labs.grading import LABS, Course, answered

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def memory(pid: int, what: str = "VmHWM") -> float:
    """Return the most memory that a process has held so far, in MiB (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024 / MIB
    return 0.0


def processor(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def listening(pid: int) -> int:
    """Return on how many TCP ports a process listens."""
    links = [os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[3] == "0A" and row.split()[9] in inodes for row in rows)


class Watch(threading.Thread):
    """Counts the open descriptors of a process every 20 ms; `most` is the highest count."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.folder = f"/proc/{pid}/fd"
        self.most = 0
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        """Count until told to end."""
        while not self.ended.wait(0.02):
            self.most = max(self.most, len(os.listdir(self.folder)))


def run_notebook(path: Path) -> tuple[float, float, int, int]:
    """Return MiB, processor seconds, descriptors and ports of a kernel that runs a notebook."""
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        pid = manager.provisioner.process.pid  # type: ignore[union-attr]
        ports, watch = listening(pid), Watch(pid)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                client.execute_interactive(
                    cell.source, output_hook=lambda message: None, timeout=120, allow_stdin=False
                )
        watch.ended.set()
        watch.join()
        return memory(pid), processor(pid), watch.most, ports
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def main() -> None:
    """Measure and print."""
    if sys.platform != "linux":
        sys.exit("This benchmark asks /proc, which Linux has.")
    print(f"{'':<28}{'memory':>10}{'processor':>12}{'descriptors':>13}{'ports':>7}")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        mib, seconds, descriptors, ports = run_notebook(path)
        print(f"{path.stem:<28}{mib:>6.0f} MiB{seconds:>10.1f} s{descriptors:>13}{ports:>7}")
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            lab.wait_until("an answer", lambda: lab.ask("/api/status"))
            pid = lab.process.pid
            print(
                f"{'JupyterLab, no kernel':<28}{memory(pid):>6.0f} MiB{processor(pid):>10.1f} s"
                f"{len(os.listdir(f'/proc/{pid}/fd')):>13}{listening(pid):>7}"
            )
        finally:
            lab.end()
    for path in LABS:
        with tempfile.TemporaryDirectory() as folder:
            course = Course(path.name, Path(folder) / "course")
            course.hand_in("right", answered(course, None))
            began = time.perf_counter()
            course.grade()
            print(f"grading {path.name:<20}{time.perf_counter() - began:>20.1f} s")


if __name__ == "__main__":
    main()
