"""GCPO inside ms-swift: the same reward function as in our own stage, registered under the name `editr1_gcpo`.

    python -m editr1.integrations.ms_swift RUN pairs.jsonl --prompt-id tv
    swift rlhf --rlhf_type grpo --model Qwen/Qwen2.5-VL-7B-Instruct --external_plugins .../editr1/integrations/ms_swift.py
        --reward_funcs editr1_gcpo --dataset pairs.jsonl --dataset_shuffle false --train_dataloader_shuffle false
        --num_generations 8 --per_device_train_batch_size 8 --gradient_accumulation_steps 2 --scale_rewards none
        --beta 0 --loss_type grpo --remove_unused_columns false

The rows of a pair stay side by side, so that they meet in one generation batch: processes x batch size x accumulation must be a
multiple of 2 x num_generations, and the function stops the run when rows of a pair do not meet. Extra columns of a row reach the
function as keyword lists. ms-swift 4.6 wants older trl and transformers than this package: give it an environment of its own and
install this package there with `pip install --no-deps` (see docs/how_to/use_the_reward.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from editr1.store import Run
from editr1.store._files import write_atomic
from editr1.training.pair_reward import PairReward
from editr1.training.rows import pair_rows, read_pairs
from editr1.vlm.base import flat_messages

NAME = "editr1_gcpo"
_PASSED = ("pair", "side", "same", "labels", "needs_verdicts", "prompt_text")


def register() -> None:
    """Adds the reward to ms-swift's registry."""
    from swift.rewards import ORM, orms

    class Gcpo(ORM):  # type: ignore[misc, unused-ignore]
        """Win and loss ratios of one generation batch."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.reward = PairReward()

        def __call__(self, completions: list[str], **columns: Any) -> list[float]:
            return self.reward(completions, **columns)

    orms[NAME] = Gcpo


def export_pairs(run_dir: Path, output: Path, prompt_id: str = "tv", seed: int = 0) -> int:
    """Writes the training pairs of a run as ms-swift's JSONL, winner before loser; returns the number of rows.

    Pictures are written as absolute paths into the run's image folder.
    """
    run = Run.open(run_dir.resolve(), create=False)
    pairs = read_pairs(run)
    rows = pair_rows(run, pairs, prompt_id, len(pairs), seed)
    lines = []
    for index in range(len(rows)):
        row = rows[index]
        pair = pairs[rows.order[index // 2]]
        edited = pair.loser if row["side"] == "l" else pair.winner
        paths = [str(run.images.path(ref)) for ref in (*pair.task.sources, edited.image)]
        line = {"messages": flat_messages(row["prompt"]), "images": paths}
        lines.append(json.dumps({**line, **{name: row[name] for name in _PASSED}}, ensure_ascii=False) + "\n")
    write_atomic(output, "".join(lines).encode())
    return len(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export a run's training pairs for GCPO in ms-swift.")
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--prompt-id", default="tv")
    args = parser.parse_args(argv)
    sys.stdout.write(f"{export_pairs(args.run, args.output, args.prompt_id)} rows -> {args.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
if "swift" in sys.modules:  # imported by ms-swift as an external plug-in
    register()
