"""Does the better verifier make the better editor? Editor RL on the embedded world with three rewards and several seeds.

    editr1 demo --run runs/demo                                     # or the stages up to gcpo: 02_principles, 06_rrm_sft, 08_rrm_gcpo
    python -m research.editor_evidence --run runs/demo --workers 2

A cell is one (reward, seed): `edit-rl` from the shipped editor with the settings of the embedded recipe, and then the oracle's
score and success of its edits on held-out tasks, the same tasks and noise for every cell and for the editor before training.
Each cell is a process of its own, pinned to one core with one thread; a finished cell is never run again and a killed one
resumes from its checkpoint, so the same command continues. While a cell trains, the oracle looks on (never rewarding, but for the cells of
that name): how often the reward orders two edits of a group as the truth does. Writes one table as Markdown and JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from editr1.config import Component, create, fill_in, load_recipe, section, to_plain
from editr1.schema import derive_seed
from editr1.stats import paired_difference
from editr1.store import Run

REWARDS = {"rl": "08_rrm_gcpo", "sft": "06_rrm_sft", "scorer": "06_scorer", "oracle": ""}
"""Checkpoint folder of each reward, the slow cells first."""
NAMES = {"rl": "RL-RRM", "sft": "SFT-RRM", "scorer": "scorer without principles", "oracle": "oracle"}
BEFORE = "before"
ORACLE = Component("editr1.world.oracle:Oracle")
TASK_SEED = 12  # of the held-out tasks: no stage of the recipe draws from it
SAVE_EVERY = 11  # iterations: a killed cell loses less than a minute


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run; `seed` is None for the editor before training."""

    reward: str
    seed: int | None

    @property
    def name(self) -> str:
        return self.reward if self.seed is None else f"{self.reward}_{self.seed}"


# --- one cell, in its own process -------------------------------------------------------------------


def run_cell(cell: Cell, args: argparse.Namespace) -> None:
    """Trains (or resumes), measures, and writes the cell's `result.json`."""
    import torch

    torch.set_num_threads(1)
    begin = time.perf_counter()
    config = settings(cell, args)
    folder = args.cells / cell.name
    transformer = None if cell.seed is None else train_cell(cell, config, args.run, folder)
    trained = time.perf_counter() - begin
    result = {"reward": cell.reward, "seed": cell.seed, "iterations": 0 if cell.seed is None else config.iterations}
    result["settings"] = to_plain(config)
    result |= measure(config.editor, transformer, args.tasks)
    result |= {"train_seconds": round(trained, 1), "seconds": round(time.perf_counter() - begin, 1)}
    if cell.seed is not None:
        result |= agreement(folder / "watched.jsonl", config.group_size) | training_curve(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "result.partial"
    partial.write_text(json.dumps(result), encoding="utf-8")
    os.replace(partial, folder / "result.json")


def settings(cell: Cell, args: argparse.Namespace) -> Any:
    """The recipe's `edit_rl` with the cell's reward and seed."""
    from editr1.flow.config import Config

    places = {"run": str(args.run), "world": str(files("editr1.world") / "weights")}
    recipe = fill_in(load_recipe(args.config, args.set), **places)
    config = section(recipe, "edit_rl", Config)
    folder = REWARDS.get(cell.reward, "")
    reward = dataclasses.replace(config.reward, options=judge_options(config.reward.options, args.run / folder)) if folder else ORACLE
    return dataclasses.replace(
        config, reward=reward, seed=cell.seed or 0, iterations=args.iterations or config.iterations, save_every=SAVE_EVERY, gallery_every=0,
        evaluation=dataclasses.replace(config.evaluation, every=0),
    )  # fmt: skip


def judge_options(options: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The recipe's judge with other weights: everything else, number of traces included, is the same for both verifiers."""
    vlm = options["vlm"]
    return {**options, "vlm": {**vlm, "options": {**vlm["options"], "path": str(checkpoint)}}}


def train_cell(cell: Cell, config: Any, base: Path, folder: Path) -> Path:
    """The trained transformer's folder. Tasks and pictures are read from `base`; nothing is written there."""
    from editr1.flow.contexts import read_contexts
    from editr1.flow.state import checkpoints, load_state
    from editr1.stages.edit_rl import FOLDER, finish, judge_function, make_trainer, train

    run = Run.open(folder, {"edit_rl": to_plain(config)})
    tasks, _ = read_contexts(Run.open(base, create=False), 0.0, config.source == "pairs")
    score = watched(judge_function(create("judges", config.reward)), folder / "watched.jsonl")
    further = [judge_function(create("judges", reward.judge)) for reward in config.further_rewards]
    trainer = make_trainer(config, create("editors", config.editor), [score, *further], run.dir / FOLDER)
    if done := checkpoints(run.dir / FOLDER / "checkpoints"):
        load_state(trainer.state, done[-1])
    try:
        train(trainer, tasks, [], score, run)
    finally:
        trainer.close()
    return finish(trainer, run.dir / FOLDER).exported


def watched(score: Any, path: Path) -> Any:
    """The same rewards, with the truth about the same edits noted beside them."""
    oracle = create("oracles", ORACLE)

    def look_on(edits: Sequence[Any], seed: int) -> Any:
        rewards = score(edits, seed)
        truths = oracle.judge([c.source() for c, _ in edits], [image for _, image in edits], [c.task.instruction for c, _ in edits])
        row = {"call": seed, "rewards": [r.value for r in rewards], "truths": [t.utility for t in truths]}
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        return rewards

    return look_on


def measure(editor: Component, transformer: Path | None, num_tasks: int) -> dict[str, Any]:
    """Oracle score and success of each held-out task, noise-free, with the same noise for every editor."""
    from editr1.editors.base import EditRequest
    from editr1.world.tasks import TaskSource

    options = {} if transformer is None else {"transformer": str(transformer)}
    model = create("editors", dataclasses.replace(editor, options={**editor.options, **options}))
    tasks = list(TaskSource(num_tasks, TASK_SEED))
    requests = [EditRequest(task.image, task.instruction, derive_seed(0, "editor", i)) for i, task in enumerate(tasks)]
    edits = [image for start in range(0, num_tasks, 64) for image in model.edit(requests[start : start + 64])]
    truths = create("oracles", ORACLE).judge([task.image for task in tasks], edits, [task.instruction for task in tasks])
    return {"score": [t.utility for t in truths], "success": [int(t.success) for t in truths], "kinds": [task.kind for task in tasks]}


def agreement(path: Path, group_size: int) -> dict[str, Any]:
    """In-group pair accuracy of the reward against the oracle over the whole training, ties of the reward counting half."""
    rows = {row["call"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}  # a resumed iteration counts once
    credit = num_pairs = 0.0
    for row in rows.values():
        for begin in range(0, len(row["rewards"]), group_size):
            known = [(r, t) for r, t in list(zip(row["rewards"], row["truths"], strict=True))[begin : begin + group_size] if r is not None]
            for i, (reward, truth) in enumerate(known):
                for other_reward, other_truth in known[:i]:
                    if truth != other_truth:
                        num_pairs += 1
                        credit += 0.5 if reward == other_reward else float((reward > other_reward) == (truth > other_truth))
    return {"group_pair_accuracy": credit / num_pairs if num_pairs else None, "group_pairs": int(num_pairs)}


def training_curve(folder: Path) -> dict[str, Any]:
    """What the training judge itself saw: mean reward of the first and the last ten iterations."""
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rewards = [p["reward/mean"] for p in points if "reward/mean" in p]
    return {"reward_first": float(np.mean(rewards[:10])), "reward_last": float(np.mean(rewards[-10:]))}


# --- all cells --------------------------------------------------------------------------------------


def run_all(cells: Sequence[Any], args: argparse.Namespace, command: Callable[[Any, argparse.Namespace, int], list[str]]) -> None:
    """Runs what is not finished, `workers` cells at a time, each on a core of its own."""
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for worker in range(args.workers):
        cores.put(available[worker % len(available)] if available else -1)

    def start(cell: Any) -> None:
        if (args.cells / cell.name / "result.json").exists():
            return
        core = cores.get()
        begin = time.monotonic()
        try:
            subprocess.run(command(cell, args, core), check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        finally:
            cores.put(core)
        print(f"{cell.name}: {time.monotonic() - begin:.0f} s", flush=True)

    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(start, cells))


def command(cell: Cell, args: argparse.Namespace, core: int) -> list[str]:
    """This file again, for one cell."""
    seed = "" if cell.seed is None else str(cell.seed)
    parts = [sys.executable, "-m", "research.editor_evidence"]
    parts += ["--run", str(args.run), "--cells", str(args.cells), "--config", str(args.config)]
    parts += ["--tasks", str(args.tasks), "--iterations", str(args.iterations), "--cell", cell.reward, seed, str(core)]
    return parts + [part for override in args.set for part in ("--set", override)]


def read_results(cells: Sequence[Cell], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Finished cells by name. Raises SystemExit for one that was run with other settings: a table compares equal budgets or nothing."""
    results = {}
    for cell in cells:
        path = args.cells / cell.name / "result.json"
        results[cell.name] = result = json.loads(path.read_text(encoding="utf-8"))
        if len(result["score"]) != args.tasks or result["settings"] != to_plain(settings(cell, args)):
            sys.exit(f"{path} was made with other settings: give those again, or another --cells folder")
    return results


# --- what came out ----------------------------------------------------------------------------------


def rows_of(results: dict[str, dict[str, Any]], reward: str, what: str) -> np.ndarray:
    """[seeds, tasks] values after training with a reward."""
    return np.array([r[what] for r in results.values() if r["reward"] == reward], dtype=float)


def compare(first_ST: np.ndarray, second_ST: np.ndarray) -> dict[str, Any]:
    """Mean of second - first with two intervals: tasks resampled, and seeds and tasks resampled."""
    gain_ST = second_ST - first_ST
    by_task_T = gain_ST.mean(axis=0)
    tasks = paired_difference(np.zeros_like(by_task_T), by_task_T, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    num_seeds, num_tasks = gain_ST.shape
    means = [gain_ST[rng.integers(num_seeds, size=num_seeds)[:, None], rng.integers(num_tasks, size=num_tasks)].mean() for _ in range(4000)]
    low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
    return {
        "value": tasks.value, "low": tasks.low, "high": tasks.high, "p_value": tasks.p_value,
        "low_seeds": low, "high_seeds": high,
        "by_seed": [float(v) for v in gain_ST.mean(axis=1)], "num_tasks": num_tasks, "num_seeds": num_seeds,
    }  # fmt: skip


def summarise(results: dict[str, dict[str, Any]], rewards: Sequence[str], against: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every comparison by name, each for score and success; `against`: finished cells of other settings, by `folder/cell`."""
    found: dict[str, Any] = {}
    for what in ("score", "success"):
        before_T = rows_of(results, BEFORE, what)
        for reward in rewards:
            found[f"{what}/{reward}_over_before"] = compare(before_T, rows_of(results, reward, what))
        if {"rl", "sft"} <= set(rewards):
            found[f"{what}/rl_over_sft"] = compare(rows_of(results, "sft", what), rows_of(results, "rl", what))
        for folder in dict.fromkeys(name.split("/")[0] for name in against):
            there = {name: result for name, result in against.items() if name.startswith(f"{folder}/")}
            for reward in rewards:
                found[f"{what}/{reward}_over_{folder}"] = compare(rows_of(there, reward, what), rows_of(results, reward, what))
    return found


def goals(found: dict[str, Any]) -> dict[str, bool]:
    """What was promised before anything was measured: the interval over tasks lies above 0."""
    names = [name for name in found if name.endswith("/rl_over_sft") or (name.startswith("success/") and name.endswith("_over_before"))]
    return {name: above_0(found[name]) for name in names}


def above_0(difference: dict[str, Any]) -> bool:
    """False where there is no interval: of equal editors."""
    return difference["low"] is not None and difference["low"] > 0


def markdown(results: dict[str, dict[str, Any]], found: dict[str, Any], rewards: Sequence[str], header: dict[str, Any]) -> str:
    """The page under docs/results."""
    lines = [
        "# Which reward makes the better editor",
        "",
        f"Editor RL on the embedded world, {header['iterations']} iterations, {header['num_seeds']} seeds, {header['num_tasks']} held-out "
        "tasks (the same tasks and noise before and after, no noise in sampling). Score: the oracle's, 0 to 10; success: share of tasks "
        f"where every check holds. {header['date']}, {header['device']}, torch {header['torch']}, commit `{header['commit'][:7]}`. "
        "Made by `python -m research.editor_evidence`.",
        "",
        "| reward | seed | score before | after | success before | after | its pair accuracy in groups | its own mean, first to last 10 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    before = results[BEFORE]
    for result in results.values():
        if result["seed"] is None:
            continue
        numbers = [f"{np.mean(r[what]):.3f}" for what in ("score", "success") for r in (before, result)]
        pairs = "" if result["group_pair_accuracy"] is None else f"{result['group_pair_accuracy']:.3f} (n = {result['group_pairs']})"
        curve = f"{result['reward_first']:.2f} to {result['reward_last']:.2f}"
        lines.append(f"| {NAMES[result['reward']]} | {result['seed']} | {' | '.join(numbers)} | {pairs} | {curve} |")
    lines += ["", "Paired differences, mean over seeds; the first interval resamples tasks, the second seeds and tasks.", ""]
    lines += ["| what | difference | 95 %, tasks | p | 95 %, seeds and tasks | by seed | promised | |", "|---|---|---|---|---|---|---|---|"]
    kept = goals(found)
    for name, c in found.items():
        promise = ("above 0", "holds" if kept[name] else "**does not hold**") if name in kept else ("", "")
        seeds = ", ".join(f"{v:+.3f}" for v in c["by_seed"])
        tasks = "the same for every task | " if c["low"] is None else f"{c['low']:+.3f} to {c['high']:+.3f} | {c['p_value']:.4f}"
        lines.append(
            f"| {said(name)} | {c['value']:+.3f} | {tasks} | "
            f"{c['low_seeds']:+.3f} to {c['high_seeds']:+.3f} | {seeds} | {promise[0]} | {promise[1]} |"
        )
    return "\n".join(lines) + "\n"


def said(name: str) -> str:
    """`score/rl_over_sft` in words."""
    what, _, pair = name.partition("/")
    first, _, second = pair.partition("_over_")
    return f"{what}: {NAMES.get(first, first)} over {NAMES.get(second, second)}"


def write_pages(results: dict[str, dict[str, Any]], rewards: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """Both pages; returns the last line's object."""
    from datetime import UTC, datetime

    from editr1.store import environment

    against = {
        f"{folder.name}/{name}": json.loads((folder / name / "result.json").read_text(encoding="utf-8"))
        for folder in args.against for name in results if name != BEFORE
    }  # fmt: skip
    found = summarise(results, rewards, against)
    machine = environment()
    header = {
        "iterations": max(r["iterations"] for r in results.values()), "num_seeds": len(args.seeds), "num_tasks": args.tasks,
        "date": f"{datetime.now(UTC):%d %B %Y}", "device": f"CPU, one thread a cell ({machine['platform']})",
        "torch": machine["packages"]["torch"], "commit": machine["commit"],
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".md").write_text(markdown(results, found, rewards, header), encoding="utf-8")
    cells = {name: {key: value for key, value in result.items() if key != "kinds"} for name, result in results.items()}
    page = {"header": header, "comparisons": found, "goals": goals(found), "kinds": results[BEFORE]["kinds"], "cells": cells}
    whole = json.dumps(page, separators=(",", ":")).replace(json.dumps(str(args.run))[1:-1], "{run}")  # as recipes write it
    args.out.with_suffix(".json").write_text(whole, encoding="utf-8")
    main_one = found.get("score/rl_over_sft") or found[f"score/{rewards[0]}_over_before"]
    return {
        "measure": "score/rl_over_sft" if "score/rl_over_sft" in found else f"score/{rewards[0]}_over_before",
        "value": main_one["value"], "low": main_one["low"], "high": main_one["high"], "n": main_one["num_tasks"] * main_one["num_seeds"],
        "goal": "above 0 (interval over tasks)", "holds": above_0(main_one), "goals": goals(found),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory with 02_principles, 06_rrm_sft and 08_rrm_gcpo")
    parser.add_argument("--cells", type=Path, help="where the cells lie (default: RUN/editor_evidence)")
    parser.add_argument(
        "--config", type=Path, default=Path(str(files("editr1.world") / "demo.yaml")), help="recipe with an edit_rl section"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe; repeatable")
    parser.add_argument("--rewards", nargs="+", choices=list(REWARDS), default=["rl", "sft", "oracle"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=0, help="0 = the recipe's")
    parser.add_argument("--tasks", type=int, default=1000, help="held-out tasks")
    parser.add_argument(
        "--against", type=Path, nargs="+", default=[], metavar="CELLS", help="finished cells of other settings, to compare with"
    )
    parser.add_argument("--workers", type=int, default=2, help="cells at a time")
    parser.add_argument("--out", type=Path, default=Path("docs/results/editor_evidence"), help="pages are this name with .md and .json")
    parser.add_argument("--cell", nargs=3, metavar=("REWARD", "SEED", "CORE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.cells = args.cells or args.run / "editor_evidence"
    if args.cell:
        reward, seed, core = args.cell
        if int(core) >= 0:
            os.sched_setaffinity(0, {int(core)})
        run_cell(Cell(reward, int(seed) if seed else None), args)
        return
    for reward in args.rewards:
        if REWARDS[reward] and not (args.run / REWARDS[reward] / "config.json").exists():
            sys.exit(f"{args.run / REWARDS[reward]} holds no checkpoint: train it first, or leave {reward!r} out of --rewards")
    cells = [Cell(reward, seed) for seed in args.seeds for reward in args.rewards] + [Cell(BEFORE, None)]
    run_all(cells, args, command)
    last = write_pages(read_results(cells, args), args.rewards, args)
    print(args.out.with_suffix(".md").read_text(encoding="utf-8"))
    print(json.dumps(last))


if __name__ == "__main__":
    main()
