"""From a reply to the trace that tables keep: the one place where Phi meets a request."""

from __future__ import annotations

from collections.abc import Sequence

from editr1.errors import BackendError
from editr1.judge.expected import expected_score, no_alternatives
from editr1.judge.parse import Reading, read
from editr1.judge.prompts import labels, request_text, score_traits
from editr1.schema import Judgement, Outcome, ParseFailure, Principle, Trace
from editr1.vlm.base import ChatReply, ChatRequest


def to_trace(
    quadruple_id: str,
    principles: Sequence[Principle],
    prompt_id: str,
    request: ChatRequest,
    reply: ChatReply,
    model: str,
    expected: bool = False,
) -> Trace:
    """The reply with what Phi makes of it; a reply that cannot be read is a trace with a ParseFailure.

    expected: put the expectation under the token probabilities in place of the score. Raises BackendError where there are none.
    """
    reading = read(
        reply.text,
        len(principles),
        labels=labels(principles),
        needs_verdicts=score_traits(prompt_id).demands_verdicts,
        truncated=reply.truncated,
        prompt_text=request_text(request),
    )
    return Trace(
        quadruple_id=quadruple_id,
        text=reply.text,
        outcome=_expectation(reading, reply, model) if expected else reading.outcome,
        model=model,
        prompt_id=prompt_id,
        temperature=request.sampling.temperature,
        seed=request.seed,
        num_tokens=reply.num_tokens,
        num_prompt_tokens=reply.num_prompt_tokens,
        seconds=reply.seconds,
    )


def _expectation(reading: Reading, reply: ChatReply, model: str) -> Outcome:
    outcome = reading.outcome
    if isinstance(outcome, ParseFailure):
        return outcome
    if not any(position.alternatives for position in reply.logprobs):
        raise BackendError(f"{model} gives {no_alternatives(reply)}; the expected score needs them; ask for it without `expected`")
    score = expected_score(reply.logprobs, outcome.score, reading.tags_behind)
    return ParseFailure("NO_SCORE", reply.text[-160:]) if score is None else Judgement(outcome.verdicts, score)
