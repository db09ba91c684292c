"""Shards on a Ray cluster: Ray Data streams them to actors that run the same code over the same shards as `local`.

The run directory must lie on a file system that all nodes share. Each actor builds the stage's models once, on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from editr1 import errors
from editr1.errors import ConfigError, EditR1Error
from editr1.store.engine import Engine, FailureBudget, Item, ShardRunner, Work
from editr1.store.shards import shard_path
from editr1.store.tables import finished


class ShardActor:
    """Fills shards; lives in a Ray worker and builds the stage's models once."""

    def __init__(self, folder: str, record: type, work: Work, max_failed_share: float) -> None:
        self.folder = Path(folder)
        self.runner = ShardRunner(record, work, FailureBudget(max_failed_share))
        self.runner.__enter__()  # its threads end with the worker process

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """(rows, error class, message) a shard: Ray would wrap an exception, and the user would meet a trace in place of a line."""
        import ray.cloudpickle as cloudpickle

        results = [self._fill(int(index), cloudpickle.loads(items)) for index, items in zip(batch["index"], batch["items"], strict=True)]
        count, kind, message = zip(*results, strict=True)
        return {"count": list(count), "error": list(kind), "message": list(message)}

    def _fill(self, index: int, items: Sequence[Item]) -> tuple[int, str, str]:
        try:
            return self.runner.fill(shard_path(self.folder, index), items), "", ""
        except EditR1Error as error:
            return 0, type(error).__name__, str(error)


def fill_with_ray(
    folder: Path, record: type, shards: Iterable[tuple[int, list[Item]]], work: Work, engine: Engine, on_rows: Callable[[int, str], None]
) -> int:
    """Fills the unfinished shards and returns the number of all shards. Raises the user's errors of the workers."""
    try:
        import pyarrow as pa
        import ray
        import ray.cloudpickle as cloudpickle
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'editr1[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    num_shards, blocks = 0, []
    for index, items in shards:
        num_shards = index + 1
        if finished(folder, index, items):
            on_rows(len(items), "")
        else:  # a block a shard, in Ray's object store: the driver stays small
            blocks.append(ray.put(pa.table({"index": [index], "items": pa.array([cloudpickle.dumps(items)], pa.large_binary())})))
    if not blocks:
        return num_shards
    ray.data.DataContext.get_current().enable_progress_bars = False
    done = ray.data.from_arrow_refs(blocks).map_batches(  # type: ignore[arg-type]  # Ray has two types named ObjectRef
        ShardActor,
        fn_constructor_args=(str(folder.resolve()), record, work, engine.max_failed_share),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(engine.workers, len(blocks))),
        num_gpus=engine.gpus,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise getattr(errors, row["error"])(row["message"])
        on_rows(int(row["count"]), "")
    return num_shards
