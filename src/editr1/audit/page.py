"""The audits of a run as one Markdown page: every figure with its interval, and the commands that made them."""

from __future__ import annotations

import html
from collections.abc import Sequence

from editr1.audit.run import AuditRecord, ProbeRecord
from editr1.schema import Metric

FIGURES = {
    "score_change": "score, points",
    "score_movement": "score, absolute movement",
    "pair_accuracy_change": "pair accuracy",
    "verdict_accuracy_change": "accuracy of untouched verdicts",
    "verdict_flips": "untouched verdicts that turned",
}
HEAD = """# Audit of the judges of `{run}`

Probes do something to an edit whose effect on a sound score is known; error propagation damages the principles and judges again with the
same seeds. Shares have Wilson's 95 % interval, changes the interval of whole tasks. An unscored edit keeps no
law and counts in no change. What each probe and each damage does: `editr1 audit --help` and the page on judging.
"""


def page(records: Sequence[AuditRecord], run_name: str) -> str:
    """The whole page."""
    parts = [HEAD.format(run=run_name), *_judges(records), *_probes(records), *_propagation(records)]
    return "\n".join(parts) + "\n"


def _judges(records: Sequence[AuditRecord]) -> list[str]:
    lines = ["## Judges", ""]
    for record in records:
        commit = f", commit `{record.commit[:12]}`" if record.commit else ""
        about = "; ".join(filter(None, (record.edits, record.perturbed)))
        lines += [f"- **{record.label}**: {record.judge}{commit}. {about}.", "", "  ```bash", f"  {record.command}", "  ```", ""]
    return lines


def _probes(records: Sequence[AuditRecord]) -> list[str]:
    records = [record for record in records if record.probes]
    by_judge = [{probe.name: probe for probe in record.probes} for record in records]
    laws = {probe.name: probe.law for record in records for probe in record.probes}
    rows = [[name, html.escape(law, quote=False), *(_kept(probes.get(name)) for probes in by_judge)] for name, law in laws.items()]
    return _table("Probes: share of edits on which the law holds", ["probe", "law", *(record.label for record in records)], rows)


def _kept(probe: ProbeRecord | None) -> str:
    if probe is None:
        return "–"
    metric = probe.metric
    left_out = {"unscored": metric.num_unscored, "not applicable": probe.num_not_applicable}
    extra = "".join(f", {count} {why}" for why, count in left_out.items() if count) + " **broken**" * (metric.holds is False)
    if metric.value is None:
        return f"no case{extra}"
    return f"{metric.value:.1%} ({metric.low:.1%} to {metric.high:.1%}) of {metric.n}{extra}"


def _propagation(records: Sequence[AuditRecord]) -> list[str]:
    records = [record for record in records if record.propagation]
    by_judge = [{metric.name: metric for metric in record.propagation} for record in records]
    names = list(dict.fromkeys(metric.name for record in records for metric in record.propagation))
    rows = [[*_damage_and_figure(name), *(_change(metrics.get(name)) for metrics in by_judge)] for name in names]
    heading = "Error propagation: what damaged principles change"
    return _table(heading, ["damage", "change of", *(record.label for record in records)], rows)


def _damage_and_figure(name: str) -> tuple[str, str]:
    _, damage, figure = name.split("/")
    return damage.replace("_", " "), FIGURES.get(figure, figure)


def _change(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    sign = "" if metric.p_value is None else "+"
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:{sign}.3f} to {metric.high:{sign}.3f})"
    p_value = "" if metric.p_value is None else f", p = {metric.p_value:.4f}"
    unscored = f", {metric.num_unscored} unscored" if metric.num_unscored else ""
    return f"{metric.value:{sign}.3f}{interval}{p_value}, n = {metric.n}{unscored}"


def _table(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    rule = ["---"] * len(columns)
    return [f"## {heading}", "", *("| " + " | ".join(cells).replace("\n", " ") + " |" for cells in (columns, rule, *rows)), ""]
