"""Pictures for a page that must stay small: each image once, pixel art as it is, photographs as thumbnails."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

from PIL import Image

from editr1.schema import ImageRef
from editr1.store import ImageStore

PIXEL_ART = 128  # ours: pixels; anything smaller is drawn enlarged without smoothing, so the file keeps every pixel
THUMBNAIL = 384  # ours: pixels of the longer side; sharp on a phone at the width of a card
BUDGET = 5_000_000  # ours: encoded bytes of all pictures; base64 adds a third, and the page with its texts shall stay under 10 MB


@dataclass
class Album:
    """Collects pictures under short names until the budget is spent."""

    images: ImageStore
    budget: int = BUDGET
    uris: dict[str, str] = field(default_factory=dict)
    """Name -> data URI."""
    num_bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether no further picture should be added; what is being shown may still be completed."""
        return self.num_bytes >= self.budget

    def add(self, ref: ImageRef) -> str:
        """The picture's name on the page. Raises DataError when the run lacks the image."""
        name = ref.digest[:12]
        if name not in self.uris:
            mime, data = encode_small(self.images.get(ref))
            self.num_bytes += len(data)
            self.uris[name] = f"data:{mime};base64,{base64.b64encode(data).decode()}"
        return name


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
