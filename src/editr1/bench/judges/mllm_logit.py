"""The expected digit of one token: no reasoning, no parse, hardly ever a tie (the reward of UniWorld-V2, arXiv 2510.16888).

r = 10/5 * sum_k k * p(k) / sum_k p(k) over the digits 0 to 5 at the first generated token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from editr1.bench.judges._texts import render
from editr1.config import made
from editr1.errors import BackendError
from editr1.judge.answers import normalised
from editr1.judge.item import RewardItem
from editr1.judge.reading import MAX_LOGPROB, no_alternatives
from editr1.schema import MAX_SCORE, Reward, derive_seed
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling, TokenAlternatives

HIGHEST = 5
# ours: where the digits together hold less than this, the model is not answering the question, and their ratio is noise
MIN_MASS = 0.05


@dataclass(frozen=True, slots=True)
class LogitJudge:
    """One request of one token an edit. The endpoint must give token log-probabilities."""

    vlm: VLM

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item. Raises BackendError when the backend gives no log-probabilities."""
        requests = [
            ChatRequest(
                (item.only_source, item.edited, render("logit", instruction=item.instruction)),
                sampling=Sampling(temperature=0.0, max_tokens=1),
                seed=derive_seed(seed, item.id or str(index)),
                want_logprobs=True,
            )
            for index, item in enumerate(items)
        ]
        return [self._reward(reply) for reply in self.vlm.chat(requests)]

    def _reward(self, reply: ChatReply) -> Reward:
        if reply.refused:
            return Reward(None, 0, 1, reason="REFUSED", seconds=reply.seconds)
        if not reply.logprobs or not reply.logprobs[0].alternatives:
            raise BackendError(f"{self.vlm.name} gives {no_alternatives(reply)}, which the judge mllm_logit needs; choose another judge")
        value = expected_digit(reply.logprobs[0])
        reason = None if value is not None else "NO_SCORE"
        return Reward(value, int(value is not None), 1, reason=reason, num_tokens=reply.num_tokens, seconds=reply.seconds)


def expected_digit(position: TokenAlternatives) -> float | None:
    """The expected digit in [0, 10]; None when the digits 0 to 5 hold too little probability to speak of.

    >>> round(expected_digit(TokenAlternatives("5", (("5", math.log(0.5)), ("4", math.log(0.5))))), 6)
    9.0
    """
    weights = dict.fromkeys(range(HIGHEST + 1), 0.0)
    for token, logprob in position.alternatives:
        text = normalised(token).strip()
        is_digit = text.isascii() and text.isdigit() and len(text) == 1 and int(text) <= HIGHEST
        if is_digit and logprob <= MAX_LOGPROB:  # false for nan
            weights[int(text)] += math.exp(logprob)
    mass = math.fsum(weights.values())
    if mass < MIN_MASS:
        return None
    return MAX_SCORE / HIGHEST * math.fsum(digit * weight for digit, weight in weights.items()) / mass


def build(vlm: VLM) -> LogitJudge:
    """The judge."""
    return LogitJudge(made("vlm", vlm))
