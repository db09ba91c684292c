"""From a reply to the trace that tables keep: the one place where Phi meets a request.

ours: the expected score, from the probabilities of the tokens at the digits of the score that Phi took. The whole part is the mean over the
alternatives of its first token, the decimals over those of theirs. It breaks ties among greedy traces without further traces.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from editr1.errors import BackendError
from editr1.judge.answers import normalised, origins, read_number
from editr1.judge.parse import Reading, read
from editr1.judge.prompts import labels, request_text, score_traits
from editr1.judge.verdicts import SCORE_TAG
from editr1.schema import MAX_SCORE, Judgement, Outcome, ParseFailure, Principle, Trace
from editr1.vlm.base import ChatReply, ChatRequest, TokenAlternatives


def to_trace(
    quadruple_id: str,
    principles: Sequence[Principle],
    prompt_id: str,
    request: ChatRequest,
    reply: ChatReply,
    model: str,
    expected: bool = False,
) -> Trace:
    """The reply with what Phi makes of it; a reply that cannot be read is a trace with a ParseFailure.

    expected: put the expectation under the token probabilities in place of the score. Raises BackendError where there are none.
    """
    needs_verdicts = score_traits(prompt_id).demands_verdicts
    said = "" if reply.refused else reply.text  # the words of a refusal are the endpoint's, whatever they hold
    reading = read(said, len(principles), labels(principles), needs_verdicts, reply.truncated, request_text(request))
    return Trace(
        quadruple_id=quadruple_id,
        text=reply.text,
        outcome=_expectation(reading, reply, model) if expected else reading.outcome,
        model=model,
        prompt_id=prompt_id,
        temperature=request.sampling.temperature,
        seed=request.seed,
        num_tokens=reply.num_tokens,
        num_prompt_tokens=reply.num_prompt_tokens,
        seconds=reply.seconds,
    )


def _expectation(reading: Reading, reply: ChatReply, model: str) -> Outcome:
    outcome = reading.outcome
    if isinstance(outcome, ParseFailure):
        return outcome
    if not any(position.alternatives for position in reply.logprobs):
        raise BackendError(f"{model} gives {no_alternatives(reply)}; the expected score needs them; ask for it without `expected`")
    if not _digits(reply.logprobs, outcome.score, reading.tags_behind)[0]:
        raise BackendError(
            f"{model} gives alternatives (top_logprobs) to other tokens than those of its reply, whose score {outcome.score:g} they do not "
            "spell; the expected score needs all of them; ask for it without `expected`"
        )
    score = expected_score(reply.logprobs, outcome.score, reading.tags_behind)
    return ParseFailure("NO_SCORE", reply.text[-160:]) if score is None else Judgement(outcome.verdicts, score)


MAX_LOGPROB = 0.01  # 0 and the rounding of backends; what is above is no probability

_CONTENT = re.compile(r"[^<>]{0,400}")
_FIRST_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)?")
_WHOLE = re.compile(r"[0-9]{1,2}(?:[.,][0-9]*)?")
_DECIMALS_INSIDE = re.compile(r"[.,][0-9]")
_DECIMALS = re.compile(r"[.,]?([0-9]{1,3})")


def expected_score(positions: Sequence[TokenAlternatives], score: float, tags_behind: int = 0) -> float | None:
    """The expected tau in [0, 10]; None when the tokens do not hold `score` where Phi read it, or no alternative that is a number.

    Exact for tokenizers that write a whole part as one token, and each decimal as one, the first with or without the point. With one
    token a digit, what follows an alternative 1 is unknown: it is a 10 where that lies nearer to the sampled score.

    Args:
        positions: of the whole reply; thinking may stand before it.
        score: what Phi read.
        tags_behind: opening score tags behind the one that Phi read it from.

    >>> at = lambda *pairs: TokenAlternatives(pairs[0][0], tuple((token, math.log(p)) for token, p in pairs))
    >>> tokens = [at(("<score>", 1.0)), at(("7", 0.6), ("8", 0.4)), at((".", 1.0)), at(("5", 1.0)), at(("</score>", 1.0))]
    >>> round(expected_score(tokens, 7.5), 3)
    7.9
    """
    digits, following = _digits(positions, score, tags_behind)
    if not digits:
        return None
    first = digits[0]
    whole = _mean(first.alternatives, lambda token: _one(positions, first, following, score) if token.strip() == "1" else _whole(token))
    decimals = _decimals(digits[2:] if _is_split_ten(first, score) else [] if _DECIMALS_INSIDE.search(first.token) else digits[1:])
    return None if whole is None or decimals is None else min(max(whole + decimals, 0.0), MAX_SCORE)


def _one(positions: Sequence[TokenAlternatives], first: TokenAlternatives, following: TokenAlternatives | None, score: float) -> float:
    """What an alternative 1 to the first token of a number stands for: 1, or the beginning of 10 where no token holds two digits."""
    whole_numbers = any(len(word := token.strip()) == 2 and word.isdigit() for position in positions for token, _ in position.alternatives)
    if whole_numbers and not _is_split_ten(first, score):
        return 1.0
    if first.token.strip() != "1":
        return MAX_SCORE if MAX_SCORE - score < score - 1 else 1.0
    goes_on = _mean(following.alternatives, lambda token: float(token.startswith("0"))) if following else None
    return 1.0 if goes_on is None else 1.0 + (MAX_SCORE - 1) * goes_on


def _is_split_ten(first: TokenAlternatives, score: float) -> bool:
    return score == MAX_SCORE and first.token.strip() == "1"


def _decimals(positions: Sequence[TokenAlternatives]) -> float | None:
    """The expected decimals of the tokens behind a whole part; None where alternatives to one of them hold no digit."""
    total, place = 0.0, 1.0
    for position in positions:
        if position.token.strip() in (".", ","):
            continue
        mean = _mean(position.alternatives, _fraction)
        if mean is None:
            return None
        total += mean * place
        place /= 10 ** sum(map(str.isdigit, position.token))
    return total


def no_alternatives(reply: ChatReply) -> str:
    """What an endpoint withholds, for a message.

    >>> no_alternatives(ChatReply("7", "m"))
    'no token log-probabilities (logprobs, top_logprobs)'
    """
    return "no alternatives to its tokens (top_logprobs)" if reply.logprobs else "no token log-probabilities (logprobs, top_logprobs)"


def _digits(
    positions: Sequence[TokenAlternatives], score: float, tags_behind: int
) -> tuple[list[TokenAlternatives], TokenAlternatives | None]:
    """The positions of the number in the tag that Phi took, and the one behind; what its first token holds before the number is cut off."""
    text = "".join(position.token for position in positions)
    plain, places = normalised(text), origins(text)
    tags = list(SCORE_TAG.finditer(plain))
    if tags_behind >= len(tags):
        return [], None
    content = _CONTENT.match(plain, tags[-1 - tags_behind].end())
    number = _FIRST_NUMBER.search(content.group()) if content else None
    if content is None or number is None or read_number(content.group(), MAX_SCORE) != score:
        return [], None
    start, end = places[content.start() + number.start()], places[content.start() + number.end()]
    starts = [0, *accumulate(len(position.token) for position in positions)]
    first, last = bisect_right(starts, start) - 1, bisect_right(starts, end - 1) - 1
    following = next(iter(positions[first + 1 :]), None)
    return [_behind(positions[first], start - starts[first]), *positions[first + 1 : last + 1]], following


def _behind(position: TokenAlternatives, offset: int) -> TokenAlternatives:
    """The position without the first `offset` characters; alternatives that begin otherwise have no say."""
    head = position.token[:offset]
    if not head.strip():
        return position
    kept = tuple((token[offset:], logprob) for token, logprob in position.alternatives if token.startswith(head))
    return TokenAlternatives(position.token[offset:], kept)


def _fraction(token: str) -> float | None:
    match = _DECIMALS.fullmatch(normalised(token).strip())
    return int(match.group(1)) / 10 ** len(match.group(1)) if match else None


def _whole(token: str) -> float | None:
    stated = normalised(token).strip()
    value = float(stated.replace(",", ".")) if _WHOLE.fullmatch(stated) else None
    return value if value is not None and value <= MAX_SCORE else None


def _mean(alternatives: Sequence[tuple[str, float]], value_of: Callable[[str], float | None]) -> float | None:
    """Mean over the alternatives that are numbers, by their probabilities; None when there is none."""
    known = [(value_of(token), math.exp(logprob)) for token, logprob in alternatives if logprob <= MAX_LOGPROB]  # false for nan
    numbers = [(value, weight) for value, weight in known if value is not None]
    total = sum(weight for _, weight in numbers)
    return sum(value * weight for value, weight in numbers) / total if total > 0 else None
