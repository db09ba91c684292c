"""What an audit found: a record of each judge in the run directory, `audit/<label>.json`, and all of them as one page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from editr1.audit.perturb import FIGURES
from editr1.audit.probes import ProbeRecord
from editr1.errors import DataError
from editr1.schema import Metric, from_json, to_json
from editr1.store import Run
from editr1.store._files import write_atomic
from editr1.text import markdown_table

FOLDER = "audit"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Probes and error propagation of one judge; a part that was not run is empty."""

    label: str
    """Names the judge in the run; `[A-Za-z0-9._-]+`."""
    judge: str
    """In words: model, prompt, traces."""
    command: str
    commit: str
    """Of the code that audited; empty for an installed package."""
    edits: str = ""
    """In words: which edits were probed."""
    probes: tuple[ProbeRecord, ...] = ()
    perturbed: str = ""
    """In words: what was damaged, and what it was compared on."""
    propagation: tuple[Metric, ...] = ()

    def metrics(self) -> list[Metric]:
        """All figures, named after the judge too, so that the run keeps those of several judges."""
        found = [*(probe.metric for probe in self.probes), *self.propagation]
        return [replace(metric, name=f"{metric.name}/{self.label}") for metric in found]


def label_of(name: str) -> str:
    """A model's or judge's name as a label.

    >>> label_of("runs/demo/08_rrm_gcpo/"), label_of("my_judge:Build"), label_of("Qwen/Qwen2.5-VL-7B")
    ('08_rrm_gcpo', 'Build', 'Qwen2.5-VL-7B')
    """
    last = re.split(r"[/:]", name.rstrip("/:"))[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", last).strip("._") or "judge"


def keep(record: AuditRecord, run: Run) -> None:
    """Adds the record and its figures to the run; an earlier audit of the same label is replaced."""
    folder = run.dir / FOLDER
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{record.label}.json", (to_json(record) + "\n").encode())
    for metric in record.metrics():
        run.add_metric(metric)


def kept(run: Run) -> list[AuditRecord]:
    """Every audit that the run holds, by label. Raises DataError for a file that is none."""
    records = []
    for path in sorted((run.dir / FOLDER).glob("*.json")):
        try:
            records.append(from_json(AuditRecord, path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise DataError(f"{path} is no audit ({error}); delete it and audit again") from error
    return records


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
    named = [(name, *name.split("/")[1:]) for name in names]
    rows = [
        [damage.replace("_", " "), FIGURES.get(figure, figure), *(_change(metrics.get(name)) for metrics in by_judge)]
        for name, damage, figure in named
    ]
    heading = "Error propagation: what damaged principles change"
    return _table(heading, ["damage", "change of", *(record.label for record in records)], rows)


def _change(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "–"
    sign = "" if metric.p_value is None else "+"
    interval = "" if metric.low is None or metric.high is None else f" ({metric.low:{sign}.3f} to {metric.high:{sign}.3f})"
    p_value = "" if metric.p_value is None else f", p = {metric.p_value:.4f}"
    unscored = f", {metric.num_unscored} unscored" if metric.num_unscored else ""
    return f"{metric.value:{sign}.3f}{interval}{p_value}, n = {metric.n}{unscored}"


def _table(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"## {heading}", "", markdown_table(columns, rows), ""] if rows else []
