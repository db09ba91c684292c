"""Principles of the embedded world, and the truth, measured from pixels.

A check compares two phrases about one aspect of a picture, so question, evidence and verdict all come from the same few words: "Is the
top-left a red solid circle?" wants "red solid circle" of the aspect "top-left".

The oracle gets what a judge gets, two pictures and the words, and measures instead of guessing. Reachable from recipes, tests and the
demo's evaluation only: no stage of the loop may look here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from editr1.schema import Category, Principle, Reward
from editr1.world.scene import CELLS, FRAME, GLOBAL_VALUES, SIZE, Scene, draw, read, read_one, to_pixels
from editr1.world.tasks import Edit, apply_all, parse_instruction

GLOBAL_ASPECTS = tuple(GLOBAL_VALUES)
_FIXED = {"quality": ("Is the image clean?", "clean"), "border": ("Is the image free of a border?", "none")}
"""Aspects of which one thing only is ever wanted: the question and that."""


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
            return "unclear" if aspect in self.unclear else self.scene.phrase(aspect)
        if aspect in GLOBAL_ASPECTS:
            return str(getattr(self.scene, aspect))
        if aspect == "objects":
            return cells_phrase(cell for cell in CELLS if cell in self.unclear or self.scene.at(cell) is not None)
        if aspect == "quality":
            return self.quality
        if aspect == "border":
            return "white" if self.border else "none"
        raise ValueError(f"unknown aspect {aspect!r}")


def cells_phrase(cells: Iterable[str]) -> str:
    return " ".join(cells) or "nowhere"


@dataclass(frozen=True, slots=True)
class Check:
    """One principle's meaning."""

    aspect: str
    want: str

    @property
    def question(self) -> str:
        if self.aspect in _FIXED:
            return _FIXED[self.aspect][0]
        if self.aspect == "objects":
            return f"Are the only objects {'nowhere' if self.want == 'nowhere' else 'at ' + self.want}?"
        return f"Is the {self.aspect} {'a ' if self.aspect in CELLS and self.want != 'empty' else ''}{self.want}?"

    def holds(self, seen: Observation) -> bool:
        return seen.see(self.aspect) == self.want

    @staticmethod
    def from_question(question: str) -> Check:
        """The meaning of a question. Raises ValueError for one that the embedded world does not ask."""
        for aspect, (fixed, want) in _FIXED.items():
            if question == fixed:
                return Check(aspect, want)
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
    quality: tuple[Check, ...] = tuple(Check(aspect, want) for aspect, (_, want) in _FIXED.items())


def truth_of(scene: Scene, edits: tuple[Edit, ...]) -> Truth:
    """The full list of checks for these edits of this scene."""
    target = apply_all(scene, edits)
    visible = GLOBAL_ASPECTS if target.occupied else ("background", "tone")  # an empty scene shows no drawing style
    touched = {cell for edit in edits for cell in (edit.cell, edit.to) if cell}
    follow = [Check(cell, target.phrase(cell)) for cell in CELLS if cell in touched]
    follow += [Check(name, getattr(target, name)) for name in visible if getattr(target, name) != getattr(scene, name)]
    return Truth(
        follow=tuple(follow),
        keep_cells=tuple(Check(cell, scene.phrase(cell)) for cell in scene.occupied if cell not in touched),
        keep_globals=tuple(Check(n, getattr(scene, n)) for n in visible if getattr(target, n) == getattr(scene, n)),
        only_objects=Check("objects", cells_phrase(target.occupied)),
    )


def principles_for(truth: Truth, rng: np.random.Generator, num_globals: int = 2) -> tuple[Principle, ...]:
    """About seven principles, in the order follow, keep, quality; which globals are asked about is drawn."""
    order = sorted(rng.permutation(len(truth.keep_globals))[:num_globals].tolist())
    keep = (*truth.keep_cells[:3], *(truth.keep_globals[i] for i in order), truth.only_objects)
    groups: tuple[tuple[Category, tuple[Check, ...]], ...] = (("follow", truth.follow), ("keep", keep), ("quality", truth.quality))
    return tuple(Principle(check.question, category) for category, checks in groups for check in checks)


if TYPE_CHECKING:
    from editr1.judge.item import RewardItem

# ours: fixed on pictures of the procedural editors and of half-trained flow editors, before any judge was trained.
UNCLEAR_ERROR = 0.15
"""A cell farther than this (root mean square, pixels in [0, 1]) from every template shows nothing one could name."""
SMEARED_ERROR = 0.065
"""A picture farther than this from its own clean re-drawing is visibly damaged."""


def observe(images: Sequence[Image.Image]) -> list[Observation]:
    """What each picture shows."""
    pixels = np.stack([to_pixels(image) for image in images])
    scenes, error_B9 = read(pixels)
    clean = np.stack([draw(scene) for scene in scenes])
    frame = np.ones((SIZE, SIZE), bool)
    frame[FRAME - 1 : 1 - FRAME, FRAME - 1 : 1 - FRAME] = False
    borders = pixels[:, frame].mean(axis=(1, 2)) > 0.92  # nearly white all around: no background under any tone is
    return [
        Observation(
            scene=scene,
            unclear=frozenset(cell for cell, error in zip(CELLS, errors, strict=True) if error > UNCLEAR_ERROR),
            quality=_quality(picture, redrawn),
            border=bool(border),
        )
        for scene, errors, picture, redrawn, border in zip(scenes, error_B9, pixels, clean, borders, strict=True)
    ]


def _quality(picture: np.ndarray, redrawn: np.ndarray) -> str:
    """Damage by its kind: too much fine detail is noise, too little is blur, anything else that is off is a smear."""
    inner = slice(FRAME, -FRAME)
    picture, redrawn = picture[inner, inner], redrawn[inner, inner]
    detail, expected = _detail(picture), _detail(redrawn)
    if detail > expected + 0.05:
        return "noisy"
    if detail < 0.6 * expected:
        return "blurred"
    error = float(np.sqrt(((picture - redrawn) ** 2).mean()))
    return "clean" if error <= SMEARED_ERROR else "smeared"


def _detail(picture: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return float((np.abs(np.diff(picture, axis=0)).mean() + np.abs(np.diff(picture, axis=1)).mean()) / 2)


@dataclass(frozen=True, slots=True)
class OracleScore:
    """The truth about one edit."""

    utility: float
    """What a careful person would give, in [0, 10], one decimal."""
    success: bool
    """Every check of the full list holds."""


def truth_for(source: Image.Image, instruction: str) -> Truth:
    """Every check of a task. Raises ValueError for an instruction from outside the embedded world."""
    scene = read_one(source)
    return truth_of(scene, parse_instruction(scene, instruction))


def verdicts(seen: Observation, principles: Sequence[Principle]) -> tuple[bool, ...]:
    """The true answer to each principle."""
    return tuple(Check.from_question(principle.question).holds(seen) for principle in principles)


@dataclass(frozen=True, slots=True)
class UtilityWeights:
    """Points that a person takes off 10 (ours; the paper states the order of importance, appendix A, and no numbers)."""

    follow: float = 5.0
    """Times the violated share of follow checks."""
    follow_all: float = 6.0
    """When every follow check is violated."""
    keep_cell: float = 1.7
    keep_global: float = 1.1
    extra_object: float = 0.8
    quality: float = 1.5


CAREFUL = UtilityWeights()


def utility(seen: Observation, truth: Truth, source: Observation | None = None, weights: UtilityWeights = CAREFUL) -> float:
    """Points in [0, 10] with one decimal. An untouched source and a white border are worth 0 (paper, appendix A)."""
    if seen.border or (source is not None and seen == source):
        return 0.0
    violated = [not check.holds(seen) for check in truth.follow]
    share = sum(violated) / len(violated)
    points = 10.0 - (weights.follow_all if share == 1 else weights.follow * share)
    points -= weights.keep_cell * sum(not check.holds(seen) for check in truth.keep_cells)
    points -= weights.keep_global * sum(not check.holds(seen) for check in truth.keep_globals)
    wanted = set(truth.only_objects.want.split())
    points -= weights.extra_object * len(set(seen.see("objects").split()) - wanted - {"nowhere"})
    points -= weights.quality * (seen.quality != "clean")
    return round(min(max(points, 0.0), 10.0), 1)


def judge(sources: Sequence[Image.Image], edits: Sequence[Image.Image], instructions: Sequence[str]) -> list[OracleScore]:
    """The truth about a batch of edits."""
    scores = []
    for source, before, after, instruction in zip(sources, observe(sources), observe(edits), instructions, strict=True):
        truth = truth_for(source, instruction)
        checks = (*truth.follow, *truth.keep_cells, *truth.keep_globals, truth.only_objects, *truth.quality)
        scores.append(OracleScore(utility(after, truth, before), all(check.holds(after) for check in checks)))
    return scores


class Oracle:
    """The truth behind one interface: verdicts and utility for evaluation, and a reward for the upper bound of editor RL."""

    name = "world/oracle"

    def verdicts(self, edits: Sequence[Image.Image], principles: Sequence[Sequence[Principle]]) -> list[tuple[bool, ...]]:
        """The true answers about each edit."""
        return [verdicts(seen, asked) for seen, asked in zip(observe(edits), principles, strict=True)]

    judge = staticmethod(judge)

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """The utility as a reward, as a RewardModel would give it."""
        scores = judge([item.only_source for item in items], [item.edited for item in items], [item.instruction for item in items])
        return [Reward(score.utility, num_valid=1, num_traces=1) for score in scores]
