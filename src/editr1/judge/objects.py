"""Reads JSON-like objects out of model text, in linear time and without ever raising.

Models wrap JSON in prose and fences, use single quotes, leave commas, and get cut. A JSON parser wants the whole text
to be right; here every innermost `{...}` is found on its own, and neighbours inside one pair of brackets form an array.

    'Verdicts: [{"id": "F1", "score": 1}, {"id": "K1", "score": 0}] so <score>4</score>'
               ^-------------------- one closed array, two objects ^
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# `{` and `}` are excluded from the inside, so that a scan stops at the next brace: linear over the whole text.
_OBJECT = re.compile(r"\{([^{}]*)\}")
_BETWEEN = re.compile(r"[\s,]*")
_OPEN_BRACKET_BEFORE = re.compile(r"\[\s{0,16}$")
_CLOSE_BRACKET_AFTER = re.compile(r"[\s,]*\]")

MAX_OBJECT_CHARS = 8_000  # ours: a principle is a sentence; what is longer is no answer, and parsing stays bounded


@dataclass(frozen=True, slots=True)
class ObjectArray:
    """Neighbouring objects of a text, in reading order."""

    start: int
    """Offset of the opening bracket, or of the first object when there is none."""
    end: int
    """Offset behind the closing bracket, or behind the last object when there is none."""
    opened: bool
    closed: bool
    objects: tuple[str, ...]
    """The source text of each object, braces included."""


def object_arrays(text: str) -> Iterator[ObjectArray]:
    """Every run of objects that only commas and white space separate.

    >>> [(a.opened, a.closed, len(a.objects)) for a in object_arrays('[{"a": 1}, {"a": 2}] and [{"a": 3}, {"a":')]
    [(True, True, 2), (True, False, 1)]
    """
    run: list[re.Match[str]] = []
    for match in _OBJECT.finditer(text):
        if run and not _BETWEEN.fullmatch(text, run[-1].end(), match.start()):
            yield _array(text, run)
            run = []
        run.append(match)
    if run:
        yield _array(text, run)


def _array(text: str, run: list[re.Match[str]]) -> ObjectArray:
    first, last = run[0].start(), run[-1].end()
    before = _OPEN_BRACKET_BEFORE.search(text, max(0, first - 17), first)
    after = _CLOSE_BRACKET_AFTER.match(text, last)
    start = before.start() if before else first
    end = after.end() if after else last
    return ObjectArray(start, end, before is not None, after is not None, tuple(match.group() for match in run))


def read_json_object(text: str) -> dict[str, Any] | None:
    """The object, when it is strict JSON; None otherwise."""
    if len(text) > MAX_OBJECT_CHARS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_loose_object(text: str) -> dict[str, Any] | None:
    """The object with the usual slips of models mended (quotes, commas); None when nothing sensible is left.

    For prose fields only, which a caller validates afterwards. Verdicts are never read from mended text.
    """
    import json_repair

    strict = read_json_object(text)
    if strict is not None or len(text) > MAX_OBJECT_CHARS:
        return strict
    try:
        value = json_repair.loads(text)
    except (ValueError, RecursionError):  # its own nesting limit
        return None
    return value if isinstance(value, dict) else None
