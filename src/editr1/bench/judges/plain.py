"""Judges in our own words, or none: the RRM, VIEScore's questions, the expected digit of one token, and a scalar head.

`viescore`: two calls, scores of 0 to 10 before the reasoning, one pass, greedy.
`mllm_logit`: no reasoning, no parse, hardly ever a tie (the reward of UniWorld-V2, arXiv 2510.16888):
r = 10/5 * sum_k k * p(k) / sum_k p(k) over the digits 0 to 5 at the first generated token.
`bradley_terry`: a scalar head, as `gcpo.method: bradley_terry` trains it: no text, one number an edit. value = 10 / (1 + exp(-s)),
ours: s has no bounds; the order of edits stays, and near the ends differences shrink.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editr1.bench.base import Part
from editr1.bench.judges._aspects import read_aspects, stated_scores
from editr1.bench.judges.base import AskingJudge, Question, Scale, render
from editr1.config import made
from editr1.errors import BackendError, ConfigError
from editr1.judge.answers import normalised
from editr1.judge.decompose import Decomposer
from editr1.judge.item import Asking, RewardItem, asking
from editr1.judge.prompts import render_score
from editr1.judge.reading import MAX_LOGPROB, no_alternatives
from editr1.judge.rrm import RewardModel
from editr1.placement import place_of
from editr1.schema import MAX_SCORE, Reward, derive_seed
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling, TokenAlternatives, request_images, template_settings, to_messages


def _rrm(
    vlm: VLM,
    prompt_id: str = "tv",
    num_traces: int = 1,
    temperature: float = 0.7,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    decomposer: VLM | None = None,
    expected: bool = False,
) -> RewardModel:
    """A RewardModel; benchmarks come without principles, so the judge writes them itself unless `decomposer` names another model."""
    sampling, judge = Sampling(temperature, top_p, max_tokens), made("vlm", vlm)
    helper = Decomposer(judge if decomposer is None else made("vlm", decomposer))
    return RewardModel(judge, prompt_id, num_traces, sampling, helper, expected)


rrm = Part(_rrm)

# --- VIEScore's shape -------------------------------------------------------------------------------

SCALE = Scale(0, 10)


def _viescore(vlm: VLM, temperature: float = 0.0, max_tokens: int = 512, num_passes: int = 1) -> AskingJudge:
    """The judge. ours: greedy, for official scripts leave the temperature to the server and their numbers move by .1 between runs."""
    sampling = Sampling(temperature, max_tokens=max_tokens)
    return AskingJudge(made("vlm", vlm), sampling, _ask, lambda texts: read_aspects(texts, SCALE, stated_scores), num_passes)


def _ask(item: RewardItem) -> list[Question]:
    return [
        Question("SC", (item.only_source, item.edited, render("semantic", instruction=item.instruction, top=int(SCALE.high)))),
        Question("PQ", (item.edited, render("quality", top=int(SCALE.high)))),
    ]


viescore = Part(_viescore)

# --- the expected digit -----------------------------------------------------------------------------

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


mllm_logit = Part(lambda vlm: LogitJudge(made("vlm", vlm)))


# --- a scalar head ------------------------------------------------------------------------------------


class BradleyTerryJudge:
    """A loaded model with its head. Made by `build`. Deterministic: seeds change nothing."""

    def __init__(self, model: Any, processor: Any, how: Asking, batch_size: int) -> None:
        self.model = model
        self.processor = processor
        self.how = how
        self.batch_size = batch_size

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item. Raises BackendError when the memory does not suffice, ConfigError for an item without the principles that the
        prompt shows."""
        return [reward for i in range(0, len(items), self.batch_size) for reward in self._score(items[i : i + self.batch_size])]

    def _score(self, items: Sequence[RewardItem]) -> list[Reward]:
        import torch

        from editr1.training.model import encode

        begin = time.perf_counter()
        asked = [render_score(self.how.prompt_id, i.source, i.edited, i.instruction, i.principles or ()) for i in items]
        images = [request_images(request) for request in asked]
        inputs = encode(self.processor, [to_messages(request) for request in asked], images, template_settings(self.how.thinking))
        try:
            with torch.inference_mode():
                scores = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
        except torch.OutOfMemoryError as error:
            raise BackendError(f"bradley_terry: out of memory with batch_size={self.batch_size}; lower it") from error
        seconds = (time.perf_counter() - begin) / len(items)
        return [
            Reward(MAX_SCORE * value if known else None, int(known), 1, reason=None if known else "NOT_FINITE", seconds=seconds)
            for value, known in zip(torch.sigmoid(scores).tolist(), torch.isfinite(scores).tolist(), strict=True)
        ]


def _bradley_terry(checkpoint: str, prompt_id: str | None = None, batch_size: int = 16, device: str = "auto") -> BradleyTerryJudge:
    """The judge with its weights loaded. Raises ConfigError for a folder without a head.

    Args:
        checkpoint: folder that the stage `gcpo` wrote.
        prompt_id: the question; None = the one that it was trained with (`judge.item`).
        batch_size: edits read together.
        device: `auto`, or any torch device.
    """
    from editr1.training.model import add_head, load_model, load_processor, read_head
    from editr1.training.options import Trained

    if read_head(checkpoint) is None:
        raise ConfigError(f"{checkpoint} holds no score_head.weight; train one with gcpo.method=bradley_terry, or ask it as judge rrm")
    model = add_head(load_model(checkpoint, Trained()), checkpoint)
    return BradleyTerryJudge(model.to(place_of(device)).eval(), load_processor(checkpoint), asking(checkpoint, prompt_id), batch_size)


bradley_terry = Part(_bradley_terry)
