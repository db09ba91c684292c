"""Asks a judge about every edit of a benchmark, into a table that survives a kill.

A missing or broken image is a dropped row with its reason and later counts as unscored; a dead endpoint stops the run, which
continues where it stopped when the command is given again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editr1.bench.base import EditItem, JudgedEdit
from editr1.bench.judges.base import Judge
from editr1.errors import DataError, UnscoredError
from editr1.judge.item import RewardItem
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work

MAX_UNSCORED = 0.5  # ours: above this share the numbers say more about the endpoint or the prompt than about the judge


@dataclass(frozen=True)
class Asker:
    """The function that the store runs over batches of edits."""

    judge: Judge
    seed: int
    say: Callable[[], str] = lambda: ""
    """What stands beside the progress bar."""

    def status(self) -> str:
        return self.say()

    def __call__(self, batch: Sequence[EditItem]) -> list[JudgedEdit | Drop]:
        loaded: list[RewardItem | Drop] = [self._load(item) for item in batch]
        items = [item for item in loaded if isinstance(item, RewardItem)]
        rewards = iter(self.judge.score(items, self.seed) if items else [])
        return [
            JudgedEdit.make(edit.key, next(rewards)) if isinstance(item, RewardItem) else item
            for edit, item in zip(batch, loaded, strict=True)
        ]

    def _load(self, edit: EditItem) -> RewardItem | Drop:
        try:
            source, edited = edit.load()
        except DataError as error:
            return Drop(f"image: {' '.join(str(error).split())}"[:500])
        return RewardItem(source, edited, edit.instruction, edit.principles, edit.key)


def judge_edits(
    run: Run,
    table: str,
    edits: Iterable[EditItem],
    judge: Judge,
    *,
    settings: Mapping[str, Any],
    seed: int = 0,
    lane: Lane | None = None,
    progress: bool = True,
    say: Callable[[], str] = lambda: "",
) -> tuple[dict[str, JudgedEdit], StageCounts]:
    """The judge's answer by key, continuing what an earlier process left, and how many edits had one.

    settings: what the answers depend on; a table begun with others is refused with DataError.
    """
    work = Work(make=lambda: Asker(judge, seed, say), lanes={"": lane or Lane()}, timed=True)
    items = ((edit.key, edit) for edit in edits)
    counts = run.process(
        table, items, work, settings={**settings, "seed": seed}, record=JudgedEdit, engine=Engine(progress=progress, shard_size=256)
    )
    return dict(run.keyed(table, JudgedEdit)), counts


def check_unscored(reasons: Sequence[str | None], counts: StageCounts, what: str, max_share: float = MAX_UNSCORED) -> None:
    """Raises UnscoredError when too large a share of what was asked has no answer for the numbers to mean anything.

    reasons: one for each answer that says nothing. counts: of the table; its dropped rows have no answer either. what: names the rows.
    """
    num_unscored = counts.num_dropped + len(reasons)
    if counts.num_in and num_unscored > max_share * counts.num_in:
        shown = ", ".join(sorted({reason for reason in reasons if reason} | set(counts.reasons)))
        raise UnscoredError(
            f"{num_unscored} of {counts.num_in} {what} are unscored (limit: share {max_share:g}; {shown}); "
            f"{'look at the dropped.jsonl of the table' if counts.num_dropped else 'look at the replies'}, or raise --max-unscored"
        )
