"""A JSONL, CSV or Parquet file of the user's own: columns image (a path under `root`), instruction, and optionally kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from editr1.errors import DataError
from editr1.sources.base import BadRow, SourceRow
from editr1.store import check_columns, read_inside, read_table, stamp_inside


class Table:
    """Rows of a file; image paths must stay under the root."""

    def __init__(self, path: Path, root: Path, image: str, instruction: str, kind: str) -> None:
        self.path, self.root = path, root
        self.image, self.instruction, self.kind = image, instruction, kind

    def __iter__(self) -> Iterator[SourceRow | BadRow]:
        for number, row in enumerate(read_table(self.path), start=1):
            if number == 1 and isinstance(row, dict):
                check_columns(self.path, row, (self.image, self.instruction), (self.kind,))
            origin = f"({self.path.name} row {number})"
            yield BadRow(row, origin) if isinstance(row, str) else self._row(row, origin)

    def _row(self, row: dict[str, Any], origin: str) -> SourceRow | BadRow:
        kind, instruction = row.get(self.kind), row.get(self.instruction)
        kind = kind if isinstance(kind, str) else ""
        name = row.get(self.image)
        if isinstance(name, Mapping) and isinstance(data := name.get("bytes"), bytes):  # as `datasets` writes pictures into Parquet
            return SourceRow(lambda: data, instruction, kind, origin)  # type: ignore[arg-type]
        if isinstance(name, Mapping):
            name = name.get("path")
        if not isinstance(name, str) or not name:
            return BadRow(f"bad_image: column {self.image!r} is {name!r}, expected a path", origin)
        load, stamp = partial(read_inside, self.root, name), partial(stamp_inside, self.root, name)
        return SourceRow(load, instruction, kind, origin, stamp=stamp)  # type: ignore[arg-type]


def build(path: str, root: str | None = None, image: str = "image", instruction: str = "instruction", kind: str = "kind") -> Table:
    """The rows of the file at `path`.

    root: folder of the images; default: the file's own folder.
    image, instruction, kind: names of the columns.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"there is no file {path!r}; give a .jsonl, .csv or .parquet file")
    return Table(file, Path(root) if root else file.parent, image, instruction, kind)
