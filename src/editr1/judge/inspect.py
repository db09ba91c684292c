"""Reads the inspector's gold verdicts, and the filter's answer whether an instruction is hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editr1.judge.objects import object_arrays, read_json_object, read_loose_object
from editr1.judge.parse import verdict_blocks
from editr1.schema import FailureCode, ParseFailure

HARD_CRITERIA = ("steps", "detail", "implicit", "space")  # paper, section 3.1: what makes an instruction hard


@dataclass(frozen=True, slots=True)
class Gold:
    """The inspector's verdicts in the order of the principles, each with its reason (possibly empty)."""

    verdicts: tuple[bool, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hardness:
    """Whether the filter calls an instruction hard, by which criterion, and why."""

    hard: bool
    criterion: str
    reason: str


def parse_gold(text: str, num_principles: int, *, labels: Sequence[str] | None = None, truncated: bool = False) -> Gold | ParseFailure:
    """The last complete verdict block of an inspector's reply, or why there is none.

    Reads the same blocks as Phi does; a score is neither needed nor looked at.

    >>> parse_gold('[{"id": "F1", "score": 1, "reason": "the hat is red"}]', 1)
    Gold(verdicts=(True,), reasons=('the hat is red',))
    """
    blocks = verdict_blocks(text)
    for block in reversed(blocks):
        verdicts = block.aligned(num_principles, labels)
        if verdicts is None:
            continue
        by_label = {entry.label: _reason(entry.source) for entry in block.entries}
        if labels and None not in by_label:
            return Gold(verdicts, tuple(by_label[label.upper()] for label in labels))
        return Gold(verdicts, tuple(_reason(entry.source) for entry in block.entries))
    code: FailureCode = "TRUNCATED" if truncated else "WRONG_COUNT" if blocks else "NO_VERDICTS"
    return ParseFailure(code, text[-160:])


def parse_hardness(text: str) -> Hardness | ParseFailure:
    """What the filter says about an instruction; a failure when its answer is no such object."""
    for array in reversed(list(object_arrays(text))):
        row = read_json_object(array.objects[-1])
        if row and isinstance(row.get("hard"), bool):
            criterion = str(row.get("criterion", "none"))
            return Hardness(row["hard"], criterion if criterion in HARD_CRITERIA else "none", str(row.get("reason", "")))
    return ParseFailure("NO_VERDICTS", text[-160:])


def _reason(source: str) -> str:
    if not source.startswith("{"):  # the line form carries its reason before the arrow
        return source.rpartition("->")[0].partition(" ")[2].strip()
    row = read_loose_object(source)
    return str(row.get("reason", "")).strip() if row else ""
