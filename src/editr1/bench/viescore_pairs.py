"""VIEScore's text-guided editing study as pairs: a judge's O against the mean of three human raters.

    <root>/_human_annotations/**/ImagenHub_Text-Guided_IE/*_rater{1,2,3}.tsv    uid x editor: [SC, PQ] in {0, .5, 1}
    <root>/_answers/<results>/ImagenHub_Text-Guided_IE/<editor>/{SC,PQ}.json    uid: {"score": ..., "reasoning": ...}

<root> is `paper_implementation` of the repository; the two folders are also found without the underscore. All pairs of the editors
on one uid; human O = mean over raters of sqrt(SC * PQ), equal O = a human tie. Judge O = sqrt(min(SC) * min(PQ)).
A uid names a photo and a turn (`sample_<photo>_<turn>.jpg`): 179 uids are instructions about 116 photos, so whatever is uncertain is
clustered by photo. Source: TIGER-AI-Lab/VIEScore at 2cbea4e (MIT), arXiv 2312.14867.

Protocols: `viescore-pairs/decisive/{half,strict,non-tied}`, `viescore-pairs/decisive/strict/standard-error/{naive,by-uid,by-photo}`,
`viescore-pairs/three-class/{cross-fitted,in-sample,floor}`, `viescore-pairs/spearman/{plain,fisher,tanh-of-mean}`, of which the last is
what VIEScore's notebook and EditReward's ImagenHub column print, and `viescore-pairs/odd-scores`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from editr1.bench.base import accuracy_metrics, refuse_doubles, require_folder, three_class_metrics
from editr1.errors import ConfigError, DataError
from editr1.measure.raw_scores import geometric_mean, lowest, sub_scores
from editr1.measure.rows import read_csv, read_json
from editr1.schema import Metric
from editr1.stats import TIE_TOLERANCE, clustered_standard_error, strict_credit
from editr1.stats.correlation import mean_correlation, spearman
from editr1.stats.intervals import Floats

TASK = "ImagenHub_Text-Guided_IE"
HUMAN, ANSWERS = ("_human_annotations", "human_annotations"), ("_answers", "answers")
DOWNLOAD = "git clone https://github.com/TIGER-AI-Lab/VIEScore and give its paper_implementation folder"

_UID = re.compile(r"sample_(\d+)_\d+\.\w+")

Cell = tuple[str, str]
"""(uid, editor)."""


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

    @property
    def editors(self) -> list[str]:
        return sorted({editor for _, editor in self.judge})

    @property
    def uids(self) -> list[str]:
        return sorted({uid for uid, _ in self.judge})


def build(root: Path | str | None = None) -> NoReturn:
    """Raises ConfigError that says what to use instead: the study is published as ratings and answers, without its pictures."""
    raise ConfigError(
        "viescore_pairs cannot be judged anew: VIEScore publishes ratings and answers without pictures; make the numbers of stored answers "
        f"with: editr1 aggregate {root or 'DIR'}/_answers/<results>   ({DOWNLOAD})"
    )


def load(root: Path | str | None, results: str) -> VIEScoreData:
    """Reads one judge's answers (`results` names a folder of `_answers/`) beside the human ratings.

    Raises DataError for a missing folder, an unreadable file, or raters that do not cover a judged cell.
    """
    folder = require_folder(root, "viescore_pairs", DOWNLOAD)
    ratings, stored = _either(folder, HUMAN), _either(folder, ANSWERS)
    raters = [read_rater(path) for path in sorted(ratings.glob(f"**/{TASK}/*_rater*.tsv"))]
    if not raters:
        raise DataError(f"viescore_pairs: no rater files under {ratings}; {DOWNLOAD}")
    answers = stored / results / TASK
    editors = sorted(path.parent.name for path in answers.glob("*/SC.json"))
    if not editors:
        raise DataError(f"viescore_pairs: no <editor>/SC.json under {answers}; name a folder of {stored} that holds them as results")
    rated = {uid for uid, _ in raters[0]}
    human, judge, num_odd, num_stored = {}, {}, 0, 0
    for editor in editors:
        semantic, quality = (read_answers(answers / editor / f"{aspect}.json") for aspect in ("SC", "PQ"))
        for uid in sorted(rated | semantic.keys() | quality.keys()):
            human[uid, editor] = human_overall(raters, uid, editor)
            judge[uid, editor] = geometric_mean(lowest(semantic.get(uid)), lowest(quality.get(uid)))
        stored_scores = [*semantic.values(), *quality.values()]
        num_odd += sum(len(sub_scores(raw) or ()) != 2 for raw in stored_scores)
        num_stored += len(stored_scores)
    return VIEScoreData(human, judge, num_odd, num_stored)


def _either(folder: Path, names: Sequence[str]) -> Path:
    return next((folder / name for name in names if (folder / name).is_dir()), folder / names[0])


def read_rater(path: Path) -> dict[Cell, tuple[float, float]]:
    """One rater's (SC, PQ) in [0, 1] by cell. Raises DataError for a missing column, a doubled uid or a cell that is no pair of shares."""
    rows = [row for _, row in read_csv(path, ("uid",), "\t")]
    if not all(row["uid"] for row in rows):
        raise DataError(f"{path}: a row has no uid")
    refuse_doubles([row["uid"] for row in rows], str(path))
    cells: dict[Cell, tuple[float, float]] = {}
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


def human_overall(raters: Sequence[Mapping[Cell, tuple[float, float]]], uid: str, editor: str) -> float:
    """Mean over raters of sqrt(SC * PQ), in [0, 1]: not the root of the means, which is larger."""
    try:
        return float(np.mean([math.sqrt(math.prod(rater[uid, editor])) for rater in raters]))
    except KeyError as error:
        raise DataError(f"viescore_pairs: no human rating of {error.args[0]}; the answers and the ratings are of different sets") from error


def photo_of(uid: str) -> str:
    """What uids of one photo share; a uid of another form stands for itself.

    >>> photo_of("sample_100081_1.jpg"), photo_of("sample_100081_3.jpg"), photo_of("u1")
    ('100081', '100081', 'u1')
    """
    match = _UID.fullmatch(uid)
    return match.group(1) if match else uid


def metrics(data: VIEScoreData, seed: int = 0) -> list[Metric]:
    """Accuracy on decisive pairs, three-class accuracy and rank correlation, clustered by photo."""
    cells = [
        ((uid, a), (uid, b))
        for uid in data.uids
        for a, b in itertools.combinations([editor for editor in data.editors if (uid, editor) in data.judge], 2)
    ]
    human = np.array([data.human[a] - data.human[b] for a, b in cells])
    judge = np.array([_gap(data.judge[a], data.judge[b]) for a, b in cells])
    labels = np.where(np.abs(human) <= TIE_TOLERANCE, 0, np.sign(human)).astype(int)
    uids = [a[0] for a, _ in cells]
    decided = labels != 0
    decided_uids = [uid for uid, is_decided in zip(uids, decided, strict=True) if is_decided]
    photos = [photo_of(uid) for uid in decided_uids]
    found = accuracy_metrics("viescore_pairs", (judge * labels)[decided], photos, "viescore-pairs/decisive")
    found += _standard_errors((judge * labels)[decided], decided_uids)
    found += three_class_metrics("viescore", judge, labels.tolist(), [photo_of(uid) for uid in uids], "viescore-pairs/three-class", seed)
    found += _correlations(data)
    odd = data.num_odd / data.num_stored if data.num_stored else None
    return [*found, Metric("viescore_odd_scores", odd, n=data.num_stored, protocol="viescore-pairs/odd-scores")]


def _standard_errors(margins: Floats, uids: Sequence[str]) -> list[Metric]:
    """Of the strict accuracy, under three beliefs about what is independent: pairs, uids, photos. Only the last holds."""
    right = strict_credit(margins)
    clusters = {"naive": None, "by-uid": uids, "by-photo": [photo_of(uid) for uid in uids]}
    return [
        Metric(
            f"viescore_pairs_standard_error/{name.replace('-', '_')}",
            clustered_standard_error(right, keys) if uids else None,
            n=len(right),
            protocol=f"viescore-pairs/decisive/strict/standard-error/{name}",
        )
        for name, keys in clusters.items()
    ]


def _correlations(data: VIEScoreData) -> list[Metric]:
    rhos: dict[str, float | None] = {}
    for editor in data.editors:
        pairs = [(data.judge[cell], data.human[cell]) for cell in data.judge if cell[1] == editor]
        scored = [(judge, human) for judge, human in pairs if judge is not None]
        rhos[editor] = spearman([judge for judge, _ in scored], [human for _, human in scored])
    mean = mean_correlation(list(rhos.values()))
    known = {editor: rho for editor, rho in rhos.items() if rho is not None}
    unscored = sum(value is None for value in data.judge.values())
    return [
        Metric(
            f"viescore_spearman_{kind.replace('-', '_')}",
            value,
            n=mean.num_groups,
            num_unscored=unscored,
            by_category=known,
            protocol=f"viescore-pairs/spearman/{kind}",
        )
        for kind, value in [("plain", mean.plain), ("fisher", mean.fisher), ("tanh-of-mean", mean.tanh_of_mean)]
    ]


def _gap(a: float | None, b: float | None) -> float:
    return math.nan if a is None or b is None else a - b
