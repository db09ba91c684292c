"""Puts a judge to the probes and counts which laws it keeps, kept in the run directory as `audit/<label>.json`, and written as one page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from editr1.audit.probes import PROBES, Case, Probe
from editr1.errors import ConfigError, DataError, nearest
from editr1.judge.item import Judge, RewardItem
from editr1.schema import Metric, from_json, to_json
from editr1.stats import wilson
from editr1.store import Run
from editr1.store._files import write_atomic

CHUNK = 32  # ours: cases scored in one call, so that a bar moves and memory stays bounded
THRESHOLD = 0.9  # ours: a judge that breaks a law on more than one edit in ten is not fit to be a reward


@dataclass(frozen=True, slots=True)
class Broken:
    """A case on which a law was broken."""

    case_id: str
    scores: tuple[float, ...]
    """Of the probe's variants, in its order."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How often one law was kept."""

    probe: Probe
    num_kept: int
    broken: tuple[Broken, ...]
    num_unscored: int
    """Cases without an answer, since a needed score is missing: neither kept nor broken."""
    num_not_applicable: int

    @property
    def n(self) -> int:
        """Cases that were decided."""
        return self.num_kept + len(self.broken)

    def metric(self, threshold: float = THRESHOLD) -> Metric:
        """The pass rate with its Wilson interval; cases are of different tasks, hence independent.

        `holds` is None only when the law applies to no case; a judge that scores nothing keeps no law.
        """
        name, protocol, goal = f"audit/{self.probe.name}", "audit/wilson", f"at least {threshold:g}"
        empty = Metric(name, None, num_unscored=self.num_unscored, protocol=protocol, goal=goal, holds=False if self.num_unscored else None)
        if self.n == 0:
            return empty
        found = wilson(self.num_kept, self.n)
        return replace(empty, value=found.value, low=found.low, high=found.high, n=self.n, holds=found.value >= threshold)


def find_probes(names: Sequence[str]) -> list[Probe]:
    """The probes of these names, all when none is given. Raises ConfigError for an unknown one."""
    known = {probe.name: probe for probe in PROBES}
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown probe {name!r}: {nearest(name, known)}")
    return [known[name] for name in names] if names else list(PROBES)


def run_probes(judge: Judge, cases: Sequence[Case], *, seed: int = 0, probes: Sequence[Probe] = PROBES) -> list[ProbeResult]:
    """One result a probe. Raises BackendError when the judge's machine fails.

    All variants of a case are judged with the same seeds, so that a score which moves was moved by the picture or the words.
    """
    kept = {probe.name: 0 for probe in probes}
    unscored, idle = dict(kept), dict(kept)
    broken: dict[str, list[Broken]] = {probe.name: [] for probe in probes}
    with tqdm(total=len(cases), desc="audit", unit="edit") as bar:
        for start in range(0, len(cases), CHUNK):
            chunk = cases[start : start + CHUNK]
            for case, scores_of in zip(chunk, _scores(judge, chunk, probes, seed), strict=True):
                for probe, scores in zip(probes, scores_of, strict=True):
                    verdict = None if scores is None else probe.law(scores)
                    if scores is None:
                        unscored[probe.name] += 1
                    elif verdict is None:
                        idle[probe.name] += 1
                    elif verdict:
                        kept[probe.name] += 1
                    else:
                        broken[probe.name].append(Broken(case.id, scores))
            bar.update(len(chunk))
    return [ProbeResult(p, kept[p.name], tuple(broken[p.name]), unscored[p.name], idle[p.name]) for p in probes]


def _scores(judge: Judge, cases: Sequence[Case], probes: Sequence[Probe], seed: int) -> list[list[tuple[float, ...] | None]]:
    """The scores of each case's variants, probe by probe; None where one of them is missing. Equal variants are scored once."""
    variants = [[probe.variants(case) for probe in probes] for case in cases]
    distinct: dict[tuple[object, ...], RewardItem] = {}
    for of_case in variants:
        for of_probe in of_case:
            distinct.update({_key(item): item for item in of_probe})
    values = dict(zip(distinct, (reward.value for reward in judge.score(list(distinct.values()), seed)), strict=True))

    def complete(items: Sequence[RewardItem]) -> tuple[float, ...] | None:
        known = tuple(value for item in items if (value := values[_key(item)]) is not None)
        return known if len(known) == len(items) else None

    return [[complete(of_probe) for of_probe in of_case] for of_case in variants]


def _key(item: RewardItem) -> tuple[object, ...]:
    # Pictures by identity: those that a probe makes are kept alive by `variants` for the whole of `_scores`.
    return item.id, item.instruction, item.principles, id(item.source), id(item.edited)


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
    if not rows:
        return []
    rule = ["---"] * len(columns)
    return [f"## {heading}", "", *("| " + " | ".join(cells).replace("\n", " ") + " |" for cells in (columns, rule, *rows)), ""]
