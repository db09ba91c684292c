"""A scalar head trained on pairs: it learns, resumes as it was, and judges from its checkpoint."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from editr1.bench.judges.editreward import bradley_terry
from editr1.config import Component
from editr1.errors import ConfigError
from editr1.judge.item import RewardItem
from editr1.stages import gcpo
from editr1.store import Run, preference_pairs
from editr1.training.options import HeldOut, Machine, RewardOptions, Schedule, Trained
from editr1.training.rows import pair_rows, read_pairs
from tiny_run import build_tiny_run, build_tiny_verifier


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


def config(verifier: Path, **changes: object) -> gcpo.Config:
    machine = Machine(micro_batch=4, activation_checkpointing=False, trackers=(), progress=False, save_every=2)
    base = {
        "steps": 4,
        "pairs_per_step": 4,
        "prompt_id": "compact_direct",
        "machine": machine,
        "schedule": Schedule(lr=3e-3, warmup_steps=1),
    }
    return gcpo.Config(model=str(verifier), method=Component("bradley_terry"), **{**base, **changes})  # type: ignore[arg-type]


def items(run: Run, side: str) -> list[RewardItem]:
    found = []
    for pair in preference_pairs(run, "train"):
        edit = pair.winner if side == "w" else pair.loser
        found.append(RewardItem(run.images.get(pair.task.source), run.images.get(edit.image), pair.task.instruction, pair.principles))
    return found


def test_the_head_learns_its_pairs_and_judges_from_the_checkpoint(tmp_path: Path, verifier: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    saved = gcpo.run(config(verifier, steps=25), run_dir)
    run = Run.open(run_dir)
    curve = run.curves("gcpo")
    assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)  # the head begins at 0: every pair is a coin
    assert curve[0]["pair_accuracy"] == 0.5
    assert curve[-1]["loss"] < 0.6
    judge = bradley_terry.build(saved.path)
    assert judge.how.prompt_id == "compact_direct"  # remembered beside the weights
    better, worse = judge.score(items(run, "w")), judge.score(items(run, "l"))
    assert sum(a.value > b.value for a, b in zip(better, worse, strict=True)) > len(better) / 2  # type: ignore[operator]
    assert all(0.0 <= reward.value <= 10.0 for reward in better)  # type: ignore[operator]
    judge.batch_size = 1  # alone or together, padded or not
    alone = judge.score(items(run, "w"))
    assert [a.value for a in alone] == pytest.approx([b.value for b in better], abs=1e-3)


def test_the_loss_is_the_equation_on_adjacent_rows(tmp_path: Path, verifier: Path) -> None:
    run = Run.open(build_tiny_run(tmp_path / "run"))
    settings = config(verifier)
    trainer, _ = gcpo._head_trainer(settings, run, pair_rows(run, read_pairs(run), settings.prompt_id, 2, 0))
    weight = trainer.model.score_head.weight
    weight.data.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    scores = trainer.model(**batch)
    expected = -torch.log(torch.sigmoid(scores[[0, 2]] - scores[[1, 3]])).mean()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected)


def test_a_resumed_head_equals_one_that_was_not_stopped(tmp_path: Path, verifier: Path) -> None:
    whole = gcpo.run(config(verifier), build_tiny_run(tmp_path / "whole"))
    run_dir = build_tiny_run(tmp_path / "halves")

    from editr1.training.trainer import Curves

    plain = Curves.on_log

    def stop_at_three(self: Curves, args: object, state: Any, *rest: Any, **named: Any) -> None:
        if state.global_step > 2:
            raise KeyboardInterrupt
        plain(self, args, state, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curves, "on_log", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            gcpo.run(config(verifier), run_dir)
    resumed = gcpo.run(config(verifier), run_dir)
    assert (Path(resumed.path) / "model.safetensors").read_bytes() == (Path(whole.path) / "model.safetensors").read_bytes()


def test_what_has_no_meaning_without_traces_is_refused(tmp_path: Path, verifier: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    for changes in ({"reward": RewardOptions(same_tolerance=0.5)}, {"held_out": HeldOut(every=1)}, {"trained": Trained(lora_rank=2)}):
        with pytest.raises(ConfigError, match="has no traces"):
            gcpo.run(config(verifier, **changes), run_dir)
    odd = dataclasses.replace(config(verifier).machine, micro_batch=1)
    with pytest.raises(ConfigError, match="must be even"):
        gcpo.run(config(verifier, machine=odd), run_dir)
    with pytest.raises(ConfigError, match="holds no score_head"):
        bradley_terry.build(str(verifier))
    assert "without traces" in gcpo.plan(config(verifier), run_dir)[0]
