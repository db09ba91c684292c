"""What Qwen-Image-Edit and its Plus versions share: all but the size at which the text encoder sees the sources.

Latents are those of a video VAE with one frame, so the VAE speaks [B, C, 1, H, W]. Legend: see `_dit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from PIL import Image

from editr1.editors._dit import ATTENTION, DiT, Pictures, unpack
from editr1.editors._published import Published
from editr1.editors.base import Conditioning, Footprint, Plan
from editr1.objectives.schedule import qwen_schedule

PUBLISHED = Published(64, 20.4e9, 60, 3072, 8.3e9, 0.13e9)  # encoder: Qwen2.5-VL-7B
INSTRUCTION_TOKENS = 256  # ours: an upper bound for what people write, beside the picture's own tokens
VISION_PIXELS = 28  # side of the square that Qwen2.5-VL turns into one token


class QwenEdit(DiT):
    """The protocol; words and pictures are read at the sources' encoding size.

    Published checkpoints stretch the schedule to a last sigma of .02: end the window two steps early.
    """

    targets = (*ATTENTION, "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2")
    padded: ClassVar[dict[str, str]] = {"prompt": "mask", "negative_prompt": "negative_mask"}
    rescaled = True

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        return {"prompt": self.pipe.encode_prompt(prompt=[text], image=list(encoded), device=self.device)[0]}

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        pixels = self.pipe.image_processor.preprocess([picture]).unsqueeze(2)
        unused = torch.empty(0)  # prepare_latents would draw x_T from the global generator
        return self.pipe.prepare_latents(
            pixels, 1, self.config.in_channels // 4, picture.height, picture.width, self.transformer.dtype, self.device, None, unused
        )[1]

    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        shapes = [(1, *grid) for grid in (cond["grid"], *cond["source_grids"])]
        return {
            "guidance": None,
            "encoder_hidden_states_mask": cond.get(f"{prefix}mask"),
            "img_shapes": [shapes] * x_BLD.shape[0],  # also splits target from source tokens in models with zero_cond_t
        }

    def vae_latents(self, x_BLD: torch.Tensor, plan: Plan) -> torch.Tensor:
        return denormalised(unpack(x_BLD, plan, self.grid(plan.height, plan.width)).unsqueeze(2), self.pipe.vae.config)


def denormalised(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Latents [B, C, 1, H, W] by the channels' own mean and deviation."""
    mean, std = (torch.tensor(v, device=latents.device).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
    return latents * std + mean


def qwen_footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any], vision_area: int | None) -> Footprint:
    """Sizes and cost without weights (for the published checkpoint). The text includes the picture's tokens of the VL encoder.

    `vision_area`: square pixels that the VL encoder reads; None = the source at its encoding size.
    """

    def text(area: int) -> int:
        return (vision_area or area) // VISION_PIXELS**2 + INSTRUCTION_TOKENS

    return PUBLISHED.footprint(height, width, options, options.get("true_cfg", 1.0), partial(qwen_schedule, num_steps), text)
