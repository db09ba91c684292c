"""One shard of a table: an append-only log while it is being filled, a Parquet file once it is whole.

A Parquet row is (key, record, dropped): the item's key, the record as the JSON line of `schema.to_json` or null, and why
there is none. Rows stand in the order of the stage's input, whatever order the work was done in, so equal work gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from editr1.errors import DataError
from editr1.store._files import read_whole_lines

_KEYS = b"editr1.keys"  # Parquet metadata: digest of the shard's keys


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one item: exactly one of `record` and `dropped` is set."""

    key: str
    record: str | None
    """One line of JSON."""
    dropped: str | None
    """Why the item left no record."""


def shard_path(table: Path, index: int) -> Path:
    """`part-00007.parquet` in the table's folder."""
    return table / f"part-{index:05d}.parquet"


def seconds_path(shard: Path) -> Path:
    """The latencies of a shard's items."""
    return shard.with_suffix(".seconds.jsonl")


def shard_paths(table: Path) -> list[Path]:
    """The finished shards in order."""
    return sorted(table.glob("part-*.parquet"), key=lambda path: int(path.stem.removeprefix("part-")))


class ShardLog:
    """The rows of an unfinished shard. Opening it reads what an earlier process finished."""

    def __init__(self, shard: Path) -> None:
        self.shard = shard
        self.path = shard.with_suffix(".partial.jsonl")
        self.rows: dict[str, Row] = {}
        for number, line in enumerate(read_whole_lines(self.path), start=1):
            try:
                key, record, dropped = json.loads(line)
            except ValueError as error:
                raise DataError(f"{self.path}:{number} is not a log row; delete this file to redo the shard") from error
            self.rows[key] = Row(key, record, dropped)
        self._file = self.path.open("a", encoding="utf-8")

    def note_seconds(self, seconds: Sequence[tuple[str, float]]) -> None:
        """Keeps latencies by key beside the table: the one thing that differs between equal runs."""
        with seconds_path(self.shard).open("a", encoding="utf-8") as file:
            file.write("".join(f"{json.dumps([key, round(value, 4)])}\n" for key, value in seconds))

    def append(self, rows: Sequence[Row]) -> None:
        """Adds finished rows. They survive SIGKILL once this returns; power loss may cost the shard's log, not its order."""
        self._file.write("".join(json.dumps([row.key, row.record, row.dropped], ensure_ascii=False) + "\n" for row in rows))
        self._file.flush()
        self.rows.update((row.key, row) for row in rows)

    def finish(self, keys: Sequence[str]) -> list[Row]:
        """Turns the log into the Parquet file, in the order of `keys`, and returns the rows."""
        rows = [self.rows[key] for key in keys]
        write_shard(self.shard, rows)
        self.close()
        self.path.unlink()
        return rows

    def close(self) -> None:
        self._file.close()


def write_shard(path: Path, rows: Sequence[Row]) -> None:
    """The rows as a Parquet file, whole or absent."""
    import pyarrow as pa  # 0.1 s, and `import editr1` shall be fast
    import pyarrow.parquet as pq

    columns = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in ("key", "record", "dropped")}
    table = pa.table(columns).replace_schema_metadata({_KEYS: keys_digest([row.key for row in rows])})
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary, compression="zstd")
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_shard(path: Path, batch_size: int = 1024) -> Iterator[Row]:
    """The rows of a finished shard, in order. Raises DataError for a file that is no shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=batch_size, columns=["key", "record", "dropped"]):
                columns = [column.to_pylist() for column in batch.columns]
                yield from (Row(*values) for values in zip(*columns, strict=True))
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{path} is no shard of a table ({error}); delete it to redo it") from error


def stored_keys_digest(path: Path) -> str:
    """The digest of the keys that a finished shard was made for."""
    import pyarrow.parquet as pq

    return (pq.read_schema(path).metadata or {}).get(_KEYS, b"").decode()


def keys_digest(keys: Sequence[str]) -> str:
    """Depends on the keys, their borders and their order."""
    return hashlib.sha256("\x1f".join(keys).encode()).hexdigest()
