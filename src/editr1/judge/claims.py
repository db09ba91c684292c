"""Whose word a passage of an answer is: the judge's own, somebody else's that it quotes, or one that it rejects or takes back.

Here is the grammar: where the words of `words.toml` must stand. Where words do not decide, the passage counts as the judge's own. What a
sign or a person in the picture says takes nothing back. ours: no source; `benchmarks/phi_fuzz.py` counts what slips through.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

_REACH = 240  # ours: characters before and behind that can belong to the same sentence
_LINE = 2_000  # ours: on a longer line quotation marks are not counted, so that time stays linear

# --- words ----------------------------------------------------------------------------------------------


_TABLE: dict[str, dict[str, Any]] = tomllib.loads(files("editr1.judge").joinpath("words.toml").read_text("utf-8"))


def words(act: str) -> list[str]:
    """The entries of an act in `words.toml`, all languages."""
    return [_whole(entry) for of_language in _TABLE[act].values() for entry in of_language]


def any_of(act: str) -> str:
    """A regular expression for any entry of an act."""
    return f"(?:{'|'.join(words(act))})"


def _whole(entry: str) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda name: _whole(_TABLE["pieces"][name[1]]), re.sub(r"\n\s*", "", entry))


# --- quoted ---------------------------------------------------------------------------------------------

_PAIRS = {"\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u00ab": "\u00bb", "\u00bb": "\u00ab", "\u2039": "\u203a",
          "\u300c": "\u300d", "\u300e": "\u300f", "\u300a": "\u300b", "\u2018": "\u2019", "\u201a": "\u2018\u2019"}  # fmt: skip
_NO_INCH = re.compile(r'(?<![0-9])"')
_WRAPPING = " \t\n*_`'\"(<[\u201c\u201e\u00ab\u300c\u2018"
_FENCE_AT_END = re.compile(r"`{3,}[a-z]{0,8}\s*$")
_ATTRIBUTED = re.compile(rf"(?:{any_of('says')}|(?P<shown>{any_of('shows')}))\s*[:,]?\s*$", re.IGNORECASE)
_NAMED = re.compile(rf"{any_of('named')}\s*:\s*$", re.IGNORECASE)
_FIRST_PERSON = re.compile(any_of("first_person"))
_SUBJECT = re.compile(rf"(?P<own>{any_of('own')})|(?P<sign>{any_of('sign')})|{any_of('others')}", re.IGNORECASE)
_SAID_BEHIND = re.compile(rf"^[\s\"'`*_)\]\u201d\u00bb\u300d]*,?\s*{any_of('said_behind')}", re.IGNORECASE)


def is_quoted(text: str, start: int, end: int, floor: int = 0, ends_sentence: bool = False) -> bool:
    """Whether text[start:end] stands in quotation marks, or its sentence gives it to somebody else; text before `floor` is not looked at.

    ends_sentence: what follows it says nothing of it.

    >>> text = "My view: <score>2</score> (the board reads <score>10</score>)"
    >>> is_quoted(text, 9, 25), is_quoted(text, 43, 60)
    (False, True)
    """
    return _in_marks(text, start, end, floor) or _attributed(text, start, len(text) if ends_sentence else end, floor)


def _in_marks(text: str, start: int, end: int, floor: int) -> bool:
    floor = max(floor, text.rfind("\n", max(0, start - _LINE), start) + 1)
    if start - floor > _LINE:
        return False
    before = text[floor:start]
    line_end = text.find("\n", end, end + _REACH)
    after = text[end : line_end if line_end >= 0 else end + _REACH]
    for opening, closings in _PAIRS.items():
        at = before.rfind(opening)
        if at >= 0 and not any(mark in before[at + 1 :] for mark in closings) and any(mark in after for mark in closings):
            return True
    # A mark behind a digit may be an inch: it must be odd either way.
    if before.count('"') % 2 and len(_NO_INCH.findall(before)) % 2 and '"' in after:
        return True
    if before.endswith("'") and after.startswith("'"):
        return True
    # A tag alone in code marks is a way of setting it off; among other words it is a quotation.
    alone = before.endswith("`") and after.startswith("`")
    return bool(before.count("`") % 2) and "`" in after and not alone


def _attributed(text: str, start: int, end: int, floor: int) -> bool:
    lead = _FENCE_AT_END.sub("", text[max(floor, start - _REACH) : start]).rstrip(_WRAPPING)
    clause = re.split(r"[.;!?\n]|(?<!-)>", lead)[-1]
    if _said_by_another(clause) or _NAMED.search(clause) or _SAID_BEHIND.match(text[end : end + _REACH]):
        return True
    # `The user wrote: F1 -> yes <score>10` gives all of its sentence away, unless the judge comes in.
    head, colon, rest = clause.partition(":")
    return bool(colon) and not _FIRST_PERSON.search(rest) and (_said_by_another(head) or bool(_NAMED.search(f"{head}:")))


def _said_by_another(clause: str) -> bool:
    """Whether a clause ends in a verb of saying whose subject, the nearest one before it, is not the judge."""
    said = _ATTRIBUTED.search(clause)
    subjects = list(_SUBJECT.finditer(clause, 0, said.start())) if said else []
    if said is None or not subjects or subjects[-1]["own"]:
        return False
    return said["shown"] is None or subjects[-1]["sign"] is not None


# --- rejected -------------------------------------------------------------------------------------------

_REJECTED = re.compile(rf"{any_of('rejected')}[\s*_:,]*$", re.IGNORECASE)
_BOUND = re.compile(rf"{any_of('bound')}[\s*_:,]*$", re.IGNORECASE)
_EXAMPLE = re.compile(rf"{any_of('example')}[\s*_`\"'\u201c]*$", re.IGNORECASE)
_REJECTED_BEHIND = re.compile(rf"^[\s*_)`\"']*{any_of('rejected_behind')}", re.IGNORECASE)
_STRUCK = re.compile(r"(?:(?<!~)~~|<(?:del|s|strike)>)[\s*_]*$", re.IGNORECASE)
_STRUCK_BEHIND = re.compile(r"[\s*_]*(?:~~(?!~)|</(?:del|s|strike)>)", re.IGNORECASE)


def is_rejected(text: str, start: int, end: int, floor: int = 0) -> bool:
    """Whether the sentence around text[start:end] names it as what the judge does not mean.

    >>> is_rejected("I would not go as far as 9", 25, 26), is_rejected("The hat is not red: 3", 20, 21)
    (True, False)
    """
    lead = text[max(floor, start - _REACH) : start]
    clause = re.split(r"[.;!?\n>]", lead)[-1]
    clause = clause if ":" not in clause.rstrip(" :*_") else clause.rpartition(":")[2]
    behind = text[end : end + _REACH]
    struck = bool(_STRUCK.search(lead)) and bool(_STRUCK_BEHIND.match(behind))
    rejected = _REJECTED.search(clause) and not _BOUND.search(clause)
    return struck or bool(rejected or _EXAMPLE.search(lead) or _REJECTED_BEHIND.match(behind))


# --- taken back -----------------------------------------------------------------------------------------

_TAKEN_BACK = re.compile(any_of("taken_back"), re.IGNORECASE)
_BLIND = re.compile(any_of("blind"), re.IGNORECASE)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_BARE = re.compile(
    rf"(?:^|[\n(;!?]|[.,](?=\s))[ \t*_>\"'-]*((?:{any_of('says_anew')}\b[\s:=,*_\"'-]*){{0,9}})(?:[-=]*>+|[=\u2192\u21d2])?[\s*_(\"']*"
    rf"([0-9]{{1,2}}(?:[.,][0-9]{{1,4}})?|{'|'.join(_NUMBERS)})(?:\.0)?(?:\s*(?:/|out\s+of)\s*10)?(?:\s*points?)?[*_)\"']*"
    rf"(?:\s+{any_of('number_ends')})*(?:[\s.!,;)\"'*_]*(?:\n|$)|[.!;,]\s(?=(\s*\S)))",
    re.IGNORECASE,
)
_RESTATED = re.compile(rf"{any_of('score_is')}[\s\"'*_]*([0-9]{{1,2}}(?:[.,][0-9]{{1,4}})?)(?![0-9%:-])", re.IGNORECASE)
_BARE_CHINESE = re.compile(
    rf"(?:^|[\n!?;(]|(?<![0-9])[.,])[\s*_]*{any_of('leads')}*+"
    r"([0-9]{1,2}(?:\.[0-9]{1,4})?)(?:\s*/\s*10)?(?:\s*分[吧了*_]*(?=[\s.,!;)]|$)|[*_.!]*\s*(?:\n|$))"
)
_CONDITION = re.compile(any_of("condition"), re.IGNORECASE)


def is_taken_back(answer: str, end: int = 0) -> bool:
    """Whether what follows a judgement, which ends at `end`, withdraws it, or any of the answer says that its judge was shown no picture.

    >>> is_taken_back("I take that back."), is_taken_back("The roof is wrong, and that costs much.")
    (True, False)
    >>> text = "I cannot view images, so this is a guess: <score>7</score>"
    >>> is_taken_back(text, len(text))
    True
    """
    tail = answer[end:]
    taken = any(not _is_anothers(tail, *match.span()) for match in _TAKEN_BACK.finditer(tail))
    return taken or any(not _is_anothers(answer, *match.span()) for match in _BLIND.finditer(answer))


def restated(tail: str) -> list[float]:
    """Scores that what follows a judgement names without tags, as in "the final score is 3" or "rather 3."; none that it quotes.

    >>> restated("So I give it a 3."), restated("1. The hat is red."), restated("With a better shadow it would be a 10.")
    ([3.0], [], [])
    """
    return [value for start, end, value in _numbers(tail) if not _is_anothers(tail, start, end) and not _is_conditional(tail, start, end)]


_RELABELLED = re.compile(
    r"\b([A-Z][0-9]{1,3})(?![0-9])[*_`]*\s*(?:(?:(?:should|must|ought\s+to|would)\s+(?:be|have\s+been)|is|was)\b|=|:|-+>|\u2192|应?该?[是为]"
    r"|改[成为]|(?=\s+(?:\w+\s+)?(?:fail|get)))"
    r"\s*(?:(?:actually|really|also|now|in\s+fact|therefore)\s+)?[*_`'\"]*"
    r"(?:(yes|1|true|met|satisfied|fulfilled|是|满足)|(?:no|0|false|unmet|violated|broken|fail(?:s|ed)|gets\s+(?:an?\s+)?(?:0|no)"
    r"|not\s+(?:met|satisfied|fulfilled)|否|不满足))[*_`'\"]*"
    r"(?=\s*(?:[.,;:!)\n]|$|instead|not|because|since|as\b))"
)


def contradicts(tail: str, verdicts: Mapping[str, bool]) -> bool:
    """Whether what follows verdicts gives one of them, by its label, another answer.

    >>> contradicts("K1 should be no.", {"K1": True}), contradicts("K1 is no, as said.", {"K1": False})
    (True, False)
    """
    for match in _RELABELLED.finditer(tail):
        known = verdicts.get(match[1])
        if known is not None and known != bool(match[2]) and not _is_anothers(tail, *match.span()):
            return True
    return False


def _numbers(tail: str) -> Iterator[tuple[int, int, float]]:
    for match in itertools.chain(_RESTATED.finditer(tail), _BARE_CHINESE.finditer(tail)):
        yield match.start(1), match.end(), float(match[1].replace(",", "."))
    for match in _BARE.finditer(tail):
        listed = match[3] is not None and not match[1].strip()  # `1. The hat ...`
        if not listed:
            said = match[2].lower()
            yield match.start(2), match.end(2), float(_NUMBERS.index(said) if said in _NUMBERS else said.replace(",", "."))


def _is_anothers(tail: str, start: int, end: int) -> bool:
    """Whether words stand in quotation marks, or their own line gives them to somebody else."""
    start += len(tail[start:end]) - len(tail[start:end].lstrip())
    ends_sentence = any(mark in ".!?\n" for mark in tail[max(start, end - 1) : end + 1])
    return is_quoted(tail, start, end, tail.rfind("\n", 0, start) + 1, ends_sentence)


def _is_conditional(tail: str, start: int, end: int) -> bool:
    """Whether the sentence speaks of what would be otherwise."""
    before = re.split(r"[.!?;\n]\s", tail[max(0, start - 160) : start])[-1]
    behind = re.split(r"[.!?;\n]", tail[end : end + 160])[0]
    return bool(_CONDITION.search(before) or _CONDITION.search(behind))
