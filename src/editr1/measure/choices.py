"""Where the edits of best-of-N and their scores come from: judged files of several editors, or a run's own pairs.

Either way every number was judged and stored before. A task with an edit that the referee has not scored is left out and
counted: without it neither the random pick nor the oracle of that task is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from editr1.bench.base import JudgedEdit, Outcome
from editr1.errors import DataError
from editr1.measure.best_of_n import Choice
from editr1.schema import PreferencePair


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
