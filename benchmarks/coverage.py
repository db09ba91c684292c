"""How often a 95 % interval covers the truth: simulated scores and shares of 8, 10, 20, 30 and 100 sources.

    python benchmarks/coverage.py --sets 2000 --json coverage.json

Scores: normal, two heaps (0 or 6 to 9), leaning on the top of the scale, and rounded and cut to whole numbers. Shares: of answers
right, with truths from .6 to .9 and near 1 (.9 to 1), each data set with its own truth, because the coverage of a share at a single
truth is a saw whose teeth are as high as the tolerance. Sources hold one item, four items, or 1 to 8 items; items of one source are
alike (half of a score's variance, a correlation of .1 or .3 of right answers). The last lines are of a paired difference of two judges'
credits, with half credit and without, each data set with its own gain. A cell that is within three standard errors of a limit is measured
with more data sets, so that chance decides none. The table has one row a case, with what is known of cells outside below it; the last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from editr1.stats import Estimate, mean_estimate, paired_difference, share_estimate

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, list[int]], tuple[Floats, float]]
"""(values of the items, the truth) for sources of these sizes."""

NUM_SOURCES = (8, 10, 20, 30, 100)
LOW, HIGH = 0.93, 0.97
MANY = 400_000  # items from which the truth of a rounded score is known to a few thousandths of its spread


def normal(rng: np.random.Generator, sizes: list[int]) -> tuple[Floats, float]:
    return 6 + 1.5 * np.repeat(rng.normal(size=len(sizes)), sizes) + 1.5 * rng.normal(size=sum(sizes)), 6.0


def two_heaps(rng: np.random.Generator, sizes: list[int]) -> tuple[Floats, float]:
    failed = rng.random(sum(sizes)) < np.repeat(rng.beta(2, 5, size=len(sizes)), sizes)
    return np.where(failed, 0.0, rng.integers(6, 10, size=sum(sizes))), 7.5 * 5 / 7


def near_the_top(rng: np.random.Generator, sizes: list[int]) -> tuple[Floats, float]:
    level = np.repeat(rng.beta(4, 1.2, size=len(sizes)), sizes)
    return 10 * rng.beta(5 * level + 1e-3, 5 * (1 - level) + 1e-3), 10 * 4 / 5.2


def _whole(rng: np.random.Generator, sizes: list[int]) -> Floats:
    return np.clip(np.round(6 + 2 * np.repeat(rng.normal(size=len(sizes)), sizes) + 2 * rng.normal(size=sum(sizes))), 0, 10)


_TRUTH_OF_WHOLE = float(_whole(np.random.default_rng(0), [1] * MANY).mean())


def whole_numbers(rng: np.random.Generator, sizes: list[int]) -> tuple[Floats, float]:
    return _whole(rng, sizes), _TRUTH_OF_WHOLE


def right_answers(low: float, high: float, correlation: float) -> Draw:
    def draw(rng: np.random.Generator, sizes: list[int]) -> tuple[Floats, float]:
        truth, strength = rng.uniform(low, high), 1 / correlation - 1
        chance = rng.beta(truth * strength, (1 - truth) * strength, size=len(sizes))
        return (rng.random(sum(sizes)) < np.repeat(chance, sizes)).astype(float), truth

    return draw


def credit_gains(edges: tuple[float, ...]) -> Draw:
    """Differences of two judges' credits, in steps of one edge; the second judge is up to a standard deviation of noise better."""

    def mean(shift: float) -> float:  # source and answer each have a variance of 1
        return float(np.mean(ndtr((shift - np.asarray(edges)) / np.sqrt(2))))

    def draw(rng: np.random.Generator, sizes: list[int]) -> tuple[Floats, float]:
        better, ease = rng.uniform(0, 1), np.repeat(rng.normal(size=len(sizes)), sizes)
        credits = [np.digitize(ease + shift + rng.normal(size=len(ease)), edges) / len(edges) for shift in (0.0, better)]
        return credits[1] - credits[0], mean(better) - mean(0.0)

    return draw


SIZES: dict[str, Callable[[np.random.Generator, int], list[int]]] = {
    "one": lambda rng, num: [1] * num,
    "four": lambda rng, num: [4] * num,
    "1 to 8": lambda rng, num: rng.integers(1, 9, size=num).tolist(),
}
BOUNDED: dict[str, Draw] = {"two heaps": two_heaps, "near the top": near_the_top, "whole numbers": whole_numbers}
SHARES: dict[str, Draw] = {
    f"share {low:g} to {high:g}, correlation {correlation:g}": right_answers(low, high, correlation)
    for low, high in ((0.6, 0.9), (0.9, 1.0))
    for correlation in (0.1, 0.3)
}
PAIRED = {"paired half credits": (-0.6, -0.3), "paired right answers": (0.0,)}


def _unbounded(values: Floats, sources: list[int], rng: np.random.Generator) -> Estimate:
    return mean_estimate(values, sources, rng=rng)


def _mean(values: Floats, sources: list[int], rng: np.random.Generator) -> Estimate:
    return mean_estimate(values, sources, rng=rng, top=10.0)


def _share(values: Floats, sources: list[int], rng: np.random.Generator) -> Estimate:
    return share_estimate(values, sources)


def _paired(values: Floats, sources: list[int], rng: np.random.Generator) -> Estimate:
    return paired_difference(np.zeros_like(values), values, sources, rng=rng)


@dataclass
class Cell:
    """One kind of data at one number of sources; a data set without an interval covers everything."""

    sets: int = 0
    hits: int = 0
    equal: int = 0
    """Data sets whose values are all the largest possible, or hold none of the failures: their spread says nothing of those."""
    equal_hits: int = 0

    @property
    def share(self) -> float:
        return self.hits / self.sets

    @property
    def is_clear(self) -> bool:
        error = np.sqrt(0.05 * 0.95 / self.sets)
        return min(abs(self.share - LOW), abs(self.share - HIGH)) > 3 * error


def coverage(draw: Draw, sizes: str, num_sources: int, method: Callable[..., Estimate], num_sets: int, seed: int) -> Cell:
    """Data sets and those whose interval holds the truth; five times as many where a limit is near."""
    rng, cell = np.random.default_rng([seed, num_sources]), Cell()
    while cell.sets < (num_sets if cell.sets < num_sets or cell.is_clear else 5 * num_sets):
        items = SIZES[sizes](rng, num_sources)
        values, truth = draw(rng, items)
        hit = not method(values, np.repeat(np.arange(num_sources), items).tolist(), rng).excludes(truth)
        equal = bool(values.min() > 0)
        cell.sets, cell.hits = cell.sets + 1, cell.hits + hit
        cell.equal, cell.equal_hits = cell.equal + equal, cell.equal_hits + (hit and equal)
    return cell


def is_inside(share: float) -> bool:
    return LOW <= share <= HIGH


def why(cell: Cell) -> str:
    """What the data sets without a single failure, whose values say nothing about failures, do to a cell."""
    rest = cell.sets - cell.equal
    others = (cell.hits - cell.equal_hits) / rest if rest else float("nan")
    of_equal = f"{cell.equal_hits / cell.equal:.3f} of them" if cell.equal else "none"
    return f"{cell.share:.4f} of {cell.sets}; {cell.equal / cell.sets:.3f} hold no failure and cover {of_equal}, the others {others:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2_000, help="data sets a cell (default 2000: a standard error of .005)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()

    cases = [(name, draw, _mean, sizes) for name, draw in BOUNDED.items() for sizes in SIZES]
    cases += [("normal, no ends", normal, _unbounded, sizes) for sizes in SIZES]
    cases += [(name, draw, _share, sizes) for name, draw in SHARES.items() for sizes in SIZES]
    cases += [(name, credit_gains(edges), _paired, sizes) for name, edges in PAIRED.items() for sizes in ("one", "1 to 8")]
    found: dict[str, list[float]] = {}
    outside: dict[str, str] = {}
    print(f"{'case':44}", *(f"{num:>7}" for num in NUM_SOURCES))
    for name, draw, method, sizes in cases:
        cells = [coverage(draw, sizes, num, method, args.sets, args.seed) for num in NUM_SOURCES]
        row = found[f"{name}, {sizes}"] = [round(cell.share, 4) for cell in cells]
        outside |= {f"{name}, {sizes}, {num}": why(cell) for num, cell in zip(NUM_SOURCES, cells, strict=True) if not is_inside(cell.share)}
        print(f"{name + ', ' + sizes:44}", *(f"{value:7.3f}" for value in row), flush=True)
    for name, reason in outside.items():
        print(f"outside: {name}: {reason}")
    shares = np.array(list(found.values()))
    inside = float(np.mean([is_inside(share) for share in shares.flat]))
    result = {
        "measure": "coverage of 95 % intervals: share of cells between .93 and .97",
        "value": round(inside, 4),
        "n": int(shares.size),
        "sets": args.sets,
        "lowest": float(shares.min()),
        "highest": float(shares.max()),
        "goal": "all",
        "holds": inside == 1.0,
        "outside": outside,
        "coverage": found,
    }
    if args.json:
        args.json.write_text(json.dumps(result) + "\n", "utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "coverage"}))


if __name__ == "__main__":
    main()
