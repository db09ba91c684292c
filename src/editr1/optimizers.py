"""Muon for matrices and AdamW for the rest, as one optimizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

# Embeddings and heads are matrices by shape only: their rows are looked up or scored one by one, so AdamW has them.
LOOKUPS = r"embed_tokens|lm_head|embed"


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers behind one interface; their states and groups are this object's own, so saving it saves both."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], rest: Iterable[nn.Parameter], lr_matrices: float, lr_rest: float, decay: float
    ) -> None:
        # match_rms_adamw: an update of the same size as AdamW's, so that one schedule suits both
        self._muon = torch.optim.Muon(matrices, lr=lr_matrices, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(rest, lr=lr_rest, weight_decay=decay, betas=(0.9, 0.95))
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        split = len(self._muon.param_groups)
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:split], self.param_groups[split:]
        self._muon.state = self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()  # loading replaces the groups and the state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()
        self._adamw.step()
        return loss


def muon_adamw(
    named: Iterable[tuple[str, nn.Parameter]], lr_matrices: float, lr_rest: float, lookups: str = LOOKUPS, decay: float = 0.0
) -> MuonAdamW:
    """Every trainable parameter once: matrices to Muon, the rest and what `lookups` (a pattern of names) finds to AdamW."""
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    is_matrix = [parameter.ndim == 2 and not re.search(lookups, name) for name, parameter in trainable]
    matrices = [parameter for (_, parameter), yes in zip(trainable, is_matrix, strict=True) if yes]
    rest = [parameter for (_, parameter), yes in zip(trainable, is_matrix, strict=True) if not yes]
    return MuonAdamW(matrices, rest, lr_matrices, lr_rest, decay)
