"""First pass, ranges, weights by kind, and groups that are drawn anew."""

import dataclasses
import json

import pytest
import torch

import toy
from editr1.config import Component, section
from editr1.errors import ConfigError, DataError
from editr1.flow.config import Config, Curation, Limits, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.curation import Drawn, curated, first_pass
from editr1.schema import Reward
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    return run


def trainer_of(run, curation, score=toy.score_redness, **changes):
    config = Config(
        Component("toy:build"), Component("toy:RednessJudge"), group_size=4, contexts=4, contexts_per_batch=1, save_every=0,
        gallery_every=0, sampling=Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), limits=Limits(max_constant=99),
        training=Training(weights="lora", rank=4, alpha=8, lr=1e-2, beta=0.0), curation=curation, iterations=1,
    )  # fmt: skip
    return make_trainer(dataclasses.replace(config, **changes), toy.ToyEditor(), [score], run.dir)


def points(run):
    return [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]


def by_task(run, values):
    """A judge that gives tasks their values in turn, told by the place of the task in the run."""
    place = {context.id: index for index, context in enumerate(read_contexts(run, 0.0)[0])}

    def score(edits, seed):
        return [Reward(values(place[context.id], index), 1, 1) for index, (context, _) in enumerate(edits)]

    return score


def test_tasks_that_are_all_good_or_all_bad_are_left_out_once(run):
    calls = []

    def score(edits, seed):
        calls.append(len(edits))
        return by_task(run, lambda place, index: [10.0, 0.0, 5.0, None][place % 4])(edits, seed)

    tasks = read_contexts(run, 0.0)[0]
    trainer = trainer_of(run, Curation(first_pass=2), score)
    kept, told = first_pass(trainer, tasks, score, run.dir / "09_editor")
    assert [tasks.index(context) % 4 for context in kept] == [2, 3] * 3  # an unscored task is not judged
    assert told == {"curation/tasks": 6.0, "curation/all_good": 3.0, "curation/all_bad": 3.0}
    assert calls == [12, 12]
    assert first_pass(trainer, tasks, score, run.dir / "09_editor")[0] == kept  # a resumed run reads it
    assert calls == [12, 12]
    narrow = trainer_of(run, Curation(first_pass=2, all_good=4.0), score)
    with pytest.raises(DataError, match="all good"):
        first_pass(narrow, [task for task in tasks if tasks.index(task) % 4 != 3], score, run.dir / "09_editor")


def test_groups_outside_the_range_and_kinds_weigh_what_they_should(run):
    trainer = trainer_of(run, Curation(min_mean=1.0, max_mean=9.0, weights={"colour": 2.0}))
    tasks = read_contexts(run, 0.0)[0][:3]
    other = dataclasses.replace(tasks[1], task=dataclasses.replace(tasks[1].task, kind="shape"))
    table = torch.tensor([[4.0, 6.0, 5.0, 5.0], [4.0, 6.0, 5.0, 5.0], [9.0, 10.0, 9.0, 10.0]])
    advantages = torch.ones(3, 4)
    assert curated(trainer, advantages, table, Drawn([tasks[0], other, tasks[2]], [], [], [])).tolist() == [[2.0] * 4, [1.0] * 4, [0.0] * 4]


def test_groups_that_teach_nothing_are_drawn_anew_from_other_tasks(run):
    ties = by_task(run, lambda place, index: 5.0 if place < 6 else float(index))  # half of the tasks tie whatever is drawn
    for redraw in (0, 3):
        train(trainer_of(run, Curation(redraw=redraw), ties), read_contexts(run, 0.0)[0], [], ties, run)
    before, after = points(run)[-2:]
    assert before["curation/redrawn"] == 0.0
    assert after["curation/redrawn"] > 0.0
    assert after["curation/silent_groups"] < before["curation/silent_groups"]
    assert after["curation/silent_groups"] == 0.0


def test_a_redraw_with_too_few_tasks_left_keeps_what_it_has(run):
    ties = by_task(run, lambda place, index: 5.0)
    train(trainer_of(run, Curation(redraw=9), ties), read_contexts(run, 0.0)[0], [], ties, run)
    assert points(run)[-1]["curation/redrawn"] == 8.0  # 12 tasks, 4 of them drawn first
    assert points(run)[-1]["curation/silent_groups"] == 1.0


def test_settings_that_cannot_work_are_refused():
    base = {"editor": {"id": "kontext"}, "reward": {"id": "none:none"}}
    with pytest.raises(ConfigError, match="contexts_per_batch"):
        section({"edit_rl": base | {"contexts_per_batch": 2, "curation": {"redraw": 1}}}, "edit_rl", Config)
    with pytest.raises(ConfigError, match="shard"):
        section({"edit_rl": base | {"training": {"shard": True}, "curation": {"first_pass": 2}}}, "edit_rl", Config)
    assert section({"edit_rl": base | {"curation": {"weights": {"text": 0.5}}}}, "edit_rl", Config).curation.weights == {"text": 0.5}
