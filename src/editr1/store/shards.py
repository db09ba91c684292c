"""One shard of a table: an append-only log while it is being filled, a Parquet file with its checksum once it is whole.

Rows stand in the order of the stage's input, whatever order the work was done in, so equal work gives equal bytes. What a row looks
like says `records.py`. The checksum lies beside the shard as `sha256sum -c` reads it, and is compared whenever the shard is read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from editr1.errors import DataError
from editr1.records import DROPPED, KEY, SCHEMA_VERSION, drops_of, encode, from_json, reads, records_of, schema_of, to_table
from editr1.store._files import open_log, read_whole_lines, write_atomic
from editr1.text import whole_text

LOG, SECONDS, ORIGINS, CHECKSUM = ".partial.jsonl", ".seconds.jsonl", ".origins.jsonl", ".sha256"
"""What lies beside a shard: its rows while it is being filled, the latencies of its items, what they were made from, and its SHA-256."""
_ABOUT = b"editr1"  # Parquet metadata: what `About` holds


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one item: exactly one of `record` and `dropped` is set."""

    key: str
    record: bytes | None
    """As `records.encode` writes it."""
    dropped: str | None
    """Why the item left no record."""
    origin: tuple[str, ...] | None = None
    """What the item was made from, see `images.py`."""


@dataclass(frozen=True, slots=True)
class About:
    """What a shard says of itself."""

    keys: str
    """Digest of the items' keys."""
    rows: str
    """Sum of the digests of the rows: the sum over a table is the same however its rows are cut into shards."""
    num_in: int
    reasons: dict[str, int] = field(default_factory=dict)
    """Dropped rows by code."""


def shard_path(table: Path, index: int) -> Path:
    """`part-00007.parquet` in the table's folder."""
    return table / f"part-{index:05d}.parquet"


def shard_paths(table: Path) -> list[Path]:
    """The finished shards in order."""
    return sorted(table.glob("part-*.parquet"), key=lambda path: int(path.stem.removeprefix("part-")))


class ShardLog:
    """The rows of an unfinished shard. Opening it reads what an earlier process finished."""

    def __init__(self, shard: Path, record: type) -> None:
        self.shard, self.record = shard, record
        self.path = shard.with_suffix(LOG)
        self.rows = {row.key: self._current(row) for row in read_log(self.path)}
        self._file = open_log(self.path)
        self._seconds: BinaryIO | None = None

    def _current(self, row: Row) -> Row:
        """A row of an earlier process, perhaps from before a field with a default was added."""
        if row.record is None:
            return row
        try:
            return replace(row, record=encode(from_json(self.record, b'{"schema":%d,%b' % (SCHEMA_VERSION, row.record[1:]))))
        except ValueError as error:
            raise self._no_record(error) from error

    def _no_record(self, error: Exception) -> DataError:
        return DataError(f"{self.path} holds rows that are no {self.record.__name__} ({error}); delete it to redo the shard")

    def note_seconds(self, seconds: Sequence[tuple[str, float]]) -> None:
        """Keeps latencies by key beside the table: the one thing that differs between equal runs."""
        self._seconds = self._seconds or open_log(self.shard.with_suffix(SECONDS))
        self._seconds.write(b"".join(msgspec.json.encode((key, round(value, 4))) + b"\n" for key, value in seconds))
        self._seconds.flush()

    def append(self, rows: Sequence[Row]) -> None:
        """Adds finished rows. They survive SIGKILL once this returns; power loss may cost the shard's log, not its order."""
        self._file.write(b"".join(map(log_line, rows)))
        self._file.flush()
        self.rows.update((row.key, row) for row in rows)

    def finish(self, keys: Sequence[str]) -> None:
        """Turns the log into the Parquet file, in the order of `keys`."""
        rows = [self.rows[key] for key in keys]
        origins = [[row.key, *row.origin] for row in rows if row.origin is not None]
        if origins:
            write_atomic(self.shard.with_suffix(ORIGINS), b"".join(msgspec.json.encode(line) + b"\n" for line in origins))
        try:
            write_shard(self.shard, self.record, rows)
        except (ValueError, TypeError) as error:
            raise self._no_record(error) from error
        self.close()
        self.path.unlink()

    def close(self) -> None:
        self._file.close()
        if self._seconds:
            self._seconds.close()


def log_line(row: Row) -> bytes:
    """The row as it stands in the log of an unfinished shard."""
    record = msgspec.Raw(row.record) if row.record is not None else None
    return msgspec.json.encode((row.key, record, row.dropped, row.origin)) + b"\n"


_LOG_ROW = msgspec.json.Decoder(tuple[str, msgspec.Raw, str | None, tuple[str, ...] | None])


def read_log(path: Path) -> Iterator[Row]:
    """The rows of an unfinished shard, but for a last line that a killed writer left torn."""
    for number, line in enumerate(read_whole_lines(path), start=1):
        try:
            key, record, dropped, origin = _LOG_ROW.decode(line)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path}:{number} is not a log row; delete this file to redo the shard") from error
        yield Row(key, None if bytes(record) == b"null" else bytes(record), dropped, origin)


def dropped_row(key: str, reason: str, origin: tuple[str, ...] | None = None) -> Row:
    """The row of an item that left no record."""
    return Row(key, None, whole_text(reason), origin)


def write_shard(path: Path, record: type, rows: Sequence[Row]) -> None:
    """The rows as a Parquet file with its checksum, whole or absent. Raises ValueError for a row that is no such record."""
    import pyarrow as pa  # 0.1 s, and `import editr1` shall be fast
    import pyarrow.parquet as pq

    reasons = dict(sorted(Counter(row.dropped.partition(":")[0] for row in rows if row.dropped is not None).items()))
    about = About(keys_digest([row.key for row in rows]), rows_digest(rows), len(rows), reasons)
    table = to_table(record, [(row.key, row.record, row.dropped) for row in rows])
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({_ABOUT: msgspec.json.encode(about)}), buffer, compression="zstd")
    data = buffer.getvalue().to_pybytes()
    write_atomic(path.with_suffix(CHECKSUM), f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode(), settle=False)
    write_atomic(path, data)


def read_shard(path: Path, record: type) -> Iterator[tuple[str, Any]]:
    """(key, record) of a finished shard, in order. Raises DataError for a damaged file, or one of other records."""
    with _open(path) as file:
        found = file.schema_arrow.remove_metadata()
        if not reads(record, found):
            odd = sorted({*map(str, found)} ^ {*map(str, schema_of(record))})
            raise DataError(f"{path} holds no rows of {record.__name__}: column {odd[0]!r} differs")
        for batch in file.iter_batches(batch_size=1024, use_threads=False):
            try:
                yield from records_of(record, batch)
            except ValueError as error:
                raise DataError(f"{path}: a row is no {record.__name__}: {error}") from error


def reopen(path: Path, record: type, kept_codes: frozenset[str]) -> None:
    """Turns a finished shard back into a log without its dropped rows, but for drops of these codes."""
    origins = dict(read_origins(path))
    drops = list(read_drops(path))
    kept = [dropped_row(key, reason, origins.get(key)) for key, reason in drops if reason.partition(":")[0] in kept_codes]
    if len(kept) == len(drops):
        return
    good = [Row(key, encode(found), None, origins.get(key)) for key, found in read_shard(path, record)]
    write_atomic(path.with_suffix(LOG), b"".join(map(log_line, [*good, *kept])))
    path.unlink()
    path.with_suffix(CHECKSUM).unlink()


def read_drops(path: Path) -> Iterator[tuple[str, str]]:
    """(key, reason) of the rows of a finished shard that were dropped."""
    with _open(path) as file:
        for batch in file.iter_batches(columns=[KEY, DROPPED], use_threads=False):
            yield from drops_of(batch)


def about(path: Path) -> About:
    """What a finished shard says of itself. Raises DataError for a damaged one."""
    with _open(path) as file:
        try:
            return msgspec.json.decode((file.schema_arrow.metadata or {})[_ABOUT], type=About)
        except (KeyError, msgspec.MsgspecError) as error:
            raise DataError(f"{path} is no shard of a table; delete it to redo it") from error


def read_origins(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(key, what the item was made from) of the rows of a shard, finished or not."""
    if not path.exists():
        yield from ((row.key, row.origin) for row in read_log(path.with_suffix(LOG)) if row.origin is not None)
        return
    for number, line in enumerate(read_whole_lines(path.with_suffix(ORIGINS)), start=1):
        try:
            key, *origin = msgspec.json.decode(line, type=list[str])
        except ValueError as error:
            raise DataError(f"{path.with_suffix(ORIGINS)}:{number} is no origin of a row ({error}); {_cure(path)}") from error
        yield key, tuple(origin)


def problem(path: Path) -> str | None:
    """What is wrong with the bytes of a finished shard; None when they fit their checksum."""
    try:
        _checked(path)
    except DataError as error:
        return str(error)
    return None


def _checked(path: Path) -> bytes:
    try:
        data, claimed = path.read_bytes(), path.with_suffix(CHECKSUM).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is damaged: {Path(str(error.filename)).name} is missing; {_cure(path)}") from error
    if claimed[:64] != hashlib.sha256(data).hexdigest().encode():
        raise DataError(f"{path} is damaged: its bytes do not fit its checksum; {_cure(path)}")
    return data


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(pa.BufferReader(_checked(path)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no shard of a table ({error}); delete it to redo it") from error


def _cure(path: Path) -> str:
    return f"redo it alone with: editr1 repair {path.parent.parent}"


def keys_digest(keys: Sequence[str]) -> str:
    """Depends on the keys, their borders and their order."""
    return hashlib.sha256("\x1f".join(keys).encode()).hexdigest()


def rows_digest(rows: Sequence[Row]) -> str:
    """Depends on what the rows say, and not on how they lie in files."""
    said = ((row.key.encode(), row.record if row.record is not None else (row.dropped or "").encode()) for row in rows)
    return sum_digests(hashlib.sha256(b"\x1f".join(parts)).hexdigest() for parts in said)


def sum_digests(digests: Iterator[str]) -> str:
    """64 hex digits that depend on the digests and not on their order."""
    return f"{sum(int(digest, 16) for digest in digests) % 2**256:064x}"
