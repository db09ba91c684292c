"""Settings that make an iteration faster and change nothing but rounding: kept graphs, compiled blocks."""

import dataclasses

import pytest
import torch
from test_numerics import HalfToy

import toy
from editr1 import placement
from editr1.config import Component
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.plan import count_evaluations, describe_plan, memory_of
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run

KONTEXT, JUDGE = Component("kontext"), Component("editr1.judge.rrm:build")
LORA = Training(weights="lora", rank=4, alpha=8, lr=1e-2)
FULL = Training(weights="full", lr=1e-3)


def config(training, **changes):
    window = Sampling(steps=4, kind="cps", level=0.5, window=2, window_kind="fixed", first=1, last=3)
    values = {"group_size": 4, "contexts": 4, "contexts_per_batch": 2, "iterations": 2, "sampling": window, "gallery_every": 0}
    return Config(Component("toy:build"), Component("toy:RednessJudge"), **(values | {"training": training} | changes))


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    return run


def trained(run, settings, editor):
    """(weights, averages, rows of all forwards) after the run's iterations."""
    trainer = make_trainer(settings, editor, [toy.score_redness], run.dir)
    train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)
    return trainer.state.policy.snapshot(), trainer.state.ema, sum(rows for name, rows in editor.events if name == "velocity")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("training", [LORA, FULL, dataclasses.replace(LORA, gradient_checkpointing=True)], ids=["lora", "full", "again"])
@pytest.mark.parametrize("make", [toy.ToyEditor, HalfToy])
def test_kept_graphs_train_the_same_weights_with_one_forward_less_a_trained_row(run, make, training, shared):
    plain = config(training, sampling=dataclasses.replace(config(training).sampling, same_start=shared))
    keeping = dataclasses.replace(plain, keep_graphs=True)
    weights, averages, rows = trained(run, plain, make())
    weights_kept, averages_kept, rows_kept = trained(run, keeping, make())
    start = make_trainer(plain, make(), [toy.score_redness], run.dir).state.policy.snapshot()
    assert any(not torch.equal(start[name], weights[name]) for name in start)
    torch.testing.assert_close(weights_kept, weights, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(averages_kept, averages, atol=1e-6, rtol=1e-5)
    counts, counts_kept = count_evaluations(plain), count_evaluations(keeping)
    assert rows - rows_kept == 2 * counts.trained == 2 * (counts.rollout - counts_kept.rollout) > 0


@pytest.mark.parametrize(
    ("training", "changes"),
    [
        (Training(algorithm=Component("nft")), {}),
        (Training(updates_per_rollout=2), {}),
        (Training(micro_batch=2), {}),
        (Training(shard=True), {"contexts_per_batch": 1}),
        (Training(), {"rollout_ahead": True}),
    ],
)
def test_graphs_are_kept_only_where_the_update_is_of_what_was_sampled(training, changes):
    config(training, **changes)
    config(Training(micro_batch=8), keep_graphs=True)  # the 2 x 4 rows of the rollout's forward, cut nowhere
    with pytest.raises(ValueError, match="keep_graphs"):
        config(training, keep_graphs=True, **changes)


def test_the_memory_of_kept_graphs_is_told():
    """Kontext at 512 pixels, 2560 tokens: 34 bytes a token and unit of width in each of 57 blocks, or 2 with checkpointing."""
    one = Config(KONTEXT, JUDGE, contexts=2, training=Training(gradient_checkpointing=True))
    kept = dataclasses.replace(one, keep_graphs=True)
    row = 2560 * 3072 * 57 * 2 / 2**30
    # 2 groups x 24 edits x 2 steps wait, but for the 24 rows of one forward
    assert memory_of(kept).activations - memory_of(one).activations == pytest.approx(72 * row)
    assert "384 sampling + 96 trained + 96 reference" in "\n".join(describe_plan(kept))
    plain = [dataclasses.replace(c, training=Training()) for c in (one, kept)]
    assert memory_of(plain[1]).activations - memory_of(plain[0]).activations == pytest.approx(72 * row * 17)


@pytest.mark.parametrize("training", [LORA, FULL], ids=["lora", "full"])
def test_compiled_blocks_follow_swapped_weights_and_the_lora_switch(run, training, monkeypatch):
    """Traced by torch's compiler as in a real run (its graphs then run uncompiled): reference passes, averages, old and new weights."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_(self, backend="eager", **options))
    weights, averages, _ = trained(run, config(training), toy.ToyEditor())
    torch._dynamo.utils.counters.clear()
    quick = config(training, placement=placement.Placement(compile=True), keep_graphs=True)
    weights_quick, averages_quick, _ = trained(run, quick, toy.ToyEditor())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    torch.testing.assert_close(weights_quick, weights, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(averages_quick, averages, atol=1e-6, rtol=1e-5)
