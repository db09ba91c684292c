"""A command of every stage, and of all of them on the embedded world: the recipe, the run directory, overrides, the dry run."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import editr1
from editr1.commands._judge import accepting, say
from editr1.config import available, fill_in, load_recipe, section, to_plain
from editr1.errors import ConfigError, DataError
from editr1.judge.inspect import AnnotatorAccuracies
from editr1.memory import check, gibibytes
from editr1.schema import CATEGORIES, Metric, to_json
from editr1.store import Run, StageCounts, environment
from editr1.store._files import read_record, write_atomic
from editr1.text import aligned


def add_stage(parser: argparse.ArgumentParser, file: Path) -> None:
    """The options of every stage, and the choice of where a data stage runs."""
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="RECIPE", help="YAML file; its section of this name is read")
    add("--run", type=Path, required=True, metavar="DIR", help="run directory, made when missing")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as score.max_tokens=512; repeatable")
    add("--dry-run", action="store_true", help="print what would be done and stop")
    add("--gpu-memory", type=gibibytes, metavar="80GiB", help="what a card holds: training that takes more is refused")
    changed = "where inputs or settings have changed since, put the old rows or weights aside and start over"
    add("--accept", action="store_true", help=changed)
    if "\n    engine: Engine" in file.read_text(encoding="utf-8"):  # of its Config; a stage is not imported for its help
        add("--engine", choices=("local", "ray"), help="where the stage runs (default: the recipe's, local)")


def start_stage(args: argparse.Namespace, name: str) -> int:
    """Loads the recipe, checks all of it, prints the plan, runs the stage and prints its result."""
    overrides = list(args.set)
    if getattr(args, "engine", None):
        overrides.append(f"{name}.engine.kind={args.engine}")
    recipe = fill_in(load_recipe(args.config, overrides), **places(args.run))
    check_recipe(recipe)
    stage = importlib.import_module(f"editr1.stages.{name}")
    config = section(recipe, name, stage.Config)
    for line in describe(stage, config, args.run):
        say(line)
    if args.gpu_memory is not None and hasattr(stage, "memory"):
        needed = stage.memory(config, args.run, args.gpu_memory)
        if needed is None:
            raise ConfigError(f"--gpu-memory: how much {name} takes is not known for this model; the plan above says why")
        check(needed, args.gpu_memory)
    if args.dry_run:
        return 0
    before = _finished(stage, args.run)
    result = accepting(lambda: stage.run(config, args.run), args.accept)
    say(f"{name}: {result}")
    if getattr(result, "seconds", None) == 0.0 or (before and before == _finished(stage, args.run)):
        say(f"{name}: this was finished before with these settings and inputs; nothing was asked or trained now")
    leave_processes()
    if isinstance(result, StageCounts) and not result.num_out:
        raise DataError(nothing_kept(result, args.run))
    return 0


def _finished(stage: Any, run_dir: Path) -> bytes:
    """The summary of the stage's finished table, a digest of its rows included; empty where there is none."""
    counts = run_dir / getattr(stage, "TABLE", "") / "counts.json"
    return counts.read_bytes() if counts.exists() else b""


def nothing_kept(counts: StageCounts, run_dir: Path) -> str:
    """One line for a stage that ends with no row."""
    if not counts.num_in:
        return "there was nothing to do: the source or the table before has no rows; look at it, and at the shares that the recipe keeps"
    code, count = max(counts.reasons.items(), key=lambda item: item[1], default=("nothing", 0))
    return f"none of {counts.num_in} rows was kept, {count} of them for {code!r}; the dropped.jsonl of the table in {run_dir} says why each"


def leave_processes() -> None:
    """Ends the talk between the processes of a run, if there are several: a rank whose threads still listen at exit can abort."""
    distributed = sys.modules.get("torch.distributed")  # not imported for this: data stages need no torch
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def places(run_dir: Path) -> dict[str, str]:
    """What `{run}` and `{world}` stand for in a recipe: the run directory, and the weights of the embedded world."""
    return {"run": str(run_dir), "world": str(Path(editr1.__file__).parent / "world" / "weights")}


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Reads every stage's section, so that a typo in the last stage is found before the first one starts."""
    for name in available("stages"):
        if name in recipe:
            section(recipe, name, importlib.import_module(f"editr1.stages.{name}").Config)


def describe(stage: Any, config: Any, run_dir: Path) -> list[str]:
    """What the stage is about to do: its own `plan(config, run_dir)` where it has one, and the settings in full."""
    name = stage.__name__.rpartition(".")[2]
    own = list(stage.plan(config, run_dir)) if hasattr(stage, "plan") else []
    return [f"{name}: run directory {run_dir}", *own, f"{name}: settings {json.dumps(to_plain(config), ensure_ascii=False)}"]


STEPS = ("tasks", "decompose", "generate", "score", "inspect", "scorer", "sft", "pairs", "gcpo", "edit_rl", "evaluate")
"""In the order of the loop. `scorer` is the stage `sft` without principles, the baseline of the comparison."""
FIRST_TABLE = "inspect"
"""After it the first figures are known: how right the annotators are, whose traces the verifier will learn."""
_STAGE_OF = {"scorer": "sft"}


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), metavar="DIR", help="run directory (default: runs/demo)")
    parser.add_argument("--config", type=Path, default=None, metavar="RECIPE", help="recipe (default: the one that is shipped)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as gcpo.steps=10; repeatable")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="where the figures go as JSON (default: figures.json of the run)")
    parser.add_argument("--dry-run", action="store_true", help="print what every stage would do and stop")


def run_demo(args: argparse.Namespace) -> int:
    """Run the whole loop on the embedded world, offline, and print what came out."""
    shipped = Path(str(files("editr1.world") / "demo.yaml"))
    recipe = fill_in(load_recipe(args.config or shipped, args.set), **places(args.run))
    check_recipe(recipe)
    if args.dry_run:
        for name in STEPS:
            say(f"{name}: {json.dumps(to_plain(_config(recipe, name)))}")
        return 0
    import torch

    from editr1.report import write_report

    run = Run.open(args.run, to_plain(recipe))
    torch.set_num_threads(min(args.threads, os.cpu_count() or 1))  # its own default, one a core, is kept for fewer cores
    for number, name in enumerate(STEPS, start=1):
        _run_step(run, recipe, name, number)
        if name == FIRST_TABLE:
            show_annotators(run)
    report, _ = write_report(args.run)
    show_results(run)
    figures = args.figures or args.run / "figures.json"
    write_atomic(figures, f"{json.dumps(as_json(run), indent=1)}\n".encode())
    say(f"report: {report}", f"figures: {figures}")
    return 0


def _stage(name: str) -> Any:
    return importlib.import_module(f"editr1.stages.{_STAGE_OF.get(name, name)}")


def _config(recipe: Mapping[str, Any], name: str) -> Any:
    """A stage's settings; the baseline's lie in the demo's own section, for they are a second use of a stage."""
    home = recipe if name in recipe else {"seed": recipe.get("seed", 0), **recipe.get("demo", {})}
    return section(home, name, _stage(name).Config)


def _run_step(run: Run, recipe: Mapping[str, Any], name: str, number: int) -> None:
    """Runs one stage unless an earlier call of the demo has finished it in this directory."""
    metric = f"stage_seconds/{name}"
    done = {m.name: m for m in run.metrics()}.get(metric)
    if done is not None:
        say(f"{number:2}/{len(STEPS)} {name}: done before ({done.value:.0f} s)")
        return
    say(f"--- {number}/{len(STEPS)} {name} ---")
    start = time.monotonic()
    result = _stage(name).run(_config(recipe, name), run.dir)
    seconds = time.monotonic() - start
    run.add_metric(Metric(metric, seconds, n=1, protocol="seconds/wall"))
    say(f"{name}: {result} in {seconds:.0f} s")


def show_annotators(run: Run) -> None:
    """Each annotator against the inspector: what share of its verdicts is right, and of which category the wrong ones are."""
    rows = [("annotator", "right", "interval", "verdicts", "unparsed traces", *CATEGORIES)]
    for row in read_record(AnnotatorAccuracies, run.dir / "05_inspections" / "annotators.json").annotators:
        shares = (f"{counts.accuracy:.3f}" if (counts := part.counts).accuracy is not None else "" for part in row.categories)
        right = "" if row.accuracy is None else f"{row.accuracy:.3f}"
        rows.append((row.name, right, _interval(row.low, row.high), f"{row.n:,}", f"{row.num_unparsed:,} of {row.num_traces:,}", *shares))
    say("annotators: verdicts that the inspector confirms (95 % intervals, whole tasks resampled)", *aligned(rows))


def show_results(run: Run) -> None:
    """The metrics as a table: value, 95 % interval, how many, and whether what was promised holds; and how long the stages took."""
    metrics = [metric for metric in run.metrics() if not metric.name.startswith("stage_seconds/")]
    rows = [("metric", "value", "interval", "n", "ties", "goal"), *map(_cells, metrics)]
    seconds = [metric.value or 0.0 for metric in run.metrics() if metric.name.startswith("stage_seconds/")]
    say("results (95 % intervals, whole tasks resampled)", *aligned(rows), f"{sum(seconds) / 60:.1f} minutes in {len(seconds)} stages")


def as_json(run: Run) -> dict[str, Any]:
    """Every figure at full precision, with what it was made on: `docs/results/demo.json`."""
    return {"environment": environment(), "metrics": [json.loads(to_json(metric)) for metric in run.metrics()]}


def _cells(metric: Metric) -> tuple[str, ...]:
    interval = _interval(metric.low, metric.high)
    if metric.p_value is not None:
        interval += f", p = {metric.p_value:.3g}"
    ties = "" if metric.tie_rate is None else f"{100 * metric.tie_rate:.0f} %"
    unscored = f" ({metric.num_unscored} unscored)" if metric.num_unscored else ""
    word = {True: "holds", False: "DOES NOT HOLD", None: "not decided"}[metric.holds]
    goal = f"{word}: {metric.goal}" if metric.goal else ""
    value = "unscored" if metric.value is None else f"{metric.value:.3f}"
    return metric.name, value, interval, f"{metric.n}{unscored}", ties, goal


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
