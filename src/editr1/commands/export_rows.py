"""Write a run's training data as rows of ms-swift, LLaMA-Factory or TRL.

editr1 export-rows runs/demo sft.jsonl
editr1 export-rows runs/demo dpo.jsonl --what dpo --as sharegpt
editr1 export-rows runs/demo pairs.jsonl --what pairs --as trl

What a row teaches (`--what`):

    sft     the trace that the selector kept, after the prompt of an edit
    dpo     the same trace before one that misread the edit: the trace that agrees least with the inspector
    pairs   which of two edits people preferred, asked with all three pictures; the other answer is the rejected one

How it is written (`--as`), one JSON object a line, pictures as absolute paths in `images`:

    messages   ms-swift, and LLaMA-Factory by role and content tags; `<image>` stands for a picture; `rejected_response` for dpo and pairs
    sharegpt   LLaMA-Factory: `conversations` of from and value; `chosen` and `rejected` for dpo and pairs
    trl        TRL: content in parts; `messages` for sft, else `prompt`, `chosen` and `rejected`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from editr1.bench.judges.pairwise import question
from editr1.errors import DataError
from editr1.judge.prompts import render_score
from editr1.schema import ImageRef, Judgement
from editr1.store import Run, held_out_share, is_held_out, preference_pairs, with_inspections
from editr1.vlm.base import ChatRequest, flat_messages, to_messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("output", type=Path, metavar="FILE", help="JSONL file to write")
    parser.add_argument(
        "--what",
        choices=WHATS,
        default="sft",
        help="kept traces; kept traces before ones that misread the edit; people's choices (default: sft)",
    )
    parser.add_argument(
        "--as",
        dest="form",
        choices=FORMS,
        default="messages",
        help="ms-swift and LLaMA-Factory; LLaMA-Factory; TRL",
    )
    parser.add_argument("--prompt", metavar="ID", help="score prompt of sft and dpo rows (default: the traces' own)")


def main(args: argparse.Namespace) -> int:
    count = export_rows(Run.open(args.run, create=False), args.output, args.what, args.form, args.prompt)
    print(f"{args.output}: {count} rows")  # noqa: T201
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
    count = 0
    with output.open("w", encoding="utf-8") as file:
        for example in examples:
            paths = [str(folder / run.images.path(ref).resolve().relative_to(folder)) for ref in example.images]
            file.write(json.dumps({**_ROWS[form](example), "images": paths}, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        output.unlink()
        raise DataError(f"{run.dir} holds nothing to export as {what}: no pair with a preference, or no trace that the inspector kept")
    return count


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
    if not isinstance(outcome, Judgement) or len(outcome.verdicts) != len(gold):
        return 0.0
    return sum(said == true for said, true in zip(outcome.verdicts, gold, strict=True)) / len(gold)


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
    if example.rejected is None:
        return {"messages": [*prompt, _said(example.answer)]}
    return {"prompt": prompt, "chosen": [_said(example.answer)], "rejected": [_said(example.rejected)]}


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


_ROWS = {"messages": _messages, "sharegpt": _sharegpt, "trl": _trl}
