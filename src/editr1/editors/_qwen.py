"""What Qwen-Image-Edit and its Plus versions share: everything but how the words are encoded.

Legend: see `_dit`. Latents are those of a video VAE with one frame, so the VAE speaks [B, C, 1, H, W].
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
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
    make_plan,
    prepare_pipeline,
    scheduler_mu,
    scheduler_sigmas,
    seeded_noise,
    to_pictures,
)
from editr1.editors.base import Conditioning, Footprint, Plan, sigma_rows
from editr1.errors import ConfigError
from editr1.objectives.schedule import qwen_schedule

CHANNELS = 64  # 16 VAE channels x 2 x 2 packing
NUM_PARAMETERS = 20.4e9
_SIZES = (60, 3072, 8.3e9, 0.13e9)  # blocks, width, Qwen2.5-VL-7B, VAE
INSTRUCTION_TOKENS = 256  # ours: an upper bound for what people write, beside the picture's own tokens
VISION_PIXELS = 28  # side of the square that the VL encoder turns into one token

Pictures = tuple[Image.Image, ...]
"""The source pictures of one sample."""

_PADDED = {"prompt": "mask", "negative_prompt": "negative_mask"}


class QwenFlow(WithEncoders, ABC):
    """The protocol but for `_encode_text`."""

    name: str
    max_sources = 1

    def __init__(self, pipe: Any, true_cfg: float, negative: str, condition_area: int | None) -> None:
        self.pipe = pipe
        self.transformer: torch.nn.Module = pipe.transformer
        self.config = pipe.transformer.config
        self.true_cfg, self.negative, self.condition_area = true_cfg, negative, condition_area
        self.multiple = pipe.vae_scale_factor * 2

    @property
    def device(self) -> torch.device:
        return self.pipe.device

    def lora_targets(self) -> list[str]:
        """Attention and both streams' feed-forward layers."""
        attention = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
        return [f"attn.{name}" for name in attention] + ["img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"]

    def plan(self, height: int, width: int) -> Plan:
        return make_plan(height, width, self.config.in_channels, self.multiple)

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        """Published checkpoints stretch to a last sigma of .02: end the window two steps early."""
        return scheduler_sigmas(self.pipe.scheduler, num_steps, scheduler_mu(self.pipe.scheduler, plan.num_tokens))

    @abstractmethod
    def _encode_text(self, pictures: Pictures, text: str, size: tuple[int, int]) -> torch.Tensor:
        """States [1, T, E] of one sample; `size` is the first source's (height, width) in the VAE."""

    @torch.no_grad()
    def encode(self, sources: Sequence[Image.Image | Pictures], instructions: Sequence[str], plan: Plan) -> Conditioning:
        """A source is one picture, or several where the model reads several; samples of a batch have equally many, equally shaped ones."""
        self.check_encoders()
        rows = [
            self._encode_one((source,) if isinstance(source, Image.Image) else tuple(source), text, plan)
            for source, text in zip(sources, instructions, strict=True)
        ]
        return self.collate(rows)

    def _encode_one(self, pictures: Pictures, text: str, plan: Plan) -> Conditioning:
        """The negative text is encoded as itself: handing the positive states back in would make guidance a no-op."""
        if not 1 <= len(pictures) <= self.max_sources:
            raise ConfigError(f"{self.name} reads 1 to {self.max_sources} source picture(s), found {len(pictures)}")
        sizes = self._source_sizes(pictures, plan)
        cond: Conditioning = {"prompt": self._encode_text(pictures, text, sizes[0])}
        if self.true_cfg > 1.0:
            cond["negative_prompt"] = self._encode_text(pictures, self.negative, sizes[0])
        cond["source"] = torch.cat([self._encode_source(p, size) for p, size in zip(pictures, sizes, strict=True)], dim=1)
        return cond | {"grid": self._grid(plan.height, plan.width), "source_grids": tuple(self._grid(*size) for size in sizes)}

    def _source_sizes(self, pictures: Pictures, plan: Plan) -> list[tuple[int, int]]:
        """(height, width) of each source in the VAE: the first takes the target's shape, further ones keep their own at its area."""
        first = condition_size(plan, self.condition_area, self.multiple)
        area = self.condition_area or plan.height * plan.width
        shapes = [dataclasses.replace(plan, height=picture.height, width=picture.width) for picture in pictures[1:]]
        return [first, *(condition_size(shape, area, self.multiple) for shape in shapes)]

    def _encode_source(self, picture: Image.Image, size: tuple[int, int]) -> torch.Tensor:
        """Packed VAE latents [1, M, D]."""
        height, width = size
        pixels = self.pipe.image_processor.preprocess([picture.resize((width, height), Image.Resampling.LANCZOS)])
        unused = torch.empty(0)  # prepare_latents would draw x_T from the global generator
        return self.pipe.prepare_latents(
            pixels.unsqueeze(2), 1, self.config.in_channels // 4, height, width, self.transformer.dtype, self.device, None, unused
        )[1]

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image], plan: Plan) -> torch.Tensor:
        return torch.cat([self._encode_source(image, (plan.height, plan.width)) for image in images]).float()

    def expand(self, cond: Conditioning, copies: int) -> Conditioning:
        return expand_rows(cond, copies)

    def collate(self, conds: Sequence[Conditioning]) -> Conditioning:
        return collate_rows(conds, _PADDED)

    def noise(self, plan: Plan, seeds: Sequence[int]) -> torch.Tensor:
        return seeded_noise(plan, seeds, self.device)

    def velocity(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning) -> torch.Tensor:
        v = self._forward(x_BLD, sigma, cond, "")
        if self.true_cfg > 1.0:
            v_negative = self._forward(x_BLD, sigma, cond, "negative_")
            guided = v_negative + self.true_cfg * (v - v_negative)
            v = guided * (v.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return v

    def _forward(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning, prefix: str) -> torch.Tensor:
        dtype = self.transformer.dtype
        shapes = [(1, *cond["grid"]), *((1, *grid) for grid in cond["source_grids"])]
        out = self.transformer(
            hidden_states=torch.cat([x_BLD.to(dtype), cond["source"].to(dtype)], dim=1),
            timestep=sigma_rows(sigma, x_BLD).to(dtype),
            guidance=None,
            encoder_hidden_states_mask=cond.get(f"{prefix}mask"),
            encoder_hidden_states=cond[f"{prefix}prompt"].to(dtype),
            img_shapes=[shapes] * x_BLD.shape[0],  # also splits target from source tokens in models with zero_cond_t
            return_dict=False,
        )[0]
        return out[:, : x_BLD.shape[1]].float()

    @torch.no_grad()
    def decode(self, x_BLD: torch.Tensor, plan: Plan) -> list[Image.Image]:
        rows, columns = self._grid(plan.height, plan.width)
        channels = plan.channels // 4
        latents = x_BLD.view(-1, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        latents = latents.reshape(-1, channels, 1, rows * 2, columns * 2)
        vae = self.pipe.vae
        mean, std = (torch.tensor(v, device=x_BLD.device).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        pixels = vae.decode((latents * std + mean).to(vae.dtype), return_dict=False)[0][:, :, 0]
        return to_pictures(pixels, self.name)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        return height // self.multiple, width // self.multiple


def prepared(pipe: Any) -> Any:
    """The pipeline frozen where it is."""
    return prepare_pipeline(pipe, str(pipe.device))


def qwen_footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any], vision_area: int | None) -> Footprint:
    """`vision_area`: square pixels that the VL encoder reads; None = the source at its encoding size."""
    plan = make_plan(height, width, CHANNELS, PIXELS_PER_TOKEN)
    source = condition_size(plan, options.get("condition_area"), PIXELS_PER_TOKEN)
    vision = (vision_area or source[0] * source[1]) // VISION_PIXELS**2
    forwards = 2 if options.get("true_cfg", 1.0) > 1.0 else 1
    tokens = source[0] * source[1] // PIXELS_PER_TOKEN**2
    sigmas = qwen_schedule(num_steps, plan.num_tokens).sigmas
    return Footprint(plan, tokens, vision + INSTRUCTION_TOKENS, forwards, NUM_PARAMETERS, sigmas, *_SIZES)
