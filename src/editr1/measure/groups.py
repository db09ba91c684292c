"""A judge inside groups (the edits of one task): what its picks are worth, and whether it is a good reward.

**Best-of-N**: a judge picks one of N edits a task, and a referee says how good the pick is, beside the baselines.
The judge's number alone says little: a random pick, the best single editor and the oracle (the referee picks for itself) show how much
of the possible gain it earned. Protocols: `best-of-n/{judge,random,best-editor,oracle,gain}`; the gain over random is paired by task.
Edits and scores come from judged files of several editors, or from a run's own pairs: every number was judged and stored before. A task
with an edit that the referee has not scored is left out and counted: without it neither the random pick nor the oracle is known.

**A good reward** tells the edits of one task apart, in the right order, beyond its own noise: group-relative RL learns from differences
inside a group and from nothing else. Over groups of two or more scored edits; protocols `signal/...`, intervals of groups:

    spread            mean over groups of the standard deviation of the scores, in score points
    flat              share of groups in which all edits score the same: no gradient
    noise             share of the variance inside groups that another draw of the traces would not repeat, in [0, 1]: sum over edits of
                      the traces' variance / K, over the variance of the scores; None for a judge without traces
    agreement/k<k>    two means of k traces each order a pair of a group alike: 1, .5 for a tie in either, 0
    order/...         accuracy on pairs of a group that the truth (people, an oracle) orders: half, strict, non-tied
    advantage         correlation of the scores with the truth inside groups, pooled: what a step along the advantage gains of what a step
                      along the truth would gain; `advantage/group-std` after dividing by each group's own standard deviation
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from editr1.bench.base import JudgedEdit, Outcome
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, to_metric
from editr1.schema import Metric, PreferencePair, derive_seed
from editr1.stats import TIE_TOLERANCE, Estimate, mean_estimate, paired_difference, share_estimate
from editr1.stats.agreement import deviations, pooled_correlation
from editr1.stats.clusters import Floats, from_sums
from editr1.stats.intervals import tested_mean, within


@dataclass(frozen=True, slots=True)
class Choice:
    """One edit that could be picked."""

    editor: str
    score: float | None
    """The judge's; None = unscored, never picked while another edit has a score."""
    truth: float
    """The referee's, on any scale."""
    key: str = ""
    """Names the edit where picks are listed."""


def pick_value(group: Sequence[Choice]) -> float:
    """Truth of the judge's pick: the mean over edits that share its highest score, for no order among them is the judge's.

    Without any score the judge picked nothing, and the value is that of a random pick.

    >>> pick_value([Choice("x", 9.0, 1.0), Choice("y", 9.0, 0.0), Choice("z", None, 5.0)])
    0.5
    """
    return fmean([choice.truth for choice in picked(group) or group])


def picked(group: Sequence[Choice]) -> list[Choice]:
    """The edits that share the judge's highest score; none when it scored none."""
    scores = [choice.score for choice in group if choice.score is not None]
    return [choice for choice in group if choice.score is not None and choice.score >= max(scores) - TIE_TOLERANCE]


def best_of_n(groups: Sequence[Sequence[Choice]], seed: int = 0) -> list[Metric]:
    """The judge's picks and the baselines, each with its interval over tasks. groups: one a task, at least one edit each.

    The best single editor is the one of the highest mean among those that serve every task; it is chosen on the same tasks, which
    flatters it. Raises DataError for no task or an empty one.
    """
    if not groups or not all(groups):
        raise DataError("best-of-N needs at least one task, and at least one edit a task")
    values = {
        "judge": [pick_value(group) for group in groups],
        "random": [fmean([choice.truth for choice in group]) for group in groups],
        "oracle": [max(choice.truth for choice in group) for group in groups],
    }
    editor = _best_editor(groups)
    if editor is not None:
        values["best-editor"] = [fmean([choice.truth for choice in group if choice.editor == editor]) for group in groups]
    num_unscored = sum(choice.score is None for group in groups for choice in group)
    found = []
    for name, value in values.items():
        estimate = mean_estimate(value, rng=np.random.default_rng(derive_seed(seed, "best-of-n", name)))
        metric_name = "best_of_n/" + name.replace("-", "_")
        found.append(to_metric(metric_name, estimate, f"best-of-n/{name}", n=len(groups), num_unscored=num_unscored))
    rng = np.random.default_rng(derive_seed(seed, "best-of-n", "gain"))
    gain = paired_difference(values["random"], values["judge"], rng=rng)
    return [*found, to_metric("best_of_n/gain", gain, "best-of-n/gain")]


def _best_editor(groups: Sequence[Sequence[Choice]]) -> str | None:
    everywhere = set.intersection(*({choice.editor for choice in group} for group in groups))
    means = {editor: fmean([choice.truth for group in groups for choice in group if choice.editor == editor]) for editor in everywhere}
    return max(sorted(means), key=lambda editor: means[editor]) if means else None


@dataclass(frozen=True, slots=True)
class Groups:
    """Edits to choose from, by task, and what was left out."""

    tasks: dict[str, list[Choice]]
    num_without_referee: int = 0
    """Tasks with an edit that the referee did not score."""
    num_alone: int = 0
    """Tasks with fewer than two edits, or that not every editor has."""


def from_outcomes(editors: Mapping[str, tuple[Sequence[Outcome], Sequence[Outcome]]]) -> Groups:
    """One edit an editor and task. editors: {editor: (the judge's rows, the referee's rows)}, rows of single edits.

    Raises DataError for fewer than two editors, for credits of pairs, and when the files have no task in common.
    """
    if len(editors) < 2:
        raise DataError(f"best-of-N chooses among the edits of several editors; found {len(editors)}: give --edits at least twice")
    tables: dict[str, tuple[dict[str, Outcome], dict[str, Outcome]]] = {}
    for editor, (judge, referee) in editors.items():
        if any(row.unit != "score" for row in (*judge, *referee)):
            raise DataError(f"editor {editor}: the rows are credits of pairs, not scores of edits; judge a benchmark of single edits")
        tables[editor] = ({row.key: row for row in judge}, {row.key: row for row in referee})
    keys = {key for judge, _ in tables.values() for key in judge}
    common = [key for key in sorted(keys) if all(key in judge and key in referee for judge, referee in tables.values())]
    if not common:
        raise DataError("the files have no sample in common: they are of different benchmarks, sets or versions")
    tasks, num_without = {}, 0
    for key in common:
        group = [
            Choice(editor, judge[key].value, truth, editor)
            for editor, (judge, referee) in tables.items()
            if (truth := referee[key].value) is not None
        ]
        if len(group) == len(tables):
            tasks[key] = group
        else:
            num_without += 1
    return Groups(tasks, num_without, len(keys) - len(common))


def from_pairs(pairs: Sequence[PreferencePair], judged: Mapping[str, JudgedEdit]) -> Groups:
    """The edits of each task that people compared; truth is the share of its pairs that an edit won, a pair called "same" counting half."""
    credits: dict[str, dict[str, list[float]]] = {}
    editors: dict[str, str] = {}
    for pair in pairs:
        of_task = credits.setdefault(pair.task.id, {})
        for side, edit in (("a", pair.a), ("b", pair.b)):
            of_task.setdefault(edit.id, []).append(0.5 if pair.label == "same" else float(pair.label == side))
            editors[edit.id] = edit.editor
    tasks = {
        task: [
            Choice(editors[edit], judged[edit].value if edit in judged else None, sum(won) / len(won), edit)
            for edit, won in of_task.items()
        ]
        for task, of_task in credits.items()
    }
    return Groups({task: group for task, group in tasks.items() if len(group) > 1}, 0, sum(len(group) < 2 for group in tasks.values()))


# --- whether a judge is a good reward -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoredEdit:
    """One edit of a group."""

    value: float
    """The judge's, in points."""
    traces: tuple[float, ...] = ()
    """Scores of the readable traces whose mean `value` is, in the order in which they were drawn."""
    truth: float | None = None
    """On any scale, the same for all edits of a group."""


def signal_of_pairs(pairs: Sequence[PreferencePair], judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
    """All numbers of one judge about the edits that people compared, by task; the truth is the share of its pairs that an edit won.

    Raises DataError as `signal_metrics` does, and where no such edit was judged.
    """
    groups = from_pairs(pairs, judged).tasks
    if not any(choice.key in judged for group in groups.values() for choice in group):
        raise DataError("none of these pairs' edits was judged")
    scored = {
        task: [
            ScoredEdit(choice.score, tuple(score for score in judged[choice.key].scores if score is not None), choice.truth)
            for choice in group
            if choice.score is not None
        ]
        for task, group in groups.items()
    }
    return signal_metrics(scored, sum(choice.score is None for group in groups.values() for choice in group), seed)


def signal_metrics(groups: Mapping[str, Sequence[ScoredEdit]], num_unscored: int = 0, seed: int = 0) -> list[Metric]:
    """All numbers of one judge. groups: the scored edits by task. Raises DataError where no group has two scored edits."""
    kept = {name: list(group) for name, group in groups.items() if len(group) > 1}
    if not kept:
        raise DataError("no group has two scored edits; a reward is judged by how it tells the edits of one task apart")
    rng = np.random.default_rng(derive_seed(seed, "signal"))
    spreads = [float(np.std([edit.value for edit in group], ddof=1)) for group in kept.values()]
    flat = [float(np.ptp([edit.value for edit in group]) <= TIE_TOLERANCE) for group in kept.values()]
    num_edits = sum(map(len, kept.values()))
    return [
        to_metric("signal_spread", mean_estimate(spreads, rng=rng), "signal/spread", n=num_edits, num_unscored=num_unscored),
        to_metric("signal_flat", share_estimate(flat), "signal/flat", n=len(kept)),
        to_metric("signal_noise", noise_share(list(kept.values()), rng), "signal/noise", n=num_edits),
        *_agreement(kept),
        *_against_truth(kept, rng),
    ]


def noise_share(groups: Sequence[Sequence[ScoredEdit]], rng: np.random.Generator) -> Estimate | None:
    """Variance of the mean of an edit's traces over the variance of the scores inside groups, at most 1.

    None where an edit has fewer than two traces, and where no group has any variance.
    """
    if any(len(edit.traces) < 2 for group in groups for edit in group):
        return None
    noise_G = [sum(float(np.var(e.traces, ddof=1)) / len(e.traces) for e in group) * (len(group) - 1) / len(group) for group in groups]
    total_G = [float(np.square(deviations([edit.value for edit in group])).sum()) for group in groups]
    if sum(total_G) == 0:
        return None
    sums = from_sums(np.array(noise_G), np.array(total_G), np.zeros(len(groups), dtype=np.intp))
    return within(tested_mean(sums, rng), 0.0)


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


def _against_truth(groups: Mapping[str, Sequence[ScoredEdit]], rng: np.random.Generator) -> list[Metric]:
    margins, names = [], []
    inside: list[tuple[Floats, Floats]] = []
    for name, group in groups.items():
        known = [(edit.value, edit.truth) for edit in group if edit.truth is not None]
        for (a, x), (b, y) in itertools.combinations(known, 2):
            if abs(x - y) > TIE_TOLERANCE:
                margins.append((a - b) * math.copysign(1, x - y))
                names.append(name)
        if len(known) > 1:
            value, truth = np.array(known).T
            inside.append((deviations(value), deviations(truth)))
    if not margins:
        return []
    n = sum(len(value) for value, _ in inside)
    shrunk = [(value / max(float(value.std(ddof=1)), TIE_TOLERANCE), truth) for value, truth in inside]
    return [
        *accuracy_metrics("signal_order", np.array(margins), names, "signal/order"),
        to_metric("signal_advantage", pooled_correlation(inside, rng), "signal/advantage", n=n),
        to_metric("signal_advantage_group_std", pooled_correlation(shrunk, rng), "signal/advantage/group-std", n=n),
    ]
