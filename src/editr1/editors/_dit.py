"""What the trainable diffusers adapters share: loading, sizes, noise, and rows of a conditioning.

Legend: B samples, T text tokens, E text channels, L target tokens, M source tokens, D channels of a packed token.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import pad

from editr1.editors.base import Conditioning, Plan
from editr1.errors import ConfigError
from editr1.objectives.schedule import exponential_schedule, flux_mu, static_schedule
from editr1.pictures import from_decoder
from editr1.placement import local_device

PIXELS_PER_TOKEN = 16  # 8 x VAE compression times 2 x 2 packing, the same in FLUX and Qwen-Image


TEXT_PARTS = ("text_encoder", "text_encoder_2")


def load_pipeline(cls: Any, path: str, dtype: str, device: str | None, encoders: bool = True) -> Any:
    """The pipeline with all weights in `dtype`, without gradient, on `device` (None = this process' own).

    `encoders` False leaves the text encoders on disk, for runs whose tasks are all encoded.

    Weights go to bf16 while they are read: kept in fp32 a frozen 12-billion-parameter transformer takes 48 GB.
    Raises ConfigError when `path` is neither a folder nor a name that the hub knows.
    """
    if not hasattr(torch, dtype):
        raise ConfigError(f"unknown dtype {dtype!r}, expected bfloat16, float16 or float32")
    try:
        pipe = cls.from_pretrained(path, torch_dtype=getattr(torch, dtype), **({} if encoders else absent_parts(cls)))
    except OSError as error:
        raise ConfigError(f"cannot load {cls.__name__} from {path!r}: {error}; give a local folder or a hub name") from error
    return prepare_pipeline(pipe, device)


def absent_parts(cls: Any) -> dict[str, None]:
    """Keyword arguments under which diffusers does not load the text encoders."""
    return {name: None for name in TEXT_PARTS if name in inspect.signature(cls.__init__).parameters}


class WithEncoders:
    """An adapter whose text encoders may be absent: then it can do everything but encode."""

    pipe: Any
    encoders: bool = True

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


def prepare_pipeline(pipe: Any, device: str | None = None) -> Any:
    """Freezes every part and moves it to its device."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipe.to(device or str(local_device()))


def to_pictures(pixels_BCHW: torch.Tensor, editor: str) -> list[Image.Image]:
    """What a VAE decoded, in [-1, 1], as pictures, the same as diffusers' own. Raises BackendError where it holds NaN or infinity."""
    pixels_BHWC = (pixels_BCHW * 0.5 + 0.5).permute(0, 2, 3, 1).float().cpu().numpy()  # not clamped yet: that would hide an infinity
    return [from_decoder(pixels_HWC, editor) for pixels_HWC in pixels_BHWC]


def make_plan(height: int, width: int, channels: int, multiple: int) -> Plan:
    """Sizes snapped down to what packing needs. Raises ConfigError when nothing is left."""
    height, width = height // multiple * multiple, width // multiple * multiple
    if height < multiple or width < multiple:
        raise ConfigError(f"a target of {width} x {height} px is smaller than one token of {multiple} px: raise height and width")
    return Plan(height, width, (height // multiple) * (width // multiple), channels)


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


def scheduler_sigmas(scheduler: Any, num_steps: int, mu: float) -> tuple[float, ...]:
    """The pipeline's own schedule as plain numbers; the scheduler object, which remembers its last call, is never stepped."""
    config = scheduler.config
    if not config.use_dynamic_shifting:
        return static_schedule(num_steps, config.shift).sigmas
    if config.time_shift_type != "exponential":
        raise ConfigError(f"schedulers with time_shift_type {config.time_shift_type!r} are not supported, expected exponential")
    return exponential_schedule(num_steps, mu, config.shift_terminal or None).sigmas


def scheduler_mu(scheduler: Any, num_tokens: int) -> float:
    """Flux's mu with the limits that the checkpoint's scheduler states."""
    config = scheduler.config
    return flux_mu(num_tokens, config.base_shift, config.max_shift, config.base_image_seq_len, config.max_image_seq_len)


def seeded_noise(plan: Plan, seeds: Sequence[int], device: torch.device) -> torch.Tensor:
    """x_T [B, L, D], float32, drawn on the CPU so that a seed means the same picture on every machine."""
    shape = (plan.num_tokens, plan.channels)
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


def expand_rows(cond: Conditioning, copies: int) -> Conditioning:
    """Each row `copies` times, neighbours first; plain values are shared."""
    return {k: v.repeat_interleave(copies, dim=0) if isinstance(v, torch.Tensor) else v for k, v in cond.items()}


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
