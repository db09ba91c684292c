"""Figures in words and in one unit: the verdict on what was promised, tiles, tables, the accuracy of the judges beside chance, audits."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from editr1.audit.perturb import FOLDER, AuditRecord
from editr1.audit.probes import ProbeRecord
from editr1.report.reading import Reader
from editr1.schema import Metric
from editr1.store._files import read_record

SECONDS = "stage_seconds/"
MAX_BROKEN = 12  # ours: enough to see what the broken edits share; the record has them all
CHANCE = 0.5  # a coin's accuracy on decisive pairs, ties at half
# Names whose value is a share in [0, 1], or a difference of two; the page prints them in percent. All others keep their unit.
SHARES = (
    *("pair_accuracy", "verdict_accuracy", "violated_recall", "oracle_success", "accuracy"),
    *("win_rate", "parse_rate", "unscored", "audit/"),
)
# Ends of names of shares: figures of a propagation study, whose names begin with the kind of damage, and wins of any score.
SHARE_FIGURES = ("/pair_accuracy_change", "/verdict_accuracy_change", "/verdict_flips", "_win_rate")
LAST_JUDGE = "the last judge"
NAMES = {"scorer": "the score-only judge", "sft": "the SFT-RRM", "gcpo": "the RL-RRM", "before": "before RL", "after": "after RL"}
WORDS = {
    "pair_accuracy": "{} picks what people prefer",
    "pair_accuracy_strict": "{} picks what people prefer, ties counted as wrong",
    "pair_accuracy_non_tied": "{} picks what people prefer, where it does not tie",
    "pair_accuracy_greedy": "{}, asked once, picks what people prefer",
    "pair_accuracy_gain": "{} beats the judge before it",
    "pair_accuracy_gain_one_trace": "{}, asked once at its temperature, beats the judge before it",
    "verdict_accuracy": "{} gives true verdicts",
    "violated_recall": "{} finds violations",
    "oracle_score": "score of the edits {}",
    "oracle_score_gain": "edits score higher after RL",
    "oracle_score_win_rate": "edits after RL win against those before",
    "editor_score": "score of the edits {}, by the judge",
    "editor_score_gain": "edits score higher after RL, by the judge",
    "editor_score_win_rate": "edits after RL win against those before, by the judge",
    "oracle_success": "edits that succeed {}",
    "oracle_success_gain": "edits succeed after RL as often as before",
}


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One metric, ready to print."""

    name: str
    words: str
    value: str
    unit: str
    """Said once beside the value where the value does not end in it."""
    interval: str
    n: str
    ties: str
    unscored: str
    p: str
    goal: str
    """In the unit of the value."""
    holds: bool | None
    protocol: str
    bar: tuple[float, float, float, float | None] | None
    """(value, low, high, zero) as percent of the bar's width; zero is None where the scale begins at zero."""


@dataclass(frozen=True, slots=True)
class CategoryBars:
    """One value a category for each variant of a metric (`pair_accuracy`: scorer, sft, gcpo)."""

    title: str
    variants: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float] | None, ...]], ...]
    """(category, (text, percent of the width) for each variant)."""


def promises(metrics: Sequence[Metric]) -> list[ResultRow]:
    """The rows that answer a promise, in the order of the file; the many small ones of an audit stand in its own part."""
    judges = [NAMES.get(of, of) for family, _, of in (metric.name.partition("/") for metric in metrics) if family == "pair_accuracy"]
    rows = [result_row(metric, [metric]) for metric in metrics if metric.goal and not metric.name.startswith("audit/")]
    last = judges[-1] if judges else LAST_JUDGE
    return [replace(row, words=row.words.replace(LAST_JUDGE, last)) for row in rows]


def verdict(rows: Sequence[ResultRow]) -> str:
    """One sentence: how many promises hold, and which do not. A promise is kept by its whole interval, or not decided."""
    if not rows:
        return "Nothing was promised before this run, so nothing holds or fails."
    held = [row for row in rows if row.holds]
    parts = [f"{len(held)} of {len(rows)} promise{'s hold' if len(rows) > 1 else ' holds'}"]
    for said, holds in (("does not hold", False), ("not decided", None)):
        if found := [row.words for row in rows if row.holds is holds]:
            parts.append(f"{said}: {', '.join(found)}")
    return f"{parts[0]}{': ' if held else ''}{', '.join(row.words for row in held)}. " + "".join(
        f"{part[0].upper()}{part[1:]}. " for part in parts[1:]
    )


def in_words(name: str) -> str:
    """A metric's name as a statement.

    >>> in_words("pair_accuracy/gcpo"), in_words("win_rate/new_editor")
    ('the RL-RRM picks what people prefer', 'win rate: new editor')
    """
    family, _, of = name.partition("/")
    words = WORDS.get(family, family.replace("_", " ") + (": {}" if of else ""))
    return words.replace("{}", NAMES.get(of, of.replace("_", " ").replace("/", ", ")) or LAST_JUDGE)


def accuracies(metrics: Sequence[Metric]) -> list[tuple[str, ResultRow]]:
    """(judge, row) of each judge's accuracy on people's pairs, whose bars share the axis from 0 to 100 %."""
    found = [metric for metric in metrics if metric.name.startswith("pair_accuracy/") and metric.value is not None]
    names = (metric.name.partition("/")[2] for metric in found)
    return [(NAMES.get(name, name).removeprefix("the "), result_row(metric, found)) for name, metric in zip(names, found, strict=True)]


def is_share(name: str) -> bool:
    """Whether the page prints the metric in percent."""
    return name.startswith(SHARES) or name.endswith(SHARE_FIGURES)


def show(value: float | None, name: str, signed: bool = False) -> str:
    """The value in the unit of its name, a signed share in percentage points (pp); a missing one is a dash and never a number.

    >>> show(0.7731, "pair_accuracy/sft"), show(None, "kappa"), show(6.4, "oracle_score/after")
    ('77.3 %', '–', '6.40')
    >>> show(0.045, "pair_accuracy_gain/gcpo", signed=True)
    '+4.5 pp'
    """
    if value is None or not math.isfinite(value):
        return "–"
    sign, unit = ("+", "pp") if signed else ("", "%")
    # Two decimals from .1 on, so that the ends of an interval stand below each other; four digits where two would hide the value.
    digits = ".2f" if 0.1 <= abs(value) < 1000 else ".4g"
    text = f"{100 * value:{sign}.1f} {unit}" if is_share(name) else f"{value:{sign}{digits}}"
    return text.replace("-", "−", 1) if value < 0 else text


percent = partial(show, name="accuracy")
"""A share for people."""


def _goal(metric: Metric) -> str:
    """The goal with its numbers in the unit of the value.

    >>> _goal(Metric("pair_accuracy_gain", 0.05, goal="above 0.03"))
    'above 3.0 pp'
    """
    if not is_share(metric.name):
        return metric.goal
    unit = "pp" if _is_gain(metric) else "%"
    return re.sub(r"(?<![\w.])-?\d*\.?\d+\b(?! ?%)", lambda found: f"{100 * float(found[0]):.1f} {unit}", metric.goal)


def result_groups(metrics: Sequence[Metric]) -> list[tuple[str, list[ResultRow]]]:
    """(question, rows) of metrics that answer one, such as `pair_accuracy`, in the order of the file; stage times are not results."""
    groups: dict[str, list[Metric]] = defaultdict(list)
    for metric in metrics:
        if not metric.name.startswith(SECONDS):
            groups[_family(metric.name)].append(metric)
    return [(title.replace("_", " "), [result_row(metric, members) for metric in members]) for title, members in groups.items()]


def _family(name: str) -> str:
    head = name.partition("/")[0]
    for suffix in ("_gain", "_win_rate", "_strict", "_non_tied", "_greedy"):
        head = head.removesuffix(suffix)
    return head


def result_row(metric: Metric, family: Sequence[Metric]) -> ResultRow:
    """The metric as it is printed; `family` are the metrics whose bars share an axis with it, itself among them."""
    gain = _is_gain(metric)
    known = metric.low is not None and metric.high is not None
    return ResultRow(
        name=metric.name,
        words=in_words(metric.name),
        value=show(metric.value, metric.name, signed=gain),
        unit="points of 10" if "score" in _family(metric.name) and not is_share(metric.name) else "",
        interval=f"{show(metric.low, metric.name, gain)} … {show(metric.high, metric.name, gain)}" if known else "–",
        n=f"{metric.n:,}" if metric.n else "–",
        ties="–" if metric.tie_rate is None else f"{100 * metric.tie_rate:.1f} %",
        unscored=f"{metric.num_unscored:,}",
        p="–" if metric.p_value is None else ("< 0.0001" if metric.p_value < 1e-4 else f"{metric.p_value:.4f}"),
        goal=_goal(metric),
        # As the stage decided by the interval; without one nothing is decided, except that no answer at all keeps no promise.
        holds=metric.holds if known or metric.holds is False else None,
        protocol=metric.protocol,
        bar=_bar(metric, [m for m in family if _is_gain(m) == gain]),
    )


def _is_gain(metric: Metric) -> bool:
    return "_gain" in metric.name.partition("/")[0]


def _bar(metric: Metric, peers: Sequence[Metric]) -> tuple[float, float, float, float | None] | None:
    """Value and interval on an axis that all peers share: [0, 1] for shares, as wide as the widest interval for gains."""
    if metric.value is None or metric.low is None or metric.high is None:
        return None
    ends = [end for m in peers for end in (m.low, m.high) if end is not None]
    low, high = min(0.0, *ends), max(0.0, *ends)
    if is_share(metric.name) and not _is_gain(metric):
        high = 1.0
    span = (high - low) or 1.0
    place = [100 * (end - low) / span for end in (metric.value, metric.low, metric.high)]
    return place[0], place[1], place[2], -100 * low / span if low < 0 else None


def category_bars(metrics: Sequence[Metric]) -> list[CategoryBars]:
    """Bars per category for every metric that was broken down, its variants side by side."""
    families: dict[str, list[Metric]] = defaultdict(list)
    for metric in metrics:
        if metric.by_category:
            families[metric.name.partition("/")[0]].append(metric)
    bars = []
    for family, members in families.items():
        variants = tuple(metric.name.partition("/")[2] or metric.name for metric in members)
        full = 1.0 if is_share(family) else max(0.0, *(value for metric in members for value in metric.by_category.values())) or 1.0
        categories = sorted({category for metric in members for category in metric.by_category})
        rows = tuple((category, tuple(_cell(metric, category, full) for metric in members)) for category in categories)
        bars.append(CategoryBars(family.replace("_", " "), variants, rows))
    return bars


def _cell(metric: Metric, category: str, full: float) -> tuple[str, float] | None:
    value = metric.by_category.get(category)
    return None if value is None else (show(value, metric.name, _is_gain(metric)), max(0.0, min(100.0, 100 * value / full)))


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
