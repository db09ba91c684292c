"""Make the numbers of stored judge outputs again, with intervals and counts, without a model.

    editr1 aggregate results/image_edition/gpt4o/pairwise.json
    editr1 aggregate results/image_edition/*/pairwise.json --out judged       one row a judge, and outcomes for `editr1 compare`

The files are recognised by their content; docs/benchmarks.md lists what is known. One judge is printed in full, several (or any number
with --short) as one row each with the figures of the benchmark's published table, in its units.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from editr1.bench.base import Stored
from editr1.commands._metrics import add_output_arguments, aligned, few_sources, say, show, write_outcomes
from editr1.measure.compare import read_stored
from editr1.schema import Metric


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="stored outputs: files, or folders where a format is one")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="the benchmark's own file, where it does not lie beside (basic_edit.json, edit.json)"
    )
    parser.add_argument("--benchmark", default="", metavar="NAME", help="what the files are of, where their content does not say")
    parser.add_argument("--short", action="store_true", help="one row a judge, also for a single one")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write <benchmark>_<judge>.outcomes.jsonl there, for `editr1 compare`")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    found = read_stored(args.files, args.data, args.seed, args.benchmark)
    metrics = [m for stored in found for m in (stored.metrics if len(found) == 1 else _named(stored))]
    if args.json or (len(found) == 1 and not args.short):
        show(metrics, args)
    else:
        show(metrics, args, lines=[*_rows(found), *few_sources(metrics)])
    for stored in found if args.out else ():
        path = args.out / f"{stored.benchmark}_{stored.name}.outcomes.jsonl"
        if stored.outcomes:
            write_outcomes(path, stored.outcomes)
        if not args.json:
            say(str(path) if stored.outcomes else f"{stored.benchmark}, {stored.name}: no sample has a figure of its own, so no outcomes")
    return 0


def _named(stored: Stored) -> list[Metric]:
    return [dataclasses.replace(metric, name=f"{metric.name}/{stored.name}") for metric in stored.metrics]


def _rows(found: Sequence[Stored]) -> list[str]:
    """One aligned table a benchmark; n is the largest of the judge's metrics."""
    lines = []
    for benchmark in dict.fromkeys(stored.benchmark for stored in found):
        mine = [stored for stored in found if stored.benchmark == benchmark]
        columns = list(dict.fromkeys(name for stored in mine for name in stored.headline))
        rows = [
            [
                stored.name,
                *("-" if (value := stored.headline.get(name)) is None else f"{value:.2f}" for name in columns),
                str(max((metric.n for metric in stored.metrics), default=0)),
                str(max((metric.num_unscored for metric in stored.metrics), default=0)),
            ]
            for stored in mine
        ]
        lines += aligned([[benchmark, *columns, "n", "unscored"], *rows])
    return lines
