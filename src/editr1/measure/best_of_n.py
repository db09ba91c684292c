"""Best-of-N: a judge picks one of N edits a task, and a referee says how good the pick is, beside the baselines.

The judge's number alone says little: a random pick, the best single editor and the oracle (the referee picks for itself) show how much
of the possible gain it earned. Protocols: `best-of-n/{judge,random,best-editor,oracle,gain}`; the gain over random is paired by task.

Edits and scores come from judged files of several editors, or from a run's own pairs: every number was judged and stored before. A task
with an edit that the referee has not scored is left out and counted: without it neither the random pick nor the oracle is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from editr1.bench.base import JudgedEdit, Outcome
from editr1.errors import DataError
from editr1.measure.metrics import to_metric
from editr1.schema import Metric, PreferencePair, derive_seed
from editr1.stats import mean_estimate, paired_difference


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
    return _mean([choice.truth for choice in picked(group) or group])


def picked(group: Sequence[Choice]) -> list[Choice]:
    """The edits that share the judge's highest score; none when it scored none."""
    scores = [choice.score for choice in group if choice.score is not None]
    return [choice for choice in group if choice.score == max(scores)] if scores else []


def best_of_n(groups: Sequence[Sequence[Choice]], seed: int = 0) -> list[Metric]:
    """The judge's picks and the baselines, each with its interval over tasks. groups: one a task, at least one edit each.

    The best single editor is the one of the highest mean among those that serve every task; it is chosen on the same tasks, which
    flatters it. Raises DataError for no task or an empty one.
    """
    if not groups or not all(groups):
        raise DataError("best-of-N needs at least one task, and at least one edit a task")
    values = {
        "judge": [pick_value(group) for group in groups],
        "random": [_mean([choice.truth for choice in group]) for group in groups],
        "oracle": [max(choice.truth for choice in group) for group in groups],
    }
    editor = _best_editor(groups)
    if editor is not None:
        values["best-editor"] = [_mean([choice.truth for choice in group if choice.editor == editor]) for group in groups]
    num_unscored = sum(choice.score is None for group in groups for choice in group)
    found = []
    for name, value in values.items():
        estimate = mean_estimate(value, rng=np.random.default_rng(derive_seed(seed, "best-of-n", name)))
        metric_name = "best_of_n/" + name.replace("-", "_")
        found.append(to_metric(metric_name, estimate, f"best-of-n/{name}", n=len(groups), num_unscored=num_unscored))
    rng = np.random.default_rng(derive_seed(seed, "best-of-n", "gain"))
    gain = paired_difference(values["random"], values["judge"], rng=rng)
    return [*found, to_metric("best_of_n/gain", gain.estimate, "best-of-n/gain", n=len(groups), p_value=gain.p_value)]


def _best_editor(groups: Sequence[Sequence[Choice]]) -> str | None:
    everywhere = set.intersection(*({choice.editor for choice in group} for group in groups))
    means = {editor: _mean([choice.truth for group in groups for choice in group if choice.editor == editor]) for editor in everywhere}
    return max(sorted(means), key=lambda editor: means[editor]) if means else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


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
