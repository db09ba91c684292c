"""MMRB2, editing part: 1,000 pairs; a judge of pairs is asked in both orders and each order counts as a trial.

`*.jsonl` (or Parquet) with id, prompt (content parts with the source picture and the instruction), response_a and response_b
({"model_name", "response_content"}), chosen ("A" | "B"), human_annotations (three whole numbers 1 to 6, >= 4 means A).
Content parts are texts, or objects that name a picture by `image`, `path` or `image_path`, relative to the file's folder.

Protocols: `mmrb2-edit/pairwise/...` for judges of pairs, `mmrb2-edit/pointwise/{half,strict,non-tied}` for judges of scores,
`mmrb2-edit/human/...` for the raters' own agreement, the ceiling. Source: facebookresearch, MMRB2 (CC BY-NC).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from editr1.bench._rows import load_pair, read_inside
from editr1.bench.base import (
    ComparisonItem,
    EditItem,
    JudgedEdit,
    Outcome,
    accuracy_metrics,
    credit_outcome,
    refuse_doubles,
    require_columns,
    require_folder,
)
from editr1.errors import DataError
from editr1.schema import Label, Metric
from editr1.stats import to_margins

COLUMNS = ("id", "prompt", "response_a", "response_b", "chosen", "human_annotations")
DOWNLOAD = "download the editing part of MMRB2 (facebookresearch/MMRB2) as JSON lines with its pictures beside them"
_PICTURE_FIELDS = ("image", "path", "image_path")
FIRST_A = 4  # a rating of 4 to 6 prefers A


@dataclass(frozen=True, slots=True)
class Row:
    """One pair; pictures are paths inside the folder."""

    id: str
    instruction: str
    source: str
    a: str
    b: str
    label: Label
    votes: tuple[Label, ...]


@dataclass(frozen=True)
class MMRB2Edit:
    """Loader and arithmetic. Make one with `build`."""

    root: Path
    rows: tuple[Row, ...]
    name: str = "mmrb2_edit"

    def edits(self) -> Iterator[EditItem]:
        for row in self.rows:
            for side, picture in (("a", row.a), ("b", row.b)):
                yield EditItem(f"{row.id}/{side}", row.instruction, partial(self._load, row.source, picture, row.id))

    def comparisons(self) -> Iterator[ComparisonItem]:
        for row in self.rows:
            yield ComparisonItem(row.id, row.instruction, partial(self._load_both, row), row.label, row.source)

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        clusters = [row.source for row in self.rows]
        found = accuracy_metrics("mmrb2_edit", self._margins(judged), clusters, "mmrb2-edit/pointwise", seed=seed)
        return [*found, *human_ceiling(self.rows)]

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        margins = self._margins(judged).tolist()
        return [credit_outcome(row.id, row.source, "", margin) for row, margin in zip(self.rows, margins, strict=True)]

    def _margins(self, judged: Mapping[str, JudgedEdit]) -> Any:
        sides = [("a", "b") if row.label == "a" else ("b", "a") for row in self.rows]
        values = [[_value(judged, f"{row.id}/{pair[i]}") for row, pair in zip(self.rows, sides, strict=True)] for i in (0, 1)]
        return to_margins(*values)

    def _load(self, source: str, edited: str, where: str) -> tuple[Image.Image, Image.Image]:
        where = f"mmrb2_edit {where}"
        return load_pair(read_inside(self.root, source, where), read_inside(self.root, edited, where), where, resize=False)

    def _load_both(self, row: Row) -> tuple[Image.Image, Image.Image, Image.Image]:
        source, a = self._load(row.source, row.a, row.id)
        return source, a, self._load(row.source, row.b, row.id)[1]


def build(root: Path | str | None = None) -> MMRB2Edit:
    """The benchmark from a local copy. Raises DataError that says what to download, or names the row that is not as published."""
    folder = require_folder(root, "mmrb2_edit", DOWNLOAD)
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise DataError(f"mmrb2_edit: no .jsonl file in {folder}; {DOWNLOAD}")
    rows = tuple(row for path in files for row in read_file(path))
    refuse_doubles([row.id for row in rows], "mmrb2_edit")
    return MMRB2Edit(folder, rows)


def read_file(path: Path) -> list[Row]:
    """The pairs of a file. Raises DataError naming the line for anything that is not as published."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                raw = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where} is no JSON: {error}") from error
            rows.append(_row(raw, where))
    return rows


def _row(raw: Any, where: str) -> Row:
    if not isinstance(raw, dict):
        raise DataError(f"{where}: expected a JSON object")
    require_columns(raw, COLUMNS, where)
    texts, pictures = _content(raw["prompt"])
    sides = [
        _content(raw[name].get("response_content") if isinstance(raw[name], dict) else None)[1] for name in ("response_a", "response_b")
    ]
    if not pictures or any(len(side) != 1 for side in sides):
        raise DataError(
            f"{where}: expected a source picture and one picture a response, found {len(pictures)} and {[len(s) for s in sides]}"
        )
    if raw["chosen"] not in ("A", "B"):
        raise DataError(f"{where}: chosen is {raw['chosen']!r}, expected A or B")
    ratings = raw["human_annotations"]
    if not isinstance(ratings, list) or not all(isinstance(rating, int) and 1 <= rating <= 6 for rating in ratings):
        raise DataError(f"{where}: human_annotations {ratings!r}, expected whole numbers 1 to 6")
    votes: tuple[Label, ...] = tuple("a" if rating >= FIRST_A else "b" for rating in ratings)
    return Row(str(raw["id"]), " ".join(texts), pictures[0], sides[0][0], sides[1][0], "a" if raw["chosen"] == "A" else "b", votes)


def _content(parts: Any) -> tuple[list[str], list[str]]:
    """Texts and picture names of content parts, in order; a single text is one part."""
    texts, pictures = [], []
    for part in [parts] if isinstance(parts, str | dict) else parts if isinstance(parts, list) else []:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            named = [part[field] for field in _PICTURE_FIELDS if isinstance(part.get(field), str)]
            pictures += named[:1]
            texts += [part["text"]] if isinstance(part.get("text"), str) else []
    return texts, pictures


def human_ceiling(rows: Sequence[Row]) -> list[Metric]:
    """How often one rater agrees with the label, and how often all raters agree with each other."""
    voted = [row for row in rows if row.votes]
    single = [float(vote == row.label) for row in voted for vote in row.votes]
    unanimous = [float(len(set(row.votes)) == 1) for row in voted]
    return [
        Metric("mmrb2_single_rater", float(np.mean(single)) if single else None, n=len(single), protocol="mmrb2-edit/human/single-rater"),
        Metric(
            "mmrb2_unanimous", float(np.mean(unanimous)) if unanimous else None, n=len(unanimous), protocol="mmrb2-edit/human/unanimous"
        ),
    ]


def _value(judged: Mapping[str, JudgedEdit], key: str) -> float | None:
    return judged[key].value if key in judged else None
