"""What a run looks like shortly before it is lost: pure functions of its curves, each naming the knob that usually helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editr1.flow.checks import HELP

SPAN = 5  # ours: iterations averaged at either end; single iterations draw other tasks and say little
MANY_CLIPPED = 0.25
MANY_TIED = 0.8
LITTLE_SIGNAL = 0.3

Point = Mapping[str, float]


def symptoms(points: Sequence[Point]) -> dict[str, str]:
    """{symptom: what to change} of the iterations so far, oldest first; empty for a healthy or a very young run.

    >>> list(symptoms([{"reward/mean": 7.0, "reward/group_std": 1.0}] * 5 + [{"reward/mean": 4.0, "reward/group_std": 1.0}] * 5))
    ['the reward falls']
    """
    if len(points) < 2 * SPAN:
        return {}
    found = {}
    first, last = points[:SPAN], points[-SPAN:]
    spread = _mean(first, "reward/group_std") or 0.0
    if _change(first, last, "reward/mean") < -max(spread, 1e-6):
        found["the reward falls"] = "divide training.lr by 3, then lower training.max_grad_norm and sampling.level"
    if (_mean(last, "train/clipped") or 0.0) > MANY_CLIPPED:
        found["many ratios are clipped"] = "lower training.lr, or train fewer updates a rollout"
    if (_mean(last, "reward/tied_groups") or 0.0) > MANY_TIED:
        found["most groups tie"] = "more traces a reward, a larger group_size, or a higher sampling.level"
    signal = _mean(last, "reward/signal")
    if signal is not None and signal < LITTLE_SIGNAL:
        found["groups differ by the judge's noise"] = "training.std: batch, then reward.options.expected or more traces a reward"
    seen = [point for point in points if "evaluation/reward" in point]
    rises = _change(first, last, "reward/mean") > 0
    if len(seen) >= 3 and rises and seen[-1]["evaluation/reward"] < seen[-2]["evaluation/reward"] < seen[-3]["evaluation/reward"]:
        found["only the training reward rises"] = "reward hacking: stop at the best evaluation, raise training.beta, check the judge"
    return found


def warning_of(symptom: str, advice: str) -> str:
    """One line for the log."""
    return f"edit-rl: {symptom}; {advice}. {HELP}"


def _mean(points: Sequence[Point], name: str) -> float | None:
    values = [point[name] for point in points if name in point]
    return sum(values) / len(values) if values else None


def _change(first: Sequence[Point], last: Sequence[Point], name: str) -> float:
    before, after = _mean(first, name), _mean(last, name)
    return 0.0 if before is None or after is None else after - before
