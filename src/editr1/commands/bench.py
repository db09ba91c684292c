"""Judge a benchmark with any judge: resumable, cached, with intervals and counts.

    editr1 bench editreward_editscore --root DATA --run RUN --judge editscore --model EditScore-7B --base-url URL
    editr1 bench pairs --run RUN --judge rrm --checkpoint RUN/08_rrm_gcpo
    editr1 bench gedit --root DATA --edits OUT/kontext --set language=cn --run RUN --judge viescore --model gpt-4.1 --repeats 3

A benchmark whose data is absent says what to download and where to put it.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

from editr1.commands._judge import options
from editr1.commands._judged_table import add_judging_arguments, judge_and_show
from editr1.commands._metrics import add_output_arguments
from editr1.config import Component, create, load, offered
from editr1.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"benchmark ({', '.join(offered('bench', 'build'))}))")
    parser.add_argument("--root", type=Path, metavar="DIR", help="local copy of the benchmark's data")
    parser.add_argument("--edits", type=Path, metavar="DIR", help="folder of one editor's images, where the benchmark judges edits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="option of the benchmark; repeatable")
    add_judging_arguments(parser)
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    if args.name.endswith((".yaml", ".yml")):
        raise ConfigError(f"{args.name} is a recipe: reward models are trained and compared by: editr1 study {args.name} --run DIR")
    if args.name not in offered("bench", "build") and args.name in offered("bench", "read_stored"):
        raise ConfigError(
            f"{args.name} is published as stored outputs, without pictures to judge: editr1 aggregate PATH (see docs/benchmarks.md)"
        )
    given = {"root": args.root, "edits": args.edits, **options(args.set)}
    takes = inspect.signature(load("bench", args.name)).parameters
    # An absent folder is left to the benchmark, which says what to download.
    chosen = {key: value for key, value in given.items() if value is not None or key in takes}
    source = {"name": args.name, **{key: str(value) for key, value in chosen.items()}}
    if "run" in takes and args.run is not None:
        chosen.setdefault("run", args.run)  # left out of `source`: a run directory may be moved
    benchmark = create("bench", Component(args.name, chosen))
    return judge_and_show(benchmark, source, args)
