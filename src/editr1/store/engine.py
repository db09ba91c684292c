"""Runs a stage's function over its items, shard by shard, so that a killed stage continues where it stopped.

A function takes a batch of items and returns, for each, a record or a `Drop`. Items are cut into shards in input order;
within a shard, batches run in the lanes' threads in any order. Ray (`engine.kind=ray`) runs the same function over the same
shards on a cluster, see `tables.py`.
"""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from editr1.errors import BackendError, ConfigError, DataError, EditR1Error
from editr1.records import encode, to_plain
from editr1.store.shards import Row, ShardLog, dropped_row

Item = tuple[str, Any]
"""(key, value): the key is unique within a table and the same in every run; a `Drop` for a value is asked nobody."""


@dataclass(frozen=True, slots=True)
class Drop:
    """In place of a record: this item leaves none, for this reason."""

    reason: str
    """`code` or `code: detail`; counted by code."""


WorkFunction = Callable[[Sequence[Any]], Sequence[Any]]
"""Batch of item values -> one record or Drop each, in order. Called from several threads where a lane has concurrency."""


@dataclass(frozen=True, slots=True)
class Lane:
    """How batches of one kind are made: a local model wants batches, an endpoint wants many small requests at once."""

    batch_size: int = 1
    concurrency: int = 1
    """Batches in flight."""

    def __post_init__(self) -> None:
        """Raises ConfigError for no batch at all."""
        if self.batch_size < 1 or self.concurrency < 1:
            raise ConfigError(f"batch_size is {self.batch_size} and concurrency {self.concurrency}, expected at least 1 of both")


@dataclass(frozen=True)
class Engine:
    """Where and how a data stage runs. Nothing here changes a row."""

    kind: Literal["local", "ray"] = "local"
    shard_size: int = 1024
    """ours: items a Parquet file; large enough that the wait for a shard's last request is rare, small enough to stay in memory."""
    max_failed_share: float = 0.05
    """ours: a stage stops when more than this share of its items failed at the backend after all retries; 0 stops at the first."""
    max_dropped_share: float = 0.5
    """ours: a stage stops when more than this share of its rows was dropped; those rows are tried again when it runs again."""
    workers: int = 2
    """Ray actors."""
    gpus: float = 0.0
    """GPUs of one Ray actor."""
    progress: bool = True

    def __post_init__(self) -> None:
        if self.shard_size < 1 or self.workers < 1:
            raise ValueError("shard_size and workers must be at least 1")
        for name, share in (("max_failed_share", self.max_failed_share), ("max_dropped_share", self.max_dropped_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share in [0, 1], found {share}")


@dataclass(frozen=True, slots=True)
class StageCounts:
    """What a stage did: num_in = num_out + num_dropped."""

    num_in: int = 0
    num_out: int = 0
    num_dropped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Dropped rows by reason code."""

    def plus(self, num_in: int, reasons: Mapping[str, int]) -> StageCounts:
        """These counts with further rows, of which some were dropped for these reasons."""
        both = dict(sorted((Counter(self.reasons) + Counter(reasons)).items()))
        dropped = sum(both.values())
        return StageCounts(self.num_in + num_in, self.num_in + num_in - dropped, dropped, both)

    def __str__(self) -> str:
        reasons = ", ".join(f"{code} {count}" for code, count in sorted(self.reasons.items()))
        return f"in {self.num_in}, out {self.num_out}, dropped {self.num_dropped}" + (f" ({reasons})" if reasons else "")


def once(items: Iterable[Item]) -> Iterator[Item]:
    """The items, a key that comes again with a number behind it and a `Drop` for a value: what is said twice is done once, and counted."""
    seen: Counter[str] = Counter()
    for key, value in items:
        seen[key] += 1
        yield (key, value) if seen[key] == 1 else (f"{key}:{seen[key]}", Drop(f"duplicate: of {key}"))


def cut_shards(items: Iterable[Item], shard_size: int) -> Iterator[tuple[int, list[Item]]]:
    """(index, items) of every shard, read lazily: two million items need the memory of one shard."""
    iterator = iter(items)
    for index in itertools.count():
        shard = list(itertools.islice(iterator, shard_size))
        if not shard:
            return
        yield index, shard


@dataclass(frozen=True)
class Work:
    """A stage's function with what it needs to run anywhere."""

    make: Callable[[], WorkFunction]
    """Builds the function with its models: called once in each process that works, and not at all when nothing is left to do."""
    lanes: Mapping[str, Lane] = field(default_factory=lambda: {"": Lane()})
    lane_of: Callable[[Any], str] | None = None
    """Lane name of an item; None = one lane."""
    timed: bool = False
    """Records have a field `seconds`, which differs between equal runs: it is kept beside the table, and is 0 inside it."""
    choices: frozenset[str] = frozenset()
    """Codes of drops that are the stage's choice and no trouble, such as `duplicate`: they do not count for `max_dropped_share`."""
    origin_of: Callable[[Any], tuple[str, ...] | None] | None = None
    """What an item was made from, kept beside the table, see `images.py`; None = nothing that could change."""


ROW_TROUBLE = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, EOFError, SyntaxError, OSError, struct.error,
)  # fmt: skip
"""What one odd row can raise in us or in a library. An OSError with a number is a full disk or the like and stops; Pillow's have none."""


class FailureBudget:
    """Counts items that the backend failed after its retries, and stops the stage above a share.

    ours: one lost request in a million must not stop a night's run, and a dead endpoint must not drop a million items. A
    failed item becomes a dropped row only when its shard finishes; a stage that stops before leaves it to be tried again.
    """

    MIN_FAILURES = 3  # ours: below this a share says nothing, until the shard's end

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.num_items = 0
        self.num_failed = 0
        self._last: BackendError | None = None

    def succeeded(self, num_items: int) -> None:
        self.num_items += num_items

    def failed(self, num_items: int, error: BackendError) -> None:
        self.num_items += num_items
        self.num_failed += num_items
        self._last = error
        if self.num_failed >= self.MIN_FAILURES:
            self.check()

    def check(self) -> None:
        """Raises BackendError when too many items failed."""
        if self._last is not None and self.num_failed > self.max_share * self.num_items:
            raise BackendError(
                f"{self.num_failed} of {self.num_items} items failed after all retries (limit: share {self.max_share:g}, "
                f"engine.max_failed_share); what is done is kept, run again to continue. Last error: {self._last}"
            ) from self._last


class ShardRunner:
    """Fills shards one after the other; models and the lanes' threads stay from shard to shard."""

    def __init__(
        self, record: type, work: Work, budget: FailureBudget, on_rows: Callable[[int, str], None] = lambda count, status: None
    ) -> None:
        self.record = record
        self.work = work
        self.budget = budget
        self._on_rows = on_rows
        self._function: WorkFunction | None = None
        self._status: Callable[[], str] = str  # says nothing

    def __enter__(self) -> ShardRunner:
        self._pools = {
            name: ThreadPoolExecutor(lane.concurrency, thread_name_prefix=f"lane-{name}") for name, lane in self.work.lanes.items()
        }
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.shutdown()

    def fill(self, shard: Path, items: Sequence[Item]) -> int:
        """Runs what the shard's log does not have yet, writes the Parquet file, and returns the number of its rows.

        Raises what the function raises, but for trouble with one row, which is dropped with its reason.
        """
        log = ShardLog(shard, self.record)
        try:
            self._on_rows(len(log.rows), self._status())
            failed = self._run([item for item in items if item[0] not in log.rows], log)
            self.budget.check()
            log.append(failed)
            log.finish([key for key, _ in items])
            return len(items)
        finally:
            log.close()

    def _run(self, items: Sequence[Item], log: ShardLog) -> list[Row]:
        failed: list[Row] = []
        if items and self._function is None:
            self._function = self.work.make()
            self._status = getattr(self._function, "status", str)  # told beside the progress bar, such as what the run has cost so far
        batches = list(self._batches(items))
        if [lane.concurrency for lane in self.work.lanes.values()] == [1]:
            for _, batch in batches:  # in this thread: plain tracebacks, and models that dislike threads
                self._collect(batch, self._call(batch), log, failed)
            return failed
        futures = {self._pools[name].submit(self._call, batch): batch for name, batch in batches}
        pending = dict(futures)
        try:
            for future in as_completed(futures):
                self._collect(pending.pop(future), future.result(), log, failed)
        finally:  # after an error: what was in flight has been paid for, so it is recorded
            for future in pending:
                future.cancel()
            for future, batch in pending.items():
                if not future.cancelled() and future.exception() is None:
                    self._record(batch, future.result(), log)
        return failed

    def _batches(self, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Item]]]:
        lane_of = self.work.lane_of
        waiting: dict[str, list[Item]] = {name: [] for name in self.work.lanes}
        for item in items:
            name = lane_of(item[1]) if lane_of else ""
            waiting[name].append(item)
            if len(waiting[name]) == self.work.lanes[name].batch_size:
                yield name, waiting[name]
                waiting[name] = []
        yield from ((name, batch) for name, batch in waiting.items() if batch)

    def _call(self, batch: Sequence[Item]) -> list[Any]:
        """A record, Drop or BackendError for each item. A batch that failed is tried again item by item."""
        try:
            return self._results(batch)
        except ROW_TROUBLE as error:
            if isinstance(error, ConfigError) or getattr(error, "errno", None) is not None:
                raise
            if len(batch) == 1:
                return [Drop(f"bad_row: {error if isinstance(error, DataError) else f'{type(error).__name__}: {error}'}")]
        except RuntimeError as error:  # a BackendError, or what a model library raises of a row, or of a lost device: a few are borne
            if isinstance(error, EditR1Error) and not isinstance(error, BackendError):
                raise
            if len(batch) == 1:
                return [error if isinstance(error, BackendError) else BackendError(f"{type(error).__name__}: {error}")]
        return [result for item in batch for result in self._call([item])]

    def _results(self, batch: Sequence[Item]) -> list[Any]:
        assert self._function is not None
        asked = [value for _, value in batch if not isinstance(value, Drop)]
        results = list(self._function(asked)) if asked else []
        assert len(results) == len(asked), f"the stage's function returned {len(results)} results for {len(asked)} items"
        made = iter(results)
        return [value if isinstance(value, Drop) else next(made) for _, value in batch]

    def _collect(self, batch: Sequence[Item], results: Sequence[Any], log: ShardLog, failed: list[Row]) -> None:
        self._record(batch, results, log)
        self._on_rows(len(batch), self._status())
        for (key, value), result in zip(batch, results, strict=True):
            if isinstance(result, BackendError):
                failed.append(dropped_row(key, f"backend: {' '.join(str(result).split())}"[:500], self._origin(value)))
                self.budget.failed(1, result)
            else:
                self.budget.succeeded(1)

    def _record(self, batch: Sequence[Item], results: Sequence[Any], log: ShardLog) -> None:
        done = [(*item, result) for item, result in zip(batch, results, strict=True) if not isinstance(result, BackendError)]
        if self.work.timed:
            log.note_seconds([(key, result.seconds) for key, _, result in done if not isinstance(result, Drop)])
        log.append([self._row(key, value, result) for key, value, result in done])

    def _origin(self, value: Any) -> tuple[str, ...] | None:
        return self.work.origin_of(value) if self.work.origin_of else None

    def _row(self, key: str, value: Any, result: Any) -> Row:
        if isinstance(result, Drop):
            return dropped_row(key, result.reason, self._origin(value))
        assert isinstance(result, self.record), f"the stage's function returned a {type(result).__name__}, no {self.record.__name__}"
        try:
            line = encode(to_plain(result) | {"seconds": 0.0} if self.work.timed else result)
        except (ValueError, TypeError) as error:  # a number that is not finite, a field of another type
            return dropped_row(key, f"bad_row: {error}", self._origin(value))
        return Row(key, line, None, self._origin(value))
