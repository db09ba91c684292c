"""`audit.json` and `propagation.json`, as `editr1 audit` leaves them: which laws the judge keeps, and what bad principles do to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.errors import DataError
from editr1.report.results import ResultRow, result_row, show
from editr1.schema import Metric
from editr1.store import Run
from editr1.store._files import read_json

PROPAGATION = "propagation/"  # how the names of a propagation study's figures begin
MAX_BROKEN = 12  # ours: enough to see what the broken edits share; `audit.json` has them all


@dataclass(frozen=True, slots=True)
class BrokenLaw:
    """An edit on which the judge broke a law."""

    edit: str
    """The candidate's id."""
    scores: str
    """What the judge gave to the probe's variants, in their order, of 10."""


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One law: the pass rate as any other figure, and what lies behind it."""

    law: str
    figure: ResultRow
    num_not_applicable: int
    broken: tuple[BrokenLaw, ...]
    num_broken: int


@dataclass(frozen=True, slots=True)
class DamageRow:
    """What one kind of damage to the principles moved: (value, interval) a figure, None where the run could not say."""

    damage: str
    cells: tuple[tuple[str, str] | None, ...]


@dataclass(frozen=True, slots=True)
class AuditResults:
    """What the page shows of the run's audits; both are empty before the first one."""

    probes: tuple[ProbeRow, ...]
    figures: tuple[str, ...]
    """Columns of `damages`."""
    damages: tuple[DamageRow, ...]
    names: frozenset[str] = frozenset()
    """Metrics of `10_metrics.jsonl` that are shown here."""

    @property
    def num_held(self) -> int:
        return sum(probe.figure.holds is True for probe in self.probes)

    @property
    def num_decided(self) -> int:
        """Laws that applied to at least one edit."""
        return sum(probe.figure.holds is not None for probe in self.probes)


def read_audit(run: Run) -> AuditResults:
    """The audits of a run. Raises DataError for a file that `editr1 audit` did not write."""
    probes = _read(run.dir / "audit.json", _probe)
    figures = _read(run.dir / "propagation.json", _metric)
    names = tuple(dict.fromkeys(metric.name.rpartition("/")[2] for metric in figures))
    shown = frozenset([*(probe.figure.name for probe in probes), *(metric.name for metric in figures)])
    return AuditResults(tuple(probes), names, _damages(figures, names), shown)


def _read(path: Path, parse: Callable[[dict[str, Any]], Any]) -> list[Any]:
    if not path.exists():
        return []
    rows = read_json(path)
    try:
        return [parse(row) for row in rows]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not what editr1 audit writes ({error!r}); run the audit again") from error


def _probe(row: dict[str, Any]) -> ProbeRow:
    broken = tuple(BrokenLaw(case["edit"], " → ".join(f"{score:.1f}" for score in case["scores"])) for case in row["broken"])
    metric = _metric(row)
    return ProbeRow(row["law"], result_row(metric, [metric]), int(row["not_applicable"]), broken[:MAX_BROKEN], len(broken))


def _metric(row: dict[str, Any]) -> Metric:
    """The fields of a figure; a file may say more about it."""
    value, low, high = row["value"], row["low"], row["high"]
    return Metric(
        row["name"], value, low, high, row["n"], row["num_unscored"], p_value=row["p_value"], goal=row["goal"], holds=row["holds"]
    )


def _damages(figures: Sequence[Metric], names: Sequence[str]) -> tuple[DamageRow, ...]:
    found = {metric.name.removeprefix(PROPAGATION): metric for metric in figures}
    kinds = dict.fromkeys(name.partition("/")[0] for name in found)
    return tuple(DamageRow(kind, tuple(_cell(found.get(f"{kind}/{name}")) for name in names)) for kind in kinds)


def _cell(metric: Metric | None) -> tuple[str, str] | None:
    if metric is None:
        return None
    signed = metric.name.endswith("_change")
    low, high = (show(end, metric.name, signed) for end in (metric.low, metric.high))
    return show(metric.value, metric.name, signed), f"{low} … {high}"
