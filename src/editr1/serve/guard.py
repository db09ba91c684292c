"""What every page and service of this package checks before it reads a request: host, token, size, pace.

One ASGI layer around any app, so that a route cannot forget it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from editr1.errors import ConfigError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "editr1_token"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of a service."""

    max_body: int = 64_000_000
    """Bytes. ours: a batch of sixteen edits of one megapixel as base64 PNG fits."""
    body_seconds: float = 30.0
    """Seconds until a request's body must have arrived; a slower client is sent away."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service bound to `host`.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Raises ConfigError for an address that others can reach without a token."""
    if not is_loopback(host) and not token:
        raise ConfigError(f"--host {host} can be reached from other machines; set --token SECRET, or bind 127.0.0.1")


class Guard:
    """Wraps an ASGI app. Refuses with 400 (foreign host), 401 (token), 408 (slow body) and 413 (large body), as JSON with `error`.

    On loopback the Host header must name this machine: a page of another site that resolves its own name to 127.0.0.1 is refused.
    """

    def __init__(self, app: App, *, token: str | None, loopback: bool, limits: Limits | None = None) -> None:
        self.app = app
        self.token = token
        self.loopback = loopback
        self.limits = limits or Limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self.loopback and not _names_loopback(headers.get("host", "")):
            await refuse(send, 400, "this service answers on this machine only; use http://127.0.0.1")
            return
        if self.token is not None and not self._knows_token(scope, headers):
            await refuse(send, 401, "wrong or missing token; send the header 'Authorization: Bearer TOKEN'")
            return
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.limits.max_body:
            await refuse(send, 413, f"the body has {length} bytes, the limit is {self.limits.max_body}; send smaller batches")
            return
        await self._with_whole_body(scope, receive, send)

    def _knows_token(self, scope: Scope, headers: MutableMapping[str, str]) -> bool:
        given = [headers.get("authorization", "").removeprefix("Bearer ")]
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        given += [cookie.value] if cookie else []
        if scope["method"] == "GET" and scope["path"] == "/":  # a link for a person; the page trades it for a cookie
            given += parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        assert self.token is not None
        return any(hmac.compare_digest(token.encode(), self.token.encode()) for token in given)

    async def _with_whole_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await asyncio.wait_for(self._read(receive), self.limits.body_seconds)
        except TimeoutError:
            await refuse(send, 408, f"the body did not arrive within {self.limits.body_seconds:g} seconds")
            return
        if body is None:
            await refuse(send, 413, f"the body is longer than the limit of {self.limits.max_body} bytes; send smaller batches")
            return
        handed_over = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal handed_over
            if handed_over:
                return await receive()
            handed_over = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body; None when it grows past the limit (a chunked body announces no length)."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self.limits.max_body:
                return None
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def _names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name in LOOPBACK_NAMES


async def refuse(send: Send, status: int, message: str) -> None:
    """An answer of the form {"error": message}; the connection is closed, for unread bytes may be on it."""
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
