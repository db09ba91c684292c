"""Qwen-Image-2.1 as a trainable editor, on diffusers' QwenImage21Pipeline parts.

Words and source tokens are one causal sequence: the source's latents stand where Qwen3-VL saw the picture, one of its slots for 2 x 2
tokens; the target comes last. A token is one latent of a VAE that compresses 16 x and has an opacity channel. Legend: see `_dit`.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from editr1.editors._dit import DiT, Pictures
from editr1.editors._published import INSTRUCTION_TOKENS, Published, builder, denormalised
from editr1.editors.base import Conditioning, Plan, sigma_rows
from editr1.errors import ConfigError
from editr1.objectives.schedule import flux_schedule

SLOT = 4  # tokens that stand in one slot


# encoder: Qwen3-VL-8B
footprint = Published(64, 7.1e9, 32, 4096, 8.8e9, 0.34e9, flux_schedule, INSTRUCTION_TOKENS, cfg=("true_cfg", 1.0), multiple=32).footprint


class QwenImage21Editor(DiT):
    """A FlowEditor over a QwenImage21Pipeline. true_cfg: classifier-free guidance; 1 = off, as the model is meant to be sampled."""

    name = "qwen_image_2_1"
    max_sources = 10  # ours: the pipeline sets no limit
    targets = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out")
    target_first = False
    ragged = True

    def __init__(self, pipe: Any, true_cfg: float = 1.0, negative: str = " ", condition_area: int | None = None) -> None:
        super().__init__(pipe, true_cfg, negative, condition_area)
        self.token = pipe.vae_scale_factor

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        """ "slots": the places in the words where the sources stand."""
        opaque = [picture.convert("RGBA") for picture in encoded]
        prompt, _, slots = self.pipe.encode_prompt(prompt=[text], image=opaque, device=self.device)
        places = tuple(slots[0].nonzero()[:, 0].tolist())
        tokens = sum(picture.width * picture.height for picture in encoded) // self.token**2
        if len(places) * SLOT != tokens:
            raise ConfigError(f"Qwen3-VL saw {len(places)} slots where {tokens} tokens stand: its processor resized a source picture")
        return {"prompt": prompt, "slots": places}

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        pixels = self.pipe.image_processor.preprocess(picture.convert("RGBA")).unsqueeze(2)
        latents = self.pipe._encode_vae_image(pixels.to(self.device, self.dtype), None)
        return latents.flatten(2).transpose(1, 2)

    def _forward(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning, prefix: str) -> torch.Tensor:
        """Words of one length at a time: the target's position follows from it, so that padding would move the target."""
        prompt, mask = cond[f"{prefix}prompt"], cond.get(f"{prefix}mask")
        lengths = [prompt.shape[1]] * len(prompt) if mask is None else mask.sum(1).tolist()
        sigma_B, v_BLD = sigma_rows(sigma, x_BLD), torch.empty_like(x_BLD, dtype=torch.float32)
        for length in sorted(set(lengths)):
            rows = torch.tensor([i for i, own in enumerate(lengths) if own == length], device=x_BLD.device)
            same = {"source": cond["source"][rows], f"{prefix}prompt": prompt[rows, :length]}
            v_BLD = v_BLD.index_copy(0, rows, super()._forward(x_BLD[rows], sigma_B[rows], cond | same, prefix))
        return v_BLD

    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        num_samples, num_tokens, _ = x_BLD.shape
        num_text = cond[f"{prefix}prompt"].shape[1]
        is_picture = torch.zeros(num_text + num_tokens // SLOT, dtype=torch.bool, device=x_BLD.device)
        is_picture[list(cond[f"{prefix}slots"])] = True
        is_picture[num_text:] = True
        return {
            "img_shapes": [[(1, *grid) for grid in (*cond["source_grids"], cond["grid"])]] * num_samples,
            "img_mask": is_picture.expand(num_samples, -1),
        }

    def vae_latents(self, x_BLD: torch.Tensor, plan: Plan) -> torch.Tensor:
        rows, columns = self.grid(plan.height, plan.width)
        return denormalised(x_BLD.transpose(1, 2).reshape(-1, plan.channels, 1, rows, columns), self.pipe.vae.config)


from_pipeline = QwenImage21Editor  # the editor around a pipeline in memory, which is frozen
build = builder(QwenImage21Editor, "QwenImage21Pipeline", "Qwen/Qwen-Image-2.1")
