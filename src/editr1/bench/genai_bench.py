"""GenAI-Bench image editing: stored answers of pairwise judges, under three protocols that must never share a column.

`pairwise.json` is a list of {"idx", "source_prompt", "instruct_prompt", "response", "human_vote", ...}, 919 rows; votes are leftvote,
rightvote, tievote, bothbad_vote. Source: TIGER-AI-Lab/GenAI-Bench at f0b0334 (MIT); data: HF TIGER-Lab/GenAI-Bench, config image_edition.

- `genai-bench/4-label/<rule>`: the label must be the vote, of four (GPT-4o 53.54 by the rule `official`).
- `genai-bench/three-class/...`: EditReward's protocol, both kinds of tie in one class; epsilon tuned in sample there, cross-fitted here.
- `genai-bench/decisive/...`: the 503 pairs where people chose a side.

Judges are asked about the dataset itself (`editr1 bench genai_bench --root DIR`, split `test_v1`), scores under the last two protocols,
judges of pairs under `genai-bench/pairwise/...`. Four rules read an answer, and models that echo the list of options make them matter:
qwenVL reads 14.91 (official, first), 16.43 (last) or 12.08 (answers that name one label only), instructblip 19.80 (official) or 20.67
(first). `official` is the benchmark's own: from the first `[[` to the last `]]` of a line, which must be one label. All 18 published
accuracies follow from it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from editr1.bench.base import JudgedEdit, Outcome, Stored, credit_outcome, headline, refuse_doubles, require_folder
from editr1.errors import DataError
from editr1.judge.answers import normalised
from editr1.judge.parse import answer_of
from editr1.measure.metrics import accuracy_metrics, by_kind, three_class_metrics, to_metric
from editr1.measure.rows import Pair, PairBench, expect_count, opener, read_json, read_rows
from editr1.schema import Label, Metric
from editr1.stats import share_estimate

Vote = Literal["A>B", "B>A", "A=B=Good", "A=B=Bad"]
VOTES: dict[str, Vote] = {"leftvote": "A>B", "rightvote": "B>A", "tievote": "A=B=Good", "bothbad_vote": "A=B=Bad"}
CELLS = itemgetter("source_image", "left_output_image", "right_output_image")
COLUMNS = ("source_prompt", "instruct_prompt", "source_image", "left_output_image", "right_output_image", "vote_type")
CONFIG, SPLIT = "image_edition", "test_v1"  # the folder also holds `test`, 983 rows that no published number is of
NUM_ROWS = 919  # of the published numbers
DOWNLOAD = "huggingface-cli download TIGER-Lab/GenAI-Bench --repo-type dataset --include 'image_edition/*' --local-dir DIR"
SIGNS: dict[Vote, int] = {"A>B": 1, "B>A": -1, "A=B=Good": 0, "A=B=Bad": 0}
LABELS: dict[int, Label] = {1: "a", -1: "b", 0: "same"}

Rule = Literal["official", "first", "last", "unambiguous"]
RULES: tuple[Rule, ...] = ("official", "first", "last", "unambiguous")
_LABEL = re.compile(r"\[\[(A>B|B>A|A=B=Good|A=B=Bad)\]\]")
_OFFICIAL = re.compile(r"\[\[(.*)\]\]")
# What the benchmark's script accepts for each vote; its prompt asks for the four labels only.
_ACCEPTED: dict[str, tuple[Vote, ...]] = {
    "A>B": ("A>B",),
    "A>>B": ("A>B",),
    "B>A": ("B>A",),
    "B>>A": ("B>A",),
    "A=B=Good": ("A=B=Good",),
    "A=B=Bad": ("A=B=Bad",),
    "A=B": ("A=B=Good", "A=B=Bad"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One stored comparison."""

    index: int
    source: str
    """What pairs of one source share: the caption of the source image."""
    response: str
    vote: Vote


def read_answers(path: Path) -> list[Answer]:
    """The rows of a `pairwise.json`. Raises DataError for another layout, an unknown vote or a doubled index."""
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of comparisons")
    answers = [_answer(row, i, path) for i, row in enumerate(rows)]
    refuse_doubles([answer.index for answer in answers], str(path))
    expect_count(len(answers), NUM_ROWS, str(path))
    return answers


def _answer(row: Any, position: int, path: Path) -> Answer:
    if not isinstance(row, dict) or "human_vote" not in row:
        raise DataError(f"{path}: row {position}: expected an object with 'human_vote' and 'response'")
    if "prompt" in row:
        raise DataError(f"{path}: row {position} has 'prompt': answers about generation; expected those of results/image_edition")
    if not isinstance(row["human_vote"], str) or row["human_vote"] not in VOTES:
        raise DataError(f"{path}: row {position}: unknown vote {row['human_vote']!r}, expected one of {', '.join(VOTES)}")
    index, response = row.get("idx", position), row.get("response")
    if type(index) is not int:
        raise DataError(f"{path}: row {position}: idx is {index!r}, expected a whole number")
    return Answer(
        index,
        str(row.get("source_prompt", position)),
        response if isinstance(response, str) else "",  # an answer that was never stored is unscored, as an unreadable one
        VOTES[row["human_vote"]],
    )


def read_votes(response: str, rule: Rule) -> tuple[Vote, ...]:
    """The votes that an answer agrees with: none, one, or by `official` both ties for "[[A=B]]".

    >>> read_votes("[[A>B]] or [[B>A]]", "first"), read_votes("[[A>B]] or [[B>A]]", "official")
    (('A>B',), ())
    """
    if rule == "official":
        match = _OFFICIAL.search(response)
        return _ACCEPTED.get(match.group(1), ()) if match else ()
    label = read_label(response, rule)
    return () if label is None else (label,)


def read_label(response: str, rule: Literal["first", "last", "unambiguous"] = "first") -> Vote | None:
    """The label that an answer gives behind its thinking; None when there is none, or by `unambiguous` when there are several.

    >>> read_label("[[A>B]] or [[B>A]]", "last"), read_label("[[A>B]] or [[B>A]]", "unambiguous")
    ('B>A', None)
    """
    found: list[Vote] = _LABEL.findall(answer_of(normalised(response)) or "")
    if not found or (rule == "unambiguous" and len(set(found)) > 1):
        return None
    return found[-1] if rule == "last" else found[0]


def metrics(answers: Sequence[Answer]) -> list[Metric]:
    """All protocols of a pairwise judge's answers, clustered by source.

    An answer without a label is wrong, and counted, among four labels and among three classes. The share of answers that prefer the left
    image stands beside that of people: a gap is position bias or taste.
    """
    signs = np.array([_sign(read_label(answer.response)) for answer in answers])
    people, sources = np.array([SIGNS[answer.vote] for answer in answers]), [answer.source for answer in answers]
    found = []
    for rule in RULES:
        votes = [read_votes(answer.response, rule) for answer in answers]
        right = np.array([answer.vote in read for read, answer in zip(votes, answers, strict=True)], dtype=np.float64)
        by_vote, num_unscored = by_kind(right, [answer.vote for answer in answers]), sum(not read for read in votes)
        label = share_estimate(right, sources)
        found.append(to_metric("genai_4_label", label, f"genai-bench/4-label/{rule}", num_unscored=num_unscored, by_category=by_vote))
    chosen = people != 0
    margins = (signs * people)[chosen]
    found += accuracy_metrics("genai_decisive", margins, list(itertools.compress(sources, chosen)), "genai-bench/decisive")
    three, num_unscored = share_estimate((signs == people).astype(np.float64), sources), int(np.isnan(signs).sum())
    found.append(to_metric("genai_three_class", three, "genai-bench/three-class/labels", num_unscored=num_unscored))
    for name, sided, whose in (("", signs, "judge"), ("_people", people, "people")):
        left = sided[np.isin(sided, (1, -1))] > 0
        share = float(left.mean()) if len(left) else None
        found.append(Metric(f"genai_left_share{name}", share, n=len(left), protocol=f"genai-bench/position/{whose}"))
    return found


def recognise(path: Path) -> bool:
    """Whether a file is a `pairwise.json`: a list of answers with human votes."""
    if path.suffix != ".json" or not path.is_file():
        return False
    rows = read_json(path)
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "human_vote" in rows[0]


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judge a `pairwise.json`, named by its folder."""
    found = []
    for path in paths:
        answers = read_answers(path)
        numbers = metrics(answers)
        columns = {"4-label": "genai-bench/4-label/official", "three-class": "genai-bench/three-class/labels"}
        columns |= {kind: f"genai-bench/decisive/{kind}" for kind in ("strict", "half")}
        outcomes = [
            credit_outcome(str(answer.index), answer.source, answer.vote, _sign(read_label(answer.response)) * SIGNS[answer.vote])
            for answer in answers
            if SIGNS[answer.vote]
        ]
        name = path.parent.name if path.stem == "pairwise" else path.stem
        found.append(Stored(name, "genai_bench", numbers, outcomes, headline(numbers, columns)))
    return found


def _sign(label: Vote | None) -> float:
    return math.nan if label is None else float(SIGNS[label])


# --- judging ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GenAIBench(PairBench):
    """The dataset. Make one with `build`."""

    rows: tuple[Pair, ...]
    votes: tuple[Vote, ...]
    name: str = "genai_bench"

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        found = self.accuracy("genai_decisive", "genai-bench/decisive", judged)
        signs, sources = [row.sign for row in self.rows], [row.cluster for row in self.rows]
        return found + three_class_metrics("genai", self.gaps(self.rows, judged), signs, sources, "genai-bench/three-class", seed)

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        return [replace(outcome, category=self.votes[int(outcome.key)]) for outcome in super().outcomes(judged)]


def build(root: Path | str | None = None) -> GenAIBench:
    """The benchmark from a local copy of the configuration image_edition. Raises DataError that says what to download."""
    folder = require_folder(root, "genai_bench", DOWNLOAD)
    table = read_rows(folder, COLUMNS, "genai_bench", CONFIG, SPLIT, texts=(*COLUMNS[:2], COLUMNS[-1]))
    unknown = sorted(set(table["vote_type"]) - set(VOTES))
    if unknown:
        raise DataError(f"genai_bench: unknown vote_type {unknown[0]!r}, expected one of {', '.join(VOTES)}")
    expect_count(len(table), NUM_ROWS, "genai_bench")
    votes, columns = [VOTES[vote] for vote in table["vote_type"]], (table["instruct_prompt"], table["source_prompt"])
    rows = [
        Pair(
            str(i),
            (f"{i}/left", f"{i}/right"),
            text,
            LABELS[SIGNS[vote]],
            source,
            "",
            opener(table, i, CELLS, folder, f"genai_bench: row {i}"),
        )
        for i, (vote, text, source) in enumerate(zip(votes, *columns, strict=True))
    ]
    return GenAIBench(tuple(rows), tuple(votes))
