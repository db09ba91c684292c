"""The loop as a drawing: ten rooms, and at every arrow how much went in, came out and was dropped.

01 tasks -> 02 principles -> 03 candidates -> 04 traces -> 05 inspections
   |                              |                             |
sources                       07 pairs --> 08 RL-RRM <----- 06 SFT-RRM
                                               |
                   10 metrics <----------- 09 editor
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from editr1.report.curves import Points
from editr1.report.reading import Reader
from editr1.schema import Metric
from editr1.store import TABLES
from editr1.store._files import read_object

WIDTH, HEIGHT = 138, 54
COLUMN, ROW = 236, 128


@dataclass(frozen=True, slots=True)
class Room:
    """A box of the drawing; x and y in units of the SVG's view box."""

    folder: str
    title: str
    column: int
    row: int
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
    """A stage between two rooms, with what it did."""

    stage: str
    path: str
    """SVG path data."""
    x: float
    """Where the label stands."""
    y: float
    lines: tuple[str, ...] = ()
    dropped: str = ""


SOURCES = "sources"  # where tasks come from: outside of the run directory
ROOMS = (
    Room(SOURCES, "sources", 0, 1),
    Room("01_tasks", "tasks", 0, 0),
    Room("02_principles", "principles", 1, 0),
    Room("03_candidates", "candidates", 2, 0),
    Room("04_traces", "traces", 3, 0),
    Room("05_inspections", "inspections", 4, 0),
    Room("06_rrm_sft", "SFT-RRM", 4, 1),
    Room("07_pairs", "human pairs", 2, 1),
    Room("08_rrm_gcpo", "RL-RRM", 3, 1),
    Room("09_editor", "editor", 3, 2),
    Room("10_metrics.jsonl", "benchmark", 2, 2),
)
ARROWS = (
    ("tasks", SOURCES, "01_tasks"),
    ("decompose", "01_tasks", "02_principles"),
    ("generate", "02_principles", "03_candidates"),
    ("score", "03_candidates", "04_traces"),
    ("inspect", "04_traces", "05_inspections"),
    ("sft", "05_inspections", "06_rrm_sft"),
    ("pairs", "03_candidates", "07_pairs"),
    ("gcpo", "06_rrm_sft", "08_rrm_gcpo"),
    ("", "07_pairs", "08_rrm_gcpo"),
    ("edit-rl", "08_rrm_gcpo", "09_editor"),
    ("bench", "09_editor", "10_metrics.jsonl"),
)
WEIGHTS = ("06_rrm_sft", "08_rrm_gcpo", "09_editor")
LEARNS_FROM = {"06_rrm_sft": "05_inspections", "08_rrm_gcpo": "07_pairs"}
"""Training stages and the table that they read. Left out: quadruples without a good trace; pairs that are held out or "same"."""


def draw_loop(reader: Reader, metrics: Sequence[Metric], iterations: Points) -> tuple[list[Room], list[Arrow]]:
    """The rooms and arrows with the run's own counts; `iterations` are the curves of editor RL."""
    states = ((room, _state(reader, room.folder, metrics)) for room in ROOMS)
    rooms = {room.folder: replace(room, present=present, note=note) for room, (present, note) in states}
    arrows = []
    for stage, start, end in ARROWS:
        told = _told(reader, end, metrics, iterations) if stage else ((), "")
        arrows.append(Arrow(stage, *_route(rooms[start], rooms[end]), *told))
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
