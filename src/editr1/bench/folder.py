"""A plain folder of edits: `edits.jsonl` or `edits.csv` names them, and any judge scores them.

    {"source": "a.png", "edited": "a_edit.png", "instruction": "Make the sky purple", "category": "color_alter"}

Paths are relative to the folder and must stay inside it; `category`, `id` and `principles` are optional. `principles` is a JSON array of
{question, category}, as `editr1 audit --table` reads it; without it a judge that wants principles writes its own. An edit without an `id`
is called by its file. Protocol: `folder/mean`, the mean score on 0 to 10 with its interval by source image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from editr1.bench.base import EditItem, EditOrder, EditSet, JudgedEdit, Outcome, refuse_doubles, require_folder
from editr1.errors import DataError
from editr1.judge.decompose import stated_principles
from editr1.measure.metrics import by_kind, to_metric
from editr1.measure.rows import load_pair, load_source, read_inside
from editr1.schema import MAX_SCORE, Metric, Principle, derive_seed, stable_id
from editr1.stats import mean_estimate
from editr1.store import name_in, whole_table

LIST = "edits.jsonl"
LISTS = (LIST, "edits.csv")
COLUMNS = ("source", "edited", "instruction")
TASK_COLUMNS = ("source", "instruction")


@dataclass(frozen=True, slots=True)
class Row:
    """One edit of the list."""

    key: str
    source: str
    edited: str
    instruction: str
    category: str = ""
    principles: tuple[Principle, ...] | None = None


@dataclass(frozen=True)
class FolderBench:
    """The edits of a folder. Make one with `build`."""

    root: Path
    rows: tuple[Row, ...]
    name: str = "folder"

    def edits(self) -> Iterator[EditItem]:
        for row in self.rows:
            yield EditItem(row.key, row.instruction, partial(self._load, row), row.principles)

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        scored = [(row, value) for row in self.rows if (value := _value(judged, row.key)) is not None]
        values = np.array([value for _, value in scored])
        rng = np.random.default_rng(derive_seed(seed, "folder"))
        estimate = mean_estimate(values, [row.source for row, _ in scored], rng=rng, top=MAX_SCORE) if scored else None
        kinds = by_kind(values, [row.category for row, _ in scored])
        return [to_metric("folder", estimate, "folder/mean", n=len(scored), num_unscored=len(self.rows) - len(scored), by_category=kinds)]

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        return [Outcome(row.key, row.source, row.category, _value(judged, row.key)) for row in self.rows]

    def _load(self, row: Row) -> tuple[Image.Image, Image.Image]:
        where = f"folder {row.key}"
        return load_pair(read_inside(self.root, row.source, where), read_inside(self.root, row.edited, where), where, resize=False)


def build(root: Path | str | None = None) -> FolderBench:
    """The edits that `<root>/edits.jsonl` or `edits.csv` lists. Raises DataError for a missing or broken list and for a doubled id."""
    folder = require_folder(root, "folder", f"make a folder with a file {LIST}")
    return FolderBench(folder, read_list(find_list(folder, COLUMNS)))


def find_list(folder: Path, columns: Sequence[str]) -> Path:
    """The folder's list. Raises DataError where there is none, or two."""
    found = [folder / name for name in LISTS if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has {' and '.join(LISTS)}; keep one, or which edits count is unknown")
    if not found:
        raise DataError(f"{folder} has no {' or '.join(LISTS)}; write one row an edit with {', '.join(columns)}")
    return found[0]


def edit_set(root: Path | str | None = None) -> EditSet:
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


def read_list(path: Path, columns: Sequence[str] = COLUMNS) -> tuple[Row, ...]:
    """The rows of a list that has these columns. Raises DataError for a broken list and for a doubled id."""
    rows = [_row(row, where) for where, row in whole_table(path, columns)]
    names = Counter(row.key for row, _ in rows)
    # Several instructions may share a source that has not been edited yet, and one file may stand under two instructions.
    unique = tuple(replace(row, key=f"{row.key} {row.instruction}") if not given and names[row.key] > 1 else row for row, given in rows)
    refuse_doubles([row.key for row in unique], str(path))
    return unique


def _row(row: Mapping[str, Any], where: str) -> tuple[Row, bool]:
    """The row, and whether its key is an id that was given."""
    cells = {name: "" if row.get(name) is None else row[name] for name in COLUMNS}
    if not all(isinstance(cell, str) for cell in cells.values()):
        raise DataError(f"{where}: expected an object of texts ({', '.join(cells)})")
    try:
        cells |= {name: name_in(row.get(name)) for name in ("category", "id")}
    except DataError as error:
        raise DataError(f"{where}: category or id: {error}") from error
    key = cells["id"] or cells["edited"] or cells["source"]
    principles = stated_principles(row.get("principles"), where)
    return Row(key, cells["source"], cells["edited"], cells["instruction"], cells["category"], principles), bool(cells["id"])


def _value(judged: Mapping[str, JudgedEdit], key: str) -> float | None:
    return judged[key].value if key in judged else None
