"""How much a number moves when the same judge is asked again: the floor under which no difference is a finding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from editr1.schema import Metric

FIXED = ("chance", "chance-with-ties", "floor", "single-rater", "unanimous")  # ends of protocols of numbers that no judge moves


def between_run(repeats: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Standard deviation over repeats of each number that every repeat has; nothing for fewer than two repeats."""
    if len(repeats) < 2:
        return []
    found = []
    for metric in repeats[0]:
        if metric.protocol.rpartition("/")[2] in FIXED:
            continue
        values = [
            m.value for repeat in repeats for m in repeat if (m.name, m.protocol) == (metric.name, metric.protocol) and m.value is not None
        ]
        if len(values) == len(repeats):
            spread = float(np.std(values, ddof=1))
            found.append(Metric(f"{metric.name}/between_run_sd", spread, n=len(repeats), protocol=f"{metric.protocol}/between-run-sd"))
    return found
