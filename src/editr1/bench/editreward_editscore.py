"""EditScore's EditReward-Bench: the pairs behind the paper's second table (65.9 -> 72.7 -> 73.3 -> 78.2, dimension `overall`).

Not TIGER-Lab's dataset of the same name. Data: HF EditScore/EditReward-Bench (Apache-2.0), columns key [2], instruction,
input_image, output_images [2], task_type (13), dimension (prompt_following, consistency, overall). **The winner is always
image 0**, so a judge that sees both images must be shown them in both orders. The files are data-*.arrow, 3,072 rows, split `test`.
Source: VectorSpaceLab/EditScore at 6e0f1b9 (evaluation.py) and the data's dataset_info.json, arXiv 2509.23909.

Each image is scored once, at the source's size. The published number is strict (a tie is wrong) and the unweighted mean of 13
task accuracies: protocol `editscore-erb/<dimension>/strict/macro13`; half credit and non-tied stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.bench.base import JudgedEdit, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, to_metric
from editr1.measure.rows import Pair, PairBench, expect_count, opener, pair_keys, read_rows
from editr1.schema import Metric
from editr1.stats import accuracy, pairwise_report

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
        margins, protocol = self.margins(rows, judged), f"editscore-erb/{dimension}"
        sources, tasks = [row.cluster for row in rows], [row.category.partition("/")[2] for row in rows]
        found = accuracy_metrics(f"editscore_erb/{dimension}", margins, sources, protocol, kinds=tasks, macro=True)
        for group, members in GROUPS.items():
            inside = [i for i, task in enumerate(tasks) if task in members]
            if inside:
                strata = [tasks[i] for i in inside]
                estimate = accuracy(margins[inside], [sources[i] for i in inside], credit="strict", strata=strata)
                report, name = pairwise_report(margins[inside]), f"editscore_erb_strict/{dimension}/{group}"
                n, unscored, ties, where = report.n, report.num_unscored, report.tie_rate, f"{protocol}/strict/{group}"
                found.append(to_metric(name, estimate, where, n=n, num_unscored=unscored, tie_rate=ties))
        return found


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
