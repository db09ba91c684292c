"""Read edit tasks from a source into 01_tasks: a random half, and a hard half that a VLM filter keeps (paper, section 3.1).

Rows that the seed draws become tasks as they are. Of the others, a VLM filter looks at the first `num_filtered` and keeps
the hard ones: several steps, fine detail, implicit understanding, or precise space. Its verdicts with reasons are the table
`00_filter`. Bad rows (an image that is missing, empty, broken or a bomb; no instruction; a duplicate) are dropped and counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from editr1.config import SPEED_KEYS, Component, create, to_plain
from editr1.errors import ConfigError, DataError
from editr1.judge.inspect import parse_hardness
from editr1.judge.prompts import render_hard_filter, texts_digest
from editr1.pictures import read_picture
from editr1.schema import EditTask, ParseFailure, derive_seed, pictures_of, source_of, stable_id
from editr1.sources.base import BadRow, Picture, SourceRow
from editr1.store import Drop, Engine, Lane, Origin, Origins, Run, StageCounts, Work
from editr1.text import instruction_fault, whole_text
from editr1.vlm.base import Sampling

TABLE, FILTER_TABLE = "01_tasks", "00_filter"
Difficulty = Literal["random", "hard"]


@dataclass(frozen=True)
class HardFilter:
    """The VLM that decides which instructions are hard."""

    vlm: Component
    num_filtered: int
    """Rows shown to the filter: those that the random half left over, in the source's order."""
    num_hard: int | None = None
    """Keep at most this many hard ones; None = all."""
    max_tokens: int = 256
    batch_size: int = 1
    concurrency: int = 8

    def __post_init__(self) -> None:
        if self.num_filtered < 1:
            raise ValueError("num_filtered must be at least 1; leave the filter out for no hard half")


@dataclass(frozen=True)
class Config:
    """Which rows of which source become tasks."""

    source: Component
    """A file of `sources/`, or `package.module:Factory`."""
    seed: int = 0
    random_share: float = 1.0
    """Chance of a row to be drawn into the random half, in [0, 1]."""
    num_random: int | None = None
    """Keep at most this many drawn rows, in the source's order; None = all. paper, section 3.1: 100,000."""
    filter: HardFilter | None = None
    """None = no hard half. paper, section 3.1: 100,000 hard tasks."""
    engine: Engine = field(default_factory=lambda: Engine(shard_size=128))
    """ours: shards smaller than elsewhere, since their items carry images."""

    def __post_init__(self) -> None:
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"random_share is a share in [0, 1], found {self.random_share}")


@dataclass(frozen=True)
class FilterVerdict:
    """What the filter said about one row: a row of `00_filter`."""

    index: int
    """Row number in the source, from 0."""
    hard: bool
    criterion: str
    reason: str


@dataclass(frozen=True, slots=True)
class IndexedRow:
    """A source row with its number and, for a repetition, the number of the row that it repeats."""

    index: int
    row: SourceRow | BadRow
    difficulty: Difficulty = "random"
    repeats: int | None = None
    origin: Origin | None = None
    """What it is made from; see `store.origins`."""

    @property
    def key(self) -> str:
        return f"row-{self.index:08d}"


def plan(config: Config, run_dir: Path) -> list[str]:
    """What `run` would do, for people."""
    hard = f"; hard half: filter of {config.filter.num_filtered} rows by {config.filter.vlm.id}" if config.filter else ""
    return [f"tasks: source {config.source.id}, random half: share {config.random_share:g}, at most {config.num_random}{hard}"]


def run(config: Config, run_dir: Path) -> StageCounts:
    """Writes `01_tasks` (and `00_filter`). Raises DataError, ConfigError or BackendError."""
    source = create("sources", config.source)
    if iter(source) is source:
        raise ConfigError(f"tasks.source {config.source.id!r} can be read only once; give an object whose __iter__ starts anew each time")
    store = Run.open(run_dir, {"tasks": to_plain(config)})
    settings = to_plain(config, without=SPEED_KEYS)
    hard: dict[int, FilterVerdict] = {}
    if config.filter is not None:
        asked = store.made_from({**settings, "source": None}) | settings | texts_digest("hard_filter.md")
        _filter(config, config.filter, store, source, asked)
        found = (verdict for verdict in store.read(FILTER_TABLE, FilterVerdict) if verdict.hard)
        hard = {verdict.index: verdict for verdict in itertools.islice(found, config.filter.num_hard)}
        settings |= store.inputs(FILTER_TABLE)
    rows = mark_repeats(load_rows(chosen_rows(config, source, hard), store.origins(TABLE)))
    items = ((row.key, row) for row in rows)
    work = Work(
        lambda: lambda batch: [ingest(row, store) for row in batch],
        {"": Lane(batch_size=16)},
        choices=frozenset({"duplicate"}),
        origin_of=attrgetter("origin"),
    )
    return store.process(TABLE, items, work, settings=settings, engine=config.engine)


def is_drawn(config: Config, index: int) -> bool:
    """Whether the seed draws row `index` into the random half (before `num_random` is applied)."""
    return derive_seed(config.seed, "random half", index) < config.random_share * 2**31


def chosen_rows(config: Config, source: Iterable[Any], hard: dict[int, FilterVerdict]) -> Iterator[IndexedRow]:
    """The rows of both halves in the source's order."""
    num_drawn, last_hard = 0, max(hard, default=-1)
    for index, raw in enumerate(source):
        full = config.num_random is not None and num_drawn >= config.num_random
        if full and index > last_hard:
            return
        row = as_row(raw)
        if not full and is_drawn(config, index):
            num_drawn += 1
            yield IndexedRow(index, row, row.difficulty if isinstance(row, SourceRow) else "random")
        elif index in hard:
            yield IndexedRow(index, row, "hard")


def as_row(raw: Any) -> SourceRow | BadRow:
    """The row of a source that has types of its own: any object with an image, an instruction and perhaps a kind."""
    if isinstance(raw, SourceRow | BadRow):
        return raw
    load = partial(getattr, raw, "image")
    return SourceRow(load, raw.instruction, getattr(raw, "kind", ""), getattr(raw, "origin", ""), getattr(raw, "difficulty", "random"))


def load_rows(rows: Iterable[IndexedRow], origins: Origins) -> Iterator[IndexedRow]:
    """The rows with their pictures, but for those that the table has: of these only a changed file is opened.

    A picture that cannot be had makes a bad row. Raises ChangedInputsError for a row that is not what its table was made from.
    """
    for row in rows:
        source, where = row.row, f"row {row.index} {row.row.origin}".strip()
        if isinstance(source, BadRow):
            found = origins.load(row.key, stable_id(source.reason), "", lambda: None, where)
        else:
            words = stable_id(whole_text(str(source.instruction)), whole_text(source.kind), row.difficulty)
            found = origins.load(row.key, words, source.stamp() if source.stamp else "", source.load, where)
            if found.fault:
                source = BadRow(found.fault, source.origin)
            elif found.value is not None:
                source = replace(source, load=partial(getattr, found, "value"))
        yield replace(row, row=source, origin=found.origin)


def mark_repeats(rows: Iterable[IndexedRow]) -> Iterator[IndexedRow]:
    """Each row, marked when an earlier one has the same picture and instruction; holds 16 digits a row in memory."""
    seen: dict[str, int] = {}
    for row in rows:
        if isinstance(row.row, BadRow) or not isinstance(row.row.instruction, str) or row.origin is None:
            yield row
            continue
        first = seen.setdefault(stable_id(row.origin.content, whole_text(row.row.instruction.strip())), row.index)
        yield row if first == row.index else replace(row, repeats=first)


def ingest(row: IndexedRow, store: Run) -> EditTask | Drop:
    """The row as a task with its image stored, or why it cannot be one."""
    if row.repeats is not None:
        return Drop(f"duplicate: of row {row.repeats}")
    bad = check_row(row.row)
    if isinstance(bad, BadRow):
        return Drop(f"{bad.reason} {bad.origin}".strip())
    try:
        pictures: tuple[Picture, ...] = pictures_of(bad.load())
        source, *further = map(store.images.put, pictures)
    except DataError as error:
        return Drop(f"bad_image: {error} {bad.origin}".strip())
    return EditTask.make(source, bad.instruction.strip(), bad.kind, row.difficulty, tuple(further))


def check_row(row: SourceRow | BadRow) -> SourceRow | BadRow:
    """The row, or what is wrong with its instruction (a missing value may arrive as None or NaN)."""
    if isinstance(row, BadRow):
        return row
    if fault := instruction_fault(row.instruction):
        return BadRow(f"bad_instruction: {fault}", row.origin)
    return row


def _filter(config: Config, hard: HardFilter, store: Run, source: Iterable[Any], settings: dict[str, Any]) -> StageCounts:
    # A drawn row beyond num_random belongs to neither half (ours): the filter's rows then depend on the seed alone.
    left = (IndexedRow(index, as_row(raw)) for index, raw in enumerate(source) if not is_drawn(config, index))
    rows = load_rows(itertools.islice(left, hard.num_filtered), store.origins(FILTER_TABLE))
    items = ((row.key, row) for row in rows)
    sampling = Sampling(temperature=0.0, max_tokens=hard.max_tokens)  # ours: a yes/no decision needs no spread
    work = Work(
        lambda: partial(judge_hardness, vlm=create("vlm", hard.vlm), sampling=sampling, seed=config.seed),
        {"": Lane(hard.batch_size, hard.concurrency)},
        origin_of=attrgetter("origin"),
    )
    return store.process(FILTER_TABLE, items, work, settings=settings, record=FilterVerdict, engine=config.engine, total=hard.num_filtered)


def judge_hardness(rows: Sequence[IndexedRow], vlm: Any, sampling: Sampling, seed: int) -> list[FilterVerdict | Drop]:
    """The filter's verdict about each row; a row that cannot be shown, or an answer that cannot be read, is a Drop."""
    results: list[FilterVerdict | Drop | None] = []
    requests = []
    for row in rows:
        good = check_row(row.row)
        if isinstance(good, BadRow):
            results.append(Drop(good.reason))
            continue
        try:
            sources = [read_picture(picture, "image") for picture in pictures_of(good.load())]
        except DataError as error:
            results.append(Drop(f"bad_image: {error}"))
            continue
        results.append(None)
        asked = derive_seed(seed, "filter", row.index)
        requests.append(render_hard_filter(source_of(sources), good.instruction.strip(), sampling=sampling, seed=asked))
    replies = iter(vlm.chat(requests) if requests else [])
    return [result or _verdict(row.index, next(replies).text) for row, result in zip(rows, results, strict=True)]


def _verdict(index: int, text: str) -> FilterVerdict | Drop:
    found = parse_hardness(text)
    if isinstance(found, ParseFailure):
        return Drop(f"filter_unparsed: {found.code} {found.excerpt!r}")
    return FilterVerdict(index, found.hard, found.criterion, found.reason)
