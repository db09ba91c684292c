"""Any diffusers pipeline that takes a picture and an instruction, as it comes: FLUX.1-Kontext, Qwen-Image-Edit, and the next one.

    editor = build("black-forest-labs/FLUX.1-Kontext-dev", call={"num_inference_steps": 28, "guidance_scale": 2.5})

It samples with the pipeline's own loop and cannot be trained; for RL a model has an adapter file of its own beside this one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from editr1.editors._published import load_pipeline
from editr1.editors.base import Editor, EditRequest
from editr1.errors import ConfigError, nearest
from editr1.pictures import from_decoder, to_rgb
from editr1.placement import place_of
from editr1.schema import pictures_of

MULTIPLE = 16  # of height and width: 8 x VAE compression times 2 x 2 packing, the same in FLUX and Qwen-Image
SEVERAL = ("QwenImageEditPlusPipeline", "QwenImage21Pipeline", "Flux2Pipeline", "Flux2KleinPipeline")
"""Pipelines that take a list of pictures as one context; others would take it as a batch."""
_SET_HERE = ("image", "prompt", "generator", "output_type", "num_images_per_prompt", "return_dict")


def build(
    path: str,
    dtype: str = "bfloat16",
    device: str | None = None,
    offload: bool = False,
    lora: str | None = None,
    area: int | None = None,
    call: Mapping[str, Any] | None = None,
) -> Editor:
    """An editor around the pipeline at `path`, a local folder or a hub name.

    Args:
        dtype: of the weights.
        device: None = this process' accelerator, else the CPU.
        offload: keep only the part at work on the accelerator: slower, and a 12-billion-parameter model fits in 24 GB.
        lora: folder or file of an adapter to load, such as one that `edit-rl` exported.
        area: square pixels of an edit, in the source's shape; None = the size that the pipeline chooses.
        call: further arguments of the pipeline's call, such as num_inference_steps, guidance_scale, true_cfg_scale, negative_prompt.

    Raises ConfigError for a path, an adapter or an argument that does not fit.
    """
    pipe = load_pipeline(diffusers.DiffusionPipeline, path, dtype, "cpu" if offload else device)
    if lora is not None and hasattr(pipe, "load_lora_weights"):
        pipe.load_lora_weights(lora)
    elif lora is not None:  # LongCat's pipeline has no loader, its transformer has
        pipe.transformer.load_lora_adapter(lora, prefix="transformer", weight_name="pytorch_lora_weights.safetensors")
    if offload:
        pipe.enable_model_cpu_offload(device=place_of(device))
    pipe.set_progress_bar_config(disable=True)
    return PipelineEditor(pipe, path, area, dict(call or {}))


class PipelineEditor:
    """A diffusers pipeline behind the Editor protocol."""

    def __init__(self, pipe: Any, name: str, area: int | None, call: dict[str, Any]) -> None:
        self._pipe = pipe
        self.name = name
        self._area = area
        self._call = call
        self._reads_several = type(pipe).__name__ in SEVERAL
        self._accepted = list(inspect.signature(pipe.__call__).parameters)
        for key in ("image", "prompt"):
            if key not in self._accepted:
                raise ConfigError(f"{type(pipe).__name__} at {name!r} takes no {key!r}: it is no editing pipeline")
        for key in call:
            if key in _SET_HERE:
                raise ConfigError(f"call must not hold {key!r}: this adapter sets it")
            if key not in self._accepted:
                raise ConfigError(f"{type(pipe).__name__} takes no argument {key!r}; {nearest(key, self._accepted)}")

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        """One image a request, one after the other: sources differ in size, and some pipelines read a list as one context."""
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> Image.Image:
        # A generator on the CPU gives the same noise on every device, and edits that do not depend on their neighbours.
        generator = torch.Generator("cpu").manual_seed(request.seed)
        sources = [to_rgb(picture) for picture in pictures_of(request.source)]
        if len(sources) > 1 and not self._reads_several:
            raise ConfigError(f"{type(self._pipe).__name__} reads one source picture, the task has {len(sources)}")
        size = self._size(sources[0]) if self._area is not None else {}
        arguments = {
            "image": sources if len(sources) > 1 else sources[0],
            "prompt": request.instruction,
            "generator": generator,
            "output_type": "np",
        }
        with torch.inference_mode():
            pixels_HWC = np.asarray(self._pipe(**size, **self._call, **arguments).images[0])
        return from_decoder(pixels_HWC, self.name)

    def _size(self, source: Image.Image) -> dict[str, Any]:
        assert self._area is not None
        ratio = source.width / source.height
        sides = (math.sqrt(self._area * ratio), math.sqrt(self._area / ratio))
        width, height = (max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in sides)
        # Kontext moves a given size to one megapixel unless it is told the area and kept from choosing a resolution.
        size = {"height": height, "width": width, "max_area": height * width, "_auto_resize": False}
        return {key: value for key, value in size.items() if key in self._accepted}
