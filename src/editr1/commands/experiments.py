"""What makes something to be judged: the edits of a benchmark, the reward models of a study."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from editr1.bench.base import EditSet
from editr1.commands._judge import options, say
from editr1.config import Component, available, create, offered, to_plain
from editr1.editors.base import Editor
from editr1.errors import ConfigError, nearest
from editr1.measure.edit_files import MISSING, claim, make_edits, missing_orders, refuse_foreign
from editr1.stats import Estimate
from editr1.store._files import write_atomic
from editr1.store.run import environment
from editr1.study.cells import Place, Task, estimate, is_finished, read_scored, run_all, run_cell, tasks_left
from editr1.study.config import DATA, Config
from editr1.study.table import Row, Table, Test, Verdict, build
from editr1.text import markdown_table

# --- edit-benchmark ------------------------------------------------------------------------------------


def add_edit_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"benchmark: {', '.join(offered('bench', 'edit_set'))}, or package.module:function")
    parser.add_argument("--root", type=Path, metavar="DIR", help="local copy of the benchmark's data")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="option of the benchmark, such as language=cn")
    parser.add_argument("--editor", required=True, metavar="ID", help=f"{', '.join(available('editors'))}, or package.module:Name")
    parser.add_argument("--editor-set", action="append", default=[], metavar="KEY=VALUE", help="option of the editor; repeatable")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this editor's edits")
    parser.add_argument("--batch-size", type=int, default=1, help="edits handed to the editor at once (default 1)")
    parser.add_argument("--max-failed", type=float, default=0.05, help="stop above this share of failed requests (default 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="say how many edits are missing and stop")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")


def run_edit_benchmark(args: argparse.Namespace) -> int:
    """Make the edits of a benchmark with any editor, in the layout that `editr1 score-folder` reads. Makes only what is missing.

        editr1 edit-benchmark gedit --root GEDIT_DATA --editor kontext --out OUT/kontext
        editr1 edit-benchmark gedit --root GEDIT_DATA --editor images_api --editor-set model=M --editor-set base_url=URL --out OUT/m
        editr1 score-folder OUT/kontext --root GEDIT_DATA --run RUN --judge viescore --model gpt-4.1 --label kontext

    Two editors judged by one judge are compared, by sample and by category, with: editr1 compare A.outcomes.jsonl B.outcomes.jsonl
    """
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size is {args.batch_size}; expected at least 1")
    edit_set = _edit_set(args)
    component = Component(args.editor, options(args.editor_set))
    if args.dry_run:
        say(f"{args.name}: {len(missing_orders(edit_set, args.out))} of {len(edit_set.orders)} edits are missing in {args.out}")
        return 0
    about = {"benchmark": args.name, "set": options(args.set), "editor": args.editor, "options": component.options, "seed": args.seed}
    settings = to_plain(about)  # without keys
    refuse_foreign(args.out, settings)
    editor = _editor(component)
    claim(args.out, settings)
    how = {"seed": args.seed, "batch_size": args.batch_size, "max_failed_share": args.max_failed, "progress": not args.json}
    counts = make_edits(edit_set, editor, args.out, **how)
    say(json.dumps(dataclasses.asdict(counts)) if args.json else str(counts))
    if counts.failed and not args.json:
        say(f"why: {args.out / MISSING}; the same command tries them again")
    return 0


def _edit_set(args: argparse.Namespace) -> EditSet:
    names = offered("bench", "edit_set")
    if args.name not in names and ":" not in args.name:
        raise ConfigError(f"edit-benchmark has no tasks of {args.name!r}; {nearest(args.name, names)}")
    place = args.name if ":" in args.name else f"editr1.bench.{args.name}:edit_set"
    component = Component(place, {"root": args.root, **options(args.set)})
    return cast(EditSet, create("bench", component))


def _editor(component: Component) -> Editor:
    editor: Editor = create("editors", component)
    if not callable(getattr(editor, "edit", None)):
        raise ConfigError(f"--editor {component.id!r} makes no edits (it has no edit method); choose an editor")
    return editor


# --- study ---------------------------------------------------------------------------------------------


def add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="YAML file with a section `study`")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="where the cells live, made when missing")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as sft.steps=100; repeatable")
    parser.add_argument("--cells", default="", metavar="A,B", help="only these cells, with those that they start from")
    parser.add_argument("--seeds", default="", metavar="0,1", help="only these seeds")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at once (default: the recipe's); 1 runs them in this process")
    parser.add_argument("--out", type=Path, metavar="STEM", help="where STEM.json and STEM.md go (default: in the run directory)")
    parser.add_argument("--table", choices=("also", "only", "none"), default="also", help="only: train nothing, show what is finished")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")


def run_study(args: argparse.Namespace) -> int:
    """Train several reward models that differ in one thing each, judge them on the same pairs, and say which claims hold.

        editr1 study recipes/evidence.yaml --run runs/evidence --cells tv,tv_gcpo --seeds 0

    The recipe's section `study` names cells and claims. A stopped study continues; `--table only` shows what is finished.
    """
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
    if args.table != "only" and jobs > 1:
        run_all(place, config, tasks, jobs, lambda task: _command(place, task))
    elif args.table != "only":
        for task in tasks:
            run_cell(place, task.seed, task.cell)
    return _report(place, config, args.out) if args.table != "none" else 0


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


# --- the table as people and programs read it: Markdown and JSON


def as_json(config: Config, table: Table, environment: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """Everything, full precision."""
    return {
        "environment": dict(environment),
        "seeds": list(seeds),
        "judging": dataclasses.asdict(config.judging),
        "cells": [dataclasses.asdict(row) for row in table.rows],
        "comparisons": [dataclasses.asdict(test) for test in table.tests],
        "claims": [verdict.line() for verdict in table.verdicts],
    }


def last_line(name: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The closing JSON object: the share of claims that hold, of those that were measured."""
    measured = [verdict for verdict in verdicts if verdict.holds is not None]
    held = sum(verdict.holds is True for verdict in measured)
    return {
        "measure": f"{name}: share of claims that hold",
        "value": held / len(measured) if measured else None,
        "n": len(measured),
        "goal": "every claim holds",
        "holds": held == len(verdicts) if len(measured) == len(verdicts) else None,
    }


def as_markdown(name: str, config: Config, table: Table, environment: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """The page under docs/results."""
    parts = [
        f"# {name.capitalize()}: what each part of the verifier is worth",
        _intro(name, config, environment, seeds),
        "## Claims",
        markdown_table(_CLAIM_HEAD, [_claim_line(verdict) for verdict in table.verdicts]),
        "## Cells",
        markdown_table(_CELL_HEAD, [_cell_line(row) for row in table.rows]),
        _ABOUT_CELLS,
        "## Paired comparisons",
        markdown_table(_TEST_HEAD, [_test_line(test) for test in table.tests]),
        _ABOUT_TESTS,
    ]
    return "\n\n".join(parts) + "\n"


def _intro(name: str, config: Config, environment: Mapping[str, Any], seeds: Sequence[int]) -> str:
    how, commit = config.judging, environment["commit"][:10] or "unknown"
    return (
        f"Made by `editr1 study` from `recipes/{name}.yaml` at commit `{commit}`, torch {environment['packages']['torch']}, "
        f"seeds {', '.join(map(str, seeds))}. Every cell scores the same held-out edits one by one, as the mean of {how.num_traces} "
        "traces; seeds have tasks of their own and are pooled. Intervals (95 %) resample whole tasks."
    )


_ABOUT_CELLS = """Accuracy counts a tie and an unscored pair as half, strict accuracy as wrong. One trace: accuracy when an edit's score is
that of one trace, averaged over the traces. Rows: what training drew from, of one seed."""
_ABOUT_TESTS = """Gain: accuracy of the second cell minus that of the first on the same pairs. p: exact McNemar on strict right and
wrong; Holm: the same, adjusted over all lines. A claim needs each of its steps below its level, and so reads p itself. One trace: the gain
when an edit's score is that of one trace, averaged over the traces, p from resampled tasks. Score: mean score of the second minus that of
the first on the same edits."""
_CELL_HEAD = (
    *("cell", "what it is", "accuracy", "95 %", "strict", "one trace", "by seed"),
    *("pairs", "ties", "unscored", "mean score", "rows", "steps"),
)
_TEST_HEAD = (
    *("second over first", "gain, points", "95 %", "p", "Holm", "only first / only second right"),
    *("one trace", "95 %", "p", "score", "95 %"),
)
_CLAIM_HEAD = ("claim", "", "goal", "what was measured", "")


def _cell_line(row: Row) -> tuple[str, ...]:
    seeds = " ".join(f"{value:.3f}" for _, value in sorted(row.by_seed.items()))
    unscored = f"{row.num_unscored / row.half.n:.1%}"
    score = f"{row.score.value:.2f} ({_span(row.score, '.2f')})" if row.score else "-"
    ties = "-" if row.tie_rate is None else f"{row.tie_rate:.1%}"
    one = f"{row.one_trace.value:.3f}" if row.one_trace else "-"
    head = (row.cell, row.about, f"{row.half.value:.3f}", _span(row.half, ".3f"), f"{row.strict.value:.3f}", one, seeds)
    return (*head, str(row.half.n), ties, unscored, score, str(row.num_rows), str(row.steps))


def _test_line(test: Test) -> tuple[str, ...]:
    one = (*_points(test.one_trace), _p(test.one_trace.p_value)) if test.one_trace else ("-",) * 3
    score = (f"{test.stricter.value:+.2f}", _span(test.stricter, "+.2f")) if test.stricter else ("-", "-")
    head = (f"{test.b} over {test.a}", *_points(test.gain), _p(test.p), _p(test.p_holm))
    return (*head, f"{test.only_a} / {test.only_b}", *one, *score)


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _points(gain: Estimate) -> tuple[str, str]:
    """A gain and its interval in percentage points."""
    low, high = (None if bound is None else 100 * bound for bound in (gain.low, gain.high))
    points = Estimate(100 * gain.value, low, high, gain.n, gain.num_clusters)
    return f"{points.value:+.1f}", _span(points, "+.1f")


def _claim_line(verdict: Verdict) -> tuple[str, ...]:
    result = {True: "holds", False: "**does not hold**", None: "not measured" if verdict.value is None else "not decided"}[verdict.holds]
    return verdict.id, verdict.measure, verdict.goal, verdict.why, result


def _span(estimate: Estimate, spec: str) -> str:
    return "-" if estimate.low is None or estimate.high is None else f"{estimate.low:{spec}} to {estimate.high:{spec}}"
