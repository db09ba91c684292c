"""MMRB2, editing part: stored judgements of judges of pairs, as the repository's `generate_judgements` writes them.

    <judge>.json    {pair id: {"forward": [{"judgement": "A", ...}], "reverse": [{"judgement": "B", ...}]}}
    edit.json       the benchmark's own file with the labels: beside it, or named with --data

In `reverse` the responses stand in the other order, so "B" there is the first response. The script drops an answer that is missing or null
(`mmrb2-edit/judgements/as-published`); here it is wrong in the share of right trials and half a credit in the pair's.
Protocols: those of `mmrb2_edit` under a judge of pairs. Source: facebookresearch/MMRB2 at 1a09882, evaluate/compute_scores (CC BY-NC).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from editr1.bench.base import ComparisonItem, JudgedPair, Stored, headline
from editr1.bench.mmrb2_edit import FILE, Row, read_file
from editr1.errors import DataError
from editr1.measure.pairwise import pairwise_metrics, pairwise_outcomes
from editr1.measure.rows import expect_count, read_json
from editr1.schema import Label, Metric

ORDERS = ("forward", "reverse")
SAID: dict[str, Label] = {"A": "a", "B": "b"}


def recognise(path: Path) -> bool:
    """Whether a file holds judgements: a JSON object whose values have a list `forward` or `reverse`."""
    if path.suffix != ".json" or not path.is_file():
        return False
    rows = read_json(path)
    first = next(iter(rows.values()), None) if isinstance(rows, dict) else None
    return isinstance(first, dict) and any(isinstance(first.get(order), list) for order in ORDERS)


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judge a file. Raises DataError without `edit.json`, for a judgement of no pair of it, and for another layout."""
    return [_stored(path, data or path.with_name(FILE)) for path in paths]


def _stored(path: Path, labels: Path) -> Stored:
    if not labels.is_file():
        raise DataError(f"{path} holds judgements of MMRB2, but {labels} with the labels is missing; name it with --data FILE")
    rows = read_file(labels)
    judged = {key: _judged(key, row, f"{path}, {key}") for key, row in read_json(path).items()}
    strangers = sorted(judged.keys() - {row.id for row in rows})
    if strangers:
        raise DataError(
            f"{path}: {len(strangers)} judgements are of no pair of {labels.name} (first: {strangers[0]}); is it another task's?"
        )
    expect_count(len(judged), len(rows), str(path))
    items = [ComparisonItem(row.id, row.instruction, partial(_no_picture, path), row.label, row.prompt, row.kind) for row in rows]
    metrics = [*pairwise_metrics("mmrb2_edit", items, judged), _as_published(rows, judged)]
    columns = {"published": "mmrb2-edit/judgements/as-published"}
    columns |= {kind: f"mmrb2-edit/pairwise/{kind}" for kind in ("mean-of-orders", "both-right", "consistency")}
    return Stored(path.stem, "mmrb2_judgements", metrics, pairwise_outcomes(items, judged), headline(metrics, columns))


def _no_picture(path: Path) -> Any:
    raise DataError(f"{path} has no pictures")


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
    answers = [(row.label, said) for row in rows if (found := judged.get(row.id)) for said in (found.forward, found.reverse) if said]
    value = sum(label == said for label, said in answers) / len(answers) if answers else None
    missing = 2 * len(rows) - len(answers)
    return Metric("mmrb2_as_published", value, n=len(answers), num_unscored=missing, protocol="mmrb2-edit/judgements/as-published")
