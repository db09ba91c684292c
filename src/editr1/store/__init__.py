"""A run directory: images by content hash, tables of records that survive SIGKILL, and the logs beside them.

    run_dir/
      config.json env.json          what ran, and with which versions
      images/ab/abcd....png         every image once, named by its content
      01_tasks/                     a table: one folder
        part-00000.parquet          a finished shard
        part-00000.seconds.jsonl    latencies; the one thing that differs between two equal runs
        part-00001.partial.jsonl    the log of the shard in progress (append-only)
        settings.json               the settings that the rows depend on
        counts.json                 written last: the table is complete
        dropped.jsonl               every row that was dropped, with its reason
        metrics.jsonl 10_metrics.jsonl

A stage that is killed at any moment and run again leaves the same bytes as one that was left alone (`*.seconds.jsonl` and
`images/.incoming/` excepted), nothing lost and nothing done twice but the batches that were in flight.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

from editr1.errors import DataError
from editr1.schema import (
    SCHEMA_VERSION,
    Candidate,
    EditTask,
    Inspection,
    Metric,
    PreferencePair,
    Quadruple,
    TaskPrinciples,
    Trace,
    from_json,
    stable_id,
    to_json,
)
from editr1.store._files import (
    exclusive,
    file_digest,
    hold,
    local_name,
    open_log,
    put_aside,
    read_inside,
    read_jsonl,
    read_object,
    read_whole_lines,
    stamp_inside,
    write_atomic,
    write_json,
)
from editr1.store.engine import Drop, Engine, Item, Lane, StageCounts, Work, once
from editr1.store.foreign import check_columns, name_in, read_table, whole_table
from editr1.store.images import ImageStore, Loaded, Origin, Origins, commit, digests_behind, environment
from editr1.store.shards import SECONDS, shard_paths
from editr1.store.tables import check_settings, fill_table, read_records, read_summary
from editr1.text import without_secrets

__all__ = ["Drop", "Engine", "Lane", "StageCounts", "Work", "once"]
__all__ += ["ImageStore", "Loaded", "Origin", "Origins", "commit", "environment"]
__all__ += ["check_columns", "file_digest", "hold", "local_name", "name_in", "put_aside", "read_inside", "read_table", "stamp_inside"]
__all__ += ["whole_table"]
__all__ += ["TABLES", "Run", "Split", "beside", "held_out_share", "is_held_out"]
__all__ += ["preference_pairs", "quadruples", "with_inspections", "with_traces"]

T = TypeVar("T")
U = TypeVar("U")
Split = Literal["train", "held_out"]

TABLES: dict[str, type] = {
    "01_tasks": EditTask,
    "02_principles": TaskPrinciples,
    "03_candidates": Candidate,
    "04_traces": Trace,
    "05_inspections": Inspection,
    "07_pairs": PreferencePair,
}
METRICS = "10_metrics.jsonl"


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
            version = read_object(header, "schema")["schema"]
            if version != SCHEMA_VERSION:
                cure = f"bring it up to date with: editr1 migrate {path}" if version == 1 else "use the editr1 that wrote it or a new run"
                raise DataError(f"run directory {path} has schema version {version}, this program reads {SCHEMA_VERSION}; {cure}")
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
                write_json(saved, without_secrets({**(read_object(saved) if saved.exists() else {}), **config}))
        return Run(path, ImageStore(path / "images"))

    def config(self) -> dict[str, Any]:
        """The settings of the stages that ran, by stage, as `config.json` keeps them."""
        path = self.dir / "config.json"
        return read_object(path) if path.exists() else {}

    def read(self, table: str, cls: type | None = None) -> Iterator[Any]:
        """The records of a complete table, in order; `cls` for a table that `TABLES` does not name.

        Raises DataError for a missing or unfinished table, and for a row of another schema version.
        """
        return (record for _, record in self.keyed(table, cls))

    def keyed(self, table: str, cls: type | None = None) -> Iterator[tuple[str, Any]]:
        """As `read`, with the keys of the items that the records were made from."""
        return read_records(self.dir / table, cls or TABLES[table])

    def counts(self, table: str) -> StageCounts:
        """What the stage that wrote the table did. Raises DataError for a missing or unfinished table."""
        summary = read_summary(self.dir / table)
        return StageCounts(**{name: summary[name] for name in StageCounts.__slots__})

    def inputs(self, *tables: str) -> dict[str, str]:
        """The contents of tables as settings of those made from them: a table made anew is not continued with old rows."""
        return {f"input {table}": read_summary(self.dir / table)["digest"] for table in tables}

    def made_from(self, settings: Mapping[str, Any], *tables: str, models: Sequence[str | Path] = ()) -> dict[str, Any]:
        """The settings of a table with what they stand for: the contents of other tables, and of the checkpoints that they name.

        models: further checkpoints, which the settings name outside a component's options.
        """
        with exclusive(self.dir / ".lock", str(self.dir), wait=True):
            behind = digests_behind([settings, {"options": list(map(str, models))}], self.dir / ".digests.json")
        return {**settings, **behind, **self.inputs(*tables)}

    def origins(self, table: str) -> Origins:
        """What the rows of a table were made from, as its stage noted it."""
        return Origins(self.dir / table)

    def count(self, table: str) -> int:
        """Number of records of a complete table."""
        return self.counts(table).num_out

    def has(self, table: str) -> bool:
        """Whether the table is complete."""
        return (self.dir / table / "counts.json").exists()

    def seconds(self, table: str) -> dict[str, float]:
        """Latency by item key, where the stage recorded it."""
        return dict(pair for path in shard_paths(self.dir / table) for pair in read_jsonl(path.with_suffix(SECONDS)))

    def process(
        self,
        table: str,
        items: Iterable[Item],
        work: Work,
        *,
        settings: Mapping[str, Any],
        record: type | None = None,
        engine: Engine | None = None,
        total: int | None = None,
    ) -> StageCounts:
        """Runs `work` over the items into the table, continuing what an earlier process left.

        items: (key, value) in an order that is the same in every run; read lazily.
        settings: what the rows depend on. Raises ChangedInputsError when the table was begun with others, or for other items.
        record: class of the rows, for a table that `TABLES` does not name.
        total: number of items, for the progress bar.

        Raises DataError when most rows were dropped.
        """
        return fill_table(self.dir / table, record or TABLES[table], items, work, settings, engine or Engine(), total)

    def claim(self, name: str, curves: str, made_from: Mapping[str, Any]) -> Path:
        """The folder of a training, begun with these settings and inputs (`made_from`), its points logged as `curves`.

        Raises ChangedInputsError when it was begun with others: half a curve of one recipe and half of another is neither.
        """
        folder = self.dir / name
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".claim", str(folder), wait=True):  # every rank comes here
            check_settings(folder, made_from, (folder / "settings.json").exists(), curves)
        return folder

    def write_json(self, name: str, value: Any) -> None:
        """A small JSON file beside the tables, whole or absent."""
        write_json(self.dir / name, value)

    def write_text(self, name: str, text: str) -> None:
        """As `write_json`, of any text."""
        write_atomic(self.dir / name, text.encode())

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Adds a point of a curve to `metrics.jsonl`."""
        line = json.dumps({"stage": stage, "step": step, **{key: float(value) for key, value in values.items()}})
        with open_log(self.dir / "metrics.jsonl") as file:
            file.write(line.encode() + b"\n")

    def curves(self, stage: str) -> list[dict[str, Any]]:
        """The points that `log` wrote for a stage; after a resume the last point of a step counts."""
        points = list(read_jsonl(self.dir / "metrics.jsonl"))
        return list({(point["step"], *sorted(point)): point for point in points if point["stage"] == stage}.values())

    def add_metric(self, metric: Metric) -> None:
        """Adds a line to `10_metrics.jsonl`; one of the same name and protocol is replaced, so a repeated command repeats nothing."""
        with exclusive(self.dir / ".lock", str(self.dir), wait=True):
            kept = [m for m in self.metrics() if (m.name, m.protocol) != (metric.name, metric.protocol)]
            write_atomic(self.dir / METRICS, "".join(to_json(m) + "\n" for m in [*kept, metric]).encode())

    def metrics(self) -> list[Metric]:
        """The lines of `10_metrics.jsonl`."""
        try:
            return [from_json(Metric, line) for line in read_whole_lines(self.dir / METRICS)]
        except ValueError as error:
            raise DataError(f"{self.dir / METRICS} is damaged ({error}); restore the line or delete it") from error


# --- tables side by side: each is in the order of `01_tasks`, so that a join holds one task in memory ---


def beside(
    rows: Iterable[T], key: Callable[[T], str], others: Iterable[U], other_key: Callable[[U], str], complaint: str
) -> Iterator[tuple[T, list[U]]]:
    """Each row with the others of its key, perhaps none. Raises DataError, the key in the complaint's `{}`, for others without a row."""
    groups = itertools.groupby(others, key=other_key)
    group = next(groups, None)
    for row in rows:
        mine: list[U] = []
        if group is not None and group[0] == key(row):
            mine = list(group[1])
            group = next(groups, None)
        yield row, mine
    if group is not None:
        raise DataError(complaint.format(group[0]))


def quadruples(run: Run) -> Iterator[Quadruple]:
    """Every candidate with its task and principles, the candidates of a task adjacent."""
    complaint = f"{run.dir}: candidates of task {{}} have no principles; run decompose and generate again"
    decompositions: Iterator[TaskPrinciples] = run.read("02_principles")
    for row, candidates in beside(decompositions, lambda row: row.task.id, run.read("03_candidates"), attrgetter("task_id"), complaint):
        yield from (Quadruple(row.task, row.principles, candidate) for candidate in candidates)


def with_traces(run: Run) -> Iterator[tuple[Quadruple, list[Trace]]]:
    """Every quadruple with its traces in the pool's order; an empty list where all were dropped."""
    complaint = f"{run.dir}: traces of {{}} belong to no candidate; run score again"
    return beside(quadruples(run), attrgetter("id"), run.read("04_traces"), attrgetter("quadruple_id"), complaint)


def with_inspections(run: Run) -> Iterator[tuple[Quadruple, list[Trace], Inspection]]:
    """Every inspected quadruple with its traces."""
    complaint = f"{run.dir}: the inspection of {{}} belongs to no candidate; run inspect again"
    inspections: Iterator[Inspection] = run.read("05_inspections")
    for (quadruple, traces), found in beside(with_traces(run), lambda row: row[0].id, inspections, attrgetter("quadruple_id"), complaint):
        yield from ((quadruple, traces, inspection) for inspection in found)


def preference_pairs(run: Run, split: Split | None = None) -> Iterator[PreferencePair]:
    """The pairs of `07_pairs`, of one split or all; the share was set by the pairs stage."""
    share = held_out_share(run)
    for pair in run.read("07_pairs"):
        if split is None or is_held_out(pair.task.id, share) == (split == "held_out"):
            yield pair


def held_out_share(run: Run) -> float:
    """Share of the tasks that train nothing, in [0, 1], as the pairs stage set it; 0 for a run without pairs."""
    return float(read_object(run.dir / "07_pairs" / "settings.json", "held_out_share")["held_out_share"]) if run.has("07_pairs") else 0.0


def is_held_out(task_id: str, share: float) -> bool:
    """Whether a task belongs to the held-out split: a function of the task alone, so no edit of it can be on both sides.

    >>> round(sum(is_held_out(str(i), 0.25) for i in range(10_000)) / 10_000, 2)
    0.25
    """
    return int(stable_id("split", task_id)[:8], 16) < share * 2**32
