"""The trainer as a whole on the toy editor: laws that hold for every model."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import toy
from editr1.commands._judge import accepting
from editr1.config import Component
from editr1.errors import BackendError, ChangedInputsError, NoSignalError, UnscoredError
from editr1.flow.config import Config, Curation, Evaluation, Limits, Sampling, Training, WeightedReward
from editr1.flow.contexts import read_contexts
from editr1.flow.state import checkpoints, load_state, numbers, optimizer_tensors, save_state
from editr1.flow.trainer import lr_share
from editr1.flow.watch import symptoms, warning_of
from editr1.schema import Reward
from editr1.stages import edit_rl
from editr1.stages.edit_rl import finish, make_trainer, train
from editr1.store import Run

ROOT = Path(__file__).parents[2]
FULL = Training(weights="full", lr=3e-3, beta=0.0, algorithm=Component("grpo", {"clip_low": 1e-3, "clip_high": 1e-3}), ema_decay=0.9)
NFT = Component("nft")
LORA = dataclasses.replace(FULL, weights="lora", rank=4, alpha=8, lr=1e-2)
MUON = dataclasses.replace(LORA, lr_matrices=1e-2, algorithm=Component("nft", {"old_decay_rate": 0.02}), final_lr_share=0.1, warmup=2)


def config(training=FULL, **changes):
    values = {
        "editor": Component("toy:build"), "reward": Component("toy:RednessJudge"), "group_size": 4, "contexts": 4, "contexts_per_batch": 2,
        "iterations": 2, "sampling": Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), "save_every": 1, "gallery_every": 0,
    }  # fmt: skip
    return Config(**(values | {"training": training} | changes))


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    return run


def trained(run, settings, score=toy.score_redness, state=None):
    trainer = make_trainer(settings, toy.ToyEditor(), [score], run.dir)
    if state:
        load_state(trainer.state, state)
    tasks, held = read_contexts(run, settings.evaluation.held_out if settings.evaluation.every else 0.0)
    train(trainer, tasks, held, score, run)
    return trainer


def points(run):
    return [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "training", [FULL, LORA, dataclasses.replace(LORA, algorithm=NFT, lr=2e-2), MUON], ids=["full", "lora", "nft", "muon"]
)
def test_the_reward_rises(run, training):
    trained(run, config(training, contexts=8, contexts_per_batch=8, iterations=30, save_every=0))
    rewards = [p["reward/mean"] for p in points(run)]
    first, last = rewards[:5], rewards[-5:]
    assert min(last) > max(first), rewards


def test_a_huge_beta_keeps_the_policy_where_it_was(run):
    """Distance of what the policy says from what the reference says; the two runs differ in `beta` alone."""

    def distance(beta: float) -> float:
        trainer = trained(run, config(dataclasses.replace(LORA, beta=beta, kl="velocity", lr=1e-3), iterations=8))
        editor, policy = trainer.editor, trainer.state.policy
        cond = editor.encode([Image.new("RGB", (8, 8), (20, 80, 200))], ["redden 0"], editor.plan(8, 8))
        x = editor.noise(editor.plan(8, 8), [1])
        with torch.no_grad():
            moved = editor.velocity(x, 0.5, cond)
            with policy.reference():
                return float((moved - editor.velocity(x, 0.5, cond)).square().mean())

    assert distance(1e5) < 0.05 * distance(0.0)


@pytest.mark.parametrize("training", [FULL, LORA, dataclasses.replace(LORA, algorithm=NFT)])
def test_without_advantages_no_weight_moves(run, training):
    settings = config(training, limits=Limits(max_constant=99))
    start = make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir).state.policy.snapshot()
    end = trained(run, settings, lambda edits, seed: [Reward(5.0, 1, 1) for _ in edits]).state.policy.snapshot()
    assert all(torch.equal(start[name], end[name]) for name in start)


@pytest.mark.parametrize("ahead", [False, True], ids=["in_step", "ahead"])
@pytest.mark.parametrize("training", [FULL, LORA, dataclasses.replace(LORA, algorithm=NFT), MUON], ids=["full", "lora", "nft", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(run, tmp_path, training, ahead):
    straight = trained(run, config(training, iterations=4, rollout_ahead=ahead))
    other = Run.open(tmp_path / "other")
    toy.write_tasks(other)
    trained(other, config(training, iterations=2, rollout_ahead=ahead))
    resumed = trained(
        other, config(training, iterations=4, rollout_ahead=ahead), state=checkpoints(other.dir / "09_editor" / "checkpoints")[-1]
    )
    for attribute in ("ema", "old", "behind"):
        ours, theirs = getattr(straight.state, attribute), getattr(resumed.state, attribute)
        assert (ours is None) == (theirs is None)
        assert ours is None or all(torch.equal(ours[name], theirs[name]) for name in ours)
    for ours, theirs in zip(*((s.policy.snapshot(), optimizer_tensors(s)) for s in (straight.state, resumed.state)), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert numbers(straight.state) == numbers(resumed.state)


def test_rates_rise_and_fall_linearly_and_muon_keeps_its_own(run):
    settings = config(dataclasses.replace(MUON, lr=2e-3, lr_matrices=1e-2, warmup=4), iterations=14)
    trainer = make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir)
    shares = [lr_share(settings, i) for i in range(14)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[-1] == pytest.approx(0.1)
    assert shares[4] - shares[5] == pytest.approx(shares[-2] - shares[-1])
    assert {group["lr"] for group in trainer.state.optimizer.param_groups} == {2e-3, 1e-2}


def test_a_rollout_ahead_is_that_of_the_policy_before_the_update_and_its_ratio_says_so(run):
    """Iteration 1 judges what the untouched policy makes; in step it judges what the first update made of it."""
    edits = {}
    for ahead in (False, True):
        seen = edits.setdefault(ahead, [])

        def keep(judged, seed, seen=seen):
            seen.append([image.tobytes() for _, image in judged])
            return toy.score_redness(judged, seed)

        trained(run, config(contexts_per_batch=4, iterations=2, rollout_ahead=ahead), keep)
        edits[ahead, "ratio"] = [p["train/ratio_error_max"] for p in points(run)[-2:]]
    still = trained_nothing(run)
    assert edits[True][0] == edits[False][0] == still[0]
    assert edits[True][1] == still[1] != edits[False][1]
    assert edits[False, "ratio"] == [0.0, 0.0]
    assert edits[True, "ratio"][0] == 0.0
    assert edits[True, "ratio"][1] > 1e-6


def trained_nothing(run):
    """What a policy that never moves makes in two iterations."""
    seen = []

    def constant(judged, seed):
        seen.append([image.tobytes() for _, image in judged])
        return [Reward(5.0, 1, 1) for _ in judged]

    trained(run, config(contexts_per_batch=4, iterations=2), constant)
    return seen


def test_judging_a_rollout_ahead_overlaps_with_the_update_before(run):
    """The judge of iteration 1 answers only once the update of iteration 0 has ended."""
    updated, calls = threading.Event(), []

    def patient(judged, seed):
        calls.append(seed)
        if len(calls) == 2:
            assert updated.wait(60), "iteration 1 is judged after the update that it should overlap with"
        return toy.score_redness(judged, seed)

    settings = config(contexts_per_batch=4, iterations=2, rollout_ahead=True)
    trainer = make_trainer(settings, toy.ToyEditor(), [patient], run.dir)
    update = trainer.update

    def tell(*args, **options):
        logs = update(*args, **options)
        updated.set()
        return logs

    object.__setattr__(trainer, "update", tell)
    train(trainer, read_contexts(run, 0.0)[0], [], patient, run)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"training": dataclasses.replace(LORA, algorithm=Component("awm"))},
        {"training": dataclasses.replace(LORA, algorithm=Component("distill", {"teacher": "toy:build"}))},
        {"curation": Curation(redraw=1), "contexts_per_batch": 1},
    ],
)
def test_what_cannot_be_corrected_is_not_drawn_ahead(changes):
    with pytest.raises(ValueError, match="rollout_ahead"):
        config(**changes, rollout_ahead=True)


def test_old_checkpoints_are_removed_and_a_broken_write_is_not_resumed(run):
    trainer = trained(run, config(iterations=3))
    folder = run.dir / "09_editor" / "checkpoints"
    assert [path.name for path in checkpoints(folder)] == ["000002", "000003"]
    (folder / "000009.partial").mkdir()
    assert checkpoints(folder)[-1].name == "000003"
    assert save_state(trainer.state, folder, 2).name == "000003"


def gradient_step(run, **changes):
    """Weights after one iteration with plain gradient scaling visible: SGD-like comparisons need the gradient, so lr is tiny."""
    settings = config(dataclasses.replace(FULL, **changes.pop("training", {})), iterations=1, **changes)
    trainer = make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir)
    optimizer = torch.optim.SGD(trainer.state.policy.params.values(), lr=1.0)
    trainer.state.optimizer = optimizer
    tasks, _ = read_contexts(run, 0.0)
    train(trainer, tasks, [], toy.score_redness, run)
    return trainer.state.policy.snapshot()


def test_micro_batches_and_batch_splits_give_the_same_update(run):
    whole = gradient_step(run, contexts_per_batch=4, save_every=0)
    for changes in ({"contexts_per_batch": 1}, {"training": {"micro_batch": 3}}, {"contexts_per_batch": 2, "training": {"micro_batch": 7}}):
        other = gradient_step(run, save_every=0, **changes)
        for name, value in whole.items():
            torch.testing.assert_close(other[name], value, atol=2e-6, rtol=1e-4)


def test_the_first_replay_reproduces_the_rollout_and_a_second_update_does_not(run):
    trained(run, config(iterations=1))
    assert points(run)[-1]["train/ratio_error_max"] == 0.0
    assert points(run)[-1]["train/clipped"] == 0.0
    trained(
        run,
        config(
            dataclasses.replace(FULL, updates_per_rollout=2, algorithm=Component("grpo", {"clip_low": 1e-5, "clip_high": 1e-5})),
            iterations=1,
        ),
    )
    assert points(run)[-1]["train/ratio_error_max"] > 1e-5
    assert 0.0 < points(run)[-1]["train/clipped"] < 1.0


def test_a_fresh_lora_is_the_reference(run):
    trained(run, config(dataclasses.replace(LORA, beta=0.04, micro_batch=8), iterations=1))
    assert points(run)[-1]["train/kl"] == 0.0


@pytest.mark.parametrize("updates", [1, 2])
def test_guard_trains_with_one_and_with_several_updates(run, updates):
    trained(run, config(dataclasses.replace(FULL, algorithm=Component("guard"), updates_per_rollout=updates), iterations=2))
    assert points(run)[-1]["train/grad_norm"] > 0


def test_a_replay_that_computes_something_else_stops_the_run(run):
    class Drifting(toy.ToyEditor):
        def velocity(self, x_BLD, sigma, cond):
            return super().velocity(x_BLD, sigma, cond) * (1.5 if torch.is_grad_enabled() else 1.0)

    settings = config()
    trainer = make_trainer(settings, Drifting(), [toy.score_redness], run.dir)
    with pytest.raises(BackendError, match="ratio"):
        train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)


def test_too_many_unscored_edits_stop_the_run_and_few_do_not(run):
    def some(edits, seed):
        return [Reward(None, 0, 1, (), "TRUNCATED") if i % 4 == 0 else r for i, r in enumerate(toy.score_redness(edits, seed))]

    trained(run, config(limits=Limits(max_unscored=0.3)), some)
    assert points(run)[-1]["reward/unscored"] == 0.25
    with pytest.raises(UnscoredError, match="TRUNCATED"):
        trained(run, config(), some)


def test_a_judge_without_opinions_stops_the_run(run):
    with pytest.raises(NoSignalError, match="no group"):
        trained(run, config(iterations=9, limits=Limits(max_constant=3)), lambda edits, seed: [Reward(5.0, 1, 1) for _ in edits])


def test_evaluation_uses_the_averaged_weights_and_restores_the_trained_ones(run):
    evaluation = Evaluation(every=1, tasks=3, steps=2, batch=2, held_out=0.4)
    never = trained(run, config(evaluation=dataclasses.replace(evaluation, every=99), iterations=2))
    assert never.state.best is None
    raw = trained(run, config(dataclasses.replace(FULL, ema_decay=0.0), evaluation=evaluation, iterations=2))
    of_raw = points(run)[-1]["evaluation/reward"]
    watched = trained(run, config(evaluation=evaluation, iterations=2))
    assert points(run)[-1]["evaluation/reward"] != of_raw  # the same training, and other weights were looked at
    for other in (never, raw):
        assert all(torch.equal(weight, other.state.policy.params[name]) for name, weight in watched.state.policy.params.items())
    assert points(run)[-1]["evaluation/unscored"] == 0.0
    assert watched.state.best is not None
    assert (run.dir / "09_editor" / "best.safetensors").exists()
    assert list((run.dir / "09_editor" / "gallery").glob("evaluation_*.jsonl"))


def test_patience_ends_a_run_that_gets_no_better(run):
    evaluation = Evaluation(every=1, tasks=2, steps=2, held_out=0.4, patience=2)
    falling = iter(range(1000, 0, -1))
    trainer = make_trainer(config(evaluation=evaluation, iterations=50), toy.ToyEditor(), [toy.score_redness], run.dir)
    tasks, held = read_contexts(run, 0.4)
    train(trainer, tasks, held, lambda edits, seed: [Reward(next(falling) / 1000, 1, 1) for _ in edits], run)
    assert trainer.state.iteration == 3


def test_the_best_evaluation_is_exported_when_asked_for(run):
    evaluation = Evaluation(every=1, tasks=2, steps=2, held_out=0.4, choose="best")
    falling = iter(range(1000, 0, -1))
    settings = config(evaluation=evaluation, iterations=3)
    trainer = make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir)
    tasks, held = read_contexts(run, 0.4)
    train(trainer, tasks, held, lambda edits, seed: [Reward(next(falling) / 1000, 1, 1) for _ in edits], run)
    exported = load_file(finish(trainer, run.dir / "09_editor").exported / "diffusion_pytorch_model.safetensors")
    best = load_file(run.dir / "09_editor" / "best.safetensors")  # of the first evaluation, which nothing beat
    assert all(torch.equal(exported[name], best[name]) for name in best)
    assert any(not torch.equal(best[name], value) for name, value in trainer.state.ema.items())


def test_every_principle_has_its_curve(run):
    trained(run, config(iterations=2))
    rows = [json.loads(line) for line in (run.dir / "09_editor" / "principles.jsonl").read_text().splitlines()]
    assert [(row["iteration"], row["question"], row["category"], row["n"]) for row in rows] == [
        (iteration, "Is it red?", "follow", 16) for iteration in (0, 1)
    ]  # 4 contexts x 4 edits share one question
    assert points(run)[-1]["reward/follow"] == rows[-1]["rate"] == 1.0


def healthy(reward, **more):
    return {"reward/mean": reward, "reward/group_std": 1.0, "reward/tied_groups": 0.2, "train/clipped": 0.0, "reward/signal": 0.7} | more


@pytest.mark.parametrize(
    ("symptom", "late"),
    [("the reward falls", healthy(5.5)), ("many ratios are clipped", healthy(7.0, **{"train/clipped": 0.4})),
     ("most groups tie", healthy(7.0, **{"reward/tied_groups": 0.9})),
     ("groups differ by the judge's noise", healthy(7.0, **{"reward/signal": 0.1}))],
)  # fmt: skip
def test_signs_of_collapse_are_told_with_their_knob_and_where_to_read_on(symptom, late):
    early = [healthy(7.0)] * 5
    assert symptoms([*early, *early]) == {}
    (found,) = symptoms([*early, *[late] * 5]).items()
    assert found[0] == symptom
    told = warning_of(*found)
    page = ROOT / "docs" / "how_to" / "collapse.md"
    assert str(page.relative_to(ROOT)) in told
    assert "## Which knob stops it?" in page.read_text()
    knobs = [word.strip(",.;") for word in told.split() if word.startswith(("training.", "sampling.", "reward."))]
    assert knobs
    assert all(knob in page.read_text() for knob in knobs)


def test_a_reward_that_rises_alone_is_called_hacking():
    hacked = [healthy(6.0 + i / 10, **({"evaluation/reward": 7.0 - i / 10} if i % 4 == 3 else {})) for i in range(12)]
    assert list(symptoms(hacked)) == ["only the training reward rises"]
    honest = [healthy(6.0 + i / 10, **({"evaluation/reward": 6.0 + i / 10} if i % 4 == 3 else {})) for i in range(12)]
    assert symptoms(honest) == {}


def test_a_run_warns_once_of_each_sign(run, caplog):
    settings = config(FULL, iterations=14, limits=Limits(max_constant=99))
    trained(run, settings, lambda edits, seed: [Reward(5.0, 1, 1) for _ in edits])
    assert [record.message for record in caplog.records if "most groups tie" in record.message] == [caplog.records[-1].message]


def test_library_code_touches_no_global_generator():
    import ast

    import editr1

    root = Path(editr1.__file__).parent
    forbidden = {"manual_seed", "seed"}
    for folder in ("flow", "objectives", "editors"):
        for path in (root / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in forbidden:
                    owner = ast.unparse(node.func.value)
                    assert owner not in ("torch", "random", "np.random", "numpy.random"), f"{path}: {ast.unparse(node)}"


def test_further_judges_count_by_their_weight_whatever_their_scale(run):
    def faint_redness(edits, seed):
        return [Reward(0.1 * toy.redness(image), 1, 1) for _, image in edits]

    settings = config(iterations=1, further_rewards=(WeightedReward(Component("toy:RednessJudge"), -1.0),))
    trainer = make_trainer(settings, toy.ToyEditor(), [toy.score_redness, faint_redness], run.dir)
    wide = torch.tensor([[0.0, 10.0, 5.0]])
    nothing = trainer.advantages(torch.stack([wide, 0.1 * wide]))  # the same opinion against itself
    torch.testing.assert_close(nothing, torch.zeros(1, 3), atol=1e-3, rtol=0)
    unscored = trainer.advantages(torch.stack([wide, torch.tensor([[float("nan"), 1.0, 3.0]])]))
    assert unscored[0, 0] == 0.0
    train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)
    assert points(run)[-1]["reward_1/mean"] == pytest.approx(0.1 * points(run)[-1]["reward/mean"], rel=1e-4)


def test_a_cautious_run_follows_the_judge_that_thinks_less_of_an_edit(run):
    cautious = config(iterations=1, further_rewards=(WeightedReward(Component("toy:RednessJudge"), caution=1.0),))
    trainer = make_trainer(cautious, toy.ToyEditor(), [toy.score_redness] * 2, run.dir)
    main, further = torch.tensor([[9.0, 8.0, 2.0]]), torch.tensor([[1.0, 8.0, float("nan")]])
    first, second, unscored = trainer.advantages(torch.stack([main, further]))[0].tolist()
    assert first < 0.0 < second
    assert unscored == 0.0
    with pytest.raises(ValueError, match="a weight above 0"):
        WeightedReward(Component("toy:RednessJudge"), -1.0, caution=1.0)


def test_a_run_that_was_begun_with_other_settings_or_inputs_is_refused_and_more_iterations_are_not(run):
    settings = config(dataclasses.replace(LORA, lr=1e-3))
    edit_rl.run(settings, run.dir)
    with pytest.raises(ChangedInputsError, match=r"training\.lr=0\.001, now it is 0\.002.*--accept"):
        edit_rl.run(config(dataclasses.replace(LORA, lr=2e-3)), run.dir)
    assert edit_rl.run(dataclasses.replace(settings, iterations=3, save_every=2), run.dir).iterations == 3
    smaller = dataclasses.replace(settings.training, gradient_checkpointing=True, micro_batch=2)  # what one changes when memory ran out
    assert edit_rl.run(dataclasses.replace(settings, iterations=4, training=smaller), run.dir).iterations == 4
    falling = config(dataclasses.replace(LORA, final_lr_share=0.1))
    assert edit_rl.lasting(falling, run) != edit_rl.lasting(dataclasses.replace(falling, iterations=9), run)  # other rates at every step
    summary = run.dir / "02_principles" / "counts.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"digest": "0" * 64}))  # the tasks were decomposed anew
    with pytest.raises(ChangedInputsError, match="input 02_principles"):
        edit_rl.run(settings, run.dir)
    assert accepting(lambda: edit_rl.run(settings, run.dir), accept=True).iterations == 2
    assert [point["step"] for point in points(run)] == [0, 1]
