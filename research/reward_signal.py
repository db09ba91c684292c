"""How much of a judge's reward an editor can learn from, for several ways to make advantages of the same edits.

    python -m research.reward_signal --run runs/demo --groups 120

The shipped editor draws groups with the recipe's noise; the SFT-RRM and the RL-RRM of the run score them, with sampled and with expected
scores, as means of one to four traces. Printed is the correlation, over all edits, of the advantage with the oracle's score (and
success) inside the group: a step along the advantage gains that share of what a step along the truth would gain. The oracle's own
advantages stand beside it, since dividing by a group's std costs some of it even for a perfect judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from PIL import Image

from editr1.config import create, fill_in, load_recipe, section
from editr1.flow.config import Config
from editr1.flow.contexts import Context, read_contexts
from editr1.flow.rewarding import reward_table, signal_share
from editr1.flow.trainer import iteration_window
from editr1.flow.watch import Clock
from editr1.judge.item import RewardItem
from editr1.judge.rrm import RewardModel, build, mean_reward
from editr1.objectives.advantages import AdvantageStd, group_advantages
from editr1.schema import Trace
from editr1.stages.edit_rl import make_trainer
from editr1.store import Run
from research.editor_evidence import NAMES, ORACLE, REWARDS, judge_options

JUDGES = ("rl", "sft")
NUM_TRACES = (1, 2, 4)
STDS: tuple[AdvantageStd, ...] = ("group", "batch")
BATCH = 64  # edits judged together

Edit = tuple[Context, Image.Image]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    judge: str
    score: str
    num_traces: int
    std: AdvantageStd
    signal: float | None
    """`editr1.flow.rewarding.signal_share`."""
    with_score: float
    with_success: float


def draw_groups(config: Config, tasks: Sequence[Context], num_groups: int) -> list[Edit]:
    """`num_groups` groups of the editor before training, each iteration's window in turn."""
    edits: list[Edit] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, create("editors", config.editor), [lambda edits, seed: []], Path(folder))
        for number, begin in enumerate(range(0, num_groups, config.contexts)):
            chosen = tasks[begin : min(begin + config.contexts, num_groups)]
            for plan, batch in trainer.batches(chosen, config.contexts_per_batch):
                drawn = trainer.sample(batch, plan, iteration_window(config, trainer.algorithm.needs, number), number, Clock())
                with torch.no_grad():
                    images = trainer.editor.decode(drawn.final, drawn.plan)
                edits += zip([context for context in batch for _ in range(config.group_size)], images, strict=True)
        trainer.close()
    return edits


def judge(model: RewardModel, edits: Sequence[Edit]) -> list[Sequence[Trace]]:
    """The traces of every edit."""
    items = [RewardItem(c.source(), image, c.task.instruction, c.principles, f"{c.id}-{i}") for i, (c, image) in enumerate(edits)]
    return [reward.traces for begin in range(0, len(items), BATCH) for reward in model.score(items[begin : begin + BATCH], seed=0)]


def correlation(advantage_CG: torch.Tensor, truth_CG: torch.Tensor) -> float:
    """Of the advantages with the truth inside groups; both have mean 0 in each group."""
    inside_CG = truth_CG - truth_CG.mean(dim=1, keepdim=True)
    return float((advantage_CG * inside_CG).sum() / (advantage_CG.norm() * inside_CG.norm()))


def rows_of(name: str, score: str, traces: Sequence[Sequence[Trace]], truth: torch.Tensor, success: torch.Tensor) -> list[Row]:
    """All numbers of traces and both stds, from one set of traces."""
    rows = []
    for num_traces in NUM_TRACES:
        rewards = [mean_reward(one[:num_traces]) for one in traces]
        table_CG = reward_table(rewards, truth.shape[1])
        for std in STDS:
            advantage_CG = group_advantages(table_CG, std)
            figures = correlation(advantage_CG, truth), correlation(advantage_CG, success)
            rows.append(Row(name, score, num_traces, std, signal_share(table_CG, rewards), *figures))
    return rows


def as_table(rows: Sequence[Row]) -> str:
    lines = ["| judge | score | traces | std | signal | with the oracle's score | with its success |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        signal = "" if row.signal is None else f"{row.signal:.2f}"
        lines.append(
            f"| {row.judge} | {row.score} | {row.num_traces} | {row.std} | {signal} | {row.with_score:.3f} | {row.with_success:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run directory with 02_principles, 06_rrm_sft and 08_rrm_gcpo")
    parser.add_argument(
        "--config", type=Path, default=Path(str(files("editr1.world") / "demo.yaml")), help="recipe with an edit_rl section"
    )
    parser.add_argument("--groups", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    recipe = fill_in(load_recipe(args.config), run=str(args.run), world=str(files("editr1.world") / "weights"))
    config = section(recipe, "edit_rl", Config)
    tasks, _ = read_contexts(Run.open(args.run, create=False), 0.0)
    if len(tasks) < args.groups:
        sys.exit(f"{args.run} holds {len(tasks)} tasks, fewer than --groups {args.groups}")
    edits = draw_groups(config, tasks, args.groups)
    oracle = create("oracles", ORACLE)
    truths = oracle.judge([c.source() for c, _ in edits], [image for _, image in edits], [c.task.instruction for c, _ in edits])
    truth, success = (
        torch.tensor([float(getattr(t, what)) for t in truths]).view(-1, config.group_size) for what in ("utility", "success")
    )
    flat = float((truth == truth[:, :1]).all(dim=1).float().mean())
    print(f"{len(truth)} groups of {config.group_size}; in {flat:.0%} of them all edits are equally good\n")
    rows = [
        Row("oracle", "", 1, std, None, *(correlation(group_advantages(truth, std), other) for other in (truth, success))) for std in STDS
    ]
    for name in JUDGES:
        options = judge_options(config.reward.options, args.run / REWARDS[name]) | {"num_traces": max(NUM_TRACES)}
        for score in ("sampled", "expected"):
            traces = judge(build(**options | {"expected": score == "expected"}), edits)
            rows += rows_of(NAMES[name], score, traces, truth, success)
    print(as_table(rows))
    found = {(row.judge, row.score, row.num_traces, row.std): row for row in rows}
    plain, better = found["RL-RRM", "sampled", 2, "group"], found["RL-RRM", "expected", 2, "batch"]
    result = {
        "measure": "correlation of RL-RRM advantages with the oracle: expected scores and batch std over sampled scores and group std",
        "value": better.with_score / plain.with_score if plain.with_score > 0 else None, "n": truth.numel(),
        "goal": "above 1", "holds": better.with_score > plain.with_score, "flat_groups": flat,
        "rows": [dataclasses.asdict(r) for r in rows],
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
