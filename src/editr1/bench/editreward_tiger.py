"""TIGER-Lab's EditReward-Bench: groups of 2, 3 and 4 edits of one source, ranked by people.

Not EditScore's dataset of the same name. Data: HF TIGER-Lab/EditReward-Bench (gated, Apache-2.0), Parquet folders 2pair, 3pair,
4pair; one row is one pair of a group: id, dataset, num_candidates, instruction, source_image, candidate_1, candidate_2,
comparison_type ("AvsC"), ranking ("A>C", "C>A", "A=C"). A group is the part of `id` before "_".

Protocols that must not share a column: a judge of scores sorts K images (chance 1/K!); a judge of pairs must win all C(K,2) comparisons
independently (chance 2^-C(K,2), and 3^-C(K,2) where it may also say "tie"). At K=4 that is 4.2, 1.6 and 0.14 %. Asked in both orders, a
group counts half where it is right in one. A missing answer is wrong, and "same" is right only where people said so.
`tiger-erb/k2/three-class/cross-fitted` and `.../in-sample` (as published: epsilon tuned on the same rows),
`tiger-erb/k3/argsort`, `tiger-erb/k4/argsort` for judges of scores, `tiger-erb/k3/pairs`, ... for pairwise judges, which must win
every comparison of a group. Overall = pooled groups. `tiger-erb/decisive/{half,strict,non-tied}` takes comparisons one by one.
Source: TIGER-AI-Lab/EditReward at edb027e (EditReward/evaluate/inference_*pair_hf.py), arXiv 2509.26346.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from editr1.bench.base import JudgedEdit, JudgedPair, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import three_class_metrics, to_metric
from editr1.measure.rows import Pair, PairBench, opener, pair_keys, read_rows
from editr1.schema import Label, Metric, derive_seed
from editr1.stats import TIE_TOLERANCE, mean_estimate, share_estimate
from editr1.stats.agreement import kendall_tau_b

SIZES = (2, 3, 4)
LABELS: dict[int, Label] = {1: "a", -1: "b", 0: "same"}
COLUMNS = ("id", "num_candidates", "instruction", "source_image", "candidate_1", "candidate_2", "comparison_type", "ranking")
CELLS = itemgetter("source_image", "candidate_1", "candidate_2")
DOWNLOAD = "accept the terms of HF TIGER-Lab/EditReward-Bench, then huggingface-cli download it --repo-type dataset --local-dir DIR"


@dataclass(frozen=True, slots=True)
class Row(Pair):
    """One comparison of a group, which is its cluster."""

    k: int = 0
    letters: tuple[str, str] = ("A", "B")
    """Names of the two edits in the group."""


@dataclass(frozen=True, slots=True)
class Group:
    """A complete group: places of its images, 1 = best."""

    name: str
    keys: tuple[str, ...]
    places: tuple[int, ...]
    rows: tuple[Row, ...]


def read_ranking(comparison: str, ranking: str, where: str) -> tuple[tuple[str, str], int]:
    """The two letters of a comparison and its sign. Raises DataError for a text that is no comparison or of other letters.

    >>> read_ranking("AvsC", "C>A", "row 1")
    (('A', 'C'), -1)
    """
    first, _, second = str(comparison).partition("vs")
    signs = {f"{first}>{second}": 1, f"{second}>{first}": -1, f"{first}={second}": 0, f"{second}={first}": 0}
    if not first or not second or first == second or ranking not in signs:
        raise DataError(
            f"{where}: comparison_type {comparison!r} with ranking {ranking!r}; expected e.g. 'AvsB' with 'A>B', 'B>A' or 'A=B'"
        )
    return (first, second), signs[ranking]


def complete_groups(rows: Sequence[Row]) -> tuple[list[Group], int]:
    """Groups of 3 and 4 with all their comparisons, and the number of groups that lack some or contradict themselves.

    A place is 1 + the number of images that are better. Places from circular comparisons rank nothing: such a group is counted out.
    """
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row.cluster, []).append(row)
    groups, num_broken = [], 0
    for name, members in by_group.items():
        group = _group(name, members)
        num_broken += group is None
        if group is not None:
            groups.append(group)
    return groups, num_broken


def _group(name: str, rows: Sequence[Row]) -> Group | None:
    letters = sorted({letter for row in rows for letter in row.letters})
    key_of = {letter: key for row in rows for letter, key in zip(row.letters, row.sides, strict=True)}
    compared = {frozenset(row.letters) for row in rows}
    if not len(rows) == len(compared) == math.comb(rows[0].k, 2) or len(letters) != rows[0].k:
        return None  # a comparison that stands twice would hide one that is missing
    losses = dict.fromkeys(letters, 0)
    for row in rows:
        if row.sign:
            losses[row.letters[1] if row.sign > 0 else row.letters[0]] += 1
    places = {letter: 1 + lost for letter, lost in losses.items()}
    for row in rows:
        first, second = (places[letter] for letter in row.letters)
        if np.sign(second - first) != row.sign:
            return None
    return Group(name, tuple(key_of[letter] for letter in letters), tuple(places[letter] for letter in letters), tuple(rows))


@dataclass(frozen=True)
class TigerBench(PairBench):
    """The comparisons as pairs and as parts of their groups. Make one with `build`.

    Its outcomes are decisive comparisons of all group sizes: exact order is too coarse to compare two judges with.
    """

    rows: tuple[Row, ...]
    name: str = "tiger_erb"

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        """Numbers of a judge of scores; an unscored image makes its comparison or group wrong, and is counted."""
        found = []
        if twos := [row for row in self.rows if row.k == 2]:
            signs, groups = [row.sign for row in twos], [row.cluster for row in twos]
            found = three_class_metrics("tiger_k2", self.gaps(twos, judged), signs, groups, "tiger-erb/k2/three-class", seed)
        # Every comparison in which people chose a side, whatever the size of its group: comparisons of a group share their edits.
        found += self.accuracy("tiger_decisive", "tiger-erb/decisive", judged)
        scores = {key: row.value for key, row in judged.items()}
        for k in SIZES[1:]:
            complete, num_broken = complete_groups([row for row in self.rows if row.k == k])
            if complete:
                found += _kway(complete, k, num_broken, scores, seed)
        return found

    def pair_metrics(self, judged: Mapping[str, JudgedPair], seed: int = 0) -> list[Metric]:
        """What tables print of judges of pairs: groups of K with all comparisons right, K = 2 with "same" as a third class."""
        found = []
        for k in SIZES:
            groups, num_broken = complete_groups([row for row in self.rows if row.k == k])
            said = [
                AnsweredGroup(tuple(row.label for row in group.rows), tuple(judged.get(row.key) for row in group.rows)) for group in groups
            ]
            found += kway_pair_metrics(said, k, f"tiger_k{k}_pairs", f"tiger-erb/k{k}/pairs", num_broken)
        return found


def build(root: Path | str | None = None) -> TigerBench:
    """The benchmark from a local copy. Raises DataError that says what to download."""
    folder = require_folder(root, "editreward_tiger", DOWNLOAD)
    return open_table(folder, read_rows(folder, COLUMNS, "editreward_tiger"))


def open_table(folder: Path, table: Any) -> TigerBench:
    """The benchmark of rows that were read. Raises DataError for a comparison that cannot be meant."""
    return TigerBench(tuple(_row(table, i, folder) for i in range(len(table))))


def _row(table: Any, i: int, folder: Path) -> Row:
    row, where = table[i], f"editreward_tiger: row {i}"
    letters, sign = read_ranking(row["comparison_type"], row["ranking"], where)
    head, underscore, _ = str(row["id"]).partition("_")
    group, k = head if underscore else str(row["id"])[:10], row["num_candidates"]
    if k not in SIZES:
        raise DataError(f"{where}: num_candidates is {k!r}, expected 2, 3 or 4")
    _, keys = pair_keys(CELLS(row), row["instruction"], folder, where)
    load = opener(table, i, CELLS, folder, where)
    return Row(str(i), keys, row["instruction"], LABELS[sign], group, f"k{k}", load, k=int(k), letters=letters)


def _kway(groups: Sequence[Group], k: int, num_broken: int, scores: Mapping[str, float | None], seed: int) -> list[Metric]:
    """Exact order, its chance level, and tau-b. `by_category` counts the groups left out as incomplete or circular."""
    values = [[scores.get(key) for key in group.keys] for group in groups]
    right = [float(argsort_right(value, group.places)) for value, group in zip(values, groups, strict=True)]
    taus = [tau for value, group in zip(values, groups, strict=True) if (tau := group_tau(value, group.places)) is not None]
    num_unscored = sum(any(score is None for score in value) for value in values)
    protocol = f"tiger-erb/k{k}/argsort"
    mean_tau = mean_estimate(taus, rng=np.random.default_rng(derive_seed(seed, protocol))) if taus else None
    left_out: dict[str, float] = {"groups left out": num_broken} if num_broken else {}
    return [
        to_metric(f"tiger_k{k}", share_estimate(right), protocol, n=len(groups), num_unscored=num_unscored, by_category=left_out),
        Metric(f"tiger_k{k}_chance", chance(k, "argsort"), n=len(groups), protocol=f"{protocol}/chance"),
        to_metric(f"tiger_k{k}_tau_b", mean_tau, f"tiger-erb/k{k}/tau-b", n=len(taus), num_unscored=len(groups) - len(taus)),
    ]


# --- groups of K --------------------------------------------------------------------------------------

KWayProtocol = Literal["argsort", "pairs", "pairs-with-ties"]


def chance(k: int, protocol: KWayProtocol) -> float:
    """Probability that a blind judge gets a group of k right. Raises ValueError for k < 2.

    >>> chance(3, "argsort"), chance(3, "pairs"), chance(4, "pairs")
    (0.16666666666666666, 0.125, 0.015625)
    """
    if k < 2:
        raise ValueError(f"a group of {k} has no ranking")
    if protocol == "argsort":
        return 1 / math.factorial(k)
    return (2 if protocol == "pairs" else 3) ** -float(math.comb(k, 2))


def argsort_right(scores: Sequence[float | None], places: Sequence[int]) -> bool:
    """Whether the scores fall strictly from place to place (1 = best); an unscored image or a tie across places is wrong.

    Images that share a place may score anything among themselves. Raises ValueError for lengths that differ.

    >>> argsort_right([9.0, 5.0, 7.0], [1, 3, 2]), argsort_right([9.0, 7.0, 7.0], [1, 3, 2])
    (True, False)
    """
    if len(scores) != len(places):
        raise ValueError(f"{len(scores)} scores for {len(places)} places")
    if any(score is None or math.isnan(score) for score in scores):
        return False
    known = [float(score) for score in scores if score is not None]
    pairs = [(i, j) for i in range(len(places)) for j in range(len(places)) if places[i] < places[j]]
    return all(known[i] > known[j] + TIE_TOLERANCE for i, j in pairs)


def group_tau(scores: Sequence[float | None], places: Sequence[int]) -> float | None:
    """Kendall's tau-b between scores and places, 1 = the label's order; None where a score is missing or a side is constant.

    Beside exact match, which is very noisy at K = 4.
    """
    if any(score is None or math.isnan(score) for score in scores):
        return None
    return kendall_tau_b([float(score) for score in scores if score is not None], [-place for place in places])


@dataclass(frozen=True, slots=True)
class AnsweredGroup:
    """All comparisons of one group, each with its label and what the judge said (None = nothing)."""

    labels: tuple[Label, ...]
    answers: tuple[JudgedPair | None, ...]

    @property
    def credit(self) -> float:
        """Share of the two orders in which every comparison is right, in {0, .5, 1}."""
        orders = ([found and said(found) for found in self.answers] for said in (attrgetter("forward"), attrgetter("reverse")))
        return sum(order == list(self.labels) for order in orders) / 2

    @property
    def is_unscored(self) -> bool:
        """Whether an answer of either order is missing."""
        return any(found is None or found.forward is None or found.reverse is None for found in self.answers)


def kway_pair_metrics(groups: Sequence[AnsweredGroup], k: int, name: str, protocol: str, num_left_out: int = 0) -> list[Metric]:
    """Share of right groups of one size, beside the chance of a coin and of a die that may also say "same"; nothing for no group."""
    if not groups:
        return []
    num_unscored = sum(group.is_unscored for group in groups)
    estimate = share_estimate([group.credit for group in groups])
    left_out: dict[str, float] = {"groups left out": num_left_out} if num_left_out else {}
    return [
        to_metric(name, estimate, protocol, n=len(groups), num_unscored=num_unscored, by_category=left_out),
        Metric(f"{name}_chance", chance(k, "pairs"), n=len(groups), protocol=f"{protocol}/chance"),
        Metric(f"{name}_chance_with_ties", chance(k, "pairs-with-ties"), n=len(groups), protocol=f"{protocol}/chance-with-ties"),
    ]
