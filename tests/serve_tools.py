"""A scripted judge behind the reward service: in this process, or over a real socket."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from editr1.config import Component
from editr1.errors import BackendError
from editr1.judge.decompose import Decomposer, Rules
from editr1.judge.rrm import RewardModel
from editr1.serve.app import Access, Config, build_app
from editr1.serve.listen import protocol
from editr1.vlm.base import ChatReply, ChatRequest, Sampling

PRINCIPLES = [{"question": "Is it red?", "category": "follow"}, {"question": "Is the rest kept?", "category": "keep"}]
GOOD = "F1 red, want red -> yes\nK1 kept, want kept -> no\n<score>6.5</score>"
LOCAL = "http://127.0.0.1:8090"


class ScriptedVLM:
    """Answers what the instruction says it should; `fail` breaks the backend, `nonsense` is no judgement."""

    name = "scripted"

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.batches: list[int] = []

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        self.batches.append(len(requests))
        time.sleep(self.delay)
        texts = [request.context.instruction for request in requests if request.context]
        if "fail" in texts:
            raise BackendError("the endpoint is down")
        return [ChatReply(self._text(request), "scripted", num_tokens=7) for request in requests]

    def _text(self, request: ChatRequest) -> str:
        assert request.context is not None
        if request.context.role == "decompose":
            return json.dumps(PRINCIPLES)
        return "I like it." if request.context.instruction == "nonsense" else GOOD


def png(size: tuple[int, int] = (24, 24), color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def edit(instruction: str = "make it red", **more: Any) -> dict[str, Any]:
    pictures = {"source": {"base64": b64(png(color="blue"))}, "edited": {"base64": b64(png())}}
    return pictures | {"instruction": instruction, "principles": PRINCIPLES} | more


def judge(vlm: ScriptedVLM | None = None, decompose: bool = False) -> RewardModel:
    vlm = vlm or ScriptedVLM()
    return RewardModel(vlm, "compact", 1, Sampling(0.0), Decomposer(vlm, Rules(quotas=None)) if decompose else None)


def client(access: Access | None = None, vlm: ScriptedVLM | None = None, decompose: bool = False, **config: Any) -> TestClient:
    app = build_app(judge(vlm, decompose), Config(Component("scripted"), "compact", **config), access or Access())
    return TestClient(app, base_url=LOCAL, raise_server_exceptions=False)


class Live:
    """The service behind uvicorn on loopback, in a thread."""

    def __init__(self, header_seconds: float = 10.0, max_connections: int = 4000, **config: Any) -> None:
        self.vlm = ScriptedVLM()
        self.app = build_app(judge(self.vlm), Config(Component("scripted"), "compact", **config), Access())
        quiet = uvicorn.Config(
            self.app, host="127.0.0.1", port=0, log_level="error", http=protocol(header_seconds, max_connections), backlog=4096
        )
        self.server = uvicorn.Server(quiet)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Live:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=20)
