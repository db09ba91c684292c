"""Qwen-Image-Edit as a trainable editor, on diffusers' QwenImageEditPipeline parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from editr1.editors._dit import load_pipeline
from editr1.editors._qwen import Pictures, QwenFlow, prepared, qwen_footprint
from editr1.editors.base import Footprint


class QwenEditEditor(QwenFlow):
    """A FlowEditor over a QwenImageEditPipeline: words and picture are read at the source's encoding size."""

    name = "qwen_edit"

    def _encode_text(self, pictures: Pictures, text: str, size: tuple[int, int]) -> torch.Tensor:
        picture = pictures[0].resize((size[1], size[0]), Image.Resampling.LANCZOS)
        return self.pipe.encode_prompt(prompt=[text], image=[picture], device=self.device)[0]


def build(
    path: str = "Qwen/Qwen-Image-Edit", dtype: str = "bfloat16", device: str | None = None, true_cfg: float = 1.0, negative: str = " ",
    condition_area: int | None = None, encoders: bool = True,
) -> QwenEditEditor:  # fmt: skip
    """The editor from a local folder or the hub.

    Args:
        path: a QwenImageEditPipeline.
        dtype: of the frozen weights.
        device: None = this process' accelerator.
        true_cfg: classifier-free guidance, rescaled to the conditional norm; 1 = off. ours: off while training (one forward instead of
            two, and guidance amplifies every mismatch between rollout and replay).
        negative: text of the second pass.
        condition_area: square pixels of the encoded source; None = the target's size (the pipeline takes 1024 x 1024).
        encoders: False leaves the text encoders on disk; such an editor cannot encode (edit_rl.cache_encodings sets it).
    """
    from diffusers import QwenImageEditPipeline

    editor = from_pipeline(load_pipeline(QwenImageEditPipeline, path, dtype, device, encoders), true_cfg, negative, condition_area)
    editor.encoders = encoders
    return editor


def from_pipeline(pipe: Any, true_cfg: float = 1.0, negative: str = " ", condition_area: int | None = None) -> QwenEditEditor:
    """The editor around a pipeline in memory, which is frozen."""
    return QwenEditEditor(prepared(pipe), true_cfg, negative, condition_area)


def footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
    """Sizes and cost without weights (for the published checkpoint). The text includes the picture's tokens of the VL encoder."""
    return qwen_footprint(height, width, num_steps, options, vision_area=None)


__all__: Sequence[str] = ("QwenEditEditor", "build", "footprint", "from_pipeline")
