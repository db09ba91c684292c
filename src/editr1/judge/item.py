"""What a judge is asked about: one edit, with its pictures in memory."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from editr1.schema import Principle


@dataclass(frozen=True, slots=True)
class RewardItem:
    """One edit to judge."""

    source: Image.Image
    edited: Image.Image
    instruction: str
    principles: tuple[Principle, ...] | None = None
    """None: decomposed on the fly, where the prompt shows principles."""
    id: str = ""
    """With an id, the seeds of the traces depend on it and not on the item's place in the call."""
