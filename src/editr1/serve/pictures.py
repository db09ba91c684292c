"""The edits of a request while they wait: pictures stay encoded, are measured by their headers, and decoded when the judge takes them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editr1.errors import DataError
from editr1.judge.item import RewardItem
from editr1.pictures import announced_pixels, decode_image
from editr1.schema import Principle, source_of
from editr1.serve.guard import Limits
from editr1.serve.messages import Picture
from editr1.store import read_inside

_STEP = 4_000_000  # characters of base64, a multiple of four; in pieces, for the decoder holds up every other thread


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a picture file, and how its request calls it."""

    data: bytes
    where: str

    @property
    def pixels(self) -> int:
        """As the header says; 0 where that cannot be read (decoding says why)."""
        try:
            return announced_pixels(self.data)
        except DataError:
            return 0


@dataclass(frozen=True, slots=True)
class Draft:
    """An edit that waits to be judged."""

    sources: tuple[Encoded, ...]
    edited: Encoded
    instruction: str
    principles: tuple[Principle, ...] | None = None

    @property
    def pixels(self) -> int:
        return sum(picture.pixels for picture in self.pictures)

    @property
    def pictures(self) -> tuple[Encoded, ...]:
        """The sources, then the edit."""
        return (*self.sources, self.edited)

    def item(self) -> RewardItem:
        """The edit decoded, under an id of its pixels, instruction and principles: its seeds do not depend on its batch.

        Raises DataError, naming the picture, where one is broken.
        """
        pictures = [decode_image(picture.data, picture.where) for picture in self.pictures]
        digest = hashlib.sha256()
        for image in pictures:
            digest.update(repr(image.size).encode())
            for top in range(0, image.height, 256):  # in strips: a copy of the whole picture would hold up the event loop
                digest.update(image.crop((0, top, image.width, min(top + 256, image.height))).tobytes())
        digest.update(repr((self.instruction, self.principles)).encode())
        *sources, edited = pictures
        return RewardItem(source_of(sources), edited, self.instruction, self.principles, digest.hexdigest()[:16])


def check_pixels(drafts: Sequence[Draft], limits: Limits) -> None:
    """Raises DataError for a picture, or a request, of more pixels than the service takes. Reads headers only."""
    total = 0
    for picture in (picture for draft in drafts for picture in draft.pictures):
        pixels = picture.pixels
        total += pixels
        if pixels > limits.max_picture_pixels:
            raise DataError(f"{picture.where} is too large: {pixels:,} pixels, the limit is {limits.max_picture_pixels:,}; make it smaller")
    if total > limits.max_request_pixels:
        raise DataError(f"the request holds {total:,} pixels, the limit is {limits.max_request_pixels:,}; send smaller batches")


def from_base64(text: str, where: str) -> Encoded:
    """The picture of a base64 text, with or without `data:image/...;base64,` before it. Raises DataError, naming `where`."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        parts = (payload[start : start + _STEP] for start in range(0, len(payload), _STEP))
        return Encoded(b"".join([base64.b64decode(part, validate=True) for part in parts]), where)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where} is not base64 ({error})") from error


def from_message(picture: Picture, root: Path | None, where: str) -> Encoded:
    """The picture that a request sent or named. Raises DataError for anything else, and for any path while no root is allowed."""
    if picture.base64 is not None:
        return from_base64(picture.base64, where)
    if root is None:
        raise DataError(f"{where}: this service takes no paths; send base64, or start it with --root FOLDER")
    assert picture.path is not None
    return Encoded(read_inside(root, picture.path, links=False), where)
