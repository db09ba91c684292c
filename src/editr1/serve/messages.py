"""The JSON contract of `POST /edit-reward`. `schema.json` beside this file is its published form; a test keeps them equal."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from editr1.schema import MAX_SCORE, Principle, Reward

MAX_ITEMS = 256  # ours: a training step's share of one rank; more belongs into several requests
MAX_PRINCIPLES = 64
MAX_SOURCES = 16
MAX_TEXT = 10_000


class Message(BaseModel):
    """A misspelt key is an error and not a default."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        """One error however many keys are unknown, and none of them repeated: a body may hold a million."""
        unknown = len(value.keys() - cls.model_fields.keys()) if isinstance(value, dict) else 0
        if unknown:
            raise ValueError(f"{unknown} unknown key{'s' * (unknown > 1)}; known are {', '.join(cls.model_fields)}")
        return value


class Picture(Message):
    """Exactly one of the two."""

    base64: str | None = Field(None, description="PNG, JPEG or WebP bytes in base64, with or without a data-URI head")
    path: str | None = Field(None, description="file below the root that the service was started with (--root)")

    @model_validator(mode="after")
    def _one(self) -> Picture:
        if (self.base64 is None) == (self.path is None):
            raise ValueError("give exactly one of base64 and path")
        return self


class Question(Message):
    """A principle."""

    question: str = Field(max_length=MAX_TEXT)
    category: Literal["follow", "keep", "quality"]

    def principle(self) -> Principle:
        return Principle(self.question, self.category)


class Edit(Message):
    """One edit to judge."""

    source: Picture | None = Field(None, description="the source picture; or else `sources`")
    sources: list[Picture] | None = Field(None, min_length=1, max_length=MAX_SOURCES, description="several, as the instruction counts them")
    edited: Picture
    instruction: str = Field(min_length=1, max_length=MAX_TEXT)
    principles: list[Question] | None = Field(None, max_length=MAX_PRINCIPLES, description="null: the service decomposes, if it can")

    @model_validator(mode="after")
    def _one(self) -> Edit:
        if (self.source is None) == (self.sources is None):
            raise ValueError("give exactly one of source and sources")
        return self


class RewardRequest(Message):
    """A batch."""

    items: list[Edit] = Field(min_length=1, max_length=MAX_ITEMS)
    seed: int = Field(0, ge=0, lt=2**31, description="equal requests with equal seeds get equal answers from a local judge")


class PrincipleResult(Message):
    """What the traces said about one principle."""

    question: str
    category: Literal["follow", "keep", "quality"]
    rate: float = Field(ge=0, le=1, description="share of parsed traces that say yes")


class RewardResult(Message):
    """One edit's reward. `value` is null when unscored, and `reason` says why; nothing stands in for a missing value."""

    value: float | None = Field(ge=0, le=MAX_SCORE)
    reason: str | None
    categories: dict[str, float] = Field(description="mean rate by category, for categories with principles")
    principles: list[PrincipleResult]
    num_valid: int
    num_traces: int
    tokens: int = Field(description="generated tokens of all traces")
    seconds: float = Field(description="sum of the traces' latencies as the backend reports them; 0 where it does not")


class RewardResponse(Message):
    """In the order of the request's items."""

    results: list[RewardResult]
    model: str
    prompt: str


def to_result(reward: Reward) -> RewardResult:
    """The wire form of a reward. A judge that states no verdicts has no rates, and its principles then say nothing."""
    rows = zip(reward.principles, reward.rates, strict=True) if reward.rates else ()
    return RewardResult(
        value=reward.value,
        reason=reward.reason,
        categories=reward.category_means,
        principles=[PrincipleResult(question=asked.question, category=asked.category, rate=rate) for asked, rate in rows],
        num_valid=reward.num_valid,
        num_traces=reward.num_traces,
        tokens=reward.num_tokens,
        seconds=reward.seconds,
    )


def published_schema() -> dict[str, Any]:
    """JSON schemas of request and response."""
    return {"request": RewardRequest.model_json_schema(), "response": RewardResponse.model_json_schema()}
