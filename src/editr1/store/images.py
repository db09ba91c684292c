"""Images by content hash, and the one place where foreign bytes are decoded."""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
import warnings
from pathlib import Path

from PIL import Image, ImageOps

from editr1.errors import DataError
from editr1.schema import ImageRef

MAX_PIXELS = 50_000_000  # ours: twice the largest common camera; a bomb of 100 megapixels is refused from its header alone
MAX_BYTES = 100_000_000  # ours: no photograph of MAX_PIXELS is larger
FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}  # what every backend understands, and nothing with a rarely tested decoder
_DIGEST = re.compile(r"[0-9a-f]{64}")


def decode_image(data: bytes, where: str = "image") -> Image.Image:
    """The picture upright in RGB, transparency laid on white, decoded in full.

    Raises DataError, naming `where`, for empty, oversized, truncated or unknown data.
    """
    return _to_rgb(_open(data, where), where)


def _open(data: bytes, where: str) -> Image.Image:
    if not data:
        raise DataError(f"{where} is empty (zero bytes)")
    if len(data) > MAX_BYTES:
        raise DataError(f"{where} has {len(data):,} bytes, the limit is {MAX_BYTES:,}; make it smaller")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own, stricter limit follows
            image = Image.open(io.BytesIO(data), formats=tuple(FORMATS))
    except Image.DecompressionBombError as error:
        raise DataError(f"{where} is too large to decode: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{where} is not a readable PNG, JPEG or WebP image") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{where} has {image.width} x {image.height} pixels, the limit is {MAX_PIXELS:,}; make it smaller")
    return image


def _to_rgb(image: Image.Image, where: str) -> Image.Image:
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow reports broken data with any of these
        raise DataError(f"{where} is broken: {error}") from error


class ImageStore:
    """`images/ab/<hash>.<suffix>`: equal bytes are stored once, and a file that is there is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, image: Image.Image | bytes) -> ImageRef:
        """Stores a picture (as PNG) or encoded bytes (as they are, after they decoded). Raises DataError for bad bytes."""
        if isinstance(image, bytes):
            opened = _open(image, "image")
            suffix, data = FORMATS[opened.format or "PNG"], image
            width, height = _to_rgb(opened, "image").size
        else:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "PNG")
            suffix, data, (width, height) = "png", buffer.getvalue(), image.size
        ref = ImageRef(hashlib.sha256(data).hexdigest(), suffix, width, height)
        self._write(ref, data)
        return ref

    def path(self, ref: ImageRef) -> Path:
        """Where the image lies. Raises DataError for a reference that could name a file elsewhere."""
        if not _DIGEST.fullmatch(ref.digest) or ref.suffix not in FORMATS.values():
            raise DataError(f"bad image reference {ref.digest[:80]!r}.{ref.suffix!r}: expected 64 hex digits and png, jpg or webp")
        return self.root / ref.digest[:2] / f"{ref.digest}.{ref.suffix}"

    def read_bytes(self, ref: ImageRef) -> bytes:
        """The encoded bytes. Raises DataError when they are missing."""
        path = self.path(ref)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"image {path} is missing; restore the run's images folder or start a new run") from error

    def get(self, ref: ImageRef) -> Image.Image:
        """The picture in RGB. Raises DataError when it is missing or broken."""
        return decode_image(self.read_bytes(ref), str(self.path(ref)))

    def _write(self, ref: ImageRef, data: bytes) -> None:
        path = self.path(ref)
        if path.exists():
            return
        incoming = self.root / ".incoming" / f"{ref.digest}-{uuid.uuid4().hex}"  # unique: threads and hosts may race for one image
        incoming.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        incoming.write_bytes(data)
        os.replace(incoming, path)
