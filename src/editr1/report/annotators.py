"""Who labelled the data, how right they were against gold, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from editr1.judge.annotators import AnnotatorAccuracies, AnnotatorAccuracy, CategoryVerdicts
from editr1.store import Run
from editr1.store._files import read_object, read_record


@dataclass(frozen=True, slots=True)
class Annotators:
    """What the run knows about its annotators; empty where the stages have not come that far."""

    accuracies: tuple[AnnotatorAccuracy, ...] = ()
    agreement: tuple[float, float | None, int] | None = None
    """Of the two inspectors: share of equal verdicts, kappa, verdicts."""
    usage: tuple[tuple[str, dict[str, float]], ...] = ()
    """(member of the pool, its traces, tokens and cost)."""


def read_annotators(run: Run) -> Annotators:
    """The figures that `score` and `inspect` left."""
    found = run.dir / "05_inspections" / "annotators.json"
    accuracies = read_record(AnnotatorAccuracies, found).annotators if found.exists() else ()
    path = run.dir / "05_inspections" / "agreement.json"
    both = read_object(path, "n") if path.exists() else {"n": 0}
    usage = run.dir / "04_traces" / "usage.json"
    return Annotators(
        accuracies,
        (both["agreement"], both.get("kappa"), both["n"]) if both["n"] else None,
        tuple(read_object(usage).items()) if usage.exists() else (),
    )


def percent(value: float | None) -> str:
    """A share for people; a missing one is a dash.

    >>> percent(0.5), percent(None)
    ('50.0 %', '–')
    """
    return "–" if value is None else f"{100 * value:.1f} %"


def confusion_row(row: CategoryVerdicts) -> tuple[str, ...]:
    """Category, the four counts, accuracy, recall of violations."""
    c = row.counts
    counts = (f"{count:,}" for count in (c.both_yes, c.only_judge_yes, c.only_human_yes, c.both_no))
    return row.category, *counts, percent(c.accuracy), percent(c.violated_recall)
