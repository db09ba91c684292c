"""KRIS-Bench: stored marks of 1 to 5 for edits that need knowledge, in 22 tasks over three kinds of it.

    <results>/<model>/<category>/metrics.json    {id: {"consistency_score", "instruction_score", "quality_score", "knowledge_score", ...}}

Consistency and quality are marked everywhere, knowledge only in the ten categories that need it; a mark that is missing or null is
unscored. A sample's mark is the mean of its marks, as the benchmark's summary takes it; tables print 25 * (mark - 1), so from 0 to 100.
Protocols: `kris-bench/{consistency,instruction,quality,knowledge}/micro`, `kris-bench/overall/<micro|macroN>` (N categories), and
`kris-bench/<factual|conceptual|procedural>/micro`, all in marks of 1 to 5. `metrics_<language>.json` is read in its place.
Source: mercurystraw/Kris_Bench at 2114fec (arXiv 2505.16707); groups as in lmms-eval 0.7.3, tasks/kris_bench.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editr1.bench.base import Outcome, Stored
from editr1.errors import DataError
from editr1.measure.metrics import mean_metrics
from editr1.measure.rows import in_range, read_json
from editr1.schema import Metric

GROUPS = {
    "factual": (
        "count_change", "color_change", "size_adjustment", "part_completion", "anomaly_correction", "position_movement",
        "viewpoint_change", "temporal_prediction",
    ),
    "conceptual": (
        "practical_knowledge", "humanities", "biology", "chemistry", "geography", "mathematics", "medicine", "physics",
    ),
    "procedural": ("abstract_reasoning", "rule-based_reasoning", "multi-instruction_execution", "multi-element_composition"),
}  # fmt: skip
CATEGORIES = tuple(category for group in GROUPS.values() for category in group)
ASPECTS = ("consistency", "instruction", "quality", "knowledge")
LOW, HIGH = 1.0, 5.0
PATTERN = "metrics*.json"


def recognise(path: Path) -> bool:
    """Whether a folder holds `<category>/metrics.json`, that is, the results of one model."""
    return path.is_dir() and any((path / category).is_dir() and any((path / category).glob(PATTERN)) for category in CATEGORIES)


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a folder. Raises DataError for another layout, and where a category has files of several languages."""
    return [stored(path.name, read_folder(path), seed) for path in paths]


def read_folder(path: Path) -> dict[tuple[str, str], dict[str, float | None]]:
    """{(category, id): {aspect: mark or None}} of one model."""
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for category in CATEGORIES:
        files = sorted((path / category).glob(PATTERN))
        if len(files) > 1:
            raise DataError(f"{path / category} holds {', '.join(file.name for file in files)}; keep one language a folder")
        for file in files:
            rows = read_json(file)
            if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
                raise DataError(f"{file}: expected a JSON object of id to marks")
            for key, row in rows.items():
                found[category, key] = {aspect: mark(row.get(f"{aspect}_score")) for aspect in ASPECTS}
    if not found:
        raise DataError(f"{path}: no marks below it; expected <category>/metrics.json with categories such as {CATEGORIES[0]}")
    return found


def mark(raw: Any) -> float | None:
    """A mark of 1 to 5; None for anything else."""
    number = in_range(raw, HIGH)
    return number if number is not None and number >= LOW else None


def stored(name: str, marks: Mapping[tuple[str, str], Mapping[str, float | None]], seed: int = 0) -> Stored:
    """The numbers of one model's marks. The knowledge aspect counts only where its category has it."""
    overall = {key: [value for value in row.values() if value is not None] for key, row in marks.items()}
    outcomes = [
        # An edit without the marks that all have (consistency, instruction, quality) is unscored, whatever else stands there.
        Outcome("/".join(key), "/".join(key), key[0], sum(overall[key]) / len(overall[key]) if _is_whole(marks[key]) else None)
        for key in marks
    ]
    metrics: list[Metric] = []
    for aspect in ASPECTS:
        rows = [Outcome("/".join(key), "/".join(key), key[0], row[aspect]) for key, row in marks.items()]
        if aspect == "knowledge":
            rows = [row for row in rows if any(marks[k][aspect] is not None for k in marks if k[0] == row.category)]
        metrics += mean_metrics(f"kris_{aspect}", rows, f"kris-bench/{aspect}", seed=seed, top=HIGH)[:1]
    metrics += mean_metrics("kris_overall", outcomes, "kris-bench/overall", seed=seed, top=HIGH)
    for group, members in GROUPS.items():
        rows = [row for row in outcomes if row.category in members]
        if rows:
            metrics += mean_metrics(f"kris_{group}", rows, f"kris-bench/{group}", seed=seed, top=HIGH)[:1]
    shown = {metric.name.removeprefix("kris_"): metric.value for metric in metrics if not metric.name.endswith("_macro")}
    return Stored(name, "kris_bench", metrics, outcomes, {key: None if v is None else 25 * (v - 1) for key, v in shown.items()})


def _is_whole(row: Mapping[str, float | None]) -> bool:
    return all(row[aspect] is not None for aspect in ASPECTS[:3])
