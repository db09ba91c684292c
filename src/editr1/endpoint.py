"""What every client of an OpenAI-compatible endpoint shares: the address and the key, which failures pass, how long to wait, what to say.

429 and 5xx, timeouts, lost connections and cut JSON are tried again with growing pauses, or the pause that Retry-After names. What is
still failing then raises BackendError with the address as the user gave it. A refusal on account of the content is no failure of
the machine: `Endpoint.call` raises `ContentRefusedError`, and the caller turns it into data.
"""

from __future__ import annotations

import email.utils
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import openai
import tenacity

from editr1.errors import BackendError, ConfigError, ContentRefusedError
from editr1.schema import derive_seed

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"

_LONGEST_PAUSE = 60.0  # seconds; ours
_LONGEST_RETRY_AFTER = 300.0  # seconds; ours: a server that asks for more is down for the purpose of a run
_REFUSALS = ("content_filter", "content_policy_violation", "moderation_blocked", "invalid_prompt", "context_length_exceeded")


class CutReplyError(Exception):
    """The endpoint's answer is not complete. Raised by callers inside `Endpoint.call`, and tried again."""


_RETRIED = (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError, openai.ConflictError, CutReplyError)


@dataclass(frozen=True)
class Endpoint:
    """A model at an address, behind the official client; made by `connect`."""

    client: openai.OpenAI
    model: str
    address: str
    max_attempts: int

    def call(self, once: Callable[[], T], seed: int) -> T:
        """What `once` returns, after as many tries as it takes; `seed` spreads the pauses.

        Raises BackendError when the last try fails, ContentRefusedError when the content is refused.
        """
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.max_attempts),
            retry=tenacity.retry_if_exception_type(_RETRIED),
            wait=lambda state: _pause(state, seed),
            reraise=True,
        )
        try:
            return retrying(_whole, once)
        except openai.APIStatusError as error:
            refusal = _refusal(error)
            if refusal is not None:
                raise ContentRefusedError(refusal) from error
            raise BackendError(self._complaint(error)) from error
        except (openai.APIConnectionError, CutReplyError) as error:
            raise BackendError(self._complaint(error)) from error

    def _complaint(self, error: Exception) -> str:
        where = f"{self.model} at {self.address}"
        if isinstance(error, openai.APITimeoutError):
            return f"{where}: no answer in time, {self.max_attempts} times; raise timeout or lower max_concurrency"
        if isinstance(error, openai.APIConnectionError):
            cause = str(error.__cause__ or error)
            return f"{where}: cannot connect, {self.max_attempts} times ({cause}); is the server running?"
        if isinstance(error, openai.NotFoundError):
            return f"{where}: not found (404: {_message(error)}); does the address end in /v1, and is the model served there?"
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return f"{where}: refused the API key ({_message(error)}); set OPENAI_API_KEY or the option api_key"
        if isinstance(error, openai.APIStatusError):
            tries = f", {self.max_attempts} times" if isinstance(error, _RETRIED) else ""
            return f"{where}: status {error.status_code}{tries} ({_message(error)})"
        return f"{where}: {error}, {self.max_attempts} times"


def connect(model: str, base_url: str | None, api_key: str | None, timeout: float, max_attempts: int) -> Endpoint:
    """The endpoint; nothing is sent yet. Defaults come from OPENAI_BASE_URL and OPENAI_API_KEY. Raises ConfigError for what cannot work."""
    address = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"base_url {address!r} is no address; expected something like http://localhost:8000/v1")
    if max_attempts < 1 or timeout <= 0:
        raise ConfigError("max_attempts must be at least 1, timeout above 0")
    key = api_key or os.environ.get("OPENAI_API_KEY")
    if not key and address.startswith(OPENAI_URL):
        raise ConfigError(f"{address} needs an API key: set OPENAI_API_KEY, or give base_url for a server of your own")
    return Endpoint(openai.OpenAI(base_url=address, api_key=key or "none", timeout=timeout, max_retries=0), model, address, max_attempts)


def _whole(once: Callable[[], T]) -> T:
    try:
        return once()
    except (json.JSONDecodeError, openai.APIResponseValidationError) as error:
        raise CutReplyError("the answer's JSON is cut or broken") from error


def _pause(state: tenacity.RetryCallState, seed: int) -> float:
    """Seconds until the next try: what the server asks for, else doubling with a spread that the request's seed decides."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, openai.APIStatusError) and (asked := retry_after(error.response.headers.get("retry-after"))) is not None:
        return min(asked, _LONGEST_RETRY_AFTER)
    spread = 0.5 + derive_seed(seed, state.attempt_number) / 2**32  # in [0.5, 1): waiting clients must not come back at once
    return min(2.0 ** (state.attempt_number - 1), _LONGEST_PAUSE) * spread


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; it holds seconds or a date. None when absent or unreadable.

    >>> retry_after("1.5"), retry_after("soon")
    (1.5, None)
    """
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _refusal(error: openai.APIStatusError) -> str | None:
    """Why the endpoint will not judge this content; None when the request failed for another reason."""
    if error.status_code not in (400, 413):
        return None
    stated = f"{error.code or ''} {error.type or ''} {_message(error)}".lower()
    long_prompt = "context length" in stated or "too many tokens" in stated or "max_model_len" in stated
    return _message(error) if long_prompt or any(code in stated for code in _REFUSALS) else None


def _message(error: openai.APIStatusError) -> str:
    return " ".join(str(error.message).split())[:300]
