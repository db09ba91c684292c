"""What it costs to be one iteration behind (edit_rl.rollout_ahead), and what it saves: reward and seconds on the toy editor.

    python benchmarks/async_rollout.py --json docs/results/async_rollout.json

Bias: the toy's reward of noise-free edits after the same number of iterations, in step and ahead, paired by seed. Time: an iteration with a
judge that waits as long as sampling and updating take together, as one behind an endpoint may, in step and ahead by turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev

import torch
from scipy import stats

from editr1.config import Component
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.curation import sampled_images
from editr1.flow.rewarding import Score
from editr1.flow.trainer import Trainer
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "flow"))
import toy

TRAININGS = {
    **{
        f"grpo, clip {clip:g}": Training(Component("grpo", {"clip_low": clip, "clip_high": clip}), rank=4, alpha=8, lr=1e-2, beta=0.0)
        for clip in (1e-3, 1e-2)
    },
    "nft": Training(Component("nft"), rank=4, alpha=8, lr=2e-2, beta=0.0),
}
GOAL = 1.1  # times the longer of judging and the rest: what is left when they overlap


def settings(training: Training, iterations: int, seed: int, ahead: bool) -> Config:
    """The toy run of the tests."""
    return Config(
        Component("toy:build"), Component("toy:RednessJudge"), group_size=4, contexts=8, contexts_per_batch=8, iterations=iterations,
        sampling=Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), training=training, seed=seed, save_every=0, gallery_every=0,
        rollout_ahead=ahead,
    )  # fmt: skip


def trained(config: Config, judge: Score) -> tuple[Trainer, float, float, float]:
    """(the trainer, reward before, reward after, seconds of training)."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run.open(Path(folder) / "run")
        toy.write_tasks(run)
        tasks, _ = read_contexts(run, 0.0)
        trainer = make_trainer(config, toy.ToyEditor(), [judge], run.dir)

        def reward() -> float:
            return mean(toy.redness(image) for image in sampled_images(trainer, tasks))

        before, begun = reward(), time.perf_counter()
        train(trainer, tasks, [], judge, run)
        seconds = time.perf_counter() - begun
        after = reward()
        trainer.close()
    return trainer, before, after, seconds


def bias(training: Training, iterations: int, seeds: int) -> dict[str, float]:
    """Gains in step and ahead, and their paired difference with a 95 % interval by t."""
    gains: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(seeds):
        for ahead, found in gains.items():
            _, before, after, _ = trained(settings(training, iterations, seed, ahead), toy.score_redness)
            found.append(after - before)
    differences = [late - now for now, late in zip(gains[False], gains[True], strict=True)]
    half = float(stats.t.ppf(0.975, seeds - 1)) * stdev(differences) / seeds**0.5
    middle = mean(differences)
    return {"in_step": mean(gains[False]), "ahead": mean(gains[True]), "difference": middle, "low": middle - half, "high": middle + half}


def seconds_with(wait: float, iterations: int, repeats: int) -> dict[bool, float]:
    """Median seconds an iteration in step and ahead, by turns, with a judge that waits."""

    def slow(edits: Sequence[object], seed: int) -> list[toy.Reward]:
        time.sleep(wait)
        return toy.score_redness(edits, seed)

    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for ahead, times in found.items():
            times.append(trained(settings(TRAININGS["nft"], iterations, 0, ahead), slow)[3] / iterations)
    return {ahead: median(times) for ahead, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| algorithm | gain in step | gain ahead | difference (95 %) |\n|---|---|---|---|")
    found = {}
    for name, training in TRAININGS.items():
        row = found[name] = bias(training, args.iterations, args.seeds)
        print(
            f"| {name} | {row['in_step']:.3f} | {row['ahead']:.3f} | {row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}) |"
        )
    own = seconds_with(0.0, 5, args.repeats)[False]
    times = seconds_with(own, 10, args.repeats)
    longer = max(own, times[False] - own)
    ratio = times[True] / longer
    print(f"\nthe judge waits {own:.3f} s; an iteration in step {times[False]:.3f} s, ahead {times[True]:.3f} s, at least {longer:.3f} s")
    result = {
        "what": "seconds of an iteration ahead over the longer of judging and the rest", "value": ratio, "n": args.repeats,
        "goal": f"at most {GOAL}", "holds": ratio <= GOAL, "iterations": args.iterations, "seeds": args.seeds, "bias": found,
        "seconds": {"judge": own, "in_step": times[False], "ahead": times[True]},
    }  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
