"""Rows of a published dataset from a local folder: Arrow or Parquet files, whatever the split is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.bench.base import require_columns
from editr1.errors import DataError
from editr1.store import decode_image


def read_rows(folder: Path, columns: Sequence[str], where: str) -> Any:
    """The `datasets.Dataset` of all `*.arrow` or `*.parquet` files below the folder, pictures left as encoded bytes.

    Published splits are named `test`, `train` or nothing for the same rows, so the name is not looked at.
    Raises DataError when there is no such file, one cannot be read, or a column is missing.
    """
    import datasets

    arrows = sorted(path for path in folder.rglob("*.arrow") if not path.name.startswith("cache-"))
    parquets = sorted(folder.rglob("*.parquet"))
    if not arrows and not parquets:
        raise DataError(f"{where}: no .arrow or .parquet file below {folder}; download the dataset as it is published")
    try:
        if parquets:
            rows = datasets.concatenate_datasets([datasets.Dataset.from_parquet(str(path), cache_dir=None) for path in parquets])
        else:
            rows = datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in arrows])
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(f"{where}: cannot read the files below {folder}: {error}; download them again") from error
    require_columns(rows.column_names, columns, f"{where} ({folder})")
    return _encoded(rows)


def _encoded(rows: Any) -> Any:
    """The rows with image features undecoded: decoding is guarded and happens when a judge needs the picture."""
    import datasets

    raw = datasets.Image(decode=False)
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, raw)
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(raw))
    return rows


def to_bytes(cell: Any, folder: Path, where: str) -> bytes:
    """The encoded bytes of an image cell: `{"bytes", "path"}`, bytes, or a path inside the folder.

    Raises DataError for anything else, a missing file, or a path that leaves the folder.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str) or not cell:
        raise DataError(f"{where}: no image, found {type(cell).__name__}")
    return read_inside(folder, cell, where)


def read_inside(folder: Path, name: str, where: str) -> bytes:
    """The bytes of a file that lies inside the folder. Raises DataError when it is missing or lies elsewhere."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{where}: path {name!r} leaves the folder {folder}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{where}: missing image {path}") from error


def load_pair(source: bytes, edited: bytes, where: str, resize: bool = True) -> tuple[Image.Image, Image.Image]:
    """Both pictures in RGB; `resize` brings the edit to the source's size, as the official scripts do before judging."""
    first, second = decode_image(source, f"{where}: source image"), decode_image(edited, f"{where}: edited image")
    if resize and second.size != first.size:
        second = second.resize(first.size, Image.Resampling.LANCZOS)
    return first, second


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Runs of at most `size` items, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
