"""From our settings to TRL's: the part of a training stage that SFT and GCPO share.

Muon for the matrices and AdamW for the rest: at a few million parameters Muon learns the same in a third of AdamW's steps; larger runs
use AdamW (the trainer's own).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import datasets
import torch
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from editr1.config import to_plain
from editr1.errors import ConfigError, DataError
from editr1.optimizers import muon_adamw
from editr1.placement import check_joined, prepare
from editr1.store import Run
from editr1.training.model import save_checkpoint
from editr1.training.options import Checkpoint, Machine, Schedule

# --- what it shows, keeps and stops for ----------------------------------------------------------------


logger = logging.getLogger(__name__)

STEPS = "steps"
"""Folder of the checkpoints to resume from, inside the stage's folder; removed when the stage has finished."""
ADVICE = {
    "sft": "look at the lessons and the learning rate",
    "gcpo": "start from a checkpoint that answers in the asked form (06_rrm_sft, with its own prompt_id), and look at failed/ in "
    "metrics.jsonl",
}
MIN_STEPS = 3  # ours: one or two steps try out the machine, and whether a random model answers is not asked of them


@dataclass(eq=False)
class Curves(TrainerCallback):
    """Writes every figure that the trainer logs to the run, and draws the bar."""

    run: Run
    stage: str
    shown: Mapping[str, str]
    progress: bool = True

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


@dataclass(eq=False)
class SilentSteps(TrainerCallback):
    """Raises DataError after `limit` (0 = never) steps in a row without a gradient or a parsed trace, and after a run of MIN_STEPS or more
    that has no others."""

    stage: str
    limit: int

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


# --- training ------------------------------------------------------------------------------------------


# TRL asks for an attribute by its old name at every step, and each answer would tear the progress bar.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def as_dataset(num_rows: int, row: Callable[[int], Mapping[str, Any]], rows_kept: int = 1) -> datasets.Dataset:
    """A data set of `num_rows` whose rows are made when they are read: pictures live for one batch.

    rows_kept: the last rows read are remembered, for a trainer that reads each several times.
    """
    made = lru_cache(maxsize=rows_kept)(row)

    def columns(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        rows = [made(index) for index in batch["index"]]
        return {name: [values[name] for values in rows] for name in rows[0]}

    return datasets.Dataset.from_dict({"index": list(range(num_rows))}).with_transform(columns)


def common_arguments(folder: Path, schedule: Schedule, machine: Machine, steps: int, rows: int, seed: int) -> dict[str, Any]:
    """The arguments that TRL's SFTConfig and GRPOConfig share; `rows` a step, over all processes."""
    return {
        "output_dir": str(folder / STEPS),
        "max_steps": steps,
        "per_device_train_batch_size": machine.micro_batch,
        "gradient_accumulation_steps": machine.accumulation(rows),
        "learning_rate": schedule.lr,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": schedule.final_lr_share},
        "warmup_steps": schedule.warmup_steps,
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": schedule.max_grad_norm,
        "bf16": machine.precision == "bfloat16",
        _checkpointing_argument(): machine.activation_checkpointing,
        "dataloader_num_workers": machine.workers,
        "dataloader_persistent_workers": machine.workers > 0,
        "ddp_timeout": round(60 * machine.placement.timeout_minutes),
        "save_steps": machine.save_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite must be seen
        "report_to": list(machine.trackers),
        "disable_tqdm": True,  # our own bar
        "remove_unused_columns": False,
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
    }


def _checkpointing_argument() -> str:
    """The name by which the trainers' arguments take it: transformers 5.23 renamed it, and vLLM holds transformers below 5.18."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    return "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"


def optimizers(model: Any, schedule: Schedule) -> tuple[Any, None]:
    """What a trainer takes as `optimizers`: ours, or (None, None) for its AdamW."""
    if schedule.lr_matrices is None:
        return None, None
    return muon_adamw(model.named_parameters(), schedule.lr_matrices, schedule.lr), None


def train(
    run: Run,
    stage: str,
    output: str,
    made_from: Mapping[str, Any],
    rows: int,
    shown: Mapping[str, str],
    build: Callable[[str | None], tuple[Any, Any]],
    machine: Machine,
    silent_steps: int,
) -> Checkpoint:
    """Trains to the end, from the last resume point if there is one, and saves the checkpoint into the run's folder `output`.

    Args:
        made_from: settings and inputs, see `lasting`; a folder that was begun with others is refused.
        shown: logged name -> label beside the progress bar.
        build: resume point -> (trainer, processor), called only when there is something left to do.
        silent_steps: steps in a row that may teach nothing, see `training.trainer`.
    """
    folder = run.claim(output, stage, made_from)
    if (folder / "done.json").exists():
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        return Checkpoint(**{**done, "path": str(folder), "seconds": 0.0})
    resume = resume_point(folder / STEPS)
    prepare(machine.placement)
    trainer, processor = build(resume)
    check_joined(trainer.accelerator.num_processes)
    if _is_sharded(trainer) and hasattr(trainer.model, "merge_and_unload"):
        raise ConfigError("adapters need no sharding and could not be merged from it: launch with recipes/accelerate/verifier_ddp.yaml")
    if resume is not None and _holds_weights(resume) and not _is_sharded(trainer):
        # `build` has loaded them. The trainer's own loading compares names in the file with names in memory; for the Qwen-VL line
        # they differ, it warns, loads next to nothing and would go on from the base model.
        trainer._load_from_checkpoint = lambda *_, **__: None
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(Curves(run, stage, shown, machine.progress))
    trainer.add_callback(SilentSteps(stage, silent_steps))
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=resume)
    seconds = time.monotonic() - started
    result = Checkpoint(str(folder), trainer.state.global_step, rows, seconds)
    save(trainer, processor, folder)
    if trainer.accelerator.is_main_process:
        run.write_json(f"{output}/done.json", {"steps": result.steps, "rows": rows})
        shutil.rmtree(folder / STEPS, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return result


def save(trainer: Any, processor: Any, folder: Path, merge: bool = True) -> None:
    """Weights and processor into `folder`, called by all ranks together: they gather sharded weights, and one of them writes."""
    if _is_sharded(trainer):
        trainer.save_model(str(folder))
    elif trainer.accelerator.is_main_process:
        save_checkpoint(trainer.accelerator.unwrap_model(trainer.model), processor, folder, merge)


def _is_sharded(trainer: Any) -> bool:
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def weights_to_load(model: str | Path, resume: str | None) -> str:
    """Where a (resumed) stage takes its weights from: the resume point, or the base below the adapters that lie there."""
    return resume if resume is not None and _holds_weights(resume) else str(model)


def _holds_weights(resume: str) -> bool:
    """Whether a resume point is a whole checkpoint; with LoRA it holds adapters, sharded training keeps its own format."""
    return (Path(resume) / "config.json").exists() and any(Path(resume).glob("model*.safetensors"))


def lasting(run: Run, settings: Any, *tables: str, model: str | Path) -> dict[str, Any]:
    """What the weights depend on: settings, tables, checkpoints; how often is saved or shown may change between two halves of a run."""
    plain = to_plain(settings, without=frozenset({"silent_steps"}))
    plain["machine"] = {key: value for key, value in plain["machine"].items() if key in ("precision",)}
    return run.made_from(plain, *tables, models=[model])
