"""What is known about those who judge: edits with all that annotators, inspector and trained judges said of them, annotators against gold,
people's pairs, and whether a larger gap means a surer judge."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editr1.judge.inspect import AnnotatorAccuracies, AnnotatorAccuracy, CategoryVerdicts, annotator_name
from editr1.judge.prompts import labels
from editr1.report.figures import CategoryBars, percent
from editr1.report.reading import Album, Reader
from editr1.schema import Candidate, EditTask, Inspection, Judgement, PreferencePair, Principle, Trace
from editr1.stats.calibration import Bin, calibrate
from editr1.store._files import read_object, read_record

Traces = Mapping[str, Mapping[str, Sequence[Trace]]]
"""judge -> candidate id -> traces."""
MAX_TASKS = 48  # ours: a person looks at a few dozen; more only makes the file heavy
MAX_TEXT = 6_000  # ours: bytes of a trace that travel with the page; a long trace of a 7B verifier has about 3,000
TEXT_BUDGET = 1_500_000  # ours: bytes of all traces together, beside the pictures' budget
JUDGES = "10_traces"
"""Folder of `<judge>.jsonl`: traces of the trained judges, as `schema.to_json` writes them."""
EDGES = (0.5, 1.0, 2.0, 4.0, math.inf)  # points of tau; ours: a tie of greedy scores is the first bin's business
BIN_NAMES = ("under 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 and more")
MIN_PAIRS = 20  # ours: five folds of fewer than four pairs fit noise
NO_SIGNAL = 100.0  # points; ours: with this temperature the widest gap, 10 points, forecasts 52.5 %


@dataclass(frozen=True, slots=True)
class Gallery:
    """What the page shows, and out of how much."""

    cards: list[dict[str, Any]]
    num_tasks: int
    voices: tuple[str, ...] = ()
    """Judges beyond the annotators whose traces were found."""


def build_gallery(reader: Reader, judges: Traces, album: Album) -> Gallery:
    """A card a task for at most MAX_TASKS tasks, drawn evenly over the edit kinds in the order of the run.

    Where a trained judge has spoken, its tasks are the ones that are shown: the held-out ones, which no training has seen.
    """
    task_of = {candidate.id: candidate.task_id for candidate in reader.rows("03_candidates")}
    with_edits = set(task_of.values())
    tasks = [task for task in reader.rows("01_tasks") if task.id in with_edits]
    judged = {task_of[key] for said in judges.values() for key in said if key in task_of}
    chosen = choose_tasks([task for task in tasks if task.id in judged] or tasks)
    edits: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in reader.rows("03_candidates"):
        if candidate.task_id in chosen:
            edits[candidate.task_id].append(candidate)
    voices: dict[str, list[dict[str, Any]]] = {candidate.id: [] for own in edits.values() for candidate in own}
    for trace in reader.rows("04_traces"):
        if trace.quadruple_id in voices:
            voices[trace.quadruple_id].append(_voice(trace, annotator_name(trace), "annotator"))
    for judge, said in judges.items():
        for key, heard in voices.items():
            heard += [_voice(trace, judge, "judge") for trace in said.get(key, ())]
    inspections = {row.quadruple_id: row for row in reader.rows("05_inspections") if row.quadruple_id in voices}
    principles = {row.task.id: row.principles for row in reader.rows("02_principles") if row.task.id in chosen}
    cards: list[dict[str, Any]] = []
    for task in (task for task in tasks if task.id in chosen):
        if album.full:
            break
        asked = principles.get(task.id, ())
        cards.append(
            {
                "instruction": task.instruction,
                "kind": task.kind or "unknown kind",
                "sources": [album.add(reader, ref) for ref in task.sources],
                "principles": [
                    {"label": label, "text": p.question, "category": p.category} for label, p in zip(labels(asked), asked, strict=True)
                ],
                "edits": [
                    {"image": album.add(reader, edit.image), **_edit(edit, asked, voices[edit.id], inspections.get(edit.id))}
                    for edit in edits[task.id]
                ],
            }
        )
    _shorten([voice for card in cards for edit in card["edits"] for voice in edit["voices"]])
    return Gallery(cards, len(tasks), tuple(judges))


def choose_tasks(tasks: Sequence[EditTask], limit: int = MAX_TASKS) -> set[str]:
    """Ids of the tasks to show: one of each kind in turn, in their order, never by how well they came out."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        by_kind[task.kind].append(task.id)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_kind.values()))
    return set(itertools.islice((task_id for task_id in turns if task_id is not None), limit))


def read_judges(reader: Reader) -> dict[str, dict[str, list[Trace]]]:
    """The traces of the trained judges: judge -> candidate id -> traces."""
    judges: dict[str, dict[str, list[Trace]]] = {}
    for name in reader.folder(JUDGES, "*.jsonl"):
        said = judges.setdefault(Path(name).stem, defaultdict(list))
        for trace in reader.records(name, Trace):
            said[trace.quadruple_id].append(trace)
    return {judge: said for judge, said in judges.items() if said}


def _voice(trace: Trace, name: str, role: str) -> dict[str, Any]:
    outcome = trace.outcome
    said: dict[str, Any] = {"name": name, "role": role, "text": trace.text, "cut": False}
    if isinstance(outcome, Judgement):
        return said | {"verdicts": list(outcome.verdicts), "score": outcome.score}
    return said | {"verdicts": [], "score": None, "failure": outcome.code}


def _shorten(voices: Sequence[dict[str, Any]]) -> None:
    """Cuts the longest traces until all of them fit into the budget."""
    texts = [voice["text"].encode() for voice in voices]
    limit = min(MAX_TEXT, longest_that_fits([len(text) for text in texts], TEXT_BUDGET))
    for voice, text in zip(voices, texts, strict=True):
        if len(text) > limit:
            voice |= {"text": text[:limit].decode(errors="ignore"), "cut": True}


def longest_that_fits(lengths: Sequence[int], budget: int) -> int:
    """The greatest limit at which texts of these lengths, each cut to it, fit into the budget together.

    >>> longest_that_fits([2, 9, 9], 10)
    4
    """
    left = budget
    for number, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - number)
        if length > share:
            return share
        left -= length
    return max(lengths, default=0)


def _edit(
    candidate: Candidate, principles: Sequence[Principle], voices: list[dict[str, Any]], inspection: Inspection | None
) -> dict[str, Any]:
    """An edit with what was said of it, and the flags that the page filters by."""
    gold = list(inspection.gold) if inspection else []
    split = disagreements([voice["verdicts"] for voice in voices] + [gold], len(principles))
    flags = sorted({f"violates {p.category}" for p, met in zip(principles, gold, strict=False) if not met})
    flags += ["unparsed"] * any(voice["score"] is None for voice in voices)
    flags += ["dropped"] * bool(inspection and inspection.dropped)
    flags += ["disagreement"] * bool(split)
    return {
        "id": candidate.id,
        "editor": candidate.editor,
        "seed": candidate.seed,
        "voices": voices,
        "gold": gold,
        "reasons": list(inspection.reasons) if inspection else [],
        "chosen": inspection.chosen if inspection else None,
        "dropped": inspection.dropped if inspection else None,
        "split": split,
        "flags": flags,
    }


def disagreements(verdicts: Iterable[Sequence[bool]], num_principles: int) -> list[int]:
    """Positions of the principles on which those who gave verdicts differ.

    >>> disagreements([[True, False], [], [True, True]], 2)
    [1]
    """
    given = [verdict for verdict in verdicts if len(verdict) == num_principles]
    return [k for k in range(num_principles) if len({verdict[k] for verdict in given}) > 1]


@dataclass(frozen=True, slots=True)
class Annotators:
    """What the run knows about its annotators; empty where the stages have not come that far."""

    accuracies: tuple[AnnotatorAccuracy, ...]
    agreement: tuple[float, float | None, int] | None
    """Of the two inspectors: share of equal verdicts, kappa, verdicts."""
    usage: tuple[Mapping[str, Any], ...]
    """What each member of the pool, by `name`, has used: `traces`, `tokens_in`, `tokens_out`, `cost`."""


def read_annotators(reader: Reader) -> Annotators:
    """The figures that `score` and `inspect` left."""
    found = reader.value("05_inspections/annotators.json", lambda path: read_record(AnnotatorAccuracies, path), AnnotatorAccuracies(()))
    agreement = reader.value("05_inspections/agreement.json", _agreement, None)
    return Annotators(found.annotators, agreement, reader.value("04_traces/usage.json", _usage, ()))


def _agreement(path: Path) -> tuple[float, float | None, int] | None:
    both = read_object(path, "n")
    kappa = both.get("kappa")
    return (float(both["agreement"]), None if kappa is None else float(kappa), int(both["n"])) if both["n"] else None


def _usage(path: Path) -> tuple[Mapping[str, Any], ...]:
    names = ("traces", "tokens_in", "tokens_out", "cost")
    return tuple({"name": member} | {name: float(used.get(name, 0)) for name in names} for member, used in read_object(path).items())


def confusion_row(row: CategoryVerdicts) -> tuple[str, ...]:
    """Category, the four counts, accuracy, recall of violations."""
    c = row.counts
    counts = (f"{count:,}" for count in (c.both_yes, c.only_judge_yes, c.only_human_yes, c.both_no))
    return row.category, *counts, percent(c.accuracy), percent(c.violated_recall)


def count_pairs(pairs: Sequence[PreferencePair]) -> list[tuple[str, int, int, int]]:
    """(annotator, a, b, same): who preferred what, by annotator."""
    counts = Counter((pair.annotator or "unnamed", pair.label) for pair in pairs)
    return [(name, counts[name, "a"], counts[name, "b"], counts[name, "same"]) for name in sorted({name for name, _ in counts})]


@dataclass(frozen=True, slots=True)
class Reliability:
    """One judge's forecasts beside what came true; each pair's forecast uses a slope that was fitted on other tasks."""

    judge: str
    summary: str
    bins: tuple[Bin, ...]


def reliabilities(pairs: Sequence[PreferencePair], judges: Traces) -> list[Reliability]:
    """One a trained judge that scored at least MIN_PAIRS decisive pairs."""
    found = []
    for judge, traces in judges.items():
        margins = list(_margins(pairs, traces))
        tasks = [task for task, _ in margins]
        if len(margins) >= MIN_PAIRS and len(set(tasks)) >= 2:
            fit = calibrate([margin for _, margin in margins], tasks, rng=np.random.default_rng(0))
            clear = fit.temperature and fit.temperature < NO_SIGNAL
            signal = f"temperature {fit.temperature:.2f} points" if clear else "no signal in the gaps"
            told = f"{fit.n:,} pairs, calibration error {100 * fit.ece:.1f} %, log loss {fit.log_loss:.3f} (a coin .693), {signal}"
            found.append(Reliability(judge, told, fit.bins))
    return found


def margin_bars(pairs: Sequence[PreferencePair], judges: Traces) -> list[CategoryBars]:
    """Share of decisive pairs on which judge and person agree (ties half), by |score difference|; none without pairs or judges."""
    if not pairs or not judges:
        return []
    columns = {judge: _credits(pairs, traces) for judge, traces in judges.items()}
    rows = tuple((name, tuple(_credit(columns[judge].get(bin_, [])) for judge in columns)) for bin_, name in enumerate(BIN_NAMES))
    return [CategoryBars("agreement with people, by difference of the two scores", tuple(columns), rows)]


def _credits(pairs: Sequence[PreferencePair], traces: Mapping[str, Sequence[Trace]]) -> dict[int, list[float]]:
    """Bin -> credit of each pair whose two edits are scored."""
    credits: dict[int, list[float]] = defaultdict(list)
    for _, margin in _margins(pairs, traces):
        bin_ = next(index for index, edge in enumerate(EDGES) if abs(margin) < edge)
        credits[bin_].append(0.5 if margin == 0 else float(margin > 0))
    return credits


def _margins(pairs: Sequence[PreferencePair], traces: Mapping[str, Sequence[Trace]]) -> Iterator[tuple[str, float]]:
    """(task, preferred minus other) of each decisive pair whose two edits are scored."""
    said = {key: [trace.outcome.score for trace in found if isinstance(trace.outcome, Judgement)] for key, found in traces.items()}
    scores = {key: sum(found) / len(found) for key, found in said.items() if found}
    for pair in pairs:
        if pair.label != "same" and pair.a.id in scores and pair.b.id in scores:
            yield pair.task.id, scores[pair.winner.id] - scores[pair.loser.id]


def _credit(credits: list[float]) -> tuple[str, float] | None:
    share = 100 * sum(credits) / len(credits) if credits else 0.0
    return (f"{share:.1f} % of {len(credits):,}", share) if credits else None
