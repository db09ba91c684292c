"""Qwen-Image-Edit as a trainable editor, on diffusers' QwenImageEditPipeline parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editr1.editors._families import QwenEdit, qwen_footprint
from editr1.editors._published import load
from editr1.editors.base import Footprint


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


def footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
    """Sizes and cost without weights (for the published checkpoint). The text includes the picture's tokens of the VL encoder."""
    return qwen_footprint(height, width, num_steps, options, vision_area=None)
