"""Two questions an edit, as VIEScore and EditScore ask them: does it do what was asked (SC), does it look right (PQ)?

SC = min(success, restraint), PQ = min(naturalness, cleanness), O = sqrt(SC * PQ), on 0 to 10.
Sources: VIEScore, arXiv 2312.14867; EditScore, arXiv 2509.23909.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from editr1.bench.base import OVERALL
from editr1.bench.judges.base import Scale
from editr1.judge.answers import Contradiction, normalised, object_arrays, read_json_object, read_number
from editr1.judge.claims import is_quoted, is_rejected, is_taken_back, restated
from editr1.judge.parse import answer_of, without_asides
from editr1.schema import FailureCode

NUM_SUB_SCORES = 2


def read_aspects(
    texts: Sequence[str], scale: Scale, stated: Callable[[str, float, bool], tuple[float, ...] | FailureCode]
) -> dict[str, float] | FailureCode:
    """All numbers of one pass, on 0 to 10, of the replies to SC and PQ; the code of the first that states none.

    stated: reads the numbers of one reply, given the upper end of the scale and whether one number may answer for both.
    """
    semantic = stated(texts[0], scale.high, False)
    if isinstance(semantic, str):
        return semantic
    quality = stated(texts[1], scale.high, True)
    if isinstance(quality, str):
        return quality
    numbers = scale.convert((*semantic, min(quality)))
    return numbers if isinstance(numbers, str) else aspect_parts(*numbers)


def aspect_parts(following: float, consistency: float, quality: float) -> dict[str, float]:
    """The sub-scores of an edit, all on 0 to 10.

    >>> round(aspect_parts(9.6, 8.8, 9.2)["overall"], 4)
    8.9978
    """
    lowest = min(following, consistency)
    return {
        "prompt_following": following,
        "consistency": consistency,
        "semantic_consistency": lowest,
        "perceptual_quality": quality,
        OVERALL: math.sqrt(lowest * quality),
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
    r"""(?:[{,\n]|["'\u201c\u201d]\s|\*/)\s{0,40}["'\u201c\u201d]score["'\u201c\u201d]\s*:\s*(\[[^\[\]{}]{0,200}\]|[0-9.]{1,20})\s*(?=[,}\n]|$)""",
    re.IGNORECASE,
)
_BARE = re.compile(r"\s*(?:```[a-z]*\s*)?(\[[^\[\]{}]{0,200}\])\s*(?:```)?\s*")
_LIST_AGAIN = re.compile(
    r"\b(?:scores?|final|overall|rather|better|revised|corrected|now|instead)[\s:=*_]*(\[[^\[\]{}]{1,100}\])", re.IGNORECASE
)
_NEXT_OBJECT = re.compile(r"\}[^{}]*\{")


def stated_scores(text: str, top: float, may_be_one: bool = False) -> tuple[float, ...] | FailureCode:
    """The two numbers in [0, top] of the last "score" that an answer states, or why it states none.

    Prose that breaks the JSON around it does not matter, as the package editscore reads it too; a list and nothing else is an answer.
    may_be_one: the question has one answer for both, as models give for quality.
    """
    answer = answer_of(normalised(text))
    if answer is None:
        return "NO_SCORE"
    shown = without_asides(answer)
    bare = _BARE.fullmatch(shown)
    if bare:
        return as_numbers(bare.group(1), top, may_be_one)
    found = _last_stated(shown)
    if found is None:
        return "NO_SCORE"
    raw, end = found
    if raw is None or isinstance(raw, Contradiction):
        return "CONTRADICTORY"
    tail = shown[end:]
    if is_taken_back(answer, end):
        return "WITHDRAWN"
    if tail.rfind("{") > tail.rfind("}"):
        return "TRUNCATED"
    numbers = as_numbers(raw, top, may_be_one)
    return "CONTRADICTORY" if not isinstance(numbers, str) and _contradicts(tail, numbers, top, may_be_one) else numbers


def _contradicts(tail: str, numbers: tuple[float, ...], top: float, may_be_one: bool) -> bool:
    """Whether what follows names other numbers: another list, or one that lies outside them and so sums them up in no way."""
    lists = (as_numbers(match[1], top, may_be_one) for match in _LIST_AGAIN.finditer(tail) if not is_quoted(tail, *match.span()))
    return any(again != numbers for again in lists) or any(not min(numbers) <= value <= max(numbers) for value in restated(tail))


def _last_stated(answer: str) -> tuple[Any, int] | None:
    """(value, offset behind it) of the last "score"; the value is None where one broken object gives two."""
    whole: list[tuple[int, int, Any]] = []
    for array in object_arrays(answer):
        at = array.start
        for source in array.objects:
            at = answer.index(source, at)
            row = read_json_object(source)
            if row is not None:
                whole.append((at, at + len(source), {key.lower(): value for key, value in row.items()}.get("score", _ABSENT)))
            at += len(source)
    stated = [span for span in whole if span[2] is not _ABSENT and not _is_anothers(answer, span[0], span[1])]
    begin = stated[-1][1] if stated else 0
    covered = [span[:2] for span in whole if span[1] > begin]
    loose = [match for match in _KEY.finditer(answer, begin) if "{" in answer[begin : match.start(1)]]
    loose = [match for match in loose if not any(start <= match.start(1) < end for start, end in covered)]
    loose = [match for match in loose if not _is_anothers(answer, answer.find("{", begin), match.end())]
    if not loose:
        return (stated[-1][2], begin) if stated else None
    last = loose[-1]
    same_object = [match for match in loose if not _NEXT_OBJECT.search(answer, match.end(), last.start(1))]
    agree = len({"".join(match.group(1).split()) for match in same_object}) == 1
    return (last.group(1) if agree else None, last.end())


def _is_anothers(answer: str, start: int, end: int) -> bool:
    return is_quoted(answer, start, end) or is_rejected(answer, start, end)


_ABSENT = object()


def as_numbers(raw: Any, top: float, may_be_one: bool) -> tuple[float, ...] | FailureCode:
    """The two numbers in [0, top] of a list, as it was parsed or as it is written; AMBIGUOUS or OUT_OF_RANGE."""
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
