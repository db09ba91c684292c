"""flow_grpo's wire format, read without executing it. Only behind `--allow-pickle`, only on loopback.

A pickle is a program: whoever reaches a port that unpickles owns the machine. Clients of flow_grpo and its forks speak nothing
else, so this reader runs the few opcodes that build lists, dicts, texts, bytes and numbers on a machine of its own, with bounds on
their number and depth; Python's unpickler is not used. numpy arrays are refused: send encoded images.

    {"ref_images": [bytes], "images": [bytes], "prompts": [text], "metadatas"?: [dict]} -> {"scores": [float]}

`metadata` with `source_image` bytes serves clients that send no ref_images. The format has no word for "unscored": the answer is
then an error with status 422, which those clients neither retry nor read as a score.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Sequence
from typing import Any

from editr1.errors import DataError
from editr1.schema import Reward
from editr1.serve.messages import MAX_ITEMS, MAX_TEXT
from editr1.serve.pictures import Draft, Encoded

MAX_STEPS = 100_000  # ours: a body of 256 edits with metadata needs a few thousand opcodes
MAX_DEPTH = 32  # ours: of containers; hashing or freeing hundreds of thousands of nested tuples overflows the C stack
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_IGNORED = {"PROTO", "FRAME"}
_KEYS = (str, bytes, int, float, bool, type(None))  # a tuple's hash visits all that it holds


class _Machine:
    """A pickle's stack and memo. A value lies beside its depth: 0 for a scalar, one more than its deepest part for a container."""

    def __init__(self) -> None:
        self.stack: list[tuple[Any, int]] = []
        self.marks: list[int] = []
        self.memo: dict[int, tuple[Any, int]] = {}

    def push(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise DataError(f"the pickle nests more than {MAX_DEPTH} containers")
        self.stack.append((value, depth))

    def popped(self, count: int) -> list[tuple[Any, int]]:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        parts = self.stack[-count:]
        del self.stack[-count:]
        return parts

    def marked(self) -> list[tuple[Any, int]]:
        start = self.marks.pop()
        parts = self.stack[start:]
        del self.stack[start:]
        return parts

    def container(self, kind: Callable[[list[Any]], Any], parts: list[tuple[Any, int]]) -> None:
        self.push(kind([value for value, _ in parts]), 1 + max((depth for _, depth in parts), default=0))

    def extend(self, parts: list[tuple[Any, int]]) -> None:
        target, depth = self.popped(1)[0]
        if not isinstance(target, list):
            raise TypeError("APPEND to what is no list")
        target.extend(value for value, _ in parts)
        self.push(target, max([depth, *(1 + part for _, part in parts)]))

    def new_dict(self, parts: list[tuple[Any, int]]) -> None:
        self.push({}, 1)
        self.update(parts)

    def update(self, parts: list[tuple[Any, int]]) -> None:
        target, depth = self.popped(1)[0]
        if not isinstance(target, dict) or len(parts) % 2:
            raise TypeError("SETITEM of what is no dict")
        for (key, _), (value, _) in zip(parts[::2], parts[1::2], strict=True):
            if not isinstance(key, _KEYS):
                raise TypeError("a key is a container")
            target[key] = value
        self.push(target, max([depth, *(1 + part for _, part in parts[1::2])]))


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.popped(1),
    "EMPTY_LIST": lambda machine, _: machine.push([], 1),
    "EMPTY_DICT": lambda machine, _: machine.push({}, 1),
    "EMPTY_TUPLE": lambda machine, _: machine.push((), 1),
    "LIST": lambda machine, _: machine.container(list, machine.marked()),
    "TUPLE": lambda machine, _: machine.container(tuple, machine.marked()),
    "TUPLE1": lambda machine, _: machine.container(tuple, machine.popped(1)),
    "TUPLE2": lambda machine, _: machine.container(tuple, machine.popped(2)),
    "TUPLE3": lambda machine, _: machine.container(tuple, machine.popped(3)),
    "APPEND": lambda machine, _: machine.extend(machine.popped(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "DICT": lambda machine, _: machine.new_dict(machine.marked()),
    "SETITEM": lambda machine, _: machine.update(machine.popped(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1])),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, place: machine.stack.append(machine.memo[place])),
}


def loads(data: bytes) -> Any:
    """The plain value of a pickle. Raises DataError for one that is broken, holds more than plain values, or is no batch by its size."""
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number >= MAX_STEPS:
                raise DataError(f"the pickle has more than {MAX_STEPS} steps; no batch needs as many")
            if opcode.name in _CONSTANTS:
                machine.stack.append((_CONSTANTS[opcode.name], 0))
            elif opcode.name in _NUMBERS or opcode.name in _TEXTS:
                machine.stack.append((argument, 0))
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](machine, argument)
            elif opcode.name not in _IGNORED and opcode.name != "STOP":
                raise DataError(f"the pickle holds {opcode.name}; only lists, dicts, texts, bytes and numbers are read")
        return machine.stack.pop()[0]
    except (ValueError, EOFError, LookupError, TypeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the body is no pickle of plain values ({str(error)[:200]})") from error


def to_drafts(body: Any) -> list[Draft]:
    """The edits of a body. Raises DataError for anything but parallel lists of encoded images and texts."""
    if not isinstance(body, dict):
        raise DataError(f"the body is a {type(body).__name__}, expected a dict with ref_images, images and prompts")
    images, prompts = _list(body, "images"), _list(body, "prompts")
    sources = _list(body, "ref_images") if body.get("ref_images") is not None else _metadata_sources(body)
    if not len(images) == len(prompts) == len(sources) <= MAX_ITEMS:
        raise DataError(
            f"{len(sources)} ref_images, {len(images)} images, {len(prompts)} prompts: expected equal numbers up to {MAX_ITEMS}"
        )
    return [_draft(number, *sample) for number, sample in enumerate(zip(sources, images, prompts, strict=True))]


def _list(body: dict[Any, Any], key: str) -> list[Any]:
    value = body.get(key)
    if not isinstance(value, list | tuple):
        raise DataError(f"{key} must be a list, found {type(value).__name__}")
    return list(value)


def _metadata_sources(body: dict[Any, Any]) -> list[Any]:
    rows = _list(body, "metadata" if "metadata" in body else "metadatas")
    return [row.get("source_image") if isinstance(row, dict) else None for row in rows]


def _draft(number: int, source: Any, edited: Any, prompt: Any) -> Draft:
    sources = tuple(source) if isinstance(source, list | tuple) else (source,)
    if not (sources and all(isinstance(picture, bytes) for picture in (*sources, edited)) and isinstance(prompt, str)):
        raise DataError(f"sample {number}: expected the source (or a list of sources) and the edit as encoded bytes and the prompt as text")
    if len(prompt) > MAX_TEXT:
        raise DataError(f"sample {number}: the prompt is longer than {MAX_TEXT} characters")
    if not prompt.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise DataError(f"sample {number}: the prompt holds a lone surrogate; send text")
    return Draft(tuple(Encoded(data, f"ref_images[{number}]") for data in sources), Encoded(edited, f"images[{number}]"), prompt)


def to_answer(rewards: Sequence[Reward]) -> bytes:
    """Their response. Raises DataError when an edit is unscored."""
    missing = [reward.reason for reward in rewards if not reward.scored]
    if missing:
        raise DataError(f"{len(missing)} of {len(rewards)} edits are unscored; first reason: {missing[0]}")
    return pickle.dumps({"scores": [reward.value for reward in rewards]}, protocol=4)
