"""What a checkpoint makes of pairs: how clearly it tells them apart before it learns, how often it is right on held-out ones meanwhile.

The training reward says how well the model beats itself on pairs it learns from; whether it judges better shows on other tasks. Seeds are
fixed, so that two looks differ by the weights alone, and no global random state is touched: looking changes no step.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback

from editr1.config import Component, create, load
from editr1.errors import DataError
from editr1.judge.reading import to_trace
from editr1.schema import Judgement, derive_seed
from editr1.stats.pairwise import accuracy, pairwise_report, to_margins
from editr1.store import Run
from editr1.training.model import whole_model
from editr1.training.options import Generation, HeldOut, Strata
from editr1.training.rows import PairRows, epochs
from editr1.training.trainer import save
from editr1.vlm.base import VLM, Sampling

BEST, RECORD = "best", "held_out.json"
STRATA = ("hard", "medium", "easy")
_PAIRS_A_CALL = 64


def _scores(
    rows: PairRows, chosen: Sequence[int], vlm: VLM, sampling: Sampling, num_traces: int, seed: Callable[[int, int], int]
) -> list[list[float | None]]:
    """tau of each of K traces a chosen row, None where Phi reads none. seed: of (row, trace)."""
    asked = [
        (index, replace(request, sampling=sampling, seed=seed(index, number)))
        for index, request in ((index, rows.request(index)) for index in chosen)
        for number in range(num_traces)
    ]
    replies = vlm.chat([request for _, request in asked])
    outcomes = [
        to_trace("", rows.pair(index).principles, rows.prompt_id, request, reply, vlm.name).outcome
        for (index, request), reply in zip(asked, replies, strict=True)
    ]
    scores = [outcome.score if isinstance(outcome, Judgement) else None for outcome in outcomes]
    return [scores[start : start + num_traces] for start in range(0, len(scores), num_traces)]


def _mean(scores: Sequence[float | None]) -> float | None:
    """Mean over the parsed traces; None = unscored."""
    parsed = [score for score in scores if score is not None]
    return statistics.fmean(parsed) if parsed else None


# --- before training ------------------------------------------------------------------------------------


def pair_gaps(rows: PairRows, path: Path, judge: Callable[[], VLM], sampling: Sampling, num_traces: int) -> list[float | None]:
    """Mean score of the preferred edit minus that of the other, one a pair of `rows.pairs`; None where a side was never read.

    Every process of a launch scores all pairs by itself: there is no process group yet, and seeds are fixed, so they agree.

    Args:
        path: JSON by pair id; what lies there is not asked again, so that a resumed run draws the same pairs.
        judge: makes the checkpoint's model, if there is something to ask.
    """
    known: dict[str, float | None] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    missing = [index for index, pair in enumerate(rows.pairs) if pair.id not in known]
    if missing:
        model, asked = judge(), replace(rows, order=missing)

        def seed(index: int, number: int) -> int:
            return derive_seed(0, "gap", asked.pair(index).id, "wl"[index % 2], number)

        for start in range(0, len(asked), 2 * _PAIRS_A_CALL):
            chosen = range(start, min(start + 2 * _PAIRS_A_CALL, len(asked)))
            means = [_mean(scores) for scores in _scores(asked, chosen, model, sampling, num_traces, seed)]
            for index, better, worse in zip(chosen[::2], means[0::2], means[1::2], strict=True):
                known[asked.pair(index).id] = None if better is None or worse is None else better - worse
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
    shares = strata.shares or ()
    rng = random.Random(seed)
    members = [[index for index, gap in enumerate(gaps) if stratum(gap, strata.edges) == number] for number in range(3)]
    for number, share in enumerate(shares):
        if share and not members[number]:
            raise DataError(f"strata.shares wants {share:g} {STRATA[number]} pairs and there is none; move strata.edges or set it to 0")
    streams = [epochs(held, rng) for held in members]
    taken = [0, 0, 0]
    order = []
    for place in range(1, num_pairs + 1):
        owed = [share * place - done for share, done in zip(shares, taken, strict=True)]
        number = owed.index(max(owed))
        taken[number] += 1
        order.append(next(streams[number]))
    return order


def not_right(rows: PairRows, gaps: Sequence[float | None]) -> PairRows:
    """The rows of pairs that are wrong, tied or unread. Raises DataError when all are right."""
    order = [index for index, gap in enumerate(gaps) if gap is None or gap <= 0]
    if not order:
        raise DataError("the start gets every watched pair right: held_out.hard has nothing to watch; raise held_out.num_pairs")
    return replace(rows, order=order)


# --- while it trains ------------------------------------------------------------------------------------


@dataclass(eq=False)
class HeldOutAccuracy(TrainerCallback):
    """Every `options.every` steps: mean of K traces a side, one point on the curve `STAGE/held_out`, and the best checkpoint so far."""

    run: Run
    rows: PairRows
    trainer: Any
    processor: Any
    sampling: Sampling
    batch_size: int
    options: HeldOut
    output: Path
    """The folder of the stage."""
    stage: str = "gcpo"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.options.every:
            return
        figures = self.measure()
        if state.is_world_process_zero:
            self.run.log(f"{self.stage}/held_out", state.global_step, figures)
        best = self.output / BEST
        so_far = json.loads((best / RECORD).read_text(encoding="utf-8"))["pair_accuracy"] if (best / RECORD).exists() else -1.0
        (better,) = broadcast_object_list([figures["pair_accuracy"] > so_far])  # one rank's eyes: a shared disk may lag
        if better:
            save(self.trainer, self.processor, best, merge=False)
        if better and state.is_world_process_zero:
            (best / RECORD).write_text(json.dumps({"step": state.global_step, **figures}, indent=1) + "\n", encoding="utf-8")

    def measure(self) -> dict[str, float]:
        """Accuracy (ties and unscored pairs at half) with its 95 % interval, tie rate and parse rate, all in [0, 1]; alike on all ranks,
        of which each scores its share."""
        accelerator = self.trainer.accelerator
        mine = range(accelerator.process_index, len(self.rows), accelerator.num_processes)
        thinking = self.trainer.chat_template_kwargs.get("enable_thinking")
        with whole_model(self.trainer) as model:
            vlm = load("vlm", "editr1.vlm.local:LocalVLM")(model, self.processor, "policy", self.batch_size, thinking)
            seed = partial(derive_seed, 0, "held_out")
            found = _scores(self.rows, mine, vlm, self.sampling, self.options.num_traces, seed)
        scores = dict(gather_object(list(zip(mine, found, strict=True))))
        return self._figures([scores[index] for index in range(len(self.rows))])

    def _figures(self, scores: Sequence[Sequence[float | None]]) -> dict[str, float]:
        means = [_mean(traces) for traces in scores]
        margins = to_margins(means[0::2], means[1::2])
        report = pairwise_report(margins)
        tasks = [self.rows.pairs[index].task.id for index in self.rows.order]
        found = accuracy(margins, tasks, credit="half")
        assert found is not None, "there are held-out pairs"
        values = {"pair_accuracy": found.value, "low": found.low, "high": found.high, "tie_rate": report.tie_rate}
        flat = [score for traces in scores for score in traces]
        parsed = sum(score is not None for score in flat) / len(flat)
        known = {name: float(value) for name, value in values.items() if value is not None}
        return {**known, "parse_rate": parsed, "num_pairs": float(report.n), "num_unscored": float(report.num_unscored)}
