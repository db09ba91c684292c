"""Let a pool of VLMs verify and score every candidate, several traces each, into 04_traces (paper, section 3.1).

The pool varies model, prompt and temperature. Traces of a quadruple are adjacent, in the pool's order; quadruples of a task
are adjacent too, and the prompt begins with what they share, so that a server's prefix cache serves all edits of a task.
A trace that Phi cannot parse is a row like any other. Latencies lie beside the table, usage and cost in `usage.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter
from pathlib import Path
from threading import Lock

from editr1.config import SPEED_KEYS, Component, create, to_plain
from editr1.errors import DataError
from editr1.judge.item import Asking, asking
from editr1.judge.prompts import render_score, score_texts_digest, score_traits
from editr1.judge.reading import to_trace
from editr1.schema import ParseFailure, Quadruple, Trace, derive_seed
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work, quadruples
from editr1.vlm.base import VLM, ChatRequest, Sampling

TABLE = "04_traces"


@dataclass(frozen=True)
class Member:
    """One scorer of the pool."""

    name: str
    """Unique in the pool; part of the trace's key and seed."""
    vlm: Component
    prompt_id: str | None = None
    """None = the one that a local checkpoint was trained with (`judge.item`), else `tv`."""
    temperature: float = 0.7
    num_traces: int = 1
    top_p: float = 1.0
    max_tokens: int | None = None
    """None = as a local checkpoint was trained, else 2048."""
    batch_size: int = 1
    """Requests a call: more for a local model, 1 for an endpoint."""
    concurrency: int = 8
    """Calls in flight: 1 for a local model."""
    price_in: float = 0.0
    """Price of a million prompt tokens, in the currency of your bill."""
    price_out: float = 0.0
    """Price of a million generated tokens."""

    def __post_init__(self) -> None:
        if self.prompt_id is not None:
            score_traits(self.prompt_id)  # raises for an unknown id before anything starts
        if self.num_traces < 1 or self.batch_size < 1 or self.concurrency < 1:
            raise ValueError("num_traces, batch_size and concurrency must be at least 1")

    @cached_property
    def how(self) -> Asking:
        """How it is asked, its checkpoint's own settings included."""
        return asking(self.vlm, self.prompt_id, self.max_tokens)


@dataclass(frozen=True)
class Config:
    """The pool. paper, section 3.1: Seed-1.5-VL and Seed-1.6-VL with varied system prompts and temperatures."""

    pool: tuple[Member, ...]
    seed: int = 0
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        names = [member.name for member in self.pool]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"pool must be a list of members with different names, found {names}")


@dataclass(frozen=True, slots=True)
class Question:
    """One trace to ask for."""

    quadruple: Quadruple
    member: str
    index: int


def plan(config: Config, run_dir: Path) -> list[str]:
    """What `run` would do, for people."""
    num = Run.open(run_dir, create=False).count("03_candidates")
    lines = [f"score: {num} candidates x {_per_candidate(config)} traces = {num * _per_candidate(config)} requests"]
    for m in config.pool:
        dearest = num * m.num_traces * m.how.max_tokens * m.price_out / 1e6
        lines.append(
            f"score: {m.name}: {m.vlm.id}, prompt {m.how.prompt_id}, temperature {m.temperature:g}, "
            f"{num * m.num_traces} requests of at most {m.how.max_tokens} tokens (generated tokens cost at most {dearest:.2f})"
        )
    return lines


def run(config: Config, run_dir: Path) -> StageCounts:
    """Writes `04_traces`. Raises BackendError when a member fails beyond what the engine tolerates, DataError when nothing
    could be read."""
    known = tuple(replace(member, prompt_id=member.how.prompt_id, max_tokens=member.how.max_tokens) for member in config.pool)
    config = replace(config, pool=known)  # the table's settings say how each was asked
    store = Run.open(run_dir, {"score": to_plain(config)}, create=False)
    lanes = {member.name: Lane(member.batch_size, member.concurrency) for member in config.pool}
    work = Work(partial(Scorer, config, store), lanes, attrgetter("member"), timed=True)
    items = ((f"{q.quadruple.id}:{q.member}:{q.index}", q) for q in questions(config, store))
    total = store.count("03_candidates") * _per_candidate(config)
    settings = store.made_from(to_plain(config, without=SPEED_KEYS), "02_principles", "03_candidates")
    settings |= score_texts_digest(*(member.how.prompt_id for member in config.pool))
    counts = store.process(TABLE, items, work, settings=settings, engine=config.engine, total=total)
    used = usage(config, store)
    store.write_json(f"{TABLE}/usage.json", used)
    check_parsed(used, store)
    return counts


def check_parsed(used: Mapping[str, Mapping[str, float]], store: Run) -> None:
    """Raises DataError when no trace at all says a score: the next stages would keep nothing, and money was spent for it."""
    num, unparsed = (sum(member.get(name, 0) for member in used.values()) for name in ("traces", "unparsed"))
    if not num or num > unparsed:
        return
    codes = Counter(trace.outcome.code for trace in store.read(TABLE) if isinstance(trace.outcome, ParseFailure))
    last = next(trace.outcome.excerpt for trace in store.read(TABLE) if isinstance(trace.outcome, ParseFailure))
    code, count = codes.most_common(1)[0]
    raise DataError(
        f"none of {num:.0f} traces could be read, {count} of them for {code}; one ends with {last[-120:]!r}. Choose another prompt_id or "
        "model, or more max_tokens for TRUNCATED, and run again with --accept"
    )


def questions(config: Config, store: Run) -> Iterator[Question]:
    """Every trace to ask for, quadruple by quadruple."""
    for quadruple in quadruples(store):
        for member in config.pool:
            for index in range(member.num_traces):
                yield Question(quadruple, member.name, index)


def _per_candidate(config: Config) -> int:
    return sum(member.num_traces for member in config.pool)


class Scorer:
    """The pool at work: asks, parses, counts tokens."""

    def __init__(self, config: Config, store: Run) -> None:
        self.seed, self.store = config.seed, store
        self.members = {member.name: member for member in config.pool}
        self.vlms: dict[str, VLM] = {member.name: create("vlm", member.vlm) for member in config.pool}
        self._used: dict[str, Counter[str]] = {member.name: Counter() for member in config.pool}
        self._lock = Lock()

    def __call__(self, batch: Sequence[Question]) -> list[Trace | Drop]:
        """The traces of one member's batch."""
        member = self.members[batch[0].member]
        requests = [self._request(question, member) for question in batch]
        replies = self.vlms[member.name].chat(requests)
        model = self.vlms[member.name].name
        traces = [
            to_trace(question.quadruple.id, question.quadruple.principles, member.how.prompt_id, request, reply, model)
            for question, request, reply in zip(batch, requests, replies, strict=True)
        ]
        with self._lock:
            _count(self._used[member.name], traces)
        return list(traces)

    def _request(self, question: Question, member: Member) -> ChatRequest:
        task, candidate = question.quadruple.task, question.quadruple.candidate
        return render_score(
            member.how.prompt_id,
            self.store.images.source_of(task),
            self.store.images.get(candidate.image),
            task.instruction,
            question.quadruple.principles,
            sampling=Sampling(member.temperature, member.top_p, member.how.max_tokens),
            seed=derive_seed(self.seed, "score", candidate.id, member.name, question.index),
        )

    def status(self) -> str:
        """The running cost of this process, beside the progress bar."""
        with self._lock:
            cost = sum(_cost(self.members[name], used) for name, used in self._used.items())
            total = sum(self._used.values(), Counter())
        return f"tokens {total['tokens_in']:,} in {total['tokens_out']:,} out, cost {cost:.2f}, unparsed {total['unparsed']}"


def usage(config: Config, store: Run) -> dict[str, dict[str, float]]:
    """Traces, tokens, unparsed traces and cost of each member of the pool, from the finished table."""
    totals: dict[str, Counter[str]] = {member.name: Counter() for member in config.pool}
    for key, trace in store.keyed(TABLE):
        _count(totals[key.rsplit(":", 2)[1]], [trace])
    return {member.name: {**totals[member.name], "cost": round(_cost(member, totals[member.name]), 6)} for member in config.pool}


def _count(used: Counter[str], traces: Sequence[Trace]) -> None:
    used["traces"] += len(traces)
    used["unparsed"] += sum(isinstance(trace.outcome, ParseFailure) for trace in traces)
    used["tokens_in"] += sum(trace.num_prompt_tokens for trace in traces)
    used["tokens_out"] += sum(trace.num_tokens for trace in traces)


def _cost(member: Member, used: Counter[str]) -> float:
    return (used["tokens_in"] * member.price_in + used["tokens_out"] * member.price_out) / 1e6
