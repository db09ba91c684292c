"""The table of judge_rl: its figures from the cells' scores, as Markdown and JSON."""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from editr1.schema import PreferencePair
from editr1.store import Run, preference_pairs

START = "sft"
HELD_OUT_TRACES = 4
NAMES = {
    START: "SFT-RRM (start)",
    "gcpo": "GCPO",
    "pd_grpo": "PD-GRPO",
    "irpo": "IRPO",
    "bradley_terry": "Bradley-Terry head",
    "rationales": "rationale SFT",
}


def held_out(run: Run, num: int) -> list[PreferencePair]:
    """The first decided pairs that no cell learns from."""
    return [pair for pair in preference_pairs(run, "held_out") if pair.label != "same"][:num]


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
        "gain": estimate(gain) | {"p": gain.p_value}, "gain_strict": estimate(stricter) | {"p": stricter.p_value},
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

    from editr1.store import environment
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
