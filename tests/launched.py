"""Starts a script of the tests on two processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def launch(script: Path, *arguments: Path) -> dict[str, Any]:
    """What rank 0 wrote into the last argument. `torchrun`, not `accelerate launch --cpu`, which starts one process without a word."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment["ACCELERATE_USE_CPU"] = "true"  # two processes do not share a card
    command = [sys.executable, *launcher, str(script), *map(str, arguments)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr[:6000]
    return json.loads(arguments[-1].read_text())
