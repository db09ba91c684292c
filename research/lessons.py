"""Lessons of verifying, which the embedded verifier is pretrained on beside those of looking (`editr1.world.lessons`).

    look     F1: top-left?                            ->  F1 top-left red striped circle
    verify   F1: Is the top-left a blue solid circle? ->  F1 top-left red striped circle, want blue solid circle -> no

The seen phrase comes first and is the same in both; a model that writes what is wanted first copies it instead of looking.
What an edit is worth is left to SFT: the base knows how to see, not what people prefer.
"""

from __future__ import annotations

import numpy as np

from editr1.judge.prompts import render_score
from editr1.schema import Principle
from editr1.vlm.base import ChatRequest
from editr1.world.annotators import evidence_lines
from editr1.world.lessons import Lesson, Pair, some_aspects
from editr1.world.oracle import Check, Observation, cells_phrase, principles_for, truth_of, verdicts
from editr1.world.scene import BACKGROUNDS, CELLS, COLOURS, MATERIALS, SHAPES, STYLES, TONES, Thing, pick, random_thing, read_one
from editr1.world.tasks import parse_instruction


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
    reply = evidence_lines(pair.seen, principles, verdicts(pair.seen, principles))
    return Lesson(ChatRequest((pair.source, question, pair.edited)), reply)


def _random_principles(rng: np.random.Generator, seen: Observation) -> tuple[Principle, ...]:
    aspects = some_aspects(rng, seen, int(rng.integers(5, 8)))
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
