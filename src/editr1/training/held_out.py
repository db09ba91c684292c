"""Pair accuracy on held-out pairs while GCPO runs, and the checkpoint that was best at it.

The training reward says how well the model beats itself on pairs it learns from; whether it judges better shows on other tasks.
Seeds are fixed, so that two looks differ by the weights alone, and no global random state is touched: looking changes no step.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from editr1.config import load
from editr1.schema import Judgement, derive_seed
from editr1.stats.pairwise import accuracy, pairwise_report, to_margins
from editr1.store import Run
from editr1.training.model import save_checkpoint
from editr1.training.options import HeldOut
from editr1.training.pair_reward import outcome_of
from editr1.training.rollout import to_request
from editr1.training.rows import PairRows
from editr1.vlm.base import ChatReply, Sampling

BEST = "best"


class HeldOutAccuracy(TrainerCallback):
    """Every `options.every` steps: mean of K traces a side, one point on the curve `gcpo/held_out`."""

    def __init__(
        self,
        run: Run,
        rows: PairRows,
        processor: Any,
        sampling: Sampling,
        batch_size: int,
        options: HeldOut,
        folder: Path,
        thinking: bool | None = None,
    ) -> None:
        self.thinking = thinking
        self.run, self.rows, self.processor = run, rows, processor
        self.sampling, self.batch_size, self.options, self.folder = sampling, batch_size, options, folder / BEST

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.options.every or not state.is_world_process_zero:
            return
        figures = self.measure(model)
        self.run.log("gcpo/held_out", state.global_step, figures)
        if figures["pair_accuracy"] > self._best():
            save_checkpoint(model, self.processor, self.folder, merge=False)
            record = {"step": state.global_step, **figures}
            (self.folder / "held_out.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def measure(self, model: Any) -> dict[str, float]:
        """Accuracy (ties and unscored pairs at half) with its 95 % interval, tie rate and parse rate, all in [0, 1]."""
        vlm = load("vlm", "editr1.vlm.local:LocalVLM")(model, self.processor, "policy", self.batch_size, self.thinking)
        rows = [self.rows[index] for index in range(len(self.rows))]
        seeds = [derive_seed(0, "held_out", row, trace) for row in range(len(rows)) for trace in range(self.options.num_traces)]
        prompts = [(_with_pictures(row), row) for row in rows for _ in range(self.options.num_traces)]
        replies = vlm.chat([to_request(messages, self.sampling, seed) for (messages, _), seed in zip(prompts, seeds, strict=True)])
        scores = [_score(reply, row) for reply, (_, row) in zip(replies, prompts, strict=True)]
        means = [_mean(scores[start : start + self.options.num_traces]) for start in range(0, len(scores), self.options.num_traces)]
        margins = to_margins(means[0::2], means[1::2])
        report = pairwise_report(margins)
        tasks = [self.rows.pairs[index].task.id for index in self.rows.order]
        found = accuracy(margins, tasks, credit="half")
        assert found is not None, "there are held-out pairs"
        values = {"pair_accuracy": found.value, "low": found.low, "high": found.high, "tie_rate": report.tie_rate}
        parsed = sum(score is not None for score in scores) / len(scores)
        known = {name: float(value) for name, value in values.items() if value is not None}
        return {**known, "parse_rate": parsed, "num_pairs": float(report.n), "num_unscored": float(report.num_unscored)}

    def _best(self) -> float:
        path = self.folder / "held_out.json"
        return float(json.loads(path.read_text(encoding="utf-8"))["pair_accuracy"]) if path.exists() else -1.0


def _with_pictures(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation of a row with its pictures in their places."""
    pictures = iter(row["images"])
    return [
        {**message, "content": [{**part, "image": next(pictures)} if part["type"] == "image" else part for part in message["content"]]}
        for message in row["prompt"]
    ]


def _score(reply: ChatReply, row: dict[str, Any]) -> float | None:
    outcome = outcome_of(reply.text, row, reply.truncated)
    return outcome.score if isinstance(outcome, Judgement) else None


def _mean(scores: Sequence[float | None]) -> float | None:
    """Mean over the parsed traces; None = unscored."""
    parsed = [score for score in scores if score is not None]
    return statistics.fmean(parsed) if parsed else None
