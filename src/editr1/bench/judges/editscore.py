"""EditScore's shape: reasoning before the scores, a scale of 0 to 25, the mean of K passes (arXiv 2509.23909)."""

from __future__ import annotations

from editr1.bench.judges._aspects import AspectJudge
from editr1.vlm.base import VLM, Sampling


def build(
    vlm: VLM, num_passes: int = 4, temperature: float = 0.7, top_p: float = 0.9, max_tokens: int = 512, top: float = 25
) -> AspectJudge:
    """The judge with EditScore's sampling; `num_passes` is the K of its Avg@K."""
    return AspectJudge(vlm, Sampling(temperature, top_p, max_tokens), top, reasoning_first=True, num_passes=num_passes)
