"""What the embedded verifier is pretrained on: looking and comparing, never scoring.

Two kinds of lesson, both about the second picture of a pair:

    look     F1: top-left?                           ->  F1 top-left red striped circle
    verify   F1: Is the top-left a blue solid circle? ->  F1 top-left red striped circle, want blue solid circle -> no

The seen phrase comes first and is the same in both; a model that writes what is wanted first copies it instead of looking.
What an edit is worth is left to SFT: the base knows how to see, not what people prefer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from editr1.schema import Principle
from editr1.world.checks import GLOBAL_ASPECTS, Check, Observation, cells_phrase, principles_for, truth_of
from editr1.world.edits import KINDS, apply_all, instruction, parse_instruction, random_edits
from editr1.world.failures import PIXEL_FAILURES, SCENE_FAILURES, flawed_edit
from editr1.world.oracle import observe
from editr1.world.render import read_one, render
from editr1.world.scene import BACKGROUNDS, CELLS, COLOURS, MATERIALS, SHAPES, STYLES, TONES, Thing, pick, random_scene, random_thing

ASPECTS = (*CELLS, *GLOBAL_ASPECTS, "objects", "quality", "border")
_ANY_FAILURE = dict.fromkeys((*SCENE_FAILURES, *PIXEL_FAILURES), 1.0)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures, the words between them, and what the second one truly shows."""

    source: Image.Image
    edited: Image.Image
    instruction: str
    seen: Observation


@dataclass(frozen=True, slots=True)
class Lesson:
    """One supervised example: the question's text (the source picture stands before it, the edited one after) and the reply."""

    source: Image.Image
    edited: Image.Image
    question: str
    reply: str


def random_pair(rng: np.random.Generator, flawed_share: float, compound_share: float = 0.15) -> tuple[Image.Image, Image.Image, str]:
    """(source, edited, instruction); a share of the edits carries one to three failures."""
    while True:
        scene = random_scene(rng)
        edits = random_edits(rng, scene, pick(rng, KINDS), compound=rng.random() < compound_share)
        if edits is None:
            continue
        if rng.random() < flawed_share:
            edited = flawed_edit(rng, scene, edits, _ANY_FAILURE, int(rng.integers(1, 4)))
        else:
            edited = render(apply_all(scene, edits))
        return render(scene), edited, instruction(scene, edits)


def observe_pairs(raw: Sequence[tuple[Image.Image, Image.Image, str]]) -> list[Pair]:
    """The pairs with the truth about their second pictures."""
    seen = observe([edited for _, edited, _ in raw])
    return [Pair(source, edited, text, truth) for (source, edited, text), truth in zip(raw, seen, strict=True)]


def label_names(categories: Sequence[str]) -> list[str]:
    """F1 F2 K1 ...: the category's letter and a running number inside it."""
    count: Counter[str] = Counter()
    names = []
    for category in categories:
        letter = category[0].upper()
        count[letter] += 1
        names.append(f"{letter}{count[letter]}")
    return names


def look(rng: np.random.Generator, pair: Pair) -> Lesson:
    """Ask for eight aspects in random order."""
    aspects = [ASPECTS[i] for i in rng.permutation(len(ASPECTS))[:8]]
    num_follow, num_quality = int(rng.integers(1, 4)), int(rng.integers(3))
    labels = label_names(["follow"] * num_follow + ["keep"] * (8 - num_follow - num_quality) + ["quality"] * num_quality)
    lines = zip(labels, aspects, strict=True)
    question = "edit: after\n" + "".join(f"{label}: {aspect}?\n" for label, aspect in zip(labels, aspects, strict=True))
    return Lesson(pair.source, pair.edited, question, "\n".join(f"{label} {aspect} {pair.seen.see(aspect)}" for label, aspect in lines))


def verify(rng: np.random.Generator, pair: Pair, task_share: float = 0.5) -> Lesson:
    """Compare with the principles of the task, or with random ones of which half want something else than is there."""
    if rng.random() < task_share:
        scene = read_one(pair.source)
        principles = principles_for(truth_of(scene, parse_instruction(scene, pair.instruction)), rng)
    else:
        principles = _random_principles(rng, pair.seen)
    return Lesson(pair.source, pair.edited, verification_question(pair.instruction, principles), reply_lines(pair.seen, principles))


def verification_question(text: str, principles: Sequence[Principle]) -> str:
    """The compact prompt of `judge.prompts`, without its pictures."""
    labels = label_names([principle.category for principle in principles])
    return f"edit: {text}\n" + "".join(f"{label}: {p.question}\n" for label, p in zip(labels, principles, strict=True))


def reply_lines(seen: Observation, principles: Sequence[Principle]) -> str:
    """The true evidence and verdicts, without a score."""
    labels = label_names([principle.category for principle in principles])
    checks = [Check.from_question(principle.question) for principle in principles]
    return "\n".join(
        f"{label} {check.aspect} {seen.see(check.aspect)}, want {check.want} -> {'yes' if check.holds(seen) else 'no'}"
        for label, check in zip(labels, checks, strict=True)
    )


def _random_principles(rng: np.random.Generator, seen: Observation) -> tuple[Principle, ...]:
    aspects = [ASPECTS[i] for i in rng.permutation(len(ASPECTS))[: int(rng.integers(6, 10))]]
    num_follow = int(rng.integers(1, 4))
    principles = []
    for number, aspect in enumerate(aspects):
        want = seen.see(aspect)
        if rng.random() < 0.5 or want in ("unclear", "noisy", "blurred", "smeared", "white"):
            want = _other_want(rng, aspect, want)
        category = "quality" if aspect in ("quality", "border") else "follow" if number < num_follow else "keep"
        principles.append(Principle(Check(aspect, want).question, category))  # type: ignore[arg-type]
    return tuple(sorted(principles, key=lambda p: ("follow", "keep", "quality").index(p.category)))


def _other_want(rng: np.random.Generator, aspect: str, seen: str) -> str:
    """Something else than is there; for an object, mostly one attribute off."""
    if aspect in ("background", "tone", "style"):
        return pick(rng, {"background": BACKGROUNDS, "tone": TONES, "style": STYLES}[aspect], seen)
    if aspect == "quality":
        return "clean"
    if aspect == "border":
        return "none"
    if aspect == "objects":
        cells = set(seen.split()) - {"nowhere"}
        cells ^= {pick(rng, CELLS)}
        return cells_phrase(cell for cell in CELLS if cell in cells)
    if seen in ("empty", "unclear") or rng.random() < 0.25:
        return random_thing(rng).phrase if seen == "empty" or rng.random() < 0.6 else "empty"
    thing = Thing.from_phrase(seen)
    if thing.is_letter or (attribute := int(rng.integers(3))) == 0:
        return Thing(pick(rng, COLOURS, thing.colour), thing.form, thing.material).phrase
    if attribute == 1:
        return Thing(thing.colour, thing.form, pick(rng, MATERIALS, thing.material)).phrase
    return Thing(thing.colour, pick(rng, SHAPES, thing.form), thing.material).phrase
