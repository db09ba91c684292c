"""What a training stage shows, keeps and stops for: a bar and the curves in `metrics.jsonl`, checkpoints to resume from, and steps that
teach nothing, which are warned of at once and stop the run with one line before they cost a night."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from editr1.errors import DataError
from editr1.store import Run

logger = logging.getLogger(__name__)

STEPS = "steps"
"""Folder of the checkpoints to resume from, inside the stage's folder; removed when the stage has finished."""
ADVICE = {
    "sft": "look at the lessons and the learning rate",
    "gcpo": "start from a checkpoint that answers in the asked form (06_rrm_sft, with its own prompt_id), and look at failed/ in "
    "metrics.jsonl",
}
MIN_STEPS = 3  # ours: one or two steps try out the machine, and whether a random model answers is not asked of them


class Curves(TrainerCallback):
    """Writes every figure that the trainer logs to the run, and draws the bar."""

    def __init__(self, run: Run, stage: str, shown: Mapping[str, str], progress: bool = True) -> None:
        self.run, self.stage, self.shown, self.progress = run, stage, shown, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        hidden = not (self.progress and state.is_world_process_zero)
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.stage, unit="step", disable=hidden, mininterval=1.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        values = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if "train_runtime" in values:  # the closing summary repeats what the curve says
            return
        self.run.log(self.stage, state.global_step, values)
        self.bar.set_postfix({label: f"{values[name]:.3g}" for name, label in self.shown.items() if name in values}, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


class SilentSteps(TrainerCallback):
    """Raises DataError after `limit` (0 = never) steps in a row without a gradient or a parsed trace, and after a run of MIN_STEPS or more
    that has no others."""

    def __init__(self, stage: str, limit: int) -> None:
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
    return "no trace could be read, parse rate 0" if logs.get("parse_rate") == 0 else f"the gradient is {logs['grad_norm']:g}"


def _steps(state: Any) -> list[dict[str, Any]]:
    """The figures of the steps so far, those before a resume included."""
    return [logs for logs in state.log_history if "grad_norm" in logs]


def resume_point(folder: Path) -> str | None:
    """The newest whole checkpoint under `folder`; later ones, which a killed process left torn, are removed. None = start anew."""
    numbers = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")]
    for number in sorted((int(number) for number in numbers if number.isdigit()), reverse=True):
        checkpoint = folder / f"checkpoint-{number}"
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))  # the trainer writes it last
            return str(checkpoint)
        except (OSError, ValueError):
            shutil.rmtree(checkpoint, ignore_errors=True)  # every process does
    return None
