"""Qwen-Image-Edit-Plus (2509, 2511) as a trainable editor, on diffusers' QwenImageEditPlusPipeline parts.

The pipeline itself takes one sample at a time; here samples share a batch by padding their texts under a mask.
"""

from __future__ import annotations

from PIL import Image

from editr1.editors._dit import Pictures
from editr1.editors._published import QwenEdit, builder, qwen_published
from editr1.editors.base import Conditioning

VISION_AREA = 384 * 384  # the pipeline's CONDITION_IMAGE_SIZE: the VL encoder reads a small copy of the source
footprint = qwen_published(VISION_AREA).footprint


class QwenEditPlusEditor(QwenEdit):
    """A FlowEditor over a QwenImageEditPlusPipeline."""

    name = "qwen_edit_plus"
    max_sources = 3  # the model card of 2509: one to three pictures

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

        small = []  # the prompt calls them "Picture 1", "Picture 2" and so on
        for picture in pictures:
            size = module.calculate_dimensions(module.CONDITION_IMAGE_SIZE, picture.width / picture.height)
            small.append(picture.resize(size, Image.Resampling.LANCZOS))
        return super()._encode_text(text, pictures, tuple(small))


from_pipeline = QwenEditPlusEditor  # the editor around a pipeline in memory, which is frozen
build = builder(QwenEditPlusEditor, "QwenImageEditPlusPipeline", "Qwen/Qwen-Image-Edit-2509")
