"""Any table of scores, with or without what people said: one row an edit (or a pair).

    key        names the sample; unique
    cluster    what samples share, such as the source image or the task (optional: each sample its own)
    category   optional
    value      the judge's score, a number; empty = unscored. Only 0, .5 and 1: credits of pairs
    human      optional: people's score of the same sample, on any scale

CSV, TSV, JSON lines or Parquet. Without `human`: the mean, micro and macro over categories. With it: Spearman's rho and Kendall's tau-b
over all samples, and the order of pairs inside clusters, where two samples of a cluster whom people rate differently are a pair.
Protocols: `table/mean/<micro|macroN>`, `table/spearman`, `table/kendall`, `table/pairs/{half,strict,non-tied}`.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from editr1.bench.base import Outcome, Stored, headline, refuse_doubles
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, by_kind, mean_metrics, to_metric
from editr1.schema import Metric
from editr1.stats import TIE_TOLERANCE, share_estimate
from editr1.stats.agreement import kendall_tau_b, spearman
from editr1.store.foreign import column_names, is_missing, name_in, whole_table

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMNS = ("key", "value")
CREDITS = {0.0, 0.5, 1.0}


def recognise(path: Path) -> bool:
    """Whether a table has the columns; outcomes that this package wrote (they have a `unit`) are none of it."""
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return False
    names = column_names(path)
    return set(COLUMNS) <= set(names) and "unit" not in names


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judge a table, named by its file. Raises DataError for a doubled key and a value that is no finite number."""
    return [_stored(path, seed) for path in paths]


def read_rated(path: Path) -> tuple[list[Outcome], list[float | None]]:
    """The samples, and what people say of each (None = nothing). Raises DataError as `read_stored` does."""
    rows = whole_table(path, COLUMNS)
    named = [{name: _name(row, name, where) for name in ("key", "cluster", "category")} for where, row in rows]
    refuse_doubles([names["key"] for names in named], str(path))
    values = [_number(row["value"], f"{where}: value") for where, row in rows]
    human = [_number(row.get("human"), f"{where}: human") for where, row in rows]
    unit = "credit" if {value for value in values if value is not None} <= CREDITS and any(v is not None for v in values) else "score"
    outcomes = [
        Outcome(names["key"], names["cluster"] or names["key"], names["category"], value, unit)  # type: ignore[arg-type]
        for names, value in zip(named, values, strict=True)
    ]
    return outcomes, human


def _stored(path: Path, seed: int) -> Stored:
    outcomes, human = read_rated(path)
    unit = outcomes[0].unit
    metrics = _credits(outcomes) if unit == "credit" else mean_metrics("table_mean", outcomes, "table/mean", seed=seed)
    columns = {"mean": "table/mean/micro"}
    if any(value is not None for value in human):
        metrics += against_people(outcomes, human)
        columns |= {"rho": "table/spearman", "tau": "table/kendall", "pairs": "table/pairs/half"}
    shown = headline(metrics, columns)
    if unit == "score" and (mean := shown["mean"]) is not None:
        shown["mean"] = mean / 100  # in the table's own units
    return Stored(path.stem, "table", metrics, outcomes, shown)


def _credits(outcomes: Sequence[Outcome]) -> list[Metric]:
    """Credits of pairs: an unscored pair has half a credit, as everywhere."""
    credits = np.array([0.5 if row.value is None else row.value for row in outcomes])
    estimate = share_estimate(credits, [row.cluster for row in outcomes])
    unscored = sum(row.value is None for row in outcomes)
    kinds = by_kind(credits, [row.category for row in outcomes])
    return [to_metric("table_mean", estimate, "table/mean/micro", n=len(outcomes), num_unscored=unscored, by_category=kinds)]


def against_people(outcomes: Sequence[Outcome], human: Sequence[float | None]) -> list[Metric]:
    """Rank correlation over all samples, and the order of pairs inside clusters. Samples that people did not rate are left out."""
    rated = [(row, rating) for row, rating in zip(outcomes, human, strict=True) if rating is not None]
    judge = [math.nan if row.value is None else row.value for row, _ in rated]
    unscored = sum(row.value is None for row, _ in rated)
    people = [rating for _, rating in rated]
    found = [
        Metric(f"table_{name}", rho(judge, people), n=len(rated) - unscored, num_unscored=unscored, protocol=f"table/{name}")
        for name, rho in (("spearman", spearman), ("kendall", kendall_tau_b))
    ]
    groups: dict[str, list[int]] = defaultdict(list)
    for index, (row, _) in enumerate(rated):
        groups[row.cluster].append(index)
    pairs = [
        (cluster, (judge[i] - judge[j]) * math.copysign(1, people[i] - people[j]))
        for cluster, members in groups.items()
        for i, j in itertools.combinations(members, 2)
        if abs(people[i] - people[j]) > TIE_TOLERANCE
    ]
    margins = np.array([margin for _, margin in pairs], dtype=np.float64)
    return [*found, *accuracy_metrics("table_pairs", margins, [cluster for cluster, _ in pairs], "table/pairs")] if pairs else found


def _number(cell: Any, where: str) -> float | None:
    if is_missing(cell):
        return None
    try:
        number = math.nan if isinstance(cell, bool) or "_" in str(cell) else float(cell)  # Python reads "1_0" as 10
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where} is {str(cell)[:40]!r}, expected a finite number with a decimal point, or nothing")
    return number


def _name(row: Mapping[str, Any], column: str, where: str) -> str:
    cell = row.get(column)
    try:
        name = cell.strip() if isinstance(cell, str) and column == "key" else name_in(cell)  # a key may be "NA"
    except DataError as error:
        raise DataError(f"{where}: {column} {error}") from error
    if not name and column == "key":
        raise DataError(f"{where}: key is empty, so whose value this is is unknown")
    return name
