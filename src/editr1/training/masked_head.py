"""The forbidden tokens in the log-probabilities that a trainer computes, for whole, FSDP2-sharded and ZeRO-3-sharded output layers.

TRL's fused output layer multiplies hidden states by `head.weight` and adds `head.bias`, never calling the layer itself. While it scores,
it is shown a stand-in of the layer whose bias is the mask of `editr1.generation`. The model keeps no trace of it: nothing is registered,
sharded, saved or sent to an engine.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from editr1.errors import ConfigError
from editr1.generation import token_mask, vocabulary


@dataclass(frozen=True)
class MaskedHead:
    """What TRL reads of an output layer."""

    weight: Tensor
    bias: Tensor


def mask_scores(model: Any, token_ids: Sequence[int]) -> None:
    """From here on `model(..., fused_lm_head=True)` gives the tokens probability 0. Call it after TRL has added its fused layer.

    Raises ConfigError for an output layer with a bias of its own.
    """
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ConfigError(f"the output layer of {type(model).__name__} has a bias, beside which forbidden tokens cannot be masked")
    score, size = model.forward, vocabulary(model)

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("fused_lm_head"):
            return score(*args, **kwargs)
        head = type(self).get_output_embeddings
        self.get_output_embeddings = lambda: masked(head(self), token_ids, size)
        try:
            return score(*args, **kwargs)
        finally:
            del self.get_output_embeddings

    model.forward = types.MethodType(forward, model)


def masked(head: Any, token_ids: Sequence[int], size: int) -> MaskedHead:
    """The layer's weight, gathered where FSDP2 keeps a part of it, beside the mask."""
    weight = head.weight.full_tensor() if isinstance(head.weight, DTensor) else head.weight
    mask_V = token_mask(token_ids, size, weight)
    if hasattr(weight, "ds_status"):  # ZeRO-3: TRL gathers what is not available; the mask is whole on every process
        mask_V.ds_status = type(weight.ds_status).AVAILABLE  # type: ignore[attr-defined]
    return MaskedHead(weight, mask_V)
