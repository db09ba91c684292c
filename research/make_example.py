"""Make the shipped example from a finished run of the demo: its RL-RRM in bfloat16, and an edit that it judges rightly.

    python -m research.make_example runs/demo

The edit is the first of world seed 77 (no run of the demo uses it) whose greedy verdicts are all the oracle's, some yes and some no, and
whose score is at most `MARGIN` from the oracle's, which lies between 3 and 7.
So the example shows what a judge does, and not how often it is right: that is
docs/results/demo.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from editr1 import RewardItem, RewardModel, example
from editr1.editors.base import EditRequest
from editr1.judge.decompose import Decomposer, Rules
from editr1.world import annotators
from editr1.world.oracle import Oracle
from editr1.world.procedural_editors import ProceduralEditor
from editr1.world.tasks import TaskSource

SEED, NUM = 77, 400
MARGIN = 0.6
SIDE = 432  # six screen pixels a pixel: people see it without a magnifying glass, and the processor averages it back to 72
FILES = ("chat_template.jinja", "config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")


def save_judge(trained: Path) -> None:
    """The checkpoint in bfloat16, with its settings and the curve of its training."""
    example.JUDGE.mkdir(exist_ok=True)
    for name in (*FILES, "settings.json"):
        if (trained / name).exists():
            shutil.copy(trained / name, example.JUDGE / name)
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in load_file(trained / "model.safetensors").items()}
    save_file(weights, example.JUDGE / "model.safetensors", {"format": "pt"})
    (example.JUDGE / "model.safetensors").chmod(0o644)
    curve = [line for line in (trained.parent / "metrics.jsonl").read_text("utf-8").splitlines() if json.loads(line).get("stage") == "gcpo"]
    (example.JUDGE / "training_log.jsonl").write_text("\n".join(curve) + "\n", encoding="utf-8")


def edits() -> Iterator[tuple[int, RewardItem]]:
    """Edits with their principles, in the order of the world."""
    editor, writer = ProceduralEditor("leaky"), Decomposer(annotators.Decomposer(), Rules(quotas=None))
    for index, task in enumerate(TaskSource(NUM, SEED)):
        (edited,) = editor.edit([EditRequest(task.image, task.instruction, index)])
        (found,) = writer.decompose([(task.image, task.instruction)], index)
        before, after = (image.resize((SIDE, SIDE), Image.Resampling.NEAREST) for image in (task.image, edited))
        yield index, RewardItem(before, after, task.instruction, found.principles)


def choose() -> tuple[int, RewardItem]:
    """The first edit that the docstring describes."""
    model, oracle = RewardModel.from_checkpoint(example.JUDGE), Oracle()
    for index, item in edits():
        small = [image.resize((72, 72), Image.Resampling.BOX) for image in (item.source, item.edited)]
        (gold,) = oracle.verdicts([small[1]], [item.principles or ()])
        (truth,) = oracle.judge([small[0]], [small[1]], [item.instruction])
        if len(set(gold)) < 2 or not 5 <= len(gold) <= 8 or not 3 <= truth.utility <= 7:
            continue
        (reward,) = model.score([item])
        said = tuple(rate > 0.5 for rate in reward.rates)
        if reward.value is not None and said == gold and abs(reward.value - truth.utility) <= MARGIN:
            print(f"task {index}: {item.instruction!r}, judge {reward.value:.2f}, oracle {truth.utility:.2f}")
            return index, item
    raise SystemExit(f"none of {NUM} edits is judged rightly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of the demo")
    save_judge(parser.parse_args().run / "08_rrm_gcpo")
    index, item = choose()
    item.source.save(example.FOLDER / "before.png", optimize=True)
    item.edited.save(example.FOLDER / "after.png", optimize=True)
    told = {
        "instruction": item.instruction,
        "principles": [{"question": p.question, "category": p.category} for p in item.principles or ()],
    }
    told["made"] = f"editr1.world, task {index} of seed {SEED}, edited by ProceduralEditor('leaky') with seed {index}"
    (example.FOLDER / "edit.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
