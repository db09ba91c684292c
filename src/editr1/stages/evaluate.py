"""Did each step help? Judges on held-out human pairs, the editor on held-out tasks, into 10_metrics.jsonl.

Judges are compared on the same pairs, editors on the same tasks with the same noise, so every gain is a paired difference
with an interval that resamples whole tasks. The oracle is named by the recipe: only an evaluation may know the truth.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from editr1.config import Component, create
from editr1.editors.base import Editor, EditRequest
from editr1.errors import DataError
from editr1.judge.asking import asking
from editr1.judge.prompts import score_traits
from editr1.judge.rrm import RewardItem, RewardModel
from editr1.measure.pair_metrics import Scores, pair_metrics, paired_gain
from editr1.schema import Candidate, Judgement, Metric, PreferencePair, Trace, derive_seed, to_json
from editr1.stages._judge_traces import write_judge_traces
from editr1.stats import Estimate, mean_estimate, paired_difference, share_estimate
from editr1.store import Run, preference_pairs
from editr1.vlm.base import Sampling


@dataclass(frozen=True)
class JudgeUnderTest:
    """A judge and the prompt it is asked with."""

    name: str
    vlm: Component
    prompt_id: str | None = None
    """None = the one that the checkpoint was trained with (`judge.asking`), else `tv`."""


@dataclass(frozen=True)
class Goals:
    """What the run was meant to reach, fixed before it started; None promises nothing."""

    pair_accuracy: dict[str, float] = field(default_factory=dict)
    """Smallest pair accuracy by judge, in [0, 1]."""
    pair_accuracy_gain: float | None = None
    """Smallest gain of the last judge over the one before it, in [0, 1]."""
    editor_gains: bool = False
    """The editor's oracle score rises, and its success falls by less than `editor_margin`."""
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
    """Knows the truth of the embedded world; without it only pair accuracy is measured."""
    editors: tuple[Component, ...] = ()
    """Editor before and after RL, in this order."""
    editor_tasks: Component | None = None
    """Source of held-out tasks for the editors."""
    gallery: int = 24
    """Tasks whose edits are kept for the report."""
    goals: Goals = Goals()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How much was measured."""

    num_pairs: int
    num_candidates: int
    num_editor_tasks: int


class _Oracle(Protocol):
    def verdicts(self, edits: Sequence[Image.Image], principles: Sequence[Any]) -> list[tuple[bool, ...]]: ...
    def judge(self, sources: Sequence[Image.Image], edits: Sequence[Image.Image], instructions: Sequence[str]) -> list[Any]: ...


def run(config: Config, run_dir: Path) -> EvaluationResult:
    """Measures everything and writes one `Metric` line each into `10_metrics.jsonl`."""
    run = Run.open(run_dir)
    oracle: _Oracle | None = create("oracles", config.oracle) if config.oracle else None
    num_pairs = num_candidates = num_tasks = 0
    if config.judges:
        pairs = held_out_pairs(run, config.num_pairs)
        num_pairs, num_candidates = len(pairs), len(_candidates(pairs))
        _evaluate_judges(config, run, pairs, oracle)
    if config.editors:
        num_tasks = _evaluate_editors(config, run, oracle)
    return EvaluationResult(num_pairs, num_candidates, num_tasks)


# --- judges -----------------------------------------------------------------------------------------


def held_out_pairs(run: Run, limit: int) -> list[PreferencePair]:
    """The first `limit` decisive pairs that no training has seen. Raises DataError when there is none."""
    pairs = list(itertools.islice((pair for pair in preference_pairs(run, "held_out") if pair.label != "same"), limit))
    if not pairs:
        raise DataError(f"{run.dir} holds no decisive held-out pair; run the stage `pairs` with a held-out share above 0")
    return pairs


def _candidates(pairs: Sequence[PreferencePair]) -> dict[str, tuple[PreferencePair, Candidate]]:
    """Every candidate once, by id."""
    return {candidate.id: (pair, candidate) for pair in pairs for candidate in (pair.a, pair.b)}


@dataclass(frozen=True, slots=True)
class _Judged:
    """One judge's scores and traces of all candidates."""

    sampled: dict[str, float | None]
    greedy: dict[str, float | None]
    greedy_traces: dict[str, Trace]


def _evaluate_judges(config: Config, run: Run, pairs: Sequence[PreferencePair], oracle: _Oracle | None) -> None:
    protocol = f"pairs/avg{config.num_traces}"
    previous: tuple[Scores, Scores] | None = None
    for judge in config.judges:
        judged = _judge_all(config, run, judge, pairs)
        write_judge_traces(run, judge.name, judged.greedy_traces)
        sampled = _by_side(judged.sampled, pairs)
        floor = config.goals.pair_accuracy.get(judge.name)
        for metric in pair_metrics(f"pair_accuracy/{judge.name}", pairs, *sampled, protocol, config.seed):
            run.add_metric(_with_floor(metric, floor if metric.name == f"pair_accuracy/{judge.name}" else None))
        for metric in pair_metrics(
            f"pair_accuracy_greedy/{judge.name}", pairs, *_by_side(judged.greedy, pairs), "pairs/greedy", config.seed
        ):
            run.add_metric(metric)
        if oracle is not None and score_traits(asking(judge.vlm, judge.prompt_id).prompt_id).demands_verdicts:
            _add_verdict_metrics(config, run, judge.name, pairs, judged, oracle)
        if previous is not None:
            is_last = judge is config.judges[-1]
            name = "pair_accuracy_gain" if is_last else f"pair_accuracy_gain/{judge.name}"
            gain = paired_gain(name, pairs, previous, sampled, protocol, config.seed)
            floor = config.goals.pair_accuracy_gain
            run.add_metric(_with_floor(gain, floor if is_last or floor is None else 0.0))
        previous = sampled


def _by_side(scores: dict[str, float | None], pairs: Sequence[PreferencePair]) -> tuple[Scores, Scores]:
    return [scores[pair.a.id] for pair in pairs], [scores[pair.b.id] for pair in pairs]


def _with_floor(metric: Metric, floor: float | None) -> Metric:
    return metric if floor is None else metric.promised(floor, f"above {floor:g}")


def _judge_all(config: Config, run: Run, judge: JudgeUnderTest, pairs: Sequence[PreferencePair]) -> _Judged:
    """Greedy and sampled scores of every candidate, the same seeds for every judge."""
    how = asking(judge.vlm, judge.prompt_id, config.max_tokens)
    vlm = create("vlm", judge.vlm)
    candidates = _candidates(pairs)
    items = [
        RewardItem(run.images.get(pair.task.source), run.images.get(candidate.image), pair.task.instruction, pair.principles)
        for pair, candidate in candidates.values()
    ]
    greedy_model = RewardModel(vlm, how.prompt_id, num_traces=1, sampling=Sampling(0.0, max_tokens=how.max_tokens))
    sampled_model = RewardModel(
        vlm, how.prompt_id, num_traces=config.num_traces, sampling=Sampling(config.temperature, max_tokens=how.max_tokens)
    )
    greedy = [traces[0] for traces in _in_chunks(greedy_model, items, config.seed, f"{judge.name}, greedy")]
    sampled = _in_chunks(sampled_model, items, config.seed, f"{judge.name}, avg@{config.num_traces}")
    return _Judged(
        sampled={key: _mean_score(traces) for key, traces in zip(candidates, sampled, strict=True)},
        greedy={key: _mean_score([trace]) for key, trace in zip(candidates, greedy, strict=True)},
        greedy_traces=dict(zip(candidates, greedy, strict=True)),
    )


def _in_chunks(model: RewardModel, items: Sequence[RewardItem], seed: int, label: str, size: int = 256) -> list[list[Trace]]:
    traces: list[list[Trace]] = []
    with tqdm(total=len(items), desc=f"evaluate: {label}", unit="edit") as bar:
        for start in range(0, len(items), size):
            chunk = items[start : start + size]
            traces += [list(reward.traces) for reward in model.score(chunk, seed=derive_seed(seed, "evaluate", start))]
            bar.update(len(chunk))
    return traces


def _mean_score(traces: Sequence[Trace]) -> float | None:
    """Mean tau over the parsed traces; None when none parsed."""
    scores = [trace.outcome.score for trace in traces if isinstance(trace.outcome, Judgement)]
    return float(np.mean(scores)) if scores else None


def _add_verdict_metrics(config: Config, run: Run, name: str, pairs: Sequence[PreferencePair], judged: _Judged, oracle: _Oracle) -> None:
    """Share of verdicts that are true, and share of truly violated principles that the judge calls violated (greedy traces)."""
    candidates = _candidates(pairs)
    images = [run.images.get(candidate.image) for _, candidate in candidates.values()]
    truth = oracle.verdicts(images, [pair.principles for pair, _ in candidates.values()])
    right: list[float] = []
    recalled: list[float] = []
    right_tasks: list[str] = []
    recalled_tasks: list[str] = []
    num_unscored = 0
    for (key, (pair, _)), gold in zip(candidates.items(), truth, strict=True):
        outcome = judged.greedy_traces[key].outcome
        if not isinstance(outcome, Judgement):
            num_unscored += 1
            continue
        for said, true in zip(outcome.verdicts, gold, strict=True):
            right.append(float(said == true))
            right_tasks.append(pair.task.id)
            if not true:
                recalled.append(float(not said))
                recalled_tasks.append(pair.task.id)
    for metric, values, tasks in (("verdict_accuracy", right, right_tasks), ("violated_recall", recalled, recalled_tasks)):
        protocol = "verdicts/greedy/oracle"
        if not values:
            run.add_metric(Metric(f"{metric}/{name}", None, num_unscored=num_unscored, protocol=protocol))
            continue
        estimate = share_estimate(values, tasks)
        run.add_metric(_metric(f"{metric}/{name}", estimate, protocol, num_unscored=num_unscored))


# --- editors ----------------------------------------------------------------------------------------


def _evaluate_editors(config: Config, run: Run, oracle: _Oracle | None) -> int:
    """Oracle score and success of the editor before and after, same tasks, same noise."""
    if oracle is None or config.editor_tasks is None or len(config.editors) != 2:
        raise DataError("to compare editors the recipe must name evaluate.oracle, evaluate.editor_tasks and two evaluate.editors")
    tasks = list(create("sources", config.editor_tasks))
    sources, texts = [task.image for task in tasks], [task.instruction for task in tasks]
    seeds = [derive_seed(config.seed, "editor", index) for index in range(len(tasks))]
    requests = [EditRequest(source, text, seed) for source, text, seed in zip(sources, texts, seeds, strict=True)]
    edits = [_edit_all(create("editors", editor), requests, name) for editor, name in zip(config.editors, ("before", "after"), strict=True)]
    truths = [oracle.judge(sources, images, texts) for images in edits]
    scores = [np.array([truth.utility for truth in truth_of]) for truth_of in truths]
    successes = [np.array([float(truth.success) for truth in truth_of]) for truth_of in truths]
    kinds = [task.kind for task in tasks]
    for name, values in (("oracle_score", scores), ("oracle_success", successes)):
        for when, value in zip(("before", "after"), values, strict=True):
            estimate = share_estimate(value) if name == "oracle_success" else mean_estimate(value, rng=np.random.default_rng(config.seed))
            by_kind = {kind: float(value[[k == kind for k in kinds]].mean()) for kind in sorted(set(kinds))}
            run.add_metric(_metric(f"{name}/{when}", estimate, "editor/ode/oracle", by_category=by_kind))
        _add_editor_gain(config, run, name, values)
    _write_gallery(config, run, tasks, edits, scores)
    return len(tasks)


def _edit_all(editor: Editor, requests: Sequence[EditRequest], name: str, size: int = 64) -> list[Image.Image]:
    images: list[Image.Image] = []
    for start in tqdm(range(0, len(requests), size), desc=f"evaluate: editor {name}", unit="batch"):
        images += editor.edit(requests[start : start + size])
    return images


def _add_editor_gain(config: Config, run: Run, name: str, values: Sequence[np.ndarray]) -> None:
    difference = paired_difference(values[0], values[1], rng=np.random.default_rng(config.seed))
    metric = _metric(f"{name}_gain", difference.estimate, "editor/ode/oracle/paired", p_value=difference.p_value)
    if config.goals.editor_gains:
        margin = config.goals.editor_margin
        metric = metric.promised(0.0, "rises") if name == "oracle_score" else metric.promised(-margin, f"falls by less than {margin:g}")
    run.add_metric(metric)


def _write_gallery(
    config: Config, run: Run, tasks: Sequence[Any], edits: Sequence[Sequence[Image.Image]], scores: Sequence[np.ndarray]
) -> None:
    """Before/after strips for the report: the first tasks of the source, not the best ones."""
    rows = []
    for index in range(min(config.gallery, len(tasks))):
        refs = {
            "source": run.images.put(tasks[index].image),
            "before": run.images.put(edits[0][index]),
            "after": run.images.put(edits[1][index]),
        }
        row = {name: json.loads(to_json(ref)) for name, ref in refs.items()}
        row |= {"task_id": str(index), "instruction": tasks[index].instruction, "kind": tasks[index].kind}
        row |= {"score_before": float(scores[0][index]), "score_after": float(scores[1][index])}
        rows.append(json.dumps(row))
    folder = run.dir / "09_editor"
    folder.mkdir(exist_ok=True)
    (folder / "gallery.jsonl").write_text("\n".join(rows) + "\n")


def _metric(name: str, estimate: Estimate, protocol: str, **more: Any) -> Metric:
    return Metric(
        name, estimate.value, estimate.low, estimate.high, estimate.n, protocol=protocol, num_clusters=estimate.num_clusters, **more
    )
