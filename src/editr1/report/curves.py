"""`metrics.jsonl` as charts: lines that belong together, an axis that does not zoom into noise, the healthy band, and alarms."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from editr1.report.reading import Points, Reader
from editr1.stats.agreement import SPAN, finite_mean, hacked

MAX_POINTS = 400  # ours: more points than pixels cannot be seen, and the page shall stay small

# stage -> (title, the series that share a chart), shown first and in this order; every other series is one click away.
CHARTS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "sft": (("loss", ("loss", "eval_loss")), ("tokens foretold right", ("mean_token_accuracy", "eval_mean_token_accuracy"))),
    "gcpo": (
        ("pairs ranked as people do", ("pair_accuracy", "held_out/pair_accuracy")),
        ("traces that could be read", ("parse_rate", "held_out/parse_rate")),
        ("reward", ("reward",)),
        ("win ratio", ("win_ratio", "loss_ratio")),
        ("tokens a trace", ("trace_tokens",)),
    ),
    "edit_rl": (
        ("reward, of 10: in training and held out", ("reward/mean", "evaluation/reward")),
        ("verdicts that say yes", ("reward/follow", "reward/keep", "reward/quality")),
        ("groups that tie", ("reward/tied_groups",)),
        ("size of the advantages", ("train/abs_advantage",)),
        ("ratios that were clipped", ("train/clipped",)),
        ("signal beside the judge's noise", ("reward/signal",)),
    ),
}
TITLES = {"sft": "SFT of the verifier", "gcpo": "GCPO of the verifier", "edit_rl": "RL of the editor"}
LINES = {
    "reward/mean": "in training",
    "evaluation/reward": "held out",
    "eval_loss": "held out",
    "eval_mean_token_accuracy": "held out",
    "held_out/pair_accuracy": "held out",
    "held_out/parse_rate": "held out",
    "win_ratio": "of the preferred edit",
    "loss_ratio": "of the other",
}
REWARDS = ["reward/mean", "evaluation/reward"]
UNREAD = "parse_rate"
# Last words of the names of shares.
SHARES = {
    *("rate", "accuracy", "clipped", "signal", "ties", "tied_groups", "unscored", "follow", "keep", "quality"),
    *("share", "ratio", "groups"),
}
OF_TEN = ("reward/mean", "evaluation/reward", "score_mean")
_CLOCKS = ("epoch", "step_time", "num_tokens", "learning_rate", "lr")  # bookkeeping: never shown first

Band = tuple[float | None, float | None]
"""(low, high); None = open."""
# docs/how_to/collapse.md, "Is it training?"
HEALTHY: dict[str, Band] = {
    "train/abs_advantage": (0.4, None),  # divided by its group's std it cannot be above 1, and is .8 for a bell curve
    "reward/tied_groups": (None, 0.5),
    "reward/signal": (0.3, None),
    "train/clipped": (None, 0.25),
    "cost/reward_share": (None, 0.3),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. Values are rounded to five digits; a gap (nan) stays a gap."""

    label: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines on one axis."""

    title: str
    names: str
    """The series as `metrics.jsonl` names them."""
    lines: tuple[Line, ...]
    axis: tuple[float, float]
    band: Band | None = None
    """What is healthy."""
    alarm: str = ""
    """Why this training is lost as it stands; empty when it is not."""
    outside: str = ""
    """Where the curve has left the band at its end; empty when it has not."""


@dataclass(frozen=True, slots=True)
class StageCurves:
    """The charts of one training stage: those that answer a question, and the rest."""

    stage: str
    title: str
    headlines: tuple[Chart, ...]
    others: tuple[Chart, ...]


def read_points(reader: Reader) -> dict[str, Points]:
    """The curves by stage, training stages in the order of the loop first; `gcpo/held_out` is part of `gcpo`. After a resume the last
    point of a step counts."""
    stages: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for stage, step, values in reader.lines("metrics.jsonl", _point):
        owner, _, part = stage.rpartition("/")
        stage, prefix = (owner, "held_out/") if part == "held_out" else (stage, "")
        for name, value in values.items():
            stages[stage][prefix + name][step] = value
    rank = {base: place for place, base in enumerate(TITLES)}
    return {stage: stages[stage] for stage in sorted(stages, key=lambda name: (rank.get(name.partition("/")[0], len(rank)), name))}


def _point(line: bytes) -> tuple[str, int, dict[str, float]]:
    point = json.loads(line)
    return str(point["stage"]), int(point["step"]), {k: float(v) for k, v in point.items() if k not in ("stage", "step")}


def draw_curves(points: Mapping[str, Points]) -> list[StageCurves]:
    """The charts of every stage that logged."""
    return [_stage(stage, series) for stage, series in points.items()]


def overlay(runs: Mapping[str, Mapping[str, Points]]) -> list[StageCurves]:
    """The first charts of every stage with a line a run, named after it; a chart holds one series."""
    found = []
    for stage in dict.fromkeys(stage for stages in runs.values() for stage in stages):
        names = dict.fromkeys(name for stages in runs.values() for name in first_series(stage, stages.get(stage, {})))
        charts = []
        for name in names:
            lines = {run: stages[stage][name] for run, stages in runs.items() if name in stages.get(stage, {})}
            title = next((title for title, names in _charts_of(stage) if name in names), name)
            named = f"{title.partition(':')[0]}, {LINES[name]}" if name in LINES else title
            charts.append(_chart(named, [name], lines, several=True))
        found.append(StageCurves(stage, stage_title(stage), tuple(charts), ()))
    return found


def first_series(stage: str, series: Iterable[str]) -> list[str]:
    """The series that are shown first: those of CHARTS, or the first four that are no clock."""
    known = set(series)
    first = [name for _, names in _charts_of(stage) for name in names if name in known]
    return first or sorted(name for name in known if name.rpartition("/")[2] not in _CLOCKS)[:4]


def stage_title(stage: str) -> str:
    """The stage's name as people write it; `sft/06_scorer` is a second use of a stage, with another output folder."""
    base, _, folder = stage.partition("/")
    return TITLES.get(base, base.replace("_", " ")) + (f" ({folder})" if folder else "")


def _charts_of(stage: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return CHARTS.get(stage.partition("/")[0], ())


def _stage(stage: str, series: Points) -> StageCurves:
    first = first_series(stage, series)
    groups = [(title, [n for n in names if n in first]) for title, names in _charts_of(stage)]
    groups = [group for group in groups if group[1]] or [(name, [name]) for name in first]
    headlines = tuple(_chart(title, names, {LINES.get(n, n.rpartition("/")[2]): series[n] for n in names}) for title, names in groups)
    rest = sorted(series.keys() - set(first))
    return StageCurves(stage, stage_title(stage), headlines, tuple(_chart(name, [name], {name: series[name]}) for name in rest))


def _chart(title: str, names: Sequence[str], series: Mapping[str, Mapping[int, float]], several: bool = False) -> Chart:
    lines = tuple(_thin(label, by_step) for label, by_step in series.items())
    band = HEALTHY.get(names[0])
    labels = [f" ({label})" if several or len(series) > 1 else "" for label in series]
    alarms = [_unread(names[0], of, by_step) for of, by_step in zip(labels, series.values(), strict=True)]
    if names == REWARDS and hacked(series[LINES[names[0]]], series[LINES[names[1]]], 2):
        alarms.append("the held-out reward fell twice in a row while the training reward rose: reward hacking; stop at the best evaluation")
    outside = [_outside(title + of, band, by_step) for of, by_step in zip(labels, series.values(), strict=True)] if band else []
    told = ("; ".join(filter(None, found)) for found in (alarms, outside))
    return Chart(title, ", ".join(names), lines, _axis(names[0], lines, band), band, *told)


def _unread(name: str, of: str, by_step: Mapping[int, float]) -> str:
    if name.rpartition("/")[2] != UNREAD or by_step[max(by_step)] > 0:
        return ""
    return f"no trace can be read{of}: parse_rate is 0, so nothing is learnt. Check the prompt, the format and max_tokens"


def _outside(title: str, band: Band, by_step: Mapping[int, float]) -> str:
    end = finite_mean([by_step[step] for step in sorted(by_step)[-SPAN:]])
    low, high = band
    if end is None or ((low is None or end >= low) and (high is None or end <= high)):
        return ""
    healthy = [f"{word} {edge:g}" for word, edge in (("above", low), ("below", high)) if edge is not None]
    return f"{title}: {end:.2g} at the end, healthy is {' and '.join(healthy)}"


def _axis(name: str, lines: Sequence[Line], band: Band | None) -> tuple[float, float]:
    """A share's axis is [0, 1]; others are at least 2 points of 10 or a quarter of the largest value wide, so that noise stays small.

    >>> _axis("reward/mean", [Line("", (0, 1), (5.0, 5.1))], None)
    (4.05, 6.05)
    """
    values = [value for line in lines for value in line.values if value is not None]
    values += [end for end in band or () if end is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    last = name.rpartition("/")[2]
    if low >= 0 and high <= 1 and {last, last.rpartition("_")[2]} & SHARES:
        return 0.0, 1.0
    least = 2.0 if name in OF_TEN else 0.25 * max(abs(low), abs(high)) or 1.0
    pad = max(0.05 * (high - low), (least - (high - low)) / 2)
    return float(f"{low - pad:.3g}"), float(f"{high + pad:.3g}")


def _thin(label: str, by_step: Mapping[int, float]) -> Line:
    """At most MAX_POINTS means of neighbouring points, so that a spike moves the curve instead of vanishing by chance."""
    items = sorted(by_step.items())
    width = math.ceil(len(items) / MAX_POINTS)
    groups = [items[start : start + width] for start in range(0, len(items), width)]
    return Line(label, tuple(group[-1][0] for group in groups), tuple(_rounded([value for _, value in group]) for group in groups))


def _rounded(values: Sequence[float]) -> float | None:
    mean = finite_mean(values)
    return None if mean is None else float(f"{mean:.5g}")
