"""How right is each annotator of the pool? Their verdicts against gold, by category of principle, counted while tables are read.

Gold is the inspector's word (paper, section 3.1); the paper reports no accuracy of its annotators: this account is ours.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from editr1.schema import CATEGORIES, Category, Judgement, Principle, Trace
from editr1.stats.agreement import VerdictAgreement
from editr1.stats.intervals import Estimate, share_of_sums


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
        found: Estimate | None = None
        if self._total:
            found = share_of_sums(self._right, self._total)
        categories = (CategoryVerdicts(category, VerdictAgreement(*counts)) for category, counts in self._counts.items())
        return AnnotatorAccuracy(
            name,
            self.num_traces,
            self.num_unparsed,
            found.value if found else None,
            found.low if found else None,
            found.high if found else None,
            found.n if found else 0,
            tuple(row for row in categories if row.counts.n),
        )
