"""A JSONL, CSV or Parquet file of the user's own: columns image (a path under `root`), instruction, and optionally kind.

An edit of several source pictures has them as a list in one column, or in several columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from editr1.errors import DataError
from editr1.schema import source_of
from editr1.sources.base import BadRow, SourceRow
from editr1.store import name_in, read_inside, read_table, stamp_inside


class Table:
    """Rows of a file; image paths must stay under the root."""

    def __init__(self, path: Path, root: Path, images: Sequence[str], instruction: str, kind: str) -> None:
        self.path, self.root = path, root
        self.images, self.instruction, self.kind = images, instruction, kind

    def __iter__(self) -> Iterator[SourceRow | BadRow]:
        for number, row in enumerate(read_table(self.path, (*self.images, self.instruction), (self.kind,)), start=1):
            origin = f"({self.path.name} row {number})"
            yield BadRow(row, origin) if isinstance(row, str) else self._row(row, origin)

    def _row(self, row: dict[str, Any], origin: str) -> SourceRow | BadRow:
        try:
            kind = name_in(row.get(self.kind))
        except DataError as error:
            return BadRow(f"bad_kind: {error}", origin)
        cells = [(column, cell) for column in self.images for cell in _listed(row.get(column))]
        places = [cell.get("bytes") or cell.get("path") if isinstance(cell, Mapping) else cell for _, cell in cells]
        for (column, _), place in zip(cells, places, strict=True):
            if not isinstance(place, str | bytes) or not place:
                return BadRow(f"bad_image: column {column!r} is {place!r}, expected a path", origin)
        if not places:
            return BadRow(f"bad_image: {' and '.join(map(repr, self.images))} hold no picture", origin)
        stamp = partial(self._stamp, cast(list[str], places)) if all(isinstance(place, str) for place in places) else None
        return SourceRow(partial(self._load, places), row.get(self.instruction), kind, origin, stamp=stamp)  # type: ignore[arg-type]

    def _load(self, places: Sequence[str | bytes]) -> bytes | tuple[bytes, ...]:
        """Bytes as `datasets` writes pictures into Parquet, or files."""
        return source_of([place if isinstance(place, bytes) else read_inside(self.root, place) for place in places])

    def _stamp(self, names: Sequence[str]) -> str:
        return " ".join(stamp_inside(self.root, name) for name in names)


def _listed(cell: Any) -> list[Any]:
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def build(
    path: str, root: str | None = None, image: str | Sequence[str] = "image", instruction: str = "instruction", kind: str = "kind"
) -> Table:  # fmt: skip
    """The rows of the file at `path`.

    root: folder of the images; default: the file's own folder.
    image: the column of the source picture, or the columns of several.
    instruction, kind: names of the columns.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"there is no file {path!r}; give a .jsonl, .csv or .parquet file")
    return Table(file, Path(root) if root else file.parent, [image] if isinstance(image, str) else image, instruction, kind)
