"""Best-of-N: what a judge's picks are worth, beside a random pick, the best single editor and the oracle.

    editr1 best-of-n --run RUN --judged bench_pairs_rrm
    editr1 best-of-n --edits kontext J1.outcomes.jsonl R1.outcomes.jsonl --edits qwen J2.outcomes.jsonl R2.outcomes.jsonl

The first form chooses among the edits that people compared in a run's pairs, with the scores that `editr1 bench pairs` stored; people
are the referee. The second chooses among the edits of several editors on one benchmark; J is what the judge said of an editor's edits,
R what the referee said, each an *.outcomes.jsonl that `editr1 bench` or `editr1 score-folder` wrote. No model is asked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from editr1.bench.base import JudgedEdit
from editr1.bench.pairs import build
from editr1.commands._metrics import add_output_arguments, say, show
from editr1.errors import ConfigError, DataError
from editr1.measure.compare import outcomes_of
from editr1.measure.groups import Groups, best_of_n, from_outcomes, from_pairs, picked
from editr1.store import Run
from editr1.store._files import write_atomic

PAIRS_TABLE = "bench_pairs_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--judged", metavar="TABLE", help=f"table of the run that `bench pairs` wrote, such as {PAIRS_TABLE}rrm")
    where.add_argument(
        "--edits", action="append", nargs=3, metavar=("EDITOR", "JUDGE", "REFEREE"), help="outcomes of one editor's edits; repeatable"
    )
    parser.add_argument(
        "--split", default="held_out", help="pairs of the run: held_out (default), train or all; as `bench pairs` was given"
    )
    parser.add_argument("--category", default="", metavar="PREFIX", help="only outcomes whose category starts so")
    parser.add_argument("--picks", type=Path, metavar="FILE", help="write the picks here, one JSON object a task")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
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
    if args.run is None:
        raise ConfigError("--judged names a table of a run: give --run DIR as well")
    run = Run.open(args.run, create=False)
    judged = dict(run.keyed(args.judged, JudgedEdit))
    pairs = build(args.run, args.split).pairs
    edits = {edit.id for pair in pairs for edit in (pair.a, pair.b)}
    if not edits & judged.keys():
        raise DataError(
            f"table {args.judged} holds no edit of these pairs; give the table and the --split of: editr1 bench pairs --run ..."
        )
    return from_pairs(pairs, judged)


def _from_files(args: argparse.Namespace) -> Groups:
    names = [name for name, _, _ in args.edits]
    if len(set(names)) < len(names):
        raise ConfigError(f"--edits names an editor twice ({', '.join(names)}); give each its own name")
    return from_outcomes(
        {name: (outcomes_of(Path(judge), args.category), outcomes_of(Path(referee), args.category)) for name, judge, referee in args.edits}
    )


def _picks(groups: Groups) -> list[str]:
    """A tie lists all edits that share the highest score; a task that the judge did not score lists none."""
    rows = []
    for task, group in groups.tasks.items():
        best = picked(group)
        rows.append({"task": task, "picked": [choice.key for choice in best], "score": best[0].score if best else None})
    return [json.dumps(row) for row in rows]


def _left_out(groups: Groups) -> str:
    return (
        f"{groups.num_without_referee} tasks with an edit that the referee did not score, "
        f"{groups.num_alone} tasks that lack an edit to choose from"
    )
