"""Write traces that explain what people preferred into 07_rationales, for SFT in place of GCPO (the idea of PARROT, restated).

The other way to learn from pairs, to be compared with GCPO on the same ones. A writer that knows the answer writes traces for
both edits; a pair is kept when the answer can be told from what was written, that is when a trace of the preferred edit scores
higher than one of the other; `sft` with `lessons: rationales` then learns the two traces without the answer in the prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from editr1.config import SPEED_KEYS, Component, create, to_plain
from editr1.judge.prompts import render_score, score_texts_digest, score_traits
from editr1.judge.reading import to_trace
from editr1.schema import Candidate, Judgement, PreferencePair, Trace, derive_seed
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work, once
from editr1.training.rows import RATIONALES, Rationale, read_pairs
from editr1.vlm.base import VLM, ChatRequest, Sampling

HINTS = {
    "w": "Note: people compared this edit with another one of the same source and preferred this one. "
    "Judge it so that your reasoning explains their choice, and do not mention this note.",
    "l": "Note: people compared this edit with another one of the same source and preferred the other one. "
    "Judge it so that your reasoning explains their choice, and do not mention this note.",
}


@dataclass(frozen=True)
class Config:
    """Who writes, and how often."""

    writer: Component
    """A VLM: a stronger one as in the paper's teacher, or the student itself (the fair rival of GCPO, which has no teacher)."""
    prompt_id: str = "tv"
    """The question, without the answer what the student is trained with."""
    tell: bool = True
    """Put the answer into the prompt. False for a writer that cannot read it (the embedded one knows no such words): then the
    answer conditions by rejection alone, which draws from the writer's own distribution given the label."""
    num_traces: int = 4
    """Traces an edit."""
    max_pairs: int | None = None
    """Only the first so many pairs of the training split, as `gcpo.max_pairs` counts them."""
    unseen_share: float | None = None
    """Only pairs of tasks that SFT left out, as `gcpo.unseen_share` takes them."""
    temperature: float = 1.0
    """ours: 1, as in GCPO."""
    max_tokens: int = 1024
    seed: int = 0
    batch_size: int = 1
    """Pairs a call: more for a local model, 1 for an endpoint."""
    concurrency: int = 8
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        score_traits(self.prompt_id)  # raises for an unknown id before anything starts
        if self.num_traces < 1:
            raise ValueError(f"num_traces is {self.num_traces}, expected at least 1")


def plan(config: Config, run_dir: Path) -> list[str]:
    """What `run` would do, for people."""
    num = len(read_pairs(Run.open(run_dir, create=False), limit=config.max_pairs, unseen_share=config.unseen_share))
    told = "told the answer" if config.tell else "not told the answer"
    return [f"rationales: {num} pairs x 2 x {config.num_traces} traces by {config.writer.id}, {told}"]


def run(config: Config, run_dir: Path) -> StageCounts:
    """Writes `07_rationales`; a pair whose answer cannot be told from its traces is a dropped row."""
    store = Run.open(run_dir, {"rationales": to_plain(config)}, create=False)
    pairs = read_pairs(store, limit=config.max_pairs, unseen_share=config.unseen_share)
    settings = store.made_from(to_plain(config, without=SPEED_KEYS), "07_pairs") | score_texts_digest(config.prompt_id)
    work = Work(
        lambda: partial(explain, writer=create("vlm", config.writer), store=store, config=config),
        {"": Lane(config.batch_size, config.concurrency)},
        choices=frozenset({"not_predictable", "duplicate"}),
    )
    items = once((pair.id, pair) for pair in pairs)  # who answers twice counts by the first answer
    return store.process(RATIONALES, items, work, settings=settings, record=Rationale, engine=config.engine, total=len(pairs))


def explain(pairs: Sequence[PreferencePair], writer: VLM, store: Run, config: Config) -> list[Rationale | Drop]:
    """The rationale of each pair, or why it has none."""
    asked = [
        (pair, edit, _request(pair, edit, side, index, store, config))
        for pair in pairs
        for side, edit in (("w", pair.winner), ("l", pair.loser))
        for index in range(config.num_traces)
    ]
    replies = writer.chat([request for _, _, request in asked])
    traces = [
        # without its seconds: a table made again has the same bytes
        replace(to_trace(edit.id, pair.principles, config.prompt_id, request, reply, writer.name), seconds=0.0)
        for (pair, edit, request), reply in zip(asked, replies, strict=True)
    ]
    n = config.num_traces
    return [
        choose(pair, traces[start : start + n], traces[start + n : start + 2 * n], config.seed)
        for pair, start in zip(pairs, range(0, len(traces), 2 * n), strict=True)
    ]


def choose(pair: PreferencePair, winners: Sequence[Trace], losers: Sequence[Trace], seed: int) -> Rationale | Drop:
    """Two traces from which the answer can be told, drawn by seed among all such twos: the clearest would teach extremes."""
    scored = [[trace for trace in side if isinstance(trace.outcome, Judgement)] for side in (winners, losers)]
    if not all(scored):
        return Drop("unparsed: no trace of one edit states a judgement")
    telling = [(w, l) for w in scored[0] for l in scored[1] if _score(w) > _score(l)]  # noqa: E741
    if not telling:
        return Drop("not_predictable: no trace of the preferred edit scores higher than one of the other")
    return Rationale(pair.id, *random.Random(derive_seed(seed, "rationale", pair.id)).choice(telling))


def _score(trace: Trace) -> float:
    assert isinstance(trace.outcome, Judgement)
    return trace.outcome.score


def _request(pair: PreferencePair, edit: Candidate, side: str, index: int, store: Run, config: Config) -> ChatRequest:
    request = render_score(
        config.prompt_id,
        store.images.source_of(pair.task),
        store.images.get(edit.image),
        pair.task.instruction,
        pair.principles,
        sampling=Sampling(config.temperature, max_tokens=config.max_tokens),
        seed=derive_seed(config.seed, "rationale", pair.id, side, index),
    )
    return replace(request, parts=(*request.parts, HINTS[side])) if config.tell else request
