"""A table of a run: how it is begun, filled, closed, and read. `Run` is the way in; see `store/__init__.py` for the files.

On a Ray cluster, Ray Data streams the shards to actors that run the same code over the same shards as `local`. The run directory must lie
on a file system that all nodes share. Each actor builds the stage's models once, on first use.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from editr1 import errors
from editr1.errors import ChangedInputsError, ConfigError, DataError, EditR1Error
from editr1.store._files import exclusive, read_json, read_object, write_atomic, write_json
from editr1.store.engine import Engine, FailureBudget, Item, ShardRunner, StageCounts, Work, cut_shards
from editr1.store.shards import (
    LOG,
    About,
    about,
    keys_digest,
    read_drops,
    read_shard,
    reopen,
    shard_path,
    shard_paths,
    sum_digests,
)
from editr1.text import without_secrets

STAGE_OF = {"00_filter": "tasks", "01_tasks": "tasks", "02_principles": "decompose", "03_candidates": "generate", "04_traces": "score"} | {
    "05_second": "inspect",
    "05_inspections": "inspect",
    "07_pairs": "pairs",
    "07_rationales": "rationales",
}
MIN_ROWS = 100  # ours: below this a share of dropped rows says nothing, until the table's end


def fill_table(
    folder: Path, record: type, items: Iterable[Item], work: Work, settings: Mapping[str, Any], engine: Engine, total: int | None
) -> StageCounts:
    """What `Run.process` does."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(exclusive(folder / ".lock", f"table {folder}"))
        check_settings(folder, settings, _begun(folder))  # no row yet: nothing depends on other settings
        size = _shard_size(folder, engine.shard_size)
        bar = stack.enter_context(tqdm(total=total, desc=folder.name, unit="row", disable=not engine.progress, mininterval=1.0))

        def advance(count: int, status: str) -> None:
            if status:
                bar.set_postfix_str(status, refresh=False)
            bar.update(count)

        fill = fill_with_ray if engine.kind == "ray" else _fill_here
        num_shards = fill(folder, record, cut_shards(items, size), work, engine, advance)
        return _close_table(folder, record, num_shards, work, engine)


def _fill_here(
    folder: Path,
    record: type,
    shards: Iterable[tuple[int, list[Item]]],
    work: Work,
    engine: Engine,
    on_rows: Callable[[int, str], None],
) -> int:
    num_shards, counts = 0, StageCounts()
    with ShardRunner(record, work, FailureBudget(engine.max_failed_share), on_rows) as runner:
        for index, items in shards:
            num_shards = index + 1
            found = finished(folder, index, items)
            if found:
                on_rows(len(items), "")
            else:
                runner.fill(shard_path(folder, index), items)
                found = about(shard_path(folder, index))
            counts = counts.plus(found.num_in, found.reasons)
            if counts.num_in >= MIN_ROWS:
                check_drops(folder, record, counts, work, engine)
    return num_shards


def finished(folder: Path, index: int, items: list[Item]) -> About | None:
    """What the shard says, where it is there and whole. Raises DataError when it is damaged or was made for other items."""
    path = shard_path(folder, index)
    keys = [key for key, _ in items]
    assert len(set(keys)) == len(keys), f"duplicate item keys in shard {index} of {folder.name}"
    if not path.exists():
        return None
    found = about(path)
    if found.keys != keys_digest(keys):
        raise ChangedInputsError(folder, f"{path} was made from other inputs")
    path.with_suffix(LOG).unlink(missing_ok=True)  # killed between the rename and the removal
    return found


def check_drops(folder: Path, record: type, counts: StageCounts, work: Work, engine: Engine) -> None:
    """Raises DataError when most rows were dropped, and opens their shards again: the good rows stay, the bad ones are tried again."""
    bad = Counter({code: num for code, num in counts.reasons.items() if code not in work.choices})
    if not bad or bad.total() <= engine.max_dropped_share * counts.num_in:
        return
    paths = shard_paths(folder)
    code, times = bad.most_common(1)[0]
    example = next(reason for path in paths for _, reason in read_drops(path) if reason.partition(":")[0] == code)
    (folder / "counts.json").unlink(missing_ok=True)  # of an earlier run that allowed more
    for path in paths:
        reopen(path, record, work.choices)
    raise DataError(
        f"{bad.total()} of {counts.num_in} rows of {folder} were dropped, the limit is a share of {engine.max_dropped_share:g} "
        f"(engine.max_dropped_share); the commonest reason, {times} times: {example[:300]!r}. Mend the cause and run again: "
        "good rows are kept, dropped ones are tried again; or raise the limit"
    )


def check_settings(folder: Path, settings: Mapping[str, Any], begun: bool, curves: str = "") -> None:
    """Writes down what is made in a folder from which settings and inputs; of one that was begun it raises ChangedInputsError for others.

    curves: the stage whose points in `metrics.jsonl` go with the folder.
    """
    path = folder / "settings.json"
    settings = without_secrets(json.loads(json.dumps(settings)))
    if not begun:
        write_json(path, settings)
        return
    old = without_secrets(read_object(path))
    unknown = {key: value for key, value in settings.items() if key not in old and key.startswith(("content ", "input ", "prompts"))}
    if unknown:  # an older editr1 did not write down what its settings stood for
        old |= unknown
        write_json(path, old)
    if (change := _first_change("", _telling(old), _telling(settings))) is not None:
        key, was, now = change
        raise ChangedInputsError(folder, f"{folder} was begun with {key}={was!r:.200}, now it is {now!r:.200}", curves)


IDLE = frozenset({"price_in", "price_out", "micro_batch", "gradient_checkpointing", "shard", "zero"})
IDLE_OPTIONS = frozenset({"batch_size", "max_concurrency", "timeout", "max_attempts", "device", "check_traces"})
"""Settings, and options of components, that say for what price, in how much memory, how patiently and where, and change no result."""


def _telling(value: Any, idle: frozenset[str] = IDLE) -> Any:
    """The settings without those that change no result."""
    if isinstance(value, list):
        return [_telling(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _telling(item, IDLE_OPTIONS if key == "options" else IDLE) for key, item in value.items() if key not in idle}


def _first_change(where: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    """The place of the first difference, such as `pool.1.temperature`, and what stood and stands there."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new}, key=str)
        found = (_first_change(f"{where}.{key}" if where else str(key), old.get(key), new.get(key)) for key in keys)
        return next((change for change in found if change is not None), None)
    return None if old == new else (where, old, new)


def _begun(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob("part-*") if path.suffix in (".parquet", ".jsonl"))


def _shard_size(folder: Path, wanted: int) -> int:
    """A table keeps the shards that it was begun with: the engine's size is for new ones, and changes no row of an old one."""
    path = folder / "layout.json"
    if _begun(folder) and path.exists():
        size = read_object(path, "shard_size")["shard_size"]
        if not isinstance(size, int) or size < 1:
            raise DataError(f"{path} is damaged: shard_size is {size!r}, expected a whole number above 0; restore it")
        return size
    write_json(path, {"shard_size": wanted})
    return wanted


def _close_table(folder: Path, record: type, num_shards: int, work: Work, engine: Engine) -> StageCounts:
    paths = shard_paths(folder)
    if len(paths) > num_shards:
        raise ChangedInputsError(folder, f"{paths[-1]} was made from more inputs than there are now")
    done = [about(path) for path in paths]
    counts = StageCounts()
    for shard in done:
        counts = counts.plus(shard.num_in, shard.reasons)
    check_drops(folder, record, counts, work, engine)
    dropped = (drop for path, shard in zip(paths, done, strict=True) if shard.reasons for drop in read_drops(path))
    lines = "".join(json.dumps({"key": key, "reason": reason}, ensure_ascii=False) + "\n" for key, reason in dropped)
    write_atomic(folder / "dropped.jsonl", lines.encode())
    summary = {name: getattr(counts, name) for name in StageCounts.__slots__}
    write_json(folder / "counts.json", summary | {"digest": sum_digests(shard.rows for shard in done), "shards": num_shards})
    return counts


# --- reading ----------------------------------------------------------------------------------------


def read_summary(folder: Path) -> dict[str, Any]:
    """`counts.json` of a complete table. Raises DataError for a table that is missing, unfinished, or of another version."""
    path = folder / "counts.json"
    again = f"run (again): editr1 {STAGE_OF.get(folder.name, folder.name)} --run {folder.parent} ..."
    if not path.exists():
        raise DataError(f"table {folder} is {'unfinished' if folder.exists() else 'missing'}; {again}")
    summary = read_json(path)
    wanted = {"num_in": int, "num_out": int, "num_dropped": int, "reasons": dict, "digest": str, "shards": int}
    for name, kind in wanted.items():
        if not isinstance(summary, dict) or not isinstance(summary.get(name), kind):
            raise DataError(f"{path} has no {name!r}: it is damaged, or another version of editr1 wrote it; {again}")
    return dict(summary)


def read_records(folder: Path, record: type) -> Iterator[tuple[str, Any]]:
    """(key, record) of a complete table, in order. Raises DataError when a shard is damaged or rows are missing."""
    summary = read_summary(folder)
    paths = [shard_path(folder, index) for index in range(summary["shards"])]
    num = 0
    for path in paths:
        for keyed in read_shard(path, record):
            num += 1
            yield keyed
    if num != summary["num_out"]:
        raise DataError(
            f"{folder} has {num} records, its counts.json says {summary['num_out']}; check it with: editr1 repair {folder.parent}"
        )


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
