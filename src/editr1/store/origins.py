"""What the rows of a table were made from, so that a list or a picture that was changed since is noticed.

An origin is kept beside the row that was made from it. When the stage runs again, the words are compared; a picture is opened only
when its file has another size or time than it had, and then only its contents count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from editr1.errors import ChangedInputsError
from editr1.store.shards import read_origins, shard_paths


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
    """An item's origin and its pictures; None in their place when the row is there and nothing has changed."""

    origin: Origin
    value: Any = None


class Origins:
    """The origins of a table's rows as former processes noted them; read when the first is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, Origin] | None = None

    def load(self, key: str, words: str, stamp: str, load: Callable[[], Any], where: str) -> Loaded:
        """The pictures of an item, if they are needed. Raises ChangedInputsError, naming `where`, and what `load` raises.

        load: gives encoded bytes, a picture, or several of them.
        """
        old = self._read().get(key)
        if old is not None and stamp and (old.words, old.stamp) == (words, stamp):
            return Loaded(old)
        value = load()
        origin = Origin(words, stamp, content_digest(value))
        if old is not None and (old.words, old.content) != (origin.words, origin.content):
            what = "its text" if old.words != origin.words else "its picture"
            raise ChangedInputsError(self.folder, f"{where} is not what {self.folder} was made from: {what} has changed")
        return Loaded(origin, value)

    def _read(self) -> dict[str, Origin]:
        if self._known is None:
            self._known = {key: Origin(*origin) for path in _shards(self.folder) for key, origin in read_origins(path)}
        return self._known


def _shards(folder: Path) -> Iterator[Path]:
    """Those that hold rows: origins outlive a damaged shard that was taken out."""
    yield from shard_paths(folder)
    logs = sorted(folder.glob("part-*.partial.jsonl"))
    yield from (path for log in logs if not (path := log.with_name(log.name.replace(".partial.jsonl", ".parquet"))).exists())


def content_digest(value: Any) -> str:
    """SHA-256 of encoded bytes, of a picture's pixels, or of several of either; empty for nothing."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Image.Image):
        return hashlib.sha256(value.tobytes() + f"{value.mode} {value.size}".encode()).hexdigest()
    return hashlib.sha256(" ".join(map(content_digest, value)).encode()).hexdigest()
