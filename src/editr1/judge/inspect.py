"""Gold, and what is done with it: the inspector's verdicts are read, the selector chooses by them (paper, section 3.1), annotators are
counted against them (ours: the paper reports no accuracy of its own). Also reads the filter's answer whether an instruction is hard."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

from editr1.judge.answers import normalised, object_arrays, read_json_object, read_loose_object
from editr1.judge.claims import contradicts, is_taken_back
from editr1.judge.parse import answer_of, own_blocks, without_asides
from editr1.judge.verdicts import last_verdicts
from editr1.schema import CATEGORIES, Category, Judgement, Outcome, ParseFailure, Principle, Trace
from editr1.stats.agreement import VerdictAgreement
from editr1.stats.intervals import share_of_sums

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
    if answer is not None and not isinstance(found, str):
        tail = answer[found.end :]
        cut = tail.rfind("{") > tail.rfind("}")
        changed = contradicts(tail, dict(zip(labels or (), found.values, strict=False)))
        if not cut and not changed and not is_taken_back(answer, found.end):
            return Gold(found.values, tuple(_reason(entry.source) for entry in found.entries))
        found = "TRUNCATED" if cut else "CONTRADICTORY" if changed else "WITHDRAWN"
    assert isinstance(found, str)
    return ParseFailure("TRUNCATED" if truncated and found in ("NO_VERDICTS", "WRONG_COUNT") else found, text[-160:])


def parse_hardness(text: str) -> Hardness | ParseFailure:
    """What the filter's last word about an instruction is; a failure when its answer is no such object."""
    answer = answer_of(normalised(text)) or ""
    arrays = list(object_arrays(without_asides(answer)))
    rows = [read_json_object(source) for array in arrays for source in array.objects]
    found = [row for row in rows if row and "hard" in row]
    if not found or not isinstance(found[-1]["hard"], bool) or is_taken_back(answer, arrays[-1].end):
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
    """The trace that becomes the SFT target, or the reason for dropping the quadruple (paper, section 3.1).

    Highest agreement with gold; then higher average; then higher score; then the smaller index. A trace that did not parse, or whose
    number of verdicts is not gold's, cannot be chosen. ours: code and no model call, so that every machine chooses alike.

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


# --- annotators against gold --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CategoryVerdicts:
    """The verdicts on the principles of one category; `judge` is the annotator, `human` is gold."""

    category: Category
    counts: VerdictAgreement


@dataclass(frozen=True, slots=True)
class AnnotatorAccuracy:
    """One annotator against gold."""

    name: str
    num_traces: int
    num_unparsed: int
    """Traces without verdicts; they count in no accuracy."""
    accuracy: float | None
    """Share of verdicts that equal gold, in [0, 1]; None when there was nothing to compare."""
    low: float | None
    """Of the 95 % interval, whole tasks resampled."""
    high: float | None
    n: int
    """Verdicts compared."""
    categories: tuple[CategoryVerdicts, ...]

    @property
    def counts(self) -> VerdictAgreement:
        """Over all categories."""
        rows = [astuple(row.counts) for row in self.categories]
        return VerdictAgreement(*(sum(column) for column in zip(*rows, strict=True))) if rows else VerdictAgreement(0, 0, 0, 0)


@dataclass(frozen=True)
class AnnotatorAccuracies:
    """A file of them, as `to_json` writes it."""

    annotators: tuple[AnnotatorAccuracy, ...]


def annotator_name(trace: Trace) -> str:
    """Who wrote a trace: model, prompt and temperature.

    >>> annotator_name(Trace("", "", Judgement((), 1.0), "m", "tv", 0.7, 0))
    'm · tv · T 0.7'
    """
    return f"{trace.model} · {trace.prompt_id} · T {trace.temperature:g}"


class AnnotatorCount:
    """Adds up verdicts; memory grows with the tasks (two numbers an annotator), not with the traces."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = defaultdict(_Sums)

    def add_traces(self, task_id: str, principles: Sequence[Principle], gold: Sequence[bool], traces: Sequence[Trace]) -> None:
        """The traces of one quadruple; an empty gold compares nothing. Quadruples of a task must follow each other."""
        for trace in traces:
            verdicts = trace.outcome.verdicts if isinstance(trace.outcome, Judgement) else ()
            self.add(annotator_name(trace), task_id, principles, gold, verdicts)

    def add(self, name: str, task_id: str, principles: Sequence[Principle], gold: Sequence[bool], verdicts: Sequence[bool]) -> None:
        """What one annotator said about one quadruple; no verdicts = an unparsed trace."""
        self._sums[name].add(task_id, principles, gold, verdicts)

    def result(self) -> AnnotatorAccuracies:
        """The accuracies, in the order in which the annotators appeared."""
        return AnnotatorAccuracies(tuple(sums.accuracy(name) for name, sums in self._sums.items()))


class _Sums:
    """The sums of one annotator."""

    def __init__(self) -> None:
        self.num_traces = self.num_unparsed = 0
        self._right, self._total = array("d"), array("d")  # by task
        self._task = ""
        self._counts = {category: [0, 0, 0, 0] for category in CATEGORIES}  # (annotator, gold): yes yes, yes no, no yes, no no

    def add(self, task_id: str, principles: Sequence[Principle], gold: Sequence[bool], verdicts: Sequence[bool]) -> None:
        self.num_traces += 1
        if not verdicts:
            self.num_unparsed += 1
        if not verdicts or len(verdicts) != len(gold):
            return
        if task_id != self._task:
            self._task = task_id
            self._right.append(0.0)
            self._total.append(0.0)
        for principle, said, true in zip(principles, verdicts, gold, strict=True):
            self._counts[principle.category][2 * (not said) + (not true)] += 1
            self._right[-1] += said == true
        self._total[-1] += len(gold)

    def accuracy(self, name: str) -> AnnotatorAccuracy:
        found = share_of_sums(self._right, self._total) if self._total else None
        figures: tuple[float | None, float | None, float | None, int] = (None, None, None, 0)
        if found:
            figures = (found.value, found.low, found.high, found.n)
        rows = (CategoryVerdicts(category, VerdictAgreement(*counts)) for category, counts in self._counts.items())
        return AnnotatorAccuracy(name, self.num_traces, self.num_unparsed, *figures, tuple(row for row in rows if row.counts.n))
