"""Run the whole loop on the embedded world, offline, and print what came out."""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from editr1.commands._stages import check_recipe, places
from editr1.config import fill_in, load_recipe, section, to_plain
from editr1.judge.inspect import AnnotatorAccuracies
from editr1.schema import CATEGORIES, Metric, to_json
from editr1.store import Run
from editr1.store._files import read_record, write_atomic
from editr1.store.run import environment

STEPS = (
    "tasks",
    "decompose",
    "generate",
    "score",
    "inspect",
    "scorer",
    "sft",
    "pairs",
    "gcpo",
    "edit_rl",
    "evaluate",
)
"""In the order of the loop. `scorer` is the stage `sft` without principles, the baseline of the comparison."""
FIRST_TABLE = "inspect"
"""After it the first figures are known: how right the annotators are, whose traces the verifier will learn."""
_STAGE_OF = {"scorer": "sft"}
_TABLE_WIDTH = 130
"""Characters that the results need to be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), metavar="DIR", help="run directory (default: runs/demo)")
    parser.add_argument("--config", type=Path, default=None, metavar="RECIPE", help="recipe (default: the one that is shipped)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as gcpo.steps=10; repeatable")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="where the figures go as JSON (default: figures.json of the run)")
    parser.add_argument("--dry-run", action="store_true", help="print what every stage would do and stop")


def main(args: argparse.Namespace) -> int:
    shipped = Path(str(files("editr1.world") / "demo.yaml"))
    recipe = fill_in(load_recipe(args.config or shipped, args.set), **places(args.run))
    check_recipe(recipe)
    if args.dry_run:
        for name in STEPS:
            print(f"{name}: {json.dumps(to_plain(_config(recipe, name)))}")  # noqa: T201
        return 0
    run = Run.open(args.run, to_plain(recipe))
    _use_threads(args.threads)
    for number, name in enumerate(STEPS, start=1):
        _run_step(run, recipe, name, number)
        if name == FIRST_TABLE:
            print_annotators(run)
    from editr1.report import write_report

    report, _ = write_report(args.run)
    print_results(run)
    figures = args.figures or args.run / "figures.json"
    write_atomic(figures, f"{json.dumps(as_json(run), indent=1)}\n".encode())
    print(f"report: {report}\nfigures: {figures}")  # noqa: T201
    return 0


def _stage(name: str) -> Any:
    return importlib.import_module(f"editr1.stages.{_STAGE_OF.get(name, name)}")


def _config(recipe: Mapping[str, Any], name: str) -> Any:
    """A stage's settings; the baseline's lie in the demo's own section, for they are a second use of a stage."""
    home = recipe if name in recipe else {"seed": recipe.get("seed", 0), **recipe.get("demo", {})}
    return section(home, name, _stage(name).Config)


def _run_step(run: Run, recipe: Mapping[str, Any], name: str, number: int) -> None:
    """Runs one stage unless an earlier call of the demo has finished it in this directory."""
    from rich.console import Console

    console = Console()
    metric = f"stage_seconds/{name}"
    done = {m.name: m for m in run.metrics()}.get(metric)
    if done is not None:
        console.print(f"[dim]{number:2}/{len(STEPS)} {name}: done before ({done.value:.0f} s)[/dim]")
        return
    console.rule(f"{number}/{len(STEPS)} {name}", align="left")
    start = time.monotonic()
    stage = _stage(name)
    result = stage.run(_config(recipe, name), run.dir)
    seconds = time.monotonic() - start
    run.add_metric(Metric(metric, seconds, n=1, protocol="seconds/wall"))
    console.print(f"{name}: {result} in {seconds:.0f} s", highlight=False)


def _use_threads(threads: int) -> None:
    """torch's own default, one thread a core, is kept for fewer cores than asked for."""
    import os

    import torch

    torch.set_num_threads(min(threads, os.cpu_count() or 1))


def print_annotators(run: Run) -> None:
    """Each annotator against the inspector: what share of its verdicts is right, and of which category the wrong ones are."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="annotators: verdicts that the inspector confirms (95 % intervals, whole tasks resampled)")
    table.add_column("annotator", no_wrap=True)
    for column in ("right", "interval", "verdicts", "unparsed traces", *CATEGORIES):
        table.add_column(column, justify="right", no_wrap=True)
    for row in read_record(AnnotatorAccuracies, run.dir / "05_inspections" / "annotators.json").annotators:
        interval = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
        shares = (f"{counts.accuracy:.3f}" if (counts := part.counts).accuracy is not None else "" for part in row.categories)
        right = "" if row.accuracy is None else f"{row.accuracy:.3f}"
        table.add_row(row.name, right, interval, f"{row.n:,}", f"{row.num_unparsed:,} of {row.num_traces:,}", *shares)
    Console(width=max(Console().width, _TABLE_WIDTH)).print(table)


def print_results(run: Run) -> None:
    """The metrics as a table: value, 95 % interval, how many, and whether what was promised holds."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="results (95 % intervals, whole tasks resampled)")
    table.add_column("metric", no_wrap=True)
    for column in ("value", "interval", "n", "ties"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("goal")
    for metric in run.metrics():
        if not metric.name.startswith("stage_seconds/"):
            table.add_row(*_cells(metric))
    console = Console(width=max(Console().width, _TABLE_WIDTH))  # in a log file or a narrow window names would be cut
    console.print(table)
    seconds = [metric.value or 0.0 for metric in run.metrics() if metric.name.startswith("stage_seconds/")]
    console.print(f"{sum(seconds) / 60:.1f} minutes in {len(seconds)} stages")


def as_json(run: Run) -> dict[str, Any]:
    """Every figure at full precision, with what it was made on: `docs/results/demo.json`."""
    return {"environment": environment(), "metrics": [json.loads(to_json(metric)) for metric in run.metrics()]}


def _cells(metric: Metric) -> tuple[str, ...]:
    interval = "" if metric.low is None or metric.high is None else f"{metric.low:.3f} to {metric.high:.3f}"
    if metric.p_value is not None:
        interval += f", p = {metric.p_value:.3g}"
    ties = "" if metric.tie_rate is None else f"{100 * metric.tie_rate:.0f} %"
    unscored = f" ({metric.num_unscored} unscored)" if metric.num_unscored else ""
    word = {True: "holds", False: "DOES NOT HOLD", None: "not decided"}[metric.holds]
    goal = f"{word}: {metric.goal}" if metric.goal else ""
    value = "unscored" if metric.value is None else f"{metric.value:.3f}"
    return metric.name, value, interval, f"{metric.n}{unscored}", ties, goal
