"""One picture has the same pixels by every way in; nothing is guessed at; nothing but our own error comes out."""

from __future__ import annotations

import ast
import base64
import io
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image, PngImagePlugin, WebPImagePlugin, features

import editr1
from editr1 import _containers
from editr1.errors import BackendError, DataError
from editr1.integrations._client import to_picture
from editr1.pictures import (
    MAX_RATIO,
    _say_animated,
    announced_pixels,
    decode_image,
    encode_picture,
    from_decoder,
    inspect_image,
    read_picture,
    to_rgb,
)
from editr1.serve.worker import Draft, from_base64
from editr1.store import ImageStore
from editr1.vlm.openai_api import data_url

SIZE = (40, 24)


def photo(size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth, and different in every corner and channel."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - (x + y) / 2], -1).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def translucent() -> Image.Image:
    image = photo().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    return image


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    return png[:33] + chunk(name, data) + png[33:]


def grey16() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1]))


FILES = {
    "rgb": saved(photo(), "PNG"),
    "grey": saved(photo().convert("L"), "PNG"),
    "one bit": saved(photo().convert("1"), "PNG"),
    "16 bit": saved(grey16(), "PNG"),
    "16 bit, one transparent": saved(grey16(), "PNG", transparency=0),
    "alpha": saved(translucent(), "PNG"),
    "grey alpha": saved(translucent().convert("LA"), "PNG"),
    "palette": saved(photo().quantize(16), "PNG"),
    "palette with a transparent entry": saved(photo().quantize(16), "PNG", transparency=3),
    "palette with alphas": saved(photo().quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    "a transparent colour": saved(photo(), "PNG", transparency=photo().getpixel((3, 3))),
    "upright by eXIf": saved(photo(), "PNG", exif=exif(6)),
    "jpeg": saved(photo(), "JPEG"),
    "grey jpeg": saved(photo().convert("L"), "JPEG"),
    "cmyk jpeg": saved(photo().convert("CMYK"), "JPEG"),
    "progressive jpeg": saved(photo(), "JPEG", progressive=True),
    "mpo": saved(photo(), "MPO", save_all=True, append_images=[photo((20, 12))]),
    "webp": saved(photo(), "WEBP", lossless=True),
    "webp with alpha": saved(translucent(), "WEBP", lossless=True, exact=True),
    "animated webp": saved(photo(), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", SIZE)]),
    "animated png": saved(photo(), "PNG", save_all=True, append_images=[Image.new("RGB", SIZE)]),
    "animated gif": saved(photo().quantize(32), "GIF", save_all=True, append_images=[Image.new("P", SIZE)]),
    "gif with a transparent entry": saved(photo().quantize(32), "GIF", transparency=3),
    **{f"jpeg turned {turn}": saved(photo(), "JPEG", exif=exif(turn)) for turn in range(1, 9)},
    **{f"webp turned {turn}": saved(photo(), "WEBP", exif=exif(turn)) for turn in (3, 6)},
    **({"avif": saved(photo(), "AVIF"), "avif turned": saved(photo(), "AVIF", exif=exif(6))} if features.check("avif") else {}),
}


def served(text: str) -> Image.Image:
    """What the service's judge is shown of a request's base64."""
    return Draft((from_base64(text, "x"),), from_base64(text, "y"), "do").item().edited


def pixels(image: Image.Image) -> tuple[Any, ...]:
    assert (image.mode, image.info, type(image)) == ("RGB", {}, Image.Image)
    return image.size, image.tobytes()


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_the_same_by_every_way_in(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    expected = pixels(decode_image(data))
    (tmp_path / "picture").write_bytes(data)
    store = ImageStore(tmp_path / "store")

    def opened() -> Image.Image:
        return Image.open(io.BytesIO(data))

    loaded = opened()
    loaded.load()
    array = np.asarray(decode_image(data))
    ways = {
        "path": read_picture(tmp_path / "picture"),
        "PIL": to_rgb(opened()),
        "PIL, loaded": to_rgb(loaded),
        "plug-ins, bytes": to_picture(data),
        "plug-ins, PIL": to_picture(opened()),
        "plug-ins, array": to_picture(array),
        "plug-ins, tensor": to_picture(torch.from_numpy(array.copy()).permute(2, 0, 1)),
        "plug-ins, floats": to_picture(torch.from_numpy(array.copy()).permute(2, 0, 1) / 255),
        "data URL": served(data_url(opened())),
        "service": served(base64.b64encode(data).decode()),
        "store, bytes": store.get(store.put(data)),
        "store, PIL": store.get(store.put(opened())),
        "own file": decode_image(encode_picture(opened())),
    }
    assert {way: pixels(image) == expected for way, image in ways.items()} == dict.fromkeys(ways, True)
    for reference in (store.put(data), store.put(opened())):
        assert (reference.width, reference.height) == expected[0]


@pytest.mark.parametrize("turn", range(1, 9))
def test_upright_is_what_pillow_calls_upright(turn: int) -> None:
    from PIL import ImageOps

    data = saved(photo(), "JPEG", exif=exif(turn))
    assert pixels(decode_image(data)) == pixels_of(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    held = photo()
    held.getexif()[0x0112] = turn
    assert to_rgb(held).tobytes() == ImageOps.exif_transpose(held).tobytes()
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{turn}"/></x:xmpmeta>'.encode()
    assert decode_image(saved(photo(), "JPEG", xmp=xmp)).size == ((24, 40) if turn > 4 else (40, 24))


def pixels_of(image: Image.Image | None) -> tuple[Any, ...]:
    assert image is not None
    return image.size, image.convert("RGB").tobytes()


def test_16_bits_become_8_and_hidden_colours_stay_hidden() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    image = Image.fromarray(np.repeat(values, 2, 0))
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert np.asarray(to_rgb(Image.fromarray(values.astype(np.int32))))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert to_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert read_picture(np.asarray(Image.new("RGBA", (2, 8), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16"]
)
def test_every_mode_of_pillow_is_read(mode: str) -> None:
    assert pixels(to_rgb(Image.new(mode, (3, 2))))[0] == (3, 2)


def odd_exif() -> dict[str, bytes]:
    """EXIF on which Pillow's own reader raises or grows, inside JPEGs that are good."""
    entries = {
        "cut": b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12",
        "no TIFF": b"Exif\0\0XX\0*\0\0\0\x08\0\0",
        "offset beyond the end": b"Exif\0\0II*\0\xff\xff\xff\xff\1\0",
        "resolution by zero": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x1a\0\5\0\0\0\1\0\0\0\x1a\0\0\0\0\0\0\0\1\0\0\0\0",
        "orientation as text": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\1six\0",
        "orientation 0": bytes(exif(1).tobytes()).replace(
            b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01", b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x00"
        ),
        "orientation 77": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x4d\0\0",
    }
    return {name: saved(photo(), "JPEG", exif=value) for name, value in entries.items()}


@pytest.mark.parametrize(("name", "data"), odd_exif().items())
def test_odd_exif_leaves_the_picture_as_it_is_stored(name: str, data: bytes) -> None:
    assert pixels(decode_image(data)) == pixels(decode_image(saved(photo(), "JPEG")))


@pytest.mark.parametrize(
    "data",
    [
        with_chunk(FILES["rgb"], b"tEXt", b"workflow\0" + b"x" * 3_000_000),
        with_chunk(FILES["rgb"], b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)),
        with_chunk(FILES["rgb"], b"iCCP", b"profile\0\0" + zlib.compress(b"x" * 3_000_000)),
        with_chunk(FILES["rgb"], b"eXIf", b"MM\0*\0\0\0\x08\0\x09\1\x12"),
        FILES["rgb"] + b"behind the end" * 9,
    ],
    ids=["long text", "long packed text", "long profile", "cut EXIF", "more behind the end"],
)
def test_what_is_not_pixels_does_not_matter(data: bytes) -> None:
    assert pixels(decode_image(data)) == pixels(decode_image(FILES["rgb"]))


def test_a_second_picture_behind_a_jpeg_is_stored_as_a_jpeg(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    reference = store.put(FILES["mpo"])
    assert (reference.suffix, store.read_bytes(reference)) == ("jpg", FILES["mpo"])
    assert inspect_image(FILES["mpo"])[1] == "JPEG"
    assert store.put(FILES["animated gif"]).suffix == "png"


def test_that_only_the_first_frame_counts_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    _say_animated.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("animated webp", "animated png", "animated gif", "animated webp"):
            assert decode_image(FILES[name]).size == SIZE
    assert sorted(record.args[0] for record in caplog.records if record.args) == ["GIF", "PNG", "WEBP"]


def gif_header(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0,\0\0\0\0" + struct.pack("<HH", width, height) + b"\0\2\2\x44\1\0;"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"hello", "not a readable image: expected PNG, JPEG, WebP, AVIF or GIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "HEIC"),
        (saved(photo(), "TIFF"), "a TIFF file: convert it"),
        (b"<!doctype html><html>login</html>", "HTML"),
        (saved(photo(), "PNG")[:-40], "broken"),
        (saved(photo((200, 200)), "JPEG")[:-1200], "broken"),
        (gif_header(60_000, 60_000), "60000 x 60000 pixels, the limit is"),
        (saved(Image.new("L", (1, MAX_RATIO + 1)), "PNG"), "a strip longer than 200 times its width"),
    ],
    ids=["empty", "text", "heic", "tiff", "html", "cut png", "cut jpeg", "huge", "strip"],
)
def test_what_cannot_be_read_says_why(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^row 7 .*{message}"):
        decode_image(data, "row 7")


@pytest.mark.parametrize("size", [(1, 1), (1, MAX_RATIO), (MAX_RATIO, 1), (2, 3)])
def test_thin_and_tiny_pictures_are_read(size: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        assert decode_image(saved(photo(size), kind)).size == size


def test_a_jpeg_that_paints_over_itself_for_minutes_is_refused() -> None:
    data = saved(photo((512, 512)), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff\xc4", start)] if b"\xff\xc4" in data[start:] else data[start:-2]
    with pytest.raises(DataError, match="scans"):
        decode_image(data[:-2] + scan * 7000 + data[-2:])


def test_a_gif_in_millions_of_pieces_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment of one-byte pieces costs Pillow a step of a loop, and fifty bytes, each."""
    monkeypatch.setattr(_containers, "MAX_BLOCKS", 5_000)
    whole, comment = FILES["animated gif"], b"!\xfe" + b"\x01a" * 10_000 + b"\0"
    at = 13 + 3 * 2 ** ((whole[10] & 7) + 1)  # behind the colour table
    with pytest.raises(DataError, match=r"row 7 is not a readable GIF image \(in more than 5,000 pieces"):
        decode_image(whole[:at] + comment + whole[at:], "row 7")
    with pytest.raises(DataError, match="pieces"):
        announced_pixels(whole[:at] + comment + whole[at:])


def test_nothing_but_the_first_frame_of_a_gif_is_opened() -> None:
    whole = FILES["animated gif"]
    first, more = _containers.bare_gif(whole)
    assert more
    assert pixels(decode_image(first)) == pixels(decode_image(whole)) == pixels(read_picture(Image.open(io.BytesIO(whole))))
    assert not Image.open(io.BytesIO(first)).is_animated


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_tensors_of_every_dtype_that_states_its_range(dtype: torch.dtype) -> None:
    values = torch.zeros(3, 5, 8, dtype=dtype)
    values[1] = 255 if dtype == torch.uint8 else 1
    image = read_picture(values.requires_grad_(values.is_floating_point()))
    assert image.size == (8, 5)
    assert image.getpixel((0, 0)) == (0, 255, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((8, 8, 3), 200, np.uint16), "holds uint16, expected uint8, or floats"),
        (np.full((8, 8, 3), 200), "holds int64"),
        (np.ones((8, 8, 3), bool), "holds bool"),
        (np.full((8, 8, 3), 200.0), r"floats from 200 to 200"),
        (np.linspace(-1, 1, 192).reshape(3, 8, 8), r"floats from -1 to 1"),
        (np.full((8, 8, 3), 1.01), r"floats from 1.01"),
        (np.full((8, 8, 3), np.nan), "NaN"),
        (torch.full((3, 8, 8), torch.inf), "infinite"),
        (np.zeros((8, 8), np.uint8), r"shape \[8, 8\]"),
        (np.zeros((1, 3, 8, 8), np.uint8), r"shape \[1, 3, 8, 8\]"),
        (np.zeros((2, 8, 8), np.uint8), r"shape \[2, 8, 8\]"),
        (np.zeros((3, 8, 3), np.uint8), "say which by layout"),
        (np.zeros((3, 0, 8), np.uint8), "no pixels"),
        (np.zeros((3, 8, 8), complex), "holds complex128"),
        (np.array("text"), "shape"),
        (Image.new("F", (8, 8)), "floats of unstated range"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "expected 0 to 65535"),
        (Image.new("RGB", (0, 4)), "nothing to see"),
        ([Image.new("RGB", (8, 8))], "is a list, expected"),
        (None, "is a NoneType"),
        ("/nowhere/at/all.png", "cannot read"),
        ("a\0b", "cannot read a"),
        (os.devnull, "is no file"),
        (Path(__file__).parent, "is no file"),
    ],
)
def test_nothing_is_guessed_at(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_picture(value)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3, 8, 8, device="meta"),
        torch.zeros(3, 8, 8).to_sparse(),
    ],
    ids=["meta", "sparse"],
)
def test_a_tensor_without_plain_values_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="expected plain values"):
        read_picture(value)


def test_a_layout_that_both_ends_fit_is_for_the_caller_to_say() -> None:
    array = np.zeros((3, 8, 3), np.uint8)
    assert (read_picture(array, layout="CHW").size, read_picture(array, layout="HWC").size) == ((3, 8), (8, 3))
    with pytest.raises(DataError, match="shape"):
        read_picture(np.zeros((3, 8, 5), np.uint8), layout="HWC")


def test_a_picture_whose_file_was_closed_is_data_and_no_crash() -> None:
    image = Image.open(io.BytesIO(FILES["jpeg"]))
    image.close()
    with pytest.raises(DataError, match="broken"):
        to_rgb(image)


def test_a_picture_that_breaks_off_stays_broken_however_often_it_is_asked() -> None:
    image = Image.open(io.BytesIO(saved(photo((200, 200)), "JPEG")[:-1200]))
    for _ in range(3):
        with pytest.raises(DataError, match="broken"):
            to_rgb(image)


def test_nothing_but_pixels_travels_on() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "who made it")
    data = saved(photo(), "PNG", pnginfo=notes, dpi=(300, 300), icc_profile=b"profile", exif=exif(1))
    for image in (decode_image(data), to_rgb(Image.open(io.BytesIO(data)))):
        names = [name for name in (b"tEXt", b"pHYs", b"iCCP", b"eXIf") if name in encode_picture(image)]
        assert names == []
    assert b"Exif" not in encode_picture(Image.open(io.BytesIO(FILES["jpeg turned 6"])), "jpeg")


def test_a_plain_picture_is_not_copied() -> None:
    image = photo()
    assert to_rgb(image) is image


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_edit_with_a_nan_is_the_machines_failure(value: float) -> None:
    pixels_ = np.full((4, 4, 3), 0.5, np.float32)
    assert from_decoder(pixels_ * 4, "e").getpixel((0, 0)) == (255, 255, 255)
    pixels_[0, 0, 0] = value
    with pytest.raises(BackendError, match="e: the edit holds NaN or infinite pixels"):
        from_decoder(pixels_, "e")


def test_nobody_else_makes_pixels() -> None:
    """`.convert("RGB")`, `Image.open` and `fromarray` stand in one file, besides the world's own drawing."""
    root = Path(editr1.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name, owner = node.func.attr, ast.unparse(node.func.value)
            converts = name == "convert" and any(isinstance(arg, ast.Constant) and arg.value == "RGB" for arg in node.args)
            if converts or (owner == "Image" and name in ("open", "fromarray", "frombytes")):
                found.append(path.relative_to(root).as_posix())
    assert set(found) == {"pictures.py", "world/scene.py"}


@pytest.mark.parametrize("checksum", [True, False], ids=["good checksum", "bad checksum"])
def test_exif_behind_the_pixels_turns_a_png_as_it_turns_pillows_picture(checksum: bool) -> None:
    data = saved(photo(), "PNG", exif=exif(6))
    stated = exif(3).tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack(">I", len(stated)) + b"eXIf" + stated
    behind = data[:-12] + late + struct.pack(">I", zlib.crc32(late[4:]) ^ (not checksum)) + data[-12:]
    opened = Image.open(io.BytesIO(behind))
    assert pixels(decode_image(behind)) == pixels(to_rgb(opened)) == pixels(decode_image(saved(photo(), "PNG", exif=exif(3))))


def png_parts(png: bytes) -> list[bytes]:
    """Signature, then every chunk."""
    parts, at = [png[:8]], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        parts.append(png[at:end])
        at = end
    return parts


def xmp(turn: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{turn}"/></x:xmpmeta>'.encode()


def png_xmp(turn: int, packed: bool = False) -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0" + (b"\1\0\0\0" + zlib.compress(xmp(turn)) if packed else bytes(4) + xmp(turn)))


def png_exif(turn: int) -> bytes:
    return chunk(b"eXIf", exif(turn).tobytes().removeprefix(b"Exif\0\0"))


def app1(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def webp_with(webp: bytes, name: bytes, body: bytes) -> bytes:
    """The chunk at the end, even its length."""
    body += b"\0" * (len(body) % 2)
    made = webp + name + struct.pack("<I", len(body)) + body
    return made[:4] + struct.pack("<I", len(made) - 8) + made[8:]


def turned_files() -> dict[str, tuple[bytes, int]]:
    """(file, the orientation that counts): metadata behind the pixels, behind a second frame, packed, and twice."""
    head, ihdr, idat, end = png_parts(FILES["rgb"])

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *SIZE, 0, 0, 1, 10, 0, 0))

    def counted(frames: int) -> bytes:
        return chunk(b"acTL", struct.pack(">II", frames, 0))

    first, second = control(0), control(1)
    more, alone = chunk(b"fdAT", b"\0\0\0\2" + idat[8:-4]), control(0) + chunk(b"fdAT", b"\0\0\0\1" + idat[8:-4])
    jpeg, webp, moving = FILES["jpeg"], saved(photo(), "WEBP", lossless=True, exif=exif(6)), FILES["animated webp"]
    jpeg_xmp = [app1(b"http://ns.adobe.com/xap/1.0/\0" + xmp(turn)) for turn in (3, 6)]
    return {
        "png, packed XMP": (head + ihdr + png_xmp(6, packed=True) + idat + end, 6),
        "png, XMP behind": (head + ihdr + idat + png_xmp(6) + end, 6),
        "png, XMP twice": (head + ihdr + png_xmp(3) + idat + png_xmp(6) + end, 6),
        "png, EXIF twice": (head + ihdr + png_exif(3) + idat + png_exif(6) + end, 6),
        "apng, EXIF behind the first frame": (head + ihdr + counted(2) + first + idat + png_exif(6) + second + more + end, 6),
        "apng, EXIF behind the last frame": (head + ihdr + counted(2) + first + idat + second + more + png_exif(6) + end, 1),
        "apng, a picture of its own and one frame": (head + ihdr + counted(1) + idat + alone + png_exif(6) + end, 1),
        "apng of too many frames": (head + ihdr + counted(2**31 + 1) + first + idat + second + png_exif(6) + end, 6),
        "apng counted twice": (head + ihdr + counted(2) * 2 + first + idat + second + png_exif(6) + end, 6),
        "apng counted behind": (head + ihdr + first + idat + counted(2) + second + png_exif(6) + end, 6),
        "jpeg, XMP twice": (jpeg[:2] + jpeg_xmp[0] + jpeg_xmp[1] + jpeg[2:], 6),
        "jpeg, EXIF twice": (jpeg[:2] + app1(exif(6).tobytes()) + app1(exif(3).tobytes()) + jpeg[2:], 6),
        "webp, EXIF behind the frames": (saved(photo(), "WEBP", lossless=True, save_all=True, append_images=[photo()], exif=exif(6)), 6),
        "webp, EXIF twice": (webp_with(webp, b"EXIF", exif(3).tobytes()), 6),
        "webp, XMP": (saved(photo(), "WEBP", lossless=True, xmp=xmp(6)), 6),
        "webp, EXIF that no header announces": (webp_with(moving, b"EXIF", exif(6).tobytes()), 1),
    }


@pytest.mark.parametrize(("data", "turn"), turned_files().values(), ids=turned_files())
def test_the_same_orientation_counts_by_every_way_in(data: bytes, turn: int, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(data)
    lazy, loaded = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(data))
    loaded.load()
    ways = {"bytes": decode_image(data), "path": read_picture(tmp_path / "picture"), "PIL": to_rgb(lazy), "PIL, loaded": to_rgb(loaded)}
    flat = pixels(decode_image(FILES["jpeg"])) if data.startswith(b"\xff") else pixels(photo())
    upright = photo()
    upright.frombytes(flat[1])
    upright = upright.transpose(Image.Transpose.ROTATE_270) if turn == 6 else upright
    assert {way: pixels(image) == pixels(upright) for way, image in ways.items()} == dict.fromkeys(ways, True)


def test_xmp_that_is_long_when_unpacked_does_not_matter() -> None:
    packed = with_chunk(FILES["rgb"], b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3_000_000)))
    assert pixels(decode_image(packed)) == pixels(photo())


def huge_files() -> dict[str, bytes]:
    """Small files whose header, or first frame, claims more pixels than are let in."""
    moving, still, lossy = FILES["animated webp"], FILES["webp"], saved(photo(), "WEBP")
    side = (8000 - 1).to_bytes(3, "little")
    frame = b"!\xf9\4\x08\0\0\0\0,\0\0\0\0" + struct.pack("<HH", 8000, 8000)
    made = {
        "animated webp": moving[:24] + side * 2 + moving[30:],
        "lossless webp": still[:21] + struct.pack("<I", 7999 | 7999 << 14) + still[25:],
        "lossy webp": lossy[:26] + struct.pack("<HH", 8000, 8000) + lossy[30:],
        "gif whose frame is larger than its screen": gif_header(8, 8)[:13] + b"!\xfe\4a,b;\0" + frame + b"\0\2\2\x44\1\0;",
    }
    if features.check("avif"):
        avif = FILES["avif"]
        at = avif.index(b"ispe") + 8
        made["avif"] = avif[:at] + struct.pack(">II", 8000, 8000) + avif[at + 8 :]
    return made


@pytest.mark.parametrize("data", huge_files().values(), ids=huge_files())
def test_a_huge_canvas_is_refused_before_a_decoder_is_opened(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WebPImagePlugin, "WebPImageFile", None)
    monkeypatch.setattr(GifImagePlugin, "GifImageFile", None)
    if features.check("avif"):
        from PIL import AvifImagePlugin

        monkeypatch.setattr(AvifImagePlugin, "AvifImageFile", None)
    assert announced_pixels(data) == 64_000_000
    with pytest.raises(DataError, match=r"^row 7 is too large: 8000 x 8000 pixels, the limit is 50,000,000"):
        decode_image(data, "row 7")


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_of_a_large_camera_is_read(lossless: bool) -> None:
    assert decode_image(saved(Image.new("RGB", (6200, 4150), "red"), "WEBP", lossless=lossless, method=0)).size == (6200, 4150)


@pytest.mark.parametrize("spelled", ["mail", "address", "bare", "url"])
def test_base64_is_read_however_it_is_spelled(spelled: str) -> None:
    data = FILES["jpeg"] + b"\xfb\xff"
    plain = base64.b64encode(data).decode()
    forms = {
        "mail": base64.encodebytes(data).decode().replace("\n", "\r\n"),
        "address": base64.urlsafe_b64encode(data).decode(),
        "bare": plain.rstrip("="),
        "url": f"DATA:image/jpeg;base64,{plain} ",
    }
    assert from_base64(forms[spelled], "x").data == data
    with pytest.raises(DataError, match="x is not base64"):
        from_base64(plain[:8] + "\u00e9" + plain[8:], "x")
