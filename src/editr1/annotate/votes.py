"""The answers, in SQLite: each is on disk before the annotator sees the next pair; existing ones from a table."""

from __future__ import annotations

import math
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from editr1.annotate.items import Item, item_id
from editr1.errors import DataError, EditR1Error
from editr1.schema import MIRRORED, Label
from editr1.stages.pairs import label_in
from editr1.store import name_in, read_table
from editr1.text import from_cell, is_missing

DATABASE = "annotations.sqlite"
"""Name of the file in the run directory."""

Answer = Literal["a", "b", "same", "skip"]

ADJUDICATOR = "adjudication"
"""Name under which the owner's decisions about disputed pairs lie; nobody labels under it."""

MAX_NAME_CHARS = 60

_TABLES = """
CREATE TABLE IF NOT EXISTS votes (
  number INTEGER PRIMARY KEY,
  item TEXT NOT NULL,
  annotator TEXT NOT NULL,
  answer TEXT NOT NULL CHECK (answer IN ('a', 'b', 'same', 'skip')),
  swapped INTEGER NOT NULL CHECK (swapped IN (0, 1)),
  seconds REAL NOT NULL,
  at TEXT NOT NULL,
  study TEXT NOT NULL DEFAULT '',
  imported INTEGER NOT NULL DEFAULT 0,
  control INTEGER NOT NULL DEFAULT 0,
  UNIQUE (item, annotator, study)
);
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_LATER_COLUMNS = {"study": "''", "imported": "seconds = 0", "control": "0"}
"""What they were in files that have no such columns."""
_FIELDS = "item, annotator, answer, swapped, seconds, at, study, imported, control"


class BusyStoreError(EditR1Error):
    """The votes cannot be written now, as while another process writes; the same request works when that is over."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer of one person about one item."""

    item: str
    annotator: str
    answer: Answer
    swapped: bool
    """Whether b stood on the left."""
    seconds: float
    """From the pair's first sight to the answer; 0 where an imported vote does not say."""
    at: str = ""
    """UTC, ISO 8601."""
    study: str = ""
    """The `Plan.study` under which it was given."""
    imported: bool = False
    control: bool = False
    """Whether the item was a control question."""

    @property
    def label(self) -> Label | None:
        """The preference; None for a skipped pair."""
        return None if self.answer == "skip" else self.answer


class VoteStore:
    """The votes of one run. Safe to use from several threads; SQLite keeps several processes apart."""

    def __init__(self, path: Path, patience: float = 5.0) -> None:
        """patience: seconds to wait for another process that writes, before BusyStoreError."""
        self.path = path
        self._lock = threading.Lock()
        with self._alone():
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # WAL alone may lose the last answers when the power fails
            self._make_tables()
            self._db.execute(f"PRAGMA busy_timeout = {int(1000 * patience)}")

    def _make_tables(self) -> None:
        """An older file's votes, one a person and pair and with fewer columns, move into a table of today's kind."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            known = {row[1] for row in self._db.execute("PRAGMA table_info(votes)")}
            found = self._db.execute("SELECT sql FROM sqlite_master WHERE name = 'votes'").fetchone()
            old = found is not None and "UNIQUE (item, annotator, study)" not in found[0]
            if old:
                self._db.execute("ALTER TABLE votes RENAME TO older_votes")
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            if old:
                kept = [name if name in known else _LATER_COLUMNS[name] for name in ("number", *_FIELDS.split(", "))]
                self._db.execute(f"INSERT INTO votes (number, {_FIELDS}) SELECT {', '.join(kept)} FROM older_votes")
                self._db.execute("DROP TABLE older_votes")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                locked = "locked" in str(error) or "busy" in str(error)
                what = "is locked by another process; try again in a moment" if locked else f"cannot be written ({error}); see to its disk"
                raise BusyStoreError(f"{self.path} {what}") from error
            except sqlite3.DatabaseError as error:
                raise DataError(
                    f"{self.path} holds no votes that can be read ({error}); restore it, or move it away to begin anew"
                ) from error

    def put(self, vote: Vote) -> None:
        """Stores the vote; the same person's earlier answer about the same item in the same study is replaced. Raises BusyStoreError."""
        at = vote.at or datetime.now(UTC).isoformat(timespec="milliseconds")
        row = (
            vote.item,
            vote.annotator,
            vote.answer,
            int(vote.swapped),
            vote.seconds,
            at,
            vote.study,
            int(vote.imported),
            int(vote.control),
        )
        with self._alone():
            self._db.execute(f"INSERT OR REPLACE INTO votes ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def undo(self, annotator: str, study: str, items: Container[str]) -> Vote | None:
        """Takes back and returns the annotator's latest own answer of a study about one of `items`; None when there is none.

        Imported votes stay, and so do those of other studies. Raises BusyStoreError.
        """
        query = f"SELECT number, {_FIELDS} FROM votes WHERE annotator = ? AND study IN (?, '') AND NOT imported ORDER BY number DESC"
        with self._alone():
            row = next((row for row in self._db.execute(query, (annotator, study)).fetchall() if row[1] in items), None)
            if row is None:
                return None
            self._db.execute("DELETE FROM votes WHERE number = ?", (row[0],))
        return _vote(row[1:])

    def remove(self, item: str, annotator: str) -> None:
        """Forgets one answer, if it is there. Raises BusyStoreError."""
        with self._alone():
            self._db.execute("DELETE FROM votes WHERE item = ? AND annotator = ?", (item, annotator))

    def all(self, study: str | None = None) -> list[Vote]:
        """Everybody's latest answer about each item, oldest first; one that was given in `study` comes before later ones of others."""
        with self._alone():
            rows = self._db.execute(f"SELECT {_FIELDS} FROM votes ORDER BY number").fetchall()
        kept: dict[tuple[str, str], Vote] = {}
        for vote in map(_vote, rows):
            before = kept.get((vote.item, vote.annotator))
            if study is None or before is None or vote.study in (study, "") or before.study not in (study, ""):
                kept.pop((vote.item, vote.annotator), None)
                kept[vote.item, vote.annotator] = vote
        return list(kept.values())

    def secret(self, name: str) -> str:
        """A random text that stays with these votes: drawn when it is first asked for."""
        with self._alone():
            self._db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, secrets.token_urlsafe(16)))
            return str(self._db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()[0])

    def close(self) -> None:
        with self._lock:
            self._db.close()


def _vote(row: tuple[str, str, Answer, int, float, str, str, int, int]) -> Vote:
    item, annotator, answer, swapped, seconds, at, study, imported, control = row
    return Vote(item, annotator, answer, bool(swapped), seconds, at, study, bool(imported), bool(control))


# --- as cells of a table, and from one -----------------------------------------------------------------


def import_votes(store: VoteStore, items: Sequence[Item], path: Path, study: str = "pairs") -> Counter[str]:
    """Adds the votes of a table (a, b, label, annotator), in either order of a and b. Counts what became of each row.

    Sides, seconds and time are kept where the file says them, as our own export does. A vote that is there already stays as it is.
    Raises DataError for a table without these columns, and where no row can be used.
    """
    known = {item.id: item for item in items}
    present = {(vote.item, vote.annotator): vote.answer for vote in store.all()}
    outcome: Counter[str] = Counter()
    for row in read_table(path, ("a", "b", "label"), ("annotator", "swapped", "seconds", "at", "study")):
        if isinstance(row, str):
            outcome["bad_row"] += 1
            continue
        vote, reason = _imported(row, known, study)
        if vote is not None and (vote.item, vote.annotator) in present:
            reason = "already_there" if present[vote.item, vote.annotator] == vote.answer else "replaced"
        outcome[reason] += 1
        if vote is not None and reason != "already_there":
            store.put(vote)
            present[vote.item, vote.annotator] = vote.answer
    if not outcome.keys() & {"imported", "replaced", "already_there"}:
        reason, count = (outcome.most_common(1) or [("no row", 0)])[0]
        raise DataError(
            f"{path}: no row of {outcome.total()} is a vote about this run's pairs; the commonest reason, {count} times: {reason}"
        )
    return outcome


def _imported(row: dict[str, object], known: dict[str, Item], study: str) -> tuple[Vote | None, str]:
    a, b, label = str(row.get("a")).strip(), str(row.get("b")).strip(), label_in(row.get("label"))
    if label is None:
        return None, "bad_label"
    swapped = {"": False, "0": False, "false": False, "1": True, "true": True}.get(_word(row.get("swapped")))
    if swapped is None:
        return None, "bad_swapped"
    if item_id(a, b) not in known and item_id(b, a) in known:
        a, b, label, swapped = b, a, MIRRORED[label], not swapped
    item = known.get(item_id(a, b))
    if item is None:
        return None, "unknown_pair"
    try:
        seconds = float(_word(row.get("seconds")) or 0)
        annotator, given = (from_cell(name_in(row.get(key))) for key in ("annotator", "study"))
    except ValueError as error:
        return None, "bad_name" if isinstance(error, DataError) else "bad_seconds"
    if not 0 <= seconds < math.inf:
        return None, "bad_seconds"
    if len(annotator) > MAX_NAME_CHARS:
        return None, "bad_name"
    at = "" if is_missing(row.get("at")) else str(row["at"])
    gold = item.gold is not None
    return Vote(item.id, annotator or "imported", label, swapped, seconds, at, given or study, True, gold), "imported"


def _word(cell: object) -> str:
    """The cell in small letters: programs write a truth as 1, 1.0, true or True."""
    return "" if is_missing(cell) else str(cell).strip().lower().removesuffix(".0")
