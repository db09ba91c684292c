"""Let several editors make candidates, several seeds a task, into 03_candidates (paper, section 3.1).

A candidate's id is made of (task, editor, seed), so that a retry makes the same candidate again. The candidates of a task
are adjacent in the table; images are stored once by content.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path

from editr1.config import SPEED_KEYS, Component, at_least, create, to_plain
from editr1.editors.base import Editor, EditRequest
from editr1.errors import ConfigError, ContentRefusedError
from editr1.schema import Candidate, EditTask, derive_seed
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work

TABLE = "03_candidates"


@dataclass(frozen=True)
class EditorSpec:
    """One editor and how many edits of a task it makes."""

    name: str
    """Written into candidates, unique in the list."""
    editor: Component
    num_seeds: int = 1
    batch_size: int = 1
    concurrency: int = 1
    """Calls in flight: more than 1 for an endpoint only."""

    def __post_init__(self) -> None:
        at_least(1, self, "num_seeds", "batch_size", "concurrency")


@dataclass(frozen=True)
class Config:
    """The editors. paper, section 3.1: FLUX.1-Kontext, BAGEL and SeedEdit 3.0 made about ten candidates a task."""

    editors: tuple[EditorSpec, ...]
    seed: int = 0
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.editors]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"editors must be a list with different names, found {names}")


@dataclass(frozen=True, slots=True)
class Order:
    """One candidate to make."""

    task: EditTask
    editor: str
    seed: int


def plan(config: Config, run_dir: Path) -> list[str]:
    """What `run` would do, for people."""
    num_tasks = Run.open(run_dir, create=False).count("02_principles")
    each = ", ".join(f"{spec.num_seeds} by {spec.name}" for spec in config.editors)
    return [f"generate: {num_tasks} tasks x ({each}) = {num_tasks * _per_task(config)} candidates"]


def run(config: Config, run_dir: Path) -> StageCounts:
    """Writes `03_candidates`. Raises BackendError when an editor fails beyond what the engine tolerates."""
    store = Run.open(run_dir, {"generate": to_plain(config)}, create=False)
    lanes = {spec.name: Lane(spec.batch_size, spec.concurrency) for spec in config.editors}
    work = Work(lambda: partial(make_candidates, editors=_editors(config), store=store), lanes, attrgetter("editor"))
    items = ((f"{order.task.id}:{order.editor}:{order.seed}", order) for order in orders(config, store))
    total = store.count("02_principles") * _per_task(config)
    settings = store.made_from(to_plain(config, without=SPEED_KEYS), "02_principles")
    counts = store.process(TABLE, items, work, settings=settings, engine=config.engine, total=total)
    store.write_json(f"{TABLE}/repeats.json", repeats(store))
    return counts


def orders(config: Config, store: Run) -> Iterator[Order]:
    """Every candidate to make, task by task."""
    for row in store.read("02_principles"):
        for spec in config.editors:
            for index in range(spec.num_seeds):
                yield Order(row.task, spec.name, derive_seed(config.seed, "generate", row.task.id, spec.name, index))


def _per_task(config: Config) -> int:
    return sum(spec.num_seeds for spec in config.editors)


def _editors(config: Config) -> dict[str, Editor]:
    editors: dict[str, Editor] = {spec.name: create("editors", spec.editor) for spec in config.editors}
    for name, editor in editors.items():
        if not callable(getattr(editor, "edit", None)):
            raise ConfigError(f"generate.editors: {name!r} makes no edits (it has no edit method); choose an editor")
    return editors


def make_candidates(batch: Sequence[Order], editors: dict[str, Editor], store: Run) -> list[Candidate | Drop]:
    """The candidates of one editor's batch, their images stored; a Drop for an edit that the editor refuses to make."""
    requests = [EditRequest(store.images.source_of(order.task), order.task.instruction, order.seed) for order in batch]
    try:
        images = editors[batch[0].editor].edit(requests)
    except ContentRefusedError as refusal:
        if len(batch) == 1:
            return [Drop(f"refused: {refusal}")]
        return [result for order in batch for result in make_candidates([order], editors, store)]
    refs = [store.images.put(image) for image in images]
    return [Candidate.make(order.task.id, ref, order.editor, order.seed) for order, ref in zip(batch, refs, strict=True)]


def repeats(store: Run) -> dict[str, dict[str, int]]:
    """Candidates of each editor, and how many of them are the picture that it made for the task with another seed.

    An endpoint that ignores the seed shows here: its candidates would count as several and be one.
    """
    counts: dict[str, dict[str, int]] = {}
    for _, candidates in itertools.groupby(store.read(TABLE), key=attrgetter("task_id")):
        seen: set[tuple[str, str]] = set()
        for candidate in candidates:
            count = counts.setdefault(candidate.editor, {"candidates": 0, "repeated": 0})
            count["candidates"] += 1
            count["repeated"] += (candidate.editor, candidate.image.digest) in seen
            seen.add((candidate.editor, candidate.image.digest))
    return counts
