"""How the pages and services of this package listen: a client that dribbles its headers is cut off while others are served.

uvicorn limits how long an idle connection stays open, but not how long a request's headers may take; a few hundred clients that
send a byte now and then would hold as many sockets for ever. Bodies are the guard's business (`guard.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import socket
import sys
import time

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from editr1.errors import ConfigError
from editr1.serve.guard import App

HEADER_SECONDS = 10.0  # ours: a phone on a bad line sends its kilobyte of headers in one or two
SPARE_FILES = 100  # ours: of the open-file limit, for everything that is no connection, and for connections that are being closed
ACCEPTED_AT_ONCE = 32
BACKLOG = 4096
SWITCH_SECONDS = 0.0005  # ours: the event loop waits a tenth as long for threads that decode; /health takes it a dozen times
MAX_CONNECTIONS = 4000
MIN_CONNECTIONS = 16


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a limit on the time from a connection, or from a later request's first byte, to the end of its headers.

    On h11 in place of whatever is installed: it also bounds the headers' size (64 kB), and it is there on every machine. Where more
    than `max_connections` are open, the one that has been silent longest makes room: the process never runs out of files.
    """

    header_seconds = HEADER_SECONDS
    max_connections = MAX_CONNECTIONS
    silent: dict[PatientProtocol, None]
    """Connections without a request in work, longest first; one dict for all of a server."""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()
        if len(self.connections) > self.max_connections:
            longest = next(iter(self.silent))
            longest._stop_waiting()  # at once: its own end comes with the loop's next turn, and the next newcomer needs another
            longest.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the headers are here: the app has the request
            self._stop_waiting()
        elif self._deadline is None:  # a byte more of slow headers does not move their deadline
            self._wait_for_headers()

    def send_400_response(self, msg: str) -> None:
        """In the one shape of every failure."""
        self._refuse("400 Bad Request", msg)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._deadline = self.loop.call_later(self.header_seconds, self._cut_off)
        self.silent[self] = None

    def _stop_waiting(self) -> None:
        self.silent.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        if self.transport.is_closing():
            return
        self._refuse("408 Request Timeout", f"the headers did not arrive within {self.header_seconds:g} seconds")
        self.transport.close()

    def _refuse(self, status: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)


def protocol(header_seconds: float = HEADER_SECONDS, max_connections: int | None = None) -> type[asyncio.Protocol]:
    """The protocol class with its limits, for `uvicorn.Config(http=...)`; as many connections as the process may open files."""
    room = max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))
    limits = {"header_seconds": header_seconds, "max_connections": max_connections or room, "silent": {}}
    return type("Patient", (PatientProtocol,), limits)


class _OnceAMinute(logging.Filter):
    """Lets one line a minute pass about files that have run out: asyncio writes a traceback for every connection that it cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if "out of system resource" not in record.getMessage():
            return True
        record.exc_info = None
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 60
        return True


class _Server(uvicorn.Server):
    """Takes ACCEPTED_AT_ONCE connections before it looks at them, so that silent ones can make room; as many as BACKLOG wait."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(BACKLOG)


def bind(host: str, port: int) -> socket.socket:
    """A socket of this address, which takes no connections yet: before a judge is loaded. Raises ConfigError where it cannot be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot serve at {host}, port {port} ({reason}); give another --port, or a --host of this machine") from error
    return bound


def address(host: str, bound: socket.socket) -> str:
    """What a browser on this host opens; where port 0 was asked for, with the one that was given."""
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


def listen(app: App, bound: socket.socket) -> None:
    """Serves the app until Ctrl-C."""
    logging.getLogger("asyncio").addFilter(_OnceAMinute())
    config = uvicorn.Config(app, bound.getsockname()[0], log_level="warning", http=protocol(), ws="none", backlog=ACCEPTED_AT_ONCE)  # type: ignore[arg-type]
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config).run(sockets=[bound])
