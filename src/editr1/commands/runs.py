"""What is done to a run directory: `report`, `repair`, `migrate`."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from editr1.commands._judge import say
from editr1.errors import DataError
from editr1.records import KEY, SCHEMA_VERSION, encode
from editr1.schema import from_json
from editr1.store import TABLES, Run, environment
from editr1.store._files import exclusive, read_json, read_jsonl, write_atomic, write_json
from editr1.store.shards import CHECKSUM, LOG, Row, about, dropped_row, log_line, problem, shard_path, shard_paths, sum_digests, write_shard
from editr1.store.tables import STAGE_OF, read_summary

SHARE = 0.2  # ours: of the time that may go into writing the page while a run needs the machine


def add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run directory; several are put side by side")
    add("--output", type=Path, metavar="FILE", help="the page (default: report.html in RUN; of several, comparison.html in the first)")
    add("--watch", type=_seconds, nargs="?", const=10, default=0, metavar="SECONDS", help="follow runs that go on (default: every 10 s)")


def run_report(args: argparse.Namespace) -> int:
    """Write the report of a run, or of several side by side: one HTML file that works offline.

    With --watch the page is written again whenever a run has changed, and shows itself anew, until Ctrl-C.
    """
    seen = _state(args.runs)
    print(_write(args, args.watch))  # noqa: T201
    try:
        while args.watch:
            time.sleep(args.watch)
            if (now := _state(args.runs)) != seen:
                seen, start = now, time.monotonic()
                _write(args, args.watch)
                time.sleep((time.monotonic() - start) * (1 / SHARE - 1))
    except KeyboardInterrupt:
        _write(args, 0)  # the page that stays does not load itself again
    return 0


def _write(args: argparse.Namespace, refresh: int) -> Path:
    from editr1.report import write_report

    path, damage = write_report(*args.runs, output=args.output, refresh=refresh)
    for line in damage:
        print(f"editr1 report: {line}", file=sys.stderr)  # noqa: T201
    return path


def _state(runs: Sequence[Path]) -> set[tuple[str, int, int]]:
    """What changes when a run goes on: its files with their sizes and times. Pictures are left out, for rows name them."""
    found = set()
    for run in runs:
        for folder, folders, names in os.walk(run):
            folders[:] = [name for name in folders if name != "images"]
            for path in (Path(folder, name) for name in names if not name.startswith(("report.html", "comparison.html", ".lock"))):
                try:
                    about = path.stat()
                except FileNotFoundError:  # renamed meanwhile
                    continue
                found.add((str(path), about.st_size, about.st_mtime_ns))
    return found


def _seconds(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole seconds, at least 1")
    return int(text)


def add_repair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")
    parser.add_argument("--dry-run", action="store_true", help="name what is damaged and change nothing")


def run_repair(args: argparse.Namespace) -> int:
    """Check the tables and pictures of a run against their checksums, and make what is damaged again.

    A damaged shard is taken out, and the stage that made it runs again with the settings that the run keeps in config.json: it makes the
    rows of that shard and no others. Pictures and tables that no stage of the loop makes are named, with what to do.
    """
    from editr1.config import section

    run = Run.open(args.run, create=False)
    shards = damaged_shards(run)
    pictures = damaged_pictures(run)
    for path in [*shards, *pictures]:
        say(f"damaged: {path}")
    if args.dry_run or not shards:
        say("repair: no shard is damaged" if not shards else f"repair: {len(shards)} shards are damaged; nothing was changed")
        return 1 if shards or pictures else 0
    stages: dict[str, list[Path]] = defaultdict(list)
    for path in shards:
        stages[STAGE_OF.get(path.parent.name, path.parent.name)].append(path)
    config = run.config()
    if unknown := [paths[0] for stage, paths in stages.items() if stage not in config]:
        raise DataError(f"{unknown[0]} was made by no stage whose settings are in {run.dir / 'config.json'}; delete {unknown[0].parent}")
    for stage, paths in stages.items():
        for path in paths:  # without it the table is unfinished, and its stage makes the rows of this shard again
            for part in (path.parent / "counts.json", path, path.with_suffix(CHECKSUM), path.with_suffix(LOG)):
                part.unlink(missing_ok=True)
        module = importlib.import_module(f"editr1.stages.{stage}")
        say(f"{stage}: {module.run(section(config, stage, module.Config), run.dir)}")
    if pictures:
        raise DataError(
            f"{len(pictures)} pictures are damaged, the first is {pictures[0]}; copy them from where they came, or start a new run"
        )
    return 0


def damaged_shards(run: Run) -> list[Path]:
    """The shards that are missing from a complete table, or do not fit their checksum, in the order of the tables."""
    found = []
    for folder in sorted(path for path in run.dir.iterdir() if path.is_dir()):
        paths = set(shard_paths(folder))
        if (folder / "counts.json").exists():
            paths |= {shard_path(folder, index) for index in range(read_summary(folder)["shards"])}
        found += [path for path in sorted(paths) if problem(path)]
    return found


def damaged_pictures(run: Run) -> list[Path]:
    """The stored pictures whose bytes are not those that gave them their names."""
    files = sorted(path for path in run.images.root.glob("??/*") if path.is_file())
    return [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem]


def add_migrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")


def run_migrate(args: argparse.Namespace) -> int:
    """Bring a run directory that an older editr1 wrote up to date.

    Tables of schema 1 held a string of JSON a row; now they have a column for each field. Rows, keys, and what may be continued
    stay as they are.
    """
    from editr1.bench.base import JudgedEdit, JudgedPair
    from editr1.stages.inspect import SecondOpinion
    from editr1.stages.tasks import FilterVerdict
    from editr1.training.rows import Rationale

    if not (args.run / "env.json").exists():
        raise DataError(f"{args.run} is no run directory (it has no env.json)")
    done = migrate(args.run, [*TABLES.values(), FilterVerdict, SecondOpinion, Rationale, JudgedEdit, JudgedPair])
    print(f"migrate: {', '.join(done) or 'nothing to do'}", flush=True)  # noqa: T201
    return 0


OLD_DIGEST = "digest of schema 1"
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
        summaries = [read_json(path) for folder in folders if (path := folder / "counts.json").exists()]
        digests = {summary[OLD_DIGEST]: summary["digest"] for summary in summaries if summary.get(OLD_DIGEST)}
        for path in sorted(run_dir.glob("*/settings.json")):
            settings = read_json(path)
            write_json(path, {key: digests.get(value, value) if key.startswith("input ") else value for key, value in settings.items()})
        write_json(header, {**read_json(header), "schema": SCHEMA_VERSION, "migrated by": environment()["editr1"]})
    return [folder.name for folder in folders]


def _migrate_table(folder: Path, records: Sequence[type]) -> None:
    old = {path: rows for path in sorted(folder.glob("part-*")) if (rows := _old_rows(path))}
    if old:
        lines = (line for rows in old.values() for _, line, _ in rows if line is not None)
        record = _record_of(folder, next(lines, None), records)
    for path, rows in old.items():
        new = [_row(path, record, *row) for row in rows]
        if path.suffix == ".parquet":
            write_shard(path, record, new)
        else:
            write_atomic(path, b"".join(map(log_line, new)))
    shards = [about(path) for path in shard_paths(folder)]
    if shards:
        write_json(folder / "layout.json", {"shard_size": shards[0].num_in})
    counts = folder / "counts.json"
    if counts.exists() and "shards" not in read_json(counts):
        summary = read_json(counts)
        digest = sum_digests(shard.rows for shard in shards)
        write_json(counts, {**summary, "digest": digest, "shards": len(shards), OLD_DIGEST: summary.get("digest")})


def _old_rows(path: Path) -> list[OldRow]:
    """The rows of a shard of schema 1, finished or not; none of one that is up to date."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.name.endswith(LOG):
        return [(row[0], row[1], row[2]) for row in read_jsonl(path) if len(row) == 3]
    if path.suffix != ".parquet":
        return []
    try:
        table = pq.read_table(path)
        old = () if KEY in table.column_names else (table[name].to_pylist() for name in ("key", "record", "dropped"))
        return list(zip(*old, strict=True))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataError(f"{path} is no shard of a table ({error}); delete it to redo it") from error


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
