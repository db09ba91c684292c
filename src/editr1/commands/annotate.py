"""Label pairs in a browser: blind, by keyboard or on a phone; every answer is on disk before the next pair shows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from editr1.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory with candidates")
    parser.add_argument("--gsb", nargs=2, metavar=("BEFORE", "AFTER"), help="compare these two editors only (GSB study)")
    parser.add_argument("--pairs-per-task", type=int, default=1, metavar="N")
    parser.add_argument("--limit", type=int, metavar="N", help="ask at most this many pairs")
    parser.add_argument(
        "--overlap", type=float, default=0.1, metavar="SHARE", help="share of pairs that several people answer (default: 0.1)"
    )
    parser.add_argument("--raters", type=int, default=2, metavar="N", help="how many people answer those (default: 2)")
    parser.add_argument("--gold", type=Path, metavar="FILE", help="CSV or JSONL of control questions: a, b (candidate ids), label")
    parser.add_argument("--gold-every", type=int, default=20, metavar="N", help="one pair in N is a control question (default: 20)")
    parser.add_argument("--principles", action="store_true", help="show the principles below the pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; other than loopback needs --token")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--token", help="secret that annotators open the page with: http://HOST:PORT/?token=SECRET")
    parser.add_argument("--import", dest="votes", type=Path, metavar="FILE", help="add votes (a, b, label, annotator) and stop")
    parser.add_argument(
        "--export", action="store_true", help="write all answers to annotations.csv and 07_pairs and stop; with --gsb those of its study"
    )
    parser.add_argument("--csv", action="store_true", help="write annotations.csv only and stop")
    parser.add_argument(
        "--majority", action="store_true", help="with --export or --csv: one answer a pair, the owner's decision or that of most"
    )


def main(args: argparse.Namespace) -> int:
    from editr1.annotate.items import Plan
    from editr1.annotate.queue import Overlap
    from editr1.store import Run

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


def _exchange(args: argparse.Namespace, run: Any, plan: Any) -> int:
    from editr1.annotate.export import export, export_pairs, import_votes, write_csv
    from editr1.annotate.items import plan_items
    from editr1.annotate.votes import DATABASE, VoteStore

    items = plan_items(run, plan) if args.votes or args.gold else []
    store = VoteStore(run.dir / DATABASE)
    if args.votes:
        outcome = import_votes(store, items, args.votes, plan.study)
        _say(f"{args.votes}: " + ", ".join(f"{reason} {count}" for reason, count in sorted(outcome.items())))
    if args.csv or args.export:
        controls = {item.id for item in items if item.gold is not None}
        study = plan.study if args.gsb else None
        exported = export(run, store.all(), study=study, with_majority=args.majority, controls=controls)
        if args.export:
            path, counts = export_pairs(run, exported)
            _say(f"{path}: {exported}; 07_pairs: {counts}")
        else:
            _say(f"{write_csv(run, exported)}: {exported}")
        if exported.num_contradictory and not args.majority:
            _say(f"{exported.num_contradictory} pairs have contradictory rows: people chose both edits; --majority writes one row a pair")
    store.close()
    return 0


def _serve(args: argparse.Namespace, run: Any, plan: Any, overlap: Any) -> int:
    try:
        from editr1.annotate.server import Desk, build_app
        from editr1.serve.listen import listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"the labelling page needs {error.name}; install it with: pip install -e '.[serve]'") from error
    from editr1.serve.guard import check_exposure, is_loopback

    check_exposure(args.host, args.token)
    desk = Desk.open(run, plan, overlap, args.principles)
    app = build_app(desk, token=args.token, loopback=is_loopback(args.host))
    address = f"http://{args.host}:{args.port}/"
    token = "token=...&" if args.token else ""
    _say(
        f"{len(desk.items)} pairs, {len(desk.votes.all())} answers so far. Label at {address}{'?token=...' if token else ''} (Ctrl-C stops)"
    )
    _say(f"Results, review and export are for the owner, who labels at {address}?{token}owner={desk.owner_key}")
    listen(app, args.host, args.port)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
