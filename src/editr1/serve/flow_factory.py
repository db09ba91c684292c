"""Flow-Factory's wire format: `POST /compute` with parallel lists; the answer is `{"rewards": [...]}` or `{"error": ...}`.

The format has no word for "unscored", so an answer with an unscored edit is an error for the whole batch: their client raises on it.
The class in `integrations/flow_factory.py` speaks `/edit-reward` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from editr1.errors import DataError
from editr1.schema import Reward
from editr1.serve.messages import MAX_ITEMS, MAX_SOURCES, MAX_TEXT
from editr1.serve.pictures import Draft, from_base64


class ComputeRequest(BaseModel):
    """What their remote client posts; video fields are taken and must be empty."""

    prompt: list[Annotated[str, Field(max_length=MAX_TEXT)]] = Field(max_length=MAX_ITEMS)
    image: list[str] | None = Field(None, max_length=MAX_ITEMS)
    condition_images: list[list[str]] | None = Field(None, max_length=MAX_ITEMS)
    video: list[list[str]] | None = None
    condition_videos: list[list[list[str]]] | None = None
    kwargs: dict[str, Any] | None = None


def to_drafts(request: ComputeRequest) -> list[Draft]:
    """The edits of the batch. Raises DataError for lists that do not fit, and where the sources are missing."""
    if request.video or request.condition_videos:
        raise DataError("videos are not judged here; send image and condition_images")
    edits, sources = request.image or [], request.condition_images or []
    if not len(request.prompt) == len(edits) == len(sources):
        raise DataError(
            f"{len(request.prompt)} prompts, {len(edits)} images and {len(sources)} condition_images: expected one of each a sample "
            "(add 'condition_images' to the client's required_fields)"
        )
    return [_item(number, *sample) for number, sample in enumerate(zip(request.prompt, edits, sources, strict=True))]


def _item(number: int, prompt: str, edited: str, sources: list[str]) -> Draft:
    if not 1 <= len(sources) <= MAX_SOURCES:
        raise DataError(f"condition_images[{number}] holds {len(sources)} images, expected 1 to {MAX_SOURCES}")
    found = tuple(from_base64(source, f"condition_images[{number}][{place}]") for place, source in enumerate(sources))
    return Draft(found, from_base64(edited, f"image[{number}]"), prompt)


def to_answer(rewards: Sequence[Reward]) -> dict[str, Any]:
    """Their response: every value in [0, 10], or an error that names the first unscored edit."""
    missing = [(number, reward.reason) for number, reward in enumerate(rewards) if not reward.scored]
    if missing:
        return {"error": f"{len(missing)} of {len(rewards)} edits are unscored; first: sample {missing[0][0]}, {missing[0][1]}"}
    return {"rewards": [reward.value for reward in rewards]}
