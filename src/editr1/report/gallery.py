"""Edits with all that was said about them: annotators, inspector, trained judges, and where they disagree."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.judge.inspect import annotator_name
from editr1.judge.prompts import labels
from editr1.report.judges import Traces
from editr1.report.reading import Album, Reader
from editr1.schema import Candidate, EditTask, Inspection, Judgement, Principle, Trace

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
    said = _said(reader, {candidate.id for own in edits.values() for candidate in own})
    cards = []
    for task in (task for task in tasks if task.id in chosen):
        if album.full:
            break
        cards.append(_card(reader, task, edits[task.id], said, judges, album))
    _shorten([voice for card in cards for edit in card["edits"] for voice in edit["voices"]])
    return Gallery(cards, len(tasks), tuple(judges))


@dataclass(frozen=True, slots=True)
class _Said:
    """What was said of the edits that are shown."""

    principles: Mapping[str, tuple[Principle, ...]]
    traces: Mapping[str, Sequence[Trace]]
    inspections: Mapping[str, Inspection]


def _said(reader: Reader, wanted: set[str]) -> _Said:
    traces: dict[str, list[Trace]] = defaultdict(list)
    for trace in reader.rows("04_traces"):
        if trace.quadruple_id in wanted:
            traces[trace.quadruple_id].append(trace)
    inspections = {row.quadruple_id: row for row in reader.rows("05_inspections") if row.quadruple_id in wanted}
    return _Said({row.task.id: row.principles for row in reader.rows("02_principles")}, traces, inspections)


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


def _card(reader: Reader, task: EditTask, edits: Sequence[Candidate], said: _Said, judges: Traces, album: Album) -> dict[str, Any]:
    principles = said.principles.get(task.id, ())
    questions = [
        {"label": name, "text": p.question, "category": p.category} for name, p in zip(labels(principles), principles, strict=True)
    ]
    shown = []
    for candidate in edits:
        voices = [_voice(trace, annotator_name(trace), "annotator") for trace in said.traces.get(candidate.id, ())]
        for judge, traces in judges.items():
            voices += [_voice(trace, judge, "judge") for trace in traces.get(candidate.id, ())]
        picture = album.add(reader, candidate.image)
        shown.append({"image": picture, **_edit(candidate, principles, voices, said.inspections.get(candidate.id))})
    return {
        "instruction": task.instruction,
        "kind": task.kind or "unknown kind",
        "sources": [album.add(reader, ref) for ref in task.sources],
        "principles": questions,
        "edits": shown,
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


def _edit(
    candidate: Candidate, principles: Sequence[Principle], voices: list[dict[str, Any]], inspection: Inspection | None
) -> dict[str, Any]:
    gold = list(inspection.gold) if inspection else []
    split = disagreements([voice["verdicts"] for voice in voices] + [gold], len(principles))
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
        "flags": _flags(voices, gold, inspection, split, principles),
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
