"""One edit and a trained judge for it, shipped with the package: a first result on any CPU, without a key or a download.

    from editr1 import RewardModel, example

    reward = RewardModel.from_checkpoint(example.JUDGE).score([example.edit()])[0]

The judge is an RL-RRM of the embedded world at 2.5 million parameters, the pictures are of that world. It knows nothing of photographs;
how it was made is in README.md beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

from editr1.judge.item import RewardItem
from editr1.pictures import read_picture
from editr1.schema import Principle

__all__ = ["FOLDER", "JUDGE", "edit"]

FOLDER = Path(__file__).parent
JUDGE = FOLDER / "rrm"
"""Checkpoint folder of the judge."""


def edit() -> RewardItem:
    """The shipped edit: pictures before and after, the instruction, and its principles."""
    told = json.loads((FOLDER / "edit.json").read_text(encoding="utf-8"))
    principles = tuple(Principle(row["question"], row["category"]) for row in told["principles"])
    return RewardItem(read_picture(FOLDER / "before.png"), read_picture(FOLDER / "after.png"), told["instruction"], principles)
