"""The nouns of Edit-R1: frozen records that travel between stages and files.

No torch, no input or output here. Every record turns into one JSON object (`to_json`) and back (`from_json`). Images never sit
inside a record: an `ImageRef` names the bytes by their content hash, and the store knows where they lie.

    EditTask --principles--> Quadruple --RRM--> Trace --inspector--> Inspection
       \\--editor--> Candidate --two of them, one human--> PreferencePair
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from editr1.edits import (  # noqa: F401  # its names, by one import
    CATEGORIES,
    Candidate,
    Category,
    EditTask,
    ImageRef,
    Principle,
    Quadruple,
    Source,
    TaskPrinciples,
    pictures_of,
    source_of,
)
from editr1.records import SCHEMA_VERSION, derive_seed, either, from_json, stable_id, to_json  # noqa: F401  # records and their lines: one import

MAX_SCORE = 10.0  # paper, section 3.1: tau in [0, 10]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What Phi reads from a complete trace.

    >>> Judgement((True, True, False, True), 6.5).average
    0.75
    """

    verdicts: tuple[bool, ...]
    """One a principle, in their order. Empty for a judge that states no verdicts (T, no-principle)."""
    score: float
    """tau in [0, 10]: reasoned and weighted, not the mean of the verdicts (paper, section 3.1)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.score) and 0.0 <= self.score <= MAX_SCORE):
            raise ValueError(f"score {self.score} lies outside [0, {MAX_SCORE:g}]")

    @property
    def average(self) -> float:
        """Share of satisfied principles, in [0, 1]; nan without verdicts."""
        return sum(self.verdicts) / len(self.verdicts) if self.verdicts else math.nan


FailureCode = Literal["NO_VERDICTS", "WRONG_COUNT", "NO_SCORE", "OUT_OF_RANGE", "TRUNCATED", "AMBIGUOUS", "WITHDRAWN", "CONTRADICTORY"]
FAILURE_CODES: tuple[FailureCode, ...] = get_args(FailureCode)


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """Phi found no judgement. A value, counted, and never a 0."""

    code: FailureCode
    excerpt: str = ""
    """The last characters of the text, for a person to look at."""


if TYPE_CHECKING:
    Outcome: TypeAlias = Judgement | ParseFailure
else:
    Outcome = either(Judgement, ParseFailure)


@dataclass(frozen=True, slots=True)
class Trace:
    """One reasoned answer of one judge about one quadruple."""

    quadruple_id: str
    text: str
    outcome: Outcome
    model: str
    prompt_id: str
    temperature: float
    seed: int
    num_tokens: int = 0
    """Generated tokens."""
    num_prompt_tokens: int = 0
    seconds: float = 0.0
    """Latency of the request; 0 where the backend does not say. Never part of what resume compares."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The inspector's gold verdicts for one quadruple, and the trace that the selector kept."""

    quadruple_id: str
    gold: tuple[bool, ...]
    reasons: tuple[str, ...]
    chosen: int | None
    """Index into the quadruple's traces; None when all were refused."""
    accuracy: float | None
    """Agreement of the chosen trace with gold, in [0, 1]."""
    dropped: str | None = None
    """Why nothing was chosen; None when something was."""


Label = Literal["a", "b", "same"]
MIRRORED: dict[Label, Label] = {"a": "b", "b": "a", "same": "same"}
"""What a label says when the sides are exchanged."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A human's choice between two edits of one task."""

    task: EditTask
    principles: tuple[Principle, ...]
    a: Candidate
    b: Candidate
    label: Label
    annotator: str = ""

    @property
    def id(self) -> str:
        """Stable under nothing but identity of the candidates and the annotator."""
        return stable_id(self.a.id, self.b.id, self.annotator)

    @property
    def winner(self) -> Candidate:
        """The preferred edit. Raises ValueError for a pair labelled "same"."""
        return self._side("a")

    @property
    def loser(self) -> Candidate:
        """The other edit. Raises ValueError for a pair labelled "same"."""
        return self._side("b")

    def _side(self, when_a_wins: Label) -> Candidate:
        if self.label == "same":
            raise ValueError(f"pair {self.id} is labelled 'same': it has neither winner nor loser")
        return self.a if self.label == when_a_wins else self.b

    def swapped(self) -> PreferencePair:
        """The same fact with the sides exchanged; twice is the identity."""
        return dataclasses.replace(self, a=self.b, b=self.a, label=MIRRORED[self.label])


@dataclass(frozen=True, slots=True)
class Reward:
    """What a judge says about one edit after `num_traces` traces.

    >>> Reward(None, 0, 4, (), "NO_SCORE").scored
    False
    """

    value: float | None
    """Mean tau over the parsed traces, in [0, 10]; None = unscored, and nothing may stand in for it."""
    num_valid: int
    num_traces: int
    rates: tuple[float, ...] = ()
    """Share of parsed traces that say yes, one a principle, in [0, 1]."""
    reason: str | None = None
    """Why there is no value: the commonest failure code, or what the backend said."""
    principles: tuple[Principle, ...] = ()
    """What was judged by: the principles that came with the edit, or those that were made for it; empty where a judge knows none."""
    num_tokens: int = 0
    """Generated tokens of the traces, or of the decomposition that failed."""
    seconds: float = 0.0
    """The time of the same requests, summed."""
    scores: tuple[float | None, ...] = ()
    """tau of each trace in the order in which they were drawn, None where Phi could not read it; empty for judges without traces."""
    traces: tuple[Trace, ...] = ()
    """The traces themselves, in that order; empty for judges without traces."""
    answer: str = ""
    """What was said where there are no traces, for a person to look at: the replies of a pass, or the decomposer's last answer."""

    @property
    def category_means(self) -> dict[str, float]:
        """Mean of the rates of each category, in [0, 1]; categories without principles, and judges without verdicts, have none.

        >>> Reward(6.0, 1, 1, (1.0, 0.0), principles=(Principle("Red?", "follow"), Principle("Kept?", "follow"))).category_means
        {'follow': 0.5}
        """
        of: dict[str, list[float]] = {category: [] for category in CATEGORIES}
        for principle, rate in zip(self.principles, self.rates, strict=False):  # without verdicts there are no rates
            of[principle.category].append(rate)
        return {category: sum(rates) / len(rates) for category, rates in of.items() if rates}

    @property
    def scored(self) -> bool:
        return self.value is not None

    @property
    def spread(self) -> float | None:
        """Standard deviation of tau over the parsed traces, in points; None for fewer than two."""
        known = [score for score in self.scores if score is not None]
        return statistics.stdev(known) if len(known) > 1 else None


@dataclass(frozen=True, slots=True)
class Metric:
    """One printed number with its proof."""

    name: str
    value: float | None
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    n: int = 0
    num_unscored: int = 0
    tie_rate: float | None = None
    by_category: dict[str, float] = dataclasses.field(default_factory=dict)
    protocol: str = ""
    """Protocol id, such as `pairs/avg4/half`."""
    p_value: float | None = None
    goal: str = ""
    """What the number was meant to reach, fixed before the run; empty when nothing was promised."""
    holds: bool | None = None
    num_clusters: int = 0
    """Sources (images or tasks) that the interval rests on; 0 = not stated."""

    def promised(self, floor: float, goal: str) -> Metric:
        """The metric with a goal that its interval decides: it holds when the whole interval lies above `floor`, does not hold when nothing
        of it does, and is not decided (None) otherwise, or where there is no interval.

        >>> [Metric("gain", 0.03, low, high).promised(0.0, "above 0").holds for low, high in ((0.01, 0.05), (-0.01, 0.07), (-0.2, -0.1))]
        [True, None, False]
        """
        return dataclasses.replace(self, goal=goal, holds=decided(self.low, self.high, floor))


def decided(low: float | None, high: float | None, floor: float) -> bool | None:
    """Whether an interval lies above `floor` as a whole (True) or not above it as a whole (False); None = it holds both."""
    if low is None or high is None or low <= floor < high:
        return None
    return low > floor
