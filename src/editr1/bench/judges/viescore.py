"""VIEScore's shape: two calls, scores of 0 to 10 before the reasoning, one pass, greedy. The wording is ours."""

from __future__ import annotations

from editr1.bench.judges._asking import AskingJudge, Question
from editr1.bench.judges._aspects import read_aspects, stated_scores
from editr1.bench.judges._scale import Scale
from editr1.bench.judges._texts import render
from editr1.config import made
from editr1.judge.item import RewardItem
from editr1.vlm.base import VLM, Sampling

SCALE = Scale(0, 10)


def build(vlm: VLM, temperature: float = 0.0, max_tokens: int = 512, num_passes: int = 1) -> AskingJudge:
    """The judge. ours: greedy, for official scripts leave the temperature to the server and their numbers move by .1 between runs."""
    sampling = Sampling(temperature, max_tokens=max_tokens)
    return AskingJudge(made("vlm", vlm), sampling, _ask, lambda texts: read_aspects(texts, SCALE, stated_scores), num_passes)


def _ask(item: RewardItem) -> list[Question]:
    return [
        Question("SC", (item.only_source, item.edited, render("semantic", instruction=item.instruction, top=int(SCALE.high)))),
        Question("PQ", (item.edited, render("quality", top=int(SCALE.high)))),
    ]
