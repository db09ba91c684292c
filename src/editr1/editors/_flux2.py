"""What FLUX.2-dev and FLUX.2-klein share: all but the text encoder and the kind of guidance.

Latents are patchified before they are normalised (by the VAE's batch-norm statistics), one token a 16-pixel square; the sources
stand at the time coordinates 10, 20 and so on. Legend: see `_dit`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from PIL import Image

from editr1.editors._dit import ATTENTION, DiT, Pictures, scheduler_sigmas
from editr1.editors.base import Conditioning, Plan
from editr1.objectives.schedule import flux2_mu

MAX_TEXT_TOKENS = 512
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
