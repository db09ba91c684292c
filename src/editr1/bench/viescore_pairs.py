"""VIEScore's three image editing studies as pairs: a judge's O against the mean of three human raters.

    <root>/_human_annotations/**/ImagenHub_<task>/*_rater{1,2,3}.tsv    uid x editor: [SC, PQ] in {0, .5, 1}
    <root>/_answers/<results>/ImagenHub_<task>/<editor>/{SC,PQ}.json    uid: {"score": ..., "reasoning": ...}

<root> is `paper_implementation` of the repository; the two folders are also found without the underscore. All pairs of the editors on one
uid; human O = mean over raters of sqrt(SC * PQ), equal O = a human tie. Judge O = sqrt(min(SC) * min(PQ)). A uid names a photo and a turn
(`sample_<photo>_<turn>.jpg`): 179 are of 116 photos, by which all is clustered. Source: TIGER-AI-Lab/VIEScore at 2cbea4e, arXiv 2312.14867.

Protocols, for Text-Guided_IE (`viescore-mask-guided/...` and `viescore-subject-driven/...` for the others):
`viescore-pairs/decisive/{half,strict,non-tied}`, `viescore-pairs/decisive/strict/standard-error/{naive,by-uid,by-photo}`,
`viescore-pairs/three-class/{cross-fitted,in-sample,floor}`, `viescore-pairs/spearman/{plain,fisher}`, `viescore-pairs/odd-scores`, and
`viescore-pairs/notebook/{SC,PQ,O}`: what VIEScore's notebook and table (and EditReward's ImagenHub column, O) print: whole sub-scores,
values out of range cut off, exact ranks, and tanh of the mean of the editors' rho (Fisher's way back without the way there). Of its 54
figures 50 follow to the last digit with the raters in file order, as GPT-4o's published ones do; all with Text-Guided_IE's as 1, 3, 2.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from editr1.bench.base import Outcome, Stored, headline, refuse_doubles, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics, three_class_metrics
from editr1.measure.rows import geometric_mean, lowest, read_json, sub_scores
from editr1.schema import Metric
from editr1.stats import TIE_TOLERANCE, clustered_standard_error, half_credit, strict_credit, to_margins
from editr1.stats.agreement import MeanCorrelation, mean_correlation, spearman
from editr1.stats.clusters import Floats
from editr1.store.foreign import whole_table

TASKS = {
    "ImagenHub_Text-Guided_IE": "viescore-pairs",
    "ImagenHub_Mask-Guided_IE": "viescore-mask-guided",
    "ImagenHub_Subject-Driven_IE": "viescore-subject-driven",
}
"""Folder of a task -> first part of its protocols. The study's other tasks are about generation."""
TASK = "ImagenHub_Text-Guided_IE"
Aspect = Literal["SC", "PQ", "O"]
ASPECTS: tuple[Aspect, ...] = ("SC", "PQ", "O")
HUMAN, ANSWERS = ("_human_annotations", "human_annotations"), ("_answers", "answers")
DOWNLOAD = "git clone https://github.com/TIGER-AI-Lab/VIEScore and give its paper_implementation folder"

_UID = re.compile(r"sample_(\d+)_\d+\.\w+")

Cell = tuple[str, str]
"""(uid, editor)."""
Rating = tuple[float, float]
"""(SC, PQ) in [0, 1]."""


@dataclass(frozen=True)
class VIEScoreData:
    """Human and judge O of every uid that people rated and every editor that the judge was asked about."""

    human: dict[Cell, float]
    """In [0, 1]."""
    judge: dict[Cell, float | None]
    """In [0, 10]; None = the stored score is missing or unreadable."""
    num_odd: int
    """Stored scores that are no list of two: VIEScore's script writes a random number as a list of one when parsing failed."""
    num_stored: int
    ratings: dict[Cell, list[Rating]]
    """Of each rater."""
    raw: dict[Cell, tuple[Any, Any]]
    """The stored (SC, PQ) of cells that have both."""
    task: str = TASK

    @property
    def editors(self) -> list[str]:
        return sorted({editor for _, editor in self.judge})

    @property
    def uids(self) -> list[str]:
        return sorted({uid for uid, _ in self.judge})


def recognise(path: Path) -> bool:
    """Whether a path is a folder `_answers/<results>` or lies below one, or is one aspect's file."""
    return path.name in ("SC.json", "PQ.json") or (path.is_dir() and any(folder.parent.name in ANSWERS for folder in (path, *path.parents)))


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judge and editing task each: all tasks of a folder `_answers/<results>`, or the one whose folder is given.

    Raises DataError for a folder of another task, one below a task, and one without an editing task.
    """
    found = []
    for path in paths:
        if path.is_file():
            raise DataError(f"{path} is one aspect of VIEScore's answers about one editor; give their folder _answers/<results>")
        results = next(folder for folder in (path, *path.parents) if folder.parent.name in ANSWERS)
        inside = path.relative_to(results).parts
        tasks = [task for task in TASKS if (results / task).is_dir() and inside in ((), (task,))]
        if not tasks:
            what = f"is of {inside[0]}" if inside else "holds none of its tasks"
            raise DataError(f"{path} {what}; give a folder _answers/<results>, or one of its {', '.join(TASKS)}")
        for task in tasks:
            loaded = load(results.parent.parent, results.name, task)
            numbers = metrics(loaded, seed)
            kinds = {"strict": "decisive/strict", "half": "decisive/half", **{f"rho {aspect}": f"notebook/{aspect}" for aspect in ASPECTS}}
            columns = {name: f"{TASKS[task]}/{kind}" for name, kind in kinds.items()}
            found.append(Stored(results.name, TASKS[task].replace("-", "_"), numbers, outcomes(loaded), headline(numbers, columns)))
    return found


def load(root: Path | str | None, results: str, task: str = TASK) -> VIEScoreData:
    """Reads one judge's answers (`results` names a folder of `_answers/`) beside the human ratings.

    Raises DataError for a missing folder, an unreadable file, or raters that do not cover a judged cell.
    """
    folder = require_folder(root, "viescore_pairs", DOWNLOAD)
    ratings, stored = _either(folder, HUMAN), _either(folder, ANSWERS)
    raters = [read_rater(path) for path in sorted(ratings.glob(f"**/{task}/*_rater*.tsv"))]
    if not raters:
        raise DataError(f"viescore_pairs: no rater files under {ratings}; {DOWNLOAD}")
    answers = stored / results / task
    editors = sorted(path.parent.name for path in answers.glob("*/SC.json"))
    if not editors:
        raise DataError(f"viescore_pairs: no <editor>/SC.json under {answers}; name a folder of {stored} that holds them as results")
    rated = {uid for uid, _ in raters[0]}
    given: dict[Cell, list[Rating]] = {}
    raw: dict[Cell, tuple[Any, Any]] = {}
    judge: dict[Cell, float | None] = {}
    scores: list[Any] = []
    for editor in editors:
        semantic, quality = (read_answers(answers / editor / f"{aspect}.json") for aspect in ("SC", "PQ"))
        for uid in sorted(rated | semantic.keys() | quality.keys()):
            given[uid, editor] = ratings_of(raters, uid, editor)
            judge[uid, editor] = geometric_mean(lowest(semantic.get(uid)), lowest(quality.get(uid)))
        raw |= {(uid, editor): (semantic[uid], quality[uid]) for uid in sorted(semantic.keys() & quality.keys())}
        scores += [*semantic.values(), *quality.values()]
    num_odd = sum(len(sub_scores(score) or ()) != 2 for score in scores)
    human = {cell: float(np.mean([aspect_of(rating, "O") for rating in of])) for cell, of in given.items()}
    return VIEScoreData(human, judge, num_odd, len(scores), given, raw, task)


def _either(folder: Path, names: Sequence[str]) -> Path:
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


def read_rater(path: Path) -> dict[Cell, Rating]:
    """One rater's (SC, PQ) in [0, 1] by cell. Raises DataError for a missing column, a doubled uid or a cell that is no pair of shares."""
    rows = [row for _, row in whole_table(path, ("uid",))]
    if not all(row["uid"] for row in rows):
        raise DataError(f"{path}: a row has no uid")
    refuse_doubles([row["uid"] for row in rows], str(path))
    cells: dict[Cell, Rating] = {}
    for row in rows:
        for editor, text in row.items():
            if editor not in ("uid", "schema_version"):
                numbers = sub_scores(text, top=1.0, num_expected=2)
                if numbers is None:
                    raise DataError(f"{path}: row {row['uid']}, column {editor}: expected [SC, PQ] with values in [0, 1], found {text!r}")
                cells[row["uid"], editor] = (numbers[0], numbers[1])
    return cells


def read_answers(path: Path) -> dict[str, Any]:
    """The stored score of each uid, as it is. Raises DataError for a file that is no such mapping."""
    rows = read_json(path)
    if not isinstance(rows, dict) or not all(isinstance(row, dict) and "score" in row for row in rows.values()):
        raise DataError(f"{path}: expected a mapping of uid to an object with 'score'")
    return {uid: row["score"] for uid, row in rows.items()}


def ratings_of(raters: Sequence[Mapping[Cell, Rating]], uid: str, editor: str) -> list[Rating]:
    """What each rater said. Raises DataError where one said nothing.

    A cell's human O is the mean over raters of sqrt(SC * PQ): not the root of the means, which is larger.
    """
    try:
        return [rater[uid, editor] for rater in raters]
    except KeyError as error:
        raise DataError(f"viescore_pairs: no human rating of {error.args[0]}; the answers and the ratings are of different sets") from error


def aspect_of(rating: Rating, aspect: Aspect) -> float:
    return {"SC": rating[0], "PQ": rating[1], "O": math.sqrt(math.prod(rating))}[aspect]


def photo_of(uid: str) -> str:
    """What uids of one photo share; a uid of another form stands for itself.

    >>> photo_of("sample_100081_1.jpg"), photo_of("sample_100081_3.jpg"), photo_of("u1")
    ('100081', '100081', 'u1')
    """
    match = _UID.fullmatch(uid)
    return match.group(1) if match else uid


def metrics(data: VIEScoreData, seed: int = 0) -> list[Metric]:
    """Accuracy on decisive pairs, three-class accuracy and rank correlation, clustered by photo."""
    protocol = TASKS[data.task]
    name = protocol.replace("-", "_")
    cells, margins, labels = _pairs(data)
    photos = [photo_of(uid) for uid, _, _ in cells]
    decided = labels != 0
    decided_margins, decided_photos = (margins * labels)[decided], list(itertools.compress(photos, decided))
    found = accuracy_metrics(name, decided_margins, decided_photos, f"{protocol}/decisive")
    found += _standard_errors(decided_margins, [uid for uid, _, _ in itertools.compress(cells, decided)], protocol)
    found += three_class_metrics(name.removesuffix("_pairs"), margins, labels.tolist(), photos, f"{protocol}/three-class", seed)
    found += _correlations(data, protocol)
    odd = data.num_odd / data.num_stored if data.num_stored else None
    return [*found, Metric("viescore_odd_scores", odd, n=data.num_stored, protocol=f"{protocol}/odd-scores")]


def outcomes(data: VIEScoreData) -> list[Outcome]:
    """One row a decisive pair of editors on one uid; a pair without both scores is unscored."""
    cells, margins, labels = _pairs(data)
    credits = half_credit(margins * labels).tolist()
    return [
        Outcome(f"{uid}/{a}/{b}", photo_of(uid), f"{a} - {b}", None if math.isnan(margin) else credit, "credit")
        for (uid, a, b), margin, label, credit in zip(cells, margins.tolist(), labels.tolist(), credits, strict=True)
        if label
    ]


def _pairs(data: VIEScoreData) -> tuple[list[tuple[str, str, str]], Floats, NDArray[np.int_]]:
    """(uid, a, b) of all pairs of editors on one uid, the judge's a - b (nan = unscored), and +1, -1 or 0 of the people."""
    cells = [
        (uid, a, b)
        for uid in data.uids
        for a, b in itertools.combinations([editor for editor in data.editors if (uid, editor) in data.judge], 2)
    ]
    human = np.array([data.human[uid, a] - data.human[uid, b] for uid, a, b in cells])
    judge = to_margins([data.judge[uid, a] for uid, a, _ in cells], [data.judge[uid, b] for uid, _, b in cells])
    return cells, judge, np.where(np.abs(human) <= TIE_TOLERANCE, 0, np.sign(human)).astype(int)


def _standard_errors(margins: Floats, uids: Sequence[str], protocol: str) -> list[Metric]:
    """Of the strict accuracy, under three beliefs about what is independent: pairs, uids, photos. Only the last holds."""
    right, where = strict_credit(margins), f"{protocol}/decisive/strict/standard-error"
    clusters = {"naive": None, "by-uid": uids, "by-photo": [photo_of(uid) for uid in uids]}
    errors = {kind: clustered_standard_error(right, keys) if uids else None for kind, keys in clusters.items()}
    name = f"{protocol}_standard_error".replace("-", "_")
    return [Metric(f"{name}/{kind.replace('-', '_')}", error, n=len(right), protocol=f"{where}/{kind}") for kind, error in errors.items()]


def _correlations(data: VIEScoreData, protocol: str) -> list[Metric]:
    name = protocol.replace("-", "_").removesuffix("_pairs")
    mean, known = _by_editor(
        {
            editor: spearman(
                [math.nan if (score := data.judge[cell]) is None else score for cell in data.judge if cell[1] == editor],
                [data.human[cell] for cell in data.judge if cell[1] == editor],
            )
            for editor in data.editors
        }
    )
    unscored = sum(value is None for value in data.judge.values())
    found = [
        Metric(f"{name}_spearman_{kind}", value, None, None, mean.num_groups, unscored, None, known, f"{protocol}/spearman/{kind}")
        for kind, value in [("plain", mean.plain), ("fisher", mean.fisher)]
    ]
    for aspect in ASPECTS:
        mean, known = _by_editor({editor: notebook_rho(data, editor, aspect) for editor in data.editors})
        protocol_id = f"{protocol}/notebook/{aspect}"
        found.append(Metric(f"{name}_notebook_{aspect}", mean.tanh_of_mean, n=mean.num_groups, by_category=known, protocol=protocol_id))
    return found


def _by_editor(rhos: Mapping[str, float | None]) -> tuple[MeanCorrelation, dict[str, float]]:
    return mean_correlation(list(rhos.values())), {editor: rho for editor, rho in rhos.items() if rho is not None}


def notebook_rho(data: VIEScoreData, editor: str, aspect: Aspect, order: Sequence[int] = ()) -> float | None:
    """An editor's rho as VIEScore's notebook computes it; a stored score that the notebook cannot read is left out.

    order: of the raters, by their files; the last bit of a mean of three depends on it, and an exact rank on that bit.
    """
    judge, human = [], []
    for (uid, name), cells in data.raw.items():
        semantic, quality = map(_notebook_score, cells)
        if name != editor or semantic is None or quality is None:
            continue
        judge.append(aspect_of((semantic, quality), aspect))
        ratings = [data.ratings[uid, editor][i] for i in order] or data.ratings[uid, editor]
        human.append(np.mean([aspect_of(rating, aspect) for rating in ratings]))
    return spearman(judge, human, exact=True)


def _notebook_score(raw: Any) -> float | None:
    """A share in [0, 1]: a number as it is, of several the lowest whole part; cut off at both ends."""
    try:
        number = float(raw) if isinstance(raw, int | float) else min(int(item) for item in raw)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else min(1.0, max(0.0, number / 10))
