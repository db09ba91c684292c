"""Settings that each work alone, together: refused where they are wrong, obeyed where they are right."""

import dataclasses
import json

import pytest
import torch
from PIL import Image

import toy
from editr1.config import Component, create, section, to_plain
from editr1.errors import ConfigError, NoSignalError
from editr1.flow.config import Config, Curation, Evaluation, Limits, Rollout, Sampling, Training, WeightedReward
from editr1.flow.contexts import EncodingCache, read_contexts
from editr1.flow.plan import count_evaluations, describe_plan, memory_of
from editr1.flow.update import micro_batches
from editr1.schema import Candidate, PreferencePair, Reward
from editr1.stages import edit_rl
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run
from editr1.store.engine import Work

LORA = Training(rank=4, alpha=8, lr=1e-2, beta=0.0)
JUDGE = Component("toy:RednessJudge")


def config(**changes):
    values = {
        "group_size": 4, "contexts": 4, "contexts_per_batch": 1, "iterations": 1, "save_every": 0, "gallery_every": 0,
        "sampling": Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), "training": LORA,
    }  # fmt: skip
    return Config(Component("toy:build"), JUDGE, **(values | changes))


def algorithm(name, training=LORA, /, **options):
    return dataclasses.replace(training, algorithm=Component(name, options))


DISTILL = algorithm("distill", teacher="toy:build")


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    return run


def points(run):
    return [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]


def trained(run, settings, *scores, editor=None):
    trainer = make_trainer(settings, editor or toy.ToyEditor(), scores or [toy.score_redness], run.dir)
    train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)
    return trainer


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"contexts": 0}, "contexts is 0, expected at least 1"),
        ({"contexts_per_batch": -1}, "contexts_per_batch is -1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
        ({"training": {"updates_per_rollout": 0}}, "updates_per_rollout is 0"),
        ({"training": {"micro_batch": -1}}, "micro_batch is -1"),
        ({"training": {"lr": -1e-4}}, "lr is -0.0001"),
        ({"training": {"max_grad_norm": 0.0}}, "max_grad_norm is 0.0, expected a positive number"),
        ({"training": {"beta": -1.0}}, "beta is -1"),
        ({"sampling": {"hold": 0}}, "hold is 0"),
        ({"sampling": {"window": 9}}, "a window of 9 steps"),
        ({"sampling": {"last": 10}}, "last step stays noise-free"),
        ({"sampling": {"kind": "ode"}}, "noisy sampling.kind"),
        ({"sampling": {"kind": "ddim", "level": 1.5}}, "expected at most 1"),
        ({"evaluation": {"every": 5, "held_out": 0.0}}, r"a share in \(0, 1\)"),
        ({"evaluation": {"every": 5, "tasks": 0}}, "tasks is 0"),
        ({"curation": {"all_good": 1.0, "all_bad": 5.0}}, "every edit"),
        ({"curation": {"min_mean": 8.0, "max_mean": 2.0}}, "no mean"),
        ({"limits": {"max_constant": 0}}, "max_constant is 0"),
        ({"training": {"algorithm": {"id": "awm", "options": {"levels": 0}}}}, "levels is 0"),
        ({"training": {"algorithm": {"id": "guard", "options": {"clip_low": -1.0}}}}, "clip_low is -1"),
        ({"training": {"algorithm": {"id": "dpo", "options": {"beta": 0.0}}}}, "beta is 0.0, expected a positive number"),
        ({"training": {"algorithm": {"id": "distill", "options": {"teacher": 5}}}}, "must be an id or"),
        ({"training": {"algorithm": "dpo"}, "curation": {"weights": {"text": 0.5}}}, "order inside a group"),
        (
            {"training": {"algorithm": {"id": "distill", "options": {"teacher": "kontext"}}}, "curation": {"max_mean": 9.0}},
            "hears no judge",
        ),
        (
            {"source": "pairs", "group_size": 2, "training": {"algorithm": "dpo"}, "evaluation": {"every": 5, "hacking": 2}},
            "a training reward that rises",
        ),
        ({"rollout": {"engine": "kontext"}, "training": {"algorithm": "nft"}}, "take images_api"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(settings, told):
    with pytest.raises(ConfigError, match=told):
        section({"edit_rl": {"editor": "kontext", "reward": "editr1.judge.rrm:build", **settings}}, "edit_rl", Config)


def server(**options):
    """An engine of one's own, which takes any option."""


def test_settings_at_their_edges_are_taken():
    taken = [
        config(training=algorithm("nft"), sampling=Sampling(kind="ode", level=0.0, steps=1)),  # without noise
        config(evaluation=Evaluation(every=0, choose="best", patience=1, hacking=1, tasks=0)),  # switched off
        config(training=algorithm("dgpo"), curation=Curation(weights={"colour": 0.5}, min_mean=0.0)),
        config(training=algorithm("nft"), rollout=Rollout(Component("test_combinations:server"))),
        config(training=DISTILL, curation=Curation(first_pass=1), sampling=Sampling(steps=4, kind="cps", level=1.0, window=3, last=3)),
    ]
    for settings, kind in zip(taken, ("nft", "grpo", "dgpo", "nft", "distill"), strict=True):
        assert section({"edit_rl": to_plain(settings)}, "edit_rl", Config) == settings  # from a recipe as well
        assert settings.training.algorithm.id == kind


def test_too_few_tasks_are_told_before_the_editor_is_loaded_and_evaluations_of_none_as_well(run, caplog):
    with pytest.raises(ConfigError, match="99 contexts an iteration but only 12 training tasks"):
        edit_rl.run(dataclasses.replace(config(contexts=99), editor=Component("toy:never")), run.dir)
    edit_rl.run(config(evaluation=Evaluation(every=1, held_out=1e-9, choose="best")), run.dir)
    assert "no source picture of 12 tasks is held out, so nothing is evaluated" in caplog.text
    assert "the last weights are exported in the place of the best" in caplog.text


@pytest.mark.parametrize(
    "training", [algorithm("dpo"), algorithm("dgpo"), dataclasses.replace(algorithm("dgpo"), micro_batch=3), algorithm("nft"), LORA]
)
def test_sharding_changes_no_loss(run, training):
    """One process has nothing to spread: what is left of `shard` is that no forward may be skipped."""
    weights = [trained(run, config(training=dataclasses.replace(training, shard=shard))).state.policy.snapshot() for shard in (False, True)]
    assert any(value.abs().sum() > 0 for name, value in weights[0].items() if "lora_B" in name)
    torch.testing.assert_close(weights[1], weights[0], atol=1e-6, rtol=1e-5)


def test_company_asks_for_a_group_that_weighs_nothing_and_for_no_more_of_one_that_does():
    weighs = torch.tensor([[False, True, False, True], [False] * 4])
    needs = create("algorithms", Component("dpo")).needs
    assert [place.sample.tolist() for place in micro_batches(weighs, 1, 2, needs)] == [[1, 3]]
    assert [place.sample.tolist() for place in micro_batches(weighs, 1, 2, needs, company=True)] == [[1, 3], [4, 5, 6, 7]]


def test_std_and_min_std_hold_for_further_judges_too(run):
    further = (WeightedReward(JUDGE, 0.5),)
    table = torch.tensor([[4.0, 4.1, 4.2], [0.0, 9.0, 3.0]])
    for std in ("group", "batch", "none"):
        for min_std in (0.0, 0.5):
            training = dataclasses.replace(LORA, std=std, min_std=min_std)
            alone = make_trainer(config(training=training), toy.ToyEditor(), [toy.score_redness], run.dir)
            both = make_trainer(config(training=training, further_rewards=further), toy.ToyEditor(), [toy.score_redness] * 2, run.dir)
            twice = both.advantages(torch.stack([table, table]))
            torch.testing.assert_close(twice, (1.5 * alone.advantages(table[None])).clamp(-5, 5))
            assert bool((twice[0] == 0).all()) == (min_std > 0)


def test_what_a_further_judge_left_unscored_counts_for_nobody(run):
    """Else the best and the worst of those left may both be below the mean, and DPO pushes both away."""
    trainer = make_trainer(config(further_rewards=(WeightedReward(JUDGE),)), toy.ToyEditor(), [toy.score_redness] * 2, run.dir)
    advantages = trainer.advantages(torch.tensor([[[9.0, 1.0, 2.0]], [[float("nan"), 3.0, 3.5]]]))
    assert advantages[0].sum().abs() < 1e-5
    assert (advantages[0] > 0).tolist() == [False, False, True]


def test_a_group_that_only_a_further_judge_tells_apart_is_not_drawn_anew(run):
    def tie(edits, seed):
        return [Reward(5.0, 1, 1) for _ in edits]

    settings = config(curation=Curation(redraw=2), further_rewards=(WeightedReward(JUDGE),), limits=Limits(max_constant=9))
    trained(run, settings, tie, toy.score_redness)
    assert points(run)[-1]["curation/redrawn"] == 0.0
    trained(run, settings, tie, tie)
    assert points(run)[-1]["curation/redrawn"] == 8.0


def test_figures_of_an_update_are_of_the_rows_that_it_learns_from_however_groups_share_a_batch(run):
    def some(edits, seed):
        return [Reward(None, 0, 1, (), "TRUNCATED") if toy.redness(image) > 5.4 else Reward(toy.redness(image), 1, 1) for _, image in edits]

    found = []
    for size in (1, 4):
        training = dataclasses.replace(algorithm("grpo", clip_low=1e-6, clip_high=1e-6), updates_per_rollout=2, beta=0.01)
        trained(run, config(training=training, contexts_per_batch=size, limits=Limits(max_unscored=0.9)), some)
        assert 0 < points(run)[-1]["reward/unscored"] < 0.9
        found.append({name: value for name, value in points(run)[-1].items() if name.startswith("train/")})
    assert found[0]["train/clipped"] > 0
    for name in ("train/clipped", "train/kl", "train/loss_row"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-3), name


@pytest.mark.parametrize("changes", [{"curation": Curation(max_mean=0.1)}, {"training": dataclasses.replace(LORA, min_std=9.0)}])
def test_a_run_whose_groups_are_all_left_out_stops_as_one_whose_groups_tie(run, changes):
    with pytest.raises(NoSignalError, match="that min_std and curation let count"):
        trained(run, config(iterations=9, limits=Limits(max_constant=2), **changes))
    assert len(points(run)) == 2


def test_a_student_goes_on_whatever_the_judge_sees_and_its_teacher_must_fit(run, monkeypatch):
    settings = config(training=DISTILL, iterations=3, limits=Limits(max_constant=1))
    assert trained(run, settings, lambda edits, seed: [Reward(5.0, 1, 1) for _ in edits]).state.iteration == 3
    monkeypatch.setattr(toy, "build", lambda: Negative())
    with pytest.raises(ConfigError, match="of one picture toy makes others than toy, by 200%"):
        make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir)
    monkeypatch.setattr(Negative, "plan", lambda self, height, width: dataclasses.replace(super(Negative, self).plan(8, 8), channels=5))
    with pytest.raises(ConfigError, match="channels=5"):
        make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir)


class Negative(toy.ToyEditor):
    """Latents of another space in the same shape."""

    def latents(self, images, plan):
        return -super().latents(images, plan)


def test_a_run_that_was_killed_after_its_last_checkpoint_stops_where_an_uninterrupted_one_does(run):
    """Its curve holds iterations that are made again, and NaN where a judge failed: neither may be counted twice."""

    def rising(edits, seed):
        return [Reward(9.0 - toy.redness(image) + len(points(run)), 1, 1) for _, image in edits]

    def falling(edits, seed):
        return [Reward(9.0 - trainer.state.iteration, 1, 1) for _ in edits]

    (run.dir / "metrics.jsonl").touch()
    settings = config(iterations=20, evaluation=Evaluation(every=1, tasks=2, steps=2, held_out=0.4, hacking=3))
    tasks, held = read_contexts(run, 0.4)
    for iteration in range(2):  # what the killed process wrote; it had no checkpoint yet
        run.log("edit_rl", iteration, {"reward/mean": 5.0 + iteration, "evaluation/reward": 8.0 - iteration})
    for end in (4, 4):  # and given again, the command trains no further
        trainer = make_trainer(settings, toy.ToyEditor(), [rising], run.dir)
        trainer.state.iteration = 0 if end == 4 and not points(run)[2:] else 4
        train(trainer, tasks, held[:2], falling, run)
        assert trainer.state.iteration == end
    assert len(points(run)) == 2 + 4


@pytest.mark.parametrize(
    ("name", "changes", "sampling"),
    [
        *((name, {}, {}) for name in ("grpo", "nft", "awm", "dgpo", "dpo", "distill")),
        *((name, {}, {"same_start": True}) for name in ("grpo", "distill")),
        *(("guard", {"updates_per_rollout": 2, "micro_batch": size}, {"same_start": size == 4}) for size in (0, 4)),
        ("nft", {"updates_per_rollout": 2}, {}),
    ],
)
def test_a_run_makes_the_forwards_that_the_plan_counts(run, name, changes, sampling):
    training = dataclasses.replace(DISTILL if name == "distill" else algorithm(name), beta=0.01, kl="velocity", **changes)
    window = Sampling(steps=5, kind="cps", level=0.5, window=2, window_kind="fixed", first=1, last=4, **sampling)
    settings = config(training=training, sampling=window, contexts_per_batch=2)
    editor = toy.ToyEditor()
    trainer = trained(run, settings, editor=editor)
    events = editor.events + (trainer.teacher.events if trainer.teacher else [])
    counts = count_evaluations(settings)
    assert sum(rows for event, rows in events if event == "velocity") == counts.rollout + counts.trained + counts.reference


KONTEXT = {"editor": Component("kontext"), "reward": Component("editr1.judge.rrm:build")}
GIB = 2**30


def test_a_teacher_costs_its_own_forwards_and_its_own_memory():
    teacher = {"id": "qwen_edit", "options": {"true_cfg": 4.0}}
    student = Config(**KONTEXT, training=Training(algorithm=Component("distill", {"teacher": teacher}), beta=0.0))
    plain = Config(**KONTEXT, training=Training(beta=0.0))
    assert count_evaluations(student).reference == 2 * count_evaluations(student).trained  # two forwards with guidance
    assert memory_of(student).weights - memory_of(plain).weights > 50  # 20.4 billion and an encoder of 8, two bytes each

    def hours(settings):
        (line,) = (line for line in describe_plan(settings) if line.startswith("estimate"))
        return float(line.split()[1])

    assert hours(student) - hours(plain) == pytest.approx(2304 * 2 * 20.4e9 * 2 * 2560 / 4e14 / 3600, abs=0.02)


def test_the_memory_of_a_reference_and_of_one_forward_is_that_of_the_algorithm():
    full = {name: memory_of(Config(**KONTEXT, training=Training(algorithm=Component(name), weights="full", beta=0.0)))
            for name in ("awm", "dgpo", "dpo")}  # fmt: skip
    assert full["dgpo"].weights - full["awm"].weights == pytest.approx(11.9e9 * 2 / GIB)  # the start, kept without a KL term as well
    pair, group = full["dpo"].activations, full["dgpo"].activations
    assert pair < group / 6  # 2 rows of 24 have a gradient
    cut = Config(**KONTEXT, training=Training(algorithm=Component("dgpo"), weights="full", beta=0.0, micro_batch=2))
    assert memory_of(cut).activations == group  # a group is never cut


def test_the_plan_says_where_edits_come_from_and_when_a_beta_is_read_otherwise():
    pairs = Config(**KONTEXT, source="pairs", group_size=2, training=Training(algorithm=Component("dpo"), beta=0.0))
    told = "\n".join(describe_plan(pairs))
    assert "people's pairs" in told
    assert "people's edits encoded: 96, none judged" in told
    engine = Rollout(Component("images_api", {"model": "m"}))
    rollout = Config(**KONTEXT, rollout=engine, training=Training(algorithm=Component("nft")))
    told = "\n".join(describe_plan(rollout))
    assert "10 ODE steps by a server" in told
    assert "a server's edits encoded and judged: 1152" in told
    assert "latent_dtfree weighs noisy steps" in told
    quiet = dataclasses.replace(rollout, training=dataclasses.replace(rollout.training, kl="velocity"))
    assert "weighs noisy steps" not in "\n".join(describe_plan(quiet))


def test_pairs_of_one_task_share_its_encoding_and_its_held_out_edit(run, tmp_path):
    pairs = []
    for task in read_contexts(run, 0.0)[0]:
        for red in (50, 100):
            sides = (Image.new("RGB", (toy.SIDE, toy.SIDE), (value, 0, 0)) for value in (red, 2 * red))
            a, b = (Candidate.make(task.id, run.images.put(side), "other", red + seed) for seed, side in enumerate(sides))
            pair = PreferencePair(task.task, task.principles, a, b, "b")
            pairs.append((pair.id, pair))
    run.process("07_pairs", pairs, Work(lambda: list), settings={})
    training, held = read_contexts(run, 0.4, pairs=True)
    assert len(training) + 2 * len(held) == 24
    assert len({context.id for context in held}) == len(held) > 0
    assert len(EncodingCache(tmp_path / "none", config()).missing(training)) == len(training) / 2
