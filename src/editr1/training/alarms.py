"""Training that teaches nothing is an error: it is warned of at once, and stops with one line before it costs a night."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from transformers import TrainerCallback

from editr1.errors import DataError

logger = logging.getLogger(__name__)

ADVICE = {
    "sft": "look at the lessons and the learning rate",
    "gcpo": "start from a checkpoint that answers in the asked form (06_rrm_sft, with its own prompt_id), and look at failed/ in "
    "metrics.jsonl",
}


MIN_STEPS = 3  # ours: one or two steps try out the machine, and whether a random model answers is not asked of them


class SilentSteps(TrainerCallback):
    """Raises DataError after `limit` steps in a row without a gradient or a parsed trace, and after a run of MIN_STEPS or more that has no
    others."""

    def __init__(self, stage: str, limit: int) -> None:
        """limit: 0 = never."""
        self.stage, self.limit = stage, limit

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        silent = sum(1 for _ in takewhile(is_silent, reversed(_steps(state))))
        if silent == 1:
            logger.warning("%s: step %d teaches nothing: %s", self.stage, state.global_step, _why(_steps(state)[-1]))
        if 0 < self.limit <= silent:
            raise DataError(self._told(f"the last {silent} steps", state))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        steps = _steps(state)
        if self.limit and len(steps) >= MIN_STEPS and all(map(is_silent, steps)):
            raise DataError(self._told(f"all {len(steps)} steps", state))

    def _told(self, which: str, state: Any) -> str:
        advice = ADVICE[self.stage.partition("/")[0]]
        return f"{self.stage}: {which} taught nothing ({_why(_steps(state)[-1])}); {advice}. silent_steps is the limit, 0 lifts it"


def is_silent(logs: Mapping[str, Any]) -> bool:
    """Whether a step's figures say that nothing was learnt from it.

    >>> is_silent({"grad_norm": 0.3}), is_silent({"grad_norm": 0.3, "parse_rate": 0.0}), is_silent({"grad_norm": float("nan")})
    (False, True, True)
    """
    return logs["grad_norm"] == 0 or not math.isfinite(logs["grad_norm"]) or logs.get("parse_rate") == 0


def _why(logs: Mapping[str, Any]) -> str:
    if logs.get("parse_rate") == 0:
        return "no trace could be read, parse rate 0"
    return f"the gradient is {logs['grad_norm']:g}"


def _steps(state: Any) -> list[dict[str, Any]]:
    """The figures of the steps so far, those before a resume included."""
    return [logs for logs in state.log_history if "grad_norm" in logs]
