"""A scene: what can be said about a picture of the embedded world, and nothing else.

A picture shows a 3 x 3 grid. A cell is empty or holds one object; the whole has a background, a tone and a
drawing style. Everything downstream (renderer, instructions, principles, oracle) speaks in these words.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

CELLS = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")
COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle")
LETTERS = ("A", "T", "L")
MATERIALS = ("solid", "striped")
BACKGROUNDS = ("gray", "beige", "mint", "pink")
TONES = ("neutral", "warm", "dark")
STYLES = ("flat", "outline")


@dataclass(frozen=True, slots=True)
class Thing:
    """An object: a shape of some material, or a letter (always solid).

    >>> Thing("red", "circle", "striped").phrase, Thing("blue", "A").phrase
    ('red striped circle', 'blue letter A')
    """

    colour: str
    form: str
    """A shape or a letter."""
    material: str = "solid"

    @property
    def is_letter(self) -> bool:
        return self.form in LETTERS

    @property
    def phrase(self) -> str:
        return f"{self.colour} {'letter' if self.is_letter else self.material} {self.form}"

    @staticmethod
    def from_phrase(phrase: str) -> Thing:
        """The object a phrase names. Raises ValueError for anything else."""
        words = phrase.split()
        if len(words) == 3 and words[0] in COLOURS:
            colour, middle, form = words
            if middle == "letter" and form in LETTERS:
                return Thing(colour, form)
            if middle in MATERIALS and form in SHAPES:
                return Thing(colour, form, middle)
        raise ValueError(f"{phrase!r} names no object of the embedded world")


THINGS: tuple[Thing, ...] = (
    *(Thing(c, s, m) for c, s, m in itertools.product(COLOURS, SHAPES, MATERIALS)),
    *(Thing(c, letter) for c, letter in itertools.product(COLOURS, LETTERS)),
)
CONTENTS: tuple[Thing | None, ...] = (None, *THINGS)
GLOBALS = tuple(itertools.product(BACKGROUNDS, TONES, STYLES))


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a clean picture shows."""

    background: str
    tone: str
    style: str
    cells: tuple[Thing | None, ...]
    """One entry a cell, in the order of CELLS."""

    def at(self, cell: str) -> Thing | None:
        return self.cells[CELLS.index(cell)]

    def put(self, cell: str, thing: Thing | None) -> Scene:
        """The scene with one cell replaced."""
        index = CELLS.index(cell)
        return dataclasses.replace(self, cells=(*self.cells[:index], thing, *self.cells[index + 1 :]))

    def with_global(self, name: str, value: str) -> Scene:
        """The scene with another background, tone or style."""
        changes: dict[str, Any] = {name: value}
        return dataclasses.replace(self, **changes)

    @property
    def occupied(self) -> tuple[str, ...]:
        """The cells that hold an object, in reading order."""
        return tuple(cell for cell, thing in zip(CELLS, self.cells, strict=True) if thing is not None)

    @property
    def empty(self) -> tuple[str, ...]:
        return tuple(cell for cell, thing in zip(CELLS, self.cells, strict=True) if thing is None)


def pick(rng: np.random.Generator, options: tuple[str, ...], excluding: str | None = None) -> str:
    """One of the options, uniformly, other than `excluding`."""
    left = [option for option in options if option != excluding]
    return left[int(rng.integers(len(left)))]


def random_thing(rng: np.random.Generator, letter_share: float = 0.25) -> Thing:
    """A random object; letters are drawn with their own share so that text edits are not rare."""
    if rng.random() < letter_share:
        return Thing(pick(rng, COLOURS), pick(rng, LETTERS))
    return Thing(pick(rng, COLOURS), pick(rng, SHAPES), pick(rng, MATERIALS))


def random_scene(rng: np.random.Generator, max_things: int = 3) -> Scene:
    """A scene with 1 to `max_things` objects in distinct cells."""
    scene = Scene(pick(rng, BACKGROUNDS), pick(rng, TONES), pick(rng, STYLES), (None,) * len(CELLS))
    for cell in rng.permutation(len(CELLS))[: int(rng.integers(1, max_things + 1))]:
        scene = scene.put(CELLS[cell], random_thing(rng))
    return scene
