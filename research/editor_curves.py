"""Which algorithm makes the better editor, how soon, and does the truth follow the reward? The whole registry by the same edit-rl.

    python -m research.editor_curves --run runs/demo --rewards oracle
    python -m research.editor_curves --run runs/demo --rewards oracle rl --only-page

A cell is one (algorithm, reward, seed): the package's `edit-rl` from the shipped editor by the embedded recipe (Muon, rates that fall),
12 x 8 edits an iteration, with the settings of `WAYS`. Every few iterations its weights are kept, and the oracle then judges their edits of
the same held-out tasks, noise-free, the same noise for all. Each cell is a process of its own on one core; a finished cell is never run
again, a killed one resumes, and a page can be made of those that are finished.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from editr1.config import fill_in, load_recipe, section
from research import editor_evidence as evidence

NOISY = "edit_rl.sampling={steps: 6, kind: cps, level: 0.5, window: 3, first: 0, last: 3}"
TWICE = ("edit_rl.training.updates_per_rollout=2", "edit_rl.training.micro_batch=8")
VELOCITY = ("edit_rl.training.beta=0.001", "edit_rl.training.kl=velocity")
TEACHER = '{id: "editr1.world.tiny_editor:build", options: {transformer: "{cells}/nft_oracle_0/09_editor/transformer"}}'


def chosen(name: str, options: str = "") -> str:
    """The override that takes an algorithm."""
    return f"edit_rl.training.algorithm={{id: {name}, options: {{{options}}}}}"


WAYS = {
    "nft": (chosen("nft", "old_decay_rate: 0.02"),),
    "grpo": (chosen("grpo", "clip_low: 0.001, clip_high: 0.001"), NOISY),
    "grpo_tempflow": (chosen("grpo", "clip_low: 0.001, clip_high: 0.001, step_weights: std"), NOISY),
    "guard": (chosen("guard", "clip_low: 0.0005, clip_high: 0.0005"), NOISY, *TWICE),
    "dppo": (chosen("dppo", "threshold: 0.0001"), NOISY, *TWICE),
    "dpo": (chosen("dpo"),),
    "dgpo": (chosen("dgpo"), *VELOCITY),
    "awm": (chosen("awm"), *VELOCITY),
    "dpo_offline": (chosen("dpo"), "edit_rl.source=pairs", "edit_rl.group_size=2", "edit_rl.contexts=48"),
    "distill": (chosen("distill", f"teacher: {TEACHER}"), NOISY),
}
SLOW = ("edit_rl.training.lr=1e-4", "edit_rl.training.lr_matrices=2e-4")
WAYS |= {f"{way}_slow": (*WAYS[way], *SLOW) for way in ("grpo", "grpo_tempflow", "guard", "dppo", "dpo", "dgpo")}
"""Overrides of each way on top of the embedded recipe and `COMMON`. Guard and DPPO act only from the second update of a rollout on. `slow`:
a third of the recipe's rates, which were chosen for nft."""
COMMON = ("edit_rl.contexts=12",)
TOLD = ("gain in success (95 %)", "gain in score (95 %)", "reward, then truth, of what was sampled: first to last span")
REACHED = {"iterations": 1.0, "forwards": 1e3, "seconds": 60.0}
DEAF = ("dpo_offline", "distill")
"""Ways that hear no judge: one cell a seed, under the first reward. The teacher of `distill` is the editor of nft with the oracle."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run."""

    way: str
    reward: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.way}_{self.reward}_{self.seed}"


def settings(cell: Cell, args: argparse.Namespace) -> Any:
    """The cell's `edit_rl`: weights are kept whenever they are to be judged."""
    recipe = load_recipe(args.config, [*COMMON, *WAYS[cell.way], *args.set])
    recipe = fill_in(recipe, run=str(args.run), world=str(files("editr1.world") / "weights"), cells=str(args.cells))
    from editr1.flow.config import Config

    config = section(recipe, "edit_rl", Config)
    folder = evidence.REWARDS[cell.reward]
    options = evidence.judge_options(config.reward.options, args.run / folder)
    reward = dataclasses.replace(config.reward, options=options) if folder else evidence.ORACLE
    return dataclasses.replace(
        config, reward=reward, seed=cell.seed, iterations=args.iterations or config.iterations, save_every=args.every,
        keep_checkpoints=10**6, gallery_every=0, evaluation=dataclasses.replace(config.evaluation, every=0),
    )  # fmt: skip


def run_cell(cell: Cell, args: argparse.Namespace) -> None:
    """Trains (or resumes), judges the kept weights and the start, and writes the cell's `result.json`."""
    import torch
    from safetensors.torch import load_file

    from editr1.config import create
    from editr1.flow.plan import count_evaluations
    from editr1.flow.state import checkpoints

    torch.set_num_threads(1)
    begin, config, folder = time.perf_counter(), settings(cell, args), args.cells / cell.name
    evidence.train_cell(cell, config, args.run, folder)  # type: ignore[arg-type]  # it wants a name and a seed
    trained = time.perf_counter() - begin
    kept = folder / "09_editor" / "checkpoints"
    before = args.cells / f"before_{args.tasks}.json"
    if not before.exists():
        before.write_text(json.dumps(evidence.measure(config.editor, None, args.tasks)), encoding="utf-8")
    curve = [{"iteration": 0, **json.loads(before.read_text(encoding="utf-8"))}]
    for checkpoint in checkpoints(kept):
        model = create("editors", config.editor).transformer
        model.load_state_dict(load_file(checkpoint / "trained.safetensors"))
        model.save_pretrained(folder / "judged")
        curve.append({"iteration": int(checkpoint.name), **evidence.measure(config.editor, folder / "judged", args.tasks)})
    per_iteration = count_evaluations(config).forward_equivalents
    result = {
        "way": cell.way, "reward": cell.reward, "seed": cell.seed, "settings": list(asked(cell, args)), "tasks": args.tasks,
        "iterations": config.iterations, "samples": config.contexts * config.group_size, "forwards_an_iteration": per_iteration,
        "train_seconds": round(trained, 1), **noted(folder, args.every),
        "curve": [{key: value for key, value in point.items() if key != "kinds"} for point in curve],
    }  # fmt: skip
    (folder / "result.partial").write_text(json.dumps(result), encoding="utf-8")
    os.replace(folder / "result.partial", folder / "result.json")
    shutil.rmtree(kept)
    shutil.rmtree(folder / "judged")


def asked(cell: Cell, args: argparse.Namespace) -> tuple[str, ...]:
    """Everything that the cell's settings differ in from the recipe, whichever machine it ran on."""
    return (*COMMON, *WAYS[cell.way], *args.set)


def noted(folder: Path, every: int) -> dict[str, Any]:
    """By spans of `every` iterations: mean reward, mean truth of the same sampled edits, seconds so far."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    points = {row["step"]: row for row in rows if "seconds/total" in row}  # a resumed iteration counts once
    seconds = np.cumsum([points[step]["seconds/total"] for step in sorted(points)])
    found: dict[str, Any] = {"seconds": [round(float(s), 1) for s in seconds[every - 1 :: every]]}
    if (folder / "watched.jsonl").exists():
        lines = {row["call"]: row for row in map(json.loads, (folder / "watched.jsonl").read_text(encoding="utf-8").splitlines())}
        calls = [list(lines.values())[i : i + every] for i in range(0, len(lines), every)]  # one call an iteration
        for name in ("rewards", "truths"):
            found[name] = [float(np.mean([v for row in span for v in row[name] if v is not None])) for span in calls]
    return found


# --- the page ---------------------------------------------------------------------------------------


def first_reach(x: list[float], gains: list[float], gain: float) -> float | None:
    """Where a curve through (0, 0) first has the gain, straight between its points; None = never.

    >>> first_reach([0, 10, 20], [0.0, 0.1, 0.3], 0.2)
    15.0
    """
    for i in range(1, len(x)):
        if gains[i] >= gain > gains[i - 1]:
            return x[i - 1] + (x[i] - x[i - 1]) * (gain - gains[i - 1]) / (gains[i] - gains[i - 1])
    return None


def row_of(results: list[dict[str, Any]], gain: float) -> dict[str, Any]:
    """The seeds of one (algorithm, reward) together."""
    one = results[0]
    curves = {what: np.array([[p[what] for p in r["curve"]] for r in results], dtype=float) for what in ("score", "success")}  # [S, P, T]
    gains = (curves["score"] - curves["score"][:, :1]).mean(axis=(0, 2)).tolist()
    iterations = [float(p["iteration"]) for p in one["curve"]]
    clock = [0.0, *np.mean([r["seconds"] for r in results], axis=0).tolist()]
    reached = first_reach(iterations, gains, gain)
    return {
        "way": one["way"], "reward": one["reward"], "seeds": [r["seed"] for r in results], "settings": one["settings"],
        "forwards_a_sample": one["forwards_an_iteration"] / one["samples"], "iterations": iterations,
        "score": curves["score"].mean(axis=(0, 2)).tolist(), "success": curves["success"].mean(axis=(0, 2)).tolist(),
        "gain": {what: evidence.compare(values[:, 0], values[:, -1]) for what, values in curves.items()},
        "rewards": one.get("rewards"), "truths": one.get("truths"), "seconds": clock[1:],
        "reached_iterations": reached, "reached_seconds": first_reach(clock, gains, gain),
        "reached_forwards": None if reached is None else reached * one["forwards_an_iteration"],
    }  # fmt: skip


def told_gain(found: dict[str, Any]) -> str:
    """A difference with its interval, where there are tasks enough for one."""
    interval = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['value']:+.3f}{interval}"


def markdown(rows: list[dict[str, Any]], args: argparse.Namespace, header: str) -> str:
    """The page under docs/results."""
    lines = ["# Editor RL by every algorithm: truth against reward, and time to a fixed gain", "", header]
    for reward in args.rewards:
        here = [row for row in rows if row["reward"] == reward]
        if not here:
            continue
        points = ", ".join(f"{i:.0f}" for i in here[0]["iterations"])
        lines += ["", f"## Reward: {evidence.NAMES[reward]}", ""]
        lines += [f"| algorithm | forwards a sample | held-out success at {points} | score | {' | '.join(TOLD)} |", "|---" * 7 + "|"]
        for row in sorted(here, key=lambda row: -row["score"][-1]):
            gain = {what: told_gain(found) for what, found in row["gain"].items()}
            seen = "no judge" if row["way"] in DEAF else "; ".join(f"{row[n][0]:.2f} to {row[n][-1]:.2f}" for n in ("rewards", "truths"))
            success, score = (", ".join(f"{v:{form}}" for v in row[w]) for w, form in (("success", ".3f"), ("score", ".2f")))
            lines.append(
                f"| {row['way']} | {row['forwards_a_sample']:.1f} | {success} | {score} | {gain['success']} | {gain['score']} | {seen} |"
            )
        lines += [
            "",
            f"Time to +{args.gain:g} of held-out score:",
            "",
            "| algorithm | iterations | thousand forwards | minutes of one core |",
        ]
        lines.append("|---" * 4 + "|")
        for row in sorted(here, key=lambda row: row["reached_forwards"] or float("inf")):
            told = [row[f"reached_{what}"] and row[f"reached_{what}"] / unit for what, unit in REACHED.items()]
            lines.append(f"| {row['way']} | {' | '.join('not reached' if v is None else f'{v:.1f}' for v in told)} |")
    lines += ["", "## Settings", "", "Over the embedded recipe's `edit_rl`:", ""]
    lines += [
        f"- {way}: `{'`, `'.join(told.removeprefix('edit_rl.') for told in WAYS[way])}`"
        for way in dict.fromkeys(row["way"] for row in rows)
    ]
    return "\n".join(lines) + "\n"


def write_pages(args: argparse.Namespace, cells: list[Cell]) -> dict[str, Any]:
    """Both pages of the cells that are finished; returns the last line's object."""
    from datetime import UTC, datetime

    from editr1.store import environment

    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        path = args.cells / cell.name / "result.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        if tuple(result["settings"]) != asked(cell, args) or result["tasks"] != args.tasks:
            sys.exit(f"{path} was made with other settings: give those again, or another --cells folder")
        groups.setdefault((cell.way, cell.reward), []).append(result)
    if not groups:
        sys.exit(f"{args.cells} holds no finished cell")
    rows, machine = [row_of(found, args.gain) for found in groups.values()], environment()
    missing = [cell.name for cell in cells if not (args.cells / cell.name / "result.json").exists()]
    header = (
        f"`python -m research.editor_curves`: 12 tasks x 8 edits an iteration, seeds {args.seeds}, {args.tasks} held-out tasks, the same "
        f"tasks and noise for all, intervals over tasks. {datetime.now(UTC):%d %B %Y}, CPU, one thread a cell ({machine['platform']}), "
        f"torch {machine['packages']['torch']}, commit `{machine['commit'][:7]}`. Forwards: forward equivalents (a backward costs two)."
    )
    header += f" Not finished: {', '.join(missing)}." if missing else ""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".md").write_text(markdown(rows, args, header), encoding="utf-8")
    args.out.with_suffix(".json").write_text(json.dumps({"header": header, "rows": rows}, separators=(",", ":")), encoding="utf-8")
    best = max(rows, key=lambda row: row["gain"]["success"]["value"])
    reached: dict[tuple[str, str], bool] = {}
    for row in rows:
        key = row["way"].removesuffix("_slow"), row["reward"]
        reached[key] = reached.get(key, False) or (row["gain"]["score"]["low"] or 0.0) > 0
    return {
        "measure": f"gain in held-out success, best algorithm ({best['way']}, {best['reward']})", "value": best["gain"]["success"]["value"],
        "low": best["gain"]["success"]["low"], "high": best["gain"]["success"]["high"], "n": args.tasks * len(best["seeds"]),
        "goal": "every algorithm, at one of its rates: interval of score above 0", "holds": all(reached.values()),
        "scores": {f"{row['way']}/{row['reward']}": round(row["gain"]["score"]["value"], 3) for row in rows},
        "iterations_to_gain": {f"{row['way']}/{row['reward']}": row["reached_iterations"] for row in rows}, "missing": missing,
    }  # fmt: skip


def command(cell: Any, args: argparse.Namespace, core: int) -> list[str]:
    """This file again, for one cell."""
    parts = [sys.executable, "-m", "research.editor_curves", "--run", args.run, "--cells", args.cells, "--config", args.config]
    parts += [
        "--tasks",
        args.tasks,
        "--iterations",
        args.iterations,
        "--every",
        args.every,
        "--cell",
        cell.way,
        cell.reward,
        cell.seed,
        core,
    ]
    return [str(part) for part in parts] + [part for override in args.set for part in ("--set", override)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory with 02_principles, 07_pairs and the judges' folders")
    parser.add_argument("--cells", type=Path, help="where the cells lie (default: RUN/editor_curves)")
    parser.add_argument("--config", type=Path, default=Path(str(files("editr1.world") / "demo.yaml")))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for all cells; repeatable")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rewards", nargs="+", choices=list(evidence.REWARDS), default=["oracle"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--iterations", type=int, default=0, help="0 = the recipe's")
    parser.add_argument("--every", type=int, default=10, help="iterations between held-out looks")
    parser.add_argument("--tasks", type=int, default=1000, help="held-out tasks")
    parser.add_argument("--gain", type=float, default=0.2, help="points of held-out score whose time is told")
    parser.add_argument("--workers", type=int, default=1, help="cells at a time")
    parser.add_argument("--only-page", action="store_true", help="run nothing; the page of what is finished")
    parser.add_argument("--out", type=Path, default=Path("docs/results/editor_curves"), help="pages are this name with .md and .json")
    parser.add_argument("--cell", nargs=4, metavar=("WAY", "REWARD", "SEED", "CORE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.cells = args.cells or args.run / "editor_curves"
    if args.cell:
        way, reward, seed, core = args.cell
        if int(core) >= 0:
            os.sched_setaffinity(0, {int(core)})
        run_cell(Cell(way, reward, int(seed)), args)
        return
    cells = [
        Cell(way, reward, seed) for seed in args.seeds for reward in args.rewards for way in args.ways
        if way not in DEAF or reward == args.rewards[0]
    ]  # fmt: skip
    for first in () if args.only_page else (True, False):  # a teacher is trained before its pupil
        evidence.run_all([cell for cell in cells if (cell.way != "distill") is first], args, command)
    last = write_pages(args, cells)
    print(args.out.with_suffix(".md").read_text(encoding="utf-8"))
    print(json.dumps(last))


if __name__ == "__main__":
    main()
