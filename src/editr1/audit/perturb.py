"""Error propagation: bad principles go in, and how far the score moves comes out.

The paper leaves open how errors of the decomposition reach the score. Here the principles of each edit are damaged in a known way,
the edit is judged again with the same seeds, and three things are compared with the undamaged judgement: the score, the
accuracy on human pairs, and the verdicts on the principles that were left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from tqdm import tqdm

from editr1.judge.item import Judge, RewardItem
from editr1.schema import CATEGORIES, Label, Metric, Principle, Reward, derive_seed
from editr1.stats import Difference, Estimate, half_credit, mean_estimate, paired_difference, share_estimate, to_margins

Damage = Literal["drop", "duplicate", "negate", "swap_category", "replace"]
CHUNK = 128  # ours: edits a call


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged set of principles, and where each of them comes from."""

    principles: tuple[Principle, ...]
    origins: tuple[int | None, ...]
    """Index of the original principle whose answer must not change; None for those that were touched or are foreign."""


def damage(
    principles: Sequence[Principle], kind: Damage, rng: np.random.Generator, foreign: Sequence[Principle], amount: int = 1
) -> Damaged:
    """The principles after `amount` of them were damaged, drawn by `rng`; the rest keeps its order.

    At least one principle stays as it was. `foreign` are another task's principles, for `replace`.

    >>> kept = damage([Principle("a?", "follow"), Principle("b?", "keep")], "drop", np.random.default_rng(0), [])
    >>> len(kept.principles)
    1
    """
    amount = min(amount, len(principles) - 1)
    chosen = set(rng.choice(len(principles), size=amount, replace=False).tolist()) if amount > 0 else set()
    foreigners = [foreign[int(index)] for index in rng.permutation(len(foreign))[:amount]]
    rows: list[tuple[Principle, int | None]] = []
    for index, principle in enumerate(principles):
        if index not in chosen:
            rows.append((principle, index))
        elif kind == "duplicate":
            rows += [(principle, index), (principle, index)]
        elif kind == "negate":
            rows.append((negated(principle), None))
        elif kind == "swap_category":
            others = [category for category in CATEGORIES if category != principle.category]
            rows.append((replace(principle, category=others[int(rng.integers(len(others)))]), index))
        elif kind == "replace" and foreigners:
            rows.append((foreigners.pop(), None))
    return Damaged(tuple(principle for principle, _ in rows), tuple(origin for _, origin in rows))


def negated(principle: Principle) -> Principle:
    """The question turned around: a decomposer's worst slip, since the right answer becomes no.

    >>> negated(Principle("Is the sky purple?", "follow")).question
    'Is it untrue that the answer to "Is the sky purple?" is yes?'
    """
    return replace(principle, question=f'Is it untrue that the answer to "{principle.question}" is yes?')


KINDS: tuple[Damage, ...] = ("drop", "duplicate", "negate", "swap_category", "replace")


@dataclass(frozen=True, slots=True)
class PerturbCase:
    """One edit whose principles will be damaged."""

    item: RewardItem
    """With principles, and with an id."""
    task_id: str
    gold: tuple[bool, ...] | None = None
    """True verdicts where an inspector gave them."""


@dataclass(frozen=True, slots=True)
class PairOfCases:
    """A human's decisive choice between two of the cases, by their ids."""

    a: str
    b: str
    label: Label
    task_id: str


@dataclass(frozen=True, slots=True)
class Propagation:
    """What one kind of damage did, each figure with its interval; None where the data cannot say."""

    kind: Damage
    num_edits: int
    num_unscored: int
    """Edits that lack a score before or after the damage, left out of all figures."""
    score_change: Difference | None
    """Points: after minus before."""
    score_movement: Estimate | None
    """Points: mean absolute change."""
    pair_change: Difference | None
    """Pair accuracy after minus before, ties half."""
    verdict_change: Difference | None
    """Agreement with gold on the principles left alone, after minus before."""
    verdict_flips: Estimate | None
    """Share of the verdicts on principles left alone that turned around."""

    def metrics(self) -> list[Metric]:
        """The figures as metrics named `propagation/<kind>/<figure>`."""
        figures: dict[str, Difference | Estimate | None] = {
            "score_change": self.score_change,
            "score_movement": self.score_movement,
            "pair_accuracy_change": self.pair_change,
            "verdict_accuracy_change": self.verdict_change,
            "verdict_flips": self.verdict_flips,
        }
        return [_metric(f"propagation/{self.kind}/{name}", figure, self.num_unscored) for name, figure in figures.items() if figure]


def run_perturbation(
    judge: Judge,
    cases: Sequence[PerturbCase],
    pairs: Sequence[PairOfCases] = (),
    *,
    kinds: Sequence[Damage] = KINDS,
    amount: int = 1,
    seed: int = 0,
) -> list[Propagation]:
    """One result a kind of damage; `amount` principles of each set are touched. Raises BackendError when the judge's machine fails."""
    before = _judge(judge, [case.item for case in cases], seed, "undamaged")
    results = []
    for kind in kinds:
        damaged = _damage_all(cases, kind, amount, seed)
        items = [replace(case.item, principles=found.principles) for case, found in zip(cases, damaged, strict=True)]
        after = _judge(judge, items, seed, kind)
        results.append(_compare(kind, cases, pairs, damaged, before, after, np.random.default_rng(derive_seed(seed, "propagation", kind))))
    return results


def _damage_all(cases: Sequence[PerturbCase], kind: Damage, amount: int, seed: int) -> list[Damaged]:
    out = []
    for index, case in enumerate(cases):
        # The next case of another task lends its principles.
        lender = next((other for other in [*cases[index + 1 :], *cases[:index]] if other.task_id != case.task_id), case)
        rng = np.random.default_rng(derive_seed(seed, "damage", kind, case.task_id))  # by task: both sides of a pair suffer alike
        out.append(damage(case.item.principles or (), kind, rng, lender.item.principles or (), amount))
    return out


def _judge(judge: Judge, items: Sequence[RewardItem], seed: int, label: str) -> list[Reward]:
    rewards: list[Reward] = []
    with tqdm(total=len(items), desc=f"audit: {label}", unit="edit") as bar:
        for start in range(0, len(items), CHUNK):
            chunk = items[start : start + CHUNK]
            rewards += judge.score(chunk, seed)
            bar.update(len(chunk))
    return rewards


def _compare(
    kind: Damage,
    cases: Sequence[PerturbCase],
    pairs: Sequence[PairOfCases],
    damaged: Sequence[Damaged],
    before: Sequence[Reward],
    after: Sequence[Reward],
    rng: np.random.Generator,
) -> Propagation:
    scored = [index for index in range(len(cases)) if before[index].scored and after[index].scored]
    tasks = [cases[index].task_id for index in scored]
    old = [before[index].value for index in scored]
    new = [after[index].value for index in scored]
    moved = [abs(b - a) for a, b in zip(old, new, strict=True) if a is not None and b is not None]
    verdicts = [row for index in scored for row in _verdict_rows(cases[index], damaged[index], before[index], after[index])]
    with_gold = [row for row in verdicts if row.gold is not None]
    right = [row.before == row.gold for row in with_gold], [row.after == row.gold for row in with_gold]
    turned = [row.before != row.after for row in verdicts]
    return Propagation(
        kind,
        num_edits=len(scored),
        num_unscored=len(cases) - len(scored),
        score_change=_difference(old, new, tasks, rng),
        score_movement=mean_estimate(moved, tasks, rng=rng) if moved else None,
        pair_change=_pair_change(cases, pairs, before, after, rng),
        verdict_change=_difference(*right, [row.task_id for row in with_gold], rng),
        verdict_flips=share_estimate(np.array(turned, float), [row.task_id for row in verdicts]) if turned else None,
    )


@dataclass(frozen=True, slots=True)
class _VerdictRow:
    task_id: str
    before: bool
    after: bool
    gold: bool | None


def _verdict_rows(case: PerturbCase, damaged: Damaged, before: Reward, after: Reward) -> list[_VerdictRow]:
    """One row a principle that was left alone; none for a judge that states no verdicts."""
    if not before.rates or not after.rates:
        return []
    return [
        _VerdictRow(
            case.task_id,
            before=before.rates[origin] > 0.5,  # half the traces in doubt is doubt, and doubt is no
            after=rate > 0.5,
            gold=case.gold[origin] if case.gold else None,
        )
        for origin, rate in zip(damaged.origins, after.rates, strict=True)
        if origin is not None
    ]


def _pair_change(
    cases: Sequence[PerturbCase], pairs: Sequence[PairOfCases], before: Sequence[Reward], after: Sequence[Reward], rng: np.random.Generator
) -> Difference | None:
    decisive = [pair for pair in pairs if pair.label != "same"]
    sides = [(pair.a, pair.b) if pair.label == "a" else (pair.b, pair.a) for pair in decisive]
    margins = []
    for rewards in (before, after):
        scores = {case.item.id: reward.value for case, reward in zip(cases, rewards, strict=True)}
        margins.append(to_margins([scores[winner] for winner, _ in sides], [scores[loser] for _, loser in sides]))
    both = ~np.isnan(margins[0]) & ~np.isnan(margins[1])
    credits_before, credits_after = (half_credit(margin)[both].tolist() for margin in margins)
    return _difference(credits_before, credits_after, [pair.task_id for pair, ok in zip(decisive, both, strict=True) if ok], rng)


def _difference(
    old: Sequence[float | bool | None], new: Sequence[float | bool | None], tasks: Sequence[str], rng: np.random.Generator
) -> Difference | None:
    return paired_difference(np.array(old, float), np.array(new, float), tasks, rng=rng) if old else None


def _metric(name: str, figure: Difference | Estimate, num_unscored: int) -> Metric:
    e = figure.estimate if isinstance(figure, Difference) else figure
    p_value = figure.p_value if isinstance(figure, Difference) else None
    protocol = "propagation/paired" if isinstance(figure, Difference) else "propagation/mean"
    return Metric(name, e.value, e.low, e.high, e.n, num_unscored, protocol=protocol, p_value=p_value, num_clusters=e.num_clusters)
