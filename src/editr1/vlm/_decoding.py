"""Generation for batches whose prompts repeat: three ways that draw with the same `RowSampler` and give the same greedy text.

Shape legend: D distinct prompts, N replies a prompt at most, B = the replies of all prompts, L tokens in the cache, V vocabulary,
M largest number of new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from editr1.vlm.base import NEVER, NUM_ALTERNATIVES, ChatRequest, TokenAlternatives, cache_argument, token_mask


class RowSampler:
    """Picks the next token of every row, and remembers which rows have ended; these receive padding until the caller drops them (`keep`).

    A row's random numbers come from its own seed alone, one uniform number a position, turned into a token through the cumulative
    distribution: a reply is a function of (request, seed) whatever else is in the batch, up to the rounding of the logits.
    """

    def __init__(
        self, requests: Sequence[ChatRequest], *, suppressed: Sequence[int], eos: Sequence[int], pad: int, device: torch.device
    ) -> None:
        limits = [request.sampling.max_tokens for request in requests]
        self.max_new_tokens = max(limits)
        draws_BM = np.stack([np.random.default_rng(request.seed).random(self.max_new_tokens) for request in requests])
        self._draws_BM = torch.from_numpy(draws_BM).to(device)
        self._temperature_B = torch.tensor([request.sampling.temperature for request in requests], device=device)
        self._top_p_B = torch.tensor([request.sampling.top_p for request in requests], device=device)
        self._limits_B = torch.tensor(limits, device=device)
        self._suppressed = list(suppressed)
        self._mask_V: torch.Tensor | None = None
        self._eos = torch.tensor(list(eos), dtype=torch.long, device=device)
        self._pad = pad
        self.end_token = eos[0] if eos else pad
        self._rows = list(range(len(requests)))
        self._wanted = [request.want_logprobs for request in requests]
        self.active_B = torch.ones(len(requests), dtype=torch.bool, device=device)
        self.tokens: list[list[int]] = [[] for _ in requests]
        """New tokens of each original row, the end token included."""
        self.ended = [False] * len(requests)
        """Whether the row ended by itself (an end token) and not by its limit."""
        self.top: list[list[tuple[int, list[tuple[int, float]]]]] = [[] for _ in requests]
        """For rows that want them: (token, [(token, natural-log probability), ...]) a position."""
        self._step = 0

    def pick(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """The next tokens [B]; updates `tokens`, `ended`, `active_B`."""
        logits_BV = logits_BV.float()
        if self._mask_V is None:
            self._mask_V = token_mask(self._suppressed, logits_BV.shape[1], logits_BV)
        logits_BV = logits_BV + self._mask_V
        picked_B = torch.where(self._temperature_B > 0, self._draw(logits_BV), logits_BV.argmax(-1))
        picked_B = torch.where(self.active_B, picked_B, self._pad)
        if any(self._wanted):
            self._remember_alternatives(logits_BV, picked_B)
        self._step += 1
        at_end_B = torch.isin(picked_B, self._eos)
        for index, (token, active, ended) in enumerate(zip(picked_B.tolist(), self.active_B.tolist(), at_end_B.tolist(), strict=True)):
            if active:
                row = self._rows[index]
                self.tokens[row].append(token)
                self.ended[row] = ended
        self.active_B = self.active_B & ~at_end_B & (self._step < self._limits_B)
        return picked_B

    def keep(self, index_B: torch.Tensor) -> None:
        """Goes on with these rows of the current batch only."""
        for name in ("_draws_BM", "_temperature_B", "_top_p_B", "_limits_B", "active_B"):
            setattr(self, name, getattr(self, name)[index_B])
        self._rows = [self._rows[index] for index in index_B.tolist()]

    def _draw(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """Inverse-CDF sampling at the rows' temperatures, inside the nucleus where top_p < 1."""
        scaled_BV = logits_BV / self._temperature_B.clamp(min=1e-4)[:, None]
        probabilities_BV = scaled_BV.softmax(-1)
        if bool((self._top_p_B < 1).any()):
            probabilities_BV = _nucleus(probabilities_BV, self._top_p_B)
        # float64: a cumulative sum over 150,000 tokens in float32 loses the rare ones.
        cumulative_BV = probabilities_BV.double().cumsum(-1)
        target_B1 = self._draws_BM[:, self._step, None] * cumulative_BV[:, -1:]
        index_B = torch.searchsorted(cumulative_BV, target_B1, right=True)[:, 0]
        return index_B.clamp(max=logits_BV.shape[1] - 1)

    def _remember_alternatives(self, logits_BV: torch.Tensor, picked_B: torch.Tensor) -> None:
        """Log-probabilities at temperature 1, as servers report them."""
        top = logits_BV.log_softmax(-1).topk(min(NUM_ALTERNATIVES, logits_BV.shape[1]), -1)
        found = (self.active_B.tolist(), picked_B.tolist(), top.indices.tolist(), top.values.tolist())
        for row, active, token, ids, values in zip(self._rows, *found, strict=True):
            if self._wanted[row] and active:
                self.top[row].append((token, list(zip(ids, values, strict=True))))


def _nucleus(probabilities_BV: torch.Tensor, top_p_B: torch.Tensor) -> torch.Tensor:
    """The probabilities with everything outside the smallest set of mass top_p set to zero."""
    sorted_BV, order_BV = probabilities_BV.sort(-1, descending=True)
    outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= top_p_B[:, None]  # the likeliest token always stays
    return probabilities_BV.masked_fill(outside_BV.gather(-1, order_BV.argsort(-1)), 0.0)


def token_alternatives(text_of: Callable[[int], str], top: Sequence[tuple[int, list[tuple[int, float]]]]) -> tuple[TokenAlternatives, ...]:
    """The remembered alternatives with tokens as text."""
    return tuple(
        TokenAlternatives(text_of(token), tuple((text_of(other), value) for other, value in others if value > NEVER / 2))
        for token, others in top
    )


_ROOM = 64  # ours: steps for which a cache has room when it grows
_SHRINK_BELOW = 0.75  # ours: prompts whose replies have all ended are dropped when less than this share is still answered


@dataclass(frozen=True, slots=True)
class Shown:
    """A batch of prompts as a model reads them: whole, or their beginnings once for all prompts that share them, and then the rests."""

    whole: dict[str, torch.Tensor]
    """Ids [D, L], mask and kinds of the tokens, and the sizes of all pictures: what positions are told from."""
    rests: dict[str, torch.Tensor]
    """Model inputs [D, L - P]: the last columns of `whole`, and their pictures. Without beginnings P is 0."""
    beginnings: dict[str, torch.Tensor] = field(default_factory=dict)
    """Model inputs [E, P] of the distinct beginnings; empty where prompts are read whole."""
    owner_D: torch.Tensor | None = None
    """The beginning of each prompt."""


def decode_side_by_side(model: Any, shown: Shown, copies_D: Sequence[int], sampler: RowSampler) -> None:
    """Fills `sampler` with the tokens of sum(copies_D) replies; their order is prompt 0, its copies, prompt 1, ...

    The n replies to one prompt are one row. Their next tokens stand side by side as n queries, and a mask lets each see the prompt and the
    tokens of its own reply, so that the prompt's keys and values are stored and read once for all:

        prompt prompt prompt | a1 b1 | a2 b2 | ...        a2 sees the prompt, a1 and itself; b2 sees the prompt, b1 and itself
    """
    mask_DL, width = shown.whole["attention_mask"], max(copies_D)
    logits_DV, position_D1, remembering, cache = _read(model, shown)
    seats = [(prompt, column) for prompt, copies in enumerate(copies_D) for column in range(copies)]
    owner_B, column_B = (torch.tensor(values, device=mask_DL.device) for values in zip(*seats, strict=True))
    mask_D1NL = mask_DL.bool()[:, None, None, :].expand(-1, -1, width, -1)
    itself_NN = torch.eye(width, dtype=torch.bool, device=mask_DL.device)
    picked_B = sampler.pick(logits_DV[owner_B])
    while bool(sampler.active_B.any()):
        alive_D = torch.bincount(owner_B[sampler.active_B], minlength=len(position_D1)) > 0
        if float(alive_D.float().mean()) < _SHRINK_BELOW:
            kept_D, kept_B = alive_D.nonzero()[:, 0], alive_D[owner_B].nonzero()[:, 0]
            cache.reorder_cache(kept_D)
            mask_D1NL, position_D1 = mask_D1NL[kept_D], position_D1[kept_D]
            owner_B, column_B, picked_B = (alive_D.cumsum(0) - 1)[owner_B[kept_B]], column_B[kept_B], picked_B[kept_B]
            sampler.keep(kept_B)
        mask_D1NL = torch.cat([mask_D1NL, itself_NN.expand(len(mask_D1NL), 1, -1, -1)], dim=-1)
        token_DN = picked_B.new_zeros(len(position_D1), width)  # seats that nobody takes hold token 0, which no reply sees
        token_DN[owner_B, column_B] = picked_B
        position_3DN = position_D1.expand(3, -1, width)
        out = model(input_ids=token_DN, attention_mask=mask_D1NL, position_ids=position_3DN, **remembering)
        position_D1 = position_D1 + 1
        picked_B = sampler.pick(out.logits[owner_B, column_B])


def decode_copied(model: Any, shown: Shown, copies_D: Sequence[int], sampler: RowSampler) -> None:
    """Fills `sampler` as `decode_side_by_side` does; what the model keeps of a prompt is copied for every reply, and each reply is a row.

    A GPU reads the copies faster than its attention kernels take such a mask (Qwen2.5-VL-7B on an H100, 32 rows: 739 tokens/s against
    324), and a layer of linear attention would take replies that stand side by side for one text.
    """
    logits_DV, position_D1, remembering, cache = _read(model, shown)
    owner_B = torch.repeat_interleave(torch.tensor(copies_D)).to(logits_DV.device)
    cache.reorder_cache(owner_B)
    mask_BL, position_B1 = shown.whole["attention_mask"][owner_B], position_D1[owner_B]
    picked_B = sampler.pick(logits_DV[owner_B])
    while bool(sampler.active_B.any()):
        if float(sampler.active_B.float().mean()) < _SHRINK_BELOW:
            kept_B = sampler.active_B.nonzero()[:, 0]
            cache.reorder_cache(kept_B)
            mask_BL, position_B1, picked_B = mask_BL[kept_B], position_B1[kept_B], picked_B[kept_B]
            sampler.keep(kept_B)
        mask_BL = torch.cat([mask_BL, mask_BL.new_ones(len(mask_BL), 1)], dim=-1)
        position_3B1 = position_B1.expand(3, -1, -1)
        out = model(input_ids=picked_B[:, None], attention_mask=mask_BL, position_ids=position_3B1, **remembering)
        position_B1 = position_B1 + 1
        picked_B = sampler.pick(out.logits[:, -1])


def _read(model: Any, shown: Shown) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any], Any]:
    """Reads the prompts: logits [D, V] of the next token and its position [D, 1] (padding is no position, and a picture takes fewer
    positions than tokens), the arguments by which the model remembers, and the cache among them."""
    cache: Any = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    # The class knows: a model in training may have a forward of its own (`training.shared_prefix`).
    remembering = {cache_argument(type(model).forward): cache, "use_cache": True}
    mask_DL = shown.whole["attention_mask"]
    position_3DL, delta_D1 = _positions(model, shown.whole)
    columns = mask_DL.shape[1] - shown.rests["input_ids"].shape[1]
    if shown.owner_D is not None:
        owners = shown.owner_D.tolist()
        first_E = [owners.index(beginning) for beginning in range(len(shown.beginnings["input_ids"]))]
        model(**shown.beginnings, position_ids=position_3DL[:, first_E, :columns], logits_to_keep=1, **remembering)
        cache.reorder_cache(shown.owner_D)
    rests = {**shown.rests, "attention_mask": mask_DL, "position_ids": position_3DL[:, :, columns:]}
    logits_DV = model(**rests, logits_to_keep=1, **remembering).logits[:, -1]
    for layer in cache.layers:
        if isinstance(layer, _RoomyLayer):
            layer.grows = True
    return logits_DV, mask_DL.sum(1, keepdim=True) + delta_D1, remembering, cache


def _positions(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Position ids [3, D, L] and the offset [D, 1] of the positions that follow."""
    mask_DL = inputs["attention_mask"]
    if "image_grid_thw" not in inputs:
        plain_DL = (mask_DL.cumsum(1) - 1).clamp(min=0)
        return plain_DL.expand(3, -1, -1), torch.zeros_like(mask_DL[:, :1])
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    return model.model.get_rope_index(**{name: inputs[name] for name in names})


def decode_generic(model: Any, inputs: dict[str, torch.Tensor], sampler: RowSampler) -> None:
    """Fills `sampler` with the tokens of one sequence a row of `inputs`, through the model's own `generate`.

    Not `generate_batch` (continuous batching): it draws from one global state, so that a reply would depend on its neighbours.
    """
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
    grows = False
    """Whether single tokens come now: prompts, which are read in one or two parts, leave no room."""
    _keys_buffer: torch.Tensor | None = None
    _values_buffer: torch.Tensor | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        old, new = self.get_seq_length(), key_states.shape[-2]
        if not self.grows:
            return super().update(key_states, value_states, *args, **kwargs)
        if self._keys_buffer is None or self._values_buffer is None or old + new > self._keys_buffer.shape[-2]:
            self._keys_buffer = _with_room(self.keys, new * _ROOM)
            self._values_buffer = _with_room(self.values, new * _ROOM)
        self._keys_buffer[..., old : old + new, :] = key_states
        self._values_buffer[..., old : old + new, :] = value_states
        self.keys = self._keys_buffer[..., : old + new, :]
        self.values = self._values_buffer[..., : old + new, :]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._keys_buffer = self._values_buffer = None


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    wide = states.new_empty(*states.shape[:-2], states.shape[-2] + room, states.shape[-1])
    wide[..., : states.shape[-2], :] = states
    return wide
