"""Editors of the embedded world that fail on purpose, each in its own way: a cheap spread of candidates.

The names say what goes wrong: `steady` is right most often, `leaky` spills its change over the picture, `sloppy` damages
pixels, forgets objects or does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from editr1.editors.base import EditRequest
from editr1.errors import ConfigError, nearest
from editr1.world.edits import parse_instruction
from editr1.world.failures import flawed_edit
from editr1.world.render import read_one

PROFILES: dict[str, dict[str, float]] = {
    "steady": {"near_miss": 3, "small_move": 3, "wrong_value": 2, "wrong_object": 1, "no_op": 1, "blur": 0.5},
    "leaky": {"leak_to_object": 4, "leak_to_globals": 3, "extra_object": 2, "near_miss": 1, "small_move": 1},
    "sloppy": {"no_op": 2, "noise": 1.5, "blur": 1.5, "border": 1, "drop_object": 3, "wrong_object": 2, "extra_object": 1, "near_miss": 1},
}
NUM_FAILURES = {"steady": (0.5, 0.4, 0.1), "leaky": (0.25, 0.5, 0.25), "sloppy": (0.25, 0.5, 0.25)}
"""Probabilities of 0, 1 and 2 failures (ours)."""


class ProceduralEditor:
    """Reads the source picture and the instruction, and draws a result with the failures of its profile."""

    def __init__(self, profile: str = "steady") -> None:
        if profile not in PROFILES:
            raise ConfigError(f"unknown profile {profile!r}: {nearest(profile, PROFILES)}")
        self.name = profile

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> Image.Image:
        rng = np.random.default_rng(request.seed)
        scene = read_one(request.only_source(self.name))
        num_failures = int(rng.choice(3, p=NUM_FAILURES[self.name]))
        return flawed_edit(rng, scene, parse_instruction(scene, request.instruction), PROFILES[self.name], num_failures)
