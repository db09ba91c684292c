"""Phi: the rule-based parser that reads verdicts and the score tau out of a trace (paper, section 3.1).

Phi takes the last complete verdict block of a text and the score that follows it. What it cannot read is a
`ParseFailure` with a code; no number is ever made up. It never raises, and runs in time linear in the text.

A verdict block is an array of objects with a binary score, or lines that end in an arrow and an answer:

    [{"id": "F1", "question": "Is the sky purple?", "score": 1}, {"id": "K1", ..., "score": 0}]   then <score>6.5</score>

    F1 sky is purple, want purple -> yes
    K1 roof is purple, want red -> no
    <score>6.5</score>

Text that stands in the prompt as well (an echoed example, an instruction that says `<score>10</score>`) is no verdict.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from editr1.judge.objects import ObjectArray, object_arrays, read_json_object
from editr1.schema import MAX_SCORE, FailureCode, Judgement, Outcome, ParseFailure

# The paper prints both closings: `</score>` in its text, `<\score>` in its appendix.
_SCORE = re.compile(r"<score>([^<>]{0,40})<[/\\]score>", re.IGNORECASE)
_OPEN_SCORE_AT_END = re.compile(r"<score>[^<>]{0,40}(?:<[/\\]?[a-z]{0,5})?$", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[0-9]{1,12}(?:\.[0-9]{0,12})?")
_OUT_OF_TEN = re.compile(r"\s*/\s*10$")

_LABEL = re.compile(r"[A-Z][0-9]{1,3}")
_VERDICT_LINE = re.compile(r"^[ \t]*([A-Za-z][0-9]{1,3})\b[^\n]*->[ \t]*(yes|no)\b[ \t.]*$", re.IGNORECASE | re.MULTILINE)

# `"score": 1` inside an object that is no strict JSON, such as a single-quoted one with an apostrophe in the question.
_LOOSE_SCORE = re.compile(r"""(?<!\w)["']?(?:score|verdict)["']?\s{0,8}:\s{0,8}["']?(\w{1,8}(?:\.0)?)["']?\s{0,8}(?=[,}])""", re.IGNORECASE)
_LOOSE_LABEL = re.compile(r"""(?<!\w)["']?(?:id|label)["']?\s{0,8}:\s{0,8}["']?([A-Za-z][0-9]{1,3})(?!\w)""", re.IGNORECASE)

_YES = frozenset({"1", "1.0", "yes", "true"})
_NO = frozenset({"0", "0.0", "no", "false"})

_COPY_CONTEXT = 16  # ours: non-blank characters before a score tag that must agree with the prompt for it to be a copy
_EXCERPT_CHARS = 160  # ours: enough to see what went wrong in a table


@dataclass(frozen=True, slots=True)
class VerdictEntry:
    """One line or object of a verdict block."""

    label: str | None
    """Upper-case label such as F1; None when the entry names none."""
    verdict: bool | None
    """None when the entry's score is not binary."""
    source: str
    """The text of the entry."""


@dataclass(frozen=True, slots=True)
class VerdictBlock:
    """Verdicts that stand together, at text[start:end]."""

    start: int
    end: int
    closed: bool
    """False when the array's brackets are missing, as in a text that was cut."""
    entries: tuple[VerdictEntry, ...]

    def aligned(self, num_principles: int, labels: Sequence[str] | None) -> tuple[bool, ...] | None:
        """The verdicts in the order of the principles; None unless there is exactly one binary verdict for each."""
        verdicts = [entry.verdict for entry in self.entries]
        if not self.closed or len(verdicts) != num_principles or None in verdicts:
            return None
        found = [entry.label for entry in self.entries]
        if labels is None or not any(found):
            return tuple(bool(verdict) for verdict in verdicts)
        by_label = dict(zip(found, verdicts, strict=True))
        if Counter(found) != Counter(label.upper() for label in labels):
            return None
        return tuple(bool(by_label[label.upper()]) for label in labels)


def parse(
    text: str,
    num_principles: int,
    *,
    labels: Sequence[str] | None = None,
    needs_verdicts: bool = True,
    truncated: bool = False,
    prompt_text: str = "",
) -> Outcome:
    r"""The judgement that a trace states, or why it states none.

    Args:
        text: the reply.
        num_principles: K, the number of verdicts that a complete block has.
        labels: labels of the principles in their order (F1 K1 Q1 ...). With them, verdicts are matched by label.
        needs_verdicts: False for judges that state only a score (T, no-principle).
        truncated: the token limit ended the reply; an incomplete judgement is then coded TRUNCATED.
        prompt_text: text of the request; passages copied from it are ignored.

    Source: paper, section 3.1 (format, range) and appendix (`<\score>`); the copy rule and the codes are ours.

    >>> parse('[{"score": 1}, {"score": 0}] <score>6.5</score>', 2)
    Judgement(verdicts=(True, False), score=6.5)
    >>> parse('[{"score": 1}, {"score": 0}] <score>11</score>', 2).code
    'OUT_OF_RANGE'
    >>> parse('<score>9</score> [{"score": 1}, {"score": 0}]', 2).code
    'NO_SCORE'
    """
    found = _with_verdicts(text, num_principles, labels, prompt_text) if needs_verdicts else _score_only(text, prompt_text)
    if isinstance(found, Judgement):
        return found
    cut = truncated or _looks_cut(text)
    code: FailureCode = "TRUNCATED" if cut and found in ("NO_VERDICTS", "NO_SCORE", "WRONG_COUNT") else found
    return ParseFailure(code, text[-_EXCERPT_CHARS:])


def _with_verdicts(text: str, num_principles: int, labels: Sequence[str] | None, prompt_text: str) -> Judgement | FailureCode:
    prompt = _Prompt(prompt_text)
    blocks = [block for block in verdict_blocks(text) if not prompt.contains(text[block.start : block.end])]
    if not blocks:
        return "NO_VERDICTS"
    for index in reversed(range(len(blocks))):
        block = blocks[index]
        verdicts = block.aligned(num_principles, labels)
        if verdicts is None:
            continue
        # A later block takes the floor: a score behind it is not this block's score.
        until = blocks[index + 1].start if index + 1 < len(blocks) else len(text)
        score = _last_score(text, block.end, until, prompt)
        if score is None:
            return "NO_SCORE" if index + 1 == len(blocks) else "WRONG_COUNT"
        return Judgement(verdicts, score) if 0.0 <= score <= MAX_SCORE else "OUT_OF_RANGE"
    return "WRONG_COUNT"


def _score_only(text: str, prompt_text: str) -> Judgement | FailureCode:
    score = _last_score(text, 0, len(text), _Prompt(prompt_text))
    if score is None:
        return "NO_SCORE"
    return Judgement((), score) if 0.0 <= score <= MAX_SCORE else "OUT_OF_RANGE"


def _last_score(text: str, start: int, end: int, prompt: _Prompt) -> float | None:
    """The last number in score tags inside text[start:end] that is no copy of the prompt; it may be out of range."""
    for match in reversed(list(_SCORE.finditer(text, start, end))):
        stated = _OUT_OF_TEN.sub("", match.group(1).strip().strip("*").strip())
        if _NUMBER.fullmatch(stated) and not prompt.contains_score(text, match.start(), match.end()):
            return float(stated)
    return None


def _looks_cut(text: str) -> bool:
    """The text ends inside a score tag, inside an object, or between the objects of a verdict array."""
    if _OPEN_SCORE_AT_END.search(text, max(0, len(text) - 64)) or text.rfind("{") > text.rfind("}"):
        return True
    arrays = list(object_arrays(text))
    if not arrays or arrays[-1].closed or not arrays[-1].opened:
        return False
    return text[arrays[-1].end :].strip(" \n\t,") == "" and any(_entry(item) for item in arrays[-1].objects)


class _Prompt:
    """Knows which passages of a reply were copied from the request. Blanks do not count."""

    def __init__(self, prompt_text: str) -> None:
        self._text = _squeeze(prompt_text)

    def contains(self, passage: str) -> bool:
        squeezed = _squeeze(passage)
        return squeezed != "" and squeezed in self._text

    def contains_score(self, text: str, start: int, end: int) -> bool:
        """A bare tag proves nothing, for an honest 10 looks like an injected one: what stands before must agree too."""
        before = _squeeze(text[max(0, start - 4 * _COPY_CONTEXT) : start])[-_COPY_CONTEXT:]
        return self.contains(before + text[start:end])


def _squeeze(text: str) -> str:
    return "".join(text.split())


# --- verdict blocks -----------------------------------------------------------------------------------


def verdict_blocks(text: str) -> list[VerdictBlock]:
    """Every group of verdicts in reading order, complete or not."""
    arrays = [block for array in object_arrays(text) if (block := _array_block(array))]
    return sorted([*arrays, *_line_blocks(text, arrays)], key=lambda block: block.start)


def _array_block(array: ObjectArray) -> VerdictBlock | None:
    entries = [_entry(item) for item in array.objects]
    if not any(entries):
        return None  # some other array, such as bounding boxes
    # An object without a score among verdicts is a verdict that is missing: it counts, and is not binary.
    filled = tuple(entry or VerdictEntry(None, None, item) for entry, item in zip(entries, array.objects, strict=True))
    return VerdictBlock(array.start, array.end, array.opened and array.closed, filled)


def _entry(source: str) -> VerdictEntry | None:
    strict = read_json_object(source)
    if strict is not None:
        keys = {key.lower(): value for key, value in strict.items()}
        if "score" not in keys and "verdict" not in keys:
            return None
        label = str(keys.get("id", keys.get("label"))).strip().upper()
        label_or_none = label if _LABEL.fullmatch(label) else None  # a running number says no more than the order does
        return VerdictEntry(label_or_none, _binary(keys.get("score", keys.get("verdict"))), source)
    scores = _LOOSE_SCORE.findall(source)
    if not scores:
        return None
    label_match = _LOOSE_LABEL.search(source)
    # The last match: a question may itself speak of a score ("Does the board read score: 1?") but stands before it.
    return VerdictEntry(label_match.group(1).upper() if label_match else None, _binary(scores[-1]), source)


def _binary(value: Any) -> bool | None:
    spelled = str(value).strip().lower()
    return True if spelled in _YES else False if spelled in _NO else None


def _line_blocks(text: str, arrays: Sequence[VerdictBlock]) -> Iterator[VerdictBlock]:
    """Groups of `F1 ... -> yes` lines. A repeated label, a score or an array begins a new group."""
    borders = sorted([match.start() for match in _SCORE.finditer(text)] + [block.start for block in arrays])
    group: list[re.Match[str]] = []
    seen: set[str] = set()
    border = iter([*borders, len(text) + 1])
    next_border = next(border)
    for match in _VERDICT_LINE.finditer(text):
        crossed = match.start() > next_border
        while match.start() > next_border:
            next_border = next(border)
        label = match.group(1).upper()
        if group and (crossed or label in seen):
            yield _line_block(group)
            group, seen = [], set()
        group.append(match)
        seen.add(label)
    if group:
        yield _line_block(group)


def _line_block(group: Sequence[re.Match[str]]) -> VerdictBlock:
    entries = tuple(VerdictEntry(match.group(1).upper(), match.group(2).lower() == "yes", match.group()) for match in group)
    return VerdictBlock(group[0].start(), group[-1].end(), True, entries)


# --- the inverse --------------------------------------------------------------------------------------


def render(judgement: Judgement, labels: Sequence[str], questions: Sequence[str] = (), style: Literal["json", "lines"] = "json") -> str:
    """The judgement as a trace states it; `parse(render(j), K, labels=labels) == j` for scores of up to 12 decimals.

    >>> print(render(Judgement((True, False), 6.5), ["F1", "K1"], style="lines"))
    F1 -> yes
    K1 -> no
    <score>6.5</score>
    """
    score = f"<score>{judgement.score:.12f}".rstrip("0").rstrip(".") + "</score>"
    if not judgement.verdicts:
        return score
    pairs = list(zip(labels, judgement.verdicts, strict=True))
    if style == "lines":
        return "\n".join([*(f"{label} -> {'yes' if verdict else 'no'}" for label, verdict in pairs), score])
    rows: list[dict[str, Any]] = [{"id": label, "score": int(verdict)} for label, verdict in pairs]
    if questions:
        rows = [{"id": row["id"], "question": question, "score": row["score"]} for row, question in zip(rows, questions, strict=True)]
    # Braces inside a question would look like objects: JSON lets us spell them out.
    array = "[" + ", ".join(_brace_free(json.dumps(row, ensure_ascii=False)) for row in rows) + "]"
    return f'{array}\n{{"average_score": {judgement.average:.2f}}}\n{score}'


def _brace_free(encoded: str) -> str:
    return "{" + encoded[1:-1].replace("{", "\\u007b").replace("}", "\\u007d") + "}"
