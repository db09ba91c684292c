"""What a comparison needs: edits of a benchmark (`edit-benchmark`), people's answers (`annotate`), models trained alike (`study`)."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from editr1.annotate.items import Plan, plan_items
from editr1.annotate.queue import Overlap
from editr1.annotate.results import export, export_pairs, write_csv
from editr1.annotate.votes import DATABASE, VoteStore, import_votes
from editr1.bench.base import EditSet
from editr1.commands._judge import accepting, options, say, template
from editr1.config import Component, available, create, offered, to_plain
from editr1.editors.base import Editor
from editr1.errors import ConfigError, nearest
from editr1.measure.edit_files import MISSING, claim, make_edits, missing_orders, refuse_foreign
from editr1.store import Run, environment
from editr1.store._files import write_atomic
from editr1.study.cells import Place, Task, estimate, is_finished, read_scored, run_all, run_cell, tasks_left
from editr1.study.config import DATA, Config
from editr1.study.table import Table, Verdict, build


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
    found = names.get(args.name)
    place = f"{found.__module__}:{found.__name__}" if found else args.name
    component = Component(place, {"root": args.root, **options(args.set)})
    return cast(EditSet, create("bench", component))


def _editor(component: Component) -> Editor:
    editor: Editor = create("editors", component)
    if not callable(getattr(editor, "edit", None)):
        raise ConfigError(f"--editor {component.id!r} makes no edits (it has no edit method); choose an editor")
    return editor


def add_annotate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run directory with candidates")
    add("--gsb", nargs=2, metavar=("BEFORE", "AFTER"), help="compare these two editors only (GSB study)")
    add("--pairs-per-task", type=int, default=1, metavar="N")
    add("--limit", type=int, metavar="N", help="ask at most this many pairs")
    add("--overlap", type=float, default=0.1, metavar="SHARE", help="share of pairs that several people answer (default: 0.1)")
    add("--raters", type=int, default=2, metavar="N", help="how many people answer those (default: 2)")
    add("--gold", type=Path, metavar="FILE", help="CSV or JSONL of control questions: a, b (candidate ids), label")
    add("--gold-every", type=int, default=20, metavar="N", help="one pair in N is a control question (default: 20)")
    add("--principles", action="store_true", help="show the principles below the pictures")
    add("--seed", type=int, default=0)
    add("--host", default="127.0.0.1", help="address to bind; other than loopback needs --token")
    add("--port", type=int, default=8765)
    add("--token", help="secret that annotators open the page with: http://HOST:PORT/?token=SECRET")
    add("--import", dest="votes", type=Path, metavar="FILE", help="add votes (a, b, label, annotator) and stop")
    add("--export", action="store_true", help="write all answers to annotations.csv and 07_pairs and stop; with --gsb those of its study")
    add("--csv", action="store_true", help="write annotations.csv only and stop")
    add("--accept", action="store_true", help="with --export: where 07_pairs was made from other answers, put it aside and make it over")
    add("--majority", action="store_true", help="with --export or --csv: one answer a pair, the owner's decision or that of most")


def run_annotate(args: argparse.Namespace) -> int:
    """Label pairs in a browser: blind, by keyboard or on a phone; every answer is on disk before the next pair shows."""
    run = Run.open(args.run, create=False)
    try:
        gsb = tuple(args.gsb) if args.gsb else None
        plan = Plan(args.pairs_per_task, args.limit, gsb, args.gold, args.gold_every, args.seed)
        overlap = Overlap(args.overlap, args.raters)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if args.votes or args.export or args.csv:
        return _exchange(args, run, plan)
    return _serve(args, run, plan, overlap)


def _exchange(args: argparse.Namespace, run: Run, plan: Plan) -> int:
    items = plan_items(run, plan) if args.votes or args.gold else []
    store = VoteStore(run.dir / DATABASE)
    if args.votes:
        outcome = import_votes(store, items, args.votes, plan.study)
        say(f"{args.votes}: " + ", ".join(f"{reason} {count}" for reason, count in sorted(outcome.items())))
    if args.csv or args.export:
        controls = {item.id for item in items if item.gold is not None}
        study = plan.study if args.gsb else None
        exported = export(run, store.all(study), study=study, with_majority=args.majority, controls=controls)
        if args.export:
            path, counts = accepting(lambda: export_pairs(run, exported), args.accept)
            say(f"{path}: {exported}; 07_pairs: {counts}")
        else:
            say(f"{write_csv(run, exported)}: {exported}")
        if exported.num_contradictory and not args.majority:
            say(f"{exported.num_contradictory} pairs have contradictory rows: people chose both edits; --majority writes one row a pair")
    store.close()
    return 0


def _serve(args: argparse.Namespace, run: Run, plan: Plan, overlap: Overlap) -> int:
    try:
        from editr1.annotate.server import Desk, build_app
        from editr1.serve.listen import address, bind, listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"the labelling page needs {error.name}; install it with: pip install -e '.[serve]'") from error
    from editr1.serve.guard import check_exposure, is_loopback

    check_exposure(args.host, args.token)
    bound = bind(args.host, args.port)
    desk = Desk.open(run, plan, overlap, args.principles)
    app = build_app(desk, token=args.token, loopback=is_loopback(args.host))
    page = f"{address(args.host, bound)}/"
    token = "token=...&" if args.token else ""
    labelled = f"{len(desk.items)} pairs, {len(desk.votes.all())} answers so far"
    say(f"{labelled}. Label at {page}{'?token=...' if token else ''} (Ctrl-C stops)")
    say(f"Results, review and export are for the owner, who labels at {page}?{token}owner={desk.owner_key}")
    listen(app, bound)
    return 0


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
    text = json.dumps(as_json(config, table, header, seeds), indent=1, ensure_ascii=False)
    write_atomic(stem.with_suffix(".json"), f"{text}\n".encode())
    page = as_markdown(name, config, table, header, seeds)
    write_atomic(stem.with_suffix(".md"), page.encode())
    say(page, *(json.dumps(verdict.line()) for verdict in table.verdicts), json.dumps(last_line(name, table.verdicts)))
    return 0


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
    return template("study.md").render(name=name, judging=config.judging, table=table, environment=environment, seeds=seeds)
