"""Draws tokens for a batch of sequences, each with its own seed and its own sampling settings.

A row's random numbers come from its own seed alone, one uniform number a position, turned into a token through the
cumulative distribution. So a reply is a function of (request, seed) whatever else is in the batch, up to the rounding of
the logits themselves, which does depend on the batch; and no global generator is touched.

Shape legend: B sequences, V tokens of the vocabulary, M largest number of new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from editr1.generation import NEVER, token_mask
from editr1.vlm.base import ChatRequest, TokenAlternatives

NUM_ALTERNATIVES = 20  # ours: what vLLM and the OpenAI API return at most


class RowSampler:
    """Picks the next token of every row, and remembers which rows have ended.

    Rows that have ended keep receiving the padding token until the caller drops them with `keep`.
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
        for index, (values, ids) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
            row = self._rows[index]
            if self._wanted[row] and bool(self.active_B[index]):
                self.top[row].append((int(picked_B[index]), list(zip(ids, values, strict=True))))


def _nucleus(probabilities_BV: torch.Tensor, top_p_B: torch.Tensor) -> torch.Tensor:
    """The probabilities with everything outside the smallest set of mass top_p set to zero."""
    sorted_BV, order_BV = probabilities_BV.sort(-1, descending=True)
    outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= top_p_B[:, None]  # the likeliest token always stays
    return probabilities_BV.masked_fill(outside_BV.gather(-1, order_BV.argsort(-1)), 0.0)


def token_alternatives(tokenizer: object, top: Sequence[tuple[int, list[tuple[int, float]]]]) -> tuple[TokenAlternatives, ...]:
    """The remembered alternatives with tokens as text."""
    decode = tokenizer.decode  # type: ignore[attr-defined]
    return tuple(
        TokenAlternatives(decode([token]), tuple((decode([other]), value) for other, value in others if value > NEVER / 2))
        for token, others in top
    )
