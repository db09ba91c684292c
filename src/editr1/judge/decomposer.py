"""Decomposes tasks with a VLM: ask, check, show the fault and ask again, give up with a reason (paper, section 3.1).

`decompose` is that loop, for the stage and for judges alike; `Decomposer` is the loop with a memory, for principles on the fly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from editr1.judge.decompose import DEFAULT_QUOTAS, BadDecomposition, Quotas, parse_principles
from editr1.judge.prompts import NUM_SHOWN, render_decompose
from editr1.schema import Principle, Source, derive_seed, pictures_of, stable_id
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling

MAX_REMEMBERED = 10_000  # ours: tasks; a service that runs for months must not grow
MAX_REPAIRS = 2  # ours: who fails three times fails for a reason that a fourth call does not cure


@dataclass(frozen=True, slots=True)
class Rules:
    """What a decomposition must look like, and how it is asked for."""

    quotas: Quotas | None = DEFAULT_QUOTAS
    """paper, section 3.1; None accepts any number."""
    questions_in_english: bool = True
    """Check the form of the questions; switch off for other languages."""
    num_exemplars: int = NUM_SHOWN
    """paper, section 3.1: 4 of a pool of 60, drawn anew for each task."""
    max_repairs: int = MAX_REPAIRS
    sampling: Sampling = field(default_factory=Sampling)
    """ours: with a temperature, so that a repair is not the same answer again."""


@dataclass(frozen=True, slots=True)
class Decomposition:
    """What came out for one task."""

    principles: tuple[Principle, ...] = ()
    """Empty when none of the answers was usable."""
    problem: str = ""
    """What was wrong with the last answer; empty when it was right."""
    num_repairs: int = 0
    num_tokens: int = 0
    """Generated tokens of all answers."""
    seconds: float = 0.0
    answer: str = ""
    """The last answer, for a person to look at."""


def decompose(vlm: VLM, tasks: Mapping[str, tuple[Source, str]], seed: int, rules: Rules | None = None) -> dict[str, Decomposition]:
    """One decomposition a task: one call for all of them, then one for all that need a repair, and so on.

    tasks: (source, instruction) by an id, from which the seeds of its requests are derived.
    Raises BackendError when the model's machine fails.
    """
    rules = rules or Rules()
    made = {key: Decomposition() for key in tasks}
    for attempt in range(1 + rules.max_repairs):
        open_keys = [key for key, found in made.items() if not found.principles]
        if not open_keys:
            break
        requests = [_request(*tasks[key], made[key], rules, derive_seed(seed, "decompose", key, attempt)) for key in open_keys]
        for key, reply in zip(open_keys, vlm.chat(requests), strict=True):
            made[key] = _read(reply, made[key], rules, attempt)
    return made


def _request(source: Source, instruction: str, before: Decomposition, rules: Rules, seed: int) -> ChatRequest:
    return render_decompose(
        source,
        instruction,
        sampling=rules.sampling,
        seed=seed,
        quotas=rules.quotas or DEFAULT_QUOTAS,
        num_exemplars=rules.num_exemplars,
        previous=before.answer,
        problem=before.problem,
    )


def _read(reply: ChatReply, before: Decomposition, rules: Rules, attempt: int) -> Decomposition:
    parsed = parse_principles(reply.text, rules.quotas, questions_in_english=rules.questions_in_english)
    spent = (before.num_tokens + reply.num_tokens, before.seconds + reply.seconds)
    if isinstance(parsed, BadDecomposition):
        return Decomposition((), parsed.problem, attempt, *spent, reply.text)
    return Decomposition(parsed, "", attempt, *spent, reply.text)


class Decomposer:
    """Principles for (source, instruction), remembered: equal tasks are asked about once."""

    def __init__(self, vlm: VLM, rules: Rules | None = None) -> None:
        self.vlm = vlm
        self._rules = rules or Rules()
        self._known: dict[str, Decomposition] = {}

    def decompose(self, tasks: Sequence[tuple[Source, str]], seed: int = 0) -> list[Decomposition]:
        """One decomposition a (source, instruction), in their order. Failures are not remembered: another seed may succeed."""
        keys = [_key(source, instruction) for source, instruction in tasks]
        missing = {key: task for key, task in zip(keys, tasks, strict=True) if key not in self._known}
        made = decompose(self.vlm, missing, seed, self._rules)
        found = [made[key] if key in made else self._known[key] for key in keys]
        self._known.update({key: decomposition for key, decomposition in made.items() if decomposition.principles})
        for key in list(self._known)[: max(0, len(self._known) - MAX_REMEMBERED)]:  # the oldest
            del self._known[key]
        return found


def _key(source: Source, instruction: str) -> str:
    seen = ((hashlib.blake2b(p.tobytes(), digest_size=16).hexdigest(), str(p.size), p.mode) for p in pictures_of(source))
    return stable_id(*(word for words in seen for word in words), instruction)
