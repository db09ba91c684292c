"""Edits with all that was said about them: annotators, inspector, trained judges, and where they disagree."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.errors import DataError
from editr1.judge.annotators import annotator_name
from editr1.judge.prompts import labels
from editr1.report.pictures import Album
from editr1.schema import EditTask, Inspection, Judgement, Principle, Quadruple, Trace, from_json
from editr1.store import Run, quadruples, with_traces

MAX_TASKS = 48  # ours: a person looks at a few dozen; more only makes the file heavy
MAX_TEXT = 6_000  # ours: bytes of a trace that travel with the page; a long trace of a 7B verifier has about 3,000
TEXT_BUDGET = 1_500_000  # ours: bytes of all traces together, beside the pictures' budget
JUDGES = "10_traces"
"""Folder of `<judge>.jsonl`: traces of the trained judges, as `schema.to_json` writes them."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """What the page shows, and out of how much."""

    cards: list[dict[str, Any]]
    num_tasks: int
    voices: tuple[str, ...] = ()
    """Judges beyond the annotators whose traces were found."""


def build_gallery(run: Run, album: Album) -> Gallery:
    """A card a task for at most MAX_TASKS tasks, drawn evenly over the edit kinds in the order of the run.

    Where a trained judge has spoken, its tasks are the ones that are shown: the held-out ones, which no training has seen.
    """
    if not run.has("03_candidates"):
        return Gallery([], 0)
    task_of = {candidate.id: candidate.task_id for candidate in run.read("03_candidates")}
    with_edits = set(task_of.values())
    tasks = [task for task in run.read("01_tasks") if task.id in with_edits] if run.has("01_tasks") else []
    judges = judge_traces(run, task_of)
    judged = {task_of[key] for said in judges.values() for key in said}
    chosen = choose_tasks([task for task in tasks if task.id in judged] or tasks)
    verdicts = _inspections(run, chosen)
    cards = []
    for task_id, group in itertools.groupby(_with_annotators(run), key=lambda pair: pair[0].task.id):
        if task_id not in chosen:
            continue
        if album.full:
            break
        cards.append(_card(list(group), verdicts, judges, album))
    _shorten([voice for card in cards for edit in card["edits"] for voice in edit["voices"]])
    return Gallery(cards, len(tasks), tuple(judges))


def choose_tasks(tasks: Sequence[EditTask], limit: int = MAX_TASKS) -> set[str]:
    """Ids of the tasks to show: one of each kind in turn, in their order, never by how well they came out."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        by_kind[task.kind].append(task.id)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_kind.values()))
    return set(itertools.islice((task_id for task_id in turns if task_id is not None), limit))


def _with_annotators(run: Run) -> Iterable[tuple[Quadruple, list[Trace]]]:
    return with_traces(run) if run.has("04_traces") else ((quadruple, []) for quadruple in quadruples(run))


def judge_traces(run: Run, wanted: Container[str] | None) -> dict[str, dict[str, list[Trace]]]:
    """judge -> candidate id -> traces, of the wanted candidates (None = all). Raises DataError for a broken line."""
    return {path.stem: _read_traces(path, wanted) for path in sorted((run.dir / JUDGES).glob("*.jsonl"))}


def _read_traces(path: Path, wanted: Container[str] | None) -> dict[str, list[Trace]]:
    found: dict[str, list[Trace]] = defaultdict(list)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                trace = from_json(Trace, line)
            except ValueError as error:
                raise DataError(f"{path}:{number} is no trace ({error}); write the judge's traces again") from error
            if wanted is None or trace.quadruple_id in wanted:
                found[trace.quadruple_id].append(trace)
    return found


def _inspections(run: Run, chosen: set[str]) -> dict[str, Inspection]:
    if not run.has("05_inspections"):
        return {}
    wanted = {c.id for c in run.read("03_candidates") if c.task_id in chosen}
    return {row.quadruple_id: row for row in run.read("05_inspections") if row.quadruple_id in wanted}


def _card(
    group: Sequence[tuple[Quadruple, list[Trace]]],
    inspections: dict[str, Inspection],
    judges: dict[str, dict[str, list[Trace]]],
    album: Album,
) -> dict[str, Any]:
    first = group[0][0]
    names = labels(first.principles)
    questions = [{"label": name, "text": p.question, "category": p.category} for name, p in zip(names, first.principles, strict=True)]
    edits = []
    for quadruple, traces in group:
        voices = [_voice(trace, annotator_name(trace), "annotator") for trace in traces]
        for judge, said in judges.items():
            voices += [_voice(trace, judge, "judge") for trace in said.get(quadruple.id, [])]
        edits.append(_edit(quadruple, voices, inspections.get(quadruple.id), album))
    return {
        "instruction": first.task.instruction,
        "kind": first.task.kind or "unknown kind",
        "sources": [album.add(ref) for ref in first.task.sources],
        "principles": questions,
        "edits": edits,
    }


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


def _edit(quadruple: Quadruple, voices: list[dict[str, Any]], inspection: Inspection | None, album: Album) -> dict[str, Any]:
    gold = list(inspection.gold) if inspection else []
    split = disagreements([voice["verdicts"] for voice in voices] + [gold], len(quadruple.principles))
    return {
        "id": quadruple.candidate.id,
        "image": album.add(quadruple.candidate.image),
        "editor": quadruple.candidate.editor,
        "seed": quadruple.candidate.seed,
        "voices": voices,
        "gold": gold,
        "reasons": list(inspection.reasons) if inspection else [],
        "chosen": inspection.chosen if inspection else None,
        "dropped": inspection.dropped if inspection else None,
        "split": split,
        "flags": _flags(voices, gold, inspection, split, quadruple.principles),
    }


def disagreements(verdicts: Iterable[Sequence[bool]], num_principles: int) -> list[int]:
    """Positions of the principles on which those who gave verdicts differ.

    >>> disagreements([[True, False], [], [True, True]], 2)
    [1]
    """
    given = [verdict for verdict in verdicts if len(verdict) == num_principles]
    return [k for k in range(num_principles) if len({verdict[k] for verdict in given}) > 1]


def _flags(
    voices: Sequence[dict[str, Any]], gold: Sequence[bool], inspection: Inspection | None, split: list[int], principles: Sequence[Principle]
) -> list[str]:
    """What the page filters by."""
    flags = sorted({f"violates {p.category}" for p, met in zip(principles, gold, strict=False) if not met})
    if any(voice["score"] is None for voice in voices):
        flags.append("unparsed")
    if inspection is not None and inspection.dropped:
        flags.append("dropped")
    if split:
        flags.append("disagreement")
    return flags
