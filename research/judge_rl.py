"""Which way to learn from pairs makes the better judge? Every way of `pair_learning` and rationale SFT, on the same pairs and budget.

    editr1 demo --run runs/demo                                     # or the stages up to sft; its 06_rrm_sft is where all begin
    python -m research.judge_rl --run runs/pairs --sft runs/demo/06_rrm_sft --config recipe.yaml

RUN holds 01_tasks to 03_candidates and 07_pairs of tasks that the checkpoint never saw; its training split is learnt, its held-out split
measures. A cell is one (way, seed): the seed is that of the order of pairs and of the sampled traces, data and start are the same. All
ways meet the same pairs equally often; those that sample draw the same number of traces. Each cell is a process of its own; a finished
one is never run again and a killed one resumes, so the same command continues. Writes one table as Markdown and JSON, and ends with a
line of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from editr1.config import Component, create, load_recipe, section
from editr1.schema import derive_seed
from editr1.store import Run
from research.judge_rl_page import HELD_OUT_TRACES, START, held_out, write_pages

SAMPLED = ("gcpo", "pd_grpo", "irpo")
WAYS = (START, "bradley_terry", *SAMPLED, "rationales")
TABLES = ("01_tasks", "02_principles", "03_candidates", "07_pairs", "images", "config.json", "env.json")


def run_cell(way: str, seed: int, args: argparse.Namespace) -> None:
    """Trains (or resumes), judges the held-out pairs, and writes the cell's `result.json`."""
    from editr1.store import environment

    begin = time.perf_counter()
    folder = args.cells / f"{way}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:  # the cell reads the run's tables and writes its own
        if (args.run / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to((args.run / name).resolve())
    path, tokens = train(way, seed, folder, args)
    trained = time.perf_counter() - begin
    result = {"way": way, "seed": seed, "settings": settings(args), "train_tokens": tokens, **judge(way, seed, path, args)}
    result |= {"commit": environment()["commit"] or "", "train_seconds": round(trained), "seconds": round(time.perf_counter() - begin)}
    partial = folder / "result.partial"
    partial.write_text(json.dumps(result), encoding="utf-8")
    os.replace(partial, folder / "result.json")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures of a cell depend on."""
    names = ("steps", "pairs_per_step", "num_traces", "num_pairs", "set")
    return {name: getattr(args, name) for name in names} | {"sft": str(args.sft), "run": str(args.run)}


def train(way: str, seed: int, folder: Path, args: argparse.Namespace) -> tuple[Path, int]:
    """The checkpoint of a cell, and the tokens that were generated for it."""
    from editr1.stages import gcpo, sft

    if way == START:
        return args.sft, 0
    recipe = load_recipe(args.config, args.set)
    num_visits = args.steps * args.pairs_per_step
    config = dataclasses.replace(
        section(recipe, "gcpo", gcpo.Config), model=str(args.sft), output=f"08_{way}", seed=seed, max_pairs=num_visits, unseen_share=None,
        steps=args.steps, pairs_per_step=args.pairs_per_step, num_traces=args.num_traces,
    )  # fmt: skip
    machine = dataclasses.replace(config.machine, progress=False, trackers=())
    if way == "rationales":
        tokens = write_rationales(folder, config, args)
        schedule = dataclasses.replace(config.schedule, lr=1.5e-4, max_grad_norm=1.0)  # the rate of recipes/evidence.yaml
        batch = 2 * args.pairs_per_step
        lessons = sft.Config(
            str(args.sft), config.prompt_id, lessons="rationales", steps=args.steps, batch_size=batch, schedule=schedule, seed=seed,
            machine=dataclasses.replace(machine, micro_batch=batch), max_pairs=num_visits,
        )  # fmt: skip
        return Path(sft.run(lessons, folder).path), tokens
    micro = 2 * args.pairs_per_step * (args.num_traces if way in SAMPLED else 1)
    machine = dataclasses.replace(machine, micro_batch=micro, save_every=args.steps)
    result = gcpo.run(dataclasses.replace(config, method=Component(way), machine=machine), folder)
    curve = Run.open(folder, create=False).curves(f"gcpo/08_{way}")
    sampled = sum(point.get("trace_tokens", 0.0) for point in curve) * args.pairs_per_step * 2 * args.num_traces
    return Path(result.path), round(sampled)


def write_rationales(folder: Path, config: Any, args: argparse.Namespace) -> int:
    """Traces for the same pairs, kept where the people's choice can be told from them; returns the tokens of all traces that were kept."""
    from editr1.stages import rationales
    from editr1.training.rows import RATIONALES, Rationale

    writer = Component("local", {"path": str(args.sft), "batch_size": 192})
    stage = rationales.Config(
        writer, config.prompt_id, tell=False, num_traces=args.num_traces, max_pairs=config.max_pairs, batch_size=16, concurrency=1,
        max_tokens=config.generation.max_tokens, seed=config.seed,
    )  # fmt: skip
    rationales.run(stage, folder)
    kept = [trace for row in Run.open(folder, create=False).read(RATIONALES, Rationale) for trace in (row.winner, row.loser)]
    mean = sum(trace.num_tokens for trace in kept) / len(kept)
    return round(mean * config.max_pairs * 2 * args.num_traces)


def judge(way: str, seed: int, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Scores of every trace of both edits of the held-out pairs."""
    from editr1.judge.item import RewardItem
    from editr1.judge.rrm import RewardModel
    from editr1.vlm.base import Sampling

    run = Run.open(args.run, create=False)
    pairs = held_out(run, args.num_pairs)
    edits = {edit.id: (pair, edit) for pair in pairs for edit in (pair.winner, pair.loser)}
    items = [
        RewardItem(run.images.get(p.task.source), run.images.get(e.image), p.task.instruction, p.principles, id)
        for id, (p, e) in edits.items()
    ]
    model: Any
    if way == "bradley_terry":
        model = create("judges", Component("bradley_terry", {"checkpoint": str(path), "batch_size": 64}))
    else:
        sampling = Sampling(1.0, max_tokens=160)
        model = RewardModel(create("vlm", Component("local", {"path": str(path), "batch_size": 256})), "compact", HELD_OUT_TRACES, sampling)
    rewards = model.score(items, seed=derive_seed(seed, "held_out"))
    scores = {id: list(reward.scores or [reward.value]) for id, reward in zip(edits, rewards, strict=True)}
    num_traces = sum(reward.num_traces for reward in rewards)
    return {"scores": scores, "trace_tokens": sum(reward.num_tokens for reward in rewards) / num_traces}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory with the pairs, of tasks that the start never saw")
    parser.add_argument("--sft", type=Path, required=True, help="checkpoint that every way starts from")
    parser.add_argument("--config", type=Path, default=Path(str(files("editr1.world") / "demo.yaml")), help="recipe with a gcpo section")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe; repeatable")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs-per-step", type=int, default=8)
    parser.add_argument("--num-traces", type=int, default=6)
    parser.add_argument("--num-pairs", type=int, default=500, help="held-out pairs that measure")
    parser.add_argument("--out", type=Path, default=Path("docs/results/judge_rl"), help="pages are this name with .md and .json")
    parser.add_argument("--only-page", action="store_true", help="run nothing: the table of the ways that all seeds have finished")
    parser.add_argument("--cell", nargs=2, metavar=("WAY", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.run, args.sft = args.run.resolve(), args.sft.resolve()
    args.cells = args.run / "judge_rl"
    if args.cell:
        run_cell(args.cell[0], int(args.cell[1]), args)
        return
    if args.only_page:
        args.ways = [way for way in args.ways if all((args.cells / f"{way}_{seed}" / "result.json").exists() for seed in args.seeds)]
    args.ways = [way for way in WAYS if way in args.ways or way == START]
    for seed in args.seeds:
        for way in args.ways:
            if not (args.cells / f"{way}_{seed}" / "result.json").exists():
                begin = time.monotonic()
                subprocess.run([sys.executable, "-m", "research.judge_rl", *sys.argv[1:], "--cell", way, str(seed)], check=True)
                print(f"{way} {seed}: {time.monotonic() - begin:.0f} s", flush=True)
    results = {}
    for seed in args.seeds:
        for way in args.ways:
            result = json.loads((args.cells / f"{way}_{seed}" / "result.json").read_text(encoding="utf-8"))
            if result["settings"] != settings(args):
                sys.exit(f"cell {way} {seed} was made with other settings: give those again, or another --run")
            results[way, seed] = result
    last = write_pages(results, args)
    print(args.out.with_suffix(".md").read_text(encoding="utf-8"))
    print(json.dumps(last))


if __name__ == "__main__":
    main()
