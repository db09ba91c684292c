"""The answers, in SQLite: each is on disk before the annotator sees the next pair."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from editr1.schema import Label

DATABASE = "annotations.sqlite"
"""Name of the file in the run directory."""

Answer = Literal["a", "b", "same", "skip"]

PACE_OF = 20  # ours: recent enough to follow a change of pace, many enough not to jump

_TABLE = """
CREATE TABLE IF NOT EXISTS votes (
  number INTEGER PRIMARY KEY,
  item TEXT NOT NULL,
  annotator TEXT NOT NULL,
  answer TEXT NOT NULL CHECK (answer IN ('a', 'b', 'same', 'skip')),
  swapped INTEGER NOT NULL CHECK (swapped IN (0, 1)),
  seconds REAL NOT NULL,
  at TEXT NOT NULL,
  UNIQUE (item, annotator)
)"""


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer of one person about one item."""

    item: str
    annotator: str
    answer: Answer
    swapped: bool
    """Whether b stood on the left."""
    seconds: float
    """From the pair's first sight to the answer; 0 for an imported vote."""
    at: str = ""
    """UTC, ISO 8601."""

    @property
    def label(self) -> Label | None:
        """The preference; None for a skipped pair."""
        return None if self.answer == "skip" else self.answer


class VoteStore:
    """The votes of one run. Safe to use from several threads; SQLite keeps several processes apart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # WAL alone may lose the last answers when the power fails
        self._db.execute(_TABLE)

    def put(self, vote: Vote) -> None:
        """Stores the vote; the same person's earlier answer about the same item is replaced."""
        at = vote.at or datetime.now(UTC).isoformat(timespec="milliseconds")
        row = (vote.item, vote.annotator, vote.answer, int(vote.swapped), vote.seconds, at)
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO votes (item, annotator, answer, swapped, seconds, at) VALUES (?, ?, ?, ?, ?, ?)", row)

    def undo(self, annotator: str) -> Vote | None:
        """Takes the annotator's latest own answer back and returns it; None when there is none. Imported votes stay."""
        query = "SELECT number, item, answer, swapped, seconds, at FROM votes WHERE annotator = ? AND seconds > 0 ORDER BY number DESC"
        with self._lock:
            row = self._db.execute(query + " LIMIT 1", (annotator,)).fetchone()
            if row is None:
                return None
            self._db.execute("DELETE FROM votes WHERE number = ?", (row[0],))
        return Vote(row[1], annotator, row[2], bool(row[3]), row[4], row[5])

    def pace(self, annotator: str) -> tuple[int, float | None]:
        """(own answers, mean seconds of the last PACE_OF of them); None before the first."""
        with self._lock:
            count = self._db.execute("SELECT COUNT(*) FROM votes WHERE annotator = ? AND seconds > 0", (annotator,)).fetchone()[0]
            latest = "SELECT seconds FROM votes WHERE annotator = ? AND seconds > 0 ORDER BY number DESC LIMIT ?"
            recent = self._db.execute(f"SELECT AVG(seconds) FROM ({latest})", (annotator, PACE_OF)).fetchone()[0]
        return count, recent

    def all(self) -> list[Vote]:
        """Every vote, oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT item, annotator, answer, swapped, seconds, at FROM votes ORDER BY number").fetchall()
        return [Vote(item, who, answer, bool(swapped), seconds, at) for item, who, answer, swapped, seconds, at in rows]

    def close(self) -> None:
        with self._lock:
            self._db.close()
