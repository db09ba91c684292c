"""The loop that pretrains both models of the embedded world."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def cosine_after_hold(progress: float, step: int, warmup_steps: int = 40, hold: float = 0.4, floor: float = 0.03) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up by steps, constant until `hold` of the run, cosine to `floor`."""
    warm = min(1.0, (step + 1) / warmup_steps)
    fall = max(0.0, (progress - hold) / (1 - hold))
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0))))


def fit_steps(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[int], torch.Tensor],
    steps: int,
    log: Path,
    save: Callable[[], None],
    save_every: int,
) -> None:
    """Steps 1 to `steps` on `loss_of(step)`, a line added to the log every 50, `save` every `save_every` and at the end."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: cosine_after_hold((done + 1) / steps, done + 1))
    start, losses = time.monotonic(), []
    with log.open("a", encoding="utf-8") as lines:
        for step in range(1, steps + 1):
            loss = loss_of(step)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if step % 50 == 0:
                row = {"step": step, "minutes": round((time.monotonic() - start) / 60, 2), "loss": round(float(np.mean(losses[-50:])), 5)}
                lines.write(json.dumps(row) + "\n")
                lines.flush()
            if step % save_every == 0 or step == steps:
                save()
