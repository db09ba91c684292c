"""The optimizers of the embedded pretraining: Muon for matrices, AdamW for the rest.

At two million parameters and minutes of training, Muon learns the same in a third of AdamW's steps.
"""

from __future__ import annotations

import math
import re

import torch


def build_optimizers(model: torch.nn.Module, lr_matrices: float, lr_rest: float, lookups: str) -> list[tuple[torch.optim.Optimizer, float]]:
    """(optimizer, base learning rate) pairs that together cover every trainable parameter once.

    Args:
        lookups: regular expression for the names of embeddings and heads. They are matrices by shape only: their rows are
            looked up or scored one by one, so AdamW has them.
    """
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim == 2 and not re.search(lookups, name)
        (matrices if is_matrix else rest).append(parameter)
    muon = torch.optim.Muon(matrices, lr=lr_matrices, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=lr_rest, weight_decay=0.0, betas=(0.9, 0.95))
    return [(muon, lr_matrices), (adamw, lr_rest)]


def cosine_after_hold(progress: float, step: int, warmup_steps: int = 40, hold: float = 0.4, floor: float = 0.03) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up by steps, constant until `hold` of the run, cosine to `floor`."""
    warm = min(1.0, (step + 1) / warmup_steps)
    fall = max(0.0, (progress - hold) / (1 - hold))
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0))))
