"""Each distinct prompt is read once, whatever the number of its traces: when they are sampled, and when log-probabilities are computed,
gradients included. The N traces of an image share a prompt of two pictures and all principles, often longer than the traces themselves.
TRL reads it anew for every trace; its `rollout_func` hands the sampling to us, `SharedPrefix` stands in for the forward of its scoring."""

from __future__ import annotations

import hashlib
import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from editr1.config import load
from editr1.errors import ConfigError
from editr1.pair_learning.base import Method
from editr1.schema import derive_seed
from editr1.training.model import whole_model
from editr1.training.options import RewardOptions
from editr1.training.pair_reward import is_flat, play, read_trace
from editr1.training.rows import PairRows
from editr1.vlm.base import ChatRequest, Sampling, cache_argument, keep_no_further_state, sharing

# --- sampling -----------------------------------------------------------------------------------------

Rollout = Callable[..., dict[str, Any]]


def shared_rollout(processor: Any, sampling: Sampling, batch_size: int, seed: int, thinking: bool | None = None) -> Rollout:
    """A `rollout_func` of TRL's GRPOTrainer. Every trace has its own seed, derived from the run's seed, the step and its place.

    The function raises ConfigError for models that do not tell their positions.

    Args:
        batch_size: traces sampled together.
    """
    local_vlm = load("vlm", "editr1.vlm.local:LocalVLM")

    def rollout(prompts: list[Any], trainer: Any, at_most: int | None = None) -> dict[str, Any]:
        """at_most: prompts that a process may have, where some have fewer than others; None = all have as many."""
        first = trainer.accelerator.process_index * (at_most or len(prompts))
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


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


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

    A pair whose groups are flat (all rewards of a group equal) has advantage 0 throughout. Drawing its traces again until one group is not,
    at most so many times, divides its gradient by its chance to teach: the direction stays what it was, and pairs that the model nearly
    always tells apart, or never does, weigh more. Off in the paper; the idea of dynamic sampling (DAPO, arXiv 2503.14476), which fills the
    batch with other prompts instead. rollouts: they differ in their seeds, so that the second draw is another one.

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
            new = redraw([prompts[place] for place in places], trainer, len(prompts))
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
            if all(map(is_flat, play(traces, options, method).values())):
                found += range(start, start + size)
        return found

    return rollout


def _words(messages: Sequence[dict[str, Any]]) -> list[str]:
    """The text of a conversation, without its pictures."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return [part["text"] for part in parts if part["type"] == "text"]


# --- log-probabilities --------------------------------------------------------------------------------
#
#    prompt 0 --> cache 0 --+--> trace 0        hidden state of the prompt's last token predicts the trace's first
#                           +--> trace 1
#    prompt 1 --> cache 1 -----> trace 2
#
# The gradients of all traces of a prompt meet again in its cache; the numbers are the same up to rounding. Shape legend: B sequences,
# D distinct prompts, P tokens of a prompt (left padding), T tokens of a trace (right padding), H width.


class SharedPrefix:
    """Installed on a model that TRL has given its fused output layer: `share_prefixes(model)`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.backbone = model.base_model
        self.prompt_length = 0
        """P while a scoring call is under way, else 0."""
        self._score, self._read = model.forward, self.backbone.forward
        model.forward = types.MethodType(self.forward, model)
        self.backbone.forward = types.MethodType(self.read, self.backbone)

    def forward(self, _: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's forward; in scoring calls it notes where the traces begin."""
        labels_BL = kwargs.get("labels")
        if kwargs.get("fused_lm_head") and isinstance(labels_BL, Tensor) and not args:
            self.prompt_length = int((labels_BL != -100).any(dim=0).int().argmax())
        try:
            return self._score(*args, **kwargs)
        finally:
            self.prompt_length = 0

    def read(self, _: Any, *args: Any, **kwargs: Any) -> Any:
        """The backbone's forward; in scoring calls every distinct prompt is read once."""
        length = self.prompt_length
        if not length or "pixel_values" not in kwargs:
            return self._read(*args, **kwargs)
        config = self.model.config
        groups = distinct(kwargs, length, config.image_token_id, config.vision_config.spatial_merge_size**2)
        if len(groups.chosen) == len(groups.owner_B):
            return self._read(*args, **kwargs)
        return self._read_shared(kwargs, length, groups)

    def _read_shared(self, kwargs: dict[str, Any], length: int, groups: Groups) -> Any:
        ids_BL, mask_BL = kwargs["input_ids"], kwargs["attention_mask"]
        prompts: dict[str, Tensor] = {
            "input_ids": ids_BL[groups.chosen, :length],
            "attention_mask": mask_BL[groups.chosen, :length],
            "mm_token_type_ids": kwargs["mm_token_type_ids"][groups.chosen, :length],
            "image_grid_thw": groups.grids,
        }
        positions, delta_D1 = self.backbone.get_rope_index(**prompts)
        cache = DynamicCache(config=self.model.config)
        remembering: dict[str, Any] = {cache_argument(self._read): cache, "use_cache": True}
        read = self._read(**prompts, pixel_values=groups.pixels, position_ids=positions, **remembering)
        cache.reorder_cache(groups.owner_B)
        keep_no_further_state(cache)
        # A trace goes on where its prompt ends: padding is no position, and a picture takes fewer positions than tokens.
        position_BT = mask_BL.cumsum(dim=1)[:, length:] - 1 + delta_D1[groups.owner_B]
        position_3BT = position_BT.expand(3, -1, -1)
        out = self._read(input_ids=ids_BL[:, length:], attention_mask=mask_BL, position_ids=position_3BT, **remembering)
        prompt_BPH = read.last_hidden_state[groups.owner_B]
        out.last_hidden_state = torch.cat([prompt_BPH, out.last_hidden_state], dim=1)
        out.past_key_values = None
        return out


class Groups(NamedTuple):
    """Which sequences share a prompt, and the pictures of the distinct ones."""

    chosen: list[int]
    owner_B: Tensor
    pixels: Tensor
    grids: Tensor


def distinct(inputs: dict[str, Tensor], length: int, image_token: int, patches_per_token: int) -> Groups:
    """Groups sequences by the tokens *and the pictures* of their prompts: two edits of a task differ in a picture only."""
    ids_BP = inputs["input_ids"][:, :length]
    grids_I3 = inputs["image_grid_thw"]
    patches_B = ((ids_BP == image_token).sum(dim=1) * patches_per_token).tolist()
    pixels_B = torch.split(inputs["pixel_values"], patches_B)
    grids_B = torch.split(grids_I3, _pictures_of(grids_I3.prod(dim=1).tolist(), patches_B))
    numbers: dict[bytes, int] = {}
    chosen: list[int] = []
    owner = []
    for row, (ids, pixels) in enumerate(zip(ids_BP, pixels_B, strict=True)):
        digest = hashlib.blake2b(ids.cpu().numpy().tobytes() + pixels.detach().float().cpu().numpy().tobytes()).digest()
        if digest not in numbers:
            numbers[digest] = len(chosen)
            chosen.append(row)
        owner.append(numbers[digest])
    owner_B = torch.tensor(owner, device=ids_BP.device)
    return Groups(chosen, owner_B, torch.cat([pixels_B[row] for row in chosen]), torch.cat([grids_B[row] for row in chosen]))


def _pictures_of(patches_I: list[int], patches_B: list[int]) -> list[int]:
    """Number of pictures of each sequence, from the patches of each picture and of each sequence."""
    ends = list(itertools.accumulate(patches_I))
    places = [0, *(ends.index(total) + 1 for total in itertools.accumulate(patches_B))]  # a picture belongs to one sequence
    return [after - before for before, after in itertools.pairwise(places)]


def share_prefixes(model: Any) -> bool:
    """Installs `SharedPrefix` where the model's layers let prompts be shared; False where every trace is read with its own prompt."""
    if sharing(model) == "none":
        return False
    SharedPrefix(model)
    return True
