"""An unscored edit is asked about again: a trainer that gets no number for one edit of a step loses the step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from editr1.judge.item import RewardItem
from editr1.schema import Reward, derive_seed


@dataclass(frozen=True, slots=True)
class Again:
    """How often, and how freely, an unscored edit is asked about again."""

    tries: int = 2
    """ours: a judge that fails once in two hundred then loses one step of 192 edits in 40,000; a broken one never recovers."""
    temperature: float = 0.7
    """ours: at 0 a local judge gives the same unreadable answer again. A judge that samples hotter keeps its own temperature."""

    def __post_init__(self) -> None:
        if self.tries < 0 or self.temperature <= 0:
            raise ValueError(f"tries is {self.tries} and temperature {self.temperature}; expected at least 0, and more than 0")


class Scores(Protocol):
    """A judge. One that samples has a `sampling` that may be replaced in a copy."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]: ...


class PersistentJudge:
    """A judge that asks again about what it left unscored; the first answer with a value counts.

    One that does not sample would only repeat itself, and is not asked again.
    """

    def __init__(self, model: Scores, again: Again | None = None) -> None:
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
