"""ImagenHub's human ratings: three raters' [SC, PQ] of every edit, as the editors' table and as the people's own agreement.

    <task>/<task>_rater{1,2,3}.tsv    uid x editor: [SC, PQ] in {0, .5, 1}; VIEScore and RewardHarness carry the same files

Per editor the means of SC, PQ and of O = sqrt(SC * PQ) of each rater (the paper's table), with intervals by photo; over all cells
Krippendorff's alpha of the raters (`imagenhub/alpha/{SC,PQ,O}`, ordinal). Protocols: `imagenhub/<SC|PQ|O>/micro`, in [0, 1].
Source: TIGER-AI-Lab/ImagenHub at e577d4e, eval/human_ratings (MIT; arXiv 2310.01596).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from editr1.bench.base import Outcome, Stored, headline
from editr1.bench.viescore_pairs import ASPECTS, Aspect, Cell, Rating, photo_of, ratings_of, read_rater
from editr1.errors import DataError
from editr1.measure.metrics import mean_metrics
from editr1.schema import MAX_SCORE, Metric
from editr1.stats.agreement import krippendorff_alpha

PATTERN = "*_rater*.tsv"


def recognise(path: Path) -> bool:
    """Whether a folder holds rater files of one task."""
    return path.is_dir() and any(path.glob(PATTERN))


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One entry an editor of each task's folder; alpha is of the whole folder. Raises DataError where raters cover different cells."""
    found = []
    for path in paths:
        raters = [read_rater(file) for file in sorted(path.glob(PATTERN))]
        if any(rater.keys() != raters[0].keys() for rater in raters):
            raise DataError(f"{path}: the raters' files are of different edits")
        cells = {cell: ratings_of(raters, *cell) for cell in raters[0]}
        alphas = [
            Metric(
                f"imagenhub_alpha_{aspect}",
                krippendorff_alpha([[_aspect(rating, aspect) for rating in ratings] for ratings in cells.values()], "ordinal"),
                n=len(cells),
                protocol=f"imagenhub/alpha/{aspect}",
            )
            for aspect in ASPECTS
        ]
        for editor in sorted({editor for _, editor in cells}):
            found.append(_editor(editor, {cell: ratings for cell, ratings in cells.items() if cell[1] == editor}, alphas, seed))
    return found


def _editor(editor: str, cells: dict[Cell, list[Rating]], alphas: list[Metric], seed: int) -> Stored:
    metrics = []
    outcomes: list[Outcome] = []
    for aspect in ASPECTS:
        means = {uid: sum(_aspect(rating, aspect) for rating in ratings) / len(ratings) for (uid, _), ratings in cells.items()}
        rows = [Outcome(uid, photo_of(uid), "", mean) for uid, mean in means.items()]
        metrics += mean_metrics(f"imagenhub_{aspect}", rows, f"imagenhub/{aspect}", seed=seed, top=1.0)
        outcomes = [Outcome(uid, photo_of(uid), "", MAX_SCORE * mean) for uid, mean in means.items()]  # of O, the last
    columns = {aspect: f"imagenhub/{aspect}/micro" for aspect in ASPECTS} | {"alpha O": "imagenhub/alpha/O"}
    return Stored(editor, "imagenhub", [*metrics, *alphas], outcomes, headline([*metrics, *alphas], columns, 1.0))


def _aspect(rating: Rating, aspect: Aspect) -> float:
    return {"SC": rating[0], "PQ": rating[1], "O": math.sqrt(rating[0] * rating[1])}[aspect]
