"""Other trainers' JSON, and their pickle, read without executing it.

UniRL: `POST /score`, a list of histories; the last turn holds the edit, those before it the source, or several. The answer keeps
"overall" first, for their client takes the first sub-metric; an unscored edit stands in `errors`, and the step stops there.
Flow-Factory: `POST /compute`, parallel lists. It has no word for "unscored": one such edit makes the answer an error, on which their
client raises. The class in `integrations/flow_factory.py` speaks `/edit-reward` instead.
flow_grpo: pickle, only behind `--allow-pickle`, only on loopback.

    {"ref_images": [bytes], "images": [bytes], "prompts": [text], "metadatas"?: [dict]} -> {"scores": [float]}

`metadata` with `source_image` bytes serves clients that send no ref_images. The format has no word for "unscored": the answer is
then an error with status 422, which those clients neither retry nor read as a score.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from editr1.errors import DataError
from editr1.schema import Reward
from editr1.serve.messages import MAX_ITEMS, MAX_SOURCES, MAX_TEXT
from editr1.serve.worker import Draft, Encoded, from_base64
from editr1.text import is_whole

# --- UniRL and Flow-Factory ----------------------------------------------------------------------------


REWARD = "editrrm"
IDENTITY = ("request_id", "sample_id", "group_id", "source_rank", "policy_version", "scorer_version", "idempotency_key")


class Turn(BaseModel):
    """One step of a sample's history."""

    text: str = Field("", max_length=MAX_TEXT)
    image_b64: str | None = None


class ScoreItem(BaseModel):
    """One sample. Their newer clients add who they are; it is echoed."""

    history: list[Turn] = Field(max_length=16)
    required_rewards: list[str] = Field(default_factory=lambda: [REWARD])
    metadata: dict[str, Any] | None = None
    request_id: str | None = None
    sample_id: str | None = None
    group_id: str | None = None
    source_rank: int | None = None
    policy_version: int | None = None
    scorer_version: str | None = None
    idempotency_key: str | None = None


class ScoreRequest(BaseModel):
    """A batch."""

    requests: list[ScoreItem] = Field(max_length=MAX_ITEMS)
    protocol_version: str = "1"


def unirl_drafts(request: ScoreRequest) -> list[Draft]:
    """The edits of the batch. Raises DataError for a reward that is not served here, and for a sample without both pictures."""
    return [_unirl_draft(number, item) for number, item in enumerate(request.requests)]


def _unirl_draft(number: int, item: ScoreItem) -> Draft:
    unknown = sorted(set(item.required_rewards) - {REWARD})
    if unknown:
        raise DataError(f"requests[{number}]: reward {unknown[0][:40]!r} is not served here; this service serves {REWARD!r}")
    pictures = [turn.image_b64 for turn in item.history]
    if len(pictures) < 2 or None in pictures:
        raise DataError(
            f"requests[{number}]: an edit needs at least two turns with an image each, sources and edit; found {len(pictures)} turns"
        )
    *sources, edited = (from_base64(str(text), f"requests[{number}].history[{turn}]") for turn, text in enumerate(pictures))
    return Draft(tuple(sources), edited, item.history[-1].text or item.history[0].text)


def identities(request: ScoreRequest) -> list[dict[str, Any]]:
    """Who the samples say they are."""
    return [{name: getattr(item, name) for name in IDENTITY} for item in request.requests]


def unirl_answer(who: Sequence[dict[str, Any]], rewards: Sequence[Reward]) -> dict[str, Any]:
    """Their response: results, errors and identities, one entry a sample."""
    return {
        "protocol_version": "1",
        # the score in [0, 10], then the share of satisfied principles of each category
        "results": [{REWARD: {"overall": reward.value, **reward.category_means}} if reward.scored else {} for reward in rewards],
        "errors": [{} if reward.scored else {REWARD: f"unscored: {reward.reason}"} for reward in rewards],
        "identities": list(who),
    }


class ComputeRequest(BaseModel):
    """What their remote client posts; video fields are taken and must be empty."""

    prompt: list[Annotated[str, Field(max_length=MAX_TEXT)]] = Field(max_length=MAX_ITEMS)
    image: list[str] | None = Field(None, max_length=MAX_ITEMS)
    condition_images: list[list[str]] | None = Field(None, max_length=MAX_ITEMS)
    video: list[list[str]] | None = None
    condition_videos: list[list[list[str]]] | None = None
    kwargs: dict[str, Any] | None = None


def flow_factory_drafts(request: ComputeRequest) -> list[Draft]:
    """The edits of the batch. Raises DataError for lists that do not fit, and where the sources are missing."""
    if request.video or request.condition_videos:
        raise DataError("videos are not judged here; send image and condition_images")
    edits, sources = request.image or [], request.condition_images or []
    if not len(request.prompt) == len(edits) == len(sources):
        raise DataError(
            f"{len(request.prompt)} prompts, {len(edits)} images and {len(sources)} condition_images: expected one of each a sample "
            "(add 'condition_images' to the client's required_fields)"
        )
    return [_flow_factory_draft(number, *sample) for number, sample in enumerate(zip(request.prompt, edits, sources, strict=True))]


def _flow_factory_draft(number: int, prompt: str, edited: str, sources: list[str]) -> Draft:
    if not 1 <= len(sources) <= MAX_SOURCES:
        raise DataError(f"condition_images[{number}] holds {len(sources)} images, expected 1 to {MAX_SOURCES}")
    found = tuple(from_base64(source, f"condition_images[{number}][{place}]") for place, source in enumerate(sources))
    return Draft(found, from_base64(edited, f"image[{number}]"), prompt)


def flow_factory_answer(rewards: Sequence[Reward]) -> dict[str, Any]:
    """Their response: every value in [0, 10], or an error that names the first unscored edit."""
    missing = [(number, reward.reason) for number, reward in enumerate(rewards) if not reward.scored]
    if missing:
        return {"error": f"{len(missing)} of {len(rewards)} edits are unscored; first: sample {missing[0][0]}, {missing[0][1]}"}
    return {"rewards": [reward.value for reward in rewards]}


# --- pickle ------------------------------------------------------------------------------------------
# A pickle is a program: whoever reaches a port that unpickles owns the machine. Clients of flow_grpo and its forks speak nothing else, so
# this reader runs the few opcodes that build lists, dicts, texts, bytes and numbers on a machine of its own, with bounds on their number
# and depth; Python's unpickler is not used. numpy arrays are refused: send encoded images.


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


def load_pickle(data: bytes) -> Any:
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


def pickle_drafts(body: Any) -> list[Draft]:
    """The edits of a body. Raises DataError for anything but parallel lists of encoded images and texts."""
    if not isinstance(body, dict):
        raise DataError(f"the body is a {type(body).__name__}, expected a dict with ref_images, images and prompts")
    images, prompts = _list(body, "images"), _list(body, "prompts")
    if body.get("ref_images") is not None:
        sources = _list(body, "ref_images")
    else:
        about = _list(body, "metadata" if "metadata" in body else "metadatas")
        sources = [row.get("source_image") if isinstance(row, dict) else None for row in about]
    if not len(images) == len(prompts) == len(sources) <= MAX_ITEMS:
        raise DataError(
            f"{len(sources)} ref_images, {len(images)} images, {len(prompts)} prompts: expected equal numbers up to {MAX_ITEMS}"
        )
    return [_pickle_draft(number, *sample) for number, sample in enumerate(zip(sources, images, prompts, strict=True))]


def _list(body: dict[Any, Any], key: str) -> list[Any]:
    value = body.get(key)
    if not isinstance(value, list | tuple):
        raise DataError(f"{key} must be a list, found {type(value).__name__}")
    return list(value)


def _pickle_draft(number: int, source: Any, edited: Any, prompt: Any) -> Draft:
    sources = tuple(source) if isinstance(source, list | tuple) else (source,)
    if not (sources and all(isinstance(picture, bytes) for picture in (*sources, edited)) and isinstance(prompt, str)):
        raise DataError(f"sample {number}: expected the source (or a list of sources) and the edit as encoded bytes and the prompt as text")
    if len(prompt) > MAX_TEXT:
        raise DataError(f"sample {number}: the prompt is longer than {MAX_TEXT} characters")
    if not is_whole(prompt):
        raise DataError(f"sample {number}: the prompt holds a lone surrogate; send text")
    return Draft(tuple(Encoded(data, f"ref_images[{number}]") for data in sources), Encoded(edited, f"images[{number}]"), prompt)


def pickle_answer(rewards: Sequence[Reward]) -> bytes:
    """Their response. Raises DataError when an edit is unscored."""
    missing = [reward.reason for reward in rewards if not reward.scored]
    if missing:
        raise DataError(f"{len(missing)} of {len(rewards)} edits are unscored; first reason: {missing[0]}")
    return pickle.dumps({"scores": [reward.value for reward in rewards]}, protocol=4)
