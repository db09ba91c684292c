"""What a judge is asked about: one edit, with its pictures in memory."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from editr1.errors import DataError
from editr1.schema import Principle
from editr1.text import is_whole


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

    def __post_init__(self) -> None:
        """Raises DataError for text that no request can carry."""
        if not all(map(is_whole, (self.instruction, *(principle.question for principle in self.principles or ())))):
            raise DataError("the instruction or a principle holds half of a character (a lone surrogate), as where a tool cut an emoji")
