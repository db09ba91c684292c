"""Train several reward models that differ in one thing each, judge them on the same pairs, and say which claims hold.

    editr1 study recipes/evidence.yaml --run runs/evidence --cells tv,tv_gcpo --seeds 0

The recipe's section `study` names cells and claims. A stopped study continues; `--table only` shows what is finished.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from editr1.commands._metrics import say
from editr1.errors import ConfigError
from editr1.store._files import write_atomic
from editr1.store.run import environment
from editr1.study.cells import Place, is_finished, read_scored, run_cell
from editr1.study.config import DATA, Config
from editr1.study.page import as_json, as_markdown, last_line
from editr1.study.schedule import Task, estimate, run_all, tasks_left
from editr1.study.table import build


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="YAML file with a section `study`")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="where the cells live, made when missing")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as sft.steps=100; repeatable")
    parser.add_argument("--cells", default="", metavar="A,B", help="only these cells, with those that they start from")
    parser.add_argument("--seeds", default="", metavar="0,1", help="only these seeds")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at once (default: the recipe's); 1 runs them in this process")
    parser.add_argument("--out", type=Path, metavar="STEM", help="where STEM.json and STEM.md go (default: in the run directory)")
    parser.add_argument("--table", choices=("also", "only", "none"), default="also", help="only: train nothing, show what is finished")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")


def main(args: argparse.Namespace) -> int:
    """Trains and judges what is left, writes the table, and prints one JSON line a claim and a last one for all."""
    place = Place(args.recipe, tuple(args.set), args.run)
    config = place.config()
    cells = config.chosen([name for name in args.cells.split(",") if name and name != DATA])
    seeds = _seeds(args.seeds, config)
    jobs = args.jobs or config.jobs
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; expected at least 1")
    tasks = tasks_left(place, config, seeds, () if args.cells == DATA else cells)
    say(f"{place.recipe.stem}: {len(tasks)} cells left, about {estimate(config, tasks, jobs):.0f} minutes, {jobs} at once")
    if args.dry_run:
        say(*(f"  {task} ({config.minutes(task.cell):g} min of one core)" for task in tasks))
        return 0
    if args.table != "only":
        _do(place, config, tasks, jobs)
    return _report(place, config, args.out) if args.table != "none" else 0


def _do(place: Place, config: Config, tasks: list[Task], jobs: int) -> None:
    if jobs > 1:
        run_all(place, config, tasks, jobs, lambda task: _command(place, task))
        return
    for task in tasks:
        run_cell(place, task.seed, task.cell)


def _command(place: Place, task: Task) -> list[str]:
    """This command for one task alone."""
    overrides = [argument for text in place.overrides for argument in ("--set", text)]
    head = [sys.executable, "-m", "editr1.cli", "study", str(place.recipe), "--run", str(place.root), "--jobs", "1"]
    return [*head, "--seeds", str(task.seed), "--cells", task.cell, *overrides, "--table", "none"]


def _seeds(text: str, config: Config) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise ConfigError(f"--seeds is {text!r}; expected whole numbers such as 0,1") from error
    return seeds or config.seeds


def _report(place: Place, config: Config, out: Path | None) -> int:
    """Writes the table of everything that is finished, whatever this call did."""
    finished = {
        name: {seed: read_scored(place, config, seed, name) for seed in config.seeds if is_finished(place, config, seed, name)}
        for name in config.cells
    }
    table = build(config, finished)
    seeds = sorted({seed for by_seed in finished.values() for seed in by_seed})
    name, stem = place.recipe.stem, out or place.root / place.recipe.stem
    header = environment()
    stem.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(config, table, header, seeds), indent=1, ensure_ascii=False)
    write_atomic(stem.with_suffix(".json"), f"{text}\n".encode())
    page = as_markdown(name, config, table, header, seeds)
    write_atomic(stem.with_suffix(".md"), page.encode())
    say(page, *(json.dumps(verdict.line()) for verdict in table.verdicts), json.dumps(last_line(name, table.verdicts)))
    return 0
