"""Figures of one's own: a folder of edits, any table of scores, and a run's preference pairs, judged with their own principles.

# folder: a plain folder of edits: `edits.jsonl` or `edits.csv` names them, and any judge scores them.

    {"source": "a.png", "edited": "a_edit.png", "instruction": "Make the sky purple", "category": "color_alter"}

Paths are relative to the folder and must stay inside it; `category`, `id` and `principles` are optional. `principles` is a JSON array of
{question, category}, as `editr1 audit --table` reads it; without it a judge that wants principles writes its own. An edit without an `id`
is called by its file. Protocol: `folder/mean`, the mean score on 0 to 10 with its interval by source image.

# table: any table of scores, with or without what people said: one row an edit (or a pair).

    key        names the sample; unique
    cluster    what samples share, such as the source image or the task (optional: each sample its own)
    category   optional
    value      the judge's score, a number; empty = unscored. Only 0, .5 and 1: credits of pairs
    human      optional: people's score of the same sample, on any scale

CSV, TSV, JSON lines or Parquet. Without `human`: the mean, micro and macro over categories. With it: Spearman's rho and Kendall's tau-b
over all samples, and the order of pairs inside clusters, where two samples of a cluster whom people rate differently are a pair.
Protocols: `table/mean/<micro|macroN>`, `table/spearman`, `table/kendall`, `table/pairs/{half,strict,non-tied}`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from editr1.bench.base import EditOrder, EditSet, JudgedEdit, Outcome, Part, Stored, headline, refuse_doubles, require_folder
from editr1.errors import ConfigError, DataError
from editr1.judge.decompose import stated_principles
from editr1.measure.groups import signal_of_pairs
from editr1.measure.metrics import accuracy_metrics, by_kind, mean_metric, mean_metrics, to_metric
from editr1.measure.rows import Edit, EditBench, Pair, PairBench, load_pair, load_source
from editr1.schema import MAX_SCORE, Metric, PreferencePair, Principle, Source, stable_id
from editr1.stats import TIE_TOLERANCE, share_estimate
from editr1.stats.agreement import kendall_tau_b, spearman
from editr1.store import Run, Split, preference_pairs
from editr1.store.foreign import column_names, name_in, whole_table
from editr1.text import is_missing

LIST = "edits.jsonl"
LISTS = (LIST, "edits.csv")
EDIT_COLUMNS = ("source", "edited", "instruction")
TASK_COLUMNS = ("source", "instruction")


@dataclass(frozen=True, slots=True)
class Row:
    """One edit of the list; files are named relative to the folder."""

    key: str
    source: str
    edited: str
    instruction: str
    category: str = ""
    principles: tuple[Principle, ...] | None = None


@dataclass(frozen=True)
class FolderBench(EditBench):
    """The edits of a folder. Make one with `folder.build`."""

    rows: tuple[Edit, ...]
    name: str = "folder"

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        return [mean_metric("folder", self.outcomes(judged), "folder/mean", seed=seed, top=MAX_SCORE)]


def _build_folder(root: Path | str | None = None) -> FolderBench:
    """The edits that `<root>/edits.jsonl` or `edits.csv` lists. Raises DataError for a missing or broken list and for a doubled id."""
    place = require_folder(root, "folder", f"make a folder with a file {LIST}")
    edits = []
    for row in read_list(find_list(place, EDIT_COLUMNS)):
        load = partial(load_pair, (place, row.source), (place, row.edited), f"folder {row.key}", resize=False)
        edits.append(Edit(row.key, row.instruction, load, row.principles, row.source, row.category))
    return FolderBench(tuple(edits))


def find_list(folder: Path, columns: Sequence[str]) -> Path:
    """The folder's list. Raises DataError where there is none, or two."""
    found = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has {' and '.join(LISTS)}; keep one, or which edits count is unknown")
    if not found:
        raise DataError(f"{folder} has no {' or '.join(LISTS)}; write one row an edit with {', '.join(columns)}")
    return found[0]


def folder_tasks(root: Path | str | None = None) -> EditSet:
    """Tasks of one's own: rows need no `edited`. Raises DataError for a missing or broken list."""
    place = require_folder(root, "folder", f"make a folder with a file {LIST}")
    orders, lines = [], []
    for row in read_list(find_list(place, TASK_COLUMNS), TASK_COLUMNS):
        edited, source = f"edits/{stable_id(row.key)}.png", f"sources/{stable_id(row.source)}.png"
        load = partial(load_source, place, row.source, f"folder {row.key}")
        orders.append(EditOrder(row.key, row.instruction, load, edited, source))
        line = {"id": row.key, "source": source, "edited": edited, "instruction": row.instruction, "category": row.category}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return EditSet(tuple(orders), {LIST: "".join(lines)})


def read_list(path: Path, columns: Sequence[str] = EDIT_COLUMNS) -> tuple[Row, ...]:
    """The rows of a list that has these columns. Raises DataError for a broken list and for a doubled id."""
    rows = [_row(row, where) for where, row in whole_table(path, columns)]
    names = Counter(row.key for row, _ in rows)
    # Several instructions may share a source that has not been edited yet, and one file may stand under two instructions.
    unique = tuple(replace(row, key=f"{row.key} {row.instruction}") if not given and names[row.key] > 1 else row for row, given in rows)
    refuse_doubles([row.key for row in unique], str(path))
    return unique


def _row(row: Mapping[str, Any], where: str) -> tuple[Row, bool]:
    """The row, and whether its key is an id that was given."""
    cells = {name: "" if row.get(name) is None else row[name] for name in EDIT_COLUMNS}
    if not all(isinstance(cell, str) for cell in cells.values()):
        raise DataError(f"{where}: expected an object of texts ({', '.join(cells)})")
    try:
        cells |= {name: name_in(row.get(name)) for name in ("category", "id")}
    except DataError as error:
        raise DataError(f"{where}: category or id: {error}") from error
    key = cells["id"] or cells["edited"] or cells["source"]
    principles = stated_principles(row.get("principles"), where)
    return Row(key, cells["source"], cells["edited"], cells["instruction"], cells["category"], principles), bool(cells["id"])


folder = Part(_build_folder, edit_set=folder_tasks)

# --- any table of scores ------------------------------------------------------------------------------

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMNS = ("key", "value")
CREDITS = {0.0, 0.5, 1.0}


def _is_table(path: Path) -> bool:
    """Whether a table has the columns; outcomes that this package wrote (they have a `unit`) are none of it."""
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return False
    names = column_names(path)
    return set(COLUMNS) <= set(names) and "unit" not in names


def _read_tables(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judge a table, named by its file. Raises DataError for a doubled key and a value that is no finite number."""
    return [_stored(path, seed) for path in paths]


def read_rated(path: Path) -> tuple[list[Outcome], list[float | None]]:
    """The samples, and what people say of each (None = nothing). Raises DataError as the reader of tables does."""
    rows = whole_table(path, COLUMNS)
    named = [{name: _name(row, name, where) for name in ("key", "cluster", "category")} for where, row in rows]
    refuse_doubles([names["key"] for names in named], str(path))
    values = [_number(row["value"], f"{where}: value") for where, row in rows]
    human = [_number(row.get("human"), f"{where}: human") for where, row in rows]
    unit = "credit" if {value for value in values if value is not None} <= CREDITS and any(v is not None for v in values) else "score"
    outcomes = [
        Outcome(names["key"], names["cluster"] or names["key"], names["category"], value, unit)  # type: ignore[arg-type]
        for names, value in zip(named, values, strict=True)
    ]
    return outcomes, human


def _stored(path: Path, seed: int) -> Stored:
    outcomes, human = read_rated(path)
    unit = outcomes[0].unit
    metrics = _credits(outcomes) if unit == "credit" else mean_metrics("table_mean", outcomes, "table/mean", seed=seed)
    columns = {"mean": "table/mean/micro"}
    if any(value is not None for value in human):
        metrics += against_people(outcomes, human)
        columns |= {"rho": "table/spearman", "tau": "table/kendall", "pairs": "table/pairs/half"}
    shown = headline(metrics, columns)
    if unit == "score" and (mean := shown["mean"]) is not None:
        shown["mean"] = mean / 100  # in the table's own units
    return Stored(path.stem, "table", metrics, outcomes, shown)


def _credits(outcomes: Sequence[Outcome]) -> list[Metric]:
    """Credits of pairs: an unscored pair has half a credit, as everywhere."""
    credits = np.array([0.5 if row.value is None else row.value for row in outcomes])
    estimate = share_estimate(credits, [row.cluster for row in outcomes])
    unscored = sum(row.value is None for row in outcomes)
    kinds = by_kind(credits, [row.category for row in outcomes])
    return [to_metric("table_mean", estimate, "table/mean/micro", n=len(outcomes), num_unscored=unscored, by_category=kinds)]


def against_people(outcomes: Sequence[Outcome], human: Sequence[float | None]) -> list[Metric]:
    """Rank correlation over all samples, and the order of pairs inside clusters. Samples that people did not rate are left out."""
    rated = [(row, rating) for row, rating in zip(outcomes, human, strict=True) if rating is not None]
    judge = [math.nan if row.value is None else row.value for row, _ in rated]
    unscored = sum(row.value is None for row, _ in rated)
    people = [rating for _, rating in rated]
    found = [
        Metric(f"table_{name}", rho(judge, people), n=len(rated) - unscored, num_unscored=unscored, protocol=f"table/{name}")
        for name, rho in (("spearman", spearman), ("kendall", kendall_tau_b))
    ]
    groups: dict[str, list[int]] = defaultdict(list)
    for index, (row, _) in enumerate(rated):
        groups[row.cluster].append(index)
    pairs = [
        (cluster, (judge[i] - judge[j]) * math.copysign(1, people[i] - people[j]))
        for cluster, members in groups.items()
        for i, j in itertools.combinations(members, 2)
        if abs(people[i] - people[j]) > TIE_TOLERANCE
    ]
    margins = np.array([margin for _, margin in pairs], dtype=np.float64)
    return [*found, *accuracy_metrics("table_pairs", margins, [cluster for cluster, _ in pairs], "table/pairs")] if pairs else found


def _number(cell: Any, where: str) -> float | None:
    if is_missing(cell):
        return None
    try:
        number = math.nan if isinstance(cell, bool) or "_" in str(cell) else float(cell)  # Python reads "1_0" as 10
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where} is {str(cell)[:40]!r}, expected a finite number with a decimal point, or nothing")
    return number


def _name(row: Mapping[str, Any], column: str, where: str) -> str:
    cell = row.get(column)
    try:
        name = cell.strip() if isinstance(cell, str) and column == "key" else name_in(cell)  # a key may be "NA"
    except DataError as error:
        raise DataError(f"{where}: {column} {error}") from error
    if not name and column == "key":
        raise DataError(f"{where}: key is empty, so whose value this is is unknown")
    return name


table = Part(recognise=_is_table, read_stored=_read_tables)

# --- a run's own pairs --------------------------------------------------------------------------------

SPLITS = ("held_out", "train", "all")


@dataclass(frozen=True)
class OwnPairs(PairBench):
    """The pairs of one split. Make one with `build`."""

    run: Run
    pairs: tuple[PreferencePair, ...]
    split: str
    name: str = "pairs"

    @property
    def rows(self) -> Sequence[Pair]:  # type: ignore[override]
        return [
            Pair(p.id, (p.a.id, p.b.id), p.task.instruction, p.label, p.task.id, p.task.kind, partial(self._load, p), p.principles)
            for p in self.pairs
        ]

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        found = self.accuracy("pairs", f"pairs/{self.split.replace('_', '-')}", judged)
        try:
            return [*found, *signal_of_pairs(self.pairs, judged, seed)]
        except DataError:  # no task has two scored edits
            return found

    def _load(self, pair: PreferencePair, side: int) -> tuple[Source, Image.Image]:
        return self.run.images.source_of(pair.task), self.run.images.get((pair.a, pair.b)[side].image)


def open_pairs(run: Path | str, split: str = "held_out", limit: int | None = None) -> OwnPairs:
    """The pairs of a run directory as a benchmark: `held_out` pairs that no training saw, `train`, or `all`.

    limit: only the first so many. Raises DataError for a run without such pairs, ConfigError for another split or limit.
    """
    if split not in SPLITS:
        raise ConfigError(f"pairs: split is {split!r}; expected one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"pairs: limit is {limit}; expected at least 1")
    opened = Run.open(run, create=False)
    found = preference_pairs(opened, None if split == "all" else cast(Split, split))
    pairs = tuple(itertools.islice(found, limit))
    if not any(pair.label != "same" for pair in pairs):
        raise DataError(f"{opened.dir} holds no decisive pair of split {split}; make pairs first (editr1 pairs), or give --set split=all")
    return OwnPairs(opened, pairs, split)


pairs = Part(open_pairs)
