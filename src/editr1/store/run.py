"""`Run`: the one object through which stages, benchmarks and reports meet a run directory."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

import editr1
from editr1.errors import DataError
from editr1.schema import (
    SCHEMA_VERSION,
    Candidate,
    EditTask,
    Inspection,
    Metric,
    PreferencePair,
    TaskPrinciples,
    Trace,
    from_json,
    to_json,
)
from editr1.store._files import exclusive, files_digest, read_json, read_whole_lines, write_atomic, write_json
from editr1.store.engine import Engine, FailureBudget, Item, ShardRunner, StageCounts, Work, count_rows, cut_shards
from editr1.store.images import ImageStore
from editr1.store.shards import Row, keys_digest, read_shard, seconds_path, shard_path, shard_paths, stored_keys_digest

T = TypeVar("T")

TABLES: dict[str, type] = {
    "01_tasks": EditTask,
    "02_principles": TaskPrinciples,
    "03_candidates": Candidate,
    "04_traces": Trace,
    "05_inspections": Inspection,
    "07_pairs": PreferencePair,
}
STAGE_OF = {"01_tasks": "tasks", "02_principles": "decompose", "03_candidates": "generate", "04_traces": "score"} | {
    "07_rationales": "rationales",
    "05_inspections": "inspect",
    "07_pairs": "pairs",
}
METRICS = "10_metrics.jsonl"
_PACKAGES = ("torch", "transformers", "diffusers", "trl", "peft", "accelerate", "datasets", "pillow", "pyarrow", "openai")


@dataclass(frozen=True)
class Run:
    """A run directory of this program's schema version. Make one with `Run.open`."""

    dir: Path
    images: ImageStore

    @staticmethod
    def open(run_dir: Path | str, config: Mapping[str, Any] | None = None, *, create: bool = True) -> Run:
        """The run at `run_dir`, made when missing (unless `create` is False); `config` is merged into `config.json`.

        Raises DataError for a directory that is no run directory or was written by another schema version.
        """
        path = Path(run_dir)
        header = path / "env.json"
        if header.exists():
            _check_version(header)
        elif path.exists() and (not path.is_dir() or any(entry.name != "env.json.tmp" for entry in path.iterdir())):
            raise DataError(f"{path} is no run directory (it has no env.json) and is not empty; choose another --run directory")
        elif not create:
            raise DataError(f"there is no run at {path}; start one with: editr1 tasks --config RECIPE --run {path}")
        else:
            path.mkdir(parents=True, exist_ok=True)
            write_json(header, environment())
        if config:
            with exclusive(path / ".lock", str(path), wait=True):
                saved = path / "config.json"
                write_json(saved, {**(read_json(saved) if saved.exists() else {}), **config})
        return Run(path, ImageStore(path / "images"))

    # --- tables

    def read(self, table: str, cls: type | None = None) -> Iterator[Any]:
        """The records of a complete table, in order; `cls` for a table that `TABLES` does not name.

        Raises DataError for a missing or unfinished table, and for a row of another schema version.
        """
        return (record for _, record in self.keyed(table, cls))

    def keyed(self, table: str, cls: type | None = None) -> Iterator[tuple[str, Any]]:
        """The records with the keys of the items that they were made from."""
        for row in self.rows(table):
            if row.record is not None:
                try:
                    yield row.key, from_json(cls or TABLES[table], row.record)
                except ValueError as error:
                    raise DataError(f"{self.dir / table}: row {row.key}: {error}") from error

    def rows(self, table: str) -> Iterator[Row]:
        """The rows of a complete table with those that were dropped."""
        self.counts(table)
        for path in shard_paths(self.dir / table):
            yield from read_shard(path)

    def counts(self, table: str) -> StageCounts:
        """What the stage that wrote the table did. Raises DataError for a missing or unfinished table."""
        summary = self._summary(table)
        return StageCounts(**{name: summary[name] for name in StageCounts.__slots__})

    def inputs(self, *tables: str) -> dict[str, str]:
        """The contents of tables as settings of those made from them: a table made anew is not continued with old rows."""
        return {f"input {table}": self._summary(table)["digest"] for table in tables}

    def _summary(self, table: str) -> dict[str, Any]:
        path = self.dir / table / "counts.json"
        if not path.exists():
            state = "unfinished" if (self.dir / table).exists() else "missing"
            raise DataError(f"table {self.dir / table} is {state}; run (again): editr1 {STAGE_OF.get(table, table)} --run {self.dir} ...")
        summary = dict(read_json(path))
        if missing := {*StageCounts.__slots__, "digest"} - summary.keys():
            stage = STAGE_OF.get(table, table)
            raise DataError(
                f"{path} has no {min(missing)!r}: another version of editr1 wrote it; run again: editr1 {stage} --run {self.dir} ..."
            )
        return summary

    def count(self, table: str) -> int:
        """Number of records of a complete table."""
        return self.counts(table).num_out

    def has(self, table: str) -> bool:
        """Whether the table is complete."""
        return (self.dir / table / "counts.json").exists()

    def seconds(self, table: str) -> dict[str, float]:
        """Latency by item key, where the stage recorded it."""
        lines = (line for path in shard_paths(self.dir / table) for line in read_whole_lines(seconds_path(path)))
        return dict(json.loads(line) for line in lines)

    def process(
        self,
        table: str,
        items: Iterable[Item],
        work: Work,
        *,
        settings: Mapping[str, Any],
        engine: Engine | None = None,
        total: int | None = None,
    ) -> StageCounts:
        """Runs `work` over the items into the table, continuing what an earlier process left.

        items: (key, value) in an order that is the same in every run; read lazily.
        settings: what the rows depend on. Raises DataError when the table was begun with others, or for other items.
        total: number of items, for the progress bar.
        """
        engine = engine or Engine()
        folder = self.dir / table
        folder.mkdir(exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(exclusive(folder / ".lock", f"table {folder}"))
            _check_settings(folder, settings)
            bar = stack.enter_context(tqdm(total=total, desc=table, unit="row", disable=not engine.progress, mininterval=1.0))
            shards = cut_shards(items, engine.shard_size)
            if engine.kind == "ray":
                from editr1.store.ray import fill_with_ray

                num_shards = fill_with_ray(folder, shards, work, engine, lambda count, status: _advance(bar, count, status))
            else:
                num_shards = _fill_here(folder, shards, work, engine, lambda count, status: _advance(bar, count, status))
            return _close_table(folder, num_shards)

    # --- logs

    def write_json(self, name: str, value: Any) -> None:
        """A small JSON file beside the tables, whole or absent."""
        write_json(self.dir / name, value)

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Adds a point of a curve to `metrics.jsonl`."""
        line = json.dumps({"stage": stage, "step": step, **{key: float(value) for key, value in values.items()}})
        with (self.dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def curves(self, stage: str) -> list[dict[str, Any]]:
        """The points that `log` wrote for a stage; after a resume the last point of a step counts."""
        points = [json.loads(line) for line in read_whole_lines(self.dir / "metrics.jsonl")]
        return list({(point["step"], *sorted(point)): point for point in points if point["stage"] == stage}.values())

    def add_metric(self, metric: Metric) -> None:
        """Adds a line to `10_metrics.jsonl`; one of the same name and protocol is replaced, so a repeated command repeats nothing."""
        with exclusive(self.dir / ".lock", str(self.dir), wait=True):
            kept = [m for m in self.metrics() if (m.name, m.protocol) != (metric.name, metric.protocol)]
            write_atomic(self.dir / METRICS, "".join(to_json(m) + "\n" for m in [*kept, metric]).encode())

    def metrics(self) -> list[Metric]:
        """The lines of `10_metrics.jsonl`."""
        return [from_json(Metric, line) for line in read_whole_lines(self.dir / METRICS)]


def _advance(bar: Any, count: int, status: str) -> None:
    if status:
        bar.set_postfix_str(status, refresh=False)
    bar.update(count)


def _fill_here(
    folder: Path, shards: Iterable[tuple[int, list[Item]]], work: Work, engine: Engine, on_rows: Callable[[int, str], None]
) -> int:
    num_shards = 0
    with ShardRunner(work, FailureBudget(engine.max_failed_share), on_rows) as runner:
        for index, items in shards:
            num_shards = index + 1
            if is_finished(folder, index, items):
                on_rows(len(items), "")
            else:
                runner.fill(shard_path(folder, index), items)
    return num_shards


def is_finished(folder: Path, index: int, items: list[Item]) -> bool:
    """Whether the shard is there and was made for these items. Raises DataError when it was made for others."""
    path = shard_path(folder, index)
    keys = [key for key, _ in items]
    assert len(set(keys)) == len(keys), f"duplicate item keys in shard {index} of {folder.name}"
    if not path.exists():
        return False
    if stored_keys_digest(path) != keys_digest(keys):
        raise DataError(f"{path} was made from other inputs; delete {folder} and the tables after it, or use a new run directory")
    path.with_suffix(".partial.jsonl").unlink(missing_ok=True)  # killed between the rename and the removal
    return True


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    path = folder / "settings.json"
    settings = json.loads(json.dumps(settings))
    if not any(part.stat().st_size for part in folder.glob("part-*")):  # no row yet: nothing depends on other settings
        write_json(path, settings)
        return
    old = read_json(path)
    changed = sorted(key for key in {*old, *settings} if old.get(key) != settings.get(key))
    if changed:
        key = changed[0]
        raise DataError(
            f"{folder} was begun with {key}={old.get(key)!r}, now it is {settings.get(key)!r}; "
            f"restore the setting, delete the folder, or use a new run directory"
        )


def _close_table(folder: Path, num_shards: int) -> StageCounts:
    paths = shard_paths(folder)
    if len(paths) > num_shards:
        raise DataError(f"{paths[-1]} was made from more inputs than there are now; delete {folder} or use a new run directory")
    counts = count_rows(row for path in paths for row in read_shard(path))
    dropped = (row for path in paths for row in read_shard(path) if row.dropped is not None)
    lines = "".join(json.dumps({"key": row.key, "reason": row.dropped}, ensure_ascii=False) + "\n" for row in dropped)
    write_atomic(folder / "dropped.jsonl", lines.encode())
    summary = {name: getattr(counts, name) for name in StageCounts.__slots__}
    write_json(folder / "counts.json", summary | {"digest": files_digest(paths)})
    return counts


def _check_version(header: Path) -> None:
    version = read_json(header).get("schema")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"run directory {header.parent} has schema version {version}, this program reads {SCHEMA_VERSION}; "
            f"use the editr1 that wrote it or start a new run directory"
        )


def environment() -> dict[str, Any]:
    """The header of a run: schema version, versions of what computes, and the commit where the source is a checkout."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "absent"
    return {
        "schema": SCHEMA_VERSION,
        "editr1": editr1.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
    }


def commit() -> str:
    """The commit of the checkout that this package lies in; empty for an installed package."""
    command = ["git", "-C", str(Path(editr1.__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
