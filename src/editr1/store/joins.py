"""Tables read side by side. Each is in the order of `01_tasks`, so a join holds one task in memory, whatever the size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

from editr1.errors import DataError
from editr1.schema import Candidate, Inspection, PreferencePair, Quadruple, TaskPrinciples, Trace, stable_id
from editr1.store._files import read_json
from editr1.store.run import Run

Split = Literal["train", "held_out"]


def quadruples(run: Run) -> Iterator[Quadruple]:
    """Every candidate with its task and principles, the candidates of a task adjacent."""
    decompositions: Iterator[TaskPrinciples] = run.read("02_principles")
    for task_id, candidates in itertools.groupby(run.read("03_candidates"), key=_task_id):
        found = next((row for row in decompositions if row.task.id == task_id), None)
        if found is None:
            raise DataError(f"{run.dir}: candidates of task {task_id} have no principles; run decompose and generate again")
        for candidate in candidates:
            yield Quadruple(found.task, found.principles, candidate)


def with_traces(run: Run) -> Iterator[tuple[Quadruple, list[Trace]]]:
    """Every quadruple with its traces in the pool's order; an empty list where all were dropped."""
    groups = itertools.groupby(run.read("04_traces"), key=_quadruple_id)
    group = next(groups, None)
    for quadruple in quadruples(run):
        traces: list[Trace] = []
        if group is not None and group[0] == quadruple.id:
            traces = list(group[1])
            group = next(groups, None)
        yield quadruple, traces
    if group is not None:
        raise DataError(f"{run.dir}: traces of {group[0]} belong to no candidate; run score again")


def with_inspections(run: Run) -> Iterator[tuple[Quadruple, list[Trace], Inspection]]:
    """Every inspected quadruple with its traces."""
    inspections: Iterator[Inspection] = run.read("05_inspections")
    inspection = next(inspections, None)
    for quadruple, traces in with_traces(run):
        if inspection is not None and inspection.quadruple_id == quadruple.id:
            yield quadruple, traces, inspection
            inspection = next(inspections, None)
    if inspection is not None:
        raise DataError(f"{run.dir}: the inspection of {inspection.quadruple_id} belongs to no candidate; run inspect again")


def preference_pairs(run: Run, split: Split | None = None) -> Iterator[PreferencePair]:
    """The pairs of `07_pairs`, of one split or all; the share was set by the pairs stage."""
    share = held_out_share(run)
    for pair in run.read("07_pairs"):
        if split is None or is_held_out(pair.task.id, share) == (split == "held_out"):
            yield pair


def held_out_share(run: Run) -> float:
    """Share of the tasks that train nothing, in [0, 1], as the pairs stage set it; 0 for a run without pairs."""
    return float(read_json(run.dir / "07_pairs" / "settings.json")["held_out_share"]) if run.has("07_pairs") else 0.0


def is_held_out(task_id: str, share: float) -> bool:
    """Whether a task belongs to the held-out split: a function of the task alone, so no edit of it can be on both sides.

    >>> round(sum(is_held_out(str(i), 0.25) for i in range(10_000)) / 10_000, 2)
    0.25
    """
    return int(stable_id("split", task_id)[:8], 16) < share * 2**32


def _task_id(candidate: Candidate) -> str:
    return candidate.task_id


def _quadruple_id(trace: Trace) -> str:
    return trace.quadruple_id
