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

from editr1.text import whole_text

# Innermost objects. Strings may hold braces; where the quotation marks do not pair, the next brace ends the object. The quantifiers
# give nothing back (`++`), and a scan stops at the next brace outside a string: linear over the whole text.
_OBJECT = re.compile(r'\{(?:[^{}"]++|"(?:[^"\\]++|\\.)*+")*+\}', re.DOTALL)
_UNPAIRED = re.compile(r"\{[^{}]*+\}")
_SPARE_COMMA = re.compile(r",\s*(?=[}\]])")
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
    for match in _objects(text):
        if run and not _BETWEEN.fullmatch(text, run[-1].end(), match.start()):
            yield _array(text, run)
            run = []
        run.append(match)
    if run:
        yield _array(text, run)


def _objects(text: str) -> Iterator[re.Match[str]]:
    at, last = text.find("{"), text.rfind("}") + 1
    while 0 <= at < last:
        match = _OBJECT.match(text, at, min(at + MAX_OBJECT_CHARS, last))
        if match is None or read_json_object(match.group()) is None:
            match = _UNPAIRED.match(text, at)
        if match is not None:
            yield match
        at = text.find("{", match.end() if match is not None else at + 1)


def json_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every innermost object that is JSON: what stands in its strings is no word of the answer itself."""
    return [match.span() for match in _objects(text) if read_json_object(match.group()) is not None]


def _array(text: str, run: list[re.Match[str]]) -> ObjectArray:
    first, last = run[0].start(), run[-1].end()
    before = _OPEN_BRACKET_BEFORE.search(text, max(0, first - 17), first)
    after = _CLOSE_BRACKET_AFTER.match(text, last)
    start = before.start() if before else first
    end = after.end() if after else last
    return ObjectArray(start, end, before is not None, after is not None, tuple(match.group() for match in run))


def read_json_object(text: str, max_chars: int = MAX_OBJECT_CHARS) -> dict[str, Any] | None:
    """The object, when it is JSON but for line breaks in strings and a spare comma; None otherwise, and for one above `max_chars`.

    Of a key with two values both are kept as `Contradiction`: which of them the model means is not ours to say.
    """
    if len(text) > max_chars:
        return None
    for source in (text, _SPARE_COMMA.sub("", text)):
        try:
            value = _DECODER.decode(source)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The values of a key that was written more than once."""

    values: tuple[Any, ...]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        value = whole_text(value) if isinstance(value, str) else value  # an escape may spell half a character
        if key in found and found[key] != value:
            before = found[key]
            found[key] = Contradiction((*(before.values if isinstance(before, Contradiction) else (before,)), value))
        else:
            found[key] = value
    return found


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_once)


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
    return _once(list(value.items())) if isinstance(value, dict) else None
