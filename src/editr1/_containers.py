"""Picture files taken apart: which kind the bytes are, and a PNG, JPEG or GIF with nothing in it but what its pixels need.

Pillow reads every text, profile and EXIF entry of a file while it opens it. One odd entry then refuses a good picture, and a few
thousand of them fill the memory. So those parts are cut out first; of EXIF and XMP, which a PNG may keep, only the orientation is read.
"""

from __future__ import annotations

import functools
import math
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from PIL import PngImagePlugin

PNG_START = b"\x89PNG\r\n\x1a\n"
_STARTS = {
    PNG_START: "PNG", b"\xff\xd8\xff": "JPEG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF",
    b"\xff\x0a": "a JPEG XL", b"\0\0\0\x0cJXL ": "a JPEG XL", b"8BPS": "a Photoshop document", b"%PDF": "a PDF",
    b"<": "a text (HTML or SVG)",
}  # fmt: skip
MAX_BLOCKS = 1_000_000  # ours: pieces of a GIF, two and a half times those of 100 MB as programs cut them; each costs a step of a loop
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL")
_PNG_XMP = b"XML:com.adobe.xmp\0"
_AVIF_SIZE = re.compile(rb"\0\0\0\x14ispe\0\0\0\0(.{8})", re.DOTALL)
_JPEG_EXIF, _JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_COLOURS = (0xE0, 0xEE)  # JFIF and Adobe: they say what the channels mean
_JPEG_BARE = (0x00, 0x01, *range(0xD0, 0xDA))  # no length behind them
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


def kind_of(data: bytes) -> str:
    """PNG, JPEG, WEBP, AVIF, GIF; else what people call the file, as part of a refusal; empty for what is none of them."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 128)]
        return "AVIF" if b"avif" in brands or b"avis" in brands else "a HEIC / HEIF (as phones write them) or a film"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), "")


def announced_size(data: bytes, kind: str) -> tuple[int, int] | None:
    """Width and height in the header of a WebP, GIF or AVIF, whose decoders take the memory while they are opened; None for others.

    Raises ValueError for a GIF in more than MAX_BLOCKS pieces.
    """
    little = functools.partial(int.from_bytes, byteorder="little")
    if kind == "WEBP" and data[12:16] == b"VP8X":
        return little(data[24:27]) + 1, little(data[27:30]) + 1
    if kind == "WEBP" and data[12:16] == b"VP8L":
        return (little(data[21:25]) & 0x3FFF) + 1, (little(data[21:25]) >> 14 & 0x3FFF) + 1
    if kind == "WEBP" and data[12:16] == b"VP8 ":
        return little(data[26:28]) & 0x3FFF, little(data[28:30]) & 0x3FFF
    if kind == "AVIF":
        sizes = [struct.unpack(">II", found[1]) for found in _AVIF_SIZE.finditer(data)]
        return max(sizes, key=math.prod, default=None)
    return _gif_size(data) if kind == "GIF" and len(data) > 13 else None


def _gif_size(data: bytes) -> tuple[int, int]:
    """The screen, or the first frame where that reaches beyond it."""
    width, height = struct.unpack_from("<HH", data, 6)
    for start, _ in _gif_blocks(data):
        if data[start] == ord(",") and start + 9 <= len(data):
            left, top, wide, high = struct.unpack_from("<HHHH", data, start + 1)
            return max(width, left + wide), max(height, top + high)
    return width, height


def bare_gif(data: bytes) -> tuple[bytes, bool]:
    """The first frame and what steers it, and whether another follows. Raises ValueError for more than MAX_BLOCKS pieces."""
    if len(data) <= 13:
        return data, False
    kept, has_frame = [data[: _behind_table(data, 10)]], False
    for start, end in _gif_blocks(data):
        is_frame = data[start] == ord(",")
        if is_frame and has_frame:
            return b"".join(kept) + b";", True
        if is_frame or (data[start + 1 : start + 2] == b"\xf9" and not has_frame):
            kept.append(data[start:end])
        has_frame |= is_frame
    return b"".join(kept), False


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each extension and frame, in order; the end may lie behind that of a file that broke off."""
    at, pieces = _behind_table(data, 10), 0
    while at < len(data) and data[at] != ord(";"):
        start = at
        if data[start] == ord(","):
            at = _behind_table(data, start + 9, start + 10) + 1
        elif data[start] == ord("!"):
            at += 2
        else:  # junk between blocks, which every decoder skips
            at += 1
            continue
        while at < len(data) and data[at]:
            at += data[at] + 1
            pieces += 1
            if pieces > MAX_BLOCKS:
                raise ValueError(f"in more than {MAX_BLOCKS:,} pieces; save it again")
        at += 1
        yield start, at


def _behind_table(data: bytes, flags_at: int, table_at: int = 13) -> int:
    """Where the colour table ends that the flags announce, perhaps of no colours."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return table_at + (3 << (flags & 7) + 1 if flags & 128 else 0)


def bare_png(data: bytes) -> tuple[bytes, bytes]:
    """The chunks that make the picture or may turn it, up to a second frame; and those behind that, for where there is no second frame.

    Which of several EXIF and XMP chunks counts is left to the decoder. So is a file that breaks off.
    """
    head: list[bytes] = [data[:8]]
    rest: list[bytes] = []
    kept, at, seen_pixels = head, 8, False
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if end > len(data) or not re.match(rb"\w{4}", name):
            kept.append(data[at:])
            break
        if name == b"fcTL" and seen_pixels:  # here the second frame begins
            kept = rest
        seen_pixels |= name in (b"IDAT", b"fdAT")
        if name in _PNG_PIXELS or (name in (b"fcTL", b"fdAT") and kept is head):
            kept.append(data[at:end])
        elif name == b"eXIf" or _is_xmp(data[at:end]):
            # Behind the pixels Pillow looks at no checksum; before them a wrong one would cost the picture.
            intact = zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
            kept.append(data[at:end] if seen_pixels or intact else b"")
        at = end
        if name == b"IEND":
            break
    return b"".join(head), b"".join(rest)


def _is_xmp(chunk: bytes) -> bool:
    """XMP that Pillow reads, packed or not. It refuses the whole picture for a packed one that is long: that is left out."""
    if chunk[4:8] != b"iTXt" or not chunk.startswith(_PNG_XMP, 8):
        return False
    flag, *texts = chunk[8 + len(_PNG_XMP) : 9 + len(_PNG_XMP)], *chunk[10 + len(_PNG_XMP) : -4].split(b"\0", 2)
    if flag == b"\0" or len(texts) < 3:  # language, key, XMP
        return True
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(texts[2], PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


def bare_jpeg(data: bytes) -> tuple[bytes, int]:
    """The segments that make the (first) picture, and its orientation."""
    kept, exif, xmp, at = [data[:2]], b"", b"", 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # junk and fill bytes between segments, which every decoder skips
            at += 1
            continue
        if marker in _JPEG_BARE:
            kept.append(data[at : at + 2] if marker else b"")
            at += 2
            continue
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == 0xDA or end > len(data):
            break
        body = data[at + 4 : end]
        if marker == 0xE1 and body.startswith(_JPEG_EXIF):
            exif += body.removeprefix(_JPEG_EXIF) if exif else body  # long EXIF goes on in a second segment
        elif marker == 0xE1 and body.startswith(_JPEG_XMP):
            xmp = body  # the last one counts
        if marker in _JPEG_COLOURS or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[at:end])
        at = end
    return b"".join(kept) + data[at:], orientation(exif, xmp)


def num_scans(data: bytes) -> int:
    """How often a JPEG paints over itself: inside pixel data 0xFF is always followed by 0."""
    return data.count(b"\xff\xda")


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """1 to 8 as EXIF numbers them; 1 where none is stated, and where the entry cannot be read.

    >>> orientation(b"Exif\\0\\0MM\\0*" + bytes([0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0])), orientation(b"MM\\0*\\xff")
    (6, 1)
    """
    tiff = exif.removeprefix(_JPEG_EXIF)
    orders: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
    order = orders.get(tiff[:2])
    if order is not None:
        start = int.from_bytes(tiff[4:8], order)
        last = min(start + 2 + 12 * int.from_bytes(tiff[start : start + 2], order), len(tiff)) - 12
        for at in range(start + 2, last + 1, 12):
            if int.from_bytes(tiff[at : at + 2], order) == 0x0112:
                size = {3: 2, 4: 4}.get(int.from_bytes(tiff[at + 2 : at + 4], order), 0)  # SHORT, LONG
                value = int.from_bytes(tiff[at + 8 : at + 8 + size], order)
                return value if 1 <= value <= 8 else 1
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1
