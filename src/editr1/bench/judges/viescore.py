"""VIEScore's shape: two calls, scores of 0 to 10 before the reasoning, one pass, greedy."""

from __future__ import annotations

from editr1.bench.judges._aspects import AspectJudge
from editr1.vlm.base import VLM, Sampling


def build(vlm: VLM, temperature: float = 0.0, max_tokens: int = 512, num_passes: int = 1) -> AspectJudge:
    """The judge. ours: greedy, for official scripts leave the temperature to the server and their numbers move by .1 between runs."""
    return AspectJudge(vlm, Sampling(temperature, max_tokens=max_tokens), top=10, reasoning_first=False, num_passes=num_passes)
