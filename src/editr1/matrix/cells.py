"""One cell: the data that its seed shares, its training stage, and its scores of the held-out pairs.

    RUN/seed0/01_tasks ...        the data of a seed, made once
    RUN/seed0/cells/tv/           the checkpoint
    RUN/seed0/bench_pairs_tv/     a score for every held-out edit

Everything here continues where a killed process stopped, because the stages and the judging do.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import editr1
from editr1.bench._judging import judge_edits
from editr1.bench._own_pairs import OwnPairs, open_pairs
from editr1.bench.base import JudgedEdit
from editr1.config import Component, create, fill_in, load_recipe, section
from editr1.matrix.config import DATA, Cell, Config, Judging
from editr1.store import Lane, Run
from editr1.store._files import exclusive

FOLDER = "cells"
LOCKS = "locks"


@dataclass(frozen=True)
class Place:
    """A recipe at work in a run directory."""

    recipe: Path
    overrides: tuple[str, ...]
    root: Path

    def config(self) -> Config:
        """The matrix. Raises ConfigError for a recipe without one."""
        return section(load_recipe(self.recipe, self.overrides), "bench", Config)

    def seed_dir(self, seed: int) -> Path:
        return self.root / f"seed{seed}"


@dataclass(frozen=True, slots=True)
class Scored:
    """What one cell said about the held-out pairs of one seed."""

    pairs: OwnPairs
    judged: Mapping[str, JudgedEdit]
    """By edit."""
    num_rows: int
    """Rows that its training drew from: quadruples, or pairs."""
    steps: int


def run_cell(place: Place, seed: int, name: str) -> None:
    """Makes the seed's data (`name` = "data"), or trains and judges a cell whose predecessors are finished.

    Raises DataError when another process is at it: one that outlived a killed command would write the same files.
    """
    config = place.config()
    run_dir = place.seed_dir(seed)
    locks = place.root / LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    with exclusive(locks / f"seed{seed}_{name}", f"cell {name} of seed {seed}"):
        _make(place, config, seed, name, run_dir)


def _make(place: Place, config: Config, seed: int, name: str, run_dir: Path) -> None:
    if name == DATA:
        for stage in config.data:
            _run_stage(stage, settings(place, config, seed), run_dir)
        return
    cell = config.cells[name]
    recipe = settings(place, config, seed, name)
    for stage in (*cell.first, cell.stage):
        _run_stage(stage, recipe, run_dir)
    judge(run_dir, name, cell, config.judging)


def settings(place: Place, config: Config, seed: int, name: str | None = None) -> dict[str, Any]:
    """The recipe of a seed, and of a cell where one is named: with its overrides, its predecessor's checkpoint and its own folder."""
    overrides = [f"seed={seed}", *(text.replace("{seed}", str(seed)) for text in config.per_seed)]
    last: list[str] = []
    if name is not None:
        cell = config.cells[name]
        overrides += cell.set
        last = [f"{cell.stage}.prompt_id={cell.prompt_id}", f"{cell.stage}.output={FOLDER}/{name}"]
        if cell.after is not None:
            last.append(f"{cell.stage}.model='{{run}}/{FOLDER}/{cell.after}'")
    recipe = load_recipe(place.recipe, [*overrides, *place.overrides, *last])
    world = Path(editr1.__file__).parent / "world" / "weights"
    filled: dict[str, Any] = fill_in(recipe, run=str(place.seed_dir(seed)), world=str(world))
    return filled


def _run_stage(name: str, recipe: Mapping[str, Any], run_dir: Path) -> None:
    stage = importlib.import_module(f"editr1.stages.{name}")
    print(f"{name}: {stage.run(section(recipe, name, stage.Config), run_dir)}", flush=True)  # noqa: T201


# --- judging ----------------------------------------------------------------------------------------


def judge(run_dir: Path, name: str, cell: Cell, how: Judging) -> None:
    """Scores of all held-out edits by the cell's checkpoint, into a table that survives a kill. All cells are asked with the same seeds."""
    run = Run.open(run_dir, create=False)
    pairs = open_pairs(run_dir, "held_out", how.num_pairs)
    path = run_dir / FOLDER / name
    vlm = create("vlm", Component("local", {"path": str(path), "batch_size": how.batch_size}))
    options = {"prompt_id": cell.prompt_id, "num_traces": how.num_traces, "temperature": how.temperature, "max_tokens": how.max_tokens}
    model = create("judges", Component("rrm", {"vlm": vlm, **options}))
    asked = {"cell": name, "judging": dataclasses.asdict(how), "prompt_id": cell.prompt_id, "weights": _finished(path)}
    lane = Lane(batch_size=max(1, how.batch_size // how.num_traces))
    judge_edits(run, _table(name), pairs.edits(), model, settings=asked, lane=lane)


def is_finished(place: Place, config: Config, seed: int, name: str) -> bool:
    """Whether a cell (or the data) of a seed has nothing left to do."""
    run_dir = place.seed_dir(seed)
    if not (run_dir / "env.json").exists():
        return False
    run = Run.open(run_dir, create=False)
    if name == DATA:
        return run.has("05_inspections") and run.has("07_pairs")
    return run.has(_table(name)) and (run_dir / FOLDER / name / "done.json").exists()


def read_scored(place: Place, config: Config, seed: int, name: str) -> Scored:
    """A finished cell's answers."""
    run_dir = place.seed_dir(seed)
    run = Run.open(run_dir, create=False)
    done = _finished(run_dir / FOLDER / name)
    judged = dict(run.keyed(_table(name), JudgedEdit))
    return Scored(open_pairs(run_dir, "held_out", config.judging.num_pairs), judged, done["rows"], done["steps"])


def _table(name: str) -> str:
    return f"bench_pairs_{name}"


def _finished(checkpoint: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((checkpoint / "done.json").read_text(encoding="utf-8"))
    return found
