"""Images by content hash, and what tables were made from, so that a list, picture, prompt or checkpoint that was changed since is noticed.

An origin is kept beside the row that was made from it. When the stage runs again, the words are compared; a picture is opened only
when its file has another size or time than it had, and then only its contents count.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

import editr1
from editr1.errors import ChangedInputsError, DataError
from editr1.pictures import decode_image, encode_picture, inspect_image, to_rgb
from editr1.schema import SCHEMA_VERSION, EditTask, ImageRef, Source, source_of
from editr1.store._files import read_object, write_json
from editr1.store.engine import ROW_TROUBLE
from editr1.store.shards import LOG, read_origins

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}  # what every browser and backend shows; other formats are stored as PNG
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)  # trouble of one name, of no disk
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


class Origin(NamedTuple):
    """What one item was made from."""

    words: str
    """Digest of what the list says of it."""
    stamp: str
    """Sizes and times of its files; empty where none are known."""
    content: str
    """Digest of its pictures."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An item's origin and its pictures; no pictures when the row is there and nothing has changed."""

    origin: Origin
    value: Any = None
    fault: str = ""
    """Why the pictures cannot be had, as the reason of a drop."""


class Origins:
    """The origins of a table's rows as former processes noted them; read when the first is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, Origin] | None = None

    def load(self, key: str, words: str, stamp: str, load: Callable[[], Any], where: str) -> Loaded:
        """The pictures of an item, if they are needed. Raises ChangedInputsError, naming `where`.

        load: gives encoded bytes, a picture, or several of them, or raises DataError.
        """
        old = self._read().get(key)
        if old is not None and stamp and (old.words, old.stamp) == (words, stamp):
            return Loaded(old)
        value, fault = None, ""
        try:
            value = load()
        except ROW_TROUBLE as error:  # of a source of one's own as well
            if getattr(error, "errno", None) not in (None, *NO_FILE):
                raise
            stamp, fault = "", f"bad_image: {error if isinstance(error, DataError) else f'{type(error).__name__}: {error}'}"
        origin = Origin(words, stamp, content_digest(value))
        if old is not None and (old.words, old.content or NOTHING) != (origin.words, origin.content or NOTHING):
            what = "its text" if old.words != origin.words else "its picture"
            raise ChangedInputsError(self.folder, f"{where} is not what {self.folder} was made from: {what} has changed")
        return Loaded(origin, value, fault)

    def _read(self) -> dict[str, Origin]:
        if self._known is None:
            # Of shards that hold rows: origins outlive a damaged one that was taken out.
            names = {path.name.partition(".")[0] for path in self.folder.glob("part-*") if path.name.endswith((".parquet", LOG))}
            shards = (self.folder / f"{name}.parquet" for name in sorted(names))
            self._known = {key: Origin(*origin) for path in shards for key, origin in read_origins(path)}
        return self._known


NOTHING = hashlib.sha256().hexdigest()  # what is noted of no pictures, beside an empty text


def content_digest(value: Any) -> str:
    """SHA-256 of encoded bytes, of a picture's pixels, or of several of either; empty for nothing."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Image.Image):
        return hashlib.sha256(value.tobytes() + f"{value.mode} {value.size}".encode()).hexdigest()
    return hashlib.sha256(" ".join(map(content_digest, value)).encode()).hexdigest()


# --- what lies behind settings ----------------------------------------------------------------------

MODEL_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt", ".model", ".jinja", ".yaml", ".py"}
"""What a model directory is loaded from; logs, resume points and pictures beside it say nothing of its replies."""
MODEL_FILES = ("config.json", "model_index.json", "adapter_config.json")
"""What a folder holds that is meant by a plain word among the options, which may also be a word."""
NO_MODEL = ("checkpoint-", "runs", "logs", "gallery", ".")


def digests_behind(settings: Any, cache: Path) -> dict[str, str]:
    """`content PATH` -> SHA-256 for every option of a component that names a file or folder of this machine.

    A file is read once: its digest is kept in `cache` under its size and time.
    """
    try:
        known = read_object(cache)
    except DataError:  # not there yet, or damaged: it can be made again
        known = {}
    before = len(known)
    found = {f"content {path}": _digest(path, known) for path in sorted(set(_paths(settings)))}
    if len(known) > before:
        write_json(cache, known)
    return found


def _paths(value: Any, inside: bool = False) -> Iterator[Path]:
    """The paths among the options of components, which `to_plain` writes as {"id", "options"}."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, inside or key == "options")
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, inside)
    elif inside and isinstance(value, str) and value and len(value) < 4096 and "\n" not in value and "\x00" not in value:
        path = Path(value)
        try:
            named = path.is_absolute() or len(path.parts) > 1 or path.is_file()
            there = path.exists() and (named or any((path / name).is_file() for name in MODEL_FILES))
        except OSError:  # a text that is no path
            there = False
        if there:
            yield path


def _digest(path: Path, known: dict[str, str]) -> str:
    files = [path] if path.is_file() else sorted(_model_files(path))
    lines = [f"{file.relative_to(path) if file != path else file.name} {_file_digest(file, known)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _model_files(folder: Path) -> Iterator[Path]:
    """Those of the folder and of the folders in it, as a pipeline has them."""
    for entry in folder.iterdir():
        if entry.is_file() and entry.suffix in MODEL_SUFFIXES:
            yield entry
        elif entry.is_dir() and not entry.name.startswith(NO_MODEL):
            yield from (file for file in entry.iterdir() if file.is_file() and file.suffix in MODEL_SUFFIXES)


def _file_digest(path: Path, known: dict[str, str]) -> str:
    stat = path.stat()
    name = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    if name not in known:
        with path.open("rb") as file:
            known[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[name]


# --- with which versions ------------------------------------------------------------------------------

_PACKAGES = ("torch", "transformers", "diffusers", "trl", "peft", "accelerate", "datasets", "pillow", "pyarrow", "openai")


def environment() -> dict[str, Any]:
    """The header of a run: schema version, versions of what computes, and the commit where the source is a checkout."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "absent"
    return {
        "schema": SCHEMA_VERSION,
        "editr1": editr1.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
    }


def commit() -> str:
    """The commit of the checkout that this package lies in; empty for an installed package."""
    command = ["git", "-C", str(Path(editr1.__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git on this machine, or no checkout
        return ""
