"""SIGKILL at random moments and a rerun leave the bytes of an undisturbed run (the benchmark, with few kills)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"


@pytest.mark.parametrize("more", [[], ["--shard-sizes", "3", "11", "40"]], ids=["one shard size", "another at every start"])
def test_sigkill_and_rerun_give_the_same_bytes(more: list[str]) -> None:
    command = [sys.executable, str(BENCHMARK), "--kills", "6", "--tasks", "24", "--delay", "0.01", *more]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["holds"]
    assert report["n"] == 6
