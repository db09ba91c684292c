"""Rounding: masters of bfloat16 weights, replays in the rollout's shapes, and telling rounding from a wrong replay."""

import dataclasses
import logging

import pytest
import torch

import toy
from editr1.config import Component, create
from editr1.errors import BackendError
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.policy import Policy
from editr1.flow.rollout import rollout
from editr1.flow.update import distinct_rows, micro_batches
from editr1.flow.watch import Replay, rounding_bound
from editr1.objectives.sde import Step, StepRows, log_prob, mean_of
from editr1.schema import Reward
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run


class HalfToy(toy.ToyEditor):
    """The toy with its weights in bfloat16, as real editors are loaded."""

    def __init__(self):
        super().__init__()
        self.transformer.to(torch.bfloat16)

    def velocity(self, x_BLD, sigma, cond):
        cond = {name: value.bfloat16() for name, value in cond.items()}
        return super().velocity(x_BLD.bfloat16(), torch.as_tensor(sigma).bfloat16(), cond).float()


@pytest.mark.parametrize("weights", ["full", "lora"])
def test_trained_weights_of_a_bfloat16_editor_have_float32_masters(weights):
    """AdamW at 1e-5 on bfloat16 weights of size .02 moves 16 % of them in 100 steps: a step is less than half a unit."""
    policy = Policy(HalfToy(), Training(weights=weights, rank=4, alpha=8), seed=0)
    start = policy.snapshot()
    assert {p.dtype for p in policy.params.values()} == {torch.float32}
    assert {p.dtype for p in policy.working.values()} == {torch.bfloat16}
    optimizer = torch.optim.AdamW(policy.params.values(), lr=1e-5, weight_decay=0.0)
    for _ in range(100):
        sum(p.float().sum() for p in policy.working.values()).backward()
        assert all(p.grad is None for p in policy.working.values())  # handed over to the masters
        optimizer.step()
        optimizer.zero_grad()
        policy.refresh()
    for name, master in policy.params.items():
        torch.testing.assert_close(master.detach(), start[name] - 1e-3, atol=2e-5, rtol=1e-4)
        assert torch.equal(policy.working[name], master.bfloat16())


def test_gradients_of_bfloat16_weights_add_up_in_float32():
    policy = Policy(HalfToy(), Training(weights="full"), seed=0)
    name, param = next(iter(policy.working.items()))
    for scale in (256.0, 1.0, 1.0):  # in bfloat16 256 + 1 is 256
        (param.float().sum() * scale).backward()
    assert float(policy.params[name].grad.flatten()[0]) == 258.0


def test_a_bfloat16_editor_learns_and_its_swapped_and_saved_weights_are_float32(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    training = Training(weights="lora", rank=4, alpha=8, lr=1e-2, beta=0.01)
    config = Config(
        Component("toy:build"), Component("toy:RednessJudge"), group_size=4, contexts=4, contexts_per_batch=2, iterations=2, save_every=1,
        sampling=Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), training=training, gallery_every=0,
    )  # fmt: skip
    trainer = make_trainer(config, HalfToy(), [toy.score_redness], run.dir)
    start = trainer.state.policy.snapshot()
    train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)
    end = trainer.state.policy.snapshot()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    assert {value.dtype for value in (*end.values(), *trainer.state.ema.values())} == {torch.float32}


@pytest.mark.parametrize("unscored", [0, 1, 5])
@pytest.mark.parametrize("shared", [True, False])
def test_replays_have_the_shapes_of_the_rollout_however_many_edits_are_unscored(tmp_path, unscored, shared):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    editor, settings = toy.ToyEditor(), Sampling(steps=4, window=2, last=3, same_start=shared)
    contexts = read_contexts(run, 0.0)[0][:1]
    cond = editor.encode([contexts[0].source()], ["x"], editor.plan(8, 8))
    editor.events.clear()
    path = rollout(editor, cond, editor.plan(8, 8), ["a"], (0, 1), settings, group_size=24, seed=0, iteration=0)
    sampled = [rows for name, rows in editor.events if name == "velocity"][:2]
    weighs = torch.ones(1, 24, dtype=torch.bool)
    weighs[0, :unscored] = False
    needs = create("algorithms", Component("grpo")).needs
    for size in (0, 24):
        assert [len(distinct_rows(place, path)[0].sample) for place in micro_batches(weighs, 2, size, needs)] == sampled
    # a forward without a single row that weighs is left out, unless the other processes count on it
    nobody = torch.zeros_like(weighs)
    assert not list(micro_batches(nobody, 2, 0, needs))
    assert len(list(micro_batches(nobody, 2, 0, needs, company=True))) == 2


def replay(relative, dtype=torch.bfloat16, bias=0.0):
    """The replay of one real-size step (Kontext at 512 pixels, sigma .85) whose velocity is off by a share of itself."""
    generator = torch.Generator().manual_seed(0)
    x, v, noise, off = (torch.randn(8, 1024, 64, generator=generator) for _ in range(4))
    step = Step(1.0, -0.098, 0.566, -0.07)
    rows = StepRows.of([step] * 8, x)
    mean = mean_of(step, x, v)
    taken = mean + step.std * noise
    moved = mean_of(step, x, v + relative * off) + bias
    seen = Replay()
    seen.add(
        log_prob(rows, taken, moved) - log_prob(rows, taken, mean), rounding_bound(v, rows.v_weight.flatten(), rows.std.flatten(), dtype)
    )
    return seen


def test_rounding_is_told_with_its_distribution_and_goes_on():
    assert replay(0.0).check(None, 1e-4) is None
    warning = replay(0.01).check(None, 1e-5)
    assert warning is not None
    assert "99 %" in warning
    assert "mean log-ratio" in warning
    assert replay(0.01).check(None, None) is None  # an algorithm without a clip range


@pytest.mark.parametrize(("relative", "dtype"), [(1.0, torch.bfloat16), (0.05, torch.float32)])
def test_what_cannot_be_rounding_stops_the_run(relative, dtype):
    with pytest.raises(BackendError, match="schedule or conditioning"):
        replay(relative, dtype).check(None, 1e-4)
    assert replay(relative, dtype).check(-1.0, 1e-4)  # told, not stopped
    with pytest.raises(BackendError, match="more than"):
        replay(0.01).check(1e-9, 1e-4)  # a limit of one's own


def test_a_schedule_mismatch_in_the_replay_stops_the_run():
    """verl-omni#280: another schedule in training put a constant 5e-3 on the log-ratio."""
    seen = Replay()
    bound = replay(0.0).bounds[0]
    seen.add(torch.full((8,), 5e-3), bound)
    with pytest.raises(BackendError):
        seen.check(None, 1e-4)
    broken = Replay()
    broken.add(torch.full((8,), float("nan")), bound)
    with pytest.raises(BackendError):
        broken.check(None, 1e-4)


def test_a_held_out_reward_that_falls_while_training_rises_stops_the_run(tmp_path, caplog):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    from editr1.flow.config import Evaluation

    calls = iter(range(1000))
    config = Config(
        Component("toy:build"), Component("toy:RednessJudge"), group_size=4, contexts=4, contexts_per_batch=4, iterations=30, save_every=0,
        sampling=Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), training=Training(weights="full", lr=1e-4, beta=0.0),
        evaluation=Evaluation(every=1, tasks=2, steps=2, held_out=0.4, hacking=3), gallery_every=0,
    )  # fmt: skip

    def rising(edits, seed):
        base = next(calls) / 10
        return [Reward(base + index / 100, 1, 1) for index, _ in enumerate(edits)]

    def falling(edits, seed):
        return [Reward(9.0 - next(calls) / 10, 1, 1) for _ in edits]

    trainer = make_trainer(config, toy.ToyEditor(), [rising], run.dir)
    tasks, held = read_contexts(run, 0.4)
    with caplog.at_level(logging.WARNING):
        train(trainer, tasks, held[:2], falling, run)
    assert trainer.state.iteration == 4  # three falls need four evaluations
    assert "stopped" in caplog.text
    patient = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, hacking=0), iterations=6)
    trainer = make_trainer(patient, toy.ToyEditor(), [rising], run.dir)
    train(trainer, tasks, held[:2], falling, run)
    assert trainer.state.iteration == 6
