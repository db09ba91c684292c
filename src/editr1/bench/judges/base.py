"""What a judge is, of single edits (`judge.rrm.RewardModel` is one) or of pairs; and judges that put questions and read the replies."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol, runtime_checkable

import jinja2
from PIL import Image

from editr1.bench.base import OVERALL, JudgedPair, PartedReward
from editr1.errors import ConfigError
from editr1.judge.item import RewardItem
from editr1.schema import MAX_SCORE, FailureCode, Reward, Source, derive_seed
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling


class Judge(Protocol):
    """Scores edits. Raises BackendError when its machine fails; an answer that says nothing is an unscored Reward."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item, in their order, value in [0, 10] or None; with ids, independent of the order."""
        ...


@dataclass(frozen=True, slots=True)
class PairItem:
    """Two edits to compare, with their pictures in memory."""

    id: str
    source: Source
    a: Image.Image
    b: Image.Image
    instruction: str


@runtime_checkable
class ComparesPairs(Protocol):
    """A judge of pairs."""

    def compare(self, items: Sequence[PairItem], seed: int = 0) -> list[JudgedPair]:
        """One JudgedPair an item, in their order; an answer without a readable choice is None."""
        ...


def render(name: str, **values: Any) -> str:
    """The prompt `texts/<name>.md` with its values; text from outside stands as a JSON string, so that it reads as data."""
    quoted = {key: json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value for key, value in values.items()}
    text = (files("editr1.bench.judges") / "texts" / f"{name}.md").read_text("utf-8")
    template = jinja2.Template(text, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return template.render(**quoted)


@dataclass(frozen=True, slots=True)
class Scale:
    """Both ends of the numbers that a judge gives; higher is better."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a scale from {self.low:g} to {self.high:g} is none; expected the lower end first")

    def convert(self, values: Sequence[float]) -> tuple[float, ...] | FailureCode:
        """The values on 0 to 10; OUT_OF_RANGE when one lies outside: it is not clamped, for it was no answer to the question.

        >>> Scale(0, 25).convert((24, 22)), Scale(1, 4).convert((2.5,)), Scale(0, 25).convert((26, 20))
        ((9.6, 8.8), (5.0,), 'OUT_OF_RANGE')
        """
        if not all(self.low <= value <= self.high for value in values):
            return "OUT_OF_RANGE"
        return tuple((value - self.low) * MAX_SCORE / (self.high - self.low) for value in values)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one edit in one request."""

    name: str
    """Tells the questions of a judge apart; seeds follow from it."""
    parts: tuple[str | Image.Image, ...]
    system: str = ""


Read = Callable[[Sequence[str]], Mapping[str, float] | FailureCode]
"""The sub-scores on 0 to 10, `overall` among them, that the replies to all questions of a pass state, or why they state none."""


@dataclass(frozen=True, slots=True)
class AskingJudge:
    """Asks all questions `num_passes` times and averages the passes that were readable."""

    vlm: VLM
    sampling: Sampling
    ask: Callable[[RewardItem], Sequence[Question]]
    read: Read
    num_passes: int = 1
    texts: str = ""
    """Names the contents of the published files that the questions come from; empty where the wording is ours."""

    def __post_init__(self) -> None:
        if self.num_passes < 1:
            raise ConfigError(f"num_passes is {self.num_passes}; expected at least 1")

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One PartedReward an item; unscored when no pass was readable. Raises BackendError when the machine fails."""
        requests = [self._requests(item, item.id or str(index), seed) for index, item in enumerate(items)]
        replies = iter(self.vlm.chat([request for of_item in requests for request in of_item]))
        return [self._reward([next(replies) for _ in of_item]) for of_item in requests]

    def _requests(self, item: RewardItem, item_id: str, seed: int) -> list[ChatRequest]:
        questions = self.ask(item)
        return [
            ChatRequest(asked.parts, asked.system, self.sampling, derive_seed(seed, item_id, asked.name, number))
            for number in range(self.num_passes)
            for asked in questions
        ]

    def _reward(self, replies: Sequence[ChatReply]) -> PartedReward:
        size = len(replies) // self.num_passes
        outcomes = [self._outcome(replies[start : start + size]) for start in range(0, len(replies), size)]
        passes = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        shown = next((number for number, outcome in enumerate(outcomes) if not isinstance(outcome, str)), 0) * size
        means = _means(passes)
        codes = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
        return PartedReward(
            value=means.get(OVERALL),
            num_valid=len(passes),
            num_traces=self.num_passes,
            reason=None if passes else "REFUSED" if "REFUSED" in codes else codes.most_common(1)[0][0],
            num_tokens=sum(reply.num_tokens for reply in replies),
            seconds=sum(reply.seconds for reply in replies),
            answer="\n\n".join(reply.text for reply in replies[shown : shown + size]),
            scores=tuple(None if isinstance(outcome, str) else outcome[OVERALL] for outcome in outcomes),
            parts=means,
        )

    def _outcome(self, replies: Sequence[ChatReply]) -> Mapping[str, float] | str:
        return "REFUSED" if any(reply.refused for reply in replies) else self.read([reply.text for reply in replies])


def _means(passes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each sub-score over the passes that state it: some have one only now and then, as for text in the picture."""
    stated = {name: [found[name] for found in passes if name in found] for found in passes for name in found}
    return {name: math.fsum(values) / len(values) for name, values in stated.items()}
