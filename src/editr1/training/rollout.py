"""Samples the traces of a generation batch so that each distinct prompt is read once, whatever the number of its traces.

TRL's own path reads prompt and pictures anew for every trace. Its `rollout_func` hands the sampling to us; the rest of the step
(scoring, advantages, loss) stays the trainer's. Every trace has its own seed, derived from the run's seed, the step and its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from editr1.config import load
from editr1.errors import ConfigError
from editr1.schema import derive_seed
from editr1.training.whole_model import whole_model
from editr1.vlm.base import ChatRequest, Sampling


def shared_rollout(
    processor: Any, sampling: Sampling, batch_size: int, seed: int, thinking: bool | None = None
) -> Callable[[list[Any], Any], dict[str, Any]]:
    """A `rollout_func` of TRL's GRPOTrainer. The function raises ConfigError for models that do not tell their positions.

    Args:
        batch_size: traces sampled together.
    """
    local_vlm = load("vlm", "editr1.vlm.local:LocalVLM")

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        first = trainer.accelerator.process_index * len(prompts)
        step = trainer.state.global_step
        requests = [to_request(prompt, sampling, derive_seed(seed, "trace", step, first + i)) for i, prompt in enumerate(prompts)]
        with whole_model(trainer) as model:
            replies = local_vlm(model, processor, "policy", batch_size, thinking).chat(requests)
        if not all(reply.prompt_token_ids for reply in replies):
            raise ConfigError("this model cannot share prompts among traces; set gcpo.generation.engine=transformers")
        return {
            "prompt_ids": [list(reply.prompt_token_ids) for reply in replies],
            "completion_ids": [list(reply.token_ids) for reply in replies],
            "logprobs": None,  # the trainer computes them where it needs them
        }

    return rollout


def to_request(messages: list[dict[str, Any]], sampling: Sampling, seed: int) -> ChatRequest:
    """The request behind a conversation whose pictures are `{"type": "image", "image": picture}` parts."""
    system = "".join(_text(message["content"]) for message in messages if message["role"] == "system")
    parts = [part for message in messages if message["role"] == "user" for part in message["content"]]
    return ChatRequest(tuple(part["image"] if part["type"] == "image" else part["text"] for part in parts), system, sampling, seed)


def with_pictures(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation of a row of `PairRows` with its pictures in their places, as `to_request` takes it."""
    pictures = iter(row["images"])
    return [
        {**message, "content": [{**part, "image": next(pictures)} if part["type"] == "image" else part for part in message["content"]]}
        for message in row["prompt"]
    ]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
