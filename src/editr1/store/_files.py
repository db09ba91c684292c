"""Files that are whole or absent, and one writer at a time."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

from editr1.errors import DataError
from editr1.records import from_json

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
