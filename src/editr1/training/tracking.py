"""What a training stage shows and keeps: a progress bar, the curves in `metrics.jsonl`, and checkpoints to resume from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from editr1.store import Run

STEPS = "steps"
"""Folder of the checkpoints to resume from, inside the stage's folder; removed when the stage has finished."""


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


def resume_point(folder: Path) -> str | None:
    """The newest whole checkpoint under `folder`; one that a killed process left torn is removed. None = start anew."""
    if not folder.is_dir():
        return None
    while (last := get_last_checkpoint(str(folder))) is not None:
        if _is_whole(Path(last)):
            return last
        shutil.rmtree(last)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """The trainer writes its state last; a torn one is no JSON."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def finish(folder: Path, result: Mapping[str, Any]) -> None:
    """Marks the stage as finished and removes its resume points."""
    (folder / "done.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder / STEPS, ignore_errors=True)
