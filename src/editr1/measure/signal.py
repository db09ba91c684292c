"""What makes a judge a good reward: whether it tells the edits of one task apart, in the right order, beyond its own noise.

Group-relative RL learns from differences inside a group (the edits of one task) and from nothing else. Per judge, over groups of two or
more scored edits; protocols `signal/...`:

    spread            mean over groups of the standard deviation of the scores, in score points
    flat              share of groups in which all edits score the same: no gradient
    noise             share of the variance inside groups that another draw of the traces would not repeat, in [0, 1]: sum over edits of
                      the traces' variance / K, over the variance of the scores; None for a judge without traces
    agreement/k<k>    two means of k traces each order a pair of a group alike: 1, .5 for a tie in either, 0
    order/...         accuracy on pairs of a group that the truth orders: half, strict, non-tied
    advantage         correlation of the scores with the truth inside groups, pooled: what a step along the advantage gains of what a step
                      along the truth would gain
The truth is what people or an oracle say of the same edits. Intervals are of groups.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, to_metric
from editr1.schema import Metric, derive_seed
from editr1.stats import TIE_TOLERANCE, mean_estimate, share_estimate


@dataclass(frozen=True, slots=True)
class ScoredEdit:
    """One edit of a group."""

    value: float
    """The judge's, in points."""
    traces: tuple[float, ...] = ()
    """Scores of the readable traces whose mean `value` is, in the order in which they were drawn."""
    truth: float | None = None
    """On any scale, the same for all edits of a group."""


Groups = Mapping[str, Sequence[ScoredEdit]]
"""Edits by task; unscored edits are left out before."""


def signal_metrics(groups: Groups, num_unscored: int = 0, seed: int = 0) -> list[Metric]:
    """All numbers of one judge. Raises DataError where no group has two scored edits."""
    kept = {name: list(group) for name, group in groups.items() if len(group) > 1}
    if not kept:
        raise DataError("no group has two scored edits; a reward is judged by how it tells the edits of one task apart")
    rng = np.random.default_rng(derive_seed(seed, "signal"))
    spreads = [float(np.std([edit.value for edit in group], ddof=1)) for group in kept.values()]
    flat = [float(np.ptp([edit.value for edit in group]) <= TIE_TOLERANCE) for group in kept.values()]
    num_edits = sum(map(len, kept.values()))
    found = [
        to_metric("signal_spread", mean_estimate(spreads, rng=rng), "signal/spread", n=num_edits, num_unscored=num_unscored),
        to_metric("signal_flat", share_estimate(flat), "signal/flat", n=len(kept)),
        Metric("signal_noise", noise_share(list(kept.values())), n=num_edits, protocol="signal/noise", num_clusters=len(kept)),
        *_agreement(kept),
    ]
    return [*found, *_against_truth(kept)]


def noise_share(groups: Sequence[Sequence[ScoredEdit]]) -> float | None:
    """Variance of the mean of an edit's traces over the variance of the scores inside groups, at most 1.

    None where an edit has fewer than two traces, and where no group has any variance.
    """
    if any(len(edit.traces) < 2 for group in groups for edit in group):
        return None
    noise = sum(float(np.var(edit.traces, ddof=1)) / len(edit.traces) * (len(group) - 1) / len(group) for group in groups for edit in group)
    total = sum(float(np.var([edit.value for edit in group])) * len(group) for group in groups)
    return min(1.0, noise / total) if total > 0 else None


def _agreement(groups: Mapping[str, Sequence[ScoredEdit]]) -> list[Metric]:
    """For every k of which all edits have two disjoint sets of traces."""
    fewest = min(len(edit.traces) for group in groups.values() for edit in group)
    found = []
    for k in range(1, fewest // 2 + 1):
        credits, names = [], []
        for name, group in groups.items():
            halves = [(sum(edit.traces[:k]) / k, sum(edit.traces[k : 2 * k]) / k) for edit in group]
            for (a, b), (c, d) in itertools.combinations(halves, 2):
                first, second = a - c, b - d
                is_tied = min(abs(first), abs(second)) <= TIE_TOLERANCE
                credits.append(0.5 if is_tied else float((first > 0) == (second > 0)))
                names.append(name)
        found.append(to_metric("signal_agreement", share_estimate(credits, names), f"signal/agreement/k{k}", n=len(credits)))
    return found


def _against_truth(groups: Mapping[str, Sequence[ScoredEdit]]) -> list[Metric]:
    margins, names = [], []
    scores, truths = [], []
    for name, group in groups.items():
        known = [(edit.value, edit.truth) for edit in group if edit.truth is not None]
        for (a, x), (b, y) in itertools.combinations(known, 2):
            if abs(x - y) > TIE_TOLERANCE:
                margins.append((a - b) * math.copysign(1, x - y))
                names.append(name)
        if len(known) > 1:
            value, truth = np.array(known).T
            scores.append(value - value.mean())
            truths.append(truth - truth.mean())
    if not margins:
        return []
    value, truth = np.concatenate(scores), np.concatenate(truths)
    size = float(np.linalg.norm(value) * np.linalg.norm(truth))
    advantage = float(value @ truth) / size if size > 0 else None
    return [
        *accuracy_metrics("signal_order", np.array(margins), names, "signal/order"),
        Metric("signal_advantage", advantage, n=len(value), protocol="signal/advantage", num_clusters=len(scores)),
    ]
