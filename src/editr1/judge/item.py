"""What a judge is asked about: one edit; and what those do who depend on an answer: ask an unscored edit again, see early who is dead."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from editr1.errors import ConfigError, DataError, UnscoredError
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
    """One that samples has a `sampling` that may be replaced in a copy."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]: ...


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
