"""Bring a run directory that an older editr1 wrote up to date.

Tables of schema 1 held a string of JSON a row; now they have a column for each field. Rows, keys, and what may be continued
stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from editr1.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory")


def main(args: argparse.Namespace) -> int:
    from editr1.bench.base import JudgedEdit, JudgedPair
    from editr1.stages.inspect import SecondOpinion
    from editr1.stages.tasks import FilterVerdict
    from editr1.store import TABLES
    from editr1.store.migrate import migrate
    from editr1.training.rows import Rationale

    if not (args.run / "env.json").exists():
        raise DataError(f"{args.run} is no run directory (it has no env.json)")
    done = migrate(args.run, [*TABLES.values(), FilterVerdict, SecondOpinion, Rationale, JudgedEdit, JudgedPair])
    print(f"migrate: {', '.join(done) or 'nothing to do'}", flush=True)  # noqa: T201
    return 0
