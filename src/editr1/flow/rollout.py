"""Sampling edits: with a noisy window for training, without noise for evaluation, or by a server in the place of this process.

Legend: S steps of the window, C contexts of a batch, G samples a context, B = C * G samples (a a a b b b), L tokens, D channels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from editr1.config import create
from editr1.editors.base import Conditioning, Editor, EditRequest, FlowEditor, Plan
from editr1.errors import ConfigError
from editr1.flow.config import Config, Rollout, Sampling
from editr1.flow.contexts import Context
from editr1.flow.policy import Policy, Weights
from editr1.objectives.schedule import Schedule
from editr1.objectives.sde import Step, advance, log_prob, make_step
from editr1.schema import derive_seed

# --- here ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trajectory:
    """What training needs of one batch of rollouts: the window's S + 1 latents and none of the discarded steps."""

    plan: Plan
    context_ids: tuple[str, ...]
    cond: Conditioning
    """One row a CONTEXT; sample b belongs to row b // G."""
    group_size: int
    window: tuple[int, ...]
    sigmas: tuple[float, ...]
    """Noise level of each step of the window, S numbers."""
    steps: tuple[Step, ...]
    """S affine steps."""
    latents: torch.Tensor
    """[S + 1, B, L, D], in the storage dtype; empty for algorithms without a window."""
    log_probs: torch.Tensor
    """[S, B] float32, nats per element, under the policy that sampled."""
    final: torch.Tensor
    """x at sigma 0, [B, L, D] float32."""
    means: torch.Tensor | None = None
    """Mean of each step, [S, B, L, D]; kept only where an algorithm that asks for them meets several updates a rollout."""
    teacher_cond: Conditioning | None = None
    """The same contexts as a teacher reads them, one row a context."""
    images: tuple[Image.Image, ...] = ()
    """The finished edits, where a server made them; else they are decoded from `final`."""
    shared_start: bool = False
    """The members of a group are equal at the window's first step: one forward serves them all."""
    velocities: tuple[torch.Tensor, ...] = ()
    """S velocities with the graphs of their gradients, of distinct rows only (`distinct_rows`); empty where the update computes them."""

    @property
    def num_samples(self) -> int:
        return self.final.shape[0]


def select_rows(cond: Conditioning, index_B: torch.Tensor) -> Conditioning:
    """The conditioning of the given rows, in that order; an index may repeat. Plain values are shared."""
    return {name: value[index_B.to(value.device)] if isinstance(value, torch.Tensor) else value for name, value in cond.items()}


def start_seeds(seed: int, iteration: int, context_ids: Sequence[str], num_starts: int) -> list[int]:
    """One seed of x_T a start; a group has G of them, or one that it shares."""
    return [derive_seed(seed, "start", iteration, context, member) for context in context_ids for member in range(num_starts)]


def step_seeds(seed: int, iteration: int, context_ids: Sequence[str], group_size: int, step: int) -> list[int]:
    """One seed of a step's noise a sample."""
    return [derive_seed(seed, "step", iteration, context, member, step) for context in context_ids for member in range(group_size)]


@torch.no_grad()
def rollout(
    editor: FlowEditor, cond: Conditioning, plan: Plan, context_ids: Sequence[str], window: tuple[int, ...], sampling: Sampling,
    *, group_size: int, seed: int, iteration: int, keep_means: bool = False, keep_graphs: bool = False,
) -> Trajectory:  # fmt: skip
    """Denoises G edits a context: Gaussian steps inside the window, Euler steps elsewhere.

    Members of a group that share their start are one and the same until the first noisy step, so they are computed once until then.
    `keep_graphs`: the window's velocities are computed with gradient, and kept.
    """
    shared = sampling.same_start
    schedule = Schedule(editor.sigmas(plan, sampling.steps))
    storage: torch.dtype = getattr(torch, sampling.storage)
    samples = cond if shared else editor.expand(cond, group_size)
    x = editor.noise(plan, start_seeds(seed, iteration, context_ids, 1 if shared else group_size)).float()
    latents: list[torch.Tensor] = []
    log_probs: list[torch.Tensor] = []
    means: list[torch.Tensor] = []
    velocities: list[torch.Tensor] = []
    for index in range(schedule.num_steps):
        if window and index == window[0]:  # the first trained step starts from what will be replayed: the stored latents
            x = x.to(storage).float()
        kept = keep_graphs and index in window
        with torch.set_grad_enabled(kept):
            v = editor.velocity(x, schedule.sigmas[index], samples).float()
        if kept:
            velocities.append(v)
            v = v.detach()
        if index not in window:
            x = x + (schedule.sigmas[index + 1] - schedule.sigmas[index]) * v
            continue
        if index == window[0]:
            if shared:
                x, v, samples = x.repeat_interleave(group_size, 0), v.repeat_interleave(group_size, 0), editor.expand(cond, group_size)
            latents.append(x.to(storage))
        step = window_step(schedule, index, sampling)
        noise = editor.noise(plan, step_seeds(seed, iteration, context_ids, group_size, index)).to(x.device)
        x, mean = advance(step, x, v, noise, storage)
        latents.append(x.to(storage))
        log_probs.append(log_prob(step, x, mean, sampling.log_prob))
        if keep_means:
            means.append(mean)
    steps = tuple(window_step(schedule, index, sampling) for index in window)
    return Trajectory(
        plan=plan,
        context_ids=tuple(context_ids),
        cond=cond,
        group_size=group_size,
        window=window,
        sigmas=tuple(schedule.sigmas[index] for index in window),
        steps=steps,
        latents=torch.stack(latents) if latents else x.new_zeros(0),
        log_probs=torch.stack(log_probs) if log_probs else x.new_zeros(0),
        final=x,
        means=torch.stack(means) if means else None,
        shared_start=shared,
        velocities=tuple(velocities),
    )


def window_step(schedule: Schedule, index: int, sampling: Sampling) -> Step:
    """The Gaussian step at `index`; sigmas[1] repairs flow_sde's first step."""
    return make_step(sampling.kind, *schedule.pair(index), sampling.level, schedule.sigmas[1])


@torch.no_grad()
def denoise(editor: FlowEditor, x_BLD: torch.Tensor, schedule: Schedule, cond: Conditioning) -> torch.Tensor:
    """Euler steps from x_T to x_0, [B, L, D] float32."""
    for index in range(schedule.num_steps):
        sigma, sigma_next = schedule.pair(index)
        x_BLD = x_BLD + (sigma_next - sigma) * editor.velocity(x_BLD, sigma, cond).float()
    return x_BLD


# --- by a server ---------------------------------------------------------------------------------------


PROBE = "probe"
SAME = 2.0  # ours: levels of 255 by which two pictures of one LoRA may differ on average, from batching and kernels


class Engine:
    """The server (`POST /images/edits` with a LoRA a request, as vllm-omni answers it), and which of the pushed adapters it samples with.

    The weights are pushed as a peft folder that the server reads, a new one each time since servers keep an adapter by its path. What comes
    back are finished pictures, without latents and densities of their steps: enough for the algorithms of the forward process.
    """

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
