"""Reads the inspector's gold verdicts, and the filter's answer whether an instruction is hard; and selects with them.

The selector decides which trace of a quadruple becomes the SFT target (paper, section 3.1): highest agreement with the gold verdicts; then
higher average; then higher score; then the smaller index. It is code and not a model call (ours): the same traces and gold give the same
choice on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from editr1.judge.answers import normalised
from editr1.judge.claims import is_taken_back
from editr1.judge.objects import object_arrays, read_json_object, read_loose_object
from editr1.judge.parse import answer_of, own_blocks
from editr1.judge.verdicts import last_verdicts
from editr1.schema import Judgement, Outcome, ParseFailure

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
    """The last verdict block of an inspector's reply, or why there is none.

    Reads as Phi does: drafts and quotations are nobody's word, and an earlier block never stands in for a later one that is broken.
    A score is neither needed nor looked at.

    >>> parse_gold('[{"id": "F1", "score": 1, "reason": "the hat is red"}]', 1)
    Gold(verdicts=(True,), reasons=('the hat is red',))
    """
    answer = answer_of(normalised(text))
    found = last_verdicts(answer, own_blocks(answer), num_principles, labels) if answer is not None else "NO_VERDICTS"
    if not isinstance(found, str):
        tail = answer[found.end :] if answer is not None else ""
        cut = tail.rfind("{") > tail.rfind("}")
        if not cut and not is_taken_back(tail):
            return Gold(found.values, tuple(_reason(entry.source) for entry in found.entries))
        found = "TRUNCATED" if cut else "WITHDRAWN"
    return ParseFailure("TRUNCATED" if truncated and found in ("NO_VERDICTS", "WRONG_COUNT") else found, text[-160:])


def parse_hardness(text: str) -> Hardness | ParseFailure:
    """What the filter's last word about an instruction is; a failure when its answer is no such object."""
    answer = answer_of(normalised(text))
    rows = [read_json_object(source) for array in object_arrays(answer or "") for source in array.objects]
    found = [row for row in rows if row and "hard" in row]
    if not found or not isinstance(found[-1]["hard"], bool):
        return ParseFailure("NO_VERDICTS", text[-160:])
    criterion = str(found[-1].get("criterion", "none"))
    return Hardness(found[-1]["hard"], criterion if criterion in HARD_CRITERIA else "none", str(found[-1].get("reason", "")))


def _reason(source: str) -> str:
    if not source.startswith("{"):  # the line form carries its reason before the arrow
        return source.rpartition("->")[0].partition(" ")[2].strip()
    row = read_loose_object(source)
    return str(row.get("reason", "")).strip() if row else ""


MIN_ACCURACY = 0.7  # ours: a target that is wrong on more than 3 of 10 principles teaches the wrong thing


class Choice(NamedTuple):
    """What the selector says about one quadruple."""

    index: int | None  # type: ignore[assignment]  # the word for it, though tuples have a method of that name
    """Index of the kept trace; None when none is good enough."""
    accuracy: float | None
    """Agreement of the best trace with gold, in [0, 1]; None when no trace parsed."""
    reason: str | None
    """Why none was kept; None when one was."""


def choose(outcomes: Sequence[Outcome], gold: Sequence[bool], min_accuracy: float = MIN_ACCURACY) -> Choice:
    """The kept trace among `outcomes`, or the reason for dropping the quadruple.

    A trace that did not parse, or whose number of verdicts is not gold's, cannot be chosen (ours).

    >>> choose([Judgement((True, True), 9.0), Judgement((True, False), 5.0)], [True, False])
    Choice(index=1, accuracy=1.0, reason=None)
    """
    readable = [
        (index, outcome)
        for index, outcome in enumerate(outcomes)
        if isinstance(outcome, Judgement) and len(outcome.verdicts) == len(gold) > 0
    ]
    if not readable:
        return Choice(None, None, "no trace parsed")
    ranked = [(agreement(outcome.verdicts, gold), outcome.average, outcome.score, -index) for index, outcome in readable]
    accuracy, _, _, negative_index = max(ranked)
    if accuracy < min_accuracy:
        return Choice(None, accuracy, f"best accuracy {accuracy:.2f} is under {min_accuracy:.2f}")
    return Choice(-negative_index, accuracy, None)


def agreement(verdicts: Sequence[bool], gold: Sequence[bool]) -> float:
    """Share of principles on which the two agree, in [0, 1]."""
    return sum(ours == theirs for ours, theirs in zip(verdicts, gold, strict=True)) / len(gold)
