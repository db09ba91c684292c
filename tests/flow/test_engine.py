"""Rollouts of a server in another process: the toy editor behind /images/edits, with the LoRA that was pushed."""

import dataclasses
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch

import toy
from editr1.config import Component
from editr1.errors import ConfigError
from editr1.flow.config import Config, Rollout, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.rollout import distance
from editr1.flow.state import checkpoints, load_state
from editr1.flow.watch import Clock
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run

NFT = Training(weights="lora", rank=4, alpha=8, lr=2e-2, beta=0.0, algorithm=Component("nft"), ema_decay=0.9)


def serve(*how):
    process = subprocess.Popen([sys.executable, str(Path(__file__).parent / "toy_server.py"), *how], stdout=subprocess.PIPE, text=True)
    return process, f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"


@pytest.fixture(scope="module")
def url():
    process, address = serve()
    yield address
    process.kill()
    process.wait()


def config(url, training=NFT, push_every=1, **changes):
    values = {"group_size": 4, "contexts": 4, "contexts_per_batch": 4, "iterations": 2, "sampling": Sampling(steps=4), "save_every": 1}
    engine = Component("images_api", {"model": "toy", "base_url": url})
    return Config(
        Component("toy:build"), Component("toy:RednessJudge"), training=training, gallery_every=0, rollout=Rollout(engine, push_every),
        **(values | changes),
    )  # fmt: skip


def made(settings, folder):
    run = Run.open(folder)
    toy.write_tasks(run)
    return make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir / "09_editor"), read_contexts(run, 0.0)[0], run


def points(run):
    return [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]


def test_the_reward_rises_on_the_servers_edits(url, tmp_path):
    trainer, tasks, run = made(config(url, contexts=8, contexts_per_batch=8, iterations=25, save_every=0), tmp_path)
    train(trainer, tasks, [], toy.score_redness, run)
    rewards = [p["reward/mean"] for p in points(run)]
    assert min(rewards[-5:]) > max(rewards[:5]), rewards
    assert {p["rollout/staleness"] for p in points(run)} == {0.0}
    assert "velocity" in dict(trainer.editor.events)  # it learns here
    assert "decode" not in dict(trainer.editor.events), "the judge sees the server's own pictures"


@pytest.mark.parametrize("algorithm", ["nft", "awm"])
def test_the_server_samples_with_what_was_pushed(url, tmp_path, algorithm):
    """Equal seeds, here by the weights in this process: the same pictures but for 8 bits. The weights before give others."""
    training = dataclasses.replace(NFT, algorithm=Component(algorithm))
    trainer, tasks, _ = made(config(url, training), tmp_path)
    policy, plan = trainer.state.policy, trainer.editor.plan(8, 8)
    before = policy.snapshot()
    moved = {name: torch.randn_like(w) if "lora_B" in name else w for name, w in before.items()}
    policy.load(moved)
    if trainer.state.old is not None:
        trainer.state.old = moved
    trainer.push(0, Clock())
    path = trainer.sample(tasks[:2], plan, (), 0, Clock())
    here = dataclasses.replace(trainer, engine=None)
    images = [trainer.editor.decode(here.sample(tasks[:2], plan, (), 0, Clock(), w).final, plan) for w in (moved, before)]
    assert path.group_size == 4
    assert len(path.images) == 8
    same, other = ([distance(a, b) for a, b in zip(path.images, made_, strict=True)] for made_ in images)
    assert max(same) < 0.1 < 2.0 < min(other)
    decoded = trainer.editor.decode(path.final, plan)
    assert max(distance(a, b) for a, b in zip(path.images, decoded, strict=True)) < 0.1


def test_pushes_are_counted_and_a_resumed_run_pushes_its_checkpoint(url, tmp_path):
    settings = config(url, push_every=2, iterations=3)
    trainer, tasks, run = made(settings, tmp_path)
    train(trainer, tasks, [], toy.score_redness, run)
    assert [p["rollout/staleness"] for p in points(run)] == [0.0, 1.0, 0.0]
    folder = run.dir / "09_editor" / "adapters"
    assert [path.name[:6] for path in sorted(folder.glob("[0-9]*"))] == ["000000", "000002"]
    (folder / "000007_of_a_life_that_went_further").mkdir()
    resumed, tasks, run = made(dataclasses.replace(settings, iterations=4), tmp_path)
    load_state(resumed.state, checkpoints(run.dir / "09_editor" / "checkpoints")[-1])
    train(resumed, tasks, [], toy.score_redness, run)
    (newest,) = [path.name for path in folder.glob("[0-9]*")]
    assert newest.startswith("000003")
    assert points(run)[-1]["rollout/staleness"] == 0.0
    seen = json.loads(urllib.request.urlopen(url).read())
    assert seen[-settings.contexts * settings.group_size :].count(newest) >= 15, "the probe is the only other request"


def test_a_server_that_ignores_the_adapter_is_refused(tmp_path):
    process, address = serve("deaf")
    try:
        trainer, tasks, run = made(config(address), tmp_path)
        with pytest.raises(ConfigError, match="same edit with any LoRA"):
            train(trainer, tasks, [], toy.score_redness, run)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("training", "push_every", "changes", "said"),
    [
        (dataclasses.replace(NFT, algorithm=Component("grpo")), 1, {}, "finished edits"),
        (dataclasses.replace(NFT, weights="full"), 1, {}, "weights: lora"),
        (NFT, 1, {"rollout_ahead": True}, "rollout_ahead: false"),
        (dataclasses.replace(NFT, algorithm=Component("awm")), 2, {}, "push_every: 2"),
        (NFT, 0, {}, "push_every: 0"),
    ],
)
def test_what_a_server_cannot_do_is_refused_in_one_sentence(training, push_every, changes, said):
    with pytest.raises(ValueError, match=said):
        config("http://127.0.0.1:1/v1", training, push_every, **changes)
