"""Logs of harnesses: the benchmarks' own arithmetic and intervals from what lmms-eval, evalscope and MMRB2's script keep.

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

# mmrb2_judgements: stored judgements of judges of pairs, as the repository's `generate_judgements` writes them.

    <judge>.json    {pair id: {"forward": [{"judgement": "A", ...}], "reverse": [{"judgement": "B", ...}]}}
    edit.json       the benchmark's own file with the labels: beside it, or named with --data

In `reverse` the responses stand in the other order, so "B" there is the first response. The script drops an answer that is missing or null
(`mmrb2-edit/judgements/as-published`); here it is wrong in the share of right trials and half a credit in the pair's.
Protocols: those of `mmrb2_edit` under a judge of pairs. Source: facebookresearch/MMRB2 at 1a09882, evaluate/compute_scores (CC BY-NC).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editr1.bench import _gedit_scores
from editr1.bench._gedit_scores import TASK_COUNTS, Sample, check_language
from editr1.bench.base import JudgedPair, Outcome, Part, Stored, headline, refuse_doubles
from editr1.bench.marks import HIGH, KRIS_ASPECTS, KRIS_CATEGORIES, kris_stored, mark
from editr1.bench.mmrb2_edit import FILE, Row, read_file
from editr1.errors import DataError
from editr1.measure.metrics import mean_metrics
from editr1.measure.pairwise import pairwise_metrics, pairwise_outcomes
from editr1.measure.rows import expect_count, in_range, read_json
from editr1.schema import Label, Metric
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
            found.append(_gedit_scores.stored(name, _gedit(rows, path), seed))
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
        found.append(_gedit_scores.stored(name, samples, seed))
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


# --- MMRB2 --------------------------------------------------------------------------------------------

ORDERS = ("forward", "reverse")
SAID: dict[str, Label] = {"A": "a", "B": "b"}


def _is_judgements(path: Path) -> bool:
    """Whether a file holds judgements: a JSON object whose values have a list `forward` or `reverse`."""
    if path.suffix != ".json" or not path.is_file():
        return False
    rows = read_json(path)
    first = next(iter(rows.values()), None) if isinstance(rows, dict) else None
    return isinstance(first, dict) and any(isinstance(first.get(order), list) for order in ORDERS)


def _read_judgements(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judge a file. Raises DataError without `edit.json`, for a judgement of no pair of it, and for another layout."""
    return [_judgements(path, data or path.with_name(FILE)) for path in paths]


def _judgements(path: Path, labels: Path) -> Stored:
    if not labels.is_file():
        raise DataError(f"{path} holds judgements of MMRB2, but {labels} with the labels is missing; name it with --data FILE")
    rows = read_file(labels)
    judged = {key: _judged(key, row, f"{path}, {key}") for key, row in read_json(path).items()}
    strangers = sorted(judged.keys() - {row.key for row in rows})
    if strangers:
        raise DataError(
            f"{path}: {len(strangers)} judgements are of no pair of {labels.name} (first: {strangers[0]}); is it another task's?"
        )
    expect_count(len(judged), len(rows), str(path))
    items = [row.comparison() for row in rows]
    metrics = [*pairwise_metrics("mmrb2_edit", items, judged), _as_published(rows, judged)]
    columns = {"published": "mmrb2-edit/judgements/as-published"}
    columns |= {kind: f"mmrb2-edit/pairwise/{kind}" for kind in ("mean-of-orders", "both-right", "consistency")}
    return Stored(path.stem, "mmrb2_judgements", metrics, pairwise_outcomes(items, judged), headline(metrics, columns))


def _judged(key: str, row: Any, where: str) -> JudgedPair:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with forward and reverse")
    forward, reverse = (_said(row.get(order), f"{where}, {order}") for order in ORDERS)
    return JudgedPair(key, forward, None if reverse is None else "b" if reverse == "a" else "a")


def _said(answers: Any, where: str) -> Label | None:
    """The first answer's side by place; None where there is none."""
    if answers is None or answers == []:
        return None
    if not isinstance(answers, list) or not isinstance(answers[0], dict):
        raise DataError(f"{where}: expected a list of objects with 'judgement'")
    said = answers[0].get("judgement")
    return SAID.get(said) if isinstance(said, str) else None


def _as_published(rows: Sequence[Row], judged: dict[str, JudgedPair]) -> Metric:
    """Share of right answers among those that are there, each order a trial."""
    answers = [(row.label, said) for row in rows if (found := judged.get(row.key)) for said in (found.forward, found.reverse) if said]
    value = sum(label == said for label, said in answers) / len(answers) if answers else None
    missing = 2 * len(rows) - len(answers)
    return Metric("mmrb2_as_published", value, n=len(answers), num_unscored=missing, protocol="mmrb2-edit/judgements/as-published")


mmrb2_judgements = Part(recognise=_is_judgements, read_stored=_read_judgements)
