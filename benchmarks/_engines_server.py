"""Real servers on loopback for `engines.py`: vLLM on the CPU, and our own reward service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

NAME = "rl-rrm"
MAX_MODEL_LEN = 1024
MAX_NUM_SEQS = 16
_START_SECONDS = 600


def environment() -> dict[str, str]:
    """Small, on few cores, and without a word to anybody outside."""
    own = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **own}


@contextmanager
def vllm_server(checkpoint: Path, log: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Address, up to and including /v1, and process of `vllm serve` with a checkpoint in float32 under the name `NAME`."""
    vllm = Path(sys.executable).with_name("vllm")
    size = ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", str(MAX_NUM_SEQS)]
    with _server([str(vllm), "serve", str(checkpoint), "--served-model-name", NAME, *size, *options], log) as (address, process):
        yield f"{address}/v1", process


@contextmanager
def reward_service(judge: str, log: Path) -> Iterator[str]:
    """The address of `editr1 serve` with the judge behind another address."""
    options = ["--base-url", judge, "--model", NAME, "--prompt", "compact", "--set", "serve.max_tokens=160"]
    with _server([sys.executable, "-m", "editr1.cli", "serve", *options], log) as (address, _):
        yield address


@contextmanager
def _server(command: Sequence[str], log: Path) -> Iterator[tuple[str, int]]:
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    try:
        _wait(process, f"{address}/health", log)
        yield address, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(health, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.RequestError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"{' '.join(map(str, process.args[:3]))} did not start: {log.read_text(errors='replace')[-1500:]}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
