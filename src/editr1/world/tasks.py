"""Edit tasks of the embedded world, a task source like any other.

What can be asked for: ten edit kinds named after GEdit-Bench's categories, as text and as a change of the scene.

An instruction is one edit, or two joined by "and then" (the embedded world's hard half). Text and meaning convert into
each other, so that the oracle needs nothing but the two pictures and the words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from editr1.schema import derive_seed
from editr1.world.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    LETTERS,
    MATERIALS,
    SHAPES,
    STYLES,
    TONES,
    Scene,
    Thing,
    pick,
    random_scene,
    random_thing,
    render,
)

KINDS = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
_JOIN = " and then "


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a scene."""

    kind: str
    cell: str = ""
    """The cell that is edited; empty for edits of the whole picture."""
    to: str = ""
    """The cell that a motion ends in."""
    thing: Thing | None = None
    """What the cell holds afterwards (add, replace, colour, material, text) or what moves (motion)."""
    value: str = ""
    """The new background, tone or style."""

    def apply(self, scene: Scene) -> Scene:
        """The scene after a perfect edit."""
        if self.kind == "motion_change":
            return scene.put(self.cell, None).put(self.to, self.thing)
        if self.cell:
            return scene.put(self.cell, self.thing)
        return scene.with_global(_GLOBAL_OF_KIND[self.kind], self.value)


_GLOBAL_OF_KIND = {"background_change": "background", "style_change": "style", "tone_transfer": "tone"}


def apply_all(scene: Scene, edits: tuple[Edit, ...]) -> Scene:
    for edit in edits:
        scene = edit.apply(scene)
    return scene


def _form(thing: Thing | None) -> str:
    if thing is None:
        raise ValueError("an empty cell cannot be named in an instruction")
    return f"letter {thing.form}" if thing.is_letter else thing.form


def _words(edit: Edit, scene: Scene) -> str:
    old, new = (scene.at(edit.cell) if edit.cell else None), edit.thing
    match edit.kind:
        case "background_change":
            return f"change the background to {edit.value}"
        case "style_change":
            return f"redraw the scene in {edit.value} style"
        case "tone_transfer":
            return f"give the scene a {edit.value} tone"
        case "subject-add":
            assert new
            return f"add a {new.phrase} at the {edit.cell}"
        case "subject-remove":
            return f"remove the {_form(old)} at the {edit.cell}"
        case "motion_change":
            return f"move the {edit.cell} {_form(old)} to the {edit.to}"
        case "subject-replace":
            assert new
            return f"replace the {edit.cell} {_form(old)} with a {new.phrase}"
        case "text_change":
            assert new
            return f"change the letter at the {edit.cell} to {new.form}"
        case "color_alter":
            assert new
            return f"make the {edit.cell} {_form(old)} {new.colour}"
        case _:
            assert new
            return f"make the {edit.cell} {_form(old)} {new.material}"


def instruction(scene: Scene, edits: tuple[Edit, ...]) -> str:
    """The edits as a person would ask for them.

    >>> scene = Scene("mint", "warm", "flat", (Thing("red", "circle"),) + (None,) * 8)
    >>> instruction(scene, (Edit("color_alter", "top-left", thing=Thing("blue", "circle")),))
    'make the top-left circle blue'
    """
    parts = []
    for edit in edits:
        parts.append(_words(edit, scene))
        scene = edit.apply(scene)
    return _JOIN.join(parts)


_CELL = "(?P<cell>" + "|".join(sorted(CELLS, key=len, reverse=True)) + ")"
_TO = _CELL.replace("cell", "to")
_FORM = r"(?:letter )?\w+"


def _recolour(scene: Scene, match: re.Match[str]) -> Edit:
    old, value = scene.at(match["cell"]), match["value"]
    if old is None:
        raise ValueError(f"nothing stands at the {match['cell']}")
    if value in COLOURS:
        return Edit("color_alter", match["cell"], thing=dataclasses.replace(old, colour=value))
    return Edit("material_alter", match["cell"], thing=dataclasses.replace(old, material=value))


def _reletter(scene: Scene, match: re.Match[str]) -> Edit:
    old = scene.at(match["cell"])
    if old is None:
        raise ValueError(f"nothing stands at the {match['cell']}")
    return Edit("text_change", match["cell"], thing=dataclasses.replace(old, form=match["value"]))


_GRAMMAR: tuple[tuple[str, Callable[[Scene, re.Match[str]], Edit]], ...] = (
    (r"change the background to (?P<value>\w+)", lambda s, m: Edit("background_change", value=m["value"])),
    (r"redraw the scene in (?P<value>\w+) style", lambda s, m: Edit("style_change", value=m["value"])),
    (r"give the scene a (?P<value>\w+) tone", lambda s, m: Edit("tone_transfer", value=m["value"])),
    (rf"add a (?P<thing>.+) at the {_CELL}", lambda s, m: Edit("subject-add", m["cell"], thing=Thing.from_phrase(m["thing"]))),
    (rf"remove the {_FORM} at the {_CELL}", lambda s, m: Edit("subject-remove", m["cell"])),
    (rf"move the {_CELL} {_FORM} to the {_TO}", lambda s, m: Edit("motion_change", m["cell"], m["to"], s.at(m["cell"]))),
    (
        rf"replace the {_CELL} {_FORM} with a (?P<thing>.+)",
        lambda s, m: Edit("subject-replace", m["cell"], thing=Thing.from_phrase(m["thing"])),
    ),
    (rf"change the letter at the {_CELL} to (?P<value>\w)", _reletter),
    (rf"make the {_CELL} {_FORM} (?P<value>\w+)", _recolour),
)


def parse_instruction(scene: Scene, text: str) -> tuple[Edit, ...]:
    """The edits that an instruction asks for, given the scene it speaks about.

    Raises:
        ValueError: the text is no instruction of the embedded world.
    """
    edits = []
    for part in text.split(_JOIN):
        for pattern, build in _GRAMMAR:
            if match := re.fullmatch(pattern, part):
                edits.append(build(scene, match))
                scene = edits[-1].apply(scene)
                break
        else:
            raise ValueError(f"{part!r} is no instruction of the embedded world")
    return tuple(edits)


def random_edit(rng: np.random.Generator, scene: Scene, kind: str) -> Edit | None:
    """A random edit of a kind that changes this scene; None where the scene offers none."""
    if kind in _GLOBAL_OF_KIND:
        if kind == "style_change" and not scene.occupied:
            return None  # nothing is drawn that could change
        name = _GLOBAL_OF_KIND[kind]
        options = {"background": BACKGROUNDS, "style": STYLES, "tone": TONES}[name]
        return Edit(kind, value=pick(rng, options, getattr(scene, name)))
    if kind == "subject-add":
        return Edit(kind, pick(rng, scene.empty), thing=random_thing(rng)) if scene.empty else None
    cells = tuple(cell for cell in scene.occupied if _can(kind, scene.at(cell)))
    if not cells:
        return None
    cell = pick(rng, cells)
    old = scene.at(cell)
    assert old is not None
    match kind:
        case "subject-remove":
            return Edit(kind, cell)
        case "motion_change":
            return Edit(kind, cell, pick(rng, scene.empty), old)
        case "color_alter":
            return Edit(kind, cell, thing=dataclasses.replace(old, colour=pick(rng, COLOURS, old.colour)))
        case "material_alter":
            return Edit(kind, cell, thing=dataclasses.replace(old, material=pick(rng, MATERIALS, old.material)))
        case "text_change":
            return Edit(kind, cell, thing=dataclasses.replace(old, form=pick(rng, LETTERS, old.form)))
        case "subject-replace":
            new = random_thing(rng)
            while new.form == old.form:
                new = random_thing(rng)
            return Edit(kind, cell, thing=new)
    raise ValueError(f"unknown edit kind {kind!r}, expected one of {', '.join(KINDS)}")


def _can(kind: str, thing: Thing | None) -> bool:
    if thing is None:
        return False
    if kind == "text_change":
        return thing.is_letter
    return kind != "material_alter" or thing.form in SHAPES


def random_edits(rng: np.random.Generator, scene: Scene, kind: str, compound: bool = False) -> tuple[Edit, ...] | None:
    """One edit of the kind, or with `compound` a second one of another kind after it; None where the scene offers none."""
    first = random_edit(rng, scene, kind)
    if first is None:
        return None
    if not compound:
        return (first,)
    second = random_edit(rng, first.apply(scene), pick(rng, KINDS, kind))
    touches_same = second is None or {second.cell, second.to} & {first.cell, first.to} - {""}
    if touches_same or second is None:
        return None
    empties_what_was_redrawn = first.kind == "style_change" and not apply_all(scene, (first, second)).occupied
    return None if empties_what_was_redrawn else (first, second)


# --- the source of tasks ------------------------------------------------------------------------------


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
