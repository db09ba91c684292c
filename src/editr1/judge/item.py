"""What a judge is asked about: one edit, with its pictures in memory."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from editr1.errors import ConfigError, DataError
from editr1.schema import Principle, Source, pictures_of
from editr1.text import is_whole


@dataclass(frozen=True, slots=True)
class RewardItem:
    """One edit to judge."""

    source: Source
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

    @property
    def only_source(self) -> Image.Image:
        """The source, for a judge that shows one picture. Raises ConfigError for several."""
        pictures = pictures_of(self.source)
        if len(pictures) > 1:
            raise ConfigError(f"this judge shows one source picture, the edit has {len(pictures)}: take a reasoning reward model")
        return pictures[0]
