"""FLUX.2-dev as a trainable editor, on diffusers' Flux2Pipeline parts.

Guidance is an embedded number, so a velocity is one forward.
"""

from __future__ import annotations

from typing import Any

from editr1.editors._published import MAX_TEXT_TOKENS, Flux2, Published, builder
from editr1.objectives.schedule import flux2_schedule

footprint = Published(128, 32.2e9, 56, 6144, 24.0e9, 0.08e9, flux2_schedule).footprint  # encoder: Mistral Small 3


class Flux2Editor(Flux2):
    """A FlowEditor over a Flux2Pipeline. guidance: embedded; text_tokens: length to which texts are padded."""

    name = "flux2"
    text_layers = (10, 20, 30)

    def __init__(self, pipe: Any, guidance: float = 4.0, condition_area: int | None = None, text_tokens: int = MAX_TEXT_TOKENS) -> None:
        super().__init__(pipe, guidance, 1.0, condition_area, text_tokens)


from_pipeline = Flux2Editor  # the editor around a pipeline in memory, which is frozen
build = builder(Flux2Editor, "Flux2Pipeline", "black-forest-labs/FLUX.2-dev")
