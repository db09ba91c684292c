"""The run that `engines.py` works on: tasks to pairs of the embedded world, and a judge that SFT has just taught to write traces."""

from __future__ import annotations

import itertools
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from editr1.config import fill_in, load_recipe, section
from editr1.judge.rrm import RewardItem
from editr1.store import Run, with_traces

JUDGE = "06_rrm_sft"
_DATA = ("tasks", "decompose", "generate", "score", "inspect", "pairs")
# 120 tasks and 150 small steps: enough that nearly every trace parses, three minutes on two busy cores
_SMALL = (
    "tasks.source.options.num=120",
    "sft.steps=150",
    "sft.batch_size=16",
    "sft.machine.micro_batch=16",
    "sft.machine.progress=false",
)


def make_run(folder: Path) -> Run:
    """The run in `folder`; what an earlier call has finished there is kept."""
    make(folder, (*_DATA, "sft"), _SMALL)
    return Run.open(folder, create=False)


def make(folder: Path, stages: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Stages of the demo's recipe."""
    world = files("editr1.world")
    recipe = fill_in(load_recipe(Path(str(world / "demo.yaml")), list(overrides)), run=str(folder), world=str(world / "weights"))
    for name in stages:
        stage = import_module(f"editr1.stages.{name}")
        stage.run(section(recipe, name, stage.Config), folder)


def items(run: Run, number: int, suffix: str = "") -> list[RewardItem]:
    """The first edits of a run with their principles; `suffix` is added to every instruction."""
    return [
        RewardItem(run.images.get(q.task.source), run.images.get(q.candidate.image), q.task.instruction + suffix, q.principles, id=q.id)
        for q, _ in itertools.islice(with_traces(run), number)
    ]
