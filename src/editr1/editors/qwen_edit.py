"""Qwen-Image-Edit as a trainable editor, on diffusers' QwenImageEditPipeline parts."""

from __future__ import annotations

from editr1.editors._published import QwenEdit, builder, qwen_published

footprint = qwen_published().footprint


class QwenEditEditor(QwenEdit):
    """A FlowEditor over a QwenImageEditPipeline."""

    name = "qwen_edit"


from_pipeline = QwenEditEditor  # the editor around a pipeline in memory, which is frozen
build = builder(QwenEditEditor, "QwenImageEditPipeline", "Qwen/Qwen-Image-Edit")
