"""Small tables of any make: CSV, TSV, JSON lines, Parquet, and Excel where openpyxl is installed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from editr1.bench.base import require_columns
from editr1.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")


def column_names(path: Path) -> list[str]:
    """The columns of a table; none where it cannot be read or has none."""
    try:
        if path.suffix in (".csv", ".tsv"):
            return next(csv.reader([first_line(path)], delimiter=_delimiter(path)), [])
        if path.suffix == ".jsonl":
            row = json.loads(first_line(path) or "null")
            return list(row) if isinstance(row, dict) else []
        return list(next(_rows(path), ("", {}))[1])
    except (DataError, ValueError, csv.Error):
        return []


def first_line(path: Path) -> str:
    """The first line of a text file without its end, for telling formats apart; empty for one that cannot be read."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readline(100_000).rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        return ""


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(place for messages, row by column) of every row. Cells of CSV are text, of the others what they are; an empty cell is "" or None.

    Raises DataError for a file that cannot be read, a missing column, a row of another length, and a table without rows.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a table, one of {', '.join(SUFFIXES)}")
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path}: no row{'' if path.suffix in ('.jsonl', '.parquet') else ' below the heading'}")
    for where, row in rows:
        require_columns(row, columns, where)
    return rows


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        yield from {".jsonl": _json_lines, ".parquet": _parquet, ".xlsx": _excel}.get(path.suffix, _csv)(path)
    except (OSError, UnicodeDecodeError, csv.Error, RecursionError) as error:
        raise DataError(f"{path}: cannot read: {error}") from error


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=_delimiter(path), strict=True)  # or '"1"0' would be read as 10
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where}: another number of cells than the heading has; was the file cut?")
            yield where, row


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{where}: expected a JSON object")
            yield where, row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot read as Parquet: {error}") from error
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))


def _excel(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import zipfile

    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: an Excel file needs openpyxl; pip install openpyxl, or save the sheet as CSV") from error
    try:
        cells = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, openpyxl.utils.exceptions.InvalidFileException) as error:
        raise DataError(f"{path}: cannot read as Excel: {error}") from error
    names = [str(name) for name in next(cells, ())]
    for number, row in enumerate(cells, start=2):
        yield f"{path}, row {number}", dict(zip(names, row, strict=False))


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","
