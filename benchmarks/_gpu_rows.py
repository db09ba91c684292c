"""What the parts of gpu_check.py measure with: a row of the table, the card, its clock and its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
Say = Callable[[dict[str, Any]], None]
GIB = 2**30


def row(what: str, value: float | str | None, goal: str = "", holds: bool | None = None, **more: Any) -> dict[str, Any]:
    """One line of the table."""
    return {"what": what, "value": round(value, 6) if isinstance(value, float) else value, "goal": goal, "holds": holds, **more}


def device() -> torch.device:
    """The card, or the CPU at tiny size."""
    from editr1.placement import Placement, local_device, prepare

    prepare(Placement())
    return local_device()


def sync() -> None:
    """Waits for the card."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_gib() -> float | None:
    """Largest memory that tensors took."""
    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Mean seconds of a call."""
    sync()
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    sync()
    return (time.perf_counter() - begin) / repeats
