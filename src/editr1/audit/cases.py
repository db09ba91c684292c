"""What an audit works on: one edit a task, with another task's edit beside it to swap things with."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.errors import DataError
from editr1.judge.decompose import stated_principles
from editr1.judge.item import RewardItem
from editr1.pictures import decode_image
from editr1.schema import Principle, Quadruple, derive_seed
from editr1.store import Run, held_out_share, is_held_out, quadruples, read_inside, read_table


@dataclass(frozen=True, slots=True)
class Case:
    """One edit under audit. Cases are of different tasks, so that they can count as independent."""

    item: RewardItem
    """The edit as it is; its id is the case's id."""
    other: RewardItem
    """An edit of another task."""

    @property
    def id(self) -> str:
        return self.item.id


def cases_from_run(run: Run, count: int, seed: int) -> list[Case]:
    """Cases from a run's candidates: `count` tasks drawn by `seed`, and of each one candidate drawn by `seed`.

    Where the run holds tasks out, only those are drawn: a judge may know the others by heart. Holds the chosen in memory, not the run.
    Raises DataError when there are fewer than two tasks.
    """
    share = held_out_share(run)
    known = sorted({candidate.task_id for candidate in run.read("03_candidates")})
    usable = [task_id for task_id in known if is_held_out(task_id, share)] if share else known
    wanted = _drawn(usable, count, seed)
    by_task: dict[str, list[Quadruple]] = {task_id: [] for task_id in wanted}
    for quadruple in quadruples(run):
        if quadruple.task.id in by_task:
            by_task[quadruple.task.id].append(quadruple)
    rng = random.Random(seed)
    return pair_up([_item_of(rng.choice(found), run) for found in by_task.values()], str(run.dir))


def _item_of(quadruple: Quadruple, run: Run) -> RewardItem:
    task, candidate = quadruple.task, quadruple.candidate
    return RewardItem(run.images.source_of(task), run.images.get(candidate.image), task.instruction, quadruple.principles, candidate.id)


def cases_from_table(path: Path, count: int, seed: int) -> list[Case]:
    """Cases from a CSV or JSONL file of the user's own: columns source, edited, instruction and, if wanted, principles.

    Pictures are named relative to the file's folder and must lie inside it. `principles` is a JSON array of {question, category}.
    Raises DataError for a bad row: an audit of what happens to be readable would be an audit of something else.
    """
    rows = list(_rows(path))
    items = [_item(row, path, number) for number, row in _drawn(list(enumerate(rows, 1)), count, seed)]
    return pair_up(items, str(path))


def pair_up(items: Sequence[RewardItem], where: str) -> list[Case]:
    """Each item with the next one's edit as `other`, the last with the first."""
    if len(items) < 2:
        raise DataError(
            f"{where} holds {len(items)} edits of different tasks; an audit needs at least 2, since it swaps things between them"
        )
    return [Case(item, other) for item, other in zip(items, [*items[1:], items[0]], strict=True)]


def with_principles(cases: Sequence[Case], principles: Mapping[str, tuple[Principle, ...]]) -> list[Case]:
    """The cases whose item is in `principles` (by id), with these in place; paired up anew."""
    items = [replace(case.item, principles=principles[case.id]) for case in cases if case.id in principles]
    return pair_up(items, "what could be decomposed")


def _drawn(rows: list[Any], count: int, seed: int) -> list[Any]:
    rng = random.Random(derive_seed(seed, "audit"))
    return rows if len(rows) <= count else rng.sample(rows, count)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for row in read_table(path):
        if isinstance(row, str):
            raise DataError(f"{path}: {row}")
        yield row


def _item(row: Mapping[str, Any], path: Path, number: int) -> RewardItem:
    where = f"{path}, row {number}"
    for column in ("source", "edited", "instruction"):
        if not isinstance(row.get(column), str) or not row[column].strip():
            raise DataError(f"{where}: column {column!r} is missing or empty; expected source, edited and instruction")
    return RewardItem(
        _picture(path.parent, row["source"], where),
        _picture(path.parent, row["edited"], where),
        row["instruction"],
        stated_principles(row.get("principles"), where),
        id=f"row-{number}",
    )


def _picture(root: Path, name: str, where: str) -> Image.Image:
    return decode_image(read_inside(root, name), f"{where}: {name}")
