"""The people of the embedded world: decomposer, scoring pool, inspector, and the humans who compare pairs.

Decomposer, pool and inspector stand behind the VLM protocol: they look at the pictures of a request, read its
`PromptContext` in place of the prompt's text, and answer in the format the prompt asks for. They see correctly and judge
*systematically wrong*, each in a way of its own, because that is what makes the loop worth running: random errors
average out in SFT, systematic ones are inherited and are left for GCPO to undo.

All rates and weights are ours, fixed before any judge was trained on them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from editr1.errors import ConfigError, nearest
from editr1.judge.prompts import labels
from editr1.schema import Label, Principle, derive_seed
from editr1.vlm.base import ChatReply, ChatRequest, PromptContext, request_images
from editr1.world.oracle import CAREFUL, GLOBAL_ASPECTS, Check, Observation, UtilityWeights, observe, principles_for, truth_for, utility
from editr1.world.scene import CELLS


class Decomposer:
    """Writes the principles of a task as the JSON array that the decompose prompt asks for."""

    name = "world/decomposer"

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: ChatRequest) -> ChatReply:
        source, context = request_images(request)[0], _context(request)
        principles = principles_for(truth_for(source, context.instruction), np.random.default_rng(request.seed))
        rows = [{"question": principle.question, "category": principle.category} for principle in principles]
        return _reply(json.dumps(rows), self.name)


@dataclass(frozen=True, slots=True)
class Character:
    """How an annotator errs. Every rate is a probability in [0, 1]."""

    passes_leaks: float = 0.0
    """Says yes to a keep question about an object that is still there but changed."""
    passes_near_misses: float = 0.0
    """Says yes to a follow question about an object with two of three attributes right."""
    passes_globals: float = 0.0
    """Says yes to a keep question about a background, tone or style that changed."""
    slips: float = 0.02
    """Turns a verdict around for no reason."""
    weights: UtilityWeights = CAREFUL
    overrates_quality: float = 0.0
    """Takes three times the points off for damaged pixels."""
    score_noise: float = 0.5
    """Standard deviation of the score, in points."""


CHARACTERS: dict[str, Character] = {
    "lenient": Character(passes_leaks=0.55, weights=UtilityWeights(3.5, 4.5, 0.6, 0.4, 0.3, 1.5)),
    "fussy": Character(passes_globals=0.3, weights=UtilityWeights(3.0, 4.0, 1.2, 0.8, 0.8, 2.0), overrates_quality=0.4),
    "generous": Character(passes_near_misses=0.45, weights=UtilityWeights(2.5, 3.5, 1.0, 0.7, 0.6, 1.5)),
}
INSPECTOR = Character(passes_leaks=0.3, passes_near_misses=0.25, slips=0.0)


class Annotator:
    """One member of the scoring pool: evidence, verdict and score in the compact format."""

    def __init__(self, character: str = "lenient") -> None:
        if character not in CHARACTERS:
            raise ConfigError(f"unknown annotator {character!r}: {nearest(character, CHARACTERS)}")
        self.name = f"world/{character}"
        self.character = CHARACTERS[character]

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        seen = observe([request_images(request)[-1] for request in requests])
        return [self._reply(request, observation) for request, observation in zip(requests, seen, strict=True)]

    def _reply(self, request: ChatRequest, seen: Observation) -> ChatReply:
        rng = np.random.default_rng(derive_seed(request.seed, self.name))
        principles = _context(request).principles
        verdicts = biased_verdicts(rng, self.character, seen, principles)
        score = biased_score(rng, self.character, principles, verdicts)
        return _reply(f"{evidence_lines(seen, principles, verdicts)}\n<score>{score:.1f}</score>", self.name)


class Inspector:
    """Writes gold verdicts with the evidence as the reason. Careful, yet a little lenient where annotators are, too."""

    name = "world/inspector"

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        seen = observe([request_images(request)[1] for request in requests])
        return [self._reply(request, observation) for request, observation in zip(requests, seen, strict=True)]

    def _reply(self, request: ChatRequest, seen: Observation) -> ChatReply:
        principles = _context(request).principles
        verdicts = biased_verdicts(np.random.default_rng(request.seed), INSPECTOR, seen, principles)
        return _reply(evidence_lines(seen, principles, verdicts), self.name)


def evidence_lines(seen: Observation, principles: Sequence[Principle], verdicts: Sequence[bool]) -> str:
    """`F1 top-left red solid circle, want blue solid circle -> no`, one line a principle. The evidence is always true."""
    lines = []
    for label, principle, verdict in zip(labels(principles), principles, verdicts, strict=True):
        check = Check.from_question(principle.question)
        lines.append(f"{label} {check.aspect} {seen.see(check.aspect)}, want {check.want} -> {'yes' if verdict else 'no'}")
    return "\n".join(lines)


def biased_verdicts(rng: np.random.Generator, character: Character, seen: Observation, principles: Sequence[Principle]) -> tuple[bool, ...]:
    """The true verdicts, bent by a character."""
    return tuple(_biased_verdict(rng, character, seen, principle) for principle in principles)


def _biased_verdict(rng: np.random.Generator, character: Character, seen: Observation, principle: Principle) -> bool:
    check = Check.from_question(principle.question)
    verdict, chance, slip = check.holds(seen), rng.random(), rng.random() < character.slips
    if not verdict and check.aspect in CELLS and check.want != "empty":
        found = set(seen.see(check.aspect).split())
        if principle.category == "keep" and len(found) == 3:
            verdict = chance < character.passes_leaks
        elif principle.category == "follow" and len(found & set(check.want.split())) == 2:
            verdict = chance < character.passes_near_misses
    elif not verdict and check.aspect in GLOBAL_ASPECTS and principle.category == "keep":
        verdict = chance < character.passes_globals
    return verdict != slip


def biased_score(rng: np.random.Generator, character: Character, principles: Sequence[Principle], verdicts: Sequence[bool]) -> float:
    """Points in [0, 10] with one decimal, from the verdicts and the character's weights."""
    weights = character.weights
    quality = weights.quality * (3 if rng.random() < character.overrates_quality else 1)
    follow = [not verdict for principle, verdict in zip(principles, verdicts, strict=True) if principle.category == "follow"]
    share = sum(follow) / len(follow) if follow else 0.0
    points = 10.0 - (weights.follow_all if share == 1 else weights.follow * share)
    for principle, verdict in zip(principles, verdicts, strict=True):
        if verdict or principle.category == "follow":
            continue
        aspect = Check.from_question(principle.question).aspect
        if aspect == "border":
            return 0.0  # paper, appendix A: a white border is worth nothing
        if aspect == "quality":
            points -= quality
        elif aspect == "objects":
            points -= weights.extra_object
        else:
            points -= weights.keep_cell if aspect in CELLS else weights.keep_global
    return round(min(max(points + rng.normal(0, character.score_noise), 0.0), 10.0), 1)


@dataclass(frozen=True)
class HumanPairs:
    """People who compare two edits: they prefer the more useful one, call close ones "same", and err now and then."""

    name = "world/human"
    same_gap: float = 0.5
    error_rate: float = 0.05

    def label(self, source: Image.Image, instruction: str, a: Image.Image, b: Image.Image, seed: int) -> Label:
        """a, b or same."""
        rng = np.random.default_rng(seed)
        truth = truth_for(source, instruction)
        before, seen_a, seen_b = observe([source, a, b])
        gap = utility(seen_a, truth, before) - utility(seen_b, truth, before)
        if abs(gap) < self.same_gap:
            return "same"
        return "a" if (gap > 0) != (rng.random() < self.error_rate) else "b"


def _context(request: ChatRequest) -> PromptContext:
    if request.context is None:
        raise ConfigError("annotators of the embedded world read the request's context; this request has none")
    return request.context


def _reply(text: str, model: str) -> ChatReply:
    return ChatReply(text, model, num_tokens=len(text.split()))
