"""A run as a report reads it: what can be read, and one line for each file that cannot; pictures once each, small, as data URIs.

Nothing is written, for the run may be going on.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from editr1.errors import DataError, EditR1Error
from editr1.schema import SCHEMA_VERSION, ImageRef, from_json
from editr1.store import TABLES, ImageStore, Run
from editr1.store._files import read_object
from editr1.store.engine import StageCounts
from editr1.store.images import SUFFIXES

T = TypeVar("T")

# What readers and decoders raise for bytes that are not what they should be; an error of the machine (MemoryError) is none of them.
DAMAGE = (
    *(EditR1Error, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, SyntaxError, RecursionError, struct.error),
)
KNOWN = (*TABLES, "metrics.jsonl", "10_metrics.jsonl", "config.json", "09_editor")
PIXEL_ART = 128  # ours: pixels; anything smaller is drawn enlarged without smoothing, so the file keeps every pixel
THUMBNAIL = 384  # ours: pixels of the longer side; sharp on a phone at the width of a card
BUDGET = 5_000_000  # ours: encoded bytes of all pictures; base64 adds a third, and the page with its texts shall stay under 10 MB
UNKNOWN = ""
"""Suffix of a reference that was written as a digest alone."""


class Reader:
    """One run directory. `damage` grows while the report is made: file (from the run directory on) -> what is wrong with it."""

    def __init__(self, run_dir: Path) -> None:
        """Raises DataError for a directory that is no run, or is one of another schema version."""
        self.dir, self.damage = run_dir, dict[str, str]()
        header = self.value("env.json", lambda path: read_object(path, "schema"), {"schema": SCHEMA_VERSION})
        if header["schema"] != SCHEMA_VERSION or not any((run_dir / name).exists() for name in ("env.json", *KNOWN)):
            Run.open(run_dir, create=False)
        if not (run_dir / "env.json").exists():
            self.damage["env.json"] = "is missing, so versions and commit are not known"
        self.environment: dict[str, Any] = header
        self.run = Run(run_dir, ImageStore(run_dir / "images"))

    def note(self, name: str, error: Exception | str) -> None:
        """Remembers a damaged file; the first finding about a file stays."""
        line = " ".join(f"{error}".split()) or type(error).__name__
        self.damage.setdefault(name, line.replace(f"{self.dir}/", "")[:300])

    def value(self, name: str, read: Callable[[Path], T], otherwise: T) -> T:
        """What `read` makes of a file; `otherwise` where it is absent, or damaged, which is noted."""
        path = self.dir / name
        try:
            if not path.exists():
                return otherwise
            if not path.is_file():
                raise DataError("is no file")
            return read(path)
        except DAMAGE as error:
            self.note(name, error)
            return otherwise

    def folder(self, name: str, pattern: str) -> list[str]:
        """The files of a folder that match, from the run directory on, sorted; none where the folder is absent."""
        path = self.dir / name
        if path.exists() and not path.is_dir():
            self.note(name, "is no folder")
        return sorted(f"{name}/{found.name}" for found in path.glob(pattern))

    def lines(self, name: str, parse: Callable[[bytes], T]) -> list[T]:
        """Each line of a log that `parse` takes, a last one without its end among them; one that it does not take is noted."""
        whole, _, last = self.value(name, Path.read_bytes, b"").rpartition(b"\n")
        found = []
        for number, line in enumerate((*whole.split(b"\n"), last) if whole or last else (), start=1):
            try:
                if line.strip():
                    found.append(parse(line))
            except DAMAGE as error:
                self.note(name, f"line {number} cannot be read ({error})")
        return found

    def records(self, name: str, record: type[T]) -> list[T]:
        """The records of a log, as `schema.to_json` writes them."""
        return self.lines(name, lambda line: from_json(record, line))

    def has(self, table: str) -> bool:
        """Whether the table is complete, and says what its stage did."""
        return self.counts(table) is not None

    def counts(self, table: str) -> StageCounts | None:
        """What the stage that wrote the table did; None for a table that is missing, unfinished, or damaged."""
        if (self.dir / table).is_file():
            self.note(table, "is no folder")
        return self.value(f"{table}/counts.json", lambda _: self.run.counts(table), None)

    def rows(self, table: str) -> Iterator[Any]:
        """The records of a table up to the first damage."""
        if not self.has(table):
            return
        try:
            yield from self.run.read(table)
        except DAMAGE as error:
            self.note(table, error)


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
