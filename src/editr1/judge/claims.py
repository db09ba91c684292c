"""Whose word a passage of an answer is: the judge's own, somebody else's that it quotes, or one that it rejects or takes back.

English words and the quotation marks of several languages, looked for in the sentence around the passage. Where words do not
decide, the passage counts as the judge's own. ours: no source; `benchmarks/phi_fuzz.py` counts what slips through.
"""

from __future__ import annotations

import re

_REACH = 240  # ours: characters before and behind that can belong to the same sentence
_LINE = 2_000  # ours: on a longer line quotation marks are not counted, so that time stays linear

# --- quoted ---------------------------------------------------------------------------------------------

_PAIRS = {"\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u00ab": "\u00bb", "\u00bb": "\u00ab", "\u2039": "\u203a",
          "\u300c": "\u300d", "\u300e": "\u300f", "\u300a": "\u300b", "\u2018": "\u2019", "\u201a": "\u2018\u2019"}  # fmt: skip
_NO_INCH = re.compile(r'(?<![0-9])"')
_WRAPPING = " \t\n*_`'\"(<[\u201c\u201e\u00ab\u300c\u2018"
_FENCE_AT_END = re.compile(r"`{3,}[a-z]{0,8}\s*$")
_SIGNS = r"(?:text|caption|sign|board|billboard|scoreboard|label|watermark|poster|banner|screen|shirt|wall|paper|page|book|sticker|note)"
_OTHERS = r"(?:instructions?|user|prompt|request|message|ocr|quote|example|template|picture|image|photo|it|they|he|she|some(?:body|one))"
_SAYS = (
    r"(?:reads?|reading|says?|said|saying|states?|stating|claims?|claiming|writes?|wrote|written|demands?|demanded|demanding|asks?|asked|asking"
    r"|requests?|requested|tells?|told|wants?|wanted|instructs?|quotes?|quoted|orders?)"
)
_FILLER = (
    r"(?:\s+(?:that|the|a|an|me|us|you|for|with|as|out|literally|just|only|to|give|write|answer|say|print|output|it|words?|text"
    r"|edit|judge))*"
)
_ATTRIBUTED = re.compile(
    rf"\b(?:{_SAYS}|(?<=\W)(?:shows?|displays?|bears?|carries|prints?|contains?)(?P<shown>)){_FILLER}\s*[:,]?\s*$", re.IGNORECASE
)
_NAMED = re.compile(
    rf"\b(?:{_SIGNS}|instructions?|user|prompt|ocr|quote)(?:\s+(?:in|on|of|from)\s+(?:the|its|this)\s+\w+)?\s*:\s*$", re.IGNORECASE
)
_FIRST_PERSON = re.compile(r"\b(?:I|my|we|our)\b")
_SUBJECT = re.compile(
    rf"\b(?:(?P<own>I|my|we|our|(?:final|overall)\s+(?:\w+\s+)?(?:score|rating|verdict|grade|answer|judge?ment)|verdicts?|rating)"
    rf"|(?P<sign>{_SIGNS})|{_OTHERS})\b",
    re.IGNORECASE,
)
_SAID_BEHIND = re.compile(
    r"^[\s\"'`*_)\]\u201d\u00bb\u300d]*,?\s*(?:"
    r"(?:(?:is|are|was|were|stands?|appears?|being|as|that\s+is|which\s+is)\s+)?(?:written|printed|painted|displayed|carved|engraved|quoted|visible)\b"
    rf"|(?:is|was)\s+(?:only\s+|just\s+|merely\s+)?what\s+(?:the|that|this|it|somebody|someone)\b|(?:says|reads|said|wrote|writes)\s+the\b"
    r"|which\s+I\s+(?:ignore|disregard|do\s+not|don't|will\s+not|won't|cannot|can't)\b|which\s+is\s+(?:not\s+mine|ignored|irrelevant|only|just)\b"
    rf"|(?:on|in)\s+the\s+{_SIGNS}\b)",
    re.IGNORECASE,
)


def is_quoted(text: str, start: int, end: int, floor: int = 0) -> bool:
    """Whether text[start:end] stands in quotation marks, or its sentence gives it to somebody else; text before `floor` is not looked at.

    >>> text = "My view: <score>2</score> (the board reads <score>10</score>)"
    >>> is_quoted(text, 9, 25), is_quoted(text, 43, 60)
    (False, True)
    """
    return _in_marks(text, start, end, floor) or _attributed(text, start, end, floor)


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
    if said is None or not subjects or subjects[-1].group("own"):
        return False
    return said.group("shown") is None or subjects[-1].group("sign") is not None


# --- rejected, taken back -------------------------------------------------------------------------------

_GRADING = (
    r"(?:a|an|the|quite|really|even|as|of|at|to|with|yet|still|just|only|than|be|been|worth|give|given|giving|award|say|call|rate|score|deserve"
    r"|deserves|reach|far|go|high|low|going|it|this|that|enough|for|by|any|more|near|exactly|merit|justify|earn|get|assign|accept|agree|stand"
    r"|stay|my|final|up|anything|like)"
)
_REJECTED = re.compile(
    rf"(?:(?:\b(?:not|never|neither|nor|hardly|cannot|no\s+longer)|n['\u2019]t)(?:[\s*_]+{_GRADING})*"
    r"|\b(?:instead\s+of|rather\s+than|far\s+from|short\s+of|nowhere\s+near|anything\s+but)(?:\s+(?:a|an|the|my))?"
    r"|\bwould(?:['\u2019]ve|\s+have)\b[^.;\n]{0,60}"
    r"|\b(?:suppose|supposing|assume|assuming|hypothetically)\b[^.;\n]{0,120}"
    r"|\bif\b[^.;\n]{0,80}\b(?:were|had)\b[^.;\n]{0,80})[\s*_:,]*$",
    re.IGNORECASE,
)
_REJECTED_BEHIND = re.compile(
    r"^[\s*_)`\"']*(?:\?\s*no\b|,?\s*(?-i:if|had|unless)\b|(?:is|was|would\s+be|seems?|looks?)\s+(?:far\s+|much\s+|way\s+|clearly\s+)?"
    r"(?:wrong|too\s+\w+|not\b|a\s+mistake|undeserved|unjustified|excessive|out\s+of\s+the\s+question))",
    re.IGNORECASE,
)


_STRUCK = re.compile(r"(?:~~|<(?:del|s|strike)>)[\s*_]*$", re.IGNORECASE)
_STRUCK_BEHIND = re.compile(r"[\s*_]*(?:~~|</(?:del|s|strike)>)", re.IGNORECASE)


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
    return struck or bool(_REJECTED.search(clause) or _REJECTED_BEHIND.match(behind))


_ITS_WORD = r"(?:that|this|(?:the|my|this|that)\s+(?:last\s+|final\s+|above\s+)?(?:score|verdicts?|rating|answer|number|judge?ment|above))"
_FAULTS = (
    r"(?:wrong|incorrect|mistaken|a\s+mistake|an\s+error|not\s+(?:right|correct|final|valid)|invalid|void|withdrawn"
    r"|too\s+(?:high|low|generous|harsh|kind|much))"
)
_TAKEN_BACK = re.compile(
    "|".join(
        (
            r"\b(?:take|took|taking)\s+(?:that|it|this|everything|all|my\s+\w+|the\s+\w+)\s+(?:all\s+)?back\b",
            r"\b(?:scratch|strike|forget|discard|drop)\s+(?:that|this|it|the\s+above)\b",
            r"\b(?:withdraw|withdrawn|withdrawing|retract|retracted|retracting|rescind|reconsider|reconsidering)\b",
            rf"\b(?:disregard|ignore)\s+(?:{_ITS_WORD}|everything|what\s+I|the\s+(?:above|previous|block))\b",
            r"(?:^|[.!?\n,(])[ \t]*(?:on\s+(?:second\s+thoughts?|reflection)\b"
            r"|(?:correction|revised|revision|erratum)\s*[:.,\u2014\u2013-])",
            r"\bmy\s+mistake\b|\bnever\s?mind\b|\bI\s+(?:was|am)\s+(?:wrong|mistaken|not\s+sure)\b",
            r"\b(?:I|we)\s+(?:cannot|can['\u2019]t|could\s+not|am\s+unable\s+to)\s+(?:really\s+)?(?:judge|score|rate|assess|evaluate|tell|say)\b",
            rf"\b{_ITS_WORD}\s+(?:is|was|were|are|seems?|must\s+be)\s+(?:\w+\s+)?{_FAULTS}\b",
            r"\b(?:revised\s+(?:score|verdicts?|answer|rating|judge?ment)|I\s+(?:must\s+|will\s+|now\s+)?(?:am\s+)?revis(?:e|ing)"
            r"|changed\s+my\s+mind|let\s+me\s+(?:re|think|check|look|start|redo|correct|do))",
            r"(?:^|[.!?\n(\u2014\u2013-])[ \t]*(?:oh\s+|but\s+|hm+[,.\s]+)?(?:wait|actually|hold\s+on|no|hm+|sorry|oops)\b"
            r"\s*(?:[,.:!\u2026\u2014\u2013-]|$)",
        )
    ),
    re.IGNORECASE,
)
_RESTATED = re.compile(
    r"(?<!average[ _])(?<!mean[ _])\b(?:(?:final|overall|true|real|new)[ _])?score[\"'*_]*\s*(?::|=|is|was|(?:should|would|must)\s+be)"
    r"[\s\"'*_]*([0-9]{1,2}(?:[.,][0-9]{1,4})?)(?![0-9%-])",
    re.IGNORECASE,
)


def is_taken_back(tail: str) -> bool:
    """Whether what follows a judgement withdraws it.

    >>> is_taken_back("I take that back."), is_taken_back("The roof is wrong, and that costs much.")
    (True, False)
    """
    return bool(_TAKEN_BACK.search(tail))


def restated(tail: str) -> list[float]:
    """Scores that what follows a judgement names without tags, as in "the final score is 3"; none that it quotes."""
    own = (match for match in _RESTATED.finditer(tail) if not is_quoted(tail, match.start(), match.end()))
    return [float(match.group(1).replace(",", ".")) for match in own]
