"""A plain folder of edits: `edits.jsonl` names them, and any judge scores them.

    {"source": "a.png", "edited": "a_edit.png", "instruction": "Make the sky purple", "category": "color_alter"}

Paths are relative to the folder and must stay inside it; `category` and `id` are optional.
Protocol: `folder/mean`, the mean score on 0 to 10 with its interval by source image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from editr1.bench.base import EditItem, EditOrder, EditSet, JudgedEdit, Outcome, refuse_doubles, require_columns, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import by_kind, to_metric
from editr1.measure.rows import load_pair, load_source, read_inside
from editr1.schema import MAX_SCORE, Metric, derive_seed, stable_id
from editr1.stats import mean_estimate
from editr1.text import lines_of

LIST = "edits.jsonl"
COLUMNS = ("source", "edited", "instruction")


@dataclass(frozen=True, slots=True)
class Row:
    """One edit of the list."""

    key: str
    source: str
    edited: str
    instruction: str
    category: str = ""


@dataclass(frozen=True)
class FolderBench:
    """The edits of a folder. Make one with `build`."""

    root: Path
    rows: tuple[Row, ...]
    name: str = "folder"

    def edits(self) -> Iterator[EditItem]:
        for row in self.rows:
            yield EditItem(row.key, row.instruction, partial(self._load, row))

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
    """The edits that `<root>/edits.jsonl` lists. Raises DataError for a missing or broken list and for a doubled id."""
    folder = require_folder(root, "folder", f"make a folder with a file {LIST}")
    path = folder / LIST
    if not path.is_file():
        raise DataError(f"{folder} has no {LIST}; write one JSON object a line with {', '.join(COLUMNS)}")
    return FolderBench(folder, read_list(path))


def edit_set(root: Path | str | None = None) -> EditSet:
    """Tasks of one's own: rows need no `edited`. Raises DataError for a missing or broken list."""
    place = require_folder(root, "folder", f"make a folder with a file {LIST}")
    if not (place / LIST).is_file():
        raise DataError(f"{place} has no {LIST}; write one JSON object a line with source and instruction")
    orders, lines = [], []
    for row in read_list(place / LIST, ("source", "instruction")):
        edited, source = f"edits/{stable_id(row.key)}.png", f"sources/{stable_id(row.source)}.png"
        load = partial(load_source, place, row.source, f"folder {row.key}")
        orders.append(EditOrder(row.key, row.instruction, load, edited, source))
        line = {"id": row.key, "source": source, "edited": edited, "instruction": row.instruction, "category": row.category}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return EditSet(tuple(orders), {LIST: "".join(lines)})


def read_list(path: Path, columns: Sequence[str] = COLUMNS) -> tuple[Row, ...]:
    """The rows of a list that has these columns. Raises DataError for a broken list and for a doubled id."""
    rows = tuple(_row(line, f"{path}, line {number}", columns) for number, line in _lines(path))
    refuse_doubles([row.key for row in rows], str(path))
    return rows


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read: {error}") from error
    return [(number, line) for number, line in enumerate(lines_of(text), start=1) if line.strip()]


def _row(line: str, where: str, columns: Sequence[str]) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict) or not all(isinstance(row.get(name, ""), str) for name in (*COLUMNS, "category", "id")):
        raise DataError(f"{where}: expected a JSON object of texts")
    require_columns(row, columns, where)
    edited = row.get("edited", "")
    key = row.get("id") or stable_id(row["source"], edited, row["instruction"])
    return Row(key, row["source"], edited, row["instruction"], row.get("category", ""))


def _value(judged: Mapping[str, JudgedEdit], key: str) -> float | None:
    return judged[key].value if key in judged else None
