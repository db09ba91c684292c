"""Samples the traces of a generation batch so that each distinct prompt is read once, whatever the number of its traces.

TRL's own path reads prompt and pictures anew for every trace. Its `rollout_func` hands the sampling to us; the rest of the step
(scoring, advantages, loss) stays the trainer's. Every trace has its own seed, derived from the run's seed, the step and its place.

Redrawing: a pair whose groups are flat (all rewards of a group equal) has advantage 0 throughout. Drawing its traces again until
one group is not flat, at most so many times, divides its gradient by its chance to teach: the direction stays what it was, and pairs that
the model nearly always tells apart, or never does, weigh more. Off in the paper; the idea of dynamic sampling (DAPO, arXiv 2503.14476),
which fills the batch with other prompts instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from editr1.config import load
from editr1.errors import ConfigError
from editr1.pair_learning.base import Method
from editr1.schema import derive_seed
from editr1.training.options import RewardOptions
from editr1.training.pair_reward import is_flat, play, read_trace
from editr1.training.rows import PairRows
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


Rollout = Callable[[list[Any], Any], dict[str, Any]]


def resampled(
    rollouts: Sequence[Rollout],
    rows: PairRows,
    tokenizer: Any,
    num_traces: int,
    pairs_per_step: int,
    options: RewardOptions,
    method: Method,
    max_tokens: int,
) -> Rollout:
    """A `rollout_func` of TRL's GRPOTrainer that draws with the first of `rollouts`, and flat pairs again with the next ones.

    rollouts: they differ in their seeds, so that the second draw is another one.
    The function raises ConfigError when a pair is split over processes: its flatness could not be seen.
    """

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        if len(prompts) % (2 * num_traces):
            raise ConfigError(f"resample_flat needs whole pairs on each process; {len(prompts)} traces are no multiple of 2 x {num_traces}")
        batch = trainer.state.global_step // trainer.num_iterations
        first = batch * pairs_per_step + trainer.accelerator.process_index * (len(prompts) // (2 * num_traces))
        drawn = rollouts[0](prompts, trainer)
        again = [False] * len(prompts)
        for redraw in rollouts[1:]:
            places = _places_of_flat(prompts, drawn["completion_ids"], first)
            if not places:
                break
            new = redraw([prompts[place] for place in places], trainer)
            for number, place in enumerate(places):
                again[place] = True
                for name in ("prompt_ids", "completion_ids"):
                    drawn[name][place] = new[name][number]
        return {**drawn, "resampled": again}

    def _places_of_flat(prompts: Sequence[Any], completions: Sequence[Sequence[int]], first: int) -> list[int]:
        """Places in the batch of every trace of a flat pair."""
        size = 2 * num_traces
        found: list[int] = []
        for start in range(0, len(completions), size):
            both = [rows[2 * (first + start // size) + side] for side in (0, 1)]
            assert _words(prompts[start]) == _words(both[0]["prompt"]), "the trainer reads the rows in their order"
            texts = tokenizer.batch_decode(completions[start : start + size], skip_special_tokens=True)
            traces = [
                read_trace(text, both[i // num_traces], len(ids), max_tokens)
                for i, (text, ids) in enumerate(zip(texts, completions[start : start + size], strict=True))
            ]
            if all(is_flat(match) for match in play(traces, options, method).values()):
                found += range(start, start + size)
        return found

    return rollout


def _words(messages: Sequence[dict[str, Any]]) -> list[str]:
    """The text of a conversation, without its pictures."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return [part["text"] for part in parts if part["type"] == "text"]
