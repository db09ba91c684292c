"""The edits of a request while they wait, and the one bounded queue in front of the judge."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from editr1.errors import DataError, EditR1Error
from editr1.judge.item import Judge, RewardItem
from editr1.pictures import announced_pixels, decode_image
from editr1.schema import Principle, Reward, source_of
from editr1.serve.guard import Limits
from editr1.serve.messages import BusyError, Picture
from editr1.store import read_inside

# --- pictures stay encoded, are measured by their headers, and decoded when the judge takes them -------


_STEP = 4_000_000  # characters of base64, a multiple of four; in pieces, for the decoder holds up every other thread


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a picture file, and how its request calls it."""

    data: bytes
    where: str

    @property
    def pixels(self) -> int:
        """As the header says; 0 where that cannot be read (decoding says why)."""
        try:
            return announced_pixels(self.data)
        except DataError:
            return 0


@dataclass(frozen=True, slots=True)
class Draft:
    """An edit that waits to be judged."""

    sources: tuple[Encoded, ...]
    edited: Encoded
    instruction: str
    principles: tuple[Principle, ...] | None = None

    @property
    def pixels(self) -> int:
        return sum(picture.pixels for picture in self.pictures)

    @property
    def pictures(self) -> tuple[Encoded, ...]:
        """The sources, then the edit."""
        return (*self.sources, self.edited)

    def item(self) -> RewardItem:
        """The edit decoded, under an id of its pixels, instruction and principles: its seeds do not depend on its batch.

        Raises DataError, naming the picture, where one is broken.
        """
        pictures = [decode_image(picture.data, picture.where) for picture in self.pictures]
        digest = hashlib.sha256()
        for image in pictures:
            digest.update(repr(image.size).encode())
            for top in range(0, image.height, 256):  # in strips: a copy of the whole picture would hold up the event loop
                digest.update(image.crop((0, top, image.width, min(top + 256, image.height))).tobytes())
        digest.update(repr((self.instruction, self.principles)).encode())
        *sources, edited = pictures
        return RewardItem(source_of(sources), edited, self.instruction, self.principles, digest.hexdigest()[:16])


def check_pixels(drafts: Sequence[Draft], limits: Limits) -> None:
    """Raises DataError for a picture, or a request, of more pixels than the service takes. Reads headers only."""
    total = 0
    for picture in (picture for draft in drafts for picture in draft.pictures):
        pixels = picture.pixels
        total += pixels
        if pixels > limits.max_picture_pixels:
            raise DataError(f"{picture.where} is too large: {pixels:,} pixels, the limit is {limits.max_picture_pixels:,}; make it smaller")
    if total > limits.max_request_pixels:
        raise DataError(f"the request holds {total:,} pixels, the limit is {limits.max_request_pixels:,}; send smaller batches")


def from_base64(text: str, where: str) -> Encoded:
    """The picture of a base64 text, with or without `data:image/...;base64,` before it. Raises DataError, naming `where`."""
    payload = (text.partition(",")[2] if text[:5].lower() == "data:" else text).strip()
    if "\n" in payload[:100]:  # in lines, as mail has it
        payload = "".join(payload.split())
    if "-" in payload or "_" in payload:  # as addresses have it
        payload = payload.replace("-", "+").replace("_", "/")
    payload += "=" * (-len(payload) % 4)
    try:
        parts = (payload[start : start + _STEP] for start in range(0, len(payload), _STEP))
        return Encoded(b"".join([base64.b64decode(part, validate=True) for part in parts]), where)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where} is not base64 ({error})") from error


def from_message(picture: Picture, root: Path | None, where: str) -> Encoded:
    """The picture that a request sent or named. Raises DataError for anything else, and for any path while no root is allowed."""
    if picture.base64 is not None:
        return from_base64(picture.base64, where)
    if root is None:
        raise DataError(f"{where}: this service takes no paths; send base64, or start it with --root FOLDER")
    assert picture.path is not None
    return Encoded(read_inside(root, picture.path, links=False), where)


# --- the queue -----------------------------------------------------------------------------------------


SLICE_PIXELS = 50_000_000  # ours: decoded at once, 150 MB; an edit of two larger pictures is a slice of its own


@dataclass(frozen=True)
class Load:
    """How much the service takes on."""

    batch_size: int = 16
    """ours: edits a call of the judge."""
    max_waiting: int = 4096
    """ours: edits in the queue; above it a request is refused with 429. Their bytes are bounded by `limits.max_held`."""
    concurrency: int = 1
    """Calls of the judge at once: 1 for a local model; an endpoint's client has its own concurrency inside a call."""


class _NobodyWaitsError(EditR1Error):
    """Every client of a batch has left."""


@dataclass(frozen=True, eq=False)
class Job:
    """One request's edits and where its answer goes."""

    drafts: Sequence[Draft]
    seed: int
    future: asyncio.Future[list[Reward]]


class Worker:
    """Batches jobs for the judge. `run` must be running in the event loop that calls `score`."""

    def __init__(self, judge: Judge, load: Load | None = None) -> None:
        self.judge = judge
        self.load = load or Load()
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._threads = ThreadPoolExecutor(self.load.concurrency, "judge")

    @property
    def waiting(self) -> int:
        """Edits in the queue."""
        return self._waiting

    async def score(self, drafts: Sequence[Draft], seed: int, seconds: float) -> list[Reward]:
        """The rewards of a request. Raises BusyError, TimeoutError, DataError for a broken picture, and what the judge raises."""
        if self._waiting + len(drafts) > self.load.max_waiting:
            raise BusyError(f"{self._waiting} edits are waiting, the limit is {self.load.max_waiting}; try again in a second")
        job = Job(drafts, seed, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._waiting += len(drafts)
        self._arrived.set()
        try:
            return await asyncio.wait_for(job.future, seconds)
        finally:
            if job in self._jobs:  # the client left, or waited too long: its pictures go with it
                self._jobs.remove(job)
                self._waiting -= len(drafts)

    async def run(self) -> None:
        """Serves the queue until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.load.concurrency):
                group.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            while not self._jobs:
                self._arrived.clear()
                await self._arrived.wait()
            await self._answer(self._take())

    def _take(self) -> list[Job]:
        """Jobs of one seed until the batch is full, first come first served."""
        batch = [self._jobs.popleft()]
        size = len(batch[0].drafts)
        while self._jobs and size + len(self._jobs[0].drafts) <= self.load.batch_size and self._jobs[0].seed == batch[0].seed:
            batch.append(self._jobs.popleft())
            size += len(batch[-1].drafts)
        self._waiting -= size
        return batch

    async def _answer(self, batch: list[Job]) -> None:
        try:
            scored = await self._judge([draft for job in batch for draft in job.drafts], batch[0].seed, batch)
        except EditR1Error as error:
            if len(batch) > 1:  # one request that breaks the backend, or a broken picture, must not fail its neighbours
                for job in batch:
                    await self._answer([job])
            else:
                _settle(batch[0], error)
            return
        except Exception as error:  # noqa: BLE001 - our own bug: its traceback reaches the request that met it, and the queue lives on
            for job in batch:
                _settle(job, error)
            return
        rest = iter(scored)
        for job in batch:
            answer = [next(rest) for _ in job.drafts]
            if not job.future.done():
                job.future.set_result(answer)

    async def _judge(self, drafts: Sequence[Draft], seed: int, batch: Sequence[Job]) -> list[Reward]:
        """Slice by slice: one request may bring more than is decoded at once. Stops when nobody waits for the answer any more."""
        scored: list[Reward] = []
        loop = asyncio.get_running_loop()
        for piece in slices(drafts, self.load.batch_size):
            if all(job.future.done() for job in batch):
                raise _NobodyWaitsError
            scored += await loop.run_in_executor(self._threads, self._score, piece, seed)
        return scored

    def _score(self, drafts: Sequence[Draft], seed: int) -> list[Reward]:
        return self.judge.score([draft.item() for draft in drafts], seed)


def slices(drafts: Sequence[Draft], size: int) -> list[list[Draft]]:
    """The edits in their order, in pieces of at most `size` edits and SLICE_PIXELS pixels, or of one edit."""
    pieces: list[list[Draft]] = []
    room = 0
    for draft in drafts:
        room -= draft.pixels
        if not pieces or len(pieces[-1]) == size or room < 0:
            pieces.append([])
            room = SLICE_PIXELS - draft.pixels
        pieces[-1].append(draft)
    return pieces


def _settle(job: Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
