"""Two processes give the win ratios and advantages of one, also when a pair is split between them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import two_ranks
from editr1.commands.loop import leave_processes
from launched import launch
from tiny_run import build_tiny_run, build_tiny_verifier


def test_two_processes_reward_like_one(tmp_path: Path) -> None:
    verifier, run_dir = build_tiny_verifier(tmp_path / "verifier"), build_tiny_run(tmp_path / "run")
    two_ranks.main(str(verifier), str(run_dir), str(tmp_path / "one.json"))
    one = json.loads((tmp_path / "one.json").read_text())
    assert launch(Path(two_ranks.__file__), verifier, run_dir, tmp_path / "two.json") == one
    # pair 0: 7 beats all, 5 beats 2 of three, the unparsed one nothing | 5, 6 and 2 against the parsed 7 and 5
    assert [round(ratio, 4) for ratio in one["ratios"][:6]] == [1.0, 0.3333, 0.0, 0.5, 0.5, 1.0]


def test_a_finished_command_leaves_its_processes(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    leave_processes()
    assert not torch.distributed.is_initialized()
    leave_processes()  # a run of one process has nothing to leave
