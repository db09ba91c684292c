"""The routes of the labelling page. What the browser learns: two pictures and an instruction, never who made them.

Annotators label. The owner, who has the address that `editr1 annotate` prints, also sees results, settles disputes and exports: who
sees the count move with the own vote knows the sides.
"""

from __future__ import annotations

import hmac
import html
import io
import unicodedata
from dataclasses import dataclass, field
from importlib import resources
from threading import Lock
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from editr1.annotate.items import Item, Plan, plan_items
from editr1.annotate.queue import Overlap, Queue, is_swapped
from editr1.annotate.results import export, summarise, to_csv
from editr1.annotate.votes import ADJUDICATOR, DATABASE, MAX_NAME_CHARS, Answer, BusyStoreError, Vote, VoteStore
from editr1.schema import ImageRef
from editr1.serve.guard import COOKIE, Guard, Limits, read_cookie
from editr1.serve.messages import answer_errors
from editr1.store import Run

AHEAD = 4  # items sent at once: the one on screen and three whose pictures load meanwhile
MAX_SECONDS = 3600.0  # a pair left open over lunch says nothing about pace
PATIENCE = 0.1  # seconds that an answer waits for another writer of the votes; the page asks again
OWNER_COOKIE = "editr1_owner"


def _person(name: str) -> str:
    """One person under one name, however a keyboard composes it."""
    if unicodedata.normalize("NFKC", name).casefold() == ADJUDICATOR:
        raise ValueError("this name stands for the owner's decisions; take another")
    if not name.replace("\u200c", "").replace("\u200d", "").isprintable():  # the two join and part letters of some scripts
        raise ValueError("a name is written in visible characters")
    return unicodedata.normalize("NFC", name)


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(_person)]


class PersonBody(BaseModel):
    annotator: Name


class AnswerBody(PersonBody):
    """What the page posts: sides of the screen, not of the record."""

    item: str
    answer: Literal["left", "right", "same", "skip"]
    seconds: Annotated[float, Field(allow_inf_nan=False)]


class UndoBody(PersonBody):
    """`item` says which answer is meant, so that a request that is sent twice takes back one; None = the latest."""

    item: str | None = None


class DecisionBody(BaseModel):
    """The owner's word about a disputed pair: a side of the record, or None to leave it to the majority."""

    item: str
    label: Literal["a", "b", "same"] | None


@dataclass
class Desk:
    """Items, votes and queue of one study of a run, kept in step."""

    run: Run
    items: list[Item]
    votes: VoteStore
    queue: Queue
    plan: Plan
    show_principles: bool = False
    lock: Lock = field(default_factory=Lock)
    writing: Lock = field(default_factory=Lock)
    """Held over a change of file and queue, so that an answer and an undo at once leave both in step."""

    def __post_init__(self) -> None:
        self._sides = self.votes.secret("sides")
        self.owner_key = self.votes.secret("owner")

    @staticmethod
    def open(run: Run, plan: Plan, overlap: Overlap, show_principles: bool = False) -> Desk:
        """The desk of a run with the answers that lie in it. Raises DataError when there is nothing to compare."""
        items = plan_items(run, plan)
        votes = VoteStore(run.dir / DATABASE, PATIENCE)
        return Desk(run, items, votes, Queue(items, votes.all(plan.study), overlap), plan, show_principles)

    def is_swapped(self, item: Item, annotator: str) -> bool:
        """Whether b stands on the left for this person."""
        return is_swapped(item, annotator, self._sides)

    def next(self, annotator: str) -> dict[str, Any]:
        """The next items as the page needs them, with this person's progress."""
        with self.lock:
            items = self.queue.next(annotator, AHEAD)
            remaining = self.queue.remaining(annotator)
            done, seconds = self.queue.pace(annotator)
            last = self.queue.last(annotator)
        pace = {"done": done, "last": last, "seconds_each": None if seconds is None else round(seconds, 1)}
        return {"items": [self._show(item, annotator) for item in items], "remaining": remaining, **pace}

    def answer(self, body: AnswerBody) -> None:
        """Stores one answer; returns when it is on disk. Raises KeyError for an unknown item, BusyStoreError."""
        item = self.queue.items[body.item]
        swapped = self.is_swapped(item, body.annotator)
        sides: dict[str, Answer] = {"left": "b" if swapped else "a", "right": "a" if swapped else "b", "same": "same", "skip": "skip"}
        seconds = min(max(body.seconds, 0.001), MAX_SECONDS)
        control = item.gold is not None
        vote = Vote(item.id, body.annotator, sides[body.answer], swapped, seconds, study=self.plan.study, control=control)
        with self.writing:
            self.votes.put(vote)
            with self.lock:
                self.queue.answered(vote)

    def undo(self, annotator: str, item: str | None = None) -> dict[str, Any] | None:
        """Takes an answer of this study back and shows its pair again, also where that was done before; None when there was none.

        item: whose answer; None = the last. Raises BusyStoreError.
        """
        known = self.queue.items.keys()
        with self.writing:
            vote = self.votes.undo(annotator, self.plan.study, known if item is None else known & {item})
            if vote is None:
                if item is None or item not in known or self.queue.is_answered(item, annotator):
                    return None
                return self._show(self.queue.items[item], annotator)
            with self.lock:
                self.queue.undone(vote)
        return self._show(self.queue.items[vote.item], annotator)

    def decide(self, body: DecisionBody) -> None:
        """Settles a pair, or takes that back. Raises KeyError for an unknown item, BusyStoreError."""
        item = self.queue.items[body.item]
        if body.label is None:
            self.votes.remove(item.id, ADJUDICATOR)
        else:
            self.votes.put(Vote(item.id, ADJUDICATOR, body.label, False, 0.0, study=self.plan.study))

    def _show(self, item: Item, annotator: str) -> dict[str, Any]:
        left, right = (item.b, item.a) if self.is_swapped(item, annotator) else (item.a, item.b)
        principles = [{"text": p.question, "category": p.category} for p in item.principles] if self.show_principles else []
        pictures = {"source": item.task.source, "left": left.image, "right": right.image}
        further = [f"/image/{ref.digest}" for ref in item.task.further]
        return {"id": item.id, "instruction": item.task.instruction, "principles": principles, "further": further} | {
            name: f"/image/{ref.digest}" for name, ref in pictures.items()
        }

    def pictures(self) -> dict[str, ImageRef]:
        """The images that may be asked for, by digest."""
        refs = (ref for item in self.items for ref in (*item.task.sources, item.a.image, item.b.image))
        return {ref.digest: ref for ref in refs}


def build_app(desk: Desk, *, token: str | None = None, loopback: bool = True) -> Guard:
    """The page with its guard: host, origin and token are checked before any route, bodies are small."""
    app = FastAPI(title="Edit-R1 annotation", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app)
    app.add_exception_handler(BusyStoreError, lambda _, error: JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"}))
    _add_label_routes(app, desk)
    _add_owner_routes(app, desk)
    return Guard(app, token=token, loopback=loopback, limits=Limits(max_body=100_000))


def _add_label_routes(app: FastAPI, desk: Desk) -> None:
    pictures = desk.pictures()
    title = desk.run.dir.resolve().name if desk.run else ""

    @app.get("/")
    def page(request: Request) -> Response:
        for key, cookie in (("token", COOKIE), ("owner", OWNER_COOKIE)):
            if key in request.query_params:  # out of the address bar, the history and screenshots
                rest = request.url.remove_query_params(key)
                answer = RedirectResponse(f"{rest.path}?{rest.query}".rstrip("?"), status_code=303)
                if (given := request.query_params[key]).isascii():  # no key of ours has other letters, and no header could carry them
                    answer.set_cookie(cookie, given, httponly=True, samesite="strict", max_age=30 * 86400)
                return answer
        return _html("label.html", title, owner=is_owner(request, desk))

    @app.post("/api/next")
    def upcoming(body: PersonBody) -> dict[str, Any]:
        return desk.next(body.annotator)

    @app.post("/api/answer")
    def answer(body: AnswerBody) -> dict[str, Any]:
        if body.item not in desk.queue.items:
            raise HTTPException(404, "this pair is not part of the study; reload the page")
        desk.answer(body)
        return desk.next(body.annotator)

    @app.post("/api/undo")
    def undo(body: UndoBody) -> dict[str, Any]:
        shown = desk.undo(body.annotator, body.item)
        if shown is None:
            raise HTTPException(404, "there is no answer to take back")
        following = desk.next(body.annotator)
        rest = [item for item in following["items"] if item["id"] != shown["id"]]
        return following | {"items": [shown, *rest]}

    @app.get("/image/{digest}")
    def image(digest: str) -> Response:
        if digest not in pictures:
            raise HTTPException(404, "no such image in this study")
        # PNG of the pixels alone: software, colour profile or file format would tell who made a picture. Kept by the browser, not here:
        # a few hundred photographs are gigabytes.
        buffer = io.BytesIO()
        desk.run.images.get(pictures[digest]).save(buffer, "PNG", compress_level=1)
        return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "private, max-age=31536000, immutable"})

    @app.get("/label.js")
    @app.get("/results.js")
    @app.get("/page.css")
    def asset(request: Request) -> Response:
        name = request.url.path.lstrip("/")
        return Response(_read(name), media_type="text/css" if name.endswith(".css") else "text/javascript")


def is_owner(request: Request, desk: Desk) -> bool:
    """Whether the browser came once by the owner's address."""
    key = read_cookie(request.headers.get("cookie", ""), OWNER_COOKIE) or ""
    return hmac.compare_digest(key.encode(), desk.owner_key.encode())


def _add_owner_routes(app: FastAPI, desk: Desk) -> None:
    title = desk.run.dir.resolve().name if desk.run else ""

    def check(request: Request) -> None:
        if not is_owner(request, desk):
            raise HTTPException(403, "results are for the owner of the study: open the owner's address that `editr1 annotate` printed")

    @app.get("/results")
    def results_page(request: Request) -> Response:
        return _html("results.html", title, owner=is_owner(request, desk))

    @app.get("/api/results")
    def results(request: Request) -> dict[str, Any]:
        check(request)
        return {"title": title, "study": desk.plan.study} | summarise(desk.items, desk.votes.all(desk.plan.study), desk.plan.editors)

    @app.post("/api/decide")
    def decide(request: Request, body: DecisionBody) -> dict[str, Any]:
        check(request)
        if body.item not in desk.queue.items:
            raise HTTPException(404, "this pair is not part of the study; reload the page")
        desk.decide(body)
        return results(request)

    @app.get("/api/annotations.csv")
    def download(request: Request, majority: bool = False) -> Response:
        check(request)
        controls = {item.id for item in desk.items if item.gold is not None}
        exported = export(desk.run, desk.votes.all(), with_majority=majority, controls=controls)
        name = "annotations_majority.csv" if majority else "annotations.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Export": str(exported).encode("ascii", "replace").decode()}
        return Response(to_csv(exported.rows), media_type="text/csv", headers=headers)


_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


def _html(name: str, title: str, owner: bool) -> Response:
    text = _read(name).replace("{{ title }}", html.escape(title)).replace("{{ owner }}", "owner" if owner else "annotator")
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _read(name: str) -> str:
    return resources.files("editr1.annotate").joinpath("page", name).read_text(encoding="utf-8")
