"""How a judge is asked: what the caller says, else what its checkpoint was trained with, else the defaults.

The stages `sft` and `gcpo` leave `settings.json` beside the weights, and whoever asks a local checkpoint reads it through `asking`. A file
that some other tool wrote, or none, says nothing.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from editr1.errors import ConfigError
from editr1.judge.prompts import score_prompt_ids

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
MAX_TOKENS = 2048  # ours: a trace with ten principles takes about 600


@dataclass(frozen=True, slots=True)
class Asking:
    """The question, and how the answer is drawn."""

    prompt_id: str = "tv"
    """See `judge.prompts.score_prompt_ids`; every prompt asks for a score of 0 to 10."""
    max_tokens: int = MAX_TOKENS
    """Tokens of an answer at most."""
    thinking: bool | None = None
    """`enable_thinking` of the chat template; None = its default."""


class Model(Protocol):
    """What is needed of a `config.Component`."""

    @property
    def id(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


def asking(
    judge: Model | str | Path | None, prompt_id: str | None = None, max_tokens: int | None = None, thinking: bool | None = None
) -> Asking:
    """How to ask; None leaves a value to the checkpoint, or to the default where it says nothing.

    What is said and differs from the training (another prompt, thinking) is kept, and warned of in one line.

    Args:
        judge: the component of the judge's model, or a checkpoint folder; other components than `local` know nothing of themselves.

    Raises ConfigError for a settings.json whose values cannot be meant.
    """
    path = _folder(judge)
    known = _read(path) if path is not None else {}
    for name, value in (("prompt_id", prompt_id), ("thinking", thinking)):
        if value is not None and known.get(name, value) != value:
            _warn(f"{path} was trained with {name}={known[name]} and is asked with {value}; leave it out to ask as trained")
    said = {"prompt_id": prompt_id, "max_tokens": max_tokens, "thinking": thinking}
    return Asking(**(known | {name: value for name, value in said.items() if value is not None}))


@functools.cache
def _warn(text: str) -> None:
    """Once a process: a command asks in several places."""
    logger.warning(text)


def _folder(judge: Model | str | Path | None) -> Path | None:
    path = judge if judge is None or isinstance(judge, str | Path) else judge.options.get("path") if judge.id == "local" else None
    return Path(path) if isinstance(path, str | Path) else None


def _read(folder: Path) -> dict[str, Any]:
    """`prompt_id`, `max_tokens` and `thinking` as far as the file states them."""
    path = folder / SETTINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or "prompt_id" not in found:
        return {}
    drawn = found.get("generation")
    limit = found.get("max_tokens", drawn.get("max_tokens") if isinstance(drawn, dict) else None)
    prompt_id, thinking = found["prompt_id"], found.get("thinking")
    if prompt_id not in score_prompt_ids():
        raise ConfigError(f"{path}: prompt_id is {prompt_id!r}, which this version does not have; expected {', '.join(score_prompt_ids())}")
    if not (limit is None or (type(limit) is int and limit > 0)) or thinking not in (None, True, False):
        raise ConfigError(f"{path}: max_tokens must be a number above 0 and thinking a truth value, found {limit!r} and {thinking!r}")
    stated = {"prompt_id": prompt_id, "max_tokens": limit, "thinking": thinking}
    return {name: value for name, value in stated.items() if value is not None}
