"""flow_grpo's wire format, read without executing it. Only behind `--allow-pickle`, only on loopback.

A pickle is a program: whoever reaches a port that unpickles owns the machine. Clients of flow_grpo and its forks speak nothing
else, so this reader takes the few opcodes that build lists, dicts, texts, bytes and numbers, and refuses a body at the first
other one, before anything is loaded. numpy arrays are refused too: send encoded images.

    {"ref_images": [bytes], "images": [bytes], "prompts": [text], "metadatas"?: [dict]} -> {"scores": [float]}

`metadata` with `source_image` bytes serves clients that send no ref_images. The format has no word for "unscored": the answer is
then an error with status 422, which those clients neither retry nor read as a score.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, cast

from editr1.errors import DataError
from editr1.judge.item import RewardItem
from editr1.pictures import decode_image
from editr1.schema import Reward
from editr1.serve.messages import MAX_ITEMS, MAX_TEXT

# Constants, containers, the memo and framing. No GLOBAL, REDUCE, BUILD, INST, OBJ, NEWOBJ, PERSID, EXT, BYTEARRAY8, buffers.
_HARMLESS = """
PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 FLOAT BINFLOAT
SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8
EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
HARMLESS = frozenset(_HARMLESS.split())
MAX_MEMO = 100_000  # ours: entries; a body of 256 edits needs a few thousand


class _NoGlobals(pickle.Unpickler):
    """The second lock: even if an opcode slipped through, no name can be looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise DataError(f"the pickle names {module}.{name}; only lists, dicts, texts, bytes and numbers are read")


def loads(data: bytes) -> Any:
    """The plain value of a pickle. Raises DataError for one that is broken or holds more than plain values."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in HARMLESS:
                raise DataError(f"the pickle holds {opcode.name}; only lists, dicts, texts, bytes and numbers are read")
            if opcode.name in ("PUT", "LONG_BINPUT") and int(cast(Any, argument)) > MAX_MEMO:
                raise DataError("the pickle's memo is larger than any batch needs")
        return _NoGlobals(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the body is no pickle of plain values ({error})") from error


def to_items(data: bytes) -> list[RewardItem]:
    """The edits of a body. Raises DataError for anything but parallel lists of encoded images and texts."""
    body = loads(data)
    if not isinstance(body, dict):
        raise DataError(f"the body is a {type(body).__name__}, expected a dict with ref_images, images and prompts")
    images, prompts = _list(body, "images"), _list(body, "prompts")
    sources = _list(body, "ref_images") if body.get("ref_images") is not None else _metadata_sources(body)
    if not len(images) == len(prompts) == len(sources) <= MAX_ITEMS:
        raise DataError(
            f"{len(sources)} ref_images, {len(images)} images, {len(prompts)} prompts: expected equal numbers up to {MAX_ITEMS}"
        )
    return [_item(number, *sample) for number, sample in enumerate(zip(sources, images, prompts, strict=True))]


def _list(body: dict[Any, Any], key: str) -> list[Any]:
    value = body.get(key)
    if not isinstance(value, list | tuple):
        raise DataError(f"{key} must be a list, found {type(value).__name__}")
    return list(value)


def _metadata_sources(body: dict[Any, Any]) -> list[Any]:
    rows = _list(body, "metadata" if "metadata" in body else "metadatas")
    return [row.get("source_image") if isinstance(row, dict) else None for row in rows]


def _item(number: int, source: Any, edited: Any, prompt: Any) -> RewardItem:
    if not (isinstance(source, bytes) and isinstance(edited, bytes) and isinstance(prompt, str)):
        raise DataError(f"sample {number}: expected the source and the edit as encoded bytes and the prompt as text")
    if len(prompt) > MAX_TEXT:
        raise DataError(f"sample {number}: the prompt is longer than {MAX_TEXT} characters")
    return RewardItem(decode_image(source, f"ref_images[{number}]"), decode_image(edited, f"images[{number}]"), prompt)


def to_answer(rewards: Sequence[Reward]) -> bytes:
    """Their response. Raises DataError when an edit is unscored."""
    missing = [reward.reason for reward in rewards if not reward.scored]
    if missing:
        raise DataError(f"{len(missing)} of {len(rewards)} edits are unscored; first reason: {missing[0]}")
    return pickle.dumps({"scores": [reward.value for reward in rewards]}, protocol=4)
