"""What judged edits say, no model asked: `aggregate`, `compare`, `best-of-n`, `signal`."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from editr1.bench.base import JudgedEdit, Stored
from editr1.bench.own import open_pairs, read_rated
from editr1.commands._judge import add_output_arguments, few_sources, named, number, say, show, write_outcomes
from editr1.errors import ConfigError, DataError
from editr1.measure.compare import NOISE_FLOOR, benchmark_of, compare, outcomes_of, read_stored, sample_table
from editr1.measure.groups import Groups, ScoredEdit, best_of_n, from_outcomes, from_pairs, picked, signal_metrics, signal_of_pairs
from editr1.schema import Metric, PreferencePair
from editr1.store import Run
from editr1.store._files import write_atomic
from editr1.text import aligned


def add_aggregate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="stored outputs: files, or folders where a format is one")
    add("--data", type=Path, metavar="FILE", help="the benchmark's own file, where it does not lie beside (basic_edit.json, edit.json)")
    add("--benchmark", default="", metavar="NAME", help="what the files are of, where their content does not say")
    add("--short", action="store_true", help="one row a judge, also for a single one")
    add("--out", type=Path, metavar="DIR", help="write <benchmark>_<judge>.outcomes.jsonl there, for `editr1 compare`")
    _add_figure_arguments(parser)


def run_aggregate(args: argparse.Namespace) -> int:
    """Make the numbers of stored judge outputs again, with intervals and counts, without a model.

        editr1 aggregate results/image_edition/gpt4o/pairwise.json
        editr1 aggregate results/image_edition/*/pairwise.json --out judged       one row a judge, and outcomes for `editr1 compare`

    The files are recognised by their content; docs/benchmarks.md lists what is known. One judge is printed in full, several (or any number
    with --short) as one row each with the figures of the benchmark's published table, in its units.
    """
    found = read_stored(args.files, args.data, args.seed, args.benchmark)
    metrics = [m for stored in found for m in (stored.metrics if len(found) == 1 else named(stored.metrics, stored.name))]
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


def _add_figure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    add_output_arguments(parser)


def _rows(found: Sequence[Stored]) -> list[str]:
    """One aligned table a benchmark; n is the largest of the judge's metrics."""
    lines = []
    for benchmark in dict.fromkeys(stored.benchmark for stored in found):
        mine = [stored for stored in found if stored.benchmark == benchmark]
        columns = list(dict.fromkeys(name for stored in mine for name in stored.headline))
        rows = [
            [
                stored.name,
                *(number(stored.headline.get(name), 2) for name in columns),
                str(max((metric.n for metric in stored.metrics), default=0)),
                str(max((metric.num_unscored for metric in stored.metrics), default=0)),
            ]
            for stored in mine
        ]
        lines += aligned([[benchmark, *columns, "n", "unscored"], *rows])
    return lines


def add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="an *.outcomes.jsonl, or stored outputs that `aggregate` reads")
    add("b", type=Path, metavar="B", help="another of the same benchmark")
    add("--data", type=Path, metavar="FILE", help="the benchmark's own file, for stored outputs that need one")
    add("--category", default="", metavar="PREFIX", help="only samples whose category starts so, such as overall/")
    add("--show", type=int, default=10, metavar="N", help="disagreements to print (default 10)")
    add(
        "--noise-floor", type=float, default=NOISE_FLOOR, metavar="X", help=f"mark changes of mean scores below X (default {NOISE_FLOOR:g})"
    )
    add("--samples", type=Path, metavar="FILE", help="write every sample as CSV: a, b, difference, mark")
    _add_figure_arguments(parser)


def run_compare(args: argparse.Namespace) -> int:
    """Compare two judges, or two editors under one judge, sample by sample: difference b - a, interval, p, and where they disagree.

        editr1 compare RUN_A/bench_gedit_viescore.outcomes.jsonl RUN_B/bench_gedit_viescore.outcomes.jsonl
        editr1 compare results/gpt4o/pairwise.json results/gemini/pairwise.json

    Intervals are of whole clusters (source images); p values of categories are adjusted by Holm, and fewer than 6 clusters give none.
    A change of a mean score below the spread between two runs of one judge (about .1, or --noise-floor) is marked.
    """
    if args.noise_floor < 0:
        raise ConfigError(f"--noise-floor is {args.noise_floor:g}; expected a change of a score, 0 or above")
    a, b = (outcomes_of(path, args.category, args.data) for path in (args.a, args.b))
    found = compare(a, b, args.seed, args.noise_floor)
    show(found.metrics, args)
    if args.samples:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(sample_table(a, b, args.noise_floor))
        write_atomic(args.samples, text.getvalue().encode())
    if args.json:
        return 0
    if found.num_only_a or found.num_only_b:
        say(f"left out: {found.num_only_a} samples that only A has, {found.num_only_b} that only B has")
    for metric in found.metrics:
        if metric.holds is False:
            say(f"{metric.protocol}: {metric.value:+.3f} is below the noise floor ({metric.goal})")
    say(f"{len(found.disagreements)} samples differ" + (":" if found.disagreements[: args.show] else ""))
    say(*(f"  {key}: A {_value(a)}, B {_value(b)}" for key, a, b in found.disagreements[: args.show]))
    return 0


def _value(value: float | None) -> str:
    return "unscored" if value is None else f"{value:.2f}"


def add_best_of_n(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--judged", metavar="TABLE", help="table of the run that `bench pairs` wrote, such as bench_pairs_rrm")
    where.add_argument(
        "--edits", action="append", nargs=3, metavar=("EDITOR", "JUDGE", "REFEREE"), help="outcomes of one editor's edits; repeatable"
    )
    add("--split", default="held_out", help="pairs of the run: held_out (default), train or all; as `bench pairs` was given")
    add("--category", default="", metavar="PREFIX", help="only outcomes whose category starts so")
    add("--picks", type=Path, metavar="FILE", help="write the picks here, one JSON object a task")
    _add_figure_arguments(parser)


def run_best_of_n(args: argparse.Namespace) -> int:
    """Best-of-N: what a judge's picks are worth, beside a random pick, the best single editor and the oracle.

        editr1 best-of-n --run RUN --judged bench_pairs_rrm
        editr1 best-of-n --edits kontext J1.outcomes.jsonl R1.outcomes.jsonl --edits qwen J2.outcomes.jsonl R2.outcomes.jsonl

    The first form chooses among the edits that people compared in a run's pairs, with the scores that `editr1 bench pairs` stored; people
    are the referee. The second chooses among the edits of several editors on one benchmark; J is what the judge said of an editor's edits,
    R what the referee said, each an *.outcomes.jsonl that `editr1 bench` or `editr1 score-folder` wrote. No model is asked.
    """
    groups = _from_run(args) if args.judged else _from_files(args)
    if not groups.tasks:
        raise DataError(f"no task is left: {_left_out(groups)}")
    show(best_of_n(list(groups.tasks.values()), args.seed), args)
    if args.picks:
        write_atomic(args.picks, "".join(line + "\n" for line in _picks(groups)).encode())
    if not args.json and (groups.num_alone or groups.num_without_referee):
        say(f"left out: {_left_out(groups)}")
    return 0


def _from_run(args: argparse.Namespace) -> Groups:
    judged, pairs = _judged(args, args.judged)
    edits = {edit.id for pair in pairs for edit in (pair.a, pair.b)}
    if not edits & judged.keys():
        raise DataError(
            f"table {args.judged} holds no edit of these pairs; give the table and the --split of: editr1 bench pairs --run ..."
        )
    return from_pairs(pairs, judged)


def _judged(args: argparse.Namespace, table: str) -> tuple[dict[str, JudgedEdit], Sequence[PreferencePair]]:
    """What `bench pairs` wrote into a table of the run, and the pairs that it is about."""
    if args.run is None:
        raise ConfigError("--judged names a table of a run: give --run DIR as well")
    return dict(Run.open(args.run, create=False).keyed(table, JudgedEdit)), open_pairs(args.run, args.split).pairs


def _from_files(args: argparse.Namespace) -> Groups:
    names = [name for name, _, _ in args.edits]
    if len(set(names)) < len(names):
        raise ConfigError(f"--edits names an editor twice ({', '.join(names)}); give each its own name")
    return from_outcomes(
        {name: (outcomes_of(Path(judge), args.category), outcomes_of(Path(referee), args.category)) for name, judge, referee in args.edits}
    )


def _picks(groups: Groups) -> Iterator[str]:
    """A tie lists all edits that share the highest score; a task that the judge did not score lists none."""
    for task, group in groups.tasks.items():
        best = picked(group)
        yield json.dumps({"task": task, "picked": [choice.key for choice in best], "score": best[0].score if best else None})


def _left_out(groups: Groups) -> str:
    return (
        f"{groups.num_without_referee} tasks with an edit that the referee did not score, "
        f"{groups.num_alone} tasks that lack an edit to choose from"
    )


def add_signal(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", type=Path, nargs="*", metavar="FILE", help="outcomes of single edits, stored outputs, or a table; one a judge")
    add("--judged", action="append", default=[], metavar="TABLE", help="table of the run that `bench pairs` wrote; repeatable")
    add("--split", default="all", help="pairs of the run: held_out, train or all (default)")
    add("--truth", type=Path, metavar="FILE", help="outcomes of the same edits that say how good they are")
    _add_figure_arguments(parser)


def run_signal(args: argparse.Namespace) -> int:
    """What makes a judge a good reward: spread inside groups, order of their edits, noise, agreement of few traces.

        editr1 signal --run RUN --judged bench_pairs_sft --judged bench_pairs_rl      edits that people compared, by task
        editr1 signal JUDGED.outcomes.jsonl --truth ORACLE.outcomes.jsonl             edits of one source, what another judge says as truth
        editr1 signal scores.csv                                                      key, cluster, value and optionally human

    A group is the edits of one task (of one cluster in a file). One judge is printed in full, several as one row each. No model is asked.
    """
    if bool(args.files) == bool(args.judged):
        raise ConfigError("give files, or --run DIR with --judged TABLE; each names one judge")
    if args.truth and args.judged:
        raise ConfigError("--truth is for files; in a run people's pairs are the truth")
    judges = {path.name.removesuffix(".outcomes.jsonl").removesuffix(path.suffix): _of_file(path, args) for path in args.files}
    judges |= {table: _of_run(table, args) for table in args.judged}
    every = [metric for name, metrics in judges.items() for metric in named(metrics, name)]
    if len(judges) == 1 or args.json:
        show(next(iter(judges.values())) if len(judges) == 1 else every, args)
        return 0
    columns = list(dict.fromkeys(metric.protocol for metrics in judges.values() for metric in metrics))
    found = {name: {metric.protocol: metric.value for metric in metrics} for name, metrics in judges.items()}
    rows = [[name, *(number(values.get(column), 3) for column in columns)] for name, values in found.items()]
    head = ["judge", *(column.removeprefix("signal/") for column in columns)]
    show(every, args, lines=[*aligned([head, *rows]), *few_sources(every)])
    return 0


def _of_run(table: str, args: argparse.Namespace) -> list[Metric]:
    judged, pairs = _judged(args, table)
    try:
        return signal_of_pairs(pairs, judged, args.seed)
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
