"""Edit tasks of the embedded world, a task source like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from editr1.schema import derive_seed
from editr1.world.edits import KINDS, instruction, random_edits
from editr1.world.render import render
from editr1.world.scene import pick, random_scene


@dataclass(frozen=True, slots=True)
class WorldTask:
    """One row of a task source."""

    image: Image.Image
    instruction: str
    kind: str
    difficulty: Literal["random", "hard"]


class TaskSource:
    """`num` tasks, the i-th a function of (seed, i) alone. Compound instructions are the hard half."""

    def __init__(self, num: int = 100, seed: int = 0, compound_share: float = 0.15) -> None:
        self.num, self.seed, self.compound_share = num, seed, compound_share

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[WorldTask]:
        for index in range(self.num):
            yield self.task(index)

    def task(self, index: int) -> WorldTask:
        """The task of one index."""
        rng = np.random.default_rng(derive_seed(self.seed, "task", index))
        while True:
            scene, kind, compound = random_scene(rng), pick(rng, KINDS), bool(rng.random() < self.compound_share)
            edits = random_edits(rng, scene, kind, compound)
            if edits is not None:
                return WorldTask(render(scene), instruction(scene, edits), kind, "hard" if compound else "random")
