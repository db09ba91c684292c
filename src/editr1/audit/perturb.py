"""Error propagation: bad principles go in, and how far the score moves comes out; and the record of an audit.

The paper leaves open how errors of the decomposition reach the score. Here the principles of each edit are damaged in a known way,
the edit is judged again with the same seeds, and three things are compared with the undamaged judgement: the score, the
accuracy on human pairs, and the verdicts on the principles that were left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from tqdm import tqdm

from editr1.audit.probes import ProbeRecord
from editr1.errors import DataError
from editr1.judge.item import Judge, RewardItem
from editr1.measure.metrics import to_metric
from editr1.schema import CATEGORIES, Label, Metric, Principle, Reward, derive_seed, from_json, to_json
from editr1.stats import Estimate, half_credit, mean_estimate, paired_difference, share_estimate, to_margins
from editr1.store import Run
from editr1.store._files import write_atomic

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
    """What one kind of damage did."""

    kind: Damage
    num_edits: int
    num_unscored: int
    """Edits that lack a score before or after the damage, left out of all figures."""
    metrics: tuple[Metric, ...]
    """Those of FIGURES that the data can tell, named `propagation/<kind>/<figure>`."""


FIGURES = {
    "score_change": "score, points",
    "score_movement": "score, absolute movement",
    "pair_accuracy_change": "pair accuracy",
    "verdict_accuracy_change": "accuracy of untouched verdicts",
    "verdict_flips": "untouched verdicts that turned",
}
"""Changes are after minus before, a pair's tie half; verdicts are those on principles left alone, their accuracy is against gold."""


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
    known = [(task, old == gold, new == gold) for task, old, new, gold in verdicts if gold is not None]
    num_unscored = len(cases) - len(scored)
    turned, verdict_tasks = [old != new for _, old, new, _ in verdicts], [task for task, *_ in verdicts]
    figures = {
        "score_change": _difference(old, new, tasks, rng),
        "score_movement": mean_estimate(moved, tasks, rng=rng) if moved else None,
        "pair_accuracy_change": _pair_change(cases, pairs, before, after, rng),
        "verdict_accuracy_change": _difference([old for _, old, _ in known], [new for *_, new in known], [task for task, *_ in known], rng),
        "verdict_flips": share_estimate(np.array(turned, float), verdict_tasks) if turned else None,
    }
    metrics = []
    for name, figure in figures.items():
        protocol = f"propagation/{'paired' if name.endswith('_change') else 'mean'}"
        if figure:
            metrics.append(to_metric(f"propagation/{kind}/{name}", figure, protocol, num_unscored=num_unscored))
    return Propagation(kind, len(scored), num_unscored, tuple(metrics))


def _verdict_rows(case: PerturbCase, damaged: Damaged, before: Reward, after: Reward) -> list[tuple[str, bool, bool, bool | None]]:
    """(task, verdict before, after, gold) of each principle that was left alone; none for a judge that states no verdicts."""
    if not before.rates or not after.rates:
        return []
    return [  # half the traces in doubt is doubt, and doubt is no
        (case.task_id, before.rates[origin] > 0.5, rate > 0.5, case.gold[origin] if case.gold else None)
        for origin, rate in zip(damaged.origins, after.rates, strict=True)
        if origin is not None
    ]


def _pair_change(
    cases: Sequence[PerturbCase], pairs: Sequence[PairOfCases], before: Sequence[Reward], after: Sequence[Reward], rng: np.random.Generator
) -> Estimate | None:
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
) -> Estimate | None:
    return paired_difference(np.array(old, float), np.array(new, float), tasks, rng=rng) if old else None


# --- what an audit found: `audit/<label>.json` of the run ------------------------------------------------

FOLDER = "audit"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Probes and error propagation of one judge; a part that was not run is empty."""

    label: str
    """Names the judge in the run; `[A-Za-z0-9._-]+`."""
    judge: str
    """In words: model, prompt, traces."""
    command: str
    commit: str
    """Of the code that audited; empty for an installed package."""
    edits: str = ""
    """In words: which edits were probed."""
    probes: tuple[ProbeRecord, ...] = ()
    perturbed: str = ""
    """In words: what was damaged, and what it was compared on."""
    propagation: tuple[Metric, ...] = ()

    def metrics(self) -> list[Metric]:
        """All figures, named after the judge too, so that the run keeps those of several judges."""
        found = [*(probe.metric for probe in self.probes), *self.propagation]
        return [replace(metric, name=f"{metric.name}/{self.label}") for metric in found]


def label_of(name: str) -> str:
    """A model's or judge's name as a label.

    >>> label_of("runs/demo/08_rrm_gcpo/"), label_of("my_judge:Build"), label_of("Qwen/Qwen2.5-VL-7B")
    ('08_rrm_gcpo', 'Build', 'Qwen2.5-VL-7B')
    """
    last = re.split(r"[/:]", name.rstrip("/:"))[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", last).strip("._") or "judge"


def keep(record: AuditRecord, run: Run) -> None:
    """Adds the record and its figures to the run; an earlier audit of the same label is replaced."""
    folder = run.dir / FOLDER
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{record.label}.json", (to_json(record) + "\n").encode())
    for metric in record.metrics():
        run.add_metric(metric)


def kept(run: Run) -> list[AuditRecord]:
    """Every audit that the run holds, by label. Raises DataError for a file that is none."""
    records = []
    for path in sorted((run.dir / FOLDER).glob("*.json")):
        try:
            records.append(from_json(AuditRecord, path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise DataError(f"{path} is no audit ({error}); delete it and audit again") from error
    return records
