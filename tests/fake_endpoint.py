"""A chat endpoint on loopback that fails on purpose. The only fake in these tests: the client and the wire are real."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = str | None
FAULTS = ("429", "500", "hang", "reset", "cut", "empty")


class Endpoint:
    """What the server saw and how it should behave."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any], fault: Callable[[dict[str, Any], int], Fault]) -> None:
        self.answer = answer
        self.fault = fault
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()
        self.retry_after = "0.05"
        self.models: dict[str, Any] | None = None
        self.list_answer: tuple[int, str] | None = None  # in place of `models`
        self.num_lists = 0
        self.headers: list[dict[str, str]] = []
        self.num_connections = 0


def completion(text: str, **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Answers with the user's text and the seed, so that replies can be matched with requests."""
    texts = [part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text"]
    return completion(f"{''.join(texts)} seed={body.get('seed')}")


def random_faults(share: float, seed: int) -> Callable[[dict[str, Any], int], Fault]:
    """A fault for `share` of the tries, decided by request and try."""

    def fault(body: dict[str, Any], attempt: int) -> Fault:
        rng = random.Random(f"{seed} {body.get('seed')} {attempt}")
        return rng.choice(FAULTS) if rng.random() < share else None

    return fault


@contextmanager
def serve(answer: Any = echo, fault: Any = lambda body, attempt: None) -> Iterator[Endpoint]:
    endpoint = Endpoint(answer, fault)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            return

        def setup(self) -> None:
            super().setup()
            with endpoint.lock:
                endpoint.num_connections += 1

        def do_GET(self) -> None:
            with endpoint.lock:
                endpoint.num_lists += 1
            self.send(*(endpoint.list_answer or (404 if endpoint.models is None else 200, json.dumps(endpoint.models or {}))))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                endpoint.bodies.append(body)
                endpoint.headers.append(dict(self.headers))
                endpoint.tries[str(body.get("seed"))] += 1
                attempt = endpoint.tries[str(body.get("seed"))]
                endpoint.in_flight += 1
                endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
            try:
                self.misbehave(endpoint.fault(body, attempt), body)
            finally:
                with endpoint.lock:
                    endpoint.in_flight -= 1

        def misbehave(self, fault: Fault, body: dict[str, Any]) -> None:
            if fault == "reset":
                self.connection.close()
            elif fault == "hang":
                time.sleep(1.2)
                self.connection.close()
            elif fault == "cut":
                self.send(200, json.dumps(endpoint.answer(body))[:-20])
            elif fault == "empty":
                self.send(200, json.dumps(completion("")))
            elif fault and fault[:3].isdigit():
                code = fault[4:]
                self.send(int(fault[:3]), json.dumps({"error": {"message": f"made to fail {code}", "code": code or None, "type": None}}))
            else:
                made = endpoint.answer(body)
                status, text = made if isinstance(made, tuple) else (200, made)
                self.send(status, text if isinstance(text, str) else json.dumps(text))

        def send(self, status: int, text: str) -> None:
            payload = text.encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", endpoint.retry_after)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
