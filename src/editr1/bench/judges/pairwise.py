"""A judge that looks at both edits, asked in both orders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from editr1.bench.base import JudgedPair
from editr1.bench.judges.base import PairItem, render
from editr1.config import made
from editr1.judge.answers import normalised
from editr1.judge.claims import is_quoted, is_rejected, is_taken_back
from editr1.judge.parse import answer_of
from editr1.judge.prompts import labelled_sources
from editr1.schema import Label, Source, derive_seed, pictures_of
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling

_CHOICE = re.compile(r"(?<![^\W_])choice[*_` ]*:", re.IGNORECASE)
_NAMED = re.compile(
    r"(?:\\boxed\{|(?:edit(?:ed\s+image)?|image|picture|photo|option|candidate|version)\s+)?(A|B|SAME)\b\}?"
    r"(?:[*_`.\"')\]\s]*(?:[(,;:.\u2014\u2013-](?!.*(?-i:\b[AB]\b|SAME)).*|\s(?:because|since|as|is\s+better)\b.*)|\W*)(?<!\?)",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    r"(?:^|[.!?\n])[\s*_]*(?:(?:so|or|rather|no|actually|my|the|final|overall|answer|choice|verdict|better|best|winner|is|it['\u2019]?s|i"
    r"|choose|prefer|pick|edit|image)"
    r"[\s:,*_]+)+(?-i:(A|B|SAME))(?=[\s.!*_]*(?:\n|$)|\s(?:is|wins)\b)",
    re.IGNORECASE,
)
_MARKUP = " \t*_`#.\"'()[]-\u2022"
_MEANING: dict[str, Label] = {"A": "a", "B": "b", "SAME": "same"}
_SWAPPED: dict[Label, Label] = {"a": "b", "b": "a", "same": "same"}


@dataclass(frozen=True, slots=True)
class PairwiseJudge:
    """Compares two edits twice, once in each order."""

    vlm: VLM
    sampling: Sampling

    def compare(self, items: Sequence[PairItem], seed: int = 0) -> list[JudgedPair]:
        """One JudgedPair an item; an answer without a readable choice is None. Raises BackendError when the machine fails."""
        requests = [request for item in items for request in self._requests(item, seed)]
        replies = self.vlm.chat(requests)
        return [_judged(item.id, replies[2 * i], replies[2 * i + 1]) for i, item in enumerate(items)]

    def _requests(self, item: PairItem, seed: int) -> list[ChatRequest]:
        orders = {
            "forward": question(item.source, item.a, item.b, item.instruction),
            "reverse": question(item.source, item.b, item.a, item.instruction),
        }
        return [ChatRequest(parts, sampling=self.sampling, seed=derive_seed(seed, item.id, order)) for order, parts in orders.items()]


def question(source: Source, a: Image.Image, b: Image.Image, instruction: str) -> tuple[str | Image.Image, ...]:
    """The pictures and the question which edit is better, as the parts of a request."""
    asked = render("pairwise", instruction=instruction, num_sources=len(pictures_of(source)))
    return *labelled_sources(source), a, b, asked


def read_choice(text: str) -> Label | None:
    """The last choice that an answer states, on a line of its own; None when that is no clear one, is quoted only, or is taken back.

    >>> read_choice("A is sharper.\\n**CHOICE: A**"), read_choice("CHOICE: A\\nCHOICE: neither"), read_choice("I like A")
    ('a', None, None)
    """
    answer = answer_of(normalised(text)) or ""
    for match in reversed(list(_CHOICE.finditer(answer))):
        start, end = answer.rfind("\n", 0, match.start()) + 1, answer.find("\n", match.end())
        end = end if end >= 0 else len(answer)
        if is_quoted(answer, match.start(), end):
            continue
        named = _NAMED.fullmatch(answer[match.end() : end].strip(_MARKUP))
        alone = not answer[start : match.start()].strip(_MARKUP)
        if not named or not alone or is_rejected(answer, start, end):
            return None
        tail = answer[answer.index(named[1], match.end()) + len(named[1]) :]
        other = any(again[1] != named[1].upper() for again in _AGAIN.finditer(tail) if not is_quoted(tail, *again.span()))
        return None if other or is_taken_back(tail) else _MEANING[named[1].upper()]
    return None


def _judged(key: str, forward: ChatReply, reverse: ChatReply) -> JudgedPair:
    second = read_choice(reverse.text)
    return JudgedPair(
        key,
        read_choice(forward.text),
        None if second is None else _SWAPPED[second],  # in this order the picture called A was b
        forward.num_tokens + reverse.num_tokens,
        forward.seconds + reverse.seconds,
    )


def build(vlm: VLM, temperature: float = 0.0, max_tokens: int = 1024) -> PairwiseJudge:
    """The judge. ours: greedy, so that what differs between the orders is the order."""
    return PairwiseJudge(made("vlm", vlm), Sampling(temperature, max_tokens=max_tokens))
