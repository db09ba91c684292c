"""Benchmarks of pairs whose winner is known, by dimension, each judge being asked for its own score of that dimension.

# editreward_compass: EditReward-Compass, pairs and ties of edits in three dimensions, for judges of scores.

A JSON list, or Parquet rows, of {"source_image", "prompt", "winner", "loser", "label" (preference | tie), "dimension" (IA | VC | VQ)};
pictures are paths below the folder, or image cells. IA is instruction adherence, VC visual consistency, VQ visual quality: a judge that has
several scores is asked for its own of that dimension, a judge of one for that one. As published, a preference is right where the winner
scores higher and a tie where the scores differ by less than 1e-5, which a judge of fine scores never reaches: the two kinds are also
printed apart. Protocols: `editreward-compass/<IA|VC|VQ>/{as-published,preference/...,tie-rate}`; the weights of the table's average are
not documented, so none is printed. Source: bxhsort/Edit-Compass-and-EditReward-Compass at ff1cf28, EditReward-Compass/eval.py (which
cannot run as it is: it indexes the model's text as an object); data HF DogNeverSleep, 2,251 rows.

# editreward_editscore: EditScore's EditReward-Bench, the paper's second table (65.9 -> 72.7 -> 73.3 -> 78.2, dimension `overall`).

Not TIGER-Lab's dataset of the same name. Data: HF EditScore/EditReward-Bench (Apache-2.0), columns key [2], instruction,
input_image, output_images [2], task_type (13), dimension (prompt_following, consistency, overall). **The winner is always
image 0**, so a judge that sees both images must be shown them in both orders. The files are data-*.arrow, 3,072 rows, split `test`.
Each image is scored once, at the source's size. The published number is strict (a tie is wrong) and the unweighted mean of 13
task accuracies: protocol `editscore-erb/<dimension>/strict/macro13`; half credit and non-tied stand beside it.
Source: VectorSpaceLab/EditScore at 6e0f1b9 (evaluation.py) and the data's dataset_info.json, arXiv 2509.23909.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from editr1.bench.base import JudgedEdit, Part, require_columns, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import to_metric
from editr1.measure.rows import Pair, PairBench, expect_count, opener, pair_keys, read_json, read_rows
from editr1.schema import Label, Metric, stable_id
from editr1.stats import share_estimate

COMPASS_COLUMNS = ("source_image", "prompt", "winner", "loser", "label", "dimension")
PARTS = {"IA": ("prompt_following", "semantic_consistency"), "VC": ("consistency",), "VQ": ("perceptual_quality",)}
"""The sub-score of a judge that a dimension asks for: the first that the judge has."""
LABELS: dict[str, Label] = {"preference": "a", "tie": "same"}
TIE = 1e-5
COMPASS_NUM_ROWS = 2251
COMPASS_DOWNLOAD = "download EditReward-Compass as its repository says (github.com/bxhsort/Edit-Compass-and-EditReward-Compass)"


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
        num_unscored = int(np.isnan(margins).sum())
        estimate = share_estimate(right, [row.cluster for row in rows])
        found = [to_metric(name, estimate, f"{protocol}/as-published", n=len(rows), num_unscored=num_unscored)]
        found += self.accuracy(f"{name}_preference", f"{protocol}/preference", judged, rows, kind=lambda _: "")
        ties = np.abs(margins[~prefers]) < TIE
        rate = float(ties.mean()) if len(ties) else None
        return [*found, Metric(f"{name}_tie_rate", rate, n=len(ties), protocol=f"{protocol}/tie-rate")]

    def score(self, pair: Pair, judged: JudgedEdit | None) -> float | None:
        if judged is None or judged.value is None or not judged.parts:
            return judged.value if judged else None
        return next((judged.parts[part] for part in PARTS[pair.category] if part in judged.parts), None)


def _build_compass(root: Path | str | None = None) -> CompassBench:
    """The benchmark from a local copy: the only JSON list of pairs in the folder, or Parquet files.

    Raises DataError that says what to download, and for a row of another layout, an unknown label or dimension.
    """
    folder = require_folder(root, "editreward_compass", COMPASS_DOWNLOAD)
    lists = sorted(folder.glob("*.json"))
    if not lists and not any(folder.rglob("*.parquet")):
        raise DataError(f"editreward_compass: no .json list and no .parquet file in {folder}; {COMPASS_DOWNLOAD}")
    if len(lists) > 1:
        raise DataError(f"{folder} holds {len(lists)} .json files ({lists[0].name}, {lists[1].name}); keep only the list of pairs there")
    table: Any = read_json(lists[0]) if lists else read_rows(folder, COMPASS_COLUMNS, "editreward_compass")
    if lists and (not isinstance(table, list) or not table or not all(isinstance(row, dict) for row in table)):
        raise DataError(f"{lists[0]}: expected a list of pairs")
    rows = tuple(_compass_pair(table, i, folder) for i in range(len(table)))
    expect_count(len(rows), COMPASS_NUM_ROWS, "editreward_compass")
    return CompassBench(rows)


def _compass_pair(table: Any, i: int, folder: Path) -> Pair:
    row, where = table[i], f"editreward_compass: row {i}"
    require_columns(row, COMPASS_COLUMNS, where)
    if row["label"] not in tuple(LABELS) or row["dimension"] not in tuple(PARTS):
        raise DataError(f"{where}: label {row['label']!r} and dimension {row['dimension']!r}; expected {tuple(LABELS)} and {tuple(PARTS)}")
    source = row["source_image"]
    named = source if isinstance(source, str) else str(source.get("path") or i) if isinstance(source, dict) else str(i)
    key, prompt, label = f"{row['dimension']}/{i}", str(row["prompt"]), LABELS[row["label"]]
    load = opener(table, i, itemgetter("source_image", "winner", "loser"), folder, where, resize=False)
    return Pair(key, (f"{key}/winner", f"{key}/loser"), prompt, label, stable_id(named, prompt), row["dimension"], load)


editreward_compass = Part(_build_compass)

# --- EditScore's EditReward-Bench ---------------------------------------------------------------------

DIMENSIONS = ("prompt_following", "consistency", "overall")
GROUPS: dict[str, tuple[str, ...]] = {
    "subject": ("subject-add", "subject-remove", "subject-replace"),
    "appearance": ("color_alter", "material_alter", "style_change", "tone_transfer"),
    "scene": ("background_change", "extract"),
    "advanced": ("ps_human", "text_change", "motion_change", "compose"),
}
TASKS = tuple(task for tasks in GROUPS.values() for task in tasks)
# The same tasks as EditScore's own training files spell them.
ALIASES = {
    "background": "background_change",
    "style": "style_change",
    "subject_add": "subject-add",
    "subject_remove": "subject-remove",
    "subject_replace": "subject-replace",
}
COLUMNS = ("key", "instruction", "input_image", "output_images", "task_type", "dimension")
NUM_ROWS = 3072  # as the data's dataset_info.json counts
DOWNLOAD = "huggingface-cli download EditScore/EditReward-Bench --repo-type dataset --local-dir DIR"


@dataclass(frozen=True)
class EditScoreBench(PairBench):
    """The pairs with a = the winner; their category is <dimension>/<task>. Make one with `build`."""

    rows: tuple[Pair, ...]
    name: str = "editscore_erb"

    def score(self, pair: Pair, judged: JudgedEdit | None) -> float | None:
        return judged.part(pair.category.partition("/")[0]) if judged else None

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        return [metric for dimension in DIMENSIONS for metric in self._dimension(dimension, judged)]

    def _dimension(self, dimension: str, judged: Mapping[str, JudgedEdit]) -> list[Metric]:
        """The macro mean over tasks in three credits, and the strict mean of each group of tasks."""
        rows = [row for row in self.rows if row.category.startswith(f"{dimension}/")]
        if not rows:
            return []
        protocol = f"editscore-erb/{dimension}"
        found = self.accuracy(f"editscore_erb/{dimension}", protocol, judged, rows, _task, macro=True)
        for group, members in GROUPS.items():
            if inside := [row for row in rows if _task(row) in members]:
                strict = self.accuracy(f"editscore_erb/{dimension}/{group}", protocol, judged, inside, _task, macro=True)[1]
                found.append(replace(strict, protocol=f"{protocol}/strict/{group}", by_category={}))
        return found


def _task(pair: Pair) -> str:
    return pair.category.partition("/")[2]


def _build_editscore(root: Path | str | None = None) -> EditScoreBench:
    """The benchmark from a local copy. Raises DataError that says what to download."""
    folder = require_folder(root, "editreward_editscore", DOWNLOAD)
    return open_table(folder, read_rows(folder, COLUMNS, "editreward_editscore"))


def open_table(folder: Path, table: Any) -> EditScoreBench:
    """The benchmark of rows that were read. Raises DataError for a task or a dimension that it does not know."""
    for column, known in (("task_type", (*TASKS, *ALIASES)), ("dimension", DIMENSIONS)):
        unknown = sorted({str(value) for value in table[column]} - set(known))
        if unknown:
            raise DataError(f"editreward_editscore: unknown {column} {unknown[0]!r}, expected one of {', '.join(known)}")
    expect_count(len(table), NUM_ROWS, "editreward_editscore")
    return EditScoreBench(tuple(_pair(table, i, folder) for i in range(len(table))))


def _pair(table: Any, i: int, folder: Path) -> Pair:
    row, where = table[i], f"editreward_editscore: row {i}"
    outputs = row["output_images"]
    if not isinstance(outputs, list) or len(outputs) != 2:
        raise DataError(f"{where}: expected 2 output images, found {len(outputs) if isinstance(outputs, list) else outputs}")
    source, sides = pair_keys(_cells(row), row["instruction"], folder, where)
    category = f"{row['dimension']}/{ALIASES.get(row['task_type'], row['task_type'])}"
    load = opener(table, i, _cells, folder, where)
    return Pair(f"{row['dimension']}/{i}", sides, row["instruction"], "a", source, category, load)


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["input_image"], *row["output_images"]


editreward_editscore = Part(_build_editscore)
