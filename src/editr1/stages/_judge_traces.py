"""What a trained judge said about the run's candidates: kept for people (`10_traces/<judge>.jsonl`), and held against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from PIL import Image

from editr1.schema import Candidate, Judgement, Metric, PreferencePair, Trace, to_json
from editr1.stats import share_estimate
from editr1.store import Run

FOLDER = "10_traces"


def write_judge_traces(run: Run, judge: str, traces: Mapping[str, Trace]) -> None:
    """Writes one trace a candidate id, in the order given; an earlier file of the same judge is replaced."""
    folder = run.dir / FOLDER
    folder.mkdir(exist_ok=True)
    lines = [to_json(replace(trace, quadruple_id=candidate_id, seconds=0.0)) for candidate_id, trace in traces.items()]
    (folder / f"{judge.replace('/', '_')}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


class KnowsVerdicts(Protocol):
    """Knows the true answers of an embedded world."""

    def verdicts(self, edits: Sequence[Image.Image], principles: Sequence[Any]) -> list[tuple[bool, ...]]: ...


def verdict_metrics(
    name: str, run: Run, candidates: Mapping[str, tuple[PreferencePair, Candidate]], traces: Mapping[str, Trace], oracle: KnowsVerdicts
) -> list[Metric]:
    """Share of verdicts that are true, and share of truly violated principles that the judge calls violated (greedy traces)."""
    images = [run.images.get(candidate.image) for _, candidate in candidates.values()]
    truth = oracle.verdicts(images, [pair.principles for pair, _ in candidates.values()])
    answers: dict[str, list[tuple[float, str]]] = {"verdict_accuracy": [], "violated_recall": []}
    num_unscored = 0
    for (key, (pair, _)), gold in zip(candidates.items(), truth, strict=True):
        outcome = traces[key].outcome
        if not isinstance(outcome, Judgement):
            num_unscored += 1
            continue
        for said, true in zip(outcome.verdicts, gold, strict=True):
            answers["verdict_accuracy"].append((float(said == true), pair.task.id))
            if not true:
                answers["violated_recall"].append((float(not said), pair.task.id))
    metrics = []
    for metric, found in answers.items():
        unknown = Metric(f"{metric}/{name}", None, num_unscored=num_unscored, protocol="verdicts/greedy/oracle")
        if not found:
            metrics.append(unknown)
            continue
        e = share_estimate([value for value, _ in found], [task for _, task in found])
        metrics.append(replace(unknown, value=e.value, low=e.low, high=e.high, n=e.n, num_clusters=e.num_clusters))
    return metrics
