"""The routes of the reward service."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from editr1.config import Component, create
from editr1.errors import BackendError, ConfigError, DataError
from editr1.judge.decomposer import Decomposer
from editr1.judge.item import RewardItem
from editr1.judge.rrm import RewardModel
from editr1.schema import Reward
from editr1.serve import flow_factory, pickled, unirl
from editr1.serve.guard import Guard, Limits, check_exposure, is_loopback
from editr1.serve.messages import RewardRequest, RewardResponse, published_schema, to_result
from editr1.serve.pictures import open_picture
from editr1.serve.worker import Load, QueueFullError, Worker
from editr1.vlm.base import Sampling


@dataclass(frozen=True)
class Config:
    """Who judges, and how much is taken on."""

    vlm: Component
    prompt_id: str = "tv"
    num_traces: int = 1
    temperature: float = 0.0
    """ours: 0 for the one trace of the default; set about 0.7 with several traces."""
    max_tokens: int = 2048
    decomposer: Component | None = None
    """Makes principles for edits that come without; None = such edits are refused where the prompt shows principles."""
    load: Load = field(default_factory=Load)
    limits: Limits = field(default_factory=Limits)
    request_seconds: float = 300.0
    """Seconds until a request that is still waiting or being judged is answered with 504."""


@dataclass(frozen=True)
class Access:
    """Who may reach the service, and what it may read."""

    host: str = "127.0.0.1"
    token: str | None = None
    root: Path | None = None
    """Folder below which requests may name files; None = no paths."""
    allow_pickle: bool = False

    def check(self) -> None:
        """Raises ConfigError for an exposure that nobody should want."""
        check_exposure(self.host, self.token)
        if self.allow_pickle and not is_loopback(self.host):
            raise ConfigError(f"--allow-pickle serves this machine only; bind 127.0.0.1 in place of {self.host}, and tunnel (ssh -L)")
        if self.root is not None and not self.root.is_dir():
            raise ConfigError(f"--root {self.root} is no folder")


def make_judge(config: Config) -> RewardModel:
    """The RewardModel of a service."""
    vlm = create("vlm", config.vlm)
    decomposer = Decomposer(create("vlm", config.decomposer)) if config.decomposer else None
    return RewardModel(vlm, config.prompt_id, config.num_traces, Sampling(config.temperature, max_tokens=config.max_tokens), decomposer)


class Service:
    """A judge behind its queue."""

    def __init__(self, judge: RewardModel, config: Config, access: Access) -> None:
        self.judge, self.config, self.access = judge, config, access
        self.worker = Worker(judge, config.load)

    async def score(self, make_items: Callable[[], list[RewardItem]], seed: int = 0) -> list[Reward]:
        """Decodes beside the event loop, then judges. Items get ids from their content, so that an answer does not depend on its batch."""
        items = [replace(item, id=content_id(item)) for item in await asyncio.to_thread(make_items)]
        self._check_principles(items)
        return await self.worker.score(items, seed, self.config.request_seconds)

    def _check_principles(self, items: Sequence[RewardItem]) -> None:
        if self.judge.decomposer is None:
            missing = [number for number, item in enumerate(items) if self.judge.lacks_principles(item)]
            if missing:
                raise DataError(
                    f"item {missing[0]} has no principles, and this service cannot make them; send some, start it with a decomposer, "
                    "or with a prompt that needs none (--prompt direct)"
                )


def content_id(item: RewardItem) -> str:
    """An id that depends on pixels, instruction and principles."""
    digest = hashlib.sha256()
    for image in (item.source, item.edited):
        digest.update(repr(image.size).encode() + image.tobytes())
    digest.update(repr((item.instruction, item.principles)).encode())
    return digest.hexdigest()[:16]


def build_app(judge: RewardModel, config: Config, access: Access) -> Guard:
    """The service as an ASGI app with its guard. Raises ConfigError for an exposure that nobody should want."""
    access.check()
    service = Service(judge, config, access)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.worker.run())
        yield
        task.cancel()

    app = FastAPI(title="Edit-R1 reward service", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_json_routes(app, service)
    if access.allow_pickle:
        _add_pickle_routes(app, service)
    return Guard(app, token=access.token, loopback=is_loopback(access.host), limits=config.limits)


def _add_json_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        # `rewards` in this form satisfies the start-up checks of UniRL and Flow-Factory.
        load = {"waiting": service.worker.waiting, "max_waiting": service.config.load.max_waiting}
        return {
            "status": "ok",
            "rewards": {unirl.REWARD: ["ready"]},
            "model": service.judge.vlm.name,
            "prompt": service.judge.prompt_id,
        } | load

    @app.get("/rewards")
    async def rewards() -> dict[str, Any]:
        return {"rewards": [unirl.REWARD]}

    @app.get("/schema")
    async def schema() -> dict[str, Any]:
        return published_schema()

    @app.post("/edit-reward")
    async def edit_reward(request: RewardRequest) -> RewardResponse:
        rewards = await service.score(lambda: _own_items(request, service.access.root), request.seed)
        return RewardResponse(
            results=[to_result(reward) for reward in rewards], model=service.judge.vlm.name, prompt=service.judge.prompt_id
        )

    @app.post("/score")
    async def score(request: unirl.ScoreRequest) -> dict[str, Any]:
        return unirl.to_answer(request, await service.score(lambda: unirl.to_items(request)))

    @app.post("/compute")
    async def compute(request: flow_factory.ComputeRequest) -> dict[str, Any]:
        return flow_factory.to_answer(await service.score(lambda: flow_factory.to_items(request)))


def _add_pickle_routes(app: FastAPI, service: Service) -> None:
    @app.post("/")
    @app.post("/mode/{name}")
    async def pickle_route(request: Request) -> Response:
        body = await request.body()
        try:
            rewards = await service.score(lambda: pickled.to_items(body))
            return Response(pickled.to_answer(rewards), media_type="application/octet-stream")
        except DataError as error:
            return JSONResponse({"error": str(error)}, status_code=422)


def _own_items(request: RewardRequest, root: Path | None) -> list[RewardItem]:
    return [
        RewardItem(
            open_picture(edit.source, root, f"items[{number}].source"),
            open_picture(edit.edited, root, f"items[{number}].edited"),
            edit.instruction,
            tuple(question.principle() for question in edit.principles) if edit.principles else None,
        )
        for number, edit in enumerate(request.items)
    ]


def _add_errors(app: FastAPI) -> None:
    """What goes wrong as a status and one line."""
    statuses: dict[type[Exception], int] = {DataError: 400, QueueFullError: 429, BackendError: 503, TimeoutError: 504}

    def handler_of(status: int) -> Callable[[Request, Exception], Response]:
        def handle(_: Request, error: Exception) -> Response:
            headers = {"Retry-After": "1"} if status in (429, 503) else None
            return JSONResponse({"error": str(error) or "the judge took too long; send smaller batches"}, status, headers)

        return handle

    for kind, status in statuses.items():
        app.add_exception_handler(kind, handler_of(status))
