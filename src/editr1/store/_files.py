"""Files of ours, whole or absent, with one writer at a time; pictures of the user's, read without trusting their names."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath, PureWindowsPath
from typing import IO, Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

from editr1.errors import DataError
from editr1.pictures import MAX_BYTES
from editr1.records import from_json
from editr1.text import whole_text

T = TypeVar("T")


def write_atomic(path: Path, data: bytes, settle: bool = True) -> None:
    """Write-then-rename: a reader sees the old file or the new one, after a power cut too. The file's folder is made.

    A link stays, and so does what is no file: a device or a pipe, such as /dev/stdout, is written to.

    settle: False where another file of the folder is written right after, whose turn it is to make both names last.
    The temporary name is fixed, so a killed writer leaves nothing that its successor does not overwrite; callers hold a lock.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.write(data)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
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
    points = list(read_jsonl(log)) if curves else []
    if moved := [point for point in points if point["stage"] == curves]:
        for path, kept in ((place / log.name, moved), (log, [point for point in points if point["stage"] != curves])):
            write_atomic(path, "".join(json.dumps(point) + "\n" for point in kept).encode())
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


# --- pictures that the user's tables name, read without trusting them -------------------------------


def read_inside(root: Path, name: str, links: bool = True) -> bytes:
    """The bytes of the file `name` under `root`.

    links: follow links that lead out of the root. A folder of the user's own may hold them, as the hub's cache does; a service that
    serves names from the network must not.

    A full path or a `file://` address of a file under the root, and a name with the backslashes of Windows, are read as what they mean.
    Raises DataError for a name that climbs out of the root, an address on the network, and for what is missing, empty, no file, or larger
    than any image may be.
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
        raise DataError(f"cannot read {name[:200]!r}: {error.strerror}{_hint(root, name)}") from error
    if not data:
        raise DataError(f"{name} is empty (zero bytes)")
    return data


def stamp_inside(root: Path, name: str) -> str:
    """Size and time of the file `name` under `root`, which change when it does; empty when it cannot be looked at."""
    try:
        found = _inside(root, name).stat()
    except (OSError, DataError):
        return ""
    return f"{whole_text(name)} {found.st_size} {found.st_mtime_ns}"  # a file's name need not be UTF-8


def file_digest(path: Path) -> str:
    """SHA-256 of a file of the user's. Raises DataError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


_SCHEME = re.compile(r"(data:|[A-Za-z][A-Za-z0-9+.-]+://)")


def local_name(name: str) -> str:
    """The path that a name means: itself, or that of a `file://` address. Raises DataError for an address of another machine."""
    scheme = _SCHEME.match(name)
    if not scheme:
        return name
    if scheme.group().lower() != "file://":
        raise DataError(f"{name[:200]!r} is no file: pictures are read from the disk; download it and give its path")
    address = urlsplit(name)
    if address.netloc not in ("", "localhost"):
        raise DataError(f"{name[:200]!r} lies on another machine; give its path on this one")
    return unquote(address.path)


def _inside(root: Path, name: str) -> Path:
    if "\x00" in name:
        raise DataError(f"file name {name[:200]!r} holds a zero byte")
    name = local_name(name)
    path = PurePath(name)
    if "\\" in name and not os.path.lexists(root / path):
        windows = PureWindowsPath(name)
        path = PurePath("/" if windows.drive or windows.root else "", *windows.parts)
    if ".." not in path.parts and path.is_absolute():
        full = Path(os.path.abspath(root))
        path = path.relative_to(full) if path.is_relative_to(full) else path
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"path {name[:200]!r} lies outside its root {root}")
    return root / path


def _hint(root: Path, name: str) -> str:
    """How a file is really called whose name differs in large and small letters, blanks around it or the form of its accents only.

    Empty where there is none, or several.
    """
    path = root
    try:
        for part in _inside(root, name).relative_to(root).parts:
            near = [entry for entry in os.listdir(path) if _spelt(entry) == _spelt(part)]
            if len(near) != 1:
                return ""
            path = path / near[0]
    except OSError:
        return ""
    return f"; there is {path.relative_to(root).as_posix()!r}" if path != root / name else ""


def _spelt(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()
