"""Edit-R1: a reasoning reward model for image editing, its training, and RL of editors with it.

Implements "Leveraging Verifier-Based Reinforcement Learning in Image Editing" (arXiv 2604.27505).

    from editr1 import RewardItem, RewardModel

    model = RewardModel.from_checkpoint("runs/demo/08_rrm_gcpo")
    reward = model.score([RewardItem(before, after, "Make the sky purple")])[0]

The names of `__all__` are the public surface; each is imported when it is first asked for, so that `import editr1` stays quick and
loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from editr1.placement import install_torchvision as _install_torchvision

if TYPE_CHECKING:
    from pathlib import Path

    from editr1.config import Component, create, load_recipe
    from editr1.editors.base import Editor, EditRequest, FlowEditor
    from editr1.errors import BackendError, ConfigError, DataError, EditR1Error, UnscoredError
    from editr1.judge.item import RewardItem
    from editr1.judge.parse import parse
    from editr1.judge.rrm import RewardModel
    from editr1.schema import (
        Candidate,
        EditTask,
        Inspection,
        Judgement,
        Metric,
        ParseFailure,
        PreferencePair,
        Principle,
        Reward,
        TaskPrinciples,
        Trace,
    )
    from editr1.store import Run
    from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling

__version__ = "0.1.0"

__all__ = [
    "VLM",
    "BackendError",
    "Candidate",
    "ChatReply",
    "ChatRequest",
    "Component",
    "ConfigError",
    "DataError",
    "EditR1Error",
    "EditRequest",
    "EditTask",
    "Editor",
    "FlowEditor",
    "Inspection",
    "Judgement",
    "Metric",
    "ParseFailure",
    "PreferencePair",
    "Principle",
    "Reward",
    "RewardItem",
    "RewardModel",
    "Run",
    "Sampling",
    "TaskPrinciples",
    "Trace",
    "UnscoredError",
    "create",
    "load_recipe",
    "open_run",
    "parse",
]

_HOMES = {
    "config": ("Component", "create", "load_recipe"),
    "editors.base": ("EditRequest", "Editor", "FlowEditor"),
    "errors": ("BackendError", "ConfigError", "DataError", "EditR1Error", "UnscoredError"),
    "judge.item": ("RewardItem",),
    "judge.parse": ("parse",),
    "judge.rrm": ("RewardModel",),
    "schema": (
        *("Candidate", "EditTask", "Inspection", "Judgement", "Metric", "ParseFailure", "PreferencePair", "Principle", "Reward"),
        *("TaskPrinciples", "Trace"),
    ),
    "store": ("Run",),
    "vlm.base": ("VLM", "ChatReply", "ChatRequest", "Sampling"),
}
_HOME_OF = {name: f"editr1.{module}" for module, names in _HOMES.items() for name in names}

_install_torchvision()


def open_run(path: Path | str) -> Run:
    """The run directory at `path`: its tables, pictures and metrics. Raises DataError where there is none."""
    from pathlib import Path

    from editr1.store import Run

    return Run.open(Path(path), create=False)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'editr1' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
