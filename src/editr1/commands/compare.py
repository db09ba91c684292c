"""Compare two judges, or two editors under one judge, sample by sample: difference b - a, interval, p, and where they disagree.

    editr1 compare RUN_A/bench_gedit_viescore.outcomes.jsonl RUN_B/bench_gedit_viescore.outcomes.jsonl
    editr1 compare results/gpt4o/pairwise.json results/gemini/pairwise.json

Intervals are of whole clusters (source images); p values of categories are adjusted by Holm, and fewer than 6 clusters give none.
A change of a mean score below the spread between two runs of one judge (about .1, or --noise-floor) is marked.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from editr1.commands._metrics import add_output_arguments, say, show
from editr1.errors import ConfigError
from editr1.measure.compare import NOISE_FLOOR, compare, outcomes_of, sample_table
from editr1.store._files import write_atomic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A", help="an *.outcomes.jsonl, or stored outputs that `aggregate` reads")
    parser.add_argument("b", type=Path, metavar="B", help="another of the same benchmark")
    parser.add_argument("--data", type=Path, metavar="FILE", help="the benchmark's own file, for stored outputs that need one")
    parser.add_argument("--category", default="", metavar="PREFIX", help="only samples whose category starts so, such as overall/")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="disagreements to print (default 10)")
    parser.add_argument(
        "--noise-floor", type=float, default=NOISE_FLOOR, metavar="X", help=f"mark changes of mean scores below X (default {NOISE_FLOOR:g})"
    )
    parser.add_argument("--samples", type=Path, metavar="FILE", help="write every sample as CSV: a, b, difference, mark")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
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
