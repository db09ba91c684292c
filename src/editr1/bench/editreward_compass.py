"""EditReward-Compass: pairs and ties of edits in three dimensions, for judges of scores.

A JSON list, or Parquet rows, of {"source_image", "prompt", "winner", "loser", "label" (preference | tie), "dimension" (IA | VC | VQ)};
pictures are paths below the folder, or image cells. IA is instruction adherence, VC visual consistency, VQ visual quality: a judge that has
several scores is asked for its own of that dimension, a judge of one for that one. As published, a preference is right where the winner
scores higher and a tie where the scores differ by less than 1e-5, which a judge of fine scores never reaches: the two kinds are also
printed apart. Protocols: `editreward-compass/<IA|VC|VQ>/{as-published,preference/...,tie-rate}`; the weights of the table's average are
not documented, so none is printed. Source: bxhsort/Edit-Compass-and-EditReward-Compass at ff1cf28, EditReward-Compass/eval.py (which
cannot run as it is: it indexes the model's text as an object); data HF DogNeverSleep, 2,251 rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from editr1.bench.base import (
    ComparisonItem,
    EditItem,
    JudgedEdit,
    Outcome,
    credit_outcome,
    require_columns,
    require_folder,
)  # fmt: skip
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, to_metric
from editr1.measure.rows import expect_count, load_both, load_pair, read_json, read_rows, to_bytes
from editr1.schema import Metric, stable_id
from editr1.stats import share_estimate, to_margins
from editr1.stats.clusters import Floats

COLUMNS = ("source_image", "prompt", "winner", "loser", "label", "dimension")
PARTS = {"IA": ("prompt_following", "semantic_consistency"), "VC": ("consistency",), "VQ": ("perceptual_quality",)}
"""The sub-score of a judge that a dimension asks for: the first that the judge has."""
SIDES = ("winner", "loser")
LABELS = ("preference", "tie")
TIE = 1e-5
NUM_ROWS = 2251
DOWNLOAD = "download EditReward-Compass as its repository says (github.com/bxhsort/Edit-Compass-and-EditReward-Compass)"


@dataclass(frozen=True, slots=True)
class Row:
    """One pair."""

    key: str
    source: str
    """What pairs of one source picture and instruction share."""
    instruction: str
    label: str
    dimension: str


@dataclass(frozen=True)
class CompassBench:
    """Loader and arithmetic. Make one with `build`."""

    folder: Path
    table: Any
    rows: tuple[Row, ...]
    name: str = "editreward_compass"

    def edits(self) -> Iterator[EditItem]:
        for i, row in enumerate(self.rows):
            for side, name in enumerate(SIDES):
                yield EditItem(f"{row.key}/{name}", row.instruction, partial(self._load, i, side))

    def comparisons(self) -> Iterator[ComparisonItem]:
        """Every pair with a = the winner: only a judge asked in both orders may see them so."""
        for i, row in enumerate(self.rows):
            label = "a" if row.label == "preference" else "same"
            yield ComparisonItem(row.key, row.instruction, partial(load_both, self._load, i), label, row.source, row.dimension)  # type: ignore[arg-type]

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        found = []
        for dimension in PARTS:
            inside = np.array([row.dimension == dimension for row in self.rows])
            if inside.any():
                found += self._dimension(dimension, self._margins(judged)[inside], [r for r in self.rows if r.dimension == dimension])
        return found

    def _dimension(self, dimension: str, margins: Floats, rows: list[Row]) -> list[Metric]:
        protocol, name = f"editreward-compass/{dimension}", f"compass_{dimension}"
        prefers = np.array([row.label == "preference" for row in rows])
        right = np.where(prefers, margins > 0, np.abs(margins) < TIE).astype(np.float64)  # nan is wrong
        sources = [row.source for row in rows]
        num_unscored = int(np.isnan(margins).sum())
        estimate = share_estimate(right, sources)
        found = [to_metric(name, estimate, f"{protocol}/as-published", n=len(rows), num_unscored=num_unscored)]
        decisive = [source for source, prefer in zip(sources, prefers.tolist(), strict=True) if prefer]
        found += accuracy_metrics(f"{name}_preference", margins[prefers], decisive, f"{protocol}/preference")
        ties = np.abs(margins[~prefers]) < TIE
        rate = float(ties.mean()) if len(ties) else None
        return [*found, Metric(f"{name}_tie_rate", rate, n=len(ties), protocol=f"{protocol}/tie-rate")]

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        rows = zip(self.rows, self._margins(judged).tolist(), strict=True)
        return [credit_outcome(row.key, row.source, row.dimension, margin) for row, margin in rows if row.label == "preference"]

    def _margins(self, judged: Mapping[str, JudgedEdit]) -> Floats:
        sides = [[_score(judged.get(f"{row.key}/{side}"), row.dimension) for row in self.rows] for side in SIDES]
        return to_margins(*sides)

    def _load(self, i: int, side: int) -> tuple[Image.Image, Image.Image]:
        row, where = self.table[i], f"editreward_compass: row {i}"
        source, edited = (to_bytes(row[name], self.folder, where) for name in ("source_image", SIDES[side]))
        return load_pair(source, edited, where, resize=False)


def _score(judged: JudgedEdit | None, dimension: str) -> float | None:
    if judged is None or judged.value is None or not judged.parts:
        return judged.value if judged else None
    return next((judged.parts[part] for part in PARTS[dimension] if part in judged.parts), None)


def build(root: Path | str | None = None) -> CompassBench:
    """The benchmark from a local copy: the only JSON list of pairs in the folder, or Parquet files.

    Raises DataError that says what to download, and for a row of another layout, an unknown label or dimension.
    """
    folder = require_folder(root, "editreward_compass", DOWNLOAD)
    lists = sorted(folder.glob("*.json"))
    if not lists and not any(folder.rglob("*.parquet")):
        raise DataError(f"editreward_compass: no .json list and no .parquet file in {folder}; {DOWNLOAD}")
    if len(lists) > 1:
        raise DataError(f"{folder} holds {len(lists)} .json files ({lists[0].name}, {lists[1].name}); keep only the list of pairs there")
    table: Any = read_json(lists[0]) if lists else read_rows(folder, COLUMNS, "editreward_compass")
    if lists and (not isinstance(table, list) or not table or not all(isinstance(row, dict) for row in table)):
        raise DataError(f"{lists[0]}: expected a list of pairs")
    rows = tuple(_row(table[i], i) for i in range(len(table)))
    expect_count(len(rows), NUM_ROWS, "editreward_compass")
    return CompassBench(folder, table, rows)


def _row(row: Mapping[str, Any], i: int) -> Row:
    where = f"editreward_compass: row {i}"
    require_columns(row, COLUMNS, where)
    if row["label"] not in LABELS or row["dimension"] not in tuple(PARTS):
        raise DataError(f"{where}: label {row['label']!r} and dimension {row['dimension']!r}; expected {LABELS} and {tuple(PARTS)}")
    source = row["source_image"]
    named = source if isinstance(source, str) else str(source.get("path") or i) if isinstance(source, dict) else str(i)
    return Row(f"{row['dimension']}/{i}", stable_id(named, str(row["prompt"])), str(row["prompt"]), row["label"], row["dimension"])
