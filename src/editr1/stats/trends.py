"""What a curve does over time, read from step -> value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

SPAN = 5  # ours: points averaged at either end; single ones draw other tasks and say little


def finite_mean(values: Sequence[float]) -> float | None:
    """The mean of what is finite; None where nothing is."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def hacked(training: Mapping[int, float], held_out: Mapping[int, float], falls: int) -> bool:
    """Whether the held-out reward fell in each of the last `falls` evaluations while the training reward rose over them.

    >>> training, held_out = {0: 6.0, 1: 7.0, 2: 8.0}, {0: 7.0, 1: 6.0, 2: 5.0}
    >>> hacked(training, held_out, 2), hacked(training, held_out, 3)
    (True, False)
    """
    times = sorted(held_out)[-falls - 1 :]
    if len(times) <= falls:
        return False
    before = finite_mean([training[step] for step in sorted(training) if step <= times[0]][-SPAN:])
    after = finite_mean([training[step] for step in sorted(training)][-SPAN:])
    falling = all(held_out[late] < held_out[early] for early, late in pairwise(times))
    return falling and before is not None and after is not None and after > before
