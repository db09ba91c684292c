"""A run as a report reads it: what can be read, and one line for each file that cannot. Nothing is written, for the run may be going on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from editr1.errors import DataError, EditR1Error
from editr1.schema import SCHEMA_VERSION, from_json
from editr1.store import TABLES, ImageStore, Run
from editr1.store._files import read_object
from editr1.store.engine import StageCounts

T = TypeVar("T")

# What readers and decoders raise for bytes that are not what they should be; an error of the machine (MemoryError) is none of them.
DAMAGE = (
    EditR1Error,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    SyntaxError,
    RecursionError,
    struct.error,
)
KNOWN = (*TABLES, "metrics.jsonl", "10_metrics.jsonl", "config.json", "09_editor")


class Reader:
    """One run directory. `damage` grows while the report is made: file (from the run directory on) -> what is wrong with it."""

    def __init__(self, run_dir: Path) -> None:
        """Raises DataError for a directory that is no run, or is one of another schema version."""
        self.dir, self.damage = run_dir, dict[str, str]()
        header = self.value("env.json", lambda path: read_object(path, "schema"), {"schema": SCHEMA_VERSION})
        if header["schema"] != SCHEMA_VERSION or not any((run_dir / name).exists() for name in ("env.json", *KNOWN)):
            Run.open(run_dir, create=False)
        if not (run_dir / "env.json").exists():
            self.damage["env.json"] = "is missing, so versions and commit are not known"
        self.environment: dict[str, Any] = header
        self.run = Run(run_dir, ImageStore(run_dir / "images"))

    def note(self, name: str, error: Exception | str) -> None:
        """Remembers a damaged file; the first finding about a file stays."""
        line = " ".join(f"{error}".split()) or type(error).__name__
        self.damage.setdefault(name, line.replace(f"{self.dir}/", "")[:300])

    def value(self, name: str, read: Callable[[Path], T], otherwise: T) -> T:
        """What `read` makes of a file; `otherwise` where it is absent, or damaged, which is noted."""
        path = self.dir / name
        try:
            if not path.exists():
                return otherwise
            if not path.is_file():
                raise DataError("is no file")
            return read(path)
        except DAMAGE as error:
            self.note(name, error)
            return otherwise

    def folder(self, name: str, pattern: str) -> list[str]:
        """The files of a folder that match, from the run directory on, sorted; none where the folder is absent."""
        path = self.dir / name
        if path.exists() and not path.is_dir():
            self.note(name, "is no folder")
        return sorted(f"{name}/{found.name}" for found in path.glob(pattern))

    def lines(self, name: str, parse: Callable[[bytes], T]) -> list[T]:
        """Each line of a log that `parse` takes, a last one without its end among them; one that it does not take is noted."""
        whole, _, last = self.value(name, Path.read_bytes, b"").rpartition(b"\n")
        found = []
        for number, line in enumerate((*whole.split(b"\n"), last) if whole or last else (), start=1):
            try:
                if line.strip():
                    found.append(parse(line))
            except DAMAGE as error:
                self.note(name, f"line {number} cannot be read ({error})")
        return found

    def records(self, name: str, record: type[T]) -> list[T]:
        """The records of a log, as `schema.to_json` writes them."""
        return self.lines(name, lambda line: from_json(record, line))

    def has(self, table: str) -> bool:
        """Whether the table is complete, and says what its stage did."""
        return self.counts(table) is not None

    def counts(self, table: str) -> StageCounts | None:
        """What the stage that wrote the table did; None for a table that is missing, unfinished, or damaged."""
        if (self.dir / table).is_file():
            self.note(table, "is no folder")
        return self.value(f"{table}/counts.json", lambda _: self.run.counts(table), None)

    def rows(self, table: str) -> Iterator[Any]:
        """The records of a table up to the first damage."""
        if not self.has(table):
            return
        try:
            yield from self.run.read(table)
        except DAMAGE as error:
            self.note(table, error)
