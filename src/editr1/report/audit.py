"""The audits of the run's judges: which laws each one keeps, and what bad principles do to its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editr1.audit.run import AuditRecord, ProbeRecord, kept
from editr1.report.results import ResultRow, result_row, show
from editr1.schema import Metric
from editr1.store import Run

MAX_BROKEN = 12  # ours: enough to see what the broken edits share; the record has them all


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
class JudgeAudit:
    """What the page shows of one judge's audit; a part that was not run is empty."""

    record: AuditRecord
    probes: tuple[ProbeRow, ...]
    figures: tuple[str, ...]
    """Columns of `damages`."""
    damages: tuple[DamageRow, ...]

    @property
    def num_held(self) -> int:
        return sum(probe.figure.holds is True for probe in self.probes)

    @property
    def num_decided(self) -> int:
        """Laws that applied to at least one edit."""
        return sum(probe.figure.holds is not None for probe in self.probes)


def read_audits(run: Run) -> list[JudgeAudit]:
    """The audits of a run, by the judge's label. Raises DataError for a file that is none."""
    return [_judge_audit(record) for record in kept(run)]


def _judge_audit(record: AuditRecord) -> JudgeAudit:
    figures = tuple(dict.fromkeys(metric.name.rpartition("/")[2] for metric in record.propagation))
    return JudgeAudit(record, tuple(_probe(probe) for probe in record.probes), figures, _damages(record.propagation, figures))


def _probe(probe: ProbeRecord) -> ProbeRow:
    broken = [BrokenLaw(case.case_id, " → ".join(f"{score:.1f}" for score in case.scores)) for case in probe.broken]
    return ProbeRow(probe.law, result_row(probe.metric, [probe.metric]), probe.num_not_applicable, tuple(broken[:MAX_BROKEN]), len(broken))


def _damages(metrics: Sequence[Metric], figures: Sequence[str]) -> tuple[DamageRow, ...]:
    """A row a kind of damage; the names are `propagation/<damage>/<figure>`."""
    found = {tuple(metric.name.split("/")[1:]): metric for metric in metrics}
    kinds = dict.fromkeys(kind for kind, _ in found)
    return tuple(DamageRow(kind, tuple(_cell(found.get((kind, figure))) for figure in figures)) for kind in kinds)


def _cell(metric: Metric | None) -> tuple[str, str] | None:
    if metric is None:
        return None
    signed = metric.name.endswith("_change")
    low, high = (show(end, metric.name, signed) for end in (metric.low, metric.high))
    return show(metric.value, metric.name, signed), f"{low} … {high}"
