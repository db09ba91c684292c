"""Qwen-Image-Edit-Plus (2509, 2511) as a trainable editor, on diffusers' QwenImageEditPlusPipeline parts.

The pipeline itself takes one sample at a time; here samples share a batch by padding their texts under a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from editr1.editors._dit import load_pipeline
from editr1.editors._qwen import Pictures, QwenFlow, prepared, qwen_footprint
from editr1.editors.base import Footprint

MAX_SOURCES = 3  # the model card of 2509: one to three pictures
VISION_AREA = 384 * 384  # the pipeline's CONDITION_IMAGE_SIZE: the VL encoder reads a small copy of the source


class QwenEditPlusEditor(QwenFlow):
    """A FlowEditor over a QwenImageEditPlusPipeline; `encode` takes one picture a sample or a tuple of them."""

    name = "qwen_edit_plus"

    max_sources = MAX_SOURCES

    def _encode_text(self, pictures: Pictures, text: str, size: tuple[int, int]) -> torch.Tensor:
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

        small = []  # the prompt calls them "Picture 1", "Picture 2" and so on
        for picture in pictures:
            width, height = module.calculate_dimensions(module.CONDITION_IMAGE_SIZE, picture.width / picture.height)
            small.append(picture.resize((width, height), Image.Resampling.LANCZOS))
        return self.pipe.encode_prompt(prompt=[text], image=small, device=self.device)[0]


def build(
    path: str = "Qwen/Qwen-Image-Edit-2509", dtype: str = "bfloat16", device: str | None = None, true_cfg: float = 1.0,
    negative: str = " ", condition_area: int | None = None, encoders: bool = True,
) -> QwenEditPlusEditor:  # fmt: skip
    """The editor from a local folder or the hub; options as in `qwen_edit`."""
    from diffusers import QwenImageEditPlusPipeline

    editor = from_pipeline(load_pipeline(QwenImageEditPlusPipeline, path, dtype, device, encoders), true_cfg, negative, condition_area)
    editor.encoders = encoders
    return editor


def from_pipeline(pipe: Any, true_cfg: float = 1.0, negative: str = " ", condition_area: int | None = None) -> QwenEditPlusEditor:
    """The editor around a pipeline in memory, which is frozen."""
    return QwenEditPlusEditor(prepared(pipe), true_cfg, negative, condition_area)


def footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
    """Sizes and cost without weights (for the published checkpoint)."""
    return qwen_footprint(height, width, num_steps, options, vision_area=VISION_AREA)


__all__: Sequence[str] = ("QwenEditPlusEditor", "build", "footprint", "from_pipeline")
