"""The teaching file of GCPO computes what the package computes: ratios, advantages, loss, and TRL's first update on the same traces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from editr1.objectives import gcpo as equations
from editr1.schema import Judgement, ParseFailure
from editr1.stages import gcpo as stage
from editr1.store import Run
from editr1.training import pair_reward
from editr1.training.options import Machine, Schedule
from editr1.training.pair_reward import PairReward
from editr1.world.tiny_vlm import WEIGHTS, Qwen2_5_VLForConditionalGeneration
from examples import gcpo
from tiny_run import build_tiny_run

ROOT = Path(__file__).parents[2]
NAN = float("nan")
TAU_W, TAU_L = torch.tensor([[7.0, 5.0, NAN], [4.0, 4.0, 4.0]]), torch.tensor([[5.0, 6.0, 2.0], [1.0, 9.0, 4.0]])
SCORES_G = torch.stack([TAU_W, TAU_L], 1).flatten()  # pair 0: w, l; pair 1: w, l
LR = 1e-5


def test_the_ratios_are_those_of_the_equations_and_of_the_trainers_reward() -> None:
    r_w, r_l = gcpo.ratios(TAU_W, TAU_L)
    torch.testing.assert_close(r_w, equations.win_ratio(TAU_W, TAU_L), atol=1e-6, rtol=0)
    torch.testing.assert_close(r_l, equations.loss_ratio(TAU_L, TAU_W), atol=1e-6, rtol=0)
    texts = ["no score" if tau.isnan() else f"<score>{tau:g}</score>" for tau in SCORES_G]
    rows = {
        "pair": [0] * 6 + [1] * 6,
        "side": list("wwwlll") * 2,
        "labels": [[]] * 12,
        "needs_verdicts": [False] * 12,
        "prompt_text": [""] * 12,
    }
    rewards = PairReward()(texts, **rows)
    assert rewards == pytest.approx(torch.stack([r_w, r_l], 1).flatten().tolist(), abs=1e-6)


def test_a_side_without_a_readable_trace_teaches_nothing_in_both() -> None:
    silent = torch.full_like(TAU_W, NAN)
    for mine, theirs in zip(
        (*gcpo.ratios(silent, TAU_L), *gcpo.ratios(TAU_W, silent)),
        (
            *(equations.win_ratio(silent, TAU_L), equations.loss_ratio(TAU_L, silent)),
            *(equations.win_ratio(TAU_W, silent), equations.loss_ratio(silent, TAU_W)),
        ),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_the_advantages_and_the_clipped_loss_agree() -> None:
    ratio = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gcpo.advantages(ratio), equations.advantages(ratio), atol=1e-6, rtol=0)
    generator = torch.Generator().manual_seed(1)
    logp, old = (-3 * torch.rand(12, 7, generator=generator) for _ in range(2))
    mask = (torch.arange(7) < torch.randint(1, 8, (12, 1), generator=generator)).float()
    advantage = equations.advantages(ratio).flatten()
    mine = gcpo.gcpo_loss(logp, old, advantage, mask)
    torch.testing.assert_close(mine, equations.gcpo_loss(logp, old, advantage, mask, gcpo.CLIP), atol=1e-6, rtol=0)
    unclipped = equations.gcpo_loss(logp, old, advantage, mask, 1e9)
    assert (mine - unclipped).abs() > 1e-3  # the clip acts


def test_the_first_update_is_that_of_the_stock_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage trains one step on hand-set scores; the file then learns the same traces from the same start."""
    scores = iter(SCORES_G.tolist())

    def judged(*_: object, **__: object) -> object:
        score = next(scores)
        return ParseFailure("NO_SCORE") if score != score else Judgement((), score)

    monkeypatch.setattr(pair_reward, "parse", judged)
    machine = Machine(micro_batch=12, activation_checkpointing=False, trackers=(), progress=False, precision="float32")
    settings = stage.Config(
        model=str(WEIGHTS), prompt_id="compact_direct", steps=1, pairs_per_step=2, num_traces=3, machine=machine,
        generation=stage.Generation(max_tokens=5), schedule=Schedule(lr=LR, warmup_steps=0, weight_decay=1e-2),
    )  # fmt: skip
    run = Run.open(build_tiny_run(tmp_path / "run"))
    trainer, _ = stage._trainer(settings, run, stage.pair_rows(run, stage.read_pairs(run), settings.prompt_id, 2, 0))
    seen: dict[str, torch.Tensor] = {}
    score = trainer._generate_and_score_completions

    def remember(rows: object) -> object:
        seen.update(made := score(rows))
        return made

    monkeypatch.setattr(trainer, "_generate_and_score_completions", remember)
    trainer.train()

    device = seen["advantages"].device
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS).to(device)
    model.model.visual.requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    names = ("pixel_values", "image_grid_thw")
    prompt = seen["prompt_ids"].shape[1]
    inputs = {"input_ids": seen["prompt_ids"], "attention_mask": seen["prompt_mask"], **{name: seen[name] for name in names}}
    inputs["mm_token_type_ids"] = seen["mm_token_type_ids"][:, :prompt]
    A = torch.stack([gcpo.advantages(r) for r in gcpo.ratios(TAU_W, TAU_L)], 1).flatten().to(device)
    torch.testing.assert_close(A, seen["advantages"], atol=1e-6, rtol=0)
    logp = gcpo.log_probs(model, inputs, seen["completion_ids"], seen["completion_mask"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=1e-2)
    gcpo.step(model, optimizer, gcpo.gcpo_loss(logp, logp.detach(), A, seen["completion_mask"]))
    theirs = dict(trainer.model.named_parameters())
    errors = torch.cat([(p - theirs[name]).detach().flatten() for name, p in model.named_parameters()])
    changes = torch.cat([(p - before[name]).detach().flatten() for name, p in model.named_parameters()])
    assert changes.abs().max() > 0.5 * LR
    assert errors.abs().max() < 1e-6
    assert errors.norm() < 1e-2 * changes.norm()


def test_the_file_runs_alone_and_fits_a_screen() -> None:
    path = ROOT / "examples" / "gcpo.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert not [word for word in ("editr1.training", "editr1.flow", "editr1.objectives", "import trl", "from trl") if word in text]
    made = subprocess.run([sys.executable, str(path), "--tiny"], capture_output=True, text=True, timeout=300, check=True)
    assert "step 1: mean ratio" in made.stdout
