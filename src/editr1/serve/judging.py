"""A RewardModel that also tells which principles it judged by, so that the answer can name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from editr1.judge.again import Again, PersistentJudge
from editr1.judge.item import RewardItem
from editr1.judge.prompts import score_traits
from editr1.judge.rrm import RewardModel
from editr1.schema import Principle, Reward


@dataclass(frozen=True, slots=True)
class Scored:
    """One edit's reward with the principles behind it: those that were sent, or those that were made."""

    reward: Reward
    principles: tuple[Principle, ...] = ()


class OpenJudge:
    """Decomposes first, where an item needs it, then scores."""

    def __init__(self, model: RewardModel, again: Again | None = None) -> None:
        self.model = model
        self._persistent = PersistentJudge(model, again)

    def lacks_principles(self, principles: Sequence[Principle] | None) -> bool:
        """Whether the prompt shows principles and the edit has none."""
        return not principles and score_traits(self.model.prompt_id).shows_principles

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Scored]:
        """One result an item, in their order. Raises BackendError when the judge's machine fails."""
        known = list(items)
        missing = [index for index, item in enumerate(items) if self.lacks_principles(item.principles)]
        problems: dict[int, str] = {}
        if missing and self.model.decomposer is not None:
            made = self.model.decomposer.decompose([(items[index].source, items[index].instruction) for index in missing], seed)
            for index, decomposition in zip(missing, made, strict=True):
                known[index] = replace(items[index], principles=decomposition.principles)
                if decomposition.problem:
                    problems[index] = decomposition.problem
        rewards = iter(self._persistent.score([item for index, item in enumerate(known) if index not in problems], seed))
        return [
            Scored(Reward(None, 0, 0, reason=f"decomposition failed: {problems[index]}"))
            if index in problems
            else Scored(next(rewards), item.principles or ())
            for index, item in enumerate(known)
        ]
