"""From the cells' scores to the table: accuracies with intervals, paired tests, and whether each claim holds.

Seeds are pooled: every seed has tasks of its own, so an interval takes whole tasks of all seeds, and the exact
McNemar test counts the discordant pairs of all seeds. Its p values stand in the table as they are and adjusted by Holm over all
comparisons. A claim reads the former: it holds only if every one of its steps does (an intersection-union test), so what else the table
compares cannot change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from editr1.measure.metrics import decisive, pair_margins
from editr1.schema import MAX_SCORE, PreferencePair, decided, derive_seed
from editr1.stats import (
    Estimate,
    half_credit,
    holm,
    mcnemar,
    mean_estimate,
    paired_difference,
    pairwise_report,
    share_estimate,
    strict_credit,
)
from editr1.stats.clusters import Floats
from editr1.study.cells import Scored
from editr1.study.config import Claim, Config


@dataclass(frozen=True)
class Answers:
    """A cell's answers of all seeds, pooled. Margins and tasks run over the decisive pairs, scores over the edits."""

    margins: Floats
    """`[D]` score of the preferred edit minus the other; nan = unscored."""
    one_trace_KD: Floats
    """The same margins by each trace alone; K = 0 where the judge's traces are not known."""
    tasks: tuple[str, ...]
    """`[D]`, what resampling draws."""
    scores: dict[str, float | None]
    """By seed and edit."""
    task_of: dict[str, str]
    """Task of each edit."""
    num_rows: int
    """Training rows of one seed, the mean over seeds."""
    steps: int
    seeds: tuple[int, ...]
    by_seed: dict[int, float]
    """Half-credit accuracy of each seed alone."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    cell: str
    about: str
    half: Estimate
    """Accuracy with ties and unscored pairs at half."""
    strict: Estimate
    """Accuracy with ties and unscored pairs wrong: what McNemar tests."""
    one_trace: Estimate | None
    """As `half` for one trace an edit: the mean over the K traces."""
    tie_rate: float | None
    num_unscored: int
    score: Estimate | None
    """Mean score of an edit, in [0, 10]."""
    num_rows: int
    steps: int
    by_seed: dict[int, float]


@dataclass(frozen=True)
class Test:
    """b against a on the same pairs."""

    a: str
    b: str
    gain: Estimate
    """Half-credit accuracy of b minus a."""
    only_a: int
    only_b: int
    """Pairs that only b has right (strict)."""
    p: float
    """Exact McNemar."""
    p_holm: float
    """Adjusted over all comparisons of the table."""
    one_trace: Estimate | None
    """`gain` and its sign-flip p for one trace an edit: the mean over the K traces."""
    stricter: Estimate | None
    """Mean score of b minus a on the same edits."""


@dataclass(frozen=True)
class Verdict:
    """A claim against the numbers."""

    id: str
    measure: str
    value: float | None
    """The smallest gain of its steps; None where a cell is missing."""
    n: int
    goal: str
    holds: bool | None
    """By the whole interval of every step; None = not measured yet, or not decided: `why` says which."""
    why: str
    """The figure that decides each condition."""

    def line(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"claim": self.id} | {name: getattr(self, name) for name in ("measure", "value", "n", "goal", "holds", "why")}


@dataclass(frozen=True)
class Table:
    """Everything that is reported."""

    rows: tuple[Row, ...]
    tests: tuple[Test, ...]
    verdicts: tuple[Verdict, ...]


def build(config: Config, scored: Mapping[str, Mapping[int, Scored]]) -> Table:
    """The table of what is finished. scored: cell -> seed -> answers; cells and seeds may be missing.

    Two cells are compared on the seeds that both have.
    """
    pooled = {name: pool(by_seed) for name, by_seed in scored.items() if by_seed}
    rows = tuple(_row(name, config.cells[name].about, answers) for name, answers in pooled.items())
    compared: list[tuple[str, str, Answers, Answers]] = []
    for a, b in config.comparisons:
        if common := sorted(scored.get(a, {}).keys() & scored.get(b, {}).keys()):
            x, y = (pool({seed: scored[name][seed] for seed in common}) for name in (a, b))
            compared.append((a, b, x, y))
    tests = _tests(compared)
    return Table(rows, tests, tuple(judge_claim(claim, pooled, tests) for claim in config.claims))


def pool(by_seed: Mapping[int, Scored]) -> Answers:
    """The answers of several seeds as one."""
    margins: list[Floats] = []
    one_trace: list[Floats] = []
    tasks: list[str] = []
    scores: dict[str, float | None] = {}
    task_of: dict[str, str] = {}
    accuracies = {}
    for seed, found in sorted(by_seed.items()):
        pairs = found.pairs.pairs
        values = {key: edit.value for key, edit in found.judged.items()}
        margin_D = _margins(pairs, values)
        margins.append(margin_D)
        one_trace.append(_one_trace_margins(found))
        tasks += [f"{seed}/{pairs[i].task.id}" for i in decisive(pairs)]
        edits = {edit.id: pair.task.id for pair in pairs for edit in (pair.a, pair.b)}
        scores |= {f"{seed}/{key}": values.get(key) for key in edits}
        task_of |= {f"{seed}/{key}": f"{seed}/{task}" for key, task in edits.items()}
        accuracies[seed] = float(half_credit(margin_D).mean())
    num_rows = round(float(np.mean([found.num_rows for found in by_seed.values()])))
    steps = max(found.steps for found in by_seed.values())
    num_traces = min(len(margin_KD) for margin_KD in one_trace)
    one_trace_KD = np.concatenate([margin_KD[:num_traces] for margin_KD in one_trace], axis=1)
    seeds = tuple(sorted(by_seed))
    return Answers(np.concatenate(margins), one_trace_KD, tuple(tasks), scores, task_of, num_rows, steps, seeds, accuracies)


def _margins(pairs: Sequence[PreferencePair], values: Mapping[str, float | None]) -> Floats:
    return pair_margins(pairs, [values.get(p.a.id) for p in pairs], [values.get(p.b.id) for p in pairs])


def _one_trace_margins(found: Scored) -> Floats:
    """`[K, D]`: the margins by the first trace of every edit, by the second, and so on; K = 0 where no trace is known."""
    num_traces = max((len(edit.scores) for edit in found.judged.values()), default=0)
    pairs = found.pairs.pairs
    rows = [
        _margins(pairs, {key: edit.scores[k] if k < len(edit.scores) else None for key, edit in found.judged.items()})
        for k in range(num_traces)
    ]
    return np.stack(rows) if rows else np.empty((0, len(decisive(pairs))))


def _credit_of_one_trace(answers: Answers) -> Floats:
    """`[D]` half credit of one trace an edit, the mean over the K traces."""
    return half_credit(answers.one_trace_KD).mean(axis=0)


def _row(name: str, about: str, answers: Answers) -> Row:
    report = pairwise_report(answers.margins)
    half, strict = (share_estimate(credit(answers.margins), answers.tasks) for credit in (half_credit, strict_credit))
    known = {key: value for key, value in answers.scores.items() if value is not None}
    tasks = [answers.task_of[key] for key in known]
    score = mean_estimate(list(known.values()), tasks, rng=_rng(name, "score"), top=MAX_SCORE) if known else None
    one_trace = mean_estimate(_credit_of_one_trace(answers), answers.tasks, rng=_rng(name, "one")) if len(answers.one_trace_KD) else None
    return Row(
        name, about, half, strict, one_trace, report.tie_rate, report.num_unscored, score, answers.num_rows, answers.steps, answers.by_seed
    )


def _tests(compared: Sequence[tuple[str, str, Answers, Answers]]) -> tuple[Test, ...]:
    raw = [mcnemar(strict_credit(x.margins) > 0, strict_credit(y.margins) > 0) for _, _, x, y in compared]
    adjusted = [p for p in holm([test.p_value for test in raw]) if p is not None]
    return tuple(
        _test(a, b, x, y, (test.only_a, test.only_b, test.p_value, p))
        for (a, b, x, y), test, p in zip(compared, raw, adjusted, strict=True)
    )


def _test(a: str, b: str, x: Answers, y: Answers, counts: tuple[int, int, float, float]) -> Test:
    gain = paired_difference(half_credit(x.margins), half_credit(y.margins), x.tasks, rng=_rng(a, b, "gain"))
    change = _score_change(x, y, _rng(a, b, "score"))
    one_trace = None
    if len(x.one_trace_KD) and len(y.one_trace_KD):
        one_trace = paired_difference(_credit_of_one_trace(x), _credit_of_one_trace(y), x.tasks, rng=_rng(a, b, "one"))
    return Test(a, b, gain, *counts, one_trace, change)


def _score_change(x: Answers, y: Answers, rng: np.random.Generator) -> Estimate | None:
    """Mean score of y minus that of x on the edits that both scored; None where there is none."""
    both = [(key, first, second) for key, first in x.scores.items() if first is not None and (second := y.scores[key]) is not None]
    if not both:
        return None
    tasks = [x.task_of[key] for key, _, _ in both]
    return paired_difference([first for _, first, _ in both], [second for _, _, second in both], tasks, rng=rng)


def judge_claim(claim: Claim, answers: Mapping[str, Answers], tests: Sequence[Test]) -> Verdict:
    """Whether every condition of the claim is met; None while a step is not measured."""
    by_step = {(test.a, test.b): test for test in tests}
    goal = _goal(claim)
    missing = [f"{b} over {a}" for a, b in claim.steps if (a, b) not in by_step]
    if missing:
        return Verdict(claim.id, claim.measure, None, 0, goal, None, f"not measured: {', '.join(missing)}")
    found = [by_step[step] for step in claim.steps]
    conditions = [_meets(claim, test, answers) for test in found]
    why = "; ".join(text for _, text in conditions)
    gains = [_gain(claim, test) for test in found]
    smallest = min((gain for gain, _ in gains if gain is not None), key=lambda gain: gain.value, default=None)
    value, n = (smallest.value, smallest.n) if smallest else (None, 0)
    return Verdict(claim.id, claim.measure, value, n, goal, _all(met for met, _ in conditions), why)


def _gain(claim: Claim, test: Test) -> tuple[Estimate | None, float | None]:
    """The gain that a claim speaks of, and its p; None where single traces are not known or one task allows no p."""
    if not claim.one_trace:
        return test.gain, test.p
    return (test.one_trace, test.one_trace.p_value) if test.one_trace else (None, None)


def _goal(claim: Claim) -> str:
    parts = [f"every gain above {claim.min_gain:g} (whole interval)"]
    if claim.p_below is not None:
        parts.append(f"each {'sign-flip' if claim.one_trace else 'McNemar'} p < {claim.p_below:g}")
    if claim.stricter:
        parts.append("mean score lower")
    if claim.max_data_share is not None:
        parts.append(f"at most {claim.max_data_share:.0%} of the rows")
    return ", ".join(parts)


def _all(conditions: Iterable[bool | None]) -> bool | None:
    """False where one condition fails, else None where one is not decided."""
    found = set(conditions)
    return False if False in found else None if None in found else True


def _meets(claim: Claim, test: Test, answers: Mapping[str, Answers]) -> tuple[bool | None, str]:
    """Whether one step meets the claim's conditions, None where the gain's interval does not decide, and its figures."""
    gain, p = _gain(claim, test)
    if gain is None:
        return False, f"{test.b} over {test.a}: the scores of single traces are not known"
    met = [decided(gain.low, gain.high, claim.min_gain)]
    span = "" if gain.low is None or gain.high is None else f" ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    text = f"{test.b} over {test.a} {100 * gain.value:+.1f} points{span}, p = {'-' if p is None else f'{p:.2g}'}"
    if claim.p_below is not None:
        met.append(p is not None and p < claim.p_below)
    if claim.stricter:
        lower = test.stricter
        fell = None if lower is None else decided(lower.low, lower.high, 0.0)
        met.append(None if fell is None else not fell)
        text += f", mean score {test.stricter.value:+.2f}" if test.stricter else ", no score in common"
    if claim.max_data_share is not None:
        share = answers[test.b].num_rows / answers[test.a].num_rows
        met.append(share <= claim.max_data_share)
        text += f", {share:.1%} of the rows"
    return _all(met), text


def _rng(*parts: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(0, "matrix", *parts))
