"""The client that plug-ins share: edits to `POST /edit-reward` of `editr1 serve`, and never a number for an unscored one."""

from __future__ import annotations

import base64
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from editr1.errors import BackendError, DataError, UnscoredError
from editr1.pictures import encode_picture, read_picture
from editr1.schema import CATEGORIES, MAX_SCORE, Category, Principle, Source, pictures_of, source_of
from editr1.store import local_name
from editr1.text import is_whole, shown
from editr1.wire import Client, Fetched, bearer, check_address, fetch, hidden, secrets_of, via_proxy

MAX_BATCH = 256  # edits that the service takes in one request
MAX_BATCH_BYTES = 48_000_000  # ours: of base64; the service's default limit is 64 MB
BUSY = (408, 429, 502, 503, 504)
_LONGEST_PAUSE = 30.0  # seconds; ours


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit to score."""

    source: Source
    edited: Image.Image
    instruction: str
    principles: tuple[Principle, ...] | None = None

    def __post_init__(self) -> None:
        """Raises DataError for an instruction that the service would refuse, and with it the whole request."""
        if not isinstance(self.instruction, str) or not self.instruction.strip():
            raise DataError(f"the instruction of an edit is {str(self.instruction)[:60]!r}, expected a text")
        if not is_whole(self.instruction):
            raise DataError("the instruction holds half of a character (a lone surrogate), as where a tool cut an emoji")


@dataclass(frozen=True, slots=True)
class Score:
    """What came back: tau in [0, 10], and the share of satisfied principles of each category in [0, 1]."""

    value: float
    categories: dict[str, float]

    def rate(self, category: Category) -> float:
        """The category's share; nan where the edit has no principle of it."""
        return self.categories.get(category, float("nan"))


@dataclass(frozen=True)
class RewardClient:
    """Talks to one service. Safe to share between threads."""

    url: str = field(repr=False)
    """Address of the service, such as http://127.0.0.1:8090."""
    token: str | None = field(default=None, repr=False)
    timeout: float = 600.0
    """Seconds of one request."""
    max_attempts: int = 6
    """Tries of a request while the service is busy or restarting."""
    max_unscored_retries: int = 2
    """ours: an unscored edit is asked about again with another seed; a sampling judge mostly recovers, a broken one never does."""
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        check_address(self.url, "server_url", "http://127.0.0.1:8090")
        bearer(self.token, "the token of the reward service")

    def score(self, edits: Sequence[Edit], seed: int = 0) -> list[Score]:
        """One score an edit, in their order.

        Raises UnscoredError when an edit stays unscored, BackendError when the service cannot be reached or refuses.
        """
        scores: dict[int, Score] = {}
        reason = ""
        for attempt in range(self.max_unscored_retries + 1):
            open_ = [index for index in range(len(edits)) if index not in scores]
            if not open_:
                break
            messages = [_message(edits[index]) for index in open_]
            results = [result for batch in _batches(messages) for result in self._ask(batch, seed + attempt)]
            for index, result in zip(open_, results, strict=True):
                if result["value"] is None:
                    reason = result["reason"]
                else:
                    scores[index] = Score(float(result["value"]), result["categories"])
        if len(scores) < len(edits):
            raise UnscoredError(
                f"{len(edits) - len(scores)} of {len(edits)} edits are unscored after {self.max_unscored_retries + 1} tries ({reason}); "
                f"look at the judge behind {shown(self.url)}. No number stands in for them"
            )
        return [scores[index] for index in range(len(edits))]

    def _ask(self, messages: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
        body = {"items": messages, "seed": seed}
        content, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **bearer(self.token, "token")}
        client = _client(self.url, self.timeout)
        secrets, problem, pause = secrets_of(self.url, self.token), "", 0.0
        for attempt in range(self.max_attempts):
            if attempt:
                self.sleep(pause)
            pause = min(2.0**attempt, _LONGEST_PAUSE)
            try:
                reply = fetch(client, "POST", f"{self.url.rstrip('/')}/edit-reward", None, content=content, headers=headers)
            except httpx.RequestError as error:
                problem = f"cannot reach it ({error or type(error).__name__}){via_proxy(self.url)}"
                continue
            said = " ".join(hidden(reply.text, secrets).split())
            if reply.status == 200 and not reply.moved:
                return _results(reply, len(messages), shown(self.url), said)
            where = f", redirected to {shown(reply.moved)}" if reply.moved else ""
            problem = f"status {reply.status}{where}: {said[:300]}{via_proxy(self.url)}"
            if reply.status not in BUSY:
                break
            pause = min(reply.pause, _LONGEST_PAUSE) if reply.pause is not None else pause
        raise BackendError(f"reward service {shown(self.url)}: {problem}")


@functools.lru_cache(maxsize=8)
def _client(url: str, timeout: float) -> Client:
    """Shared by all that score: a connection that is made anew for every request costs twenty times the request."""
    return Client(url, timeout)


def _results(reply: Fetched, count: int, where: str, said: str) -> list[dict[str, Any]]:
    """One result an edit. Raises BackendError for an answer that no `editr1 serve` gives."""
    try:
        rows = json.loads(reply.content)["results"]
        good = len(rows) == count and all(map(_is_result, rows))
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise BackendError(f"{where} answers, but not as `editr1 serve` does: {said[:200]!r}; is it the service's address?")
    return list(rows)


def _is_result(row: dict[str, Any]) -> bool:
    if row["value"] is None:
        return isinstance(row["reason"], str)
    return isinstance(row["categories"], dict) and 0 <= float(row["value"]) <= MAX_SCORE  # false for nan


def _batches(messages: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The messages in their order, in requests that the service takes."""
    batch: list[dict[str, Any]] = []
    size = 0
    for message in messages:
        sources = message.get("sources") or [message["source"]]
        bytes_ = sum(len(picture["base64"]) for picture in (*sources, message["edited"]))
        if batch and (len(batch) == MAX_BATCH or size + bytes_ > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += bytes_
    if batch:
        yield batch


def _message(edit: Edit) -> dict[str, Any]:
    principles = None if edit.principles is None else [{"question": p.question, "category": p.category} for p in edit.principles]
    sources = [_base64(image) for image in pictures_of(edit.source)]
    shown = {"sources": sources} if len(sources) > 1 else {"source": sources[0]}
    return shown | {"edited": _base64(edit.edited), "instruction": edit.instruction, "principles": principles}


def _base64(image: Image.Image) -> dict[str, str]:
    return {"base64": base64.b64encode(encode_picture(image)).decode()}


def to_picture(value: Any) -> Image.Image:
    """A picture from what trainers hold; see `read_picture`, which raises DataError for what would have to be guessed at.

    A cell of a table with pictures, {bytes, path}, a data URL and a `file://` address are read too.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value.startswith("data:"):
        try:
            value = base64.b64decode("".join(value.partition(",")[2].split()), validate=True)
        except ValueError as error:
            raise DataError(f"the picture's data URL is broken ({error})") from error
    return read_picture(local_name(value) if isinstance(value, str) else value)


def to_source(value: Any) -> Source:
    """One picture, or several where `value` is a list or a batch of them. Raises DataError as `to_picture` does, and for none."""
    several = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 4 or str(getattr(value, "dtype", "")) == "object"
    if not several:
        return to_picture(value)
    if len(value) == 0:
        raise DataError("an edit has no source picture")
    return source_of([to_picture(picture) for picture in value])


def to_principles(rows: Any) -> tuple[Principle, ...] | None:
    """Principles from rows of {question, category}, or from columns of both; None where there are none.

    Raises DataError for rows of another form, without a question, or of an unknown category.
    """
    if rows is None:
        return None
    try:
        if isinstance(rows, Mapping):
            rows = [{"question": asked, "category": kind} for asked, kind in zip(rows["question"], rows["category"], strict=True)]
        found = tuple(Principle(row["question"], row["category"]) for row in rows)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"principles must be rows of {{question, category}} ({error})") from error
    for principle in found:
        if not isinstance(principle.question, str) or not principle.question.strip():
            raise DataError(f"the question of a principle is {str(principle.question)[:60]!r}, expected a text")
    return found or None


def category_scores(score: Score) -> dict[str, float]:
    """The three shares under their names; nan where a category has no principle."""
    return {category: score.rate(category) for category in CATEGORIES}
