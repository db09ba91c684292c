"""Rollouts sampled by a server in the place of this process: `POST /images/edits` with a LoRA a request, as vllm-omni answers it.

The weights are pushed as a peft folder that the server reads, a new one each time since servers keep an adapter by its path. What comes
back are finished pictures, without latents and densities of their steps: enough for the algorithms of the forward process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from editr1.config import create
from editr1.editors.base import Editor, EditRequest, Plan
from editr1.errors import ConfigError
from editr1.flow.config import Config, Rollout
from editr1.flow.contexts import Context
from editr1.flow.policy import Policy, Weights

PROBE = "probe"
SAME = 2.0  # ours: levels of 255 by which two pictures of one LoRA may differ on average, from batching and kernels


class Engine:
    """The server, and which of the pushed adapters it samples with."""

    def __init__(self, rollout: Rollout, steps: int, run_folder: Path) -> None:
        """`run_folder`: where adapters go when the settings name no folder."""
        self._rollout, self._steps = rollout, steps
        self._folder = Path(rollout.folder or run_folder / "adapters").resolve()
        self._adapter = ""
        self._checked = False
        self._editors: dict[tuple[str, Plan], Editor] = {}
        self.pushed = -1
        """The iteration whose weights the server samples with; -1 before the first push."""

    def due(self, iteration: int) -> bool:
        """Whether the weights are to be pushed before this iteration; always before the first of a process, resumed or not."""
        return self.pushed < 0 or iteration % self._rollout.push_every == 0

    def push(self, policy: Policy, weights: Weights, iteration: int, accelerator: Any) -> None:
        """Exports the weights and names them in all requests from now on; all processes call it."""
        from accelerate.utils import broadcast_object_list

        name = [""]
        if accelerator.is_main_process:
            if self.pushed < 0:
                loud = {n: torch.ones_like(w) if "lora_B" in n else w for n, w in weights.items()}
                save_adapter(policy, loud, self._folder / PROBE)
            digest = save_adapter(policy, weights, self._folder / "partial")
            name[0] = f"{iteration:06d}_{digest[:8]}"
            shutil.rmtree(self._folder / name[0], ignore_errors=True)
            (self._folder / "partial").rename(self._folder / name[0])
            for path in self._folder.glob("[0-9]*_*"):
                if path.name not in (name[0], self._adapter):  # of any earlier run too, whose iterations may have gone further
                    shutil.rmtree(path)
        self._adapter = str(broadcast_object_list(name)[0])
        self.pushed = iteration
        self._editors = {}

    def sample(self, contexts: Sequence[Context], plan: Plan, seeds: Sequence[int]) -> list[Image.Image]:
        """One edit a seed, len(seeds) / len(contexts) of each context, a a a b b b.

        Raises BackendError when the server fails, ConfigError when it ignores the adapter or the size that it is asked for.
        """
        copies = len(seeds) // len(contexts)
        owners = [context for context in contexts for _ in range(copies)]
        requests = [EditRequest(c.source(), c.task.instruction, seed) for c, seed in zip(owners, seeds, strict=True)]
        images = self._editor(self._adapter, plan).edit(requests)
        for image in images:
            if image.size != (plan.width, plan.height):
                raise ConfigError(f"the rollout server made {image.size} pixels where {plan.width, plan.height} were asked for")
        if not self._checked:
            probe = self._editor(PROBE, plan).edit(requests[:1])[0]
            if distance(probe, images[0]) <= SAME:
                raise ConfigError(
                    "the rollout server makes the same edit with any LoRA, so it would not follow what is learnt: it must read the form "
                    f"field `lora` (vllm-omni does) and {self._folder}"
                )
            self._checked = True
        return images

    def _editor(self, adapter: str, plan: Plan) -> Editor:
        if (adapter, plan) not in self._editors:
            component = self._rollout.engine
            lora = {"name": adapter, "local_path": str(self._folder / adapter)}
            fields = {"num_inference_steps": self._steps, **component.options.get("extra_body", {}), "lora": lora}
            options = {**component.options, "size": f"{plan.width}x{plan.height}", "extra_body": fields}
            self._editors[adapter, plan] = create("editors", dataclasses.replace(component, options=options))
        return self._editors[adapter, plan]


def engine_of(config: Config, folder: Path) -> Engine | None:
    """The server of a run; None where it samples itself."""
    return None if config.rollout is None else Engine(config.rollout, config.sampling.steps, folder)


def save_adapter(policy: Policy, weights: Weights, folder: Path) -> str:
    """Writes LoRA weights as a folder in peft's own layout, float32. Returns the SHA-256 of the tensors' file."""
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save

    found = get_peft_model_state_dict(policy.transformer, state_dict=weights)
    content = save({f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in found.items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(content)
    policy.lora_config.save_pretrained(str(folder))
    return hashlib.sha256(content).hexdigest()


def distance(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference of two pictures of one size, in levels of 255."""
    return float(np.abs(np.asarray(first, dtype=np.float32) - np.asarray(second, dtype=np.float32)).mean())
