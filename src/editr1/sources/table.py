"""A JSONL or CSV file of the user's own: columns image (a path under `root`), instruction, and optionally kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from editr1.errors import DataError, nearest
from editr1.sources.base import BadRow, SourceRow
from editr1.store import read_inside, read_table, stamp_inside


class Table:
    """Rows of a file; image paths must stay under the root."""

    def __init__(self, path: Path, root: Path, image: str, instruction: str, kind: str) -> None:
        self.path, self.root = path, root
        self.image, self.instruction, self.kind = image, instruction, kind

    def __iter__(self) -> Iterator[SourceRow | BadRow]:
        for number, row in enumerate(read_table(self.path), start=1):
            if number == 1 and isinstance(row, dict):
                self._check_columns(row)
            origin = f"({self.path.name} row {number})"
            yield BadRow(row, origin) if isinstance(row, str) else self._row(row, origin)

    def _check_columns(self, first: dict[str, Any]) -> None:
        """A mistyped column would drop every row one by one; a first row without one is the recipe's mistake."""
        for column in (self.image, self.instruction):
            if column not in first:
                raise DataError(f"{self.path} has no column {column!r} in its first row: {nearest(column, first)}")

    def _row(self, row: dict[str, Any], origin: str) -> SourceRow | BadRow:
        name = row.get(self.image)
        if not isinstance(name, str) or not name:
            return BadRow(f"bad_image: column {self.image!r} is {name!r}, expected a path", origin)
        kind, instruction = row.get(self.kind), row.get(self.instruction)
        load, stamp = partial(read_inside, self.root, name), partial(stamp_inside, self.root, name)
        return SourceRow(load, instruction, kind if isinstance(kind, str) else "", origin, stamp=stamp)  # type: ignore[arg-type]


def build(path: str, root: str | None = None, image: str = "image", instruction: str = "instruction", kind: str = "kind") -> Table:
    """The rows of the file at `path`.

    root: folder of the images; default: the file's own folder.
    image, instruction, kind: names of the columns.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"there is no file {path!r}; give a .jsonl or .csv file")
    return Table(file, Path(root) if root else file.parent, image, instruction, kind)
