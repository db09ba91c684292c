"""Pictures for a page that must stay small: each image once, pixel art as it is, photographs as thumbnails."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field, replace

from PIL import Image

from editr1.report.reading import DAMAGE, Reader
from editr1.schema import ImageRef
from editr1.store import ImageStore
from editr1.store.images import SUFFIXES

PIXEL_ART = 128  # ours: pixels; anything smaller is drawn enlarged without smoothing, so the file keeps every pixel
THUMBNAIL = 384  # ours: pixels of the longer side; sharp on a phone at the width of a card
BUDGET = 5_000_000  # ours: encoded bytes of all pictures; base64 adds a third, and the page with its texts shall stay under 10 MB
UNKNOWN = ""
"""Suffix of a reference that was written as a digest alone."""


@dataclass
class Album:
    """Collects pictures under short names until the budget is spent."""

    budget: int = BUDGET
    uris: dict[str, str] = field(default_factory=dict)
    """Name -> data URI."""
    num_bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether no further picture should be added; what is being shown may still be completed."""
        return self.num_bytes >= self.budget

    def add(self, reader: Reader, ref: ImageRef) -> str:
        """The picture's name on the page; empty for one that the run lacks or that is damaged, which is noted."""
        name, images = ref.digest[:12], reader.run.images
        if not images.root.is_dir():
            reader.note(images.root.name, "is missing, or no folder: no picture can be shown")
            return ""
        if name not in self.uris:
            try:
                mime, data = encode_small(images.get(_named(images, ref)))
            except DAMAGE as error:
                reader.note(f"images/{ref.digest[:2]}/{ref.digest}", error)
                return ""
            self.num_bytes += len(data)
            self.uris[name] = f"data:{mime};base64,{base64.b64encode(data).decode()}"
        return name


def _named(images: ImageStore, ref: ImageRef) -> ImageRef:
    if ref.suffix != UNKNOWN:
        return ref
    named = [replace(ref, suffix=suffix) for suffix in SUFFIXES.values()]
    return next((found for found in named if images.path(found).exists()), named[0])


def encode_small(image: Image.Image) -> tuple[str, bytes]:
    """(MIME type, bytes): PNG for pixel art, else a WebP thumbnail of at most THUMBNAIL pixels a side."""
    buffer = io.BytesIO()
    if max(image.size) <= PIXEL_ART:
        image.save(buffer, "PNG", optimize=True)
        return "image/png", buffer.getvalue()
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(buffer, "WEBP", quality=80)
    return "image/webp", buffer.getvalue()
