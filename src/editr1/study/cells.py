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
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

import editr1
from editr1.bench.base import JudgedEdit
from editr1.bench.own import OwnPairs, open_pairs
from editr1.config import Component, create, fill_in, load_recipe, section, to_plain
from editr1.errors import BackendError, DataError
from editr1.measure.judging import Asker, judge_all
from editr1.store import Lane, Run
from editr1.store._files import exclusive, read_json, write_json
from editr1.study.config import DATA, Cell, Config, Judging

# --- one cell ------------------------------------------------------------------------------------------


FOLDER = "cells"
LOCKS = "locks"
_NOT_LASTING = frozenset({"engine", "machine", "concurrency"})
"""Settings that only say how fast a stage runs; unlike `SPEED_KEYS`, for a step's `batch_size` is learnt from."""
WORLD = Path(editr1.__file__).parent / "world" / "weights"


@dataclass(frozen=True)
class Place:
    """A recipe at work in a run directory."""

    recipe: Path
    overrides: tuple[str, ...]
    root: Path

    def config(self) -> Config:
        """The study. Raises ConfigError for a recipe without one."""
        return section(load_recipe(self.recipe, self.overrides), "study", Config)

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
    run_dir, locks = place.seed_dir(seed), place.root / LOCKS
    locks.mkdir(parents=True, exist_ok=True)
    with exclusive(locks / f"seed{seed}_{name}", f"cell {name} of seed {seed}"):
        recipe = fill_in(_recipe(place, config, seed, name), run=str(run_dir), world=str(WORLD))
        for stage in _stages(config, name):
            module = _module(stage)
            print(f"{stage}: {module.run(section(recipe, stage, module.Config), run_dir)}", flush=True)  # noqa: T201
        if name != DATA:
            judge(run_dir, name, config.cells[name], config.judging)
        write_json(_mark(run_dir, name), made_of(place, config, seed, name))


def _stages(config: Config, name: str) -> tuple[str, ...]:
    return config.data if name == DATA else (*config.cells[name].first, config.cells[name].stage)


def _recipe(place: Place, config: Config, seed: int, name: str) -> dict[str, Any]:
    """The recipe of a seed and a cell: with its overrides, its predecessor's checkpoint and its own folder."""
    overrides = [f"seed={seed}", *(text.replace("{seed}", str(seed)) for text in config.per_seed)]
    last: list[str] = []
    if name != DATA:
        cell = config.cells[name]
        overrides += cell.set
        last = [f"{cell.stage}.prompt_id={cell.prompt_id}", f"{cell.stage}.output={FOLDER}/{name}"]
        if cell.after is not None:
            last.append(f"{cell.stage}.model='{{run}}/{FOLDER}/{cell.after}'")
    return load_recipe(place.recipe, [*overrides, *place.overrides, *last])


def stage_configs(place: Place, config: Config, seed: int, name: str) -> dict[str, Any]:
    """The settings of every stage that a cell runs, as the stages read them; `{run}` stands where the seed's directory goes."""
    recipe = _recipe(place, config, seed, name)
    return {stage: section(recipe, stage, _module(stage).Config) for stage in _stages(config, name)}


def made_of(place: Place, config: Config, seed: int, name: str) -> dict[str, Any]:
    """Everything that a cell's answers depend on, as plain values: its settings, and those of what it starts from."""
    parts = {stage: to_plain(made, without=_NOT_LASTING) for stage, made in stage_configs(place, config, seed, name).items()}
    if name == DATA:
        return parts
    before = made_of(place, config, seed, config.cells[name].after or DATA)
    found: dict[str, Any] = json.loads(json.dumps({**parts, "judging": dataclasses.asdict(config.judging), "before": before}))
    return found


def _module(stage: str) -> Any:
    return importlib.import_module(f"editr1.stages.{stage}")


def _mark(run_dir: Path, name: str) -> Path:
    """The file that says that a cell is finished, and what it was made of."""
    return run_dir / "data.json" if name == DATA else run_dir / FOLDER / name / "cell.json"


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
    judge_all(run, _table(name), pairs.edits(), Asker(model, 0), settings=asked, lane=lane)


def is_finished(place: Place, config: Config, seed: int, name: str) -> bool:
    """Whether a cell (or the data) of a seed has nothing left to do.

    Raises DataError when it was made with other settings: a table of old and new cells would compare nothing.
    """
    run_dir = place.seed_dir(seed)
    path = _mark(run_dir, name)
    if not path.exists():
        return False
    old, new = _flat(read_json(path)), _flat(json.loads(json.dumps(made_of(place, config, seed, name))))
    if changed := sorted(key for key in {*old, *new} if old.get(key) != new.get(key)):
        key = changed[0]
        where = str(run_dir) if name == DATA else f"{run_dir / FOLDER / name} and {run_dir / _table(name)}"
        raise DataError(
            f"cell {name} of seed {seed} was made with {key}={old.get(key)!r}, now it is {new.get(key)!r}; "
            f"restore the setting, delete {where}, or use another --run"
        )
    return True


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {key: item for name, part in value.items() for key, item in _flat(part, f"{prefix}.{name}" if prefix else name).items()}


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
    return dict(read_json(checkpoint / "done.json"))


# --- all cells at once, each the same command in a process of its own: what ran beside a cell cannot change its numbers ---

LOGS = "logs"
_POLL = 0.5
"""Seconds between two looks at the running processes."""


@dataclass(frozen=True, slots=True)
class Task:
    """One cell of one seed."""

    seed: int
    cell: str

    def __str__(self) -> str:
        return f"seed{self.seed}/{self.cell}"


@dataclass
class Running:
    """A task at work."""

    task: Task
    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def minutes(self) -> float:
        """Since it began."""
        return (time.monotonic() - self.began) / 60


def tasks_left(place: Place, config: Config, seeds: Sequence[int], cells: Sequence[str]) -> list[Task]:
    """What is not finished, in an order in which nothing comes before what it needs; seeds interleave, so that a run that is
    stopped early has whole rows."""
    wanted = [Task(seed, name) for name in (DATA, *cells) for seed in seeds]
    return [task for task in wanted if not is_finished(place, config, task.seed, task.cell)]


def estimate(config: Config, tasks: Sequence[Task], jobs: int) -> float:
    """Minutes that the tasks take on `jobs` cores, from the recipe's figures."""
    return _minutes_left(config, tasks, (), 1.0) / jobs


def run_all(place: Place, config: Config, tasks: Sequence[Task], jobs: int, command: Callable[[Task], list[str]]) -> None:
    """Runs the tasks, `jobs` at once, with a bar that says what runs and how long the rest takes.

    command: the command line that does one task.
    Raises BackendError when a task fails, with the end of its log; the others are stopped and continue at the next call.
    """
    left, running = list(tasks), list[Running]()
    planned = taken = 0.0  # minutes of what is finished, by the recipe and by the clock
    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} {postfix}"
    with tqdm(total=len(tasks), desc="cells", unit="cell", mininterval=1.0, bar_format=form) as bar:
        try:
            while left or running:
                while len(running) < jobs and (task := _ready(config, left, running)) is not None:
                    left.remove(task)
                    running.append(_start(place, task, jobs, command(task)))
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    if job.process.returncode != 0:
                        end = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                        told = f"{job.task} failed with code {job.process.returncode}: {''.join(end)} (all of it: {job.log})"
                        raise BackendError(told)
                    planned, taken = planned + config.minutes(job.task.cell), taken + job.minutes
                    bar.update()
                    bar.write(f"{job.task} done in {job.minutes:.1f} min", file=sys.stderr)
                names = ", ".join(str(job.task) for job in running)
                minutes = _minutes_left(config, left, running, taken / planned if planned else 1.0) / jobs
                bar.set_postfix_str(f"{minutes:.0f} min left: {names}")
                time.sleep(_POLL)
        finally:
            for job in running:
                job.process.terminate()
                job.process.wait()


def _minutes_left(config: Config, left: Sequence[Task], running: Sequence[Running], pace: float) -> float:
    """Of one core; pace: this machine's minutes over the recipe's."""
    now = (max(0.0, config.minutes(job.task.cell) * pace - job.minutes) for job in running)
    return sum(config.minutes(task.cell) for task in left) * pace + sum(now)


def _ready(config: Config, left: Sequence[Task], running: Sequence[Running]) -> Task | None:
    """The first task whose seed has its data and whose predecessor is finished."""
    unfinished = {*left, *(job.task for job in running)}
    for task in left:
        needs = [] if task.cell == DATA else [DATA, *config.chain(task.cell)[:-1]]
        if not any(Task(task.seed, name) in unfinished for name in needs):
            return task
    return None


def _start(place: Place, task: Task, jobs: int, command: Sequence[str]) -> Running:
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1)
    log = place.root / LOGS / f"{str(task).replace('/', '_')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    return Running(task, process, log)
