"""Rows in and out: `import-data`, `export-rows`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from editr1.bench.judges.pairwise import question
from editr1.commands._judge import accepting, say
from editr1.config import section
from editr1.errors import DataError
from editr1.judge.decompose import stated_principles
from editr1.judge.inspect import agreement
from editr1.judge.prompts import render_score
from editr1.schema import Candidate, EditTask, ImageRef, Judgement, Principle, TaskPrinciples
from editr1.stages import pairs as pairs_stage
from editr1.store import (
    Drop,
    Engine,
    Run,
    Work,
    file_digest,
    held_out_share,
    is_held_out,
    name_in,
    preference_pairs,
    read_inside,
    read_table,
    with_inspections,
)
from editr1.store._files import write_atomic
from editr1.text import instruction_fault, is_missing
from editr1.vlm.base import ChatRequest, flat_messages, to_messages

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
    num_rows: int = 0
    num_labelled: int = 0


def add_import_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, metavar="TABLE", help="CSV, JSONL or Parquet with the columns above, beside the pictures")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory, made when missing")
    parser.add_argument("--held-out-share", type=float, default=0.2, help="share of the tasks whose pairs only measure (default 0.2)")
    parser.add_argument("--accept", action="store_true", help="where the table has changed since, put the old rows aside and start over")


def run_import_data(args: argparse.Namespace) -> int:
    """Own pictures, instructions, edits, questions and preferences, in one table, as the tables of a run.

        editr1 import-data my_edits/table.csv --run RUN

    CSV, JSONL or Parquet beside the pictures, one comparison (or one edit) a row:

        source, instruction, a[, b, label][, editor_a, editor_b][, principles][, annotator][, kind]

    source, a and b name picture files; label is a, b or same; principles is a JSON array of {question, category}. Written are 01_tasks,
    02_principles (from the column, else by `editr1 decompose`, after which this command is called again), 03_candidates and, from the rows
    with a label, 07_pairs. What cannot be used is in the dropped.jsonl of each table. A second call with the same table changes nothing.
    """
    return accepting(lambda: _import(args), args.accept)


def _import(args: argparse.Namespace) -> int:
    labelled = {"file": args.table, "held_out_share": args.held_out_share, "engine": {"max_dropped_share": 1.0}}
    pairs_config = section({"pairs": labelled}, "pairs", pairs_stage.Config)
    run = Run.open(args.run)
    before = _finished(run)
    found = _read(args.table, run)
    if not found.tasks or len(found.faults) > found.num_rows / 2:
        first = next(iter(found.faults.values()), Drop("the table has no rows"))
        raise DataError(f"{args.table}: {len(found.faults)} of {found.num_rows} rows cannot be used; the first: {first.reason}")
    settings = {"file": args.table.name, "file_digest": file_digest(args.table)}
    _write(run, "01_tasks", [*found.tasks.items(), *found.faults.items()], settings)
    if found.principles:
        rows = [(key, TaskPrinciples(task, found.principles[key], args.table.name)) for key, task in found.tasks.items()]
        _write(run, "02_principles", rows, settings)
    if not run.has("02_principles"):
        again = f"editr1 import-data {args.table} --run {args.run}"
        say(f"the table has no principles: editr1 decompose makes them; then again: {again}")
        return 0
    usable = [row.task.id for row in run.read("02_principles")]
    edits = [(candidate.id, candidate) for key in usable for candidate in found.edits.get(key, {}).values()]
    _write(run, "03_candidates", edits, run.made_from(settings, "02_principles"))
    if found.num_labelled:
        counts = pairs_stage.run(pairs_config, args.run)
        say(f"07_pairs: {counts}")
        if not counts.num_out:
            raise DataError(f"{args.table}: no pair can be used; {args.run}/07_pairs/dropped.jsonl says why each")
    if before == _finished(run):
        say("import-data: this table was imported before; nothing was written now")
    return 0


def _finished(run: Run) -> list[bytes]:
    """The summaries of the run's finished tables, each with a digest of its rows."""
    return [path.read_bytes() for path in sorted(run.dir.glob("*/counts.json"))]


def _write(run: Run, table: str, rows: Sequence[tuple[str, Any]], settings: dict[str, Any]) -> None:
    engine = Engine(max_dropped_share=1.0, progress=False)
    say(f"{table}: {run.process(table, rows, Work(lambda: list), settings=settings, engine=engine)}")


def _read(path: Path, run: Run) -> _Imported:
    """The table with its pictures stored in the run. Raises DataError for a file, a column or a set of principles that cannot be meant."""
    found = _Imported()
    for number, row in enumerate(read_table(path, NEEDED, OPTIONAL), start=1):
        found.num_rows = number
        if isinstance(row, str):
            found.faults[f"row-{number}"] = Drop(row)
            continue
        try:
            stated = None if is_missing(row.get("principles")) else row["principles"]
            principles = stated_principles(stated, "column 'principles'") or ()
            _add(found, {key: _text(row, key) for key in (*NEEDED, *OPTIONAL) if key != "principles"}, principles, path.parent, run)
        except DataError as error:
            found.faults[f"row-{number}"] = Drop(f"bad_row: row {number}: {error}")
    if lacking := [task.instruction for key, task in found.tasks.items() if found.principles and key not in found.principles]:
        raise DataError(f"{path}: {len(lacking)} tasks have no principles and others have; such as {lacking[0]!r}. Give all or none")
    return found


def _add(found: _Imported, row: dict[str, str], principles: tuple[Principle, ...], root: Path, run: Run) -> None:
    """Adds one row; nothing of it where something is wrong."""
    if missing := [key for key in NEEDED if not row[key]]:
        raise DataError(f"{missing[0]} is empty")
    if fault := instruction_fault(row["instruction"]):
        raise DataError(f"instruction: {fault}")
    if row["label"] and (pairs_stage.label_in(row["label"]) is None or not row["b"]):
        raise DataError(f"label is {row['label'][:60]!r} and b is {row['b'][:60]!r}, expected a, b or same, and a picture")
    pictures = {side: run.images.put(read_inside(root, row[side])) for side in ("source", "a", "b") if row[side]}
    task = EditTask.make(pictures["source"], row["instruction"], row["kind"])
    task = found.tasks.setdefault(task.id, task)
    if principles and found.principles.setdefault(task.id, principles) != principles:
        raise DataError(f"other principles than in an earlier row of the same task, {row['instruction']!r}")
    known = found.edits.setdefault(task.id, {})
    for side in ("a", "b"):
        if side in pictures:  # one edit, counted once; several pictures of one editor are its seeds
            picture = pictures[side]
            name = row[f"editor_{side}"] or pairs_stage.file_editor(picture)
            if (name, picture.digest) not in known:
                known[name, picture.digest] = Candidate.make(task.id, picture, name, sum(other == name for other, _ in known))
    found.num_labelled += bool(row["label"])


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if is_missing(value) or key in NAMES:
        return name_in(value)
    if not isinstance(value, str):
        raise DataError(f"{key} is {str(value)[:60]!r}, expected a text")
    return value.strip()


def add_export_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("output", type=Path, metavar="FILE", help="JSONL file to write")
    whats = "kept traces; kept traces before ones that misread the edit; people's choices (default: sft)"
    parser.add_argument("--what", choices=WHATS, default="sft", help=whats)
    forms = "ms-swift and LLaMA-Factory; LLaMA-Factory; TRL"
    parser.add_argument("--as", dest="form", choices=FORMS, default="messages", help=forms)
    parser.add_argument("--prompt", metavar="ID", help="score prompt of sft and dpo rows (default: the traces' own)")


def run_export_rows(args: argparse.Namespace) -> int:
    """Write a run's training data as rows of ms-swift, LLaMA-Factory or TRL.

    editr1 export-rows runs/demo sft.jsonl
    editr1 export-rows runs/demo dpo.jsonl --what dpo --as sharegpt
    editr1 export-rows runs/demo pairs.jsonl --what pairs --as trl

    What a row teaches (`--what`):

        sft     the trace that the selector kept, after the prompt of an edit
        dpo     the same trace before one that misread the edit: the trace that agrees least with the inspector
        pairs   which of two edits people preferred, asked with all three pictures; the other answer is the rejected one

    How it is written (`--as`), one JSON object a line, pictures as absolute paths in `images`:

        messages   ms-swift, and LLaMA-Factory by role and content tags; `<image>` is a picture; `rejected_response` for dpo and pairs
        sharegpt   LLaMA-Factory: `conversations` of from and value; `chosen` and `rejected` for dpo and pairs
        trl        TRL: content in parts; `messages` for sft, else `prompt`, `chosen` and `rejected`
    """
    say(f"{args.output}: {export_rows(Run.open(args.run, create=False), args.output, args.what, args.form, args.prompt)} rows")
    return 0


What = Literal["sft", "dpo", "pairs"]
Form = Literal["messages", "sharegpt", "trl"]
WHATS: tuple[What, ...] = get_args(What)
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, slots=True)
class Example:
    """One row before it is written in a tool's way."""

    request: ChatRequest
    images: tuple[ImageRef, ...]
    answer: str
    rejected: str | None = None


def export_rows(run: Run, output: Path, what: What = "sft", form: Form = "messages", prompt_id: str | None = None) -> int:
    """Writes the rows of the training tasks and returns their number. Raises DataError when the run holds none.

    prompt_id: the score prompt of `sft` and `dpo` rows; None = the one that each trace answered. Tasks that measure are left out.
    """
    examples = _preferences(run) if what == "pairs" else _traces(run, prompt_id, with_rejected=what == "dpo")
    folder = run.dir.resolve()
    lines = []
    for example in examples:
        paths = [str(folder / run.images.path(ref).resolve().relative_to(folder)) for ref in example.images]
        lines.append(json.dumps({**_ROWS[form](example), "images": paths}, ensure_ascii=False) + "\n")
    if not lines:
        raise DataError(f"{run.dir} holds nothing to export as {what}: no pair with a preference, or no trace that the inspector kept")
    write_atomic(output, "".join(lines).encode())
    return len(lines)


def _traces(run: Run, prompt_id: str | None, with_rejected: bool) -> Iterator[Example]:
    share = held_out_share(run)
    for quadruple, traces, inspection in with_inspections(run):
        if inspection.chosen is None or is_held_out(quadruple.task.id, share):
            continue
        task, edited = quadruple.task, quadruple.candidate.image
        right = [_agreement(trace.outcome, inspection.gold) for trace in traces]
        worst = min(range(len(traces)), key=lambda index: (right[index], index))
        if with_rejected and right[worst] >= right[inspection.chosen]:
            continue  # nothing to prefer
        asked = prompt_id or traces[inspection.chosen].prompt_id
        request = render_score(asked, run.images.source_of(task), run.images.get(edited), task.instruction, quadruple.principles)
        rejected = traces[worst].text if with_rejected else None
        yield Example(request, (*task.sources, edited), traces[inspection.chosen].text, rejected)


def _agreement(outcome: object, gold: tuple[bool, ...]) -> float:
    """Share of gold verdicts that a trace gives; one that cannot be read gives none."""
    return agreement(outcome.verdicts, gold) if isinstance(outcome, Judgement) and len(outcome.verdicts) == len(gold) else 0.0


def _preferences(run: Run) -> Iterator[Example]:
    for pair in preference_pairs(run, "train"):
        if pair.label == "same":
            continue
        refs = (*pair.task.sources, pair.a.image, pair.b.image)
        source, a, b = run.images.source_of(pair.task), run.images.get(pair.a.image), run.images.get(pair.b.image)
        better, worse = ("A", "B") if pair.label == "a" else ("B", "A")
        yield Example(ChatRequest(question(source, a, b, pair.task.instruction)), refs, f"CHOICE: {better}", f"CHOICE: {worse}")


def _messages(example: Example) -> dict[str, Any]:
    row: dict[str, Any] = {"messages": [*flat_messages(to_messages(example.request)), {"role": "assistant", "content": example.answer}]}
    return row if example.rejected is None else row | {"rejected_response": example.rejected}


def _sharegpt(example: Example) -> dict[str, Any]:
    *system, user = flat_messages(to_messages(example.request))
    human = {"from": "human", "value": user["content"]}
    head = {"system": system[0]["content"]} if system else {}
    answer = {"from": "gpt", "value": example.answer}
    if example.rejected is None:
        return head | {"conversations": [human, answer]}
    return head | {"conversations": [human], "chosen": answer, "rejected": {"from": "gpt", "value": example.rejected}}


def _trl(example: Example) -> dict[str, Any]:
    prompt = to_messages(example.request)
    texts = [text for text in (example.answer, example.rejected) if text is not None]
    chosen, *rejected = [{"role": "assistant", "content": [{"type": "text", "text": text}]} for text in texts]
    return {"prompt": prompt, "chosen": [chosen], "rejected": rejected} if rejected else {"messages": [*prompt, chosen]}


_ROWS = {"messages": _messages, "sharegpt": _sharegpt, "trl": _trl}
