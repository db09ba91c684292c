"""Samplers of tasks, rewards, swapped weights, trajectories: each alone."""

import dataclasses
import time

import numpy as np
import pytest
import torch

import toy
from editr1.config import Component, create
from editr1.errors import BackendError, ConfigError, UnscoredError
from editr1.flow.config import Config, Evaluation, Sampling, Training
from editr1.flow.contexts import choose_contexts, read_contexts, share_of_process
from editr1.flow.curation import sampled_images
from editr1.flow.policy import Policy, follow
from editr1.flow.rewarding import RewardCollector, all_constant, check_unscored, reward_logs, reward_table, signal_share
from editr1.flow.rollout import rollout
from editr1.flow.update import Learner, UpdateLogs, micro_batches, rows_loss
from editr1.schema import Reward
from editr1.stages.edit_rl import make_trainer
from editr1.store import Run

TOY = Component("toy:build")
JUDGE = Component("toy:RednessJudge")


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    return run


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_iteration_has_whole_groups_without_repeats_however_many_processes(world):
    seen = []
    for iteration in range(6):
        chosen = choose_contexts(10, 4, seed=1, iteration=iteration)
        parts = [share_of_process(chosen, rank, world) for rank in range(world)]
        assert [i for part in parts for i in part] == chosen  # groups stay whole: a process holds all G members
        assert len(set(chosen)) == 4
        assert chosen == choose_contexts(10, 4, seed=1, iteration=iteration)
        seen.append(tuple(chosen))
    assert len(set(seen)) == 6
    assert len({*seen[0], *seen[1]}) == 8  # one epoch does not repeat


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="multiple of 3"):
        share_of_process([1, 2, 3, 4], 0, 3)
    with pytest.raises(ConfigError, match="only 3"):
        choose_contexts(3, 4, seed=0, iteration=0)


def test_held_out_tasks_share_no_picture_with_training_and_equal_words_stay_two_tasks(run):
    train, held = read_contexts(run, 0.3)
    assert {c.task.source.digest for c in train}.isdisjoint(c.task.source.digest for c in held)
    assert len(train) + len(held) == 12
    everything, _ = read_contexts(run, 0.0)
    same_words = [c for c in everything if c.task.instruction == "redden 0"]
    assert len({c.id for c in same_words}) == 2


def test_rewards_are_asked_for_before_the_next_batch_is_sampled_and_keep_their_order():
    events = []

    def slow(edits, seed):
        events.append(f"scoring {seed}")
        time.sleep(0.05)
        return [Reward(float(e), 1, 1) for e in edits]

    collector = RewardCollector(slow)
    for batch in range(3):
        collector.submit([10 * batch, 10 * batch + 1], batch)
        events.append(f"sampling {batch + 1}")
        time.sleep(0.02)
    values = [r.value for r in collector.collect()]
    collector.close()
    assert values == [0, 1, 10, 11, 20, 21]
    assert events.index("scoring 0") < events.index("sampling 2")


def test_a_judge_that_fails_or_answers_for_another_number_stops_the_run():
    def broken(edits, seed):
        raise BackendError("judge is down")

    for score, message in ((broken, "down"), (lambda edits, seed: [], "wrong edits")):
        collector = RewardCollector(score)
        collector.submit([1, 2], 0)
        with pytest.raises(BackendError, match=message):
            collector.collect()
        collector.close()


def test_unscored_edits_are_nan_and_never_a_number():
    rewards = [Reward(7.0, 1, 1), Reward(None, 0, 1, (), "NO_SCORE"), Reward(float("nan"), 1, 1), Reward(5.0, 1, 1)]
    table = reward_table(rewards, 2)
    assert table.isnan().tolist() == [[False, True], [True, False]]
    assert reward_logs(table, rewards)["reward/mean"] == 6.0
    with pytest.raises(UnscoredError, match="NO_SCORE"):
        check_unscored(table, 0.4, rewards)
    assert check_unscored(table, 0.5, rewards) == 0.5


def test_constant_groups_are_noticed():
    assert all_constant(torch.tensor([[3.0, 3.0], [float("nan"), 2.0]]))
    assert not all_constant(torch.tensor([[3.0, 3.0], [1.0, 2.0]]))


def make_cond(editor, contexts):
    plan = editor.plan(8, 8)
    return plan, editor.encode([c.source() for c in contexts], [c.task.instruction for c in contexts], plan)


def test_a_trajectory_holds_the_window_and_nothing_else(run):
    editor = toy.ToyEditor()
    contexts = read_contexts(run, 0.0)[0][:2]
    plan, cond = make_cond(editor, contexts)
    settings = Sampling(steps=6, window=2, last=4, kind="cps", level=0.5)
    path = rollout(editor, cond, plan, [c.id for c in contexts], (1, 2), settings, group_size=3, seed=0, iteration=0)
    assert path.latents.shape == (3, 6, toy.TOKENS, toy.CHANNELS)
    assert path.log_probs.shape == (2, 6)
    assert path.cond["source"].shape[0] == 2  # one row a context, not a sample
    assert [e for e in editor.events if e[0] == "encode"] == [("encode", 2)]  # one encode a group
    assert len([e for e in editor.events if e[0] == "velocity"]) == 6


def test_a_sample_does_not_depend_on_its_batch(run):
    editor = toy.ToyEditor()
    contexts = read_contexts(run, 0.0)[0][:2]
    settings = Sampling(steps=4, window=1, last=2)
    together = rollout(editor, make_cond(editor, contexts)[1], editor.plan(8, 8), [c.id for c in contexts], (1,), settings,
                       group_size=2, seed=0, iteration=3)  # fmt: skip
    alone = rollout(editor, make_cond(editor, contexts[1:])[1], editor.plan(8, 8), [contexts[1].id], (1,), settings,
                    group_size=2, seed=0, iteration=3)  # fmt: skip
    torch.testing.assert_close(together.final[2:], alone.final, atol=1e-5, rtol=1e-5)


def test_groups_that_share_their_start_are_computed_once_until_they_part(run):
    editor = toy.ToyEditor()
    contexts = read_contexts(run, 0.0)[0][:2]
    plan, cond = make_cond(editor, contexts)
    settings = Sampling(steps=5, window=2, last=4, same_start=True)
    path = rollout(editor, cond, plan, ["a", "b"], (1, 2), settings, group_size=3, seed=0, iteration=0)
    assert [rows for name, rows in editor.events if name == "velocity"] == [2, 2, 6, 6, 6]  # a row a group, then a row a sample
    for first in (0, 3):
        torch.testing.assert_close(path.latents[0, first], path.latents[0, first + 1])
        assert not torch.equal(path.latents[1, first], path.latents[1, first + 1])


@pytest.mark.parametrize("size", [0, 4])
def test_one_forward_for_a_shared_start_gives_the_loss_and_gradient_of_one_a_member(run, size):
    results = []
    for shared in (True, False):
        editor = toy.ToyEditor()
        policy = Policy(editor, Training(weights="lora", rank=4, alpha=8), seed=0)
        for param in policy.params.values():
            param.data.add_(0.1 * torch.ones_like(param))
        settings = Config(TOY, JUDGE, sampling=Sampling(steps=4, window=2, last=3, same_start=True), training=Training(beta=0.04))
        plan, cond = make_cond(editor, read_contexts(run, 0.0)[0][:2])
        path = rollout(editor, cond, plan, ["a", "b"], (0, 1), settings.sampling, group_size=3, seed=0, iteration=0)
        path = dataclasses.replace(path, shared_start=shared)
        editor.events.clear()
        advantages, losses = torch.tensor([1.0, -1.0, 0.5, 2.0, -1.0, 0.0]), 0.0
        algorithm = create("algorithms", settings.training.algorithm)
        learner, scored = Learner(settings, algorithm, editor, policy), torch.ones(6, dtype=torch.bool)
        for rows in micro_batches(scored.view(2, 3), 2, size, algorithm.needs):
            loss = rows_loss(learner, path, advantages, scored, rows, 0, UpdateLogs()).sum()
            loss.backward()
            losses += loss.item()
        results.append((losses, torch.cat([p.grad.flatten() for p in policy.params.values()]), sum(r for _, r in editor.events)))
    (loss, gradient, calls), (loss_each, gradient_each, calls_each) = results
    assert loss == pytest.approx(loss_each, rel=1e-5)
    torch.testing.assert_close(gradient, gradient_each, atol=1e-6, rtol=1e-4)
    assert calls_each == 24  # 6 samples x 2 steps, trained and reference
    assert calls == (16 if size == 0 else 18)  # 2 groups + 6 samples, twice; a group that micro-batches cut counts in both


def test_evaluation_images_do_not_depend_on_the_batch_size(run):
    contexts = read_contexts(run, 0.0)[0][:5]
    images = []
    for batch in (2, 5):
        config = Config(TOY, JUDGE, height=8, width=8, evaluation=Evaluation(steps=3, batch=batch), training=Training(rank=2, alpha=2))
        trainer = make_trainer(config, toy.ToyEditor(), [toy.score_redness], run.dir)
        images.append(sampled_images(trainer, contexts))
    assert [toy.redness(i) for i in images[0]] == pytest.approx([toy.redness(i) for i in images[1]], abs=0.05)


def test_lora_starts_as_the_base_learns_alone_and_can_be_switched_off():
    editor = toy.ToyEditor()
    x = editor.noise(editor.plan(8, 8), [1, 2])
    cond = {"source": torch.zeros_like(x), "words": torch.ones(2, 1, 8)}
    base = editor.velocity(x, 0.5, cond)
    policy = Policy(editor, Training(weights="lora", rank=4, alpha=8), seed=0)
    assert torch.equal(editor.velocity(x, 0.5, cond), base)
    assert all("lora_" in name for name in policy.params)
    for name, param in policy.params.items():
        if "lora_B" in name:
            torch.nn.init.constant_(param, 0.05)
    assert not torch.allclose(editor.velocity(x, 0.5, cond), base)
    with policy.reference():
        assert torch.equal(editor.velocity(x, 0.5, cond), base)
    editor.velocity(x, 0.5, cond).sum().backward()
    assert all(p.grad is None for n, p in editor.transformer.named_parameters() if "lora_" not in n)


def test_swapped_weights_come_back_even_after_an_error():
    editor = toy.ToyEditor()
    policy = Policy(editor, Training(weights="full", beta=0.04), seed=0)
    slow, before = policy.snapshot(), policy.snapshot()
    for param in policy.params.values():
        param.data.add_(1.0)
    follow(slow, policy, 0.75)
    name = next(iter(before))
    torch.testing.assert_close(slow[name], before[name] + 0.25)

    def fail():
        with policy.using(slow):
            torch.testing.assert_close(policy.params[name].data, slow[name])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    torch.testing.assert_close(policy.params[name].data, before[name] + 1.0)
    with policy.reference():
        assert torch.equal(policy.params[name].data, before[name])


@pytest.mark.parametrize("spread_of_edits", [0.0, 0.5, 2.0])
def test_signal_is_the_share_of_a_groups_variance_that_is_not_the_judges_noise(spread_of_edits):
    rng, noise, num_traces = np.random.default_rng(0), 1.0, 4
    truth = rng.normal(5.0, spread_of_edits, (400, 8, 1))
    taus = truth + rng.normal(0.0, noise, (400, 8, num_traces))
    rewards = [Reward(float(row.mean()), num_traces, num_traces, scores=tuple(row.tolist())) for row in taus.reshape(-1, num_traces)]
    signal = signal_share(reward_table(rewards, 8), rewards)
    assert signal == pytest.approx(spread_of_edits**2 / (spread_of_edits**2 + noise**2 / num_traces), abs=0.05)


def test_without_several_traces_nothing_is_said_about_noise():
    single = [Reward(value, 1, 1) for value in (3.0, 7.0)]
    assert signal_share(reward_table(single, 2), single) is None
    assert "reward/signal" not in reward_logs(reward_table(single, 2), single)
    equal = [Reward(5.0, 2, 2, scores=(5.0, 5.0))] * 2
    assert signal_share(reward_table(equal, 2), equal) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"group_size": 1},
        {"contexts": 3, "training": Training(updates_per_rollout=2)},
        {"sampling": Sampling(level=0.0)},
        {"training": Training(algorithm=Component("guard")), "sampling": Sampling(log_prob="squared_error")},
        {"training": Training(algorithm=Component("nft")), "sampling": Sampling(same_start=True)},
        {"training": Training(algorithm=Component("awm"), updates_per_rollout=2), "contexts": 4},
        {"training": Training(algorithm=Component("grpo", {"clip_lo": 1e-4}))},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ValueError, match=r"group_size|multiple|noise level|guard|same_start|one update|clip_low"):
        Config(TOY, JUDGE, **settings)


def test_edits_take_the_shape_of_their_source_and_equal_shapes_share_a_batch(run):
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "editors"))
    import tiny_pipelines
    from PIL import Image

    from editr1.editors import kontext
    from editr1.flow.contexts import Context
    from editr1.schema import EditTask

    editor = kontext.KontextEditor(tiny_pipelines.kontext(), text_tokens=16)
    sources = [Image.new("RGB", size) for size in ((128, 64), (64, 64), (256, 128), (30, 60))]
    contexts = [Context(EditTask.make(run.images.put(s), f"edit {i}"), (), run) for i, s in enumerate(sources)]
    config = Config(TOY, JUDGE, height=64, width=64, group_size=2, contexts=4, training=Training(rank=2, alpha=2))
    trainer = make_trainer(config, editor, [toy.score_redness], run.dir)
    batches = [(plan.width, plan.height, [c.task.instruction for c in same]) for plan, same in trainer.batches(contexts, 8)]
    assert batches == [(80, 32, ["edit 0", "edit 2"]), (64, 64, ["edit 1"]), (32, 80, ["edit 3"])]
    square = make_trainer(Config(TOY, JUDGE, height=64, width=64, keep_aspect=False), toy.ToyEditor(), [toy.score_redness], run.dir)
    assert len(list(square.batches(contexts, 8))) == 1


def test_the_editors_dtype_is_read_once_however_many_layers_are_trained(monkeypatch):
    """diffusers looks through all modules at each reading: 720 layers of Qwen-Image-Edit took a minute."""
    editor, reads = toy.ToyEditor(), []
    monkeypatch.setattr(type(editor.transformer), "dtype", property(lambda _: reads.append(1) or torch.float32), raising=False)
    policy = Policy(editor, Training(weights="lora", rank=4, alpha=8), seed=0)
    assert len(policy.params) > 2
    assert len(reads) == 1
