"""What bounds editor RL on the embedded world: five ways to use the same rewards, one plain loop, truth along the way.

    python -m research.editor_search --ways nft grpo sft --iterations 300 --out docs/results/editor_rl_search.json

Each iteration draws C tasks and G edits of each, noise-free but for grpo, asks the oracle (or the oracle plus noise, a stand-in for a
judge), and makes one optimizer step. Every so often the oracle looks at held-out tasks.

sft        flow matching on the perfect edit: what the network can learn in as many steps (no reward; the ceiling)
best       flow matching on the best of G          positive   on every edit above its group's mean, weighted by the advantage
nft        DiffusionNFT (arXiv 2509.16117)         grpo       Flow-GRPO with Flow-CPS on the first steps (level .5)
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editr1.algorithms.nft import nft_loss, optimality
from editr1.optimizers import muon_adamw
from editr1.schema import derive_seed
from editr1.store import commit
from editr1.world.oracle import judge
from editr1.world.scene import draw, read_one, to_image, to_pixels
from editr1.world.tasks import TaskSource, WorldTask, apply_all, parse_instruction
from editr1.world.tiny_editor import build, predict_velocity, word_rows

WAYS = ("sft", "best", "positive", "nft", "grpo")
STEPS, HELD_OUT_SEED, NOISY = 6, 12, 3  # Euler steps of an edit; seed of the held-out tasks; noisy steps of grpo


@dataclass(frozen=True)
class Batch:
    """B = C * G edits (a a a b b b) and what was known about them."""

    source: Tensor
    words: Tensor
    x0: Tensor
    """[B, L, D]."""
    advantages: Tensor
    """[B], in group standard deviations."""
    path: tuple[tuple[int, Tensor, Tensor], ...] = ()
    """(step, x, x') of grpo's noisy steps."""


class Search:
    """One way, from the shipped editor on."""

    def __init__(self, way: str, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.way, self.args = way, args
        self.editor = build(args.editor, device="cpu")  # so are the batches
        self.policy = self.editor.transformer
        self.old = copy.deepcopy(self.policy) if way == "nft" else self.policy
        params = self.policy.parameters()
        self.optimizer = (
            muon_adamw(self.policy.named_parameters(), args.lr_matrices, args.lr)
            if args.lr_matrices
            else torch.optim.AdamW(params, args.lr)
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.rng = np.random.default_rng(args.seed)
        self.tasks = TaskSource(10**9, derive_seed(args.seed, "search"))

    def encode(self, tasks: Sequence[WorldTask]) -> tuple[Tensor, Tensor]:
        pixels = np.stack([to_pixels(task.image) for task in tasks])
        return torch.from_numpy(self.editor.codec.encode(pixels)), word_rows([task.instruction for task in tasks])

    def sample(self, model: torch.nn.Module, source: Tensor, words: Tensor, x: Tensor, noisy: int = 0) -> tuple[Tensor, list[Any]]:
        path = []
        for k in range(STEPS):
            sigma, sigma_next = 1 - k / STEPS, 1 - (k + 1) / STEPS
            with torch.no_grad():
                v = predict_velocity(model, x, torch.full((len(x),), sigma), source, words)
            if k >= noisy:
                x = x + (sigma_next - sigma) * v
                continue
            mean, std = cps(x, v, sigma, sigma_next)
            path.append((k, x, mean + std * torch.randn_like(mean)))
            x = path[-1][2]
        return x, path

    def truth(self, tasks: Sequence[WorldTask], x0: Tensor) -> tuple[list[float], list[bool]]:
        scores = judge(
            [t.image for t in tasks], [to_image(p) for p in self.editor.codec.decode(x0.numpy())], [t.instruction for t in tasks]
        )
        return [score.utility for score in scores], [score.success for score in scores]

    def rollout(self, first: int) -> tuple[Batch, float]:
        """(what one step learns from, mean true score)."""
        args = self.args
        tasks = [self.tasks.task(first + index) for index in range(args.contexts)]
        source, words = (rows.repeat_interleave(args.group, 0) for rows in self.encode(tasks))
        if self.way == "sft":
            scenes = [(read_one(task.image), task.instruction) for task in tasks]
            perfect = np.stack([draw(apply_all(scene, parse_instruction(scene, text))) for scene, text in scenes])
            x0 = torch.from_numpy(self.editor.codec.encode(perfect)).repeat_interleave(args.group, 0)
            return Batch(source, words, x0, torch.ones(len(x0))), 10.0
        x, path = self.sample(self.old, source, words, torch.randn(len(source), *source.shape[1:]), NOISY if self.way == "grpo" else 0)
        scores, _ = self.truth([task for task in tasks for _ in range(args.group)], x)
        reward_CG = torch.tensor(scores).view(args.contexts, args.group)
        seen_CG = reward_CG + torch.from_numpy(self.rng.normal(0.0, args.noise, reward_CG.shape)).float()
        centred = seen_CG - seen_CG.mean(1, keepdim=True)
        if self.way == "best":
            advantages = torch.nn.functional.one_hot(seen_CG.argmax(1), args.group) * (centred.amax(1, keepdim=True) > 0.05)
        else:
            advantages = centred / (seen_CG.std(1, keepdim=True) + 1e-4)
        return Batch(source, words, x, advantages.flatten().float(), tuple(path)), float(reward_CG.mean())

    def loss_of(self, batch: Batch) -> Tensor:
        """Mean over all edits of the batch and `draws` noise levels each."""
        if self.way == "grpo":
            terms = []
            for k, x, x_next in batch.path:
                sigma, sigma_next = 1 - k / STEPS, 1 - (k + 1) / STEPS
                v = predict_velocity(self.policy, x, torch.full((len(x),), sigma), batch.source, batch.words)
                log_prob = -(x_next - cps(x, v, sigma, sigma_next)[0]).square().flatten(1).mean(1)
                terms.append(-(batch.advantages * log_prob).mean())  # at the first update the ratio is 1: the plain gradient
            return torch.stack(terms).mean()
        weight = batch.advantages.clamp(min=0) if self.way == "positive" else batch.advantages
        rows = (weight != 0).nonzero().flatten().repeat(self.args.draws)
        x0, t, noise = batch.x0[rows], torch.rand(len(rows)).clamp(1e-3, 0.999), torch.randn(len(rows), *batch.x0.shape[1:])
        x = (1 - t)[:, None, None] * x0 + t[:, None, None] * noise
        asked = (x, t, batch.source[rows], batch.words[rows])
        v = predict_velocity(self.policy, *asked)
        if self.way == "nft":
            with torch.no_grad():
                v_old = predict_velocity(self.old, *asked)
            return nft_loss(v, v_old, x, x0, t, optimality(weight[rows])).mean()
        return (weight[rows] * (v - (noise - x0)).square().flatten(1).mean(1)).mean()

    def step(self, iteration: int) -> float:
        """One iteration; the mean true score of what was sampled."""
        batch, score = self.rollout(iteration * self.args.contexts)
        if not batch.advantages.any():
            return score  # all groups tied: momentum alone must not move the weights
        share = iteration / self.args.iterations
        scale = min(1.0, (iteration + 1) / 5) * (1 - 0.9 * max(0.0, share - 0.3) / 0.7)
        self.optimizer.zero_grad()
        self.loss_of(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        self.optimizer.step()
        if self.way == "nft":
            keep = min(0.02 * (iteration + 1), 0.5)
            with torch.no_grad():
                for old, new in zip(self.old.parameters(), self.policy.parameters(), strict=True):
                    old.lerp_(new, 1 - keep)
        return score

    def held_out(self) -> dict[str, float]:
        """Truth about held-out tasks, the same tasks and noise every time."""
        generator = torch.Generator().manual_seed(99)
        scores: list[float] = []
        successes: list[bool] = []
        for begin in range(0, self.args.tasks, 100):
            tasks = [TaskSource(self.args.tasks, HELD_OUT_SEED).task(index) for index in range(begin, min(begin + 100, self.args.tasks))]
            source, words = self.encode(tasks)
            x, _ = self.sample(self.policy, source, words, torch.randn(source.shape, generator=generator))
            found = self.truth(tasks, x)
            scores, successes = scores + found[0], successes + found[1]
        return {"score": float(np.mean(scores)), "success": float(np.mean(successes))}


def cps(x: Tensor, v: Tensor, sigma: float, sigma_next: float, level: float = 0.5) -> tuple[Tensor, float]:
    """Flow-CPS: (mean of x', its std)."""
    std = sigma_next * math.sin(level * math.pi / 2)
    return (1 - sigma_next) * (x - sigma * v) + math.sqrt(sigma_next**2 - std**2) * (x + (1 - sigma) * v), std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    for name, default in {"iterations": 300, "contexts": 24, "group": 8, "draws": 2, "tasks": 1000, "every": 25, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--lr-matrices", type=float, default=0.0, help="Muon's rate; 0: AdamW for all weights")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation added to the oracle's score, in points")
    parser.add_argument("--editor", help="folder of the editor to start from (default: the shipped one)")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    curves: dict[str, list[dict[str, float]]] = {}
    for way in args.ways:
        search, begin = Search(way, args), time.monotonic()
        curves[way] = [{"iteration": 0, **search.held_out()}]
        for iteration in range(args.iterations):
            score = search.step(iteration)
            if (iteration + 1) % args.every == 0 or iteration + 1 == args.iterations:
                row = {"iteration": iteration + 1, **search.held_out(), "sampled": score, "minutes": (time.monotonic() - begin) / 60}
                curves[way].append(row)
                print(way, {key: round(value, 4) for key, value in row.items()}, flush=True)
    gains = {way: round(curve[-1]["success"] - curve[0]["success"], 4) for way, curve in curves.items()}
    result = {
        "measure": "success on held-out tasks, last minus first",
        "value": gains,
        "n": args.tasks,
        "goal": "nft +.10",
        "commit": commit(),
    }
    result["holds"] = gains["nft"] >= 0.1 if "nft" in gains else None
    if args.out:
        args.out.write_text(json.dumps(result | {"settings": {k: str(v) for k, v in vars(args).items()}, "curves": curves}, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
