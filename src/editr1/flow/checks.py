"""When to stop a run: each message names the figure, the limit, and the trap that it usually points at."""

from __future__ import annotations

import os

from editr1.errors import BackendError, ConfigError, UnscoredError
from editr1.flow.config import Config

HELP = "docs/how_to/collapse.md has the table of causes"


def check_first_ratio(error: float, config: Config) -> None:
    """The first replay of an unchanged policy must give ratio 1. Raises BackendError above the limit."""
    limit = config.limits.max_ratio_error
    if limit is None:
        limit = min(config.training.clip_low, config.training.clip_high) / 10
    if limit < 0 or error <= limit:
        return
    raise BackendError(
        f"before any update |ratio - 1| is already {error:.1e}, more than {limit:.1e}: the replay does not compute what the rollout "
        "computed. Usual causes: latents rounded after their density was taken, another micro-batch shape or attention backend than in the "
        "rollout (set training.micro_batch to contexts_per_batch * group_size), CFG above 1 amplifying both, dropout left on; "
        f"{HELP}; limits.max_ratio_error sets the limit"
    )


def check_constant(num_constant: int, config: Config) -> None:
    """Raises UnscoredError when no group had two different rewards for too many iterations in a row."""
    if num_constant < config.limits.max_constant:
        return
    raise UnscoredError(
        f"for {num_constant} iterations no group had two different rewards: the judge cannot tell these edits apart, so nothing can be "
        f"learnt. Use more traces a reward (avg@K), a larger group_size, or a higher sampling.level; {HELP}"
    )


def check_finite(grad_norm: float, iteration: int) -> None:
    """Raises BackendError before a broken gradient reaches the weights."""
    if not grad_norm < float("inf"):  # also true for nan
        raise BackendError(
            f"the gradient norm of iteration {iteration} is {grad_norm}: the weights were not touched and the last checkpoint is intact; "
            f"lower training.lr or sampling.level, or keep latents in float32; {HELP}"
        )


def check_world(num_processes: int) -> None:
    """Raises ConfigError when the launcher started more processes than have found each other: each would train alone."""
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes != expected:
        raise ConfigError(
            f"the launcher set WORLD_SIZE={expected} but {num_processes} process(es) joined: start with `torchrun --nproc_per_node N -m -- "
            "editr1.cli edit-rl ...`, and unset ACCELERATE_USE_CPU on machines with GPUs"
        )
