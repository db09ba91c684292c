"""Let an inspector write gold verdicts and keep one trace a candidate, into 05_inspections (paper, section 3.1).

The inspector sees both images, the principles and the traces as hints, and writes a 0/1 with a reason for each principle.
The selector is code (`judge.inspect.choose`). A second inspector, where configured, writes `05_second` with the same prompt; a
quadruple on which the two disagree too much is dropped, and their agreement is reported in `agreement.json`. `annotators.json`
holds each annotator's accuracy against gold with its confusion by category; the report shows it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

from editr1.config import SPEED_KEYS, Component, create, to_plain
from editr1.judge.inspect import MIN_ACCURACY, AnnotatorAccuracies, AnnotatorCount, Gold, agreement, choose, parse_gold
from editr1.judge.prompts import labels, render_inspect, texts_digest
from editr1.schema import Inspection, Judgement, ParseFailure, Quadruple, Trace, derive_seed, to_json
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work, beside, with_traces
from editr1.vlm.base import VLM, ChatRequest, Sampling

TABLE, SECOND_TABLE = "05_inspections", "05_second"
SECOND_NAME = "second inspector"


@dataclass(frozen=True)
class Inspector:
    """A strong VLM that writes gold verdicts."""

    vlm: Component
    temperature: float = 0.0
    """ours: gold should not depend on luck."""
    max_tokens: int = 4096
    batch_size: int = 1
    concurrency: int = 8


@dataclass(frozen=True)
class Config:
    """Who inspects, and what a kept trace must reach."""

    inspector: Inspector
    second: Inspector | None = None
    seed: int = 0
    min_accuracy: float = MIN_ACCURACY
    """A quadruple whose best trace agrees less with gold is dropped; in [0, 1]. The paper names no value."""
    max_disagreement: float = 0.3
    """ours: with a second inspector, a quadruple is dropped when they differ on more than this share of its principles."""
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        if not 0 <= self.min_accuracy <= 1 or not 0 <= self.max_disagreement <= 1:
            raise ValueError("min_accuracy and max_disagreement are shares in [0, 1]")


@dataclass(frozen=True, slots=True)
class Case:
    """A quadruple with its traces, and the second inspector's gold where there is one."""

    quadruple: Quadruple
    traces: tuple[Trace, ...]
    second: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class SecondOpinion:
    """A row of `05_second`."""

    quadruple_id: str
    gold: tuple[bool, ...]
    reasons: tuple[str, ...]


def plan(config: Config, run_dir: Path) -> list[str]:
    """What `run` would do, for people."""
    num = Run.open(run_dir, create=False).count("03_candidates")
    second = f", second opinion by {config.second.vlm.id}" if config.second else ""
    return [f"inspect: {num} quadruples by {config.inspector.vlm.id}{second}; a kept trace agrees with at least {config.min_accuracy:.0%}"]


def run(config: Config, run_dir: Path) -> StageCounts:
    """Writes `05_inspections`; quadruples whose traces were all refused count as dropped, though their gold is kept."""
    store = Run.open(run_dir, {"inspect": to_plain(config)}, create=False)
    settings = store.made_from(to_plain(config, without=SPEED_KEYS), "02_principles", "03_candidates", "04_traces")
    settings |= texts_digest("inspect.md")
    total = store.count("03_candidates")
    if config.second is not None:
        lane = Lane(config.second.batch_size, config.second.concurrency)
        second = config.second
        work = Work(lambda: partial(opine, vlm=create("vlm", second.vlm), store=store, inspector=second, seed=config.seed), {"": lane})
        items = ((case.quadruple.id, case) for case in cases(store, with_second=False) if _readable(case))
        store.process(SECOND_TABLE, items, work, settings=settings, record=SecondOpinion, engine=config.engine, total=total)
    lane = Lane(config.inspector.batch_size, config.inspector.concurrency)
    work = Work(lambda: partial(inspect, vlm=create("vlm", config.inspector.vlm), store=store, config=config), {"": lane})
    items = ((case.quadruple.id, case) for case in cases(store, with_second=config.second is not None))
    if config.second is not None:
        settings |= store.inputs(SECOND_TABLE)
    counts = store.process(TABLE, items, work, settings=settings, engine=config.engine, total=total)
    accuracies = annotator_accuracies(store, config.second is not None)
    store.write_json(f"{TABLE}/annotators.json", json.loads(to_json(accuracies)))
    if config.second is not None:
        store.write_json(f"{TABLE}/agreement.json", inspector_agreement(accuracies))
    return counts.plus(0, Counter(_code(inspection.dropped) for inspection in store.read(TABLE) if inspection.dropped))


def cases(store: Run, with_second: bool) -> Iterator[Case]:
    """Every quadruple that has traces, in order."""
    opinions: Iterator[SecondOpinion] = store.read(SECOND_TABLE, SecondOpinion) if with_second else iter(())
    complaint = f"{store.dir}: the second opinion of {{}} belongs to no candidate; run inspect again"
    for (quadruple, traces), said in beside(with_traces(store), lambda row: row[0].id, opinions, attrgetter("quadruple_id"), complaint):
        yield Case(quadruple, tuple(traces), said[0].gold if said else None)


def _readable(case: Case) -> bool:
    """Whether any trace could be chosen: otherwise an inspector's call would be money for nothing."""
    num = len(case.quadruple.principles)
    return any(isinstance(t.outcome, Judgement) and len(t.outcome.verdicts) == num for t in case.traces)


def opine(batch: Sequence[Case], vlm: VLM, store: Run, inspector: Inspector, seed: int) -> list[SecondOpinion | Drop]:
    """The second inspector's gold about each quadruple; a Drop where its answer cannot be read."""
    golds = ask(batch, vlm, store, inspector, seed, "second")
    return [
        Drop(f"second_unparsed: {gold.code}")
        if isinstance(gold, ParseFailure)
        else SecondOpinion(case.quadruple.id, gold.verdicts, gold.reasons)
        for case, gold in zip(batch, golds, strict=True)
    ]


def inspect(batch: Sequence[Case], vlm: VLM, store: Run, config: Config) -> list[Inspection | Drop]:
    """The inspection of each quadruple; a Drop where the inspector's answer cannot be read."""
    readable = [case for case in batch if _readable(case)]
    golds = iter(ask(readable, vlm, store, config.inspector, config.seed, "inspect"))
    return [
        _select(case, next(golds), config) if _readable(case) else Inspection(case.quadruple.id, (), (), None, None, "no trace parsed")
        for case in batch
    ]


def ask(batch: Sequence[Case], vlm: VLM, store: Run, inspector: Inspector, seed: int, role: str) -> list[Gold | ParseFailure]:
    """The gold verdicts of each quadruple, or why the answer has none."""
    requests = [_request(case, store, inspector, derive_seed(seed, role, case.quadruple.id)) for case in batch]
    replies = vlm.chat(requests) if requests else []
    asked = [case.quadruple.principles for case in batch]
    return [
        parse_gold(reply.text, len(principles), labels=labels(principles), truncated=reply.truncated)
        for principles, reply in zip(asked, replies, strict=True)
    ]


def _request(case: Case, store: Run, inspector: Inspector, seed: int) -> ChatRequest:
    quadruple = case.quadruple
    return render_inspect(
        store.images.source_of(quadruple.task),
        store.images.get(quadruple.candidate.image),
        quadruple.task.instruction,
        quadruple.principles,
        [trace.text for trace in case.traces if isinstance(trace.outcome, Judgement)],
        sampling=Sampling(inspector.temperature, max_tokens=inspector.max_tokens),
        seed=seed,
    )


def _select(case: Case, gold: Gold | ParseFailure, config: Config) -> Inspection | Drop:
    if isinstance(gold, ParseFailure):
        return Drop(f"inspector_unparsed: {gold.code}")
    choice = choose([trace.outcome for trace in case.traces], gold.verdicts, config.min_accuracy)
    inspection = Inspection(case.quadruple.id, gold.verdicts, gold.reasons, choice.index, choice.accuracy, choice.reason)
    if case.second is not None:
        disagreement = 1 - agreement(gold.verdicts, case.second)
        if disagreement > config.max_disagreement:
            return replace(inspection, chosen=None, dropped=f"inspectors disagree on {disagreement:.2f} of the principles")
    return inspection


def annotator_accuracies(store: Run, with_second: bool) -> AnnotatorAccuracies:
    """Every annotator of the pool, and the second inspector, against the inspector's gold; one pass over the tables."""
    count = AnnotatorCount()
    complaint = f"{store.dir}: the inspection of {{}} belongs to no candidate; run inspect again"
    found = beside(cases(store, with_second), attrgetter("quadruple.id"), store.read(TABLE), attrgetter("quadruple_id"), complaint)
    for case, inspections in found:
        quadruple = case.quadruple
        gold_here = inspections[0].gold if inspections else ()
        count.add_traces(quadruple.task.id, quadruple.principles, gold_here, case.traces)
        if case.second is not None:
            count.add(SECOND_NAME, quadruple.task.id, quadruple.principles, gold_here, case.second)
    return count.result()


def inspector_agreement(accuracies: AnnotatorAccuracies) -> dict[str, float]:
    """Share of verdicts on which the two inspectors agree, Cohen's kappa, and how many verdicts both gave."""
    second = next((row for row in accuracies.annotators if row.name == SECOND_NAME), None)
    if second is None or second.accuracy is None:
        return {"n": 0}
    kappa = second.counts.kappa
    return {"n": second.n, "agreement": second.accuracy} | ({} if kappa is None else {"kappa": kappa})


def _code(reason: str) -> str:
    """The reason without its figures, for counting."""
    return reason.partition(" on ")[0] if reason.startswith("inspectors disagree") else reason.partition(" 0.")[0]
