"""The routes of the labelling page. What the browser learns: two pictures and an instruction, never who made them."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from importlib import resources
from threading import Lock
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from pydantic import BaseModel, StringConstraints

from editr1.annotate.items import Item, Plan, plan_items
from editr1.annotate.queue import Overlap, Queue, is_swapped
from editr1.annotate.results import summarise
from editr1.annotate.votes import DATABASE, Answer, Vote, VoteStore
from editr1.schema import ImageRef
from editr1.serve.guard import COOKIE, Guard, Limits
from editr1.store import Run

AHEAD = 4  # items sent at once: the one on screen and three whose pictures load meanwhile
MAX_SECONDS = 3600.0  # a pair left open over lunch says nothing about pace

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]


class AnswerBody(BaseModel):
    """What the page posts: sides of the screen, not of the record."""

    item: str
    annotator: Name
    answer: Literal["left", "right", "same", "skip"]
    seconds: float


class UndoBody(BaseModel):
    annotator: Name


@dataclass
class Desk:
    """Items, votes and queue of one run, kept in step."""

    run: Run
    items: list[Item]
    votes: VoteStore
    queue: Queue
    plan: Plan
    show_principles: bool = False
    lock: Lock = field(default_factory=Lock)

    @staticmethod
    def open(run: Run, plan: Plan, overlap: Overlap, show_principles: bool = False) -> Desk:
        """The desk of a run with the answers that lie in it. Raises DataError when there is nothing to compare."""
        items = plan_items(run, plan)
        votes = VoteStore(run.dir / DATABASE)
        return Desk(run, items, votes, Queue(items, votes.all(), overlap), plan, show_principles)

    def next(self, annotator: str) -> dict[str, Any]:
        """The next items as the page needs them, with this person's progress."""
        with self.lock:
            items = self.queue.next(annotator, AHEAD)
            remaining = self.queue.remaining(annotator)
        return {"items": [self._show(item, annotator) for item in items], "remaining": remaining, **self._pace(annotator)}

    def answer(self, body: AnswerBody) -> None:
        """Stores one answer; returns when it is on disk. Raises KeyError for an unknown item."""
        item = self.queue.items[body.item]
        swapped = is_swapped(item, body.annotator, self.plan.seed)
        sides: dict[str, Answer] = {"left": "b" if swapped else "a", "right": "a" if swapped else "b", "same": "same", "skip": "skip"}
        seconds = min(max(body.seconds, 0.001), MAX_SECONDS)
        vote = Vote(item.id, body.annotator, sides[body.answer], swapped, seconds)
        with self.lock:
            self.votes.put(vote)
            self.queue.answered(vote)

    def undo(self, annotator: str) -> dict[str, Any] | None:
        """Takes the last answer back and shows its pair again; None when there was none."""
        with self.lock:
            vote = self.votes.undo(annotator)
            if vote is None or vote.item not in self.queue.items:
                return None
            self.queue.undone(vote)
        return self._show(self.queue.items[vote.item], annotator)

    def _show(self, item: Item, annotator: str) -> dict[str, Any]:
        left, right = (item.b, item.a) if is_swapped(item, annotator, self.plan.seed) else (item.a, item.b)
        principles = [{"text": p.question, "category": p.category} for p in item.principles] if self.show_principles else []
        pictures = {"source": item.task.source, "left": left.image, "right": right.image}
        return {"id": item.id, "instruction": item.task.instruction, "principles": principles} | {
            name: f"/image/{ref.digest}" for name, ref in pictures.items()
        }

    def _pace(self, annotator: str) -> dict[str, Any]:
        done, seconds = self.votes.pace(annotator)
        return {"done": done, "seconds_each": None if seconds is None else round(seconds, 1)}

    def pictures(self) -> dict[str, ImageRef]:
        """The images that may be asked for, by digest."""
        refs = (ref for item in self.items for ref in (item.task.source, item.a.image, item.b.image))
        return {ref.digest: ref for ref in refs}


def build_app(desk: Desk, *, token: str | None = None, loopback: bool = True) -> Guard:
    """The page with its guard: host and token are checked before any route, bodies are small."""
    app = FastAPI(title="Edit-R1 annotation", docs_url=None, redoc_url=None, openapi_url=None)
    pictures = desk.pictures()
    title = desk.run.dir.resolve().name

    @app.get("/")
    def page(request: Request) -> Response:
        if "token" in request.query_params:  # out of the address bar, the history and screenshots
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(COOKIE, request.query_params["token"], httponly=True, samesite="strict", max_age=30 * 86400)
            return answer
        return _html("label.html", title)

    @app.get("/results")
    def results_page() -> Response:
        return _html("results.html", title)

    @app.get("/api/results")
    def results() -> dict[str, Any]:
        return {"title": title} | summarise(desk.items, desk.votes.all(), desk.plan.editors)

    @app.get("/api/next")
    def upcoming(annotator: Name) -> dict[str, Any]:
        return desk.next(annotator)

    @app.post("/api/answer")
    def answer(body: AnswerBody) -> dict[str, Any]:
        if body.item not in desk.queue.items:
            raise HTTPException(404, "this pair is not part of the study; reload the page")
        desk.answer(body)
        return desk.next(body.annotator)

    @app.post("/api/undo")
    def undo(body: UndoBody) -> dict[str, Any]:
        shown = desk.undo(body.annotator)
        if shown is None:
            raise HTTPException(404, "there is no answer to take back")
        following = desk.next(body.annotator)
        rest = [item for item in following["items"] if item["id"] != shown["id"]]
        return following | {"items": [shown, *rest]}

    @app.get("/image/{digest}")
    def image(digest: str) -> Response:
        if digest not in pictures:
            raise HTTPException(404, "no such image in this study")
        path = desk.run.images.path(pictures[digest])
        return FileResponse(path, headers={"Cache-Control": "private, max-age=31536000, immutable"})

    @app.get("/{name}.{kind}")
    def asset(name: Literal["label", "results", "page"], kind: Literal["js", "css"]) -> Response:
        return Response(_read(f"{name}.{kind}"), media_type={"js": "text/javascript", "css": "text/css"}[kind])

    return Guard(app, token=token, loopback=loopback, limits=Limits(max_body=100_000))


_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


def _html(name: str, title: str) -> Response:
    text = _read(name).replace("{{ title }}", html.escape(title))
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _read(name: str) -> str:
    return resources.files("editr1.annotate").joinpath("page", name).read_text(encoding="utf-8")
