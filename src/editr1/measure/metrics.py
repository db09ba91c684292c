"""From credits and scores to metrics with their proof: what benchmarks share of arithmetic, and accuracy on preference pairs.

Scores in, `Metric`s out; how the scores came about (avg@K, greedy, which prompt) is the caller's, and travels in the protocol id. The
paper (section 4) removes pairs labelled "same" and counts a pair as right when the preferred edit scores higher.

Judges that see both edits prefer a place: one that always answers "first" has accuracy .5 in the mean of both orders, consistency 0 and
first share 1: `<benchmark>/pairwise/{mean-of-orders,both-right,half,consistency,first-share}`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from editr1.bench.base import ComparisonItem, JudgedPair, Outcome
from editr1.errors import DataError
from editr1.schema import Label, Metric, PreferencePair, derive_seed
from editr1.stats import (
    Credit,
    Estimate,
    accuracy,
    half_credit,
    mean_estimate,
    paired_difference,
    pairwise_report,
    share_estimate,
    strict_credit,
    to_margins,
)
from editr1.stats.calibration import three_class
from editr1.stats.clusters import Floats

Scores = Sequence[float | None]
"""One a pair, in the order of the pairs; tau in [0, 10], None = unscored."""


CREDITS: tuple[Credit, ...] = ("half", "strict", "non_tied")


def accuracy_metrics(
    name: str,
    margins: Floats,
    clusters: Sequence[Hashable],
    protocol: str,
    *,
    kinds: Sequence[str] | None = None,
    macro: bool = False,
) -> list[Metric]:
    """Half-credit, strict and non-tied pair accuracy as metrics with intervals by cluster.

    margins: `[N]` preferred minus other, nan = unscored. kinds: N task names, for `by_category` and, with `macro`, for the
    mean of task accuracies. `name/x` names the half-credit number, `name_strict/x` and `name_non_tied/x` stand beside it.
    Nothing that counts gives value None, not 0.
    """
    report = pairwise_report(margins)
    values = {"half": half_credit(margins), "strict": strict_credit(margins)}
    metrics = []
    for credit in CREDITS:
        estimate = accuracy(margins, clusters, credit=credit, strata=kinds if macro else None)
        metrics.append(
            to_metric(
                with_suffix(name, "" if credit == "half" else f"_{credit}"),
                estimate,
                f"{protocol}/{credit.replace('_', '-')}" + (f"/macro{len(set(kinds))}" if macro and kinds else ""),
                n=report.n,
                num_unscored=report.num_unscored,
                tie_rate=report.tie_rate,
                by_category=by_kind(values[credit], kinds) if credit in values else {},
            )
        )
    return metrics


def three_class_metrics(
    name: str, gaps: Floats, signs: Sequence[int], clusters: Sequence[Hashable], protocol: str, seed: int = 0
) -> list[Metric]:
    """Three-class accuracy of scores at a cross-fitted epsilon with its interval, at an in-sample epsilon, and the floor of the latter.

    gaps: `[N]` a - b, nan = unscored. signs: N labels, +1: a is better, -1: b is, 0: same. Fewer than two clusters leave nothing to
    tune on, and the values are None.
    """
    kinds = {"cross-fitted": f"{name}_three_class", "in-sample": f"{name}_tie_calibrated", "floor": f"{name}_always_tie"}
    if len(set(clusters)) < 2:
        num_unscored = int(np.isnan(gaps).sum())
        return [Metric(n, None, n=len(gaps), num_unscored=num_unscored, protocol=f"{protocol}/{kind}") for kind, n in kinds.items()]
    classes = three_class(gaps, signs, clusters, rng=np.random.default_rng(derive_seed(seed, protocol)))
    estimate = share_estimate(classes.credit, clusters)
    n, num_unscored = classes.n, classes.num_unscored
    return [
        to_metric(kinds["cross-fitted"], estimate, f"{protocol}/cross-fitted", n=n, num_unscored=num_unscored),
        Metric(kinds["in-sample"], classes.in_sample, n=n, num_unscored=num_unscored, protocol=f"{protocol}/in-sample"),
        Metric(kinds["floor"], classes.always_tie, n=n, protocol=f"{protocol}/floor"),
    ]


def to_metric(
    name: str,
    estimate: Estimate | None,
    protocol: str,
    *,
    n: int | None = None,
    num_unscored: int = 0,
    tie_rate: float | None = None,
    by_category: Mapping[str, float] | None = None,
) -> Metric:
    """An estimate (None = nothing that counts) as a metric; n: where it is not the estimate's, as where unscored pairs have a credit."""
    kinds = dict(by_category or {})
    if estimate is None:
        return Metric(name, None, None, None, n or 0, num_unscored, tie_rate, kinds, protocol)
    e, n = estimate, estimate.n if n is None else n
    return Metric(name, e.value, e.low, e.high, n, num_unscored, tie_rate, kinds, protocol, e.p_value, num_clusters=e.num_clusters)


def by_kind(values: Floats, kinds: Sequence[str] | None) -> dict[str, float]:
    """Mean of `[N]` values per kind, kinds without a name left out.

    >>> by_kind(np.array([1.0, 0.0, 1.0]), ["add", "add", ""])
    {'add': 0.5}
    """
    grouped: dict[str, list[float]] = defaultdict(list)
    for kind, value in zip(kinds or [""] * len(values), values.tolist(), strict=True):
        if kind:
            grouped[kind].append(value)
    return {kind: float(np.mean(found)) for kind, found in sorted(grouped.items())}


def with_suffix(name: str, suffix: str) -> str:
    """The metric name with a suffix on its first part.

    >>> with_suffix("pair_accuracy/sft", "_strict")
    'pair_accuracy_strict/sft'
    """
    head, slash, tail = name.partition("/")
    return f"{head}{suffix}{slash}{tail}"


def mean_metrics(name: str, rows: Sequence[Outcome], protocol: str, *, seed: int = 0, top: float | None = None) -> list[Metric]:
    """`mean_metric`, micro and, where there are several categories, macro: `<protocol>/micro`, `<protocol>/macroN`."""
    found = [mean_metric(name, rows, f"{protocol}/micro", seed=seed, top=top)]
    if len({row.category for row in rows if row.value is not None}) > 1:
        found.append(mean_metric(with_suffix(name, "_macro"), rows, f"{protocol}/macro", macro=True, seed=seed, top=top))
    return found


def mean_metric(
    name: str,
    rows: Sequence[Outcome],
    protocol: str,
    *,
    macro: bool = False,
    seed: int = 0,
    top: float | None = None,
    num_missing: int = 0,
) -> Metric:
    """Mean score of samples with its interval by cluster, or with `macro` the mean of the means of categories, whose number ends the
    protocol.

    top: where scores lie in [0, top]. num_missing: samples that should be there; they count as unscored, as those without a value do.
    """
    scored = [(row, row.value) for row in rows if row.value is not None]
    values = np.array([value for _, value in scored])
    kinds, clusters = [row.category for row, _ in scored], [row.cluster for row, _ in scored]
    protocol += str(len(set(kinds))) if macro else ""
    head, _, tail = protocol.rpartition("/")
    rng = np.random.default_rng(derive_seed(seed, head, tail))
    estimate = mean_estimate(values, clusters, rng=rng, strata=kinds if macro else None, top=top) if scored else None
    num_unscored, kinds_mean = len(rows) - len(scored) + num_missing, by_kind(values, kinds)
    return to_metric(name, estimate, protocol, n=len(scored), num_unscored=num_unscored, by_category=kinds_mean)


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


def pair_metrics(name: str, pairs: Sequence[PreferencePair], scores_a: Scores, scores_b: Scores, protocol: str) -> list[Metric]:
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
    gain = paired_difference(credit_D, new_credit_D, tasks, rng=rng)
    return replace(to_metric(name, gain, f"{protocol}/half/paired", num_unscored=num_unscored), goal=goal)


# --- judges of pairs, asked in both orders ---------------------------------------------------------------


def pair_credit(label: Label, answer: Label | None) -> float:
    """1 for the right side, 0 for the wrong one, .5 for "same" and for no answer."""
    return 0.5 if answer in (None, "same") else float(answer == label)


PAIR_CREDITS: dict[str, Callable[[Label, Label | None, Label | None], float]] = {
    "mean-of-orders": lambda label, first, second: ((first == label) + (second == label)) / 2,
    "both-right": lambda label, first, second: float(first == label == second),
    "half": lambda label, first, second: (pair_credit(label, first) + pair_credit(label, second)) / 2,
}
"""In [0, 1]: the share of the two answers that are right ("same" and none are wrong; MMRB2 counts so); right in both orders, the strict
figure; the first with .5 for "same" and for no answer."""


def pairwise_metrics(name: str, items: Sequence[ComparisonItem], judged: Mapping[str, JudgedPair]) -> list[Metric]:
    """Accuracy of decisive pairs in three credits with intervals by cluster, consistency and position bias.

    consistency: share of the pairs with two readable answers on which both say the same. first-share: among pairs with two different
    sides chosen, how often the picture shown first won both times; .5 = no bias. A pair without an answer in an order is unscored.
    """
    chosen = [item for item in items if item.label != "same"]
    answers = [_answers(judged, item.key) for item in chosen]
    said = [answer for both in answers for answer in both if answer is not None]
    read = [both for both in answers if None not in both]
    sided = [first for first, second in read if {first, second} == {"a", "b"}]
    protocol, clusters, kinds = f"{name.replace('_', '-')}/pairwise", [item.cluster for item in chosen], [item.category for item in chosen]
    found = []
    for kind, credit in PAIR_CREDITS.items():
        values = np.array([credit(item.label, *both) for item, both in zip(chosen, answers, strict=True)])
        metric = to_metric(
            f"{name}_{kind.replace('-', '_')}",
            share_estimate(values, clusters) if chosen else None,
            f"{protocol}/{kind}",
            n=len(chosen),
            num_unscored=len(chosen) - len(read),
            tie_rate=_share([answer == "same" for answer in said]),
            by_category=by_kind(values, kinds),
        )
        found.append(metric)
    bias = {"consistency": [first == second for first, second in read], "first-share": [first == "a" for first in sided]}
    n = len(read)
    return found + [
        Metric(f"{name}_{kind.replace('-', '_')}", _share(flags), n=n, protocol=f"{protocol}/{kind}") for kind, flags in bias.items()
    ]


def pairwise_outcomes(items: Sequence[ComparisonItem], judged: Mapping[str, JudgedPair]) -> list[Outcome]:
    """One row a decisive pair: the mean credit of both orders; None where an order has no readable answer."""
    rows = []
    for item in items:
        both = _answers(judged, item.key)
        if item.label != "same":
            credit = None if None in both else PAIR_CREDITS["half"](item.label, *both)
            rows.append(Outcome(item.key, item.cluster, item.category, credit, "credit"))
    return rows


def _answers(judged: Mapping[str, JudgedPair], key: str) -> tuple[Label | None, Label | None]:
    found = judged.get(key)
    return (found.forward, found.reverse) if found else (None, None)


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
