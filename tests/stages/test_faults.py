"""A stage under 30 % injected faults loses nothing and does nothing twice (the benchmark, small)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fault_injection.py"


def test_under_faults_every_item_is_scored_or_counted_and_none_twice() -> None:
    command = [sys.executable, str(BENCHMARK), "--candidates", "30"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert json.loads(result.stdout.splitlines()[-1])["n"] == 60
