"""What an interval costs: 10,000 resamples of 5,000 pairs, percentile and BCa, by pair, by source and as a macro over 13 tasks.

    python benchmarks/bootstrap_speed.py --pairs 5000 --json bootstrap.json

The last line is one JSON object; its value is the slowest of the six in seconds, the best of --repeats.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from editr1.stats import bootstrap_mean
from editr1.stats.intervals import IntervalMethod

PAIRS_A_SOURCE = 5
NUM_TASKS = 13
GOAL_SECONDS = 2.0
METHODS: tuple[IntervalMethod, ...] = ("percentile", "bca")


def seconds_of(values: Sequence[float], layout: dict[str, list[int]], method: IntervalMethod, resamples: int, repeats: int) -> float:
    """Wall seconds of the fastest of several runs."""
    found = []
    for repeat in range(repeats):
        begin = time.perf_counter()
        bootstrap_mean(values, **layout, rng=np.random.default_rng(repeat), num_resamples=resamples, method=method)
        found.append(time.perf_counter() - begin)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()

    values = np.random.default_rng(args.seed).integers(0, 2, size=args.pairs).astype(float).tolist()
    sources = [i // PAIRS_A_SOURCE for i in range(args.pairs)]
    layouts = {
        "pairs": {},
        "sources": {"clusters": sources},
        "macro": {"clusters": sources, "strata": [source % NUM_TASKS for source in sources]},
    }
    found = {
        f"{name}/{method}": seconds_of(values, layout, method, args.resamples, args.repeats)
        for name, layout in layouts.items()
        for method in METHODS
    }
    for name, seconds in found.items():
        print(f"{name:20} {seconds:8.3f} s")
    slowest = max(found.values())
    result = {
        "measure": "slowest interval, seconds",
        "value": round(slowest, 3),
        "n": args.pairs,
        "resamples": args.resamples,
        "goal": f"< {GOAL_SECONDS:g}",
        "holds": slowest < GOAL_SECONDS,
        "seconds": {name: round(seconds, 3) for name, seconds in found.items()},
    }
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result) + "\n", "utf-8")


if __name__ == "__main__":
    main()
