"""Files of the user's own: tables of rows and the images that they name, read without trusting either."""

from __future__ import annotations

import csv
import difflib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from editr1.errors import DataError, nearest
from editr1.pictures import MAX_BYTES
from editr1.text import whole_text


def read_table(path: Path) -> Iterator[dict[str, Any] | str]:
    """The rows of a CSV (with a header), JSONL or Parquet file; in place of a broken row the reason `bad_row: ...`.

    A byte order mark, any line ending, and a CSV with semicolons or tabs, as spreadsheets write it, are read as what they mean; lines
    end at a line ending only, and not at U+2028. Raises DataError for a missing file, an unknown ending, or bytes that are no UTF-8.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of table, expected a file that ends in {', '.join(readers)}")
    try:
        for number, row in enumerate(reader(path), start=1):
            yield f"bad_row: row {number} holds half of a surrogate pair, such as an emoji that was cut in two" if _is_cut(row) else row
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error


def _is_cut(row: dict[str, Any] | str) -> bool:
    values = row.values() if isinstance(row, dict) else ()
    return any(isinstance(value, str) and whole_text(value) != value for value in values)


def check_columns(path: Path, row: dict[str, Any], needed: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raises DataError where a column is missing or a letter off: that is the file's mistake, and would drop or misread every row."""
    for column in needed:
        if column not in row:
            raise DataError(f"{path} has no column {column!r} in its first row: {nearest(column, map(str, row))}")
    absent = [column for column in optional if column not in row]
    for column in row:
        if column not in {*needed, *optional} and (meant := difflib.get_close_matches(str(column), absent, n=1, cutoff=0.8)):
            raise DataError(f"{path} has a column {column!r}: did you mean {meant[0]!r}? Rename it")


def _read_jsonl(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"bad_row: line {number} is not JSON ({error})"
                continue
            yield row if isinstance(row, dict) else f"bad_row: line {number} is no JSON object"


def _read_csv(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = _delimiter(file.readline())
        file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            names = reader.fieldnames or ()
            if len(set(names)) < len(names):
                raise DataError(f"{path} has two columns of one name: {max(names, key=list(names).count)!r}")
            for row in reader:
                whole = None not in row and None not in row.values()
                yield row if whole else f"bad_row: line {reader.line_num} has not the {len(names)} fields of the header"
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}") from error


def _delimiter(header: str) -> str:
    """What separates the names of the header: a comma where there is one."""
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error


def read_inside(root: Path, name: str, links: bool = True) -> bytes:
    """The bytes of the file `name` under `root`.

    links: follow links that lead out of the root. A folder of the user's own may hold them, as the hub's cache does; a service that
    serves names from the network must not.

    Raises DataError for a name that climbs out of the root, and for what is missing, empty, no file, or larger than any image may be.
    """
    path = _inside(root, name)
    if not links and not _resolved(path, name).is_relative_to(root.resolve()):
        raise DataError(f"path {name!r} lies outside its root {root}: it is a link")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a named pipe would wait for its writer for ever
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{name!r} is no regular file")
            if found.st_size > MAX_BYTES:
                raise DataError(f"{name} has {found.st_size:,} bytes, the limit is {MAX_BYTES:,}")
            with open(handle, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as error:  # missing, no permission, name too long, a device without a driver
        raise DataError(f"cannot read {name!r}: {error.strerror}") from error
    if not data:
        raise DataError(f"{name} is empty (zero bytes)")
    return data


def stamp_inside(root: Path, name: str) -> str:
    """Size and time of the file `name` under `root`, which change when it does; empty when it cannot be looked at."""
    try:
        found = _inside(root, name).stat()
    except (OSError, DataError):
        return ""
    return f"{name} {found.st_size} {found.st_mtime_ns}"


def _inside(root: Path, name: str) -> Path:
    if "\x00" in name:
        raise DataError(f"file name {name!r} holds a zero byte")
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"path {name!r} lies outside its root {root}")
    return root / path


def _resolved(path: Path, name: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or a name that no file can have
        raise DataError(f"cannot read {name[:200]!r}: its links lead nowhere") from error
