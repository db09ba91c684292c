"""GCPO on a tiny run: the stock trainer computes the paper's objective, resumes, and never emits a picture token."""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.stages import gcpo
from editr1.store import Run
from editr1.training.options import Machine, Schedule
from tiny_run import build_tiny_run, build_tiny_verifier


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


def config(verifier: Path, **changes: object) -> gcpo.Config:
    machine = Machine(micro_batch=4, activation_checkpointing=False, trackers=(), progress=False, save_every=2)
    base = {"steps": 4, "pairs_per_step": 2, "num_traces": 2, "prompt_id": "compact_direct", "machine": machine}
    how = gcpo.Generation(max_tokens=8)
    schedule = Schedule(lr=1e-3, warmup_steps=1)
    return gcpo.Config(model=str(verifier), generation=how, schedule=schedule, **{**base, **changes})  # type: ignore[arg-type]


def test_gcpo_runs_logs_its_figures_and_saves(tmp_path: Path, verifier: Path) -> None:
    from transformers import AutoModelForImageTextToText

    run_dir = build_tiny_run(tmp_path / "run")
    result = gcpo.run(config(verifier), run_dir)
    curve = Run.open(run_dir).curves("gcpo")
    assert [point["step"] for point in curve] == [1, 2, 3, 4]
    assert {"parse_rate", "failed/NO_SCORE", "flat_groups", "weighted_advantage", "trace_tokens", "no_opponent"} <= curve[-1].keys()
    saved = AutoModelForImageTextToText.from_pretrained(result.path)
    assert saved.get_output_embeddings().bias is None


def test_shared_prompts_change_nothing_but_the_cost(tmp_path: Path, verifier: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    gcpo.run(config(verifier, share_prompts=True), run_dir)
    assert [point["step"] for point in Run.open(run_dir).curves("gcpo")] == [1, 2, 3, 4]
