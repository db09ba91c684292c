"""Reads scores out of what judges really stored: whole numbers, decimals, lists of one to five, strings.

What cannot be read is None and is counted by the caller; nothing is guessed, clamped or drawn at random, as the scripts that
wrote such files sometimes do.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

TOP = 10.0  # VIEScore and GEdit scales
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def sub_scores(raw: Any, top: float = TOP, num_expected: int | None = None) -> tuple[float, ...] | None:
    """The numbers of one stored score, each in [0, top]; None when anything about it is no such number.

    raw: a number, a list of numbers, or a string that is one of these as JSON. num_expected: refuse lists of another length.

    >>> sub_scores([7, 8.5]), sub_scores("[7, 8]"), sub_scores("7/10"), sub_scores([7, 11])
    ((7.0, 8.5), (7.0, 8.0), None, None)
    """
    if isinstance(raw, str):
        raw = _from_text(raw)
    items = raw if isinstance(raw, list) else [raw]
    if not items or (num_expected is not None and len(items) != num_expected):
        return None
    numbers = [in_range(item, top) for item in items]
    return None if any(number is None for number in numbers) else tuple(number for number in numbers if number is not None)


def in_range(raw: Any, top: float = TOP) -> float | None:
    """The number if it is one in [0, top]; a bool is none, a string only when it is nothing but a number."""
    if isinstance(raw, str):
        raw = float(raw) if _NUMBER.fullmatch(raw.strip()) else None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    return float(raw) if 0 <= raw <= top else None  # false for nan, and no overflow for a whole number of a thousand digits


def lowest(raw: Any, top: float = TOP, num_expected: int | None = None) -> float | None:
    """VIEScore's rule: an aspect is as good as its worst sub-score."""
    numbers = sub_scores(raw, top, num_expected)
    return min(numbers) if numbers else None


def geometric_mean(semantic: float | None, quality: float | None) -> float | None:
    """O = sqrt(SC * PQ) of one sample; None when either is missing."""
    return None if semantic is None or quality is None else math.sqrt(semantic * quality)


def _from_text(text: str) -> Any:
    if len(text) > 1000:  # a whole answer stored in place of a score
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
