"""Editors of the embedded world that fail on purpose, each in its own way: a cheap spread of candidates.

A failure, as editing models have them, changes the intended scene (wrong object, leaked attribute, too small a move, ...) or the finished
pixels (noise, blur, border).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from editr1.editors.base import EditRequest
from editr1.errors import ConfigError, nearest
from editr1.world.scene import CELLS, FRAME, GLOBAL_VALUES, SIZE, Scene, Thing, pick, random_thing, read_one, render, to_image, to_pixels
from editr1.world.tasks import GLOBAL_OF_KIND, Edit, apply_all, parse_instruction

SceneFailure = Callable[[np.random.Generator, Scene, tuple[Edit, ...], Scene], Scene | None]
"""(rng, source scene, edits, scene so far) -> scene, or None where the failure does not apply."""
PixelFailure = Callable[[np.random.Generator, Image.Image], Image.Image]


def no_op(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """Nothing happened."""
    return source


def wrong_object(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """The change landed on another object, or in another empty cell for an addition."""
    edit = edits[0]
    if edit.kind == "subject-add":
        others = tuple(cell for cell in source.empty if cell != edit.cell)
    else:
        others = tuple(cell for cell in source.occupied if cell != edit.cell)
    if not edit.cell or not others or edit.kind in ("motion_change", "text_change"):
        return None
    return dataclasses.replace(edit, cell=pick(rng, others)).apply(source)


def near_miss(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """The edited object has one attribute wrong."""
    edit = edits[0]
    cell = edit.to or edit.cell
    if not cell or edit.thing is None:
        return None
    return scene.put(cell, _with_one_attribute_changed(rng, edit.thing))


def wrong_value(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """The background, tone or style became something else than asked for, or stayed."""
    name = GLOBAL_OF_KIND.get(edits[0].kind)
    return scene.with_global(name, pick(rng, GLOBAL_VALUES[name], edits[0].value)) if name else None


def small_move(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """The object moved, but not as far as asked for: it stops in a neighbouring cell."""
    edit = edits[0]
    if edit.kind != "motion_change":
        return None
    near = tuple(cell for cell in _neighbours(edit.cell) if scene.at(cell) is None and cell != edit.to)
    return scene.put(edit.to, None).put(pick(rng, near), edit.thing) if near else None


def leak_to_object(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """Another object changed one attribute, too."""
    cells = _untouched(source, edits)
    if not cells:
        return None
    cell = pick(rng, cells)
    thing = source.at(cell)
    assert thing is not None
    return scene.put(cell, _with_one_attribute_changed(rng, thing))


def leak_to_globals(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """Background, tone or style changed without being asked to."""
    free = tuple(name for name in GLOBAL_VALUES if getattr(scene, name) == getattr(source, name))
    if not free:
        return None
    name = pick(rng, free)
    return scene.with_global(name, pick(rng, GLOBAL_VALUES[name], getattr(scene, name)))


def drop_object(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """Another object vanished."""
    cells = _untouched(source, edits)
    return scene.put(pick(rng, cells), None) if cells else None


def extra_object(rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], scene: Scene) -> Scene | None:
    """Something appeared that nobody asked for."""
    return scene.put(pick(rng, scene.empty), random_thing(rng)) if scene.empty else None


def noise(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Grain of standard deviation 42 to 60 (of 255)."""
    pixels = to_pixels(image)
    return to_image(pixels + rng.normal(0, rng.uniform(42, 60) / 255, pixels.shape).astype(np.float32))


def blur(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """A Gaussian of 1.6 to 2.2 pixels."""
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.6, 2.2))))


def border(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """A white frame of 3 to 4 pixels."""
    pixels, width = to_pixels(image), int(rng.integers(3, FRAME + 1))
    framed = np.ones_like(pixels)
    framed[width : SIZE - width, width : SIZE - width] = pixels[width : SIZE - width, width : SIZE - width]
    return to_image(framed)


_ON_SCENES = (no_op, wrong_object, near_miss, wrong_value, small_move, leak_to_object, leak_to_globals, drop_object, extra_object)
SCENE_FAILURES: dict[str, SceneFailure] = {failure.__name__: failure for failure in _ON_SCENES}
PIXEL_FAILURES: dict[str, PixelFailure] = {failure.__name__: failure for failure in (noise, blur, border)}


def _untouched(source: Scene, edits: tuple[Edit, ...]) -> tuple[str, ...]:
    touched = {cell for edit in edits for cell in (edit.cell, edit.to)}
    return tuple(cell for cell in source.occupied if cell not in touched)


def _with_one_attribute_changed(rng: np.random.Generator, thing: Thing) -> Thing:
    return thing.with_other(rng, "colour" if thing.is_letter else ("colour", "material", "form")[int(rng.integers(3))])


def _neighbours(cell: str) -> tuple[str, ...]:
    row, column = divmod(CELLS.index(cell), 3)
    near = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    return tuple(CELLS[3 * r + c] for r, c in near if 0 <= r < 3 and 0 <= c < 3)


def flawed_edit(
    rng: np.random.Generator, source: Scene, edits: tuple[Edit, ...], weights: dict[str, float], num_failures: int
) -> Image.Image:
    """The edit with `num_failures` failures drawn by weight from those that apply; 0 gives the perfect edit."""
    names = list(weights)
    share = np.array([weights[name] for name in names])
    scene, pixel_failures, done = apply_all(source, edits), [], 0
    for index in rng.choice(len(names), size=len(names), replace=False, p=share / share.sum()):
        if done == num_failures:
            break
        name = names[int(index)]
        if name in PIXEL_FAILURES:
            pixel_failures.append(PIXEL_FAILURES[name])
            done += 1
        elif (changed := SCENE_FAILURES[name](rng, source, edits, scene)) is not None:
            scene = changed
            done += 1
    image = render(scene)
    for failure in pixel_failures:
        image = failure(rng, image)
    return image


# --- the editors --------------------------------------------------------------------------------------

# The names say what goes wrong: `steady` is right most often, `leaky` spills its change over the picture, `sloppy` damages pixels,
# forgets objects or does nothing.
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
