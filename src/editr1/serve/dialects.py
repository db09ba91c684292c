"""Other trainers' JSON.

UniRL: `POST /score`, a list of histories; the last turn holds the edit, those before it the source, or several. The answer keeps
"overall" first, for their client takes the first sub-metric; an unscored edit stands in `errors`, and the step stops there.
Flow-Factory: `POST /compute`, parallel lists. It has no word for "unscored": one such edit makes the answer an error, on which their
client raises. The class in `integrations/flow_factory.py` speaks `/edit-reward` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from editr1.errors import DataError
from editr1.schema import Reward
from editr1.serve.messages import MAX_ITEMS, MAX_SOURCES, MAX_TEXT
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


def unirl_drafts(request: ScoreRequest) -> list[Draft]:
    """The edits of the batch. Raises DataError for a reward that is not served here, and for a sample without both pictures."""
    return [_unirl_draft(number, item) for number, item in enumerate(request.requests)]


def _unirl_draft(number: int, item: ScoreItem) -> Draft:
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


def unirl_answer(who: Sequence[dict[str, Any]], rewards: Sequence[Reward]) -> dict[str, Any]:
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


class ComputeRequest(BaseModel):
    """What their remote client posts; video fields are taken and must be empty."""

    prompt: list[Annotated[str, Field(max_length=MAX_TEXT)]] = Field(max_length=MAX_ITEMS)
    image: list[str] | None = Field(None, max_length=MAX_ITEMS)
    condition_images: list[list[str]] | None = Field(None, max_length=MAX_ITEMS)
    video: list[list[str]] | None = None
    condition_videos: list[list[list[str]]] | None = None
    kwargs: dict[str, Any] | None = None


def flow_factory_drafts(request: ComputeRequest) -> list[Draft]:
    """The edits of the batch. Raises DataError for lists that do not fit, and where the sources are missing."""
    if request.video or request.condition_videos:
        raise DataError("videos are not judged here; send image and condition_images")
    edits, sources = request.image or [], request.condition_images or []
    if not len(request.prompt) == len(edits) == len(sources):
        raise DataError(
            f"{len(request.prompt)} prompts, {len(edits)} images and {len(sources)} condition_images: expected one of each a sample "
            "(add 'condition_images' to the client's required_fields)"
        )
    return [_flow_factory_draft(number, *sample) for number, sample in enumerate(zip(request.prompt, edits, sources, strict=True))]


def _flow_factory_draft(number: int, prompt: str, edited: str, sources: list[str]) -> Draft:
    if not 1 <= len(sources) <= MAX_SOURCES:
        raise DataError(f"condition_images[{number}] holds {len(sources)} images, expected 1 to {MAX_SOURCES}")
    found = tuple(from_base64(source, f"condition_images[{number}][{place}]") for place, source in enumerate(sources))
    return Draft(found, from_base64(edited, f"image[{number}]"), prompt)


def flow_factory_answer(rewards: Sequence[Reward]) -> dict[str, Any]:
    """Their response: every value in [0, 10], or an error that names the first unscored edit."""
    missing = [(number, reward.reason) for number, reward in enumerate(rewards) if not reward.scored]
    if missing:
        return {"error": f"{len(missing)} of {len(rewards)} edits are unscored; first: sample {missing[0][0]}, {missing[0][1]}"}
    return {"rewards": [reward.value for reward in rewards]}
