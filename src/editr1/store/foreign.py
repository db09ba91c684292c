"""Tables of the user's own, of any make, read without trusting them.

CSV (with semicolons or tabs as well, as spreadsheets write it), TSV, JSON lines, Parquet, and Excel where openpyxl is installed. A byte
order mark and any line ending are read as what they mean; lines end at a line ending only, and not at U+2028. An unnamed column is none.
"""

from __future__ import annotations

import csv
import difflib
import itertools
import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from editr1.errors import DataError, nearest
from editr1.pictures import MAX_BYTES
from editr1.text import is_missing, whole_text

Place = str
"""`line 3` or `row 3`."""
_Rows = Iterator[tuple[Place, dict[str, Any] | str]]
"""Each with its place; in place of a broken row what is wrong with it, as the end of a sentence that the place begins."""


def read_table(path: Path, needed: Sequence[str] = (), optional: Sequence[str] = ()) -> Iterator[dict[str, Any] | str]:
    """The rows of a table, a number that is none (NaN) as None; in place of a broken row the reason `bad_row: ...`.

    needed, optional: columns, as `check_columns` takes them.
    Raises DataError for a missing file, an unknown ending, bytes that are no UTF-8, a quotation mark that is never closed, and a column
    that is missing or a letter off in the first row that can be read.
    """
    checked = False
    for place, row in _rows(path):
        if isinstance(row, dict) and not checked:
            check_columns(path, row, needed, optional)
            checked = True
        yield f"bad_row: {place} {row}" if isinstance(row, str) else row


def whole_table(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """(place for messages, row) of every row, for figures that a missing row would change.

    Raises DataError as `read_table` does, for a broken row, a missing column, and a table without rows.
    """
    rows = []
    for place, row in _rows(path):
        if isinstance(row, str):
            raise DataError(f"{path}, {place} {row}")
        _require(row, columns, f"{path}, {place}")
        rows.append((f"{path}, {place}", row))
    if not rows:
        if names := column_names(path):
            _require(names, columns, str(path))
        raise DataError(f"{path}: no row below the heading")
    return rows


def _require(found: Collection[str], columns: Sequence[str], where: str) -> None:
    for column in columns:
        if column not in found:
            raise DataError(f"{where}: column {column!r} is missing (found: {', '.join(found) or 'none'})")


def column_names(path: Path) -> list[str]:
    """The columns of a table's first row; none where it cannot be read or has none."""
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            with path.open(encoding="utf-8-sig", newline="") as file:
                return [name for name in _csv_head(path, file)[1] if name]
        row = next((row for _, row in _rows(path)), None)
    except (DataError, OSError, UnicodeDecodeError, csv.Error):
        return []
    return list(row) if isinstance(row, dict) else []


def check_columns(path: Path, row: dict[str, Any], needed: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raises DataError where a column is missing or a letter off: that is the file's mistake, and would drop or misread every row."""
    for column in needed:
        if column not in row:
            raise DataError(f"{path} has no column {column!r} in its first row: {nearest(column, map(str, row))}")
    absent = [column for column in optional if column not in row]
    for column in row:
        if column not in {*needed, *optional} and (meant := difflib.get_close_matches(str(column), absent, n=1, cutoff=0.8)):
            raise DataError(f"{path} has a column {column!r}: did you mean {meant[0]!r}? Rename it")


def name_in(cell: Any) -> str:
    """What a cell calls something by: a text, or a whole number as its digits; empty for a missing value. Raises DataError for other cells.

    >>> name_in(3.0), name_in(" a"), name_in(None)
    ('3', 'a', '')
    """
    if is_missing(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if isinstance(cell, bool) or not isinstance(cell, str | int):
        raise DataError(f"{str(cell)[:60]!r} is no text and no whole number")
    return str(cell).strip()


def _rows(path: Path) -> _Rows:
    readers: dict[str, Callable[[Path], _Rows]] = {
        ".jsonl": _json_lines, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".xlsx": _excel,
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of table, expected a file that ends in {', '.join(readers)}")
    try:
        for place, row in reader(path):
            yield place, row if isinstance(row, str) else {name: None if cell != cell else cell for name, cell in row.items()}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error


def _json_lines(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=without_doubles)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", f"is not JSON ({error})"
                continue
            if not isinstance(row, dict):
                row = "is no JSON object"
            elif "\\u" in line and not _is_whole(row):
                row = "holds half of a surrogate pair, such as an emoji that was cut in two"
            yield f"line {number}", row


def without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Raises ValueError for a key that stands twice: which of the values is meant, nobody knows."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {doubled!r} occurs more than once in one object; a second run was appended? keep one row a key")
    return found


def _is_whole(row: dict[str, Any]) -> bool:
    text = json.dumps(row, ensure_ascii=False)
    return whole_text(text) == text


def _csv_head(path: Path, file: Any) -> tuple[str, list[str], int]:
    """The mark between cells, the names of the columns without blanks around them, and the lines that they took.

    The mark is the commonest of the header outside quotation marks, or what a first line `sep=;` says.
    """
    sep, number, line = None, 0, ""
    for number, line in enumerate(file, start=1):  # noqa: B007
        found = re.fullmatch(r'"?sep=(.)"?\s*', line, re.IGNORECASE)
        sep = found or sep
        if line.strip() and not found:
            break
    bare = re.sub(r'"[^"]*"', "", line)
    mark = sep.group(1) if sep else "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=bare.count)
    reader = _cells(itertools.chain([line] if line else [], file), mark)
    names = [name.strip() for name in next(reader, [])]
    return mark, names, number - 1 + reader.line_num


def _cells(lines: Iterator[str], mark: str) -> Any:
    csv.field_size_limit(MAX_BYTES)  # a column may hold whole pictures; Python's limit of 128 KiB would refuse the table
    return csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=True)  # strict, or '"1"0' would be read as 10


def _csv(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            mark, names, before = _csv_head(path, file)
        except csv.Error as error:
            raise DataError(f"{path}: a quotation mark of the header is never closed, or in the midst of a name ({error})") from error
        _refuse_doubles(path, names)
        reader = _cells(file, mark)
        while True:
            start = before + reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "end of data" in str(error):
                    raise DataError(f"{path}: a quotation mark in line {start} is never closed, all behind it would be one cell") from error
                yield f"line {start}", f"has a quotation mark in the midst of a cell ({error}); double it"
                continue
            if not cells:  # an empty line
                continue
            if len(cells) < len(names) or any(cells[len(names) :]):
                yield f"line {before + reader.line_num}", "has another number of cells than the heading has; was the file cut?"
                continue
            yield f"line {before + reader.line_num}", {name: cell for name, cell in zip(names, cells, strict=False) if name}


def _parquet(path: Path) -> _Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _refuse_doubles(path, file.schema_arrow.names)
            rows = (row for batch in file.iter_batches(batch_size=256) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield f"row {number}", row
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error


def _excel(path: Path) -> _Rows:
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: an Excel file needs openpyxl; pip install openpyxl, or save the sheet as CSV") from error
    try:
        cells = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, openpyxl.utils.exceptions.InvalidFileException) as error:
        raise DataError(f"{path} cannot be read as Excel ({error})") from error
    names = ["" if name is None else str(name).strip() for name in next(cells, ())]
    _refuse_doubles(path, names)
    for number, row in enumerate(cells, start=2):
        if any(cell is not None for cell in row):
            yield f"row {number}", {name: cell for name, cell in zip(names, row, strict=False) if name}


def _refuse_doubles(path: Path, names: Sequence[str]) -> None:
    if doubled := next((name for name in names if name and names.count(name) > 1), None):
        raise DataError(f"{path} has two columns of one name: {doubled!r}")
