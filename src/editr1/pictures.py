"""The pixels that a judge, an editor or a person sees: the one place where anything becomes a picture.

Whatever comes in (encoded bytes, a path, a PIL picture, an array, a tensor), out comes a PIL picture in RGB, 8 bits, upright, its
transparent parts on white, its first frame, without metadata. One picture has the same pixels by every way in, and a PIL picture those
of its own PNG file. Nothing is guessed: values whose range or layout is not stated are refused with what was expected.

Colour profiles are not applied (models are trained on pixels read without them). Everything wrong is a DataError.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import os
import stat
import struct
from typing import Any, Literal

import numpy as np
from PIL import GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin, features

from editr1._containers import announced_size, bare_gif, bare_jpeg, bare_png, kind_of, num_scans, orientation
from editr1.errors import BackendError, DataError

logger = logging.getLogger(__name__)

# ours: the largest common cameras; a bomb of 100 megapixels is refused from its header alone. One read takes at most 20 bytes a pixel, a
# gigabyte, for a transparent WebP (16 without transparency: its decoder holds the canvas three times); PNG takes 16 and 8, JPEG 8.
MAX_PIXELS = 50_000_000
MAX_BYTES = 100_000_000  # ours: no photograph of MAX_PIXELS is larger
MAX_RATIO = 200  # Qwen's processors refuse longer strips, and nobody judges one
MAX_SCANNED = 1_500_000_000  # ours: pixels times scans of a JPEG, seconds of decoding; a progressive photograph of MAX_PIXELS needs a third
GROUND = "white"  # ours: what transparent parts lie on, as on a page
ROUNDING = 1 / 1024  # ours: a quarter of an 8-bit level; floats further outside [0, 1] were scaled otherwise

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_EXPECTED = "expected PNG, JPEG, WebP, AVIF or GIF"
_EXIF_ORIENTATION = 0x0112


def read_picture(value: Any, where: str = "", layout: Literal["CHW", "HWC"] | None = None) -> Image.Image:
    """The picture of encoded bytes, a path, a PIL picture, an array or a tensor on any device.

    Arrays: uint8, or floats in [0, 1]; [3, H, W] or [H, W, 3], or 4 channels with alpha last. `layout` says which where both fit.
    Raises DataError, naming `where` (and the path), for everything else.
    """
    if isinstance(value, str | os.PathLike):
        where = f"{where} {os.fspath(value)[:300]}".lstrip()
        return decode_image(_read_file(value, where), where)
    where = where or "the picture"
    if isinstance(value, Image.Image):
        return to_rgb(value, where)
    if isinstance(value, bytes | bytearray | memoryview):
        return decode_image(bytes(value), where)
    if hasattr(value, "__array__"):
        return _from_array(value, where, layout)
    raise DataError(f"{where} is a {type(value).__name__}, expected encoded bytes, a path, a PIL picture, an array or a tensor")


def decode_image(data: bytes, where: str = "image") -> Image.Image:
    """The picture in a file's bytes. Raises DataError, naming `where`, for empty, oversized, cut, broken or unknown data."""
    return inspect_image(data, where)[0]


def inspect_image(data: bytes, where: str = "image") -> tuple[Image.Image, str]:
    """The picture in a file's bytes, and the format of the file: PNG, JPEG, WEBP, AVIF or GIF."""
    if not data:
        raise DataError(f"{where} is empty (zero bytes)")
    if len(data) > MAX_BYTES:
        raise DataError(f"{where} has {len(data):,} bytes, the limit is {MAX_BYTES:,}; make it smaller")
    kind = kind_of(data)
    opened, turn = _open(data, kind, where)
    _check_size(opened.size, where)
    if kind == "JPEG" and num_scans(data) * opened.width * opened.height > MAX_SCANNED:
        raise DataError(f"{where} is a JPEG of {num_scans(data):,} scans, which would take minutes to decode; save it again")
    if _is_animated(opened):
        _say_animated(kind)
    return _upright_rgb(opened, turn, where), kind


def announced_pixels(data: bytes, where: str = "image") -> int:
    """How many pixels a file's header says it has, before any is decoded. Raises DataError where it has no readable header."""
    kind = kind_of(data)
    return math.prod(_announced(data, kind, where) or _open(data, kind, where)[0].size)


def _announced(data: bytes, kind: str, where: str) -> tuple[int, int] | None:
    try:
        return announced_size(data, kind)
    except ValueError as error:
        raise DataError(f"{where} is not a readable {kind} image ({error})") from error


def _open(data: bytes, kind: str, where: str) -> tuple[Image.Image, int]:
    """The file opened, its pixels not yet decoded, and its orientation as far as it has been cut out."""
    announced = _announced(data, kind, where)
    if announced and 0 not in announced:
        _check_size(announced, where)
    try:
        if kind == "PNG":
            head, rest = bare_png(data)
            png = PngImagePlugin.PngImageFile(io.BytesIO(head))
            return png if png.is_animated or not rest else PngImagePlugin.PngImageFile(io.BytesIO(head + rest)), 1
        if kind == "JPEG":  # not by Image.open: it takes the second picture behind the first (MPO) for another format
            data, turn = bare_jpeg(data)
            return JpegImagePlugin.JpegImageFile(io.BytesIO(data)), turn
        if kind == "WEBP":
            return WebPImagePlugin.WebPImageFile(io.BytesIO(data)), 1
        if kind == "GIF":
            first, more = bare_gif(data)
            if more:
                _say_animated(kind)
            return GifImagePlugin.GifImageFile(io.BytesIO(first)), 1
        if kind == "AVIF" and features.check("avif"):
            from PIL import AvifImagePlugin  # Pillow 11.3 and newer

            return AvifImagePlugin.AvifImageFile(io.BytesIO(data)), 1
    except Exception as error:
        raise DataError(f"{where} is not a readable {kind} image ({error})") from error
    if kind == "AVIF":
        raise DataError(f"{where} is an AVIF image, which needs Pillow 11.3 or newer with libavif; upgrade pillow, or convert it to PNG")
    what = f"it seems to be {kind} file: convert it" if kind else "it is none of them"
    raise DataError(f"{where} is not a readable image: {_EXPECTED}, {what}")


def to_rgb(image: Image.Image, where: str = "the picture") -> Image.Image:
    """A PIL picture of any mode as its own PNG file would be read. Raises DataError for what has no defined colours or no sane size."""
    _check_size(image.size, where)
    return _upright_rgb(image, 1, where)


def _upright_rgb(image: Image.Image, turn: int, where: str) -> Image.Image:
    tile = getattr(image, "tile", None)
    try:
        image.load()
        turn = turn if turn > 1 else _stated_turn(image)
        if image.mode == "RGB" and turn == 1 and not image.info and type(image) is Image.Image:
            return image
        rgb = _on_ground(image, where)
        rgb = rgb.transpose(_TURNS[turn]) if turn in _TURNS else rgb
    except DataError:
        raise
    except Exception as error:
        if tile and isinstance(image, ImageFile.ImageFile):
            image.tile = tile  # Pillow takes a file that broke off for a whole one when it is asked again
        raise DataError(f"{where} is broken: {error or type(error).__name__}") from error
    rgb.info = {}
    return rgb


def _stated_turn(image: Image.Image) -> int:
    exif, xmp = image.info.get("exif", b""), image.info.get("xmp", b"")
    if isinstance(exif, bytes) and isinstance(xmp, bytes) and (exif or xmp):
        return orientation(exif, xmp)
    held = image.getexif().get(_EXIF_ORIENTATION) if not image.info else 1  # set in memory by its owner
    return held if isinstance(held, int) else 1


def _on_ground(image: Image.Image, where: str) -> Image.Image:
    """The stored pixels in RGB, a new picture; Pillow alone would clip 16 bits and show what lies hidden under transparency."""
    if image.mode == "F":
        raise DataError(f"{where} holds floats of unstated range (mode F); expected 8 or 16 bits, or an array of floats in [0, 1]")
    if image.mode.startswith("I"):
        return _from_16_bits(image, where)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")  # a copy of the largest pictures would be seen
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, GROUND), rgba).convert("RGB")


def _from_16_bits(image: Image.Image, where: str) -> Image.Image:
    """The high bytes, as every reader of 16-bit colour takes them."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{where} holds integers from {values.min()} to {values.max()} (mode {image.mode}), expected 0 to 65535")
    grey = (values >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == int(image.info["transparency"])] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_array(value: Any, where: str, layout: Literal["CHW", "HWC"] | None) -> Image.Image:
    if hasattr(value, "detach"):
        value = value.detach()
        if value.is_meta or value.is_sparse or value.is_quantized:
            raise DataError(f"{where} is a tensor of {value.layout} on {value.device} ({value.dtype}), expected plain values")
        value = value.cpu()
        value = value.float() if value.is_floating_point() else value  # numpy knows no bfloat16
    array = np.asarray(value)
    axes: dict[Literal["CHW", "HWC"], int] = {"CHW": 0, "HWC": 2} if array.ndim == 3 else {}
    fits = [name for name, axis in axes.items() if array.shape[axis] in (3, 4)]
    layout = layout or (fits[0] if len(fits) == 1 else None)
    if layout not in fits:
        hint = "; both fit, say which by layout" if len(fits) == 2 and layout is None else ""
        raise DataError(f"{where} has the shape {list(array.shape)}, expected one picture [3, H, W] or [H, W, 3]{hint}")
    pixels = _levels(array.transpose(1, 2, 0) if layout == "CHW" else array, where)
    if 0 in pixels.shape:
        raise DataError(f"{where} has the shape {list(array.shape)}: no pixels")
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), where)


def _levels(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    expected = "expected uint8, or floats in [0, 1]"
    if array.dtype.kind != "f":
        raise DataError(f"{where} holds {array.dtype}, {expected}")
    if array.size and not np.isfinite(array).all():
        raise DataError(f"{where} holds NaN or infinite values, {expected}")
    if array.size and (array.min() < -ROUNDING or array.max() > 1 + ROUNDING):
        raise DataError(f"{where} holds floats from {array.min():g} to {array.max():g}, {expected}; scale them first")
    return np.round(np.clip(array.astype(np.float64), 0.0, 1.0) * 255).astype(np.uint8)


def from_decoder(pixels_HWC: np.ndarray, editor: str) -> Image.Image:
    """An editor's decoded floats as a picture; decoders overshoot [0, 1] a little, so they are clipped.

    Raises BackendError for NaN or infinity, which would be cast to black: an overflow is the machine's failure and no edit.
    """
    if not np.isfinite(pixels_HWC).all():
        raise BackendError(f"{editor}: the edit holds NaN or infinite pixels; try dtype bfloat16 or float32, and more than one step")
    return Image.fromarray(np.round(np.clip(pixels_HWC, 0, 1) * 255).astype(np.uint8))


def encode_picture(image: Image.Image, kind: Literal["png", "jpeg"] = "png", quality: int = 95) -> bytes:
    """A file of the pixels that a judge sees and nothing else: PNG (exact) or JPEG. Raises DataError as `to_rgb` does."""
    buffer = io.BytesIO()
    try:
        to_rgb(image).save(buffer, kind.upper(), **({"quality": quality, "subsampling": 0} if kind == "jpeg" else {}))
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"the picture of {image.width} x {image.height} pixels cannot be written as {kind}: {error}") from error
    return buffer.getvalue()


def encode_small(image: Image.Image, side: int, exact: int) -> tuple[str, bytes]:
    """(MIME type, bytes) for a page: PNG for pixel art of at most `exact` pixels a side, else a WebP thumbnail of at most `side`."""
    buffer = io.BytesIO()
    if max(image.size) <= exact:
        image.save(buffer, "PNG", optimize=True)
        return "image/png", buffer.getvalue()
    small = image.copy()
    small.thumbnail((side, side))
    small.save(buffer, "WEBP", quality=80)
    return "image/webp", buffer.getvalue()


def _read_file(path: str | os.PathLike[str], where: str) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise DataError(f"{where} is no file")
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise DataError(f"cannot read {where}: {getattr(error, 'strerror', None) or error}") from error


def _check_size(size: tuple[int, int], where: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DataError(f"{where} has {width} x {height} pixels: there is nothing to see")
    if width * height > MAX_PIXELS:
        raise DataError(f"{where} is too large: {width} x {height} pixels, the limit is {MAX_PIXELS:,}; make it smaller")
    if max(size) > MAX_RATIO * min(size):
        raise DataError(f"{where} has {width} x {height} pixels: a strip longer than {MAX_RATIO} times its width; crop it")


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - the second frame is broken, the first may be good
        return False


@functools.cache
def _say_animated(kind: str) -> None:
    logger.warning("a picture is animated (%s): its first frame alone is looked at (said once)", kind)
