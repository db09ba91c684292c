"""What is known about those who judge: annotators against gold, people's pairs, audits, and whether a larger gap means a surer judge."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from editr1.audit.run import FOLDER, AuditRecord, ProbeRecord
from editr1.judge.inspect import AnnotatorAccuracies, AnnotatorAccuracy, CategoryVerdicts
from editr1.report.figures import CategoryBars, ResultRow, result_row, show
from editr1.report.reading import Reader
from editr1.schema import Judgement, Metric, PreferencePair, Trace
from editr1.stats.calibration import Bin, calibrate
from editr1.store._files import read_object, read_record

Traces = Mapping[str, Mapping[str, Sequence[Trace]]]
"""judge -> candidate id -> traces."""
MAX_BROKEN = 12  # ours: enough to see what the broken edits share; the record has them all
EDGES = (0.5, 1.0, 2.0, 4.0, math.inf)  # points of tau; ours: a tie of greedy scores is the first bin's business
BIN_NAMES = ("under 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 and more")
MIN_PAIRS = 20  # ours: five folds of fewer than four pairs fit noise
NO_SIGNAL = 100.0  # points; ours: with this temperature the widest gap, 10 points, forecasts 52.5 %


def percent(value: float | None) -> str:
    """A share for people; a missing one is a dash.

    >>> percent(0.5), percent(None)
    ('50.0 %', '–')
    """
    return "–" if value is None else f"{100 * value:.1f} %"


# --- annotators and people


@dataclass(frozen=True, slots=True)
class Usage:
    """What a member of the pool has used."""

    name: str
    traces: float
    tokens_in: float
    tokens_out: float
    cost: float


@dataclass(frozen=True, slots=True)
class Annotators:
    """What the run knows about its annotators; empty where the stages have not come that far."""

    accuracies: tuple[AnnotatorAccuracy, ...]
    agreement: tuple[float, float | None, int] | None
    """Of the two inspectors: share of equal verdicts, kappa, verdicts."""
    usage: tuple[Usage, ...]


def read_annotators(reader: Reader) -> Annotators:
    """The figures that `score` and `inspect` left."""
    found = reader.value("05_inspections/annotators.json", lambda path: read_record(AnnotatorAccuracies, path), AnnotatorAccuracies(()))
    agreement = reader.value("05_inspections/agreement.json", _agreement, None)
    return Annotators(found.annotators, agreement, reader.value("04_traces/usage.json", _usage, ()))


def _agreement(path: Path) -> tuple[float, float | None, int] | None:
    both = read_object(path, "n")
    kappa = both.get("kappa")
    return (float(both["agreement"]), None if kappa is None else float(kappa), int(both["n"])) if both["n"] else None


def _usage(path: Path) -> tuple[Usage, ...]:
    names = ("traces", "tokens_in", "tokens_out", "cost")
    return tuple(Usage(member, *(float(used.get(name, 0)) for name in names)) for member, used in read_object(path).items())


def confusion_row(row: CategoryVerdicts) -> tuple[str, ...]:
    """Category, the four counts, accuracy, recall of violations."""
    c = row.counts
    counts = (f"{count:,}" for count in (c.both_yes, c.only_judge_yes, c.only_human_yes, c.both_no))
    return row.category, *counts, percent(c.accuracy), percent(c.violated_recall)


def count_pairs(pairs: Sequence[PreferencePair]) -> list[tuple[str, int, int, int]]:
    """(annotator, a, b, same): who preferred what, by annotator."""
    counts = Counter((pair.annotator or "unnamed", pair.label) for pair in pairs)
    return [(name, counts[name, "a"], counts[name, "b"], counts[name, "same"]) for name in sorted({name for name, _ in counts})]


# --- calibration


@dataclass(frozen=True, slots=True)
class Reliability:
    """One judge's forecasts beside what came true; each pair's forecast uses a slope that was fitted on other tasks."""

    judge: str
    summary: str
    bins: tuple[Bin, ...]


def reliabilities(pairs: Sequence[PreferencePair], judges: Traces) -> list[Reliability]:
    """One a trained judge that scored at least MIN_PAIRS decisive pairs."""
    found = []
    for judge, traces in judges.items():
        margins = list(_margins(pairs, traces))
        tasks = [task for task, _ in margins]
        if len(margins) >= MIN_PAIRS and len(set(tasks)) >= 2:
            fit = calibrate([margin for _, margin in margins], tasks, rng=np.random.default_rng(0))
            clear = fit.temperature and fit.temperature < NO_SIGNAL
            signal = f"temperature {fit.temperature:.2f} points" if clear else "no signal in the gaps"
            told = f"{fit.n:,} pairs, calibration error {100 * fit.ece:.1f} %, log loss {fit.log_loss:.3f} (a coin .693), {signal}"
            found.append(Reliability(judge, told, fit.bins))
    return found


def margin_bars(pairs: Sequence[PreferencePair], judges: Traces) -> list[CategoryBars]:
    """Share of decisive pairs on which judge and person agree (ties half), by |score difference|; none without pairs or judges."""
    if not pairs or not judges:
        return []
    columns = {judge: _credits(pairs, traces) for judge, traces in judges.items()}
    rows = tuple((name, tuple(_credit(columns[judge].get(bin_, [])) for judge in columns)) for bin_, name in enumerate(BIN_NAMES))
    return [CategoryBars("agreement with people, by difference of the two scores", tuple(columns), rows)]


def _credits(pairs: Sequence[PreferencePair], traces: Mapping[str, Sequence[Trace]]) -> dict[int, list[float]]:
    """Bin -> credit of each pair whose two edits are scored."""
    credits: dict[int, list[float]] = defaultdict(list)
    for _, margin in _margins(pairs, traces):
        bin_ = next(index for index, edge in enumerate(EDGES) if abs(margin) < edge)
        credits[bin_].append(0.5 if margin == 0 else float(margin > 0))
    return credits


def _margins(pairs: Sequence[PreferencePair], traces: Mapping[str, Sequence[Trace]]) -> Iterator[tuple[str, float]]:
    """(task, preferred minus other) of each decisive pair whose two edits are scored."""
    said = {key: [trace.outcome.score for trace in found if isinstance(trace.outcome, Judgement)] for key, found in traces.items()}
    scores = {key: sum(found) / len(found) for key, found in said.items() if found}
    for pair in pairs:
        if pair.label != "same" and pair.a.id in scores and pair.b.id in scores:
            yield pair.task.id, scores[pair.winner.id] - scores[pair.loser.id]


def _credit(credits: list[float]) -> tuple[str, float] | None:
    share = 100 * sum(credits) / len(credits) if credits else 0.0
    return (f"{share:.1f} % of {len(credits):,}", share) if credits else None


# --- audits


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One law: the pass rate as any other figure, and the first edits that broke it as (candidate id, scores of the variants, of 10)."""

    law: str
    figure: ResultRow
    num_not_applicable: int
    broken: tuple[tuple[str, str], ...]
    num_broken: int


@dataclass(frozen=True, slots=True)
class JudgeAudit:
    """What the page shows of one judge's audit; a part that was not run is empty."""

    record: AuditRecord
    probes: tuple[ProbeRow, ...]
    figures: tuple[str, ...]
    """Columns of `damages`."""
    damages: tuple[tuple[str, tuple[tuple[str, str] | None, ...]], ...]
    """What each kind of damage to the principles moved: (value, interval) a figure, None where the run could not say."""

    @property
    def num_held(self) -> int:
        return sum(probe.figure.holds is True for probe in self.probes)

    @property
    def num_decided(self) -> int:
        """Laws that applied to at least one edit."""
        return sum(probe.figure.holds is not None for probe in self.probes)


def read_audits(reader: Reader) -> list[JudgeAudit]:
    """The audits of a run, by the judge's label."""
    found = (reader.value(name, lambda path: read_record(AuditRecord, path), None) for name in reader.folder(FOLDER, "*.json"))
    audits = []
    for record in filter(None, found):
        figures = tuple(dict.fromkeys(metric.name.rpartition("/")[2] for metric in record.propagation))
        audits.append(JudgeAudit(record, tuple(map(_probe, record.probes)), figures, _damages(record.propagation, figures)))
    return audits


def _probe(probe: ProbeRecord) -> ProbeRow:
    broken = [(case.case_id, " → ".join(f"{score:.1f}" for score in case.scores)) for case in probe.broken]
    return ProbeRow(probe.law, result_row(probe.metric, [probe.metric]), probe.num_not_applicable, tuple(broken[:MAX_BROKEN]), len(broken))


def _damages(metrics: Sequence[Metric], figures: Sequence[str]) -> tuple[tuple[str, tuple[tuple[str, str] | None, ...]], ...]:
    """A row a kind of damage; the names are `propagation/<damage>/<figure>`."""
    found = {tuple(metric.name.split("/")[1:]): metric for metric in metrics}
    kinds = dict.fromkeys(metric.name.split("/")[1] for metric in metrics if metric.name.count("/") > 1)
    return tuple((kind, tuple(_moved(found.get((kind, figure))) for figure in figures)) for kind in kinds)


def _moved(metric: Metric | None) -> tuple[str, str] | None:
    if metric is None:
        return None
    signed = metric.name.endswith("_change")
    low, high = (show(end, metric.name, signed) for end in (metric.low, metric.high))
    return show(metric.value, metric.name, signed), f"{low} … {high}"
