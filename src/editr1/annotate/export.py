"""Answers out (CSV, and the run's table 07_pairs) and existing votes in."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from editr1.annotate.items import LABELS, Item, item_id
from editr1.annotate.votes import Answer, Vote, VoteStore
from editr1.errors import DataError
from editr1.schema import Label
from editr1.stages import pairs
from editr1.store import Run, StageCounts, read_table
from editr1.store._files import write_atomic

CSV = "annotations.csv"
COLUMNS = ("a", "b", "label", "annotator", "swapped", "seconds", "at", "instruction")


def write_csv(run: Run, items: Sequence[Item], votes: Sequence[Vote]) -> tuple[Path, int]:
    """Writes every preference about a real item to `annotations.csv`; skips and control questions stay out. Returns path and rows."""
    known = {item.id: item for item in items if item.gold is None}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = [vote for vote in votes if vote.item in known and vote.label is not None]
    for vote in rows:
        item = known[vote.item]
        fields = (
            item.a.id,
            item.b.id,
            vote.label,
            vote.annotator,
            int(vote.swapped),
            f"{vote.seconds:.3f}",
            vote.at,
            item.task.instruction,
        )
        writer.writerow([_as_text(str(field)) for field in fields])
    path = run.dir / CSV
    write_atomic(path, buffer.getvalue().encode())
    return path, len(rows)


def _as_text(field: str) -> str:
    """A spreadsheet must not run a cell: a leading = + - or @ gets an apostrophe."""
    return "'" + field if field[:1] in ("=", "+", "-", "@", "\t", "\r") else field


def export_pairs(run: Run, items: Sequence[Item], votes: Sequence[Vote], held_out_share: float = 0.2) -> tuple[Path, StageCounts]:
    """Writes the CSV and, from it, `07_pairs`. Raises DataError when there is no answer, or when 07_pairs was made from others."""
    path, num_rows = write_csv(run, items, votes)
    if not num_rows:
        raise DataError(f"{run.dir} holds no answers yet; label some pairs first: editr1 annotate {run.dir}")
    return path, pairs.run(pairs.Config(file=path, held_out_share=held_out_share), run.dir)


def import_votes(store: VoteStore, items: Sequence[Item], path: Path) -> Counter[str]:
    """Adds the votes of a CSV or JSONL file (a, b, label, annotator), in either order of a and b. Counts what became of each row."""
    known = {item.id for item in items}
    outcome: Counter[str] = Counter()
    for row in read_table(path):
        if isinstance(row, str):
            outcome["bad_row"] += 1
            continue
        vote, reason = _vote(row, known)
        outcome[reason] += 1
        if vote is not None:
            store.put(vote)
    return outcome


def _vote(row: dict[str, object], known: set[str]) -> tuple[Vote | None, str]:
    a, b, label = (str(row.get(key) or "") for key in ("a", "b", "label"))
    if label not in LABELS:
        return None, "bad_label"
    if item_id(b, a) in known:
        a, b, label = b, a, _flip(cast(Label, label))
    if item_id(a, b) not in known:
        return None, "unknown_pair"
    return Vote(item_id(a, b), str(row.get("annotator") or "imported"), cast(Answer, label), swapped=False, seconds=0.0), "imported"


def _flip(label: Label) -> str:
    return {"a": "b", "b": "a", "same": "same"}[label]
