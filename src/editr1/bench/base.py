"""What every benchmark shares: the questions it asks of a judge, the answers it gets, and metrics with their proof.

    Benchmark.edits() --judge--> {key: JudgedEdit} --Benchmark.metrics()--> [Metric]

A benchmark is one file in this folder with a function `build(root=..., **options) -> Benchmark`. It never calls a judge itself:
judging is resumable and lives elsewhere, so numbers can be made again from stored answers without a model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from editr1.errors import DataError
from editr1.schema import Label, Metric, Principle, Reward, derive_seed
from editr1.stats import Credit, Estimate, accuracy, half_credit, pairwise_report, share_estimate, strict_credit
from editr1.stats.intervals import Floats
from editr1.stats.ties import three_class

CREDITS: tuple[Credit, ...] = ("half", "strict", "non_tied")
OVERALL = "overall"
MAX_NAMED = 3  # keys spelled out in a message; the rest is counted


@dataclass(frozen=True, slots=True)
class EditItem:
    """One edit to be judged. Images are loaded when the judge is ready for them."""

    key: str
    """Unique within the benchmark, and the same in every run."""
    instruction: str
    load: Callable[[], tuple[Image.Image, Image.Image]]
    """Gives (source, edited); raises DataError for a missing or broken file."""
    principles: tuple[Principle, ...] | None = None
    """Where the benchmark has them; a judge that wants principles and finds none writes its own."""


@dataclass(frozen=True, slots=True)
class ComparisonItem:
    """Two edits of one source with what people said about them, for judges that look at both."""

    key: str
    instruction: str
    load: Callable[[], tuple[Image.Image, Image.Image, Image.Image]]
    """Gives (source, a, b); raises DataError for a missing or broken file."""
    label: Label
    cluster: str
    """What comparisons share: source image or task."""
    category: str = ""


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """What a judge of pairs said in both orders; a and b are the edits, not their places."""

    key: str
    forward: Label | None
    """Shown a first; None = no readable choice."""
    reverse: Label | None
    """Shown b first."""
    num_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PartedReward(Reward):
    """A reward of a judge that answers several questions at once."""

    parts: dict[str, float] = field(default_factory=dict)
    """Named sub-scores in [0, 10], such as `prompt_following`; empty when unscored."""


@dataclass(frozen=True, slots=True)
class JudgedEdit:
    """A judge's answer as it is stored: one row of a benchmark's table."""

    key: str
    value: float | None
    """Overall score in [0, 10]; None = unscored."""
    parts: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    """Why there is no value."""
    num_valid: int = 0
    num_traces: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    scores: tuple[float | None, ...] = ()
    """Of each trace alone, None where it was not readable; empty for judges without traces."""

    def part(self, dimension: str) -> float | None:
        """The sub-score of a dimension; the overall value where the judge has only that one."""
        if self.value is None or dimension == OVERALL or not self.parts:
            return self.value
        return self.parts.get(dimension)

    @staticmethod
    def make(key: str, reward: Reward) -> JudgedEdit:
        """The row of a reward."""
        parts = reward.parts if isinstance(reward, PartedReward) else {}
        return JudgedEdit(
            key, reward.value, dict(parts), reward.reason, reward.num_valid, reward.num_traces, reward.num_tokens, reward.seconds,
            reward.scores,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one sample contributes: the row that a paired comparison of two judges or two editors needs."""

    key: str
    cluster: str
    """What samples share: source image or task."""
    category: str
    value: float | None
    """Score in [0, 10], or half credit in {0, .5, 1}; None = unscored."""
    unit: Literal["score", "credit"] = "score"


def credit_outcome(key: str, cluster: str, category: str, margin: float) -> Outcome:
    """The outcome of a decisive pair from preferred minus other; nan = unscored."""
    value = None if math.isnan(margin) else float(half_credit(np.array([margin]))[0])
    return Outcome(key, cluster, category, value, "credit")


class Benchmark(Protocol):
    """Questions and the arithmetic of their answers."""

    @property
    def name(self) -> str:
        """First part of every metric's name and protocol."""
        ...

    def edits(self) -> Iterator[EditItem]:
        """Every edit once, in an order that never changes."""
        ...

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        """The numbers. A key that is missing from `judged` counts as unscored, never as absent."""
        ...

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        """One row a sample, unscored ones included, in an order that never changes."""
        ...


def accuracy_metrics(
    name: str,
    margins: Floats,
    clusters: Sequence[Hashable],
    protocol: str,
    *,
    kinds: Sequence[str] | None = None,
    macro: bool = False,
) -> list[Metric]:
    """Half-credit, strict and non-tied pair accuracy as metrics with intervals by cluster.

    margins: `[N]` preferred minus other, nan = unscored. kinds: N task names, for `by_category` and, with `macro`, for the
    mean of task accuracies. `name/x` names the half-credit number, `name_strict/x` and `name_non_tied/x` stand beside it.
    Nothing that counts gives value None, not 0.
    """
    report = pairwise_report(margins)
    values = {"half": half_credit(margins), "strict": strict_credit(margins)}
    metrics = []
    for credit in CREDITS:
        estimate = accuracy(margins, clusters, credit=credit, strata=kinds if macro else None)
        metrics.append(
            to_metric(
                with_suffix(name, "" if credit == "half" else f"_{credit}"),
                estimate,
                f"{protocol}/{credit.replace('_', '-')}" + (f"/macro{len(set(kinds))}" if macro and kinds else ""),
                n=report.n,
                num_unscored=report.num_unscored,
                tie_rate=report.tie_rate,
                by_category=by_kind(values[credit], kinds) if credit in values else {},
            )
        )
    return metrics


def three_class_metrics(
    name: str, gaps: Floats, signs: Sequence[int], clusters: Sequence[Hashable], protocol: str, seed: int = 0
) -> list[Metric]:
    """Three-class accuracy of scores at a cross-fitted epsilon with its interval, at an in-sample epsilon, and the floor of the latter.

    gaps: `[N]` a - b, nan = unscored. signs: N labels, +1: a is better, -1: b is, 0: same. Fewer than two clusters leave nothing to
    tune on, and the values are None.
    """
    kinds = {"cross-fitted": f"{name}_three_class", "in-sample": f"{name}_tie_calibrated", "floor": f"{name}_always_tie"}
    if len(set(clusters)) < 2:
        num_unscored = int(np.isnan(gaps).sum())
        return [Metric(n, None, n=len(gaps), num_unscored=num_unscored, protocol=f"{protocol}/{kind}") for kind, n in kinds.items()]
    classes = three_class(gaps, signs, clusters, rng=np.random.default_rng(derive_seed(seed, protocol)))
    estimate = share_estimate(classes.credit, clusters)
    n, num_unscored = classes.n, classes.num_unscored
    return [
        to_metric(kinds["cross-fitted"], estimate, f"{protocol}/cross-fitted", n=n, num_unscored=num_unscored),
        Metric(kinds["in-sample"], classes.in_sample, n=n, num_unscored=num_unscored, protocol=f"{protocol}/in-sample"),
        Metric(kinds["floor"], classes.always_tie, n=n, protocol=f"{protocol}/floor"),
    ]


def to_metric(
    name: str,
    estimate: Estimate | None,
    protocol: str,
    *,
    n: int,
    num_unscored: int = 0,
    tie_rate: float | None = None,
    by_category: Mapping[str, float] | None = None,
    p_value: float | None = None,
) -> Metric:
    """An estimate (None = nothing that counts) as a metric."""
    value, low, high = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    num_clusters = estimate.num_clusters if estimate else 0
    return Metric(name, value, low, high, n, num_unscored, tie_rate, dict(by_category or {}), protocol, p_value, num_clusters=num_clusters)


def by_kind(values: Floats, kinds: Sequence[str] | None) -> dict[str, float]:
    """Mean of `[N]` values per kind, kinds without a name left out.

    >>> by_kind(np.array([1.0, 0.0, 1.0]), ["add", "add", ""])
    {'add': 0.5}
    """
    grouped: dict[str, list[float]] = defaultdict(list)
    for kind, value in zip(kinds or [""] * len(values), values.tolist(), strict=True):
        if kind:
            grouped[kind].append(value)
    return {kind: float(np.mean(found)) for kind, found in sorted(grouped.items())}


def with_suffix(name: str, suffix: str) -> str:
    """The metric name with a suffix on its first part.

    >>> with_suffix("pair_accuracy/sft", "_strict")
    'pair_accuracy_strict/sft'
    """
    head, slash, tail = name.partition("/")
    return f"{head}{suffix}{slash}{tail}"


def require_folder(root: Path | str | None, benchmark: str, download: str) -> Path:
    """The folder of a benchmark's data. Raises DataError that says what to download and where to name it."""
    if root is None:
        raise DataError(f"{benchmark} needs its data: {download}; then give the folder with --root DIR")
    path = Path(root)
    if not path.is_dir():
        raise DataError(f"{benchmark}: no folder {path}; {download}; then give the folder with --root DIR")
    return path


def require_columns(found: Iterable[str], expected: Iterable[str], where: str) -> None:
    """Raises DataError naming the first missing column."""
    names = list(found)
    for column in expected:
        if column not in names:
            raise DataError(f"{where}: column {column!r} is missing (found: {', '.join(names) or 'none'})")


def refuse_doubles(keys: Sequence[Hashable], where: str) -> None:
    """Raises DataError when a key occurs twice, as in a results file that a second run appended to."""
    seen: set[Hashable] = set()
    found = {key for key in keys if key in seen or seen.add(key)}  # type: ignore[func-returns-value]
    doubled = sorted("/".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in found)
    if doubled:
        shown = ", ".join(doubled[:MAX_NAMED]) + (", ..." if len(doubled) > MAX_NAMED else "")
        raise DataError(f"{where}: {len(doubled)} keys occur more than once ({shown}); a second run was appended? keep one row a key")
