"""Does a larger margin mean a surer judge? Agreement with people by the difference of the two scores."""

from __future__ import annotations

import math
from collections import defaultdict

from editr1.report.gallery import judge_traces
from editr1.report.results import CategoryBars
from editr1.schema import Judgement, Trace
from editr1.store import Run

EDGES = (0.5, 1.0, 2.0, 4.0, math.inf)  # points of tau; ours: a tie of greedy scores is the first bin's business
NAMES = ("under 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 and more")


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
    scores = {key: score for key, said in traces.items() if (score := _mean_score(said)) is not None}
    credits: dict[int, list[float]] = defaultdict(list)
    for pair in run.read("07_pairs"):
        if pair.label == "same" or pair.a.id not in scores or pair.b.id not in scores:
            continue
        margin = scores[pair.winner.id] - scores[pair.loser.id]
        bin_ = next(index for index, edge in enumerate(EDGES) if abs(margin) < edge)
        credits[bin_].append(0.5 if margin == 0 else float(margin > 0))
    return credits


def _mean_score(traces: list[Trace]) -> float | None:
    scores = [trace.outcome.score for trace in traces if isinstance(trace.outcome, Judgement)]
    return sum(scores) / len(scores) if scores else None


def _cell(credits: list[float]) -> tuple[str, float] | None:
    if not credits:
        return None
    share = 100 * sum(credits) / len(credits)
    return f"{share:.1f} % of {len(credits):,}", share
