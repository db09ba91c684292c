"""The expected score under the judge's own token probabilities, in place of the one number that was sampled.

At the digits behind the last `<score>`, the alternatives and their log-probabilities are known. The whole part is the mean over
the alternatives of its first token, the decimals the mean over the alternatives of theirs. It breaks ties among greedy
traces without further traces. Our choice; related to the digit-probability rewards in use, which judge without reasoning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from editr1.schema import MAX_SCORE
from editr1.vlm.base import TokenAlternatives

_TAG = "<score>"
_WHOLE = re.compile(r"\s*([0-9]{1,2})\s*")
_DECIMALS = re.compile(r"\.?([0-9]{1,3})")


def expected_score(positions: Sequence[TokenAlternatives]) -> float | None:
    """The expected tau in [0, 10]; None when the tokens hold no score or no alternative that is a number.

    Exact for tokenizers that write a whole part as one token, and the first decimal as one token with or without the
    point. With one token a digit, an alternative 1 means 10 exactly if the sampled score was 10.

    >>> at = lambda *pairs: TokenAlternatives(pairs[0][0], tuple((token, math.log(p)) for token, p in pairs))
    >>> round(expected_score([at(("<score>", 1.0)), at(("7", 0.6), ("8", 0.4)), at((".", 1.0)), at(("5", 1.0)), at(("</score>", 1.0))]), 3)
    7.9
    """
    start = _after_last_tag(positions)
    if start is None:
        return None
    digits = _digit_positions(positions, start)
    if not digits:
        return None
    sampled = "".join(position.token for position in digits)
    is_ten = sampled.strip().startswith("10") and digits[0].token.strip() == "1"
    values = {"1": MAX_SCORE} if is_ten else {}
    whole = _mean(digits[0].alternatives, lambda token: values.get(token.strip(), _whole(token)))
    if whole is None:
        return None
    decimals = digits[2:] if is_ten else digits[1:]
    return min(max(whole + _expected_decimals(decimals), 0.0), MAX_SCORE)


def _after_last_tag(positions: Sequence[TokenAlternatives]) -> int | None:
    """Index of the first token behind the last opening tag; the tag may span tokens."""
    text, found = "", None
    for index, position in enumerate(positions):
        text = (text + position.token)[-64:]
        if text.rstrip().lower().endswith(_TAG):
            found = index + 1
    return found


def _digit_positions(positions: Sequence[TokenAlternatives], start: int) -> list[TokenAlternatives]:
    digits = []
    for position in positions[start:]:
        if not position.token.strip().replace(".", "0").isdigit():
            break
        digits.append(position)
    return digits


def _expected_decimals(digits: Sequence[TokenAlternatives]) -> float:
    """Mean of the decimals in [0, 1): of the token that carries the first decimal; none were written -> 0."""
    carriers = [position for position in digits if position.token.strip() != "."]
    if not carriers:
        return 0.0
    mean = _mean(carriers[0].alternatives, _fraction)
    return mean or 0.0


def _fraction(token: str) -> float | None:
    match = _DECIMALS.fullmatch(token.strip())
    return int(match.group(1)) / 10 ** len(match.group(1)) if match else None


def _whole(token: str) -> float | None:
    match = _WHOLE.fullmatch(token)
    value = float(match.group(1)) if match else None
    return value if value is not None and value <= MAX_SCORE else None


def _mean(alternatives: Sequence[tuple[str, float]], value_of: Callable[[str], float | None]) -> float | None:
    """Mean over the alternatives that are numbers, by their probabilities; None when there is none."""
    known = [(value_of(token), math.exp(logprob)) for token, logprob in alternatives]
    numbers = [(value, weight) for value, weight in known if value is not None]
    total = sum(weight for _, weight in numbers)
    return sum(value * weight for value, weight in numbers) / total if total > 0 else None
