"""Phi: the rule-based parser that reads verdicts and the score tau out of a trace (paper, section 3.1), in linear time, never raising.

The last verdict block and the last score tag behind it decide, in the answer that follows the model's thinking. What is quoted, copied
from the prompt or put aside (`<rationale>`) is nobody's word; what is unreadable, rejected, taken back or contradictory is a
`ParseFailure` with a code of its own, and never lets an earlier statement through.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from editr1.judge.answers import (
    Mark,
    aside_marks,
    blanked,
    json_spans,
    normalised,
    object_arrays,
    read_number,
    thinking_marks,
    without_block_quotes,
)
from editr1.judge.claims import contradicts, is_quoted, is_rejected, is_taken_back, restated
from editr1.judge.verdicts import SCORE_TAG, VerdictBlock, Verdicts, last_verdicts, verdict_blocks
from editr1.schema import MAX_SCORE, FailureCode, Judgement, Outcome, ParseFailure

_CONTENT = re.compile(r"([^<>]{0,400})<\s*[/\\]\s*(?:(?:final|overall)[_ -]?)?score\s*>", re.IGNORECASE)
_PLAIN_TAG = re.compile(r"<\s*(?:(?:final|overall)[_ -]?)?score\s*>", re.IGNORECASE)
_MENTION = re.compile(r"[`'\"\u201d]?\s*(?:tags?|elements?|markers?|brackets?|format)\b", re.IGNORECASE)  # "in <score> tags"
_OPEN_SCORE_AT_END = re.compile(r"<score>[^<>]{0,40}(?:<[/\\]?[a-z]{0,5})?$", re.IGNORECASE)
_OPEN_BRACKET_AT_END = re.compile(r"\[\s*$")

_FORMAT = re.compile(
    r"\b(?:format|example|template|instructions?|prompt|user)\s+(?:is|was|says?|gives?|reads?|shows?|wants?)\b[^.\n]{0,40}$", re.IGNORECASE
)

_HEADING = re.compile(
    r"(?:^|\n)[\s*#_]*(?:(?:my|the|final)\s+)*(?:verdicts?|answers?|json|output|results?|scores?|summary)[\s*_]*:?[\s*_]*$", re.IGNORECASE
)

_COPY_CONTEXT = 10  # ours: non-blank characters before a passage that must agree with the prompt for it to be a copy
_COPY_REACH = 80  # ours: characters in which those are looked for
_EXCERPT_CHARS = 160  # ours: enough to see what went wrong in a table
_CUT_CODES = frozenset({"NO_VERDICTS", "NO_SCORE", "WRONG_COUNT", "AMBIGUOUS"})


@dataclass(frozen=True, slots=True)
class Reading:
    """What Phi makes of a trace, and where."""

    outcome: Outcome
    tags_behind: int = 0
    """Opening score tags behind the one that the score was read from, in the normalised text."""


class _Stated(NamedTuple):
    """A judgement, with the offset of the tag that its score was read from."""

    judgement: Judgement
    tag: int


def parse(
    text: str, num_principles: int, *, labels: Sequence[str] | None = None, needs_verdicts: bool = True, truncated: bool = False,
    prompt_text: str = "",
) -> Outcome:  # fmt: skip
    r"""The judgement that a trace states, or why it states none.

    Args:
        text: the reply.
        num_principles: K, the number of verdicts that a complete block has.
        labels: labels of the principles in their order (F1 K1 Q1 ...). With them, verdicts are matched by label or running number.
        needs_verdicts: False for judges that state only a score (T, no-principle).
        truncated: the token limit ended the reply; an incomplete judgement is then coded TRUNCATED.
        prompt_text: text of the request; passages copied from it are ignored.

    Source: paper, section 3.1 (format, range) and appendix (`<\score>`); everything else is ours.

    >>> parse('[{"score": 1}, {"score": 0}] <score>6.5</score>', 2)
    Judgement(verdicts=(True, False), score=6.5)
    >>> parse('[{"score": 1}, {"score": 0}] <score>11</score>', 2).code
    'OUT_OF_RANGE'
    >>> parse('[{"score": 1}, {"score": 0}] <score>9</score> I take that back.', 2).code
    'WITHDRAWN'
    """
    return read(text, num_principles, labels, needs_verdicts, truncated, prompt_text).outcome


def read(
    text: str, num_principles: int, labels: Sequence[str] | None = None, needs_verdicts: bool = True, truncated: bool = False,
    prompt_text: str = "",
) -> Reading:  # fmt: skip
    """`parse`, with the place of the score for readers of token probabilities."""
    plain = normalised(text)
    answer = answer_of(plain, prompt_text)
    prompt = _Foreign(prompt_text, answer or "")
    found: _Stated | FailureCode
    if answer is None:
        found = "NO_VERDICTS" if needs_verdicts else "NO_SCORE"
    else:
        found = _judgement(answer, num_principles, labels, prompt) if needs_verdicts else _score(answer, answer, (), 0, prompt)
    if isinstance(found, _Stated):
        return Reading(found.judgement, sum(1 for _ in SCORE_TAG.finditer(plain, found.tag)) - 1)
    cut = truncated or (answer is not None and _looks_cut(answer))
    return Reading(ParseFailure("TRUNCATED" if cut and found in _CUT_CODES else found, text[-_EXCERPT_CHARS:]))


def answer_of(plain: str, prompt_text: str = "") -> str | None:
    """The normalised text with drafts and quoted lines blanked, every character in its place; None when it ends inside a draft.

    >>> answer_of("<think>9?</think>7"), answer_of("<think>9?")
    ('                 7', None)
    """
    prompt = _Foreign(prompt_text)
    marks = _own_marks(thinking_marks(plain), plain, prompt)
    start = max((end for _, end, closes in marks if closes), default=0)
    if any(not closes and begin >= start for begin, _, closes in marks):
        return None
    answer = " " * start + without_block_quotes(plain[start:])
    return None if _asides(answer, prompt) is None else answer


def without_asides(answer: str) -> str:
    """What `answer_of` gave, with passages in tags such as `<rationale>` blanked: they state nothing, though they may take something back.

    >>> without_asides("<plan>CHOICE: A</plan>CHOICE: B")
    '                      CHOICE: B'
    """
    return blanked(answer, _asides(answer, _Foreign("")) or ())


def _own_marks(marks: list[Mark], text: str, prompt: _Foreign) -> list[Mark]:
    """Without those that the text copies from the request, or holds in the strings of JSON."""
    spans = json_spans(text) if marks else []
    return [mark for mark in marks if not prompt.copied(text, 0, mark[0], mark[1]) and not _inside(spans, mark[0])]


def _asides(answer: str, prompt: _Foreign) -> list[tuple[int, int]] | None:
    """(start, end) of every passage in tags such as `<rationale>`; None where the answer ends inside one."""
    found: list[tuple[int, int]] = []
    depth = begin = 0
    for start, end, closes in _own_marks(aside_marks(answer), answer, prompt):
        begin = begin if depth else start
        depth = max(0, depth - 1) if closes else depth + 1
        if closes and not depth:
            found.append((begin, end))
    return None if depth else found


def _inside(spans: Sequence[tuple[int, int]], at: int) -> bool:
    index = bisect(spans, (at, 0)) - 1
    return index >= 0 and at < spans[index][1]


def _judgement(answer: str, num_principles: int, labels: Sequence[str] | None, prompt: _Foreign) -> _Stated | FailureCode:
    own, foreign = _blocks(answer, prompt)
    kept = blanked(answer, ((block.start, block.end) for block in foreign))
    verdicts = last_verdicts(kept, own, num_principles, labels)
    if not isinstance(verdicts, Verdicts):
        return verdicts
    found = _score(answer, kept, verdicts.values, verdicts.end, prompt, [block.end for block in foreign])
    changed = isinstance(found, _Stated) and contradicts(kept[verdicts.end :], dict(zip(labels or (), verdicts.values, strict=False)))
    return "CONTRADICTORY" if changed else found


def own_blocks(answer: str) -> list[VerdictBlock]:
    """The verdict blocks of an answer without those that it quotes."""
    return _blocks(answer, _Foreign("", answer))[0]


def _blocks(answer: str, prompt: _Foreign) -> tuple[list[VerdictBlock], list[VerdictBlock]]:
    """The judge's own blocks, and those that it quotes, copied from the request, or wrote in an aside."""
    own: list[VerdictBlock] = []
    foreign: list[VerdictBlock] = []
    floor = 0
    for block in verdict_blocks(answer):
        held = prompt.holds(answer, floor, block.start, block.end)
        others = held or is_quoted(answer, block.start, block.end, floor) or is_rejected(answer, block.start, block.end, floor)
        (foreign if others else own).append(block)
        floor = block.end
    return own, foreign


def _score(
    answer: str, kept: str, verdicts: tuple[bool, ...], start: int, prompt: _Foreign, foreign_ends: Sequence[int] = ()
) -> _Stated | FailureCode:
    """The judgement that the last score tag behind `start` completes, or why there is none.

    kept: the answer without foreign blocks, which end at `foreign_ends`: a tag right behind one is as foreign as the block.
    """
    rejected: list[float | None] = []
    ignored: list[tuple[int, int]] = []
    tags = list(SCORE_TAG.finditer(kept, start))
    for tag in reversed(tags):
        content = _CONTENT.match(answer, tag.end())
        end = content.end() if content else tag.end()
        index = bisect(foreign_ends, tag.start()) - 1
        follows = index >= 0 and not answer[foreign_ends[index] : tag.start()].strip(" \n\t,`")
        if follows or prompt.holds(answer, start, tag.start(), end) or is_quoted(answer, tag.start(), end, start):
            ignored.append((tag.start(), end))
            continue
        if content is None and _MENTION.match(answer, tag.end()):
            continue
        value = read_number(content.group(1), MAX_SCORE) if content and _PLAIN_TAG.fullmatch(tag.group()) else None
        if is_rejected(answer, tag.start(), end, start):
            rejected.append(value)
            ignored.append((tag.start(), end))
            continue
        if value is None:
            return "AMBIGUOUS"
        shown = blanked(kept, reversed(ignored))
        tail = shown[end:]
        if _OPEN_BRACKET_AT_END.search(tail) or tail.rfind("{") > tail.rfind("}"):
            return "TRUNCATED"  # it was about to say more
        if value in rejected or is_taken_back(shown, end):
            return "WITHDRAWN"
        if any(other != value for other in restated(tail)):
            return "CONTRADICTORY"
        return _Stated(Judgement(verdicts, value), tag.start()) if 0.0 <= value <= MAX_SCORE else "OUT_OF_RANGE"
    return "WITHDRAWN" if rejected else "NO_SCORE"


def _looks_cut(answer: str) -> bool:
    """The answer ends inside a score tag, inside an object, or between the objects of a verdict array."""
    if _OPEN_SCORE_AT_END.search(answer, max(0, len(answer) - 64)) or answer.rfind("{") > answer.rfind("}"):
        return True
    arrays = list(object_arrays(answer))
    if not arrays or arrays[-1].closed or not arrays[-1].opened:
        return False
    return answer[arrays[-1].end :].strip(" \n\t,") == "" and bool(verdict_blocks(answer[arrays[-1].start :]))


class _Foreign:
    """Knows which passages of an answer state nothing: those in asides, and those that were copied from the request. Blanks do not count.

    An honest answer may equal a passage of an instruction word for word. A copy is known by what stands before it: that agrees too.
    """

    def __init__(self, prompt_text: str, answer: str = "") -> None:
        self._text = _squeezed_prompt(prompt_text)
        self._begin = len(answer) - len(answer.lstrip())
        self._asides = _asides(answer, self) or []

    def holds(self, text: str, floor: int, start: int, end: int) -> bool:
        """Whether text[start:end] is no statement of the answer, for one reason or the other."""
        return _inside(self._asides, start) or self.copied(text, floor, start, end)

    def copied(self, text: str, floor: int, start: int, end: int) -> bool:
        """Whether text[start:end] was copied from the prompt, as what precedes it back to `floor` shows."""
        passage = _squeeze(text[start:end]) if self._text else ""
        if not passage or passage not in self._text:
            return False
        lead = text[max(floor, start - _COPY_REACH) : start]
        heading = _HEADING.search(lead)  # everybody writes `Verdicts:`, so it proves nothing
        needed = _COPY_CONTEXT + (len(_squeeze(heading.group())) if heading else 0)
        before = _squeeze(lead)[-needed:]
        # At the beginning of an answer there may be less to agree; behind a verdict block a word or two are the judge's own.
        enough = len(before) == needed or (before != "" and not heading and floor <= self._begin)
        return (enough and before + passage in self._text) or bool(_FORMAT.search(lead))


@lru_cache(maxsize=32)  # the traces of one edit share their prompt
def _squeezed_prompt(prompt_text: str) -> str:
    return _squeeze(normalised(prompt_text))


def _squeeze(text: str) -> str:
    return "".join(text.split())


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
    array = "[" + ", ".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]"
    return f'{array}\n{{"average_score": {judgement.average:.2f}}}\n{score}'
