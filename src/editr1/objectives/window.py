"""Which steps carry noise and are trained: a pure function of (seed, iteration).

All ranks and all members of all groups share one window: windows that differ inside a group collapse training, since
their log-densities are not comparable. The last step is never in a window (noise on it stays in the image).
"""

from __future__ import annotations

from typing import Literal

import torch

from editr1.schema import derive_seed

WindowKind = Literal["random", "fixed", "progressive"]


def window_steps(
    kind: WindowKind, size: int, first: int, last: int, *, seed: int, iteration: int, num_steps: int, hold: int = 25
) -> tuple[int, ...]:
    """`size` neighbouring step indices inside [first, last).

    fixed: always [first, first + size). random: the start is drawn anew each iteration. progressive (MixGRPO, arXiv
    2507.21802): the start moves on by one every `hold` iterations and returns to `first` at the end.
    Raises ValueError when the window does not fit or would contain the last step.

    >>> window_steps("fixed", 2, 0, 5, seed=0, iteration=7, num_steps=10)
    (0, 1)
    """
    if not (first >= 0 and size >= 1 and first + size <= last <= num_steps - 1):
        raise ValueError(
            f"a window of {size} steps in [{first}, {last}) does not fit a schedule of {num_steps} steps whose last step stays "
            f"noise-free: need 0 <= first, first + size <= last <= {num_steps - 1}"
        )
    num_starts = last - first - size + 1
    if kind == "fixed":
        start = first
    elif kind == "progressive":
        start = first + (iteration // hold) % num_starts
    elif kind == "random":
        generator = torch.Generator().manual_seed(derive_seed(seed, "window", iteration))
        start = first + int(torch.randint(num_starts, (1,), generator=generator))
    else:
        raise ValueError(f"unknown window kind {kind!r}, expected random, fixed or progressive")
    return tuple(range(start, start + size))
