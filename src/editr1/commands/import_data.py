"""Own pictures, instructions, edits, questions and preferences, in one table, as the tables of a run.

    editr1 import-data my_edits/table.csv --run RUN

CSV, JSONL or Parquet beside the pictures, one comparison (or one edit) a row:

    source, instruction, a[, b, label][, editor_a, editor_b][, principles][, annotator][, kind]

source, a and b name picture files; label is a, b or same; principles is a JSON array of {question, category}. Written are 01_tasks,
02_principles (from the column, else by `editr1 decompose`, after which this command is called again), 03_candidates and, from the rows
with a label, 07_pairs. What cannot be used is in the dropped.jsonl of each table. A second call with the same table changes nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editr1.errors import DataError
from editr1.judge.decompose import BadDecomposition, parse_principles
from editr1.schema import Candidate, EditTask, ImageRef, Principle, TaskPrinciples
from editr1.stages import pairs as pairs_stage
from editr1.stages.pairs import file_digest
from editr1.store import Drop, Engine, Run, StageCounts, Work, check_columns, is_missing, name_in, read_inside, read_table

NEEDED = ("source", "instruction", "a")
NAMES = ("annotator", "kind", "editor_a", "editor_b")  # a number may be one
OPTIONAL = ("b", "label", "editor_a", "editor_b", "principles", "annotator", "kind")


@dataclass
class _Imported:
    """What the table holds, by task in the order of its first row."""

    tasks: dict[str, EditTask] = field(default_factory=dict)
    principles: dict[str, tuple[Principle, ...]] = field(default_factory=dict)
    edits: dict[str, dict[tuple[str, str], Candidate]] = field(default_factory=dict)
    """{task: {(editor, picture): candidate}}."""
    faults: dict[str, Drop] = field(default_factory=dict)
    num_labelled: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, metavar="TABLE", help="CSV, JSONL or Parquet with the columns above, beside the pictures")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory, made when missing")
    parser.add_argument("--held-out-share", type=float, default=0.2, help="share of the tasks whose pairs only measure (default 0.2)")


def main(args: argparse.Namespace) -> int:
    run = Run.open(args.run)
    found = _read(args.table, run)
    if not found.tasks:
        first = next(iter(found.faults.values()), Drop("the table has no rows"))
        raise DataError(f"{args.table}: no row can be used; the first: {first.reason}")
    settings = {"file": args.table.name, "file_digest": file_digest(args.table)}
    _say("01_tasks", _write(run, "01_tasks", [*found.tasks.items(), *found.faults.items()], settings))
    if found.principles:
        rows = [(key, TaskPrinciples(task, found.principles[key], args.table.name)) for key, task in found.tasks.items()]
        _say("02_principles", _write(run, "02_principles", rows, settings))
    if not run.has("02_principles"):
        again = f"editr1 import-data {args.table} --run {args.run}"
        print(f"the table has no principles: editr1 decompose makes them; then again: {again}")  # noqa: T201
        return 0
    usable = [row.task.id for row in run.read("02_principles")]
    edits = [(candidate.id, candidate) for key in usable for candidate in found.edits.get(key, {}).values()]
    _say("03_candidates", _write(run, "03_candidates", edits, run.made_from(settings, "02_principles")))
    if found.num_labelled:
        config = pairs_stage.Config(file=args.table, held_out_share=args.held_out_share, engine=Engine(max_dropped_share=1.0))
        counts = pairs_stage.run(config, args.run)
        _say("07_pairs", counts)
        if not counts.num_out:
            raise DataError(f"{args.table}: no pair can be used; {args.run}/07_pairs/dropped.jsonl says why each")
    return 0


def _write(run: Run, table: str, rows: Sequence[tuple[str, Any]], settings: dict[str, Any]) -> StageCounts:
    return run.process(table, rows, Work(lambda: list), settings=settings, engine=Engine(max_dropped_share=1.0, progress=False))


def _say(table: str, counts: StageCounts) -> None:
    print(f"{table}: {counts}")  # noqa: T201


def _read(path: Path, run: Run) -> _Imported:
    """The table with its pictures stored in the run. Raises DataError for a file, a column or a set of principles that cannot be meant."""
    found = _Imported()
    for number, row in enumerate(read_table(path), start=1):
        if number == 1 and isinstance(row, dict):
            check_columns(path, row, NEEDED, OPTIONAL)
        try:
            if isinstance(row, str):
                raise DataError(row)
            _add(found, {key: _text(row, key) for key in (*NEEDED, *OPTIONAL)}, path.parent, run)
        except DataError as error:
            found.faults[f"row-{number}"] = Drop(f"bad_row: row {number}: {error}")
    if lacking := [task.instruction for key, task in found.tasks.items() if found.principles and key not in found.principles]:
        raise DataError(f"{path}: {len(lacking)} tasks have no principles and others have; such as {lacking[0]!r}. Give all or none")
    return found


def _add(found: _Imported, row: dict[str, str], root: Path, run: Run) -> None:
    """Adds one row; nothing of it where something is wrong."""
    if missing := [key for key in NEEDED if not row[key]]:
        raise DataError(f"{missing[0]} is empty")
    pictures = {side: run.images.put(read_inside(root, row[side])) for side in ("source", "a", "b") if row[side]}
    principles = _principles(row["principles"]) if row["principles"] else ()
    task = EditTask.make(pictures["source"], row["instruction"], row["kind"])
    task = found.tasks.setdefault(task.id, task)
    if principles and found.principles.setdefault(task.id, principles) != principles:
        raise DataError(f"other principles than in an earlier row of the same task, {row['instruction']!r}")
    for side in ("a", "b"):
        if side in pictures:
            _candidate(found, task, pictures[side], row[f"editor_{side}"])
    found.num_labelled += bool(row["label"])


def _candidate(found: _Imported, task: EditTask, picture: ImageRef, editor: str) -> None:
    """One edit, counted once; several pictures of one editor are its seeds."""
    known = found.edits.setdefault(task.id, {})
    name = editor or pairs_stage.file_editor(picture)
    if (name, picture.digest) not in known:
        known[name, picture.digest] = Candidate.make(task.id, picture, name, sum(other == name for other, _ in known))


def _principles(text: str) -> tuple[Principle, ...]:
    parsed = parse_principles(text, quotas=None, questions_in_english=False)
    if isinstance(parsed, BadDecomposition):
        raise DataError(f"principles hold no JSON array of {{question, category}} ({parsed.problem})")
    return parsed


def _text(row: dict[str, Any], key: str) -> str:
    """A cell as text; a list of principles may stand in JSONL and Parquet as it is."""
    value = row.get(key)
    if key == "principles" and isinstance(value, list):
        return json.dumps(value) if value else ""
    if is_missing(value) or key in NAMES:
        return name_in(value)
    if not isinstance(value, str):
        raise DataError(f"{key} is {str(value)[:60]!r}, expected a text")
    return value.strip()
