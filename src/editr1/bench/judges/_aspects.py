"""Two questions an edit, as VIEScore and EditScore ask them: does it do what was asked (SC), does it look right (PQ)?

SC = min(success, restraint), PQ = min(naturalness, cleanness), O = sqrt(SC * PQ), on 0 to 10. The wording is ours.
Sources: VIEScore, arXiv 2312.14867; EditScore, arXiv 2509.23909.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editr1.bench.base import OVERALL, PartedReward
from editr1.bench.judges._texts import render
from editr1.errors import ConfigError
from editr1.judge.answers import normalised, read_number
from editr1.judge.claims import is_quoted, is_taken_back
from editr1.judge.item import RewardItem
from editr1.judge.objects import Contradiction, object_arrays, read_json_object
from editr1.judge.parse import answer_of
from editr1.schema import MAX_SCORE, FailureCode, Reward, derive_seed
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
        semantic = (item.only_source, item.edited, render("semantic", instruction=item.instruction, **scale))
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
            reason=None if passes else self._silence(replies),
            num_tokens=sum(reply.num_tokens for reply in replies),
            seconds=sum(reply.seconds for reply in replies),
            parts=means,
        )

    def _parts(self, semantic_text: str, quality_text: str) -> dict[str, float] | None:
        semantic, quality = read_scores(semantic_text, self.top), read_scores(quality_text, self.top, may_be_one=True)
        return aspect_parts(semantic, quality, self.top) if semantic and quality else None

    def _silence(self, replies: Sequence[ChatReply]) -> str:
        """Why replies without a score have none: REFUSED where the content was refused, else the commonest code."""
        if any(reply.refused for reply in replies):
            return "REFUSED"
        found = [stated_scores(reply.text, self.top, may_be_one=number % 2 == 1) for number, reply in enumerate(replies)]
        return Counter(code for code in found if isinstance(code, str)).most_common(1)[0][0]


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


def read_scores(text: str, top: float, may_be_one: bool = False) -> tuple[float, ...] | None:
    """The numbers of the last "score" of an answer, or None; see `stated_scores`.

    >>> read_scores('{"score": [7, 8.5], "reasoning": "ok"}', 10), read_scores('{"score": [7, 80]}', 10), read_scores("7, 8", 10)
    ((7.0, 8.5), None, None)
    """
    found = stated_scores(text, top, may_be_one)
    return None if isinstance(found, str) else found


# `"score": [7, 8]` as a key of an object whose other strings may be broken; the list may be followed by nothing, as in a cut object.
_KEY = re.compile(
    r"""(?:[{,\n]|["'\u201c\u201d]\s)\s{0,40}["'\u201c\u201d]score["'\u201c\u201d]\s*:\s*(\[[^\[\]{}]{0,200}\]|[0-9.]{1,20})\s*(?=[,}\n]|$)""",
    re.IGNORECASE,
)
_BARE = re.compile(r"\s*(?:```[a-z]*\s*)?(\[[^\[\]{}]{0,200}\])\s*(?:```)?\s*")
_NEXT_OBJECT = re.compile(r"\}[^{}]*\{")


def stated_scores(text: str, top: float, may_be_one: bool = False) -> tuple[float, ...] | FailureCode:
    """The two numbers in [0, top] of the last "score" that an answer states, or why it states none.

    Prose that breaks the JSON around it does not matter, as the package editscore reads it too; a list and nothing else is an answer.
    may_be_one: the question has one answer for both, as models give for quality.
    """
    answer = answer_of(normalised(text))
    if answer is None:
        return "NO_SCORE"
    bare = _BARE.fullmatch(answer)
    if bare:
        return _numbers(bare.group(1), top, may_be_one)
    found = _last_stated(answer)
    if found is None:
        return "NO_SCORE"
    raw, end = found
    if raw is None or isinstance(raw, Contradiction):
        return "CONTRADICTORY"
    tail = answer[end:]
    if is_taken_back(tail):
        return "WITHDRAWN"
    return "TRUNCATED" if tail.rfind("{") > tail.rfind("}") else _numbers(raw, top, may_be_one)


def _last_stated(answer: str) -> tuple[Any, int] | None:
    """(value, offset behind it) of the last "score"; the value is None where one broken object gives two."""
    whole: list[tuple[int, int, Any]] = []
    for array in object_arrays(answer):
        at = array.start
        for source in array.objects:
            at = answer.index(source, at)
            row = read_json_object(source)
            if row is not None:
                whole.append((at, at + len(source), row.get("score", _ABSENT)))
            at += len(source)
    stated = [span for span in whole if span[2] is not _ABSENT and not is_quoted(answer, span[0], span[1])]
    begin = stated[-1][1] if stated else 0
    covered = [span[:2] for span in whole if span[1] > begin]
    loose = [match for match in _KEY.finditer(answer, begin) if "{" in answer[begin : match.start(1)]]
    loose = [match for match in loose if not any(start <= match.start(1) < end for start, end in covered)]
    loose = [match for match in loose if not is_quoted(answer, answer.find("{", begin), match.end())]
    if not loose:
        return (stated[-1][2], begin) if stated else None
    last = loose[-1]
    same_object = [match for match in loose if not _NEXT_OBJECT.search(answer, match.end(), last.start(1))]
    agree = len({"".join(match.group(1).split()) for match in same_object}) == 1
    return (last.group(1) if agree else None, last.end())


_ABSENT = object()


def _numbers(raw: Any, top: float, may_be_one: bool) -> tuple[float, ...] | FailureCode:
    """The numbers of a list, as it was parsed or as it is written."""
    if isinstance(raw, str) and not raw.startswith("["):
        items = [raw] if may_be_one and read_number(raw, top) is not None and "," not in raw else []
    elif isinstance(raw, str):
        items = [item.strip().strip("\"'") for item in raw[1:-1].rstrip().removesuffix(",").split(",")]
    else:
        items = raw if isinstance(raw, list) else [raw]
    numbers = [
        read_number(str(item), top) if isinstance(item, str | int | float) and not isinstance(item, bool) else None for item in items
    ]
    if len(numbers) not in ((1, NUM_SUB_SCORES) if may_be_one else (NUM_SUB_SCORES,)) or None in numbers:
        return "AMBIGUOUS"
    known = [number for number in numbers if number is not None]
    return tuple(known) if all(0 <= number <= top for number in known) else "OUT_OF_RANGE"
