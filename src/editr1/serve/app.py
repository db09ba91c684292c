"""The routes of the reward service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from editr1.config import Component, create
from editr1.errors import ConfigError, DataError
from editr1.judge import rrm
from editr1.judge.item import Again, Judge, PersistentJudge
from editr1.judge.prompts import score_traits
from editr1.judge.rrm import RewardModel
from editr1.schema import Reward
from editr1.serve import dialects
from editr1.serve.guard import Guard, Limits, check_exposure, is_loopback
from editr1.serve.messages import (
    FORMS,
    Edit,
    M,
    RewardRequest,
    RewardResponse,
    answer_errors,
    content_type,
    parse,
    published_schema,
    read_body,
    to_result,
)
from editr1.serve.worker import Draft, Encoded, Load, Worker, check_pixels, from_message

T = TypeVar("T")


@dataclass(frozen=True)
class Config:
    """Who judges, and how much is taken on."""

    vlm: Component | None = None
    """The model that answers; None for a judge that brings its own."""
    prompt_id: str | None = None
    """None = the one that the checkpoint was trained with (`judge.item`), else `tv`."""
    num_traces: int = 1
    temperature: float = 0.0
    """ours: 0 for the one trace of the default; set about 0.7 with several traces."""
    max_tokens: int | None = None
    """None = as the checkpoint was trained, else 2048."""
    decomposer: Component | None = None
    """Makes principles for edits that come without; None = such edits are refused where the prompt shows principles."""
    load: Load = field(default_factory=Load)
    limits: Limits = field(default_factory=Limits)
    again: Again = field(default_factory=Again)
    """How an unscored edit is asked about again before any client, in any dialect, hears of it."""
    request_seconds: float = 300.0
    """Seconds until a request that is still waiting or being judged is answered with 504."""
    judge: Component | None = None
    """A judge of kind `judges`; None = the RRM with the settings above."""


@dataclass(frozen=True)
class Access:
    """Who may reach the service, and what it may read."""

    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
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


def make_judge(config: Config) -> Judge:
    """The judge of a service. Raises ConfigError for one without a model, and for settings that do not fit."""
    if config.judge is not None:
        model = {} if config.vlm is None else {"vlm": create("vlm", config.vlm)}
        judge = create("judges", Component(config.judge.id, config.judge.options | model))
        if not callable(getattr(judge, "score", None)):
            raise ConfigError(f"judge {config.judge.id!r} gives no scores to single edits; a service needs one that does")
        return cast(Judge, judge)
    if config.vlm is None:
        raise ConfigError("the section `serve` names neither a model (vlm) nor a judge that brings its own")
    how: dict[str, Any] = {"temperature": config.temperature, "max_tokens": config.max_tokens, "decomposer": config.decomposer}
    return rrm.build(config.vlm, config.prompt_id, config.num_traces, **how)


class Service:
    """A judge behind its queue."""

    def __init__(self, judge: Judge, config: Config, access: Access) -> None:
        self.config, self.access = config, access
        name = config.judge.id if config.judge else ""
        self.model: str = getattr(getattr(judge, "vlm", None), "name", name)
        self.prompt = judge.prompt_id if isinstance(judge, RewardModel) else name
        self._wants_principles = (
            isinstance(judge, RewardModel) and judge.decomposer is None and score_traits(judge.prompt_id).shows_principles
        )
        self.worker = Worker(PersistentJudge(judge, config.again), config.load)
        self._reading = ThreadPoolExecutor(1, "reading")  # one: each body in work costs about three times its bytes

    async def read(self, request: Request, model: type[M], make: Callable[[M], list[Draft]]) -> tuple[M, list[Draft]]:
        """A JSON request and its edits, read beside the event loop. Raises DataError and WrongShapeError."""
        if (kind := content_type(request)) not in ("", "application/json"):
            raise HTTPException(415, f"the body is {kind[:60]}, expected application/json")
        return await self.beside(request, lambda body: parse(model, body), make)

    async def beside(self, request: Request, parse_: Callable[[bytes], T], make: Callable[[T], list[Draft]]) -> tuple[T, list[Draft]]:
        """What `parse_` makes of the body and `make` of that, in the reading thread; the body is freed on the way."""
        holder = [await read_body(request)]

        def work() -> tuple[T, list[Draft]]:
            asked = parse_(holder.pop())
            drafts = make(asked)
            check_pixels(drafts, self.config.limits)
            self._check_texts(drafts)
            return asked, drafts

        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    async def score(self, drafts: Sequence[Draft], seed: int = 0) -> list[Reward]:
        """One result an edit, in their order."""
        return await self.worker.score(drafts, seed, self.config.request_seconds)

    def _check_texts(self, drafts: Sequence[Draft]) -> None:
        for number, draft in enumerate(drafts):
            if not draft.instruction.strip():
                raise DataError(f"item {number} has no instruction: nothing says what the edit should do")
            if draft.principles and not all(principle.question.strip() for principle in draft.principles):
                raise DataError(f"item {number} has a principle without a question; leave it out")
        if self._wants_principles:
            missing = [number for number, draft in enumerate(drafts) if not draft.principles]
            if missing:
                raise DataError(
                    f"item {missing[0]} has no principles, and this service cannot make them; send some, start it with a decomposer, "
                    "or with a prompt that needs none (--prompt direct)"
                )


def build_app(judge: Judge, config: Config, access: Access) -> Guard:
    """The service as an ASGI app with its guard. Raises ConfigError for an exposure that nobody should want."""
    access.check()
    service = Service(judge, config, access)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.worker.run())
        yield
        task.cancel()

    app = FastAPI(title="Edit-R1 reward service", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)
    _add_json_routes(app, service)
    if access.allow_pickle:
        _add_pickle_routes(app, service)
    return Guard(app, token=access.token, loopback=is_loopback(access.host), limits=config.limits)


def _add_json_routes(app: FastAPI, service: Service) -> None:
    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> dict[str, Any]:
        # `rewards` in this form satisfies the start-up checks of UniRL and Flow-Factory.
        load = {"waiting": service.worker.waiting, "max_waiting": service.config.load.max_waiting}
        return {
            "status": "ok",
            "rewards": {dialects.REWARD: ["ready"]},
            "model": service.model,
            "prompt": service.prompt,
        } | load

    @app.get("/rewards")
    async def rewards() -> dict[str, Any]:
        return {"rewards": [dialects.REWARD]}

    @app.get("/schema")
    async def schema() -> dict[str, Any]:
        return published_schema()

    @app.post("/edit-reward")
    async def edit_reward(request: Request) -> RewardResponse:
        asked, drafts = await service.read(request, RewardRequest, lambda asked: _own_drafts(asked, service.access.root))
        seed = asked.seed
        del asked  # its base64 would live until the answer
        results = [to_result(reward) for reward in await service.score(drafts, seed)]
        return RewardResponse(results=results, model=service.model, prompt=service.prompt)

    @app.post("/score")
    async def score(request: Request) -> dict[str, Any]:
        asked, drafts = await service.read(request, dialects.ScoreRequest, dialects.unirl_drafts)
        identities = dialects.identities(asked)
        del asked
        return dialects.unirl_answer(identities, await service.score(drafts))

    @app.post("/compute")
    async def compute(request: Request) -> dict[str, Any]:
        drafts = (await service.read(request, dialects.ComputeRequest, dialects.flow_factory_drafts))[1]
        return dialects.flow_factory_answer(await service.score(drafts))


def _add_pickle_routes(app: FastAPI, service: Service) -> None:
    @app.post("/")
    @app.post("/mode/{name}")
    async def pickle_route(request: Request) -> Response:
        if (kind := content_type(request)) in FORMS or "json" in kind:
            raise HTTPException(415, f"the body is {kind[:60]}, expected application/octet-stream")
        try:
            drafts = (await service.beside(request, dialects.load_pickle, dialects.pickle_drafts))[1]
            return Response(dialects.pickle_answer(await service.score(drafts)), media_type="application/octet-stream")
        except DataError as error:
            return JSONResponse({"error": str(error)}, status_code=422)


def _own_drafts(request: RewardRequest, root: Path | None) -> list[Draft]:
    return [
        Draft(
            _sources(edit, root, f"items[{number}]"),
            from_message(edit.edited, root, f"items[{number}].edited"),
            edit.instruction,
            tuple(question.principle() for question in edit.principles) if edit.principles else None,
        )
        for number, edit in enumerate(request.items)
    ]


def _sources(edit: Edit, root: Path | None, where: str) -> tuple[Encoded, ...]:
    if edit.source is not None:
        return (from_message(edit.source, root, f"{where}.source"),)
    return tuple(from_message(picture, root, f"{where}.sources[{place}]") for place, picture in enumerate(edit.sources or ()))
