"""Answers out (CSV, and the run's table 07_pairs) and existing votes in."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from editr1.annotate.items import MIRRORED, Item, item_id
from editr1.annotate.results import by_item, is_contradictory, majority
from editr1.annotate.votes import ADJUDICATOR, MAX_NAME_CHARS, Answer, Vote, VoteStore
from editr1.errors import DataError
from editr1.schema import Quadruple
from editr1.stages import pairs
from editr1.stages.pairs import label_in
from editr1.store import Run, StageCounts, check_columns, is_missing, name_in, quadruples, read_table
from editr1.store._files import write_atomic

CSV = "annotations.csv"
COLUMNS = ("a", "b", "label", "annotator", "swapped", "seconds", "at", "study", "instruction")


@dataclass(frozen=True)
class Export:
    """The rows of a CSV, and what became of every other vote of the run."""

    rows: list[tuple[str, ...]]
    num_votes: int
    left_out: Counter[str]
    """Votes without a row of their own, by reason."""
    num_contradictory: int
    """Pairs about which people chose both edits."""

    def __str__(self) -> str:
        rest = "".join(f"; {count} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.rows)} rows of {self.num_votes} votes{rest}"


def export(
    run: Run, votes: Sequence[Vote], *, study: str | None = None, with_majority: bool = False, controls: Container[str] = ()
) -> Export:
    """Every vote of the run as a row, whatever flags it was given under.

    study: only the votes of this one. with_majority: one row a pair, the owner's decision or the answer of most; a draw has none.
    controls: items that are control questions, for votes that do not say so themselves.
    """
    pairs_by_id = _known_pairs(run, {vote.item for vote in votes})
    left_out: Counter[str] = Counter()
    taken: list[Vote] = []
    for vote in votes:
        reason = _why_not(vote, pairs_by_id, study, controls)
        if reason:
            left_out[reason] += 1
        else:
            taken.append(vote)
    groups = by_item(taken)
    contradictory = sum(map(is_contradictory, groups.values()))
    if with_majority:
        taken = list(_majorities(groups, left_out))
    elif decisions := sum(vote.annotator == ADJUDICATOR for vote in taken):
        left_out["decisions about disputed pairs (--majority writes them)"] += decisions
        taken = [vote for vote in taken if vote.annotator != ADJUDICATOR]
    rows = [_row(vote, *pairs_by_id[vote.item]) for vote in taken]
    return Export(rows, len(votes), left_out, contradictory)


def _why_not(vote: Vote, known: Container[str], study: str | None, controls: Container[str]) -> str:
    if vote.item not in known:
        return "about edits that this run does not hold"
    if study is not None and vote.study not in (study, ""):
        return f"of the study '{vote.study}'"
    if vote.control or vote.item in controls:
        return "about control questions"
    return "skipped" if vote.label is None else ""


def _majorities(groups: dict[str, list[Vote]], left_out: Counter[str]) -> Iterator[Vote]:
    for votes in groups.values():
        people = [vote for vote in votes if vote.annotator != ADJUDICATOR]
        winner = majority(votes)
        if winner is None:
            left_out["about pairs without a majority"] += len(people)
            continue
        left_out["that went into a majority"] += len(people) - 1 if people else 0
        name = ADJUDICATOR if len(people) < len(votes) else f"majority of {len(people)}" if len(people) > 1 else people[0].annotator
        yield replace(votes[-1], annotator=name, answer=winner)


def _known_pairs(run: Run, wanted: set[str]) -> dict[str, tuple[Quadruple, Quadruple]]:
    """The two edits of each wanted item, found among all pairs of edits of a task."""
    by_task: dict[str, list[Quadruple]] = defaultdict(list)
    for quadruple in quadruples(run):
        by_task[quadruple.task.id].append(quadruple)
    couples = (couple for group in by_task.values() for couple in itertools.permutations(group, 2))
    named = ((item_id(x.candidate.id, y.candidate.id), (x, y)) for x, y in couples)
    return {key: couple for key, couple in named if key in wanted}


def _row(vote: Vote, a: Quadruple, b: Quadruple) -> tuple[str, ...]:
    seconds = f"{vote.seconds:.3f}"
    fields = (a.candidate.id, b.candidate.id, vote.answer, vote.annotator, str(int(vote.swapped)), seconds, vote.at, vote.study)
    return tuple(_as_text(field) for field in (*fields, a.task.instruction))


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _as_text(field: str) -> str:
    """A spreadsheet must not run a cell: a leading = + - or @ gets an apostrophe, and so does an apostrophe before one."""
    return "'" + field if field.lstrip("'").startswith(_FORMULA) else field


def _from_text(field: str) -> str:
    return field[1:] if field.startswith("'") and field.lstrip("'").startswith(_FORMULA) else field


def to_csv(rows: Sequence[tuple[str, ...]]) -> bytes:
    """The rows with their header, UTF-8."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def write_csv(run: Run, exported: Export) -> Path:
    """Writes `annotations.csv` into the run and returns its path."""
    path = run.dir / CSV
    write_atomic(path, to_csv(exported.rows))
    return path


def export_pairs(run: Run, exported: Export, held_out_share: float = 0.2) -> tuple[Path, StageCounts]:
    """Writes the CSV and, from it, `07_pairs`. Raises DataError when there is no answer, or when 07_pairs was made from others."""
    if not exported.rows:
        raise DataError(f"{run.dir} holds no answers to export ({exported}); label some pairs first: editr1 annotate {run.dir}")
    path = write_csv(run, exported)
    return path, pairs.run(pairs.Config(file=path, held_out_share=held_out_share), run.dir)


def import_votes(store: VoteStore, items: Sequence[Item], path: Path, study: str = "pairs") -> Counter[str]:
    """Adds the votes of a table (a, b, label, annotator), in either order of a and b. Counts what became of each row.

    Sides, seconds and time are kept where the file says them, as our own export does. A vote that is there already stays as it is.
    Raises DataError for a table without these columns, and where no row can be used.
    """
    known = {item.id: item for item in items}
    present = {(vote.item, vote.annotator): vote.answer for vote in store.all()}
    outcome: Counter[str] = Counter()
    checked = False
    for row in read_table(path):
        if isinstance(row, str):
            outcome["bad_row"] += 1
            continue
        if not checked:
            check_columns(path, row, ("a", "b", "label"), ("annotator", "swapped", "seconds", "at", "study"))
            checked = True
        vote, reason = _vote(row, known, study)
        if vote is not None and (vote.item, vote.annotator) in present:
            reason = "already_there" if present[vote.item, vote.annotator] == vote.answer else "replaced"
        outcome[reason] += 1
        if vote is not None and reason != "already_there":
            store.put(vote)
            present[vote.item, vote.annotator] = vote.answer
    if not outcome.keys() & {"imported", "replaced", "already_there"}:
        reason, count = (outcome.most_common(1) or [("no row", 0)])[0]
        raise DataError(
            f"{path}: none of {outcome.total()} rows is a vote about this run's pairs; the commonest reason, {count} times: {reason}"
        )
    return outcome


def _vote(row: dict[str, object], known: dict[str, Item], study: str) -> tuple[Vote | None, str]:
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
        annotator, given = (_from_text(name_in(row.get(key))) for key in ("annotator", "study"))
    except ValueError as error:
        return None, "bad_name" if isinstance(error, DataError) else "bad_seconds"
    if not 0 <= seconds < math.inf:
        return None, "bad_seconds"
    if len(annotator) > MAX_NAME_CHARS:
        return None, "bad_name"
    at = "" if is_missing(row.get("at")) else str(row["at"])
    gold = item.gold is not None
    return Vote(item.id, annotator or "imported", cast(Answer, label), swapped, seconds, at, given or study, True, gold), "imported"


def _word(cell: object) -> str:
    """The cell in small letters: programs write a truth as 1, 1.0, true or True."""
    return "" if is_missing(cell) else str(cell).strip().lower().removesuffix(".0")
