"""What listens: `serve` the reward, `annotate` pairs in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from editr1.annotate.items import Plan, plan_items
from editr1.annotate.queue import Overlap
from editr1.annotate.results import export, export_pairs, write_csv
from editr1.annotate.votes import DATABASE, VoteStore, import_votes
from editr1.commands._judge import accepting, add_judge_arguments, judge_component, say
from editr1.config import load_recipe, section, with_overrides
from editr1.errors import ConfigError
from editr1.judge.rrm import RewardModel
from editr1.store import Run

# --- serve ---------------------------------------------------------------------------------------------


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="RECIPE", help="YAML file; its section `serve` is read")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as serve.num_traces=4")
    parser.add_argument("--base-url", metavar="URL", help="OpenAI-compatible endpoint of the judge, up to and including /v1")
    parser.add_argument("--model", help="model id at the endpoint")
    parser.add_argument("--checkpoint", metavar="DIR", help="local checkpoint folder, in place of an endpoint")
    add_judge_arguments(parser, None)
    parser.add_argument("--prompt", metavar="ID", help="score prompt (default: the checkpoint's own, else tv)")
    parser.add_argument("--traces", type=int, metavar="K", help="traces to average over (default: 1)")
    parser.add_argument("--decompose", action="store_true", help="the judge makes principles for edits that come without")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; other than loopback needs --token")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--token", help="clients must send 'Authorization: Bearer TOKEN'")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder below which requests may name image files")
    parser.add_argument("--allow-pickle", action="store_true", help="also speak flow_grpo's pickle dialect (loopback only, restricted)")


def run_serve(args: argparse.Namespace) -> int:
    """Serve the reward: JSON over HTTP, with the dialects of other trainers.

    editr1 serve --base-url http://localhost:8000/v1 --model edit-rrm --decompose
    editr1 serve --checkpoint runs/demo/08_rrm_gcpo
    editr1 serve --judge editscore --model EditScore-7B --base-url http://localhost:8000/v1
    editr1 serve --config recipes/serve.yaml --set serve.num_traces=4
    """
    try:
        from editr1.serve.app import Access, Config, build_app, make_judge
        from editr1.serve.listen import listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"the service needs {error.name}; install it with: pip install -e '.[serve]'") from error
    access = Access(args.host, args.token, args.root, args.allow_pickle)
    access.check()
    config = section({"serve": _settings(args)}, "serve", Config)
    judge = make_judge(config)
    app = build_app(judge, config, access)
    what = f"prompt {judge.prompt_id}" if isinstance(judge, RewardModel) else f"judge {config.judge.id if config.judge else ''}"
    model = f"{config.vlm.id}, " if config.vlm else ""
    say(f"serving {model}{what}, at http://{args.host}:{args.port} (Ctrl-C stops)")
    listen(app, args.host, args.port)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The section `serve`: the recipe's, the command line's judge over it, and `--set` over both."""
    settings = dict(load_recipe(args.config).get("serve") or {}) if args.config else {}
    if args.checkpoint and args.model:
        raise ConfigError("name one judge: --model ID (with --base-url for a server of your own), or --checkpoint DIR")
    if args.checkpoint:
        settings["vlm"] = {"id": "local", "options": {"path": args.checkpoint}}
    if args.model:
        settings["vlm"] = {"id": "openai_api", "options": {"model": args.model, "base_url": args.base_url}}
    if args.judge:
        if args.prompt or args.traces or args.decompose:
            raise ConfigError("--prompt, --traces and --decompose describe the RRM; options of --judge are given as --judge-set KEY=VALUE")
        judge = judge_component(args)
        settings["judge"] = {"id": judge.id, "options": judge.options}
    if not {"vlm", "judge"} & settings.keys() and not any(text.startswith(("serve.vlm", "serve.judge")) for text in args.set):
        raise ConfigError("name a judge: --model ID with --base-url URL, --checkpoint DIR, or --config RECIPE with a section `serve`")
    if args.prompt:
        settings["prompt_id"] = args.prompt
    if args.traces:
        settings |= {"num_traces": args.traces} | ({} if args.traces == 1 or "temperature" in settings else {"temperature": 0.7})
    if args.decompose:
        settings["decomposer"] = settings.get("vlm")
    recipe = with_overrides({"serve": settings}, args.set)
    if stray := recipe.keys() - {"serve"}:
        raise ConfigError(f"--set {min(stray)}...: this command reads the section `serve` only, such as serve.num_traces=4")
    return dict(recipe["serve"])


# --- annotate ------------------------------------------------------------------------------------------


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
        exported = export(run, store.all(), study=study, with_majority=args.majority, controls=controls)
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
        from editr1.serve.listen import listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"the labelling page needs {error.name}; install it with: pip install -e '.[serve]'") from error
    from editr1.serve.guard import check_exposure, is_loopback

    check_exposure(args.host, args.token)
    desk = Desk.open(run, plan, overlap, args.principles)
    app = build_app(desk, token=args.token, loopback=is_loopback(args.host))
    address = f"http://{args.host}:{args.port}/"
    token = "token=...&" if args.token else ""
    labelled = f"{len(desk.items)} pairs, {len(desk.votes.all())} answers so far"
    say(f"{labelled}. Label at {address}{'?token=...' if token else ''} (Ctrl-C stops)")
    say(f"Results, review and export are for the owner, who labels at {address}?{token}owner={desk.owner_key}")
    listen(app, args.host, args.port)
    return 0
