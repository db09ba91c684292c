"""EditScore's EditReward-Bench: the pairs behind the paper's second table (65.9 -> 72.7 -> 73.3 -> 78.2, dimension `overall`).

Not TIGER-Lab's dataset of the same name. Data: HF EditScore/EditReward-Bench (Apache-2.0), columns key [2], instruction,
input_image, output_images [2], task_type (13), dimension (prompt_following, consistency, overall). **The winner is always
image 0**, so a judge that sees both images must be shown them in both orders. The files are data-*.arrow, 3,072 rows, split `test`.
Source: VectorSpaceLab/EditScore at 6e0f1b9 (evaluation.py) and the data's dataset_info.json, arXiv 2509.23909.

Each image is scored once, at the source's size. The published number is strict (a tie is wrong) and the unweighted mean of 13
task accuracies: protocol `editscore-erb/<dimension>/strict/macro13`; half credit and non-tied stand beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.bench.base import ComparisonItem, EditItem, JudgedEdit, Outcome, credit_outcome, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, to_metric
from editr1.measure.rows import edits_of_pairs, expect_count, load_both, load_pair, read_rows, to_bytes
from editr1.schema import Metric, stable_id
from editr1.stats import accuracy, pairwise_report, to_margins
from editr1.stats.clusters import Floats

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


@dataclass(frozen=True, slots=True)
class Row:
    """One pair; `winner` and `loser` are keys of judged edits."""

    winner: str
    loser: str
    source: str
    """Hash of the source image: what pairs share."""
    task: str
    dimension: str


@dataclass(frozen=True)
class EditScoreBench:
    """Loader and arithmetic. Make one with `build`."""

    folder: Path
    table: Any
    """The `datasets.Dataset`."""
    name: str = "editscore_erb"

    def edits(self) -> Iterator[EditItem]:
        """Every image once, although it may stand in pairs of several dimensions."""
        return edits_of_pairs(self.table, self._keys, self._load)

    def comparisons(self) -> Iterator[ComparisonItem]:
        """Every pair with a = the winner: only a judge asked in both orders may see them so."""
        for i, row in enumerate(self.rows()):
            instruction = self.table[i]["instruction"]
            yield ComparisonItem(
                f"{row.dimension}/{i}", instruction, partial(load_both, self._load, i), "a", row.source, f"{row.dimension}/{row.task}"
            )

    def rows(self) -> Iterator[Row]:
        for i in range(len(self.table)):
            row = self.table[i]
            winner, loser = self._keys(row, i)
            task = ALIASES.get(row["task_type"], row["task_type"])
            yield Row(winner, loser, _digest(to_bytes(row["input_image"], self.folder, _where(i))), task, row["dimension"])

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        rows = list(self.rows())
        return [m for dimension in DIMENSIONS for m in dimension_metrics([r for r in rows if r.dimension == dimension], judged)]

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        rows = list(self.rows())
        margins = _margins(rows, judged)
        return [
            credit_outcome(f"{row.dimension}/{i}", row.source, f"{row.dimension}/{row.task}", margin)
            for i, (row, margin) in enumerate(zip(rows, margins.tolist(), strict=True))
        ]

    def _keys(self, row: Mapping[str, Any], i: int) -> tuple[str, str]:
        outputs = row["output_images"]
        if not isinstance(outputs, list) or len(outputs) != 2:
            raise DataError(f"{_where(i)}: expected 2 output images, found {len(outputs) if isinstance(outputs, list) else outputs}")
        source = _digest(to_bytes(row["input_image"], self.folder, _where(i)))
        first, second = (_digest(to_bytes(cell, self.folder, _where(i))) for cell in outputs)
        return stable_id(source, first, row["instruction"]), stable_id(source, second, row["instruction"])

    def _load(self, i: int, side: int) -> tuple[Image.Image, Image.Image]:
        row = self.table[i]
        source, edited = (to_bytes(cell, self.folder, _where(i)) for cell in (row["input_image"], row["output_images"][side]))
        return load_pair(source, edited, _where(i))


def build(root: Path | str | None = None) -> EditScoreBench:
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
    return EditScoreBench(folder, table)


def dimension_metrics(rows: Sequence[Row], judged: Mapping[str, JudgedEdit]) -> list[Metric]:
    """All numbers of one dimension: the macro mean over tasks in three credits, and the strict mean of each group of tasks."""
    if not rows:
        return []
    dimension = rows[0].dimension
    margins = _margins(rows, judged)
    protocol = f"editscore-erb/{dimension}"
    sources, tasks = [row.source for row in rows], [row.task for row in rows]
    found = accuracy_metrics(f"editscore_erb/{dimension}", margins, sources, protocol, kinds=tasks, macro=True)
    for group, members in GROUPS.items():
        inside = [i for i, task in enumerate(tasks) if task in members]
        if inside:
            strata = [tasks[i] for i in inside]
            estimate = accuracy(margins[inside], [sources[i] for i in inside], credit="strict", strata=strata)
            report = pairwise_report(margins[inside])
            found.append(
                to_metric(
                    f"editscore_erb_strict/{dimension}/{group}",
                    estimate,
                    f"{protocol}/strict/{group}",
                    n=report.n,
                    num_unscored=report.num_unscored,
                    tie_rate=report.tie_rate,
                )
            )
    return found


def _margins(rows: Sequence[Row], judged: Mapping[str, JudgedEdit]) -> Floats:
    winners = [_score(judged, row.winner, row.dimension) for row in rows]
    return to_margins(winners, [_score(judged, row.loser, row.dimension) for row in rows])


def _score(judged: Mapping[str, JudgedEdit], key: str, dimension: str) -> float | None:
    found = judged.get(key)
    return found.part(dimension) if found else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _where(i: int) -> str:
    return f"editreward_editscore: row {i}"
