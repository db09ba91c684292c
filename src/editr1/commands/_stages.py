"""A command of every stage: the recipe, the run directory, overrides, the dry run and the closing line.

A stage's docstring is the command's help; it is read from the file, since importing some stages loads model libraries.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import editr1
from editr1.config import available, fill_in, load_recipe, section, to_plain
from editr1.errors import ChangedInputsError, ConfigError, DataError
from editr1.memory import check, gibibytes
from editr1.store import StageCounts, put_aside

ENGINES = ("local", "ray")


class StageCommand:
    """What the command line shows and runs of one stage, as a file of `commands/` would say it."""

    def __init__(self, file: Path) -> None:
        tree = ast.parse(file.read_bytes())
        self.name = file.stem
        self.__doc__ = ast.get_docstring(tree)
        own = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"]
        self.has_engine = any(isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "engine" for c in own for node in c.body)
        """Whether its settings choose where it runs, as those of all data stages do."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_stage_arguments(parser, self.has_engine)

    def main(self, args: argparse.Namespace) -> int:
        return run_stage(self.name, args)


def add_stage_arguments(parser: argparse.ArgumentParser, has_engine: bool) -> None:
    """The options of every stage, and the choice of where a data stage runs."""
    parser.add_argument("--config", type=Path, required=True, metavar="RECIPE", help="YAML file; its section of this name is read")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory, made when missing")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as score.max_tokens=512; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    parser.add_argument("--gpu-memory", type=gibibytes, metavar="80GiB", help="what a card holds: training that takes more is refused")
    parser.add_argument(
        "--accept",
        action="store_true",
        help="where inputs or settings have changed since, put the old rows or weights aside and start over",
    )
    if has_engine:
        parser.add_argument("--engine", choices=ENGINES, help="where the stage runs (default: the recipe's, local)")


def run_stage(name: str, args: argparse.Namespace) -> int:
    """Loads the recipe, checks all of it, prints the plan, runs the stage and prints its result."""
    overrides = list(args.set)
    if getattr(args, "engine", None):
        overrides.append(f"{name}.engine.kind={args.engine}")
    recipe = fill_in(load_recipe(args.config, overrides), **places(args.run))
    check_recipe(recipe)
    stage = importlib.import_module(f"editr1.stages.{name}")
    config = section(recipe, name, stage.Config)
    for line in describe(stage, config, args.run):
        _say(line)
    if args.gpu_memory is not None and hasattr(stage, "memory"):
        needed = stage.memory(config, args.run, args.gpu_memory)
        if needed is None:
            raise ConfigError(f"--gpu-memory: how much {name} takes is not known for this model; the plan above says why")
        check(needed, args.gpu_memory)
    if args.dry_run:
        return 0
    before = _finished(stage, args.run)
    result = run_accepting(stage, config, args.run, args.accept)
    _say(f"{name}: {result}")
    if getattr(result, "seconds", None) == 0.0 or (before and before == _finished(stage, args.run)):
        _say(f"{name}: this was finished before with these settings and inputs; nothing was asked or trained now")
    leave_processes()
    if isinstance(result, StageCounts) and not result.num_out:
        raise DataError(nothing_kept(result, args.run))
    return 0


def _finished(stage: Any, run_dir: Path) -> bytes:
    """The summary of the stage's finished table, a digest of its rows included; empty where there is none."""
    counts = run_dir / getattr(stage, "TABLE", "") / "counts.json"
    return counts.read_bytes() if counts.exists() else b""


def run_accepting(stage: Any, config: Any, run_dir: Path, accept: bool) -> Any:
    """What the stage returns; with `accept`, a table or training that was begun from other inputs is put aside and made over."""
    while True:
        try:
            return stage.run(config, run_dir)
        except ChangedInputsError as change:
            if not accept:
                raise
            if os.environ.get("RANK", "0") == "0":
                _say(f"{put_aside(change.folder, change.curves)} holds what was made before: {change.change}")
            else:
                time.sleep(1.0)  # the first process puts it aside for all


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


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)  # noqa: T201
