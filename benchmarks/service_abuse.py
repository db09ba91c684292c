"""The reward service under abuse and 2 GB: are honest clients answered, and does /health stay prompt?

    python benchmarks/service_abuse.py --honest 1000

A server of its own process on loopback, with a judge that answers in no time, bounded by RLIMIT_AS. Beside 1,000 honest requests (two
pictures of 256 px), with retries only where the service asks for them (429), run in turn: a million unknown JSON keys; flat pictures of
49 megapixels; bodies of the largest size that dribble; clients that leave; a named pipe, a device and a loop of links under --root;
more idle connections than the server may open files; NaN, Infinity, lone surrogates, deep nesting; pickles of nested tuples, of
memoised ones and of another kind of content. Prints a table and one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

MEMORY = 2_000_000_000  # bytes of address space of the server
FILES = 256  # that the server may open
QUIET_SECONDS = 5.0  # of /health alone, which says what the machine's other work costs
MAX_HEALTH = 0.2  # seconds, 99th percentile
JSON = {"Content-Type": "application/json"}


# --- the server, in its own process


def serve(port: int, root: Path) -> None:
    """The service with a judge that costs nothing."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    from editr1.config import Component
    from editr1.judge.rrm import RewardModel
    from editr1.serve.app import Access, Config, build_app
    from editr1.serve.listen import bind, listen
    from editr1.vlm.base import ChatReply, ChatRequest, Sampling

    class Instant:
        name = "instant"

        def chat(self, requests: list[ChatRequest]) -> list[ChatReply]:
            return [ChatReply("<score>7.5</score>", self.name) for _ in requests]

    model = RewardModel(Instant(), "compact_direct", 1, Sampling(0.0))
    app = build_app(model, Config(Component("instant"), "compact_direct"), Access(root=root, allow_pickle=True))
    listen(app, bind("127.0.0.1", port))


def watch(port: int) -> None:
    """Asks for /health until it is killed, one line an ask: when, and how long it took. In its own process: ours is busy attacking."""
    with httpx.Client(timeout=60, trust_env=False) as client:
        while True:
            start, begun = time.time(), time.perf_counter()
            try:
                answered = client.get(f"http://127.0.0.1:{port}/health").status_code == 200
            except httpx.TransportError:  # the kept connection was cut to make room: a new one is asked for at once
                continue
            print(start, time.perf_counter() - begun if answered else 60.0, flush=True)
            time.sleep(0.02)


# --- honest clients


def picture(rng: np.random.Generator, size: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def body(source: object, edited: object) -> bytes:
    return json.dumps({"items": [{"source": source, "edited": edited, "instruction": "make it red"}]}).encode()


async def honest(url: str, number: int, at_once: int) -> Counter[str]:
    rng = np.random.default_rng(0)
    bodies = [body({"base64": picture(rng, 256)}, {"base64": picture(rng, 256)}) for _ in range(8)]
    gate = asyncio.Semaphore(at_once)
    outcome: Counter[str] = Counter()

    async def one(client: httpx.AsyncClient, index: int) -> None:
        async with gate:
            for _ in range(20):
                try:
                    reply = await client.post(f"{url}/edit-reward", content=bodies[index % 8], headers=JSON)
                except httpx.TransportError as error:  # an idle kept connection was cut to make room: what any HTTP client repeats
                    outcome[f"repeated: {type(error).__name__}"] += 1
                    continue
                if reply.status_code == 200 and reply.json()["results"][0]["value"] == 7.5:
                    outcome["answered"] += 1
                    return
                outcome[f"status {reply.status_code}"] += 1
                if reply.status_code != 429:
                    return
                await asyncio.sleep(float(reply.headers.get("retry-after", 1)))

    async with httpx.AsyncClient(timeout=120, trust_env=False, limits=httpx.Limits(max_connections=at_once)) as client:
        await asyncio.gather(*(one(client, index) for index in range(number)))
    return outcome


# --- abuses: each returns what the service said


async def _post(url: str, path: str, content: bytes, headers: dict[str, str] = JSON) -> str:
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        try:
            reply = await client.post(url + path, content=content, headers=headers)
        except httpx.TransportError as error:
            return f"cut off ({type(error).__name__})"
    return f"{reply.status_code}, {len(reply.content)} bytes"


async def unknown_keys(url: str) -> str:
    return await _post(url, "/edit-reward", json.dumps({f"key{number}": number for number in range(1_000_000)}).encode())


async def many_megapixels(url: str) -> str:
    items = json.loads(body(flat(7000), flat(7000)))["items"] * 8
    return await _post(url, "/edit-reward", json.dumps({"items": items}).encode())


async def large_pictures(url: str) -> str:
    """Just under the limit of a picture, several clients at once."""
    found = await asyncio.gather(*(_post(url, "/edit-reward", body(flat(5000), flat(64))) for _ in range(4)))
    return "; ".join(sorted(set(found)))


async def dribblers(url: str) -> str:
    head = b"POST /edit-reward HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 60000000\r\n\r\n"
    crowd = [await _open(url, head) for _ in range(20)]
    for _ in range(20):
        for writer in crowd:
            if not writer.is_closing():
                writer.write(b" " * 1000)
        await asyncio.sleep(0.1)
    for writer in crowd:
        writer.close()
    return "20 bodies of 60 MB at 10 kB/s"


async def leavers(url: str) -> str:
    content = body(flat(64), flat(64))
    head = b"POST /edit-reward HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
    for _ in range(200):
        (await _open(url, head + content)).close()
    return "200 left"


async def special_files(url: str) -> str:
    names = ("fifo", "loop", "dev", "/dev/zero", "../secret")
    return "; ".join([await _post(url, "/edit-reward", body(flat(64), {"path": name})) for name in names])


async def idle_connections(url: str) -> str:
    crowd = []
    for _ in range(3 * FILES):
        crowd.append(await _open(url, b""))
    await asyncio.sleep(1)
    for writer in crowd:
        writer.close()
    return f"{len(crowd)} connections, the server may open {FILES} files"


async def no_json(url: str) -> str:
    bodies = (b'{"seed": NaN}', b'{"x": Infinity}', b'{"items": "\\ud800"}', b"[" * 1_000_000, b'{"a":' * 500_000)
    return "; ".join([await _post(url, path, content) for content in bodies for path in ("/edit-reward",)])


async def pickles(url: str) -> str:
    bodies = (b"\x80\x04)" + b"\x85" * 300_000 + b".", b"\x80\x04})" + b"\x85" * 300_000 + b"Ns.", b"\x80\x04" + b"N0" * 5_000_000 + b".")
    said = [await _post(url, "/", content, {"Content-Type": "application/octet-stream"}) for content in bodies]
    said.append(await _post(url, "/", b"\x80\x04N.", {"Content-Type": "text/plain"}))
    said.append(await _post(url, "/", b"\x80\x04N.", {"Origin": "http://evil.example"}))
    return "; ".join(said)


async def _open(url: str, data: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(data)
    return writer


@cache
def flat(side: int) -> dict[str, str]:
    """A square of one colour, as a message names it."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, "PNG")
    return {"base64": base64.b64encode(buffer.getvalue()).decode()}


ABUSES: tuple[Callable[[str], Awaitable[str]], ...] = (
    unknown_keys, many_megapixels, large_pictures, dribblers, leavers, special_files, idle_connections, no_json, pickles,
)  # fmt: skip


async def abuse(url: str, told: dict[str, tuple[str, float, float]], stop: asyncio.Event) -> None:
    """Every abuse in turn until the honest are answered, and each at least once."""
    while not (stop.is_set() and len(told) == len(ABUSES)):
        for one in ABUSES:
            start = time.time()
            said = await one(url)
            told.setdefault(one.__name__, (said, start, time.time()))


async def measure(url: str, number: int) -> tuple[Counter[str], dict[str, tuple[str, float, float]]]:
    told: dict[str, tuple[str, float, float]] = {}
    stop = asyncio.Event()
    attacker = asyncio.create_task(abuse(url, told, stop))
    outcome = await honest(url, number, at_once=16)
    stop.set()
    await attacker
    return outcome, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--honest", type=int, default=1000, help="honest requests (default: 1000)")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "ROOT"), help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watch:
        watch(args.watch)
    if args.serve:
        serve(int(args.serve[0]), Path(args.serve[1]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        os.mkfifo(root / "fifo")
        (root / "loop").symlink_to(root / "loop")
        (root / "dev").symlink_to("/dev/zero")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = Path(folder) / "log"
        with log.open("wb") as file:
            server = subprocess.Popen([sys.executable, __file__, "--serve", str(port), str(root)], stdout=file, stderr=file)
        asked = Path(folder) / "health"
        watcher = None
        try:
            _wait(port, server, log)
            with asked.open("wb") as file:
                watcher = subprocess.Popen([sys.executable, __file__, "--watch", str(port)], stdout=file)
            while not asked.stat().st_size and watcher.poll() is None:
                time.sleep(0.1)
            time.sleep(QUIET_SECONDS)
            begun = time.time()
            outcome, told = asyncio.run(measure(f"http://127.0.0.1:{port}", args.honest))
            alive = server.poll() is None
            peak = int(next(line.split()[1] for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if "VmHWM" in line))
        finally:
            for process in filter(None, (watcher, server)):
                process.terminate()
                process.wait(timeout=30)
        rows = [tuple(map(float, line.split())) for line in asked.read_text().split("\n")[:-1]]
        size = log.stat().st_size
    quiet = float(np.quantile([row[1] for row in rows if row[0] < begun], 0.99))
    seconds = [row[1] for row in rows if row[0] >= begun]
    for name, (said, start, end) in told.items():
        slowest = max((row[1] for row in rows if start <= row[0] <= end), default=0.0)
        print(f"{name:18} {said:60} slowest /health {slowest:.3f} s")
    p99 = float(np.quantile(seconds, 0.99))
    print(f"honest: {dict(outcome)}")
    print(f"/health before: p99 {quiet:.3f} s; beside them: {len(seconds)} asks, p99 {p99:.3f} s, slowest {max(seconds):.3f} s")
    print(f"server: resident at most {peak / 1e6:.2f} GB, log {size:,} bytes, {'alive' if alive else 'DEAD'}")
    holds = alive and outcome["answered"] == args.honest and p99 < MAX_HEALTH and size < 100_000
    result = {"what": "honest requests answered beside all abuses under 2 GB", "value": outcome["answered"], "n": args.honest}
    result |= {
        "health_p99_seconds": round(p99, 4),
        "quiet_p99_seconds": round(quiet, 4),
        "max_resident_gb": round(peak / 1e6, 3),
        "log_bytes": size,
    }
    print(json.dumps(result | {"goal": f"all answered, /health p99 below {MAX_HEALTH} s", "holds": holds}))
    return 0 if holds else 1


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the server stopped:\n{log.read_text()[-2000:]}")
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    sys.exit(main())
