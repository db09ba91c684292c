"""What a judge is asked about: one edit; how; and what those do who depend on an answer: ask again, see early who is dead.

How: as the caller says, else as its checkpoint was trained, else the defaults. The stages `sft` and `gcpo` leave `settings.json` beside the
weights, and whoever asks a local checkpoint reads it through `asking`. A file that some other tool wrote, or none, says nothing.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from editr1.errors import ConfigError, DataError, UnscoredError
from editr1.judge.prompts import score_prompt_ids
from editr1.schema import Principle, Reward, Source, derive_seed, pictures_of
from editr1.text import is_whole


@dataclass(frozen=True, slots=True)
class RewardItem:
    """One edit to judge, with its pictures in memory. Raises DataError for text that no request can carry."""

    source: Source
    edited: Image.Image
    instruction: str
    principles: tuple[Principle, ...] | None = None
    """None: decomposed on the fly, where the prompt shows principles."""
    id: str = ""
    """With an id, the seeds of the traces depend on it and not on the item's place in the call."""

    def __post_init__(self) -> None:
        if not all(map(is_whole, (self.instruction, *(principle.question for principle in self.principles or ())))):
            raise DataError("the instruction or a principle holds half of a character (a lone surrogate), as where a tool cut an emoji")

    @property
    def only_source(self) -> Image.Image:
        """The source, for a judge that shows one picture. Raises ConfigError for several."""
        pictures = pictures_of(self.source)
        if len(pictures) > 1:
            raise ConfigError(f"this judge shows one source picture, the edit has {len(pictures)}: take a reasoning reward model")
        return pictures[0]


@dataclass(frozen=True, slots=True)
class Again:
    """How often, and how freely, an unscored edit is asked about again: a trainer without a number for one edit loses the step."""

    tries: int = 2
    """ours: a judge that fails once in two hundred then loses one step of 192 edits in 40,000; a broken one never recovers."""
    temperature: float = 0.7
    """ours: at 0 a local judge gives the same unreadable answer again. A judge that samples hotter keeps its own temperature."""

    def __post_init__(self) -> None:
        if self.tries < 0 or self.temperature <= 0:
            raise ValueError(f"tries is {self.tries} and temperature {self.temperature}; expected at least 0, and more than 0")


class Judge(Protocol):
    """Scores edits. One that samples has a `sampling` that may be replaced in a copy.

    Raises BackendError when its machine fails; an answer that says nothing is an unscored Reward.
    """

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item, in their order, value in [0, 10] or None; with ids, independent of the order."""
        ...


class PersistentJudge:
    """A judge that asks again about what it left unscored; the first answer with a value counts.

    One that does not sample would only repeat itself, and is not asked again.
    """

    def __init__(self, model: Judge, again: Again | None = None) -> None:
        again = again or Again()
        sampling = getattr(model, "sampling", None)
        self.again = again if sampling is not None else replace(again, tries=0)
        self.model = model
        self._freer = copy.copy(model)
        if sampling is not None:  # past a frozen judge's lock too: the copy is nobody else's yet
            object.__setattr__(self._freer, "sampling", replace(sampling, temperature=max(sampling.temperature, again.temperature)))

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item, in their order; tokens and seconds are those of all tries. Raises BackendError when the machine fails."""
        rewards = self.model.score(items, seed)
        for attempt in range(1, self.again.tries + 1):
            unscored = [index for index, reward in enumerate(rewards) if not reward.scored]
            if not unscored:
                break
            fresh = self._freer.score([items[index] for index in unscored], derive_seed(seed, "again", attempt))
            for index, reward in zip(unscored, fresh, strict=True):
                before = rewards[index]
                rewards[index] = replace(reward, num_tokens=before.num_tokens + reward.num_tokens, seconds=before.seconds + reward.seconds)
        return rewards


NUM_FIRST = 8  # ours: a judge that answers none of so many answers nothing
MAX_WORDS = 120  # of an answer in a message


def check_alive(*judges: Any) -> None:
    """One cheap request to every endpoint behind the judges, before weights are loaded and pictures are made for them.

    Calls `check` of every part that has one, as `vlm.openai_api` does. Raises BackendError, which says what answered, where nobody can be
    asked.
    """
    for check in {id(part): part.check for judge in judges for part in _parts(judge)}.values():
        check()


def check_answers(reasons: Sequence[str | None], what: str, said: str = "", cure: str = "") -> None:
    """Raises UnscoredError where the first NUM_FIRST answers all say nothing: the rest would be asked for nothing.

    reasons: why each says nothing, None = it says something; fewer than NUM_FIRST are all there is, and whoever asked looks at them.
    what: names the rows. said: the words of one. cure: a last clause.
    """
    if len(reasons) < NUM_FIRST or None in reasons:
        return
    counts = ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())
    words = f", the first answer is {' '.join(said.split())[:MAX_WORDS]!r}" if said.strip() else ""
    raise UnscoredError(
        f"none of the first {len(reasons)} {what} got a readable answer ({counts}{words}); nothing else was asked: "
        f"is this the model, and the prompt, of this judge?{cure and ' '}{cure}"
    )


def _parts(judge: Any) -> Iterator[Any]:
    if callable(getattr(judge, "check", None)):
        yield judge
    elif type(judge).__module__.startswith("editr1."):  # a judge of one's own may name anything `model`
        for name in ("vlm", "decomposer", "model"):
            yield from _parts(getattr(judge, name, None))


# --- how it is asked ----------------------------------------------------------------------------------

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
