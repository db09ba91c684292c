"""ImgEdit (arXiv 2505.20275) in its published layout: parquet tables, and the pictures in split tars.

    folder/
      **/*.parquet                   input_images, output_images, prompt; multi-turn tables: data[] of those
      **/<name>.tar.split.000 ...    pieces of one tar, or a whole <name>.tar
      <picture files>                where the tars were unpacked

Tables are streamed through `datasets`. Nothing is unpacked: the first reading of a tar finds where its members lie, and a picture is
then read at its place. Of an edit only x_ref and q are taken: its published result is not ours to judge.
"""

from __future__ import annotations

import io
import tarfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from editr1.errors import DataError
from editr1.sources.base import BadRow, SourceRow
from editr1.store import read_inside, stamp_inside

_MAX_MEMBER_BYTES = 100_000_000  # ours: no picture is larger


class ImgEdit:
    """The rows of all tables, by file name and row; each turn of a multi-turn row is a task of its own."""

    def __init__(self, folder: Path, tables: list[Path]) -> None:
        self.folder, self.tables = folder, tables
        self._pictures: Pictures | None = None

    def __iter__(self) -> Iterator[SourceRow | BadRow]:
        from datasets import load_dataset  # 2 s, and only this source needs it

        self._pictures = self._pictures or Pictures(self.folder)
        for table in self.tables:
            rows = load_dataset("parquet", data_files=str(table), split="train", streaming=True)
            for number, row in enumerate(rows):
                yield from rows_of(row, f"({table.name} row {number})", table.stem, self._pictures)


def rows_of(row: Mapping[str, Any], origin: str, kind: str, pictures: Pictures) -> Iterator[SourceRow | BadRow]:
    """The tasks of one table row: one, or one a turn."""
    turns = row.get("data")
    if turns is None:
        yield _turn(row, origin, kind, pictures)
        return
    for number, turn in enumerate(_turns(turns), start=1):
        yield _turn(turn, f"{origin} turn {number}", kind, pictures)


def _turns(value: Any) -> list[Mapping[str, Any]]:
    """`data` arrives as a list of records or, depending on how it was written, as one record of lists."""
    if isinstance(value, Mapping):
        lengths = {len(column) for column in value.values()}
        return [{key: column[i] for key, column in value.items()} for i in range(max(lengths, default=0))] if len(lengths) == 1 else [{}]
    return [turn if isinstance(turn, Mapping) else {} for turn in value]


def _turn(turn: Mapping[str, Any], origin: str, kind: str, pictures: Pictures) -> SourceRow | BadRow:
    images = turn.get("input_images")
    if isinstance(images, str | Mapping):
        images = [images]
    if not images:
        return BadRow("bad_image: input_images is missing or empty", origin)
    prompt = turn.get("prompt")
    prompt = prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    load, stamp = partial(pictures.read, images[0]), partial(pictures.stamp, images[0])
    return SourceRow(load, prompt, kind, origin, stamp=stamp)  # type: ignore[arg-type]  # the stage says what is wrong with a prompt


class Pictures:
    """Finds a picture by the path in a table: inside a tar, or unpacked under the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, tuple[Pieces, int, int]] = {}
        for pieces in find_tars(folder):
            for name, offset, size in members(pieces):
                self._places[name] = (pieces, offset, size)

    def read(self, image: Any) -> bytes:
        """The encoded bytes of `image`, a path or an embedded picture ({bytes, path}). Raises DataError when there are none."""
        if isinstance(image, Mapping):
            if image.get("bytes"):
                return bytes(image["bytes"])
            image = image.get("path")
        if not isinstance(image, str) or not image:
            raise DataError(f"expected the path of a picture, found {image!r}")
        place = self._places.get(_normal(image))
        if place is None:
            return read_inside(self.folder, image)
        pieces, offset, size = place
        if size > _MAX_MEMBER_BYTES:
            raise DataError(f"{image} has {size:,} bytes, the limit is {_MAX_MEMBER_BYTES:,}")
        pieces.seek(offset)
        data = pieces.read(size)
        if len(data) < size:
            raise DataError(f"{image} is cut: the tar {pieces.name} ends inside it; a piece is missing or incomplete")
        return data

    def stamp(self, image: Any) -> str:
        """What changes when the picture's file does; empty for an embedded picture."""
        name = image.get("path") if isinstance(image, Mapping) and not image.get("bytes") else image
        if not isinstance(name, str) or not name:
            return ""
        place = self._places.get(_normal(name))
        if place is None:
            return stamp_inside(self.folder, name)
        pieces, offset, size = place
        return f"{name} {pieces.stamp} {offset} {size}"


def _normal(path: str) -> str:
    return str(PurePosixPath(path.lstrip("/")))


def find_tars(folder: Path) -> list[Pieces]:
    """The tars under a folder, the pieces of each joined in the order of their numbers."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.tar*")):
        name, split, number = path.name.partition(".split.")
        if path.is_file() and (path.suffix == ".tar" or (split and number.isdigit())):
            groups[path.with_name(name)].append(path)
    return [
        Pieces(str(tar), tuple(sorted(parts, key=lambda path: int(path.name.partition(".split.")[2] or -1))))
        for tar, parts in groups.items()
    ]


def members(pieces: Pieces) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of every file in a tar, found by hopping from header to header. Raises DataError for what is no tar."""
    pieces.seek(0)
    try:
        with tarfile.open(fileobj=pieces, mode="r:") as tar:
            yield from ((_normal(member.name), member.offset_data, member.size) for member in tar if member.isfile())
    except tarfile.ReadError as error:
        raise DataError(f"{pieces.name} cannot be read as a tar ({error}); is a piece missing? found {len(pieces.parts)}") from error


class Pieces(io.RawIOBase):
    """Files read as one, with seeking: what `cat a.tar.split.*` would give."""

    def __init__(self, name: str, parts: tuple[Path, ...]) -> None:
        self.name, self.parts = name, parts
        found = [path.stat() for path in parts]
        self._ends = list(accumulate(one.st_size for one in found))
        self.stamp = " ".join(str(one.st_mtime_ns) for one in found)
        """Changes when a piece does."""
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        wanted = max(0, self._ends[-1] - self._position) if size < 0 else size
        chunks = []
        while wanted > 0 and self._position < self._ends[-1]:
            index = bisect_right(self._ends, self._position)
            start = self._ends[index - 1] if index else 0
            with self.parts[index].open("rb") as file:
                file.seek(self._position - start)
                chunk = file.read(min(wanted, self._ends[index] - self._position))
            if not chunk:
                break
            chunks.append(chunk)
            self._position += len(chunk)
            wanted -= len(chunk)
        return b"".join(chunks)


def build(path: str, tables: str = "**/*.parquet") -> ImgEdit:
    """ImgEdit as downloaded to the folder `path`.

    tables: which parquet files to read, as a pattern under the folder, such as "Singleturn/add*.parquet".

    Raises DataError when the folder or its tables are missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"there is no folder {path!r}; download the data set first (huggingface-cli download --repo-type dataset ...)")
    found = sorted(folder.glob(tables))
    if not found:
        raise DataError(f"no parquet file under {path!r} matches {tables!r}")
    return ImgEdit(folder, found)
