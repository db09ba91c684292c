"""Files of the user's own: tables of rows and the images that they name, read without trusting either."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from editr1.errors import DataError
from editr1.pictures import MAX_BYTES


def read_table(path: Path) -> Iterator[dict[str, Any] | str]:
    """The rows of a CSV (with a header) or JSONL file; in place of a broken row the reason `bad_row: ...`.

    Raises DataError for a missing file, an unknown ending, or bytes that are no UTF-8.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of table, expected a file that ends in {' or '.join(readers)}")
    try:
        yield from reader(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error


def _read_jsonl(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield f"bad_row: line {number} is not JSON ({error})"
                continue
            yield row if isinstance(row, dict) else f"bad_row: line {number} is no JSON object"


def _read_csv(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                whole = None not in row and None not in row.values()
                yield row if whole else f"bad_row: line {reader.line_num} has not the {len(reader.fieldnames or ())} fields of the header"
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}") from error


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
