"""Collect preferences between candidates, from people or a file of their answers, into 07_pairs (paper, section 3.2).

People see x_ref, q and two edits and answer a, b or same. Which edit is shown as `a` is drawn by seed. A task is in the
training or in the held-out split as a whole (`store.preference_pairs(run, split)`); "same" pairs are kept and counted, and
left out of GCPO and of accuracies by their readers.

A preference file is CSV, JSONL or Parquet, one comparison a row, in one of two forms:

    a, b, label[, annotator]                        a and b are candidate ids of the run
    source, instruction, a, b, label[, annotator]   source, a and b are image files beside the preference file

For the second form, run `tasks` and `decompose` on the same sources first if the pairs shall carry principles.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol, cast

from PIL import Image

from editr1.config import SPEED_KEYS, Component, at_least, create, to_plain
from editr1.errors import ConfigError, DataError
from editr1.schema import Candidate, EditTask, ImageRef, Label, PreferencePair, Principle, Quadruple, derive_seed, stable_id
from editr1.store import (
    Drop,
    Engine,
    Lane,
    Origin,
    Origins,
    Run,
    StageCounts,
    Work,
    file_digest,
    name_in,
    quadruples,
    read_inside,
    read_table,
    stamp_inside,
)
from editr1.text import instruction_fault, is_missing, whole_text

TABLE = "07_pairs"


class Annotator(Protocol):
    """Anyone who compares two edits of one source."""

    name: str

    def label(self, source: Image.Image, instruction: str, a: Image.Image, b: Image.Image, seed: int) -> Label: ...


@dataclass(frozen=True)
class Config:
    """Where the preferences come from: exactly one of `annotator` and `file`."""

    annotator: Component | None = None
    """`package.module:Factory` of an `Annotator`."""
    file: Path | None = None
    """CSV or JSONL with columns a, b, label (and annotator, source, instruction): see above."""
    seed: int = 0
    pairs_per_task: int = 1
    max_pairs: int | None = None
    """paper, section 3.2: about 10,000."""
    held_out_share: float = 0.2
    """ours: share of the tasks whose pairs measure accuracy and train nothing."""
    concurrency: int = 1
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        if (self.annotator is None) == (self.file is None):
            raise ValueError("set exactly one of annotator and file")
        if not 0 <= self.held_out_share <= 1:
            raise ValueError(f"held_out_share is a share in [0, 1], found {self.held_out_share}")
        at_least(1, self, "pairs_per_task", "max_pairs", "concurrency")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two edits of one task, not yet compared."""

    task: EditTask
    principles: tuple[Principle, ...]
    a: Candidate
    b: Candidate


def plan(config: Config, run_dir: Path) -> list[str]:
    """What `run` would do, for people."""
    origin = f"imported from {config.file}" if config.file else f"{config.pairs_per_task} a task by {config.annotator.id}"  # type: ignore[union-attr]
    return [f"pairs: {origin}, at most {config.max_pairs}; {config.held_out_share:.0%} of the tasks held out"]


def run(config: Config, run_dir: Path) -> StageCounts:
    """Writes `07_pairs`. Raises DataError for a file that cannot be read; its bad rows are dropped and counted."""
    store = Run.open(run_dir, {"pairs": to_plain(config)}, create=config.file is not None)
    settings = to_plain(config, without=SPEED_KEYS)
    if config.file is not None:
        settings["file_digest"] = file_digest(config.file)  # answers that were changed since are other answers
        rows = itertools.islice(read_pair_rows(config.file, store.origins(TABLE)), config.max_pairs)
        file_items = ((row.key, row) for row in rows)
        lanes, choices = {"": Lane(batch_size=64)}, frozenset({"duplicate"})
        work = Work(partial(_make_import, store), lanes, choices=choices, origin_of=attrgetter("origin"))
        return store.process(TABLE, file_items, work, settings=settings, engine=config.engine)
    settings = store.made_from(settings, "02_principles", "03_candidates")
    items = ((f"{pair.a.id}:{pair.b.id}", pair) for pair in itertools.islice(comparisons(store, config), config.max_pairs))
    work = Work(partial(_make_annotator, config, store), {"": Lane(concurrency=config.concurrency)})
    return store.process(TABLE, items, work, settings=settings, engine=config.engine, total=config.max_pairs)


def comparisons(store: Run, config: Config) -> Iterator[Comparison]:
    """At most `pairs_per_task` pairs of different pictures a task, drawn and ordered by seed."""
    for task_id, group in itertools.groupby(quadruples(store), key=attrgetter("task.id")):
        members = list(group)
        draw = random.Random(derive_seed(config.seed, "pairs", task_id))
        pairs = [(x, y) for x, y in itertools.combinations(members, 2) if x.candidate.image.digest != y.candidate.image.digest]
        for x, y in draw.sample(pairs, min(config.pairs_per_task, len(pairs))):
            a, b = (x, y) if draw.random() < 0.5 else (y, x)
            yield Comparison(x.task, x.principles, a.candidate, b.candidate)


def _make_annotator(config: Config, store: Run) -> Callable[[Sequence[Comparison]], list[PreferencePair | Drop]]:
    assert config.annotator is not None
    annotator = create("annotators", config.annotator)
    return lambda batch: [compare(pair, annotator, store, config.seed) for pair in batch]


def compare(pair: Comparison, annotator: Annotator, store: Run, seed: int) -> PreferencePair:
    """The annotator's answer about one pair. Raises ConfigError for an answer that is none."""
    if pair.task.further:
        raise ConfigError(f"annotator {annotator.name} sees one source picture, task {pair.task.id} has several: let people label it")
    images = [store.images.get(ref) for ref in (pair.task.source, pair.a.image, pair.b.image)]
    pair_seed = derive_seed(seed, "label", pair.a.id, pair.b.id)
    label = annotator.label(images[0], pair.task.instruction, images[1], images[2], pair_seed)
    if label not in LABELS:
        raise ConfigError(f"annotator {annotator.name} answered {label!r}, expected one of {', '.join(LABELS)}")
    return PreferencePair(pair.task, pair.principles, pair.a, pair.b, label, annotator.name)


def _make_import(store: Run) -> Callable[[Sequence[PairRow]], list[PreferencePair | Drop]]:
    known = {q.id: q for q in quadruples(store)} if store.has("03_candidates") and store.has("02_principles") else {}
    tasks = {row.task.id: row.principles for row in store.read("02_principles")} if store.has("02_principles") else {}
    made = {(q.task.id, q.candidate.image.digest): q.candidate for q in known.values()}
    return lambda rows: [import_row(row, store, known, tasks, made) for row in rows]


def import_row(
    row: PairRow,
    store: Run,
    known: dict[str, Quadruple],
    principles: dict[str, tuple[Principle, ...]],
    made: dict[tuple[str, str], Candidate],
) -> PreferencePair | Drop:
    """The pair that a row names, by candidate ids or by image files, or why there is none; made: candidates by task and picture."""
    if row.fault:
        return Drop(row.fault)
    if label_in(row.label) is None:
        return Drop(f"bad_label: {row.label!r}, expected one of {', '.join(LABELS)}")
    pair = _from_images(row, store, principles, made) if row.source else _from_ids(row, known)
    if isinstance(pair, PreferencePair) and pair.label != "same" and pair.a.image == pair.b.image:
        return Drop(f"same_picture: {row.a} and {row.b}")
    return pair


def _from_ids(row: PairRow, known: dict[str, Quadruple]) -> PreferencePair | Drop:
    if missing := [key for key in (row.a, row.b) if key not in known]:
        return Drop(f"unknown_candidate: {missing[0]!r}")
    a, b = known[row.a], known[row.b]
    if a.task.id != b.task.id:
        return Drop(f"different_tasks: {row.a} and {row.b}")
    return PreferencePair(a.task, a.principles, a.candidate, b.candidate, cast(Label, row.label), row.annotator)


def _from_images(
    row: PairRow, store: Run, principles: dict[str, tuple[Principle, ...]], candidates: dict[tuple[str, str], Candidate]
) -> PreferencePair | Drop:
    try:
        source, a, b = (store.images.put(data) for data in row.images)
    except DataError as error:
        return Drop(f"bad_image: {error}")
    task = EditTask.make(source, row.instruction)
    if principles and task.id not in principles:
        return Drop(f"no_principles: 02_principles of this run has others, and none for {row.instruction!r}")
    left, right = (candidates.get((task.id, ref.digest)) or Candidate.make(task.id, ref, file_editor(ref), 0) for ref in (a, b))
    return PreferencePair(task, principles.get(task.id, ()), left, right, cast(Label, row.label), row.annotator)


def file_editor(picture: ImageRef) -> str:
    """The editor of an edit that only its file is known of: its name makes ids differ, and stay the same at every import."""
    return f"file:{picture.digest[:16]}"


LABELS: tuple[Label, ...] = ("a", "b", "same")


def label_in(cell: Any) -> Label | None:
    """The answer that a cell of a table names, in any letters and with blanks around it; None for none."""
    word = cell.strip().lower() if isinstance(cell, str) else ""
    return next((label for label in LABELS if label == word), None)


COLUMNS = ("a", "b", "label", "annotator", "instruction", "source")


@dataclass(frozen=True, slots=True)
class PairRow:
    """One comparison as the file gives it."""

    number: int
    """Row number from 0."""
    a: str = ""
    b: str = ""
    label: str = ""
    annotator: str = ""
    instruction: str = ""
    source: str = ""
    """Name of the source's file, beside those of a and b; empty when a and b are candidate ids."""
    images: tuple[bytes, ...] = ()
    """Encoded source, a and b, where they were needed."""
    origin: Origin | None = None
    fault: str = ""
    """Why the row cannot be used; `code: detail`."""

    @property
    def key(self) -> str:
        return f"row-{self.number:08d}"


def read_pair_rows(path: Path, origins: Origins) -> Iterator[PairRow]:
    """The comparisons of a file, bad ones included, with their pictures where the table has them not yet.

    Raises DataError for a file that is missing, of another kind, or without the columns.
    """
    seen: dict[str, PairRow] = {}
    for number, row in enumerate(read_table(path, COLUMNS[:3], COLUMNS[3:])):
        found = _load(PairRow(number, fault=row) if isinstance(row, str) else _row(number, row), path.parent, origins)
        yield replace(found, fault=found.fault or _said_before(found, seen))


def _said_before(row: PairRow, seen: dict[str, PairRow]) -> str:
    """Why the answer does not count: the same person gave one about the same pair before. Nameless rows may be several people's."""
    if row.fault or not row.annotator:
        return ""
    earlier = seen.setdefault(stable_id(row.annotator, row.source, row.instruction, *sorted((row.a, row.b))), replace(row, images=()))
    if earlier.number == row.number:
        return ""
    chosen, before = ({"a": one.a, "b": one.b}.get(one.label, one.label) for one in (row, earlier))
    said = "duplicate: of" if chosen == before else "contradiction: the same annotator says otherwise in"
    return f"{said} row {earlier.number + 1}"


def _load(row: PairRow, root: Path, origins: Origins) -> PairRow:
    words = stable_id(row.a, row.b, row.label, row.annotator, row.instruction, row.source, whole_text(row.fault))
    names = [name for name in (row.source, row.a, row.b) if row.source and not row.fault]
    stamps = [stamp_inside(root, name) for name in names]
    stamp = " ".join(stamps) if all(stamps) else ""
    where = f"row {row.number + 1}"
    found = origins.load(row.key, words, stamp, lambda: tuple(read_inside(root, name) for name in names), where)
    return replace(row, images=found.value or (), origin=found.origin, fault=row.fault or found.fault)


def _row(number: int, row: dict[str, Any]) -> PairRow:
    values = {key: "" if is_missing(row.get(key)) else row[key] for key in COLUMNS}
    try:
        values["annotator"] = name_in(values["annotator"])
    except DataError as error:
        return PairRow(number, fault=f"bad_value: annotator {error}")
    odd = [key for key, value in values.items() if not isinstance(value, str)]
    if odd:
        return PairRow(number, fault=f"bad_value: {odd[0]} is {str(row[odd[0]])[:60]!r}, expected a text")
    needed = ["a", "b", "label"] + (["instruction"] if values["source"] else [])
    missing = [key for key in needed if not values[key].strip()]
    if missing:
        return PairRow(number, fault=f"missing_value: {missing[0]}")
    label, instruction = values["label"].strip().lower(), values["instruction"].strip()
    if values["source"] and (fault := instruction_fault(instruction)):
        return PairRow(number, fault=f"bad_instruction: {fault}")
    return PairRow(number, values["a"], values["b"], label, values["annotator"], instruction, values["source"])
