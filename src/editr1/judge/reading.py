"""From a reply to the trace that tables keep: the one place where Phi meets a request."""

from __future__ import annotations

from collections.abc import Sequence

from editr1.judge.parse import parse
from editr1.judge.prompts import labels, request_text, score_traits
from editr1.schema import Principle, Trace
from editr1.vlm.base import ChatReply, ChatRequest


def to_trace(
    quadruple_id: str, principles: Sequence[Principle], prompt_id: str, request: ChatRequest, reply: ChatReply, model: str
) -> Trace:
    """The reply with what Phi makes of it; a reply that cannot be read is a trace with a ParseFailure."""
    outcome = parse(
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
        outcome=outcome,
        model=model,
        prompt_id=prompt_id,
        temperature=request.sampling.temperature,
        seed=request.seed,
        num_tokens=reply.num_tokens,
        num_prompt_tokens=reply.num_prompt_tokens,
        seconds=reply.seconds,
    )
