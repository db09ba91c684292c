"""Bring a run directory that an older editr1 wrote up to date.

Tables of schema 1 held a string of JSON a row; now they have a column for each field. Rows, keys, and what may be continued
stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from editr1.errors import DataError
from editr1.records import KEY, SCHEMA_VERSION, encode
from editr1.schema import from_json
from editr1.store._files import exclusive, read_json, read_jsonl, write_atomic, write_json
from editr1.store.run import TABLES, environment
from editr1.store.shards import Row, about, dropped_row, log_line, shard_paths, sum_digests, write_shard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")


def main(args: argparse.Namespace) -> int:
    from editr1.bench.base import JudgedEdit, JudgedPair
    from editr1.stages.inspect import SecondOpinion
    from editr1.stages.tasks import FilterVerdict
    from editr1.training.rows import Rationale

    if not (args.run / "env.json").exists():
        raise DataError(f"{args.run} is no run directory (it has no env.json)")
    done = migrate(args.run, [*TABLES.values(), FilterVerdict, SecondOpinion, Rationale, JudgedEdit, JudgedPair])
    print(f"migrate: {', '.join(done) or 'nothing to do'}", flush=True)  # noqa: T201
    return 0


OldRow = tuple[str, str | None, str | None]
"""Key, record as a line of JSON, why there is none."""


def migrate(run_dir: Path, records: Sequence[type]) -> list[str]:
    """Rewrites the tables of a run, and returns the names of those that were. Killed at any moment and run again, it goes on.

    records: what the rows of a table can be; the first whose fields fit is taken.

    Raises DataError for what is no run of schema 1, and for rows that are none of the records.
    """
    header = run_dir / "env.json"
    version = read_json(header).get("schema")
    if version == SCHEMA_VERSION:
        return []
    if version != 1:
        raise DataError(f"{run_dir} has schema version {version}; only runs of version 1 can be brought to {SCHEMA_VERSION}")
    with exclusive(run_dir / ".lock", str(run_dir), wait=True):
        folders = [folder for folder in sorted(run_dir.iterdir()) if any(folder.glob("part-*"))]
        for folder in folders:
            with exclusive(folder / ".lock", f"table {folder}"):
                _migrate_table(folder, records)
        digests = dict(filter(None, map(_digests, folders)))
        for path in sorted(run_dir.glob("*/settings.json")):
            settings = read_json(path)
            write_json(path, {key: digests.get(value, value) if key.startswith("input ") else value for key, value in settings.items()})
        write_json(header, {**read_json(header), "schema": SCHEMA_VERSION, "migrated by": environment()["editr1"]})
    return [folder.name for folder in folders]


def _migrate_table(folder: Path, records: Sequence[type]) -> None:
    shards_of_1 = {path: rows for path in shard_paths(folder) if (rows := _old_rows(path)) is not None}
    logs_of_1 = {path: rows for path in sorted(folder.glob("part-*.partial.jsonl")) if (rows := _old_log(path))}
    if shards_of_1 or logs_of_1:
        lines = (line for rows in [*shards_of_1.values(), *logs_of_1.values()] for _, line, _ in rows if line is not None)
        record = _record_of(folder, next(lines, None), records)
        for path, rows in shards_of_1.items():
            write_shard(path, record, [_row(path, record, *row) for row in rows])
        for path, rows in logs_of_1.items():
            write_atomic(path, b"".join(log_line(_row(path, record, *row)) for row in rows))
    shards = [about(path) for path in shard_paths(folder)]
    if shards:
        write_json(folder / "layout.json", {"shard_size": shards[0].num_in})
    counts = folder / "counts.json"
    if counts.exists() and "shards" not in read_json(counts):
        summary = read_json(counts)
        digest = sum_digests(shard.rows for shard in shards)
        write_json(counts, {**summary, "digest": digest, "shards": len(shards), "digest of schema 1": summary.get("digest")})


def _old_rows(path: Path) -> list[OldRow] | None:
    """The rows of a shard of schema 1; None for one that is up to date."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        if KEY in table.column_names:
            return None
        return list(zip(*(table[name].to_pylist() for name in ("key", "record", "dropped")), strict=True))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(f"{path} is no shard of a table ({error}); delete it to redo it") from error


def _old_log(path: Path) -> list[OldRow]:
    """The rows of an unfinished shard of schema 1; empty for one that is up to date."""
    rows = [tuple(row) for row in read_jsonl(path)]
    return [row for row in rows if len(row) == 3]


def _record_of(folder: Path, line: str | None, records: Sequence[type]) -> type:
    if line is None and folder.name in TABLES:
        return TABLES[folder.name]
    for record in records:
        try:
            from_json(record, line or "")
        except ValueError:
            continue
        return record
    raise DataError(f"{folder}: its rows are none of {', '.join(record.__name__ for record in records)}; delete it to make it anew")


def _row(path: Path, record: type, key: str, line: str | None, dropped: str | None) -> Row:
    if line is None:
        return dropped_row(key, dropped or "")
    try:
        return Row(key, encode(from_json(record, line)), None)
    except ValueError as error:
        raise DataError(f"{path}: row {key}: {error}") from error


def _digests(folder: Path) -> tuple[str, str] | None:
    path = folder / "counts.json"
    summary = read_json(path) if path.exists() else {}
    old = summary.get("digest of schema 1")
    return (old, summary["digest"]) if old else None
