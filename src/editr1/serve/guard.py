"""What every page and service of this package checks before it reads a request: host, origin, token, size, pace, room.

One ASGI layer around any app, so that a route cannot forget it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from editr1.errors import ConfigError
from editr1.wire import bearer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "editr1_token"
SMALL_BODY = (
    4_000_000  # ours: bytes; two pictures of a megapixel. Small bodies have room of their own, so that large ones cannot crowd them out
)
ONCE = ("host", "origin", "sec-fetch-site", "authorization", "content-type", "content-encoding")
"""Headers that are read here or in the app; of two the one would be checked and the other obeyed."""
MIN_RATE = 200_000  # ours: bytes a second below which a body is sent away, but only while others wait for its room


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of a service."""

    max_body: int = 64_000_000
    """Bytes. ours: a batch of sixteen edits of one megapixel as base64 PNG fits."""
    body_seconds: float = 30.0
    """Seconds until a request's body must have arrived; a slower client is sent away."""
    max_held: int = 256_000_000
    """Bytes of bodies held at once, from the first byte to the answer; half of it for small bodies. More wait their turn, unread."""
    room_seconds: float = 120.0
    """Seconds until a request that waits for that room is answered with 429."""
    max_marks: int = 500_000
    """ours: quotes, commas and brackets of a JSON body. 256 edits with 64 principles have 200,000, a million unknown keys more."""
    max_picture_pixels: int = 25_000_000
    """ours: more than any editor makes; a flat picture of 49 megapixels is a file of 200 kB and 150 MB in memory."""
    max_request_pixels: int = 200_000_000
    """Pixels of all pictures of one request."""


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
    """Raises ConfigError for an address that others can reach without a token, and for a token that no header can carry."""
    bearer(token, "--token")
    if not is_loopback(host) and not token:
        raise ConfigError(f"--host {host} can be reached from other machines; set --token SECRET, or bind 127.0.0.1")


class Room:
    """Bytes that may be held at once, given out first come first served."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def contended(self) -> bool:
        return bool(self._queue)

    async def take(self, count: int) -> None:
        """Returns once `count` bytes, at most `size`, are the caller's."""
        if not self._queue and count <= self.free:
            self.free -= count
            return
        entry = (count, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry in self._queue:
                self._queue.remove(entry)
                self.give(0)
            else:  # granted in the moment of giving up
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Takes bytes back, and hands them to those who wait."""
        self.free += count
        while self._queue and self._queue[0][0] <= self.free:
            wanted, future = self._queue.popleft()
            self.free -= wanted
            if not future.done():
                future.set_result(None)


class Guard:
    """Wraps an ASGI app. Refuses as JSON with `error`: 400 (foreign host, doubled header), 401 (token), 403 (foreign page), 408 (slow
    body), 413 (large body), 429 (no room). A client that leaves cancels its request.

    On loopback the Host header must name this machine, and an Origin header the same: a page of another site neither resolves its own
    name to 127.0.0.1 nor sends requests across. Elsewhere the token is what a foreign page lacks.
    """

    def __init__(self, app: App, *, token: str | None, loopback: bool, limits: Limits | None = None) -> None:
        self.app = app
        self.token = token
        self.loopback = loopback
        self.limits = limits or Limits()
        self._small, self._large = (Room(max(self.limits.max_held // 2, self.limits.max_body)) for _ in range(2))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        names = [name.decode("latin-1").lower() for name, _ in scope["headers"]]
        if doubled := next((name for name in ONCE if names.count(name) > 1), None):
            await refuse(send, 400, f"the header {doubled} stands twice; send it once")
            return
        headers = dict(zip(names, (value.decode("latin-1") for _, value in scope["headers"]), strict=True))
        if problem := self._problem(scope, headers):
            await refuse(send, *problem)
            return
        # A body of unknown length takes the room of the largest, whatever length is announced beside its chunks.
        length = self.limits.max_body if "transfer-encoding" in headers else int(headers.get("content-length", 0))
        room = self._small if length <= SMALL_BODY else self._large
        try:
            await asyncio.wait_for(room.take(length), self.limits.room_seconds)
        except TimeoutError:
            await refuse(send, 429, "too many bytes of other requests are held; try again in a second")
            return
        try:
            await self._with_whole_body(scope, receive, send, room, headers.get("content-type", "").lower())
        finally:
            room.give(length)

    def _problem(self, scope: Scope, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        if self.loopback:
            host = headers.get("host", "").lower()
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name.removeprefix("[").removesuffix("]")):
                return 400, "this service answers on this machine only; use http://127.0.0.1"
            if "origin" in headers and headers["origin"].partition("://")[2].lower() != host:
                return 403, "a page of another site may not use this service"
            if scope["path"] != "/" and headers.get("sec-fetch-site") == "cross-site":
                return 403, "a page of another site may not use this service"
        if self.token is not None and not self._knows_token(scope, headers):
            return 401, "wrong or missing token; send the header 'Authorization: Bearer TOKEN'"
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > self.limits.max_body:
            return 413, f"the body has {length[:20]} bytes, the limit is {self.limits.max_body}; send smaller batches"
        if headers.get("content-encoding", "identity").lower() != "identity":
            return 415, "the body is packed (Content-Encoding); send it as it is"
        return None

    def _knows_token(self, scope: Scope, headers: MutableMapping[str, str]) -> bool:
        scheme, _, word = headers.get("authorization", "").partition(" ")
        given = [word.strip() if scheme.lower() == "bearer" else scheme]
        cookie = read_cookie(headers.get("cookie", ""), COOKIE)
        given += [cookie] if cookie else []
        if scope["method"] == "GET" and scope["path"] == "/":  # a link for a person; the page trades it for a cookie
            given += parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        assert self.token is not None
        return any(hmac.compare_digest(token.encode(), self.token.encode()) for token in given)

    async def _with_whole_body(self, scope: Scope, receive: Receive, send: Send, room: Room, kind: str) -> None:
        body = await self._read(receive, room, kind)
        if not isinstance(body, list):
            await refuse(send, *body)
            return
        gone = asyncio.Event()

        async def replay() -> MutableMapping[str, Any]:
            if body:
                whole = b"".join(body)
                body.clear()  # the app has it now; a second copy would live until the answer
                return {"type": "http.request", "body": whole, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        work, watcher = asyncio.ensure_future(self.app(scope, replay, send)), asyncio.ensure_future(watch())
        try:
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watcher.cancel()
            if not work.done():
                work.cancel()
        try:
            await work
        except asyncio.CancelledError:
            if not gone.is_set():  # the server stops
                raise

    async def _read(self, receive: Receive, room: Room, kind: str) -> list[bytes] | tuple[int, str]:
        """The parts of the body; or the status and message of a refusal."""
        chunks: list[bytes] = [b""]
        size = marks = 0
        start = asyncio.get_running_loop().time()
        while True:
            try:
                message = await asyncio.wait_for(receive(), min(1.0, self.limits.body_seconds))
            except TimeoutError:
                message = {"body": b"", "more_body": True}
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self.limits.max_body:
                return 413, f"the body is longer than the limit of {self.limits.max_body} bytes; send smaller batches"
            if not kind and (first := chunk.lstrip()[:1]):  # who does not say what it sends is taken at its first letter
                kind = "json" if first in b"[{" else "other"
            marks += sum(map(chunk.count, (b'"', b",", b"[", b"{"))) if "json" in kind else 0
            too_many = marks > self.limits.max_marks
            if not too_many:
                chunks.append(chunk)
            elif chunks:
                chunks.clear()  # the rest is read and dropped: a client that is still sending would not see the refusal
            if not message.get("more_body", False):
                refusal = 413, f"the body holds more than {self.limits.max_marks} JSON values; no batch needs as many"
                return refusal if too_many else chunks
            seconds = asyncio.get_running_loop().time() - start
            if seconds > self.limits.body_seconds:
                return 408, f"the body did not arrive within {self.limits.body_seconds:g} seconds"
            if room.contended and seconds > 1 and size < MIN_RATE * seconds:
                return 408, "the body arrives too slowly while others wait"


def read_cookie(header: str, name: str) -> str | None:
    """The value of one cookie of a Cookie header; None where there is none, or the header is broken."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return found.value if found else None


async def refuse(send: Send, status: int, message: str) -> None:
    """An answer of the form {"error": message}; the connection is closed, for unread bytes may be on it."""
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
