"""What a reply literally says: one grammar for every reader of answers (Phi, inspector, decomposer, the judges of benchmarks).

    thinking is a draft      what stands before the last `</think>` is no answer, and an unclosed `<think>` means that there is none
    spelling does not count  line ends, invisible characters, full-width digits, escaped brackets, a model's end tokens
    quotations are nobody's  lines that begin with `>`; passages in quotation marks, or that the text gives to a sign, a user, a prompt
    the last word counts     or nothing does: see `editr1.judge.claims` for what is rejected or taken back

ours, all of it: the paper is silent about replies that say several things.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# --- spelling -------------------------------------------------------------------------------------------

_INVISIBLE = "\u00ad\u061c\u180e\u200b-\u200f\u202a\u202b\u202c\u202d\u2060-\u2064\u2066-\u2069\ufeff"
_END_TOKENS = r"<\|(?:im_end|endoftext|eot_id|end_of_text|end|return|begin_of_box|end_of_box)\|>|</s>|<end_of_turn>"
# U+202E shows what follows from right to left, up to U+202C or the end of the line: 01 is then read as 10.
_ODD = re.compile(
    rf"\u202e[^\u202c\n]*|\r\n?|[\u0085\u2028\u2029]|&[lg]t;|[\uff01-\uff5e\uff61\u3002]|[\u00a0\u2007\u202f\u3000]|{_END_TOKENS}|[{_INVISIBLE}]"
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
    return " " if odd[0] in "\u00a0\u2007\u202f\u3000" else ""


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

_NAME = r"(?:[\w.-]{1,24}[:_])?(?:think(?:ing)?|thoughts?|reasoning|analysis|reflection|scratchpad|monologue)"
# Tags of DeepSeek, Qwen, GLM, Seed and others; Kimi-VL; Magistral; Sky-T1; Command A; gpt-oss; Gemma.
_OPEN = re.compile(
    rf"<\s*{_NAME}(?:\s[^<>]{{0,64}})?>|\u25c1think\u25b7|\[THINK\]|<\|begin_of_thought\|>|<\|START_THINKING\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)|<unused94>|<\|channel>\s*thought",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"<\s*[/\\]\s*{_NAME}\s*>|\u25c1/think\u25b7|\[/THINK\]|<\|end_of_thought\|>|<\|END_THINKING\|>"
    r"|<\|channel\|>\s*final\s*<\|message\|>|<unused95>|<channel\|>",
    re.IGNORECASE,
)
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f"


def thinking_marks(text: str) -> list[tuple[int, int, bool]]:
    """(start, end, closes) of every mark of a draft that does not itself stand in quotation marks, in reading order."""
    found = [(match.start(), match.end(), False) for match in _unquoted(_OPEN, text)]
    return sorted([*found, *((match.start(), match.end(), True) for match in _unquoted(_CLOSE, text))])


def _unquoted(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for match in pattern.finditer(text):
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        if not (before and after and before in _QUOTES and after in _QUOTES):
            yield match


# --- numbers --------------------------------------------------------------------------------------------

_MARKUP = " \t\n*_`$"
_BOXED = re.compile(r"\\(?:boxed|text|mathbf)\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,12}(?:\.[0-9]{0,60}|,[0-9]{1,2})?")
_SCALE = re.compile(r"\s*(?:/|out\s+of|of)\s*([0-9]{1,4}(?:\.0{1,4})?)$", re.IGNORECASE)
_UNIT = re.compile(r"(?<=[0-9])\s*分$")
_NAMED = re.compile(r"^(?:(?:final|overall)\s+)?score\s*[:=]\s*", re.IGNORECASE)


def read_number(text: str, top: float) -> float | None:
    r"""The one number that a passage consists of; None for anything that can be read in two ways.

    `top` is the upper end of the scale, which may stand behind the number; the number itself may lie outside.

    >>> [read_number(text, 10) for text in ("6.5", "2,5", "3 out of 10", "\\boxed{3}", "-0", "9%", "1-2", "1/5", "3 or 4")]
    [6.5, 2.5, 3.0, 3.0, 0.0, None, None, None, None]
    """
    stated = _BOXED.sub(r"\1", text).strip(_MARKUP)
    stated = _UNIT.sub("", _NAMED.sub("", stated).strip(_MARKUP).replace("\u2212", "-"))
    scale = _SCALE.search(stated)
    if scale and float(scale.group(1)) == top:
        stated = stated[: scale.start()].rstrip(_MARKUP)
    return float(stated.replace(",", ".")) + 0.0 if _NUMBER.fullmatch(stated) else None  # + 0.0: a minus zero is a zero
