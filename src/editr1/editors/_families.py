"""What models of one family share.

FLUX.2-dev and FLUX.2-klein: all but the text encoder and the kind of guidance. Latents are patchified before they are normalised (by the
VAE's batch-norm statistics), one token a 16-pixel square; the sources stand at the time coordinates 10, 20 and so on.

Qwen-Image-Edit and its Plus versions: all but the size at which the text encoder sees the sources. Latents are those of a video VAE with
one frame, so the VAE speaks [B, C, 1, H, W]. Legend: see `_dit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from PIL import Image

from editr1.editors._dit import ATTENTION, DiT, Pictures, scheduler_sigmas, unpack
from editr1.editors._published import VISION_PIXELS, Published
from editr1.editors.base import Conditioning, Plan
from editr1.objectives.schedule import flux2_mu, qwen_schedule

SOURCE_TIME = 10  # time coordinate of the first source picture, and from one to the next; the target's is 0


class Flux2(DiT):
    """The protocol; `guidance` is embedded, None where a model takes none."""

    max_sources = 10  # ours: the pipelines set no limit
    text_layers: ClassVar[tuple[int, ...]]
    """Hidden states of the text encoder that the model reads."""

    def __init__(self, pipe: Any, guidance: float | None, cfg: float, condition_area: int | None, text_tokens: int) -> None:
        super().__init__(pipe, cfg, "", condition_area)
        self.guidance, self.text_tokens = guidance, text_tokens

    def lora_targets(self) -> list[str]:
        """Attention of both block types; the single blocks fuse attention and feed-forward into two layers.

        Their output is named in full: `attn.to_out` alone would also match the double blocks' module list.
        """
        single = [f"single_transformer_blocks.{index}.attn.to_out" for index in range(self.config.num_single_layers)]
        return [*ATTENTION, "attn.to_qkv_mlp_proj", *single]

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        return scheduler_sigmas(self.pipe.scheduler, num_steps, flux2_mu(plan.num_tokens, num_steps))

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        """Padded to `text_tokens`: padding is part of what the model was trained on."""
        prompt = self.pipe.encode_prompt(
            prompt=[text], device=self.device, max_sequence_length=self.text_tokens, text_encoder_out_layers=self.text_layers
        )[0]
        return {"prompt": prompt}

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        pixels = self.pipe.image_processor.preprocess(picture, height=picture.height, width=picture.width)
        return self.pipe.prepare_image_latents([pixels], 1, None, self.device, self.pipe.vae.dtype)[0]

    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        num_samples, device = x_BLD.shape[0], x_BLD.device
        grids = (cond["grid"], *cond["source_grids"])
        image_ids = torch.cat([_ids(SOURCE_TIME * i, rows, columns, 1) for i, (rows, columns) in enumerate(grids)])
        text_ids = _ids(0, 1, 1, cond[f"{prefix}prompt"].shape[1])
        return {
            "guidance": None if self.guidance is None else torch.full((num_samples,), self.guidance, device=device),
            "txt_ids": text_ids.to(device).expand(num_samples, -1, -1),
            "img_ids": image_ids.to(device).expand(num_samples, -1, -1),
        }

    def vae_latents(self, x_BLD: torch.Tensor, plan: Plan) -> torch.Tensor:
        """De-normalised first, then unpatchified."""
        rows, columns = self.grid(plan.height, plan.width)
        norm = self.pipe.vae.bn
        std = (norm.running_var + self.pipe.vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1).float()
        latents = x_BLD.view(-1, rows, columns, plan.channels).permute(0, 3, 1, 2) * std + norm.running_mean.view(1, -1, 1, 1).float()
        latents = latents.reshape(-1, plan.channels // 4, 2, 2, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return latents.reshape(-1, plan.channels // 4, rows * 2, columns * 2)


def _ids(time: int, rows: int, columns: int, length: int) -> torch.Tensor:
    """Positions (time, row, column, place in the text), [rows * columns * length, 4]."""
    return torch.cartesian_prod(torch.tensor([time]), torch.arange(rows), torch.arange(columns), torch.arange(length))


# --- Qwen-Image-Edit and its Plus versions ------------------------------------------------------------

INSTRUCTION_TOKENS = 256  # ours: an upper bound for what people write, beside the picture's own tokens


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
            pixels, 1, self.config.in_channels // 4, picture.height, picture.width, self.dtype, self.device, None, unused
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


def qwen_published(vision_area: int | None = None) -> Published:
    """Sizes of the published checkpoints; the text includes the picture's tokens of the VL encoder, Qwen2.5-VL-7B.

    `vision_area`: square pixels that the VL encoder reads; None = the source at its encoding size.
    """

    def text(options: Mapping[str, Any], area: int) -> int:
        return (vision_area or area) // VISION_PIXELS**2 + INSTRUCTION_TOKENS

    return Published(64, 20.4e9, 60, 3072, 8.3e9, 0.13e9, qwen_schedule, text, ("true_cfg", 1.0))
