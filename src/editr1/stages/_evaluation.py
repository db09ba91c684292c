"""What `evaluate` measures: judges on held-out human pairs (what each says is kept for people in `10_traces/<judge>.jsonl`, its verdicts
are held against the truth), and two editors on the same tasks with the same noise, by any judge."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from editr1.config import Component, create
from editr1.editors.base import EditRequest
from editr1.errors import DataError
from editr1.flow.contexts import read_contexts
from editr1.judge.item import Judge, RewardItem
from editr1.judge.rrm import RewardModel
from editr1.measure.metrics import by_kind, to_metric
from editr1.pictures import read_picture
from editr1.schema import (
    Candidate,
    ImageRef,
    Judgement,
    Metric,
    PreferencePair,
    Principle,
    Reward,
    Source,
    derive_seed,
    pictures_of,
    source_of,
    to_json,
)
from editr1.stats import Estimate, mean_estimate, paired_difference, share_estimate
from editr1.store import Run, preference_pairs
from editr1.text import aligned

# --- judges --------------------------------------------------------------------------------------------


FOLDER = "10_traces"
CHUNK = 256
"""Edits whose pictures lie in memory at once."""

Candidates = Mapping[str, tuple[PreferencePair, Candidate]]
"""Every candidate once, by id."""


class Oracle(Protocol):
    """Knows the truth of an embedded world."""

    def verdicts(self, edits: Sequence[Image.Image], principles: Sequence[Any]) -> list[tuple[bool, ...]]: ...
    def judge(self, sources: Sequence[Image.Image], edits: Sequence[Image.Image], instructions: Sequence[str]) -> list[Any]: ...


def held_out_pairs(run: Run, limit: int) -> list[PreferencePair]:
    """The first `limit` decisive pairs that no training has seen. Raises DataError when there is none."""
    pairs = list(itertools.islice((pair for pair in preference_pairs(run, "held_out") if pair.label != "same"), limit))
    if not pairs:
        raise DataError(f"{run.dir} holds no decisive held-out pair; run the stage `pairs` with a held-out share above 0")
    return pairs


def candidates_of(pairs: Sequence[PreferencePair]) -> Candidates:
    """The candidates of the pairs, in their order."""
    return {candidate.id: (pair, candidate) for pair in pairs for candidate in (pair.a, pair.b)}


def rewards_of(run: Run, model: RewardModel, candidates: Candidates, seed: int, label: str) -> dict[str, Reward]:
    """The judge's reward of every candidate; every judge is asked with the same seeds."""
    rewards: dict[str, Reward] = {}
    with tqdm(total=len(candidates), desc=f"evaluate: {label}", unit="edit") as bar:
        for start in range(0, len(candidates), CHUNK):
            chunk = dict(itertools.islice(candidates.items(), start, start + CHUNK))
            items = [
                RewardItem(run.images.source_of(pair.task), run.images.get(candidate.image), pair.task.instruction, pair.principles)
                for pair, candidate in chunk.values()
            ]
            rewards |= zip(chunk, model.score(items, seed=derive_seed(seed, "evaluate", start)), strict=True)
            bar.update(len(chunk))
    return rewards


def write_traces(run: Run, judge: str, rewards: Mapping[str, Reward]) -> None:
    """Writes the first trace of each candidate; an earlier file of the same judge is replaced."""
    traces = (replace(reward.traces[0], quadruple_id=candidate_id, seconds=0.0) for candidate_id, reward in rewards.items())
    run.write_text(f"{FOLDER}/{judge.replace('/', '_')}.jsonl", "".join(f"{to_json(trace)}\n" for trace in traces))


def verdict_metrics(name: str, run: Run, candidates: Candidates, rewards: Mapping[str, Reward], oracle: Oracle) -> list[Metric]:
    """Share of verdicts that are true, and share of truly violated principles that the judge calls violated (greedy traces)."""
    truth = oracle.verdicts(
        [run.images.get(candidate.image) for _, candidate in candidates.values()], [pair.principles for pair, _ in candidates.values()]
    )
    answers: dict[str, list[tuple[float, str]]] = {"verdict_accuracy": [], "violated_recall": []}
    num_unscored = 0
    for (key, (pair, _)), gold in zip(candidates.items(), truth, strict=True):
        outcome = rewards[key].traces[0].outcome
        if not isinstance(outcome, Judgement):
            num_unscored += 1
            continue
        for said, true in zip(outcome.verdicts, gold, strict=True):
            answers["verdict_accuracy"].append((float(said == true), pair.task.id))
            if not true:
                answers["violated_recall"].append((float(not said), pair.task.id))
    shares = {metric: share_estimate(*zip(*found, strict=True)) if found else None for metric, found in answers.items()}
    return [
        to_metric(f"{metric}/{name}", share, "verdicts/greedy/oracle", n=len(answers[metric]), num_unscored=num_unscored)
        for metric, share in shares.items()
    ]


# --- two editors ---------------------------------------------------------------------------------------


When = Literal["before", "after"]
SIZE = 64
"""Edits a call of an editor or a judge; both cut it further as their memory wants."""


@dataclass(frozen=True, slots=True)
class EditorTask:
    """One task that both editors get."""

    id: str
    image: Callable[[], Source]
    instruction: str
    kind: str = ""
    principles: tuple[Principle, ...] | None = None
    cluster: str = ""
    """Tasks of one source picture are no independent evidence."""


@dataclass(frozen=True)
class Editors:
    """What two editors made of the tasks: `{when: one picture a task}`."""

    run: Run
    tasks: Sequence[EditorTask]
    edits: dict[When, list[ImageRef]]
    seed: int

    def pictures(self, when: When, start: int) -> list[Image.Image]:
        """The edits of one chunk."""
        return [self.run.images.get(ref) for ref in self.edits[when][start : start + SIZE]]


def tasks_of_source(source: Component) -> list[EditorTask]:
    """The rows of a task source."""
    rows = list(create("sources", source))
    if bad := [row for row in rows if not hasattr(row, "instruction")]:
        raise DataError(f"evaluate.editor_tasks: {len(bad)} of {len(rows)} rows cannot be tasks, the first: {bad[0].reason}")
    return [EditorTask(str(i), _loader(row), row.instruction, getattr(row, "kind", ""), cluster=str(i)) for i, row in enumerate(rows)]


def tasks_of_run(run: Run, held_out: float) -> list[EditorTask]:
    """The run's tasks with their principles: those that editor RL held out by this share, or all for 0."""
    rest, chosen = read_contexts(run, held_out)
    found = chosen if held_out else rest
    if not found:
        raise DataError(f"evaluate.editor_held_out {held_out:g} leaves no task of {run.dir}; name the share of edit_rl.evaluation.held_out")
    return [EditorTask(c.id, c.source, c.task.instruction, c.task.kind, c.principles, c.task.source.digest) for c in found]


def edit_all(run: Run, tasks: Sequence[EditorTask], editors: Sequence[Component], seed: int) -> Editors:
    """Both editors' edits, one editor after the other, so that one lies in memory at a time."""
    edits: dict[When, list[ImageRef]] = {"before": [], "after": []}
    for when, component in zip(edits, editors, strict=True):
        editor = create("editors", component)
        for start in tqdm(range(0, len(tasks), SIZE), desc=f"evaluate: editor {when}", unit="batch"):
            chunk = list(enumerate(tasks[start : start + SIZE], start))
            requests = [EditRequest(task.image(), task.instruction, derive_seed(seed, "editor", index)) for index, task in chunk]
            edits[when] += [run.images.put(image) for image in editor.edit(requests)]
    return Editors(run, tasks, edits, seed)


def judged_by(judge: Judge, made: Editors) -> dict[When, list[float | None]]:
    """Scores in [0, 10], None where unscored; an edit before and one after are asked about with the same seeds."""
    scores: dict[When, list[float | None]] = {"before": [], "after": []}
    for start in tqdm(range(0, len(made.tasks), SIZE), desc="evaluate: judging the editors", unit="batch"):
        chunk = made.tasks[start : start + SIZE]
        sources = [task.image() for task in chunk]
        for when, found in scores.items():
            trios = zip(chunk, sources, made.pictures(when, start), strict=True)
            items = [RewardItem(source, edit, task.instruction, task.principles, id=task.id) for task, source, edit in trios]
            found += [reward.value for reward in judge.score(items, derive_seed(made.seed, "evaluate editors"))]
    return scores


def change_metrics(name: str, made: Editors, scores: dict[When, list[float | None]], protocol: str, share: bool = False) -> list[Metric]:
    """`NAME/before`, `NAME/after`, `NAME_gain` (paired) and `NAME_win_rate` over the tasks with both scores, each with an interval that
    resamples sources and its value by kind of task. Raises DataError where no task has both.

    share: the scores are 0 or 1; then there is no win rate, for it would say the gain again.
    """
    both = [index for index, pair in enumerate(zip(scores["before"], scores["after"], strict=True)) if None not in pair]
    if not both:
        raise DataError(
            f"{name}: the judge scored no task of {len(made.tasks)} before and after; ask it about one edit with: editr1 verify"
        )
    tasks = [made.tasks[index] for index in both]
    values = {when: np.array([found[index] for index in both], dtype=float) for when, found in scores.items()}
    clusters, kinds = [task.cluster for task in tasks], [task.kind or "all" for task in tasks]
    unscored = len(made.tasks) - len(both)

    def metric(label: str, value_N: np.ndarray, found: Estimate, how: str) -> Metric:
        return to_metric(label, found, how, num_unscored=unscored, by_category=by_kind(value_N, kinds))

    metrics = []
    for when, value_N in values.items():
        rng = np.random.default_rng(made.seed)
        found = share_estimate(value_N, clusters) if share else mean_estimate(value_N, clusters, rng=rng)
        metrics.append(metric(f"{name}/{when}", value_N, found, protocol))
    gain = paired_difference(values["before"], values["after"], clusters, rng=np.random.default_rng(made.seed))
    metrics.append(metric(f"{name}_gain", values["after"] - values["before"], gain, f"{protocol}/paired"))
    if not share:
        win_N = (np.sign(values["after"] - values["before"]) + 1) / 2
        metrics.append(metric(f"{name}_win_rate", win_N, share_estimate(win_N, clusters), f"{protocol}/wins with half credit for ties"))
    return metrics


def as_table(metrics: Sequence[Metric], tasks: Sequence[EditorTask]) -> list[str]:
    """The four figures of `change_metrics` by kind of task, one line each."""
    before, after, gain, wins = metrics
    kinds = [task.kind or "all" for task in tasks]
    rows: list[tuple[str, ...]] = [("category", "tasks", "before", "after", "gain", "wins")]
    for kind in before.by_category:
        numbers = (f"{m.by_category[kind]:{form}}" for m, form in ((before, ".2f"), (after, ".2f"), (gain, "+.2f"), (wins, ".0%")))
        rows.append((kind, str(kinds.count(kind)), *numbers))
    if len(before.by_category) > 1:
        rows.append(("all", str(len(kinds)), f"{before.value:.2f}", f"{after.value:.2f}", f"{gain.value:+.2f}", f"{wins.value:.0%}"))
    *lines, last = aligned(rows)
    return [*lines, f"{last}  gain {_interval(gain, '+.2f')}, wins {_interval(wins, '.0%')}"]


def _interval(metric: Metric, form: str) -> str:
    if metric.low is None or metric.high is None:
        return "on too few sources for an interval"
    return f"{metric.low:{form}} to {metric.high:{form}}"


def write_gallery(made: Editors, scores: dict[When, list[float | None]], num: int) -> None:
    """Before/after strips for the report, `09_editor/gallery.jsonl`: the first tasks of the source, not the best ones.

    One task a line: `task_id`, `instruction`, `kind`, the pictures `source`, `before` and `after` as ImageRef, `score_before` and
    `score_after` in [0, 10] or null. (Editor RL's own `09_editor/gallery/evaluation_*.jsonl` hold one edit a line; the report reads both.)
    """
    lines = []
    for index, task in enumerate(made.tasks[:num]):
        refs = {
            "source": made.run.images.put(pictures_of(task.image())[0]),
            "before": made.edits["before"][index],
            "after": made.edits["after"][index],
        }
        row: dict[str, Any] = {name: json.loads(to_json(ref)) for name, ref in refs.items()}
        row |= {"task_id": task.id, "instruction": task.instruction, "kind": task.kind}
        row |= {"score_before": scores["before"][index], "score_after": scores["after"][index]}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    made.run.write_text("09_editor/gallery.jsonl", "".join(lines))


def _loader(row: Any) -> Callable[[], Source]:
    """The picture of a source's row: it has one, or loads one."""
    if hasattr(row, "image"):
        return lambda: row.image
    return lambda: source_of([read_picture(picture, "image") for picture in pictures_of(row.load())])
