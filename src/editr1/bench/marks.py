"""Published tables of marks that other people's scripts leave behind: KRIS-Bench, RISEBench and ImagenHub's human ratings.

# kris_bench: stored marks of 1 to 5 for edits that need knowledge, in 22 tasks over three kinds of it.

    <results>/<model>/<category>/metrics.json    {id: {"consistency_score", "instruction_score", "quality_score", "knowledge_score", ...}}

Consistency and quality are marked everywhere, knowledge only in the ten categories that need it; a mark that is missing or null is
unscored. A sample's mark is the mean of its marks, as the benchmark's summary takes it; tables print 25 * (mark - 1), so from 0 to 100.
Protocols: `kris-bench/{consistency,instruction,quality,knowledge}/micro`, `kris-bench/overall/<micro|macroN>` (N categories), and
`kris-bench/<factual|conceptual|procedural>/micro`, all in marks of 1 to 5. `metrics_<language>.json` is read in its place.
Source: mercurystraw/Kris_Bench at 2114fec (arXiv 2505.16707); groups as in lmms-eval 0.7.3, tasks/kris_bench.

# risebench: stored marks of 1 to 5 for edits that need reasoning, of four kinds.

    <model>_judge.xlsx    one row a sample, as `gpt_eval.py` writes it; or the same rows saved as CSV or JSON lines

Columns: index, category (temporal_reasoning, causal_reasoning, spatial_reasoning, logical_reasoning), Reasoning, ApprConsistency,
VisualPlausibility (empty for logical ones), optionally consistency_free. A sample's score, as the script takes it: .3 consistency + .5
reasoning + .2 plausibility (logical: .3 and .7; free of consistency: .8 reasoning + .2 plausibility), halved but at least 1 where
reasoning is 1; its answer is complete where every mark is 5. The script's `score` column is not read: it is nan, or wrong, where
consistency is not asked for, and such a sample can never be complete there, which `as-published` keeps.
Protocols: `risebench/score/<micro|macroN>` (1 to 5), `risebench/<aspect>/micro`, `risebench/complete/{strict,as-published}`.
`<model>_judge.csv` holds means only and is refused. Source: PhoenixZ810/RISEBench at 21d1871 (arXiv 2504.02826).

# imagenhub: three raters' [SC, PQ] of every edit, as the editors' table and as the people's own agreement.

    <task>/<task>_rater{1,2,3}.tsv    uid x editor: [SC, PQ] in {0, .5, 1}; VIEScore and RewardHarness carry the same files

Per editor the means of SC, PQ and of O = sqrt(SC * PQ) of each rater (the paper's table), with intervals by photo; over all cells
Krippendorff's alpha of the raters (`imagenhub/alpha/{SC,PQ,O}`, ordinal). Protocols: `imagenhub/<SC|PQ|O>/micro`, in [0, 1].
Source: TIGER-AI-Lab/ImagenHub at e577d4e, eval/human_ratings (MIT; arXiv 2310.01596).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editr1.bench.base import Outcome, Part, Stored, headline, refuse_doubles
from editr1.bench.viescore_pairs import ASPECTS, Cell, Rating, aspect_of, photo_of, ratings_of, read_rater
from editr1.errors import DataError
from editr1.measure.metrics import by_kind, mean_metrics, to_metric
from editr1.measure.rows import in_range, read_json
from editr1.schema import MAX_SCORE, Metric
from editr1.stats import share_estimate
from editr1.stats.agreement import krippendorff_alpha
from editr1.store.foreign import column_names, whole_table

KRIS_GROUPS = {
    "factual": (
        "count_change", "color_change", "size_adjustment", "part_completion", "anomaly_correction", "position_movement",
        "viewpoint_change", "temporal_prediction",
    ),
    "conceptual": (
        "practical_knowledge", "humanities", "biology", "chemistry", "geography", "mathematics", "medicine", "physics",
    ),
    "procedural": ("abstract_reasoning", "rule-based_reasoning", "multi-instruction_execution", "multi-element_composition"),
}  # fmt: skip
KRIS_CATEGORIES = tuple(category for group in KRIS_GROUPS.values() for category in group)
KRIS_ASPECTS = ("consistency", "instruction", "quality", "knowledge")
LOW, HIGH = 1.0, 5.0
KRIS_FILES = "metrics*.json"


def _is_kris(path: Path) -> bool:
    """Whether a folder holds `<category>/metrics.json`, that is, the results of one model."""
    return path.is_dir() and any((path / category).is_dir() and any((path / category).glob(KRIS_FILES)) for category in KRIS_CATEGORIES)


def _read_kris(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a folder. Raises DataError for another layout, and where a category has files of several languages."""
    return [kris_stored(path.name, kris_folder(path), seed) for path in paths]


def kris_folder(path: Path) -> dict[tuple[str, str], dict[str, float | None]]:
    """{(category, id): {aspect: mark or None}} of one model."""
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for category in KRIS_CATEGORIES:
        files = sorted((path / category).glob(KRIS_FILES))
        if len(files) > 1:
            raise DataError(f"{path / category} holds {', '.join(file.name for file in files)}; keep one language a folder")
        for file in files:
            rows = read_json(file)
            if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
                raise DataError(f"{file}: expected a JSON object of id to marks")
            for key, row in rows.items():
                found[category, key] = {aspect: mark(row.get(f"{aspect}_score")) for aspect in KRIS_ASPECTS}
    if not found:
        raise DataError(f"{path}: no marks below it; expected <category>/metrics.json with categories such as {KRIS_CATEGORIES[0]}")
    return found


def mark(raw: Any) -> float | None:
    """A mark of 1 to 5; None for anything else."""
    number = in_range(raw, HIGH)
    return number if number is not None and number >= LOW else None


def kris_stored(name: str, marks: Mapping[tuple[str, str], Mapping[str, float | None]], seed: int = 0) -> Stored:
    """The numbers of one model's marks. The knowledge aspect counts only where its category has it."""
    overall = {key: [value for value in row.values() if value is not None] for key, row in marks.items()}
    outcomes = [
        # An edit without the marks that all have (consistency, instruction, quality) is unscored, whatever else stands there.
        Outcome("/".join(key), "/".join(key), key[0], sum(overall[key]) / len(overall[key]) if _is_whole(marks[key]) else None)
        for key in marks
    ]
    metrics: list[Metric] = []
    for aspect in KRIS_ASPECTS:
        rows = [Outcome("/".join(key), "/".join(key), key[0], row[aspect]) for key, row in marks.items()]
        if aspect == "knowledge":
            rows = [row for row in rows if any(marks[k][aspect] is not None for k in marks if k[0] == row.category)]
        metrics += mean_metrics(f"kris_{aspect}", rows, f"kris-bench/{aspect}", seed=seed, top=HIGH)[:1]
    metrics += mean_metrics("kris_overall", outcomes, "kris-bench/overall", seed=seed, top=HIGH)
    for group, members in KRIS_GROUPS.items():
        rows = [row for row in outcomes if row.category in members]
        if rows:
            metrics += mean_metrics(f"kris_{group}", rows, f"kris-bench/{group}", seed=seed, top=HIGH)[:1]
    shown = {metric.name.removeprefix("kris_"): metric.value for metric in metrics if not metric.name.endswith("_macro")}
    return Stored(name, "kris_bench", metrics, outcomes, {key: None if v is None else 25 * (v - 1) for key, v in shown.items()})


def _is_whole(row: Mapping[str, float | None]) -> bool:
    return all(row[aspect] is not None for aspect in KRIS_ASPECTS[:3])


kris_bench = Part(recognise=_is_kris, read_stored=_read_kris)

# --- RISEBench --------------------------------------------------------------------------------------

RISE_CATEGORIES = ("temporal_reasoning", "causal_reasoning", "spatial_reasoning", "logical_reasoning")
RISE_ASPECTS = ("Reasoning", "ApprConsistency", "VisualPlausibility")
RISE_COLUMNS = ("index", "category", *RISE_ASPECTS)
RISE_SUFFIXES = (".xlsx", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class RiseSample:
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


def _is_rise(path: Path) -> bool:
    """Whether a table has a row a sample, by its columns; or is the script's table of means, which `read_stored` refuses."""
    if not path.is_file() or path.suffix.lower() not in RISE_SUFFIXES:
        return False
    names = column_names(path)
    return set(RISE_COLUMNS) <= set(names) or names[-3:] == ["Score-Origin", "Score-Percentage", "Accuracy"]


def _read_rise(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a table, named by its file. Raises DataError for a table of means, an unknown category or a doubled index."""
    return [_rise_stored(path.stem.removesuffix("_judge"), rise_samples(path), seed) for path in paths]


def rise_samples(path: Path) -> list[RiseSample]:
    if "Score-Origin" in column_names(path):
        raise DataError(f"{path} holds means only; give the <model>_judge.xlsx beside it, which has a row a sample")
    samples = [_rise_sample(row, where) for where, row in whole_table(path, RISE_COLUMNS)]
    refuse_doubles([sample.key for sample in samples], str(path))
    return samples


def _rise_sample(row: Mapping[str, Any], where: str) -> RiseSample:
    if row["category"] not in RISE_CATEGORIES:
        raise DataError(f"{where}: unknown category {row['category']!r}, expected one of {', '.join(RISE_CATEGORIES)}")
    reasoning, consistency, plausibility = (mark(row[aspect]) for aspect in RISE_ASPECTS)
    is_free = str(row.get("consistency_free") or "").strip().lower() not in ("", "0", "0.0", "false", "nan", "none")
    return RiseSample(str(row["index"]), row["category"], reasoning, consistency, plausibility, is_free)


def _rise_stored(name: str, samples: Sequence[RiseSample], seed: int) -> Stored:
    outcomes = [Outcome(sample.key, sample.key, sample.category, sample.score) for sample in samples]
    metrics = mean_metrics("risebench_score", outcomes, "risebench/score", seed=seed, top=HIGH)
    for aspect in RISE_ASPECTS:
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


def _complete(samples: Sequence[RiseSample], right: Sequence[float], kind: str) -> Metric:
    values = np.asarray(right, dtype=np.float64)
    estimate = share_estimate(values) if samples else None
    unscored = sum(sample.score is None for sample in samples)
    kinds = by_kind(values, [sample.category for sample in samples])
    protocol = f"risebench/complete/{kind}"
    return to_metric("risebench_complete", estimate, protocol, n=len(samples), num_unscored=unscored, by_category=kinds)


risebench = Part(recognise=_is_rise, read_stored=_read_rise)

# --- ImagenHub --------------------------------------------------------------------------------------

HUB_FILES = "*_rater*.tsv"


def _is_imagenhub(path: Path) -> bool:
    """Whether a folder holds rater files of one task."""
    return path.is_dir() and any(path.glob(HUB_FILES))


def _read_imagenhub(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One entry an editor of each task's folder; alpha is of the whole folder. Raises DataError where raters cover different cells."""
    found = []
    for path in paths:
        raters = [read_rater(file) for file in sorted(path.glob(HUB_FILES))]
        if any(rater.keys() != raters[0].keys() for rater in raters):
            raise DataError(f"{path}: the raters' files are of different edits")
        cells = {cell: ratings_of(raters, *cell) for cell in raters[0]}
        alphas = [
            Metric(
                f"imagenhub_alpha_{aspect}",
                krippendorff_alpha([[aspect_of(rating, aspect) for rating in ratings] for ratings in cells.values()], "ordinal"),
                n=len(cells),
                protocol=f"imagenhub/alpha/{aspect}",
            )
            for aspect in ASPECTS
        ]
        for editor in sorted({editor for _, editor in cells}):
            found.append(_hub_editor(editor, {cell: ratings for cell, ratings in cells.items() if cell[1] == editor}, alphas, seed))
    return found


def _hub_editor(editor: str, cells: dict[Cell, list[Rating]], alphas: list[Metric], seed: int) -> Stored:
    metrics = []
    outcomes: list[Outcome] = []
    for aspect in ASPECTS:
        means = {uid: sum(aspect_of(rating, aspect) for rating in ratings) / len(ratings) for (uid, _), ratings in cells.items()}
        rows = [Outcome(uid, photo_of(uid), "", mean) for uid, mean in means.items()]
        metrics += mean_metrics(f"imagenhub_{aspect}", rows, f"imagenhub/{aspect}", seed=seed, top=1.0)
        outcomes = [Outcome(uid, photo_of(uid), "", MAX_SCORE * mean) for uid, mean in means.items()]  # of O, the last
    columns = {aspect: f"imagenhub/{aspect}/micro" for aspect in ASPECTS} | {"alpha O": "imagenhub/alpha/O"}
    return Stored(editor, "imagenhub", [*metrics, *alphas], outcomes, headline([*metrics, *alphas], columns, 1.0))


imagenhub = Part(recognise=_is_imagenhub, read_stored=_read_imagenhub)
