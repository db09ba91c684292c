"""The pool of hand-written decompositions that the decompose prompt shows (paper, section 3.1: 60, of which 4 a query).

`exemplars.json` holds them by edit category. The paper's pool is not published: ours is written anew.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from editr1.schema import CATEGORIES, Principle

POOL_SIZE = 60  # paper, section 3.1
NUM_SHOWN = 4  # paper, section 3.1


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A task described in words, with its principles."""

    kind: str
    """GEdit category, or `compound`."""
    source: str
    """What the source picture shows."""
    instruction: str
    principles: tuple[Principle, ...]


@cache
def exemplars() -> tuple[Exemplar, ...]:
    """The whole pool, in the order of the file."""
    rows = json.loads((files("editr1.judge") / "exemplars.json").read_text("utf-8"))
    return tuple(
        Exemplar(
            row["kind"],
            row["source"],
            row["instruction"],
            tuple(Principle(question, category) for category in CATEGORIES for question in row[category]),
        )
        for row in rows
    )


def draw_exemplars(seed: int, count: int = NUM_SHOWN) -> list[Exemplar]:
    """`count` different exemplars, the same ones for the same seed."""
    return random.Random(seed).sample(exemplars(), count)
