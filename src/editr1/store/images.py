"""Images by content hash."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from pathlib import Path

from PIL import Image

from editr1.errors import DataError
from editr1.pictures import decode_image, encode_picture, inspect_image, to_rgb
from editr1.schema import EditTask, ImageRef, Source, source_of

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}  # what every browser and backend shows; other formats are stored as PNG
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ImageStore:
    """`images/ab/<hash>.<suffix>`: equal bytes are stored once, and a file that is there is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, image: Image.Image | bytes) -> ImageRef:
        """Stores a picture (as PNG) or encoded bytes (as they are, after they decoded). Raises DataError for a bad picture."""
        if isinstance(image, bytes):
            picture, kind = inspect_image(image)
            suffix, data = (SUFFIXES[kind], image) if kind in SUFFIXES else ("png", encode_picture(picture))
        else:
            picture = to_rgb(image)
            suffix, data = "png", encode_picture(picture)
        ref = ImageRef(hashlib.sha256(data).hexdigest(), suffix, *picture.size)
        self._write(ref, data)
        return ref

    def path(self, ref: ImageRef) -> Path:
        """Where the image lies. Raises DataError for a reference that could name a file elsewhere."""
        if not _DIGEST.fullmatch(ref.digest) or ref.suffix not in SUFFIXES.values():
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

    def source_of(self, task: EditTask) -> Source:
        """The task's source picture, or all of several, in RGB. Raises DataError as `get` does."""
        return source_of([self.get(ref) for ref in task.sources])

    def _write(self, ref: ImageRef, data: bytes) -> None:
        path = self.path(ref)
        if path.exists():
            return
        incoming = self.root / ".incoming" / f"{ref.digest}-{uuid.uuid4().hex}"  # unique: threads and hosts may race for one image
        incoming.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with incoming.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a row that names the picture may be on the disk before it
        os.replace(incoming, path)
