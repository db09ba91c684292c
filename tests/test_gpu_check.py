"""benchmarks/gpu_check.py at its tiny size: a crash or a hang ends a part and not the check, and the last line is JSON."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _gpu_parts
    import gpu_check

    return gpu_check, _gpu_parts


def test_a_crash_a_hang_and_an_error_end_their_part_alone(check, monkeypatch, tmp_path, capfd):
    gpu_check, parts = check

    def works(say, tiny, rate):
        say(parts.row("figure", 1.5, "at most 2", True))

    def fails(say, tiny, rate):
        say(parts.row("before", 1.0))
        raise RuntimeError("cuDNN error")

    broken = {
        "hang": (1.0, lambda *_: time.sleep(60)), "crash": (10.0, lambda *_: os.kill(os.getpid(), signal.SIGKILL)),
        "error": (10.0, fails), "works": (10.0, works),
    }  # fmt: skip
    monkeypatch.setattr(parts, "PARTS", broken)
    args, out = argparse.Namespace(tiny=True), tmp_path / "rows.jsonl"
    told = {name: gpu_check.isolated(name, bound, args, 0.0, out, forked=True) for name, (bound, _) in broken.items()}
    assert told == {"hang": "stopped after 1 s", "crash": "died of signal 9", "error": None, "works": None}
    assert "test_gpu_check.py" in capfd.readouterr().err  # the hang says where it was
    rows = gpu_check.rows_of(out)
    assert [(row["part"], row["what"], row["holds"]) for row in rows] == [
        ("error", "before", None), ("error", "error: RuntimeError", False), ("works", "figure", True)
    ]  # fmt: skip
    assert rows[1]["value"] == "cuDNN error"


def test_the_parts_run_at_the_tiny_size_and_the_last_line_is_json(tmp_path):
    """One of each kind; `pytest -m gpu` is a part of this suite anyway."""
    parts = "matrix,qwen_image_edit,gcpo_7b_lora,sft_3b_full,scoring"
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--tiny", "--parts", parts, "--minutes", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["holds"], result["missed"]
    whats = [row["what"] for row in result["rows"]]
    assert whats[0] == "bf16 matrix rate, TFLOP/s"
    assert "qwen_image_edit: first |ratio - 1|" in whats
    assert len([what for what in whats if what.startswith("qwen_image_edit: iteration")]) == 3
    assert {"gcpo 7b lora: a step, s", "sft 3b full, FSDP2: a step, s", "sft 3b full, FSDP2: saved, s"} <= set(whats)
    assert "local scoring over generate" in whats
    assert set(result) >= {"device", "commit", "torch", "seconds", "value", "n", "goal"}


def test_what_time_does_not_suffice_for_is_said(check, monkeypatch, capsys):
    gpu_check, _ = check
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--tiny", "--parts", "matrix", "--minutes", "0"])
    gpu_check.main()
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert not result["holds"]
    assert result["missed"] == ["matrix: not run"]


def test_what_no_card_has_shown_yet_comes_first_and_fits_six_minutes_at_its_limits(check):
    _, parts = check
    rows = [row for run in json.loads((BENCHMARKS.parent / "docs/results/gpu.json").read_text()) for row in run["rows"]]
    last = {row["part"]: row["holds"] for row in rows}  # of a part that was cut or left out: False
    names = [name for name in parts.PARTS if name != "matrix"]  # a second, and all shares refer to it
    waiting = [name for name in names if last.get(name, False) is False]
    assert names[: len(waiting)] == waiting
    start = 20  # seconds until the first part, on that machine
    assert start + sum(parts.PARTS[name][0] for name in ["matrix", *waiting]) <= 6 * 60
