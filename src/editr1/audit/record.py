"""What one audit of one judge found, as it is kept in a run directory: `audit/<label>.json`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from editr1.audit.run import Broken, ProbeResult
from editr1.errors import DataError
from editr1.schema import Metric, from_json, to_json
from editr1.store import Run
from editr1.store._files import write_atomic

FOLDER = "audit"


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """One law, how often it was kept, and where it was broken."""

    name: str
    law: str
    metric: Metric
    num_not_applicable: int
    broken: tuple[Broken, ...]


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


def probe_record(result: ProbeResult, threshold: float) -> ProbeRecord:
    """The result of a probe as it is kept."""
    return ProbeRecord(result.probe.name, result.probe.law_in_words, result.metric(threshold), result.num_not_applicable, result.broken)


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
