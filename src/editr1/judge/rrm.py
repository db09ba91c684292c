"""The reasoning reward model: T, V, T+V and the no-principle judge differ by `prompt_id`, avg@K by `num_traces` (paper, section 4).

model = RewardModel(vlm, num_traces=4)
reward = model.score([RewardItem(source, edited, "Make the sky purple", principles)], seed=0)[0]
reward.value            # mean tau over the parsed traces, or None
reward.reason           # why None
reward.principles       # what was judged by, made on the fly where none were given
reward.category_means   # share of yes, by category
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editr1.config import Component, component_of, create
from editr1.errors import ConfigError
from editr1.judge.decompose import Decomposer, Decomposition
from editr1.judge.item import RewardItem, asking
from editr1.judge.prompts import render_score, score_traits
from editr1.judge.reading import to_trace
from editr1.schema import Judgement, ParseFailure, Principle, Reward, Trace, derive_seed
from editr1.vlm.base import VLM, ChatRequest, Sampling

__all__ = ["UNDECOMPOSED", "RewardItem", "RewardModel", "build", "mean_reward"]

UNDECOMPOSED = "decomposition failed"  # how the reason begins of an edit whose principles could not be written


class RewardModel:
    """A VLM with a score prompt, Phi, and the mean over traces."""

    def __init__(
        self,
        vlm: VLM,
        prompt_id: str = "tv",
        num_traces: int = 1,
        sampling: Sampling | None = None,
        decomposer: Decomposer | None = None,
        expected: bool = False,
    ) -> None:
        """Raises ConfigError for an unknown prompt and for a number of traces below 1.

        Args:
            vlm: the judge.
            prompt_id: see `judge.prompts.score_prompt_ids`.
            num_traces: K of avg@K.
            sampling: how traces are drawn; greedy traces are all alike, so K > 1 wants a temperature.
            decomposer: makes the principles of items that come without.
            expected: replace each trace's score by its expectation under the token probabilities.
        """
        if num_traces < 1:
            raise ConfigError(f"num_traces is {num_traces}; expected at least 1")
        self._traits = score_traits(prompt_id)
        self.vlm = vlm
        self.prompt_id = prompt_id
        self.num_traces = num_traces
        self.sampling = sampling or Sampling()
        self.decomposer = decomposer
        self.expected = expected

    @classmethod
    def from_checkpoint(cls, path: str | Path, prompt_id: str | None = None, num_traces: int = 1, **options: Any) -> RewardModel:
        """A local checkpoint as the judge, which also writes principles where an item has none.

        Args:
            path: folder of a trained RRM or of any vision-language model.
            prompt_id: the question; None = the one that it was trained with (`judge.item`).
            num_traces: 1 asks greedily, more are sampled at temperature .7.
            options: of the component `vlm/local`, such as `batch_size`.

        Raises ConfigError for a folder that is no checkpoint.
        """
        return _for_people(cls, Component("local", {"path": str(path), **options}), prompt_id, num_traces)

    @classmethod
    def from_endpoint(
        cls, model: str, base_url: str | None = None, prompt_id: str | None = None, num_traces: int = 1, **options: Any
    ) -> RewardModel:
        """A model behind an OpenAI-compatible endpoint as the judge, which also writes principles where an item has none.

        Args:
            model, base_url: as at the endpoint, the address up to and including `/v1`; None = OpenAI's own.
            prompt_id, num_traces: see `from_checkpoint`; an endpoint does not tell its training, so that None = `tv`.
            options: of the component `vlm/openai_api`, such as `timeout`.
        """
        return _for_people(cls, Component("openai_api", {"model": model, "base_url": base_url, **options}), prompt_id, num_traces)

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item, in their order. Raises BackendError when the judge's machine fails."""
        made = self.decompose(items, seed)
        return [
            _undecomposed(found) if found.problem else mean_reward(traces, found.principles)
            for traces, found in zip(self._traces(items, made, seed), made, strict=True)
        ]

    async def score_async(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """`score` beside other work of an event loop."""
        return await asyncio.to_thread(self.score, items, seed)

    def lacks_principles(self, item: RewardItem) -> bool:
        """Whether the prompt shows principles and the item has none."""
        return self._traits.shows_principles and not item.principles

    def decompose(self, items: Sequence[RewardItem], seed: int = 0) -> list[Decomposition]:
        """The principles of each item as they came with it, or as they were made for a prompt that shows some.

        Raises ConfigError where some are missing and nobody can make them, BackendError when the decomposer's machine fails.
        """
        found = [Decomposition(item.principles or ()) for item in items]
        missing = [index for index, item in enumerate(items) if self.lacks_principles(item)]
        if not missing:
            return found
        if self.decomposer is None:
            raise ConfigError(
                f"prompt {self.prompt_id!r} shows principles, {len(missing)} of {len(items)} items have none, and no decomposer was given"
            )
        made = self.decomposer.decompose([(items[index].source, items[index].instruction) for index in missing], seed)
        for index, decomposition in zip(missing, made, strict=True):
            found[index] = decomposition
        return found

    def _traces(self, items: Sequence[RewardItem], decompositions: Sequence[Decomposition], seed: int) -> list[list[Trace]]:
        asked: list[tuple[int, ChatRequest]] = []
        for index, (item, known) in enumerate(zip(items, decompositions, strict=True)):
            if known.problem:
                continue
            how: dict[str, Any] = {"sampling": self.sampling, "want_logprobs": self.expected}
            request = render_score(self.prompt_id, item.source, item.edited, item.instruction, known.principles, **how)
            seeds = (derive_seed(seed, "trace", item.id or index, number) for number in range(self.num_traces))
            asked += [(index, dataclasses.replace(request, seed=own)) for own in seeds]
        traces: list[list[Trace]] = [[] for _ in items]
        for (index, request), reply in zip(asked, self.vlm.chat([request for _, request in asked]), strict=True):
            principles = decompositions[index].principles
            traces[index].append(to_trace(items[index].id, principles, self.prompt_id, request, reply, self.vlm.name, self.expected))
        return traces


def _undecomposed(made: Decomposition) -> Reward:
    reason = f"{UNDECOMPOSED}: {made.problem}"
    return Reward(None, 0, 0, reason=reason, num_tokens=made.num_tokens, seconds=made.seconds, answer=made.answer)


def mean_reward(traces: Sequence[Trace], principles: Sequence[Principle] = ()) -> Reward:
    """The reward that traces of one edit give: mean tau and verdict rates over those that parsed; unscored when none did.

    >>> mean_reward([]).scored
    False
    """
    judgements = [trace.outcome for trace in traces if isinstance(trace.outcome, Judgement)]
    failures = Counter(trace.outcome.code for trace in traces if isinstance(trace.outcome, ParseFailure))
    verdicts = [judgement.verdicts for judgement in judgements if judgement.verdicts]
    scores = [judgement.score for judgement in judgements]
    return Reward(
        value=sum(scores) / len(scores) if scores else None,
        num_valid=len(judgements),
        num_traces=len(traces),
        rates=tuple(sum(column) / len(verdicts) for column in zip(*verdicts, strict=True)),
        reason=None if judgements else failures.most_common(1)[0][0] if failures else "no trace was made",
        principles=tuple(principles),
        num_tokens=sum(trace.num_tokens for trace in traces),
        seconds=sum(trace.seconds for trace in traces),
        scores=tuple(trace.outcome.score if isinstance(trace.outcome, Judgement) else None for trace in traces),
        traces=tuple(traces),
    )


def build(
    vlm: Component | Mapping[str, Any] | str,
    prompt_id: str | None = None,
    num_traces: int = 1,
    temperature: float = 0.7,
    top_p: float = 1.0,
    max_tokens: int | None = None,
    decomposer: Component | Mapping[str, Any] | str | None = None,
    expected: bool = False,
) -> RewardModel:
    """A RewardModel from a recipe's options; `vlm` and `decomposer` name components of kind `vlm`.

    prompt_id, max_tokens: None = as the checkpoint was trained (`judge.item`).
    """
    component = component_of("vlm", vlm)
    how = asking(component, prompt_id, max_tokens)
    judge = create("vlm", component)
    helper = Decomposer(create("vlm", component_of("vlm", decomposer))) if decomposer is not None else None
    return RewardModel(judge, how.prompt_id, num_traces, Sampling(temperature, top_p, how.max_tokens), helper, expected)


def _for_people(cls: type[RewardModel], vlm: Component, prompt_id: str | None, num_traces: int) -> RewardModel:
    how = asking(vlm, prompt_id)
    judge, sampling = create("vlm", vlm), Sampling(0.0 if num_traces == 1 else 0.7, max_tokens=how.max_tokens)
    return cls(judge, how.prompt_id, num_traces, sampling, Decomposer(judge) if score_traits(how.prompt_id).shows_principles else None)
