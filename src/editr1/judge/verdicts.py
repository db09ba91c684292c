"""Verdict blocks: where an answer says yes or no to each principle, as an array of objects, a table or lines.

[{"id": "F1", ..., "score": 1}]          | F1 | sky is purple | yes |          F1 sky is purple, want purple -> yes
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editr1.judge.answers import Contradiction, ObjectArray, object_arrays, read_json_object
from editr1.judge.claims import words
from editr1.schema import FailureCode

# `<score>`, also named final or overall, and its closing, which the paper prints as `</score>` and as `<\score>`.
SCORE_TAG = re.compile(r"<\s*(?:(?:final|overall)[_ -]?)?score\b[^<>/\\]{0,40}[/\\]?>", re.IGNORECASE)

_YES, _NO = frozenset(words("yes")), frozenset(words("no"))

_LABEL = re.compile(r"\W*([A-Za-z][0-9]{1,3}|[0-9]{1,3})(?:\W*|\s*[:.)\]-].*)", re.DOTALL)
_LABELLED = re.compile(r"\W*([FKQ][0-9]{1,2})(?:\W*|\s*[:.)\]-].*)", re.DOTALL)  # under any other key
_LABEL_KEYS = ("id", "label", "principle", "name", "key", "number", "no", "index")
_VERDICT_KEYS = ("score", "verdict")
_FURTHER_KEYS = ("answer", "result", "satisfied", "met", "pass", "passed", "fulfilled")  # must agree where they say yes or no

# `"score": 1` inside an object that is no JSON, such as a single-quoted one with an apostrophe in the question.
_LOOSE_SCORE = re.compile(
    r"""(?<!\w)["'\u201c\u201d]?(score|verdict)["'\u201c\u201d]?\s{0,8}:\s{0,8}["'\u201c\u201d]?(\w{1,8}(?:\.[0-9]{1,3})?)["'\u201c\u201d]?\s{0,8}(?=[,}])""",
    re.IGNORECASE,
)
_LOOSE_LABEL = re.compile(
    r"""(?<!\w)["'\u201c\u201d]?(?:id|label|principle)["'\u201c\u201d]?\s{0,8}:\s{0,8}["'\u201c\u201d]?([A-Za-z][0-9]{1,3}|[0-9]{1,3})(?!\w)""",
    re.IGNORECASE,
)

_SUMMARY = re.compile(r'\{\s*"(?:average|final|overall|total)_?score"', re.IGNORECASE)  # stands behind verdicts, and is none

_LINE_LABEL = re.compile(r"[ \t]*+(?:(?:[-+*\u2022]|#{1,6}|[0-9]{1,2}[.)])[ \t]++)?+[*_`(\[| \t]*+([A-Za-z][0-9]{1,3})\b")
_ARROW = re.compile(r"-{1,2}>|=>|[\u2192\u21d2\u27f6\u279c]")
_SHORT = re.compile(r"[*_`)\]]*(?:[ \t]*[:=|.)\u2013\u2014-])?[ \t]*(.*)")  # `F1: yes`, `F1 - yes`, `F1 yes`
_MARKS = "\u2713\u2714\u2705\u2717\u2718\u274c"
_REMARK = re.compile(
    rf"((?:not\s)?[^\W0-9]\w{{0,11}}|[01](?:\.0)?(?!\s*[.,:\u2013\u2014-]\s*[0-9])"
    rf"|[{_MARKS}])(?:[*_`.\"')\]]*\s*[(,;.:!\u2014\u2013-](?!.*\b(?:yes|no|true|false|是|否)\b).*)?",
    re.IGNORECASE | re.DOTALL,
)
_ASKED = re.compile(r"(?!.*\b(?:yes|no)\b.*\b(?:yes|no)\b).*[?.!:][\s*_]*\b(yes|no)", re.IGNORECASE)  # `F1: Is it red? Yes`
_DECORATION = " \t*_`.!\"'()[]"


@dataclass(frozen=True, slots=True)
class VerdictEntry:
    """One line or object of a verdict block."""

    label: str | None
    """Upper-case label such as F1, or a running number; None when the entry names none."""
    verdict: bool | None
    """None when the entry says neither yes nor no."""
    source: str
    """The text of the entry."""
    contradictory: bool = False
    """The entry says both yes and no."""


@dataclass(frozen=True, slots=True)
class VerdictBlock:
    """Verdicts that stand together, at text[start:end]."""

    start: int
    end: int
    closed: bool
    """False when an array has only one of its brackets, as in a text that was cut."""
    entries: tuple[VerdictEntry, ...]
    lines: bool = False
    """Lines or a table, which a later line can correct; an array is repeated as a whole."""

    def ordered(self, num_principles: int, labels: Sequence[str] | None) -> tuple[VerdictEntry, ...] | FailureCode:
        """The entries in the order of the principles, or why there is not exactly one yes or no for each.

        Entries are matched by label, else by running number from 1 or 0, else by their order.
        """
        if any(entry.contradictory for entry in self.entries):
            return "CONTRADICTORY"
        if not self.closed or len(self.entries) != num_principles or any(entry.verdict is None for entry in self.entries):
            return "WRONG_COUNT"
        found = [entry.label for entry in self.entries]
        named = [label for label in found if label is not None]
        if not named or (labels is None and not all(label.isdigit() for label in named)):
            return self.entries
        first = min(int(label) for label in named) if all(label.isdigit() for label in named) else None
        wanted = [str(first + index) for index in range(num_principles)] if first in (0, 1) else [label.upper() for label in labels or ()]
        if Counter(found) != Counter(wanted):
            return "WRONG_COUNT"
        by_label = {entry.label: entry for entry in self.entries}
        return tuple(by_label[label] for label in wanted)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What an answer says last about every principle, in their order."""

    entries: tuple[VerdictEntry, ...]
    end: int
    """Offset behind the last block that had a part in it: the score stands behind."""

    @property
    def values(self) -> tuple[bool, ...]:
        """Yes or no."""
        return tuple(bool(entry.verdict) for entry in self.entries)


def last_verdicts(text: str, blocks: Sequence[VerdictBlock], num_principles: int, labels: Sequence[str] | None) -> Verdicts | FailureCode:
    """The verdicts of the last block, or why it has none: an earlier block never stands in for a broken one.

    Two things are put together. Lines that follow complete verdicts correct those that they name (`No, I see it now: K1 roof -> no`).
    Arrays that share no label, with no score between them, are the parts of one, as when each category has its own.
    """
    if not blocks:
        return "NO_VERDICTS"
    last = blocks[-1]
    whole = last.ordered(num_principles, labels)
    if not isinstance(whole, str):
        return Verdicts(whole, last.end)
    if labels is None:
        return whole
    known = [label.upper() for label in labels]
    found: dict[str | None, VerdictEntry] = {}
    after = len(text)
    for block in reversed(blocks):
        part = _by_label(block, num_principles, known)
        if part is None or part.keys() - set(known):
            return whole
        if not last.lines and (block.lines or found.keys() & part.keys() or (found and SCORE_TAG.search(text, block.end, after))):
            return whole
        found = part | found
        if len(found) == len(known):
            return Verdicts(tuple(found[label] for label in known), last.end)
        after = block.start
    return whole


def _by_label(block: VerdictBlock, num_principles: int, labels: Sequence[str]) -> dict[str | None, VerdictEntry] | None:
    """The entries of a block that is complete, or of a part whose every entry is clear; None for a broken one."""
    whole = block.ordered(num_principles, labels)
    if not isinstance(whole, str):
        return dict(zip(labels, whole, strict=True))
    found = {entry.label: entry for entry in block.entries}
    clear = block.closed and len(found) == len(block.entries) and all(entry.verdict is not None for entry in block.entries)
    return found if clear else None


# --- where they stand ---------------------------------------------------------------------------------


def verdict_blocks(text: str) -> list[VerdictBlock]:
    """Every group of verdicts in reading order, complete or not. `text` is normalised (`judge.answers.normalised`)."""
    arrays = [block for array in object_arrays(text) if (block := _array_block(array))]
    return sorted([*arrays, *_line_blocks(text, arrays)], key=lambda block: block.start)


def _array_block(array: ObjectArray) -> VerdictBlock | None:
    objects = [item for item in array.objects if not _SUMMARY.match(item)]
    if keyed := _keyed_entries(objects):
        return VerdictBlock(array.start, array.end, array.opened == array.closed, keyed)
    entries = [_entry(item) for item in objects]
    if not any(entries):
        return None  # some other array, such as bounding boxes
    # An object without a score among verdicts is a verdict that is missing: it counts, and is not binary.
    filled = tuple(entry or VerdictEntry(None, None, item) for entry, item in zip(entries, objects, strict=True))
    if len(filled) == 1 and not array.opened and filled[0].label is None and filled[0].verdict is None and not filled[0].contradictory:
        return None  # a summary such as {"score": 6.5}
    return VerdictBlock(array.start, array.end, array.opened == array.closed, filled)


def _keyed_entries(objects: Sequence[str]) -> tuple[VerdictEntry, ...]:
    """Those of objects whose keys are the labels, as in `{"F1": 1, "K1": 0}`; none where one of them is another kind of object."""
    rows = [read_json_object(source) for source in objects]
    for row in rows:
        (row or {}).pop("average_score", None)
    if not all(row and all(re.fullmatch(r"[FKQ][0-9]{1,2}", key) for key in row) for row in rows):
        return ()
    return tuple(_judged(key, [_binary(value)], f'"{key}": {value}') for row in rows if row for key, value in row.items())


def _entry(source: str) -> VerdictEntry | None:
    strict = read_json_object(source)
    if strict is None:
        return _loose_entry(source)
    keys = {key.strip().lower(): value for key, value in strict.items()}
    if not any(key in keys for key in _VERDICT_KEYS):
        return None
    said = [_binary(keys[key]) for key in _VERDICT_KEYS if key in keys]
    further = [value for key in _FURTHER_KEYS if key in keys and (value := _binary(keys[key])) is not None]
    repeated = any(isinstance(keys.get(key), Contradiction) for key in (*_VERDICT_KEYS, *_LABEL_KEYS[:3]))
    return _judged(_label(keys), [*said, *further], source, repeated)


def _loose_entry(source: str) -> VerdictEntry | None:
    scores = {key.lower(): value for key, value in _LOOSE_SCORE.findall(source)}
    if not scores:
        return None
    label = _LOOSE_LABEL.search(source)
    # The last of each key: a question may itself speak of a score ("Does the board read score: 1?") but stands before it.
    return _judged(label.group(1).upper() if label else None, [_binary(value) for value in scores.values()], source)


def _judged(label: str | None, said: Sequence[bool | None], source: str, repeated: bool = False) -> VerdictEntry:
    contradictory = repeated or {True, False} <= set(said)
    return VerdictEntry(label, None if contradictory or None in said else said[0], source, contradictory)


def _label(keys: Mapping[str, Any]) -> str | None:
    for key in _LABEL_KEYS:
        value = keys.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and (match := _LABEL.fullmatch(str(value)[:200])):
            return match.group(1).upper()
    named = {match[1] for value in keys.values() if isinstance(value, str) and (match := _LABELLED.fullmatch(value[:200]))}
    return named.pop() if len(named) == 1 else None


def _binary(value: Any) -> bool | None:
    spelled = str(value).strip(_DECORATION).lower()
    return True if spelled in _YES else False if spelled in _NO else None


_Line = tuple[int, int, VerdictEntry]


def _line_blocks(text: str, arrays: Sequence[VerdictBlock]) -> Iterator[VerdictBlock]:
    """Groups of verdict lines. A repeated label, a score tag between lines or an array begins a new group."""
    lines = list(_verdict_lines(text, arrays))
    inside = {start for start, end, _ in lines}
    # A tag inside a verdict line belongs to the line's words.
    tags = (at for match in SCORE_TAG.finditer(text) if text.rfind("\n", 0, at := match.start()) + 1 not in inside)
    borders = iter(sorted([*tags, *(block.start for block in arrays)]))
    border = next(borders, None)
    group: list[_Line] = []
    for line in lines:
        crossed = False
        while border is not None and line[0] > border:
            crossed, border = True, next(borders, None)
        if group and (crossed or any(line[2].label == entry.label for _, _, entry in group)):
            yield _line_block(group)
            group = []
        group.append(line)
    if group:
        yield _line_block(group)


def _line_block(group: Sequence[_Line]) -> VerdictBlock:
    return VerdictBlock(group[0][0], group[-1][1], True, tuple(entry for _, _, entry in group), lines=True)


def _verdict_lines(text: str, arrays: Sequence[VerdictBlock]) -> Iterator[_Line]:
    """(start, end, entry) of each line that states a verdict, or points at one and does not give it; none inside an array."""
    at = 0
    spans = iter(arrays)
    span = next(spans, None)
    for line in text.split("\n"):
        start, end = at, at + len(line)
        at = end + 1
        while span is not None and span.end <= start:
            span = next(spans, None)
        if span is not None and span.start < end:
            continue
        if (match := _LINE_LABEL.match(line)) and (said := _said(line, match.end())) is not None:
            yield start, end, VerdictEntry(match.group(1).upper(), _answer(said), line)


def _said(line: str, at: int) -> str | None:
    """What a line that begins with a label answers; None where it points at no answer."""
    arrows = list(_ARROW.finditer(line, at))
    if arrows:
        return line[arrows[-1].end() :]
    if line.lstrip().startswith("|"):
        cells = line[at:].strip().strip("|").split("|")
        clear = [cell for cell in cells if _binary(cell) is not None]
        return clear[0] if len(clear) == 1 else cells[-1]
    short = _SHORT.fullmatch(line, at)
    return short.group(1) if short and _answer(short.group(1)) is not None else None


def _answer(said: str) -> bool | None:
    """Yes or no, perhaps with a remark behind that says neither."""
    stated = said.strip(_DECORATION)
    words = {_binary(word) for word in stated.split()}
    if len(words) == 1 and None not in words:  # `yes`, `yes ✓`, `no (0)`
        return words.pop()
    match = _REMARK.fullmatch(stated) or _ASKED.fullmatch(stated)
    return _binary(match.group(1)) if match else None
