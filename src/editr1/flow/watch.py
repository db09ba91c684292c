"""What a run looks like before it is lost: checks that stop it, symptoms that are told, and seconds a phase.

Each message names the figure, the limit, and the knob or the trap that it usually points at.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from editr1.errors import BackendError, NoSignalError
from editr1.stats import agreement
from editr1.stats.agreement import SPAN
from editr1.store import Run

logger = logging.getLogger(__name__)

HELP = "docs/how_to/collapse.md has the table of causes"

MANY_CLIPPED = 0.25
MANY_TIED = 0.8
LITTLE_SIGNAL = 0.3

VELOCITY_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest relative error of a velocity that kernels of a dtype make. ours: ten times what other batch shapes and kernels were seen to
make (bf16 with guidance: about 1 %, a ratio error of 5e-4), and ten times below what a wrong schedule or input makes."""
FLOOR = 1e-5  # rounding of the density's own mean in float32

Point = Mapping[str, float]


@dataclass
class Replay:
    """How far the first replay of an unchanged policy was from the rollout, one number a row."""

    log_ratios: list[torch.Tensor] = field(default_factory=list)
    """New minus old log-density, nats an element."""
    bounds: list[torch.Tensor] = field(default_factory=list)
    """What rounding of the velocity can do to it (`rounding_bound`)."""

    def add(self, log_ratio: torch.Tensor, bound: torch.Tensor) -> None:
        """Adds the rows of one forward."""
        self.log_ratios.append(log_ratio.detach())
        self.bounds.append(bound)

    def check(self, limit: float | None, clip: float | None) -> str | None:
        """A warning, where the error is rounding but large beside the clip range; None when all is well.

        `limit`: largest |ratio - 1| that may go on; None = what rounding can do, negative = never stop.
        Raises BackendError when the replay cannot have computed what the rollout did.
        """
        log_ratio = torch.cat(self.log_ratios).double()
        error, bound = log_ratio.expm1().abs(), torch.cat(self.bounds).double()
        worst = float(error.max())
        told = (
            f"before any update |ratio - 1| is {float(error.median()):.1e} in the middle, {float(error.quantile(0.99)):.1e} at 99 % and "
            f"{worst:.1e} at most over {len(error)} rows, mean log-ratio {float(log_ratio.mean()):+.1e}"
        )
        allowed = bound if limit is None else torch.full_like(bound, limit)
        if (limit is None or limit >= 0) and bool((~(error <= allowed)).any()):  # also true for nan
            raise BackendError(
                f"{told}: more than {float(allowed.min()):.1e}, which rounding explains, so the replay does not compute what the rollout "
                "computed. Usual causes: another schedule or conditioning in the replay, dropout left on, an adapter that keeps state "
                f"between calls, latents changed after their density was taken; {HELP}; limits.max_ratio_error sets the limit"
            )
        if clip is None or worst <= clip / 10:
            return None
        return (
            f"edit-rl: {told}: rounding, but not small beside the clip range {clip:.1e}. With one update a rollout the gradient is right "
            f"all the same; with several, use wider clip ranges, training.micro_batch: 0, or an editor without guidance. {HELP}"
        )


def rounding_bound(
    v_RLD: torch.Tensor, weight_R: torch.Tensor, std_R: torch.Tensor, dtype: torch.dtype, *, density: bool = True
) -> torch.Tensor:
    """|ratio - 1| that a relative error of the velocity can make, [R].

    An error dmu = weight dv of a step's mean moves its log-density by -d^2 / 2 + d e / sqrt(L D) with d = dmu / std: the drift, and five
    standard deviations of the rest. `density` False: of the squared error, which is not divided by 2 std^2.
    """
    elements = v_RLD[0].numel()
    size = v_RLD.detach().float().square().flatten(1).mean(1).sqrt()
    shift = weight_R.abs() * VELOCITY_ROUNDING.get(dtype, 1e-3) * size
    if not density:
        return FLOOR + shift.square() + 10.0 * std_R * shift / elements**0.5
    relative = shift / std_R
    return FLOOR + relative.square() / 2.0 + 5.0 * relative / elements**0.5


def check_constant(num_constant: int, limit: int) -> None:
    """Raises NoSignalError when no group taught anything for too many iterations in a row."""
    if num_constant < limit:
        return
    raise NoSignalError(
        f"for {num_constant} iterations no group had two different rewards that min_std and curation let count: the judge cannot tell "
        "these edits apart, so nothing can be learnt. Use more traces a reward (avg@K), a larger group_size, or a higher "
        f"sampling.level; {HELP}"
    )


def check_finite(grad_norm: float, iteration: int) -> None:
    """Raises BackendError before a broken gradient reaches the weights."""
    if not grad_norm < float("inf"):  # also true for nan
        raise BackendError(
            f"the gradient norm of iteration {iteration} is {grad_norm}: the weights were not touched and the last checkpoint is intact; "
            f"lower training.lr or sampling.level, or keep latents in float32; {HELP}"
        )


def symptoms(points: Sequence[Point]) -> dict[str, str]:
    """{symptom: what to change} of the iterations so far, oldest first; empty for a healthy or a very young run.

    >>> list(symptoms([{"reward/mean": 7.0, "reward/group_std": 1.0}] * 5 + [{"reward/mean": 4.0, "reward/group_std": 1.0}] * 5))
    ['the reward falls']
    """
    if len(points) < 2 * SPAN:
        return {}
    found = {}
    first, last = points[:SPAN], points[-SPAN:]
    spread = _mean(first, "reward/group_std") or 0.0
    before, after = _mean(first, "reward/mean"), _mean(last, "reward/mean")
    if before is not None and after is not None and after - before < -max(spread, 1e-6):
        found["the reward falls"] = "divide training.lr by 3, then lower training.max_grad_norm and sampling.level"
    if (_mean(last, "train/clipped") or 0.0) > MANY_CLIPPED:
        found["many ratios are clipped"] = "lower training.lr, or train fewer updates a rollout"
    if (_mean(last, "reward/tied_groups") or 0.0) > MANY_TIED:
        found["most groups tie"] = "more traces a reward, a larger group_size, or a higher sampling.level"
    signal = _mean(last, "reward/signal")
    if signal is not None and signal < LITTLE_SIGNAL:
        found["groups differ by the judge's noise"] = "training.std: batch, then reward.options.expected or more traces a reward"
    if hacked(points, 2):
        found["only the training reward rises"] = "reward hacking: stop at the best evaluation, raise training.beta, check the judge"
    return found


class Symptoms:
    """The curves so far, those before a resume included; warns once of each sign of collapse."""

    def __init__(self, run_: Run, iteration: int) -> None:
        """`iteration`: the first that is still to come; points after it are of a process that ended before its next checkpoint."""
        self.points: list[dict[str, float]] = [dict(point) for point in run_.curves("edit_rl") if point["step"] < iteration]
        self._told = set(symptoms(self.points))

    def add(self, logs: dict[str, float]) -> None:
        """Adds an iteration, as a resumed run reads it back: without what is no number."""
        self.points.append({name: value for name, value in logs.items() if math.isfinite(value)})

    def tell(self) -> None:
        """Logs what is new."""
        for symptom, advice in symptoms(self.points).items():
            if symptom not in self._told:
                self._told.add(symptom)
                logger.warning(warning_of(symptom, advice))


def hacked(points: Sequence[Point], falls: int) -> bool:
    """Whether the held-out reward fell in each of the last `falls` evaluations while the training reward rose over them."""
    training, held_out = ({i: p[name] for i, p in enumerate(points) if name in p} for name in ("reward/mean", "evaluation/reward"))
    return agreement.hacked(training, held_out, falls)


def warning_of(symptom: str, advice: str) -> str:
    """One line for the log."""
    return f"edit-rl: {symptom}; {advice}. {HELP}"


def _mean(points: Sequence[Point], name: str) -> float | None:
    values = [point[name] for point in points if name in point]
    return sum(values) / len(values) if values else None


class Clock:
    """Adds up wall time by name.

    >>> clock = Clock()
    >>> with clock.phase("sample"):
    ...     pass
    >>> sorted(clock.read())
    ['seconds/sample', 'seconds/total']
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the block's time under `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin

    def read(self) -> dict[str, float]:
        """Seconds so far, with `seconds/total` since the clock was made."""
        return {f"seconds/{name}": value for name, value in self._seconds.items()} | {"seconds/total": time.perf_counter() - self._start}
