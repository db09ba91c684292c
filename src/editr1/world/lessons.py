"""Looking at the second picture of a pair: a lesson that the embedded verifier was pretrained on, and that SFT replays.

    F1: top-left?  ->  F1 top-left red striped circle

The pretraining itself, with lessons of verifying beside those of looking, is `research/pretrain_verifier.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from editr1.judge.prompts import labels
from editr1.schema import Category, Principle, derive_seed
from editr1.vlm.base import ChatRequest
from editr1.world.oracle import GLOBAL_ASPECTS, Observation, observe
from editr1.world.procedural_editors import PIXEL_FAILURES, SCENE_FAILURES, flawed_edit
from editr1.world.scene import CELLS, pick, random_scene, render
from editr1.world.tasks import KINDS, apply_all, instruction, random_edits

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
    """One supervised example, as the stage `sft` mixes it in: source picture, question, edited picture; and what to answer."""

    request: ChatRequest
    completion: str


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
    aspects = some_aspects(rng, pair.seen, 6)
    num_follow, num_quality = int(rng.integers(1, 4)), int(rng.integers(3))
    counts: tuple[tuple[Category, int], ...] = (
        ("follow", num_follow),
        ("keep", len(aspects) - num_follow - num_quality),
        ("quality", num_quality),
    )
    categories = [category for category, count in counts for _ in range(count)]
    asked = list(zip(labels([Principle("", category) for category in categories]), aspects, strict=True))
    question = "edit: after\n" + "".join(f"{label}: {aspect}?\n" for label, aspect in asked)
    reply = "\n".join(f"{label} {aspect} {pair.seen.see(aspect)}" for label, aspect in asked)
    return Lesson(ChatRequest((pair.source, question, pair.edited)), reply)


def some_aspects(rng: np.random.Generator, seen: Observation, num: int) -> list[str]:
    """`num` aspects in random order, with up to three cells that hold something: eight of nine cells teach only "empty"."""
    filled = [cell for cell in CELLS if seen.see(cell) != "empty"]
    first = [filled[i] for i in rng.permutation(len(filled))[:3]]
    rest = [aspect for aspect in ASPECTS if aspect not in first]
    chosen = first + [rest[i] for i in rng.permutation(len(rest))[: num - len(first)]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def replay(seed: int = 0) -> Callable[[int], Lesson]:
    """Looking lessons for SFT, so that grounding is not unlearnt: the `replay` of the stage `sft`."""

    def lesson(index: int) -> Lesson:
        rng = np.random.default_rng(derive_seed(seed, "replay", index))
        return look(rng, observe_pairs([random_pair(rng, 0.5)])[0])

    return lesson
