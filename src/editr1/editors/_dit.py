"""What the trainable diffusers adapters share: all but how a model reads words and where its tokens stand.

Legend: B samples, T text tokens, E text channels, L target tokens, M source tokens, D channels of a packed token.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch.nn.functional import pad

from editr1.editors.base import Conditioning, Plan, sigma_rows
from editr1.errors import ConfigError
from editr1.objectives.schedule import exponential_schedule, flux_mu, static_schedule
from editr1.pictures import from_decoder, to_rgb
from editr1.placement import place_of
from editr1.schema import Source, pictures_of

_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
ATTENTION = tuple(f"attn.{name}" for name in _PROJECTIONS)  # of FLUX's double blocks, and of those built after them
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp")

TEXT_PARTS = ("text_encoder", "text_encoder_2")

Pictures = tuple[Image.Image, ...]
"""The source pictures of one sample."""


class DiT(ABC):
    """A FlowEditor over a diffusers pipeline, which is frozen where it is.

    Args:
        pipe: the pipeline; its text encoders may be absent, then the editor can do everything but encode.
        true_cfg: classifier-free guidance; above 1 a velocity is two forwards.
        negative: text of the second one.
        condition_area: square pixels of an encoded source; None = the target's size.
    """

    name: ClassVar[str]
    max_sources: ClassVar[int] = 1
    targets: ClassVar[tuple[str, ...]] = ATTENTION + FEED_FORWARD
    ragged: ClassVar[bool] = False
    """Whether texts differ in length: in one batch they are padded, under "mask" and "negative_mask"."""
    target_first: ClassVar[bool] = True
    """Whether the target's tokens stand before the sources' or after them."""
    rescaled: ClassVar[bool] = False
    """Whether guidance keeps the norm of the conditional velocity, token by token."""
    encoders = True

    def __init__(self, pipe: Any, true_cfg: float = 1.0, negative: str = " ", condition_area: int | None = None) -> None:
        self.pipe = frozen(pipe, str(pipe.device))
        self.transformer: torch.nn.Module = pipe.transformer
        self.config = pipe.transformer.config
        self.dtype: torch.dtype = pipe.transformer.dtype  # kept: diffusers looks through all modules at each reading
        self.cfg, self.negative, self.condition_area = true_cfg, negative, condition_area
        self.token = self.multiple = pipe.vae_scale_factor * 2  # 8 x VAE compression, 2 x 2 packing

    # --- what differs between models ---------------------------------------------------------------

    @abstractmethod
    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        """States [1, T, E] under "prompt", and what goes with them; `encoded`: the pictures at the size that the VAE reads."""

    @abstractmethod
    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        """Packed VAE latents [1, M, D] of a picture of a size that packs."""

    @abstractmethod
    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        """The transformer's arguments beside tokens, level and words: positions, guidance. `prefix`: of the words' names in `cond`."""

    def vae_latents(self, x_BLD: torch.Tensor, plan: Plan) -> torch.Tensor:
        """What the VAE decodes: unpacked and de-normalised, [B, C, H, W] or [B, C, 1, H, W]; here for the VAE of FLUX.1."""
        scale = self.pipe.vae.config
        return unpack(x_BLD, plan, self.grid(plan.height, plan.width)) / scale.scaling_factor + scale.shift_factor

    def prepared(self, pixels: torch.Tensor, picture: Image.Image) -> torch.Tensor:
        """Packed VAE latents by the `prepare_latents` of the pipelines that have the one of Kontext's form."""
        unused = torch.empty(0)  # it would draw x_T from the global generator
        channels, dtype = self.config.in_channels // 4, self.dtype
        packed: torch.Tensor = self.pipe.prepare_latents(
            pixels, 1, channels, picture.height, picture.width, dtype, self.device, None, unused
        )[1]
        return packed

    # --- the protocol ------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device  # the pipeline's own looks through all modules at each reading

    def lora_targets(self) -> list[str]:
        """ours: attention and feed-forward layers, Flow-GRPO's choice for FLUX."""
        return list(self.targets)

    def plan(self, height: int, width: int) -> Plan:
        return snapped(height, width, self.config.in_channels, self.multiple, self.token)

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        limits = self.pipe.scheduler.config
        mu = flux_mu(plan.num_tokens, limits.base_shift, limits.max_shift, limits.base_image_seq_len, limits.max_image_seq_len)
        return scheduler_sigmas(self.pipe.scheduler, num_steps, mu)

    @torch.no_grad()
    def encode(self, sources: Sequence[Source], instructions: Sequence[str], plan: Plan) -> Conditioning:
        """Samples of one batch have equally many sources, of equal shapes."""
        self.check_encoders()
        pairs = zip(sources, instructions, strict=True)
        return self.collate([self._encode_one(pictures_of(source), text, plan) for source, text in pairs])

    def _encode_one(self, pictures: Pictures, text: str, plan: Plan) -> Conditioning:
        """The negative text is encoded as itself: handing the positive states back in would make guidance a no-op."""
        if not 1 <= len(pictures) <= self.max_sources:
            raise ConfigError(f"{self.name} reads 1 to {self.max_sources} source picture(s), found {len(pictures)}")
        sizes = self._source_sizes(pictures, plan)
        encoded = tuple(_resized(picture, size) for picture, size in zip(pictures, sizes, strict=True))
        cond = self._encode_text(text, pictures, encoded)
        if self.cfg > 1.0:
            cond |= {f"negative_{name}": value for name, value in self._encode_text(self.negative, pictures, encoded).items()}
        cond["source"] = torch.cat([self._encode_picture(picture) for picture in encoded], dim=1)
        return cond | {"grid": self.grid(plan.height, plan.width), "source_grids": tuple(self.grid(*size) for size in sizes)}

    def _source_sizes(self, pictures: Pictures, plan: Plan) -> list[tuple[int, int]]:
        """(height, width) of each source in the VAE: the first takes the target's shape, further ones keep their own at its area."""
        area = self.condition_area or plan.height * plan.width
        shapes = [dataclasses.replace(plan, height=picture.height, width=picture.width) for picture in pictures[1:]]
        first = condition_size(plan, self.condition_area, self.multiple)
        return [first, *(condition_size(shape, area, self.multiple) for shape in shapes)]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of a picture's tokens."""
        return height // self.token, width // self.token

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image], plan: Plan) -> torch.Tensor:
        return torch.cat([self._encode_picture(_resized(image, (plan.height, plan.width))) for image in images]).float()

    def expand(self, cond: Conditioning, copies: int) -> Conditioning:
        return {k: v.repeat_interleave(copies, dim=0) if isinstance(v, torch.Tensor) else v for k, v in cond.items()}

    def collate(self, conds: Sequence[Conditioning]) -> Conditioning:
        return collate_rows(conds, {"prompt": "mask", "negative_prompt": "negative_mask"} if self.ragged else {})

    def noise(self, plan: Plan, seeds: Sequence[int]) -> torch.Tensor:
        """Drawn on the CPU, so that a seed means the same picture on every machine."""
        shape = (plan.num_tokens, plan.channels)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).to(self.device)

    def velocity(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning) -> torch.Tensor:
        v = self._forward(x_BLD, sigma, cond, "")
        if self.cfg <= 1.0:
            return v
        v_negative = self._forward(x_BLD, sigma, cond, "negative_")
        guided = v_negative + self.cfg * (v - v_negative)
        return guided * (v.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True)) if self.rescaled else guided

    def _forward(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning, prefix: str) -> torch.Tensor:
        dtype, num_tokens = self.dtype, x_BLD.shape[1]
        target, source = x_BLD.to(dtype), cond["source"].to(dtype)
        out = self.transformer(
            hidden_states=torch.cat([target, source] if self.target_first else [source, target], dim=1),
            timestep=sigma_rows(sigma, x_BLD).to(dtype),
            encoder_hidden_states=cond[f"{prefix}prompt"].to(dtype),
            return_dict=False,
            **self._inputs(x_BLD, cond, prefix),
        )[0]
        return (out[:, :num_tokens] if self.target_first else out[:, -num_tokens:]).float()

    @torch.no_grad()
    def decode(self, x_BLD: torch.Tensor, plan: Plan) -> list[Image.Image]:
        """Untiled: tiles leave seams that a judge rewards or punishes. Raises BackendError where the VAE gives NaN or infinity."""
        pixels = self.pipe.vae.decode(self.vae_latents(x_BLD, plan).to(self.pipe.vae.dtype), return_dict=False)[0]
        pixels_BCHW = pixels[:, :, 0] if pixels.ndim == 5 else pixels
        # not clamped yet: that would hide an infinity
        pixels_BHWC = (pixels_BCHW * 0.5 + 0.5).permute(0, 2, 3, 1).float().cpu().numpy()
        return [to_rgb(from_decoder(pixels_HWC, self.name)) for pixels_HWC in pixels_BHWC]

    # --- text encoders, placement ------------------------------------------------------------------

    def release_encoders(self) -> None:
        """Frees the text encoders' memory."""
        self.encoders = False
        for name in TEXT_PARTS:
            if name in self.pipe.components:
                setattr(self.pipe, name, None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def place(self, device: torch.device) -> None:
        """Moves what is not there yet; sharded weights stay where they were cut."""
        self.pipe.to(device)

    def check_encoders(self) -> None:
        """Raises ConfigError when there is nothing to encode with."""
        if not self.encoders:
            raise ConfigError(
                "this editor was loaded without its text encoders (encoders: false), but a task is not encoded yet: leave the option out, "
                "or set edit_rl.cache_encodings, which loads them when they are needed"
            )


def frozen(pipe: Any, device: str | None = None) -> Any:
    """The pipeline with every part frozen, on its device (None = this process' own)."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipe.to(str(place_of(device)))


def snapped(height: int, width: int, channels: int, multiple: int, token: int) -> Plan:
    """Sizes snapped down to `multiple`, at `token` x `token` pixels a token. Raises ConfigError when nothing is left."""
    height, width = height // multiple * multiple, width // multiple * multiple
    if height < multiple or width < multiple:
        raise ConfigError(f"a target of {width} x {height} px is smaller than {multiple} px: raise height and width")
    return Plan(height, width, (height // token) * (width // token), channels)


def condition_size(plan: Plan, area: int | None, multiple: int) -> tuple[int, int]:
    """(height, width) at which the source picture is encoded: the target's, or its shape at `area` square pixels.

    ours: the target's size; diffusers encodes sources at 1024 x 1024, which at a 512-pixel target makes every forward
    more than twice as long for nothing.
    """
    if area is None:
        return plan.height, plan.width
    ratio = plan.width / plan.height
    height, width = math.sqrt(area / ratio), math.sqrt(area * ratio)
    return max(multiple, round(height / multiple) * multiple), max(multiple, round(width / multiple) * multiple)


def unpack(x_BLD: torch.Tensor, plan: Plan, grid: tuple[int, int]) -> torch.Tensor:
    """Tokens of 2 x 2 latents as [B, D / 4, H, W]; the inverse of FLUX.1's packing."""
    rows, columns = grid
    latents = x_BLD.view(-1, rows, columns, plan.channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(-1, plan.channels // 4, rows * 2, columns * 2)


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """At (height, width)."""
    return picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)


def scheduler_sigmas(scheduler: Any, num_steps: int, mu: float) -> tuple[float, ...]:
    """The pipeline's own schedule as plain numbers; the scheduler object, which remembers its last call, is never stepped."""
    config = scheduler.config
    if not config.use_dynamic_shifting:
        return static_schedule(num_steps, config.shift).sigmas
    if config.time_shift_type != "exponential":
        raise ConfigError(f"schedulers with time_shift_type {config.time_shift_type!r} are not supported, expected exponential")
    return exponential_schedule(num_steps, mu, config.shift_terminal or None).sigmas


def collate_rows(conds: Sequence[Conditioning], padded: dict[str, str]) -> Conditioning:
    """One conditioning of many. `padded` maps a ragged tensor [B, T, E] to the name of its mask [B, T].

    Texts are padded on the right to the longest one; the mask appears only when something was padded, because attention
    without a mask runs on faster kernels. Raises ConfigError when plain values (sizes) differ: such samples cannot share a batch.
    """
    result: Conditioning = {}
    masks = set(padded.values())
    for key, first in sorted(conds[0].items(), key=lambda item: isinstance(item[1], torch.Tensor)):  # sizes first: they explain a misfit
        if key in masks:
            continue
        values = [cond[key] for cond in conds]
        if not isinstance(first, torch.Tensor):
            if any(value != first for value in values):
                raise ConfigError(f"samples of different {key} ({first} and others) cannot share a batch: put equal sizes together")
            result[key] = first
        elif key in padded:
            result |= _pad_text(key, padded[key], conds)
        else:
            result[key] = torch.cat(values)
    return result


def _pad_text(key: str, mask_key: str, conds: Sequence[Conditioning]) -> Conditioning:
    longest = max(cond[key].shape[1] for cond in conds)
    texts, masks = [], []
    for cond in conds:
        text_BTE = cond[key]
        mask_BT = cond.get(mask_key, torch.ones(text_BTE.shape[:2], dtype=torch.bool, device=text_BTE.device))
        missing = longest - text_BTE.shape[1]
        texts.append(pad(text_BTE, (0, 0, 0, missing)))
        masks.append(pad(mask_BT, (0, missing)))
    mask = torch.cat(masks)
    return {key: torch.cat(texts)} | ({} if bool(mask.all()) else {mask_key: mask})
