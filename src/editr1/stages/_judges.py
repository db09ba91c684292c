"""Judges on held-out human pairs: what each says of the candidates, kept for people in `10_traces/<judge>.jsonl`, and its verdicts
against the truth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from PIL import Image
from tqdm import tqdm

from editr1.errors import DataError
from editr1.judge.rrm import RewardItem, RewardModel
from editr1.schema import Candidate, Judgement, Metric, PreferencePair, Reward, derive_seed, to_json
from editr1.stats import share_estimate
from editr1.store import Run, preference_pairs

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
    metrics = []
    for metric, found in answers.items():
        unknown = Metric(f"{metric}/{name}", None, num_unscored=num_unscored, protocol="verdicts/greedy/oracle")
        e = share_estimate([value for value, _ in found], [task for _, task in found]) if found else None
        metrics.append(replace(unknown, value=e.value, low=e.low, high=e.high, n=e.n, num_clusters=e.num_clusters) if e else unknown)
    return metrics
