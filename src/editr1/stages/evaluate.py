"""Did each step help? Judges on held-out human pairs, the editor on held-out tasks, into 10_metrics.jsonl.

    editr1 evaluate --config evaluate.yaml --run RUN

Judges are compared on the same pairs, editors on the same tasks with the same noise, so every gain is a paired difference
with an interval that resamples whole tasks (sources for editors). Two editors of any kind (the base and its LoRA, two checkpoints) are
compared by any judge: gain, win rate, a table by kind of task, and the before/after gallery of the report. The oracle is named by the
recipe: only an evaluation may know the truth.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editr1.config import Component, at_least, create
from editr1.editors.base import EditRequest
from editr1.judge.item import Judge, asking, check_alive
from editr1.judge.prompts import score_traits
from editr1.judge.rrm import RewardModel
from editr1.measure.metrics import Scores, pair_metrics, paired_gain
from editr1.schema import Metric, PreferencePair, Reward
from editr1.stages._evaluation import (
    Candidates,
    Editors,
    Oracle,
    When,
    as_table,
    candidates_of,
    change_metrics,
    edit_all,
    held_out_pairs,
    judged_by,
    rewards_of,
    tasks_of_run,
    tasks_of_source,
    verdict_metrics,
    write_gallery,
    write_traces,
)
from editr1.store import Run
from editr1.vlm.base import Sampling


@dataclass(frozen=True)
class JudgeUnderTest:
    """A judge and the prompt it is asked with."""

    name: str
    vlm: Component
    prompt_id: str | None = None
    """None = the one that the checkpoint was trained with (`judge.item`), else `tv`."""


@dataclass(frozen=True)
class Goals:
    """What the run was meant to reach, fixed before it started; None promises nothing."""

    pair_accuracy: dict[str, float] = field(default_factory=dict)
    """Smallest pair accuracy by judge, in [0, 1]."""
    pair_accuracy_gain: float | None = None
    """Smallest gain in pair accuracy of the last judge over the one before it, in [0, 1]."""
    editor_gains: bool = False
    """The editor's score rises, and the oracle's success falls by less than `editor_margin`."""
    editor_margin: float = 0.02
    """Share of tasks. ours: what 1,000 tasks can tell; a promise is kept only by its whole interval."""


@dataclass(frozen=True)
class Config:
    """What is compared, on how much."""

    judges: tuple[JudgeUnderTest, ...] = ()
    """In the order of the loop: each is compared with the one before it."""
    num_pairs: int = 600
    """Held-out pairs that are judged (the first ones of the table, in its order)."""
    num_traces: int = 4
    """Traces a candidate in `avg@K`; greedy is always one."""
    temperature: float = 1.0
    max_tokens: int | None = None
    """None = as each judge was trained, else 2048."""
    oracle: Component | None = None
    """Knows the truth of the embedded world: verdicts of judges, and edits of editors, are measured against it."""
    editors: tuple[Component, ...] = ()
    """Two of them, before and after, such as `{id: pipeline, options: {path: BASE}}` and the same with `lora: RUN/09_editor/lora`."""
    editor_judge: Component | None = None
    """Who scores the edits; any judge, but best one that editor RL did not train against. None = the oracle."""
    editor_tasks: Component | None = None
    """Source of held-out tasks for the editors. None = tasks of the run, with their principles."""
    editor_held_out: float = 0.0
    """Of the run's tasks: the share that editor RL held out (`edit_rl.evaluation.held_out`); 0 = all."""
    num_editor_tasks: int | None = None
    """At most so many tasks, the first ones; None = all."""
    gallery: int = 24
    """Tasks whose edits are kept for the report."""
    goals: Goals = Goals()
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "num_pairs", "num_traces", "max_tokens", "num_editor_tasks")
        at_least(0, self, "temperature", "gallery")
        if self.editors and (len(self.editors) != 2 or (self.editor_judge is None and self.oracle is None)):
            raise ValueError("editors are two, before and after, and editor_judge (or oracle) scores their edits")
        if not 0 <= self.editor_held_out < 1:
            raise ValueError(f"editor_held_out is {self.editor_held_out}, expected a share in [0, 1)")


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How much was measured."""

    num_pairs: int
    num_candidates: int
    num_editor_tasks: int
    lines: tuple[str, ...] = ()
    """The editors by kind of task, for a terminal."""

    def __str__(self) -> str:
        parts = [f"{self.num_pairs} pairs, {self.num_candidates} edits" * bool(self.num_pairs)]
        parts.append(f"2 editors on {self.num_editor_tasks} tasks" * bool(self.num_editor_tasks))
        return "\n".join(["; ".join(filter(None, parts)) or "nothing to measure: name judges or editors", *self.lines])


def run(config: Config, run_dir: Path) -> EvaluationResult:
    """Measures everything and writes one `Metric` line each into `10_metrics.jsonl`."""
    run = Run.open(run_dir)
    oracle: Oracle | None = create("oracles", config.oracle) if config.oracle else None
    judge = _ask_first(config)
    num_pairs = num_candidates = num_tasks = 0
    lines: list[str] = []
    if config.judges:
        pairs = held_out_pairs(run, config.num_pairs)
        num_pairs, num_candidates = len(pairs), len(candidates_of(pairs))
        _evaluate_judges(config, run, pairs, oracle)
    if config.editors:
        num_tasks, lines = _evaluate_editors(config, run, oracle, judge)
    return EvaluationResult(num_pairs, num_candidates, num_tasks, tuple(lines))


def _ask_first(config: Config) -> Judge | None:
    """The judge of the editors, once it and every endpoint among the judges have answered: weights are loaded and edits made after that."""
    judge: Judge | None = create("judges", config.editor_judge) if config.editors and config.editor_judge else None
    check_alive(judge, *(create("vlm", tested.vlm) for tested in config.judges if tested.vlm.id == "openai_api"))
    return judge


def _evaluate_judges(config: Config, run: Run, pairs: Sequence[PreferencePair], oracle: Oracle | None) -> None:
    protocol = f"pairs/avg{config.num_traces}"
    candidates = candidates_of(pairs)
    previous: list[tuple[Scores, Scores]] = []
    for judge in config.judges:
        greedy, rewards = _ask(config, run, judge, candidates)
        write_traces(run, judge.name, greedy)
        readings = [_by_side(rewards, pairs), *_couples(rewards, pairs)]
        name, floor = f"pair_accuracy/{judge.name}", config.goals.pair_accuracy.get(judge.name)
        metrics = pair_metrics(name, pairs, *readings[0], protocol)
        metrics = [_with_floor(metric, floor if metric.name == name else None) for metric in metrics]
        metrics += pair_metrics(f"pair_accuracy_greedy/{judge.name}", pairs, *_by_side(greedy, pairs), "pairs/greedy")
        if oracle is not None and score_traits(asking(judge.vlm, judge.prompt_id).prompt_id).demands_verdicts:
            metrics += verdict_metrics(judge.name, run, candidates, greedy, oracle)
        if previous:
            is_last = judge is config.judges[-1]
            of, floor = "" if is_last else f"/{judge.name}", config.goals.pair_accuracy_gain
            gain = paired_gain(f"pair_accuracy_gain{of}", pairs, previous[:1], readings[:1], protocol, config.seed)
            metrics.append(_with_floor(gain, floor if is_last or floor is None else 0.0))
            metrics.append(
                paired_gain(f"pair_accuracy_gain_one_trace{of}", pairs, previous[1:], readings[1:], "pairs/one_trace", config.seed)
            )
        for metric in metrics:
            run.add_metric(metric)
        previous = readings


def _ask(config: Config, run: Run, judge: JudgeUnderTest, candidates: Candidates) -> list[dict[str, Reward]]:
    """The judge's greedy and its sampled reward of every candidate."""
    how = asking(judge.vlm, judge.prompt_id, config.max_tokens)
    vlm = create("vlm", judge.vlm)
    found = []
    for label, num_traces, temperature in (("greedy", 1, 0.0), (f"avg@{config.num_traces}", config.num_traces, config.temperature)):
        sampling = Sampling(temperature, max_tokens=how.max_tokens)
        model = RewardModel(vlm, how.prompt_id, num_traces=num_traces, sampling=sampling)
        found.append(rewards_of(run, model, candidates, config.seed, f"{judge.name}, {label}"))
    return found


def _by_side(rewards: Mapping[str, Reward], pairs: Sequence[PreferencePair]) -> tuple[Scores, Scores]:
    return [rewards[pair.a.id].value for pair in pairs], [rewards[pair.b.id].value for pair in pairs]


def _couples(rewards: Mapping[str, Reward], pairs: Sequence[PreferencePair]) -> list[tuple[Scores, Scores]]:
    """The pairs as one trace alone reads them: every trace of side a against every trace of side b."""
    a = zip(*(rewards[pair.a.id].scores for pair in pairs), strict=True)
    b = zip(*(rewards[pair.b.id].scores for pair in pairs), strict=True)
    return list(itertools.product(a, b))


def _with_floor(metric: Metric, floor: float | None) -> Metric:
    return metric if floor is None else metric.promised(floor, f"above {floor:g}")


def _evaluate_editors(config: Config, run: Run, oracle: Oracle | None, judge: Judge | None) -> tuple[int, list[str]]:
    """How many tasks, and the change between two editors by the oracle and by the judge, for a terminal."""
    source = config.editor_tasks
    tasks = tasks_of_source(source) if source else tasks_of_run(run, config.editor_held_out)
    made = edit_all(run, tasks[: config.num_editor_tasks], config.editors, config.seed)
    lines: list[str] = []
    if oracle is not None:
        truths = _truths(oracle, made)
        scores: dict[When, list[float | None]] = {when: [truth.utility for truth in found] for when, found in truths.items()}
        successes: dict[When, list[float | None]] = {when: [float(truth.success) for truth in found] for when, found in truths.items()}
        found = change_metrics("oracle_score", made, scores, "editor/ode/oracle")
        _add(config, run, [*found, *change_metrics("oracle_success", made, successes, "editor/ode/oracle", share=True)])
        lines = ["the oracle's scores:", *as_table(found, made.tasks)]
    if judge is not None:
        scores = judged_by(judge, made)
        found = change_metrics("editor_score", made, scores, "editor/ode/judge")
        _add(config, run, found)
        lines += ["the judge's scores:", *as_table(found, made.tasks)]
    write_gallery(made, scores, config.gallery)
    return len(made.tasks), lines


def _truths(oracle: Oracle, made: Editors) -> dict[When, list[Any]]:
    sources = [EditRequest(task.image(), task.instruction, 0).only_source("the oracle") for task in made.tasks]
    texts = [task.instruction for task in made.tasks]
    return {when: oracle.judge(sources, [made.run.images.get(ref) for ref in refs], texts) for when, refs in made.edits.items()}


def _add(config: Config, run: Run, metrics: Sequence[Metric]) -> None:
    """The metrics with what was promised of them."""
    margin = config.goals.editor_margin
    goals = {"oracle_score_gain": (0.0, "rises"), "editor_score_gain": (0.0, "rises")}
    goals["oracle_success_gain"] = (-margin, f"falls by less than {margin:g}")
    for metric in metrics:
        run.add_metric(metric.promised(*goals[metric.name]) if config.goals.editor_gains and metric.name in goals else metric)
