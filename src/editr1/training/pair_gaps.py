"""How clearly a checkpoint tells pairs apart, before it learns from them; and pairs drawn by it.

Every process of a launch scores all pairs by itself (seeds are fixed, so they agree): there is no process group yet. What was scored lies
in the folder that training writes, so that a resumed run draws the same pairs.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from editr1.config import Component, create
from editr1.errors import DataError
from editr1.schema import Judgement, derive_seed
from editr1.training.options import Generation, Strata
from editr1.training.pair_reward import outcome_of
from editr1.training.rollout import to_request, with_pictures
from editr1.training.rows import PairRows
from editr1.vlm.base import VLM, Sampling

STRATA = ("hard", "medium", "easy")
_PAIRS_A_CALL = 64


def pair_gaps(rows: PairRows, path: Path, judge: Callable[[], VLM], sampling: Sampling, num_traces: int) -> list[float | None]:
    """Mean score of the preferred edit minus that of the other, one a pair of `rows.pairs`; None where a side was never read.

    Args:
        path: JSON by pair id; what lies there is not asked again.
        judge: makes the checkpoint's model, if there is something to ask.
    """
    known: dict[str, float | None] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    missing = [index for index, pair in enumerate(rows.pairs) if pair.id not in known]
    if missing:
        model = judge()
        for start in range(0, len(missing), _PAIRS_A_CALL):
            known |= _ask(rows, missing[start : start + _PAIRS_A_CALL], model, sampling, num_traces)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.partial")
        unfinished.write_text(json.dumps(known), encoding="utf-8")
        os.replace(unfinished, path)
    return [known[pair.id] for pair in rows.pairs]


def start_gaps(
    rows: PairRows, path: Path, start: str | Path, how: Generation, num_traces: int, thinking: bool | None
) -> list[float | None]:
    """`pair_gaps` of a local checkpoint, sampled as `how` says."""
    model = Component("local", {"path": str(start), "batch_size": how.batch_size, "thinking": thinking})
    return pair_gaps(rows, path, partial(create, "vlm", model), Sampling(how.temperature, how.top_p, how.max_tokens), num_traces)


def _ask(rows: PairRows, indices: Sequence[int], model: VLM, sampling: Sampling, num_traces: int) -> dict[str, float | None]:
    asked = replace(rows, order=list(indices))
    both = [asked[place] for place in range(len(asked))]
    ids = [rows.pairs[index].id for index in indices for _ in range(2)]
    replies = model.chat(
        [
            to_request(with_pictures(row), sampling, derive_seed(0, "gap", id, row["side"], trace))
            for row, id in zip(both, ids, strict=True)
            for trace in range(num_traces)
        ]
    )
    outcomes = [outcome_of(reply.text, both[i // num_traces], reply.truncated) for i, reply in enumerate(replies)]
    scores = [outcome.score if isinstance(outcome, Judgement) else None for outcome in outcomes]
    means = [_mean(scores[start : start + num_traces]) for start in range(0, len(scores), num_traces)]
    return {
        ids[place]: None if better is None or worse is None else better - worse
        for place, (better, worse) in zip(range(0, len(ids), 2), zip(means[0::2], means[1::2], strict=True), strict=True)
    }


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def stratum(gap: float | None, edges: Sequence[float]) -> int:
    """0 hard, 1 medium, 2 easy.

    >>> [stratum(gap, (0.0, 1.0)) for gap in (None, -3.0, 0.0, 0.5, 1.0, 1.5)]
    [0, 0, 0, 1, 1, 2]
    """
    return 0 if gap is None or gap <= edges[0] else 1 if gap <= edges[1] else 2


def stratified(gaps: Sequence[float | None], num_pairs: int, strata: Strata, seed: int) -> list[int]:
    """`num_pairs` indices in training order, in which every beginning has the shares of `strata` as nearly as whole pairs can.

    Inside a stratum pairs come in random order, again and again. Raises DataError for a stratum that is wanted and empty.
    """
    shares = strata.shares
    assert shares is not None, "asked for where there are shares"
    rng = random.Random(seed)
    members = [[index for index, gap in enumerate(gaps) if stratum(gap, strata.edges) == number] for number in range(3)]
    for number, share in enumerate(shares):
        if share and not members[number]:
            raise DataError(f"strata.shares wants {share:g} {STRATA[number]} pairs and there is none; move strata.edges or set it to 0")
    streams = [_again_and_again(held, rng) for held in members]
    taken = [0, 0, 0]
    order = []
    for place in range(1, num_pairs + 1):
        owed = [share * place - done for share, done in zip(shares, taken, strict=True)]
        number = owed.index(max(owed))
        taken[number] += 1
        order.append(next(streams[number]))
    return order


def _again_and_again(members: Sequence[int], rng: random.Random) -> Iterator[int]:
    while True:
        yield from rng.sample(members, len(members))


def not_right(rows: PairRows, gaps: Sequence[float | None]) -> PairRows:
    """The rows of pairs that are wrong, tied or unread. Raises DataError when all are right."""
    order = [index for index, gap in enumerate(gaps) if gap is None or gap <= 0]
    if not order:
        raise DataError("the start gets every watched pair right: held_out.hard has nothing to watch; raise held_out.num_pairs")
    return replace(rows, order=order)
