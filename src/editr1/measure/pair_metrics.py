"""Pair accuracy on preference pairs: does the judge agree with the people?

Scores in, `Metric`s out; how the scores came about (avg@K, greedy, which prompt) is the caller's, and travels in the protocol
id. The paper (section 4) removes pairs labelled "same" and counts a pair as right when the preferred edit scores higher.
Protocol ids: `<protocol>/half`, `<protocol>/strict`, `<protocol>/non-tied`, for example `pairs/avg4/half`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics
from editr1.schema import Metric, PreferencePair, derive_seed
from editr1.stats import Estimate, half_credit, paired_difference, pairwise_report, to_margins
from editr1.stats.clusters import Floats

Scores = Sequence[float | None]
"""One a pair, in the order of the pairs; tau in [0, 10], None = unscored."""


def decisive(pairs: Sequence[PreferencePair]) -> list[int]:
    """Positions of the pairs that are not labelled "same"."""
    return [i for i, pair in enumerate(pairs) if pair.label != "same"]


def pair_margins(pairs: Sequence[PreferencePair], scores_a: Scores, scores_b: Scores) -> Floats:
    """`[D]` score of the preferred side minus the other, for the decisive pairs; nan = unscored.

    Raises DataError when the scores do not belong to the pairs.
    """
    if not len(pairs) == len(scores_a) == len(scores_b):
        raise DataError(f"{len(pairs)} pairs, {len(scores_a)} scores of side a and {len(scores_b)} of side b: expected one score a side")
    sides = [(scores_a[i], scores_b[i]) if pairs[i].label == "a" else (scores_b[i], scores_a[i]) for i in decisive(pairs)]
    return to_margins([winner for winner, _ in sides], [loser for _, loser in sides])


def pair_metrics(
    name: str, pairs: Sequence[PreferencePair], scores_a: Scores, scores_b: Scores, protocol: str, seed: int = 0
) -> list[Metric]:
    """Half-credit, strict and non-tied accuracy with intervals by task.

    `name` such as `pair_accuracy/sft` names the half-credit number; `pair_accuracy_strict/sft` and
    `pair_accuracy_non_tied/sft` stand beside it. Each carries n (decisive pairs), unscored pairs and the tie rate;
    `by_category` is the half-credit accuracy per edit kind. Nothing that counts gives value None, not 0.
    """
    margin_D = pair_margins(pairs, scores_a, scores_b)
    tasks = [pairs[i].task for i in decisive(pairs)]
    return accuracy_metrics(name, margin_D, [task.id for task in tasks], protocol, kinds=[task.kind for task in tasks])


def paired_gain(
    name: str,
    pairs: Sequence[PreferencePair],
    before: Sequence[tuple[Scores, Scores]],
    after: Sequence[tuple[Scores, Scores]],
    protocol: str,
    seed: int = 0,
    goal: str = "",
) -> Metric:
    """Half-credit accuracy of `after` minus `before` on the same decisive pairs: difference, interval and p, by task.

    before, after: readings of one judge, each (scores of side a, scores of side b); a pair's credit is the mean over them.
    Without a decisive pair the value is None.
    """
    margins = [np.stack([pair_margins(pairs, *reading) for reading in readings]) for readings in (before, after)]
    tasks = [pairs[i].task.id for i in decisive(pairs)]
    num_unscored = max(pairwise_report(margin_D).num_unscored for margin_RD in margins for margin_D in margin_RD)
    if not tasks:
        return Metric(name, None, protocol=f"{protocol}/half/paired", goal=goal)
    rng = np.random.default_rng(derive_seed(seed, name, protocol))
    credit_D, new_credit_D = (half_credit(margin_RD).mean(axis=0) for margin_RD in margins)
    result = paired_difference(credit_D, new_credit_D, tasks, rng=rng)
    estimate: Estimate = result.estimate
    return Metric(
        name,
        estimate.value,
        estimate.low,
        estimate.high,
        n=len(tasks),
        num_unscored=num_unscored,
        protocol=f"{protocol}/half/paired",
        p_value=result.p_value,
        goal=goal,
        num_clusters=estimate.num_clusters,
    )
