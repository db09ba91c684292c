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

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from editr1.bench.base import JudgedEdit, require_columns, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, to_metric
from editr1.measure.rows import Pair, PairBench, expect_count, opener, read_json, read_rows
from editr1.schema import Label, Metric, stable_id
from editr1.stats import share_estimate

COLUMNS = ("source_image", "prompt", "winner", "loser", "label", "dimension")
PARTS = {"IA": ("prompt_following", "semantic_consistency"), "VC": ("consistency",), "VQ": ("perceptual_quality",)}
"""The sub-score of a judge that a dimension asks for: the first that the judge has."""
LABELS: dict[str, Label] = {"preference": "a", "tie": "same"}
TIE = 1e-5
NUM_ROWS = 2251
DOWNLOAD = "download EditReward-Compass as its repository says (github.com/bxhsort/Edit-Compass-and-EditReward-Compass)"


@dataclass(frozen=True)
class CompassBench(PairBench):
    """The pairs with a = the winner, by dimension. Make one with `build`."""

    rows: tuple[Pair, ...]
    name: str = "editreward_compass"

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        by_dimension = {dimension: [row for row in self.rows if row.category == dimension] for dimension in PARTS}
        return [metric for dimension, rows in by_dimension.items() if rows for metric in self._dimension(dimension, rows, judged)]

    def _dimension(self, dimension: str, rows: list[Pair], judged: Mapping[str, JudgedEdit]) -> list[Metric]:
        protocol, name, margins = f"editreward-compass/{dimension}", f"compass_{dimension}", self.margins(rows, judged)
        prefers = np.array([row.label == "a" for row in rows])
        right = np.where(prefers, margins > 0, np.abs(margins) < TIE).astype(np.float64)  # nan is wrong
        sources = [row.cluster for row in rows]
        num_unscored = int(np.isnan(margins).sum())
        estimate = share_estimate(right, sources)
        found = [to_metric(name, estimate, f"{protocol}/as-published", n=len(rows), num_unscored=num_unscored)]
        decisive = [source for source, prefer in zip(sources, prefers.tolist(), strict=True) if prefer]
        found += accuracy_metrics(f"{name}_preference", margins[prefers], decisive, f"{protocol}/preference")
        ties = np.abs(margins[~prefers]) < TIE
        rate = float(ties.mean()) if len(ties) else None
        return [*found, Metric(f"{name}_tie_rate", rate, n=len(ties), protocol=f"{protocol}/tie-rate")]

    def score(self, pair: Pair, judged: JudgedEdit | None) -> float | None:
        if judged is None or judged.value is None or not judged.parts:
            return judged.value if judged else None
        return next((judged.parts[part] for part in PARTS[pair.category] if part in judged.parts), None)


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
    rows = tuple(_row(table, i, folder) for i in range(len(table)))
    expect_count(len(rows), NUM_ROWS, "editreward_compass")
    return CompassBench(rows)


def _row(table: Any, i: int, folder: Path) -> Pair:
    row, where = table[i], f"editreward_compass: row {i}"
    require_columns(row, COLUMNS, where)
    if row["label"] not in tuple(LABELS) or row["dimension"] not in tuple(PARTS):
        raise DataError(f"{where}: label {row['label']!r} and dimension {row['dimension']!r}; expected {tuple(LABELS)} and {tuple(PARTS)}")
    source = row["source_image"]
    named = source if isinstance(source, str) else str(source.get("path") or i) if isinstance(source, dict) else str(i)
    key, prompt, label = f"{row['dimension']}/{i}", str(row["prompt"]), LABELS[row["label"]]
    load = opener(table, i, itemgetter("source_image", "winner", "loser"), folder, where, resize=False)
    return Pair(key, (f"{key}/winner", f"{key}/loser"), prompt, label, stable_id(named, prompt), row["dimension"], load)
