"""Pictures of a request, decoded without trusting it."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from PIL import Image

from editr1.errors import DataError
from editr1.pictures import decode_image
from editr1.serve.messages import Picture
from editr1.store import read_inside


def from_base64(text: str, where: str) -> Image.Image:
    """The picture of a base64 text, with or without `data:image/...;base64,` before it. Raises DataError, naming `where`."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where} is not base64 ({error})") from error
    return decode_image(data, where)


def open_picture(picture: Picture, root: Path | None, where: str) -> Image.Image:
    """The picture that a request sent or named. Raises DataError for anything else, and for any path while no root is allowed."""
    if picture.base64 is not None:
        return from_base64(picture.base64, where)
    if root is None:
        raise DataError(f"{where}: this service takes no paths; send base64, or start it with --root FOLDER")
    assert picture.path is not None
    return decode_image(read_inside(root, picture.path), where)
