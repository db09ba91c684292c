"""An editor, a VLM, a benchmark, a judge and an algorithm are one file each, outside the package, and nothing else is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from editr1.cli import main
from editr1.config import Component
from editr1.flow.config import Config, Sampling, Training
from editr1.store import Run

RECIPE = Path(__file__).parent / "stages" / "data_loop.yaml"
EDITOR = """
from PIL import ImageOps

class Inverter:
    name = "inverter"

    def edit(self, requests):
        return [ImageOps.invert(request.source) for request in requests]

def build():
    return Inverter()
"""
VLM = """
from editr1.vlm.base import ChatReply

class Seven:
    name = "seven"

    def chat(self, requests):
        return [ChatReply("<score>7</score>", self.name, num_tokens=1) for _ in requests]

def build():
    return Seven()
"""
JUDGE = """
from editr1.schema import Reward

class Brightness:
    def score(self, items, seed=0):
        return [Reward(item.edited.convert("L").getpixel((0, 0)) / 25.5, 1, 1) for item in items]

def build():
    return Brightness()
"""
BENCHMARK = """
from PIL import Image

from editr1.bench.base import EditItem, Outcome
from editr1.schema import Metric

class Greys:
    name = "greys"

    def edits(self):
        for level in (0, 102, 255):
            picture = Image.new("RGB", (8, 8), (level, level, level))
            yield EditItem(str(level), "Make it grey", lambda picture=picture: (picture, picture))

    def metrics(self, judged, seed=0):
        values = [edit.value for edit in judged.values()]
        return [Metric("greys", sum(values) / len(values), n=len(values), protocol="greys/mean")]

    def outcomes(self, judged):
        return [Outcome(key, key, "", edit.value) for key, edit in judged.items()]

def build():
    return Greys()
"""
ALGORITHM = """
from dataclasses import dataclass

from editr1.algorithms.base import Needs, with_advantage

@dataclass(frozen=True)
class Reinforce:
    scale: float

    needs = Needs()
    choose = staticmethod(with_advantage)

    def loss(self, rows):
        return -self.scale * rows.advantages * rows.log_ratio

def build(scale=1.0):
    return Reinforce(scale)
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a file of a person's own and makes it importable, as PYTHONPATH would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return f"{name}:build"

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_an_editor_and_a_vlm_enter_the_loop_by_name(outside, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sets = [
        f"generate.editors=[{{name: mine, editor: '{outside('own_editor', EDITOR)}'}}]",
        f"score.pool=[{{name: seven, vlm: '{outside('own_vlm', VLM)}', prompt_id: compact_direct}}]",
    ]
    for stage in ("tasks", "decompose", "generate", "score"):
        assert main([stage, "--config", str(RECIPE), "--run", str(run), *(word for text in sets for word in ("--set", text))]) == 0
    found = Run.open(run)
    assert {candidate.editor for candidate in found.read("03_candidates")} == {"mine"}
    assert {trace.outcome.score for trace in found.read("04_traces")} == {7.0}


def test_a_judge_and_a_benchmark_meet_by_name(outside, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [outside("own_benchmark", BENCHMARK), "--judge", outside("own_judge", JUDGE)]
    assert main(["bench", *names, "--run", str(tmp_path / "run")]) == 0
    (metric,) = Run.open(tmp_path / "run").metrics()
    assert metric.value == pytest.approx((0 + 4 + 10) / 3)
    assert metric.n == 3


def test_an_algorithm_trains_an_editor_by_name(outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "flow"))
    import toy
    from editr1.flow.contexts import read_contexts
    from editr1.stages.edit_rl import make_trainer, train

    algorithm = Component(outside("own_algorithm", ALGORITHM), {"scale": 0.5})
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    settings = Config(
        editor=Component("toy:build"), reward=Component("toy:RednessJudge"), group_size=4, contexts=2, iterations=1, gallery_every=0,
        sampling=Sampling(steps=4, kind="cps", level=0.5, window=2, last=3),
        training=Training(algorithm, weights="full", lr=1e-3, beta=0.0),
    )  # fmt: skip
    trainer = make_trainer(settings, toy.ToyEditor(), [toy.score_redness], run.dir)
    before = trainer.state.policy.snapshot()
    train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)
    after = trainer.state.policy.snapshot()
    assert any(not torch.equal(before[name], after[name]) for name in before)
