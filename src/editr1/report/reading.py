"""A run as a report reads it: what can be read, and one line for each file that cannot; pictures once each, small, as data URIs; and
the loop as a drawing, with what went in, came out and was dropped at every arrow. Nothing is written, for the run may be going on.

01 tasks -> 02 principles -> 03 candidates -> 04 traces -> 05 inspections
   |                              |                             |
sources                       07 pairs --> 08 RL-RRM <----- 06 SFT-RRM
                                               |
                   10 metrics <----------- 09 editor
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from editr1.errors import DataError, EditR1Error
from editr1.pictures import encode_small
from editr1.schema import SCHEMA_VERSION, ImageRef, Metric, from_json
from editr1.store import TABLES, ImageStore, Run
from editr1.store._files import read_object
from editr1.store.engine import StageCounts
from editr1.store.images import SUFFIXES

T = TypeVar("T")

# What readers and decoders raise for bytes that are not what they should be; an error of the machine (MemoryError) is none of them.
DAMAGE = (
    *(EditR1Error, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, SyntaxError, RecursionError, struct.error),
)
KNOWN = (*TABLES, "metrics.jsonl", "10_metrics.jsonl", "config.json", "09_editor")
PIXEL_ART = 128  # ours: pixels; anything smaller is drawn enlarged without smoothing, so the file keeps every pixel
THUMBNAIL = 384  # ours: pixels of the longer side; sharp on a phone at the width of a card
BUDGET = 5_000_000  # ours: encoded bytes of all pictures; base64 adds a third, and the page with its texts shall stay under 10 MB
Points = Mapping[str, Mapping[int, float]]
"""Of one stage: series -> step -> value."""
UNKNOWN = ""
"""Suffix of a reference that was written as a digest alone."""


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


@dataclass
class Album:
    """Collects pictures under short names until the budget is spent."""

    budget: int = BUDGET
    uris: dict[str, str] = field(default_factory=dict)
    """Name -> data URI."""
    num_bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether no further picture should be added; what is being shown may still be completed."""
        return self.num_bytes >= self.budget

    def add(self, reader: Reader, ref: ImageRef) -> str:
        """The picture's name on the page; empty for one that the run lacks or that is damaged, which is noted."""
        name, images = ref.digest[:12], reader.run.images
        if not images.root.is_dir():
            reader.note(images.root.name, "is missing, or no folder: no picture can be shown")
            return ""
        if name not in self.uris:
            try:
                mime, data = encode_small(images.get(_named(images, ref)), THUMBNAIL, PIXEL_ART)
            except DAMAGE as error:
                reader.note(f"images/{ref.digest[:2]}/{ref.digest}", error)
                return ""
            self.num_bytes += len(data)
            self.uris[name] = f"data:{mime};base64,{base64.b64encode(data).decode()}"
        return name


def _named(images: ImageStore, ref: ImageRef) -> ImageRef:
    if ref.suffix != UNKNOWN:
        return ref
    named = [replace(ref, suffix=suffix) for suffix in SUFFIXES.values()]
    return next((found for found in named if images.path(found).exists()), named[0])


WIDTH, HEIGHT = 138, 54
COLUMN, ROW = 236, 128


@dataclass(frozen=True, slots=True)
class Room:
    """A box of the drawing; x and y in units of the SVG's view box."""

    folder: str
    title: str
    column: int
    row: int
    fed: Mapping[str, str] = field(default_factory=dict)
    """Where arrows come from -> the stage that goes along them; empty for a further input of the same stage."""
    note: str = ""
    """What lies there: a number of rows, `checkpoint`, or `absent`."""
    present: bool = False

    @property
    def x(self) -> int:
        return 8 + self.column * COLUMN

    @property
    def y(self) -> int:
        return 8 + self.row * ROW


@dataclass(frozen=True, slots=True)
class Arrow:
    """A stage between two rooms, with what it did: SVG path data, the label's place, and its lines."""

    stage: str
    path: str
    x: float
    y: float
    lines: tuple[str, ...] = ()
    dropped: str = ""


SOURCES = "sources"  # where tasks come from: outside of the run directory
ROOMS = (
    Room(SOURCES, "sources", 0, 1),
    Room("01_tasks", "tasks", 0, 0, {SOURCES: "tasks"}),
    Room("02_principles", "principles", 1, 0, {"01_tasks": "decompose"}),
    Room("03_candidates", "candidates", 2, 0, {"02_principles": "generate"}),
    Room("04_traces", "traces", 3, 0, {"03_candidates": "score"}),
    Room("05_inspections", "inspections", 4, 0, {"04_traces": "inspect"}),
    Room("06_rrm_sft", "SFT-RRM", 4, 1, {"05_inspections": "sft"}),
    Room("07_pairs", "human pairs", 2, 1, {"03_candidates": "pairs"}),
    Room("08_rrm_gcpo", "RL-RRM", 3, 1, {"06_rrm_sft": "gcpo", "07_pairs": ""}),
    Room("09_editor", "editor", 3, 2, {"08_rrm_gcpo": "edit-rl"}),
    Room("10_metrics.jsonl", "benchmark", 2, 2, {"09_editor": "bench"}),
)
WEIGHTS = ("06_rrm_sft", "08_rrm_gcpo", "09_editor")
LEARNS_FROM = {"06_rrm_sft": "05_inspections", "08_rrm_gcpo": "07_pairs"}
"""Training stages and the table that they read. Left out: quadruples without a good trace; pairs that are held out or "same"."""


def draw_loop(reader: Reader, metrics: Sequence[Metric], iterations: Points) -> tuple[list[Room], list[Arrow]]:
    """The rooms and arrows with the run's own counts; `iterations` are the curves of editor RL."""
    states = ((room, _state(reader, room.folder, metrics)) for room in ROOMS)
    rooms = {room.folder: replace(room, present=present, note=note) for room, (present, note) in states}
    arrows = []
    for room in ROOMS:
        for start, stage in room.fed.items():
            told = _told(reader, room.folder, metrics, iterations) if stage else ((), "")
            arrows.append(Arrow(stage, *_route(rooms[start], room), *told))
    return list(rooms.values()), arrows


def _state(reader: Reader, folder: str, metrics: Sequence[Metric]) -> tuple[bool, str]:
    path = reader.dir / folder
    if folder == SOURCES:
        return reader.has("01_tasks"), "outside the run"
    if not path.exists():
        return False, "absent"
    if folder.endswith(".jsonl"):
        return True, f"{len(metrics):,} figures"
    if counts := reader.counts(folder):
        return True, f"{counts.num_out:,} rows"
    if folder in WEIGHTS:
        return True, "checkpoint" if any(path.rglob("*.safetensors")) else "no weights yet"
    return False, "unfinished"


def _told(reader: Reader, folder: str, metrics: Sequence[Metric], iterations: Points) -> tuple[tuple[str, ...], str]:
    """What a stage took and gave, and what was lost on the way; nothing while it has not finished."""
    if folder in LEARNS_FROM:
        used = reader.value(f"{folder}/done.json", lambda path: int(read_object(path, "rows")["rows"]), None)
        table = reader.counts(LEARNS_FROM[folder])
        if used is None or table is None:
            return (), ""
        return (f"in {table.num_out:,}", f"used {used:,}"), f"left out {max(0, table.num_out - used):,}"
    if folder == "09_editor":
        done, shares = iterations.get("reward/mean", {}), list(iterations.get("reward/unscored", {}).values())
        unscored = f"unscored {100 * sum(shares) / len(shares):.1f} %" if shares else ""
        return ((f"{len(done):,} iterations",), unscored) if done else ((), "")
    if folder == "10_metrics.jsonl":
        known = sum(metric.value is not None for metric in metrics)
        return ((f"in {len(metrics):,}", f"out {known:,}"), f"no value {len(metrics) - known:,}") if metrics else ((), "")
    counts = reader.counts(folder)
    return ((f"in {counts.num_in:,}", f"out {counts.num_out:,}"), f"dropped {counts.num_dropped:,}") if counts else ((), "")


def _route(start: Room, end: Room) -> tuple[str, float, float]:
    """Path data between the nearest sides of two boxes, and the label's place."""
    if start.row == end.row:
        right = end.column > start.column
        x1, x2 = (start.x + WIDTH, end.x) if right else (start.x, end.x + WIDTH)
        y = start.y + HEIGHT / 2
        return f"M{x1} {y} H{x2 - 7 if right else x2 + 7}", (x1 + x2) / 2, y
    x = start.x + WIDTH / 2
    if end.row < start.row:
        return f"M{x} {start.y} V{end.y + HEIGHT + 7}", x, (end.y + HEIGHT + start.y) / 2
    return f"M{x} {start.y + HEIGHT} V{end.y - 7}", x, (start.y + HEIGHT + end.y) / 2


def dropped_reasons(reader: Reader) -> list[tuple[str, str, int]]:
    """(table, reason, rows) of every drop, most frequent first inside a table."""
    rows = []
    for room in ROOMS:
        if room.folder in TABLES and (counts := reader.counts(room.folder)):
            rows += [(room.folder, code, count) for code, count in sorted(counts.reasons.items(), key=lambda item: -item[1])]
    return rows
