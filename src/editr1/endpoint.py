"""What every client of an HTTP service shares: address, secrets and proxies, which failures pass, how long to wait, what to say.

429 and 5xx, timeouts, lost connections and cut JSON are tried again with growing pauses, or the pause that Retry-After names, over the
connection that is open already. What is still failing then raises BackendError with the address as the user gave it; a wrong setting does
at once, and is named. A refusal on account of the content is no failure of the machine: `Endpoint.post` raises `ContentRefusedError`,
and the caller turns it into data. No key, password or token stands in any message.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import tenacity

from editr1._server_errors import Complaint, complaint_in, complaint_of
from editr1.errors import BackendError, ConfigError, ContentRefusedError
from editr1.schema import derive_seed
from editr1.text import shown
from editr1.wire import Client, bearer, check_address, fetch, hidden, secrets_of, via_proxy

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"

_LONGEST_PAUSE = 60.0  # seconds; ours
_LONGEST_RETRY_AFTER = 300.0  # seconds; ours: a server that asks for more is down for the purpose of a run
_LIST_ATTEMPTS = 3
_STREAM = ("data:", "event:", "id:", ": ")


class CutReplyError(Exception):
    """The endpoint's answer is not complete. Raised by callers inside `Endpoint.post`, and tried again."""

    said = ""
    """How the answer begins."""


class _ComplaintError(Exception):
    def __init__(self, complaint: Complaint, pause: float | None = None) -> None:
        super().__init__(complaint.message)
        self.complaint, self.pause = complaint, complaint.pause if pause is None else pause


@dataclass(frozen=True)
class Endpoint:
    """A model at an address; made by `connect`. Safe to share between threads."""

    client: Client
    model: str
    address: str = field(repr=False)
    max_attempts: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def post(self, path: str, read: Callable[[dict[str, Any]], T], seed: int, **content: Any) -> T:
        """What `read` makes of the JSON object that answers, after as many tries as it takes; `seed` spreads the pauses.

        content: `json`, or `data` and `files`. Raises BackendError when the last try fails, ContentRefusedError for a refusal.
        """
        if "json" in content:
            content = {"content": json.dumps(content["json"]).encode(), "headers": {"Content-Type": "application/json"}}
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.max_attempts),
            retry=tenacity.retry_if_exception(_passes),
            wait=lambda state: _pause(state, seed),
            reraise=True,
        )
        try:
            return retrying(self._once, path, read, content)
        except _ComplaintError as error:
            if error.complaint.refusal:
                raise ContentRefusedError(self._without_secrets(error.complaint.message)) from None
            raise BackendError(self._explain(error)) from None
        except (httpx.RequestError, CutReplyError) as error:
            raise BackendError(self._explain(error)) from None

    def get(self, path: str, timeout: float) -> Any:
        """The JSON at a path; None where there is none. A server that is busy is asked a few times."""
        for attempt in range(_LIST_ATTEMPTS):
            time.sleep(min(attempt, _LONGEST_PAUSE))
            try:
                reply = fetch(self.client, "GET", self._url(path), timeout, headers=self.headers)
            except httpx.RequestError:
                continue
            if reply.status >= 400 and complaint_of(reply.status, "").passing:
                continue
            try:
                return json.loads(reply.content) if reply.status == 200 else None
            except (ValueError, RecursionError):  # a page for people
                return None
        return None

    def _once(self, path: str, read: Callable[[dict[str, Any]], T], content: dict[str, Any]) -> T:
        headers = {**self.headers, **content.get("headers", {})}
        reply = fetch(self.client, "POST", self._url(path), None, **{**content, "headers": headers})
        if reply.moved:
            raise BackendError(
                f"{self.model} at {shown(self.address)} is redirected to {shown(reply.moved)}, and the question is lost on the way; set "
                "base_url to where it leads"
            )
        if reply.status >= 400:
            raise _ComplaintError(complaint_of(reply.status, self._without_secrets(reply.text)), reply.pause)
        try:
            answer = json.loads(reply.content)
        except (ValueError, RecursionError) as error:
            text = self._without_secrets(reply.text)
            if text.lstrip().startswith(_STREAM):
                raise BackendError(
                    f"{self.model} at {shown(self.address)} answers with a stream of events, which nobody asked for "
                    f"({' '.join(text.split())[:200]}); say so there, or set extra_body to {{stream: false}}"
                ) from None
            if (complaint := complaint_of(0, text)).wrong_address:
                raise _ComplaintError(complaint) from error
            raise CutReplyError("the answer's JSON is cut or broken") from error
        if complaint_in(answer) is not None:
            said = complaint_in(json.loads(self._without_secrets(reply.text)))
            assert said is not None
            raise _ComplaintError(said, reply.pause)
        try:
            if not isinstance(answer, dict):
                raise CutReplyError("the answer is no JSON object")
            return read(answer)
        except CutReplyError as error:
            error.said = " ".join(self._without_secrets(reply.text).split())[:200]
            raise

    def _url(self, path: str) -> str:
        base, mark, query = self.address.partition("#")[0].partition("?")  # some gateways want an api-version
        return f"{base.rstrip('/')}{path}{mark}{query}"

    def _explain(self, error: Exception) -> str:
        return self._without_secrets(f"{self.model} at {shown(self.address)}: {self._reason(error)}")

    def _reason(self, error: Exception) -> str:
        tries = f", {self.max_attempts} times" if _passes(error) else ""
        if isinstance(error, httpx.TimeoutException):
            return f"no answer in time{tries}; raise timeout or lower max_concurrency"
        if isinstance(error, httpx.RequestError):
            return f"cannot connect{tries} ({error or type(error).__name__}){via_proxy(self.address)}; is the server running?"
        if not isinstance(error, _ComplaintError):
            said = getattr(error, "said", "")
            return f"{error}{tries}" + (f"; it begins with {said}" if said else "")
        complaint = error.complaint
        if complaint.status == 401 or (complaint.status == 403 and not complaint.hint):
            return f"refused the API key ({complaint.message}){via_proxy(self.address)}; set OPENAI_API_KEY or the option api_key"
        if complaint.no_credit:
            return f"no credit left ({complaint.message})"
        status = f"status {complaint.status or 200}"
        if complaint.wrong_address:
            named = "not found (404" if complaint.status == 404 else f"no model answers here ({status}"
            return f"{named}: {complaint.message}); does the address end in /v1, and is the model served there?"
        hint = f"; {complaint.hint}" if complaint.hint else ""
        return f"{status}{tries} ({complaint.message}){via_proxy(self.address)}{hint}"

    def _without_secrets(self, text: str) -> str:
        return hidden(text, self.secrets)


def connect(model: str, base_url: str | None, api_key: str | None, timeout: float, max_attempts: int) -> Endpoint:
    """The endpoint; nothing is sent yet. Defaults come from OPENAI_BASE_URL and OPENAI_API_KEY. Raises ConfigError for what cannot work."""
    address = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    check_address(address, "base_url", "http://localhost:8000/v1")
    if max_attempts < 1 or timeout <= 0:
        raise ConfigError("max_attempts must be at least 1, timeout above 0")
    key = api_key or os.environ.get("OPENAI_API_KEY")
    if not key and address.startswith(OPENAI_URL):
        raise ConfigError(f"{address} needs an API key: set OPENAI_API_KEY, or give base_url for a server of your own")
    headers = bearer(key, "the API key (OPENAI_API_KEY, or the option api_key)")
    return Endpoint(Client(address, timeout), model, address, max_attempts, headers, secrets_of(address, key))


def _passes(error: BaseException) -> bool:
    if isinstance(error, _ComplaintError):
        return error.complaint.passing
    lasting = isinstance(error, (httpx.TooManyRedirects, httpx.UnsupportedProtocol))
    return isinstance(error, (httpx.RequestError, CutReplyError)) and not lasting


def _pause(state: tenacity.RetryCallState, seed: int) -> float:
    """Seconds until the next try: what the server asks for, else doubling with a spread that the request's seed decides."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _ComplaintError) and error.pause is not None:
        return min(error.pause, _LONGEST_RETRY_AFTER)
    spread = 0.5 + derive_seed(seed, state.attempt_number) / 2**32  # in [0.5, 1): waiting clients must not come back at once
    return min(2.0 ** (state.attempt_number - 1), _LONGEST_PAUSE) * spread
