"""How requests leave this machine and answers arrive: addresses, keys and what must be said of neither, proxies, time.

Nothing here knows what is asked. The proxy is the user's by the variables that everybody reads, and none to this machine.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import functools
import ipaddress
import logging
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from editr1.errors import ConfigError
from editr1.text import shown

_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
_HERE = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_SHORTEST_SECRET = 6  # ours: characters; servers without keys are given "none" or "EMPTY", which are words of messages


def check_address(address: str, name: str, example: str) -> None:
    """Raises ConfigError, naming the option `name`, for what is no http address."""
    expected = f"{name} {shown(address)!r} is no address; expected something like {example}"
    if not address.lower().startswith(("http://", "https://")):
        raise ConfigError(expected)
    if re.search(r"[\s\x00-\x1f\x7f]", address):
        raise ConfigError(f"{expected}, without spaces and line ends")
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, ValueError):  # whose words may be half a password
        raise ConfigError(expected) from None
    if not url.host or (url.port is not None and not 0 < url.port < 65536):
        raise ConfigError(expected)


def bearer(key: str | None, name: str) -> dict[str, str]:
    """The header that carries a key. Raises ConfigError, naming it and not showing it, for a key that no header can carry."""
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError(f"{name} holds a space, a line end or another character that no header can carry; was it copied whole?")
    return {"Authorization": f"Bearer {key}"} if key else {}


class Client:
    """Keeps its connections, by the user's proxy variables, and by none to this machine. Every process has its own: a forked one would
    wait for the event loop of its parent."""

    def __init__(self, address: str, timeout: float) -> None:
        """timeout: seconds of one exchange. Raises ConfigError for proxies that cannot be."""
        self.address, self.timeout = address, timeout
        self._made = {os.getpid(): _http_client(address, timeout)}

    def here(self) -> httpx.AsyncClient:
        process = os.getpid()
        if process not in self._made:
            self._made[process] = _http_client(self.address, self.timeout)
        return self._made[process]


def _http_client(address: str, timeout: float) -> httpx.AsyncClient:
    direct = not _proxied(address)
    try:
        # With trust_env off, httpx would forget SSL_CERT_FILE too, which is no proxy's business.
        verify = httpx.create_ssl_context() if direct and address.lower().startswith("https") else True
        return httpx.AsyncClient(timeout=timeout, limits=_LIMITS, follow_redirects=True, trust_env=not direct, verify=verify)
    except ImportError:
        raise ConfigError(
            f"{_proxy_names(address)} asks for a SOCKS proxy: pip install 'httpx[socks]' for it, or unset the variable"
        ) from None
    except (ValueError, httpx.InvalidURL):
        raise ConfigError(f"{_proxy_names(address)} is no proxy's address; expected something like http://host:3128") from None


class _Shown(logging.Filter):
    """httpx logs whole addresses."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(shown(str(part)) if isinstance(part, httpx.URL) else part for part in record.args)
        return True


logging.getLogger("httpx").addFilter(_Shown())


def via_proxy(address: str) -> str:
    """A clause that names the proxy variables in use for an address; empty where none is."""
    return f" through the proxy of {_proxy_names(address)}" if _proxied(address) else ""


def _proxied(address: str) -> bool:
    url = httpx.URL(address)
    return bool(_proxy_names(address)) and not _is_here(url.host) and not _spared(url)


def _is_here(host: str) -> bool:
    """Whether a host is this machine, by whatever name or number."""
    host = host.rstrip(".")
    if host in _HERE or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    number = _number(host)
    return number is not None and (number.is_loopback or number.is_unspecified)


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.ip_address(socket.inet_aton(host))  # 127.1 and the like
        except (OSError, ValueError):
            return None
    return getattr(number, "ipv4_mapped", None) or number


def _spared(url: httpx.URL) -> bool:
    """Whether NO_PROXY names the host: by name or suffix, with a port, by a star, or by a range of numbers."""
    if any(urllib.request.proxy_bypass(name) for name in (url.host, f"{url.host}:{url.port or {'http': 80}.get(url.scheme, 443)}")):
        return True
    number = _number(url.host)
    for entry in re.split(r"[,\s]+", os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""):
        if entry.startswith("*.") and url.host.endswith(entry[1:]):
            return True
        try:
            if number is not None and number in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def _proxy_names(address: str) -> str:
    known = (f"{httpx.URL(address).scheme}_proxy", "all_proxy")
    names = {name.upper() for name, value in os.environ.items() if name.lower() in known and value}
    return " and ".join(sorted(names))


def secrets_of(address: str, key: str | None) -> tuple[str, ...]:
    """What must stand in no message: key, password, and the parts of a query that say more than a version, also as they travel."""
    url = httpx.URL(address)
    user, _, password = url.userinfo.decode().partition(":")
    basic = base64.b64encode(f"{url.username}:{url.password}".encode()).decode() if url.userinfo else ""
    query = (value for name, value in url.params.multi_items() if "version" not in name.lower())
    found = {key or "", url.password, password, basic, "" if password else user, *query}
    return tuple(sorted((secret for secret in found if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True))


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret as ***; before it is shortened, for half a key is a secret too."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


@dataclass(frozen=True)
class Fetched:
    """An answer that has arrived whole."""

    status: int
    content: bytes
    text: str
    pause: float | None
    """Seconds that it asks to wait before the next try."""
    moved: str
    """Where a redirection led that lost the body of the request on the way; empty = nowhere."""


def fetch(client: Client, method: str, url: str, timeout: float | None, **content: Any) -> Fetched:
    """The answer, within `timeout` seconds (None = the client's own) from connecting to its last byte, redirections included.

    Safe in any thread. Raises httpx.RequestError.
    """
    with _STARTING:
        loop, own = _loop(os.getpid()), client.here()
    seconds = client.timeout if timeout is None else timeout
    return asyncio.run_coroutine_threadsafe(_exchange(own, method, url, seconds, content), loop).result()


async def _exchange(client: httpx.AsyncClient, method: str, url: str, seconds: float, content: dict[str, Any]) -> Fetched:
    try:
        # httpx bounds the wait for each next byte, so that headers or a body that dribble would never be late: the whole is bounded here.
        async with asyncio.timeout(seconds):
            reply = await client.request(method, url, timeout=seconds, **content)
    except TimeoutError:
        raise httpx.ReadTimeout(f"no whole answer within {seconds:g} seconds") from None
    milliseconds = retry_after(reply.headers.get("retry-after-ms"))
    pause = retry_after(reply.headers.get("retry-after")) if milliseconds is None else milliseconds / 1000
    moved = str(reply.url) if reply.history and reply.request.method != method else ""
    return Fetched(reply.status_code, reply.content, reply.content.decode(reply.encoding or "utf-8", "replace"), pause, moved)


_STARTING = threading.Lock()  # two threads that come first together would each start a loop, and a client belongs to one


@functools.cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """Where the exchanges of a process run: only an event loop can end one from outside, in whatever it is waiting."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="wire", daemon=True).start()
    return loop


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
    except (ValueError, OverflowError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
