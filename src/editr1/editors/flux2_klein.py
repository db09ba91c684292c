"""FLUX.2-klein as a trainable editor, on diffusers' Flux2KleinPipeline parts: FLUX.2 with a small text encoder and true guidance.

The base models use classifier-free guidance, distilled ones none.
"""

from __future__ import annotations

from typing import Any

from editr1.editors._published import MAX_TEXT_TOKENS, Flux2, Published, builder
from editr1.errors import ConfigError
from editr1.objectives.schedule import flux2_schedule

# klein 4B; encoder: Qwen3-4B
footprint = Published(128, 3.9e9, 25, 3072, 4.0e9, 0.08e9, flux2_schedule, cfg=("guidance", 1.0)).footprint


class KleinEditor(Flux2):
    """A FlowEditor over a Flux2KleinPipeline.

    Args:
        guidance: classifier-free guidance of the base models; 1 = off, one forward a velocity. ours: off while training.
        text_tokens: length to which texts are padded.
    """

    name = "flux2_klein"
    text_layers = (9, 18, 27)

    def __init__(self, pipe: Any, guidance: float = 1.0, condition_area: int | None = None, text_tokens: int = MAX_TEXT_TOKENS) -> None:
        if guidance > 1.0 and pipe.config.is_distilled:
            raise ConfigError("this klein checkpoint is distilled and ignores guidance: set the editor's guidance to 1")
        super().__init__(pipe, None, guidance, condition_area, text_tokens)


from_pipeline = KleinEditor  # the editor around a pipeline in memory, which is frozen
build = builder(KleinEditor, "Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-base-4B")
