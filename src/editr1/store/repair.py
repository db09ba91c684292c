"""Finds what a disk has changed behind a run's back, and takes it out so that its stage makes it again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from editr1.store.run import Run
from editr1.store.shards import checksum_path, log_path, problem, shard_path, shard_paths
from editr1.store.tables import STAGE_OF, read_summary


def damaged_shards(run: Run) -> list[Path]:
    """The shards that are missing from a complete table, or do not fit their checksum, in the order of the tables."""
    return [path for folder in sorted(run.dir.iterdir()) if folder.is_dir() for path in _damaged(folder)]


def _damaged(folder: Path) -> list[Path]:
    paths = set(shard_paths(folder))
    if (folder / "counts.json").exists():
        paths |= {shard_path(folder, index) for index in range(read_summary(folder)["shards"])}
    return [path for path in sorted(paths) if problem(path)]


def remove_shard(path: Path) -> None:
    """Takes a damaged shard out: the table is unfinished, and its stage makes the rows of this shard again."""
    for part in (path.parent / "counts.json", path, checksum_path(path), log_path(path)):
        part.unlink(missing_ok=True)


def stage_of(shard: Path) -> str:
    """Which stage makes the shard; the table's name where none of the loop does."""
    return STAGE_OF.get(shard.parent.name, shard.parent.name)


def damaged_pictures(run: Run) -> list[Path]:
    """The stored pictures whose bytes are not those that gave them their names."""
    files = sorted(path for path in run.images.root.glob("??/*") if path.is_file())
    return [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem]
