"""Which two edits are compared: all kinds of edits against each other, or one editor against another (GSB)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from editr1.errors import DataError
from editr1.schema import MIRRORED, Candidate, EditTask, Label, Principle, Quadruple, derive_seed, stable_id
from editr1.stages.pairs import label_in
from editr1.store import Run, quadruples, whole_table

LABELS: tuple[Label, ...] = ("a", "b", "same")


@dataclass(frozen=True, slots=True)
class Item:
    """One question to people. `a` and `b` are the record's sides; the sides on screen are drawn for each annotator."""

    id: str
    task: EditTask
    principles: tuple[Principle, ...]
    a: Candidate
    b: Candidate
    gold: Label | None = None
    """The known answer of a control question; None for a real one."""

    @staticmethod
    def make(a: Quadruple, b: Quadruple, gold: Label | None = None) -> Item:
        """An item whose id is derived from the two candidates in this order."""
        return Item(item_id(a.candidate.id, b.candidate.id), a.task, a.principles, a.candidate, b.candidate, gold)


def item_id(a: str, b: str) -> str:
    """The id of the comparison of two candidates; 16 hex digits that tell neither editor."""
    return stable_id("item", a, b)


@dataclass(frozen=True)
class Plan:
    """What is to be labelled; the same plan over the same run gives the same items in the same order."""

    pairs_per_task: int = 1
    limit: int | None = None
    editors: tuple[str, str] | None = None
    """(before, after): compare these two editors only; `a` is before. None = any two edits of a task."""
    gold: Path | None = None
    """CSV or JSONL with a, b (candidate ids) and label: control questions."""
    gold_every: int = 20
    """ours: one control question in twenty costs five percent and gives 50 of them in a thousand answers."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs_per_task < 1 or self.gold_every < 2:
            raise ValueError("pairs_per_task must be at least 1 and gold_every at least 2")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}, expected at least 1 pair")

    @property
    def study(self) -> str:
        """What its answers are kept under: they are undone, counted and led on only within it."""
        return f"gsb {self.editors[0]} -> {self.editors[1]}" if self.editors else "pairs"


def edits_by_task(run: Run) -> list[list[Quadruple]]:
    """The edits of each task, in the order of the run."""
    return [list(group) for _, group in itertools.groupby(quadruples(run), key=attrgetter("task.id"))]


def plan_items(run: Run, plan: Plan) -> list[Item]:
    """The items in the order in which they are asked. Raises DataError when the run holds nothing to compare."""
    groups = edits_by_task(run)
    gold = _gold_items({q.id: q for group in groups for q in group}, plan.gold) if plan.gold else []
    known = {frozenset((item.a.id, item.b.id)) for item in gold}
    items = [item for group in groups for item in _task_items(group, plan) if frozenset((item.a.id, item.b.id)) not in known]
    if not items:
        wanted = f"edits by both {plan.editors[0]!r} and {plan.editors[1]!r}" if plan.editors else "two different edits of one task"
        names = sorted({q.candidate.editor for group in groups for q in group})
        raise DataError(f"{run.dir} holds no task with {wanted}; its editors are: {', '.join(names) or 'none'}")
    random.Random(derive_seed(plan.seed, "order")).shuffle(items)
    return list(_with_gold(items[: plan.limit], gold, plan.gold_every))


def _task_items(group: Sequence[Quadruple], plan: Plan) -> list[Item]:
    draw = random.Random(derive_seed(plan.seed, "items", group[0].task.id))
    if plan.editors:
        sides = [[q for q in group if q.candidate.editor == name] for name in plan.editors]
        pairs = [(x, y) for x, y in itertools.product(*sides) if x.candidate.image.digest != y.candidate.image.digest]
        return [Item.make(x, y) for x, y in draw.sample(pairs, min(plan.pairs_per_task, len(pairs)))]
    pairs = [(x, y) for x, y in itertools.combinations(group, 2) if x.candidate.image.digest != y.candidate.image.digest]
    chosen = draw.sample(pairs, min(plan.pairs_per_task, len(pairs)))
    return [Item.make(x, y) if draw.random() < 0.5 else Item.make(y, x) for x, y in chosen]


def _gold_items(known: dict[str, Quadruple], path: Path) -> list[Item]:
    items: dict[frozenset[str], Item] = {}
    for where, row in whole_table(path, ("a", "b", "label")):
        a, b, label = str(row["a"]).strip(), str(row["b"]).strip(), label_in(row["label"])
        if label is None or a == b or a not in known or b not in known or known[a].task.id != known[b].task.id:
            raise DataError(f"{where} must name two candidates of one task and a label a, b or same, found {row}")
        item = Item.make(known[a], known[b], label)
        earlier = items.setdefault(frozenset((a, b)), item)
        if earlier.gold != (item.gold if earlier.id == item.id else MIRRORED[label]):
            raise DataError(f"{where} gives another answer to a question that stands above; a control question has one")
    return list(items.values())


def _with_gold(items: Sequence[Item], gold: Sequence[Item], every: int) -> Iterator[Item]:
    """A control question after every `every - 1` real ones, each once; those left over come last."""
    controls = iter(gold)
    for position, item in enumerate(items, start=1):
        yield item
        if position % (every - 1) == 0:
            yield from itertools.islice(controls, 1)
    yield from controls
