"""LongCat-Image-Edit as a trainable editor, on diffusers' LongCatImageEditPipeline parts.

FLUX's blocks under Qwen2.5-VL, which reads the source at half its size beside the words; classifier-free guidance of 4.5. The
pipeline has no LoRA loader, its transformer has (`load_lora_adapter` with prefix "transformer"). Legend: see `_dit`.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from editr1.editors._dit import DiT, Pictures
from editr1.editors._published import Published, builder
from editr1.editors.base import Conditioning
from editr1.objectives.schedule import flux_schedule

TEXT_TOKENS = 512  # the pipeline pads the instruction to this, behind the picture's tokens


# encoder: Qwen2.5-VL-7B, which reads the source at half its size
footprint = Published(64, 6.3e9, 30, 3072, 8.3e9, 0.08e9, flux_schedule, TEXT_TOKENS, lambda area: area // 4, ("true_cfg", 4.5)).footprint


class LongCatEditEditor(DiT):
    """A FlowEditor over a LongCatImageEditPipeline; the model is sampled with a `true_cfg` of 4.5."""

    name = "longcat_edit"

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        """Padded, so that texts never differ in length at one source size."""
        (picture,) = encoded
        half = self.pipe.image_processor.resize(picture, picture.height // 2, picture.width // 2)
        return {"prompt": self.pipe.encode_prompt(prompt=[text], image=half)[0]}

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        pixels = self.pipe.image_processor.preprocess(picture).to(self.device, self.dtype)
        latents = self.pipe._encode_vae_image(pixels, None)
        packed: torch.Tensor = self.pipe._pack_latents(latents, *latents.shape)
        return packed

    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        """Positions: words on the diagonal of modality 0; pictures of modality 1 and 2 begin where the words end."""
        from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import prepare_pos_ids

        num_text, start = cond[f"{prefix}prompt"].shape[1], cond["prompt"].shape[1]
        grids = (cond["grid"], *cond["source_grids"])
        image_ids = [prepare_pos_ids(i, "image", (start, start), height=h, width=w) for i, (h, w) in enumerate(grids, start=1)]
        return {
            "txt_ids": prepare_pos_ids(0, "text", num_token=num_text).to(x_BLD.device),
            "img_ids": torch.cat(image_ids).to(x_BLD.device, torch.float64),
        }


from_pipeline = LongCatEditEditor  # the editor around a pipeline in memory, which is frozen
build = builder(LongCatEditEditor, "LongCatImageEditPipeline", "meituan-longcat/LongCat-Image-Edit", true_cfg=4.5, negative="")
