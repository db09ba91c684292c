"""Every algorithm on the toy editor: the reward rises, resuming is exact, and one of one's own is one file."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import toy
from editr1.algorithms.base import Needs, with_advantage
from editr1.config import Component
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.curation import sampled_images
from editr1.flow.plan import count_evaluations, describe_plan
from editr1.flow.update import micro_batches
from editr1.schema import Candidate, PreferencePair
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run
from editr1.store.engine import Work

sys.path.insert(0, str(Path(__file__).parent))  # components are named by module

SETTINGS = {
    "grpo": Training(algorithm=Component("grpo", {"clip_low": 1e-3, "clip_high": 1e-3, "step_weights": "std"})),
    "dppo": Training(algorithm=Component("dppo", {"threshold": 1e-4}), updates_per_rollout=2),
    "awm": Training(algorithm=Component("awm", {"levels": 4})),
    "dgpo": Training(algorithm=Component("dgpo", {"beta": 1.0, "levels": 4})),
    "dpo": Training(algorithm=Component("dpo", {"beta": 10.0, "levels": 8})),
}


def config(training, **changes):
    values = {
        "group_size": 4, "contexts": 8, "contexts_per_batch": 8, "iterations": 30, "save_every": 0, "gallery_every": 0,
        "sampling": Sampling(steps=4, kind="cps", level=0.5, window=2, last=3),
    }  # fmt: skip
    lr = 1e-2 if training.algorithm.id in ("grpo", "dppo") else 2e-2
    training = dataclasses.replace(training, weights="lora", rank=4, alpha=8, lr=lr, beta=0.0)
    return Config(Component("toy:build"), Component("toy:RednessJudge"), training=training, **(values | changes))


def curve(tmp_path, settings, editor=None):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    trainer = make_trainer(settings, editor or toy.ToyEditor(), [toy.score_redness], run.dir)
    train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)
    return [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()], trainer


@pytest.mark.parametrize("name", SETTINGS)
def test_the_reward_rises(tmp_path, name):
    points, _ = curve(tmp_path, config(SETTINGS[name]))
    rewards = [point["reward/mean"] for point in points]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1, rewards
    assert min(rewards[-5:]) > min(rewards[:5]), rewards


class Teacher(toy.ToyEditor):
    """The toy, pulled towards one picture."""

    def velocity(self, x_BLD, sigma, cond):
        return super().velocity(x_BLD, sigma, cond) + 0.5


def teach():
    return Teacher()


def test_a_student_comes_nearer_to_its_teacher(tmp_path):
    training = Training(algorithm=Component("distill", {"teacher": {"id": "test_learning:teach"}}))
    points, trainer = curve(tmp_path, config(training, contexts=4, contexts_per_batch=4))
    losses = [point["train/loss_row"] for point in points]
    assert losses[0] == pytest.approx(0.25, rel=1e-3)  # the constant that it was pulled by, squared
    assert losses[-1] < 0.3 * losses[0]
    assert count_evaluations(trainer.config).reference == 4 * 4 * 2  # the teacher's passes


@dataclasses.dataclass(frozen=True)
class Reinforce:
    """An algorithm of one's own: the plain policy gradient."""

    scale: float
    needs = Needs()

    def choose(self, advantages_CG, scored_CG):
        return with_advantage(advantages_CG, scored_CG)

    def loss(self, rows):
        return -self.scale * rows.advantages * rows.log_ratio


def reinforce(scale: float = 1.0):
    return Reinforce(scale)


def test_an_algorithm_of_ones_own_is_one_file(tmp_path):
    mine = Component("test_learning:reinforce", {"scale": 1.0})
    points, trainer = curve(tmp_path, config(Training(algorithm=mine), iterations=1))
    assert points[-1]["train/grad_norm"] > 0
    assert describe_plan(trainer.config)[0].startswith("test_learning:reinforce:")
    # at ratio 1 the clipped surrogate has the gradient of the plain policy gradient
    grpo = curve(tmp_path / "grpo", config(Training(), iterations=1))[0]
    assert points[-1]["train/grad_norm"] == pytest.approx(grpo[-1]["train/grad_norm"], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "trained", "others"),
    [("grpo", 64, 0), ("guard", 64, 0), ("dppo", 64, 0), ("nft", 64, 64), ("awm", 64, 0), ("dgpo", 64, 64), ("dpo", 32, 32)],
)
def test_costs_in_forwards(name, trained, others):
    """8 groups of 4 edits, a window of 2 or 2 levels: 64 rows with a gradient, another policy beside; a pair is half a group."""
    counts = count_evaluations(config(Training(algorithm=Component(name))))
    assert (counts.rollout, counts.trained, counts.reference) == (128, trained, others)
    assert counts.forward_equivalents == 128 + 3 * trained + others


def test_a_group_that_competes_is_never_cut():
    weighs = torch.ones(3, 4, dtype=torch.bool)
    needs = Needs(levels=2, groups=True)
    for size, sizes in ((5, [4, 4, 4]), (8, [8, 4]), (0, [12])):
        assert [len(place.sample) for place in micro_batches(weighs, 2, size, needs)] == sizes * 2
    pairs = torch.zeros(3, 4, dtype=torch.bool)
    pairs[0, [1, 3]] = pairs[2, [0, 2]] = True
    places = list(micro_batches(pairs, 1, 2, Needs(levels=1, groups=True, samples_per_group=2)))
    assert [place.sample.tolist() for place in places] == [[1, 3], [8, 10]]


def test_dpo_learns_offline_from_peoples_pairs_without_rollout_and_judge(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    pairs = []
    for number, context in enumerate(read_contexts(run, 0.0)[0]):
        red, blue = (run.images.put(Image.new("RGB", (toy.SIDE, toy.SIDE), colour)) for colour in ((200, 90, 90), (90, 90, 200)))
        a, b = (Candidate.make(context.id, image, "other", seed) for seed, image in enumerate((red, blue)))
        pair = PreferencePair(context.task, context.principles, *((a, b) if number % 2 else (b, a)), "a" if number % 2 else "b")
        pairs.append((pair.id, pair if number else dataclasses.replace(pair, label="same")))
    run.process("07_pairs", pairs, Work(lambda: list), settings={})
    settings = config(SETTINGS["dpo"], source="pairs", group_size=2, contexts=8, iterations=40)

    def never(edits, seed):
        raise AssertionError("no judge is asked")

    tasks, _ = read_contexts(run, 0.0, pairs=True)
    assert len(tasks) == 11  # ties teach nothing
    editor = toy.ToyEditor()
    trainer = make_trainer(settings, editor, [never], run.dir)
    before = [toy.redness(image) for image in sampled_images(trainer, tasks)]
    train(trainer, tasks, [], never, run)
    after = [toy.redness(image) for image in sampled_images(trainer, tasks)]
    assert sum(after) / len(after) > sum(before) / len(before) + 0.2
    assert count_evaluations(settings).rollout == 0
    with pytest.raises(ValueError, match="group_size: 2"):
        config(SETTINGS["grpo"], source="pairs", group_size=2)
