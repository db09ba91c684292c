"""A plain folder: each picture beside a text file of the same name with one instruction a line (`cat.jpg`, `cat.txt`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from editr1.errors import DataError
from editr1.sources.base import BadRow, SourceRow
from editr1.store import read_inside, stamp_inside
from editr1.text import lines_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif")
"""Those that cannot be read are refused by name, and not left out without a word."""


class Folder:
    """Pictures in the order of their names, sub-folders included."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[SourceRow | BadRow]:
        for picture in sorted(path for path in self.path.rglob("*") if path.suffix.lower() in SUFFIXES):
            yield from self._rows(picture, str(picture.relative_to(self.path)))

    def _rows(self, picture: Path, name: str) -> Iterator[SourceRow | BadRow]:
        text = picture.with_suffix(".txt")
        if not text.exists():
            yield BadRow(f"bad_instruction: there is no {text.name} beside the picture", f"({name})")
            return
        try:
            words = read_inside(self.path, str(text.relative_to(self.path))).decode("utf-8-sig")
        except UnicodeDecodeError:
            yield BadRow(f"bad_instruction: {text.name} is not UTF-8", f"({name})")
            return
        except DataError as error:
            yield BadRow(f"bad_instruction: {error}", f"({name})")
            return
        instructions = list(filter(None, map(str.strip, lines_of(words))))
        load, stamp = partial(read_inside, self.path, name), partial(stamp_inside, self.path, name)
        for instruction in instructions or [""]:
            yield SourceRow(load, instruction, "", f"({name})", stamp=stamp)


def build(path: str) -> Folder:
    """The pictures under `path`. Raises DataError when it is no folder."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"there is no folder {path!r}")
    return Folder(folder)
