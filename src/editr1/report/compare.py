"""Several runs side by side: figures in columns, curves over each other, and the last edits of the same task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from editr1.report.editor import Comparison, Edit
from editr1.report.figures import SECONDS, ResultRow, in_words, result_row
from editr1.report.pictures import Album
from editr1.report.reading import Reader
from editr1.schema import Metric

MAX_TASKS = 48  # ours: as in the editor's own part


def names_of(readers: Sequence[Reader]) -> list[str]:
    """A name a run: its folder's, with as many parents as it takes to tell them apart; the same run twice gets a number."""
    parts = [reader.dir.resolve().parts for reader in readers]
    deepest = max(map(len, parts))
    depth = next((d for d in range(1, deepest) if len({p[-d:] for p in parts}) == len(parts)), 1)
    names = ["/".join(p[-depth:]) for p in parts]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)]


def side_by_side(metrics: Mapping[str, Sequence[Metric]]) -> list[tuple[str, str, list[ResultRow | None]]]:
    """(name with its protocol, in words, a cell a run) of every figure, in the order in which the runs name them."""
    by_run = {run: {(m.name, m.protocol): m for m in found if not m.name.startswith(SECONDS)} for run, found in metrics.items()}
    keys = dict.fromkeys(key for found in by_run.values() for key in found)
    found = []
    for name, protocol in keys:
        metrics_of = (own.get((name, protocol)) for own in by_run.values())
        found.append((f"{name} · {protocol}", in_words(name), [result_row(metric, [metric]) if metric else None for metric in metrics_of]))
    return found


def same_tasks(readers: Mapping[str, Reader], comparisons: Mapping[str, Sequence[Comparison]], album: Album) -> list[dict[str, Any]]:
    """A row a task whose last edit at least two runs show: its source, and picture and score by run; the largest differences first."""
    edits: dict[tuple[str, str], dict[str, Edit]] = defaultdict(dict)
    for run, found in comparisons.items():
        for _, after in (pair for comparison in reversed(found) for pair in comparison.pairs):  # held-out ones overwrite those of training
            edits[after.source.digest, after.instruction][run] = after
    rows: list[dict[str, Any]] = []
    for (_, instruction), by_run in sorted(edits.items(), key=lambda item: -_range(list(item[1].values()))):
        if len(by_run) < 2 or len(rows) == MAX_TASKS or album.full:
            continue
        run, any_edit = next(iter(by_run.items()))
        shown = {name: {"image": album.add(readers[name], edit.image), "score": edit.score} for name, edit in by_run.items()}
        rows.append({"instruction": instruction, "kind": any_edit.kind, "source": album.add(readers[run], any_edit.source), "edits": shown})
    return rows


def _range(edits: Sequence[Edit]) -> float:
    scores = [edit.score for edit in edits if edit.score is not None]
    return max(scores) - min(scores) if scores else -1.0
