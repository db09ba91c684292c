"""The deterministic selector: which trace of a quadruple becomes the SFT target (paper, section 3.1).

Highest agreement with the gold verdicts; then higher average; then higher score; then the smaller index.
It is code and not a model call (ours): the same traces and gold give the same choice on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from editr1.schema import Judgement, Outcome

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
