"""`10_metrics.jsonl` as tables: the value as it stands there, with its interval, ties, unscored and goal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from editr1.schema import Metric

SECONDS = "stage_seconds/"
# Names whose value is a share in [0, 1], or a difference of two; the page prints them in percent. All others keep their unit.
SHARES = (
    "pair_accuracy",
    "verdict_accuracy",
    "violated_recall",
    "oracle_success",
    "accuracy",
    "win_rate",
    "parse_rate",
    "unscored",
    "audit/",
)
# Figures of a propagation study, whose names begin with the kind of damage.
SHARE_FIGURES = ("/pair_accuracy_change", "/verdict_accuracy_change", "/verdict_flips")


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One metric, ready to print."""

    name: str
    value: str
    interval: str
    n: str
    ties: str
    unscored: str
    p: str
    goal: str
    holds: bool | None
    protocol: str
    bar: tuple[float, float, float, float | None] | None
    """(value, low, high, zero) as percent of the bar's width; zero is None where the scale begins at zero."""


@dataclass(frozen=True, slots=True)
class ResultGroup:
    """Metrics that answer one question, such as `pair_accuracy`."""

    title: str
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True, slots=True)
class CategoryBars:
    """One value a category for each variant of a metric (`pair_accuracy`: scorer, sft, gcpo)."""

    title: str
    variants: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float] | None, ...]], ...]
    """(category, (text, percent of the width) for each variant)."""


def result_groups(metrics: Sequence[Metric]) -> list[ResultGroup]:
    """The metrics by question, in the order of the file; stage times are not results."""
    groups: dict[str, list[Metric]] = defaultdict(list)
    for metric in metrics:
        if not metric.name.startswith(SECONDS):
            groups[_family(metric.name)].append(metric)
    return [ResultGroup(title.replace("_", " "), tuple(result_row(m, members) for m in members)) for title, members in groups.items()]


def _family(name: str) -> str:
    head = name.partition("/")[0]
    for suffix in ("_gain", "_strict", "_non_tied", "_greedy"):
        head = head.removesuffix(suffix)
    return head


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
    if value is None:
        return "–"
    sign, unit = ("+", "pp") if signed else ("", "%")
    text = f"{100 * value:{sign}.1f} {unit}" if is_share(name) else f"{value:{sign}{_digits(value)}}"
    return text.replace("-", "−", 1) if value < 0 else text


def _digits(value: float) -> str:
    """Two decimals from 1 on, so that the ends of an interval stand below each other; four digits where two would hide the value."""
    return ".2f" if 1 <= abs(value) < 1000 else ".4g"


def result_row(metric: Metric, family: Sequence[Metric]) -> ResultRow:
    """The metric as it is printed; `family` are the metrics whose bars share an axis with it, itself among them."""
    gain = _is_gain(metric)
    known = metric.low is not None and metric.high is not None
    return ResultRow(
        name=metric.name,
        value=show(metric.value, metric.name, signed=gain),
        interval=f"{show(metric.low, metric.name, gain)} … {show(metric.high, metric.name, gain)}" if known else "–",
        n=f"{metric.n:,}" if metric.n else "–",
        ties="–" if metric.tie_rate is None else f"{100 * metric.tie_rate:.1f} %",
        unscored=f"{metric.num_unscored:,}",
        p="–" if metric.p_value is None else ("< 0.0001" if metric.p_value < 1e-4 else f"{metric.p_value:.4f}"),
        goal=metric.goal,
        holds=metric.holds,
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
    return [_category_bars(family, members) for family, members in families.items()]


def _category_bars(family: str, members: Sequence[Metric]) -> CategoryBars:
    variants = tuple(metric.name.partition("/")[2] or metric.name for metric in members)
    values = [value for metric in members for value in metric.by_category.values()]
    full = 1.0 if is_share(family) else max(*values, 0.0) or 1.0
    categories = sorted({category for metric in members for category in metric.by_category})
    rows = tuple((category, tuple(_cell(metric, category, full) for metric in members)) for category in categories)
    return CategoryBars(family.replace("_", " "), variants, rows)


def _cell(metric: Metric, category: str, full: float) -> tuple[str, float] | None:
    value = metric.by_category.get(category)
    return None if value is None else (show(value, metric.name), max(0.0, min(100.0, 100 * value / full)))


def stage_seconds(metrics: Sequence[Metric]) -> list[tuple[str, float]]:
    """(stage, seconds) of every stage whose time was measured."""
    return [(m.name.removeprefix(SECONDS), m.value) for m in metrics if m.name.startswith(SECONDS) and m.value is not None]
