"""All cells of a study, several at once, each in a process of its own: what is left to do, how long it takes, and doing it.

A process is the same command with one seed and one cell. The processes share the cores evenly and nothing else, so a cell's
numbers do not depend on what ran beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from editr1.errors import BackendError
from editr1.study.cells import Place, is_finished
from editr1.study.config import DATA, Config

LOGS = "logs"
_POLL = 0.5
"""Seconds between two looks at the running processes."""


@dataclass(frozen=True, slots=True)
class Task:
    """One cell of one seed."""

    seed: int
    cell: str

    def __str__(self) -> str:
        return f"seed{self.seed}/{self.cell}"


@dataclass
class Running:
    """A task at work."""

    task: Task
    process: subprocess.Popen[bytes]
    log: Path
    began: float = field(default_factory=time.monotonic)


def tasks_left(place: Place, config: Config, seeds: Sequence[int], cells: Sequence[str]) -> list[Task]:
    """What is not finished, in an order in which nothing comes before what it needs; seeds interleave, so that a run that is
    stopped early has whole rows."""
    wanted = [Task(seed, name) for name in (DATA, *cells) for seed in seeds]
    return [task for task in wanted if not is_finished(place, config, task.seed, task.cell)]


def estimate(config: Config, tasks: Sequence[Task], jobs: int) -> float:
    """Minutes that the tasks take on `jobs` cores, from the recipe's figures."""
    return sum(config.minutes(task.cell) for task in tasks) / jobs


def run_all(place: Place, config: Config, tasks: Sequence[Task], jobs: int, command: Callable[[Task], list[str]]) -> None:
    """Runs the tasks, `jobs` at once, with a bar that says what runs and how long the rest takes.

    command: the command line that does one task.
    Raises BackendError when a task fails, with the end of its log; the others are stopped and continue at the next call.
    """
    left, running = list(tasks), list[Running]()
    pace = _Pace(config, jobs)
    with tqdm(
        total=len(tasks), desc="cells", unit="cell", mininterval=1.0, bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} {postfix}"
    ) as bar:
        try:
            while left or running:
                while len(running) < jobs and (task := _ready(config, left, running)) is not None:
                    left.remove(task)
                    running.append(_start(place, task, jobs, command(task)))
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    _check(job)
                    pace.finished(job)
                    bar.update()
                    bar.write(f"{job.task} done in {(time.monotonic() - job.began) / 60:.1f} min", file=sys.stderr)
                names = ", ".join(str(job.task) for job in running)
                bar.set_postfix_str(f"{pace.minutes_left(left, running):.0f} min left: {names}")
                time.sleep(_POLL)
        finally:
            for job in running:
                job.process.terminate()
                job.process.wait()


@dataclass
class _Pace:
    """How the recipe's minutes compare with this machine's."""

    config: Config
    jobs: int
    planned: float = 0.0
    taken: float = 0.0

    def finished(self, job: Running) -> None:
        self.planned += self.config.minutes(job.task.cell)
        self.taken += (time.monotonic() - job.began) / 60

    def minutes_left(self, left: Sequence[Task], running: Sequence[Running]) -> float:
        factor = self.taken / self.planned if self.planned else 1.0
        ahead = sum(self.config.minutes(task.cell) for task in left) * factor
        now = sum(max(0.0, self.config.minutes(job.task.cell) * factor - (time.monotonic() - job.began) / 60) for job in running)
        return (ahead + now) / self.jobs


def _ready(config: Config, left: Sequence[Task], running: Sequence[Running]) -> Task | None:
    """The first task whose seed has its data and whose predecessor is finished."""
    unfinished = {*left, *(job.task for job in running)}
    for task in left:
        needs = [] if task.cell == DATA else [DATA, *config.chain(task.cell)[:-1]]
        if not any(Task(task.seed, name) in unfinished for name in needs):
            return task
    return None


def _start(place: Place, task: Task, jobs: int, command: Sequence[str]) -> Running:
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1)
    folder = place.root / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{str(task).replace('/', '_')}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    return Running(task, process, log)


def _check(job: Running) -> None:
    if job.process.returncode != 0:
        end = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise BackendError(f"{job.task} failed with code {job.process.returncode}: {''.join(end)} (all of it: {job.log})")
