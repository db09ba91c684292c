"""Asks a judge about every edit, or every pair, of a benchmark, into a table that survives a kill.

A missing or broken image is a dropped row with its reason and later counts as unscored; a dead endpoint stops the run, which
continues where it stopped when the command is given again.

`CachedVLM` never asks the same question twice: replies are stored and not judgements, so a better parser, another K or a killed run costs
nothing that was paid before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from editr1.bench.base import ComparisonItem, EditItem, JudgedEdit, JudgedPair
from editr1.bench.judges.base import ComparesPairs, PairItem
from editr1.errors import DataError, UnscoredError
from editr1.judge.item import NUM_FIRST, Judge, RewardItem
from editr1.pictures import to_rgb
from editr1.schema import from_json, stable_id, to_json
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work
from editr1.store._files import open_log, read_whole_lines
from editr1.vlm.base import VLM, ChatReply, ChatRequest

MAX_UNSCORED = 0.5  # ours: above this share the numbers say more about the endpoint or the prompt than about the judge


@runtime_checkable
class HasComparisons(Protocol):
    """A benchmark whose pairs can be shown to a judge of pairs."""

    def comparisons(self) -> Iterator[ComparisonItem]: ...


@dataclass(frozen=True)
class Asker:
    """Asks one judge about the edits (a judge of pairs: about the pairs) of a benchmark."""

    judge: Judge | ComparesPairs
    seed: int
    say: Callable[[], str] = lambda: ""
    """What stands beside the progress bar."""
    known: Mapping[str, JudgedEdit | JudgedPair] = field(default_factory=dict)
    """Answers that are not asked for again, by key."""

    @property
    def record(self) -> type[JudgedEdit | JudgedPair]:
        """What the answers are."""
        return JudgedPair if isinstance(self.judge, ComparesPairs) else JudgedEdit

    def status(self) -> str:
        return self.say()

    def __call__(self, batch: Sequence[Any]) -> list[JudgedEdit | JudgedPair | Drop]:
        loaded = [self.known.get(item.key) or self._load(item) for item in batch]
        items = [item for item in loaded if isinstance(item, RewardItem | PairItem)]
        answers = iter(self._ask(items) if items else [])
        return [next(answers) if isinstance(item, RewardItem | PairItem) else item for item in loaded]

    def first(self, items: Iterable[Any]) -> list[JudgedEdit | JudgedPair]:
        """The answers about the first edits (or pairs) that can be shown, at most NUM_FIRST, to look at before all are asked about."""
        shown = (item for item in items if not isinstance(self._load(item), Drop))
        return [row for row in self(list(itertools.islice(shown, NUM_FIRST))) if not isinstance(row, Drop)]

    def _ask(self, items: Sequence[Any]) -> Sequence[JudgedEdit | JudgedPair]:
        if isinstance(self.judge, ComparesPairs):
            return self.judge.compare(items, self.seed)
        return [JudgedEdit.make(item.id, reward) for item, reward in zip(items, self.judge.score(items, self.seed), strict=True)]

    def _load(self, item: EditItem | ComparisonItem) -> RewardItem | PairItem | Drop:
        try:
            if isinstance(item, ComparisonItem):
                return PairItem(item.key, *item.load(), item.instruction)
            return RewardItem(*item.load(), item.instruction, item.principles, item.key)
        except DataError as error:
            return Drop(f"image: {' '.join(str(error).split())}"[:500])


def judge_all(
    run: Run,
    table: str,
    items: Iterable[EditItem | ComparisonItem],
    asker: Asker,
    *,
    settings: Mapping[str, Any],
    lane: Lane | None = None,
) -> tuple[dict[str, Any], StageCounts]:
    """The judge's JudgedEdit (a judge of pairs: JudgedPair) by key, continuing what an earlier process left, and how many items had one.

    settings: what the answers depend on; a table begun with others is refused with DataError.
    """
    work = Work(make=lambda: asker, lanes={"": lane or Lane()}, timed=True)
    counts = run.process(
        table, ((item.key, item) for item in items), work, settings={**settings, "seed": asker.seed}, record=asker.record,
        engine=Engine(shard_size=256),
    )  # fmt: skip
    return dict(run.keyed(table, asker.record)), counts


def silence(row: JudgedEdit | JudgedPair) -> str | None:
    """Why an answer says nothing; None for one that says something."""
    if isinstance(row, JudgedPair):
        return "NO_CHOICE" if row.forward is None or row.reverse is None else None
    return (row.reason or "unscored") if row.value is None else None


def check_unscored(reasons: Sequence[str | None], counts: StageCounts, what: str, max_share: float = MAX_UNSCORED) -> None:
    """Raises UnscoredError when too large a share of what was asked has no answer for the numbers to mean anything.

    reasons: one for each answer that says nothing. counts: of the table; its dropped rows have no answer either. what: names the rows.
    """
    num_unscored = counts.num_dropped + len(reasons)
    if counts.num_in and num_unscored > max_share * counts.num_in:
        shown = ", ".join(sorted({reason for reason in reasons if reason} | set(counts.reasons)))
        raise UnscoredError(
            f"{num_unscored} of {counts.num_in} {what} are unscored (limit: share {max_share:g}; {shown}); "
            f"{'look at the dropped.jsonl of the table' if counts.num_dropped else 'look at the replies'}, or raise --max-unscored"
        )


MILLION = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Prices:
    """What an endpoint charges, in money a million tokens."""

    prompt: float = 0.0
    generated: float = 0.0


class CachedVLM:
    """Wraps a VLM. Safe to call from several threads; two that ask the same at once may both pay."""

    def __init__(self, vlm: VLM, folder: Path, prices: Prices | None = None) -> None:
        """Reads what is there. Raises DataError for a file that holds something else."""
        self._vlm = vlm
        self._prices = prices or Prices()
        self._path = folder / f"{stable_id(vlm.name)}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        read = (_read_line(line, self._path) for line in read_whole_lines(self._path))
        self._replies = {key: reply for key, reply in read if not reply.refused}
        self._lock = threading.Lock()
        self.num_hits = 0
        self.num_asked = 0
        self.num_prompt_tokens = 0
        self.num_tokens = 0

    @property
    def name(self) -> str:
        return self._vlm.name

    @property
    def cost(self) -> float:
        """Money spent on what this process asked; 0 where prices are not known."""
        return (self.num_prompt_tokens * self._prices.prompt + self.num_tokens * self._prices.generated) / MILLION

    def status(self) -> str:
        """What stands beside a progress bar."""
        text = f"{self.num_asked} asked, {self.num_hits} cached, {self.num_prompt_tokens + self.num_tokens:,} tokens"
        return text + (f", cost {self.cost:.2f}" if self._prices != Prices() else "")

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """One reply a request, in their order; only new questions are asked."""
        keys = [request_key(self.name, request) for request in requests]
        with self._lock:
            missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._replies}
            self.num_hits += sum(key in self._replies for key in keys)
        fresh = dict(zip(missing, self._vlm.chat(list(missing.values())), strict=True)) if missing else {}
        self._keep(fresh)
        return [fresh[key] if key in fresh else self._replies[key] for key in keys]

    def _keep(self, fresh: Mapping[str, ChatReply]) -> None:
        """A refusal is no answer: it is not kept, and the next run asks again."""
        replies = list(fresh.values())
        kept = {key: reply for key, reply in fresh.items() if not reply.refused}
        lines = [json.dumps({"key": key, "reply": json.loads(to_json(reply))}) for key, reply in kept.items()]
        with self._lock:
            with open_log(self._path) as file:
                file.write("".join(line + "\n" for line in lines).encode())
            self._replies.update(kept)
            self.num_asked += len(replies)
            self.num_prompt_tokens += sum(reply.num_prompt_tokens for reply in replies)
            self.num_tokens += sum(reply.num_tokens for reply in replies)


def request_key(model: str, request: ChatRequest) -> str:
    """64 hex digits of everything that a reply may depend on.

    >>> request_key("m", ChatRequest(("a", "b"))) == request_key("m", ChatRequest(("ab",)))
    False
    """
    digest = hashlib.sha256()
    sampling = dataclasses.asdict(request.sampling)
    digest.update(json.dumps([model, request.system, sampling, request.seed, request.want_logprobs], sort_keys=True).encode())
    for part in request.parts:
        kind, data = ("text", part.encode()) if isinstance(part, str) else (f"image {part.width}x{part.height}", to_rgb(part).tobytes())
        digest.update(f"\x1f{kind} {len(data)}\x1f".encode())
        digest.update(data)
    return digest.hexdigest()


def _read_line(line: str, path: Path) -> tuple[str, ChatReply]:
    try:
        row = json.loads(line)
        return row["key"], from_json(ChatReply, json.dumps(row["reply"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no cache of replies ({error}); delete it or name another --cache folder") from error
