"""A training stage in a process of its own, killed between two steps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def kill_after_three_points(code: str, arguments: list[Path], folder: Path, curve: Path) -> None:
    """Runs `code` with `arguments`, modules of `folder` at hand, and sends SIGKILL when the curve has three points."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment)
    deadline = time.monotonic() + 120
    while not (curve.exists() and curve.read_text().count("\n") >= 3):
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
