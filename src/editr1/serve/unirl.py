"""UniRL's wire format: `POST /score`, a list of histories; the last turn holds the edit, those before it the source, or several.

The answer keeps "overall" first, for their client reduces a reward's sub-metrics by taking the first. An unscored edit stands in
`errors` and not in `results`: their client then marks the sample as failed and the step stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from editr1.errors import DataError
from editr1.schema import Reward
from editr1.serve.messages import MAX_ITEMS, MAX_TEXT
from editr1.serve.pictures import Draft, from_base64

REWARD = "editrrm"
IDENTITY = ("request_id", "sample_id", "group_id", "source_rank", "policy_version", "scorer_version", "idempotency_key")


class Turn(BaseModel):
    """One step of a sample's history."""

    text: str = Field("", max_length=MAX_TEXT)
    image_b64: str | None = None


class ScoreItem(BaseModel):
    """One sample. Their newer clients add who they are; it is echoed."""

    history: list[Turn] = Field(max_length=16)
    required_rewards: list[str] = Field(default_factory=lambda: [REWARD])
    metadata: dict[str, Any] | None = None
    request_id: str | None = None
    sample_id: str | None = None
    group_id: str | None = None
    source_rank: int | None = None
    policy_version: int | None = None
    scorer_version: str | None = None
    idempotency_key: str | None = None


class ScoreRequest(BaseModel):
    """A batch."""

    requests: list[ScoreItem] = Field(max_length=MAX_ITEMS)
    protocol_version: str = "1"


def to_drafts(request: ScoreRequest) -> list[Draft]:
    """The edits of the batch. Raises DataError for a reward that is not served here, and for a sample without both pictures."""
    return [_item(number, item) for number, item in enumerate(request.requests)]


def _item(number: int, item: ScoreItem) -> Draft:
    unknown = sorted(set(item.required_rewards) - {REWARD})
    if unknown:
        raise DataError(f"requests[{number}]: reward {unknown[0][:40]!r} is not served here; this service serves {REWARD!r}")
    pictures = [turn.image_b64 for turn in item.history]
    if len(pictures) < 2 or None in pictures:
        raise DataError(
            f"requests[{number}]: an edit needs at least two turns with an image each, sources and edit; found {len(pictures)} turns"
        )
    *sources, edited = (from_base64(str(text), f"requests[{number}].history[{turn}]") for turn, text in enumerate(pictures))
    return Draft(tuple(sources), edited, item.history[-1].text or item.history[0].text)


def identities(request: ScoreRequest) -> list[dict[str, Any]]:
    """Who the samples say they are."""
    return [{name: getattr(item, name) for name in IDENTITY} for item in request.requests]


def to_answer(who: Sequence[dict[str, Any]], rewards: Sequence[Reward]) -> dict[str, Any]:
    """Their response: results, errors and identities, one entry a sample."""
    return {
        "protocol_version": "1",
        "results": [{REWARD: sub_metrics(reward)} if reward.scored else {} for reward in rewards],
        "errors": [{} if reward.scored else {REWARD: f"unscored: {reward.reason}"} for reward in rewards],
        "identities": list(who),
    }


def sub_metrics(reward: Reward) -> dict[str, float]:
    """The score in [0, 10], then the share of satisfied principles of each category."""
    assert reward.value is not None
    return {"overall": reward.value, **reward.category_means}
