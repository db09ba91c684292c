"""Write principles, about ten yes/no questions a task, into 02_principles (paper, section 3.1).

The answer is validated (JSON, quotas, duplicates, questions that are no yes/no questions). A bad one is shown to the model
with its fault at most `max_repairs` times; then the task is dropped with that fault as the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from editr1.config import SPEED_KEYS, Component, create, to_plain
from editr1.judge.decompose import MAX_REPAIRS, Quotas, Rules, decompose
from editr1.judge.prompts import NUM_SHOWN, texts_digest
from editr1.schema import EditTask, TaskPrinciples
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work, once
from editr1.vlm.base import VLM, Sampling

TABLE = "02_principles"


@dataclass(frozen=True)
class Config:
    """Who decomposes, and what a decomposition must look like."""

    vlm: Component
    seed: int = 0
    quotas: Quotas | None = field(default_factory=Quotas)
    """paper, section 3.1; None accepts any number."""
    questions_in_english: bool = True
    """Check the form of the questions; switch off for other languages."""
    num_exemplars: int = NUM_SHOWN
    """paper, section 3.1: 4 of a pool of 60, drawn anew for each task."""
    max_repairs: int = MAX_REPAIRS
    temperature: float = 0.7
    """ours: some spread, so that a repair is not the same answer again."""
    max_tokens: int = 2048
    batch_size: int = 1
    """Requests a call: more for a local model, 1 for an endpoint."""
    concurrency: int = 8
    """Calls in flight: 1 for a local model."""
    engine: Engine = field(default_factory=Engine)

    @property
    def rules(self) -> Rules:
        """The part that decides what is asked and what is accepted."""
        sampling = Sampling(temperature=self.temperature, max_tokens=self.max_tokens)
        return Rules(self.quotas, self.questions_in_english, self.num_exemplars, self.max_repairs, sampling)


def plan(config: Config, run_dir: Path) -> list[str]:
    """What `run` would do, for people."""
    num_tasks = Run.open(run_dir, create=False).count("01_tasks")
    most = num_tasks * (1 + config.max_repairs)
    return [f"decompose: {num_tasks} tasks by {config.vlm.id}; {num_tasks} to {most} requests of at most {config.max_tokens} tokens"]


def run(config: Config, run_dir: Path) -> StageCounts:
    """Writes `02_principles`. Raises BackendError when the endpoint fails beyond what the engine tolerates."""
    store = Run.open(run_dir, {"decompose": to_plain(config)}, create=False)
    settings = store.made_from(to_plain(config, without=SPEED_KEYS), "01_tasks") | texts_digest("decompose.md", "../exemplars.json")
    items = once((task.id, task) for task in store.read("01_tasks"))  # two files, such as a GIF and an AVIF, can hold one picture
    work = Work(
        lambda: partial(principles_of, vlm=create("vlm", config.vlm), store=store, config=config),
        {"": Lane(config.batch_size, config.concurrency)},
        choices=frozenset({"duplicate"}),
    )
    return store.process(TABLE, items, work, settings=settings, engine=config.engine, total=store.count("01_tasks"))


def principles_of(tasks: Sequence[EditTask], vlm: VLM, store: Run, config: Config) -> list[TaskPrinciples | Drop]:
    """The principles of each task, or why it has none."""
    asked = {task.id: (store.images.source_of(task), task.instruction) for task in tasks}
    made = decompose(vlm, asked, config.seed, config.rules)
    return [
        TaskPrinciples(task, found.principles, vlm.name, found.num_repairs)
        if (found := made[task.id]).principles
        else Drop(f"bad_decomposition: {found.problem}")
        for task in tasks
    ]
