"""Which way to learn from pairs makes the better judge? Every file of `pair_learning` and rationale SFT, on the same pairs and budget.

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
import itertools
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from editr1.config import Component, create, load_recipe, section
from editr1.schema import PreferencePair, derive_seed
from editr1.store import Run, preference_pairs

START = "sft"
SAMPLED = ("gcpo", "pd_grpo", "irpo")
WAYS = (START, "bradley_terry", *SAMPLED, "rationales")
NAMES = {
    START: "SFT-RRM (start)",
    "gcpo": "GCPO",
    "pd_grpo": "PD-GRPO",
    "irpo": "IRPO",
    "bradley_terry": "Bradley-Terry head",
    "rationales": "rationale SFT",
}
TABLES = ("01_tasks", "02_principles", "03_candidates", "07_pairs", "images", "config.json", "env.json")
HELD_OUT_TRACES = 4


# --- one cell, in its own process -------------------------------------------------------------------


def run_cell(way: str, seed: int, args: argparse.Namespace) -> None:
    """Trains (or resumes), judges the held-out pairs, and writes the cell's `result.json`."""
    from editr1.store.run import environment

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


def held_out(run: Run, num: int) -> list[PreferencePair]:
    """The first decided pairs that no cell learns from."""
    return [pair for pair in preference_pairs(run, "held_out") if pair.label != "same"][:num]


# --- what came out ----------------------------------------------------------------------------------


def mean_score(traces: Sequence[float | None]) -> float | None:
    """Of the traces that were read; None where none was."""
    known = [score for score in traces if score is not None]
    return sum(known) / len(known) if known else None


def margins(result: dict[str, Any], pairs: Sequence[PreferencePair], traces: slice = slice(None)) -> np.ndarray:
    """`[N]` preferred minus other, nan = unscored; of the mean over the given traces."""
    from editr1.stats.pairwise import to_margins

    values = {id: mean_score(scores[traces]) for id, scores in result["scores"].items()}
    return to_margins([values[pair.winner.id] for pair in pairs], [values[pair.loser.id] for pair in pairs])


def figures(results: Sequence[dict[str, Any]], start: Sequence[dict[str, Any]], pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """All numbers of one way, over its seeds; gains are paired with the start judged with the same seeds."""
    from editr1.measure.groups import ScoredEdit, signal_metrics
    from editr1.stats.calibration import calibrate
    from editr1.stats.pairwise import accuracy, half_credit, is_tied, paired_difference, strict_credit

    tasks = [pair.task.id for pair in pairs]
    many = tasks * len(results)
    gaps = np.concatenate([margins(result, pairs) for result in results])
    singles = [margins(result, pairs, slice(i, i + 1)) for result in results for i in range(max(map(len, result["scores"].values())))]
    one = np.concatenate(singles)
    half, strict = accuracy(gaps, many, credit="half"), accuracy(gaps, many, credit="strict")
    single = accuracy(one, tasks * len(singles), credit="half")
    assert half is not None
    assert strict is not None
    assert single is not None
    before = np.concatenate([margins(result, pairs) for result in start])
    gain = paired_difference(half_credit(before), half_credit(gaps), many, rng=np.random.default_rng(0))
    stricter = paired_difference(strict_credit(before), strict_credit(gaps), many, rng=np.random.default_rng(0))
    flat = [score for result in results for scores in result["scores"].values() for score in scores if score is not None]
    groups: dict[str, list[ScoredEdit]] = defaultdict(list)
    for number, result in enumerate(results):
        for pair_edits in {edit.id: pair.task.id for pair in pairs for edit in (pair.winner, pair.loser)}.items():
            value = mean_score(result["scores"][pair_edits[0]])
            if value is not None:
                known = tuple(score for score in result["scores"][pair_edits[0]] if score is not None)
                groups[f"{number} {pair_edits[1]}"].append(ScoredEdit(value, known if len(known) > 1 else ()))
    signal = {metric.protocol: metric.value for metric in signal_metrics(groups)}
    calibration = calibrate(gaps, many, rng=np.random.default_rng(0))
    wrong = half_credit(before) < 1  # the pairs that the start has not right
    return {
        "accuracy": estimate(half), "strict": estimate(strict), "one_trace": estimate(single),
        "gain": estimate(gain.estimate) | {"p": gain.p_value}, "gain_strict": estimate(stricter.estimate) | {"p": stricter.p_value},
        "on_wrong": float(half_credit(gaps)[wrong].mean()), "on_right": float(half_credit(gaps)[~wrong].mean()),
        "ties": float(is_tied(gaps).mean()), "ties_one_trace": float(is_tied(one).mean()),
        "unscored": float(np.isnan(gaps).mean()), "spread": signal["signal/spread"], "noise": signal["signal/noise"],
        "ece": calibration.ece, "log_loss": calibration.log_loss,
        "histogram": (np.histogram(flat, bins=np.arange(12) - 0.5)[0] / len(flat)).round(4).tolist(), "mean_score": float(np.mean(flat)),
        "train_tokens": float(np.mean([result["train_tokens"] for result in results])),
        "trace_tokens": float(np.mean([result["trace_tokens"] for result in results])),
        "train_seconds": float(np.mean([result["train_seconds"] for result in results])),
        "by_seed": [float(half_credit(margins(result, pairs)).mean()) for result in results],
    }  # fmt: skip


def against(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], pairs: Sequence[PreferencePair], *, single: bool = False
) -> dict[str, Any]:
    """Accuracy (half credit) of the second way over the first's, paired by seed; the interval resamples seeds and tasks.

    single: of one trace (mean over the traces) in place of the mean score of all.
    """
    gain_SN = np.stack([credit_of(b, pairs, single) - credit_of(a, pairs, single) for a, b in zip(first, second, strict=True)])
    _, task_N = np.unique([pair.task.id for pair in pairs], return_inverse=True)
    count_T = np.bincount(task_N)
    sum_ST = np.stack([np.bincount(task_N, weights=gain_N) for gain_N in gain_SN])
    rng, means = np.random.default_rng(0), []
    for _ in range(4000):
        seeds, tasks = rng.integers(len(sum_ST), size=len(sum_ST)), rng.integers(len(count_T), size=len(count_T))
        means.append(sum_ST[seeds][:, tasks].sum() / (len(seeds) * count_T[tasks].sum()))
    low, high = (float(v) for v in np.quantile(means, (0.025, 0.975)))
    return {"value": float(gain_SN.mean()), "low": low, "high": high, "by_seed": gain_SN.mean(axis=1).tolist()}


def credit_of(result: dict[str, Any], pairs: Sequence[PreferencePair], single: bool) -> np.ndarray:
    """`[N]` half credit of each pair, by the mean of its traces, or the mean over single traces."""
    from editr1.stats.pairwise import half_credit

    if not single:
        return half_credit(margins(result, pairs))
    num = max(map(len, result["scores"].values()))
    return np.mean([half_credit(margins(result, pairs, slice(i, i + 1))) for i in range(num)], axis=0)


def estimate(found: Any) -> dict[str, float]:
    """An Estimate as JSON."""
    return {"value": found.value, "low": found.low, "high": found.high}


def share(found: dict[str, Any], end: str = "value") -> str:
    """A share, or one end of its interval."""
    return f"{found[end]:.3f}"


def points(found: dict[str, Any], end: str = "value") -> str:
    """A difference of shares in points."""
    return f"{100 * found[end]:+.1f}"


def span(found: dict[str, Any], shown: Any) -> str:
    """An interval; empty where too few tasks give none."""
    return "" if found["low"] is None else f"{shown(found, 'low')} to {shown(found, 'high')}"


def table(head: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table. head: column names, joined by `; `."""
    names = head.split("; ")
    return ["| " + " | ".join(cells) + " |" for cells in (names, ["---"] * len(names), *rows)] + [""]


def page(found: dict[str, dict[str, Any]], versus: dict[str, list[dict[str, Any]]], header: dict[str, Any]) -> str:
    """The Markdown page without its reading."""
    accuracy, scores, histogram = [], [], []
    for way, row in found.items():
        gain = row["gain"]
        told = [points(gain), span(gain, points), "" if gain["p"] is None else f"{gain['p']:.2g}", points(row["gain_strict"])]
        of = [share(row["accuracy"]), span(row["accuracy"], share), share(row["strict"]), share(row["one_trace"])]
        accuracy.append([NAMES[way], *of, *([""] * 4 if way == START else told), f"{row['on_wrong']:.2f}", f"{row['on_right']:.2f}"])
        shares = [f"{row[name]:.1%}" for name in ("ties", "ties_one_trace", "unscored")]
        noise = "" if row["noise"] is None else f"{row['noise']:.2f}"
        told = [f"{row['mean_score']:.2f}", f"{row['spread']:.2f}", noise, f"{row['ece']:.3f}", f"{row['log_loss']:.3f}"]
        spent = [f"{row['train_tokens']:,.0f}", f"{row['trace_tokens']:.1f}", f"{row['train_seconds']:.0f}"]
        scores.append([NAMES[way], *shares, *told, *spent])
        histogram.append([NAMES[way], *(f"{of_bin:.0%}" for of_bin in row["histogram"])])
    pairwise = [
        [*(NAMES[way] for way in name.split("/")), *(cell for row in rows for cell in (points(row), span(row, points))),
         ", ".join(f"{100 * v:+.1f}" for v in rows[0]["by_seed"])]
        for name, rows in versus.items()
    ]  # fmt: skip
    seeds = f"{header['num_seeds']} seeds" if header["num_seeds"] > 1 else "One seed"
    lines = [
        "# Ways to learn from pairs, on the same pairs",
        "",
        f"Made by `python -m research.judge_rl` at commit {header['commit']}, torch {header['torch']}, {header['date']}. **{seeds}** of "
        "training (order of pairs, sampled traces); one start, one world.",
        f"Every way is shown {header['visits']} of {header['num_train']} pairs once, none of a task that the start has seen; those that",
        f"sample draw {header['num_traces']} traces an edit. Measured on {header['num_pairs']} held-out pairs of {header['num_tasks']} "
        "tasks, with",
        f"{HELD_OUT_TRACES} traces an edit at temperature 1; intervals (95 %) resample tasks, and say nothing about other worlds.",
        "",
        "## Accuracy",
        "",
        *table(
            "way; avg@4, half credit; 95 %; avg@4, strict; avg@1, half; gain, points; 95 %; p; gain, strict; "
            "right where the start was not; still right elsewhere",
            accuracy,
        ),
        "Way against way, half credit, in points: by the mean of four traces, and by one. Intervals resample seeds and tasks together.",
        "",
        *table("over; way; avg@4; 95 %; avg@1; 95 %; avg@4 by seed", pairwise),
        "## Scores",
        "",
        *table(
            "way; ties avg@4; ties avg@1; unscored; mean; spread in a task; noise; ECE; log loss; tokens to train; tokens a trace; "
            "seconds to train",
            scores,
        ),
        "## Scores of single traces, rounded",
        "",
        *table("way; " + "; ".join(map(str, range(11))), histogram),
        "Spread: mean standard deviation of the scores of the edits of one task, in points; what RL of an editor learns from. Noise: its",
        "share that another draw of traces would not repeat. ECE and log loss: of the order of a pair forecast from the gap, cross-fitted",
        "(a coin has .693). Tokens to train: those that were generated. A score of the head is `10 sigmoid(s)`, and it has one, not four.",
        "",
    ]
    return "\n".join(lines)


def write_pages(results: dict[tuple[str, int], dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Both pages; returns the last line's object. What a person wrote under `## Reading` stays."""
    from datetime import UTC, datetime

    from editr1.store.run import environment
    from editr1.training.rows import read_pairs

    run = Run.open(args.run, create=False)
    pairs = held_out(run, args.num_pairs)
    found = {}
    for way in args.ways:
        seeds = [seed for seed in args.seeds if (way, seed) in results and (START, seed) in results]
        if seeds:
            found[way] = figures([results[way, seed] for seed in seeds], [results[START, seed] for seed in seeds], pairs)
    versus = {}
    for first, second in itertools.combinations(found, 2):
        cells = [results[first, seed] for seed in args.seeds], [results[second, seed] for seed in args.seeds]
        versus[f"{first}/{second}"] = [against(*cells, pairs), against(*cells, pairs, single=True)]
    num_train, num_visits = len(read_pairs(run)), args.steps * args.pairs_per_step
    header = {
        "num_seeds": len(args.seeds), "visits": min(num_visits, num_train), "num_train": num_train,
        "num_pairs": len(pairs), "num_tasks": len({pair.task.id for pair in pairs}), "num_traces": args.num_traces,
        "date": f"{datetime.now(UTC):%d %B %Y}", "torch": environment()["packages"]["torch"],
        "commit": ", ".join(f"`{commit[:10]}`" for commit in sorted({result["commit"] for result in results.values()})),
    }  # fmt: skip
    markdown, old = args.out.with_suffix(".md"), ""
    if markdown.exists():
        old = markdown.read_text(encoding="utf-8").partition("## Reading")[2]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    markdown.write_text(page(found, versus, header) + (f"\n## Reading{old}" if old else ""), encoding="utf-8")
    figures_page = {"header": header, "ways": found, "versus": versus}
    args.out.with_suffix(".json").write_text(json.dumps(figures_page, indent=1) + "\n", encoding="utf-8")
    ends, num = ("value", "low", "high"), len(pairs) * len(args.seeds)
    gains = {
        way: {f"avg@{k}": {end: row[end] for end in ends} for k, row in zip((HELD_OUT_TRACES, 1), versus[f"{START}/{way}"], strict=True)}
        for way in found if way != START
    }  # fmt: skip
    holds = {way: {name: gain["low"] > 0 for name, gain in of.items()} for way, of in gains.items()}
    what = "gain over the start, pair accuracy (half credit), seeds and tasks resampled"
    return {"what": what, "value": gains, "n": num, "goal": "intervals above 0", "holds": holds}


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
