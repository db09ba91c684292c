"""Decomposes tasks with a VLM: ask, check, show the fault and ask again, give up with a reason (paper, section 3.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from editr1.judge.decompose import BadDecomposition, parse_principles
from editr1.judge.prompts import render_decompose
from editr1.judge.quotas import DEFAULT_QUOTAS, Quotas
from editr1.schema import Principle, derive_seed, stable_id
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling

MAX_REPAIRS = 2  # ours: who fails three times fails for a reason that a fourth call does not cure


@dataclass(frozen=True, slots=True)
class Decomposition:
    """What came out for one task."""

    principles: tuple[Principle, ...]
    """Empty when none of the answers was usable."""
    problem: str = ""
    """What was wrong with the last answer; empty when it was right."""
    num_repairs: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    answer: str = ""
    """The last answer, for a person to look at."""


class Decomposer:
    """Principles for (source, instruction), remembered: equal tasks are asked about once."""

    def __init__(
        self,
        vlm: VLM,
        *,
        quotas: Quotas | None = DEFAULT_QUOTAS,
        sampling: Sampling | None = None,
        max_repairs: int = MAX_REPAIRS,
        questions_in_english: bool = True,
    ) -> None:
        self._vlm = vlm
        self._quotas = quotas
        self._sampling = sampling or Sampling()
        self._max_repairs = max_repairs
        self._questions_in_english = questions_in_english
        self._known: dict[str, Decomposition] = {}

    def decompose(self, tasks: Sequence[tuple[Image.Image, str]], seed: int = 0) -> list[Decomposition]:
        """One decomposition a (source, instruction), in their order.

        Open tasks are asked together, round by round. Failures are not remembered: another seed may succeed.
        """
        keys = [_key(source, instruction) for source, instruction in tasks]
        found = {key: self._known[key] for key in keys if key in self._known}
        todo = {key: task for key, task in zip(keys, tasks, strict=True) if key not in found}
        answers: dict[str, str] = {}
        for attempt in range(1 + self._max_repairs):
            open_tasks = {key: task for key, task in todo.items() if key not in found or found[key].problem}
            if not open_tasks:
                break
            requests = [
                self._request(source, instruction, derive_seed(seed, "decompose", key, attempt), answers.get(key, ""), found.get(key))
                for key, (source, instruction) in open_tasks.items()
            ]
            for key, reply in zip(open_tasks, self._vlm.chat(requests), strict=True):
                answers[key] = reply.text
                found[key] = self._read(reply, attempt, found.get(key, Decomposition(())))
        self._known.update({key: made for key, made in found.items() if not made.problem})
        return [found[key] for key in keys]

    def _request(self, source: Image.Image, instruction: str, seed: int, previous: str, fault: Decomposition | None) -> ChatRequest:
        return render_decompose(
            source,
            instruction,
            sampling=self._sampling,
            seed=seed,
            quotas=self._quotas or DEFAULT_QUOTAS,
            previous=previous,
            problem=fault.problem if fault else "",
        )

    def _read(self, reply: ChatReply, attempt: int, before: Decomposition) -> Decomposition:
        parsed = parse_principles(reply.text, self._quotas, questions_in_english=self._questions_in_english)
        spent = (before.num_tokens + reply.num_tokens, before.seconds + reply.seconds)
        if isinstance(parsed, BadDecomposition):
            return Decomposition((), parsed.problem, attempt, *spent, reply.text)
        return Decomposition(parsed, "", attempt, *spent, reply.text)


def _key(source: Image.Image, instruction: str) -> str:
    pixels = hashlib.blake2b(source.tobytes(), digest_size=16).hexdigest()
    return stable_id(pixels, str(source.size), source.mode, instruction)
