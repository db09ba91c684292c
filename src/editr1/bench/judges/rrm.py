"""The reasoning reward model as a judge of benchmarks: any score prompt, avg@K, principles decomposed on the fly."""

from __future__ import annotations

from editr1.config import made
from editr1.judge.decompose import Decomposer
from editr1.judge.rrm import RewardModel
from editr1.vlm.base import VLM, Sampling


def build(
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
