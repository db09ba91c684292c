"""A whole score stage against a real HTTP server on loopback that fails on purpose.

    python benchmarks/fault_injection.py --candidates 400 --share 0.3

Faults: 429 with Retry-After, 500, hang beyond the client's timeout, connection reset, JSON cut short, status 200 without text, and
replies out of order (each takes a random time). The stage must finish, and every trace must be there once: scored, unparsed with a
code, or dropped with a reason. The server counts what it answered in full, so that work lost or done twice is seen as well.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.config import Component
from editr1.schema import Candidate, EditTask, Judgement, Principle, TaskPrinciples
from editr1.stages import score
from editr1.store import Engine, Run, Work, quadruples

FAULTS = ("429", "500", "hang", "reset", "cut", "empty")
PRINCIPLES = (Principle("Is the ball red?", "follow"), Principle("Is the wall unchanged?", "keep"))
CLIENT_TIMEOUT = 2.0  # seconds
HANG = 2.5  # seconds


class Server(ThreadingHTTPServer):
    """A chat endpoint; a fault is decided by (seed of the request, try), so that a run can be repeated."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.share, self.seed = share, seed
        self.tries: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.lock = threading.Lock()

    def decide(self, request_seed: int) -> tuple[str, random.Random]:
        with self.lock:
            self.tries[request_seed] += 1
            draw = random.Random(f"{self.seed} {request_seed} {self.tries[request_seed]}")
            fault = draw.choice(FAULTS) if draw.random() < self.share else ""
            self.faults[fault or "none"] += 1
        return fault, draw

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that gave up waiting are part of the experiment."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault, draw = self.server.decide(body["seed"])
        time.sleep(draw.uniform(0, 0.02))  # replies overtake each other
        payload = answer(
            body["seed"], "" if fault == "empty" else f'[{{"score": 1}}, {{"score": 0}}] <score>{body["seed"] % 100 / 10}</score>'
        )
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        if fault == "hang":
            time.sleep(HANG)
            self.close_connection = True
            return
        status = int(fault) if fault.isdigit() else 200
        self.reply(status, payload[: len(payload) // 2] if fault == "cut" else payload)
        if status == 200 and fault != "cut":
            with self.server.lock:
                self.server.answered[body["seed"]] += 1

    def reply(self, status: int, payload: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 429:
            self.send_header("Retry-After", "0.05")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def answer(seed: int, text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return json.dumps(
        {"id": str(seed), "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    ).encode()


def fill(run: Run, num: int) -> None:
    """`num` candidates of `num / 10` tasks."""
    image = run.images.put(Image.new("RGB", (16, 16), "navy"))
    tasks = [EditTask.make(image, f"edit {i}") for i in range(-(-num // 10))]
    rows = [TaskPrinciples(task, PRINCIPLES) for task in tasks]
    candidates = [Candidate.make(tasks[i // 10].id, image, "e", i) for i in range(num)]
    work, quiet = Work(lambda: list), Engine(progress=False)
    run.process("02_principles", ((row.task.id, row) for row in rows), work, settings={}, engine=quiet)
    run.process("03_candidates", ((c.id, c) for c in candidates), work, settings={}, engine=quiet)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.3, help="share of tries that fail")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    server = Server(args.share, args.seed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    vlm = Component("openai_api", {"model": "m", "base_url": url, "timeout": CLIENT_TIMEOUT, "max_attempts": 8, "api_key": "none"})
    pool = (score.Member("a", vlm, num_traces=2, concurrency=args.concurrency),)
    with tempfile.TemporaryDirectory() as name:
        run = Run.open(Path(name) / "run")
        fill(run, args.candidates)
        begin = time.perf_counter()
        counts = score.run(score.Config(pool, engine=Engine(progress=sys.stderr.isatty())), run.dir)
        seconds = time.perf_counter() - begin
        traces = list(run.read("04_traces"))
        expected = {q.id for q in quadruples(run)}
    server.shutdown()

    parsed = sum(isinstance(trace.outcome, Judgement) for trace in traces)
    codes = Counter(trace.outcome.code for trace in traces if not isinstance(trace.outcome, Judgement))
    wrong = [t for t in traces if isinstance(t.outcome, Judgement) and t.outcome.score != t.seed % 100 / 10]
    twice = [seed for seed, times in server.answered.items() if times > 1]
    per_quadruple = Counter(trace.quadruple_id for trace in traces)
    print(f"tries by fault:   {dict(sorted(server.faults.items()))}")
    print(f"traces:           {parsed} scored, unparsed {dict(codes)}, dropped {counts.reasons}; {seconds:.1f} s")
    checks = {
        "every item is scored or counted": counts.num_in == 2 * args.candidates == parsed + codes.total() + counts.num_dropped,
        "each quadruple has its two traces": counts.num_dropped > 0 or per_quadruple == dict.fromkeys(expected, 2),
        "no key twice": len({(trace.quadruple_id, trace.seed) for trace in traces}) == len(traces),
        "no reply went to another item": not wrong,
        "no request was answered in full twice": not twice,
    }
    for name, holds in checks.items():
        print(f"{'yes' if holds else 'NO ':<5}{name}")
    result = {
        "measured": "items neither scored nor counted, done twice, or with another item's reply, under injected faults",
        "value": sum(not holds for holds in checks.values()),
        "n": counts.num_in,
        "fault_share": args.share,
        "goal": "0",
        "holds": all(checks.values()),
    }
    print(json.dumps(result))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
