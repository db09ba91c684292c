"""What every benchmark shares: the questions it asks of a judge, the answers it gets, and metrics with their proof.

    Benchmark.edits() --judge--> {key: JudgedEdit} --Benchmark.metrics()--> [Metric]

A benchmark is one file in this folder. It never calls a judge itself: judging is resumable and lives elsewhere. What it can do it offers
as functions, all of them optional:

    build(root=..., **options) -> Benchmark                        to be judged: `editr1 bench`
    recognise(path) -> bool                                        whether a file or folder holds stored judge outputs of its kind
    read_stored(paths, data=None, seed=0) -> list[Stored]          their numbers and outcomes, one judge each: `editr1 aggregate`
    edit_set(root=..., **options) -> EditSet                       the edits that an editor has to make: `editr1 edit-benchmark`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from editr1.errors import DataError
from editr1.schema import Label, Metric, Principle, Reward, Source
from editr1.stats import half_credit

OVERALL = "overall"
MAX_NAMED = 3  # keys spelled out in a message; the rest is counted


@dataclass(frozen=True, slots=True)
class EditItem:
    """One edit to be judged. Images are loaded when the judge is ready for them."""

    key: str
    """Unique within the benchmark, and the same in every run."""
    instruction: str
    load: Callable[[], tuple[Source, Image.Image]]
    """Gives (source, edited); raises DataError for a missing or broken file."""
    principles: tuple[Principle, ...] | None = None
    """Where the benchmark has them; a judge that wants principles and finds none writes its own."""


@dataclass(frozen=True, slots=True)
class ComparisonItem:
    """Two edits of one source with what people said about them, for judges that look at both."""

    key: str
    instruction: str
    load: Callable[[], tuple[Source, Image.Image, Image.Image]]
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
    questions: tuple[str, ...] = ()
    """The principles that the edit was judged by."""
    rates: tuple[float, ...] = ()
    """Share of readable traces that say yes, one a principle; empty for judges without verdicts."""
    text: str = ""
    """What the judge said: its first readable trace or pass, else its first; empty for judges that say nothing."""

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
            reward.scores, tuple(principle.question for principle in reward.principles), reward.rates, _text(reward),
        )  # fmt: skip


def _text(reward: Reward) -> str:
    readable = [trace for trace, score in zip(reward.traces, reward.scores, strict=False) if score is not None]
    return next((trace.text for trace in (*readable, *reward.traces)), reward.answer)


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


@dataclass(frozen=True)
class Stored:
    """What stored outputs of one judge, or about one editor, say: read by `read_stored` of a benchmark."""

    name: str
    """The judge, or the editor that was judged."""
    benchmark: str
    """Part of the outcomes' file name, such as `genai_bench`."""
    metrics: list[Metric]
    outcomes: list[Outcome]
    """What `editr1 compare` takes; empty where no sample has a figure of its own."""
    headline: dict[str, float | None]
    """The figures of the benchmark's published table, under short names, in its units (percent where it prints percent)."""


@dataclass(frozen=True)
class Part:
    """What a file that holds several components has of each, under its id (`SHARED` of the folder names them)."""

    build: Callable[..., Any] | None = None
    recognise: Callable[[Path], bool] | None = None
    read_stored: Callable[..., list[Stored]] | None = None
    edit_set: Callable[..., EditSet] | None = None


def headline(metrics: Sequence[Metric], columns: Mapping[str, str], scale: float = 100.0) -> dict[str, float | None]:
    """Columns of a published table: {name: value of the metric of that protocol, times the scale}; None where there is none."""
    values = {metric.protocol: metric.value for metric in metrics}
    return {name: None if (value := values.get(protocol)) is None else scale * value for name, protocol in columns.items()}


@dataclass(frozen=True, slots=True)
class EditOrder:
    """One edit that an editor has to make."""

    key: str
    """Unique within the set, and the same in every run: the seed follows it."""
    instruction: str
    load: Callable[[], Image.Image]
    """The source picture; raises DataError for a missing or broken one."""
    edited: str
    """Where the edit belongs, relative to the folder of the editor's edits, so that `score-folder` reads the folder."""
    source: str | None = None
    """Where a copy of the source belongs, where the layout has one."""


@dataclass(frozen=True)
class EditSet:
    """The tasks of a benchmark whose edits an editor makes."""

    orders: tuple[EditOrder, ...]
    lists: Mapping[str, str] = field(default_factory=dict)
    """Text files that belong beside the pictures: {name: content}."""


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


def require_folder(root: Path | str | None, benchmark: str, download: str) -> Path:
    """The folder of a benchmark's data. Raises DataError that says what to download and where to name it."""
    if root is None:
        raise DataError(f"{benchmark} needs its data: {download}; then give the folder with --root DIR")
    path = Path(root)
    if not path.is_dir():
        raise DataError(f"{benchmark}: no folder {path}; {download}; then give the folder with --root DIR")
    return path


def require_edits(edits: Path | str | None, benchmark: str, layout: str) -> Path:
    """The folder of the edits to be judged. Raises DataError that says what it should hold."""
    if edits is None or not Path(edits).is_dir():
        raise DataError(f"{benchmark}: no folder of edits{f' {edits}' if edits else ''}; give --edits DIR with {layout}")
    return Path(edits)


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
