"""The loop as a drawing: ten rooms, and at every arrow how much went in, came out and was dropped.

01 tasks -> 02 principles -> 03 candidates -> 04 traces -> 05 inspections
   |                              |                             |
sources                       07 pairs --> 08 RL-RRM <----- 06 SFT-RRM
                                               |
                   10 metrics <----------- 09 editor
"""

from __future__ import annotations

from dataclasses import dataclass

from editr1.store import Run
from editr1.store._files import read_json

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
LEARNS_FROM = {"06_rrm_sft": "05_inspections", "08_rrm_gcpo": "07_pairs"}
"""Training stages and the table that they read. Left out: quadruples without a good trace; pairs that are held out or "same"."""


def draw_loop(run: Run) -> tuple[list[Room], list[Arrow]]:
    """The rooms and arrows with the run's own counts."""
    rooms = {room.folder: _furnish(run, room) for room in ROOMS}
    return list(rooms.values()), [_arrow(run, stage, rooms[start], rooms[end]) for stage, start, end in ARROWS]


def _furnish(run: Run, room: Room) -> Room:
    present, note = _state(run, room.folder)
    return Room(room.folder, room.title, room.column, room.row, note, present)


def _state(run: Run, folder: str) -> tuple[bool, str]:
    if folder == SOURCES:
        return run.has("01_tasks"), "outside the run"
    path = run.dir / folder
    if not path.exists():
        return False, "absent"
    if folder.endswith(".jsonl"):
        return True, f"{len(run.metrics()):,} figures"
    if run.has(folder):
        return True, f"{run.count(folder):,} rows"
    if folder in ("06_rrm_sft", "08_rrm_gcpo", "09_editor"):
        return True, "checkpoint" if any(path.rglob("*.safetensors")) else "no weights yet"
    return False, "unfinished"


def _arrow(run: Run, stage: str, start: Room, end: Room) -> Arrow:
    path, x, y = _route(start, end)
    if not stage:
        return Arrow(stage, path, x, y)
    if end.folder in LEARNS_FROM:
        return Arrow(stage, path, x, y, *_training(run, end.folder))
    if end.folder == "09_editor":
        return Arrow(stage, path, x, y, *_editor_rl(run))
    if end.folder == "10_metrics.jsonl":
        return Arrow(stage, path, x, y, *_figures(run))
    if not run.has(end.folder):
        return Arrow(stage, path, x, y)
    counts = run.counts(end.folder)
    return Arrow(stage, path, x, y, (f"in {counts.num_in:,}", f"out {counts.num_out:,}"), f"dropped {counts.num_dropped:,}")


def _training(run: Run, folder: str) -> tuple[tuple[str, ...], str]:
    """What a training stage took of its table, from the `done.json` that it leaves; nothing while it has not finished."""
    path, table = run.dir / folder / "done.json", LEARNS_FROM[folder]
    if not path.exists() or not run.has(table):
        return (), ""
    done = read_json(path)
    num_in, num_rows = run.count(table), int(done["rows"])
    return (f"in {num_in:,}", f"used {num_rows:,}"), f"left out {max(0, num_in - num_rows):,}"


def _editor_rl(run: Run) -> tuple[tuple[str, ...], str]:
    """Iterations of editor RL, and the share of its edits that the judge left unscored; nothing before the first one."""
    points = [point for point in run.curves("edit_rl") if "reward/mean" in point]
    if not points:
        return (), ""
    shares = [point["reward/unscored"] for point in points if "reward/unscored" in point]
    return (f"{len(points):,} iterations",), f"unscored {100 * sum(shares) / len(shares):.1f} %" if shares else ""


def _figures(run: Run) -> tuple[tuple[str, ...], str]:
    """Figures that were asked for, that have a value, and that nobody could score."""
    metrics = run.metrics()
    if not metrics:
        return (), ""
    num_values = sum(metric.value is not None for metric in metrics)
    return (f"in {len(metrics):,}", f"out {num_values:,}"), f"no value {len(metrics) - num_values:,}"


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


def dropped_reasons(run: Run) -> list[tuple[str, str, int]]:
    """(table, reason, rows) of every drop, most frequent first inside a table."""
    rows = []
    for room in ROOMS:
        if run.has(room.folder):
            reasons = run.counts(room.folder).reasons
            rows += [(room.folder, code, count) for code, count in sorted(reasons.items(), key=lambda item: -item[1])]
    return rows
