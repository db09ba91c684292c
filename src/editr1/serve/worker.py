"""One bounded queue in front of the judge: small requests share a batch, and a full queue says so at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from editr1.errors import BackendError, EditR1Error
from editr1.judge.item import RewardItem
from editr1.schema import Reward


class Judge(Protocol):
    """What the service needs of an `RewardModel`."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]: ...


class QueueFullError(EditR1Error):
    """Too many edits wait; the client should come back."""


@dataclass(frozen=True)
class Load:
    """How much the service takes on."""

    batch_size: int = 16
    """ours: edits a call of the judge, unless one request brings more."""
    max_waiting: int = 4096
    """ours: edits in the queue; above it a request is refused with 429."""
    concurrency: int = 1
    """Calls of the judge at once: 1 for a local model; an endpoint's client has its own concurrency inside a call."""


@dataclass(frozen=True)
class Job:
    """One request's edits and where its answer goes."""

    items: Sequence[RewardItem]
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

    @property
    def waiting(self) -> int:
        """Edits in the queue."""
        return self._waiting

    async def score(self, items: Sequence[RewardItem], seed: int, seconds: float) -> list[Reward]:
        """The rewards of a request. Raises QueueFullError, TimeoutError, and what the judge raises."""
        if self._waiting + len(items) > self.load.max_waiting:
            raise QueueFullError(f"{self._waiting} edits are waiting, the limit is {self.load.max_waiting}; try again in a second")
        job = Job(items, seed, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._waiting += len(items)
        self._arrived.set()
        return await asyncio.wait_for(job.future, seconds)

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
        """Jobs of one seed until the batch is full, first come first served; a job whose client has gone is dropped."""
        batch: list[Job] = []
        size = 0
        while self._jobs and (
            not batch or (size + len(self._jobs[0].items) <= self.load.batch_size and self._jobs[0].seed == batch[0].seed)
        ):
            job = self._jobs.popleft()
            self._waiting -= len(job.items)
            if not job.future.cancelled():
                batch.append(job)
                size += len(job.items)
        return batch

    async def _answer(self, batch: list[Job]) -> None:
        if not batch:
            return
        try:
            rewards = await asyncio.to_thread(self.judge.score, [item for job in batch for item in job.items], batch[0].seed)
        except BackendError as error:
            if len(batch) > 1:  # one request that breaks the backend must not fail its neighbours
                for job in batch:
                    await self._answer([job])
                return
            _settle(batch[0], error)
            return
        except Exception as error:  # noqa: BLE001 - our own bug: its traceback reaches the request that met it, and the queue lives on
            for job in batch:
                _settle(job, error)
            return
        rest = iter(rewards)
        for job in batch:
            answer = [next(rest) for _ in job.items]
            if not job.future.done():
                job.future.set_result(answer)


def _settle(job: Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
