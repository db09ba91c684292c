"""Text that goes to a model, to a person or into a file: whole, without control tokens and secrets, in lines that line breaks end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Control tokens of the chat templates in use (Qwen, Llama, GLM, InternVL, Gemma, Mistral, DeepSeek and others); a tokenizer may know more.
_CONTROL = re.compile(
    r"<\|[^<>|\n]{1,48}\|?>|<[a-z_]{1,24}\|>|<\uff5c[^<>\n]{1,48}\uff5c>|</?s>|</?(?:img|box|ref|quad|image|slice|image_id|tool_call|tool_response)>|<</?SYS>>"
    r"|\[/?(?:INST|IMG|IMG_BREAK|IMG_END|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CONTENT|[gs]MASK)\]"
    r"|<(?:bos|eos|pad|unk|mask|sop|eop|video|audio|image_soft_token|audio_soft_token|start_of_image|end_of_image|start_of_turn|end_of_turn|boi|eoi|IMG_CONTEXT)>"
    r"|<(?:unused[0-9]{1,4}|end_of_utterance|fake_token_around_image|global-img|row_[0-9]{1,2}_col_[0-9]{1,2})>"
)
_THINKING = re.compile(r"</?think>|\[/?THINK\]|\u25c1/?think\u25b7")


def without_control_tokens(text: str, special: Iterable[str] = (), own: bool = False) -> str:
    """The text with control tokens broken up by a blank: an instruction must not end a turn or show a picture.

    special: further tokens, as a tokenizer names them. own: it is the model's own answer, whose marks of thinking stay.

    >>> without_control_tokens("Write <|image_pad|> and <3")
    'Write < |image_pad|> and <3'
    """
    for token in special:
        if len(token) > 1 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    for pattern in (_CONTROL,) if own else (_CONTROL, _THINKING):
        text = pattern.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)
    return text


def is_whole(text: str) -> bool:
    r"""Whether no half of a surrogate pair stands alone in the text, as where a tool cut an emoji.

    >>> is_whole("a smile \ud83d"), is_whole("a smile")
    (False, True)
    """
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def whole_text(text: str) -> str:
    r"""The text with U+FFFD for each half of a surrogate pair that stands alone.

    >>> whole_text("cut \ud83d") == "cut \ufffd"
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def lines_of(text: str) -> list[str]:
    r"""The lines of a text file. Only line breaks end them: a string of JSON may hold U+2028, at which `str.splitlines` cuts.

    >>> lines_of("\ufeffone\u2028still one\r\ntwo\n")
    ['one\u2028still one', 'two']
    """
    return text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []


# --- cells of tables ------------------------------------------------------------------------------------

MISSING = ("", "nan", "none", "null", "n/a", "na", "#n/a", "<na>")
"""How tables write that there is no value, in small letters."""

MAX_INSTRUCTION_CHARS = 4000  # ours: longer texts are not instructions but a broken column


def is_missing(cell: Any) -> bool:
    """Whether a cell says that there is no value.

    >>> is_missing(None), is_missing(float("nan")), is_missing(" N/A "), is_missing(0)
    (True, True, True, False)
    """
    return cell is None or cell != cell or (isinstance(cell, str) and cell.strip().lower() in MISSING)


def instruction_fault(cell: Any) -> str:
    """Why what a row gives as its instruction is none; empty for a good one.

    >>> instruction_fault("Make it red"), instruction_fault(" ")
    ('', 'it is empty')
    """
    if not isinstance(cell, str):
        return f"expected a text, found {str(cell)[:60]!r}"
    if not is_whole(cell):
        return "it holds half of a surrogate pair, such as an emoji that was cut in two"
    if not cell.strip():
        return "it is empty"
    if is_missing(cell):
        return f"{cell.strip()!r} is how a table writes a missing value"
    return f"{len(cell)} characters, the limit is {MAX_INSTRUCTION_CHARS}" if len(cell) > MAX_INSTRUCTION_CHARS else ""


# --- secrets

_SECRET = re.compile(
    r"(?:.*[_-])?(?:api[_-]?key|access[_-]?key|secret|password|passwd|authorization)|(?:(?:api|auth|access|bearer|hf)[_-])?token",
    re.IGNORECASE,
)
_QUERY = re.compile(rf"{_SECRET.pattern}|key|subscription-key|sig|signature|code|auth", re.IGNORECASE)


def shown(address: str) -> str:
    """An address for people, without a user, a password or a query in it, also where it is broken.

    >>> shown("https://me:p@ss@host/v1?api-key=abc"), shown("http://me:pa/ss@host")
    ('https://***@host/v1?***', 'http://***@host')
    """
    scheme, mark, rest = address.partition("://") if "://" in address else ("", "", address)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = "***@" + rest[authority.rindex("@") + 1 :]
    elif "@" in rest and not re.fullmatch(r"(?:[^:]+|\[.*\])(?::\d+)?", authority):  # a password with a slash, so that it is no address
        rest = "***@" + rest[rest.rindex("@") + 1 :]
    return scheme + mark + re.sub(r"[?#].*", "?***", rest, flags=re.DOTALL)


def without_secrets(value: Any) -> Any:
    """Plain settings as they may be written down: without options that hold a key, and addresses without user, password and key.

    >>> without_secrets({"model": "m", "api_key": "abc", "base_url": "https://me:secret@host/v1?api-version=3&api-key=abc"})
    {'model': 'm', 'base_url': 'https://host/v1?api-version=3'}
    """
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items() if not _SECRET.fullmatch(str(key))}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return _lasting(value) if isinstance(value, str) and re.fullmatch(r"\w+://\S+", value) else value


def _lasting(address: str) -> str:
    base, _, query = address.partition("?")
    kept = [part for part in query.split("&") if part and not _QUERY.fullmatch(part.partition("=")[0])]
    return re.sub(r"://[^/#]*@", "://", base) + ("?" + "&".join(kept) if kept else "")


# --- for people ----------------------------------------------------------------------------------------

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def as_cell(field: str) -> str:
    """A spreadsheet must not run a cell: a leading = + - or @ gets an apostrophe, and so does an apostrophe before one."""
    return "'" + field if field.lstrip("'").startswith(_FORMULA) else field


def from_cell(field: str) -> str:
    """What `as_cell` was given."""
    return field[1:] if field.startswith("'") and field.lstrip("'").startswith(_FORMULA) else field


def printable(text: str) -> str:
    r"""The text with escapes for what would steer a terminal: colours, titles, the cursor, the direction of reading.

    >>> printable("\x1b[2Jgone\r\n")
    '\\x1b[2Jgone\\r\n'
    """
    return _UNSEEN.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
