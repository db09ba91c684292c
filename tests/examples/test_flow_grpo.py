"""The teaching file of Flow-GRPO computes what the package computes, on the embedded editor: rollout, advantages, loss, first update."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from editr1.config import Component
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.rollout import rollout, start_seeds, step_seeds
from editr1.flow.update import Learner, UpdateLogs, micro_batches, rows_loss
from editr1.objectives.advantages import group_advantages
from editr1.stages.edit_rl import make_trainer
from editr1.world.tasks import TaskSource
from editr1.world.tiny_editor import build
from examples import flow_grpo

ROOT = Path(__file__).parents[2]
GROUP, WINDOW, STEPS, LR = 3, (1, 2), 6, 1e-5
TASKS = [TaskSource(seed=5).task(index) for index in range(2)]
IDS = ("first", "second")
TAU_CG = torch.tensor([[7.0, 5.0, 9.5], [2.0, 4.0, 4.0]])


def config(updates: int = 1) -> Config:
    return Config(
        editor=Component("unused"),
        reward=Component("unused"),
        group_size=GROUP,
        contexts=2,
        sampling=Sampling(steps=STEPS, level=flow_grpo.NOISE_LEVEL, window=2),
        training=Training(
            Component("grpo", {"clip_low": flow_grpo.CLIP, "clip_high": flow_grpo.CLIP}),
            weights="full",
            lr=LR,
            weight_decay=1e-2,
            beta=flow_grpo.BETA,
            updates_per_rollout=updates,
        ),
    )


def conditions(editor):
    """One row a task, and one an edit."""
    rows = editor.encode([task.image for task in TASKS], [task.instruction for task in TASKS], editor.plan(72, 72))
    return rows, editor.expand(rows, GROUP)


def moved(editor):
    """The editor with other weights, away from the reference."""
    with torch.no_grad():
        torch.manual_seed(7)
        for parameter in editor.transformer.parameters():
            parameter += 0.3 * parameter.abs().mean() * torch.randn_like(parameter)
    return editor


@pytest.fixture(scope="module")
def sampled():
    """(the package's trajectory, the example's rollout) from the same noise."""
    editor = moved(build(device="cpu"))
    plan, (rows, copies) = editor.plan(72, 72), conditions(editor)
    theirs = rollout(editor, rows, plan, IDS, WINDOW, config().sampling, group_size=GROUP, seed=0, iteration=0)
    seeds = [start_seeds(0, 0, IDS, GROUP), *(step_seeds(0, 0, IDS, GROUP, step) for step in WINDOW)]
    sigmas = editor.sigmas(plan, STEPS)
    return theirs, flow_grpo.rollout(editor, copies, sigmas, range(1, 3), [editor.noise(plan, seed) for seed in seeds])


def test_the_rollouts_agree(sampled) -> None:
    theirs, ours = sampled
    torch.testing.assert_close(ours.latents, theirs.latents, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.log_probs, theirs.log_probs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.final, theirs.final, atol=1e-6, rtol=1e-6)


def test_the_step_at_sigma_one_agrees_too() -> None:
    from editr1.objectives.sde import make_step

    step = make_step("flow_sde", 1.0, 5 / 6, flow_grpo.NOISE_LEVEL, 5 / 6)
    assert flow_grpo.noisy_step(1.0, 5 / 6, 5 / 6) == pytest.approx((step.x_weight, step.v_weight, step.std), abs=1e-12)


def test_the_advantages_agree() -> None:
    torch.testing.assert_close(flow_grpo.advantages(TAU_CG), group_advantages(TAU_CG), atol=1e-6, rtol=0)


def our_update(editor, sampled) -> float:
    optimizer = torch.optim.AdamW(editor.transformer.parameters(), lr=LR)
    sigmas, cond = editor.sigmas(editor.plan(72, 72), STEPS), conditions(editor)[1]
    return flow_grpo.update(
        editor, build(device="cpu"), optimizer, cond, sampled, sigmas, range(1, 3), flow_grpo.advantages(TAU_CG).flatten()
    )


def test_the_loss_and_the_first_update_agree(sampled, tmp_path: Path) -> None:
    trajectory, ours = sampled
    trainer = make_trainer(config(), build(device="cpu"), [], tmp_path)
    moved(trainer.editor)  # after the trainer has kept its reference
    logs = trainer.update([trajectory], group_advantages(TAU_CG), torch.ones(2, GROUP, dtype=torch.bool), 0, check=True)
    editor = moved(build(device="cpu"))
    before = {name: parameter.detach().clone() for name, parameter in editor.transformer.named_parameters()}
    loss = our_update(editor, ours)
    assert loss == pytest.approx(logs["train/loss_row"], abs=1e-6)
    assert flow_grpo.BETA * logs["train/kl"] > 1e-5  # far above the tolerance: a wrong beta would be seen
    theirs = dict(trainer.editor.transformer.named_parameters())
    errors, changes = [], []
    for name, parameter in editor.transformer.named_parameters():
        errors.append((parameter - theirs[name]).detach().flatten())
        changes.append((parameter - before[name]).detach().flatten())
    assert torch.cat(errors).abs().max() < 1e-6
    assert torch.cat(errors).norm() < 1e-3 * torch.cat(changes).norm()


def test_the_clipped_loss_of_a_policy_that_has_moved_agrees(sampled, tmp_path: Path) -> None:
    """As in a second update of one rollout: ratios are no longer 1, and the clip acts on some."""
    trajectory, ours = sampled
    trainer = make_trainer(config(updates=2), build(device="cpu"), [], tmp_path)
    state, editor = trainer.state, moved(moved(trainer.editor))
    learner, logs = Learner(trainer.config, trainer.algorithm, editor, state.policy), UpdateLogs()
    everyone = torch.ones(2, GROUP, dtype=torch.bool)
    losses = [
        rows_loss(learner, trajectory, group_advantages(TAU_CG).flatten(), everyone.flatten(), place, 0, logs)
        for place in micro_batches(everyone, 2, 0, trainer.algorithm.needs)
    ]
    figures = logs.figures()
    assert figures["train/ratio_error_max"] > flow_grpo.CLIP
    assert 0.0 < figures["train/clipped"] < 1.0
    assert our_update(moved(moved(build(device="cpu"))), ours) == pytest.approx(torch.cat(losses).mean().item(), abs=1e-6)


def test_the_file_runs_alone_and_fits_a_screen() -> None:
    path = ROOT / "examples" / "flow_grpo.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert not [word for word in ("editr1.training", "editr1.flow", "editr1.objectives", "import trl", "from trl") if word in text]
    made = subprocess.run([sys.executable, str(path), "--tiny"], capture_output=True, text=True, timeout=300, check=True)
    assert "iteration 1: mean score" in made.stdout
