"""Principles of the embedded world: a question, what it wants to see, and the phrase for what is seen.

A check compares two phrases about one aspect of a picture, so question, evidence and verdict all come from the same
few words: "Is the top-left a red solid circle?" wants "red solid circle" of the aspect "top-left".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from editr1.schema import Category, Principle
from editr1.world.edits import Edit, apply_all
from editr1.world.scene import CELLS, Scene, Thing

GLOBAL_ASPECTS = ("background", "tone", "style")


@dataclass(frozen=True, slots=True)
class Observation:
    """What a picture was measured to show."""

    scene: Scene
    unclear: frozenset[str] = frozenset()
    """Cells whose content matches no object well enough to be named."""
    quality: str = "clean"
    """clean, noisy, blurred or smeared."""
    border: bool = False

    def see(self, aspect: str) -> str:
        """The phrase for one aspect."""
        if aspect in CELLS:
            return "unclear" if aspect in self.unclear else cell_phrase(self.scene.at(aspect))
        if aspect in GLOBAL_ASPECTS:
            return str(getattr(self.scene, aspect))
        if aspect == "objects":
            return cells_phrase(cell for cell in CELLS if cell in self.unclear or self.scene.at(cell) is not None)
        if aspect == "quality":
            return self.quality
        if aspect == "border":
            return "white" if self.border else "none"
        raise ValueError(f"unknown aspect {aspect!r}")


def cell_phrase(thing: Thing | None) -> str:
    return "empty" if thing is None else thing.phrase


def cells_phrase(cells: Iterable[str]) -> str:
    return " ".join(cells) or "nowhere"


@dataclass(frozen=True, slots=True)
class Check:
    """One principle's meaning."""

    aspect: str
    want: str

    @property
    def question(self) -> str:
        if self.aspect in CELLS:
            return f"Is the {self.aspect} {self.want if self.want == 'empty' else 'a ' + self.want}?"
        if self.aspect in GLOBAL_ASPECTS:
            return f"Is the {self.aspect} {self.want}?"
        if self.aspect == "objects":
            return f"Are the only objects {'nowhere' if self.want == 'nowhere' else 'at ' + self.want}?"
        return "Is the image clean?" if self.aspect == "quality" else "Is the image free of a border?"

    def holds(self, seen: Observation) -> bool:
        return seen.see(self.aspect) == self.want

    @staticmethod
    def from_question(question: str) -> Check:
        """The meaning of a question. Raises ValueError for one that the embedded world does not ask."""
        if question == "Is the image clean?":
            return Check("quality", "clean")
        if question == "Is the image free of a border?":
            return Check("border", "none")
        if match := re.fullmatch(r"Are the only objects (?:at )?(.+)\?", question):
            return Check("objects", match[1])
        if (match := re.fullmatch(r"Is the ([\w-]+) (?:a )?(.+)\?", question)) and match[1] in (*CELLS, *GLOBAL_ASPECTS):
            return Check(match[1], match[2])
        raise ValueError(f"{question!r} is no principle of the embedded world")


@dataclass(frozen=True, slots=True)
class Truth:
    """Every check that a perfect edit passes, by category."""

    follow: tuple[Check, ...]
    keep_cells: tuple[Check, ...]
    keep_globals: tuple[Check, ...]
    only_objects: Check
    quality: tuple[Check, ...] = (Check("quality", "clean"), Check("border", "none"))


def truth_of(scene: Scene, edits: tuple[Edit, ...]) -> Truth:
    """The full list of checks for these edits of this scene."""
    target = apply_all(scene, edits)
    visible = GLOBAL_ASPECTS if target.occupied else ("background", "tone")  # an empty scene shows no drawing style
    touched = {cell for edit in edits for cell in (edit.cell, edit.to) if cell}
    follow = [Check(cell, cell_phrase(target.at(cell))) for cell in CELLS if cell in touched]
    follow += [Check(name, getattr(target, name)) for name in visible if getattr(target, name) != getattr(scene, name)]
    return Truth(
        follow=tuple(follow),
        keep_cells=tuple(Check(cell, cell_phrase(scene.at(cell))) for cell in scene.occupied if cell not in touched),
        keep_globals=tuple(Check(n, getattr(scene, n)) for n in visible if getattr(target, n) == getattr(scene, n)),
        only_objects=Check("objects", cells_phrase(target.occupied)),
    )


def principles_for(truth: Truth, rng: np.random.Generator, num_globals: int = 2) -> tuple[Principle, ...]:
    """About seven principles, in the order follow, keep, quality; which globals are asked about is drawn."""
    order = sorted(rng.permutation(len(truth.keep_globals))[:num_globals].tolist())
    keep = (*truth.keep_cells[:3], *(truth.keep_globals[i] for i in order), truth.only_objects)
    groups: tuple[tuple[Category, tuple[Check, ...]], ...] = (("follow", truth.follow), ("keep", keep), ("quality", truth.quality))
    return tuple(Principle(check.question, category) for category, checks in groups for check in checks)
