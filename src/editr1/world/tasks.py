"""Edit tasks of the embedded world, a task source like any other.

What can be asked for: ten edit kinds named after GEdit-Bench's categories, as text and as a change of the scene.

An instruction is one edit, or two joined by "and then" (the embedded world's hard half). Text and meaning convert into
each other, so that the oracle needs nothing but the two pictures and the words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from editr1.schema import derive_seed
from editr1.world.scene import CELLS, COLOURS, GLOBAL_VALUES, LETTERS, MATERIALS, Scene, Thing, pick, random_scene, random_thing, render

SENTENCES = {
    "background_change": "change the background to {value}",
    "color_alter": "make the {cell} {old} {colour}",
    "material_alter": "make the {cell} {old} {material}",
    "motion_change": "move the {cell} {old} to the {to}",
    "style_change": "redraw the scene in {value} style",
    "subject-add": "add a {new} at the {cell}",
    "subject-remove": "remove the {old} at the {cell}",
    "subject-replace": "replace the {cell} {old} with a {new}",
    "text_change": "change the letter at the {cell} to {form}",
    "tone_transfer": "give the scene a {value} tone",
}
"""How each kind of edit is asked for; read and written by this one table."""
KINDS = tuple(SENTENCES)
_JOIN = " and then "
_CELL = "|".join(sorted(CELLS, key=len, reverse=True))
_WORDS = {
    "value": r"\w+", "old": r"(?:letter )?\w+", "new": ".+", "cell": _CELL, "to": _CELL,
    "colour": "|".join(COLOURS), "material": "|".join(MATERIALS), "form": "|".join(LETTERS),
}  # fmt: skip
_GRAMMAR = {kind: sentence.format_map({word: f"(?P<{word}>{_WORDS[word]})" for word in _WORDS}) for kind, sentence in SENTENCES.items()}
GLOBAL_OF_KIND = {"background_change": "background", "style_change": "style", "tone_transfer": "tone"}
_ATTRIBUTE = {"color_alter": "colour", "material_alter": "material", "text_change": "form"}


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
        return scene.with_global(GLOBAL_OF_KIND[self.kind], self.value)


def apply_all(scene: Scene, edits: tuple[Edit, ...]) -> Scene:
    for edit in edits:
        scene = edit.apply(scene)
    return scene


def _sentence(edit: Edit, scene: Scene) -> str:
    old, new = (scene.at(edit.cell) if edit.cell else None), edit.thing
    words = {"value": edit.value, "cell": edit.cell, "to": edit.to}
    if old is not None:
        words["old"] = f"letter {old.form}" if old.is_letter else old.form
    if new is not None:
        words |= {"new": new.phrase, "colour": new.colour, "material": new.material, "form": new.form}
    return SENTENCES[edit.kind].format_map(words)


def instruction(scene: Scene, edits: tuple[Edit, ...]) -> str:
    """The edits as a person would ask for them.

    >>> scene = Scene("mint", "warm", "flat", (Thing("red", "circle"),) + (None,) * 8)
    >>> instruction(scene, (Edit("color_alter", "top-left", thing=Thing("blue", "circle")),))
    'make the top-left circle blue'
    """
    parts = []
    for edit in edits:
        parts.append(_sentence(edit, scene))
        scene = edit.apply(scene)
    return _JOIN.join(parts)


def _edit(kind: str, scene: Scene, words: dict[str, str]) -> Edit:
    """The edit that a sentence of this kind asks for."""
    cell, to = words.get("cell", ""), words.get("to", "")
    old = scene.at(cell) if cell else None
    if kind in _ATTRIBUTE:
        if old is None:
            raise ValueError(f"nothing stands at the {cell}")
        changes: dict[str, Any] = {_ATTRIBUTE[kind]: words[_ATTRIBUTE[kind]]}
        return Edit(kind, cell, thing=dataclasses.replace(old, **changes))
    thing = Thing.from_phrase(words["new"]) if "new" in words else old if to else None
    return Edit(kind, cell, to, thing, words.get("value", ""))


def parse_instruction(scene: Scene, text: str) -> tuple[Edit, ...]:
    """The edits that an instruction asks for, given the scene it speaks about.

    Raises:
        ValueError: the text is no instruction of the embedded world.
    """
    edits = []
    for part in text.split(_JOIN):
        for kind, pattern in _GRAMMAR.items():
            if match := re.fullmatch(pattern, part):
                edits.append(_edit(kind, scene, match.groupdict()))
                scene = edits[-1].apply(scene)
                break
        else:
            raise ValueError(f"{part!r} is no instruction of the embedded world")
    return tuple(edits)


def random_edit(rng: np.random.Generator, scene: Scene, kind: str) -> Edit | None:
    """A random edit of a kind that changes this scene; None where the scene offers none."""
    if kind in GLOBAL_OF_KIND:
        if kind == "style_change" and not scene.occupied:
            return None  # nothing is drawn that could change
        name = GLOBAL_OF_KIND[kind]
        return Edit(kind, value=pick(rng, GLOBAL_VALUES[name], getattr(scene, name)))
    if kind == "subject-add":
        return Edit(kind, pick(rng, scene.empty), thing=random_thing(rng)) if scene.empty else None
    cells = tuple(cell for cell in scene.occupied if _can(kind, scene.at(cell)))
    if not cells:
        return None
    cell = pick(rng, cells)
    old = scene.at(cell)
    assert old is not None
    if kind in _ATTRIBUTE:
        return Edit(kind, cell, thing=old.with_other(rng, _ATTRIBUTE[kind]))
    match kind:
        case "subject-remove":
            return Edit(kind, cell)
        case "motion_change":
            return Edit(kind, cell, pick(rng, scene.empty), old)
        case "subject-replace":
            new = random_thing(rng)
            while new.form == old.form:
                new = random_thing(rng)
            return Edit(kind, cell, thing=new)
    raise ValueError(f"unknown edit kind {kind!r}, expected one of {', '.join(KINDS)}")


def _can(kind: str, thing: Thing | None) -> bool:
    return thing is not None and {"text_change": thing.is_letter, "material_alter": not thing.is_letter}.get(kind, True)


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


@dataclass(frozen=True)
class TaskSource:
    """`num` tasks, the i-th a function of (seed, i) alone. Compound instructions are the hard half."""

    num: int = 100
    seed: int = 0
    compound_share: float = 0.15

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
