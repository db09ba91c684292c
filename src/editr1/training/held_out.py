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

from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback

from editr1.config import load
from editr1.schema import Judgement, derive_seed
from editr1.stats.pairwise import accuracy, pairwise_report, to_margins
from editr1.store import Run
from editr1.training.options import HeldOut
from editr1.training.pair_reward import outcome_of
from editr1.training.rollout import to_request, with_pictures
from editr1.training.rows import PairRows
from editr1.training.trainer import save
from editr1.training.whole_model import whole_model
from editr1.vlm.base import ChatReply, Sampling

BEST = "best"


class HeldOutAccuracy(TrainerCallback):
    """Every `options.every` steps: mean of K traces a side, one point on the curve `gcpo/held_out`. All ranks score, each its share."""

    def __init__(
        self, run: Run, rows: PairRows, trainer: Any, processor: Any, sampling: Sampling, batch_size: int, options: HeldOut, folder: Path
    ) -> None:
        self.run, self.rows, self.trainer, self.processor = run, rows, trainer, processor
        self.sampling, self.batch_size, self.options, self.folder = sampling, batch_size, options, folder / BEST

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.options.every:
            return
        figures = self.measure()
        if state.is_world_process_zero:
            self.run.log("gcpo/held_out", state.global_step, figures)
        (better,) = broadcast_object_list([figures["pair_accuracy"] > self._best()])  # one rank's eyes: a shared disk may lag
        if better:
            save(self.trainer, self.processor, self.folder, merge=False)
        if better and state.is_world_process_zero:
            record = {"step": state.global_step, **figures}
            (self.folder / "held_out.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def measure(self) -> dict[str, float]:
        """Accuracy (ties and unscored pairs at half) with its 95 % interval, tie rate and parse rate, all in [0, 1]; alike on all ranks."""
        accelerator, num_traces = self.trainer.accelerator, self.options.num_traces
        mine = range(accelerator.process_index, len(self.rows), accelerator.num_processes)
        rows = {index: self.rows[index] for index in mine}
        asked = [
            (index, to_request(with_pictures(row), self.sampling, derive_seed(0, "held_out", index, trace)))
            for index, row in rows.items()
            for trace in range(num_traces)
        ]
        with whole_model(self.trainer) as model:
            local_vlm = load("vlm", "editr1.vlm.local:LocalVLM")
            thinking = self.trainer.chat_template_kwargs.get("enable_thinking")
            replies = local_vlm(model, self.processor, "policy", self.batch_size, thinking).chat([request for _, request in asked])
        found = [(index, _score(reply, rows[index])) for (index, _), reply in zip(asked, replies, strict=True)]
        scores: dict[int, list[float | None]] = {}
        for index, score in gather_object(found):
            scores.setdefault(index, []).append(score)
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

    def _best(self) -> float:
        path = self.folder / "held_out.json"
        return float(json.loads(path.read_text(encoding="utf-8"))["pair_accuracy"]) if path.exists() else -1.0


def _score(reply: ChatReply, row: dict[str, Any]) -> float | None:
    outcome = outcome_of(reply.text, row, reply.truncated)
    return outcome.score if isinstance(outcome, Judgement) else None


def _mean(scores: Sequence[float | None]) -> float | None:
    """Mean over the parsed traces; None = unscored."""
    parsed = [score for score in scores if score is not None]
    return statistics.fmean(parsed) if parsed else None
