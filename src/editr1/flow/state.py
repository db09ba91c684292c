"""Checkpoints that resume exactly: trained weights, EMA, optimiser and the iteration; every seed derives from these.

A checkpoint is a folder written beside its name and then renamed, all tensors as safetensors: no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from editr1.errors import DataError
from editr1.flow.policy import Policy, Weights, gathered, part_of


@dataclass
class State:
    """Everything that changes while training."""

    policy: Policy
    optimizer: torch.optim.Optimizer
    ema: Weights | None
    old: Weights | None
    """DiffusionNFT's sampling policy."""
    behind: Weights | None = None
    """The weights before the last update, where they drew the rollout that is in flight."""
    iteration: int = 0
    """Finished iterations."""
    num_constant: int = 0
    """Iterations in a row without two different rewards in any group."""
    best: float | None = None
    """Best evaluation so far."""
    num_without_best: int = 0


def save_state(state: State, folder: Path, keep: int, write: bool = True) -> Path:
    """Writes `folder/<iteration>` and removes all but the newest `keep` checkpoints.

    All processes call it together, for sharded weights are put together from their parts; the one that is to `write` does.
    """
    target = folder / f"{state.iteration:06d}"
    partial = folder / f"{target.name}.partial"
    if write:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    for name, weights in (("trained", state.policy.params), *copies(state), ("optimizer", optimizer_tensors(state))):
        whole = gathered(weights, write) if weights is not None else {}
        if write and weights is not None:
            save_file(whole, partial / f"{name}.safetensors")
    if not write:
        return target
    (partial / "state.json").write_text(json.dumps(numbers(state)), encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    os.replace(partial, target)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir() and not path.name.endswith(".partial"))


def load_state(state: State, checkpoint: Path) -> None:
    """Puts a checkpoint into `state`, in place. Raises DataError when it belongs to another kind of run."""
    counters: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    state.policy.load(load_file(checkpoint / "trained.safetensors"))
    for name, weights in copies(state):
        path = checkpoint / f"{name}.safetensors"
        if path.exists() != (weights is not None):
            raise DataError(f"{checkpoint} was written with other settings ({name} weights differ): resume with the recipe it began with")
        if weights is not None:
            for key, value in load_file(path).items():
                weights[key].copy_(part_of(value, weights[key]))
    tensors = load_file(checkpoint / "optimizer.safetensors")
    for name, param in state.policy.params.items():
        moments = {key.rpartition("/")[2]: value for key, value in tensors.items() if key.rpartition("/")[0] == name}
        if moments:  # AdamW keeps its step count on the CPU whatever the parameter's device
            state.optimizer.state[param] = {k: v if k == "step" else part_of(v, param).to(param.device) for k, v in moments.items()}
    for key, value in counters.items():
        setattr(state, key, value)


def copies(state: State) -> list[tuple[str, Weights | None]]:
    """The weights beside the trained ones, by name."""
    return [("ema", state.ema), ("old", state.old), ("behind", state.behind)]


def numbers(state: State) -> dict[str, Any]:
    """The counters of a run."""
    return {name: getattr(state, name) for name in ("iteration", "num_constant", "best", "num_without_best")}


def optimizer_tensors(state: State) -> Weights:
    """AdamW's moments and step counts as `<parameter>/<moment>`."""
    found: Weights = {}
    for name, param in state.policy.params.items():
        for key, value in state.optimizer.state.get(param, {}).items():
            found[f"{name}/{key}"] = value.detach().clone()
    return found


def save_weights(state: State, path: Path, write: bool = True) -> None:
    """The averaged weights (the raw ones without EMA) as one file, by write-then-rename; called by all processes like `save_state`."""
    whole = gathered(state.ema if state.ema is not None else dict(state.policy.params), write)
    if not write:
        return
    partial = path.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    save_file(whole, partial)
    os.replace(partial, path)
