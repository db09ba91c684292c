"""The JSON contract of `POST /edit-reward`, read strictly and beside the event loop; what goes wrong is `{"error": one line}`.

`schema.json` beside this file is the contract's published form; a test keeps them equal.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import pydantic_core
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.exceptions import HTTPException

from editr1.errors import BackendError, DataError, EditR1Error
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


# --- bodies in, errors out ------------------------------------------------------------------------------

M = TypeVar("M", bound=BaseModel)
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")  # what any page may send to any site


class WrongShapeError(EditR1Error):
    """JSON that is none of our requests."""


class BusyError(EditR1Error):
    """Nothing is wrong but the moment."""


def content_type(request: Request) -> str:
    """The kind of the body, in lower case and without parameters; "" where the client does not say."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request) -> bytes:
    """The body, which nobody but the caller then holds."""
    return b"".join([chunk async for chunk in request.stream()])


def parse(model: type[M], data: bytes) -> M:
    """The request that a body holds. Never says what was in it: that may be megabytes of pictures.

    Raises DataError for what is no JSON (NaN, Infinity and lone surrogates are none), WrongShapeError for JSON of another form.
    """
    try:
        value = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise DataError(f"the body is no JSON: {error}") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:60] for part in first["loc"]) or "the body"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise WrongShapeError(f"{place}: {first['msg']}{more}") from None


def answer_errors(app: FastAPI) -> None:
    """Every failure of the app as a status and one line under `error`."""
    for kind in (*_STATUS, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)


_STATUS: dict[type[Exception], int] = {WrongShapeError: 422, DataError: 400, BusyError: 429, BackendError: 503, TimeoutError: 504}


def _answer(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(str(part)[:60] for part in first['loc'])}: {first['msg']}"}, 422)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        return JSONResponse({"error": f"the service failed ({type(error).__name__}); its log has the traceback"}, 500)
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse({"error": str(error) or "the judge took too long; send smaller batches"}, status, headers)
