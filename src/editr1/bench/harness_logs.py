"""Logs of harnesses: the benchmarks' own arithmetic and intervals from what lmms-eval and evalscope keep.

# lmms_eval: lmms-eval's sample logs of editing tasks: the benchmarks' own arithmetic and intervals from what `--log_samples` keeps.

    <date>_samples_gedit_bench.jsonl    {..., "gedit_bench_overall_score": {"key", "task_type", "instruction_language", "score", ...}, ...}
    <date>_samples_imgedit.jsonl        {..., "imgedit_score1": {"key", "edit_type", "score"}, ..., "imgedit_avg_score": {...}}
    <date>_samples_kris_bench.jsonl     {..., "kris_bench_consistency_score": {"key", "category", "image_id", "score", "valid"}, ...}

The harness writes 0 for what failed (a missing image, a judge that raised) and averages it; -1 in KRIS. Here a row whose marks are all 0 is
unscored and counted: a judge that means 0 throughout cannot be told from a failure. GEdit under `gedit-<en|cn>/...`, KRIS under
`kris-bench/...`, ImgEdit under `imgedit/lmms-eval/macroN` (the unweighted mean of the types, of unrounded marks: rows name no picture).
Source: lmms-eval 0.7.3 (MIT), evaluator.py and tasks/{gedit_bench,imgedit,kris_bench}/utils.py.

# evalscope: evalscope's reviews of GEdit-Bench: the benchmark's own arithmetic and intervals from what the harness keeps.

    <work_dir>/reviews/<model>/gedit_<task>.jsonl    {"index": 0, "sample_score": {"score": {"value": {"semantic_consistency", ...}}, ...}}

`value` has semantic_consistency, perceptual_similarity (GEdit's PQ) and normalized_score (its O), 0 to 10; a review whose judge failed has
no such key and is unscored. The language is in the sample's metadata where the harness kept it, else it is English, the harness' default.
Give a model's folder or its files. Numbers under `gedit-<en|cn>/...`. Source: evalscope 1.14.1 (Apache-2.0), benchmarks/image_edit/gedit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editr1.bench import gedit
from editr1.bench.base import Outcome, Part, Stored, headline, refuse_doubles
from editr1.bench.gedit import TASK_COUNTS, Sample, check_language
from editr1.bench.marks import HIGH, KRIS_ASPECTS, KRIS_CATEGORIES, kris_stored, mark
from editr1.errors import DataError
from editr1.measure.metrics import mean_metrics
from editr1.measure.rows import in_range
from editr1.store.foreign import column_names, whole_table

GEDIT = {aspect: f"gedit_bench_{aspect}_score" for aspect in ("semantics", "quality")}
IMGEDIT = tuple(f"imgedit_score{i}" for i in (1, 2, 3))
KRIS = {aspect: f"kris_bench_{aspect}_score" for aspect in KRIS_ASPECTS}


def _is_lmms(path: Path) -> bool:
    """Whether JSON lines have the harness' `doc_id` and the metrics of a task that is known here."""
    names = set(column_names(path)) if path.is_file() and path.suffix == ".jsonl" else set()
    return "doc_id" in names and any(first in names for first in (GEDIT["semantics"], IMGEDIT[0], KRIS["consistency"]))


def _read_lmms(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a log, named by its folder. Raises DataError for a row without the task's metrics, and for a sample that stands twice."""
    found = []
    for path in paths:
        rows = whole_table(path, ("doc_id",))
        names, name = set(rows[0][1]), path.parent.name
        if GEDIT["semantics"] in names:
            found.append(gedit.stored(name, _gedit(rows, path), seed))
        elif IMGEDIT[0] in names:
            found.append(_imgedit(name, rows, path, seed))
        else:
            found.append(kris_stored(name, _kris(rows, path), seed))
    return found


def _gedit(rows: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> list[Sample]:
    samples = []
    for where, row in rows:
        cells = [_cell(row, column, where) for column in GEDIT.values()]
        scores = [in_range(cell.get("score")) for cell in cells]
        semantic, quality = scores if any(scores) else (None, None)
        task, language = str(cells[0].get("task_type")), check_language(str(cells[0].get("instruction_language")), where)
        if task not in TASK_COUNTS:
            raise DataError(f"{where}: unknown task_type {task!r}, expected one of {', '.join(TASK_COUNTS)}")
        common = cells[0].get("intersection_exist") is True
        reason = "" if None not in (semantic, quality) else "failed"
        samples.append(Sample((task, language, str(cells[0].get("key"))), semantic, quality, common, reason=reason))
    refuse_doubles([sample.id for sample in samples], str(path))
    return samples


def _imgedit(name: str, rows: Sequence[tuple[str, Mapping[str, Any]]], path: Path, seed: int) -> Stored:
    outcomes = []
    for where, row in rows:
        cells = [_cell(row, column, where) for column in IMGEDIT]
        marks = [found for cell in cells if (found := mark(cell.get("score"))) is not None]
        value = sum(marks) / len(marks) if len(marks) == len(IMGEDIT) else None
        outcomes.append(Outcome(str(cells[0].get("key")), str(cells[0].get("key")), str(cells[0].get("edit_type")), value))
    refuse_doubles([row.key for row in outcomes], str(path))
    metrics = mean_metrics("imgedit", outcomes, "imgedit/lmms-eval", seed=seed, top=HIGH)
    return Stored(name, "imgedit", metrics, outcomes, headline(metrics, {"overall": metrics[-1].protocol}, 1.0))


def _kris(rows: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> dict[tuple[str, str], dict[str, float | None]]:
    marks: dict[tuple[str, str], dict[str, float | None]] = {}
    keys = []
    for where, row in rows:
        cells = {aspect: _cell(row, column, where) for aspect, column in KRIS.items()}
        first = cells["consistency"]
        key = (str(first.get("category")), str(first.get("image_id")))
        if key[0] not in KRIS_CATEGORIES:
            raise DataError(f"{where}: unknown category {key[0]!r}")
        keys.append(key)
        marks[key] = {aspect: mark(cell.get("score")) if cell.get("valid", True) else None for aspect, cell in cells.items()}
    refuse_doubles(keys, str(path))
    return marks


def _cell(row: Mapping[str, Any], column: str, where: str) -> Mapping[str, Any]:
    cell = row.get(column)
    if not isinstance(cell, dict):
        raise DataError(f"{where}: {column} is {str(cell)[:40]!r}, expected an object with 'score'; was the file cut or mixed?")
    return cell


lmms_eval = Part(recognise=_is_lmms, read_stored=_read_lmms)

# --- evalscope --------------------------------------------------------------------------------------

_NAME = re.compile(rf"gedit_({'|'.join(TASK_COUNTS)})\.jsonl")


def _is_evalscope(path: Path) -> bool:
    """Whether a file is a review of a GEdit task, or a folder holds such files."""
    if path.is_dir():
        return any(_NAME.fullmatch(file.name) for file in path.glob("gedit_*.jsonl"))
    return bool(_NAME.fullmatch(path.name)) and "sample_score" in column_names(path)


def _read_evalscope(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a folder: its files are its tasks. Raises DataError for another layout and for a sample that stands twice."""
    models: dict[str, list[Path]] = {}
    for path in paths:
        for file in sorted(path.glob("gedit_*.jsonl")) if path.is_dir() else [path]:
            models.setdefault(file.parent.name, []).append(file)
    found = []
    for name, files in models.items():
        samples = [sample for file in files for sample in _reviews(file)]
        refuse_doubles([sample.id for sample in samples], name)
        found.append(gedit.stored(name, samples, seed))
    return found


def _reviews(path: Path) -> Iterator[Sample]:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path}: expected gedit_<task>.jsonl with a task of {', '.join(TASK_COUNTS)}")
    for where, row in whole_table(path, ("index", "sample_score")):
        review = row["sample_score"]
        score = review.get("score") if isinstance(review, dict) else None
        if not isinstance(score, dict) or not isinstance(score.get("value", {}), dict):
            raise DataError(f"{where}: expected sample_score.score.value, an object of scores")
        metadata: Mapping[str, Any] = review.get("sample_metadata") or {}
        language = check_language(str(metadata.get("instruction_language", "en")), where)
        key = str(metadata.get("key") or review.get("sample_id") or row["index"])
        value = score.get("value", {})
        semantic, quality = (in_range(value.get(name)) for name in ("semantic_consistency", "perceptual_similarity"))
        common = metadata.get("Intersection_exist") is True
        reason = "" if None not in (semantic, quality) else str(score.get("status") or "unparsed")
        yield Sample((match.group(1), language, key), semantic, quality, common, reason=reason)


evalscope = Part(recognise=_is_evalscope, read_stored=_read_evalscope)
