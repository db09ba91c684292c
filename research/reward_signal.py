"""What makes the embedded judges good rewards, before and after GCPO and along editor RL: the tables of docs/results/signal.md.

    python -m research.reward_signal --run runs/demo --out docs/results/signal

Two kinds of groups, all of tasks that no judge was trained on: the run's candidates (one edit of each editor), and edits of one editor with
the noise of the recipe, before editor RL and after each of its checkpoints, the same tasks and noise for all. The scorer, the SFT-RRM and
the RL-RRM of the run score every edit with eight traces (the last two score the candidates with expected scores, too); the oracle says the
truth. Figures are those of `editr1 signal`: of the mean of the first K traces, and how often two such means agree. Writes OUT.md (what
stands below its heading "Reading" is kept) and OUT.json; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from editr1.config import create, fill_in, load_recipe, section
from editr1.flow.config import Config
from editr1.flow.contexts import Context, read_contexts
from editr1.flow.state import checkpoints
from editr1.flow.trainer import iteration_window
from editr1.flow.watch import Clock
from editr1.judge.item import RewardItem
from editr1.judge.rrm import build
from editr1.measure.groups import ScoredEdit, signal_metrics
from editr1.schema import Metric, Reward
from editr1.stages.edit_rl import make_trainer
from editr1.stats.agreement import correlation_gain, pooled_correlation
from editr1.store import Run, commit, held_out_share, is_held_out
from research.editor_evidence import ORACLE, judge_options

JUDGES = {"scorer": ("06_scorer", "compact_direct"), "SFT-RRM": ("06_rrm_sft", "compact"), "RL-RRM": ("08_rrm_gcpo", "compact")}
"""Checkpoint folder and prompt; the first states no verdicts."""
NUM_TRACES = (1, 2, 4)
DRAWN = 2 * max(NUM_TRACES)  # two disjoint sets of the largest K
BATCH = 32  # edits judged together
FIGURES = ("spread", "flat", "noise", "order/half", "order/non-tied", "advantage", "advantage/group-std")
READING = "## Reading"
CANDIDATES = "candidates of four editors"

Edit = tuple[Context, Image.Image]


@dataclasses.dataclass(frozen=True)
class Row:
    """One judge about one set of edits, as the mean of K traces."""

    edits: str
    judge: str
    score: str
    num_traces: int
    figures: dict[str, Metric]
    """By the end of its protocol; `agreement` is of two means of K traces."""


def candidates(run: Run, tasks: Sequence[Context]) -> list[Edit]:
    """The run's candidates of these tasks."""
    by_id = {context.task.id: context for context in tasks}
    return [(by_id[row.task_id], run.images.get(row.image)) for row in run.read("03_candidates") if row.task_id in by_id]


def draw_groups(config: Config, tasks: Sequence[Context], weights: Path | None) -> list[Edit]:
    """A group of each task's edits with the recipe's noise, every iteration's window in turn. weights: None = the editor before RL."""
    edits: list[Edit] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, create("editors", config.editor), [lambda edits, seed: []], Path(folder))
        if weights is not None:
            trainer.state.policy.load(load_file(weights / "trained.safetensors"))
        for number, begin in enumerate(range(0, len(tasks), config.contexts)):
            for plan, batch in trainer.batches(tasks[begin : begin + config.contexts], config.contexts_per_batch):
                drawn = trainer.sample(batch, plan, iteration_window(config, trainer.algorithm.needs, number), number, Clock())
                with torch.no_grad():
                    images = trainer.editor.decode(drawn.final, drawn.plan)
                edits += zip([context for context in batch for _ in range(config.group_size)], images, strict=True)
        trainer.close()
    return edits


def judged(options: dict[str, Any], edits: Sequence[Edit]) -> list[Reward]:
    """The rewards of every edit, with their traces."""
    model = build(**options)
    items = [RewardItem(c.source(), image, c.task.instruction, c.principles, f"{c.id}-{i}") for i, (c, image) in enumerate(edits)]
    return [reward for begin in range(0, len(items), BATCH) for reward in model.score(items[begin : begin + BATCH], seed=0)]


def rows_of(name: str, judge: str, score: str, edits: Sequence[Edit], rewards: Sequence[Reward], truths: Sequence[float]) -> list[Row]:
    """One row a K. An edit with a trace that cannot be read is left out of all of them, and counted."""
    read = [tuple(value for value in reward.scores if value is not None) for reward in rewards]
    whole = [(c.id, traces, truth) for (c, _), traces, truth in zip(edits, read, truths, strict=True) if len(traces) == DRAWN]

    def metrics(num_traces: int) -> dict[str, Metric]:
        groups: dict[str, list[ScoredEdit]] = defaultdict(list)
        for task, traces, truth in whole:
            groups[task].append(ScoredEdit(sum(traces[:num_traces]) / num_traces, traces[:num_traces], truth))
        found = signal_metrics(groups, len(edits) - len(whole))
        return {metric.protocol.removeprefix("signal/"): metric for metric in found}

    agreement = metrics(DRAWN)
    return [
        Row(name, judge, score, k, {figure: metrics(k)[figure] for figure in FIGURES} | {"agreement": agreement[f"agreement/k{k}"]})
        for k in NUM_TRACES
    ]


def gains(name: str, edits: Sequence[Edit], rewards: dict[tuple[str, str], list[Reward]], truths: Sequence[float]) -> list[dict[str, Any]]:
    """Correlation with the truth inside groups, RL-RRM less SFT-RRM on the same edits: those that both could read in all traces."""
    found = []
    for score in dict.fromkeys(score for _, score in rewards):
        judges = [rewards[judge, score] for judge in ("SFT-RRM", "RL-RRM")]
        whole = [i for i in range(len(edits)) if all(len(j[i].scores) == DRAWN and None not in j[i].scores for j in judges)]
        groups: dict[str, list[int]] = defaultdict(list)
        for i in whole:
            groups[edits[i][0].id].append(i)
        for k in (*NUM_TRACES, DRAWN):
            sft, rl = ([inside([fmean(judge[i].scores[:k]) for i in group], [truths[i] for i in group]) for group in groups.values()]
                       for judge in judges)  # fmt: skip
            gain, before = correlation_gain(sft, rl, np.random.default_rng(0)), pooled_correlation(sft, np.random.default_rng(0))
            if gain and before:
                found.append({"edits": name, "score": score, "k": k, "sft": before.value, "rl": before.value + gain.value, "n": gain.n,
                              "num_groups": len(groups), "gain": gain.value, "low": gain.low, "high": gain.high})  # fmt: skip
    return found


def inside(scores: Sequence[float], truths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Deviations from the group's means."""
    score, truth = np.array(scores), np.array(truths)
    return score - score.mean(), truth - truth.mean()


def gain_table(found: Sequence[dict[str, Any]]) -> str:
    """What GCPO changed in each way to score."""
    lines = ["| edits | score | K | SFT-RRM | RL-RRM | RL-RRM over SFT-RRM | n |", "|---|---|---|---|---|---|---|"]
    for row in found:
        ends = f" ({row['low']:+.3f} to {row['high']:+.3f})"
        who = f"{row['edits']} | {row['score']} | {row['k']} | {row['sft']:.3f} | {row['rl']:.3f}"
        lines.append(f"| {who} | {row['gain']:+.3f}{ends} | {row['n']} in {row['num_groups']} |")
    return "\n".join(lines)


def read(path: Path, what: str) -> list[dict[str, Any]]:
    """What an earlier call wrote, if any."""
    return json.loads(path.read_text("utf-8")).get(what, []) if path.exists() else []


def kept(path: Path, name: str) -> list[Row]:
    """The rows of a set as an earlier call wrote them."""
    rows = read(path, "rows")
    figures = [{key: Metric(**metric) for key, metric in row["figures"].items()} for row in rows]
    return [Row(**row | {"figures": found}) for row, found in zip(rows, figures, strict=True) if row["edits"] == name]


def cell(metric: Metric) -> str:
    if metric.value is None:
        return "-"
    ends = "" if metric.low is None or metric.high is None else f" ({metric.low:.2f} to {metric.high:.2f})"
    return f"{metric.value:.2f}{ends}"


def as_table(rows: Sequence[Row]) -> str:
    """One table a set of edits."""
    lines = []
    for name in dict.fromkeys(row.edits for row in rows):
        mine = [row for row in rows if row.edits == name]
        spreads = [row.figures["spread"] for row in mine]
        whole, total = sorted(spread.n for spread in spreads), spreads[0].n + spreads[0].num_unscored
        lines += [
            f"### {name}",
            "",
            f"{spreads[0].num_clusters} groups; {whole[0]} to {whole[-1]} of {total} edits have eight readable traces.",
            "",
        ]
        heads = ["judge", "score", "K", "agreement", *FIGURES]
        lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for row in mine:
            cells = [row.judge, row.score, str(row.num_traces), cell(row.figures["agreement"])]
            lines.append("| " + " | ".join([*cells, *(cell(row.figures[figure]) for figure in FIGURES)]) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory of the demo, finished up to gcpo or edit-rl")
    demo = Path(str(files("editr1.world") / "demo.yaml"))
    parser.add_argument("--config", type=Path, default=demo, help="recipe with an edit_rl section")
    parser.add_argument("--groups", type=int, default=64, help="groups of the editor's edits (default 64); twice as many of candidates")
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="sets whose names have these words; the others are kept as OUT.json has them"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    run = Run.open(args.run, create=False)
    recipe = fill_in(load_recipe(args.config), run=str(args.run), world=str(files("editr1.world") / "weights"))
    config, share = section(recipe, "edit_rl", Config), held_out_share(run)
    tasks = [context for context in read_contexts(run, 0.0)[0] if is_held_out(context.task.id, share)]
    if len(tasks) < 2 * args.groups:
        sys.exit(f"{args.run} holds {len(tasks)} held-out tasks, fewer than twice --groups {args.groups}")
    stages = [
        ("editor before RL", None),
        *((f"editor after {int(p.name)} iterations", p) for p in checkpoints(run.dir / "09_editor/checkpoints")),
    ]
    draws = {CANDIDATES: partial(candidates, run, tasks[: 2 * args.groups])}
    draws |= {name: partial(draw_groups, config, tasks[: args.groups], weights) for name, weights in stages}
    oracle = create("oracles", ORACLE)
    rows: list[Row] = []
    paired: list[dict[str, Any]] = []
    for name, draw in draws.items():
        if args.only not in name:
            rows += kept(args.out.with_suffix(".json"), name)
            paired += [row for row in read(args.out.with_suffix(".json"), "paired") if row["edits"] == name]
            continue
        edits = draw()
        truth = oracle.judge([c.source() for c, _ in edits], [image for _, image in edits], [c.task.instruction for c, _ in edits])
        truths = [score.utility for score in truth]
        seen: dict[tuple[str, str], list[Reward]] = {}
        for judge, (folder, prompt) in JUDGES.items():
            options = judge_options(config.reward.options, args.run / folder) | {"num_traces": DRAWN, "prompt_id": prompt}
            for score in ("sampled", "expected")[: 1 + (judge != "scorer" and name == CANDIDATES)]:
                seen[judge, score] = judged(options | {"expected": score == "expected"}, edits)
                rows += rows_of(name, judge, score, edits, seen[judge, score], truths)
                print(f"{name}, {judge}, {score}: {len(edits)} edits", file=sys.stderr, flush=True)
        paired += gains(name, edits, {key: value for key, value in seen.items() if key[0] != "scorer"}, truths)
    write(rows, paired, args)


def write(rows: Sequence[Row], paired: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    found = {(row.edits, row.judge, row.score, row.num_traces): row.figures for row in rows}
    first = rows[0].edits
    before, after = (found[first, judge, "sampled", 4]["order/half"] for judge in ("SFT-RRM", "RL-RRM"))
    plain = [{**dataclasses.asdict(row), "figures": {key: dataclasses.asdict(m) for key, m in row.figures.items()}} for row in rows]
    result = {
        "what": f"order of pairs inside groups, {first}, RL-RRM at K = 4, half credit", "value": after.value, "n": after.n,
        "low": after.low, "high": after.high, "goal": f"above the SFT-RRM's {before.value:.3f}",
        "holds": (after.low or 0) > (before.value or 1),
    }  # fmt: skip
    if args.out:
        page, data = args.out.with_suffix(".md"), args.out.with_suffix(".json")
        old = page.read_text("utf-8") if page.exists() else ""
        reading = old[old.index(READING) :] if READING in old else f"{READING}\n"
        head = [
            "# What makes the embedded judges good rewards",
            "",
            f"Made by `python -m research.reward_signal --groups {args.groups}` at `{commit()[:12]}`, CPU, torch {torch.__version__}.",
            "Tasks that no judge was trained on; brackets are 95 % intervals over tasks. What each figure says:",
            "[Is the judge a good reward?](../benchmarks.md#is-the-judge-a-good-reward)",
            "`agreement` is of two means of K traces, all else of one; `advantage/group-std`: each group divided by its own std first.",
        ]
        tables = [as_table(rows), "### Correlation with the truth inside groups, paired", "", gain_table(paired), ""]
        page.write_text("\n".join([*head, "", *tables, reading]).rstrip() + "\n", "utf-8")
        data.write_text(json.dumps({"result": result, "rows": plain, "paired": list(paired)}, indent=1) + "\n", "utf-8")
    print(as_table(rows), gain_table(paired), sep="\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
