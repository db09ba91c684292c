"""Files of ours, whole or absent, with one writer at a time; files of the user's, read without trusting them."""

from __future__ import annotations

import csv
import difflib
import fcntl
import itertools
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import IO, Any, BinaryIO, TypeVar

from editr1.errors import DataError, nearest
from editr1.pictures import MAX_BYTES
from editr1.records import from_json
from editr1.text import whole_text

T = TypeVar("T")


def write_atomic(path: Path, data: bytes, settle: bool = True) -> None:
    """Write-then-rename: a reader sees the old file or the new one, after a power cut too.

    settle: False where another file of the folder is written right after, whose turn it is to make both names last.
    The temporary name is fixed, so a killed writer leaves nothing that its successor does not overwrite; callers hold a lock.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if settle:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A renamed file has its new name after a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """The value as indented JSON with sorted keys, written atomically."""
    write_atomic(path, (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises DataError when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; restore it or start a new run directory") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); restore it or start a new run directory") from error


def read_object(path: Path, *names: str) -> dict[str, Any]:
    """The object of a JSON file. Raises DataError when it is none, or lacks one of the names."""
    value = read_json(path)
    if not isinstance(value, dict) or not value.keys() >= set(names):
        expected = f"an object with {', '.join(names)}" if names else "an object"
        raise DataError(f"{path} is damaged: it holds {type(value).__name__}, expected {expected}; restore it or start a new run directory")
    return value


def read_record(record: type[T], path: Path) -> T:
    """The record that is a file's content. Raises DataError when it is none."""
    try:
        return from_json(record, path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); restore it, or run again what wrote it") from error


def exclusive(path: Path, what: str, wait: bool = False) -> IO[str]:
    """The lock file `path`, held until it is closed or the process dies. Raises DataError when another holds it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise DataError(f"{what} is being written by another process; wait for it or stop it") from error
    return file


def hold(folder: Path) -> IO[str] | None:
    """Takes a folder for this process, as long as what it returns is kept. Raises DataError when another process has it.

    Of the processes of one training run the first holds it for all.
    """
    if os.environ.get("RANK", "0") != "0":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return exclusive(folder / ".lock", str(folder))


def put_aside(folder: Path, curves: str = "") -> Path:
    """Moves a table or a training's folder into the run's `.aside/`, where nothing reads it, and returns its new place.

    curves: the stage whose points in the run's `metrics.jsonl` go with it.
    """
    places = (folder.parent / ".aside" / f"{folder.name}-{number}" for number in itertools.count(1))
    place = next(place for place in places if not place.exists())
    place.parent.mkdir(exist_ok=True)
    folder.rename(place)
    log = folder.parent / "metrics.jsonl"
    lines = read_whole_lines(log) if curves else []
    if moved := [line for line in lines if json.loads(line)["stage"] == curves]:
        (place / log.name).write_text("".join(f"{line}\n" for line in moved), encoding="utf-8")
        write_atomic(log, "".join(f"{line}\n" for line in lines if line not in set(moved)).encode())
    return place


def open_log(path: Path) -> BinaryIO:
    """An append-only log to write on, without a last line that a killed writer left torn: the next one would be glued to it."""
    file = path.open("ab+")
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
    return file


def read_whole_lines(path: Path) -> list[str]:
    """The lines of an append-only log, but for a last one that is torn or still being written. Raises DataError for no UTF-8."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    try:
        return data[:whole].decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: no UTF-8 at byte {error.start}; restore it, or delete it to lose what it holds") from error


def read_jsonl(path: Path) -> Iterator[Any]:
    """The values of an append-only log of JSON lines. Raises DataError, naming the line, for one that is none."""
    for number, line in enumerate(read_whole_lines(path), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is not JSON ({error}); restore the line or delete it") from error


# --- the user's: tables of rows, and the images that they name ---------------------------------------


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


_END = "\ufdd0"  # a line behind the last one: where a quotation mark is never closed it lands inside a cell


def _read_csv(path: Path) -> Iterator[dict[str, Any] | str]:
    csv.field_size_limit(MAX_BYTES)  # a column may hold whole pictures; Python's limit of 128 KiB would refuse the table
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = _delimiter(file.readline())
        file.seek(0)
        reader = csv.DictReader(itertools.chain(file, [_END]), delimiter=delimiter)
        try:
            names = reader.fieldnames or ()
            if len(set(names)) < len(names):
                raise DataError(f"{path} has two columns of one name: {max(names, key=list(names).count)!r}")
            if len(names) > 1 and _END in names[-1]:
                raise DataError(f"{path}: a quotation mark of the header is never closed")
            start = reader.line_num + 1
            for row in reader:
                values = [row.get(name) or "" for name in names]
                if values[0] == _END:
                    return
                if any(_END in value for value in (*values, *(row.get(None) or ()))):  # its rows would be lost
                    raise DataError(f"{path}: a quotation mark in line {start} is never closed, all behind it would be one cell")
                start = reader.line_num + 1
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
    try:
        outside = not links and not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or a name that no file can have
        raise DataError(f"cannot read {name[:200]!r}: its links lead nowhere") from error
    if outside:
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
