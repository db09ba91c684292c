"""Prints metrics as a table or as JSON lines, and puts them into a run directory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from editr1.bench.base import Outcome
from editr1.schema import Metric, to_json
from editr1.stats import FEW_CLUSTERS, MIN_CLUSTERS
from editr1.store import Run
from editr1.store._files import write_atomic

_HEADINGS = ("protocol", "value", "95 % interval", "n", "sources", "unscored", "ties", "p")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """How the numbers leave the command."""
    parser.add_argument("--json", action="store_true", help="one JSON object a metric in place of a table")
    parser.add_argument("--details", action="store_true", help="also the numbers by category")
    parser.add_argument("--run", type=Path, metavar="DIR", help="add the metrics to this run's 10_metrics.jsonl")


def show(metrics: Sequence[Metric], args: argparse.Namespace, lines: Sequence[str] = ()) -> None:
    """Prints the metrics as the arguments say (or `lines` in place of the table), and adds them to the run directory if one is named."""
    if args.run:
        run = Run.open(args.run)
        for metric in metrics:
            run.add_metric(metric)
    if args.json:
        say(*map(to_json, metrics))
    else:
        say(*(lines or [*table(metrics, args.details), *few_sources(metrics)]))


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """An `*.outcomes.jsonl`, which `editr1 compare` takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(to_json(outcome) + "\n" for outcome in outcomes).encode())


def few_sources(metrics: Sequence[Metric]) -> list[str]:
    """A warning where an interval rests on too few sources to be taken at its word; nothing otherwise."""
    counts = [metric.num_clusters for metric in metrics if metric.num_clusters]
    if not counts or min(counts) >= FEW_CLUSTERS:
        return []
    no_p = f"; below {MIN_CLUSTERS} there is no p" if min(counts) < MIN_CLUSTERS else ""
    return [f"few sources: some intervals rest on {min(counts)}, fewer than {FEW_CLUSTERS}, and say little about other data{no_p}"]


def say(*lines: str) -> None:
    """Lines on standard output."""
    for line in lines:
        print(line, file=sys.stdout, flush=True)  # noqa: T201


def table(metrics: Sequence[Metric], details: bool = False) -> list[str]:
    """The metrics as aligned lines. A number that does not exist is a dash."""
    lines = []
    for index, line in enumerate(aligned([_HEADINGS, *(_cells(metric) for metric in metrics)])):
        lines.append(line)
        if details and index:
            lines += [f"    {name}: {value:.4f}" for name, value in metrics[index - 1].by_category.items()]
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


def _cells(metric: Metric) -> tuple[str, ...]:
    interval = "-" if metric.low is None or metric.high is None else f"[{metric.low:.4f}, {metric.high:.4f}]"
    return (
        metric.protocol or metric.name,
        _number(metric.value),
        interval,
        str(metric.n),
        str(metric.num_clusters or "-"),
        str(metric.num_unscored),
        _number(metric.tie_rate, 3),
        _number(metric.p_value, 4),
    )


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
