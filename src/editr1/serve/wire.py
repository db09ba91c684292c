"""Bodies in and errors out: JSON is read strictly and beside the event loop, and whatever goes wrong is `{"error": one line}`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pydantic_core
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from editr1.errors import BackendError, DataError, EditR1Error

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
    kinds: list[tuple[type[Exception], int]] = [
        (WrongShapeError, 422),
        (DataError, 400),
        (BusyError, 429),
        (BackendError, 503),
        (TimeoutError, 504),
    ]
    for kind, status in kinds:
        app.add_exception_handler(kind, _handler(status))
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _bug)


def _handler(status: int) -> Callable[[Request, Exception], Response]:
    def handle(_: Request, error: Exception) -> Response:
        headers = {"Retry-After": "1"} if status in (429, 503) else None
        return JSONResponse({"error": str(error) or "the judge took too long; send smaller batches"}, status, headers)

    return handle


def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(str(part)[:60] for part in first['loc'])}: {first['msg']}"}, 422)


def _bug(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"the service failed ({type(error).__name__}); its log has the traceback"}, 500)
