"""Two questions an edit, as VIEScore and EditScore ask them: does it do what was asked (SC), does it look right (PQ)?

SC = min(success, restraint), PQ = min(naturalness, cleanness), O = sqrt(SC * PQ), on 0 to 10. The wording is ours.
Sources: VIEScore, arXiv 2312.14867; EditScore, arXiv 2509.23909.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from editr1.bench.base import OVERALL, PartedReward
from editr1.errors import ConfigError
from editr1.judge.item import RewardItem
from editr1.judge.objects import object_arrays, read_json_object
from editr1.judges._texts import render
from editr1.measure.raw_scores import sub_scores
from editr1.schema import MAX_SCORE, Reward, derive_seed
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling

NUM_SUB_SCORES = 2


@dataclass(frozen=True, slots=True)
class AspectJudge:
    """Asks both questions `num_passes` times and averages the passes in which both were answered."""

    vlm: VLM
    sampling: Sampling
    top: float
    """Upper end of the scale that the model is asked for; results are on 0 to 10."""
    reasoning_first: bool
    num_passes: int = 1

    def __post_init__(self) -> None:
        if self.num_passes < 1 or self.top <= 0:
            raise ConfigError(f"num_passes is {self.num_passes} and top is {self.top}; expected at least 1 and above 0")

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One PartedReward an item; unscored when no pass had both answers."""
        requests = [request for index, item in enumerate(items) for request in self._requests(item, item.id or str(index), seed)]
        replies = self.vlm.chat(requests)
        per_item = 2 * self.num_passes
        return [self._reward(replies[i * per_item : (i + 1) * per_item]) for i in range(len(items))]

    def _requests(self, item: RewardItem, item_id: str, seed: int) -> list[ChatRequest]:
        scale = {"top": int(self.top) if self.top == int(self.top) else self.top, "reasoning_first": self.reasoning_first}
        semantic = (item.source, item.edited, render("semantic", instruction=item.instruction, **scale))
        quality = (item.edited, render("quality", **scale))
        return [
            ChatRequest(parts, sampling=self.sampling, seed=derive_seed(seed, item_id, aspect, number))
            for number in range(self.num_passes)
            for aspect, parts in (("SC", semantic), ("PQ", quality))
        ]

    def _reward(self, replies: Sequence[ChatReply]) -> PartedReward:
        passes = [parts for sc, pq in zip(replies[::2], replies[1::2], strict=True) if (parts := self._parts(sc.text, pq.text))]
        means = {name: math.fsum(parts[name] for parts in passes) / len(passes) for name in passes[0]} if passes else {}
        return PartedReward(
            value=means.get(OVERALL),
            num_valid=len(passes),
            num_traces=self.num_passes,
            reason=None if passes else silence(replies),
            num_tokens=sum(reply.num_tokens for reply in replies),
            seconds=sum(reply.seconds for reply in replies),
            parts=means,
        )

    def _parts(self, semantic_text: str, quality_text: str) -> dict[str, float] | None:
        semantic, quality = read_scores(semantic_text, self.top), read_scores(quality_text, self.top)
        return aspect_parts(semantic, quality, self.top) if semantic and quality else None


def silence(replies: Sequence[ChatReply]) -> str:
    """Why replies without a score have none: REFUSED where the content was refused, else NO_SCORE."""
    return "REFUSED" if any(reply.refused for reply in replies) else "NO_SCORE"


def aspect_parts(semantic: Sequence[float], quality: Sequence[float], top: float) -> dict[str, float]:
    """All numbers of one pass, on 0 to 10.

    >>> parts = aspect_parts((24, 22), (23, 24), top=25)
    >>> parts["prompt_following"], parts["consistency"], parts["perceptual_quality"], round(parts["overall"], 4)
    (9.6, 8.8, 9.2, 8.9978)
    """
    following, consistency = (score * MAX_SCORE / top for score in semantic)
    quality_score = min(quality) * MAX_SCORE / top
    lowest = min(following, consistency)
    return {
        "prompt_following": following,
        "consistency": consistency,
        "semantic_consistency": lowest,
        "perceptual_quality": quality_score,
        OVERALL: math.sqrt(lowest * quality_score),
    }


def read_scores(text: str, top: float) -> tuple[float, ...] | None:
    """The two numbers of the last JSON object with a "score"; None when that object, or any number in it, is not as asked.

    >>> read_scores('{"score": [7, 8.5], "reasoning": "ok"}', 10), read_scores('{"score": [7, 80]}', 10), read_scores("7, 8", 10)
    ((7.0, 8.5), None, None)
    """
    objects = [read_json_object(source) for array in object_arrays(text) for source in array.objects]
    answers = [found["score"] for found in objects if found and "score" in found]
    # A list and nothing else: a number inside a string may belong to a sentence.
    return sub_scores(answers[-1], top, NUM_SUB_SCORES) if answers and isinstance(answers[-1], list) else None
