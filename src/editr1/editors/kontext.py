"""FLUX.1-Kontext as a trainable editor, on diffusers' FluxKontextPipeline parts.

The source picture runs as further tokens behind the target's, told apart by the first position coordinate; guidance is an
embedded number (2.5), so a velocity is one forward unless `true_cfg` > 1. Legend: see `_dit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from editr1.editors._dit import (
    PIXELS_PER_TOKEN,
    WithEncoders,
    collate_rows,
    condition_size,
    expand_rows,
    load_pipeline,
    make_plan,
    prepare_pipeline,
    scheduler_mu,
    scheduler_sigmas,
    seeded_noise,
    to_pictures,
)
from editr1.editors.base import Conditioning, Footprint, Plan, sigma_rows
from editr1.objectives.schedule import flux_schedule

CHANNELS = 64  # 16 VAE channels x 2 x 2 packing
NUM_PARAMETERS = 11.9e9
MAX_TEXT_TOKENS = 512

_TEXTS = ("prompt", "pooled")
_SIZES = (57, 3072, 4.89e9, 0.08e9)  # blocks, width, T5-XXL and CLIP, VAE


class KontextEditor(WithEncoders):
    """A FlowEditor over a FluxKontextPipeline."""

    name = "kontext"

    def __init__(self, pipe: Any, guidance: float, true_cfg: float, negative: str, condition_area: int | None, text_tokens: int) -> None:
        self.pipe = pipe
        self.transformer: torch.nn.Module = pipe.transformer
        self.config = pipe.transformer.config
        self.guidance, self.true_cfg, self.negative = guidance, true_cfg, negative
        self.condition_area, self.text_tokens = condition_area, text_tokens
        self.multiple = pipe.vae_scale_factor * 2

    @property
    def device(self) -> torch.device:
        return self.pipe.device

    def lora_targets(self) -> list[str]:
        """Attention and feed-forward layers of both block types. ours: Flow-GRPO's choice for FLUX."""
        attention = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
        feed_forward = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"]
        return [f"attn.{name}" for name in attention] + feed_forward

    def plan(self, height: int, width: int) -> Plan:
        return make_plan(height, width, self.config.in_channels, self.multiple)

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        return scheduler_sigmas(self.pipe.scheduler, num_steps, scheduler_mu(self.pipe.scheduler, plan.num_tokens))

    @torch.no_grad()
    def encode(self, sources: Sequence[Image.Image], instructions: Sequence[str], plan: Plan) -> Conditioning:
        self.check_encoders()
        cond = self._encode_source(sources, plan) | dict(zip(_TEXTS, self._encode_text(list(instructions)), strict=True))
        if self.true_cfg > 1.0:
            negative = self._encode_text([self.negative] * len(instructions))
            cond |= {f"negative_{name}": value for name, value in zip(_TEXTS, negative, strict=True)}
        return cond

    def _encode_text(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """(T5 states [B, T, E], CLIP's pooled text [B, P]); T5 pads to `text_tokens`, so texts never differ in length."""
        prompt, pooled, _ = self.pipe.encode_prompt(prompt=texts, prompt_2=None, device=self.device, max_sequence_length=self.text_tokens)
        return prompt, pooled

    def _encode_source(self, sources: Sequence[Image.Image], plan: Plan) -> Conditioning:
        """Packed VAE latents [B, M, D] and their grid (rows, columns)."""
        height, width = condition_size(plan, self.condition_area, self.multiple)
        latents = self._packed(sources, height, width)
        return {"source": latents, "source_grid": (height // self.multiple, width // self.multiple), "grid": self._grid(plan)}

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image], plan: Plan) -> torch.Tensor:
        return self._packed(images, plan.height, plan.width).float()

    def _packed(self, images: Sequence[Image.Image], height: int, width: int) -> torch.Tensor:
        pixels = self.pipe.image_processor.preprocess([image.resize((width, height), Image.Resampling.LANCZOS) for image in images])
        unused = torch.empty(0)  # prepare_latents would draw x_T from the global generator
        packed: torch.Tensor = self.pipe.prepare_latents(
            pixels, len(images), self.config.in_channels // 4, height, width, self.transformer.dtype, self.device, None, unused
        )[1]
        return packed

    def expand(self, cond: Conditioning, copies: int) -> Conditioning:
        return expand_rows(cond, copies)

    def collate(self, conds: Sequence[Conditioning]) -> Conditioning:
        return collate_rows(conds, {})

    def noise(self, plan: Plan, seeds: Sequence[int]) -> torch.Tensor:
        return seeded_noise(plan, seeds, self.device)

    def velocity(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning) -> torch.Tensor:
        v = self._forward(x_BLD, sigma, cond, "")
        if self.true_cfg > 1.0:
            v_negative = self._forward(x_BLD, sigma, cond, "negative_")
            v = v_negative + self.true_cfg * (v - v_negative)
        return v

    def _forward(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning, prefix: str) -> torch.Tensor:
        dtype = self.transformer.dtype
        rows = x_BLD.shape[0]
        prompt = cond[f"{prefix}prompt"]
        guidance = torch.full((rows,), self.guidance, device=x_BLD.device) if self.config.guidance_embeds else None
        out = self.transformer(
            hidden_states=torch.cat([x_BLD.to(dtype), cond["source"].to(dtype)], dim=1),
            timestep=sigma_rows(sigma, x_BLD).to(dtype),
            guidance=guidance,
            pooled_projections=cond[f"{prefix}pooled"].to(dtype),
            encoder_hidden_states=prompt.to(dtype),
            txt_ids=torch.zeros(prompt.shape[1], 3, device=x_BLD.device, dtype=dtype),
            img_ids=_image_ids(cond["grid"], cond["source_grid"], x_BLD.device, dtype),
            return_dict=False,
        )[0]
        return out[:, : x_BLD.shape[1]].float()

    @torch.no_grad()
    def decode(self, x_BLD: torch.Tensor, plan: Plan) -> list[Image.Image]:
        """Untiled: tiles leave seams that a judge rewards or punishes."""
        rows, columns = self._grid(plan)
        channels = plan.channels // 4
        latents = x_BLD.view(-1, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        latents = latents.reshape(-1, channels, rows * 2, columns * 2).to(self.pipe.vae.dtype)
        vae = self.pipe.vae
        pixels = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        return to_pictures(pixels, self.name)

    def _grid(self, plan: Plan) -> tuple[int, int]:
        return plan.height // self.multiple, plan.width // self.multiple


def _image_ids(grid: tuple[int, int], source_grid: tuple[int, int], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Positions [L + M, 3]: (0, row, column) of the target, (1, row, column) of the source."""
    parts = [
        torch.cartesian_prod(torch.tensor([float(index)]), torch.arange(float(rows)), torch.arange(float(columns)))
        for index, (rows, columns) in enumerate((grid, source_grid))
    ]
    return torch.cat(parts).to(device, dtype)


def build(
    path: str = "black-forest-labs/FLUX.1-Kontext-dev", dtype: str = "bfloat16", device: str | None = None, guidance: float = 2.5,
    true_cfg: float = 1.0, negative: str = " ", condition_area: int | None = None, text_tokens: int = MAX_TEXT_TOKENS,
    encoders: bool = True,
) -> KontextEditor:  # fmt: skip
    """The editor from a local folder or the hub.

    Args:
        path: a FluxKontextPipeline.
        dtype: of the frozen weights.
        device: None = this process' accelerator.
        guidance: embedded guidance.
        true_cfg: classifier-free guidance on top; 1 = off, as Kontext is used.
        negative: text of the second pass.
        condition_area: square pixels of the encoded source; None = the target's size.
        text_tokens: T5 length; shorter is cheaper and cuts long instructions.
        encoders: False leaves the text encoders on disk; such an editor cannot encode (edit_rl.cache_encodings sets it).
    """
    from diffusers import FluxKontextPipeline

    pipe = load_pipeline(FluxKontextPipeline, path, dtype, device, encoders)
    editor = from_pipeline(pipe, guidance, true_cfg, negative, condition_area, text_tokens)
    editor.encoders = encoders
    return editor


def from_pipeline(
    pipe: Any, guidance: float = 2.5, true_cfg: float = 1.0, negative: str = " ", condition_area: int | None = None,
    text_tokens: int = MAX_TEXT_TOKENS,
) -> KontextEditor:  # fmt: skip
    """The editor around a pipeline in memory, which is frozen."""
    return KontextEditor(prepare_pipeline(pipe, str(pipe.device)), guidance, true_cfg, negative, condition_area, text_tokens)


def footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
    """Sizes and cost without weights (for the published checkpoint)."""
    plan = make_plan(height, width, CHANNELS, PIXELS_PER_TOKEN)
    rows, columns = (size // PIXELS_PER_TOKEN for size in condition_size(plan, options.get("condition_area"), PIXELS_PER_TOKEN))
    forwards = 2 if options.get("true_cfg", 1.0) > 1.0 else 1
    text = options.get("text_tokens", MAX_TEXT_TOKENS)
    return Footprint(plan, rows * columns, text, forwards, NUM_PARAMETERS, flux_schedule(num_steps, plan.num_tokens).sigmas, *_SIZES)
