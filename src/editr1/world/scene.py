"""A scene: what can be said about a picture of the embedded world, and nothing else.

A picture shows a 3 x 3 grid. A cell is empty or holds one object; the whole has a background, a tone and a
drawing style. Everything downstream (renderer, instructions, principles, oracle) speaks in these words.

It is drawn at 72 x 72 pixels, and read back. A cell is 24 x 24 pixels and, in the tiny verifier, one patch. Edges are anti-aliased. Thin
ruler ticks at the left and top of a cell count its row and column: rotary positions of so small a grid tell a model too little about where
it looks.

Shape legend: B pictures, H W pixels, C colour channels; values in [0, 1] where float, [0, 255] where uint8.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from editr1.pictures import to_rgb

CELLS = ("top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right")
COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle")
LETTERS = ("A", "T", "L")
MATERIALS = ("solid", "striped")
BACKGROUNDS = ("gray", "beige", "mint", "pink")
TONES = ("neutral", "warm", "dark")
STYLES = ("flat", "outline")
GLOBAL_VALUES = {"background": BACKGROUNDS, "tone": TONES, "style": STYLES}


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

    def with_other(self, rng: np.random.Generator, attribute: str) -> Thing:
        """The object with another colour, material or form; a shape stays a shape."""
        options = {"colour": COLOURS, "material": MATERIALS, "form": LETTERS if self.is_letter else SHAPES}[attribute]
        changes: dict[str, Any] = {attribute: pick(rng, options, getattr(self, attribute))}
        return dataclasses.replace(self, **changes)

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

    def phrase(self, cell: str) -> str:
        """What a cell holds, in words."""
        thing = self.at(cell)
        return "empty" if thing is None else thing.phrase

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


# --- drawn, and read back -----------------------------------------------------------------------------

CELL = 24
GRID = 3
SIZE = CELL * GRID
FRAME = 4
"""Pixels at the edge of a cell, and of the picture, that say nothing about its content: ruler ticks and borders lie there."""
_OVERSAMPLE = 4

_COLOUR_RGB = {"red": (214, 48, 42), "green": (38, 148, 64), "blue": (40, 84, 208), "yellow": (246, 206, 40), "purple": (142, 56, 178)}
_BACKGROUND_RGB = {"gray": (168, 172, 178), "beige": (232, 214, 178), "mint": (176, 224, 200), "pink": (240, 190, 204)}
_TONE_GAIN = {"neutral": (1.0, 1.0, 1.0), "warm": (1.0, 0.80, 0.55), "dark": (0.48, 0.48, 0.54)}
_INK = np.array((28, 28, 32), np.float32) / 255
_RULER = np.array((120, 120, 120), np.float32) / 255


def _polygon_mask(form: str, grow: float) -> np.ndarray:
    """Coverage [H, W] in [0, 1] of a form in a cell, grown by `grow` pixels."""
    k = _OVERSAMPLE
    image = Image.new("L", (CELL * k, CELL * k))
    draw = ImageDraw.Draw(image)
    low, high = (5 - grow) * k, (CELL - 3 + grow) * k - 1
    if form == "circle":
        draw.ellipse((low, low, high, high), fill=255)
    elif form == "square":
        draw.rectangle((low + k, low + k, high - k, high - k), fill=255)
    elif form == "triangle":
        draw.polygon(((low + high) / 2, low - grow * k / 2, high + grow * k / 2, high, low - grow * k / 2, high), fill=255)
    else:
        for line in _LETTER_STROKES[form]:
            draw.line([(x * k, y * k) for x, y in line], fill=255, width=int((4 + 2 * grow) * k))
    return np.asarray(image.resize((CELL, CELL), Image.Resampling.BOX), np.float32) / 255


_LETTER_STROKES = {
    "A": (((6, 22), (13, 5)), ((13, 5), (20, 22)), ((9, 16), (17, 16))),
    "T": (((5, 7), (21, 7)), ((13, 7), (13, 22))),
    "L": (((8, 5), (8, 21)), ((6, 20), (20, 20))),
}


@cache
def _cell(thing: Thing | None, background: str, tone: str, style: str) -> np.ndarray:
    """One cell [CELL, CELL, 3] in [0, 1], without ruler."""
    canvas = np.broadcast_to(np.array(_BACKGROUND_RGB[background], np.float32) / 255, (CELL, CELL, 3)).copy()
    if thing is not None:
        fill = np.broadcast_to(np.array(_COLOUR_RGB[thing.colour], np.float32) / 255, (CELL, CELL, 3))
        if thing.material == "striped":
            rows, columns = np.mgrid[0:CELL, 0:CELL]
            fill = np.where(((rows + columns) // 3 % 2)[..., None] > 0, fill, 0.35 * fill + 0.65)
        if style == "outline":
            rim = _polygon_mask(thing.form, 1.5)[..., None]
            canvas = canvas * (1 - rim) + _INK * rim
        body = _polygon_mask(thing.form, 0.0 if style == "flat" else -0.5)[..., None]
        canvas = canvas * (1 - body) + fill * body
    return canvas * np.array(_TONE_GAIN[tone], np.float32)


@cache
def _ruler_mask() -> np.ndarray:
    """[SIZE, SIZE] in {0, 1}: row + 1 ticks at the left edge of a cell, column + 1 at its top edge."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    for row in range(GRID):
        for column in range(GRID):
            top, left = row * CELL, column * CELL
            for tick in range(row + 1):
                mask[top + 4 + 4 * tick : top + 6 + 4 * tick, left : left + 2] = 1
            for tick in range(column + 1):
                mask[top : top + 2, left + 4 + 4 * tick : left + 6 + 4 * tick] = 1
    return mask


def draw(scene: Scene) -> np.ndarray:
    """The scene as float pixels [SIZE, SIZE, 3] in [0, 1]."""
    pixels = np.empty((SIZE, SIZE, 3), np.float32)
    for index, thing in enumerate(scene.cells):
        top, left = index // GRID * CELL, index % GRID * CELL
        pixels[top : top + CELL, left : left + CELL] = _cell(thing, scene.background, scene.tone, scene.style)
    ruler = _ruler_mask()[..., None]
    return pixels * (1 - ruler) + _RULER * np.array(_TONE_GAIN[scene.tone], np.float32) * ruler


def to_image(pixels: np.ndarray) -> Image.Image:
    """Float pixels [H, W, 3] in [0, 1] as an RGB picture."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def to_pixels(image: Image.Image) -> np.ndarray:
    """A picture as float pixels [SIZE, SIZE, 3] in [0, 1]; another size is resized first."""
    image = to_rgb(image)
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255


def render(scene: Scene) -> Image.Image:
    """The scene as a clean picture."""
    return to_image(draw(scene))


def split_cells(pixels_BHWC: np.ndarray) -> np.ndarray:
    """[B, SIZE, SIZE, 3] -> [B, 9, CELL, CELL, 3] in the order of CELLS."""
    batch = pixels_BHWC.shape[0]
    return pixels_BHWC.reshape(batch, GRID, CELL, GRID, CELL, 3).swapaxes(2, 3).reshape(batch, len(CELLS), CELL, CELL, 3)


def _features(cells: np.ndarray) -> np.ndarray:
    """Cells [..., CELL, CELL, 3] -> [..., F]: inner pixels (no ruler, no border), averaged 2 x 2 so that noise weighs less."""
    inner = cells[..., FRAME:-FRAME, FRAME:-FRAME, :]
    half = (CELL - 2 * FRAME) // 2
    pooled = inner.reshape(*inner.shape[:-3], half, 2, half, 2, 3).mean(axis=(-4, -2))
    return pooled.reshape(*pooled.shape[:-3], -1)


@cache
def _templates() -> np.ndarray:
    """[len(GLOBALS), len(CONTENTS), F]: how every content looks under every combination of globals."""
    return np.stack([_features(np.stack([_cell(thing, *look) for thing in CONTENTS])) for look in GLOBALS])


def read(pixels_BHWC: np.ndarray) -> tuple[list[Scene], np.ndarray]:
    """The nearest scenes, and how far each cell is from its nearest template.

    The globals are those under which all cells together are explained best; each cell is then read under them.

    Args:
        pixels_BHWC: [B, SIZE, SIZE, 3] in [0, 1].

    Returns:
        B scenes, and the root mean square error [B, 9] of each cell, in [0, 1].
    """
    features = _features(split_cells(pixels_BHWC))  # [B, 9, F]
    templates = _templates()
    flat = templates.reshape(-1, templates.shape[-1])
    distance = (features**2).sum(-1)[..., None] - 2 * features @ flat.T + (flat**2).sum(-1)  # [B, 9, globals * contents]
    distance = np.maximum(distance, 0).reshape(*features.shape[:2], *templates.shape[:2])
    best_look = distance.min(axis=-1).sum(axis=1).argmin(axis=-1)  # [B]
    under_look = distance[np.arange(len(features)), :, best_look]  # [B, 9, contents]
    contents = under_look.argmin(axis=-1)
    error = np.sqrt(under_look.min(axis=-1) / features.shape[-1])
    scenes = []
    for look, row in zip(best_look, contents, strict=True):
        background, tone, style = GLOBALS[look]
        scenes.append(Scene(background, tone, style, tuple(CONTENTS[content] for content in row)))
    return scenes, error


def read_one(image: Image.Image) -> Scene:
    """The nearest scene of one picture."""
    return read(to_pixels(image)[None])[0][0]
