"""Rewards, asked for as soon as a batch is sampled and collected when all are: judging overlaps with sampling."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from editr1.errors import BackendError, UnscoredError
from editr1.flow.contexts import Context
from editr1.flow.watch import HELP
from editr1.placement import adopt_device
from editr1.schema import CATEGORIES, Reward

Score = Callable[[Sequence[tuple[Context, Image.Image]], int], Sequence[Reward]]
"""(edits, seed) -> one reward an edit, in their order. What `stages/edit_rl.py` makes of a judge."""


@dataclass
class RewardCollector:
    """Scores batches in a thread of its own; order of results = order of submission.

    One thread: the judge batches inside a call, and two calls at once would fight for its device.
    """

    score: Score
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "rewards", initializer=adopt_device))
    _waiting: list[tuple[Future[Sequence[Reward]], int]] = field(default_factory=list)

    def submit(self, edits: Sequence[tuple[Context, Image.Image]], seed: int) -> None:
        """Starts scoring and returns at once."""
        self._waiting.append((self._pool.submit(self.score, edits, seed), len(edits)))

    def collect(self, batches: int | None = None) -> list[Reward]:
        """Rewards of the oldest `batches` submissions that wait (None = all).

        Raises what the judge raised, and BackendError for a wrong count.
        """
        count = len(self._waiting) if batches is None else batches
        waiting, self._waiting = self._waiting[:count], self._waiting[count:]
        rewards: list[Reward] = []
        for future, expected in waiting:
            batch = future.result()
            if len(batch) != expected:
                raise BackendError(f"the judge returned {len(batch)} rewards for {expected} edits: rewards would go to wrong edits")
            rewards += batch
        return rewards

    def rest(self) -> None:
        """Waits until the judge is idle: somebody else wants it."""
        wait([future for future, _ in self._waiting])

    def close(self) -> None:
        """Waits for running calls and drops those that have not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def reward_table(rewards: Sequence[Reward], group_size: int) -> torch.Tensor:
    """[C, G] float32; NaN where unscored. A value that is not finite counts as unscored too."""
    values = [r.value if r.value is not None and math.isfinite(r.value) else math.nan for r in rewards]
    return torch.tensor(values, dtype=torch.float32).view(-1, group_size)


def check_unscored(rewards_CG: torch.Tensor, limit: float, reasons: Sequence[Reward]) -> float:
    """Share of unscored edits. Raises UnscoredError above `limit`, naming the commonest reasons."""
    share = float(rewards_CG.isnan().float().mean())
    if share > limit:
        common = Counter(r.reason or "no reason given" for r in reasons if not r.scored).most_common(3)
        told = ", ".join(f"{reason} ({count})" for reason, count in common) or "on other processes"
        raise UnscoredError(
            f"{share:.0%} of the edits came back unscored, more than limits.max_unscored = {limit:.0%}: {told}; "
            f"check the judge with `editr1 verify` on one of them, or give it more tokens; {HELP}"
        )
    return share


def reward_logs(rewards_CG: torch.Tensor, rewards: Sequence[Reward]) -> dict[str, float]:
    """What the reward curve shows: tau, its spread in groups, verdict rates by category, tokens a verdict."""
    scored = rewards_CG[~rewards_CG.isnan()]
    logs = {
        "reward/mean": float(scored.mean()) if scored.numel() else math.nan,
        "reward/group_std": _mean_group_std(rewards_CG),
        "reward/unscored": float(rewards_CG.isnan().float().mean()),
        "reward/tied_groups": float(torch.tensor([_spread(row) == 0.0 for row in rewards_CG]).float().mean()),
    }
    if (signal := signal_share(rewards_CG, rewards)) is not None:
        logs["reward/signal"] = signal
    for category in CATEGORIES:
        means = [r.category_means[category] for r in rewards if category in r.category_means]
        if means:
            logs[f"reward/{category}"] = sum(means) / len(means)
    if any(r.num_tokens for r in rewards):
        logs["reward/tokens"] = sum(r.num_tokens for r in rewards) / len(rewards)
    return logs


def signal_share(rewards_CG: torch.Tensor, rewards: Sequence[Reward]) -> float | None:
    """Share of the variance inside groups that is not the judge's own noise, in [0, 1]; None where single traces do not tell.

    1 - mean(spread^2 / num_valid) / mean(variance of a group): the reliability of the reward as a mean over traces. Where it is low, a
    group's std is mostly noise, and dividing by it gives groups of equal edits the weight of the others.

    >>> twins = [Reward(value, 2, 2, scores=(value - 1.0, value + 1.0)) for value in (8.0, 8.0, 4.0, 8.0)]
    >>> signal_share(reward_table(twins, 2), twins)
    0.75
    """
    noise = [spread**2 / r.num_valid for r in rewards if (spread := r.spread) is not None]
    rows = [row[~row.isnan()] for row in rewards_CG]
    variances = [float(row.var()) for row in rows if row.numel() > 1]
    if not noise or sum(variances) == 0:
        return None
    return max(0.0, 1.0 - (sum(noise) / len(noise)) / (sum(variances) / len(variances)))


def principle_rates(rewards: Sequence[Reward]) -> list[dict[str, Any]]:
    """One row a principle of the edits: question, category, mean verdict rate in [0, 1] and over how many edits."""
    rates: dict[tuple[str, str], list[float]] = {}
    for reward in rewards:
        for principle, rate in zip(reward.principles, reward.rates, strict=False):  # a judge without verdicts gives no rates
            rates.setdefault((principle.category, principle.question), []).append(rate)
    return [
        {"question": question, "category": category, "rate": sum(found) / len(found), "n": len(found)}
        for (category, question), found in sorted(rates.items())
    ]


def judge_logs(tables_KCG: torch.Tensor, rewards: Sequence[Sequence[Reward]]) -> dict[str, float]:
    """`reward_logs` of each judge: `reward/...` for the main one, `reward_1/...` and so on for further ones."""
    logs: dict[str, float] = {}
    for number, (table_CG, judged) in enumerate(zip(tables_KCG, rewards, strict=True)):
        prefix = f"reward_{number}/" if number else "reward/"
        logs |= {name.replace("reward/", prefix, 1): value for name, value in reward_logs(table_CG, judged).items()}
    return logs


def all_constant(rewards_CG: torch.Tensor) -> bool:
    """No group has two different values (rewards, or advantages): nothing can be learnt from this iteration."""
    return all(_spread(row) == 0.0 for row in rewards_CG)


def _spread(row_G: torch.Tensor) -> float:
    scored = row_G[~row_G.isnan()]
    return float(scored.max() - scored.min()) if scored.numel() > 1 else 0.0


def _mean_group_std(rewards_CG: torch.Tensor) -> float:
    stds = [float(row[~row.isnan()].std(unbiased=False)) for row in rewards_CG if int((~row.isnan()).sum()) > 1]
    return sum(stds) / len(stds) if stds else math.nan
