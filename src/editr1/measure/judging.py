"""Asks a judge about every edit of a benchmark, into a table that survives a kill.

A missing or broken image is a dropped row with its reason and later counts as unscored; a dead endpoint stops the run, which
continues where it stopped when the command is given again.

`CachedVLM` never asks the same question twice: replies are stored and not judgements, so a better parser, another K or a killed run costs
nothing that was paid before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.bench.base import EditItem, JudgedEdit
from editr1.bench.judges.base import Judge
from editr1.errors import DataError, UnscoredError
from editr1.judge.item import RewardItem
from editr1.pictures import to_rgb
from editr1.schema import from_json, stable_id, to_json
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work
from editr1.store._files import open_log, read_whole_lines
from editr1.vlm.base import VLM, ChatReply, ChatRequest

MAX_UNSCORED = 0.5  # ours: above this share the numbers say more about the endpoint or the prompt than about the judge


@dataclass(frozen=True)
class Asker:
    """The function that the store runs over batches of edits."""

    judge: Judge
    seed: int
    say: Callable[[], str] = lambda: ""
    """What stands beside the progress bar."""

    def status(self) -> str:
        return self.say()

    def __call__(self, batch: Sequence[EditItem]) -> list[JudgedEdit | Drop]:
        loaded: list[RewardItem | Drop] = [self._load(item) for item in batch]
        items = [item for item in loaded if isinstance(item, RewardItem)]
        rewards = iter(self.judge.score(items, self.seed) if items else [])
        return [
            JudgedEdit.make(edit.key, next(rewards)) if isinstance(item, RewardItem) else item
            for edit, item in zip(batch, loaded, strict=True)
        ]

    def _load(self, edit: EditItem) -> RewardItem | Drop:
        try:
            source, edited = edit.load()
        except DataError as error:
            return Drop(f"image: {' '.join(str(error).split())}"[:500])
        return RewardItem(source, edited, edit.instruction, edit.principles, edit.key)


def judge_edits(
    run: Run,
    table: str,
    edits: Iterable[EditItem],
    judge: Judge,
    *,
    settings: Mapping[str, Any],
    seed: int = 0,
    lane: Lane | None = None,
    progress: bool = True,
    say: Callable[[], str] = lambda: "",
) -> tuple[dict[str, JudgedEdit], StageCounts]:
    """The judge's answer by key, continuing what an earlier process left, and how many edits had one.

    settings: what the answers depend on; a table begun with others is refused with DataError.
    """
    work = Work(make=lambda: Asker(judge, seed, say), lanes={"": lane or Lane()}, timed=True)
    items = ((edit.key, edit) for edit in edits)
    counts = run.process(
        table, items, work, settings={**settings, "seed": seed}, record=JudgedEdit, engine=Engine(progress=progress, shard_size=256)
    )
    return dict(run.keyed(table, JudgedEdit)), counts


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
        kind, data = ("text", part.encode()) if isinstance(part, str) else (_shape(part), to_rgb(part).tobytes())
        digest.update(f"\x1f{kind} {len(data)}\x1f".encode())
        digest.update(data)
    return digest.hexdigest()


def _shape(image: Image.Image) -> str:
    return f"image {image.width}x{image.height}"


def _read_line(line: str, path: Path) -> tuple[str, ChatReply]:
    try:
        row = json.loads(line)
        return row["key"], from_json(ChatReply, json.dumps(row["reply"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no cache of replies ({error}); delete it or name another --cache folder") from error
