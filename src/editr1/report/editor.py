"""The editor before and after: pictures of the same task, sorted by how far the score moved, and verdicts by category.

09_editor/gallery.jsonl                 the evaluation's: before and after RL on held-out tasks, the same noise
09_editor/gallery/evaluation_*.jsonl    editor RL's own held-out evaluations: the first and the last one
09_editor/gallery/training_*.jsonl      edits of training: tasks that were drawn twice, early and late
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from editr1.report.reading import UNKNOWN, Album, Points, Reader
from editr1.schema import SCHEMA_VERSION, ImageRef, Metric, from_json
from editr1.stats.agreement import SPAN

GALLERY = "09_editor/gallery.jsonl"
FOLDER = "09_editor/gallery"
SCORE_GAINS = ("oracle_score_gain", "editor_score_gain")  # what the evaluation that writes GALLERY found over all of its tasks
CATEGORIES = ("follow", "keep", "quality")
MAX_EDITS = 48  # ours: of each comparison; the largest changes come first, whatever their sign


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of a gallery; pictures as they stand in the store."""

    task: str
    instruction: str
    kind: str
    source: ImageRef
    image: ImageRef
    score: float | None
    rates: Mapping[str, float]
    """Question -> share of verdicts that say yes, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two editors, or one at two times, on the same tasks."""

    title: str
    before: str
    after: str
    pairs: tuple[tuple[Edit, Edit], ...]
    """By the size of the change, pairs without two scores last."""
    whole: Metric | None = None
    """The mean change over all tasks that were evaluated, where the pairs are the first of them."""

    @property
    def summary(self) -> str:
        """How many edits rose, fell and stayed, and the mean change in points: of these, and of all where these are a part."""
        changes = [change for pair in self.pairs if (change := _change(pair)) is not None]
        if not changes:
            return f"{len(self.pairs)} tasks, none with two scores"
        counts = (sum(c > 0 for c in changes), sum(c < 0 for c in changes), sum(c == 0 for c in changes))
        unscored = f", {len(self.pairs) - len(changes)} without two scores" if len(changes) < len(self.pairs) else ""
        mean = _signed(sum(changes) / len(changes))
        told = f"{counts[0]} better, {counts[1]} worse, {counts[2]} as before{unscored}; mean change {mean} of 10"
        if self.whole is None or self.whole.value is None or self.whole.n <= len(self.pairs):
            return f"{len(self.pairs)} tasks: {told}"
        return f"The first {len(self.pairs)} of {self.whole.n:,} tasks: {told}, over all {self.whole.n:,} {_signed(self.whole.value)}"


def _signed(change: float) -> str:
    return f"{change:+.2f}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Radar:
    """Share of verdicts that say yes by category, in [0, 1], before and after."""

    title: str
    before: tuple[float, ...]
    after: tuple[float, ...]

    def outline(self, values: Sequence[float]) -> str:
        """Corners of the triangle for an SVG of 200 by 180 whose centre is (100, 100)."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (corner(index, value) for index, value in enumerate(values)))


def corner(index: int, value: float) -> tuple[float, float]:
    """Place of a value on the axis of a category."""
    angle = math.radians(120 * index - 90)
    return 100 + 80 * value * math.cos(angle), 100 + 80 * value * math.sin(angle)


def read_comparisons(reader: Reader) -> list[Comparison]:
    """Every comparison that the run holds, held-out ones first."""
    pairs = reader.lines(GALLERY, _pair)
    gains = [metric for metric in reader.records("10_metrics.jsonl", Metric) if metric.name in SCORE_GAINS]
    held_out = _compare("Held-out tasks, same noise", "before RL", "after RL", pairs)
    found = [replace(held_out, whole=gains[-1] if gains else None)]
    for kind, title in (("evaluation", "Held-out evaluations while training"), ("training", "Tasks of training that came twice")):
        by_time = _galleries(reader, kind)
        first: dict[str, tuple[int, Edit]] = {}
        last: dict[str, tuple[int, Edit]] = {}
        for time, edits in sorted(by_time.items()):
            for edit in reversed(edits):  # a group holds several edits of a task: its first one stands for it
                last[edit.task] = (time, edit)
            for task in {edit.task for edit in edits} - first.keys():
                first[task] = last[task]
        twice = [task for task in first if first[task][0] != last[task][0]]
        if twice:
            names = (_when("early", {first[task][0] for task in twice}), _when("late", {last[task][0] for task in twice}))
            found.append(_compare(title, *names, [(first[task][1], last[task][1]) for task in twice]))
    return [comparison for comparison in found if comparison.pairs]


def _when(word: str, times: set[int]) -> str:
    return f"iteration {min(times)}" if len(times) == 1 else word


def _compare(title: str, before: str, after: str, pairs: Sequence[tuple[Edit, Edit]]) -> Comparison:
    def size(pair: tuple[Edit, Edit]) -> float:
        change = _change(pair)
        return 1.0 if change is None else -abs(change)

    return Comparison(title, before, after, tuple(sorted(pairs, key=size)))


def _change(pair: tuple[Edit, Edit]) -> float | None:
    before, after = pair[0].score, pair[1].score
    return None if before is None or after is None else after - before


def as_data(reader: Reader, comparison: Comparison, album: Album) -> dict[str, Any]:
    """The comparison as the page's script reads it, until the album is full."""
    rows = []
    for before, after in comparison.pairs[:MAX_EDITS]:
        if album.full:
            break
        pictures = {"source": before.source, "before": before.image, "after": after.image}
        row: dict[str, Any] = {name: album.add(reader, ref) for name, ref in pictures.items()}
        rows.append(row | {"instruction": after.instruction, "kind": after.kind, "score_before": before.score, "score_after": after.score})
    names = {"title": comparison.title, "before": comparison.before, "after": comparison.after, "summary": comparison.summary}
    return names | {"rows": rows, "num": len(comparison.pairs)}


def read_radar(reader: Reader, points: Points) -> Radar | None:
    """The verdicts of the first and last held-out evaluation, or of the first and last iterations of training; None without verdicts."""
    by_time = _galleries(reader, "evaluation")
    if len(by_time) > 1:
        of = {(row.task.id, p.question): p.category for row in reader.rows("02_principles") for p in row.principles}
        first, last = min(by_time), max(by_time)
        ends = [_means(of, by_time[time]) for time in (first, last)]
        if all(end.keys() >= set(CATEGORIES) for end in ends):
            return Radar(f"held-out edits, iterations {first} and {last}", *(tuple(end[name] for name in CATEGORIES) for end in ends))
    curves = [points.get(f"reward/{name}", {}) for name in CATEGORIES]
    if not all(len(curve) > SPAN for curve in curves):
        return None
    values = [[curve[step] for step in sorted(curve)] for curve in curves]
    early, late = (tuple(sum(v[part]) / SPAN for v in values) for part in (slice(SPAN), slice(-SPAN, None)))
    return Radar(f"edits of training, first and last {SPAN} iterations", early, late)


def _means(category_of: Mapping[tuple[str, str], str], edits: Sequence[Edit]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for edit in edits:
        for question, rate in edit.rates.items():
            if category := category_of.get((edit.task, question)):
                values[category].append(rate)
    return {category: sum(rates) / len(rates) for category, rates in values.items()}


def _galleries(reader: Reader, kind: str) -> dict[int, list[Edit]]:
    """Iteration -> edits of all processes."""
    found: dict[int, list[Edit]] = defaultdict(list)
    for name in reader.folder(FOLDER, f"{kind}_*.jsonl"):
        if iteration := re.match(rf"{kind}_(\d+)", Path(name).name):
            found[int(iteration[1])] += reader.lines(name, _edit)
    return {time: edits for time, edits in found.items() if edits}


def _edit(line: bytes) -> Edit:
    row = json.loads(line)
    rates = dict(zip(map(str, row.get("principles", ())), map(float, row.get("rates", ())), strict=False))
    source, image = (ImageRef(_text(row[name]), UNKNOWN) for name in ("source", "edited"))
    return Edit(str(row["task_id"]), _text(row["instruction"]), "", source, image, _score(row.get("score")), rates)


def _pair(line: bytes) -> tuple[Edit, Edit]:
    row = json.loads(line)
    refs = (from_json(ImageRef, json.dumps({"schema": SCHEMA_VERSION} | row[name])) for name in ("source", "before", "after"))
    source, before, after = refs
    about = str(row.get("task_id", "")), _text(row["instruction"]), _text(row.get("kind", "")), source
    return Edit(*about, before, _score(row.get("score_before")), {}), Edit(*about, after, _score(row.get("score_after")), {})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _score(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
