"""Qwen-Image-Edit as a trainable editor, on diffusers' QwenImageEditPipeline parts."""

from __future__ import annotations

from editr1.editors._families import QwenEdit, qwen_published
from editr1.editors._published import load

footprint = qwen_published().footprint


class QwenEditEditor(QwenEdit):
    """A FlowEditor over a QwenImageEditPipeline; options as in `build`."""

    name = "qwen_edit"


from_pipeline = QwenEditEditor  # the editor around a pipeline in memory, which is frozen


def build(
    path: str = "Qwen/Qwen-Image-Edit", dtype: str = "bfloat16", device: str | None = None, true_cfg: float = 1.0, negative: str = " ",
    condition_area: int | None = None, encoders: bool = True,
) -> QwenEditEditor:  # fmt: skip
    """The editor from a local folder or the hub; options of all trainable editors stand at `_published.load`.

    Args:
        true_cfg: classifier-free guidance, rescaled to the conditional norm; 1 = off. ours: off while training (one forward instead of
            two, and guidance amplifies every mismatch between rollout and replay).
    """
    from diffusers import QwenImageEditPipeline

    return load(QwenEditEditor, QwenImageEditPipeline, path, dtype, device, encoders, true_cfg, negative, condition_area)
