"""The reader of pictures against mutated files, PIL pictures and arrays: no exception but ours, no two ways in with different pixels.

    python benchmarks/picture_fuzz.py --cases 100000 --workers 2

A case is made of its number alone. Files of every format and mode are damaged by flipped bits, cuts, copies, splices, edited headers
(with right checksums), chunks and segments that do not belong there, and EXIF of all sorts; each is read as bytes, from a path, as a PIL
picture before and after it was loaded, by the service, by the plug-ins, and out of the store. An edit of EXIF alone may turn a good
picture and must not cost it. Pillow refuses some files at `Image.open`, before they reach us: then the other ways are compared.
For that opening, which is not ours, Pillow is set to our limit of pixels: its own would let it take gigabytes here.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import logging
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, features
from tqdm import tqdm

from editr1.errors import DataError
from editr1.integrations._client import to_picture
from editr1.pictures import MAX_PIXELS, decode_image, encode_picture, read_picture, to_rgb
from editr1.serve.worker import Draft, from_base64
from editr1.store import ImageStore
from editr1.vlm.openai_api import data_url

MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
DTYPES = ["uint8", "uint16", "int64", "bool", "float16", "float32", "float64", "complex64"]
GOAL_SECONDS = 5.0  # of processor time for one case, all its ways in together; set beforehand
GOAL_MB = 1500  # of memory of a process: the largest picture that is let in takes 200 MB as RGB, and PIL needs it several times
PNG_EXTRA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"gAMA", b"sRGB", b"pHYs", b"IDAT", b"abCd")


def photo(rng: random.Random) -> Image.Image:
    width, height = rng.choice(((24, 16), (9, 13), (1, 7), (16, 16), (40, 3)))
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x * 7 + y * 3) % 256], -1).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


@cache
def good_files() -> list[tuple[str, bytes]]:
    """(format, bytes) of small pictures that are right."""
    rng = random.Random(0)
    files: list[tuple[str, bytes]] = []
    for _ in range(4):
        rgb, turn = photo(rng), exif(rng.randint(1, 8))
        rgba = rgb.convert("RGBA")
        rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
        grey16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
        palette = rgb.quantize(16)
        black = Image.new("RGB", rgb.size)
        for image in (rgb, rgb.convert("L"), rgb.convert("1"), rgba, rgba.convert("LA"), palette, grey16):
            files.append(("PNG", saved(image, "PNG", exif=turn)))
        files += [("PNG", saved(palette, "PNG", transparency=3)), ("PNG", saved(grey16, "PNG", transparency=0))]
        files += [("PNG", saved(palette, "PNG", transparency=bytes(range(0, 256, 16)))), ("PNG", saved(rgb, "PNG", transparency=(0, 0, 0)))]
        files += [("PNG", saved(rgb, "PNG", save_all=True, append_images=[black]))]
        files += [
            ("JPEG", saved(rgb.convert(mode), "JPEG", exif=turn, progressive=p)) for mode in ("RGB", "L", "CMYK") for p in (False, True)
        ]
        files += [("JPEG", saved(rgb, "MPO", save_all=True, append_images=[black]))]
        files += [("WEBP", saved(image, "WEBP", lossless=lossless, exif=turn)) for image in (rgb, rgba) for lossless in (True, False)]
        files += [("WEBP", saved(rgba, "WEBP", lossless=True, save_all=True, append_images=[black]))]
        files += [
            ("GIF", saved(palette, "GIF")),
            ("GIF", saved(palette, "GIF", transparency=2, save_all=True, append_images=[palette.rotate(9)])),
        ]
        if features.check("avif"):
            files += [("AVIF", saved(image, "AVIF", exif=turn)) for image in (rgb, rgba)]
    return files


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], png[at + 8 : end]
        at = end + 4


def number(rng: random.Random) -> int:
    """A size or offset as headers hold them: small, at a limit, or anything."""
    return rng.choice((0, 1, 2, 7, 16, 255, 256, 8000, 65_535, 65_536, 2**31 - 1, 2**32 - 1, rng.getrandbits(32), rng.randint(1, 7000)))


def noise(rng: random.Random, most: int) -> bytes:
    return rng.choice((rng.randbytes, bytes))(rng.randint(0, most))


def odd_exif(rng: random.Random) -> bytes:
    """EXIF from right to nonsense: entries of every type, sizes and offsets that lead anywhere."""
    order = rng.choice("<>")
    entries = [
        struct.pack(
            f"{order}HHI4s",
            rng.choice((0x0112, 0x011A, 0x0128, 0x8769, 0x8825, rng.getrandbits(16))),
            rng.choice((*range(14), rng.getrandbits(16))),
            rng.choice((0, 1, 1, 2, number(rng))),
            rng.choice((struct.pack(f"{order}I", number(rng)), struct.pack(f"{order}HH", rng.randint(0, 9), 0))),
        )
        for _ in range(rng.randint(0, 6))
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}IH", rng.choice((8, 8, 8, number(rng))), rng.choice((len(entries), 9, 65_535))
    )
    made = b"Exif\0\0" + head + b"".join(entries) + rng.choice((bytes(4), noise(rng, 40)))
    return made[: rng.randint(4, len(made))] if rng.random() < 0.2 else made


def edit_png(data: bytes, rng: random.Random) -> bytes:
    """Chunks edited, added, doubled and left out, every checksum right."""
    parts = list(chunks(data))
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(parts))
        name, body = parts[place]
        action = rng.randrange(5)
        if action == 0 and len(body) >= 13 and name == b"IHDR":
            side = rng.choice((0, 4))
            body = body[:side] + struct.pack(">I", number(rng)) + body[side + 4 :]
            parts[place] = name, rng.choice((body, body[:8] + rng.choice((body[8:9], rng.randbytes(1))) + rng.randbytes(1) + body[10:]))
        elif action == 1 and body:
            spot = rng.randrange(len(body))
            parts[place] = name, body[:spot] + rng.randbytes(1) + body[spot + 1 :]
        elif action == 2 and len(parts) > 1:
            del parts[place]
        elif action == 3:
            parts.insert(place + 1, parts[rng.randrange(len(parts))])
        else:
            extra = rng.choice(PNG_EXTRA)
            body = odd_exif(rng)[6:] if extra == b"eXIf" else rng.choice((b"key\0\0", b"XML:com.adobe.xmp\0\0\0\0\0", b"")) + noise(rng, 60)
            parts.insert(place + 1, (extra, body + zlib.compress(bytes(2_000_000)) if rng.random() < 0.02 else body))
    return data[:8] + b"".join(chunk(name, body) for name, body in parts)


def edit_head(data: bytes, rng: random.Random) -> bytes:
    """One number of the first bytes changed, where sizes, depths and lengths stand."""
    spot, size = rng.randrange(min(len(data), 400)), rng.choice((1, 2, 4))
    value = (number(rng) % 256**size).to_bytes(size, rng.choice(("big", "little")))
    return data[:spot] + value + data[spot + size :]


def add_segment(data: bytes, rng: random.Random) -> bytes:
    """A segment more at the head of a JPEG."""
    body = rng.choice((odd_exif(rng), b"MPF\0" + noise(rng, 80), b"http://ns.adobe.com/xap/1.0/\0" + noise(rng, 50), noise(rng, 300)))
    length = rng.choice((len(body) + 2, len(body) + 2, len(body) + 2, number(rng) % 65_536))
    return (
        data[:2]
        + b"\xff"
        + bytes([rng.choice((0xE0, 0xE1, 0xE1, 0xE2, 0xEE, 0xFE, 0xDB, 0xC4))])
        + struct.pack(">H", length)
        + body
        + data[2:]
    )


def damage(kind: str, data: bytes, rng: random.Random) -> bytes:
    """The file after one to three mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        action = rng.choice((0, 0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6))  # mostly what leaves a file that can be read
        spot, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        if action == 0:
            flipped = bytearray(data)
            for _ in range(rng.choice((1, 1, 2, 12)) if data else 0):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            data = bytes(flipped)
        elif action == 1:
            data = data[:other]
        elif action == 2:
            data = data[:spot] + data[other:]
        elif action == 3:
            data = data[:other] + data[spot:]
        elif action == 4:
            donor = rng.choice(good_files())[1]
            data = data[:other] + donor[rng.randrange(len(donor)) :]
        elif action == 5 and data:
            data = edit_head(data, rng)
        elif kind == "PNG" and data.startswith(b"\x89PNG"):
            data = edit_png(data, rng) if len(data) > 40 else data
        else:
            data = add_segment(data, rng) if kind == "JPEG" else data[:spot] + noise(rng, 40) + data[spot:]
    return data


# --- what must hold


def served(text: str) -> Image.Image:
    """What the service's judge is shown of a request's base64."""
    return Draft((from_base64(text, "x"),), from_base64(text, "y"), "do").item().edited


def pixels(make: Callable[[], Image.Image]) -> tuple[Any, ...] | str:
    """Size and pixels, "refused", or the exception that should not have come out."""
    try:
        image = make()
    except DataError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - looking for it is the point
        return f"{type(error).__name__}: {error}"[:200]
    return image.size, hashlib.blake2b(image.tobytes()).digest()


def opened(data: bytes, load: bool) -> Image.Image | None:
    try:
        with mock.patch.object(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS // 2):  # Pillow refuses above twice that
            image = Image.open(io.BytesIO(data))
            if load:
                image.load()
    except Exception:  # noqa: BLE001 - Pillow's, before the picture reaches us
        return None
    return image


def file_ways(data: bytes, folder: Path) -> dict[str, tuple[Any, ...] | str]:
    store = ImageStore(folder / "store")
    (folder / "file").write_bytes(data)
    ways = {
        "bytes": pixels(lambda: decode_image(data)),
        "path": pixels(lambda: read_picture(folder / "file")),
        "plug-ins": pixels(lambda: to_picture(data)),
        "service": pixels(lambda: served(base64.b64encode(data).decode())),
        "store": pixels(lambda: store.get(store.put(data))),
    }
    for load in (False, True):
        image = opened(data, load)
        if image is not None:
            ways |= pil_ways(image, f", loaded {load}", store)
    return ways


def pil_ways(image: Image.Image, name: str, store: ImageStore) -> dict[str, tuple[Any, ...] | str]:
    ways = {f"PIL{name}": pixels(lambda: to_rgb(image)), f"own file{name}": pixels(lambda: decode_image(encode_picture(image)))}
    if ways[f"PIL{name}"] != "refused":
        ways[f"data URL{name}"] = pixels(lambda: served(data_url(image)))
        ways[f"store, PIL{name}"] = pixels(lambda: store.get(store.put(image)))
        array = np.asarray(to_rgb(image))
        ways[f"array{name}"] = pixels(lambda: to_picture(array) if array.shape[0] not in (3, 4) else read_picture(array, layout="HWC"))
    return ways


def file_case(rng: random.Random, folder: Path) -> tuple[str, bytes, dict[str, Any]]:
    kind, data = rng.choice(good_files())
    data = damage(kind, data, rng)
    return kind, data, file_ways(data, folder)


def exif_case(rng: random.Random, folder: Path) -> tuple[str, bytes, dict[str, Any]]:
    """A good picture with any EXIF: as stored, or turned."""
    kind, data = rng.choice([file for file in good_files() if file[0] in ("JPEG", "PNG")])
    stored = sorted(decode_image(data).size)
    made = odd_exif(rng)
    if kind == "JPEG":
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(made) + 2) + made + data[2:]
    else:
        data = data[:33] + chunk(b"eXIf", made[6:]) + data[33:]
    ways = file_ways(data, folder)
    read = ways["bytes"]
    good = isinstance(read, tuple) and sorted(read[0]) == stored
    return "EXIF", data, ways if good else {**ways, "law": f"a good picture was lost to its EXIF: {str(read)[:80]}"}


def mode_case(rng: random.Random, folder: Path) -> tuple[str, bytes, dict[str, Any]]:
    """A PIL picture of any mode with any metadata, against its own PNG file where there can be one."""
    image = Image.new("RGB", (1, 1))
    mode = rng.choice(MODES)
    try:
        image = photo(rng).convert(mode)
    except ValueError:
        image = Image.new(mode, (5, 4))
    if rng.random() < 0.5:
        image.info["transparency"] = rng.choice((0, 3, 200, b"\0\x80", bytes(300), (0, 0, 0), (1, 2), "red", None, 1.5))
    if rng.random() < 0.3:
        image.info["exif"] = rng.choice((odd_exif(rng), exif(rng.randint(1, 8)), "text", None, b""))
    ways: dict[str, Any] = pil_ways(image, "", ImageStore(folder / "store"))
    try:
        own = saved(image, "PNG", **({"exif": image.info["exif"]} if isinstance(image.info.get("exif"), bytes) else {}))
    except Exception:  # noqa: BLE001 - Pillow writes no such file
        own = b""
    if own:
        ways["its PNG"] = pixels(lambda: decode_image(own))
    return f"mode {mode}", own, ways


def array_case(rng: random.Random, folder: Path) -> tuple[str, bytes, dict[str, Any]]:
    """An array is the picture that it states, or refused."""
    shape = rng.choice(((3, 5, 7), (5, 7, 3), (4, 5, 7), (5, 7, 4), (3, 5, 3), (5, 7), (2, 5, 7), (1, 3, 5, 7), (3, 0, 7), (), (3, 1, 900)))
    dtype = np.dtype(rng.choice(DTYPES))
    values = np.random.default_rng(rng.getrandbits(32)).random(shape) * rng.choice((1, 1, 1, 1.5, 255)) - rng.choice((0, 0, 0, 0.5))
    if rng.random() < 0.2 and values.size:
        values.flat[0] = rng.choice((np.nan, np.inf, -np.inf, 1 + 1e-4, -1e-4))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = (values * 255 if dtype.kind in "ui" and values.max(initial=0) <= 1 else values).astype(dtype)
    read = pixels(lambda: read_picture(array))
    states = dtype == np.uint8 or (
        dtype.kind == "f" and values.size and bool(np.isfinite(array).all()) and array.min() > -0.0009 and array.max() < 1.0009
    )
    readable = bool(states) and shape in ((3, 5, 7), (5, 7, 3), (4, 5, 7), (5, 7, 4))
    law = "" if (read != "refused") == readable else f"an array {shape} {dtype} was {'lost' if readable else 'guessed at'}"
    return "array", array.tobytes(), {"array": read, **({"law": law} if law else {})}


CASES = ((0.72, file_case), (0.1, exif_case), (0.12, mode_case), (0.06, array_case))


def run_cases(numbers: range) -> dict[str, Any]:
    """Counts and violations of some cases, by their numbers alone."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    counts: Counter[str] = Counter()
    violations, slowest = [], 0.0
    for case in numbers:
        rng = random.Random(f"picture {case}")
        (make,) = rng.choices([make for _, make in CASES], [weight for weight, _ in CASES])
        with tempfile.TemporaryDirectory(prefix="picture_fuzz_") as folder:
            begin = time.process_time()
            kind, data, ways = make(rng, Path(folder))
            slowest = max(slowest, time.process_time() - begin)
        shown = {read for read in ways.values() if isinstance(read, tuple)}
        wrong = {way: read for way, read in ways.items() if isinstance(read, str) and read != "refused"}
        counts[f"{kind}: {'read' if shown else 'refused'}"] += 1
        counts["one way refuses what another reads"] += bool(shown) and "refused" in ways.values()
        if wrong or len(shown) > 1:
            sizes = {way: read if isinstance(read, str) else (read[0], zlib.crc32(read[1])) for way, read in ways.items()}
            violations.append(
                {"case": case, "kind": kind, "ways": {way: str(read) for way, read in sizes.items()}, "data": data[:200].hex()}
            )
    return {"counts": counts, "violations": violations, "slowest": slowest, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    last = args.first + args.cases
    blocks = [range(start, min(start + 250, last)) for start in range(args.first, last, 250)]
    counts: Counter[str] = Counter()
    violations: list[dict[str, Any]] = []
    slowest = mb = 0.0
    with ProcessPoolExecutor(args.workers) as pool, tqdm(total=args.cases, unit="case", mininterval=5) as bar:
        for block, found in zip(blocks, pool.map(run_cases, blocks), strict=True):
            counts += found["counts"]
            violations += found["violations"]
            slowest, mb = max(slowest, found["slowest"]), max(mb, found["mb"])
            bar.update(len(block))
    for violation in violations[:20]:
        print(json.dumps(violation))
    print(json.dumps(dict(sorted(counts.items()))))
    holds = not violations and slowest < GOAL_SECONDS and mb < GOAL_MB
    what = "mutated pictures that raised another error than ours, or had two sets of pixels"
    line = {"what": what, "value": len(violations), "n": args.cases, "goal": 0, "slowest_seconds": round(slowest, 2)}
    print(json.dumps({**line, "goal_seconds": GOAL_SECONDS, "peak_mb": round(mb), "goal_mb": GOAL_MB, "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
