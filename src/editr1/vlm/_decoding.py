"""Generation for batches whose prompts repeat: each distinct prompt is read once, its cache is copied to all who asked it.

`decode_shared` is for models that tell their positions (`get_rope_index`: the Qwen-VL line and its relatives). Anything else goes
through transformers' `generate` (`decode_generic`). Both draw tokens with the same `RowSampler`, and give the same greedy text.

Shape legend: D distinct prompts, B sequences, L tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from editr1.vlm._sampling import RowSampler

_ROOM = 64  # ours: tokens by which a cache grows at a time
_SHRINK_BELOW = 0.75  # ours: ended rows are dropped when less than this share of the batch is still active


def decode_shared(model: Any, inputs: dict[str, torch.Tensor], copies_D: Sequence[int], sampler: RowSampler) -> None:
    """Fills `sampler` with the tokens of sum(copies_D) sequences; sequence order is prompt 0, its copies, prompt 1, ..."""
    device = inputs["input_ids"].device
    cache = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    positions, delta_D1 = _positions(model, inputs)
    logits_DV = model(**inputs, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]

    owner_B = torch.repeat_interleave(torch.arange(len(copies_D), device=device), torch.tensor(list(copies_D), device=device))
    cache.batch_select_indices(owner_B)
    mask_BL, delta_B1 = inputs["attention_mask"][owner_B], delta_D1[owner_B]
    picked_B = sampler.pick(logits_DV[owner_B])
    while bool(sampler.active_B.any()):
        if float(sampler.active_B.float().mean()) < _SHRINK_BELOW:
            kept_B = sampler.active_B.nonzero()[:, 0]
            cache.batch_select_indices(kept_B)
            mask_BL, delta_B1, picked_B = mask_BL[kept_B], delta_B1[kept_B], picked_B[kept_B]
            sampler.keep(kept_B)
        mask_BL = torch.cat([mask_BL, mask_BL.new_ones(len(mask_BL), 1)], 1)
        # Padding does not count as a position, and a picture takes fewer positions than tokens (its delta is negative).
        position_B1 = mask_BL.sum(1, keepdim=True) - 1 + delta_B1
        out = model(
            input_ids=picked_B[:, None],
            attention_mask=mask_BL,
            position_ids=position_B1.expand(3, -1, -1),
            past_key_values=cache,
            use_cache=True,
        )
        picked_B = sampler.pick(out.logits[:, -1])


def _positions(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Position ids [3, D, L] and the offset [D, 1] of the positions that follow."""
    mask_DL = inputs["attention_mask"]
    if "image_grid_thw" not in inputs:
        plain_DL = (mask_DL.cumsum(1) - 1).clamp(min=0)
        return plain_DL.expand(3, -1, -1), torch.zeros_like(mask_DL[:, :1])
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    return model.model.get_rope_index(**{name: inputs[name] for name in names})


def decode_generic(model: Any, inputs: dict[str, torch.Tensor], sampler: RowSampler) -> None:
    """Fills `sampler` with the tokens of one sequence a row of `inputs`, through the model's own `generate`."""
    model.generate(
        **inputs,
        max_new_tokens=sampler.max_new_tokens,
        do_sample=False,  # the processor below has chosen already: all other tokens are at -inf
        num_beams=1,
        logits_processor=LogitsProcessorList([_Choose(sampler)]),
        temperature=None,
        top_p=None,
        top_k=None,
    )


class _Choose(LogitsProcessor):
    """Leaves `generate` one token to choose; a row whose limit is reached gets the end token."""

    def __init__(self, sampler: RowSampler) -> None:
        self._sampler = sampler

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        was_active_B = self._sampler.active_B
        picked_B = torch.where(was_active_B, self._sampler.pick(scores), self._sampler.end_token)
        return torch.full_like(scores, -torch.inf).scatter(1, picked_B[:, None], 0.0)


class _RoomyLayer(DynamicLayer):
    """A cache layer that writes new tokens into spare room: concatenating at every step copies the whole cache."""

    keys: Any
    values: Any
    _keys_buffer: torch.Tensor | None = None
    _values_buffer: torch.Tensor | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        old, new = self.get_seq_length(), key_states.shape[-2]
        if old == 0 or self.keys is None or self.values is None:
            return super().update(key_states, value_states, *args, **kwargs)
        if self._keys_buffer is None or self._values_buffer is None or old + new > self._keys_buffer.shape[-2]:
            self._keys_buffer = _with_room(self.keys, new + _ROOM)
            self._values_buffer = _with_room(self.values, new + _ROOM)
        self._keys_buffer[..., old : old + new, :] = key_states
        self._values_buffer[..., old : old + new, :] = value_states
        self.keys = self._keys_buffer[..., : old + new, :]
        self.values = self._values_buffer[..., : old + new, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._keys_buffer = self._values_buffer = None


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    wide = states.new_empty(*states.shape[:-2], states.shape[-2] + room, states.shape[-1])
    wide[..., : states.shape[-2], :] = states
    return wide
