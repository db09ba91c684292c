"""FLUX.1-Kontext as a trainable editor, on diffusers' FluxKontextPipeline parts.

The source picture runs as further tokens behind the target's, told apart by the first position coordinate; guidance is an
embedded number (2.5), so a velocity is one forward unless `true_cfg` > 1. Legend: see `_dit`.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from editr1.editors._dit import DiT, Pictures
from editr1.editors._published import MAX_TEXT_TOKENS, Published, builder, positions
from editr1.editors.base import Conditioning
from editr1.objectives.schedule import flux_schedule

# its text encoders are T5-XXL and CLIP
footprint = Published(64, 11.9e9, 57, 3072, 4.89e9, 0.08e9, flux_schedule, cfg=("true_cfg", 1.0)).footprint


class KontextEditor(DiT):
    """A FlowEditor over a FluxKontextPipeline.

    Args:
        guidance: embedded guidance.
        true_cfg: classifier-free guidance on top; 1 = off, as Kontext is used.
        text_tokens: T5 length; shorter is cheaper and cuts long instructions.
    """

    name = "kontext"

    def __init__(
        self, pipe: Any, guidance: float = 2.5, true_cfg: float = 1.0, negative: str = " ", condition_area: int | None = None,
        text_tokens: int = MAX_TEXT_TOKENS,
    ) -> None:  # fmt: skip
        super().__init__(pipe, true_cfg, negative, condition_area)
        self.guidance, self.text_tokens = guidance, text_tokens

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        """T5 states, and CLIP's pooled text [1, P]; T5 pads to `text_tokens`, so texts never differ in length."""
        prompt, pooled, _ = self.pipe.encode_prompt(prompt=[text], prompt_2=None, device=self.device, max_sequence_length=self.text_tokens)
        return {"prompt": prompt, "pooled": pooled}

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        return self.prepared(self.pipe.image_processor.preprocess([picture]), picture)

    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        dtype, device = self.dtype, x_BLD.device
        return {
            "guidance": torch.full((x_BLD.shape[0],), self.guidance, device=device) if self.config.guidance_embeds else None,
            "pooled_projections": cond[f"{prefix}pooled"].to(dtype),
            "txt_ids": torch.zeros(cond[f"{prefix}prompt"].shape[1], 3, device=device, dtype=dtype),
            "img_ids": positions((cond["grid"], *cond["source_grids"])).to(device, dtype),
        }


from_pipeline = KontextEditor  # the editor around a pipeline in memory, which is frozen
build = builder(KontextEditor, "FluxKontextPipeline", "black-forest-labs/FLUX.1-Kontext-dev")
