"""Check the tables and pictures of a run against their checksums, and make what is damaged again.

A damaged shard is taken out, and the stage that made it runs again with the settings that the run keeps in config.json: it makes the
rows of that shard and no others. Pictures and tables that no stage of the loop makes are named, with what to do.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
from collections import defaultdict
from pathlib import Path

from editr1.errors import DataError
from editr1.store.run import Run
from editr1.store.shards import CHECKSUM, LOG, problem, shard_path, shard_paths
from editr1.store.tables import STAGE_OF, read_summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")
    parser.add_argument("--dry-run", action="store_true", help="name what is damaged and change nothing")


def main(args: argparse.Namespace) -> int:
    from editr1.config import section

    run = Run.open(args.run, create=False)
    shards = damaged_shards(run)
    pictures = damaged_pictures(run)
    for path in [*shards, *pictures]:
        _say(f"damaged: {path}")
    if args.dry_run or not shards:
        _say("repair: no shard is damaged" if not shards else f"repair: {len(shards)} shards are damaged; nothing was changed")
        return 1 if shards or pictures else 0
    stages: dict[str, list[Path]] = defaultdict(list)
    for path in shards:
        stages[stage_of(path)].append(path)
    config = run.config()
    if unknown := [paths[0] for stage, paths in stages.items() if stage not in config]:
        raise DataError(f"{unknown[0]} was made by no stage whose settings are in {run.dir / 'config.json'}; delete {unknown[0].parent}")
    for stage, paths in stages.items():
        for path in paths:
            remove_shard(path)
        module = importlib.import_module(f"editr1.stages.{stage}")
        _say(f"{stage}: {module.run(section(config, stage, module.Config), run.dir)}")
    if pictures:
        raise DataError(
            f"{len(pictures)} pictures are damaged, the first is {pictures[0]}; copy them from where they came, or start a new run"
        )
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


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
    for part in (path.parent / "counts.json", path, path.with_suffix(CHECKSUM), path.with_suffix(LOG)):
        part.unlink(missing_ok=True)


def stage_of(shard: Path) -> str:
    """Which stage makes the shard; the table's name where none of the loop does."""
    return STAGE_OF.get(shard.parent.name, shard.parent.name)


def damaged_pictures(run: Run) -> list[Path]:
    """The stored pictures whose bytes are not those that gave them their names."""
    files = sorted(path for path in run.images.root.glob("??/*") if path.is_file())
    return [path for path in files if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem]
