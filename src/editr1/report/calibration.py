"""Does a larger margin mean a surer judge? Agreement with people by the difference of the two scores, and how far forecasts made of
these differences are from what people said (`stats.calibration`)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from editr1.report.gallery import judge_traces
from editr1.report.results import CategoryBars
from editr1.schema import Judgement, Trace
from editr1.stats.calibration import Bin, calibrate
from editr1.store import Run

EDGES = (0.5, 1.0, 2.0, 4.0, math.inf)  # points of tau; ours: a tie of greedy scores is the first bin's business
NAMES = ("under 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 and more")
MIN_PAIRS = 20  # ours: five folds of fewer than four pairs fit noise


@dataclass(frozen=True, slots=True)
class Reliability:
    """One judge's forecasts beside what came true; each pair's forecast uses a slope that was fitted on other tasks."""

    judge: str
    summary: str
    bins: tuple[Bin, ...]


def reliabilities(run: Run) -> list[Reliability]:
    """One a trained judge that scored at least MIN_PAIRS decisive pairs."""
    found = []
    for judge, traces in (judge_traces(run, None) if run.has("07_pairs") else {}).items():
        margins = list(_margins(run, traces))
        tasks = [task for task, _ in margins]
        if len(margins) < MIN_PAIRS or len(set(tasks)) < 2:
            continue
        fit = calibrate([margin for _, margin in margins], tasks, rng=np.random.default_rng(0))
        words = [f"{fit.n:,} pairs", f"calibration error {100 * fit.ece:.1f} %", f"log loss {fit.log_loss:.3f} (a coin .693)"]
        words += [f"temperature {fit.temperature:.2f} points"] if fit.temperature else ["the gaps say nothing"]
        found.append(Reliability(judge, ", ".join(words), fit.bins))
    return found


def margin_bars(run: Run) -> CategoryBars | None:
    """Share of decisive pairs on which judge and person agree (ties half), by |score difference|; None without pairs or judges."""
    judges = judge_traces(run, None) if run.has("07_pairs") else {}
    if not judges:
        return None
    columns = {judge: _credits(run, traces) for judge, traces in judges.items()}
    rows = tuple((name, tuple(_cell(columns[judge].get(bin_, [])) for judge in columns)) for bin_, name in enumerate(NAMES))
    return CategoryBars("agreement with people, by difference of the two scores", tuple(columns), rows)


def _credits(run: Run, traces: dict[str, list[Trace]]) -> dict[int, list[float]]:
    """Bin -> credit of each pair whose two edits are scored."""
    credits: dict[int, list[float]] = defaultdict(list)
    for _, margin in _margins(run, traces):
        bin_ = next(index for index, edge in enumerate(EDGES) if abs(margin) < edge)
        credits[bin_].append(0.5 if margin == 0 else float(margin > 0))
    return credits


def _margins(run: Run, traces: dict[str, list[Trace]]) -> Iterator[tuple[str, float]]:
    """(task, preferred minus other) of each decisive pair whose two edits are scored."""
    scores = {key: score for key, said in traces.items() if (score := _mean_score(said)) is not None}
    for pair in run.read("07_pairs"):
        if pair.label != "same" and pair.a.id in scores and pair.b.id in scores:
            yield pair.task.id, scores[pair.winner.id] - scores[pair.loser.id]


def _mean_score(traces: list[Trace]) -> float | None:
    scores = [trace.outcome.score for trace in traces if isinstance(trace.outcome, Judgement)]
    return sum(scores) / len(scores) if scores else None


def _cell(credits: list[float]) -> tuple[str, float] | None:
    if not credits:
        return None
    share = 100 * sum(credits) / len(credits)
    return f"{share:.1f} % of {len(credits):,}", share
