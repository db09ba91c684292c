"""What the embedded verifier is pretrained on: looking and comparing, never scoring.

Two kinds of lesson, both about the second picture of a pair:

    look     F1: top-left?                           ->  F1 top-left red striped circle
    verify   F1: Is the top-left a blue solid circle? ->  F1 top-left red striped circle, want blue solid circle -> no

The seen phrase comes first and is the same in both; a model that writes what is wanted first copies it instead of looking.
What an edit is worth is left to SFT: the base knows how to see, not what people prefer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from editr1.judge.prompts import labels, render_score
from editr1.schema import Category, Principle, derive_seed
from editr1.vlm.base import ChatRequest
from editr1.world.annotators import evidence_lines
from editr1.world.checks import GLOBAL_ASPECTS, Check, Observation, cells_phrase, principles_for, truth_of
from editr1.world.edits import KINDS, apply_all, instruction, parse_instruction, random_edits
from editr1.world.failures import PIXEL_FAILURES, SCENE_FAILURES, flawed_edit
from editr1.world.oracle import observe, verdicts
from editr1.world.render import read_one, render
from editr1.world.scene import BACKGROUNDS, CELLS, COLOURS, MATERIALS, SHAPES, STYLES, TONES, Thing, pick, random_scene, random_thing

ASPECTS = (*CELLS, *GLOBAL_ASPECTS, "objects", "quality", "border")
_ANY_FAILURE = dict.fromkeys(SCENE_FAILURES, 1.0) | dict.fromkeys(PIXEL_FAILURES, 2.0)


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


def look(rng: np.random.Generator, pair: Pair) -> Lesson:
    """Ask for six aspects in random order."""
    aspects = _some_aspects(rng, pair.seen, 6)
    num_follow, num_quality = int(rng.integers(1, 4)), int(rng.integers(3))
    counts: tuple[tuple[Category, int], ...] = (
        ("follow", num_follow),
        ("keep", len(aspects) - num_follow - num_quality),
        ("quality", num_quality),
    )
    categories = [category for category, count in counts for _ in range(count)]
    asked = list(zip(labels([Principle("", category) for category in categories]), aspects, strict=True))
    question = "edit: after\n" + "".join(f"{label}: {aspect}?\n" for label, aspect in asked)
    return Lesson(pair.source, pair.edited, question, "\n".join(f"{label} {aspect} {pair.seen.see(aspect)}" for label, aspect in asked))


def verify(rng: np.random.Generator, pair: Pair, task_share: float = 0.2) -> Lesson:
    """Compare with the principles of the task, or with random ones of which most want something else than is there:

    were most of them satisfied, the model would copy what is wanted instead of looking.
    """
    if rng.random() < task_share:
        scene = read_one(pair.source)
        principles = principles_for(truth_of(scene, parse_instruction(scene, pair.instruction)), rng)
    else:
        principles = _random_principles(rng, pair.seen)
    request = render_score("compact", pair.source, pair.edited, pair.instruction, principles)
    question = next(part for part in request.parts if isinstance(part, str))
    return Lesson(pair.source, pair.edited, question, evidence_lines(pair.seen, principles, verdicts(pair.seen, principles)))


def _some_aspects(rng: np.random.Generator, seen: Observation, num: int) -> list[str]:
    """`num` aspects in random order, with up to three cells that hold something: eight of nine cells teach only "empty"."""
    filled = [cell for cell in CELLS if seen.see(cell) != "empty"]
    first = [filled[i] for i in rng.permutation(len(filled))[:3]]
    rest = [aspect for aspect in ASPECTS if aspect not in first]
    chosen = first + [rest[i] for i in rng.permutation(len(rest))[: num - len(first)]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _random_principles(rng: np.random.Generator, seen: Observation) -> tuple[Principle, ...]:
    aspects = _some_aspects(rng, seen, int(rng.integers(5, 8)))
    num_follow = int(rng.integers(1, 4))
    principles = []
    for number, aspect in enumerate(aspects):
        want = seen.see(aspect)
        if rng.random() < 0.6 or want in ("unclear", "noisy", "blurred", "smeared", "white"):
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


@dataclass(frozen=True, slots=True)
class Practice:
    """One lesson as the stage `sft` mixes it in: a request and what the student should answer."""

    request: ChatRequest
    completion: str


def replay(seed: int = 0) -> Callable[[int], Practice]:
    """Looking lessons for SFT, so that grounding is not unlearnt: the `replay` of the stage `sft`."""

    def lesson(index: int) -> Practice:
        rng = np.random.default_rng(derive_seed(seed, "replay", index))
        shown = look(rng, observe_pairs([random_pair(rng, 0.5)])[0])
        return Practice(ChatRequest((shown.source, shown.question, shown.edited)), shown.reply)

    return lesson
