"""What a reply literally says: one grammar for every reader of answers (Phi, inspector, decomposer, the judges of benchmarks). All ours.

thinking is a draft      what stands before the last `</think>` is no answer, and an unclosed `<think>` means that there is none
an aside states nothing  what stands in `<rationale>`, `<plan>`, `<details>` and their like, before an answer or behind it
spelling does not count  line ends, invisible characters, full-width digits, escaped brackets, a model's end tokens
quotations are nobody's  lines that begin with `>`; passages in quotation marks, or that the text gives to a sign, a user, a prompt
the last word counts     or nothing does: see `editr1.judge.claims` for what is rejected or taken back
objects are loose        JSON in prose and fences, with single quotes and spare commas, cut: linear time, and nothing here raises
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from editr1.text import whole_text

# --- spelling -------------------------------------------------------------------------------------------

_INVISIBLE = "\u00ad\u061c\u180e\u200b-\u200f\u202a\u202b\u202c\u202d\u2060-\u2064\u2066-\u2069\ufeff"
_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_END_TOKENS = r"<\|(?:im_end|endoftext|eot_id|end_of_text|end|return|begin_of_box|end_of_box)\|>|</s>|<end_of_turn>"
# U+202E shows what follows from right to left, up to U+202C or the end of the line: 01 is then read as 10.
_ODD = re.compile(
    rf"\u202e[^\u202c\n]*|\r\n?|[\u0085\u2028\u2029]|&[lg]t;|[\uff01-\uff5e\uff61\u3002]|[{_BLANKS}]|{_END_TOKENS}|[{_INVISIBLE}]"
)
_REVERSED_WORD = re.compile(r"<[/\\]?score>|\w", re.IGNORECASE)


def normalised(text: str) -> str:
    r"""The text as a person sees it, in one spelling: `\n`, no invisible characters, ASCII for full-width characters.

    What is shown from right to left becomes U+FFFD: its characters are not read in the order in which they are written.

    >>> normalised("<sc\u200bore>\uff17</score>\r\n"), normalised("<score>\u202e01</score>")
    ('<score>7</score>\n', '<score>\ufffd\ufffd</score>')
    """
    if text.isascii() and not any(mark in text for mark in ("\r", "&", "<|", "</s>", "<end_of_turn>")):
        return text  # nothing to do, as mostly
    return _ODD.sub(_plain, text)


def origins(text: str) -> list[int]:
    """Offset in `text` of each character of `normalised(text)`, and of its end."""
    found: list[int] = []
    at = 0
    for match in _ODD.finditer(text):
        found += range(at, match.start())
        plain = _plain(match)
        # One for one where lengths agree, as in a reversed passage; else the whole spelling stands for its first character.
        found += range(match.start(), match.end()) if len(plain) == len(match.group()) else [match.start()] * len(plain)
        at = match.end()
    return [*found, *range(at, len(text) + 1)]


def _plain(match: re.Match[str]) -> str:
    odd = match.group()
    if odd[0] == "\u202e":
        return _REVERSED_WORD.sub(lambda word: word.group() if word.group()[0] == "<" else "\ufffd", normalised(odd.replace("\u202e", "")))
    if odd[0] in "\r\u0085\u2028\u2029":
        return "\n"
    if odd[0] == "&":
        return "<" if odd[1] == "l" else ">"
    if "\uff01" <= odd[0] <= "\uff5e":
        return chr(ord(odd[0]) - 0xFEE0)
    if odd[0] in "\u3002\uff61":
        return "."
    return " " if odd[0].isspace() else ""


def blanked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with blanks in place of the spans (in reading order, not overlapping); every other character keeps its place."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [text[at:start], " " * (end - start)]
        at = end
    return "".join([*pieces, text[at:]])


_BLOCK_QUOTE = re.compile(r"^[ ]{0,3}>[^\n]*", re.MULTILINE)


def without_block_quotes(text: str) -> str:
    """The text with quoted lines (`> ...`) blanked; every other character keeps its place."""
    return blanked(text, (match.span() for match in _BLOCK_QUOTE.finditer(text)))


# --- drafts ---------------------------------------------------------------------------------------------

_NAME = (
    r"(?:[\w.-]{1,24}[:_])?(?:think(?:ing)?|thoughts?|reasoning|analysis|reflection"
    r"|scratchpad|monologue|cot|draft|deliberation|internal)"
)
# Tags of DeepSeek, Qwen, GLM, Seed and others; Kimi-VL; Magistral; Sky-T1; Command A; gpt-oss; Gemma.
_OPEN = re.compile(
    rf"<\s*{_NAME}(?:\s[^<>]{{0,64}})?>|\u25c1think\u25b7|\[THINK\]|<\|(?:begin_of_)?{_NAME}\|>|<\|START_THINKING\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)|<unused94>|<\|channel>\s*thought",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"<\s*[/\\]\s*{_NAME}\s*>|\u25c1/think\u25b7|\[/THINK\]|<\|(?:end_of_|/){_NAME}\|>|<\|END_THINKING\|>"
    r"|<\|channel\|>\s*final\s*<\|message\|>|<unused95>|<channel\|>",
    re.IGNORECASE,
)
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f"


_ASIDE = (
    r"(?:rationales?|plan(?:s|ning)?|details?|notes?|explanations?|justifications?|observations?|considerations?|brainstorm(?:ing)?|workings?"
    r"|steps?|musings?|rough[_-]?work|self[_-](?:check|critique|reflection))"
)
_OPEN_ASIDE = re.compile(rf"<\s*{_ASIDE}(?:\s[^<>]{{0,64}})?>", re.IGNORECASE)
_CLOSE_ASIDE = re.compile(rf"<\s*[/\\]\s*{_ASIDE}\s*>", re.IGNORECASE)

Mark = tuple[int, int, bool]
"""(start, end, closes) of a tag."""


def thinking_marks(text: str) -> list[Mark]:
    """Every mark of a draft that does not itself stand in quotation marks, in reading order."""
    return _marks(text, _OPEN, _CLOSE)


def aside_marks(text: str) -> list[Mark]:
    """As `thinking_marks`, of passages that announce no answer, but may follow one."""
    return _marks(text, _OPEN_ASIDE, _CLOSE_ASIDE)


def _marks(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> list[Mark]:
    found = [(match.start(), match.end(), False) for match in _unquoted(opening, text)]
    return sorted([*found, *((match.start(), match.end(), True) for match in _unquoted(closing, text))])


def _unquoted(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for match in pattern.finditer(text):
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        if not (before and after and before in _QUOTES and after in _QUOTES):
            yield match


# --- numbers --------------------------------------------------------------------------------------------

_MARKUP = " \t\n*_`$"
_BOXED = re.compile(r"\\(?:boxed|text|mathbf)\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,12}(?:\.[0-9]{0,60}|,[0-9]{1,2})?")
_SCALE = re.compile(r"\s*(?:/|out\s+of|of)\s*([0-9]{1,4}(?:[.,]0{1,4})?)\.?$", re.IGNORECASE)
_UNIT = re.compile(r"(?<=[0-9])\s*(?:[分点점]|(?:points?|pts?)\.?)$", re.IGNORECASE)  # the signs: Chinese, Japanese, Korean points
_NAMED = re.compile(
    r"^(?:(?:final|overall|total)\s+)?(?:score|rating|grade|overall|total|(?:最终|总|综合)?(?:得分|评分|分数))\s*[:=]\s*",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\(([^()]*)\)|(.*[^\s(])\s*\(((?:out\s+)?of\s+[0-9]{1,4})\)", re.IGNORECASE | re.DOTALL)


def read_number(text: str, top: float) -> float | None:
    r"""The one number that a passage consists of; None for anything that can be read in two ways.

    `top` is the upper end of the scale, which may stand behind the number; the number itself may lie outside.

    >>> [read_number(text, 10) for text in ("6.5", "2,5", "3 out of 10", "\\boxed{3}", "-0", "9%", "1-2", "1/5", "3 or 4")]
    [6.5, 2.5, 3.0, 3.0, 0.0, None, None, None, None]
    """
    stated = _BOXED.sub(r"\1", text).strip(_MARKUP)
    stated = _NAMED.sub("", stated).strip(_MARKUP).replace("\u2212", "-")
    if bracketed := _BRACKETED.fullmatch(stated):  # `(7)`, `7 (out of 10)`
        stated = bracketed[1] or f"{bracketed[2]} {bracketed[3]}"
    stated = _UNIT.sub("", stated)
    scale = _SCALE.search(stated)
    if scale and float(scale.group(1).replace(",", ".")) == top:
        stated = _UNIT.sub("", stated[: scale.start()].rstrip(_MARKUP))
    return float(stated.replace(",", ".")) + 0.0 if _NUMBER.fullmatch(stated) else None  # + 0.0: a minus zero is a zero


# --- objects --------------------------------------------------------------------------------------------
# Every innermost `{...}` is found on its own; neighbours inside one pair of brackets form an array.

# Innermost objects. Strings may hold braces; where the quotation marks do not pair, the next brace ends the object. The quantifiers
# give nothing back (`++`), and a scan stops at the next brace outside a string: linear over the whole text.
_OBJECT = re.compile(r'\{(?:[^{}"]++|"(?:[^"\\]++|\\.)*+")*+\}', re.DOTALL)
_UNPAIRED = re.compile(r"\{[^{}]*+\}")
_SPARE_COMMA = re.compile(r",\s*(?=[}\]])")
_BETWEEN = re.compile(r"(?:[\s,;]|//[^\n]*|#[^\n]*|/\*[^*]*\*/)*+")  # with the comments of programmers
_OPEN_BRACKET_BEFORE = re.compile(r"\[\s{0,16}$")
_CLOSE_BRACKET_AFTER = re.compile(rf"{_BETWEEN.pattern}\]")

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
