"""`metrics.jsonl` as series that a reader can follow with the pointer."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from editr1.errors import DataError
from editr1.store import Run
from editr1.store._files import read_jsonl

MAX_POINTS = 400  # ours: more points than pixels cannot be seen, and the page shall stay small

# Shown first, in this order; every other series of the stage is one click away.
HEADLINES: dict[str, tuple[str, ...]] = {
    "sft": ("loss", "eval_loss", "mean_token_accuracy", "eval_mean_token_accuracy"),
    "gcpo": ("reward", "weighted_advantage", "completions/mean_length", "parse_rate"),
    "edit_rl": ("reward/mean", "evaluation/reward", "reward/group_std", "train/abs_advantage", "train/clipped"),
}
ORDER = ("sft", "gcpo", "edit_rl")
TITLES = {"sft": "SFT of the verifier", "gcpo": "GCPO of the verifier", "edit_rl": "RL of the editor"}
_CLOCKS = ("epoch", "step_time", "num_tokens", "learning_rate", "lr")  # bookkeeping: never a headline
_NUM_HEADLINES = 4


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. Values are rounded to five digits; a gap (nan) stays a gap."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]

    @property
    def last(self) -> float | None:
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True, slots=True)
class StageCurves:
    """The curves of one training stage: the headlines, and the rest."""

    stage: str
    headlines: tuple[Series, ...]
    others: tuple[Series, ...]

    @property
    def title(self) -> str:
        """The stage's name as people write it; `sft/06_scorer` is a second use of a stage, with another output folder."""
        base, _, folder = self.stage.partition("/")
        title = TITLES.get(base, base.replace("_", " "))
        return f"{title} ({folder})" if folder else title


def read_curves(run: Run) -> list[StageCurves]:
    """The curves of every stage that logged, training stages in the order of the loop first."""
    stages = _stages(run.dir / "metrics.jsonl")
    return [_stage_curves(run, name) for name in sorted(stages, key=_place)]


def _place(stage: str) -> tuple[int, str]:
    base = stage.partition("/")[0]
    return (ORDER.index(base) if base in ORDER else len(ORDER)), stage


def _stages(path: Path) -> set[str]:
    if not path.exists():
        return set()
    try:
        return {point["stage"] for point in read_jsonl(path)}
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} holds a line that is no point of a curve ({error}); delete that line") from error


def _stage_curves(run: Run, stage: str) -> StageCurves:
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for point in run.curves(stage):
        for name, value in point.items():
            if name not in ("stage", "step"):
                points[name][int(point["step"])] = float(value)
    series = {name: _thin(name, by_step) for name, by_step in points.items()}
    chosen = [name for name in HEADLINES.get(stage.partition("/")[0], ()) if name in series][:_NUM_HEADLINES]
    if not chosen:
        chosen = sorted(name for name in series if name.rpartition("/")[2] not in _CLOCKS)[:_NUM_HEADLINES]
    rest = sorted(series.keys() - set(chosen))
    return StageCurves(stage, tuple(series[name] for name in chosen), tuple(series[name] for name in rest))


def _thin(name: str, by_step: dict[int, float]) -> Series:
    """At most MAX_POINTS means of neighbouring points, so that a spike moves the curve instead of vanishing by chance."""
    items = sorted(by_step.items())
    width = math.ceil(len(items) / MAX_POINTS)
    groups = [items[start : start + width] for start in range(0, len(items), width)]
    return Series(name, tuple(group[-1][0] for group in groups), tuple(_mean([value for _, value in group]) for group in groups))


def _mean(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return float(f"{sum(finite) / len(finite):.5g}") if finite else None
