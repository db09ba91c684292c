"""RISEBench: stored marks of 1 to 5 for edits that need reasoning, of four kinds.

    <model>_judge.xlsx    one row a sample, as `gpt_eval.py` writes it; or the same rows saved as CSV or JSON lines

Columns: index, category (temporal_reasoning, causal_reasoning, spatial_reasoning, logical_reasoning), Reasoning, ApprConsistency,
VisualPlausibility (empty for logical ones), optionally consistency_free. A sample's score, as the script takes it: .3 consistency + .5
reasoning + .2 plausibility (logical: .3 and .7; free of consistency: .8 reasoning + .2 plausibility), halved but at least 1 where
reasoning is 1; its answer is complete where every mark is 5. The script's `score` column is not read: it is nan, or wrong, where
consistency is not asked for, and such a sample can never be complete there, which `as-published` keeps.
Protocols: `risebench/score/<micro|macroN>` (1 to 5), `risebench/<aspect>/micro`, `risebench/complete/{strict,as-published}`.
`<model>_judge.csv` holds means only and is refused. Source: PhoenixZ810/RISEBench at 21d1871 (arXiv 2504.02826).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.bench.base import Outcome, Stored, headline, refuse_doubles
from editr1.errors import DataError
from editr1.measure.metrics import by_kind, mean_metrics, to_metric
from editr1.measure.rows import in_range
from editr1.measure.tables import column_names, read_table
from editr1.schema import Metric
from editr1.stats import share_estimate
from editr1.stats.clusters import Floats

CATEGORIES = ("temporal_reasoning", "causal_reasoning", "spatial_reasoning", "logical_reasoning")
ASPECTS = ("Reasoning", "ApprConsistency", "VisualPlausibility")
COLUMNS = ("index", "category", *ASPECTS)
HIGH = 5.0
SUFFIXES = (".xlsx", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Sample:
    """One judged edit; None = not marked, or not asked for."""

    key: str
    category: str
    reasoning: float | None
    consistency: float | None
    plausibility: float | None
    is_free: bool
    """Consistency is not asked for."""

    @property
    def asked(self) -> dict[str, float | None]:
        """The marks that count for this sample, with their weights in the order reasoning, consistency, plausibility."""
        found = {"Reasoning": self.reasoning}
        if not self.is_free:
            found["ApprConsistency"] = self.consistency
        if self.category != "logical_reasoning":
            found["VisualPlausibility"] = self.plausibility
        return found

    @property
    def score(self) -> float | None:
        """From 1 to 5; None where a mark that counts is missing."""
        marks = [mark for mark in self.asked.values() if mark is not None]
        if len(marks) < len(self.asked):
            return None
        if self.category == "logical_reasoning":
            weights: tuple[float, ...] = (1.0,) if self.is_free else (0.7, 0.3)
        else:
            weights = (0.8, 0.2) if self.is_free else (0.5, 0.3, 0.2)
        total = sum(weight * mark for weight, mark in zip(weights, marks, strict=True))
        return max(1.0, total / 2) if marks[0] == 1 else total

    @property
    def is_complete(self) -> bool:
        return all(mark == HIGH for mark in self.asked.values())


def recognise(path: Path) -> bool:
    """Whether a table has a row a sample, by its columns; or is the script's table of means, which `read_stored` refuses."""
    if not path.is_file() or path.suffix not in SUFFIXES:
        return False
    names = column_names(path)
    return set(COLUMNS) <= set(names) or names[1:] == ["Score-Origin", "Score-Percentage", "Accuracy"]


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a table, named by its file. Raises DataError for a table of means, an unknown category or a doubled index."""
    return [_stored(path.stem.removesuffix("_judge"), read_samples(path), seed) for path in paths]


def read_samples(path: Path) -> list[Sample]:
    if "Score-Origin" in column_names(path):
        raise DataError(f"{path} holds means only; give the <model>_judge.xlsx beside it, which has a row a sample")
    samples = [_sample(row, where) for where, row in read_table(path, COLUMNS)]
    refuse_doubles([sample.key for sample in samples], str(path))
    return samples


def _sample(row: Mapping[str, Any], where: str) -> Sample:
    if row["category"] not in CATEGORIES:
        raise DataError(f"{where}: unknown category {row['category']!r}, expected one of {', '.join(CATEGORIES)}")
    marks = [in_range(row[aspect], HIGH) for aspect in ASPECTS]
    reasoning, consistency, plausibility = (mark if mark is not None and mark >= 1 else None for mark in marks)
    is_free = str(row.get("consistency_free") or "").strip().lower() not in ("", "0", "0.0", "false", "nan", "none")
    return Sample(str(row["index"]), row["category"], reasoning, consistency, plausibility, is_free)


def _stored(name: str, samples: Sequence[Sample], seed: int) -> Stored:
    outcomes = [Outcome(sample.key, sample.key, sample.category, sample.score) for sample in samples]
    metrics = mean_metrics("risebench_score", outcomes, "risebench/score", seed=seed, top=HIGH)
    for aspect in ASPECTS:
        rows = [Outcome(s.key, s.key, s.category, s.asked[aspect]) for s in samples if aspect in s.asked]
        metrics += mean_metrics(f"risebench_{aspect}", rows, f"risebench/{aspect}", seed=seed, top=HIGH)[:1]
    metrics += [
        _complete(samples, [float(sample.is_complete) for sample in samples], "strict"),
        _complete(samples, [float(sample.is_complete and not sample.is_free) for sample in samples], "as-published"),
    ]
    columns = {"accuracy": "risebench/complete/as-published"}
    shown = headline(metrics, columns)
    for metric in metrics:
        if metric.protocol.endswith("/micro"):
            shown[metric.protocol.split("/")[1]] = None if metric.value is None else 25 * (metric.value - 1)
    return Stored(name, "risebench", metrics, outcomes, shown)


def _complete(samples: Sequence[Sample], right: Sequence[float], kind: str) -> Metric:
    import numpy as np

    values: Floats = np.asarray(right, dtype=np.float64)
    estimate = share_estimate(values) if samples else None
    unscored = sum(sample.score is None for sample in samples)
    kinds = by_kind(values, [sample.category for sample in samples])
    protocol = f"risebench/complete/{kind}"
    return to_metric("risebench_complete", estimate, protocol, n=len(samples), num_unscored=unscored, by_category=kinds)
