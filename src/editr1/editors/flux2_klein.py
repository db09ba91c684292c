"""FLUX.2-klein as a trainable editor, on diffusers' Flux2KleinPipeline parts: FLUX.2 with a small text encoder and true guidance.

The base models use classifier-free guidance, distilled ones none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from editr1.editors._families import MAX_TEXT_TOKENS, Flux2
from editr1.editors._published import Published, load
from editr1.editors.base import Footprint
from editr1.errors import ConfigError
from editr1.objectives.schedule import flux2_schedule

PUBLISHED = Published(128, 3.9e9, 25, 3072, 4.0e9, 0.08e9)  # klein 4B; encoder: Qwen3-4B


class KleinEditor(Flux2):
    """A FlowEditor over a Flux2KleinPipeline; options as in `build`."""

    name = "flux2_klein"
    text_layers = (9, 18, 27)

    def __init__(self, pipe: Any, guidance: float = 1.0, condition_area: int | None = None, text_tokens: int = MAX_TEXT_TOKENS) -> None:
        if guidance > 1.0 and pipe.config.is_distilled:
            raise ConfigError("this klein checkpoint is distilled and ignores guidance: set the editor's guidance to 1")
        super().__init__(pipe, None, guidance, condition_area, text_tokens)


from_pipeline = KleinEditor  # the editor around a pipeline in memory, which is frozen


def build(
    path: str = "black-forest-labs/FLUX.2-klein-base-4B", dtype: str = "bfloat16", device: str | None = None, guidance: float = 1.0,
    condition_area: int | None = None, text_tokens: int = MAX_TEXT_TOKENS, encoders: bool = True,
) -> KleinEditor:  # fmt: skip
    """The editor from a local folder or the hub; options of all trainable editors stand at `_published.load`.

    Args:
        guidance: classifier-free guidance of the base models; 1 = off, one forward a velocity. ours: off while training.
        text_tokens: length to which texts are padded.
    """
    from diffusers import Flux2KleinPipeline

    return load(KleinEditor, Flux2KleinPipeline, path, dtype, device, encoders, guidance, condition_area, text_tokens)


def footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
    """Sizes and cost without weights (of the 4-billion-parameter checkpoint)."""
    text, cfg = options.get("text_tokens", MAX_TEXT_TOKENS), options.get("guidance", 1.0)
    return PUBLISHED.footprint(height, width, options, cfg, partial(flux2_schedule, num_steps), lambda _: text)
