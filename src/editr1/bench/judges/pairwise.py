"""Judges in our own words (`texts/`), or none: of pairs, the RRM, VIEScore's questions, and the expected digit of one token.

`pairwise` looks at both edits and is asked in both orders.
`viescore`: two calls, scores of 0 to 10 before the reasoning, one pass, greedy.
`mllm_logit`: no reasoning, no parse, hardly ever a tie (the reward of UniWorld-V2, arXiv 2510.16888):
r = 10/5 * sum_k k * p(k) / sum_k p(k) over the digits 0 to 5 at the first generated token.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from editr1.bench.base import JudgedPair, Part
from editr1.bench.judges._aspects import read_aspects, stated_scores
from editr1.bench.judges.base import AskingJudge, PairItem, Question, Scale, render
from editr1.config import made
from editr1.errors import BackendError
from editr1.judge.answers import normalised
from editr1.judge.claims import is_quoted, is_rejected, is_taken_back
from editr1.judge.decompose import Decomposer
from editr1.judge.item import RewardItem
from editr1.judge.parse import answer_of, without_asides
from editr1.judge.prompts import labelled_sources
from editr1.judge.reading import MAX_LOGPROB, no_alternatives
from editr1.judge.rrm import RewardModel
from editr1.schema import MAX_SCORE, Label, Reward, Source, derive_seed, pictures_of
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling, TokenAlternatives

_CHOICE = re.compile(r"(?<![^\W_])choice[*_` ]*:", re.IGNORECASE)
_NAMED = re.compile(
    r"(?:\\boxed\{|(?:edit(?:ed\s+image)?|image|picture|photo|option|candidate|version)\s+)?(A|B|SAME)\b\}?"
    r"(?:[*_`.\"')\]\s]*(?:[(,;:.\u2014\u2013-](?!.*(?-i:\b[AB]\b|SAME)).*|[,;]?\s(?:because|since|as|is\s+better)\b.*)|\W*)(?<!\?)",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    r"(?:^|[.!?\n])[\s*_]*(?:(?:so|or|rather|no|actually|my|the|final|overall|answer|choice|verdict|better|best|winner|is|it['\u2019]?s|i"
    r"|choose|prefer|pick|edit|image)"
    r"[\s:,*_]+)+(?-i:(A|B|SAME))(?=[\s.!*_]*(?:\n|$)|\s(?:is|wins)\b)",
    re.IGNORECASE,
)
_MARKUP = " \t*_`#.\"'()[]-\u2022|$"
_WRAPPING = re.compile(r"<[/\\]?[a-z_]{1,20}>", re.IGNORECASE)  # `<answer>CHOICE: A</answer>`
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
    shown = without_asides(answer)
    for match in reversed(list(_CHOICE.finditer(shown))):
        start, end = answer.rfind("\n", 0, match.start()) + 1, answer.find("\n", match.end())
        end = end if end >= 0 else len(answer)
        before, said = (_WRAPPING.sub(" ", part).strip(_MARKUP) for part in (answer[start : match.start()], answer[match.end() : end]))
        if is_quoted(answer, match.start(), end):
            continue
        named = _NAMED.fullmatch(said)
        if not named or before or is_rejected(answer, start, end):
            return None
        behind = answer.index(named[1], match.end()) + len(named[1])
        tail = shown[behind:]
        other = any(again[1] != named[1].upper() for again in _AGAIN.finditer(tail) if not is_quoted(tail, *again.span()))
        return None if other or is_taken_back(answer, behind) else _MEANING[named[1].upper()]
    return None


def _judged(key: str, forward: ChatReply, reverse: ChatReply) -> JudgedPair:
    first, second = (None if reply.refused else read_choice(reply.text) for reply in (forward, reverse))
    return JudgedPair(
        key,
        first,
        None if second is None else _SWAPPED[second],  # in this order the picture called A was b
        forward.num_tokens + reverse.num_tokens,
        forward.seconds + reverse.seconds,
    )


def _pairwise(vlm: VLM, temperature: float = 0.0, max_tokens: int = 1024) -> PairwiseJudge:
    """The judge. ours: greedy, so that what differs between the orders is the order."""
    return PairwiseJudge(made("vlm", vlm), Sampling(temperature, max_tokens=max_tokens))


pairwise = Part(_pairwise)

# --- the RRM ----------------------------------------------------------------------------------------


def _build_rrm(
    vlm: VLM,
    prompt_id: str = "tv",
    num_traces: int = 1,
    temperature: float = 0.7,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    decomposer: VLM | None = None,
    expected: bool = False,
) -> RewardModel:
    """A RewardModel; benchmarks come without principles, so the judge writes them itself unless `decomposer` names another model."""
    sampling, judge = Sampling(temperature, top_p, max_tokens), made("vlm", vlm)
    helper = Decomposer(judge if decomposer is None else made("vlm", decomposer))
    return RewardModel(judge, prompt_id, num_traces, sampling, helper, expected)


rrm = Part(_build_rrm)

# --- VIEScore's shape -------------------------------------------------------------------------------

SCALE = Scale(0, 10)


def _build_viescore(vlm: VLM, temperature: float = 0.0, max_tokens: int = 512, num_passes: int = 1) -> AskingJudge:
    """The judge. ours: greedy, for official scripts leave the temperature to the server and their numbers move by .1 between runs."""
    sampling = Sampling(temperature, max_tokens=max_tokens)
    return AskingJudge(made("vlm", vlm), sampling, _ask, lambda texts: read_aspects(texts, SCALE, stated_scores), num_passes)


def _ask(item: RewardItem) -> list[Question]:
    return [
        Question("SC", (item.only_source, item.edited, render("semantic", instruction=item.instruction, top=int(SCALE.high)))),
        Question("PQ", (item.edited, render("quality", top=int(SCALE.high)))),
    ]


viescore = Part(_build_viescore)

# --- the expected digit -----------------------------------------------------------------------------

HIGHEST = 5
# ours: where the digits together hold less than this, the model is not answering the question, and their ratio is noise
MIN_MASS = 0.05


@dataclass(frozen=True, slots=True)
class LogitJudge:
    """One request of one token an edit. The endpoint must give token log-probabilities."""

    vlm: VLM

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item. Raises BackendError when the backend gives no log-probabilities."""
        requests = [
            ChatRequest(
                (item.only_source, item.edited, render("logit", instruction=item.instruction)),
                sampling=Sampling(temperature=0.0, max_tokens=1),
                seed=derive_seed(seed, item.id or str(index)),
                want_logprobs=True,
            )
            for index, item in enumerate(items)
        ]
        return [self._reward(reply) for reply in self.vlm.chat(requests)]

    def _reward(self, reply: ChatReply) -> Reward:
        if reply.refused:
            return Reward(None, 0, 1, reason="REFUSED", seconds=reply.seconds)
        if not reply.logprobs or not reply.logprobs[0].alternatives:
            raise BackendError(f"{self.vlm.name} gives {no_alternatives(reply)}, which the judge mllm_logit needs; choose another judge")
        value = expected_digit(reply.logprobs[0])
        reason = None if value is not None else "NO_SCORE"
        return Reward(value, int(value is not None), 1, reason=reason, num_tokens=reply.num_tokens, seconds=reply.seconds)


def expected_digit(position: TokenAlternatives) -> float | None:
    """The expected digit in [0, 10]; None when the digits 0 to 5 hold too little probability to speak of.

    >>> round(expected_digit(TokenAlternatives("5", (("5", math.log(0.5)), ("4", math.log(0.5))))), 6)
    9.0
    """
    weights = dict.fromkeys(range(HIGHEST + 1), 0.0)
    for token, logprob in position.alternatives:
        text = normalised(token).strip()
        is_digit = text.isascii() and text.isdigit() and len(text) == 1 and int(text) <= HIGHEST
        if is_digit and logprob <= MAX_LOGPROB:  # false for nan
            weights[int(text)] += math.exp(logprob)
    mass = math.fsum(weights.values())
    if mass < MIN_MASS:
        return None
    return MAX_SCORE / HIGHEST * math.fsum(digit * weight for digit, weight in weights.items()) / mass


mllm_logit = Part(lambda vlm: LogitJudge(made("vlm", vlm)))
