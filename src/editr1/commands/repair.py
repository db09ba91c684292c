"""Check the tables and pictures of a run against their checksums, and make what is damaged again.

A damaged shard is taken out, and the stage that made it runs again with the settings that the run keeps in config.json: it makes the
rows of that shard and no others. Pictures and tables that no stage of the loop makes are named, with what to do.
"""

from __future__ import annotations

import argparse
import importlib
from collections import defaultdict
from pathlib import Path

from editr1.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")
    parser.add_argument("--dry-run", action="store_true", help="name what is damaged and change nothing")


def main(args: argparse.Namespace) -> int:
    from editr1.config import section
    from editr1.store import Run
    from editr1.store.repair import damaged_pictures, damaged_shards, remove_shard, stage_of

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
