"""Rows of a conditioning, without knowing what is in it: tensors carry a batch axis first, plain values are shared."""

from __future__ import annotations

import torch

from editr1.editors.base import Conditioning


def select_rows(cond: Conditioning, index_B: torch.Tensor) -> Conditioning:
    """The conditioning of the given rows, in that order; an index may repeat."""
    return {name: value[index_B.to(value.device)] if isinstance(value, torch.Tensor) else value for name, value in cond.items()}
