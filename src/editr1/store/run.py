"""`Run`: the one object through which stages, benchmarks and reports meet a run directory.

The files behind the settings of a stage (checkpoints, prompts) count by their contents: a path says nothing of what lies there.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

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
from editr1.store._files import exclusive, read_json, read_jsonl, read_object, read_whole_lines, write_atomic, write_json
from editr1.store.engine import Engine, Item, StageCounts, Work
from editr1.store.images import ImageStore, Origins
from editr1.store.shards import seconds_path, shard_paths
from editr1.store.tables import check_settings, fill_table, read_records, read_summary

T = TypeVar("T")

TABLES: dict[str, type] = {
    "01_tasks": EditTask,
    "02_principles": TaskPrinciples,
    "03_candidates": Candidate,
    "04_traces": Trace,
    "05_inspections": Inspection,
    "07_pairs": PreferencePair,
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

    def config(self) -> dict[str, Any]:
        """The settings of the stages that ran, by stage, as `config.json` keeps them."""
        path = self.dir / "config.json"
        return dict(read_json(path)) if path.exists() else {}

    # --- tables

    def read(self, table: str, cls: type | None = None) -> Iterator[Any]:
        """The records of a complete table, in order; `cls` for a table that `TABLES` does not name.

        Raises DataError for a missing or unfinished table, and for a row of another schema version.
        """
        return (record for _, record in self.keyed(table, cls))

    def keyed(self, table: str, cls: type | None = None) -> Iterator[tuple[str, Any]]:
        """The records with the keys of the items that they were made from."""
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
        return dict(pair for path in shard_paths(self.dir / table) for pair in read_jsonl(seconds_path(path)))

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


def _check_version(header: Path) -> None:
    version = read_object(header, "schema")["schema"]
    if version != SCHEMA_VERSION:
        raise DataError(
            f"run directory {header.parent} has schema version {version}, this program reads {SCHEMA_VERSION}; "
            + (
                f"bring it up to date with: editr1 migrate {header.parent}"
                if version == 1
                else "use the editr1 that wrote it or start a new run directory"
            )
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


MODEL_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt", ".model", ".jinja", ".yaml", ".py"}
"""What a model directory is loaded from; logs, resume points and pictures beside it say nothing of its replies."""
NO_MODEL = ("checkpoint-", "runs", "logs", "gallery", ".")


def digests_behind(settings: Any, cache: Path) -> dict[str, str]:
    """`content PATH` -> SHA-256 for every option of a component that names a file or folder of this machine.

    A file is read once: its digest is kept in `cache` under its size and time.
    """
    known = read_json(cache) if cache.exists() else {}
    before = len(known)
    found = {f"content {path}": _digest(path, known) for path in sorted(set(_paths(settings)))}
    if len(known) > before:
        write_json(cache, known)
    return found


def _paths(value: Any, inside: bool = False) -> Iterator[Path]:
    """The paths among the options of components, which `to_plain` writes as {"id", "options"}."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, inside or key == "options")
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, inside)
    elif inside and isinstance(value, str) and value and len(value) < 4096 and "\n" not in value and "\x00" not in value:
        path = Path(value)
        try:
            there = path.exists() and (path.is_absolute() or len(path.parts) > 1 or path.is_file())
        except OSError:  # a text that is no path
            there = False
        if there:
            yield path


def _digest(path: Path, known: dict[str, str]) -> str:
    files = [path] if path.is_file() else sorted(_model_files(path))
    lines = [f"{file.relative_to(path) if file != path else file.name} {_file_digest(file, known)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _model_files(folder: Path) -> Iterator[Path]:
    """Those of the folder and of the folders in it, as a pipeline has them."""
    for entry in folder.iterdir():
        if entry.is_file() and entry.suffix in MODEL_SUFFIXES:
            yield entry
        elif entry.is_dir() and not entry.name.startswith(NO_MODEL):
            yield from (file for file in entry.iterdir() if file.is_file() and file.suffix in MODEL_SUFFIXES)


def _file_digest(path: Path, known: dict[str, str]) -> str:
    stat = path.stat()
    name = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    if name not in known:
        with path.open("rb") as file:
            known[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[name]
