"""Two protocols: an `Editor` makes candidates, a `FlowEditor` can also be trained by Flow-GRPO.

A new editor is one file in this folder with a function `build(**options)`; see docs/how_to for an example.

Shape legend: B samples, L packed target tokens, D channels of a packed token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from editr1.errors import ConfigError
from editr1.schema import Source, pictures_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One edit to make: x_ref, q and the seed of the noise."""

    source: Source
    instruction: str
    seed: int

    def only_source(self, editor: str) -> Image.Image:
        """The source, for an editor that reads one picture. Raises ConfigError for several."""
        pictures = pictures_of(self.source)
        if len(pictures) > 1:
            raise ConfigError(f"{editor} reads one source picture, the task has {len(pictures)}: take an editor that reads several")
        return pictures[0]


class Editor(Protocol):
    """Makes edited images. Raises BackendError when the machine fails after its retries.

    An editor that will not make an edit on account of its content raises `ContentRefusedError`: that candidate is dropped.
    """

    @property
    def name(self) -> str: ...

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        """One image a request, in their order; equal requests give equal images."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes that follow from the target size, before any tensor exists."""

    height: int
    """Pixels of the decoded image, after snapping to what the model can do."""
    width: int
    num_tokens: int
    """L: packed target tokens (condition tokens not counted)."""
    channels: int
    """D: channels of one packed token."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a trainable editor costs, known without its weights.

    An adapter file may offer `footprint(height, width, num_steps, options) -> Footprint`; `editr1 edit-rl --dry-run` prints it.
    """

    plan: Plan
    num_condition_tokens: int
    """Packed tokens of the source picture that run beside the target's."""
    num_text_tokens: int
    """Upper bound."""
    forwards_per_velocity: int
    """2 with classifier-free guidance, else 1."""
    num_parameters: float
    """Of the transformer."""
    sigmas: tuple[float, ...]
    """The schedule of num_steps steps at this size."""
    num_layers: int
    """Blocks of the transformer."""
    hidden: int
    """Width of a token inside them."""
    num_encoder_parameters: float
    """Of the text encoders."""
    num_vae_parameters: float


Conditioning = dict[str, Any]
"""Tensors with a leading batch axis (and plain values that all samples share), made by `FlowEditor.encode`."""


class FlowEditor(Protocol):
    """A flow-matching editing model, opened up for RL. All tensors of a step are float32.

    An adapter whose text encoders may be absent also has an option `encoders` in its `build` and a method `release_encoders()`; then
    `edit_rl.cache_encodings` can free them.

    Everything model-specific lives behind these calls; schedule, step, KL, advantages, loss, adapters on and
    off, EMA and saving are model-free (`objectives/`, `stages/edit_rl.py`).
    """

    transformer: torch.nn.Module
    """The policy pi_theta; frozen but for its LoRA layers, or trained in full."""

    @property
    def name(self) -> str: ...

    def lora_targets(self) -> list[str]:
        """Module names that a LoRA adapter should wrap, as peft's `target_modules` understands them."""
        ...

    def plan(self, height: int, width: int) -> Plan:
        """The sizes for a target of height x width pixels."""
        ...

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        """The noise levels sigma_0 = 1 > ... > sigma_N = 0, num_steps + 1 numbers (objectives.schedule)."""
        ...

    def encode(self, sources: Sequence[Source], instructions: Sequence[str], plan: Plan) -> Conditioning:
        """Text and source image as conditioning, one row a context, without gradient. Called once per group."""
        ...

    def expand(self, cond: Conditioning, copies: int) -> Conditioning:
        """Each row repeated `copies` times, neighbours first (a a a b b b)."""
        ...

    def collate(self, conds: Sequence[Conditioning]) -> Conditioning:
        """Several conditionings as one batch; pads and masks texts of different length."""
        ...

    def noise(self, plan: Plan, seeds: Sequence[int]) -> torch.Tensor:
        """x_T [B, L, D], float32, each row a function of its own seed only."""
        ...

    def velocity(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning) -> torch.Tensor:
        """v = dx/dsigma [B, L, D], float32: the only place for condition tokens, guidance, CFG and slicing.

        `sigma` is one number, or a tensor [B] when the rows of a batch stand at different steps (`sigma_rows`).
        """
        ...

    def latents(self, images: Sequence[Image.Image], plan: Plan) -> torch.Tensor:
        """Pictures as packed latents at sigma = 0, [B, L, D] float32, without gradient: the inverse of `decode` up to the VAE's loss."""
        ...

    def decode(self, x_BLD: torch.Tensor, plan: Plan) -> list[Image.Image]:
        """Packed latents at sigma = 0 -> RGB images."""
        ...


def sigma_rows(sigma: float | torch.Tensor, x_BLD: torch.Tensor) -> torch.Tensor:
    """sigma as one float32 number a row of x, [B], on its device."""
    import torch

    return torch.as_tensor(sigma, dtype=torch.float32, device=x_BLD.device).expand(x_BLD.shape[0])
