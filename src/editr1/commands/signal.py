"""What makes a judge a good reward: spread inside groups, order of their edits, noise, agreement of few traces.

    editr1 signal --run RUN --judged bench_pairs_sft --judged bench_pairs_rl      edits that people compared, by task
    editr1 signal JUDGED.outcomes.jsonl --truth ORACLE.outcomes.jsonl             edits of one source, what another judge says as truth
    editr1 signal scores.csv                                                      key, cluster, value and optionally human

A group is the edits of one task (of one cluster in a file). One judge is printed in full, several as one row each. No model is asked.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from pathlib import Path

from editr1.bench.base import JudgedEdit
from editr1.bench.pairs import build
from editr1.bench.table import read_rated
from editr1.commands._metrics import add_output_arguments, aligned, few_sources, show
from editr1.errors import ConfigError, DataError
from editr1.measure.compare import benchmark_of, outcomes_of
from editr1.measure.groups import ScoredEdit, signal_metrics, signal_of_pairs
from editr1.schema import Metric
from editr1.store import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="outcomes of single edits, stored outputs, or a table; one a judge"
    )
    parser.add_argument(
        "--judged", action="append", default=[], metavar="TABLE", help="table of the run that `bench pairs` wrote; repeatable"
    )
    parser.add_argument("--split", default="all", help="pairs of the run: held_out, train or all (default)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="outcomes of the same edits that say how good they are")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    if bool(args.files) == bool(args.judged):
        raise ConfigError("give files, or --run DIR with --judged TABLE; each names one judge")
    if args.truth and args.judged:
        raise ConfigError("--truth is for files; in a run people's pairs are the truth")
    judges = {path.name.removesuffix(".outcomes.jsonl").removesuffix(path.suffix): _of_file(path, args) for path in args.files}
    judges |= {table: _of_run(table, args) for table in args.judged}
    if len(judges) == 1 or args.json:
        named = [_named(metric, name) for name, metrics in judges.items() for metric in metrics]
        show(next(iter(judges.values())) if len(judges) == 1 else named, args)
        return 0
    columns = list(dict.fromkeys(metric.protocol for metrics in judges.values() for metric in metrics))
    rows = [["judge", *(column.removeprefix("signal/") for column in columns)]]
    for name, metrics in judges.items():
        values = {metric.protocol: metric.value for metric in metrics}
        rows.append([name, *("-" if (value := values.get(column)) is None else f"{value:.3f}" for column in columns)])
    every = [_named(metric, name) for name, metrics in judges.items() for metric in metrics]
    show(every, args, lines=[*aligned(rows), *few_sources(every)])
    return 0


def _named(metric: Metric, judge: str) -> Metric:
    return dataclasses.replace(metric, name=f"{metric.name}/{judge}")


def _of_run(table: str, args: argparse.Namespace) -> list[Metric]:
    if args.run is None:
        raise ConfigError("--judged names a table of a run: give --run DIR as well")
    judged = dict(Run.open(args.run, create=False).keyed(table, JudgedEdit))
    try:
        return signal_of_pairs(build(args.run, args.split).pairs, judged, args.seed)
    except DataError as error:
        raise DataError(f"table {table}: {error}; give the table and the --split of: editr1 bench pairs --run ...") from error


def _of_file(path: Path, args: argparse.Namespace) -> list[Metric]:
    truths: dict[str, float | None] = {}
    if args.truth:
        truths = {row.key: row.value for row in outcomes_of(args.truth)}
    if not path.name.endswith(".outcomes.jsonl") and path.exists() and benchmark_of(path) == "table":
        rows, human = read_rated(path)
        truths = truths or dict(zip((row.key for row in rows), human, strict=True))
    else:
        rows = outcomes_of(path)
    if args.truth and not truths.keys() & {row.key for row in rows}:
        raise DataError(f"{args.truth} has no edit of {path}: they are of different benchmarks, sets or versions")
    groups: dict[str, list[ScoredEdit]] = defaultdict(list)
    for row in rows:
        if row.value is not None:
            groups[row.cluster].append(ScoredEdit(row.value, (), truths.get(row.key)))
    return signal_metrics(groups, sum(row.value is None for row in rows), args.seed)
