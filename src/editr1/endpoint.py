"""What every client of an HTTP service shares: address, secrets and proxies, which failures pass, how long to wait, what to say.

429 and 5xx, timeouts, lost connections and cut JSON are tried again with growing pauses, or the pause that Retry-After names, over the
connection that is open already. What is still failing then raises BackendError with the address as the user gave it; a wrong setting does
at once, and is named. A refusal on account of the content is no failure of the machine: `Endpoint.post` raises `ContentRefusedError`,
and the caller turns it into data. No key, password or token stands in any message.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import tenacity

from editr1._server_errors import Complaint, complaint_in, complaint_of
from editr1.errors import BackendError, ConfigError, ContentRefusedError
from editr1.schema import derive_seed

T = TypeVar("T")

OPENAI_URL = "https://api.openai.com/v1"

_LONGEST_PAUSE = 60.0  # seconds; ours
_LONGEST_RETRY_AFTER = 300.0  # seconds; ours: a server that asks for more is down for the purpose of a run
_SHORTEST_SECRET = 6  # ours: characters; servers without keys are given "none" or "EMPTY", which are words of messages
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)


class CutReplyError(Exception):
    """The endpoint's answer is not complete. Raised by callers inside `Endpoint.post`, and tried again."""


class _ComplaintError(Exception):
    def __init__(self, complaint: Complaint, retry_after: float | None = None) -> None:
        super().__init__(complaint.message)
        self.complaint, self.retry_after = complaint, retry_after


@dataclass(frozen=True)
class Endpoint:
    """A model at an address; made by `connect`. Safe to share between threads."""

    client: httpx.Client
    model: str
    address: str
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
        """The JSON at a path, asked for once; None where there is none."""
        try:
            reply = self.client.get(self._url(path), headers=self.headers, timeout=timeout)
            return reply.json() if reply.status_code == 200 else None
        except (httpx.RequestError, ValueError, RecursionError):
            return None

    def _once(self, path: str, read: Callable[[dict[str, Any]], T], content: dict[str, Any]) -> T:
        headers = {**self.headers, **content.get("headers", {})}
        reply = self.client.post(self._url(path), **{**content, "headers": headers})
        if reply.status_code >= 400:
            raise _ComplaintError(complaint_of(reply.status_code, reply.text), retry_after(reply.headers.get("retry-after")))
        try:
            answer = json.loads(reply.content)
        except (ValueError, RecursionError) as error:
            if (complaint := complaint_of(0, reply.text)).wrong_address:
                raise _ComplaintError(complaint) from error
            raise CutReplyError("the answer's JSON is cut or broken") from error
        if (said := complaint_in(answer)) is not None:
            raise _ComplaintError(said)
        if not isinstance(answer, dict):
            raise CutReplyError("the answer is no JSON object")
        return read(answer)

    def _url(self, path: str) -> str:
        base, mark, query = self.address.partition("?")  # some gateways want an api-version
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
            return f"{error}{tries}"
        complaint = error.complaint
        if complaint.status in (401, 403):
            return f"refused the API key ({complaint.message}); set OPENAI_API_KEY or the option api_key"
        if complaint.no_credit:
            return f"no credit left ({complaint.message})"
        status = f"status {complaint.status or 200}"
        if complaint.wrong_address:
            named = "not found (404" if complaint.status == 404 else f"no model answers here ({status}"
            return f"{named}: {complaint.message}); does the address end in /v1, and is the model served there?"
        hint = f"; {complaint.hint}" if complaint.hint else ""
        return f"{status}{tries} ({complaint.message}){hint}"

    def _without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


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
    url = httpx.URL(address)
    secrets = tuple(secret for secret in (key, url.password, *url.params.values()) if secret and len(secret) >= _SHORTEST_SECRET)
    return Endpoint(http_client(address, timeout), model, address, max_attempts, headers, secrets)


def check_address(address: str, name: str, example: str) -> None:
    """Raises ConfigError, naming the option `name`, for what is no http address."""
    expected = f"{name} {shown(address)!r} is no address; expected something like {example}"
    if not address.startswith(("http://", "https://")):
        raise ConfigError(expected)
    if re.search(r"[\s\x00-\x1f\x7f]", address):
        raise ConfigError(f"{expected}, without spaces and line ends")
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(f"{expected} ({error})") from None
    if not url.host or (url.port is not None and not 0 < url.port < 65536):
        raise ConfigError(expected)


def bearer(key: str | None, name: str) -> dict[str, str]:
    """The header that carries a key. Raises ConfigError, naming it and not showing it, for a key that no header can carry."""
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError(f"{name} holds a space, a line end or another character that no header can carry; was it copied whole?")
    return {"Authorization": f"Bearer {key}"} if key else {}


def http_client(address: str, timeout: float) -> httpx.Client:
    """A client that keeps its connections, by the user's proxy variables, and by none to this machine. Raises ConfigError for bad ones."""
    direct = not _proxied(address)
    try:
        # With trust_env off, httpx would forget SSL_CERT_FILE too, which is no proxy's business.
        verify = httpx.create_ssl_context() if direct and address.startswith("https") else True
        return httpx.Client(timeout=timeout, limits=_LIMITS, follow_redirects=True, trust_env=not direct, verify=verify)
    except ImportError:
        raise ConfigError(
            f"{_proxy_names(address)} asks for a SOCKS proxy: pip install 'httpx[socks]' for it, or unset the variable"
        ) from None
    except (ValueError, httpx.InvalidURL) as error:
        what = re.sub(r"//[^/@\s]*@", "//***@", str(error))
        raise ConfigError(f"{_proxy_names(address)} is no proxy's address ({what}); expected something like http://host:3128") from None


def shown(address: str) -> str:
    """An address without the password or key in it.

    >>> shown("https://me:secret@host/v1?api-key=abc")
    'https://***@host/v1?***'
    """
    return re.sub(r"\?.*", "?***", re.sub(r"//[^/@]*@", "//***@", address), flags=re.DOTALL)


def via_proxy(address: str) -> str:
    """A clause that names the proxy variables in use for an address; empty where none is."""
    return f" through the proxy of {_proxy_names(address)}" if _proxied(address) else ""


def _proxied(address: str) -> bool:
    host = httpx.URL(address).host
    try:
        here = ipaddress.ip_address(host)
        local = here.is_loopback or here.is_unspecified
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
    return bool(_proxy_names(address)) and not local and not urllib.request.proxy_bypass(host)


def _proxy_names(address: str) -> str:
    known = (f"{httpx.URL(address).scheme}_proxy", "all_proxy")
    names = {name.upper() for name, value in os.environ.items() if name.lower() in known and value}
    return " and ".join(sorted(names))


def _passes(error: BaseException) -> bool:
    return error.complaint.passing if isinstance(error, _ComplaintError) else isinstance(error, (httpx.RequestError, CutReplyError))


def _pause(state: tenacity.RetryCallState, seed: int) -> float:
    """Seconds until the next try: what the server asks for, else doubling with a spread that the request's seed decides."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _ComplaintError) and error.retry_after is not None:
        return min(error.retry_after, _LONGEST_RETRY_AFTER)
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
        seconds = float(header)
        return max(0.0, seconds) if seconds < float("inf") else None  # false for nan
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
